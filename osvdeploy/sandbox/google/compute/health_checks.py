"""Health checks of backend services: HTTP and TCP, global and regional.

Sources: Compute Engine API reference (HealthCheck: defaults and bounds), "Health checks overview" (200 alone passes).

The sandbox's own limits: other protocols, expected answers and PROXY headers are not simulated; a TCP check is done by
asking the program for ``/``, and passes where anything comes of the connection.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from osvdeploy.sandbox.errors import NotSimulated
from osvdeploy.sandbox.google.compute import geography
from osvdeploy.sandbox.google.compute.operations import Wire
from osvdeploy.sandbox.google.compute.resources import (
    HEALTH_CHECK,
    SERVICE,
    begun,
    changers,
    found,
    in_use,
    invalid,
    its_path,
    made,
    merged,
    missing,
    named,
    once,
    path_of,
)
from osvdeploy.sandbox.health import CheckResult, HealthCheck, Outcome, perform
from osvdeploy.sandbox.runners import Runner
from osvdeploy.sandbox.services.scope import Doc, Scope

_SETTINGS = ("httpHealthCheck", "tcpHealthCheck")

BODY: Final = (
    "name description type checkIntervalSec timeoutSec healthyThreshold unhealthyThreshold logConfig.enable "
    + " ".join(f"{each}.{field}" for each in _SETTINGS for field in ("port", "portName", "portSpecification"))
    + " httpHealthCheck.requestPath httpHealthCheck.host httpHealthCheck.proxyHeader tcpHealthCheck.proxyHeader"
)

_BOUNDS: Final = {
    "checkIntervalSec": (5, 1, 300),
    "timeoutSec": (5, 1, 300),
    "healthyThreshold": (2, 1, 10),
    "unhealthyThreshold": (2, 1, 10),
}
"""Default, least and most."""

_CHANGEABLE = ("description", "logConfig", *_BOUNDS, *_SETTINGS)


def _completed(body: Wire) -> Doc:
    """The settings of a check, with the defaults. Raises ApiError."""
    kind = body.get("type")
    if kind is None:
        raise missing("type")
    if kind not in ("HTTP", "TCP"):
        raise NotSimulated(f"health checks of type {kind}")
    field, other = _SETTINGS if kind == "HTTP" else _SETTINGS[::-1]
    if body.get(other):
        raise invalid(other, "", f"It does not go with the type {kind}.")
    settings: dict[str, Any] = {name: body.get(name, default) for name, (default, _, _) in _BOUNDS.items()}
    for name, (_, least, most) in _BOUNDS.items():
        if not least <= settings[name] <= most:
            raise invalid(name, settings[name], f"Must be between {least} and {most}.")
    if settings["timeoutSec"] > settings["checkIntervalSec"]:
        raise invalid("timeoutSec", settings["timeoutSec"], "It must not be greater than checkIntervalSec.")
    port = {"proxyHeader": "NONE", **({"requestPath": "/"} if kind == "HTTP" else {}), **(body.get(field) or {})}
    if port["proxyHeader"] != "NONE":
        raise NotSimulated("PROXY headers of health checks")
    if not re.fullmatch(r"/[!-~]*", port.get("requestPath", "/")):
        raise invalid(f"{field}.requestPath", port["requestPath"], "It must begin with '/' and be ASCII.")
    described = {name: body[name] for name in ("description", "logConfig") if name in body}
    return {**described, "type": kind, **settings, field: _with_port(field, port, kind)}


def _with_port(field: str, given: Doc, kind: str) -> Doc:
    how = given.get("portSpecification") or ("USE_NAMED_PORT" if "portName" in given and "port" not in given else None)
    how = how or "USE_FIXED_PORT"
    if how == "USE_SERVING_PORT" and ("port" in given or "portName" in given):
        raise invalid(f"{field}.portSpecification", how, "No port and port name may be specified.")
    if how == "USE_NAMED_PORT" and "portName" not in given:
        raise missing(f"{field}.portName")
    if how == "USE_FIXED_PORT":
        given = {"port": 80, **given}
        if not 1 <= given["port"] <= 65535:
            raise invalid(f"{field}.port", given["port"], "Must be between 1 and 65535.")
    # Only what was said of it is shown.
    return {**given, **({"portSpecification": how} if how != "USE_FIXED_PORT" or "portSpecification" in given else {})}


@once("insert")
def insert(scope: Scope, params: Wire) -> Doc:
    geography.check_place(params)
    body = params.get("body") or {}
    fields = {"name": named(body), **_completed(body)}
    return begun(scope, params, HEALTH_CHECK, "insert", made(scope, params, HEALTH_CHECK, fields))


def _change(scope: Scope, params: Wire, verb: str) -> Doc:
    body = params.get("body") or {}
    document = found(scope, params, HEALTH_CHECK, ready=True)
    resource = document["resource"]
    given = merged(resource, body) if verb == "patch" else body
    if given.get("name", resource["name"]) != resource["name"]:
        raise invalid("name", given["name"], "The name cannot be changed.")
    completed = _completed({"type": resource["type"], **given})
    document["resource"] = {name: value for name, value in resource.items() if name not in _CHANGEABLE} | completed
    scope.put(HEALTH_CHECK.store, its_path(HEALTH_CHECK, document), document)
    return begun(scope, params, HEALTH_CHECK, verb, document)


patch, update = changers(_change)


def refuse_deletion(scope: Scope, path: str, document: Doc) -> None:
    for service in scope.all(SERVICE.store):
        if any(path_of(each) == path for each in service["resource"].get("healthChecks", [])):
            raise in_use(HEALTH_CHECK, path, SERVICE, its_path(SERVICE, service))


# -------------------------------------------------------------------------------------------------------- doing a check


def settings_of(resource: Wire) -> HealthCheck:
    """For :mod:`osvdeploy.sandbox.health`."""
    http = resource.get("httpHealthCheck") or {}
    return HealthCheck(
        http.get("requestPath", "/"),
        None,
        resource["checkIntervalSec"],
        resource["timeoutSec"],
        resource["healthyThreshold"],
        resource["unhealthyThreshold"],
    )


def port_of(resource: Wire, serving: int | None, named_ports: Sequence[Wire]) -> int | None:
    """Where a machine is checked; None where nothing is known of such a port."""
    own = resource.get("httpHealthCheck") or resource.get("tcpHealthCheck") or {}
    match own.get("portSpecification", "USE_FIXED_PORT"):
        case "USE_SERVING_PORT":
            return serving
        case "USE_NAMED_PORT":
            return next((each["port"] for each in named_ports if each["name"] == own["portName"]), None)
    return int(own["port"])


def check(runner: Runner, guest: str, address: str, port: int, resource: Wire, now: Any) -> CheckResult:
    """Do one check; may block for its timeout."""
    result = perform(runner, guest, address, port, settings_of(resource), now, "GoogleHC/1.0")
    if resource["type"] == "TCP" and result.outcome is Outcome.STATUS:
        return CheckResult(Outcome.STATUS, 200)
    return result
