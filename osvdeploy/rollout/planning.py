"""What can be said of a deploy before it begins: its course, how long it will take, what it costs, what to mind. Pure.

What it does to the cloud is rehearsed (:mod:`osvdeploy.rollout.rehearsal`); here is what follows from settings, past
runs and prices. What a plan was made on is its :class:`Basis`: a deploy that is to follow the plan compares it.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from osvdeploy.cloud.interfaces import Quota, ReleaseId, RouteState, Scaling, Slot
from osvdeploy.digests import Digest, digest_of
from osvdeploy.rollout.gates import GateStage
from osvdeploy.rollout.ledger import Head
from osvdeploy.rollout.model import Kind, Limits, Outcome, Run, Stage
from osvdeploy.rollout.releases import OnFailure, Settings, StrategyKind, TrafficStep
from osvdeploy.rollout.scaling import suspended
from osvdeploy.sizes import format_duration

HOURS_OF_A_MONTH = 730
"""As both clouds count for prices by the month."""


# --------------------------------------------------------------------------------------------------------- the basis


@dataclass(frozen=True, slots=True)
class Basis:
    """What a plan was made on. ``head`` is the number of the ledger's newest document, 0 without one; ``groups`` are
    the service's, with their capacities; ``weights`` None: the route's rule does not exist. ``settings`` is the digest
    of the environment's settings, ``build`` of all that the image's bytes depend on, ``configuration`` of the
    environment's own variables. ``image`` is the image digest, None where the image was not built yet. ``scaling`` is
    what changes the size of the group that serves, None where nothing does."""

    service: str
    ledger: str
    version: str
    head: int
    serving: ReleaseId | None
    groups: Mapping[str, int]
    weights: Mapping[Slot, int] | None
    wired: tuple[Slot, ...]
    settings: Digest
    build: Digest
    configuration: Digest
    image: Digest | None = None
    scaling: str | None = None


def changed_since(plan: Basis, now: Basis) -> list[str]:
    """What is not as it was when a plan was made, each as ``thing: before -> now``."""
    found: list[str] = []

    def compare(what: str, before: object, after: object) -> None:
        if before != after:
            found.append(f"{what}: {_told(before)} -> {_told(after)}")

    compare("service", plan.service, now.service)
    compare("ledger", plan.ledger, now.ledger)
    compare("version", plan.version, now.version)
    if plan.image is not None:
        compare("image digest", plan.image[:12], None if now.image is None else now.image[:12])
    else:
        compare("what the image is built of", plan.build[:12], now.build[:12])
    compare("variables of the environment (digest)", plan.configuration[:12], now.configuration[:12])
    compare("settings of the environment (digest)", plan.settings[:12], now.settings[:12])
    compare("serving", plan.serving, now.serving)
    compare("newest document of the ledger", plan.head, now.head)
    for name in sorted({*plan.groups, *now.groups}):
        compare(f"machines of group {name}", plan.groups.get(name), now.groups.get(name))
    compare("what scales the machines that serve", plan.scaling, now.scaling)
    compare("weights of the route", _shares(plan.weights), _shares(now.weights))
    compare("slots that are wired up", ", ".join(sorted(plan.wired)), ", ".join(sorted(now.wired)))
    return found


def _told(value: object) -> str:
    return "none" if value is None or value == "" else str(value)


def _shares(weights: Mapping[Slot, int] | None) -> str | None:
    return None if weights is None else ", ".join(f"{slot} {weight}" for slot, weight in sorted(weights.items()))


# -------------------------------------------------------------------------------------------------------- the course


@dataclass(frozen=True, slots=True)
class PlannedHook:
    """A hook that will be asked, and for how many seconds it is waited at most."""

    name: str
    timeout: float


@dataclass(frozen=True, slots=True)
class Leg:
    """A part of a rollout's course: a stage, of shift and bake with the share of the traffic that the release then has.
    ``approval``: a person is asked before it is left (before a shift: before it begins). ``gates`` are judged in it,
    ``hooks`` are asked, one after the other. ``seconds`` are what it takes at least by the strategy."""

    stage: Stage
    weight: int | None = None
    seconds: float = 0.0
    approval: bool = False
    gates: tuple[str, ...] = ()
    hooks: tuple[PlannedHook, ...] = ()


def course(settings: Settings, *, first: bool) -> tuple[Leg, ...]:
    """What a deploy goes through. ``first``: nothing serves, so nobody is there for the rest of the traffic."""
    strategy = settings.strategy
    whole = first or strategy.kind is StrategyKind.ALL_AT_ONCE
    steps = (TrafficStep(100),) if whole else strategy.steps

    def asked(stage: Stage) -> tuple[PlannedHook, ...]:
        return tuple(PlannedHook(hook.name, hook.timeout) for hook in settings.hooks if stage in hook.on)

    legs = [
        Leg(Stage.PREPARE, hooks=asked(Stage.PREPARE)),
        Leg(Stage.BOOT, seconds=settings.health.min_ready, hooks=asked(Stage.BOOT)),
        Leg(Stage.VERIFY, hooks=asked(Stage.VERIFY)),
    ]
    for number, step in enumerate(steps):
        last = number == len(steps) - 1
        bake = strategy.bake if last else step.bake
        here = GateStage.BAKE if last else GateStage.STEP
        gates = (gate for gate in settings.gates if here in gate.on and not (first and gate.against_stable))
        shifting, baking = asked(Stage.SHIFT), asked(Stage.BAKE)
        legs.append(Leg(Stage.SHIFT, step.weight, approval=number == 0 and strategy.approve, hooks=shifting))
        if bake > 0 or step.approve or baking:
            told = tuple(f"{gate.name} (dry run)" if gate.dry_run else gate.name for gate in gates) if bake else ()
            legs.append(Leg(Stage.BAKE, step.weight, bake, step.approve, told, baking))
    legs.append(Leg(Stage.CLEAN_UP, hooks=asked(Stage.CLEAN_UP)))
    return (*legs, Leg(Stage.DONE, hooks=asked(Stage.DONE))) if asked(Stage.DONE) else tuple(legs)


# ---------------------------------------------------------------------------------------------------------- the time


@dataclass(frozen=True, slots=True)
class Timed:
    """How long a leg takes, in seconds. Of ``runs`` earlier deploys the median and the range; with none of them
    ``usual`` is None, and the range is from what the strategy asks for to where the rollout would be given up."""

    leg: Leg
    low: float
    usual: float | None
    high: float
    runs: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """How long a deploy takes from its first stage on, in seconds: without building and publishing, and without the
    time that people take. ``usual`` is None where no deploy of the service has succeeded yet."""

    legs: tuple[Timed, ...]

    @property
    def low(self) -> float:
        return sum(each.low for each in self.legs)

    @property
    def high(self) -> float:
        return sum(each.high for each in self.legs)

    @property
    def usual(self) -> float | None:
        found = [each.usual for each in self.legs if each.usual is not None]
        return sum(found) if len(found) == len(self.legs) and self.legs else None


def estimate(legs: Sequence[Leg], runs: Sequence[Run], settings: Settings, limits: Limits) -> Estimate:
    """How long these legs take, by what earlier deploys took that succeeded. A bake takes what the strategy says."""
    past = [run for run in runs if run.kind is Kind.DEPLOY and run.verdict is Outcome.SUCCEEDED and run.over]
    most = {
        Stage.PREPARE: limits.prepare,
        Stage.BOOT: settings.health.boot_timeout,
        Stage.VERIFY: limits.verify + limits.spread,
        Stage.SHIFT: limits.shift,
        Stage.CLEAN_UP: limits.clean_up,
    }
    timed: list[Timed] = []
    for leg in legs:
        asking = sum(hook.timeout for hook in leg.hooks)
        if leg.stage in (Stage.BAKE, Stage.DONE):
            # Hooks are asked while it bakes; only what they take beyond that is waited for.
            timed.append(Timed(leg, leg.seconds, leg.seconds, max(leg.seconds, asking), 0))
            continue
        alike = [run for run in past if leg.stage is not Stage.CLEAN_UP or _leaves_alike(run, settings)]
        took = [_now(each, run, leg, settings) for run in alike for each in _took(run, leg.stage)]
        count = sum(1 for run in alike if _took(run, leg.stage))
        if took:
            timed.append(Timed(leg, min(took), statistics.median(took), max(took), count))
        else:
            timed.append(Timed(leg, leg.seconds, None, most[leg.stage] + asking, 0))
    return Estimate(tuple(timed))


def _now(took: float, run: Run, leg: Leg, settings: Settings) -> float:
    """What a stage of an earlier run would take by these settings: machines have to stay healthy for as long as is
    asked for now."""
    if leg.stage is not Stage.BOOT:
        return took
    return max(leg.seconds, took - run.settings.health.min_ready + settings.health.min_ready)


def _leaves_alike(run: Run, settings: Settings) -> bool:
    """Whether a run has taken machines away at its end where a deploy with these settings would."""
    keeps = run.settings.strategy.keep_warm > 0
    return keeps == (settings.strategy.keep_warm > 0) and (keeps or run.stable is not None)


def _took(run: Run, stage: Stage) -> list[float]:
    """Seconds of a stage each time that it was passed. One in which a person was asked says nothing of the place."""
    if stage is Stage.SHIFT and any(approval.stage is Stage.SHIFT for approval in run.approvals):
        return []
    if any(each.entered <= heard.at <= each.left for each in run.stages if each.stage is stage for heard in run.heard):
        return []
    return [(each.left - each.entered).total_seconds() for each in run.stages if each.stage is stage]


# --------------------------------------------------------------------------------------------------------- the money


@dataclass(frozen=True, slots=True)
class Prices:
    """What things cost, as the user says. ``machines`` are by type and hour; the others by GiB and month, None where
    nobody said."""

    currency: str
    machines: Mapping[str, Decimal] = field(default_factory=dict)
    snapshot_gib_month: Decimal | None = None
    image_gib_month: Decimal | None = None

    def hourly(self, machines: Mapping[str, int]) -> Decimal | None:
        """What machines cost in an hour, by how many there are of each type; None where a price is missing."""
        if any(kind not in self.machines for kind, count in machines.items() if count):
            return None
        return sum((self.machines[kind] * count for kind, count in machines.items() if count), Decimal(0))

    def monthly(self, gib: Decimal, *, snapshots: bool) -> Decimal | None:
        """What so many GiB cost in a month."""
        price = self.snapshot_gib_month if snapshots else self.image_gib_month
        return None if price is None else price * gib


# ------------------------------------------------------------------------------------------------------ what to mind


@dataclass(frozen=True, slots=True)
class Caution:
    """Something to mind. ``kind`` is for programs, ``cure`` what could be done about it, "" for nothing."""

    kind: str
    told: str
    cure: str = ""


def cautions(
    settings: Settings,
    head: Head | None,
    *,
    sticky: float | None,
    scaling: Scaling | None,
    quotas: Sequence[Quota],
    more: Mapping[str, float],
    one_zone: bool,
    people: bool,
    missing_prices: Collection[str] = (),
) -> list[Caution]:
    """What whoever deploys should know first. ``sticky`` are the seconds for which clients stay where they were sent;
    ``scaling`` is the stable group's; ``more`` is what the deploy takes of each quota at the most; ``people``: somebody
    is there to be asked."""
    strategy, found = settings.strategy, list[Caution]()
    if sticky is not None and sticky > strategy.keep_warm:
        lasting = "for good" if sticky == float("inf") else f"for {format_duration(sticky)}"
        found.append(
            Caution(
                "sticky",
                f"clients are bound to one machine {lasting}; the switch moves them all the same, and after "
                f"{format_duration(strategy.keep_warm)} of keep-warm the machines that hold their sessions are gone",
                "keep sessions outside the machines, or raise strategy.keep-warm",
            )
        )
    if scaling is not None and not scaling.fixed:
        by = f" ({', '.join(scaling.parts)})" if scaling.parts else ""
        found.append(
            Caution(
                "scaling",
                f"what scales the release that serves passes on to the new one: {scaling.minimum} to "
                f"{scaling.maximum} machines, {scaling.desired} now{by}",
            )
        )
    if head is not None and head.stable is not None and suspended(head.run, head.stable, scaling):
        found.append(
            Caution(
                "suspended",
                f"what scales {head.stable.release} is suspended, and was not when its last rollout ended; so it "
                "passes on",
                "where nobody wants it so, `osvdeploy drift --repair` first",
            )
        )
    if one_zone:
        found.append(Caution("one-zone", "all machines stand in one zone: it is down when that one is"))
    for quota in quotas:
        needed = quota.used + more.get(quota.name, 0)
        if needed > quota.limit:
            found.append(
                Caution(
                    "quota",
                    f"quota {quota.name}: {quota.used:g} of {quota.limit:g} are used, and the deploy needs "
                    f"{more.get(quota.name, 0):g} more",
                    "raise the quota, or remove what is not needed (`osvdeploy gc`)",
                )
            )
    if strategy.on_failure is OnFailure.PAUSE and not people:
        found.append(
            Caution(
                "unattended",
                'on-failure = "pause", and nobody is here: what fails under traffic keeps its share until somebody '
                "decides",
                'use on-failure = "rollback" where a pipeline deploys',
            )
        )
    if strategy.keep_warm == 0 and head is not None and head.stable is not None:
        found.append(Caution("cold", "nothing is kept warm: a rollback after this deploy has to start machines first"))
    if settings.health.version_header is None:
        found.append(
            Caution(
                "unnamed",
                "answers name no release: the switch is proved by time and good answers alone",
                "name health.version-header",
            )
        )
    if missing_prices:
        found.append(
            Caution("price", f"no price for {', '.join(sorted(missing_prices))}", "give it in [prices] or with --price")
        )
    return found


def basis_of(
    service: str,
    ledger: str,
    head: Head | None,
    groups: Mapping[str, int],
    state: RouteState,
    *,
    version: str,
    settings: Digest,
    build: Digest,
    configuration: Digest,
    image: Digest | None,
    scaling: Scaling | None,
) -> Basis:
    """What is there now, as a plan is made on it."""
    return Basis(
        service=service,
        ledger=ledger,
        version=version,
        head=0 if head is None else head.n,
        serving=head.stable.release if head is not None and head.stable is not None else None,
        groups=dict(sorted(groups.items())),
        weights=None if state.weights is None else dict(sorted(state.weights.items())),
        wired=tuple(sorted(state.backends)),
        settings=settings,
        build=build,
        configuration=configuration,
        image=image,
        scaling=_scaled_by(scaling),
    )


def _scaled_by(scaling: Scaling | None) -> str | None:
    """Its size apart, which is a group's, and changes all the time."""
    if scaling is None or scaling.fixed:
        return None
    parts = ", ".join(scaling.parts) or "by hand"
    suspended_now = ", suspended" if scaling.paused else ""
    return f"{scaling.minimum} to {scaling.maximum}: {parts}{suspended_now} ({digest_of(scaling.rules)[:12]})"
