"""What a rollout's changes are in calls to Google, told before they are made.

Beside the adapters, and by what they read: which part exists decides whether it is made or changed. Operations of a
region's parts are told by Google's own names for them: ``regionBackendServices.insert``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from osvdeploy.cloud import rules
from osvdeploy.cloud.gcp.backends import Backends, backend_name, check_fits
from osvdeploy.cloud.gcp.groups import ManagedGroups
from osvdeploy.cloud.gcp.images import GceImages
from osvdeploy.cloud.gcp.marks import marks_of
from osvdeploy.cloud.gcp.pointer import PointerRouter
from osvdeploy.cloud.gcp.router import UrlMapRouter
from osvdeploy.cloud.gcp.scaling import GROWS, OFF, ON, mode_of
from osvdeploy.cloud.gcp.scope import forwarding_rule_of, last, link_of, url_map_of
from osvdeploy.cloud.interfaces import CloudImage, Foretold, GroupRequest, PlannedCall, ReleaseId, Route, Scaling, Slot
from osvdeploy.cloud.tags import BACKEND
from osvdeploy.context import Context


@dataclass(slots=True)
class _Standing:
    """A slot's backend service as it would be by now."""

    port: int
    group: str | None
    release: str | None


@dataclass(slots=True)
class _Route:
    """What of a route there would be by now. ``check``: None without a health check, else whether it is as it should
    be. ``rules`` counts ours in the URL map; ``taken``: a pointer has our labels; ``whole`` are a pointer's slots that
    are all there."""

    check: bool | None
    backends: dict[Slot, _Standing]
    rules: int = 0
    taken: bool = True
    whole: set[Slot] = field(default_factory=set)


@dataclass(slots=True)
class _Group:
    """A group as it would be by now. ``autoscaler``: its mode, None without one."""

    size: int
    backend: str | None
    autoscaler: str | None


