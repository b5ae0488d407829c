"""publish, deploy, status, history, rollback, hold, unhold, destroy, gc: image to traffic, and back."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from osvdeploy.cli.adopt import adoption_result
from osvdeploy.cli.control import handed_over, stay_options
from osvdeploy.cli.options import (
    PlaceChoice,
    ServiceChoice,
    dead_option,
    displace_option,
    duration_value,
    force_option,
    origin_option,
    place_options,
    price_option,
    probe_from_option,
    refuse_lease_options,
    refuse_origin_alone,
    refuse_place_alone,
    release_option,
    service_options,
    spec_options,
    take_over_option,
)
from osvdeploy.cli.output import Result, command
from osvdeploy.cli.rollouts import (
    amount,
    calls_document,
    release_document,
    rollout_document,
    rollout_text,
    run_document,
    scaling_document,
)
from osvdeploy.context import Context
from osvdeploy.rollout.refusals import refused_by, ways_past_hold
from osvdeploy.rollout.requests import ways_on
from osvdeploy.sizes import format_duration, format_size

if TYPE_CHECKING:
    from osvdeploy.api import ProbeFrom, ServiceSeen, ServiceStatus, Survey, WentBack
    from osvdeploy.cloud.interfaces import CloudImage, Scaling, Slot, StoredObject, UnfinishedObject
    from osvdeploy.rollout.ledger import Head
    from osvdeploy.rollout.model import Run, Until


@click.command(short_help="Raw disk to cloud image (AMI, GCE image).")
@spec_options
@force_option
@command
def publish(
    ctx: Context, spec_file: Path, environment: str | None, sets: tuple[str, ...], forced: tuple[str, ...]
) -> Result:
    """Build if needed, upload what the cloud lacks, and register the image app-version.

    Prints the image's id. An environment on Google that has variables of its own gets an image of its own, made on top
    of that one, and its id is printed. Running it again finds the first run's work; an interrupted upload goes on where
    it stopped.

    Example: osvdeploy publish --env production
    """
    from osvdeploy import api

    calls = api.Calls()
    found = api.publish(calls.listening(ctx), api.load_spec(spec_file, sets=sets), environment, forced=forced)
    published, release = found.published, found.release
    return Result(
        (release or published).image.id,
        {
            "image": _image(published.image),
            "release": None if release is None else {**_image(release.image), "reused": release.reused},
            "disk": published.disk,
            "cloud": found.cloud,
            "account": found.account,
            "region": found.region,
            "blocks": published.blocks,
            "blocks_sent": published.blocks_sent,
            "reused": published.reused,
            "calls": calls_document(calls),
        },
    )


def _image(image: CloudImage) -> dict[str, Any]:
    return {"id": image.id, "name": image.name, "digest": image.digest}


@click.command(short_help="Build and publish if needed, roll out, watch.")
@spec_options
@release_option
@origin_option
@force_option
@click.option(
    "--adopt",
    "adopted",
    metavar="GROUP",
    help="First adopt the group that has the traffic now: `osvdeploy adopt` says how. Nothing where a release serves.",
)
@displace_option
@take_over_option
@click.option(
    "--plan",
    "plan_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Only where nothing has changed since this plan was made.",
)
@stay_options
@command
def deploy(
    ctx: Context,
    spec_file: Path,
    environment: str | None,
    sets: tuple[str, ...],
    wanted: str | None,
    origin: str | None,
    forced: tuple[str, ...],
    adopted: str | None,
    displace: bool,
    take_over: bool,
    plan_file: Path | None,
    until: Until,
) -> Result:
    """Bring the spec's image into service by its strategy, and go back by itself if it is bad.

    Builds and publishes what is missing. Interrupted or killed, the same command goes on with the rollout; one that
    followed a plan is gone on with without it. With --plan it is refused (exit code 2) where anything that the plan was
    made on has changed: image, settings, ledger, machines, route.
    Exit codes: 0 serves, 1 failed with nothing to go back to, 2 refused with nothing made, 3 rolled back (the old
    release serves), 4 another deploy is at work, 5 waits for approval or is paused, 6 traffic could not be brought
    back. With --release the image is the one that another environment runs, with this one's variables and settings:
    neither sources nor a build are needed here (docs/rollouts.md).

    Example: osvdeploy deploy --env production, osvdeploy deploy --env production --release 1.4.0
    """
    from osvdeploy import api

    calls = api.Calls()
    refuse_origin_alone(origin, wanted)
    planned = api.load_plan(plan_file) if plan_file is not None else None
    loaded, counted = api.load_spec(spec_file, sets=sets), calls.listening(ctx)
    if adopted is not None and not api.serves(ctx, api.service_of(loaded, environment)):
        came = api.adopt(counted, loaded, environment, adopted)
        if came.rollout is not None and came.rollout.exit_code != 0:
            return adoption_result(came, calls)
    if wanted is None:
        deployed = api.deploy(
            counted,
            loaded,
            environment,
            forced=forced,
            take_over=take_over,
            displace=displace,
            until=until,
            planned=planned,
        )
    else:
        deployed = api.deploy_release(
            counted,
            loaded,
            environment,
            wanted,
            origin=origin,
            forced=forced,
            take_over=take_over,
            displace=displace,
            until=until,
            planned=planned,
        )
    release = deployed.release
    service = api.Service(release.app, release.settings.environment, release.settings.ledger)
    log = handed_over(ctx, service, deployed.rollout)
    document = {
        "release": deployed.release.id,
        "image": {"id": deployed.published.image.id, "digest": deployed.release.image},
        "origin": deployed.release.origin,
        **rollout_document(deployed.rollout),
        "log": log,
        "calls": calls_document(calls),
    }
    return Result(rollout_text(deployed.rollout), document, deployed.rollout.exit_code)


@click.command(short_help="Bring an earlier release back.")
@service_options
@click.option("--to", metavar="VERSION", help="A version or release id; left out: the release before the present one.")
@click.option(
    "--from-cloud",
    is_flag=True,
    help="The ledger cannot be reached, or is lost: find the service by its tags in the cloud.",
)
@place_options
@probe_from_option
@take_over_option
@dead_option
@command
def rollback(
    ctx: Context,
    choice: ServiceChoice,
    to: str | None,
    from_cloud: bool,
    place: PlaceChoice,
    probe_from: ProbeFrom | None,
    take_over: bool,
    dead: bool,
) -> Result:
    """Move traffic back to an earlier release: at once where its machines still stand, else they are started first.

    Needs only the service's name and its ledger. The release that is left is held: deploying it again needs
    `osvdeploy unhold`. With --from-cloud not even the ledger: the name and the region are enough, on Google the
    project, and the ledger learns of it later.
    Example: osvdeploy rollback hello/production --to 1.4.0
    Example: osvdeploy rollback hello/production --from-cloud --region eu-west-1
    """
    from osvdeploy import api

    calls = api.Calls()
    refuse_place_alone(place, from_cloud)
    if from_cloud:
        refuse_lease_options(take_over, dead)
        where = place.whereabouts(ctx, choice)
        went = api.rollback_from_cloud(calls.listening(ctx), where, to=to, probe_from=probe_from)
        document = {
            **rollout_document(went.rollout),
            "left": went.left,
            "ledger": went.ledger,
            "noted": went.noted,
            "calls": calls_document(calls),
        }
        return Result(_went_back(went, where.name), document, went.rollout.exit_code)
    chosen = choice.service()
    outcome = api.rollback(calls.listening(ctx), chosen, to=to, take_over=take_over, force=dead, probe_from=probe_from)
    return Result(
        rollout_text(outcome), {**rollout_document(outcome), "calls": calls_document(calls)}, outcome.exit_code
    )


def _went_back(went: WentBack, service: str) -> str:
    """What was done, and what the ledger is yet to learn."""
    told = rollout_text(went.rollout)
    if went.rollout.exit_code != 0 or not went.noted:
        return told
    ledger = went.ledger or "of the service"
    return (
        f"{told}\nthe ledger {ledger} does not know it yet: its next deploy, rollback or drift --repair learns it. "
        f"Where it is lost: osvdeploy adopt {service} --from-cloud"
    )


@click.command(short_help="What serves now.")
@service_options
@click.option("--offline", is_flag=True, help="Read the ledger alone; do not ask the cloud.")
@click.option("--watch", is_flag=True, help="Go on looking until the rollout under way, or the next one, is over.")
@click.option(
    "--all", "everything", is_flag=True, help="Every service of the ledger, in a line each; APP: those of one."
)
@command
def status(
    ctx: Context,
    choice: ServiceChoice,
    offline: bool,
    watch: bool,
    everything: bool,
) -> Result:
    """Show which release serves, what stands warm, weights and health, and a rollout under way.

    With --watch its course is told on standard error, as `osvdeploy deploy` tells it, whoever works on it.
    Example: osvdeploy status hello/production --ledger /srv/releases --watch, osvdeploy status --all --ledger s3://acme
    """
    from osvdeploy import api
    from osvdeploy.errors import UsageError

    if everything:
        if watch:
            raise UsageError("--all and --watch do not go together", hint="watch one service: name it as APP/ENV")
        return _survey(api.survey(ctx, choice.ledger_of_all(), app=choice.app, look=not offline))
    found = (api.watch if watch else api.status)(ctx, choice.service(), look=not offline)
    head = found.head
    document: dict[str, Any] = {
        "service": found.service,
        "ledger": found.ledger,
        "destroyed": head.destroyed,
        "serving": head.stable.release if head.stable else None,
        "url": found.base_url,
        "slots": [
            {
                "slot": slot.slot,
                "release": slot.release,
                "serving": slot.serving,
                "warm_until": slot.warm_until,
                "weight": slot.weight,
                "capacity": slot.capacity,
                "scaling": scaling_document(slot.scaling),
                "adopted": slot.adopted,
                "targets": None
                if slot.targets is None
                else [{"machine": each.machine, "state": each.state, "reason": each.reason} for each in slot.targets],
            }
            for slot in found.slots
        ],
        "holds": [{"release": hold.release, "why": hold.why, "by": hold.by, "at": hold.at} for hold in head.holds],
        "notices": [
            {
                "target": str(each.target),
                "notice": each.news.notice,
                "event": each.news.event,
                "at": each.news.at,
                "tries": each.tries,
                "error": each.error or None,
            }
            for each in head.notices
        ],
        "run": run_document(head.run) if head.run is not None else None,
        "held_by": _held_by(head),
        "deserted": None if found.absence is None else found.absence.told,
        "left": found.left,
        "carrying": found.carrying,
        "cloud_error": found.cloud_error,
    }
    return Result(_status_text(found), document)


def _held_by(head: Head) -> str | None:
    """Who has the lease, but for a process of this machine that is known to be dead."""
    holder = head.lease.holder if head.lease is not None else None
    return None if holder is None or holder.known_dead() else f"process {holder.pid} on {holder.host}"


def _survey(found: Survey) -> Result:
    from osvdeploy.api.surveying import told
    from osvdeploy.cli.tables import table, width

    rows = []
    for each in found.services:
        slot = each.head.serving if each.head is not None else None
        share = "-" if slot is None or each.weights is None else f"{each.weights.get(slot, 0)} %"
        stable = each.stable
        machines = "-" if stable is None else f"{stable.up}/{stable.capacity}"
        rows.append((each.service, each.serving or "-", share, machines, told(each)))
    lines = [
        table(("SERVICE", "SERVES", "SHARE", "UP", "STATE"), rows, within=width() if sys.stdout.isatty() else None),
        *(f"{place} could not be asked: {why}" for place, why in found.cloud_errors.items()),
    ]
    document = {
        "ledger": found.ledger,
        "services": [_survey_document(each) for each in found.services],
        "cloud_errors": [{"place": place, "error": why} for place, why in found.cloud_errors.items()],
    }
    return Result("\n".join(lines), document)


def _survey_document(seen: ServiceSeen) -> dict[str, Any]:
    from osvdeploy.api.surveying import told

    head = seen.head
    run = head.unfinished if head is not None else None
    place = head.place if head is not None else None
    return {
        "service": seen.service,
        "serving": seen.serving,
        "slot": head.serving if head is not None else None,
        "destroyed": head is not None and head.destroyed,
        "cloud": place.cloud if place is not None else None,
        "account": place.account if place is not None else None,
        "region": place.region if place is not None else None,
        "weights": None if seen.weights is None else dict(sorted(seen.weights.items())),
        "machines": None
        if seen.machines is None
        else {slot: {"up": each.up, "capacity": each.capacity} for slot, each in sorted(seen.machines.items())},
        "run": None
        if run is None
        else {"id": run.id, "kind": run.kind, "candidate": run.candidate, "slot": run.slot, "stage": run.stage},
        "holds": [] if head is None else [hold.release for hold in head.holds],
        "told": told(seen),
        "trouble": seen.trouble or None,
    }


@click.command(short_help="Releases, and how each rollout ended.")
@service_options
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000), help="How many rollouts.")
@command
def history(
    ctx: Context,
    choice: ServiceChoice,
    limit: int,
) -> Result:
    """List the rollouts of a service, newest first, and its releases with their digests. Reads the ledger alone.

    Example: osvdeploy history hello/production
    """
    from osvdeploy import api
    from osvdeploy.cli.tables import table, width

    found = api.history(ctx, choice.service(), limit=limit)
    rows = [
        (
            f"{run.started:%Y-%m-%d %H:%M:%S}",
            run.kind,
            run.candidate,
            run.verdict or f"in {run.stage}",
            run.by,
            _how(run),
        )
        for run in found.runs
    ]
    releases = [
        (
            "*" if release.id == found.serving else "",
            release.id,
            f"{release.created:%Y-%m-%d %H:%M:%S}",
            release.image[:12],
            release.configuration[:12],
        )
        for release in found.releases
    ]
    wide = width() if sys.stdout.isatty() else None
    text = "\n".join(
        [
            table(("STARTED (UTC)", "KIND", "RELEASE", "OUTCOME", "BY", "HOW"), rows, last_width=60, within=wide),
            "",
            table(("", "RELEASE", "CREATED (UTC)", "IMAGE", "CONFIGURATION"), releases, within=wide),
        ]
    )
    document = {
        "service": found.service,
        "serving": found.serving,
        "runs": [run_document(run) for run in found.runs],
        "releases": [release_document(release) for release in found.releases],
    }
    return Result(text, document)


@click.command(short_help="Refuse a release, or every one.")
@service_options
@click.option("--release", metavar="VERSION", help="A version or release id; left out: every release.")
@click.option("--why", default="held by hand", show_default=True, help="What others are told.")
@command
def hold(
    ctx: Context,
    choice: ServiceChoice,
    release: str | None,
    why: str,
) -> Result:
    """Keep a service on its release: deploys are refused until `osvdeploy unhold`.

    Example: osvdeploy hold hello/production --why "freeze until Monday"
    """
    from osvdeploy import api

    head = api.hold(ctx, choice.service(), release, why)
    return Result(f"{head.service}: {release or 'every release'} is held", {"service": head.service, "held": release})


@click.command(short_help="Take the holds away, or one.")
@service_options
@click.option("--release", metavar="VERSION", help="A version or release id; left out: every hold is taken away.")
@command
def unhold(
    ctx: Context,
    choice: ServiceChoice,
    release: str | None,
) -> Result:
    """Let every release of a service go again, or one.

    Example: osvdeploy unhold hello/production --release 1.4.2
    """
    from osvdeploy import api

    head = api.unhold(ctx, choice.service(), release)
    held = [hold.release for hold in head.holds]
    still = ", ".join(each or "every release" for each in held)
    return Result(
        f"{head.service}: {f'{still} is held still' if held else 'nothing is held'}",
        {"service": head.service, "holds": held},
    )


@click.command(short_help="Take a service away, with all it has.")
@service_options
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Say what would be taken away, and do nothing.")
@take_over_option
@command
def destroy(
    ctx: Context,
    choice: ServiceChoice,
    yes: bool,
    dry_run: bool,
    take_over: bool,
) -> Result:
    """Take a service's machines, templates, rules and backends away. Images stay for `osvdeploy gc`, history stays.

    Says first what will go, and asks; without a terminal it needs --yes.
    Example: osvdeploy destroy hello/production --yes
    """
    from osvdeploy import api
    from osvdeploy.errors import UsageError

    chosen = choice.service()
    held = api.holdings(ctx, chosen)
    document: dict[str, Any] = {
        "service": chosen.name,
        "serving": held.serving,
        "groups": list(held.groups),
        "templates": list(held.templates),
        "rules": list(held.rules),
        "backends": list(held.backends),
        "kept": list(held.kept),
        "destroyed": False,
    }
    serving = f", {held.serving} serves" if held.serving else ""
    counted = _counted(group=held.groups, template=held.templates, rule=held.rules, backend=held.backends)
    told = f"{chosen.name}{serving}: {counted}"
    if held.kept:
        told += f" ({', '.join(held.kept)}, which somebody else made, stays and has its traffic as before)"
    if held.gone:
        told += f" (its way in is gone: {held.gone}; backends are taken away as they are found)"
    if dry_run:
        # By its kind: on Google a group and its template have one name.
        kinds = (("group", held.groups), ("template", held.templates), ("rule", held.rules), ("backend", held.backends))
        names = [f"  {kind} {name}" for kind, each in kinds for name in each]
        return Result("\n".join([f"{told} would go", *names]), document)
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"this would take away {told}", hint="say --yes")
        click.echo(f"this takes away {told}", err=True)
        if not click.confirm("go on?", err=True):
            raise UsageError("nothing was taken away")
    api.destroy(ctx, chosen, take_over=take_over)
    return Result(f"{chosen.name}: destroyed", {**document, "destroyed": True})


@click.command(short_help="Remove images and machines that no release needs.")
@service_options
@click.option(
    "--keep", type=click.IntRange(1, 50), help="How many releases that have served; default: the spec's, or 10."
)
@click.option(
    "--age",
    metavar="TIME",
    callback=duration_value,
    help="And those that served within this time, such as 90d; default: the spec's.",
)
@price_option
@click.option("--dry-run", is_flag=True, help="Say what would be removed, its bytes and its money, and do nothing.")
@command
def gc(
    ctx: Context,
    choice: ServiceChoice,
    keep: int | None,
    age: float | None,
    given: tuple[str, ...],
    dry_run: bool,
) -> Result:
    """Remove what no release of the service needs any more: images and their disks, templates, machines kept warm
    past their time, and what was left in a bucket that disks pass through. What serves, is warm, pinned, among the
    newest or young enough stays, and so does an image that others start machines from. With prices, the spec's or
    --price, --dry-run tells what it costs.

    Example: osvdeploy gc hello/production --dry-run
    """
    from osvdeploy import api

    chosen = choice.service()
    loaded = api.load_spec(choice.spec_file, sets=choice.sets) if choice.spec_file.exists() else None
    spec = loaded.spec if loaded is not None else None
    prices = api.prices_of(loaded, given)
    if keep is None:
        keep = spec.retention.releases if spec is not None else 10
    if age is None and spec is not None:
        age = spec.retention.age
    ways = spec.publish if spec is not None and spec.name == chosen.app else None
    buckets: dict[str, str] = {}
    if ways is not None and ways.aws is not None and ways.aws.bucket is not None:
        buckets["aws"] = ways.aws.bucket
    if ways is not None and ways.gcp is not None:
        buckets["gcp"] = ways.gcp.bucket
    found = api.gc(ctx, chosen, keep=keep, age=age, dry_run=dry_run, buckets=buckets)
    cost = api.monthly_cost(found, prices)
    document = {
        "service": chosen.name,
        "dry_run": dry_run,
        "groups": [{"name": name, "why": why} for name, why in found.groups],
        "templates": [{"name": name, "why": why} for name, why in found.templates],
        "images": [{"id": each.id, "name": each.name, "bytes": each.size, "why": why} for each, why in found.images],
        "disks": [
            {"id": disk.id, "name": disk.name, "bytes": found.stored.get(disk.id), "why": why}
            for disk, why in found.disks
        ],
        "objects": [_left(*each) for each in found.objects],
        "uploads": [_left(*each) for each in found.uploads],
        "kept": [
            {"id": each.image.id, "name": each.image.name, "users": list(each.users), "why": each.why}
            for each in found.kept
        ],
        "bytes": found.size,
        "cost": None if prices is None else {"currency": prices.currency, "per_month": amount(cost)},
    }
    done = "would go" if dry_run else "gone"
    counted = _counted(
        group=found.groups,
        template=found.templates,
        image=found.images,
        disk=found.disks,
        object=found.objects,
        unfinished_upload=found.uploads,
    )
    text = f"{chosen.name}: {counted} {done}"
    if found.size:
        text += f", {format_size(found.size)}"
    if dry_run and prices is not None and (found.images or found.disks):
        told = "no price for it" if cost is None else f"{amount(cost)} {prices.currency} a month"
        text += f", {told}"
    if dry_run:
        # Done for good, each is told as it goes.
        named = [(f"group {name}", why) for name, why in found.groups]
        named += [(f"template {name}", why) for name, why in found.templates]
        named += [(f"image {image.name} ({image.id}){_sized(image.size)}", why) for image, why in found.images]
        named += [
            (f"disk {disk.name} ({disk.id}){_sized(found.stored.get(disk.id))}", why) for disk, why in found.disks
        ]
        named += [(f"object {store}/{each.key}{_sized(each.size)}", why) for store, each, why in found.objects]
        named += [
            (f"unfinished upload {store}/{upload.key}{_sized(upload.size)}", why)
            for store, upload, why in found.uploads
        ]
        text = "\n".join([text, *(f"  {name}: {why}" for name, why in named)])
    if found.kept:
        stay = [f"  image {each.image.name} ({each.image.id}): {each.why}" for each in found.kept]
        text = "\n".join([text, f"{_counted(image=found.kept)} {'stays' if len(stay) == 1 else 'stay'}", *stay])
    return Result(text, document)


def _counted(**kinds: Sequence[object]) -> str:
    """How many there are of each kind, the kinds that there are none of left out."""
    told = [
        f"{len(each)} {kind.replace('_', ' ')}{'' if len(each) == 1 else 's'}" for kind, each in kinds.items() if each
    ]
    return ", ".join(told) or "nothing"


def _left(store: str, each: StoredObject | UnfinishedObject, why: str) -> dict[str, Any]:
    return {"store": store, "key": each.key, "bytes": each.size, "why": why}


def _sized(size: int | None) -> str:
    return "" if size is None else f", {format_size(size)}"


# ------------------------------------------------------------------------------------------------------------ texts


def _how(run: Run) -> str:
    """By what strategy, in what time, and why it ended badly."""
    kind = run.settings.strategy.kind if run.kind == "deploy" else "warm" if run.warm else "cold"
    if run.kind == "adopt":
        kind = "beside theirs"
    took = f"{kind}, {format_duration((run.ended - run.started).total_seconds())}" if run.ended is not None else kind
    return took if run.verdict == "succeeded" or not run.reason else f"{took}: {run.reason}"


def _scaling_text(slot: Slot, scaling: Scaling) -> str:
    if not scaling.parts:
        return (
            f"{slot} may have {scaling.minimum} to {scaling.maximum} machines; nothing changes their number by itself"
        )
    bounds = f", {scaling.minimum} to {scaling.maximum} machines" if scaling.moves else ""
    by = f" ({', '.join(scaling.parts)})" if scaling.parts else ""
    return f"{slot} scales by itself{bounds}{by}" + ("; paused: it does not get smaller" if scaling.paused else "")


def _serving_text(found: ServiceStatus) -> str:
    """What serves: by the ledger, unless traffic was taken from it without that."""
    head = found.head
    known = head.stable.release if head.stable else "nothing"
    if found.left is None:
        return f"{found.service}: {known} serves at {found.base_url}"
    if found.carrying in (None, found.left):
        return (
            f"{found.service}: {known} serves at {found.base_url}\n"
            f"a rollback without the ledger was to take traffic from {found.left}, and has not done so"
        )
    has = f"{found.carrying} has the traffic at {found.base_url}"
    command = "recover" if head.unfinished is not None else "drift --repair"
    return (
        f"{found.service}: {has}: it was taken from {found.left} without the ledger, which does not know that yet\n"
        f"it learns that with the next command that changes the service: `osvdeploy {command}` at the least"
    )


def _status_text(found: ServiceStatus) -> str:
    from osvdeploy.cli.tables import folded, table, width
    from osvdeploy.rollout.courier import owing

    head = found.head
    if head.destroyed:
        return f"{found.service}: destroyed"
    lines = [_serving_text(found)]
    rows = []
    for slot in found.slots:
        empty = "candidate" if slot.release else "idle"
        state = "serving" if slot.serving else f"warm until {slot.warm_until[11:19]} UTC" if slot.warm_until else empty
        healthy = "?" if slot.targets is None else str(sum(each.state == "healthy" for each in slot.targets))
        machines = "-" if slot.capacity is None else f"{healthy}/{slot.capacity} healthy"
        weight = "-" if slot.weight is None else f"{slot.weight} %"
        rows.append((slot.slot, state, slot.release or "-", weight, machines))
    lines.append(table(("SLOT", "STATE", "RELEASE", "WEIGHT", "MACHINES"), rows))
    scaling = (_scaling_text(slot.slot, slot.scaling) for slot in found.slots if slot.scaling is not None)
    lines += [folded(text, 2, width()) for text in scaling] if sys.stdout.isatty() else scaling
    if head.unfinished is not None:
        run = head.unfinished
        lines.append(
            f"unfinished: {run.kind} of {run.candidate}, in {run.stage} since {run.entered:%Y-%m-%d %H:%M:%S} UTC"
        )
        if (held_up := refused_by(head, run)) is not None:
            lines += [f"goes no further: {held_up.told}", ways_past_hold(head, run, datetime.now(UTC))]
        elif awaits := run.awaits(datetime.now(UTC)):
            lines += [f"waits: {awaits}", ways_on(run, found.service)]
            if found.absence is not None and run.shifted is not None:
                lines.append(f"{found.absence.told}; `osvdeploy recover {found.service} --stay` watches it meanwhile")
        elif found.absence is not None:
            lines += [found.absence.told, found.absence.ways_on(found.service)]
    lines += [
        f"{slot.slot} was adopted: somebody else made its group, and it stays when it is let go"
        for slot in found.slots
        if slot.adopted
    ]
    lines += [f"held: {hold.release or 'every release'} by {hold.by}: {hold.why}" for hold in head.holds]
    lines += owing(head.notices)
    if found.cloud_error:
        lines.append(f"the cloud could not be asked: {found.cloud_error}")
    return "\n".join(lines)
