"""What all of Compute Engine's resources have in common: places, links, names, fingerprints, changes that take time.

A resource's key in the store is its path, ``projects/P/zones/Z/instances/NAME``. Its document:

``resource``
    As answers show it. Links to others are kept as :data:`LINK` and a path, and are completed with the address by which
    a client reaches us.
``project``, ``place``
    Whose it is, and where: ``global``, ``regions/R`` or ``zones/Z``.
``ready``
    Whether the operation that made it is done, and none that deletes it began.

Not documented, and decided here against the caller: what is not ready can be neither changed, deleted nor referred to.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from osvdeploy.sandbox.errors import ApiError, NotSimulated
from osvdeploy.sandbox.google.compute import operations
from osvdeploy.sandbox.google.compute.lists import page_of
from osvdeploy.sandbox.google.compute.operations import Wire, begin, digest, key, number, place_of, repeated, time
from osvdeploy.sandbox.google.storage.pages import page
from osvdeploy.sandbox.google.wire import BASE
from osvdeploy.sandbox.services.scope import Doc, Operation, Scope

LINK: Final = "$base/"

CHANGED: Final = "compute.resource-changed"

CHANGING: Final = 1.5
"""Seconds that a change takes, where nothing else is said."""

LONGEST_DESCRIPTION: Final = 2048

_NAME = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")
_LABEL = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_VALUE = re.compile(r"[a-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of resource: ``singular`` names it in calls, ``plural`` in paths."""

    singular: str
    plural: str

    @property
    def store(self) -> str:
        return f"compute.{self.singular}"

    def path(self, project: str, place: str, name: str) -> str:
        return f"projects/{project}/{place}/{self.plural}/{name}"

    def asked(self, params: Wire) -> str:
        """The path of what a call names."""
        name = params.get(self.singular) or params["resource"]
        return self.path(params["project"], place_of(params), name)


TEMPLATE: Final = Kind("instanceTemplate", "instanceTemplates")
INSTANCE: Final = Kind("instance", "instances")
MANAGER: Final = Kind("instanceGroupManager", "instanceGroupManagers")
GROUP: Final = Kind("instanceGroup", "instanceGroups")
AUTOSCALER: Final = Kind("autoscaler", "autoscalers")
HEALTH_CHECK: Final = Kind("healthCheck", "healthChecks")
SERVICE: Final = Kind("backendService", "backendServices")
URL_MAP: Final = Kind("urlMap", "urlMaps")
PROXY: Final = Kind("targetHttpProxy", "targetHttpProxies")
TLS_PROXY: Final = Kind("targetHttpsProxy", "targetHttpsProxies")
"""There are none: they can be looked for, and not made."""

TCP_PROXY: Final = Kind("targetTcpProxy", "targetTcpProxies")
RULE: Final = Kind("forwardingRule", "forwardingRules")
FIREWALL: Final = Kind("firewall", "firewalls")
NETWORK: Final = Kind("network", "networks")
SUBNETWORK: Final = Kind("subnetwork", "subnetworks")
ADDRESS: Final = Kind("address", "addresses")


# ------------------------------------------------------------------------------------------------------------ refusals


def invalid(field: str, value: object, why: str) -> ApiError:
    return ApiError("invalid", f"Invalid value for field 'resource.{field}': '{value}'. {why}".rstrip())


def missing(field: str) -> ApiError:
    return ApiError("required", f"Required field 'resource.{field}' not specified")


def in_use(kind: Kind, path: str, by: Kind, user: str) -> ApiError:
    told = f"The {kind.singular} resource '{path}' is already being used by '{user}' ({by.singular})"
    return ApiError("resourceInUseByAnotherResource", told)


def not_found(path: str) -> ApiError:
    return ApiError("notFound", f"The resource '{path}' was not found", 404)


def condition_not_met() -> ApiError:
    return ApiError("conditionNotMet", "Invalid fingerprint.", 412)


# --------------------------------------------------------------------------------------------------------------- links


def link(path: str) -> str:
    return LINK + path


def path_of(kept: str) -> str:
    """The path of a link as it is kept."""
    return kept.removeprefix(LINK)


