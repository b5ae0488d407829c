"""What people say to a rollout under way, and look after between rollouts: pause to unpin, as `--help` lists them."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from osvdeploy.cli.options import (
    ServiceChoice,
    dead_option,
    duration_value,
    probe_from_option,
    service_options,
    take_over_option,
)
from osvdeploy.cli.output import Result, command
from osvdeploy.context import Context

if TYPE_CHECKING:
    from osvdeploy.api import ProbeFrom, Service
    from osvdeploy.rollout.drifting import Drift
    from osvdeploy.rollout.ends import Rollout
    from osvdeploy.rollout.model import RequestKind


def stay_options(function: Callable[..., None]) -> Callable[..., None]:
    """``--wait`` and ``--stay``: how far the command goes with a rollout. The callback gets an ``until``."""

    @functools.wraps(function)
    def callback(wait: bool, stay: bool | None, **arguments: Any) -> None:
        from osvdeploy.rollout.model import Until

        # Somebody who sits there can be asked; a pipeline is told by its exit code.
        attended = _attended() if stay is None else stay
        until = Until.OVER if attended else Until.ASKED
        function(until=until if wait else Until.BEGUN, **arguments)

    stays = click.option(
        "--stay/--no-stay",
        default=None,
        help="Where a person is asked, wait for them, or end with 5; left out: wait on a terminal.",
    )
    waits = click.option(
        "--wait/--no-wait",
        default=True,
        help="Watch the rollout, or leave it to a process in the background of this machine.",
    )
    return waits(stays(callback))


def _attended() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def handed_over(ctx: Context, service: Service, rollout: Rollout) -> Path | None:
    """Let a process in the background go on with a rollout that was only begun; the file that it tells its story."""
    from osvdeploy import api
    from osvdeploy.rollout.model import Outcome

    if rollout.outcome is not Outcome.BEGUN or rollout.run is None:
        return None
    import platformdirs

    state = Path(os.environ.get("OSVDEPLOY_STATE") or platformdirs.user_state_dir("osvdeploy"))
    return api.hand_over(ctx, service, rollout.run, state / "rollouts")


def _asked(
    ctx: Context,
    choice: ServiceChoice,
    kind: RequestKind,
    why: str = "",
    probe_from: ProbeFrom | None = None,
    *,
    wait: bool = True,
) -> Result:
    """Ask something of a rollout, and tell what came of it."""
    from osvdeploy import api
    from osvdeploy.cli.rollouts import calls_document, rollout_document, rollout_text, run_document
    from osvdeploy.rollout.model import RequestKind, Until

    calls = api.Calls()
    until = Until.OVER if _attended() and kind is not RequestKind.PAUSE else Until.ASKED
    until = until if wait else Until.BEGUN
    found = api.ask(calls.listening(ctx), choice.service(), kind, why=why, until=until, probe_from=probe_from)
    lines = [f"{found.run.candidate}: {found.told}"]
    document: dict[str, Any] = {
        "service": found.head.service,
        "done": found.done,
        "told": found.told,
        "run": run_document(found.run),
        "rollout": None,
        "calls": calls_document(calls),
    }
    code = 0 if found.done else 1
    if found.rollout is not None:
        lines.append(rollout_text(found.rollout))
        document |= {"rollout": rollout_document(found.rollout)}
        ended_as_asked = kind is RequestKind.ABORT and found.rollout.exit_code == 3
        code = 0 if ended_as_asked else found.rollout.exit_code
    return Result("\n".join(lines), document, code)


_why = click.option("--why", default="", metavar="TEXT", help="What others are told.")
_waits = click.option(
    "--wait/--no-wait",
    default=True,
    help="Where nobody works on it, go on with it here, or leave that to `osvdeploy recover` elsewhere.",
)


@click.command(short_help="Keep a rollout's traffic as it is.")
@service_options
@_why
@command
def pause(ctx: Context, choice: ServiceChoice, why: str) -> Result:
    """Keep traffic as it is until `osvdeploy resume`: machines may boot, no weight moves.

    Whoever works on the rollout is told, on whatever machine. What falls sick meanwhile is rolled back as ever.
    Example: osvdeploy pause hello/production --why "the database is being moved"
    """
    from osvdeploy.rollout.model import RequestKind

    return _asked(ctx, choice, RequestKind.PAUSE, why)


@click.command(short_help="Let a paused rollout go on.")
@service_options
@_waits
@command
def resume(ctx: Context, choice: ServiceChoice, wait: bool) -> Result:
    """Let a paused rollout go on: in its own process, or in this one where nobody works on it.

    Example: osvdeploy resume hello/production
    """
    from osvdeploy.rollout.model import RequestKind

    return _asked(ctx, choice, RequestKind.RESUME, wait=wait)


@click.command(short_help="Let a rollout pass that waits for you.")
@service_options
@_why
@_waits
@command
def approve(ctx: Context, choice: ServiceChoice, why: str, wait: bool) -> Result:
    """Let a rollout go on that waits for approval; the ledger keeps by whom. Where its process has ended (a pipeline's
    does, with 5), this one goes on, if what it asks can be asked from here.

    Example: osvdeploy approve hello/production
    """
    from osvdeploy.rollout.model import RequestKind

    return _asked(ctx, choice, RequestKind.APPROVE, why, wait=wait)


@click.command(short_help="Leave out the rest of a bake, or all steps.")
@service_options
@click.option("--full", is_flag=True, help="All traffic is the next step, whatever steps are left.")
@_why
@_waits
@command
def promote(ctx: Context, choice: ServiceChoice, full: bool, why: str, wait: bool) -> Result:
    """Go on to the next step now, without the rest of this one's bake, its approval or a pause. Health and answers are
    waited for as ever.

    Example: osvdeploy promote hello/production --full
    """
    from osvdeploy.rollout.model import RequestKind

    return _asked(ctx, choice, RequestKind.PROMOTE_FULL if full else RequestKind.PROMOTE, why, wait=wait)


@click.command(short_help="End a rollout; what served before serves.")
@service_options
@_why
@probe_from_option
@command
def abort(ctx: Context, choice: ServiceChoice, why: str, probe_from: ProbeFrom | None) -> Result:
    """Bring traffic back to what served before, and take the new release's machines away. Ends with 0 when that is so;
    refused with 2 where no rollout is under way.

    Example: osvdeploy abort hello/production --why "wrong version"
    """
    from osvdeploy.rollout.model import RequestKind

    return _asked(ctx, choice, RequestKind.ABORT, why, probe_from)


_MILESTONES = ("prepare", "boot", "verify", "shift", "traffic", "bake", "approval", "revert", "clean-up", "done")


@click.command(short_help="Wait for a rollout to come so far.")
@service_options
@click.option(
    "--for",
    "milestone",
    type=click.Choice(_MILESTONES),
    default="done",
    show_default=True,
    help="A stage, entered or passed; all traffic proved on the new release; somebody's approval being asked; the end.",
)
@click.option(
    "--timeout", callback=duration_value, metavar="TIME", help="How long at most, such as 10m; left out: for ever."
)
@command
def wait(ctx: Context, choice: ServiceChoice, milestone: str, timeout: float | None) -> Result:
    """Wait for the rollout under way, or see how the last one ended. Reads the ledger alone and changes nothing.

    Ends with 0 when it has come so far, with the rollout's own code when it ended otherwise, with 5 when time is over
    while a person is asked, and with 1 when time is over, nobody is at work on it any more, or a rollout that succeeded
    never came to `revert`.
    Example: osvdeploy wait hello/production --for traffic --timeout 10m
    """
    from osvdeploy import api
    from osvdeploy.cli.rollouts import run_document

    found = api.wait(ctx.within(timeout), choice.service(), api.Milestone(milestone))
    document = {
        "service": found.head.service,
        "for": milestone,
        "reached": found.reached,
        "told": found.told,
        "outcome": found.rollout.outcome if found.rollout is not None else None,
        "run": run_document(found.run),
    }
    return Result(found.told, document, found.exit_code)


@click.command(short_help="Go on with a rollout that nobody works on.")
@service_options
@take_over_option
@dead_option
@stay_options
@command
def recover(ctx: Context, choice: ServiceChoice, take_over: bool, dead: bool, until: Any) -> Result:
    """Go on with a rollout whose process is gone, from any machine, without its spec. Does nothing where none is under
    way; a process that may still be alive elsewhere is waited out, a minute.

    Example: osvdeploy recover hello/production --ledger s3://acme-releases/hello
    """
    from osvdeploy import api

    calls = api.Calls()
    chosen = choice.service()
    outcome = api.recover(calls.listening(ctx), chosen, take_over=take_over, force=dead, until=until)
    return _ended(ctx, chosen, outcome, calls)


@click.command(short_help="Try the last rollout again.")
@service_options
@click.option("--force", "forced", is_flag=True, help="Also where a hold refuses the release.")
@stay_options
@command
def retry(ctx: Context, choice: ServiceChoice, forced: bool, until: Any) -> Result:
    """Try the last rollout again where it did not succeed, with the same release and settings, without its spec.

    Example: osvdeploy retry hello/production
    """
    from osvdeploy import api

    calls = api.Calls()
    chosen = choice.service()
    outcome = api.retry(calls.listening(ctx), chosen, forced=forced, until=until)
    return _ended(ctx, chosen, outcome, calls)


def _ended(ctx: Context, service: Service, outcome: Rollout, calls: Any) -> Result:
    from osvdeploy.cli.rollouts import calls_document, rollout_document, rollout_text

    log = handed_over(ctx, service, outcome)
    document = {**rollout_document(outcome), "log": log, "calls": calls_document(calls)}
    return Result(rollout_text(outcome), document, outcome.exit_code)


@click.command(short_help="What is not as the ledger says.")
@service_options
@click.option("--repair", is_flag=True, help="Put right what can be: above all, send traffic where the ledger says.")
@command
def drift(ctx: Context, choice: ServiceChoice, repair: bool) -> Result:
    """Look for what of a service is not as its ledger says: its route, its machines, groups that nobody knows of,
    images that are gone. Ends with 0 where all is, with 1 where something differs, or nobody is at work on a rollout.

    Example: osvdeploy drift hello/production --repair
    """
    from osvdeploy import api

    found = api.drift(ctx, choice.service(), repair=repair)
    document = {
        "service": found.service,
        "under_way": found.under_way,
        "deserted": None if found.absence is None else found.absence.told,
        "drift": [_difference(each) for each in found.found],
        "repaired": [_difference(each) for each in found.repaired],
    }
    lines = [f"repaired: {each.what}" for each in found.repaired]
    for each in found.found:
        lines += [f"{each.kind}: {each.what}", f"  {each.cure}"]
    # Whoever is asked is told by other means; that nobody goes on with it is what nothing else tells.
    deserted = found.absence is not None and not found.awaits
    if found.absence is not None:
        lines.append(f"{found.service}: a rollout is under way, and {found.absence.told}")
        lines.append(f"  {f'waits: {found.awaits}' if found.awaits else found.absence.ways_on(found.service)}")
    elif found.under_way:
        lines.append(f"{found.service}: a rollout is under way, which watches by itself")
    elif not found.found:
        lines.append(f"{found.service}: all is as the ledger says")
    return Result("\n".join(lines), document, 1 if found.found or deserted else 0)


def _difference(each: Drift) -> dict[str, Any]:
    return {"kind": each.kind, "what": each.what, "cure": each.cure, "repairable": each.repairable}


@click.command(short_help="Keep a release, whatever retention says.")
@service_options
@click.option("--release", required=True, metavar="VERSION", help="A version or release id.")
@command
def pin(ctx: Context, choice: ServiceChoice, release: str) -> Result:
    """Keep a release's image: `osvdeploy gc` leaves it, so that it can always be gone back to.

    Example: osvdeploy pin hello/production --release 1.4.0
    """
    from osvdeploy import api

    head = api.pin(ctx, choice.service(), release)
    return Result(f"{head.service}: {release} is pinned", {"service": head.service, "pins": list(head.pins)})


@click.command(short_help="Let retention have a release again.")
@service_options
@click.option("--release", required=True, metavar="VERSION", help="A version or release id.")
@command
def unpin(ctx: Context, choice: ServiceChoice, release: str) -> Result:
    """Take a pin away: the release is kept as long as any other.

    Example: osvdeploy unpin hello/production --release 1.4.0
    """
    from osvdeploy import api

    head = api.pin(ctx, choice.service(), release, pinned=False)
    return Result(f"{head.service}: {release} is pinned no more", {"service": head.service, "pins": list(head.pins)})
