"""report, events, audit: what happened, from the ledger alone."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from osvdeploy.cli.options import ServiceChoice, service_options
from osvdeploy.cli.output import Result, command, tell
from osvdeploy.context import Context
from osvdeploy.events import Note

if TYPE_CHECKING:
    from osvdeploy.api import Report
    from osvdeploy.rollout.logbook import Entry


@click.command(short_help="A rollout as one HTML file.")
@click.argument("run")
@service_options
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help='Where to write it; left out: APP-ENV-RUN.html here. "-" is standard output.',
)
@command
def report(ctx: Context, choice: ServiceChoice, run: str, output: str | None) -> Result:
    """Tell a rollout whole, in one HTML file that needs nothing else: its stages and shares of traffic over time,
    gates, who asked and approved what, what a failing release left behind, and all that happened. Reads the ledger
    alone.

    RUN is a run's id, a release or version (the last time it was rolled out), or `last`, which may be left out before
    APP/ENV. Prints the file's path; with
    --json a document of the same, and a file only where -o names one.
    Example: osvdeploy report last hello/production -o report.html
    """
    from osvdeploy import api
    from osvdeploy.errors import UsageError
    from osvdeploy.report import page

    if choice.name is None and "/" in run:
        # No run and no release has a slash in its name: that is the service, and its last rollout is meant.
        choice, run = replace(choice, name=run), "last"
    as_json = bool(click.get_current_context().params["as_json"])
    if output == "-" and as_json:
        raise UsageError("--json and the page cannot both go to standard output", hint="name a file with -o")
    found = api.report(ctx, choice.service(), run)
    if output == "-":
        return Result(page(found).rstrip("\n"))
    path = Path(output) if output else Path(f"{found.service.app}-{found.service.environment}-{found.run.id}.html")
    if output or not as_json:
        _put(ctx, path, page(found))
    return Result(str(path), {**report_document(found), "file": path if output else None})


def _put(ctx: Context, path: Path, content: str) -> None:
    from osvdeploy.build.files import replace_file
    from osvdeploy.errors import UsageError

    try:
        replace_file(path, content.encode(), nonce=ctx.nonce(), durable=False)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}", hint="name another file with -o") from None


def report_document(found: Report) -> dict[str, Any]:
    from osvdeploy.cli.rollouts import release_document, run_document
    from osvdeploy.rollout.logbook import name_of

    return {
        "service": found.service.name,
        "ledger": found.service.ledger,
        "told": found.told,
        "run": run_document(found.run),
        "release": None if found.release is None else release_document(found.release),
        "before": None if found.before is None else release_document(found.before),
        "at_work": [
            {
                "by": name_of(spell.holder),
                "process": spell.holder.pid,
                "from": spell.begun,
                "to": spell.ended,
                "given_back": spell.given_back,
            }
            for spell in found.spells
        ],
        "events": [entry_document(entry) for entry in found.entries],
    }


def entry_document(entry: Entry) -> dict[str, Any]:
    return {
        "id": f"{entry.id[0]}.{entry.id[1]}",
        "at": entry.at,
        "event": entry.kind,
        "by": entry.who,
        "told": entry.told,
        "run": entry.run,
        "release": entry.release,
    }


_AGO = re.compile(r"[0-9.]+[a-z]+")


class _Since(click.ParamType[datetime]):
    """A time, or how long ago."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        from osvdeploy.sizes import parse_duration

        try:
            if _AGO.fullmatch(value):
                return datetime.now(UTC) - timedelta(seconds=parse_duration(value))
            found = datetime.fromisoformat(value)
        except (ValueError, OverflowError) as error:
            told = str(error) if _AGO.fullmatch(value) else f"{value!r} is no time"
            self.fail(f"{told}; write 2030-01-31, 2030-01-31T12:30, or how long ago, as in 2h", param, ctx)
        return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