def referred(scope: Scope, params: Wire, text: str | None, kind: Kind, field: str) -> tuple[str, Doc]:
    """The resource that a link in a request leads to: a whole one, or one from the project on. Raises ApiError."""
    place = r"(global|regions/[^/]+|zones/[^/]+)"
    pattern = rf"(?:https?://[^/]+/compute/v1/|/)?(?:projects/([^/]+)/)?{place}/{kind.plural}/([^/]+)"
    found = re.fullmatch(pattern, text or "")
    if found is None:
        raise invalid(field, text, "The URL is malformed.")
    path = kind.path(found[1] or params["project"], found[2], found[3])
    document = scope.get(kind.store, path)
    if document is None:
        raise invalid(field, text, f"The referenced {kind.singular} resource cannot be found.")
    if not document["ready"]:
        raise not_ready(path)
    return path, document


def not_ready(path: str) -> ApiError:
    return ApiError("resourceNotReady", f"The resource '{path}' is not ready")


def completed(params: Wire, value: Any) -> Any:
    """A resource with links as the client can follow them."""
    if isinstance(value, str):
        return f"{params[BASE]}/compute/v1/{path_of(value)}" if value.startswith(LINK) else value
    if isinstance(value, dict):
        return {name: completed(params, each) for name, each in value.items()}
    if isinstance(value, list):
        return [completed(params, each) for each in value]
    return value


# ------------------------------------------------------------------------------------------------------------- looking


def found(scope: Scope, params: Wire, kind: Kind, *, ready: bool = False) -> Doc:
    """What a call names, by its name or id. Raises ApiError."""
    path = kind.asked(params)
    document = scope.get(kind.store, path)
    name = path.rpartition("/")[2]
    if document is None and name.isdigit():
        here = (params["project"], place_of(params))
        document = next(
            (
                each
                for each in scope.all(kind.store)
                if each["resource"]["id"] == name and (each["project"], each["place"]) == here
            ),
            None,
        )
    if document is None:
        raise not_found(path)
    if ready and not document["ready"]:
        raise not_ready(path)
    return document


def its_path(kind: Kind, document: Wire) -> str:
    return kind.path(document["project"], document["place"], document["resource"]["name"])


Show = Callable[[Scope, Doc], Doc]
"""What of a document is shown: its resource, and what is worked out when it is asked for."""


def plain(scope: Scope, document: Doc) -> Doc:
    resource: Doc = document["resource"]
    return resource


def shown(scope: Scope, params: Wire, kind: Kind, document: Doc, show: Show) -> Doc:
    place, project = document["place"], document["project"]
    where = {} if place == "global" else {place.partition("s/")[0]: link(f"projects/{project}/{place}")}
    whole: Doc = completed(params, {**show(scope, document), **where, "selfLink": link(its_path(kind, document))})
    return whole


def getter(kind: Kind, show: Show = plain) -> Operation:
    return lambda scope, params: shown(scope, params, kind, found(scope, params, kind), show)


def lister(kind: Kind, show: Show = plain) -> Operation:
    def list_all(scope: Scope, params: Wire) -> Doc:
        here = (params["project"], place_of(params))
        mine = [each for each in scope.all(kind.store) if (each["project"], each["place"]) == here]
        # A filter sees what is shown.
        whole = [shown(scope, params, kind, each, show) for each in mine]
        base = f"{params[BASE]}/compute/v1/projects/{here[0]}/{here[1]}/{kind.plural}"
        return page_of(f"compute#{kind.singular}List", base, whole, params, dict)

    return list_all


def aggregator(kind: Kind, show: Show = plain) -> Operation:
    """Lists a kind in all of a project's places at once. Places that have none are left out."""

    def list_all(scope: Scope, params: Wire) -> Doc:
        project = params["project"]
        mine = [each for each in scope.all(kind.store) if each["project"] == project]
        lines = {f"{each['place']}/{each['resource']['name']}": each for each in mine}
        on_page, token = page(sorted(lines), params)
        items: Doc = {}
        for line in on_page:
            place = items.setdefault(lines[line]["place"], {kind.plural: []})
            place[kind.plural].append(shown(scope, params, kind, lines[line], show))
        path = f"projects/{project}/aggregated/{kind.plural}"
        base = f"{params[BASE]}/compute/v1/{path}"
        return {"kind": f"compute#{kind.singular}AggregatedList", "id": path, "items": items, "selfLink": base, **token}

    return list_all


# ------------------------------------------------------------------------------------------------------------ changing


def once(verb: str) -> Callable[[Operation], Operation]:
    """A call that a repeated ``requestId`` does not make again."""

    def wrapped(act: Operation) -> Operation:
        def operation(scope: Scope, params: Wire) -> Doc:
            return repeated(scope, verb, params) or act(scope, params)

        return operation

    return wrapped


