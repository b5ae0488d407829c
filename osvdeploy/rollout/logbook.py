"""What the ledger's documents tell one after the other: who did what to a service, and when. Pure.

A head is whole in itself, so what happened between two of them is what differs. Nothing is read out of ``why``, which
is for people, but where nothing else differs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from osvdeploy.cloud.interfaces import ReleaseId
from osvdeploy.context import ProcessIdentity
from osvdeploy.rollout.ledger import WRITTEN_AGAIN, Head, Hold
from osvdeploy.rollout.model import GateRecord, HookRecord, Kind, Outcome, Request, Run, Stage
from osvdeploy.rollout.news import MOST_OWED

_ROUTINE = ("lease renewed", "lease given back", WRITTEN_AGAIN)


class EntryKind(StrEnum):
    """What sort of thing happened."""

    LEASE = "lease"
    LEASE_BACK = "lease-given-back"
    BEGUN = "begun"
    REQUEST = "request"
    GATE = "gate"
    HOOK = "hook"
    STAGE = "stage"
    TRAFFIC = "traffic"
    PAUSED = "paused"
    EVIDENCE = "evidence"
    SERVES = "serves"
    SLOT = "slot"
    ENDED = "ended"
    HOLD = "hold"
    UNHOLD = "unhold"
    PIN = "pin"
    UNPIN = "unpin"
    NOTICE = "notice"
    DESTROYED = "destroyed"
    OTHER = "other"

    @property
    def by_people(self) -> bool:
        """Somebody's decision, or what came of one: what an audit asks for. The rest is a rollout's own course."""
        return self not in _COURSE


_COURSE = frozenset(
    {
        EntryKind.LEASE_BACK,
        EntryKind.GATE,
        EntryKind.HOOK,
        EntryKind.STAGE,
        EntryKind.TRAFFIC,
        EntryKind.PAUSED,
        EntryKind.EVIDENCE,
        EntryKind.SLOT,
        EntryKind.NOTICE,
    }
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened. ``id`` is the number of the document that tells it, and its place in it: later ones
    sort later. ``who`` is user@host of whoever did it or was at work; ``run`` and ``release`` are those it is about."""

    id: tuple[int, int]
    at: datetime
    kind: EntryKind
    who: str
    told: str
    run: str | None = None
    release: ReleaseId | None = None


@dataclass(frozen=True, slots=True)
class Spell:
    """A time in which one process held the lease, by the documents that it wrote. ``given_back``: it ended in order."""

    holder: ProcessIdentity
    begun: datetime
    ended: datetime
    given_back: bool


def name_of(process: ProcessIdentity) -> str:
    """user@host, as requests and runs name people."""
    return f"{process.user or 'somebody'}@{process.host}"


def entries(heads: Iterable[Head]) -> Iterator[Entry]:
    """What a service's heads tell, oldest first. The first of them must be the service's first, or is taken for what
    was there before."""
    before: Head | None = None
    for head in heads:
        if before is not None or head.n == 1:
            yield from between(before, head)
        before = head


def spells(heads: Sequence[Head]) -> tuple[Spell, ...]:
    """Who was at work, by heads that follow each other, oldest first."""
    found: list[Spell] = []
    before: Head | None = None
    for head in heads:
        held = before.lease if before is not None else None
        if head.lease is not None and (held is None or held.holder != head.lease.holder):
            found.append(Spell(head.lease.holder, head.written, head.written, False))
        elif found and held is not None:
            found[-1] = Spell(held.holder, found[-1].begun, head.written, head.lease is None)
        before = head
    return tuple(found)


def between(before: Head | None, after: Head) -> tuple[Entry, ...]:
    """What happened between two heads that follow each other; ``before`` None: between nothing and the first."""
    found = [
        *_lease(before, after),
        *_run(before, after),
        *_serving(before, after),
        *_kept(before, after),
        *_delivered(before, after),
    ]
    if after.destroyed and (before is None or not before.destroyed):
        found.append(_Told(after.written, EntryKind.DESTROYED, "the service is destroyed; its history stays"))
    if not found and not _routine(before, after):
        found.append(_Told(after.written, EntryKind.OTHER, after.why))
    lease = after.lease or (before.lease if before is not None else None)
    worker = name_of(lease.holder) if lease is not None else ""
    return tuple(
        Entry((after.n, place), each.at, each.kind, each.who or worker, each.told, each.run, each.release)
        for place, each in enumerate(found)
    )


