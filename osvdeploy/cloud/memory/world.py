"""What the memory cloud consists of, and how it changes with time.

Time is the clock's. Whatever has become due is carried out, in its order, whenever somebody looks
(:meth:`World.settle`).
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from osvdeploy.cloud import tags as labels
from osvdeploy.cloud.interfaces import HealthRule, ImageUser, MachineState, ReleaseId, Slot
from osvdeploy.cloud.memory.calls import CallLog
from osvdeploy.context import Clock
from osvdeploy.errors import NotFound


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How the machines of one release behave. Seconds count from the moment a machine is running.

    - ``healthy_after``: from then on the program listens.
    - ``apart``: each further machine of a group listens so much later than the one that was started before it.
    - ``never_healthy``: it never listens.
    - ``answers``: statuses it gives to one request after the other, in rotation, all its machines together.
    - ``health``: the status it gives to health checks; None for the first of ``answers``.
    - ``sick_after``: from then on it answers 500, health checks included.
    - ``dies_at``: the machine is gone then; its group starts another.
    - ``aborts``: the program aborts as soon as the machine runs, with this text on the console. The machine stays,
      halted, as OSv leaves it; with ``dies_at=0`` it powers off.
    - ``launch_fails``: the place cannot start machines, and says this.
    - ``console``: what a machine that boots well prints.
    - ``header``: the answer header that names the release; None for none.
    """

    healthy_after: float = 1.0
    apart: float = 0.0
    never_healthy: bool = False
    answers: tuple[int, ...] = (200,)
    health: int | None = None
    sick_after: float | None = None
    dies_at: float | None = None
    aborts: str | None = None
    launch_fails: str | None = None
    console: str = "OSv v0.57.0\neth0: 10.0.0.7\nBooted up in 0.01 ms\nCmdline: /app\n"
    header: str | None = "x-release"


_GOOD = Behaviour()


@dataclass(frozen=True, slots=True)
class Timing:
    """How long things take in this place, in seconds.

    ``propagation`` has one entry per entry point of a balancer: after so long a change of rules is in force there.
    """

    start: float = 2.0
    stop: float = 3.0
    replace: float = 5.0
    first_check: float = 0.5
    propagation: tuple[float, ...] = (1.0, 3.0)


@dataclass(slots=True, eq=False)
class Target:
    """A machine behind a backend, as the balancer sees it."""

    machine: Instance
    state: str = "initial"
    reason: str = "Elb.InitialHealthChecking"
    passed: int = 0
    failed: int = 0


@dataclass(slots=True, eq=False)
class Backend:
    id: str
    slot: Slot
    port: int
    health: HealthRule
    tags: Mapping[str, str]
    targets: dict[str, Target] = field(default_factory=dict)
    turn: int = 0
    slow_start: float = 0.0


@dataclass(slots=True, eq=False)
class Rule:
    """A rule on a listener. ``header`` is a name and a value; ``preview``: it leads to a slot, and is not what moves;
    ``history`` is when which weights were set, by backend id, None once the rule was deleted."""

    id: str
    listener: str
    priority: int
    host: str | None
    path: str | None
    header: tuple[str, str] | None
    tags: Mapping[str, str]
    preview: bool = False
    history: list[tuple[float, Mapping[str, int] | None]] = field(default_factory=list)
    left: ReleaseId | None = None
    turns: dict[int, dict[str, int]] = field(default_factory=dict)

    @property
    def weights(self) -> Mapping[str, int] | None:
        """As the API tells them: the last that were set."""
        return self.history[-1][1]

    def in_force(self, at: float) -> Mapping[str, int] | None:
        """Those set at ``at`` or before; None where the rule did not exist."""
        for since, weights in reversed(self.history):
            if since <= at:
                return weights
        return None


