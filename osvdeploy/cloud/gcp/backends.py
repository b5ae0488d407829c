"""Backend services: what stands in a slot, and its health check.

A slot's backend service tells, in one write, which group stands behind it and which release that group is of: so no
look finds the one without the other. Each write carries the fingerprint that was read; whoever was overtaken is told
so (412) and looks again.

Sources: Compute Engine API reference (backendServices, regionBackendServices, healthChecks); load balancing guide,
"Backend services overview" (named ports, balancing mode), "Health checks overview" (an answer of 200, nothing else).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from osvdeploy.cloud.gcp.errors import AlreadyThere, Stale
from osvdeploy.cloud.gcp.marks import PORT, marks_of, require_ours, written
from osvdeploy.cloud.gcp.scope import address_of, link_of, machine_of
from osvdeploy.cloud.gcp.session import Document, Gcp, request_id
from osvdeploy.cloud.interfaces import HealthRule, ReleaseId, Route, Slot, Tags, TargetHealth
from osvdeploy.cloud.tags import ADOPTED, BACKEND, CONFIGURATION, DIGEST, IMAGE, RELEASE, SLOT, VERSION
from osvdeploy.context import Context
from osvdeploy.errors import CloudError, NotFound, Refused, Unavailable
from osvdeploy.retry import retrying

SCHEMES = ("EXTERNAL_MANAGED", "INTERNAL_MANAGED")
"""Kinds of balancers that are served: all but the classic one, which has no weights."""

NAMED_PORT = "http"
"""What the machines' port is called: a backend service names it, a group says which it is."""

DRAINING = 20
"""Seconds that requests under way have to end when a machine is taken away, after traffic has moved."""

LONGEST_CHANGE = 120.0
"""Seconds for one change of a balancer's parts. Most take some seconds."""

USED_FOR = 60.0
"""Seconds for which something may count as used by what was deleted before it."""

RENAME = "rename or remove that one"

_OF_GROUPS = frozenset({RELEASE, VERSION, IMAGE, CONFIGURATION, DIGEST, ADOPTED, BACKEND})
"""Marks that tell what stands behind a backend service."""

_SHARED = (
    "group",
    "balancingMode",
    "capacityScaler",
    "maxUtilization",
    "maxRate",
    "maxRatePerInstance",
    "maxConnections",
    "maxConnectionsPerInstance",
)
"""What of a group's place behind one backend service holds behind another: a group has one balancing mode wherever it
stands (load balancing guide, "Backend services overview", restrictions for instance groups)."""

_STATES = {"HEALTHY": "healthy", "UNHEALTHY": "unhealthy"}


@dataclass(frozen=True, slots=True)
class Backend:
    """A slot's backend service. ``group`` is the instance group behind it, ``release`` what that group is of."""

    link: str
    document: Document
    group: str | None
    release: ReleaseId | None

    @property
    def port(self) -> int:
        return int(marks_of(self.document).get(PORT, "0"))

    @property
    def service_tags(self) -> dict[str, str]:
        """Its tags, but for those that are of what stands in this slot."""
        marks = marks_of(self.document)
        return {key: value for key, value in _own(marks).items() if key not in (PORT, SLOT)}


def backend_name(route: Route, slot: Slot) -> str:
    return f"osvd-{route.key}-{slot}"


LOOK = 2.0
"""Seconds: a rollout's look asks for a route's state first, and then for the health and the groups behind it. While a
switch is to be proved, looks follow each other within a second or so: where traffic goes is read in each, what stands
behind it in every second or third."""