def _routine(before: Head | None, after: Head) -> bool:
    """A renewal, or a step of a run that keeps what only its next step needs."""
    run, had = after.run, before.run if before is not None else None
    step = run is not None and run != had and after.why == f"{run.kind} {run.candidate}: {run.stage}"
    return after.why in _ROUTINE or step


def unheard(run: Run, requests: Sequence[Request], after: int) -> tuple[Entry, ...]:
    """What was asked of a run and is in no head: nobody has read it yet, or the run was over before. ``after`` is the
    newest head's number."""
    came = "the run was over before it was heard" if run.over else "nobody has heard it yet"
    return tuple(
        Entry(
            (after, 1000 + place),
            each.at,
            EntryKind.REQUEST,
            each.by,
            f"{_asked(each)}: {came}",
            run.id,
            run.candidate,
        )
        for place, each in enumerate(requests)
    )


@dataclass(frozen=True, slots=True)
class _Told:
    at: datetime
    kind: EntryKind
    told: str
    who: str = ""
    run: str | None = None
    release: ReleaseId | None = None


def _lease(before: Head | None, after: Head) -> Iterator[_Told]:
    had = before.lease if before is not None else None
    if after.lease is None:
        if had is not None:
            yield _Told(after.written, EntryKind.LEASE_BACK, f"process {had.holder.pid} is done")
        return
    if had is not None and had.holder == after.lease.holder:
        return
    told = f"process {after.lease.holder.pid} begins: {after.why}"
    if had is not None and before is not None:
        told += (
            f"; process {had.holder.pid} of {name_of(had.holder)}, last heard of at {before.written:%H:%M:%S}, "
            "never gave the lease back"
        )
    yield _Told(after.written, EntryKind.LEASE, told)


def _run(before: Head | None, after: Head) -> Iterator[_Told]:
    run, had = after.run, before.run if before is not None else None
    if run is None or run == had:
        return
    if had is None or had.id != run.id:
        yield _Told(run.started, EntryKind.BEGUN, _begins(run), run.by, run.id, run.candidate)
        return
    for at, kind, told, who in _course(had, run, after):
        yield _Told(at, kind, told, who, run.id, run.candidate)


def _begins(run: Run) -> str:
    over = f" over {run.stable}" if run.stable is not None else ", the first release"
    if run.kind is Kind.ADOPT:
        return f"{run.group} is adopted as {run.candidate}: slot {run.slot}, {run.capacity} machines"
    shares = ", ".join(f"{step.weight} %" for step in run.steps)
    warm = ", whose machines stand" if run.warm else ""
    return f"{run.kind} of {run.candidate}{warm}{over}: slot {run.slot}, {run.capacity} machines, by {shares}"


def _course(had: Run, run: Run, after: Head) -> Iterator[tuple[datetime, EntryKind, str, str]]:
    """What a run came by between two heads, in the order of its causes."""
    for heard in run.heard[len(had.heard) :]:
        yield heard.at, EntryKind.REQUEST, f"{_asked(heard.request)}: {heard.told}", heard.request.by
    asked = any(heard.request.kind.value == "abort" for heard in run.heard)
    if run.abort is not None and had.abort is None and not asked:
        yield after.written, EntryKind.OTHER, f"{run.candidate} is given up: {run.abort}", ""
    if run.capacity != had.capacity:
        yield after.written, EntryKind.OTHER, f"{run.capacity} machines instead of {had.capacity}", ""
    if run.scaling != had.scaling:
        yield after.written, EntryKind.OTHER, f"{run.stable} keeps its size while traffic moves", ""
    passed, gates = run.stages[len(had.stages) :], list(run.gates[len(had.gates) :])
    for came in run.hooks[len(had.hooks) :]:
        yield came.at, EntryKind.HOOK, _hook(came), ""
    for number, record in enumerate(passed):
        # A gate is what lets its stage be left.
        for gate in [each for each in gates if each.stage is record.stage]:
            gates.remove(gate)
            yield gate.at, EntryKind.GATE, _gate(gate), ""
        entered = passed[number + 1].stage if number + 1 < len(passed) else run.stage
        if entered is not Stage.DONE:
            yield record.left, EntryKind.STAGE, f"{entered}: {record.why}", ""
    for gate in gates:
        yield gate.at, EntryKind.GATE, _gate(gate), ""
    if run.calling is not None and run.calling != had.calling:
        again = f", attempt {run.calling.attempt}" if run.calling.attempt > 1 else ""
        yield run.calling.since, EntryKind.HOOK, f"{run.calling.hook} ({run.calling.stage}) is asked{again}", ""
    for move in run.moves[len(had.moves) :]:
        told = f"{move.weight} % of the traffic to {run.candidate}"
        if move.weight == 0:
            told = f"all traffic back {f'to {run.stable}' if run.stable is not None else 'where it was'}"
        yield move.at, EntryKind.TRAFFIC, told, ""
    if run.awaited and run.awaited != had.awaited and run.paused is None:
        yield after.written, EntryKind.PAUSED, f"waits: {run.awaited}", ""
    if (
        run.paused is not None
        and run.paused != had.paused
        and not any(heard.at == run.paused.at and heard.request.by == run.paused.by for heard in run.heard)
    ):
        yield run.paused.at, EntryKind.PAUSED, f"paused: {run.paused.why}", run.paused.by
    if run.evidence and run.evidence != had.evidence:
        kept = ", ".join(each.source for each in run.evidence)
        yield after.written, EntryKind.EVIDENCE, f"kept: {kept}", ""
    if run.scaled and not had.scaled and run.scaling is not None:
        yield after.written, EntryKind.OTHER, f"scaled again by {', '.join(run.scaling.parts)}", ""
    if run.over and not had.over and run.verdict is not None:
        yield run.ended or after.written, EntryKind.ENDED, _ended(run, run.verdict), ""


