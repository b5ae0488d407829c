"""A rollout under way on a terminal, as lines that are drawn anew: way, slots, gates, what is waited for.

Plain text of a given width, so that it is the same without colour, and a test can read it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from osvdeploy.events import GateJudged, RolloutSeen, SlotSeen
from osvdeploy.sizes import format_duration
from osvdeploy.visible import visible

_SECOND = timedelta(seconds=1)
_BAR, _LEAST_BAR = 20, 5
_MOST_GATES = 6
_BEFORE = ("prepare", "boot", "verify")
_BACK = ("revert", "clean-up")


@dataclass(slots=True)
class Board:
    """What is known of a rollout. ``seen`` is the last look; ``waiting`` is what is waited for, in words, ``last``
    what was seen of it."""

    seen: RolloutSeen
    waiting: str = ""
    last: str = ""
    until: datetime | None = None

    def look(self, seen: RolloutSeen) -> None:
        """Take a new look in. What it did not look at stays as it was seen last, and undecided gates stay."""
        if seen.run == self.seen.run:
            before = {slot.slot: slot for slot in self.seen.slots}
            decided = {gate.gate for gate in seen.gates}
            undecided = tuple(each for each in self.seen.gates if each.passed is None and each.gate not in decided)
            slots = tuple(_with(slot, before.get(slot.slot)) for slot in seen.slots)
            seen = replace(seen, slots=slots, gates=(*seen.gates, *undecided))
        self.seen = seen

    def entered(self, stage: str, now: datetime) -> None:
        """A new stage, of which the next look will tell more."""
        self.seen = replace(self.seen, way=(*self.seen.way, stage), entered=now)
        self.wait("", "", None)

    def wait(self, what: str, seen: str, until: datetime | None) -> None:
        """What is waited for from now on."""
        self.waiting, self.until = _line(what), until
        self.last = "" if seen in what else _line(seen)

    def judged(self, gate: GateJudged) -> None:
        """A gate's word."""
        others = tuple(each for each in self.seen.gates if each.gate != gate.gate)
        self.seen = replace(self.seen, gates=(*others, gate))

    def lines(self, width: int, now: datetime) -> list[str]:
        """The board, no line of it longer than ``width``."""
        took = _took(self.seen.began, now)
        lines = [_spread(self.seen.what, took, width), way(self.seen, now, width)]
        lines += _slots(self.seen.slots, width)
        lines += [_gate(gate) for gate in self.seen.gates[-_MOST_GATES:]]
        if self.waiting:
            what, _, last = self.waiting.partition("; last: ")
            # The time stays, whatever is cut.
            lines.append(_spread(f"waiting for {what}", until(self.until, now), width))
            if last or self.last:
                lines.append(f"last seen: {last or self.last}")
        return [_cut(line, width) for line in lines]


def way(seen: RolloutSeen, now: datetime, width: int) -> str:
    """The way of a rollout: what is behind it, where it is and for how long, what is before it."""
    stage = seen.way[-1]
    here = f"▸ {stage}"
    if stage in ("shift", "bake") and seen.shares:
        here = f"▸ {seen.shares[seen.share]} % {stage}"
    here += f" {_took(seen.entered, now)}"
    shifted = "shift" in seen.way
    passed = [f"✓ {each}" for each in _BEFORE if each in seen.way and each != stage]
    ahead = [f"· {each}" for each in _BEFORE if each not in seen.way]
    if stage in _BACK:
        went_back = "revert" in seen.way
        done = [f"✓ {share} %" for share in seen.shares[: seen.share + (not went_back)]] if shifted else []
        turned = ["✗ back"] if stage == "clean-up" and went_back else []
        return _fitted([*passed, *done, *turned], here, [], width)
    present = seen.share if shifted else -1
    done = [f"✓ {share} %" for share in seen.shares[: max(present, 0)]]
    coming = [f"· {share} %" for share in seen.shares[present + 1 :]]
    return _fitted([*passed, *done], here, [*ahead, *coming], width)


def _fitted(behind: Sequence[str], here: str, ahead: Sequence[str], width: int) -> str:
    """All on one line; what is furthest from here is left out first."""
    before, after = list(behind), list(ahead)
    left = right = ""
    while True:
        line = "  ".join(each for each in (left, *before, here, *after, right) if each)
        if len(line) <= width or not (before or after):
            return line
        if len(after) >= len(before):
            after.pop()
            right = "…"
        else:
            before.pop(0)
            left = "…"


def traffic(slots: Sequence[SlotSeen]) -> str:
    """Who has how much, on a line: for a log."""
    known = [slot for slot in slots if slot.weight is not None and slot.release is not None]
    return ", ".join(f"{slot.slot} {slot.weight} % {slot.release}" for slot in known)


def until(moment: datetime | None, now: datetime) -> str:
    """A moment that is waited for, and how long that is; "" for none, or one that is over."""
    if moment is None or moment <= now:
        return ""
    return f"until {moment.astimezone(UTC):%H:%M:%S} UTC, {_took(now, moment)}"


def _slots(slots: Sequence[SlotSeen], width: int) -> list[str]:
    names = max((len(slot.release or "-") for slot in slots), default=1)
    told = []
    for slot in slots:
        share = "-" if slot.weight is None else f"{slot.weight} %"
        machines = ""
        if slot.machines is not None:
            machines = f"{'?' if slot.healthy is None else slot.healthy}/{slot.machines} healthy"
        told.append(f"{share:>5}  {(slot.release or '-').ljust(names)}  {machines}".rstrip())
    # Long names take their room from the bars, so that the counts stay.
    bar = min([_BAR, *(width - len(line) - 8 for line in told)])
    return [
        f"{slot.slot:<5}  {_bar(slot.weight or 0, bar)} {line}" if bar >= _LEAST_BAR else f"{slot.slot:<5} {line}"
        for slot, line in zip(slots, told, strict=True)
    ]


def _bar(weight: int, width: int) -> str:
    filled = max(1, round(width * weight / 100)) if weight else 0
    return f"{'━' * filled}{'╌' * (width - filled)}"


def _gate(gate: GateJudged) -> str:
    sign = "…" if gate.passed is None else "✓" if gate.passed else "✗"
    return f"{sign} gate {gate.gate}: {_line(gate.seen)}"


def _with(slot: SlotSeen, before: SlotSeen | None) -> SlotSeen:
    if before is None or before.release != slot.release:
        return slot
    return replace(
        slot,
        weight=before.weight if slot.weight is None else slot.weight,
        healthy=before.healthy if slot.healthy is None else slot.healthy,
        machines=before.machines if slot.machines is None else slot.machines,
    )


def _line(text: str) -> str:
    """On one line, and with nothing in it that a terminal obeys: a guest's words may be there."""
    return visible(" ".join(text.split()))


def _took(since: datetime, now: datetime) -> str:
    return format_duration(max(0, int((now - since).total_seconds()))) if now - since >= _SECOND else "0s"


def _spread(left: str, right: str, width: int) -> str:
    """One at each edge; the left one is cut where both do not fit."""
    if not right:
        return left
    return f"{_cut(left, width - len(right) - 2).ljust(width - len(right))}{right}"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: max(width - 1, 0)]}…"
