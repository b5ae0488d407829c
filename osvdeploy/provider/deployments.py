"""Deployments as both clouds' resources have them: what a program declares, what is told of a service that stands, and
the way from the one to the other. All that moves traffic is the rollout's; Pulumi's state is a copy of the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from osvdeploy.cloud.interfaces import Slot
from osvdeploy.errors import UsageError
from osvdeploy.provider import gates, hooks, notify
from osvdeploy.provider.declare import Nested, declared, prop
from osvdeploy.provider.gates import DeploymentGate
from osvdeploy.provider.hooks import DeploymentHook
from osvdeploy.provider.notify import DeploymentNotify
from osvdeploy.provider.spelling import Spelled, even, program, spell
from osvdeploy.provider.values import UNKNOWN, is_known
from osvdeploy.rollout.gates import GateStage
from osvdeploy.rollout.refusals import refused_by, ways_past_hold
from osvdeploy.rollout.releases import Concurrent, OnFailure, StrategyKind
from osvdeploy.rollout.requests import ways_on
from osvdeploy.sizes import format_duration, parse_duration

if TYPE_CHECKING:
    from osvdeploy.api import Service, Standing
    from osvdeploy.rollout.ledger import Head
    from osvdeploy.rollout.model import Run
    from osvdeploy.rollout.releases import Settings, Strategy, TrafficStep

T = TypeVar("T")

HISTORY = 10
"""Releases that are told of: a state is read by people."""


# -------------------------------------------------------------------------------------------------------------- inputs


@declared
class DeploymentRoute(Nested):
    """Which requests are the service's: by host or path, or both."""

    MODULE: ClassVar[str] = "index"

    priority: int = prop(
        "Priority of the service's rule, 3 to 50000; the two before it become its preview rules.", replaces=True
    )
    host: str | None = prop("The host to match, with the wildcards that the cloud knows.", default=None, replaces=True)
    path: str | None = prop("The path to match, such as `/*`.", default=None, replaces=True)


@declared
class DeploymentPreview(Nested):
    """How the idle slot is reached."""

    MODULE: ClassVar[str] = "index"

    header: str = prop(
        "A request with this header set to `blue` or `green` reaches that slot.", default="x-preview", replaces=True
    )


class HealthKind(StrEnum):
    """What a machine's health is asked by."""

    HTTP = "http"
    TCP = "tcp"


@declared
class DeploymentProbeFrom(Spelled):
    """Where probes leave from: a command, or nowhere. Left out both, from the machine that `pulumi up` runs on."""

    MODULE: ClassVar[str] = "index"

    command: tuple[str, ...] | None = prop(
        "A program and its arguments, as words; no shell. It gets a request as JSON on its stdin, and prints the "
        "answer as JSON; `osvdeploy probe` is its other end. A path with a slash is relative to the program's folder.",
        default=None,
    )
    requests: bool = prop(
        "No probe leaves, and what the balancer counts is the proof, which is the weaker one.", default=False
    )

    def in_a_spec(self) -> object:
        if self.command is not None:
            return {"command": self.command, **({"requests": True} if self.requests else {})}
        return "requests" if self.requests else "here"


@declared
class DeploymentHealth(Nested):
    """When a release counts as well. Durations carry their unit: `5s`, `2m`."""

    MODULE: ClassVar[str] = "index"

    kind: HealthKind = prop(
        "`tcp` is for programs that speak no HTTP, behind a forwarding rule on Google: a connection that is held is "
        "well.",
        default=HealthKind.HTTP,
        replaces=True,
    )
    path: str | None = prop("What is asked for by HTTP; left out, `/`.", default=None, replaces=True)
    version_header: str | None = prop(
        "The answer header that carries the variable OSVDEPLOY_RELEASE. Left out: on AWS a switch is proved more "
        "weakly, on Google the balancer names the release.",
        default=None,
    )
    boot_timeout: str | None = prop(
        "How long all machines may take to become healthy; left out, `60s` on AWS and `300s` on Google.", default=None
    )
    interval: str = prop(
        "How often the balancer checks: whole seconds from `5s` to `300s`.", default="5s", replaces=True
    )
    timeout: str = prop(
        "How long an answer may take: whole seconds, less than `interval`.", default="2s", replaces=True
    )
    min_ready: str = prop("How long they must stay healthy before they count.", default="10s")
    probe_from: DeploymentProbeFrom | None = prop(
        "Where probes leave from; left out, from the machine that `pulumi up` runs on.", default=None
    )
    slow_start: str | None = prop(
        "On AWS, how long a machine that joins healthy ones takes to its full share: `30s` to `900s`, or `0s` for "
        "none; left out, none.",
        default=None,
    )