@dataclass(frozen=True, slots=True)
class Listener:
    """Where traffic enters: a balancer with one address per entry point. A ``pointer`` sends all of it to one
    backend. The last ``hidden`` of its addresses are told to nobody."""

    id: str
    host: str
    port: int
    addresses: tuple[str, ...]
    pointer: bool = False
    hidden: int = 0


@dataclass(slots=True, eq=False)
class Instance:
    """One machine. Times are the clock's monotonic seconds: ``running`` is None while it starts, ``gone`` while it
    lives; ``stopping`` from the moment it is being taken away."""

    id: str
    release: ReleaseId
    started: float
    running: float | None = None
    gone: float | None = None
    stopping: bool = False
    note: str = ""
    nth: int = 0
    """How many machines its group kept when it was started."""

    @property
    def state(self) -> MachineState:
        if self.gone is not None:
            return MachineState.GONE
        return MachineState.PENDING if self.running is None else MachineState.RUNNING


@dataclass(slots=True, eq=False)
class Template:
    name: str
    image: str
    release: ReleaseId
    tags: Mapping[str, str]
    machine_type: str = "small"
    networks: tuple[str, ...] = ()
    firewalls: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class Scaler:
    """What changes a group's size by itself. ``wanted`` is how many machines the load asks for; ``rules`` have a name
    and what they say. While it is paused the group grows and does not shrink."""

    minimum: int
    maximum: int
    wanted: int
    rules: Mapping[str, str]
    paused: bool = False


@dataclass(slots=True, eq=False)
class Group:
    name: str
    release: ReleaseId
    image: str
    capacity: int
    backend: str
    tags: Mapping[str, str]
    machines: list[Instance] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    deleting: bool = False
    retry: float = 5.0
    scaler: Scaler | None = None
    beside: str = ""
    """A second backend that it stands behind: ours, where somebody else made it."""
    created: datetime | None = None

    @property
    def alive(self) -> list[Instance]:
        """Every machine that is not gone, those on their way out included."""
        return [machine for machine in self.machines if machine.gone is None]

    @property
    def kept(self) -> list[Instance]:
        """Those that are to stay."""
        return [machine for machine in self.alive if not machine.stopping]


