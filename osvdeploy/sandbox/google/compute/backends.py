"""Backend services: groups of machines behind a balancer, checked for their health.

Sources: Compute Engine API reference (BackendService, Backend, getHealth), "Backend services overview", "Custom
headers". A service is checked only while a forwarding rule leads to it, by any weight: until then getHealth has nothing
to tell.

The sandbox's own limits, each refused as not simulated: HTTP, and TCP behind a proxy; managed instance groups alone, no
session affinity, CDN, IAP or other policies; machines are drawn evenly, whatever a group's rates.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from osvdeploy.sandbox import health
from osvdeploy.sandbox.dataplane import Target, TargetState
from osvdeploy.sandbox.errors import NotSimulated
from osvdeploy.sandbox.google.compute import fronts, geography, health_checks, instances, managing
from osvdeploy.sandbox.google.compute.operations import Wire
from osvdeploy.sandbox.google.compute.resources import (
    GROUP,
    HEALTH_CHECK,
    INSTANCE,
    MANAGER,
    SERVICE,
    TCP_PROXY,
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
from osvdeploy.sandbox.health import CheckResult, TargetHealth
from osvdeploy.sandbox.services.scope import Doc, Scope

PROBE: Final = "compute.probe"
"""How a machine is, seen from a service: by both paths."""

ROUND: Final = "compute.check-round"

EMPTY: Final = 5.0
"""Seconds between looks at a service that has no health check yet."""

LARGEST_DRAINING: Final = 3600

_BACKEND = "backends"
BODY: Final = (
    "name description protocol portName timeoutSec loadBalancingScheme healthChecks sessionAffinity enableCDN "
    "localityLbPolicy connectionDraining.drainingTimeoutSec customResponseHeaders network logConfig.enable fingerprint "
    f"{_BACKEND}.group {_BACKEND}.balancingMode {_BACKEND}.capacityScaler {_BACKEND}.description "
    f"{_BACKEND}.maxUtilization {_BACKEND}.maxRate {_BACKEND}.maxRatePerInstance"
)

HTTP: Final = "HTTP"
TCP: Final = "TCP"

_MODES: Final = {HTTP: ("UTILIZATION", "RATE"), TCP: ("UTILIZATION", "CONNECTION")}
"""Balancing modes by protocol."""

_GLOBAL_SCHEMES = ("EXTERNAL", "EXTERNAL_MANAGED", "INTERNAL_MANAGED")
_REGIONAL_SCHEMES = ("EXTERNAL_MANAGED", "INTERNAL_MANAGED")


# ------------------------------------------------------------------------------------------------------------- changing


def _completed(scope: Scope, params: Wire, body: Wire) -> Doc:
    """A service's settings with the defaults. Raises ApiError."""
    scheme = body.get("loadBalancingScheme", "EXTERNAL")
    if scheme not in (_REGIONAL_SCHEMES if "region" in params else _GLOBAL_SCHEMES):
        raise NotSimulated(f"backend services of the scheme {scheme} there")
    if (protocol := body.get("protocol", HTTP)) not in _MODES:
        raise NotSimulated(f"backend services of the protocol {protocol}")
    if protocol == TCP and scheme == "EXTERNAL":
        raise NotSimulated("classic balancers of TCP")
    if protocol == TCP and body.get("customResponseHeaders"):
        raise invalid("customResponseHeaders", "", "They are not supported for protocol TCP.")
    if body.get("sessionAffinity", "NONE") != "NONE":
        raise NotSimulated("session affinity")
    if body.get("enableCDN"):
        raise NotSimulated("Cloud CDN")
    if body.get("localityLbPolicy", "ROUND_ROBIN") != "ROUND_ROBIN":
        raise NotSimulated(f"the policy {body['localityLbPolicy']}")
    draining = (body.get("connectionDraining") or {}).get("drainingTimeoutSec", 0)
    if not 0 <= draining <= LARGEST_DRAINING:
        raise invalid("connectionDraining.drainingTimeoutSec", draining, f"Must be between 0 and {LARGEST_DRAINING}.")
    for header in body.get("customResponseHeaders") or []:
        name, colon, value = header.partition(":")
        if not colon or not name.strip():
            raise invalid("customResponseHeaders", header, "It must be NAME:VALUE.")
        if "{" in value:
            raise NotSimulated(f"variables in headers ({header})")
    kept = {name: value for name, value in body.items() if name not in ("fingerprint", "backends", "healthChecks")}
    return {
        "sessionAffinity": "NONE",
        "timeoutSec": 30,
        "portName": "http",
        "enableCDN": False,
        **kept,
        "loadBalancingScheme": scheme,
        "protocol": protocol,
        "connectionDraining": {"drainingTimeoutSec": draining},
        "healthChecks": _health_checks(scope, params, body),
        "backends": _backends(scope, params, body.get("backends") or [], protocol),
    }