@declared
class DeploymentStep(Nested):
    """A share of the traffic on the way up."""

    MODULE: ClassVar[str] = "index"

    weight: int = prop("What the new release gets, in percent: 1 to 99.")
    bake: str = prop("How long it is watched with this share.", default="0s")
    approve: bool = prop("Then a person lets it go on: `osvdeploy approve`.", default=False)


@declared
class DeploymentStrategy(Nested):
    """How traffic moves to a new release. Durations carry their unit: `90s`, `1h`."""

    MODULE: ClassVar[str] = "index"

    kind: StrategyKind = prop(
        "`all-at-once` is `blue-green` without baking; a `canary` goes by `steps`, `linear` is one of equal steps.",
        default=StrategyKind.BLUE_GREEN,
    )
    steps: tuple[DeploymentStep, ...] | None = prop(
        "Of a canary: shares that rise. All traffic follows by itself.", default=None
    )
    step: int | None = prop("Of linear: how much more the new release gets each time, in percent.", default=None)
    step_bake: str = prop("Of linear: how long each share is watched.", default="0s")
    approve: bool = prop(
        "A person lets the release go on before it gets any traffic (`osvdeploy approve`); until then an `up` fails, "
        "and the next one goes on.",
        default=False,
    )
    on_failure: OnFailure = prop(
        "What a failure under traffic leads to: the old release serves again, or a person is asked.",
        default=OnFailure.ROLLBACK,
    )
    concurrent: Concurrent = prop(
        "What an update does while another rollout of the service is under way: it fails, waits for that one's end, or "
        "ends it.",
        default=Concurrent.REFUSE,
    )
    bake: str = prop("How long the new release is watched under full traffic.", default="0s")
    keep_warm: str = prop("How long the old release's machines stay, to be gone back to in one call.", default="1h")


@declared
class DeploymentInputs:
    """What both clouds' deployments have in common."""

    _: KW_ONLY

    image: str = prop("The image of the release that is to serve.")
    environment: str = prop(
        "Names the service, together with the app of the image: `orders/production`.", replaces=True
    )
    port: int = prop("The port that the program listens on.", replaces=True)
    capacity: int = prop(
        "How many machines. Where something of yours scales them by itself, it says how many.", default=2
    )
    preview: DeploymentPreview | None = prop("How the idle slot is reached.", default=None)
    health: DeploymentHealth | None = prop("When a release counts as well.", default=None)
    strategy: DeploymentStrategy | None = prop("How traffic moves to a new release.", default=None)
    gates: tuple[DeploymentGate, ...] | None = prop(
        "Metrics that a new release is held to while it bakes.", default=None
    )
    hooks: tuple[DeploymentHook, ...] | None = prop(
        "Programs and addresses that are asked at stages of a rollout.", default=None
    )
    notify: tuple[DeploymentNotify, ...] | None = prop("Who is told of rollouts.", default=None)
    ledger: str | None = prop(
        "Where releases and rollouts are written down: `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, or a directory that "
        "all who deploy can reach; left out, the provider's.",
        default=None,
        replaces=True,
    )
    force_rollout: str | None = prop(
        "Any text. Another one than before rolls the image out though its release is held, as a rollback leaves it.",
        default=None,
    )


