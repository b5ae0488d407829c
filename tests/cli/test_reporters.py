"""The story on stderr: enough to see life, not so much that nobody reads it."""

from __future__ import annotations

import io
import re
import threading

import pytest

from osvdeploy.cli.output import LineReporter, QuietReporter, TerminalReporter, make_reporter
from osvdeploy.context import VirtualClock
from osvdeploy.events import Event, GateJudged, Note, Progress, StageEntered, Waiting, Warned


class Terminal(io.StringIO):
    """A text stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Broken(io.StringIO):
    """A stream whose reader has gone away."""

    def write(self, text: str) -> int:
        raise BrokenPipeError

    def isatty(self) -> bool:
        return False


def _lines(*events: Event) -> list[str]:
    stream = io.StringIO()
    report = LineReporter(stream)
    for event in events:
        report(event)
    return stream.getvalue().splitlines()


def test_what_is_waited_for_is_told_when_it_is_another_thing() -> None:
    """A count that moves is no news each second: the line comes again after a quarter of a minute, if it changed."""
    stream, clock = io.StringIO(), VirtualClock()
    report = LineReporter(stream, clock=clock.monotonic)

    for left in range(20, 0, -1):
        report(Waiting(f"{left}s more of baking", ""))
        clock.advance(2.0)
    report(Waiting("the cloud to answer", "throttled"))
    report(Waiting("the cloud to answer", "throttled"))
    clock.advance(60.0)
    report(Waiting("the cloud to answer", "throttled"))

    assert stream.getvalue().splitlines() == [
        "  waiting for 20s more of baking",
        "  waiting for 12s more of baking",
        "  waiting for 4s more of baking",
        "  waiting for the cloud to answer (throttled)",
    ]


def test_a_gate_that_has_not_decided_is_no_failure() -> None:
    """Passed, failed and undecided are three things."""
    assert _lines(
        GateJudged("traffic", None, "3 of 5 answers"),
        GateJudged("traffic", True, "5 of 5"),
        GateJudged("probe", False, "500"),
    ) == [
        "  waiting for traffic (3 of 5 answers)",
        "  gate passed: traffic: 5 of 5",
        "  gate failed: probe: 500",
    ]


def test_progress_is_told_in_tenths_with_units_for_people() -> None:
    """1000 events are 11 lines; bytes are shown as sizes; nothing to do is done."""
    lines = _lines(*(Progress("image", done << 20, 1000 << 20, "bytes") for done in range(1001)))

    assert len(lines) == 11
    assert (lines[0], lines[-1]) == ("  image: 0B of 1000MiB", "  image: 1000MiB of 1000MiB")
    assert _lines(Progress("upload", 0, 0, "blocks")) == ["  upload: 0 of 0 blocks"]
    assert _lines(Progress("scan", 5, None, "files")) == ["  scan: 5 files"]


def test_quiet_leaves_warnings() -> None:
    """-q takes the story away, not what should be looked at."""
    stream = io.StringIO()
    report = make_reporter(stream, quiet=True)
    for event in (Note("made it"), StageEntered("r", "boot", "go"), Warned("look", "here"), Waiting("it", "")):
        report(event)

    assert isinstance(report, QuietReporter)
    assert stream.getvalue() == "warning: look\nhint: here\n"


def test_a_stream_that_is_gone_costs_the_story_alone() -> None:
    """Nothing that a reporter meets ends what is being done."""
    report = LineReporter(Broken())
    report(Note("one"))
    report(Note("two"))
    closed = io.StringIO()
    report = LineReporter(closed)
    closed.close()
    report(Note("three"))


def test_a_pipe_has_no_colour_and_a_terminal_has_none_with_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    """Escape codes only where someone looks and has not said no."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b" not in "".join(_lines(Warned("look"), StageEntered("r", "boot", "go")))

    coloured = Terminal()
    TerminalReporter(coloured)(Warned("look"))
    assert "\x1b[" in coloured.getvalue()

    monkeypatch.setenv("NO_COLOR", "1")
    plain = Terminal()
    TerminalReporter(plain)(Warned("look"))
    assert plain.getvalue() == "warning: look\n"


def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """An editor's shell cannot move the cursor."""
    monkeypatch.setenv("TERM", "dumb")
    assert type(make_reporter(Terminal())) is LineReporter
    monkeypatch.setenv("TERM", "xterm")
    assert type(make_reporter(Terminal())) is TerminalReporter


def test_the_moving_line_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """It never wraps: what is too long for 80 columns is cut, the time behind it stays."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    clock = VirtualClock()
    stream = Terminal()
    report = TerminalReporter(stream, clock=clock.monotonic)

    report(Waiting("x" * 200, ""))
    clock.advance(75)
    report.status.console.print(report.status.renderable)
    report.finish()

    lines = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line).rstrip() for line in re.split(r"[\r\n]+", stream.getvalue())]
    assert any(line.endswith("x…  1m 15s") for line in lines)
    assert max(len(line) for line in lines) <= 80


def test_lines_on_a_terminal_break_at_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never within a word; what goes on stands further in; a hint, which may be typed, is left whole. In a pipe a line
    is a line."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    path = "/ledger/" + "a" * 70
    seen = "2 of 2 machines are healthy: i-0a11b22c33d44e55f, i-1a11b22c33d44e55f; seen 3 times, 10 s apart"
    events = (
        StageEntered("run", "boot", "machines of hello-1.1.0-1a2b3c4d are started behind slot green of the service"),
        GateJudged("healthy targets", True, seen),
        Note(f"the ledger is {path} as it was told"),
        Warned("nothing is kept warm " * 5, hint="osvdeploy rollback hello/production " * 3),
    )
    stream = Terminal()
    report = TerminalReporter(stream)
    for event in events:
        report(event)
    report.finish()
    lines = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line).rstrip() for line in re.split(r"[\r\n]+", stream.getvalue())]
    told = [line for line in lines if line]
    whole = [line for line in told if path not in line and not line.startswith("hint: ")]
    assert max(len(line) for line in whole) <= 60 < len(next(line for line in told if path in line))
    assert " ".join(" ".join(told).split()) == " ".join(" ".join(_lines(*events)).split())
    assert "  gate passed: healthy targets: 2 of 2 machines are" in told
    assert "          started behind slot green of the service" in told
    assert sum(line.startswith("hint: ") for line in told) == 1


def test_lines_are_whole_from_any_thread() -> None:
    """Uploads report from many threads at once."""
    stream = io.StringIO()
    report = LineReporter(stream)

    def tell() -> None:
        for _ in range(50):
            report(Note("x" * 50))

    threads = [threading.Thread(target=tell) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert set(stream.getvalue().splitlines()) == {"x" * 50}
