"""A rollout on a terminal: where it is, who has the traffic, what it waits for and until when, at any width."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from osvdeploy.cli.board import Board, traffic, until
from osvdeploy.cli.output import LineReporter, TerminalReporter
from osvdeploy.context import VirtualClock
from osvdeploy.events import Event, GateJudged, RolloutSeen, SlotSeen, StageEntered, Waiting
from tests.cli.test_reporters import Terminal
from tests.rollout.made import NOW

BLUE = SlotSeen("blue", "hello-1.0.0-20e576b5", 50)
GREEN = SlotSeen("green", "hello-1.1.0-f239d60f", 50, 2, 2)
SEEN = RolloutSeen(
    run="run-1",
    what="deploy of hello-1.1.0-f239d60f",
    began=NOW,
    entered=NOW + timedelta(seconds=200),
    way=("prepare", "boot", "verify", "shift", "bake", "shift", "bake"),
    shares=(5, 50, 100),
    share=1,
    slots=(BLUE, GREEN),
    gates=(GateJudged("healthy targets", True, "2 of 2 healthy for 10s"),),
)


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def board(seen: RolloutSeen = SEEN) -> Board:
    made = Board(seen)
    made.wait("the end of 5m of baking", "200 from hello-1.1.0", at(500))
    return made


def test_a_board_tells_where_a_rollout_is() -> None:
    """Its way, both slots, gates, what is waited for and until when."""
    assert board().lines(78, at(230)) == [
        "deploy of hello-1.1.0-f239d60f                                          3m 50s",
        "✓ prepare  ✓ boot  ✓ verify  ✓ 5 %  ▸ 50 % bake 30s  · 100 %",
        "blue   ━━━━━━━━━━╌╌╌╌╌╌╌╌╌╌  50 %  hello-1.0.0-20e576b5",
        "green  ━━━━━━━━━━╌╌╌╌╌╌╌╌╌╌  50 %  hello-1.1.0-f239d60f  2/2 healthy",
        "✓ gate healthy targets: 2 of 2 healthy for 10s",
        "waiting for the end of 5m of baking                 until 00:08:20 UTC, 4m 30s",
        "last seen: 200 from hello-1.1.0",
    ]


@pytest.mark.parametrize(
    ("way", "share", "told"),
    [
        (("prepare",), 0, "▸ prepare 30s  · boot  · verify  · 5 %  · 50 %  · 100 %"),
        (("prepare", "boot"), 0, "✓ prepare  ▸ boot 30s  · verify  · 5 %  · 50 %  · 100 %"),
        (SEEN.way[:4], 0, "✓ prepare  ✓ boot  ✓ verify  ▸ 5 % shift 30s  · 50 %  · 100 %"),
        ((*SEEN.way, "revert"), 1, "✓ prepare  ✓ boot  ✓ verify  ✓ 5 %  ▸ revert 30s"),
        ((*SEEN.way, "revert", "clean-up"), 1, "✓ prepare  ✓ boot  ✓ verify  ✓ 5 %  ✗ back  ▸ clean-up 30s"),
        (("prepare", "boot", "clean-up"), 0, "✓ prepare  ✓ boot  ▸ clean-up 30s"),
        ((*SEEN.way, "clean-up"), 2, "✓ prepare  ✓ boot  ✓ verify  ✓ 5 %  ✓ 50 %  ✓ 100 %  ▸ clean-up 30s"),
    ],
)
def test_the_way_is_what_is_behind_and_what_comes(way: tuple[str, ...], share: int, told: str) -> None:
    """There and back."""
    assert board(replace(SEEN, way=way, share=share)).lines(78, at(230))[1] == told


@pytest.mark.parametrize("width", [20, 40, 60, 78, 118])
@pytest.mark.parametrize("shares", [(100,), (5, 50, 100), tuple(range(5, 101, 5))])
def test_no_line_is_wider_than_the_terminal(width: int, shares: tuple[int, ...]) -> None:
    """However many steps, long names and long words: where it is, shares and times stay as long as there is room."""
    seen = replace(SEEN, shares=shares, share=len(shares) // 2, gates=(GateJudged("x" * 90, False, "y\n" * 90),))
    made = board(seen)
    made.wait("w" * 200, "s" * 200, at(500))
    lines = made.lines(width, at(230))
    assert max(map(len, lines)) <= width and len(lines) == 7
    if width >= 40:
        assert f"▸ {shares[len(shares) // 2]} % bake 30s" in lines[1]
        assert lines[-2].endswith("until 00:08:20 UTC, 4m 30s")
    if width >= 60:
        assert "2/2 healthy" in lines[3]


def test_what_a_look_left_out_stays_as_it_was() -> None:
    """A stage that looks at no machine is no news of machines; another release in the slot is."""
    made = board()
    made.look(replace(SEEN, slots=(BLUE, replace(GREEN, weight=None, healthy=None))))
    assert made.seen.slots[1] == GREEN
    made.look(replace(SEEN, slots=(BLUE, SlotSeen("green", "hello-2", None))))
    assert made.seen.slots[1] == SlotSeen("green", "hello-2", None)


def test_a_gate_that_has_not_decided_is_shown_until_it_has() -> None:
    """With its samples so far; the next look does not take it away."""
    made = board()
    made.judged(GateJudged("errors", None, "3 of 1,200"))
    made.look(SEEN)
    assert "… gate errors: 3 of 1,200" in made.lines(78, at(230))
    made.judged(GateJudged("errors", True, "9 of 9,000"))
    assert "✓ gate errors: 9 of 9,000" in made.lines(78, at(230))
    assert not any("3 of 1,200" in line for line in made.lines(78, at(230)))


def test_no_word_of_a_guests_is_obeyed() -> None:
    """Neither on the board nor in the lines above it."""
    made = board(replace(SEEN, gates=(GateJudged("errors", False, "500: \x1b[2Jgone"),)))
    made.wait("answers; last: \x1b]0;title\x07", "\x9b31m", at(500))
    assert not any("\x1b" in line or "\x07" in line or "\x9b" in line for line in made.lines(78, at(230)))
    stream = Terminal()
    report = LineReporter(stream)
    report(GateJudged("errors", False, "\x9b2Jgone"))
    report(Waiting("it", "\x1b[2Jgone"))
    report(StageEntered("run-1", "revert", "\x1b[2Jgone"))
    assert "\x9b" not in stream.getvalue() and "\x1b[2J" not in stream.getvalue()


def test_a_time_that_is_over_is_not_waited_for() -> None:
    """Nor one that nobody knows."""
    assert (until(at(60), at(61)), until(None, at(0))) == ("", "")
    assert until(at(61), at(0)) == "until 00:01:01 UTC, 1m 1s"


def test_a_pipe_gets_a_line_when_traffic_moves() -> None:
    """And the time until when something is waited for; nothing is told twice."""
    stream = io.StringIO()
    report = LineReporter(stream, clock=VirtualClock().monotonic)
    moved = replace(SEEN, slots=(replace(BLUE, weight=0), replace(GREEN, weight=100)))
    events: list[Event] = [SEEN, Waiting("the end", "", at(500)), SEEN, Waiting("the end", ""), moved]
    for event in events:
        report(event)
    assert stream.getvalue().splitlines() == [
        "  traffic: blue 50 % hello-1.0.0-20e576b5, green 50 % hello-1.1.0-f239d60f",
        "  waiting for the end, until 00:08:20 UTC",
        "  traffic: blue 0 % hello-1.0.0-20e576b5, green 100 % hello-1.1.0-f239d60f",
    ]
    assert traffic((SlotSeen("blue", None, 100), SlotSeen("green", "x", None))) == ""


@pytest.mark.parametrize("plain", [True, False])
def test_a_terminal_draws_the_board_below_the_lines(monkeypatch: pytest.MonkeyPatch, plain: bool) -> None:
    """Within 80 columns, also without colour; stages and gates stay above it as lines, and at the end it is gone."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if plain:
        monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    report = TerminalReporter(stream, now=lambda: at(230))
    report(StageEntered("run-1", "bake", "proved"))
    report(SEEN)
    report(Waiting("the end of 5m of baking", "", at(500)))
    report(GateJudged("errors", None, "3 of 1,200"))
    report(GateJudged("bake", False, "2 of 2 sick"))
    report.status.console.print(report.status.renderable)
    report(StageEntered("run-1", "revert", "2 of 2 sick"))
    report(StageEntered("run-1", "done", "traffic is back"))
    assert not report._running

    shown = stream.getvalue()
    assert ("\x1b[1;31m" in shown) is not plain
    lines = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line).rstrip() for line in re.split(r"[\r\n]+", shown)]
    assert max(map(len, lines)) <= 80
    for told in ("bake      proved", "  gate failed: bake: 2 of 2 sick", "done      traffic is back"):
        assert told in lines
    assert any(line.endswith("✗ gate bake: 2 of 2 sick") for line in lines)
    assert any("… gate errors: 3 of 1,200" in line for line in lines)
    assert any("until 00:08:20 UTC, 4m 30s" in line for line in lines)