I = TypeVar("I", bound=DeploymentInputs)  # noqa: E741 (inputs)


# ------------------------------------------------------------------------------------------------------------- outputs


class DeploymentStatus(StrEnum):
    """How a service stands."""

    SERVING = "serving"
    ROLLING_OUT = "rolling-out"
    ASTRAY = "astray"
    NOT_SERVING = "not-serving"


@declared
class DeploymentSlot(Nested):
    """One of the two places that a release can stand in."""

    MODULE: ClassVar[str] = "index"

    backend: str | None = prop("What traffic is sent to: a target group's ARN, a backend service's link.", default=None)
    weight: int = prop("The share of the service's traffic, in percent.", default=0)
    release: str | None = prop("The release that stands there.", default=None)
    group: str | None = prop("The machines' group.", default=None)
    warm_until: str | None = prop("Until when it can be gone back to in one call.", default=None)


@declared
class DeploymentHold(Nested):
    """Refuses a release: it is not rolled out again before the hold is taken away."""

    MODULE: ClassVar[str] = "index"

    why: str = prop("Why.")
    by: str = prop("Whose it is.")
    at: str = prop("Since when.")
    release: str | None = prop("The release; left out where every one is refused.", default=None)
    image: str | None = prop("Its image.", default=None)


@declared
class DeploymentRollout(Nested):
    """The rollout that is under way, or the last one."""

    MODULE: ClassVar[str] = "index"

    id: str = prop("Its id.")
    kind: str = prop("`deploy` or `rollback`.")
    release: str = prop("The release that it brings.")
    stage: str = prop("Where it stands.")
    by: str = prop("Who began it.")
    started: str = prop("When it began.")
    outcome: str | None = prop(
        "How it ended: `succeeded`, `rolled-back`, `failed`, `aborted`, `rollback-failed`.", default=None
    )
    reason: str | None = prop("Why it did not succeed.", default=None)
    ended: str | None = prop("When it ended.", default=None)


@declared
class DeploymentServed(Nested):
    """A release that has served."""

    MODULE: ClassVar[str] = "index"

    release: str = prop("The release.")
    since: str = prop("Since when.")


@declared
class DeploymentOutputs:
    """What is told of a service."""

    service: str = prop("The service's name for `osvdeploy status`, `rollback`, `hold`: APP/ENVIRONMENT.")
    status: DeploymentStatus = prop("How it stands.")
    url: str = prop("Where a client enters: scheme, address and port.")
    blue: DeploymentSlot = prop("The blue slot.")
    green: DeploymentSlot = prop("The green slot.")
    history: tuple[DeploymentServed, ...] = prop("The releases that served last, the newest first.")
    active_slot: Slot | None = prop("The slot that serves.", default=None)
    active_release: str | None = prop("The release that serves.", default=None)
    active_image: str | None = prop("Its image.", default=None)
    previous_release: str | None = prop("The release that served before, which `rollback` goes back to.", default=None)
    rollout_id: str | None = prop("The id of the rollout that is under way, or of the last one.", default=None)
    rollout: DeploymentRollout | None = prop("The rollout that is under way, or the last one.", default=None)
    hold: DeploymentHold | None = prop(
        "The newest hold: a release that is not rolled out again by itself.", default=None
    )
    holds: tuple[DeploymentHold, ...] = prop("All holds.", default_factory=tuple)


