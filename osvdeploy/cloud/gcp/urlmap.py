"""A URL map's rules, as values: which are a route's, and the map with others in their place. No call is made here.

A host leads to a path matcher, and there route rules are tried by their priorities: a route's rules stand in the
matcher that its host leads to already, or in one of our own, named by the host, which answers all that no rule takes as
the map did before. A host has one matcher, so services of one host share it.

Sources: Compute Engine API reference (urlMaps: HostRule, PathMatcher, HttpRouteRule, HttpRouteRuleMatch,
WeightedBackendService, HttpHeaderAction); load balancing guide, "URL maps overview".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from osvdeploy.cloud.gcp.marks import EPOCH, marks_of, short, written
from osvdeploy.cloud.gcp.scope import last, link_of
from osvdeploy.cloud.gcp.session import Document
from osvdeploy.cloud.interfaces import ReleaseId, Route, Slot
from osvdeploy.cloud.tags import LEFT, SCHEMA, SCHEMA_VERSION, SERVICE, SLOT, is_ours
from osvdeploy.digests import sha256
from osvdeploy.errors import NotOurs, UsageError

RELEASE_HEADER = "x-osvdeploy-release"
"""Header that the balancer adds to every answer: the release of the slot that it comes from."""

PLACES: Mapping[Slot | None, int] = {None: 0, Slot.BLUE: -2, Slot.GREEN: -1}
"""Where a route's rules stand, from its priority: its own, and the previews of its slots."""

_DEFAULTS = ("defaultService", "defaultRouteAction", "defaultUrlRedirect", "defaultCustomErrorResponsePolicy")
_EVERY_HOST = "*"


def matcher_of(found: Document, route: Route) -> Document | None:
    """The path matcher that the route's host leads to."""
    host = (route.host or _EVERY_HOST).lower()
    for rule in found.get("hostRules", []):
        if host in (each.lower() for each in rule.get("hosts", [])):
            name = rule.get("pathMatcher")
            return next((each for each in found.get("pathMatchers", []) if each.get("name") == name), None)
    return None


def rules_of(found: Document, route: Route) -> dict[Slot | None, Document]:
    """The route's rules by what they are for. Raises :class:`~osvdeploy.errors.NotOurs` where another's stands in one
    of their places."""
    matcher = matcher_of(found, route)
    if matcher is None:
        return {}
    by_priority = {int(rule.get("priority", 0)): rule for rule in matcher.get("routeRules", [])}
    held = {
        place: by_priority[route.priority + offset]
        for place, offset in PLACES.items()
        if route.priority + offset in by_priority
    }
    for rule in held.values():
        marks = marks_of(rule)
        if not is_ours(marks) or marks.get(SERVICE) != route.service:
            owner = f"belongs to {marks.get(SERVICE)}" if is_ours(marks) else "was not made by us"
            raise NotOurs(
                f"the rule at priority {rule.get('priority', 0)} of path matcher {matcher['name']} {owner}",
                hint=f"remove that rule, or choose `route.priority` so that {route.service} has three free in a row: "
                "the two below it are for previews",
            )
    return held


def rule_name(found: Document, route: Route, rule: Document) -> str:
    """A rule for the record: its matcher and its priority."""
    matcher = matcher_of(found, route)
    return f"{matcher['name'] if matcher else '?'}/{rule.get('priority', 0)}"


def with_rules(found: Document, route: Route, rules: Mapping[Slot | None, Document]) -> Document:
    """What to write so that these rules stand, each in its place, and everything else as it is.

    Raises :class:`~osvdeploy.errors.UsageError` where the host's own matcher has rules of another form.
    """
    hosts, matchers = deepcopy(found.get("hostRules", [])), deepcopy(found.get("pathMatchers", []))
    there = matcher_of(found, route)
    if there is None:
        host = (route.host or _EVERY_HOST).lower()
        matcher: Document = {
            "name": matcher_name(route),
            "description": written({SCHEMA: SCHEMA_VERSION}),
            "routeRules": [],
            **{key: deepcopy(found[key]) for key in _DEFAULTS if key in found},
        }
        matchers.append(matcher)
        hosts.append({"hosts": [host], "pathMatcher": matcher["name"], "description": written({SCHEMA: "1"})})
    else:
        matcher = next(each for each in matchers if each["name"] == there["name"])
        if matcher.get("pathRules"):
            raise UsageError(
                f"URL map {found.get('name')}: the path matcher {matcher['name']} of {route.host or 'every host'} has "
                "pathRules, beside which route rules cannot stand",
                hint="write its pathRules as routeRules, or give the service a host of its own",
            )
    taken = {route.priority + PLACES[place] for place in rules}
    kept = [rule for rule in matcher.get("routeRules", []) if int(rule.get("priority", 0)) not in taken]
    # In the order of their priorities, as Google asks for.
    matcher["routeRules"] = sorted([*kept, *rules.values()], key=lambda rule: int(rule.get("priority", 0)))
    return {"hostRules": hosts, "pathMatchers": matchers}


