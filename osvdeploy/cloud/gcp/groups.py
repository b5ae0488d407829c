"""Groups of machines on Google: an instance template and a managed instance group of the same name for each rollout.

A group is of one zone or of one region. It is never updated in place: another release is another group. What becomes of
a machine that ends is Google's to say: the group makes it anew, under its old name, and what it printed is gone.

A group stands behind its backend service from :meth:`ManagedGroups.ensure` on, and is taken from there before it is
deleted, since Google deletes nothing that is in use.

Sources: Compute Engine API reference (instanceGroupManagers, regionInstanceGroupManagers; listManagedInstances); guide,
"Repair VMs in a MIG", "Get information about MIGs and managed instances".
"""

from __future__ import annotations

import re
from datetime import datetime

from osvdeploy.cloud.gcp.backends import LONGEST_CHANGE, NAMED_PORT, Backends, in_use, write
from osvdeploy.cloud.gcp.errors import AlreadyThere
from osvdeploy.cloud.gcp.marks import PORT, marks_of, require_ours, written
from osvdeploy.cloud.gcp.scaling import Autoscalers, mode_of, unpaused
from osvdeploy.cloud.gcp.scope import address_of, area_of, last, link_of, machine_of, scopes_of
from osvdeploy.cloud.gcp.session import Document, Gcp, request_id
from osvdeploy.cloud.gcp.templates import Templates
from osvdeploy.cloud.interfaces import (
    AttachRequest,
    GroupCount,
    GroupRequest,
    GroupShape,
    GroupState,
    Machine,
    MachineState,
    ReleaseId,
    Scaling,
    Tags,
)
from osvdeploy.cloud.tags import ADOPTED, BACKEND, RELEASE, SERVICE, is_kept, is_ours
from osvdeploy.context import Context
from osvdeploy.errors import NotFound, NotOurs, Refused, Unavailable
from osvdeploy.retry import retrying

PAGE = 500
"""Groups that one answer tells of, its most."""

LEFT_FOR = 60.0
"""Seconds for which a group may count as used after it was taken from its backend service."""

_OUR_PORT = re.compile(r"osvd-[0-9a-f]{10}-(?:blue|green)")
"""A named port that is called as a backend service of ours: of a group that somebody else made, which stands behind it.
Named ports of a group can be changed; whether its description can, nobody documents."""

_WHOSE = (SERVICE, RELEASE)

_STATES = {
    "RUNNING": MachineState.RUNNING,
    "PROVISIONING": MachineState.PENDING,
    "STAGING": MachineState.PENDING,
    "PENDING": MachineState.PENDING,
    "": MachineState.PENDING,
}