def outputs_of(standing: Standing) -> DeploymentOutputs:
    """What a service that stands is told as."""
    head, images = standing.head, standing.images
    stable = head.stable
    holds = tuple(
        DeploymentHold(
            release=each.release,
            image=images.get(each.release) if each.release is not None else None,
            why=each.why,
            by=each.by,
            at=each.at.isoformat(),
        )
        for each in sorted(head.holds, key=lambda each: each.at)
    )
    return DeploymentOutputs(
        service=head.service,
        status=_status(standing),
        url=standing.place.base_url,
        active_slot=head.serving if stable is not None else None,
        active_release=stable.release if stable is not None else None,
        active_image=images.get(stable.release) if stable is not None else None,
        previous_release=previous_release(head),
        rollout_id=head.run.id if head.run is not None else None,
        rollout=_rollout(head.run) if head.run is not None else None,
        hold=holds[-1] if holds else None,
        holds=holds,
        blue=_slot(standing, Slot.BLUE),
        green=_slot(standing, Slot.GREEN),
        history=tuple(
            DeploymentServed(each.release, each.since.isoformat()) for each in reversed(head.served[-HISTORY:])
        ),
    )


def previous_release(head: Head) -> str | None:
    """The release that served before the present one and that no hold refuses, None where there is none."""
    passed = {hold.release for hold in head.holds}
    if head.stable is not None:
        passed.add(head.stable.release)
    return next((each.release for each in reversed(head.served) if each.release not in passed), None)


def _status(standing: Standing) -> DeploymentStatus:
    if standing.head.unfinished is not None:
        return DeploymentStatus.ROLLING_OUT
    if standing.head.stable is None:
        return DeploymentStatus.NOT_SERVING
    return DeploymentStatus.ASTRAY if standing.astray else DeploymentStatus.SERVING


def _slot(standing: Standing, slot: Slot) -> DeploymentSlot:
    head, state = standing.head, standing.state
    record = head.slots.get(slot)
    if record is not None and standing.looked and record.group not in standing.groups:
        record = None
    run = head.unfinished
    if record is not None:
        release, group = record.release, record.group
    elif run is not None and run.slot is slot and (run.group in standing.groups or not standing.looked):
        # The ledger writes a slot down once its release has proved itself.
        release, group = run.candidate, run.group
    else:
        release, group = None, None
    weights: Mapping[Slot, int] = (state.weights if state is not None else None) or {}
    return DeploymentSlot(
        backend=state.backends.get(slot) if state is not None else None,
        weight=weights.get(slot, 0),
        release=release,
        group=group,
        warm_until=record.warm_until.isoformat() if record is not None and record.warm_until else None,
    )


def _rollout(run: Run) -> DeploymentRollout:
    return DeploymentRollout(
        id=run.id,
        kind=run.kind,
        release=run.candidate,
        stage=run.stage,
        outcome=run.verdict,
        reason=run.reason or None,
        by=run.by,
        started=run.started.isoformat(),
        ended=run.ended.isoformat() if run.ended is not None else None,
    )


def problems_of(standing: Standing, now: datetime) -> tuple[str, ...]:
    """Why a service is not as it should be, so that the next `up` works on it, whatever the program says."""
    head = standing.head
    if at_work(head, now):
        # Whoever it is brings it to its end.
        return ()
    serves = f"{head.stable.release} serves" if head.stable is not None else "nothing serves yet"
    if (run := head.unfinished) is not None:
        where = f"{head.service} --ledger {standing.service.ledger}"
        if (hold := refused_by(head, run)) is not None:
            told = f"the {run.kind} of {run.candidate} goes no further: {hold.told}; {serves}"
            return (f"{told}. {ways_past_hold(head, run, now, where)}",)
        if awaited := run.awaits(now):
            return (f"{run.candidate} waits: {awaited}; {serves}. {ways_on(run, where)}",)
        return (f"the {run.kind} of {run.candidate} was left in stage {run.stage}; {serves}. The next `up` goes on",)
    if head.stable is None:
        reason = f": {head.run.candidate} failed: {head.run.reason}" if head.run is not None else ""
        return (f"{head.service}: nothing serves{reason}",)
    return (f"{head.service}: {standing.astray}",) if standing.astray else ()