class Backends:
    """Backend services and health checks of one project. Not a port: router and groups share it, so that what one of
    them has just read in a look is not read again by the other in the same."""

    def __init__(self, gcp: Gcp) -> None:
        self._gcp = gcp
        self._read: dict[str, tuple[float, Backend | None]] = {}

    def of_slot(self, ctx: Context, route: Route, scope: str, slot: Slot, *, lately: bool = False) -> Backend | None:
        """A slot's, None where there is none; with ``lately`` as by :meth:`lately`. Raises
        :class:`~osvdeploy.errors.NotOurs`."""
        link = _link(route, scope, slot)
        return _ours(self.lately(ctx, link) if lately else self.find(ctx, link), route)

    def find(self, ctx: Context, link: str) -> Backend | None:
        """As it is now."""
        began = ctx.monotonic()
        found = self._find(ctx, link)
        self._read[link] = began, found
        return found

    def lately(self, ctx: Context, link: str) -> Backend | None:
        """As it is now, or as this very look has found it. Nothing is to be written by it."""
        began, found = self._read.get(link, (-math.inf, None))
        return found if ctx.monotonic() - began < LOOK else self.find(ctx, link)

    def _find(self, ctx: Context, link: str) -> Backend | None:
        try:
            found = self._gcp.get(ctx, address_of(self._gcp, link), f"backend service {link}")
        except NotFound:
            return None
        groups = [link_of(each["group"]) for each in found.get("backends", [])]
        release = marks_of(found).get(RELEASE)
        return Backend(link, found, groups[0] if groups else None, ReleaseId(release) if release else None)

    def ensure(
        self, ctx: Context, route: Route, scope: str, slot: Slot, scheme: str, protocol: str = "HTTP"
    ) -> Backend:
        """Make a slot's backend service, or bring the one that is there to the route's port."""
        check = self._ensure_check(ctx, route, scope)
        there = self.of_slot(ctx, route, scope, slot)
        name = backend_name(route, slot)
        tags = {**route.tags, SLOT: slot.value, PORT: str(route.port)}
        if there is None:
            document: Document = {
                "name": name,
                "description": written(tags),
                "loadBalancingScheme": scheme,
                "protocol": protocol,
                "portName": NAMED_PORT,
                "healthChecks": [address_of(self._gcp, check)],
                "connectionDraining": {"drainingTimeoutSec": DRAINING},
            }
            self.insert_part(ctx, f"{scope}/backendServices", document, f"backend service {name}")
            made = self.of_slot(ctx, route, scope, slot)
            if made is None:
                raise Unavailable(f"backend service {name}: is not visible yet", hint="run the same command again")
            return made
        if there.port != route.port:
            self.write(ctx, there, {"description": written({**marks_of(there.document), **tags})})
        return there

    def write(self, ctx: Context, backend: Backend, changes: Mapping[str, object]) -> None:
        """Change a backend service, if it is as it was read.

        Raises :class:`~osvdeploy.errors.Unavailable` where somebody else was quicker: what is there has to be looked
        at again before anything is decided.
        """
        document = {**changes, "fingerprint": backend.document["fingerprint"]}
        try:
            write(self._gcp, ctx, backend.link, document, f"backend service {backend.link}")
        finally:
            self._read.pop(backend.link, None)

    def put_behind(self, ctx: Context, backend: Backend, group: str, release: ReleaseId) -> None:
        """Let a group, and nothing else, stand behind a backend service."""
        tags = {**_own(marks_of(backend.document)), RELEASE: release}
        # No ``maxUtilization``, no rate: how many machines there are is said by the group, and by nobody else.
        behind = {"group": address_of(self._gcp, group), "balancingMode": "UTILIZATION", "capacityScaler": 1.0}
        self.write(ctx, backend, {"description": written(tags), "portName": NAMED_PORT, "backends": [behind]})

    def put_beside(self, ctx: Context, backend: Backend, behind: Document, port_name: str, tags: Tags) -> None:
        """Let somebody's group, told as it stands behind theirs, stand behind a backend service of ours too, at a named
        port of its own. What is known of it is kept here: its own description is not ours to write."""
        document = {key: value for key, value in behind.items() if key in _SHARED}
        marks = {**_own(marks_of(backend.document)), **tags}
        self.write(ctx, backend, {"description": written(marks), "portName": port_name, "backends": [document]})

    def take_away(self, ctx: Context, backend: Backend) -> None:
        """Let nothing stand behind a backend service."""
        self.write(ctx, backend, {"description": written(_own(marks_of(backend.document))), "backends": []})

    def entry_of(self, ctx: Context, scope: str, group: str, without: str) -> Document | None:
        """How a group stands behind a backend service of somebody else's in a scope: a group has one balancing mode
        wherever it stands. ``without`` is the link of ours."""
        pages = self._gcp.pages(ctx, address_of(self._gcp, f"{scope}/backendServices"), "backendServices")
        for found in (each for page in pages for each in page.get("items", [])):
            behinds: list[Document] = found.get("backends", [])
            for behind in behinds:
                if link_of(behind["group"]) == group and link_of(found["selfLink"]) != without:
                    return behind
        return None

    def delete(self, ctx: Context, backend: Backend) -> None:
        try:
            self.delete_part(ctx, backend.link, str(backend.document["id"]), f"backend service {backend.link}")
        finally:
            self._read.pop(backend.link, None)

    def health(self, ctx: Context, route: Route, scope: str, slot: Slot) -> tuple[TargetHealth, ...]:
        """Each machine behind a slot's backend service, as the balancer's checks find it."""
        backend = _ours(self.lately(ctx, _link(route, scope, slot)), route)
        if backend is None:
            return ()
        # One, unless somebody has put others beside it, which get requests like it.
        groups = [link_of(each["group"]) for each in backend.document.get("backends", [])]
        return tuple(found for group in groups for found in self._health_of(ctx, route, backend, group))

    def _health_of(self, ctx: Context, route: Route, backend: Backend, group: str) -> tuple[TargetHealth, ...]:
        what, body = f"backend service {backend.link}", {"group": address_of(self._gcp, group)}
        try:
            found = self._gcp.ask(ctx, f"{address_of(self._gcp, backend.link)}/getHealth", what, body)
        except NotFound:
            return ()  # the group has gone since
        except Refused:
            # It was taken from behind the service since, which Google answers with "invalid".
            now = self.find(ctx, backend.link)
            if now is not None and any(link_of(each["group"]) == group for each in now.document.get("backends", [])):
                raise
            return ()
        return tuple(
            TargetHealth(machine_of(each["instance"]), state, "" if state == "healthy" else _reason(route))
            for each in found.get("healthStatus", [])
            if (state := _STATES.get(each.get("healthState", ""), "initial"))
        )

    # ------------------------------------------------------------------------------------------------ health checks

    def check_of(self, ctx: Context, route: Route, scope: str) -> Document | None:
        """The route's health check. Raises :class:`~osvdeploy.errors.NotOurs`."""
        link = _check_link(route, scope)
        try:
            found = self._gcp.get(ctx, address_of(self._gcp, link), f"health check {link}")
        except NotFound:
            return None
        require_ours(found, f"health check {link}", service=route.service, hint=RENAME)
        return found

    def rule_of_check(self, ctx: Context, key: str, scope: str) -> HealthRule | None:
        """What the health check of a route with this key asks, None where there is none."""
        link = f"{scope}/healthChecks/osvd-{key}"
        try:
            return _rule_of(self._gcp.get(ctx, address_of(self._gcp, link), f"health check {link}"))
        except NotFound:
            return None

    def rule_in_use(self, ctx: Context, route: Route, scope: str, slot: Slot) -> HealthRule | None:
        """As :meth:`~osvdeploy.cloud.interfaces.TrafficRouter.check_of`: by the check that the backend service names,
        which may be another than was made for it."""
        backend = self.of_slot(ctx, route, scope, slot)
        if backend is None:
            return None
        link = link_of((backend.document.get("healthChecks") or [""])[0])
        try:
            found = self._gcp.get(ctx, address_of(self._gcp, link), f"health check {link}") if link else None
        except NotFound:
            found = None
        if found is None or check_fits(found, route):
            return None if found is None else route.health
        there = _rule_of(found)
        # What is no part of a rule is said beside it.
        port = found.get(f"{there.kind}HealthCheck", {}).get("port")
        return there if port == route.port else replace(there, beside=f"on port {port or 'of each machine'}")

    def delete_check(self, ctx: Context, route: Route, scope: str) -> None:
        found = self.check_of(ctx, route, scope)
        if found is not None:
            link = _check_link(route, scope)
            self.delete_part(ctx, link, str(found["id"]), f"health check {link}")

    def _ensure_check(self, ctx: Context, route: Route, scope: str) -> str:
        link, wanted = _check_link(route, scope), _checking(route.health, route.port)
        there = self.check_of(ctx, route, scope)
        if there is None:
            document = {"name": link.rpartition("/")[2], "description": written(route.tags), **wanted}
            self.insert_part(ctx, f"{scope}/healthChecks", document, f"health check {link}")
        elif not _holds(there, wanted):
            write(self._gcp, ctx, link, wanted, f"health check {link}")
        return link

    # ------------------------------------------------------------------------------------------------------ changing

    def insert_part(self, ctx: Context, collection: str, document: Document, what: str) -> None:
        """Make a part of a balancer, once for its name. Whose the one is that is there then, the caller looks at."""
        # The name makes it once; the id is one call's, so that what was deleted since is not taken for the answer.
        token = request_id(collection, str(document["name"]), ctx.nonce())
        url = address_of(self._gcp, collection)
        try:
            self._gcp.perform(ctx, "POST", url, what, document, request_id=token, seconds=LONGEST_CHANGE)
        except AlreadyThere:
            pass  # another process, or an earlier run whose answer was lost: whose it is, is looked at next

    def delete_part(self, ctx: Context, link: str, number: str, what: str) -> None:
        """Delete a part of a balancer, once nothing uses it any more. ``number`` is its id."""

        def delete() -> None:
            # Another attempt is another request: Google would repeat the refusal of the first.
            token = request_id("delete", link, number, ctx.nonce())
            url = address_of(self._gcp, link)
            self._gcp.perform(ctx, "DELETE", url, what, request_id=token, seconds=LONGEST_CHANGE)

        try:
            retrying(ctx, delete, when=in_use, seconds=USED_FOR, first_wait=1.0)
        except NotFound:
            pass


