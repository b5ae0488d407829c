"""What a command shows, and what it ends with."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from osvdeploy.cli import COMMANDS, cli
from osvdeploy.cli.output import LineReporter
from osvdeploy.cli.tables import table
from osvdeploy.events import CloudCall, GateJudged, Note, Progress, StageEntered, Waiting, Warned
from osvdeploy.version import __version__
from tests.cli.running import osvdeploy


def test_a_result_is_all_that_stdout_has() -> None:
    """version prints its version and nothing else."""
    ran = osvdeploy("version")
    assert (ran.code, ran.stdout, ran.stderr) == (0, f"{__version__}\n", "")


def test_json_is_one_document() -> None:
    """With --json, stdout parses whole."""
    assert osvdeploy("version", "--json").document == {"schema": 1, "command": "version", "version": __version__}


def test_an_error_has_its_hint_and_its_exit_code(tmp_path: Path) -> None:
    """A missing spec ends with 2, on stderr, without a traceback."""
    ran = osvdeploy("build", folder=tmp_path)
    assert ran.code == 2 and ran.stdout == ""
    assert ran.stderr.startswith("error: osv.toml: cannot be read") and "\nhint: " in ran.stderr


def test_an_error_is_a_document_too(tmp_path: Path) -> None:
    """A pipeline reads the error where it reads the result."""
    ran = osvdeploy("build", "--json", folder=tmp_path)
    error = ran.document["error"]
    assert ran.code == error["exit_code"] == 2
    assert error["kind"] == "SpecError" and error["problems"][0]["file"] == "osv.toml"


def test_an_unknown_command_names_the_nearest(tmp_path: Path) -> None:
    """A typing error is met with what was meant."""
    ran = osvdeploy("stauts")
    assert ran.code == 2 and "did you mean 'status'?" in ran.stderr


def test_a_bug_is_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody expected says so, and keeps its traceback in a file."""
    monkeypatch.setenv("OSVDEPLOY_STATE", str(tmp_path / "state"))
    monkeypatch.setattr("osvdeploy.api.load_spec", lambda *_, **__: 1 / 0)
    ran = osvdeploy("build", folder=tmp_path)
    assert ran.code == 1 and "this is a bug in osvdeploy" in ran.stderr and "Traceback" not in ran.stderr
    (kept,) = (tmp_path / "state").iterdir()
    assert "ZeroDivisionError" in kept.read_text() and str(kept) in ran.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str) -> None:
    """--help of each command tells what it does, and shows a call; the list tells the same in short."""
    context = click.Context(cli)
    found = cli.get_command(context, name)
    assert found is not None
    text = found.get_help(click.Context(found, info_name=name))
    assert "Example: " in text or isinstance(found, click.Group), name
    assert COMMANDS[name][2].endswith(".")


def test_a_pipe_gets_one_line_per_event() -> None:
    """Lines for people who read a log: what is waited for is told when it changes, progress in tenths."""
    stream = io.StringIO()
    report = LineReporter(stream)
    for event in [
        Note("found it"),
        StageEntered("run", "boot", "2 machines asked for"),
        Waiting("2 of 2 healthy", ""),
        Waiting("2 of 2 healthy", ""),
        GateJudged("healthy targets", True, "2 of 2"),
        Progress("blocks", 1, 100, "blocks"),
        Progress("blocks", 2, 100, "blocks"),
        Progress("blocks", 100, 100, "blocks"),
        Warned("look at this", "do that"),
        CloudCall("ec2", "DescribeImages", False, 0.1),
    ]:
        report(event)
    assert stream.getvalue().splitlines() == [
        "found it",
        "boot      2 machines asked for",
        "  waiting for 2 of 2 healthy",
        "  gate passed: healthy targets: 2 of 2",
        "  blocks: 1 of 100 blocks",
        "  blocks: 100 of 100 blocks",
        "warning: look at this",
        "hint: do that",
    ]


def test_verbose_tells_every_call() -> None:
    """-v adds the API calls, with what they cost."""
    stream = io.StringIO()
    LineReporter(stream, verbose=True)(CloudCall("ec2", "RunInstances", True, 0.25, "Throttled"))
    assert stream.getvalue() == "  call ec2.RunInstances (changes, 250 ms): Throttled\n"


def test_tables_are_aligned_and_cut_only_at_the_end() -> None:
    """Columns are as wide as they need; the last is cut where it is too long."""
    shown = table(("A", "B"), [("one", "x" * 20), ("three", "")], last_width=10)
    assert shown.splitlines() == ["A      B", "one    xxxxxxxxx…", "three"]


@pytest.mark.slow
def test_a_reader_that_goes_away_is_no_traceback() -> None:
    """`osvdeploy schema | head -1` prints one line and no complaint."""
    command = f"{sys.executable} -m osvdeploy schema | head -1"
    ran = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert ran.stdout == "{\n" and ran.stderr == ""


@pytest.mark.slow
def test_a_signal_at_any_moment_of_a_wait() -> None:
    """A signal that comes while a wait holds its lock cancels too: it never waits for itself."""
    program = (
        "import random, signal\n"
        "from osvdeploy.context import CancelToken\n"
        "for number in range(4000):\n"
        "    cancel = CancelToken()\n"
        "    signal.signal(signal.SIGALRM, lambda *_: cancel.cancel())\n"
        "    signal.setitimer(signal.ITIMER_REAL, random.Random(number).uniform(2e-5, 2e-4))\n"
        "    while not cancel.cancelled:\n"
        "        cancel.event.wait(1e-9)\n"
        "    assert cancel.event.wait(10)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.slow
def test_ctrl_c_is_130_and_says_how_to_go_on(tmp_path: Path) -> None:
    """An interrupt ends a command at its next safe point."""
    program = (
        "import sys, click; from osvdeploy.cli.output import command, Result\n"
        "@click.command()\n@command\ndef wait(ctx):\n"
        "    print('ready', file=sys.stderr, flush=True); ctx.sleep(60); return Result('')\n"
        "wait(standalone_mode=False)"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None and process.stderr.readline() == "ready\n"
    time.sleep(0.05)  # it is to be within its wait, which nothing tells
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=20)
    assert process.returncode == 130 and "error: interrupted" in told and "nothing is lost" in told