def left_out(standing: Standing, settings: Settings) -> str | None:
    """What a release goes without that is deployed with these settings, where the one that serves had it; None for
    nothing."""
    release = standing.release
    if release is None:
        return None
    had = []
    if release.settings.gates and not settings.gates:
        had.append(f"metric gates ({', '.join(gate.name for gate in release.settings.gates)})")
    if release.settings.hooks and not settings.hooks:
        had.append(f"hooks ({', '.join(hook.name for hook in release.settings.hooks)})")
    if release.settings.notify and not settings.notify:
        had.append(f"notifications ({', '.join(str(each.target) for each in release.settings.notify)})")
    if not had:
        return None
    return (
        f"{release.id} was deployed with {' and '.join(had)}, and the program has none: what it rolls out goes without "
        "them"
    )


def at_work(head: Head, now: datetime) -> bool:
    """Whether a process that may be alive is at work on the service. Whoever is writes within half of the lease; twice
    its length without a word is silence, also where clocks differ."""
    lease = head.lease
    if lease is None or lease.holder.known_dead():
        return False
    return (now - head.written).total_seconds() < 2 * lease.length


# --------------------------------------------------------------------------------------- from a program to the rollout


def ledger_of(given: str | None, configured: str | None) -> str | None:
    """The ledger's address: the resource's, the provider's, the environment's."""
    import os

    from osvdeploy.api import LEDGER_VARIABLE

    return given or configured or os.environ.get(LEDGER_VARIABLE) or None


# ------------------------------------------------------------------------------------------------ and from there back


def spelled_out(inputs: I, boot_timeout: str) -> I:
    """The same with every default in its place and durations in one form, so that what is compared differs in what it
    means. ``boot_timeout`` is the cloud's default."""
    health: Any = DeploymentHealth() if inputs.health is None else inputs.health
    strategy: Any = DeploymentStrategy() if inputs.strategy is None else inputs.strategy
    if health is not UNKNOWN:
        health = replace(
            health,
            path="/" if health.path is None and health.kind is HealthKind.HTTP else health.path,
            probe_from=_probes_of(health.probe_from),
            slow_start=even("0s" if health.slow_start is None else health.slow_start),
            boot_timeout=even(boot_timeout if health.boot_timeout is None else health.boot_timeout),
            interval=even(health.interval),
            timeout=even(health.timeout),
            min_ready=even(health.min_ready),
        )
    if strategy is not UNKNOWN:
        steps = strategy.steps
        if is_known(steps) and steps is not None:
            steps = tuple(replace(step, bake=even(step.bake)) if is_known(step) else step for step in steps)
        strategy = replace(
            strategy,
            steps=steps,
            step_bake=even(strategy.step_bake),
            bake=even(strategy.bake),
            keep_warm=even(strategy.keep_warm),
        )
    preview = DeploymentPreview() if inputs.preview is None else inputs.preview
    ledger = inputs.ledger
    if is_known(ledger) and ledger:
        # Another one takes the service away, which another way to write the same one must not.
        ledger = _place_of(ledger)
    return replace(
        inputs,
        health=health,
        strategy=strategy,
        preview=preview,
        ledger=ledger,
        gates=_each(inputs.gates, gates.as_a_rollout_has_it),
        hooks=_each(inputs.hooks, hooks.as_a_rollout_has_it),
        notify=_each(inputs.notify, notify.as_a_rollout_has_it),
    )


def _probes_of(given: Any) -> Any:
    if given is None:
        return DeploymentProbeFrom()
    if is_known(given) and given.command:
        return replace(given, command=program(given.command))
    return given


def _each(declared: Any, meant: Callable[[Any], Any]) -> Any:
    return declared if declared is UNKNOWN or declared is None else tuple(map(meant, declared))