class World:
    """One place: what exists, and what is due. Shared by every adapter that looks at it."""

    def __init__(self, clock: Clock, calls: CallLog, timing: Timing) -> None:
        self.clock = clock
        self.calls = calls
        self.timing = timing
        self.lock = threading.RLock()
        self.image_exists: Callable[[str], bool] = lambda image: True
        self.behaviours: dict[str, Behaviour] = {}
        self.turns: dict[str, int] = {}
        self.listeners: dict[str, Listener] = {}
        self.taken: dict[str, str] = {}
        """Pointers that have been taken into use, and by which service."""
        self.backends: dict[str, Backend] = {}
        self.rules: dict[str, Rule] = {}
        self.deleted_rules: list[Rule] = []
        self.groups: dict[str, Group] = {}
        self.templates: dict[str, Template] = {}
        self.instances: dict[str, Instance] = {}
        self.answered: dict[str, list[tuple[datetime, int]]] = {}
        """What machines answered to clients, by backend: when, and the status."""
        self._due: list[tuple[float, int, Callable[[float], None]]] = []
        self._numbers = 0
        self._opened = 0

    def images_used(self) -> list[tuple[str, ImageUser]]:
        """Every group with its image, and templates that others made and that no group is made of."""
        with self.lock:
            self.settle()
            found = [
                (group.image, ImageUser(f"group {name} ({group.capacity} machines)", labels.is_ours(group.tags)))
                for name, group in self.groups.items()
            ]
            return found + [
                (template.image, ImageUser(f"template {name}", False))
                for name, template in self.templates.items()
                if name not in self.groups and not labels.is_ours(template.tags)
            ]

    # ------------------------------------------------------------------------------------------------------- time

    def settle(self) -> float:
        """Let everything happen that is due. Returns the time."""
        now = self.clock.monotonic()
        while self._due and self._due[0][0] <= now:
            at, _, happen = heapq.heappop(self._due)
            happen(at)
        return now

    def at(self, when: float, happen: Callable[[float], None]) -> None:
        heapq.heappush(self._due, (when, self.number(), happen))

    def number(self) -> int:
        self._numbers += 1
        return self._numbers

    # --------------------------------------------------------------------------------------------------- machines

    def behaviour(self, release: str) -> Behaviour:
        return self.behaviours.get(release, _GOOD)

    def fill(self, group: Group, now: float) -> None:
        """Start what is missing for the group's capacity, stop the oldest of what is too much."""
        if group.deleting:
            return
        kept = group.kept
        for machine in kept[: max(0, len(kept) - group.capacity)]:
            self.stop(machine, now, "the group was made smaller")
        for _ in range(group.capacity - len(kept)):
            if not self._launch(group, now):
                break

    def rescale(self, group: Group, now: float) -> None:
        """Let what scales a group bring it to the size that its load asks for."""
        scaler = group.scaler
        if scaler is None:
            return
        size = min(max(scaler.wanted, scaler.minimum), scaler.maximum)
        group.capacity = max(size, group.capacity) if scaler.paused else size
        self.fill(group, now)

    def _launch(self, group: Group, now: float) -> bool:
        fault = self.behaviour(group.release).launch_fails
        if fault is None and not self.image_exists(group.image):
            fault = f"image {group.image} does not exist"
        if fault is not None:
            if fault not in group.troubles:
                group.troubles.append(fault)
            group.retry = min(300.0, group.retry * 2)
            self.at(now + group.retry, lambda at: self.fill(group, at))
            return False
        machine = Instance(f"machine-{self.number()}", group.release, now, nth=len(group.kept))
        self.instances[machine.id] = machine
        group.machines.append(machine)
        self.at(now + self.timing.start, lambda at: self._run(group, machine, at))
        return True

    def _run(self, group: Group, machine: Instance, now: float) -> None:
        if machine.gone is not None:
            return
        machine.running = now
        for name in (group.backend, group.beside):
            self.register(machine, name, now)
        self.plan_end(group, machine, now)

    def register(self, machine: Instance, name: str, now: float) -> None:
        """Let a machine stand behind a backend, if there is one."""
        backend = self.backends.get(name)
        if backend is not None and machine.id not in backend.targets:
            target = backend.targets[machine.id] = Target(machine)
            self.at(now + self.timing.first_check, lambda at: self._check(backend, target, at))

    def plan_end(self, group: Group, machine: Instance, now: float) -> None:
        """See to it that the machine ends when its behaviour says so."""
        behaviour = self.behaviour(machine.release)
        if machine.running is None or machine.gone is not None:
            return
        if behaviour.dies_at is not None:
            ends = max(now, machine.running + behaviour.dies_at)
            self.at(ends, lambda at: self._die(group, machine, at, "the machine powered off"))

    def _die(self, group: Group, machine: Instance, now: float, note: str) -> None:
        if machine.gone is not None or self.behaviour(machine.release).dies_at is None:
            return
        machine.gone, machine.note = now, note
        for backend in self.backends.values():
            if machine.id in backend.targets:
                target = backend.targets[machine.id]
                target.state, target.reason = "unused", "Target.InvalidState"
        self.at(now + self.timing.replace, lambda at: self._replace(group, machine, at))

    def _replace(self, group: Group, machine: Instance, now: float) -> None:
        self._deregister(machine)
        self.fill(group, now)

    def stop(self, machine: Instance, now: float, note: str) -> None:
        """Take a machine away: drained first, then gone."""
        machine.stopping = True
        for backend in self.backends.values():
            if machine.id in backend.targets:
                target = backend.targets[machine.id]
                target.state, target.reason = "draining", "Target.DeregistrationInProgress"
        self.at(now + self.timing.stop, lambda at: self._stopped(machine, at, note))

    def _stopped(self, machine: Instance, now: float, note: str) -> None:
        if machine.gone is None:
            machine.gone, machine.note = now, note
        self._deregister(machine)

    def _deregister(self, machine: Instance) -> None:
        for backend in self.backends.values():
            backend.targets.pop(machine.id, None)

    def remove_group(self, group: Group, now: float) -> None:
        """Stop all of its machines, and forget the group when they are gone."""
        group.deleting = True
        for machine in group.kept:
            self.stop(machine, now, "its group was deleted")
        self.at(now + self.timing.stop, lambda at: self._forget(group))

    def _forget(self, group: Group) -> None:
        if self.groups.get(group.name) is group:
            del self.groups[group.name]

    # ------------------------------------------------------------------------------------------------- what guests do

    def status_of(self, machine: Instance, now: float, *, check: bool = False) -> int | None:
        """The status a machine answers a request or a health check with; None where it does not answer."""
        behaviour = self.behaviour(machine.release)
        if machine.running is None or machine.gone is not None:
            return None
        if behaviour.never_healthy or behaviour.aborts is not None:
            return None
        awake = now - machine.running
        if awake < behaviour.healthy_after + behaviour.apart * machine.nth:
            return None
        if behaviour.sick_after is not None and awake >= behaviour.sick_after:
            return 500
        if check:
            return behaviour.answers[0] if behaviour.health is None else behaviour.health
        turn = self.turns[machine.release] = self.turns.get(machine.release, -1) + 1
        return behaviour.answers[turn % len(behaviour.answers)]

    def console_of(self, machine: Instance) -> str:
        behaviour = self.behaviour(machine.release)
        if machine.running is None:
            return ""
        return behaviour.aborts if behaviour.aborts is not None else behaviour.console

    # ------------------------------------------------------------------------------------------------------ balancer

    def _check(self, backend: Backend, target: Target, now: float) -> None:
        """One health check of one target, and the next one's date."""
        if backend.targets.get(target.machine.id) is not target or target.state == "draining":
            return
        rule = backend.health
        if target.machine.gone is None:
            status = self.status_of(target.machine, now, check=True)
            if status is not None and 200 <= status < 300:
                target.passed, target.failed = target.passed + 1, 0
                # A target that was just registered needs one passing check, one that was unhealthy needs them all.
                if target.state == "initial" or target.passed >= rule.healthy:
                    target.state, target.reason = "healthy", ""
            else:
                target.passed, target.failed = 0, target.failed + 1
                if target.failed >= rule.unhealthy:
                    target.state = "unhealthy"
                    target.reason = "Target.Timeout" if status is None else f"Target.ResponseCodeMismatch [{status}]"
        self.at(now + rule.interval, lambda at: self._check(backend, target, at))

    def used(self, backend: Backend) -> bool:
        """Whether a rule sends to it: what no rule uses is not checked, and a cloud says so."""
        return any(backend.id in (rule.weights or {}) for rule in self.rules.values())

    def open_listener(self, name: str, *, pointer: bool = False) -> None:
        """A balancer that is reached at one address per entry of :attr:`Timing.propagation`."""
        self._opened += 1
        number = self._opened
        nodes = range(1, len(self.timing.propagation) + 1)
        addresses = tuple(f"192.0.2.{10 * number + node}" for node in nodes)
        self.listeners[name] = Listener(name, f"{name}.balancer.test", 80, addresses, pointer)

    def listener(self, name: str) -> Listener:
        """Raises :class:`~osvdeploy.errors.NotFound`."""
        if name not in self.listeners:
            raise NotFound(f"listener {name}: does not exist", hint="name an existing one as `listener` in the spec")
        return self.listeners[name]


def carries(tags: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether these are tags of ours that include the wanted ones."""
    return labels.is_ours(tags) and wanted.items() <= dict(tags).items()


def alive(groups: Iterable[Group]) -> set[ReleaseId]:
    """The releases that have machines."""
    return {machine.release for group in groups for machine in group.alive}
