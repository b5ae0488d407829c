"""cache: what builds keep on this machine, and room again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from osvdeploy.cli.options import duration_value, size_value
from osvdeploy.cli.output import Result, command
from osvdeploy.context import Context

if TYPE_CHECKING:
    from osvdeploy.build.prune import Entry, Removal


@click.group(short_help="What builds keep on this machine.")
def cache() -> None:
    """Look into the cache of builds, or make room: disks, kernels, packages, bytecode, what is known of files.

    All of it can be made or fetched again, but for kernels that were put there from a file. OSVDEPLOY_CACHE names its
    directory; docs/cache.md tells what is in it.

    \b
    Example:
        osvdeploy cache show
        osvdeploy cache prune --dry-run
    """


@cache.command(short_help="What is in the cache, and how large it is.")
@click.option("--entries", is_flag=True, help="Each entry, the last used first.")
@command
def show(ctx: Context, entries: bool) -> Result:
    """Show how much of what is in the cache, and when it was used last.

    Sizes are what is taken on the disk; holes of a disk take nothing. Example: osvdeploy cache show --entries
    """
    from osvdeploy import api
    from osvdeploy.build.prune import Kind
    from osvdeploy.cli.tables import table
    from osvdeploy.sizes import format_size

    found = api.cache_contents(ctx)
    kinds = {kind: [entry for entry in found.entries if entry.kind is kind] for kind in Kind}
    kinds = {kind: held for kind, held in kinds.items() if held}
    if entries:
        ordered = sorted(found.entries, key=lambda entry: entry.used, reverse=True)
        text = table(
            ("KIND", "NAME", "SIZE", "LAST USED (UTC)", ""),
            [(each.kind, _named(each), format_size(each.size), _day(each.used), _state(each)) for each in ordered],
        )
    else:
        rows = [
            (
                kind,
                str(sum(entry.files is None for entry in held)),
                format_size(sum(entry.size for entry in held)),
                _day(max(entry.used for entry in held)),
                _day(min(entry.used for entry in held)),
            )
            for kind, held in kinds.items()
        ]
        text = table(("KIND", "ENTRIES", "SIZE", "LAST USED (UTC)", "LONGEST UNUSED SINCE (UTC)"), rows)
    total = f"{format_size(found.size)} in {found.directory}"
    return Result(
        f"{text}\n\n{total}" if found.entries else f"nothing is in {found.directory}",
        {
            "directory": found.directory,
            "size": found.size,
            "kinds": [
                {
                    "kind": kind,
                    "entries": sum(entry.files is None for entry in held),
                    "size": sum(entry.size for entry in held),
                }
                for kind, held in kinds.items()
            ],
            "entries": [_document(entry) for entry in found.entries],
        },
    )


@cache.command(short_help="Remove what was not used for long.")
@click.option(
    "--older",
    metavar="TIME",
    callback=duration_value,
    help="Remove what was not used for so long, as in 7d.  [default: 30d; with --max-size no limit]",
)
@click.option(
    "--max-size",
    "most",
    metavar="SIZE",
    callback=size_value,
    help="Then remove what was used longest ago, until no more than this is left, as in 5GiB.",
)
@click.option("--kernels", "by_hand", is_flag=True, help="Kernels too that nothing could fetch again.")
@click.option("--dry-run", is_flag=True, help="Say what would go, and remove nothing.")
@command
def prune(ctx: Context, older: float | None, most: int | None, by_hand: bool, dry_run: bool) -> Result:
    """Make room in the cache. What a build or a run uses now stays, and so do kernels that were put there from a file
    (`kernel add FILE`) or are no longer at the address they came from.

    Example: osvdeploy cache prune --max-size 5GiB --dry-run
    """
    from osvdeploy import api
    from osvdeploy.sizes import format_size

    done = api.prune_cache(ctx, older=older, most=most, by_hand=by_hand, dry_run=dry_run)
    count = f"{len(done.removed)} {'entry' if len(done.removed) == 1 else 'entries'}"
    lines = [
        f"{count} {'would go' if dry_run else 'gone'}, {format_size(done.freed)}; "
        f"{format_size(done.left)} left in {done.directory}"
    ]
    if dry_run:
        # Done for good, each is told as it goes.
        lines += [f"  {_line(removal)}" for removal in done.removed]
    lines += [f"  kept: {_line(removal)}; {removal.kept}" for removal in done.kept]
    return Result(
        "\n".join(lines),
        {
            "directory": done.directory,
            "dry_run": dry_run,
            "removed": [{**_document(each.entry), "why": each.why} for each in done.removed],
            "kept": [{**_document(each.entry), "why": each.why, "because": each.kept} for each in done.kept],
            "freed": done.freed,
            "left": done.left,
        },
    )


def _line(removal: Removal) -> str:
    from osvdeploy.sizes import format_size

    entry = removal.entry
    return f"{entry.kind}/{_named(entry)} ({format_size(entry.size)}): {removal.why}"


def _named(entry: Entry) -> str:
    return entry.name if entry.files is None else f"{entry.name} ({len(entry.files)} files of it)"


def _state(entry: Entry) -> str:
    return "in use" if entry.busy else "by hand" if entry.by_hand else ""


def _day(seconds: float) -> str:
    return f"{_time(seconds):%Y-%m-%d %H:%M}"


def _time(seconds: float) -> datetime:
    # A file's time may be any.
    return datetime.fromtimestamp(min(max(seconds, 0.0), 253_402_300_799.0), UTC)


def _document(entry: Entry) -> dict[str, Any]:
    return {
        "kind": entry.kind,
        "name": entry.name,
        "path": entry.path,
        "size": entry.size,
        "used": _time(entry.used),
        "busy": entry.busy,
        "by_hand": entry.by_hand,
        "files": None if entry.files is None else len(entry.files),
    }