def _health_checks(scope: Scope, params: Wire, body: Wire) -> list[str]:
    given = body.get("healthChecks") or []
    if not given and not body.get("backends"):
        return []
    if len(given) != 1:
        raise invalid("healthChecks", len(given), "Exactly one health check must be specified.")
    path, document = referred(scope, params, given[0], HEALTH_CHECK, "healthChecks[0]")
    wanted = f"regions/{params['region']}" if "region" in params else "global"
    if document["place"] not in (wanted, "global"):
        raise invalid("healthChecks[0]", given[0], "The health check is in another region.")
    return [link(path)]


def _backends(scope: Scope, params: Wire, given: Sequence[Doc], protocol: str) -> list[Doc]:
    found_ = []
    for number, each in enumerate(given):
        field = f"backends[{number}]"
        path, group = referred(scope, params, each.get("group", ""), GROUP, f"{field}.group")
        if "region" in params:
            place = group["place"].partition("/")[2]
            if params["region"] not in (place, geography.region_of(place)):
                raise invalid(f"{field}.group", each["group"], "The group is in another region.")
        mode = each.get("balancingMode", "UTILIZATION")
        if mode not in _MODES[protocol]:
            raise invalid(f"{field}.balancingMode", mode, f"Balancing mode is not supported for protocol {protocol}.")
        if mode == "CONNECTION":
            raise NotSimulated("backends that are full by a number of connections")
        if mode == "RATE" and not ("maxRate" in each or "maxRatePerInstance" in each):
            raise invalid(f"{field}.maxRate", "", "One of maxRate and maxRatePerInstance must be specified.")
        scaler = each.get("capacityScaler", 1.0)
        if not (scaler == 0 or 0.1 <= scaler <= 1):
            raise invalid(f"{field}.capacityScaler", scaler, "It must be 0, or between 0.1 and 1.0.")
        limits = {"maxUtilization": 0.8} if mode == "UTILIZATION" else {}
        found_.append({**limits, **each, "group": link(path), "balancingMode": mode, "capacityScaler": scaler})
    if len({each["group"] for each in found_}) < len(found_):
        raise invalid("backends", len(found_), "Duplicate instance groups in backend service.")
    return found_


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
    document = made(scope, params, SERVICE, {**_completed(scope, params, body), "name": name})
    scope.later(0, ROUND, {"service": its_path(SERVICE, document), "id": document["resource"]["id"]})
    return begun(scope, params, SERVICE, "insert", document)


def _change(scope: Scope, params: Wire, verb: str) -> Doc:
    body = params.get("body") or {}
    document = found(scope, params, SERVICE, ready=True)
    resource = document["resource"]
    hold_to(body, _fingerprint(resource), needed=True)
    given = merged(resource, body) if verb == "patch" else body
    if given.get("name", resource["name"]) != resource["name"]:
        raise invalid("name", given["name"], "The name cannot be changed.")
    if given.get("loadBalancingScheme", "EXTERNAL") != resource["loadBalancingScheme"]:
        raise invalid("loadBalancingScheme", given.get("loadBalancingScheme"), "The scheme cannot be changed.")
    if given.get("protocol", HTTP) != resource["protocol"]:
        raise NotSimulated("changing a backend service's protocol")
    own = {name: resource[name] for name in ("kind", "id", "creationTimestamp", "name")}
    links = {name: completed(params, given.get(name) or []) for name in ("backends", "healthChecks")}
    settings = {name: value for name, value in given.items() if name not in own}
    document["resource"] = {**_completed(scope, params, {**settings, **links}), **own}
    scope.put(SERVICE.store, its_path(SERVICE, document), document)
    fronts.spread(scope)
    return begun(scope, params, SERVICE, verb, document)


patch, update = changers(_change)


def refuse_deletion(scope: Scope, path: str, document: Doc) -> None:
    for url_map in scope.all(URL_MAP.store):
        if path in fronts.services_in(url_map["resource"]):
            raise in_use(SERVICE, path, URL_MAP, its_path(URL_MAP, url_map))
    for proxy in scope.all(TCP_PROXY.store):
        if path_of(proxy["resource"]["service"]) == path:
            raise in_use(SERVICE, path, TCP_PROXY, its_path(TCP_PROXY, proxy))


# --------------------------------------------------------------------------------------------------------------- health


def get_health(scope: Scope, params: Wire) -> Doc:
    document = found(scope, params, SERVICE)
    path, text = its_path(SERVICE, document), (params.get("body") or {}).get("group", "")
    group, _ = referred(scope, params, text, GROUP, "group")
    if not any(path_of(each["group"]) == group for each in document["resource"]["backends"]):
        raise invalid("group", text, "The group is no backend of the service.")
    answer: Doc = {"kind": "compute#backendServiceGroupHealth"}
    if path in fronts.services_led_to(scope):
        port = _serving_port(scope, document["resource"], group)
        states = []
        for instance in _machines(scope, group):
            probe = _probe_of(scope, path, instance)
            line = {
                "instance": link(its_path(INSTANCE, instance)),
                "ipAddress": instance["resource"]["networkInterfaces"][0]["networkIP"],
                "healthState": "HEALTHY" if probe.state is TargetState.HEALTHY else "UNHEALTHY",
            }
            states.append(completed(params, line | ({} if port is None else {"port": port})))
        if states:
            answer["healthStatus"] = states
    return answer