def common_inputs(settings: Settings, boot_timeout: str, no_header: str | None) -> dict[str, Any]:
    """What of the settings both clouds' inputs have, for an import. ``no_header`` is the version header of one who
    gave none."""
    health, strategy = settings.health, settings.strategy
    defaults = DeploymentHealth()
    probes = DeploymentProbeFrom(command=health.probe_command or None, requests=health.counted)
    told = DeploymentHealth(
        kind=HealthKind(health.kind),
        path=health.path if health.path != "/" and health.kind == "http" else None,
        probe_from=None if probes == DeploymentProbeFrom() else _probes_of(probes),
        slow_start=_unless(None, health.slow_start, "0s"),
        version_header=None if health.version_header == no_header else health.version_header,
        boot_timeout=_unless(None, health.boot_timeout, boot_timeout),
        interval=_unless(defaults.interval, health.interval),
        timeout=_unless(defaults.timeout, health.timeout),
        min_ready=_unless(defaults.min_ready, health.min_ready),
    )
    moved = DeploymentStrategy(
        kind=strategy.kind,
        **_shares_of(strategy),
        approve=strategy.approve,
        on_failure=strategy.on_failure,
        concurrent=strategy.concurrent,
        bake=_unless(DeploymentStrategy().bake, strategy.bake),
        keep_warm=_unless(DeploymentStrategy().keep_warm, strategy.keep_warm),
    )
    preview = DeploymentPreview(header=settings.preview_header or DeploymentPreview().header)
    return {
        "environment": settings.environment,
        # A way in without a route has no priority either.
        "route": DeploymentRoute(priority=settings.priority, host=settings.host, path=settings.path)
        if settings.priority
        else None,
        "port": settings.port,
        "capacity": settings.capacity,
        "preview": None if preview == DeploymentPreview() else preview,
        "health": None if told == defaults else told,
        "strategy": None if moved == DeploymentStrategy() else moved,
        "gates": tuple(map(gates.as_one_writes_it, settings.gates)) or None,
        "hooks": tuple(map(hooks.as_one_writes_it, settings.hooks)) or None,
        "notify": tuple(map(notify.as_one_writes_it, settings.notify)) or None,
    }


def _shares_of(strategy: Strategy) -> dict[str, Any]:
    """The shares before all traffic, as inputs say them."""
    shares = strategy.steps[:-1]
    if strategy.kind is StrategyKind.LINEAR and shares:
        return {"step": shares[0].weight, "step_bake": spell(shares[0].bake)}
    told = tuple(DeploymentStep(weight=each.weight, bake=spell(each.bake), approve=each.approve) for each in shares)
    return {"steps": told or None}


def _unless(default: T, seconds: float, meant: str | None = None) -> T | str:
    """The default where that is what it means, else the duration as one writes it."""
    same = parse_duration(meant if meant is not None else str(default)) == seconds
    return default if same else spell(seconds)


# ------------------------------------------------------------------------------------------------------------- the id


def id_of(service: str, ledger: str) -> str:
    return f"{service}@{ledger}"


def _place_of(ledger: str) -> str:
    """A ledger's address in one form: a directory by its whole path, as rollouts write it down in the cloud."""
    scheme, separator, rest = ledger.partition("://")
    return f"{scheme}://{rest.rstrip('/')}" if separator else str(Path(ledger).expanduser().resolve())


def service_of(id: str, ledger: str | None) -> Service:
    """The service that an id names; ``ledger`` is for one that does not say where it is written down.

    Raises :class:`~osvdeploy.errors.UsageError` for what is no id.
    """
    from osvdeploy.api import Service

    name, _, address = id.partition("@")
    app, _, environment = name.partition("/")
    address = address or ledger or ""
    if not app or not environment or not address or "/" in environment:
        raise UsageError(
            f"{id!r} names no service and its ledger",
            hint="APP/ENVIRONMENT@LEDGER, as orders/production@s3://acme-releases/orders",
        )
    return Service(app, environment, _place_of(address))


def ledger_in(id: str) -> str | None:
    """The ledger's address that an id has in it, as it is written there."""
    return id.partition("@")[2] or None


# -------------------------------------------------------------------------------------------------- what will happen