def _asked(request: Request) -> str:
    return f"{request.kind} ({request.why})" if request.why else str(request.kind)


def _gate(gate: GateRecord) -> str:
    if gate.answer is None:
        return f"{gate.gate} {gate.seen}"
    return f"{gate.gate} {'passed' if gate.passed else 'failed'}: {gate.seen}"


def _hook(record: HookRecord) -> str:
    came = "passed" if record.passed else "failed, which decides nothing" if record.warned else "failed"
    return f"{record.hook} ({record.stage}) {came}: {record.told}"


def _ended(run: Run, verdict: Outcome) -> str:
    told = f"{run.kind} of {run.candidate}: {verdict}"
    return told if verdict is Outcome.SUCCEEDED or not run.reason else f"{told}: {run.reason}"


def _serving(before: Head | None, after: Head) -> Iterator[_Told]:
    now, was = after.stable, before.stable if before is not None else None
    if now is not None and (was is None or was.release != now.release):
        run = after.run if after.run is not None and after.run.candidate == now.release else None
        instead = f" instead of {was.release}" if was is not None else ""
        told = f"{now.release} serves{instead}"
        yield _Told(now.since, EntryKind.SERVES, told, run=run.id if run else None, release=now.release)
    if before is None or after.destroyed:
        return
    for slot, record in sorted(before.slots.items()):
        there = after.slots.get(slot)
        if there is None or there.group != record.group:
            told = f"{record.release} leaves slot {slot}"
            yield _Told(after.written, EntryKind.SLOT, told, release=record.release)


def _kept(before: Head | None, after: Head) -> Iterator[_Told]:
    """Holds and pins."""
    held, had = after.holds, before.holds if before is not None else ()
    gone = {hold.release for hold in had} - {hold.release for hold in held}
    for hold in held:
        if hold not in had:
            told = f"{_what(hold)} is held: {hold.why}"
            yield _Told(hold.at, EntryKind.HOLD, told, release=hold.release)
    for hold in had:
        if hold.release in gone and not after.destroyed:
            yield _Told(after.written, EntryKind.UNHOLD, f"{_what(hold)} is held no more", release=hold.release)
    pins, pinned = set(after.pins), set(before.pins if before is not None else ())
    for release in sorted(pins - pinned):
        yield _Told(after.written, EntryKind.PIN, f"{release} is pinned", release=release)
    for release in sorted(pinned - pins):
        yield _Told(after.written, EntryKind.UNPIN, f"{release} is pinned no more", release=release)


def _what(hold: Hold) -> str:
    return hold.release or "every release"


def _delivered(before: Head | None, after: Head) -> Iterator[_Told]:
    """What others were told, or will not be."""
    still = {notice.key for notice in after.notices}
    for notice in before.notices if before is not None else ():
        if notice.key in still:
            continue
        lost = notice.given_up(after.written) or len(after.notices) >= MOST_OWED
        told = f"{notice.target} was told: {notice.news.notice}"
        if lost:
            told = f"{notice.target} was never told: {notice.news.notice}: {notice.error or 'nobody tried'}"
        yield _Told(after.written, EntryKind.NOTICE, told, run=notice.news.run, release=notice.news.candidate)
