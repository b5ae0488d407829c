"""adopt: what somebody else made, or a lost ledger's service, becomes ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from osvdeploy.cli.options import PlaceChoice, ServiceChoice, place_options, refuse_place_alone, service_options
from osvdeploy.cli.output import Result, command
from osvdeploy.cli.rollouts import calls_document, rollout_document, rollout_text
from osvdeploy.context import Context

if TYPE_CHECKING:
    from osvdeploy.api import Adoption, Calls


@click.command(short_help="Take over what stands in the cloud.")
@service_options
@click.option("--group", metavar="NAME", help="The Auto Scaling or managed instance group that has the traffic.")
@click.option("--own", is_flag=True, help="The group is ours from now on: it is deleted when nothing needs it.")
@click.option("--as", "version", metavar="VERSION", help="The version that it is called by; left out: adopted.")
@click.option("--dry-run", is_flag=True, help="Say what would be adopted, or why it cannot be, and do nothing.")
@click.option("--from-cloud", is_flag=True, help="The ledger is lost: write it anew from the service's tags.")
@place_options
@command
def adopt(
    ctx: Context,
    choice: ServiceChoice,
    group: str | None,
    own: bool,
    version: str | None,
    dry_run: bool,
    from_cloud: bool,
    place: PlaceChoice,
) -> Result:
    """Make a group of machines that somebody else made, and that has the traffic, a release of a service; no request
    is lost. From then on `osvdeploy deploy` goes beside it, and `osvdeploy rollback` back to it.

    The group stays theirs: it is let go, and not deleted, when nothing needs it any more. What goes wrong gives the
    traffic back; `osvdeploy abort` does too. With --from-cloud the ledger of a service of ours is written anew from
    its tags in the cloud; one that is there learns what serves now.
    Example: osvdeploy adopt --env production --group web-asg
    Example: osvdeploy adopt hello/production --from-cloud --region eu-west-1
    """
    from osvdeploy import api
    from osvdeploy.errors import UsageError

    refuse_place_alone(place, from_cloud)
    if from_cloud == (group is not None):
        raise UsageError(
            "what is to be adopted?",
            hint="one of both: --group NAME a group, --from-cloud what a lost ledger knew",
        )
    if group is None:
        if own or version is not None or dry_run:
            raise UsageError("--own, --as and --dry-run are for a --group", hint="leave them out")
        return _written_anew(ctx, choice, place)
    calls = api.Calls()
    loaded = choice.spec()
    service = choice.service()
    adopted = api.adopt(
        calls.listening(ctx),
        loaded,
        service.environment,
        group,
        own=own,
        version=version or "adopted",
        dry_run=dry_run,
    )
    return adoption_result(adopted, calls)


def adoption_result(adopted: Adoption, calls: Calls) -> Result:
    """What came of an adoption."""
    release = adopted.release
    assert release.adopted is not None
    document: dict[str, Any] = {
        "service": release.service,
        "release": release.id,
        "group": release.adopted.group,
        "own": release.adopted.own,
        "image": release.adopted.image,
        "led_by": adopted.led_by,
        "dry_run": adopted.rollout is None,
    }
    if adopted.rollout is None:
        told = f"{release.adopted.group} can be adopted as {release.id}; {adopted.led_by} sends it its traffic now"
        return Result(told, {**document, "calls": calls_document(calls)})
    text = rollout_text(adopted.rollout)
    if adopted.rollout.exit_code == 0:
        text += (
            f"\n{adopted.led_by or 'what led to it before'} stays, and has the traffic again after `osvdeploy destroy`"
        )
    document |= {**rollout_document(adopted.rollout), "calls": calls_document(calls)}
    return Result(text, document, adopted.rollout.exit_code)


def _written_anew(ctx: Context, choice: ServiceChoice, place: PlaceChoice) -> Result:
    from osvdeploy import api

    made = api.adopt_from_cloud(ctx, place.whereabouts(ctx, choice))
    head = made.head
    serving = head.stable.release if head.stable is not None else None
    document = {
        "service": head.service,
        "serving": serving,
        "learnt": made.learnt,
        "slots": [
            {"slot": slot, "release": record.release, "group": record.group} for slot, record in head.slots.items()
        ],
        "releases": list(made.releases),
        "holds": [hold.release for hold in head.holds],
    }
    if made.learnt:
        told = f"{head.service}: the ledger has learnt that {serving} serves"
    else:
        told = f"{head.service}: the ledger is written; {serving} serves, {len(made.releases)} releases have an image"
    return Result(told, document)
