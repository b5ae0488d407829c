"""Target proxies, of HTTP and of TCP, and forwarding rules: the front of a balancer, and what of it is in force.

What a call changes is configured when its operation ends, and in force :data:`SPREADS` seconds after it was asked for:
until then the data plane goes by what was before. Google names no figure: users see seconds to minutes.

Sources: Compute Engine API reference (TargetHttpProxy, TargetTcpProxy, ForwardingRule; setTarget: "of the same type as
the old target"), "Forwarding rules overview" (ports).

The sandbox's own limits, each refused as not simulated: HTTP and TCP proxies alone, rules that lead to a backend
service themselves (packets are passed through), ports from 1024 up (they are opened on loopback), addresses that are
chosen and not reserved.
"""

from __future__ import annotations

import re
from typing import Any, Final

from osvdeploy.sandbox.errors import NotSimulated
from osvdeploy.sandbox.google.compute import geography, networks
from osvdeploy.sandbox.google.compute.operations import Wire, digest, place_of
from osvdeploy.sandbox.google.compute.resources import (
    PROXY,
    RULE,
    SERVICE,
    TCP_PROXY,
    URL_MAP,
    Kind,
    begun,
    checked_labels,
    fingerprint,
    found,
    hold_to,
    in_use,
    invalid,
    its_path,
    link,
    made,
    missing,
    named,
    once,
    path_of,
    referred,
)
from osvdeploy.sandbox.services.elbv2 import LOWEST_PORT, new_address
from osvdeploy.sandbox.services.scope import Doc, Scope

IN_FORCE: Final = "compute.in-force"
"""By a forwarding rule's path: what the data plane has of it."""

REACHES: Final = "compute.reaches-data-plane"

SPREADS: Final = 20.0

RULE_BODY: Final = (
    "name description IPAddress IPProtocol portRange target loadBalancingScheme networkTier ipVersion labels network "
    "subnetwork"
)


# -------------------------------------------------------------------------------------------------------------- proxies


@once("insert")
def insert_proxy(scope: Scope, params: Wire) -> Doc:
    geography.check_place(params)
    body = params.get("body") or {}
    name = named(body)
    described = {"description": body["description"]} if "description" in body else {}
    fields = {"name": name, **described, "urlMap": _url_map(scope, params, body)}
    return begun(scope, params, PROXY, "insert", made(scope, params, PROXY, fields))


def _url_map(scope: Scope, params: Wire, body: Wire) -> str:
    if "urlMap" not in body:
        raise missing("urlMap")
    path, document = referred(scope, params, body["urlMap"], URL_MAP, "urlMap")
    if document["place"] != place_of(params):
        raise invalid("urlMap", body["urlMap"], "The URL map is in another place.")
    return link(path)


def proxy_shown(scope: Scope, document: Doc) -> Doc:
    return {**document["resource"], "fingerprint": _proxy_fingerprint(document)}


def _proxy_fingerprint(document: Doc) -> str:
    resource = document["resource"]
    return fingerprint([resource["name"], resource["urlMap"]])


def _set_url_map(scope: Scope, params: Wire, verb: str, document: Doc) -> Doc:
    document["resource"]["urlMap"] = _url_map(scope, params, params.get("body") or {})
    for rule in _rules_of(scope, its_path(PROXY, document)):
        _check_scheme(scope, PROXY, document, rule["resource"]["loadBalancingScheme"], "urlMap")
    scope.put(PROXY.store, its_path(PROXY, document), document)
    spread(scope)
    return begun(scope, params, PROXY, verb, document)


@once("setUrlMap")
def set_url_map(scope: Scope, params: Wire) -> Doc:
    return _set_url_map(scope, params, "setUrlMap", found(scope, params, PROXY, ready=True))


@once("patch")
def patch_proxy(scope: Scope, params: Wire) -> Doc:
    document = found(scope, params, PROXY, ready=True)
    hold_to(params.get("body") or {}, _proxy_fingerprint(document), needed=True)
    return _set_url_map(scope, params, "patch", document)


def refuse_proxy_deletion(scope: Scope, path: str, document: Doc) -> None:
    for rule in _rules_of(scope, path):
        raise in_use(PROXY, path, RULE, its_path(RULE, rule))


@once("insert")
def insert_tcp_proxy(scope: Scope, params: Wire) -> Doc:
    geography.check_place(params)
    body = params.get("body") or {}
    name = named(body)
    if body.get("proxyHeader", "NONE") != "NONE":
        raise NotSimulated("PROXY headers of target proxies")
    described = {"description": body["description"]} if "description" in body else {}
    fields = {"name": name, **described, "service": _tcp_service(scope, params, body), "proxyHeader": "NONE"}
    return begun(scope, params, TCP_PROXY, "insert", made(scope, params, TCP_PROXY, fields))