class ManagedGroups:
    """:class:`~osvdeploy.cloud.interfaces.InstanceGroups` of one zone or region: ``place`` is its name."""

    def __init__(self, gcp: Gcp, place: str, backends: Backends | None = None) -> None:
        self._gcp = gcp
        self._area = f"projects/{gcp.project}/{area_of(place)}"
        self._scopes = scopes_of(gcp.project, place)
        self._backends = backends or Backends(gcp)
        self._templates = Templates(gcp)
        self._autoscalers = Autoscalers(gcp, self._area)

    def ensure(self, ctx: Context, request: GroupRequest) -> None:
        there = self._find(ctx, request.name)
        if there is not None:
            self._require_same(ctx, request, there)
        backend = self._backends.find(ctx, request.backend)
        if backend is None:
            raise NotFound(f"backend service {request.backend}: does not exist (yet)")
        if there is None:
            self._create(ctx, request, self._templates.ensure(ctx, request), backend.port)
        elif there.get("targetSize") != request.capacity:
            self._resize(ctx, there, request.capacity)
        group = self._link(request.name)
        if (backend.group, backend.release) != (group, request.release):
            self._backends.put_behind(ctx, backend, group, request.release)

    def observe(self, ctx: Context, name: str) -> GroupState | None:
        found = self._find(ctx, name)
        return None if found is None else self._state(ctx, found, self._adopted(ctx, found) or marks_of(found))

    def machines(self, ctx: Context, name: str) -> tuple[Machine, ...]:
        found = self._find(ctx, name)
        return () if found is None else _machines(self._managed(ctx, name))

    def delete(self, ctx: Context, name: str) -> None:
        found = self._find(ctx, name)
        if found is None:
            return
        what = f"instance group {name}"
        marks = self._adopted(ctx, found) or require_ours(found, what, hint="it is left as it is")
        if is_kept(marks):
            self._let_go(ctx, found, marks)
            return
        if _going(found):
            return
        backend = self._backends.find(ctx, marks[BACKEND]) if BACKEND in marks else None
        if backend is not None and backend.group == self._link(name):
            self._backends.take_away(ctx, backend)
        self._autoscalers.leave(ctx, found)

        def delete() -> None:
            # Another attempt is another request: Google would repeat the refusal of the first.
            token = request_id("delete", name, str(found["id"]), ctx.nonce())
            self._gcp.change(ctx, "DELETE", self._url(name), what, request_id=token)

        try:
            retrying(ctx, delete, when=in_use, seconds=LEFT_FOR, first_wait=1.0)
        except NotFound:
            pass

    def owned(self, ctx: Context, tags: Tags) -> list[GroupState]:
        return [self._state(ctx, each, held) for each, held in self._listed(ctx, tags)]

    def counted(self, ctx: Context, tags: Tags) -> list[GroupCount]:
        # Of a group's machines, "none" counts those that run and with which nothing is being done.
        return [
            GroupCount(
                each["name"],
                each.get("targetSize", 0),
                int((each.get("currentActions") or {}).get("none", 0)),
                _going(each),
            )
            for each, _ in self._listed(ctx, tags)
        ]

    def _listed(self, ctx: Context, tags: Tags) -> list[tuple[Document, Tags]]:
        """Ours with these tags, each with its own."""
        pages = self._gcp.pages(ctx, self._groups, "instance groups", {"maxResults": str(PAGE)})
        found = [each for page in pages for each in page.get("items", [])]
        marked = [(each, self._adopted(ctx, each) or marks_of(each)) for each in found]
        return [(each, held) for each, held in marked if is_ours(held) and tags.items() <= held.items()]

    def attach(self, ctx: Context, request: AttachRequest) -> None:
        name, found = request.name, self._standing(ctx, request.name)
        if found is None:
            raise NotFound(f"instance group {name}: does not exist (any more)")
        held = self._adopted(ctx, found)
        if held is not None and any(held.get(key, request.tags.get(key)) != request.tags.get(key) for key in _WHOSE):
            raise NotOurs(
                f"instance group {name}: is {held.get(RELEASE)} of {held.get(SERVICE)} already",
                hint="a group is of one service: take its named port away, if that service is gone",
            )
        backend = self._backends.find(ctx, request.backend)
        if backend is None:
            raise NotFound(f"backend service {request.backend}: does not exist (yet)")
        group, port_name = self._link(name), last(request.backend)
        if backend.group != group or marks_of(backend.document).items() < dict(request.tags).items():
            scope = request.backend.rpartition("/backendServices/")[0]
            behind = self._backends.entry_of(ctx, scope, group, request.backend)
            behind = behind or {"group": address_of(self._gcp, group), "balancingMode": "UTILIZATION"}
            self._backends.put_beside(ctx, backend, behind, port_name, request.tags)
        # Only then: a group that has our named port stands where it says.
        ports = [each for each in found.get("namedPorts", []) if each.get("name") != port_name]
        if len(ports) == len(found.get("namedPorts", [])):
            self._name_ports(ctx, name, [*ports, {"name": port_name, "port": backend.port}])
        # Last: by its port it is found again, and let go as it was, whoever dies with its autoscaler turned off.
        if int(found.get("targetSize", 0)) < request.capacity:
            self._resize(ctx, found, request.capacity)

    def _let_go(self, ctx: Context, found: Document, marks: Tags) -> None:
        """Leave somebody's group as it was. Its named port goes last: as long as it has it, it is looked at again."""
        name, backend = found["name"], self._backends.find(ctx, marks[BACKEND])
        if backend is not None and backend.group == self._link(name):
            self._backends.take_away(ctx, backend)
        ports = [each for each in found.get("namedPorts", []) if each.get("name") != last(marks[BACKEND])]
        self._name_ports(ctx, name, ports)

    def _name_ports(self, ctx: Context, name: str, ports: list[Document]) -> None:
        link, what = self._link(name), f"instance group {name}"
        now = self._gcp.get(ctx, address_of(self._gcp, link), what)
        document = {"namedPorts": ports, "fingerprint": now["fingerprint"]}
        write(self._gcp, ctx, f"{link}/setNamedPorts", document, what, "POST")

    def _resize(self, ctx: Context, found: Document, capacity: int) -> None:
        name = found["name"]
        self._autoscalers.turn_off(ctx, found)
        token = request_id("resize", name, str(capacity), ctx.nonce())
        url = f"{self._url(name)}/resize?size={capacity}"
        self._gcp.perform(ctx, "POST", url, f"instance group {name}", request_id=token, seconds=LONGEST_CHANGE)

    def _adopted(self, ctx: Context, found: Document) -> dict[str, str] | None:
        """The tags of a group that somebody else made, as the backend service has them that its named port of ours
        leads to; None where it has no such port."""
        if is_ours(marks_of(found)):
            return None
        for port in found.get("namedPorts", []):
            name = str(port.get("name", ""))
            if _OUR_PORT.fullmatch(name) is None:
                continue
            for scope in self._scopes:
                backend = self._backends.find(ctx, f"{scope}/backendServices/{name}")
                if backend is not None and is_ours(marks := marks_of(backend.document)):
                    held = {ADOPTED: "kept", **marks, BACKEND: backend.link}
                    return {key: value for key, value in held.items() if key != PORT}
        return None

    def shape(self, ctx: Context, name: str) -> GroupShape | None:
        found = self._find(ctx, name)
        link = link_of(found.get("instanceTemplate", "")) if found is not None else ""
        return self._templates.shape(ctx, link) if link else None

    def scaling(self, ctx: Context, name: str) -> Scaling | None:
        found = self._standing(ctx, name)
        return None if found is None else self._autoscalers.scaling(ctx, found)

    def pause(self, ctx: Context, name: str) -> None:
        found = self._standing(ctx, name)
        if found is not None:
            self._autoscalers.pause(ctx, found)

    def resume(self, ctx: Context, name: str, scaling: Scaling, *, grown: bool = False) -> None:
        found = self._standing(ctx, name)
        if found is not None:
            self._autoscalers.resume(ctx, found, scaling, grown=grown)

    def unpaused(self, there: Scaling, before: Scaling) -> Scaling:
        return unpaused(there, before)

    def apply(self, ctx: Context, name: str, scaling: Scaling) -> None:
        found = self._standing(ctx, name)
        if found is None:
            raise NotFound(f"instance group {name}: does not exist (any more)")
        self._autoscalers.apply(ctx, found, scaling)

    def follows(self, ctx: Context, name: str, scaling: Scaling) -> bool:
        found = self._standing(ctx, name)
        return found is not None and self._autoscalers.follows(ctx, found, scaling)

    def _standing(self, ctx: Context, name: str) -> Document | None:
        """The group, None where there is none or it is going."""
        found = self._find(ctx, name)
        return None if found is None or _going(found) else found

    def templates(self, ctx: Context, tags: Tags) -> list[str]:
        return self._templates.owned(ctx, tags)

    def delete_template(self, ctx: Context, name: str) -> None:
        self._templates.delete(ctx, name)

    # ------------------------------------------------------------------------------------------------- to foretell

    @property
    def regional(self) -> bool:
        """Whether its groups are of a region."""
        return "/regions/" in self._area

    def document(self, ctx: Context, name: str) -> Document | None:
        """A group that is there to stay, as Google tells of it."""
        return self._standing(ctx, name)

    def autoscaling(self, ctx: Context, group: Document) -> str | None:
        """The mode of a group's autoscaler; None without one."""
        there = self._autoscalers.of(ctx, group)
        return None if there is None else mode_of(there)

    def template_fits(self, ctx: Context, request: GroupRequest) -> bool | None:
        """Whether the template that is there is the one that is wanted; None where there is none."""
        return self._templates.fits(ctx, request)

    # ------------------------------------------------------------------------------------------------------- details

    @property
    def _groups(self) -> str:
        return address_of(self._gcp, f"{self._area}/instanceGroupManagers")

    def _url(self, name: str) -> str:
        return f"{self._groups}/{name}"

    def _find(self, ctx: Context, name: str) -> Document | None:
        try:
            return self._gcp.get(ctx, self._url(name), f"instance group {name}")
        except NotFound:
            return None

    def _create(self, ctx: Context, request: GroupRequest, template: str, port: int) -> None:
        document: Document = {
            "name": request.name,
            "description": written({**request.tags, BACKEND: request.backend}),
            "baseInstanceName": request.name,
            "instanceTemplate": address_of(self._gcp, template),
            "targetSize": request.capacity,
            "namedPorts": [{"name": NAMED_PORT, "port": port}],
        }
        what = f"instance group {request.name}"
        # The name makes it once; the id is this call's alone, so that one deleted since is not taken for the answer.
        token = request_id("instanceGroupManagers.insert", request.name, ctx.nonce())
        try:
            self._gcp.perform(ctx, "POST", self._groups, what, document, request_id=token, seconds=LONGEST_CHANGE)
        except AlreadyThere as error:
            there = self._find(ctx, request.name)
            if there is None:
                raise Unavailable(
                    f"{what}: exists, but is not visible yet", hint="run the same command again"
                ) from error
            self._require_same(ctx, request, there)

    def _require_same(self, ctx: Context, request: GroupRequest, there: Document) -> None:
        """Raise unless a group that exists is the one that is meant."""
        what = f"instance group {request.name}"
        tags = require_ours(there, what, hint="rename or remove that group")
        if _going(there):
            raise Unavailable(
                f"{what}: an earlier one of this name is still being deleted", hint="run the same command again"
            )
        image = self._templates.image(ctx, link_of(there["instanceTemplate"]))
        if (tags.get(RELEASE), image) != (request.release, request.image):
            raise Refused(
                f"{what}: holds {tags.get(RELEASE)} from {image}, not {request.release} from {request.image}",
                hint="somebody changed it; delete that group",
            )

    def _link(self, name: str) -> str:
        """Of the instance group that a backend service has."""
        return f"{self._area}/instanceGroups/{name}"

    def _stands_behind(self, ctx: Context, found: Document, tags: Tags) -> bool:
        """Whether a group has its place. One that whoever made it left without has no use for its machines: it counts
        as one of none, and is brought to its capacity as any is that has too few."""
        link = tags.get(BACKEND)
        backend = self._backends.lately(ctx, link) if link is not None and not _going(found) else None
        return backend is not None and backend.group == self._link(found["name"])

    def _managed(self, ctx: Context, name: str) -> list[Document]:
        """The group's machines as it manages them, newest first where that can be told."""
        url, query, found = f"{self._url(name)}/listManagedInstances", "", []
        try:
            while True:
                page = self._gcp.ask(ctx, url + query, f"instance group {name}")
                found += page.get("managedInstances", [])
                if "nextPageToken" not in page:
                    break
                query = f"?pageToken={page['nextPageToken']}"
        except NotFound:
            return []
        return sorted(found, key=lambda each: int(each.get("id") or 0), reverse=True)

    def _state(self, ctx: Context, found: Document, tags: Tags) -> GroupState:
        managed = self._managed(ctx, found["name"])
        missing = [each for each in managed if each.get("instanceStatus") != "RUNNING"]
        return GroupState(
            name=found["name"],
            release=ReleaseId(tags[RELEASE]) if RELEASE in tags else None,
            capacity=found.get("targetSize", 0) if self._stands_behind(ctx, found, tags) else 0,
            machines=_machines(managed),
            troubles=tuple(dict.fromkeys(told for each in missing if (told := _trouble(each)))),
            deleting=_going(found),
            tags=dict(tags),
            created=datetime.fromisoformat(found["creationTimestamp"]) if "creationTimestamp" in found else None,
        )


def _going(found: Document) -> bool:
    """Whether a group is being deleted: every machine that it has is, or none is left and it is not done. One that
    shrinks keeps some, and one that somebody brought to none is at rest."""
    actions = {action: int(count) for action, count in (found.get("currentActions") or {}).items()}
    if any(actions.values()):
        return actions.get("deleting", 0) == sum(actions.values())
    return not found.get("targetSize") and not found.get("status", {}).get("isStable", False)


def _machines(managed: list[Document]) -> tuple[Machine, ...]:
    """The machines among those that a group manages: one that is yet to be made has no state."""
    return tuple(
        Machine(
            machine_of(each["instance"]),
            state := _STATES.get(str(each.get("instanceStatus", "")), MachineState.STOPPED),
            "" if state is MachineState.RUNNING else _trouble(each),
        )
        for each in managed
        if each.get("instance")
    )


def _trouble(managed: Document) -> str:
    """Why the last attempt to make a machine came to nothing, in Google's words, their code behind them."""
    errors = managed.get("lastAttempt", {}).get("errors", {}).get("errors", [])
    if not errors:
        return ""
    said = " ".join(str(errors[0].get("message") or "").split())
    code = str(errors[0].get("code") or "")
    return f"{said} ({code})" if said and code else said or code
