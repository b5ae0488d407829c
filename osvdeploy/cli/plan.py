"""plan: what a deploy would do, before it does it."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from osvdeploy.cli.diff import moved, setting_shown
from osvdeploy.cli.options import (
    displace_option,
    force_option,
    origin_option,
    price_option,
    refuse_origin_alone,
    release_option,
    spec_options,
    take_over_option,
)
from osvdeploy.cli.output import SCHEMA, Result, command
from osvdeploy.cli.rollouts import amount
from osvdeploy.context import Context
from osvdeploy.sizes import format_duration, format_size

if TYPE_CHECKING:
    from osvdeploy.api import Plan
    from osvdeploy.rollout.planning import Estimate, Leg


@click.command(short_help="What a deploy would do, and what it costs.")
@spec_options
@release_option
@origin_option
@force_option
@displace_option
@take_over_option
@price_option
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Keep the plan, for `deploy --plan`.")
@command
def plan(
    ctx: Context,
    spec_file: Path,
    environment: str | None,
    sets: tuple[str, ...],
    wanted: str | None,
    origin: str | None,
    forced: tuple[str, ...],
    displace: bool,
    take_over: bool,
    given: tuple[str, ...],
    out: Path | None,
) -> Result:
    """Tell what `osvdeploy deploy` would do now: what differs from what serves, the course by the strategy, each call
    that would change the cloud, machines and quotas, how long it takes, and what to mind.

    Builds nothing and changes nothing. With prices, in the spec's [prices] or by --price, it tells money too.
    Exit codes: 0 also where there is much to do, 2 where the deploy would be refused for what is yours to mend.
    With --release it is the plan of what `osvdeploy deploy --release` would do.

    Example: osvdeploy plan --env production --price t3.small=0.0228 --price currency=USD
    """
    from osvdeploy import api
    from osvdeploy.cli.tables import folded, width
    from osvdeploy.errors import UsageError

    refuse_origin_alone(origin, wanted)
    loaded = api.load_spec(spec_file, sets=sets)
    asked: dict[str, Any] = {
        "forced": forced,
        "prices": api.prices_of(loaded, given),
        "people": sys.stdin.isatty(),
        "take_over": take_over,
        "displace": displace,
    }
    if wanted is None:
        found = api.plan(ctx, loaded, environment, **asked)
    else:
        found = api.plan_release(ctx, loaded, environment, wanted, origin=origin, **asked)
    document = plan_document(found, ctx.now())
    text = "\n".join(_text(found))
    if out is not None:
        whole = {"schema": SCHEMA, "command": "plan", **document}
        try:
            out.write_text(json.dumps(whole, indent=1, default=str) + "\n")
        except OSError as error:
            raise UsageError(f"{out}: cannot be written: {error.strerror}") from None
        follows = following(spec_file, environment, sets, wanted, origin, forced, displace, take_over, out)
        told = f"kept in {out}: `{follows}` does this, where nothing has changed by then"
        text += "\n" + folded(told, 2, width())
    return Result(text, document)


def following(
    spec_file: Path,
    environment: str | None,
    sets: tuple[str, ...],
    wanted: str | None,
    origin: str | None,
    forced: tuple[str, ...],
    displace: bool,
    take_over: bool,
    out: Path,
) -> str:
    """The deploy that follows a plan, with all that the plan was asked for, as a shell takes it."""
    words = ["osvdeploy", "deploy"]
    if spec_file != Path("osv.toml"):
        words += ["--file", str(spec_file)]
    for option, value in (("--env", environment), ("--release", wanted), ("--from", origin)):
        words += [option, value] if value is not None else []
    for option, values in (("--set", sets), ("--force", forced)):
        words += [word for value in values for word in (option, value)]
    words += ["--displace"] * displace + ["--take-over"] * take_over
    return shlex.join([*words, "--plan", str(out)])


# ---------------------------------------------------------------------------------------------------------- document


def plan_document(found: Plan, at: datetime) -> dict[str, Any]:
    """A plan for programs (docs/json.md), made then. Money is text, so that it stays exact."""
    from osvdeploy import api

    capacity, prices = found.capacity, found.prices
    kinds = {} if capacity is None else {
        "now": capacity.now, "most": capacity.most, "after": capacity.after, "lasting": capacity.lasting
    }  # fmt: skip
    return {
        "service": found.service.name,
        "at": at.isoformat(),
        "cloud": found.cloud,
        "account": found.account,
        "region": found.region,
        "version": found.version,
        "release": found.release,
        "image": found.image,
        "configuration": found.configuration,
        "serving": None if found.serving is None else found.serving.id,
        "image_differs": None if found.same_image is None else not found.same_image,
        "configuration_differs": None if found.same_configuration is None else not found.same_configuration,
        "settings": [{"key": each.key, "before": each.before, "after": each.after} for each in found.settings],
        "publishing": {
            "image": found.publishing.image,
            "release": found.publishing.release,
            "blocks": found.publishing.blocks,
            "bytes": found.publishing.size,
            "why": found.publishing.why or None,
            "calls": [{"operation": each, "count": count} for each, count in found.publishing.calls.items()],
        },
        "told": found.told or None,
        "course": [
            {
                "stage": leg.stage.value,
                "weight": leg.weight,
                "seconds": leg.seconds,
                "approval": leg.approval,
                "gates": list(leg.gates),
                "hooks": [{"name": hook.name, "timeout": hook.timeout} for hook in leg.hooks],
            }
            for leg in found.course
        ],
        "calls": None
        if found.deeds is None
        else [
            {
                "stage": None if deed.stage is None else deed.stage.value,
                "service": call.service,
                "operation": call.operation,
                "resource": call.resource,
            }
            for deed in found.deeds
            for call in deed.calls
        ],
        "capacity": None
        if capacity is None
        else {
            name: {"machines": dict(machines), "cpus": capacity.cpus_of(machines)} for name, machines in kinds.items()
        },
        "quotas": None
        if found.quotas is None
        else [{"name": each.name, "limit": each.limit, "used": each.used} for each in found.quotas],
        "cost": None
        if prices is None
        else {
            "currency": prices.currency,
            "per_hour": {name: amount(prices.hourly(machines)) for name, machines in kinds.items()},
        },
        "estimate": {
            "low": found.estimate.low,
            "usual": found.estimate.usual,
            "high": found.estimate.high,
            "legs": [
                {
                    "stage": each.leg.stage.value,
                    "weight": each.leg.weight,
                    "low": each.low,
                    "usual": each.usual,
                    "high": each.high,
                    "runs": each.runs,
                }
                for each in found.estimate.legs
            ],
        },
        "warnings": [{"kind": each.kind, "told": each.told, "cure": each.cure or None} for each in found.cautions],
        "refused": [{"kind": each.kind, "told": each.told, "hint": each.hint} for each in found.objections],
        "basis": api.basis_document(found.basis),
    }


# -------------------------------------------------------------------------------------------------------------- text


def _text(found: Plan) -> Iterator[str]:
    from osvdeploy.cli.tables import folded, width

    wide = width()
    yield from (folded(line, 4, wide) for line in _release(found))
    yield ""
    if found.told:
        yield folded(found.told, 2, wide)
    if found.course:
        yield "course:"
        for leg in found.course:
            yield "  " + folded(_leg(leg), 4, wide)
    yield from _calls(found, wide)
    yield ""
    yield from _machines(found, wide)
    if found.course:
        yield from (folded(line, 2, wide) for line in _time(found.estimate))
    for objection in found.objections:
        yield folded(f"refused now: {objection.told}", 2, wide)
        if objection.hint:
            yield folded(f"  {objection.hint}", 2, wide)
    for caution in found.cautions:
        yield folded(f"mind: {caution.told}", 2, wide)
        if caution.cure:
            yield folded(f"  {caution.cure}", 2, wide)


def _release(found: Plan) -> Iterator[str]:
    release = found.release or f"{found.service.app}-{found.version}, not built yet"
    where = f"{found.cloud} {found.region}"
    yield f"{found.service.name} in {where}: {release}"
    serving = found.serving
    if serving is None:
        yield "serving: nothing; this is the first release"
    else:
        yield f"serving: {serving.id}"
        image = "?" if found.image is None else found.image[:12]
        yield f"image: {moved(serving.image[:12], image)}"
        yield f"configuration: {moved(serving.configuration[:12], found.configuration[:12])}"
        yield "settings:" if found.settings else "settings: the same"
        yield from (
            f"  {each.key}: {setting_shown(each.before)} -> {setting_shown(each.after)}" for each in found.settings
        )
    publishing = found.publishing
    if publishing.release is not None:
        yield f"publishing: nothing; {publishing.release} is there"
    elif publishing.size is None:
        yield f"publishing: {publishing.why}"
    elif publishing.blocks is None:
        yield f"publishing: {format_size(publishing.size)} at most; {publishing.why}"
    else:
        blocks = f"{publishing.blocks} block{'' if publishing.blocks == 1 else 's'}"
        on = f", on {publishing.image}" if publishing.image is not None else ""
        yield f"publishing: {format_size(publishing.size)} in {blocks}{on}"
    if publishing.calls:
        yield f"  {', '.join(f'{operation} {count}' for operation, count in publishing.calls.items())}"


def _leg(leg: Leg) -> str:
    told = leg.stage.value
    if leg.weight is not None:
        told += f" {leg.weight} %"
    if leg.stage.value == "bake" and leg.seconds:
        told += f" for {format_duration(leg.seconds)}"
    elif leg.stage.value == "boot":
        told += f", healthy for {format_duration(leg.seconds)}"
    if leg.gates:
        told += f", held to {', '.join(leg.gates)}"
    if leg.hooks:
        each = (f"{hook.name} (up to {format_duration(hook.timeout)})" for hook in leg.hooks)
        told += f", asks {', '.join(each)}"
    if leg.approval:
        told += ", once somebody has approved" if leg.stage.value == "shift" else ", then until somebody approves"
    return told


def _calls(found: Plan, wide: int) -> Iterator[str]:
    from osvdeploy.cli.tables import folded

    if found.deeds is None:
        yield "calls: they follow from how the rollout under way ends"
        return
    count = sum(len(deed.calls) for deed in found.deeds)
    if not count:
        yield "calls that change the cloud: none"
        return
    yield f"calls that change the cloud: {count}, beside publishing and the ledger's own documents"
    stage: object = ()
    for deed in found.deeds:
        if deed.stage is not stage:
            stage = deed.stage
            yield f"  {'before and after' if deed.stage is None else deed.stage}:"
        for call in deed.calls:
            yield "    " + folded(f"{call.operation}  {call.resource}", 6, wide)


def _machines(found: Plan, wide: int) -> Iterator[str]:
    from osvdeploy.cli.tables import table

    capacity, prices = found.capacity, found.prices
    if capacity is not None:
        when: list[tuple[str, Mapping[str, int]]] = [("now", capacity.now), ("at most", capacity.most)]
        when.append(("after", capacity.after))
        if capacity.lasting != capacity.after:
            when.append(("once nothing is warm", capacity.lasting))
        rows = []
        for name, machines in when:
            told = ", ".join(f"{count} {kind}" for kind, count in sorted(machines.items()) if count) or "none"
            cpus = capacity.cpus_of(machines)
            row = [name, "?" if cpus is None else str(cpus)]
            if prices is not None:
                hourly = prices.hourly(machines)
                row.append("?" if hourly is None else f"{amount(hourly)} {prices.currency}")
            rows.append([*row, told])
        heading = ["", "vCPUs", *(["PER HOUR"] if prices is not None else []), "MACHINES"]
        yield table(heading, rows, fold=wide)
    if not found.quotas:
        yield "quotas: not known" + ("" if found.quotas is None else ", osvdeploy asks for none of this machine type")
    else:
        yield "quotas: " + ", ".join(f"{each.name} {each.used:g} of {each.limit:g} used" for each in found.quotas)


def _time(estimate: Estimate) -> Iterator[str]:
    runs = max((each.runs for each in estimate.legs), default=0)
    low, high = format_duration(estimate.low), format_duration(estimate.high)
    span = f"{low} to {high}"
    without = "without building, publishing, and people's time"
    if estimate.usual is None:
        missing = [each.leg.stage.value for each in estimate.legs if each.usual is None]
        what = (
            "no deploy of it has succeeded yet"
            if not runs
            else f"nothing is known of {', '.join(dict.fromkeys(missing))}"
        )
        yield f"time: {span}, {without}: {what}, so by what is waited for and where it is given up"
        return
    usual = format_duration(estimate.usual)
    told = usual if low == high else f"{usual} ({span})"
    yield f"time: {told}, {without}: by {runs} earlier deploy{'s' * (runs != 1)}"
