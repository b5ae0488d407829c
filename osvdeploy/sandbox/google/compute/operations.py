"""Compute Engine's operations: begun once for a ``requestId``, looked at, ended."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from osvdeploy.sandbox.errors import ApiError
from osvdeploy.sandbox.google.compute.lists import page_of
from osvdeploy.sandbox.google.wire import BASE
from osvdeploy.sandbox.services.scope import Doc, Scope

Wire = Mapping[str, Any]

OPERATION: Final = "compute.operation"
REQUEST: Final = "compute.request"
ENDS: Final = "compute.operation-ends"

REMEMBERED: Final = timedelta(hours=1)
"""How long a ``requestId`` is known."""

USER: Final = "sandbox@example.com"


def key(project: str, name: str) -> str:
    return f"{project}/{name}"


def time(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")


def number(scope: Scope) -> str:
    """An id of a resource or operation: none is given twice."""
    return str(10**18 + scope.count("compute.id"))


def digest(value: Any) -> str:
    """Of anything that JSON holds, in hex; Google's documents have numbers with a point in them."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def number_of(name: str) -> str:
    """The id of what is there without being made: always the same."""
    return str(int(hashlib.sha256(name.encode()).hexdigest()[:12], 16))


def repeated(scope: Scope, verb: str, params: Wire) -> Doc | None:
    """The operation that this very request began before. Raises ApiError for an id that cannot be one."""
    wanted = params.get("requestId")
    if wanted is None:
        return None
    try:
        if not uuid.UUID(wanted).int:
            raise ValueError
    except ValueError:
        raise ApiError("invalid", f"Invalid value for field 'requestId': '{wanted}'. Must be a valid UUID.") from None
    known = scope.get(REQUEST, key(params["project"], wanted))
    if known is None or scope.now - datetime.fromisoformat(known["at"]) > REMEMBERED:
        return None
    if known["asked"] != _asked(verb, params):
        raise ApiError("invalid", f"Invalid value for field 'requestId': '{wanted}'. Another request had it.")
    found = scope.get(OPERATION, known["operation"])
    assert found is not None
    return shown(params, found["resource"])


def place_of(params: Wire) -> str:
    """Where a call's resources are: ``global``, ``regions/R`` or ``zones/Z``."""
    if "zone" in params:
        return f"zones/{params['zone']}"
    return f"regions/{params['region']}" if "region" in params else "global"


def begin(scope: Scope, verb: str, params: Wire, target: Wire, path: str = "") -> Doc:
    """An operation on a resource, under way; remembered for its request id. ``path`` is the resource's, if it is no
    image."""
    name = f"operation-{scope.new_id(13)}-{scope.new_id(13)}"
    project = params["project"]
    resource: Doc = {
        "kind": "compute#operation",
        "id": number(scope),
        "name": name,
        "operationType": verb,
        "targetLink": path or f"projects/{project}/global/images/{target['name']}",
        "targetId": target["id"],
        "status": "RUNNING",
        "user": USER,
        "progress": 0,
        "insertTime": time(scope.now),
        "startTime": time(scope.now),
    }
    if "requestId" in params:
        resource["clientOperationId"] = params["requestId"]
        remembered = {"operation": key(project, name), "at": scope.now.isoformat(), "asked": _asked(verb, params)}
        scope.put(REQUEST, key(project, params["requestId"]), remembered)
    place = place_of(params)
    if place != "global":
        resource[place.partition("s/")[0]] = f"projects/{project}/{place}"
    scope.put(OPERATION, key(project, name), {"project": project, "place": place, "resource": resource})
    return resource


def _asked(verb: str, params: Wire) -> str:
    return digest({"verb": verb, "params": {name: value for name, value in params.items() if name != BASE}})


def end(scope: Scope, operation: str, *, code: str = "", message: str = "", status: int = 400) -> None:
    """The operation with this key is done; with ``code`` it failed."""
    document = scope.get(OPERATION, operation)
    assert document is not None
    resource = document["resource"]
    resource |= {"status": "DONE", "progress": 100, "endTime": time(scope.now)}
    if code:
        words = {400: "BAD REQUEST", 404: "NOT FOUND"}
        resource |= {
            "error": {"errors": [{"code": code, "message": message}]},
            "httpErrorStatusCode": status,
            "httpErrorMessage": words.get(status, "SERVICE UNAVAILABLE"),
        }
    scope.put(OPERATION, operation, document)


def shown(params: Wire, resource: Wire) -> Doc:
    """As answers have it."""
    base = f"{params[BASE]}/compute/v1"
    links = {name: f"{base}/{resource[name]}" for name in ("targetLink", "zone", "region") if name in resource}
    place = next(
        (resource[name] for name in ("zone", "region") if name in resource), f"projects/{params['project']}/global"
    )
    return {**resource, **links, "selfLink": f"{base}/{place}/operations/{resource['name']}"}


def get(scope: Scope, params: Wire) -> Doc:
    """Also what ``wait`` answers: it "may return before the specified deadline", and here it does so at once."""
    project, name = params["project"], params["operation"]
    found = scope.get(OPERATION, key(project, name))
    if found is None or _place(found) != place_of(params):
        told = f"The resource 'projects/{project}/{place_of(params)}/operations/{name}' was not found"
        raise ApiError("notFound", told, 404)
    return shown(params, found["resource"])


def list_all(scope: Scope, params: Wire) -> Doc:
    project, place = params["project"], place_of(params)
    mine = [each for each in scope.all(OPERATION) if (each["project"], _place(each)) == (project, place)]
    base = f"{params[BASE]}/compute/v1/projects/{project}/{place}/operations"
    found = [each["resource"] for each in mine]
    return page_of("compute#operationList", base, found, params, lambda each: shown(params, each))


def _place(document: Wire) -> str:
    # Stores of before there were others hold global ones alone.
    return str(document.get("place", "global"))
