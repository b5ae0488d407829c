"""adopt: what somebody else made, or a lost ledger's service, becomes ours."""

from __future__ import annotations

import click

from osvdeploy.cli.options import PlaceChoice, ServiceChoice, place_options, refuse_place_alone, service_options
from osvdeploy.cli.output import Result, command
from osvdeploy.context import Context


@click.command(short_help="Take over what stands in the cloud.")
@service_options
@click.option("--from-cloud", is_flag=True, help="The ledger is lost: write it anew from the service's tags.")
@place_options
@command
def adopt(ctx: Context, choice: ServiceChoice, from_cloud: bool, place: PlaceChoice) -> Result:
    """Write the ledger of a service anew, from its tags in the cloud: place, slots, what serves, releases.

    A ledger that is there learns what serves now. Nothing in the cloud is changed but marks of leases that the lost
    ledger gave out. Example: osvdeploy adopt hello/production --from-cloud --region eu-west-1
    """
    from osvdeploy import api
    from osvdeploy.errors import UsageError

    refuse_place_alone(place, from_cloud)
    if not from_cloud:
        raise UsageError("what is to be adopted?", hint="--from-cloud writes a lost ledger anew")
    where = place.whereabouts(ctx, choice)
    made = api.adopt_from_cloud(ctx, where)
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