def _own(marks: Tags) -> dict[str, str]:
    """A backend service's own marks, without those of what stands behind it."""
    return {key: value for key, value in marks.items() if key not in _OF_GROUPS}


def _link(route: Route, scope: str, slot: Slot) -> str:
    return f"{scope}/backendServices/{backend_name(route, slot)}"


def _ours(found: Backend | None, route: Route) -> Backend | None:
    """The same. Raises NotOurs for another service's."""
    if found is not None:
        require_ours(found.document, f"backend service {found.link}", service=route.service, hint=RENAME)
    return found


def write(
    gcp: Gcp,
    ctx: Context,
    link: str,
    document: Mapping[str, object],
    what: str,
    method: str = "PATCH",
    *,
    identified: bool = True,
) -> None:
    """Change a balancer's part. Raises :class:`~osvdeploy.errors.Unavailable` where it is not as it was read. Not
    ``identified``: the method knows no request ids."""
    token = request_id(method, link, ctx.nonce()) if identified else None
    url = address_of(gcp, link)
    try:
        gcp.perform(ctx, method, url, what, dict(document), request_id=token, seconds=LONGEST_CHANGE)
    except Stale as error:
        raise Unavailable(
            error.message,
            operation=error.operation,
            code=error.code,
            hint="another process is at work on it; run the same command again",
        ) from error