def told_plan(standing: Standing | None, release: str, settings: Settings, now: datetime) -> str:
    """What bringing a release into service does to traffic, in one line."""
    head = standing.head if standing is not None else None
    first: list[str] = []
    if head is not None and (run := head.unfinished) is not None:
        same = run.candidate == release and run.kind == "deploy"
        if same and (awaited := run.awaits(now)):
            return f"{release} waits: {awaited}"
        # No deploy ends a rollback.
        verb = "go on with" if same or run.kind == "rollback" else "end"
        first.append(f"{verb} the unfinished {run.kind} of {run.candidate} (stage {run.stage})")
        if same:
            return first[0]
    elif standing is not None and standing.astray:
        first.append(f"put traffic right ({standing.astray})")
    stable = head.stable if head is not None else None
    if head is None or stable is None or head.serving is None:
        approval = ["wait for approval"] if settings.strategy.approve else []
        begun = ", then ".join([*first, f"start {release} in blue", *approval, "send it all traffic"])
        return f"{begun}{_told_gates(settings, first=True)}{_told_hooks(settings)}"
    if stable.release == release:
        other = standing is not None and not standing.scales and standing.capacity != settings.capacity
        rest = f", capacity {standing.capacity} -> {settings.capacity}" if standing is not None and other else ""
        return ", then ".join([*first, f"{release} goes on serving in {head.serving}{rest}"])
    idle = head.slots.get(head.serving.other)
    warm = ", which still stands warm" if idle is not None and idle.release == release else ""
    if settings.strategy.approve:
        first.append("wait for approval")
    shares = [_told_step(step) for step in settings.strategy.steps[:-1]]
    by = f" by {', '.join(shares)}" if shares else ""
    first.append(f"switch {head.serving} -> {head.serving.other}{by} ({stable.release} -> {release}{warm})")
    if settings.strategy.bake:
        first.append(f"bake {format_duration(settings.strategy.bake)}")
    keep = settings.strategy.keep_warm
    first.append(f"keep {head.serving} warm {format_duration(keep)}" if keep else f"take {head.serving} away")
    return f"{', then '.join(first)}{_told_gates(settings)}{_told_hooks(settings)}"


def _told_step(step: TrafficStep) -> str:
    after = [format_duration(step.bake)] if step.bake else []
    if step.approve:
        after.append("then approval" if after else "approval")
    return f"{step.weight} % ({', '.join(after)})" if after else f"{step.weight} %"


def _told_gates(settings: Settings, *, first: bool = False) -> str:
    """What a release is held to while it bakes; the ``first`` one goes by no steps, and nothing is there to compare it
    with."""
    strategy, told = settings.strategy, []
    bakes = {GateStage.BAKE} if strategy.bake else set()
    if not first and any(step.bake for step in strategy.steps[:-1]):
        bakes.add(GateStage.STEP)
    for gate in settings.gates:
        stages = [stage for stage in GateStage if stage in gate.on and stage in bakes]
        if stages and not (first and gate.against_stable):
            told.append(f"{gate.name} ({', '.join([*stages, *(['dry run'] if gate.dry_run else [])])})")
    return f"; gates: {', '.join(told)}" if told else ""


def _told_hooks(settings: Settings) -> str:
    told = [f"{hook.name} ({', '.join(hook.on)})" for hook in settings.hooks]
    return f"; hooks: {', '.join(told)}" if told else ""


def evidence_of(run: Run) -> Iterator[str]:
    """What was kept of a failure, the end of each."""
    for each in run.evidence:
        lines = each.text.strip().splitlines()[-12:]
        yield f"{each.source}: {lines[0]}" if len(lines) == 1 else "\n  ".join([f"{each.source}:", *lines])


def held(holds: Sequence[DeploymentHold], image: str) -> DeploymentHold | None:
    """The newest hold that refuses an image by its release."""
    return next((each for each in reversed(holds) if each.image == image), None)


def frozen(holds: Sequence[DeploymentHold]) -> DeploymentHold | None:
    """The hold that refuses every release."""
    return next((each for each in holds if each.release is None), None)
