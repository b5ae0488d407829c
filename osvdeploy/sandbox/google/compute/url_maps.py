"""URL maps: what they may hold, and their calls. What a request does by one is in :mod:`.routing`.

Sources: Compute Engine API reference (UrlMap and what it is made of), "URL maps overview" and "Traffic management
overview" (what the classic balancer lacks), "Custom headers" (names that cannot be).

The sandbox's own limits, each refused as not simulated: redirects, rewrites, retries, mirroring, matches by regular
expression, template, query or metadata, tests.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from osvdeploy.sandbox.errors import ApiError
from osvdeploy.sandbox.google.compute import fronts, geography
from osvdeploy.sandbox.google.compute.operations import Wire
from osvdeploy.sandbox.google.compute.resources import (
    LONGEST_DESCRIPTION,
    PROXY,
    SERVICE,
    URL_MAP,
    begun,
    changers,
    completed,
    fingerprint,
    found,
    hold_to,
    in_use,
    invalid,
    its_path,
    link,
    made,
    merged,
    named,
    once,
    path_of,
    referred,
)
from osvdeploy.sandbox.google.compute.routing import CLASSIC
from osvdeploy.sandbox.services.scope import Doc, Scope

HEAVIEST: Final = 1000
"""The greatest weight."""

LONGEST_IN_RULE: Final = 1024
"""Characters of a route rule's description, and of a path that it matches."""

_HEADERS = "requestHeadersToAdd requestHeadersToRemove responseHeadersToAdd responseHeadersToRemove"
_ADDED = "headerName headerValue replace"


def _below(prefix: str, names: str) -> str:
    return " ".join(f"{prefix}.{name}" for name in names.split())


def _header_action(prefix: str) -> str:
    return " ".join(
        f"{prefix}.headerAction.{each}" if "Remove" in each else _below(f"{prefix}.headerAction.{each}", _ADDED)
        for each in _HEADERS.split()
    )


def _route_action(prefix: str) -> str:
    weighted = f"{prefix}.weightedBackendServices"
    return f"{weighted}.backendService {weighted}.weight {_header_action(weighted)}"


_MATCH = "pathMatchers.routeRules.matchRules"

BODY: Final = " ".join(
    [
        "name description fingerprint defaultService hostRules.hosts hostRules.pathMatcher hostRules.description",
        _header_action("x").replace("x.", ""),
        _route_action("defaultRouteAction"),
        "pathMatchers.name pathMatchers.description pathMatchers.defaultService",
        _header_action("pathMatchers"),
        _route_action("pathMatchers.defaultRouteAction"),
        "pathMatchers.pathRules.paths pathMatchers.pathRules.service",
        _route_action("pathMatchers.pathRules.routeAction"),
        "pathMatchers.routeRules.priority pathMatchers.routeRules.description pathMatchers.routeRules.service",
        _header_action("pathMatchers.routeRules"),
        _route_action("pathMatchers.routeRules.routeAction"),
        _below(_MATCH, "prefixMatch fullPathMatch ignoreCase"),
        _below(
            f"{_MATCH}.headerMatches",
            "headerName exactMatch prefixMatch suffixMatch presentMatch invertMatch rangeMatch.rangeStart "
            "rangeMatch.rangeEnd",
        ),
    ]
)