def without_rules(found: Document, route: Route, places: Collection[Slot | None] = tuple(PLACES)) -> Document | None:
    """What to write so that none of the route's rules in these places is left, None where there is none. A matcher of
    ours that is empty then goes, and its host with it."""
    held = {place: rule for place, rule in rules_of(found, route).items() if place in places}
    there = matcher_of(found, route)
    if not held or there is None:
        return None
    hosts, matchers = deepcopy(found.get("hostRules", [])), deepcopy(found.get("pathMatchers", []))
    matcher = next(each for each in matchers if each["name"] == there["name"])
    gone = {int(rule.get("priority", 0)) for rule in held.values()}
    matcher["routeRules"] = [rule for rule in matcher.get("routeRules", []) if int(rule.get("priority", 0)) not in gone]
    if not matcher["routeRules"] and is_ours(marks_of(matcher)):
        matchers = [each for each in matchers if each["name"] != matcher["name"]]
        hosts = [each for each in hosts if each.get("pathMatcher") != matcher["name"]]
    return {"hostRules": hosts, "pathMatchers": matchers}


def matcher_name(route: Route) -> str:
    """Of a matcher of ours: by its host, which whoever comes to the same host finds."""
    return f"osvd-{sha256((route.host or _EVERY_HOST).lower().encode())[:10]}"


def rule_of(
    route: Route,
    place: Slot | None,
    sends: Sequence[tuple[str, int, ReleaseId | None]],
    epoch: int,
    left: ReleaseId | None = None,
) -> Document:
    """A rule of the route's: for a slot's preview, or (None) for its traffic. ``sends`` are addresses of backend
    services, their weights, and the releases to be named in their answers; ``left`` is noted on it."""
    marks = {**short(route.tags), EPOCH: str(epoch), **({LEFT: left} if left is not None else {})}
    match: Document = _path_match(route)
    if place is not None:
        marks[SLOT] = place.value
        match["headerMatches"] = [{"headerName": route.preview_header, "exactMatch": place.value}]
    return {
        "priority": route.priority + PLACES[place],
        "description": written(marks),
        "matchRules": [match],
        "routeAction": {
            "weightedBackendServices": [
                {"backendService": address, "weight": weight, **_naming(release)} for address, weight, release in sends
            ]
        },
    }


def under(rule: Document, epoch: int) -> Document:
    """A rule of ours as the holder of this epoch would have written it."""
    return {**deepcopy(rule), "description": written({**marks_of(rule), EPOCH: str(epoch)})}


def noting(rule: Document, epoch: int, left: ReleaseId | None) -> Document:
    """A rule of ours with a note of what was left, or without any."""
    marks = {key: value for key, value in marks_of(rule).items() if key != LEFT}
    noted = {LEFT: left} if left is not None else {}
    return {**deepcopy(rule), "description": written({**marks, **noted, EPOCH: str(epoch)})}


def left_of(rule: Document | None) -> ReleaseId | None:
    """What a rule notes as left."""
    left = marks_of(rule).get(LEFT) if rule is not None else None
    return ReleaseId(left) if left is not None else None


@dataclass(frozen=True, slots=True)
class FoundRoute:
    """What a URL map alone tells of a route: where its rules stand, and what they ask for."""

    priority: int
    host: str | None
    path: str | None
    preview_header: str
    sends: tuple[str, ...]


def routes_of(found: Document, service: str) -> list[FoundRoute]:
    """The routes of a service that have a rule of their own in a URL map."""
    routes = []
    for matcher in found.get("pathMatchers", []):
        hosts = [
            host
            for rule in found.get("hostRules", [])
            if rule.get("pathMatcher") == matcher.get("name")
            for host in rule.get("hosts", [])
        ]
        ours = [
            rule
            for rule in matcher.get("routeRules", [])
            if is_ours(marks := marks_of(rule)) and marks.get(SERVICE) == service
        ]
        headers = {int(rule.get("priority", 0)): _asked_header(rule) for rule in ours}
        for rule in ours:
            priority = int(rule.get("priority", 0))
            if SLOT in marks_of(rule):
                continue
            preview = (headers.get(priority + offset, "") for offset in PLACES.values())
            host = next((each for each in hosts if each != _EVERY_HOST), None)
            routes.append(
                FoundRoute(priority, host, _path_of(rule), next(filter(None, preview), ""), tuple(sent(rule)))
            )
    return routes