def _machines(scope: Scope, group: str) -> list[Doc]:
    """Machines of an instance group that exist and are not on their way out of it."""
    manager = group.replace(f"/{GROUP.plural}/", f"/{MANAGER.plural}/")
    there = [
        scope.get(INSTANCE.store, managing.instance_path(each))
        for each in managing.members_of(scope, manager)
        if each["action"] != "DELETING"
    ]
    return [each for each in there if each is not None]


def _serving_port(scope: Scope, resource: Wire, group: str) -> int | None:
    document = scope.get(GROUP.store, group)
    ports = [] if document is None else document["resource"]["namedPorts"]
    return next((each["port"] for each in ports if each["name"] == resource["portName"]), None)


def _probe_of(scope: Scope, service: str, instance: Doc) -> TargetHealth:
    kept = scope.get(PROBE, f"{service} {its_path(INSTANCE, instance)}")
    if kept is None or kept["id"] != instance["resource"]["id"]:
        # Nothing is healthy that has not passed as many checks in a row as it must.
        return TargetHealth(TargetState.INITIAL, first=False)
    return TargetHealth(TargetState(kept["state"]), passed=kept["passed"], failed=kept["failed"], first=False)


def check_round(scope: Scope, payload: Wire) -> None:
    """Check all of a service's machines, outside the store's lock, and again after an interval."""
    document = scope.get(SERVICE.store, payload["service"])
    if document is None or document["resource"]["id"] != payload["id"]:
        for probe in scope.all(PROBE):
            if probe["service"] == payload["service"] and document is None:
                scope.delete(PROBE, f"{probe['service']} {probe['instance']}")
        return
    resource = document["resource"]
    if not resource["healthChecks"]:
        scope.later(EMPTY, ROUND, dict(payload))
        return
    kept = scope.get(HEALTH_CHECK.store, path_of(resource["healthChecks"][0]))
    assert kept is not None, "a health check that a service has cannot be deleted"
    check = kept["resource"]
    scope.later(check["checkIntervalSec"], ROUND, dict(payload))
    if payload["service"] not in fronts.services_led_to(scope):
        return
    seen = set()
    for backend in resource["backends"]:
        group = path_of(backend["group"])
        serving = _serving_port(scope, resource, group)
        there = scope.get(GROUP.store, group)
        port = health_checks.port_of(check, serving, [] if there is None else there["resource"]["namedPorts"])
        for instance in _machines(scope, group):
            seen.add(its_path(INSTANCE, instance))
            if instance["resource"]["status"] == instances.RUNNING and port is not None:
                _check(scope, payload["service"], instance, port, check)
            else:
                _keep(scope, payload["service"], instance, TargetHealth(TargetState.UNHEALTHY, first=False))
    for probe in scope.all(PROBE):
        if probe["service"] == payload["service"] and probe["instance"] not in seen:
            scope.delete(PROBE, f"{probe['service']} {probe['instance']}")


def _check(scope: Scope, service: str, instance: Doc, port: int, check: Wire) -> None:
    guest, address, runner, now = f"gce-{instance['resource']['id']}", instance["address"], scope.runner, scope.now
    scope.outside(
        lambda: health_checks.check(runner, guest, address, port, check, now),
        then=partial(_checked, service, instance, check),
    )


def _checked(service: str, instance: Doc, check: Wire, scope: Scope, result: CheckResult) -> None:
    now = scope.get(INSTANCE.store, its_path(INSTANCE, instance))
    if now is not None and now["resource"]["id"] == instance["resource"]["id"]:
        before = _probe_of(scope, service, instance)
        after = health.after_check(before, health_checks.settings_of(check), result)
        if (after.state, after.passed, after.failed) != (before.state, before.passed, before.failed):
            _keep(scope, service, instance, after)


def _keep(scope: Scope, service: str, instance: Doc, state: TargetHealth) -> None:
    path = its_path(INSTANCE, instance)
    kept = {"id": instance["resource"]["id"], "state": state.state, "passed": state.passed, "failed": state.failed}
    scope.put(PROBE, f"{service} {path}", {"service": service, "instance": path, **kept})


def targets(scope: Scope, service: str, settings: Wire) -> tuple[Target, ...]:
    """The machines that a service as it is in force sends to, with their health now."""
    made_ = []
    for backend in settings["backends"]:
        group = path_of(backend["group"])
        port = _serving_port(scope, settings, group)
        if port is None or not backend["capacityScaler"]:
            continue
        for instance in _machines(scope, group):
            state = _probe_of(scope, service, instance).state
            made_.append(Target(f"gce-{instance['resource']['id']}", instance["address"], port, state))
    return tuple(made_)
