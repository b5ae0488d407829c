"""What refuses a command on a service before anything moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from osvdeploy.cloud import tags
from osvdeploy.cloud.interfaces import CommandHook, GroupState, Hooks, Metrics, ReleaseId, Route, RouteState, Slot
from osvdeploy.context import Context
from osvdeploy.errors import PlanOutdated, ReleaseHeld, RolloutWaiting, UsageError
from osvdeploy.rollout.hooks import HookFailure
from osvdeploy.rollout.ledger import Head, Hold, Ledger
from osvdeploy.rollout.model import Kind, Outcome, Run, Stage
from osvdeploy.rollout.releases import Concurrent, Release, Settings
from osvdeploy.rollout.requests import ways_on


def refuse_waiting(head: Head, release: Release, now: datetime) -> None:
    """Raise :class:`~osvdeploy.errors.RolloutWaiting` where another release's rollout waits for a person, unless this
    one may supersede it."""
    run = head.unfinished
    if run is None or run.candidate == release.id or release.settings.strategy.concurrent is Concurrent.SUPERSEDE:
        return
    if awaited := run.awaits(now):
        raise RolloutWaiting(
            f"{head.service}: the {run.kind} of {run.candidate} waits: {awaited}",
            hint=ways_past_hold(head, run, now) if refused_by(head, run) is not None else ways_on(run, head.service),
        )


def refuse_unproved(head: Head, to: ReleaseId, known: Release | None) -> None:
    """Raise :class:`~osvdeploy.errors.UsageError` for a way back to what has never served: what is being rolled out, or
    what needs somebody's approval, by its settings as the ledger has them (``known``). That would give it all the
    traffic at once, asking nobody."""
    if any(served.release == to for served in head.served):
        return
    run = head.unfinished
    if run is not None and run.kind is Kind.DEPLOY and run.candidate == to:
        further = run.verdict is None and run.abort is None
        forward = f"`osvdeploy promote --full {head.service}` brings all traffic next; " if further else ""
        back = "rollback" if run.stable is not None else "abort"
        raise UsageError(
            f"{head.service}: {to} is being rolled out, in stage {run.stage}, and has not served: there is no way back "
            "to it",
            hint=f"{forward}`osvdeploy {back} {head.service}` gives it up",
        )
    strategy = known.settings.strategy if known is not None else None
    if strategy is not None and (strategy.approve or any(step.approve for step in strategy.steps)):
        raise UsageError(
            f"{head.service}: {to} needs an approval and has never served: there is no way back to it",
            hint="a deploy of it asks for the approval",
        )


def refuse_later(head: Head, since: int | None) -> None:
    """Raise :class:`~osvdeploy.errors.PlanOutdated` unless the lease was taken right after document ``since``."""
    if since is not None and head.n != since + 1:
        change = f"newest document of the ledger: {since} -> {head.n - 1}"
        raise PlanOutdated(
            f"{head.service}: is not as it was when the plan was made: {change}",
            changes=[change],
            hint="make a new plan, or deploy without one",
        )


def refuse_held(head: Head, release: ReleaseId, *, forced: bool = False) -> None:
    """Raise :class:`~osvdeploy.errors.ReleaseHeld` where a hold refuses a release; ``forced``: one of every release."""
    for hold in head.holds:
        if hold.release is None or (hold.release == release and not forced):
            other = "" if hold.release is None else "deploy another release, or "
            named = "" if hold.release is None else f" --release {hold.release}"
            raise ReleaseHeld(
                f"{head.service}: {hold.told}",
                hint=f"{other}take the hold away with `osvdeploy unhold {head.service}{named}`",
            )


def refuse_held_up(head: Head, run: Run, now: datetime) -> None:
    """Raise :class:`~osvdeploy.errors.ReleaseHeld` where a hold names what a rollout under way is to bring into
    service: it stays where it is. What goes back goes on."""
    if (hold := refused_by(head, run)) is not None:
        raise ReleaseHeld(
            f"{head.service}: the {run.kind} of {run.candidate} goes no further: {hold.told}",
            hint=ways_past_hold(head, run, now),
        )


def refused_by(head: Head, run: Run) -> Hold | None:
    """The hold that keeps a rollout under way where it is, None where none does."""
    if run.verdict is not None or run.abort is not None or run.kind is Kind.ROLLBACK:
        return None
    return next((hold for hold in head.holds if hold.release in (None, run.candidate)), None)


def ways_past_hold(head: Head, run: Run, now: datetime, where: str = "") -> str:
    """What to type for a run that a hold keeps where it is: what takes the hold away, and what goes on then. ``where``:
    the service, with all that its commands need; left out, its name."""
    where = where or head.service
    unhold, others = f"`osvdeploy unhold {where}`", [hold.release for hold in head.holds if hold.release is not None]
    if all(hold.release is not None for hold in head.holds):
        unhold = f"`osvdeploy unhold {where} --release {run.candidate}`"
    elif others:
        # There is no command for the hold of every release alone.
        unhold += f" (which takes the hold of {', '.join(others)} away, too)"
    # Whoever holds a service has its lease: nobody is at work then.
    onward = "recover" if not run.awaits(now) else "approve" if run.paused is None else "resume"
    return f"{unhold}, then `osvdeploy {onward} {where}` lets it go on, `osvdeploy abort {where}` ends it"


def refuse_left(head: Head, release: ReleaseId, left: ReleaseId, *, forced: bool = False) -> None:
    """Raise :class:`~osvdeploy.errors.ReleaseHeld` for the release that a rollback without the ledger has left."""
    if release == left and not forced:
        raise ReleaseHeld(
            f"{head.service}: traffic was taken from {left} while the ledger could not be reached",
            hint="deploy another release; or have it learnt by `osvdeploy drift --repair`, and take the hold away with "
            "`osvdeploy unhold`",
        )


def refuse_shares(release: Release, state: RouteState) -> None:
    """Traffic moves to a pointer's slot in one step or not at all."""
    shares = [step.weight for step in release.settings.strategy.steps if step.weight != 100]
    if shares and not state.weighted:
        raise UsageError(
            f"{release.id}: its strategy gives the new release {shares[0]} % first, but {release.settings.listener} "
            "has no weights",
            hint="leave the steps out, or name a way in that has weights",
        )