def _asked_header(rule: Document) -> str:
    asked = [each for match in rule.get("matchRules", []) for each in match.get("headerMatches", [])]
    return str(asked[0].get("headerName", "")) if asked else ""


def _path_of(rule: Document) -> str | None:
    """The path that a rule of ours asks for, as a spec writes it."""
    match = (rule.get("matchRules") or [{}])[0]
    return f"{match['prefixMatch']}*" if "prefixMatch" in match else match.get("fullPathMatch")


def sent(rule: Document) -> dict[str, tuple[int, str | None]]:
    """By backend service (its link): the weight that a rule gives it, and the release that is named in its answers."""
    found: dict[str, tuple[int, str | None]] = {}
    for each in rule.get("routeAction", {}).get("weightedBackendServices", []):
        added = each.get("headerAction", {}).get("responseHeadersToAdd", [])
        named = next((one["headerValue"] for one in added if one["headerName"].lower() == RELEASE_HEADER), None)
        found[link_of(each["backendService"])] = int(each.get("weight", 0)), named
    return found


def previews(rule: Document, route: Route, slot: Slot) -> bool:
    """Whether a preview rule takes what the route says."""
    wanted = rule_of(route, slot, (), 0)["matchRules"]
    return bool(_plain(rule.get("matchRules", [])) == _plain(wanted))


def changed(rule: Document, route: Route, own: Collection[str]) -> str:
    """What of the rule for the route's traffic is not as :func:`rule_of` writes it, as far as clients notice, beside
    the weights of the slots; ``own`` are the names of their backend services. One that has no weight is nothing, and
    neither are a time limit, retries, and requests that the rule takes beside the route's."""
    found, action = list[str](), rule.get("routeAction") or {}
    if rule.get("urlRedirect"):
        found.append("redirects")
    if rule.get("service"):
        found.append(f"sends all to {last(rule['service'])}")
    found += [told for key, told in _NOTICED.items() if action.get(key)]
    weights = {last(link): weight for link, (weight, _) in sent(rule).items()}
    total = sum(weights.values())
    found += [f"sends {weight} of {total} to {name}" for name, weight in weights.items() if weight and name not in own]
    if not takes(rule, route):
        found.append(f"takes {_in_words(asks(rule))}, and not {_in_words([_path_match(route)])}")
    return "; ".join(found)


def takes(rule: Document, route: Route) -> bool:
    """Whether a rule takes the route's requests, whatever else it takes."""
    return _plain(_path_match(route)) in asks(rule)


_NOTICED = {"urlRewrite": "rewrites requests", "faultInjectionPolicy": "answers some requests with faults"}
"""What of a route action clients notice, in words."""


def _in_words(matches: Any) -> str:
    told = []
    for match in matches:
        every = match == {"prefixMatch": "/"}
        told.append("every request" if every else " ".join(f"{key} {value}" for key, value in match.items()))
    return " or ".join(told) or "nothing"


def epoch_of(held: Mapping[Slot | None, Document]) -> int:
    """The highest epoch that wrote one of these rules."""
    told = [marks_of(rule).get(EPOCH, "0") for rule in held.values()]
    return max((int(each) for each in told if each.isdigit()), default=0)


def _naming(release: ReleaseId | None) -> Document:
    if release is None:
        return {}
    # Replaced: what the program says under this name is not what the balancer knows.
    header = {"headerName": RELEASE_HEADER, "headerValue": release, "replace": True}
    return {"headerAction": {"responseHeadersToAdd": [header]}}


def asks(rule: Document) -> Any:
    """What a rule asks for, in a form that can be compared."""
    return _plain(rule.get("matchRules", []))


def _path_match(route: Route) -> Document:
    path = route.path or "/*"
    if path.endswith("*") and not set("*?") & set(path[:-1]):
        return {"prefixMatch": path[:-1]}
    if not set("*?") & set(path):
        return {"fullPathMatch": path}
    raise UsageError(
        f"route.path {path!r}: a URL map takes a whole path, or one that ends in *",
        hint='path = "/api/*"',
    )


def _plain(rules: Any) -> Any:
    """Match rules without what an answer adds: fields that are false or empty."""
    if isinstance(rules, list):
        return [_plain(each) for each in rules]
    if isinstance(rules, dict):
        return {key: _plain(value) for key, value in rules.items() if value not in (None, False, "", [])}
    return rules