_since = click.option("--since", type=_Since(), metavar="TIME", help="From a time on (UTC), or how long ago: 90m, 7d.")
_run = click.option("--run", metavar="RUN", help="Of one rollout: its id, its release, or `last`.")
_limit = click.option(
    "--limit", type=click.IntRange(1), metavar="N", help="The newest N; left out: 100, or all with --since or --run."
)


@click.command(short_help="What happened to a service, and who did it.")
@service_options
@_since
@_run
@_limit
@click.option("--follow", is_flag=True, help="Go on telling as it happens; with --run until that rollout is over.")
@command
def events(
    ctx: Context,
    choice: ServiceChoice,
    since: datetime | None,
    run: str | None,
    limit: int | None,
    follow: bool,
) -> Result:
    """List what happened to a service, newest last: who took the lease, rollouts with their stages, shares and gates,
    requests, holds, pins. Reads the ledger alone.

    With --json one document; with --follow too, a document for each event, on a line of its own.
    Example: osvdeploy events hello/production --since 2h --follow
    """
    return _events(ctx, choice, since, run, limit, follow=follow)


@click.command(short_help="Who changed what.")
@service_options
@_since
@_run
@_limit
@command
def audit(ctx: Context, choice: ServiceChoice, since: datetime | None, run: str | None, limit: int | None) -> Result:
    """List who decided what about a service, newest last: rollouts and how they ended, requests, holds, pins, what
    served, and every process that took the lease, as user@host. It is `osvdeploy events` without a rollout's own
    course.

    Names are what those machines said of themselves: the ledger's store decides who may write.
    Example: osvdeploy audit hello/production --since 7d
    """
    return _events(ctx, choice, since, run, limit, people=True)


_MOST = 100


def _events(
    ctx: Context,
    choice: ServiceChoice,
    since: datetime | None,
    run: str | None,
    limit: int | None,
    *,
    people: bool = False,
    follow: bool = False,
) -> Result:
    from osvdeploy import api
    from osvdeploy.cli.tables import folded, table, width

    service = choice.service()
    if limit is None and since is None and run is None:
        limit = _MOST
    found = api.events(ctx, service, limit=limit, since=since, run=run, people=people)
    if follow:
        return _follow(ctx, service, found, run)
    if limit == _MOST and len(found) == limit:
        ctx.report(Note(f"the newest {limit}; --limit or --since tells more"))
    heading = ("TIME (UTC)", "WHO", "WHAT")
    rows = [(_time(entry), entry.who, _told(entry)) for entry in found]
    if sys.stdout.isatty() and width() < 100:
        # Three columns would leave the last one too narrow to be read.
        text = "\n".join(f"{time}  {who}\n  {folded(told, 2, width())}" for time, who, told in rows)
    else:
        text = table(heading, rows, fold=width() if sys.stdout.isatty() else None)
    if not found:
        text = f"{service.name}: nothing happened" + (" in that time" if since is not None else "")
    return Result(text, {"service": service.name, "events": [entry_document(entry) for entry in found]})


def _follow(ctx: Context, service: Any, found: list[Entry], run: str | None) -> Result:
    from osvdeploy import api
    from osvdeploy.errors import Interrupted

    for entry in found:
        tell(_line(entry), entry_document(entry))
    named = next((entry.run for entry in found if entry.run is not None), None) if run is not None else None
    try:
        for entry in api.follow(ctx, service, found[-1] if found else None, run=named):
            tell(_line(entry), entry_document(entry))
    except Interrupted:
        # That is how one stops listening.
        return Result("", None, 130)
    return Result("", None)


def _line(entry: Entry) -> str:
    return f"{_time(entry)}  {entry.who}  {_told(entry)}"


def _time(entry: Entry) -> str:
    return f"{entry.at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def _told(entry: Entry) -> str:
    from osvdeploy.rollout.logbook import EntryKind
    from osvdeploy.visible import visible

    # What an event of another kind is, its own words tell. A guest's words may be among them.
    prefix = {EntryKind.GATE: "gate ", EntryKind.STAGE: "stage ", EntryKind.REQUEST: "asked: "}.get(entry.kind, "")
    return f"{prefix}{visible(' '.join(entry.told.split()))}"