def refuse_drift(head: Head, state: RouteState) -> None:
    """Traffic that goes elsewhere than the ledger says was moved by somebody: not ours to undo unasked."""
    if head.stable is None or head.serving is None:
        return
    if state.weights is None:
        # A rule of ours may be made anew; where a pointer leads is the user's word.
        if not state.weighted and head.place is not None:
            raise UsageError(
                f"{head.service}: the ledger says {head.serving} serves, but {head.place.route.listener} leads "
                "elsewhere again",
                hint=f"let it lead to the {head.serving} slot, then run this again; or `osvdeploy destroy` the service",
            )
        return
    if state.weights.get(head.serving.other, 0) > 0:
        seen = ", ".join(f"{slot} {weight}" for slot, weight in sorted(state.weights.items()))
        raise UsageError(
            f"{head.service}: the ledger says {head.serving} serves, but the rule's weights are {seen}",
            hint=f"{_after_a_failed_way_back(head)}where the ledger is right, `osvdeploy drift {head.service} "
            f"--repair` sends all of it to {head.serving}; where the cloud is, `osvdeploy adopt {head.service} "
            "--from-cloud` has the ledger learn it, once one slot has all of it",
        )
    if state.changed:
        raise UsageError(
            f"{head.service}: somebody has changed the rule that sends its traffic: it {state.changed}",
            hint=f"`osvdeploy drift {head.service} --repair` puts it right",
        )


def _after_a_failed_way_back(head: Head) -> str:
    run = head.run
    if run is None or not run.over or run.verdict is not Outcome.ROLLBACK_FAILED or run.shifted is None:
        return ""
    return f"`osvdeploy rollback {head.service}` tries again to bring traffic back; "


def astray(head: Head, state: RouteState) -> str:
    """What of a service's route is not as the ledger says, while no rollout is under way; "" where all is."""
    if head.stable is None or head.serving is None or head.unfinished is not None:
        return ""
    if state.weights is None:
        return "the rule that sends traffic is gone" if state.weighted else "traffic is sent elsewhere"
    if state.weights.get(head.serving.other, 0) > 0 or (not state.changed and state.weights.get(head.serving, 0) == 0):
        seen = ", ".join(f"{slot} {weight}" for slot, weight in sorted(state.weights.items()))
        more = f", and the rule {state.changed}" if state.changed else ""
        return f"{head.serving} serves, but the weights are {seen}{more}"
    if state.changed:
        return f"{head.serving} serves, but the rule that sends traffic {state.changed}"
    if missing := [slot for slot in Slot if slot not in state.backends]:
        return f"what leads to slot {' and '.join(missing)} is gone"
    return ""