_NAME = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_HOST = re.compile(r"\*|(?:\*[-.])?[a-z0-9]([a-z0-9.-]*[a-z0-9])?(?::\d+)?", re.IGNORECASE)
_HEADER_MATCHES = ("exactMatch", "prefixMatch", "suffixMatch", "presentMatch", "rangeMatch")
_RESERVED = frozenset(
    {"connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)


# ----------------------------------------------------------------------------------------------------------- validation

Refer = Callable[[str, str], str]
"""A link in a request and its field -> the link as it is kept. Raises ApiError."""


def _checked(scope: Scope, params: Wire, body: Wire) -> Doc:
    """A URL map as it is kept: links resolved, all held to Google's rules. Raises ApiError."""
    schemes: set[str] = set()

    def refer(text: str, field: str) -> str:
        path, document = referred(scope, params, text, SERVICE, field)
        place = f"regions/{params['region']}" if "region" in params else "global"
        if document["place"] != place:
            raise invalid(field, text, "The backend service is in another place than the URL map.")
        if (protocol := document["resource"]["protocol"]) == "TCP":
            raise invalid(field, text, f"A URL map cannot lead to a backend service of the protocol {protocol}.")
        schemes.add(document["resource"]["loadBalancingScheme"])
        return link(path)

    _check_description(body, "description")
    kept = {name: value for name, value in body.items() if name != "fingerprint"}
    checked: Doc = {**kept, **_level(body, "", refer)}
    _header_actions(body, "headerAction")
    if "pathMatchers" in body:
        names = [each.get("name", "") for each in body["pathMatchers"]]
        if len(set(names)) < len(names):
            raise invalid("pathMatchers", ", ".join(names), "Path matchers must have names of their own.")
        checked["pathMatchers"] = [
            _matcher(each, f"pathMatchers[{n}]", refer) for n, each in enumerate(body["pathMatchers"])
        ]
    _check_hosts(body)
    if len(schemes) > 1:
        told = f"Backend services of different load balancing schemes: {', '.join(sorted(schemes))}."
        raise invalid("pathMatchers", "", told)
    if CLASSIC in schemes:
        _check_classic(checked)
    return checked


def _check_description(body: Wire, field: str, longest: int = LONGEST_DESCRIPTION) -> None:
    if len(str(body.get("description") or "")) > longest:
        raise invalid(field, "", f"Must be at most {longest} characters long.")


def _check_hosts(body: Wire) -> None:
    matchers = {each.get("name") for each in body.get("pathMatchers") or []}
    seen: set[str] = set()
    for number, rule in enumerate(body.get("hostRules") or []):
        field = f"hostRules[{number}]"
        _check_description(rule, f"{field}.description")
        if not rule.get("hosts"):
            raise invalid(f"{field}.hosts", "", "At least one host must be specified.")
        for host in rule["hosts"]:
            if not _HOST.fullmatch(host):
                raise invalid(f"{field}.hosts", host, "Not a valid host name or pattern.")
            if host.lower() in seen:
                raise invalid(f"{field}.hosts", host, "Duplicate host.")
            seen.add(host.lower())
        if rule.get("pathMatcher") not in matchers:
            raise invalid(f"{field}.pathMatcher", rule.get("pathMatcher"), "The path matcher does not exist.")


def _matcher(given: Wire, field: str, refer: Refer) -> Doc:
    name = given.get("name", "")
    if not _NAME.fullmatch(name):
        raise invalid(f"{field}.name", name, "Must be a match of regex '(?:[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?)'")
    _check_description(given, f"{field}.description")
    _header_actions(given, f"{field}.headerAction")
    if given.get("pathRules") and given.get("routeRules"):
        raise invalid(field, name, "Only one of pathRules and routeRules can be specified.")
    checked: Doc = {**given, **_level(given, field, refer)}
    if "pathRules" in given:
        checked["pathRules"] = [
            _path_rule(e, f"{field}.pathRules[{n}]", refer) for n, e in enumerate(given["pathRules"])
        ]
        paths = [path for each in given["pathRules"] for path in each["paths"]]
        if len(set(paths)) < len(paths):
            raise invalid(f"{field}.pathRules", ", ".join(paths), "Duplicate paths.")
    if "routeRules" in given:
        rules = [_route_rule(e, f"{field}.routeRules[{n}]", refer) for n, e in enumerate(given["routeRules"])]
        priorities = [each["priority"] for each in rules]
        if len(set(priorities)) < len(priorities):
            raise invalid(f"{field}.routeRules", priorities, "Priorities of route rules must be unique.")
        checked["routeRules"] = rules
    return checked


def _level(given: Wire, field: str, refer: Refer) -> Doc:
    """The default of a map or a path matcher."""
    at = f"{field}." if field else ""
    return _led(given, "defaultService", "defaultRouteAction", at, refer)


def _led(given: Wire, service: str, action: str, at: str, refer: Refer) -> Doc:
    """Where requests are sent: to one service, or to several by weight. Exactly one of both."""
    weighted = (given.get(action) or {}).get("weightedBackendServices") or []
    if bool(given.get(service)) == bool(weighted):
        told = f"Exactly one of {service} and {action}.weightedBackendServices must be specified."
        raise invalid(f"{at}{service}", given.get(service), told)
    if given.get(service):
        return {service: refer(given[service], f"{at}{service}")}
    field, checked = f"{at}{action}.weightedBackendServices", []
    for number, each in enumerate(weighted):
        own, weight = f"{field}[{number}]", each.get("weight", 0)
        if not 0 <= weight <= HEAVIEST:
            raise invalid(f"{own}.weight", weight, f"Must be between 0 and {HEAVIEST}.")
        _header_actions(each, f"{own}.headerAction")
        path = refer(each.get("backendService", ""), f"{own}.backendService")
        checked.append({**each, "weight": weight, "backendService": path})
    if not sum(each["weight"] for each in checked):
        raise invalid(field, 0, "The sum of all weights must be greater than 0.")
    if len({each["backendService"] for each in checked}) < len(checked):
        raise invalid(field, len(checked), "Duplicate backend services.")
    return {action: {**given[action], "weightedBackendServices": checked}}


def _path_rule(given: Wire, field: str, refer: Refer) -> Doc:
    for path in given.get("paths") or []:
        if not re.fullmatch(r"/[^?#*]*|/(?:[^?#*]*/)?\*", path):
            raise invalid(
                f"{field}.paths", path, "A path must begin with '/' and may have one '*', at its end after '/'."
            )
    if not given.get("paths"):
        raise invalid(f"{field}.paths", "", "At least one path must be specified.")
    return {**given, **_led(given, "service", "routeAction", f"{field}.", refer)}


def _route_rule(given: Wire, field: str, refer: Refer) -> Doc:
    if "priority" not in given or given["priority"] < 0:
        raise invalid(f"{field}.priority", given.get("priority"), "Must be between 0 and 2147483647.")
    _check_description(given, f"{field}.description", LONGEST_IN_RULE)
    _header_actions(given, f"{field}.headerAction")
    if not given.get("matchRules"):
        raise invalid(f"{field}.matchRules", "", "At least one match rule must be specified.")
    for number, match in enumerate(given["matchRules"]):
        own = f"{field}.matchRules[{number}]"
        if len({"prefixMatch", "fullPathMatch"} & match.keys()) != 1:
            raise invalid(own, "", "Exactly one of prefixMatch and fullPathMatch must be specified.")
        path = match.get("prefixMatch") or match.get("fullPathMatch") or ""
        if not path.startswith("/"):
            raise invalid(own, path, "It must begin with '/'.")
        if len(path) > LONGEST_IN_RULE:
            raise invalid(own, path, f"Must be at most {LONGEST_IN_RULE} characters long.")
        for index, header in enumerate(match.get("headerMatches") or []):
            _check_header_match(header, f"{own}.headerMatches[{index}]")
    return {**given, **_led(given, "service", "routeAction", f"{field}.", refer)}


def _check_header_match(given: Wire, field: str) -> None:
    name = given.get("headerName", "")
    if not _TOKEN.fullmatch(name.removeprefix(":")):
        raise invalid(f"{field}.headerName", name, "Not the name of a header.")
    if len(set(_HEADER_MATCHES) & given.keys()) != 1:
        raise invalid(field, name, f"Exactly one of {', '.join(_HEADER_MATCHES)} must be specified.")
    if given.get("rangeMatch") is not None and not {"rangeStart", "rangeEnd"} <= given["rangeMatch"].keys():
        raise invalid(f"{field}.rangeMatch", "", "rangeStart and rangeEnd must be specified.")


def _header_actions(given: Wire, field: str) -> None:
    action: Mapping[str, Any] = given.get("headerAction") or {}
    for which in ("requestHeadersToAdd", "responseHeadersToAdd"):
        for number, each in enumerate(action.get(which) or []):
            _check_header(each.get("headerName", ""), f"{field}.{which}[{number}].headerName")
            value = each.get("headerValue")
            if not value or not re.fullmatch(r"[\t -~]*", value):
                raise invalid(f"{field}.{which}[{number}].headerValue", value, "A value of ASCII must be specified.")
    for which in ("requestHeadersToRemove", "responseHeadersToRemove"):
        for number, name in enumerate(action.get(which) or []):
            _check_header(name, f"{field}.{which}[{number}]")


def _check_header(name: str, field: str) -> None:
    if not _TOKEN.fullmatch(name) or name.lower() in _RESERVED or name.lower().startswith(("x-google", "x-goog-")):
        raise invalid(field, name, "Not the name of a header that can be changed.")


def _check_classic(checked: Wire) -> None:
    """The classic balancer sends to one service, changes no header, and takes none for a number."""
    for field, value in _members(checked, ""):
        if value and field.rpartition(".")[2] in ("weightedBackendServices", "headerAction", "rangeMatch"):
            raise invalid(field, "", "It is not supported for load balancing scheme EXTERNAL.")


def _members(value: Any, field: str) -> Iterable[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, each in value.items():
            at = f"{field}.{name}" if field else name
            yield at, each
            yield from _members(each, at)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for number, each in enumerate(value):
            yield from _members(each, f"{field}[{number}]")


# ---------------------------------------------------------------------------------------------------------------- calls


def shown(scope: Scope, document: Doc) -> Doc:
    resource = document["resource"]
    return {**resource, "fingerprint": _fingerprint(resource)}


def _fingerprint(resource: Wire) -> str:
    return fingerprint({name: value for name, value in resource.items() if name not in ("id", "creationTimestamp")})


@once("insert")
def insert(scope: Scope, params: Wire) -> Doc:
    geography.check_place(params)
    body = params.get("body") or {}
    name = named(body)
    document = made(scope, params, URL_MAP, {**_checked(scope, params, body), "name": name})
    return begun(scope, params, URL_MAP, "insert", document)


def _change(scope: Scope, params: Wire, verb: str) -> Doc:
    body = params.get("body") or {}
    document = found(scope, params, URL_MAP, ready=True)
    resource = document["resource"]
    hold_to(body, _fingerprint(resource), needed=True)
    own = {name: resource[name] for name in ("kind", "id", "creationTimestamp", "name")}
    before = completed(params, {name: value for name, value in resource.items() if name not in own})
    given = merged(before, body) if verb == "patch" else body
    if given.get("name", own["name"]) != own["name"]:
        raise invalid("name", given["name"], "The name cannot be changed.")
    document["resource"] = {**_checked(scope, params, given), **own}
    scope.put(URL_MAP.store, its_path(URL_MAP, document), document)
    fronts.spread(scope)
    return begun(scope, params, URL_MAP, verb, document)


patch, update = changers(_change)


def validate(scope: Scope, params: Wire) -> Doc:
    """Whether a map could be, without making it."""
    body = (params.get("body") or {}).get("resource") or {}
    try:
        named(body)
        _checked(scope, params, body)
    except ApiError as refused:
        if refused.code == "NotSimulated":
            raise
        return {"result": {"loadSucceeded": False, "loadErrors": [refused.message]}}
    return {"result": {"loadSucceeded": True, "testPassed": True}}


def refuse_deletion(scope: Scope, path: str, document: Doc) -> None:
    for proxy in scope.all(PROXY.store):
        if path_of(proxy["resource"]["urlMap"]) == path:
            raise in_use(URL_MAP, path, PROXY, its_path(PROXY, proxy))