def in_use(error: BaseException) -> bool:
    """Whether something cannot be deleted yet, because what it was used by still counts."""
    return isinstance(error, CloudError) and error.code in (
        "resourceInUseByAnotherResource",
        "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE",
    )


def _reason(route: Route) -> str:
    if route.health.kind == "tcp":
        return f"Google gets no connection at port {route.port}"
    return f"Google gets no 200 from {route.health.path} at port {route.port}"


def _check_link(route: Route, scope: str) -> str:
    return f"{scope}/healthChecks/osvd-{route.key}"


def _rule_of(check: Document) -> HealthRule:
    return HealthRule(
        path=str(check.get("httpHealthCheck", {}).get("requestPath", "/")),
        interval=float(check.get("checkIntervalSec", 5)),
        timeout=float(check.get("timeoutSec", 5)),
        healthy=int(check.get("healthyThreshold", 2)),
        unhealthy=int(check.get("unhealthyThreshold", 2)),
        kind="tcp" if check.get("type") == "TCP" else "http",
    )


def _checking(health: HealthRule, port: int) -> Document:
    asked: Document = {"portSpecification": "USE_FIXED_PORT", "port": port}
    if health.kind == "http":
        asked["requestPath"] = health.path
    return {
        "type": health.kind.upper(),
        f"{health.kind}HealthCheck": asked,
        "checkIntervalSec": math.ceil(health.interval),
        "timeoutSec": math.ceil(health.timeout),
        "healthyThreshold": health.healthy,
        "unhealthyThreshold": health.unhealthy,
    }


def check_fits(there: Document, route: Route) -> bool:
    """Whether a health check is as a route wants it."""
    return _holds(there, _checking(route.health, route.port))


def _holds(there: Document, wanted: Document) -> bool:
    return all(
        _holds(there.get(key) or {}, value) if isinstance(value, dict) else there.get(key) == value
        for key, value in wanted.items()
    )