def refuse_unready(ctx: Context, hooks: Hooks | None, metrics: Metrics | None, settings: Settings) -> None:
    """Raise :class:`~osvdeploy.errors.UsageError` for what cannot be asked from here, of a hook, of probes or of a gate
    that fails for want of data: it would fail the rollout when its turn comes."""
    for gate in settings.gates:
        if metrics is None or not gate.fails_unread:
            continue
        try:
            metrics.refuse_unready(ctx, gate.metric)
        except UsageError as error:
            raise UsageError(f"gate {gate.name}: {error}", hint=error.hint) from None
    if settings.health.probe_command and hooks is not None:
        try:
            hooks.refuse_unready(ctx, CommandHook(settings.health.probe_command))
        except UsageError as error:
            raise UsageError(f"health.probe-from: {error}", hint=error.hint) from None
    for hook in settings.hooks:
        if hooks is None:
            raise UsageError(f"hook {hook.name}: there is nothing to ask hooks with here", hint="give `hooks`")
        try:
            hooks.refuse_unready(ctx, hook.action)
        except UsageError as error:
            raise UsageError(f"hook {hook.name}: {error}", hint=error.hint) from None


def refuse_to_go_on(ctx: Context, hooks: Hooks | None, metrics: Metrics | None, run: Run, told: str = "") -> None:
    """Raise :class:`~osvdeploy.errors.UsageError` where going on with a run from here would fail it: what it asks on
    its way up is not here. ``told`` is what was done all the same."""
    if run.returning or run.verdict is not None or run.abort is not None:
        return
    deciding = [
        hook
        for hook in run.settings.hooks
        if hook.on_failure is HookFailure.FAIL and set(hook.on) & set(_ON_THE_WAY_UP)
    ]
    # An adoption has no gates, and who has promoted the last bake asked for none.
    through = run.stage is Stage.BAKE and run.step == len(run.steps) - 1 and run.bake <= 0
    gates = () if through or run.kind is Kind.ADOPT else run.settings.gates
    try:
        refuse_unready(ctx, hooks, metrics, replace(run.settings, hooks=tuple(deciding), gates=gates))
    except UsageError as error:
        heard = f"{told}; but it cannot go on from here: " if told else ""
        raise UsageError(
            f"{heard}{error}",
            hint="`osvdeploy recover` goes on where that is at hand; `osvdeploy abort` ends it from anywhere",
        ) from None


_ON_THE_WAY_UP = ("prepare", "boot", "verify", "shift", "bake")
"""Stages whose hooks have a say."""


def refuse_moved_route(head: Head, route: Route) -> None:
    if head.place is None or head.destroyed or head.stable is None:
        return
    old = head.place.route
    moved = [
        f"{name} (was {getattr(old, name)}, is {getattr(route, name)})"
        for name in ("listener", "priority", "host", "path", "port", "preview_header")
        if getattr(old, name) != getattr(route, name)
    ]
    checked = [
        f"health.{name} (was {getattr(old.health, name)}, is {getattr(route.health, name)})"
        for name in ("kind", "path", "interval", "timeout", "healthy", "unhealthy")
        if getattr(old.health, name) != getattr(route.health, name)
    ]
    if moved or checked:
        why = "what serves is checked by the same rule of the balancer; " if checked else ""
        raise UsageError(
            f"{head.service}: the route of a service in use cannot change: {'; '.join([*moved, *checked])}",
            hint=f"{why}put the old values back, or `osvdeploy destroy` the service and deploy it anew",
        )


def refuse_unknown_service(ledger: Ledger, route: Route, state: RouteState, groups: Mapping[str, GroupState]) -> None:
    """What serves without this ledger knowing of it must not be taken for an empty place."""
    standing = [group for group in groups.values() if not group.deleting]
    if not standing and not any((state.weights or {}).values()):
        return
    known = ", ".join(str(group.release) for group in standing) or "a rule with weights"
    ledgers = {group.tags[tags.LEDGER] for group in standing if tags.LEDGER in group.tags}
    address = ledger.store.address
    if ledgers == {route.tags.get(tags.LEDGER)}:
        raise UsageError(
            f"{ledger.service}: is in service already ({known}), and its ledger {address} has lost it",
            hint="put the ledger back from a copy; without one, write it anew from the tags in the cloud: `osvdeploy "
            "adopt --from-cloud`",
        )
    raise UsageError(
        f"{ledger.service}: is in service already ({known}), but the ledger {address} does not know of it",
        hint="deploy with the ledger that it was deployed with: "
        + (", ".join(sorted(ledgers)) or "it is named in the tag osvdeploy:ledger"),
    )