def changers(change: Callable[[Scope, Wire, str], Doc]) -> tuple[Operation, Operation]:
    """The methods ``patch``, which changes a part, and ``update``, which replaces the whole."""
    return (
        once("patch")(lambda scope, params: change(scope, params, "patch")),
        once("update")(lambda scope, params: change(scope, params, "update")),
    )


def named(body: Wire) -> str:
    """The name of what is to be made. Raises ApiError unless it can be one."""
    name = str(body.get("name", ""))
    if not _NAME.fullmatch(name):
        raise invalid("name", name, "Must be a match of regex '(?:[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?)'")
    if len(str(body.get("description", ""))) > LONGEST_DESCRIPTION:
        raise invalid("description", "", f"Must be at most {LONGEST_DESCRIPTION} characters long.")
    return name


def made(scope: Scope, params: Wire, kind: Kind, fields: Wire, **private: Any) -> Doc:
    """A new resource's document, kept and not ready. ``fields`` hold its name. Raises ApiError where it exists."""
    project, place = params["project"], place_of(params)
    path = kind.path(project, place, fields["name"])
    if scope.get(kind.store, path) is not None:
        raise ApiError("alreadyExists", f"The resource '{path}' already exists", 409)
    resource = {
        "kind": f"compute#{kind.singular}",
        "id": number(scope),
        "creationTimestamp": time(scope.now),
        **fields,
    }
    document = {"project": project, "place": place, "ready": False, "resource": resource, **private}
    scope.put(kind.store, path, document)
    return document


def begun(
    scope: Scope,
    params: Wire,
    kind: Kind,
    verb: str,
    document: Doc,
    seconds: float | None = CHANGING,
    *,
    ends: bool = False,
) -> Doc:
    """The answer to a change: its operation, which ends in ``seconds`` (None: when somebody ends it). With ``ends`` the
    resource goes with it."""
    path = its_path(kind, document)
    operation = begin(scope, verb, params, document["resource"], path)
    if ends:
        document["ready"] = False
        scope.put(kind.store, path, document)
    if seconds is not None:
        payload = {"operation": key(params["project"], operation["name"]), "kind": kind.store, "path": path}
        scope.later(seconds, CHANGED, {**payload, "id": document["resource"]["id"], "ends": ends})
    return operations.shown(params, operation)


def change_done(scope: Scope, payload: Wire) -> None:
    """A change is through: what was made is ready, what was deleted is gone."""
    document = scope.get(payload["kind"], payload["path"])
    if document is not None and document["resource"]["id"] == payload["id"]:
        if payload["ends"]:
            scope.delete(payload["kind"], payload["path"])
        elif not document["ready"]:
            scope.put(payload["kind"], payload["path"], {**document, "ready": True})
    operations.end(scope, payload["operation"])


def deleter(kind: Kind, refuse: Callable[[Scope, str, Doc], None], verb: str = "delete") -> Operation:
    """Deletes what nothing else needs: ``refuse`` raises ApiError where something does."""

    @once(verb)
    def delete(scope: Scope, params: Wire) -> Doc:
        document = found(scope, params, kind, ready=True)
        refuse(scope, its_path(kind, document), document)
        return begun(scope, params, kind, verb, document, ends=True)

    return delete


def fingerprint(value: Any) -> str:
    """A hash of contents, as Google's are: equal contents have equal ones."""
    return base64.b64encode(bytes.fromhex(digest(value))[:8]).decode()


def hold_to(body: Wire, current: str, *, needed: bool = False) -> None:
    """Raise ApiError where the request's fingerprint is not the current one. ``needed``: also where it has none."""
    given = body.get("fingerprint")
    if given is None and needed:
        raise ApiError("conditionNotMet", "Fingerprint must be specified.", 412)
    if given is not None and given != current:
        raise condition_not_met()


def merged(kept: Any, patch: Any) -> Any:
    """A JSON merge patch, as PATCH has it: null takes away, lists are replaced."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(kept) if isinstance(kept, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def checked_labels(labels: Mapping[str, str], field: str) -> dict[str, str]:
    for name, value in labels.items():
        if not (name + value).isascii():
            raise NotSimulated("labels with letters beyond ASCII")
        if not _LABEL.fullmatch(name) or not _VALUE.fullmatch(value):
            raise invalid(f"{field}.{name}", value, "Label does not match the requirements for labels.")
    return dict(labels)
