"""A balancer's rules and backends in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from osvdeploy.cloud import tags as labels
from osvdeploy.cloud.interfaces import HealthRule, ReleaseId, Route, RouteState, Slot, TargetHealth
from osvdeploy.cloud.memory.world import Backend, Listener, Rule, World
from osvdeploy.cloud.weights import require, require_one
from osvdeploy.context import Context
from osvdeploy.errors import NotFound, NotOurs, Refused, UsageError

PREVIEW_PRIORITY = {Slot.BLUE: -2, Slot.GREEN: -1}
"""Where the preview rules stand, from the route's own priority."""


class MemoryRouter:
    """:class:`~osvdeploy.cloud.interfaces.TrafficRouter` on a :class:`~osvdeploy.cloud.memory.world.World`."""

    def __init__(self, world: World) -> None:
        self._world = world

    def observe(self, ctx: Context, route: Route) -> RouteState:
        world = self._world
        with world.calls.around("router.observe", route.service), world.lock:
            world.settle()
            listener = self._listener(route)
            backends = {
                slot: backend.id
                for slot in Slot
                if (backend := self._backend(route, slot)) is not None and self._preview(route, slot) is not None
            }
            rule = self._rule(route, route.listener, route.priority)
            weights = None
            if rule is not None and rule.weights is not None:
                weights = {slot: rule.weights.get(_backend_id(route, slot), 0) for slot in Slot}
            standing = {"route": rule, **{f"preview-{slot}": self._preview(route, slot) for slot in Slot}}
            return RouteState(
                backends=backends,
                weights=weights,
                base_url=f"http://{listener.host}:{listener.port}",
                addresses=listener.addresses[: len(listener.addresses) - listener.hidden],
                rules={name: each.id for name, each in standing.items() if each is not None},
                weighted=not listener.pointer,
                previews={
                    slot: f"http://{own.host}:{own.port}"
                    for slot, backend in backends.items()
                    if listener.pointer and (own := world.listeners.get(backend)) is not None
                },
                left=rule.left if rule is not None else None,
                partial=listener.hidden > 0,
                changed="" if rule is None or listener.pointer else _changed(route, rule),
            )

    def ensure_slots(self, ctx: Context, route: Route) -> None:
        world = self._world
        with world.lock:
            pointer = self._listener(route).pointer
            missing = [slot for slot in Slot if self._backend(route, slot) is None]
            unruled = [slot for slot in Slot if self._preview(route, slot) is None]
            # Looked at before anything is made: what is not ours is found here.
            self._rule(route, route.listener, route.priority)
        if pointer and route.listener not in world.taken:
            with world.calls.around("router.take_pointer", route.listener, route.service), world.lock:
                world.taken[route.listener] = route.service
        for slot in missing:
            ctx.check()
            with world.calls.around("router.create_backend", route.service, slot), world.lock:
                name = _backend_id(route, slot)
                world.backends[name] = Backend(
                    name,
                    slot,
                    route.port,
                    route.health,
                    {**route.tags, labels.SLOT: slot.value},
                    slow_start=route.slow_start,
                )
        for slot in unruled:
            ctx.check()
            name, priority = self._preview_place(route, slot)
            with world.calls.around("router.create_rule", priority, slot), world.lock:
                if pointer:
                    world.open_listener(name)
                header = None if pointer else (route.preview_header, slot.value)
                self._create(route, name, priority, header, {_backend_id(route, slot): 1})

    def health(self, ctx: Context, route: Route, slot: Slot) -> tuple[TargetHealth, ...]:
        world = self._world
        with world.calls.around("router.health", route.service, slot), world.lock:
            world.settle()
            backend = self._backend(route, slot)
            if backend is None:
                return ()
            if not world.used(backend):
                return tuple(TargetHealth(name, "unused", "Target.NotInUse") for name in backend.targets)
            return tuple(TargetHealth(name, target.state, target.reason) for name, target in backend.targets.items())

    def set_weights(self, ctx: Context, route: Route, weights: Mapping[Slot, int]) -> None:
        world = self._world
        require(route, weights)
        wanted = {_backend_id(route, slot): weights[slot] for slot in Slot}
        with world.lock:
            if self._listener(route).pointer:
                require_one(route, weights)
            rule = self._rule(route, route.listener, route.priority)
        told = ", ".join(f"{slot}={weights[slot]}" for slot in Slot)
        operation = "router.modify_rule" if rule else "router.create_rule"
        with world.calls.around(operation, route.priority, told), world.lock:
            now = world.settle()
            lost = next((name for name in wanted if name not in world.backends), None)
            if lost is not None:
                raise NotFound(f"{route.service}: backend {lost} does not exist")
            if rule is None:
                self._create(route, route.listener, route.priority, None, wanted)
            elif rule.id not in world.rules:
                raise NotFound(f"{route.service}: rule {rule.id} does not exist")
            else:
                rule.history.append((now, wanted))
                rule.host, rule.path = route.host, route.path

    def find(self, ctx: Context, service: str, key: str) -> list[Route]:
        world = self._world
        with world.calls.around("router.find", service), world.lock:
            world.settle()
            return [
                found
                for rule in world.rules.values()
                if not rule.preview and rule.tags.get(labels.SERVICE) == service
                if (found := self._route_of(rule, service, key)) is not None
            ]

    def _route_of(self, rule: Rule, service: str, key: str) -> Route | None:
        """The route whose traffic a rule sends, by what stands of it."""
        world = self._world
        backend = next((world.backends[name] for name in rule.weights or () if name in world.backends), None)
        if backend is None:
            return None
        previews = [each for each in world.rules.values() if each.preview and backend.id in (each.weights or {})]
        header = next((each.header[0] for each in previews if each.header is not None), "")
        return Route(
            key=key,
            service=service,
            listener=rule.listener,
            priority=rule.priority,
            port=backend.port,
            health=backend.health,
            preview_header=header,
            host=rule.host,
            path=rule.path,
            tags=dict(rule.tags),
        )

    def forget(self) -> None:
        """Nothing is remembered of rules: each look reads them."""

    def note_left(self, ctx: Context, route: Route, left: ReleaseId | None) -> None:
        world = self._world
        with world.lock:
            rule = self._rule(route, route.listener, route.priority)
            if rule is None:
                raise NotFound(f"{route.service}: it has no rule that sends traffic")
            if rule.left == left:
                return
        with world.calls.around("router.note_left", route.service, left), world.lock:
            rule.left = left

    def in_use(self, ctx: Context, route: Route) -> str:
        world = self._world
        with world.calls.around("router.find", route.service), world.lock:
            world.settle()
            for rule in sorted(world.rules.values(), key=lambda each: each.priority):
                theirs = rule.listener == route.listener and not labels.is_ours(rule.tags) and bool(rule.weights)
                same = (rule.host, rule.path) == (route.host, route.path) and rule.priority > route.priority
                if theirs and same and any(name in world.backends for name in rule.weights or {}):
                    return f"rule {rule.id} at priority {rule.priority}"
            return ""

    def weights_of(self, ctx: Context, routes: Sequence[Route]) -> Mapping[str, Mapping[Slot, int] | None]:
        world, found = self._world, dict[str, Mapping[Slot, int] | None]()
        for listener in {route.listener for route in routes}:
            with world.calls.around("router.weights_of", listener), world.lock:
                world.settle()
                if listener not in world.listeners:
                    continue
                for route in (each for each in routes if each.listener == listener):
                    try:
                        rule = self._rule(route, listener, route.priority)
                    except NotOurs:
                        rule = None
                    there = rule.weights if rule is not None else None
                    found[route.key] = (
                        None if there is None else {slot: there.get(_backend_id(route, slot), 0) for slot in Slot}
                    )
        return found

    def slow_start(self, ctx: Context, route: Route, slot: Slot) -> float | None:
        world = self._world
        with world.calls.around("router.slow_start", route.service, slot), world.lock:
            backend = self._backend(route, slot)
            return None if backend is None or self._listener(route).pointer else backend.slow_start

    def check_of(self, ctx: Context, route: Route, slot: Slot) -> HealthRule | None:
        world = self._world
        with world.calls.around("router.check_of", route.service, slot), world.lock:
            backend = self._backend(route, slot)
            return None if backend is None else backend.health

    def set_slow_start(self, ctx: Context, route: Route) -> None:
        world = self._world
        with world.lock:
            if self._listener(route).pointer:
                if route.slow_start:
                    raise Refused(f"{route.listener}: a pointer has no slow start")
                return
        for slot in Slot:
            ctx.check()
            with world.calls.around("router.set_slow_start", route.service, slot), world.lock:
                if (backend := self._backend(route, slot)) is not None:
                    backend.slow_start = route.slow_start

    def refuse_unadoptable(self, ctx: Context, route: Route, group: str) -> str:
        world = self._world
        with world.calls.around("router.find", route.service, group), world.lock:
            world.settle()
            if world.listener(route.listener).pointer:
                raise UsageError(f"{route.listener}: has one target for all that comes to it", hint="use a listener")
            found = world.groups.get(group)
            if found is None:
                raise UsageError(f"{group}: there is no such group")
            leading = [
                rule
                for rule in world.rules.values()
                if rule.listener == route.listener and not rule.preview and found.backend in (rule.weights or {})
            ]
            same = [rule for rule in leading if (rule.host, rule.path) == (route.host, route.path)]
            if not same:
                raise UsageError(f"{group}: no rule of {route.listener} sends it what the route is to take")
            rule = min(same, key=lambda each: each.priority)
            if rule.priority <= route.priority:
                raise UsageError(
                    f"{group}: its rule has priority {rule.priority}, before {route.priority}",
                    hint=f"choose a `route.priority` below {rule.priority}",
                )
            return f"rule {rule.id} at priority {rule.priority}"

    def give_back(self, ctx: Context, route: Route) -> None:
        world = self._world
        with world.lock:
            rule = self._rule(route, route.listener, route.priority)
        if rule is None:
            return
        with world.calls.around("router.delete_rule", rule.id), world.lock:
            if world.rules.pop(rule.id, None) is not None:
                rule.history.append((world.settle(), None))
                world.deleted_rules.append(rule)

    def remove(self, ctx: Context, route: Route) -> None:
        world = self._world
        with world.lock:
            # Found before anything is taken away: what is not ours is refused here.
            self._refuse_taken(route)
            listener = world.listeners.get(route.listener)
            if listener is not None and listener.pointer and route.listener not in world.taken:
                return  # nothing of ours is there, wherever it leads
            places = ((route.listener, route.priority), *(self._preview_place(route, slot) for slot in Slot))
            rules = [rule for place in places if (rule := self._rule(route, *place)) is not None]
            backends = [backend for slot in Slot if (backend := self._backend(route, slot)) is not None]
        for rule in rules:
            ctx.check()
            with world.calls.around("router.delete_rule", rule.id), world.lock:
                if world.rules.pop(rule.id, None) is not None:
                    rule.history.append((world.settle(), None))
                    world.deleted_rules.append(rule)
        for backend in backends:
            ctx.check()
            with world.calls.around("router.delete_backend", backend.id), world.lock:
                if world.used(backend):
                    raise Refused(f"backend {backend.id}: a rule still uses it")
                world.backends.pop(backend.id, None)

        if route.listener in world.taken:
            ctx.check()
            with world.calls.around("router.give_pointer_back", route.listener), world.lock:
                del world.taken[route.listener]
                for slot in Slot:
                    world.listeners.pop(_backend_id(route, slot), None)

    def _listener(self, route: Route) -> Listener:
        """The route's. Raises NotFound without it, NotOurs where it is a pointer that another service has."""
        self._refuse_taken(route)
        return self._world.listener(route.listener)

    def _refuse_taken(self, route: Route) -> None:
        owner = self._world.taken.get(route.listener, route.service)
        if owner != route.service:
            raise NotOurs(f"{route.listener}: belongs to {owner}, not to {route.service}", hint="name another one")

    def _backend(self, route: Route, slot: Slot) -> Backend | None:
        backend = self._world.backends.get(_backend_id(route, slot))
        if backend is not None and backend.tags.get(labels.SERVICE) != route.tags.get(labels.SERVICE):
            owner = backend.tags.get(labels.SERVICE, "something else")
            raise NotOurs(f"backend {backend.id}: belongs to {owner}, not to {route.service}")
        return backend

    def _preview(self, route: Route, slot: Slot) -> Rule | None:
        return self._rule(route, *self._preview_place(route, slot))

    def _preview_place(self, route: Route, slot: Slot) -> tuple[str, int]:
        """On which listener a slot is previewed, and by the rule of which priority: a pointer's has one of its own."""
        listener = self._world.listeners.get(route.listener)
        if listener is not None and listener.pointer:
            return _backend_id(route, slot), 0
        return route.listener, route.priority + PREVIEW_PRIORITY[slot]

    def _rule(self, route: Route, listener: str, priority: int) -> Rule | None:
        for rule in self._world.rules.values():
            if (rule.listener, rule.priority) != (listener, priority):
                continue
            if rule.tags.get(labels.SERVICE) != route.tags.get(labels.SERVICE):
                owner = rule.tags.get(labels.SERVICE, "something else")
                raise NotOurs(
                    f"rule {rule.id} at priority {priority} of {listener}: belongs to {owner}",
                    hint=f"remove it, or choose a `route.priority` with {priority} and its neighbours free",
                )
            return rule
        return None

    def _create(
        self, route: Route, listener: str, priority: int, header: tuple[str, str] | None, weights: Mapping[str, int]
    ) -> None:
        world = self._world
        if self._rule(route, listener, priority) is not None:
            raise Refused(f"priority {priority} of {listener}: in use")
        preview = (listener, priority) != (route.listener, route.priority)
        rule = Rule(f"rule-{world.number()}", listener, priority, route.host, route.path, header, route.tags, preview)
        rule.history.append((world.settle(), weights))
        world.rules[rule.id] = rule


def _backend_id(route: Route, slot: Slot) -> str:
    return f"osvd-{route.key}-{slot}"


def _changed(route: Route, rule: Rule) -> str:
    """What of the route's own rule is not as this router writes it, beside the weights of the slots."""
    weights, own = rule.weights or {}, {_backend_id(route, slot) for slot in Slot}
    total = sum(weights.values())
    found = [f"sends {weight} of {total} to {name}" for name, weight in weights.items() if weight and name not in own]
    if (rule.host, rule.path) != (route.host, route.path):
        there, wanted = (_asked(each.host, each.path) for each in (rule, route))
        found.append(f"takes {there}, and not {wanted}")
    return "; ".join(found)


def _asked(host: str | None, path: str | None) -> str:
    return " ".join(each for each in (host, path) if each is not None) or "every request"