@dataclass(slots=True)
class GcpForesight:
    """:class:`~osvdeploy.cloud.interfaces.Foresight` on Google."""

    backends: Backends
    groups: ManagedGroups
    images: GceImages
    url_maps: UrlMapRouter
    pointers: PointerRouter
    _routes: dict[str, _Route] = field(default_factory=dict)
    _groups: dict[str, _Group | None] = field(default_factory=dict)
    _templates: set[str] = field(default_factory=set)
    _removed: set[tuple[str, str]] = field(default_factory=set)
    """Scopes and services whose backend services would be gone by now: they are found by the service, whatever its
    route."""

    def backend(self, route: Route, slot: Slot) -> str:
        return f"{_scope(route)}/backendServices/{backend_name(route, slot)}"

    def renamed(self, route: Route) -> bool:
        return forwarding_rule_of(route.listener) is None

    # -------------------------------------------------------------------------------------------------------- routes

    def ensure_slots(self, ctx: Context, route: Route, missing: Collection[Slot]) -> Foretold:
        there, told = self._of(ctx, route), list[PlannedCall]()
        pointer = not self.renamed(route)
        if pointer and not there.taken:
            told.append(self._pointing(route, "setLabels"))
            there.taken = True
        for slot in (each for each in Slot if each in missing and each not in there.whole):
            told += self._backend(route, slot, there)
            if pointer:
                told.append(_part(route, "targetTcpProxies", "insert", backend_name(route, slot)))
                told.append(_part(route, "forwardingRules", "insert", backend_name(route, slot)))
                there.whole.add(slot)
        if missing and not pointer:
            slots = " and ".join(slot for slot in Slot if slot in missing)
            told.append(self._map(route, f"preview {slots}"))
            there.rules = max(there.rules, 2)
        return told

    def _backend(self, route: Route, slot: Slot, there: _Route) -> list[PlannedCall]:
        told: list[PlannedCall] = []
        if not there.check:
            verb = "insert" if there.check is None else "patch"
            told.append(_part(route, "healthChecks", verb, f"osvd-{route.key}"))
            there.check = True
        standing, name = there.backends.get(slot), backend_name(route, slot)
        if standing is None:
            told.append(_part(route, "backendServices", "insert", name))
            there.backends[slot] = _Standing(route.port, None, None)
        elif standing.port != route.port:
            told.append(_part(route, "backendServices", "patch", name))
            standing.port = route.port
        return told

    def set_weights(self, ctx: Context, route: Route, weights: Mapping[Slot, int]) -> Foretold:
        if not self.renamed(route):
            slot = next(slot for slot in Slot if weights[slot] == 100)
            return [self._pointing(route, "setTarget", f": {slot}")]
        self._of(ctx, route).rules = 3
        return [self._map(route, ", ".join(f"{slot} {weights[slot]}" for slot in Slot))]

    def remove(self, ctx: Context, route: Route) -> Foretold:
        there, told = self._of(ctx, route), list[PlannedCall]()
        if self.renamed(route):
            told += [self._map(route, "without the service's rules")] if there.rules else []
        else:
            for part in ("forwardingRules", "targetTcpProxies"):
                told += [
                    _part(route, part, "delete", backend_name(route, slot)) for slot in Slot if slot in there.whole
                ]
        slots = [slot for slot in Slot if slot in there.backends]
        told += [_part(route, "backendServices", "delete", backend_name(route, slot)) for slot in slots]
        told += [_part(route, "healthChecks", "delete", f"osvd-{route.key}")] if there.check is not None else []
        if not self.renamed(route) and there.taken:
            told.append(self._pointing(route, "setLabels"))
        self._routes[_key(route)] = _Route(None, {}, taken=False)
        self._removed.add((_scope(route), route.service))
        return told

    def take_over(self, ctx: Context, route: Route, epoch: int) -> Foretold:
        there = self._of(ctx, route)
        if self.renamed(route):
            return [self._map(route, f"under lease {epoch}")] if there.rules else []
        return [self._pointing(route, "setLabels")] if there.taken else []

    def note_left(self, ctx: Context, route: Route, left: ReleaseId | None) -> Foretold:
        if not self.renamed(route):
            return [self._pointing(route, "setLabels")]
        return [self._map(route, f"without {left}" if left is not None else "no release is left any more")]

    def set_slow_start(self, ctx: Context, route: Route) -> Foretold:
        return []

    def sticky(self, ctx: Context, route: Route) -> float | None:
        found = (self.backends.of_slot(ctx, route, _scope(route), slot) for slot in Slot)
        kinds = [each.document for each in found if each is not None]
        lasting = [each for each in kinds if each.get("sessionAffinity", "NONE") != "NONE"]
        # A cookie without a time lasts as long as the browser's session, and an address is stuck to for good.
        times = [float(each.get("affinityCookieTtlSec") or float("inf")) for each in lasting]
        return max(times, default=None)

    def _pointing(self, route: Route, verb: str, more: str = "") -> PlannedCall:
        kind = "globalForwardingRules" if _scope(route).endswith("/global") else "forwardingRules"
        return PlannedCall("compute", f"{kind}.{verb}", f"{last(route.listener)}{more}")

    def _map(self, route: Route, what: str) -> PlannedCall:
        return _part(route, "urlMaps", "patch", f"{last(route.listener)}: {what}")

    def _of(self, ctx: Context, route: Route) -> _Route:
        found = self._routes.get(_key(route))
        if found is None:
            scope = _scope(route)
            looked = {slot: self.backends.of_slot(ctx, route, scope, slot) for slot in Slot}
            check = self.backends.check_of(ctx, route, scope)
            found = _Route(
                None if check is None else check_fits(check, route),
                {
                    slot: _Standing(each.port, None if each.group is None else last(each.group), each.release)
                    for slot, each in looked.items()
                    if each is not None
                },
            )
            if self.renamed(route):
                found.rules = self.url_maps.standing_rules(ctx, route)
            else:
                found.taken, found.whole = self.pointers.standing_parts(ctx, route)
            if (scope, route.service) in self._removed:
                found.check, found.backends, found.whole = None, {}, set()
            self._routes[_key(route)] = found
        return found

    # -------------------------------------------------------------------------------------------------------- groups

    def ensure(self, ctx: Context, request: GroupRequest) -> Foretold:
        name, there = request.name, self._group(ctx, request.name)
        told: list[PlannedCall] = []
        if there is None:
            fits = True if name in self._templates else self.groups.template_fits(ctx, request)
            if fits is False:
                told.append(self._template("delete", name))
            if not fits:
                told.append(self._template("insert", name))
            self._templates.add(name)
            told.append(self._manager("insert", f"{name}: {request.capacity} machines"))
            there = self._groups[name] = _Group(request.capacity, request.backend, None)
        elif there.size != request.capacity:
            if there.autoscaler not in (None, OFF):
                told.append(self._autoscaler("patch", name))
                there.autoscaler = OFF
            told.append(self._manager("resize", f"{name}: {request.capacity} machines"))
            there.size = request.capacity
        standing = self._behind(ctx, request.backend)
        if (standing.group, standing.release) != (name, request.release):
            told.append(_of_scope(request.backend, "backendServices", "patch", last(request.backend)))
            standing.group, standing.release = name, request.release
        return told

    def delete(self, ctx: Context, name: str, *, kept: bool) -> Foretold:
        if kept:
            return self._let_go(ctx, name)
        there, told = self._group(ctx, name), list[PlannedCall]()
        if there is None:
            return []
        if there.backend is not None:
            standing = self._behind(ctx, there.backend)
            if standing.group == name:
                told.append(_of_scope(there.backend, "backendServices", "patch", last(there.backend)))
                standing.group = standing.release = None
        if there.autoscaler is not None:
            told.append(self._autoscaler("delete", name))
        self._groups[name] = None
        return [*told, self._manager("delete", name)]

    def _let_go(self, ctx: Context, name: str) -> Foretold:
        seen, told = self.groups.observe(ctx, name), list[PlannedCall]()
        if seen is None:
            return []
        backend = seen.tags[BACKEND]
        standing = self._behind(ctx, backend)
        if standing.group == name:
            told.append(_of_scope(backend, "backendServices", "patch", last(backend)))
            standing.group = standing.release = None
        kind = "regionInstanceGroups" if self._regional else "instanceGroups"
        return [*told, PlannedCall("compute", f"{kind}.setNamedPorts", name)]

    def pause(self, ctx: Context, name: str) -> Foretold:
        return self._mode(ctx, name, ON, GROWS)

    def resume(self, ctx: Context, name: str, scaling: Scaling, *, grown: bool) -> Foretold:
        told = [] if scaling.paused else self._mode(ctx, name, GROWS, ON)
        return told or (self._mode(ctx, name, OFF, ON) if grown else [])

    def _mode(self, ctx: Context, name: str, before: str, after: str) -> Foretold:
        there = self._group(ctx, name)
        if there is None or there.autoscaler != before:
            return []
        there.autoscaler = after
        return [self._autoscaler("patch", name)]

    def apply(self, ctx: Context, name: str, scaling: Scaling) -> Foretold:
        there, told = self._group(ctx, name), list[PlannedCall]()
        if there is None:
            return []
        wanted = rules.read(scaling.rules, {"$(group)": name})
        if "updatePolicy" in wanted:  # which is there only where it is not the usual one
            told.append(self._manager("patch", name))
        autoscaler = wanted.get("autoscaler")
        if autoscaler is None:
            told += [self._autoscaler("delete", name)] if there.autoscaler is not None else []
        else:
            told.append(self._autoscaler("insert" if there.autoscaler is None else "update", name))
            there.autoscaler = mode_of(autoscaler)
        return told

    # -------------------------------------------------------------------------------------------------------- images

    def restore(self, ctx: Context, image: CloudImage) -> Foretold:
        state, _ = self._offered(ctx, image)
        return [] if state is None else [PlannedCall("compute", "images.deprecate", f"{image.name}: no more")]

    def offer(self, ctx: Context, image: CloudImage, family: str) -> Foretold:
        _, has = self._offered(ctx, image)
        return [] if has == family else [PlannedCall("compute", "images.patch", f"{image.name}: family {family}")]

    def withdraw(self, ctx: Context, image: CloudImage) -> Foretold:
        state, _ = self._offered(ctx, image)
        return [PlannedCall("compute", "images.deprecate", image.name)] if state is None else []

    def _offered(self, ctx: Context, image: CloudImage) -> tuple[str | None, str | None]:
        return self.images.offered(ctx, image) if image.id else (None, None)

    # ------------------------------------------------------------------------------------------------------- details

    def _group(self, ctx: Context, name: str) -> _Group | None:
        if name not in self._groups:
            found = self.groups.document(ctx, name)
            self._groups[name] = (
                None
                if found is None
                else _Group(
                    int(found.get("targetSize", 0)),
                    marks_of(found).get(BACKEND),
                    self.groups.autoscaling(ctx, found),
                )
            )
        return self._groups[name]

    def _behind(self, ctx: Context, link: str) -> _Standing:
        """What stands behind a backend service, as it would by now."""
        # The last route that was looked at: of one that is left nothing stands any more.
        for route in reversed(self._routes.values()):
            for slot, standing in route.backends.items():
                if link.endswith(f"-{slot}"):
                    return standing
        found = self.backends.find(ctx, link)
        if found is None:
            return _Standing(0, None, None)
        return _Standing(found.port, None if found.group is None else last(found.group), found.release)

    @property
    def _regional(self) -> bool:
        return self.groups.regional

    def _manager(self, verb: str, resource: str) -> PlannedCall:
        kind = "regionInstanceGroupManagers" if self._regional else "instanceGroupManagers"
        return PlannedCall("compute", f"{kind}.{verb}", resource)

    def _autoscaler(self, verb: str, resource: str) -> PlannedCall:
        kind = "regionAutoscalers" if self._regional else "autoscalers"
        return PlannedCall("compute", f"{kind}.{verb}", resource)

    def _template(self, verb: str, resource: str) -> PlannedCall:
        return PlannedCall("compute", f"instanceTemplates.{verb}", resource)


def _key(route: Route) -> str:
    return f"{route.listener} {route.priority}"


def _scope(route: Route) -> str:
    found = forwarding_rule_of(route.listener)
    return found[0] if found is not None else url_map_of(route.listener)[0]


_REGIONAL = {
    "healthChecks": "regionHealthChecks",
    "backendServices": "regionBackendServices",
    "urlMaps": "regionUrlMaps",
    "targetTcpProxies": "regionTargetTcpProxies",
    "forwardingRules": "forwardingRules",
}
"""Google's names for a region's."""


def _part(route: Route, kind: str, verb: str, resource: str) -> PlannedCall:
    return _of_scope(_scope(route), kind, verb, resource)


def _of_scope(link: str, kind: str, verb: str, resource: str) -> PlannedCall:
    everywhere = "/global" in link_of(link)
    named = {"forwardingRules": "globalForwardingRules"}.get(kind, kind) if everywhere else _REGIONAL[kind]
    return PlannedCall("compute", f"{named}.{verb}", resource)