def _tcp_service(scope: Scope, params: Wire, body: Wire) -> str:
    if "service" not in body:
        raise missing("service")
    path, document = referred(scope, params, body["service"], SERVICE, "service")
    if document["place"] != place_of(params):
        raise invalid("service", body["service"], "The backend service is in another place.")
    if document["resource"]["protocol"] != "TCP":
        raise invalid("service", body["service"], "The protocol of the backend service must be TCP.")
    return link(path)


@once("setBackendService")
def set_backend_service(scope: Scope, params: Wire) -> Doc:
    document = found(scope, params, TCP_PROXY, ready=True)
    document["resource"]["service"] = _tcp_service(scope, params, params.get("body") or {})
    for rule in _rules_of(scope, its_path(TCP_PROXY, document)):
        _check_scheme(scope, TCP_PROXY, document, rule["resource"]["loadBalancingScheme"], "service")
    scope.put(TCP_PROXY.store, its_path(TCP_PROXY, document), document)
    spread(scope)
    return begun(scope, params, TCP_PROXY, "setBackendService", document)


def refuse_tcp_proxy_deletion(scope: Scope, path: str, document: Doc) -> None:
    for rule in _rules_of(scope, path):
        raise in_use(TCP_PROXY, path, RULE, its_path(RULE, rule))


def _rules_of(scope: Scope, proxy: str) -> list[Doc]:
    return [each for each in scope.all(RULE.store) if path_of(each["resource"]["target"]) == proxy]


# ----------------------------------------------------------------------------------------------------- forwarding rules


@once("insert")
def insert_rule(scope: Scope, params: Wire) -> Doc:
    geography.check_place(params)
    body = params.get("body") or {}
    name, scheme = named(body), body.get("loadBalancingScheme", "EXTERNAL")
    if body.get("IPProtocol", "TCP") != "TCP" or body.get("ipVersion", "IPV4") != "IPV4":
        raise NotSimulated("forwarding rules of other protocols than TCP over IPv4")
    port = _port(body)
    address = networks.taken(scope, params, body["IPAddress"], port) if body.get("IPAddress") else None
    target = _target(scope, params, body, scheme)
    labels = checked_labels(body.get("labels") or {}, "labels")
    kept = {each: body[each] for each in ("description", "network", "subnetwork") if each in body}
    fields = {
        **kept,
        "name": name,
        "IPAddress": address or new_address(scope),
        "IPProtocol": "TCP",
        "portRange": f"{port}-{port}",
        "target": target,
        "loadBalancingScheme": scheme,
        "networkTier": body.get("networkTier", "PREMIUM" if place_of(params) == "global" else "STANDARD"),
        "labels": labels,
        "labelFingerprint": fingerprint(labels),
    }
    document = made(scope, params, RULE, fields, spread="", leads=[])
    spread(scope)
    fresh = scope.get(RULE.store, its_path(RULE, document))
    assert fresh is not None
    return begun(scope, params, RULE, "insert", fresh)


def _port(body: Wire) -> int:
    text = body.get("portRange", "")
    given = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", text)
    if given is None or (given[2] or given[1]) != given[1] or not 1 <= int(given[1]) <= 65535:
        raise invalid("portRange", text, "A single port between 1 and 65535 must be specified.")
    if int(given[1]) < LOWEST_PORT:
        raise NotSimulated(
            f"the port {given[1]}: the sandbox opens forwarding rules on loopback, where only ports from {LOWEST_PORT} "
            "up need no privilege"
        )
    return int(given[1])


def _target(scope: Scope, params: Wire, body: Wire, scheme: str) -> str:
    if not body.get("target"):
        raise missing("target")
    kind = _kind_of(body["target"])
    path, proxy = referred(scope, params, body["target"], kind, "target")
    if proxy["place"] != place_of(params):
        raise invalid("target", body["target"], "The target is in another place.")
    _check_scheme(scope, kind, proxy, scheme, "target")
    return link(path)


def _kind_of(target: str) -> Kind:
    """Of which kind a proxy is, by its link."""
    for kind in (PROXY, TCP_PROXY):
        if re.search(rf"/{kind.plural}/[^/]+$", target):
            return kind
    raise NotSimulated(f"forwarding rules to {target}")


