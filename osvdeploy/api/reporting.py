"""What happened to a service, from its ledger alone: its events, and one rollout told whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING

from osvdeploy.api import wiring
from osvdeploy.api.declared import Service
from osvdeploy.context import Context
from osvdeploy.errors import UsageError

if TYPE_CHECKING:
    from osvdeploy.rollout.ledger import Head, Ledger
    from osvdeploy.rollout.logbook import Entry, Spell
    from osvdeploy.rollout.model import Run
    from osvdeploy.rollout.releases import Release

_LOOK_EVERY = 2.0


@dataclass(frozen=True, slots=True)
class Report:
    """One rollout, told whole.

    ``head`` is the last document about it, ``run`` is it as that document has it, ``release`` and ``before`` are what
    was rolled out and what served until then (None where the ledger has no document of it). ``entries`` is all that
    happened in its time, oldest first, ``spells`` who was at work on it. ``until`` is its end, or now while it is
    under way. ``told`` is its end in a sentence, or what it waits for.
    """

    service: Service
    head: Head
    run: Run
    release: Release | None
    before: Release | None
    entries: tuple[Entry, ...]
    spells: tuple[Spell, ...]
    until: datetime
    told: str


def report(ctx: Context, service: Service, run: str = "last") -> Report:
    """One rollout: by its id, by the release that it rolled out (the last time; an id or a version), or the last one.
    Reads the ledger alone.

    Raises :class:`~osvdeploy.errors.UsageError` where there is none.
    """
    from osvdeploy.rollout import logbook

    ledger = wiring.open_ledger(service)
    heads = _of_run(ctx, ledger, service, run)
    found = heads[-1].run
    assert found is not None
    own = _course(heads, found.id)
    entries = [each for each in logbook.entries(own) if each.run in (None, found.id)]
    entries += logbook.unheard(found, ledger.requests(ctx, found.id, len(found.heard)), own[-1].n)
    return Report(
        service=service,
        head=own[-1],
        run=found,
        release=ledger.release(ctx, found.candidate),
        before=ledger.release(ctx, found.stable) if found.stable is not None else None,
        entries=tuple(entries),
        spells=logbook.spells(own if own[0].n == 1 else own[1:]),
        until=found.ended or max(ctx.now(), found.entered),
        told=_told(own[-1], found, ctx.now()),
    )


def _told(head: Head, run: Run, now: datetime) -> str:
    from osvdeploy.rollout.ends import end_of

    if run.over:
        return end_of(head, run).told
    awaits = run.awaits(now)
    return f"{run.candidate} waits: {awaits}" if awaits else f"{run.candidate} is in stage {run.stage}"


def _of_run(ctx: Context, ledger: Ledger, service: Service, name: str) -> list[Head]:
    """The documents that have a run, oldest first; before them those of the process that began it, and one more."""
    from osvdeploy.rollout.ledger import MANY

    found: list[Head] = []
    wanted: str | None = None
    seen: dict[str, str] = {}
    for head in ledger.heads(ctx, width=MANY):
        run = head.run
        if wanted is None and run is not None:
            seen.setdefault(run.id, f"{run.id} ({run.kind} of {run.candidate})")
            version = run.candidate.removeprefix(f"{service.app}-").rpartition("-")[0]
            if name in ("last", run.id, run.candidate, version):
                wanted = run.id
        if wanted is None:
            continue
        begun_by = found[-1].lease if found else None
        found.append(head)
        if (run is None or run.id != wanted) and (head.lease is None or begun_by != head.lease):
            break
    if wanted is None:
        if not seen:
            wiring.head(ctx, service)  # says so, where it was never deployed
            raise UsageError(f"{service.name}: no rollout was ever begun")
        newest = "; ".join(list(seen.values())[:5])
        raise UsageError(
            f"{service.name}: no rollout {name!r}",
            hint=f"name one by its id or its release, or `last`; the newest: {newest}",
        )
    return found[::-1]


def _course(heads: list[Head], run: str) -> list[Head]:
    """Without what was written after the run's end, but for the end of that process' work."""
    overs = [head.run is not None and head.run.id == run and head.run.over for head in heads]
    ends = [place for place in range(1, len(heads)) if overs[place] and not overs[place - 1]]
    if not ends or not overs[-1]:
        return heads
    last = ends[-1]
    for following in heads[last + 1 :]:
        if heads[last].lease is None or following.lease not in (None, heads[last].lease):
            break
        last += 1
    return heads[: last + 1]


def events(
    ctx: Context,
    service: Service,
    *,
    limit: int | None = None,
    since: datetime | None = None,
    run: str | None = None,
    people: bool = False,
) -> list[Entry]:
    """What happened to a service, oldest first: the newest ``limit`` things, those since a time, those of one run (as
    :func:`report` names it). ``people``: decisions and what came of them alone. Reads the ledger alone.

    Raises :class:`~osvdeploy.errors.UsageError` for a service that was never deployed, or a run that is not there.
    """
    from osvdeploy.rollout import logbook
    from osvdeploy.rollout.ledger import MANY

    if run is not None:
        told = report(ctx, service, run)
        entries = [each for each in told.entries if each.run in (None, told.run.id)]
        entries = [each for each in entries if since is None or each.at >= since]
        chosen = [each for each in entries if each.kind.by_people or not people]
        return chosen[-limit:] if limit is not None else chosen
    newest = wiring.head(ctx, service)
    ledger = wiring.open_ledger(service)
    found: list[Entry] = []
    if newest.run is not None:
        asked = ledger.requests(ctx, newest.run.id, len(newest.run.heard))
        found = list(logbook.unheard(newest.run, asked, newest.n))[::-1]
    for before, after in _pairs(ledger.heads(ctx, width=MANY)):
        if since is not None and after.written < since:
            break
        if before is not None or after.n == 1:
            between = [each for each in logbook.between(before, after) if each.kind.by_people or not people]
            found += reversed(between)
        if limit is not None and len(found) >= limit:
            break
    found = [each for each in found[:limit] if since is None or each.at >= since]
    return found[::-1]


def _pairs(heads: Iterator[Head]) -> Iterator[tuple[Head | None, Head]]:
    """Each head, newest first, with the one before it."""
    after = next(heads, None)
    for before in heads:
        assert after is not None
        yield before, after
        after = before
    if after is not None:
        yield None, after


def follow(ctx: Context, service: Service, after: Entry | None, *, run: str | None = None) -> Iterator[Entry]:
    """What happens to a service from now on, as it happens, after ``after``: until the context is cancelled, or, where
    a run is named by its id, until that run is over."""
    from osvdeploy.rollout import logbook

    ledger = wiring.open_ledger(service)
    before = wiring.head(ctx, service)
    known = after.id if after is not None else (before.n, 1000)
    fresh = ledger.since(ctx, known[0])
    while True:
        for head, following in pairwise(fresh):
            for entry in logbook.between(head, following):
                if entry.id > known and (run is None or entry.run in (None, run)):
                    yield entry
        last = fresh[-1]
        if run is not None and (last.run is None or last.run.id != run or last.run.over):
            return
        known = max(known, (last.n, 1000))
        ctx.sleep(_LOOK_EVERY)
        fresh = ledger.since(ctx, last.n)
