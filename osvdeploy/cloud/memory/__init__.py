"""A whole cloud in memory, for tests: of this project, and of those who build on it.

    cloud = MemoryCloud(clock)
    cloud.behave("hello-2.0.0-1a2b3c4d", never_healthy=True)
    manager = RolloutManager(Ledger(cloud.store, "hello", "production"), cloud.cloud, cloud.prober)
    ...
    assert cloud.serving == {"hello-1.0.0-5e6f7a8b"}

It remembers state, not calls: machines boot, become healthy and die as time goes by on the clock, weights take effect
at each entry point of a balancer after a while, and whatever looks at the same cloud sees the same. It is held to the
same contract suites as the real places.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from osvdeploy.cloud import tags as labels
from osvdeploy.cloud.interfaces import Cloud, HealthRule, ReleaseId, Slot, Tags
from osvdeploy.cloud.memory.archives import MemoryArchiveImages
from osvdeploy.cloud.memory.calls import Call, CallLog, Hook, Moment
from osvdeploy.cloud.memory.console import MemoryConsole
from osvdeploy.cloud.memory.disks import MemoryImages, MemorySnapshots
from osvdeploy.cloud.memory.faults import Faults
from osvdeploy.cloud.memory.groups import MemoryGroups
from osvdeploy.cloud.memory.hooks import MemoryHooks
from osvdeploy.cloud.memory.imports import MemoryImports
from osvdeploy.cloud.memory.machines import MemoryMachineTypes
from osvdeploy.cloud.memory.metrics import MemoryMetrics
from osvdeploy.cloud.memory.notifier import MemoryNotifier
from osvdeploy.cloud.memory.prober import MemoryProber
from osvdeploy.cloud.memory.router import MemoryRouter
from osvdeploy.cloud.memory.store import MemoryStore
from osvdeploy.cloud.memory.world import (
    Backend,
    Behaviour,
    Group,
    Rule,
    Scaler,
    Template,
    Timing,
    World,
    alive,
)
from osvdeploy.context import Clock

__all__ = [
    "Behaviour",
    "Call",
    "CallLog",
    "Faults",
    "MemoryArchiveImages",
    "MemoryCloud",
    "MemoryConsole",
    "MemoryGroups",
    "MemoryHooks",
    "MemoryImages",
    "MemoryImports",
    "MemoryMachineTypes",
    "MemoryNotifier",
    "MemoryProber",
    "MemoryRouter",
    "MemorySnapshots",
    "MemoryStore",
    "Moment",
    "Timing",
    "World",
]


class MemoryCloud:
    """One world with its adapters. A listener named ``listener-1`` is there from the beginning, and so is one that is a
    pointer, ``pointer-1``.

    ``metrics.tell`` lets a release have numbers. ``faults`` makes single calls fail; :meth:`on_call` sees each before
    and after its effect.
    """

    def __init__(self, clock: Clock, timing: Timing | None = None) -> None:
        self.faults = CallLog()
        self.world = World(clock, self.faults, timing or Timing())
        self.store = MemoryStore(self.faults)
        self.snapshots = MemorySnapshots(self.faults)
        self.images = MemoryImages(self.snapshots, self.faults)
        self.imports = MemoryImports(self.store, self.snapshots, self.faults)
        self.archives = MemoryArchiveImages(self.store, self.faults)
        self.images.used = self.archives.used = self.world.images_used
        self.world.image_exists = self.images.exists
        self.prober = MemoryProber(self.world)
        self.metrics = MemoryMetrics(self.world)
        self.hooks = MemoryHooks(clock)
        self.notifier = MemoryNotifier(clock)
        self.late = 0.0
        """Seconds: how long a change may take at an entry point that nobody is told of."""
        self.add_listener("listener-1")
        self.add_listener("pointer-1", pointer=True)

    @property
    def cloud(self) -> Cloud:
        """The adapters, made anew: what one controller holds, while the world outlives it."""
        return Cloud(
            kind="memory",
            account="000000000000",
            region="nowhere-1",
            snapshots=self.snapshots,
            images=self.images,
            groups=MemoryGroups(self.world),
            router=MemoryRouter(self.world),
            console=MemoryConsole(self.world),
            machines=MemoryMachineTypes(self.faults),
            imports=self.imports,
            metrics=self.metrics,
            notifier=self.notifier,
            late=self.late,
        )

    # -------------------------------------------------------------------------------------------------- to script it

    def behave(self, release: str, **changes: Any) -> None:
        """Change how the machines of a release behave from now on; the fields are those of :class:`Behaviour`."""
        world = self.world
        with world.lock:
            now = world.settle()
            world.behaviours[release] = replace(world.behaviour(release), **changes)
            for group in world.groups.values():
                for machine in group.alive:
                    if machine.release == release:
                        world.plan_end(group, machine, now)

    def on_call(self, hook: Hook | None) -> None:
        """Ask ``hook`` before and after every call. What it raises comes out of the call; None takes it away."""
        self.faults.hook = hook

    def add_listener(self, name: str, *, pointer: bool = False) -> None:
        """A balancer with a listener, reached at one address per entry of :attr:`Timing.propagation`; or one that sends
        all traffic to one slot."""
        self.world.open_listener(name, pointer=pointer)

    def remove_listener(self, name: str) -> None:
        del self.world.listeners[name]

    def plant_rule(self, priority: int, listener: str = "listener-1", tags: Tags | None = None) -> str:
        """A rule that somebody else made. Returns its id."""
        rule = Rule(f"foreign-{self.world.number()}", listener, priority, None, "/theirs/*", None, tags or {})
        rule.history.append((self.world.settle(), {}))
        self.world.rules[rule.id] = rule
        return rule.id

    def plant_group(self, name: str, tags: Tags | None = None, *, image: str = "image-of-theirs") -> str:
        """A group and a template of that name that somebody else made. Returns the id of the image in it."""
        self.world.groups[name] = Group(name, ReleaseId("theirs"), image, 0, "", tags or {})
        self.plant_template(name, image, tags)
        return image

    def plant_template(self, name: str, image: str, tags: Tags | None = None) -> None:
        """A template that somebody else made, of which no group is made."""
        self.world.templates[name] = Template(name, image, ReleaseId("theirs"), tags or {})

    def plant_service(
        self, name: str, priority: int | None, capacity: int = 2, listener: str = "listener-1", path: str | None = None
    ) -> None:
        """A group that somebody else made, and a rule of theirs that sends it traffic. Its machines answer as the
        release of that name behaves, and name nobody unless that says so."""
        world = self.world
        with world.lock:
            now = world.settle()
            release = ReleaseId(name)
            world.behaviours.setdefault(name, Behaviour(header=None))
            backend = f"theirs-{name}"
            world.backends[backend] = Backend(backend, Slot.BLUE, 8080, HealthRule("/healthz", 5.0, 2.0), {})
            world.templates[name] = Template(name, "image-of-theirs", release, {})
            world.groups[name] = Group(name, release, "image-of-theirs", capacity, backend, {})
            if priority is not None:
                rule = Rule(f"foreign-{world.number()}", listener, priority, None, path, None, {})
                rule.history.append((now, {backend: 1}))
                world.rules[rule.id] = rule
            exists = world.image_exists
            world.image_exists = lambda image: image == "image-of-theirs" or exists(image)
            world.fill(world.groups[name], now)

    def scale(self, group: str, minimum: int, maximum: int, **rules: str) -> None:
        """Attach to a group what scales it, as a user would: bounds, and ``rules`` of any name, in place of others."""
        world = self.world
        with world.lock:
            now = world.settle()
            scaled = world.groups[group]
            scaled.scaler = Scaler(minimum, maximum, scaled.capacity, rules)
            world.rescale(scaled, now)

    def load(self, group: str, machines: int) -> None:
        """Let a group's load ask for so many machines from now on; what scales it does the rest."""
        world = self.world
        with world.lock:
            now = world.settle()
            scaler = world.groups[group].scaler
            if scaler is None:
                raise ValueError(f"{group}: nothing scales it")
            scaler.wanted = machines
            world.rescale(world.groups[group], now)

    def set_weights(self, service: str, weights: dict[Slot, int]) -> None:
        """Change a service's weights behind everybody's back."""
        for rule in self.world.rules.values():
            if rule.tags.get(labels.SERVICE) == service and not rule.preview and rule.weights is not None:
                changed = {name: weights[self.world.backends[name].slot] for name in rule.weights}
                rule.history.append((self.world.settle(), changed))

    def share_out(self, service: str, weight: int) -> None:
        """Give a backend of nobody's a weight in a service's rule, behind everybody's back."""
        world = self.world
        backend = Backend("theirs", Slot.BLUE, 8080, HealthRule("/healthz", 5.0, 2.0), {})
        world.backends.setdefault(backend.id, backend)
        for rule in self._rules_of(service):
            rule.history.append((world.settle(), {**(rule.weights or {}), backend.id: weight}))

    def narrow(self, service: str, path: str) -> None:
        """Let a service's rule take this path alone, behind everybody's back."""
        for rule in self._rules_of(service):
            rule.path = path

    def _rules_of(self, service: str) -> list[Rule]:
        rules = self.world.rules.values()
        return [rule for rule in rules if rule.tags.get(labels.SERVICE) == service and not rule.preview]

    # --------------------------------------------------------------------------------------------------- to look at it

    @property
    def calls(self) -> list[Call]:
        """Every call so far, in order."""
        return self.faults.log

    @property
    def mutations(self) -> list[Call]:
        """Those that change something."""
        return self.faults.mutations

    @property
    def running(self) -> set[ReleaseId]:
        """The releases that have machines."""
        with self.world.lock:
            self.world.settle()
            return alive(self.world.groups.values())

    @property
    def serving(self) -> set[ReleaseId]:
        """The releases that stand in a slot whose weight, as last set on any route, is above 0."""
        world = self.world
        with world.lock:
            world.settle()
            return {
                target.machine.release
                for rule in world.rules.values()
                if not rule.preview
                for name, weight in (rule.weights or {}).items()
                if weight > 0 and name in world.backends
                for target in world.backends[name].targets.values()
                if target.state not in ("draining", "unused")
            }

    @property
    def standing(self) -> set[str]:
        """Everything of ours but disks and images, as "group NAME", "template NAME", "rule ID", "backend ID"."""
        world = self.world
        with world.lock:
            world.settle()
            places: dict[str, Mapping[str, Group | Template | Rule | Backend]] = {
                "group": world.groups,
                "template": world.templates,
                "rule": world.rules,
                "backend": world.backends,
            }
            return {
                f"{kind} {name}"
                for kind, place in places.items()
                for name, each in place.items()
                if labels.is_ours(each.tags)
            }