def _check_scheme(scope: Scope, kind: Kind, proxy: Doc, scheme: str, field: str) -> None:
    """A rule and the services that it leads to are of one scheme."""
    for path in _services_of(*_behind(scope, proxy)):
        service = scope.get(SERVICE.store, path)
        if service is not None and service["resource"]["loadBalancingScheme"] != scheme:
            told = f"The load balancing scheme {scheme} is not that of the backend service '{path}'."
            raise invalid(field, its_path(kind, proxy), told)


@once("setTarget")
def set_target(scope: Scope, params: Wire) -> Doc:
    document = found(scope, params, RULE, ready=True)
    scheme = document["resource"]["loadBalancingScheme"]
    before, target = document["resource"]["target"], _target(scope, params, params.get("body") or {}, scheme)
    if _kind_of(target) != _kind_of(before):
        raise invalid("target", path_of(target), "It must be of the same type as the old target.")
    document["resource"]["target"] = target
    scope.put(RULE.store, its_path(RULE, document), document)
    spread(scope)
    return begun(scope, params, RULE, "setTarget", document)


@once("setLabels")
def set_labels(scope: Scope, params: Wire) -> Doc:
    body = params.get("body") or {}
    document = found(scope, params, RULE, ready=True)
    hold_to({"fingerprint": body.get("labelFingerprint")}, document["resource"]["labelFingerprint"], needed=True)
    labels = checked_labels(body.get("labels") or {}, "labels")
    document["resource"] |= {"labels": labels, "labelFingerprint": fingerprint(labels)}
    scope.put(RULE.store, its_path(RULE, document), document)
    return begun(scope, params, RULE, "setLabels", document)


def let_go(scope: Scope, path: str, document: Doc) -> None:
    """A rule that is deleted answers no more from now on: nothing needs it."""
    scope.delete(IN_FORCE, path)


# ------------------------------------------------------------------------------------------------------------- in force


def services_in(value: Any) -> set[str]:
    """The paths of all services that a URL map names, by whatever weight."""
    found: set[str] = set()
    left = [value]
    while left:
        each = left.pop()
        if isinstance(each, dict):
            found.update(path_of(named_) for name in _NAMING if isinstance(named_ := each.get(name), str))
            left += each.values()
        elif isinstance(each, list):
            left += each
    return found


_NAMING = ("service", "defaultService", "backendService")


def services_led_to(scope: Scope) -> set[str]:
    """The paths of all services that a forwarding rule leads to."""
    return {service for rule in scope.all(RULE.store) for service in rule["leads"]}


def _led(scope: Scope, rule: Doc) -> tuple[Doc, str | None]:
    """Where a rule leads: to what :func:`_behind` its proxy is."""
    target = rule["resource"]["target"]
    proxy = scope.get(_kind_of(target).store, path_of(target))
    return ({}, None) if proxy is None else _behind(scope, proxy)


def _behind(scope: Scope, proxy: Doc) -> tuple[Doc, str | None]:
    """A proxy's URL map, or the path of its one backend service."""
    resource = proxy["resource"]
    if "service" in resource:
        return {}, path_of(resource["service"])
    url_map = scope.get(URL_MAP.store, path_of(resource["urlMap"]))
    return ({} if url_map is None else dict(url_map["resource"])), None


def _services_of(url_map: Doc, service: str | None) -> set[str]:
    return services_in(url_map) if service is None else {service}


def spread(scope: Scope) -> None:
    """What was changed is on its way to the data plane: of each rule for which something did, all that it has now."""
    for rule in scope.all(RULE.store):
        path, (url_map, service) = its_path(RULE, rule), _led(scope, rule)
        leads = sorted(_services_of(url_map, service))
        services = {each: scope.get(SERVICE.store, each) for each in leads}
        state = {
            "map": url_map,
            "service": service,
            "services": {
                each: {name: kept["resource"].get(name) for name in ("backends", "portName", "customResponseHeaders")}
                for each, kept in services.items()
                if kept is not None
            },
        }
        sent = digest(state)
        if rule["spread"] != sent:
            scope.put(RULE.store, path, {**rule, "spread": sent, "leads": leads})
            scope.later(SPREADS, REACHES, {"rule": path, "id": rule["resource"]["id"], **state})


def reached(scope: Scope, payload: Wire) -> None:
    rule = scope.get(RULE.store, payload["rule"])
    if rule is not None and rule["ready"] and rule["resource"]["id"] == payload["id"]:
        scope.put(IN_FORCE, payload["rule"], dict(payload))
