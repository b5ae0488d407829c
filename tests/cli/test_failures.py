"""What users see when a command line is wrong, a stream is gone or a signal comes: never a traceback."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from osvdeploy import errors
from osvdeploy.cli.output import Result, command
from osvdeploy.context import Context
from osvdeploy.errors import OsvDeployError
from tests.cli.running import osvdeploy

WAITING = """\
import sys, click
from osvdeploy.cli.output import Result, command
from osvdeploy.events import Note, Waiting
@click.command()
@command
def wait(ctx):
    ctx.report(Note("ready"))
    {body}
    return Result("done")
wait(standalone_mode=False)
"""


def _run(body: str, **streams: int) -> subprocess.Popen[bytes]:
    program = WAITING.format(body=body)
    return subprocess.Popen([sys.executable, "-c", program], **streams)  # type: ignore[call-overload, no-any-return]  # streams by name


@pytest.mark.parametrize(
    ("words", "path", "told"),
    [
        (["build", "--bogus"], "build", "No such option"),
        (["build", "extra"], "build", "Got unexpected extra argument (extra)"),
        (["sandbox", "strat"], "sandbox", "No such command 'strat'"),
        (["stauts"], "", "no command 'stauts' (did you mean 'status'?)"),
    ],
)
def test_a_command_line_that_cannot_be_read_is_an_error_like_any_other(words: list[str], path: str, told: str) -> None:
    """It ends with 2, names the help to look at, and is a document where one was asked for."""
    ran = osvdeploy(*words)
    assert (ran.code, ran.stdout) == (2, "")
    assert ran.stderr.startswith(f"error: {told}")
    assert f"hint: `{f'osvdeploy {path}'.strip()} --help` tells what it takes" in ran.stderr

    asked = osvdeploy(*words, "--json").document
    assert asked["command"] == path
    assert (asked["error"]["kind"], asked["error"]["exit_code"]) == ("UsageError", 2)


def test_no_command_is_help() -> None:
    """osvdeploy alone shows what there is, on stderr: stdout has results alone."""
    ran = osvdeploy()
    assert (ran.code, ran.stdout) == (2, "")
    assert ran.stderr.startswith("Usage: osvdeploy")


def _ending(raises: Callable[[], Exception]) -> click.Command:
    @click.command()
    @command
    def ends(ctx: Context) -> Result:
        raise raises()

    return ends


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("no"), 2),
        (errors.CloudError("no"), 1),
        (errors.RolledBack("no"), 3),
        (errors.LeaseHeld("no"), 4),
        (errors.RollbackFailed("no"), 6),
        (errors.Interrupted("no"), 130),
        (errors.OsvDeployError(""), 1),
    ],
)
def test_an_error_ends_with_its_exit_code(error: OsvDeployError, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Every error of ours has one, and a line on stderr."""
    with pytest.raises(SystemExit) as ended:
        _ending(lambda: error).main([], standalone_mode=False)
    assert ended.value.code == code
    assert capsys.readouterr() == ("", f"error: {error.message or 'OsvDeployError'}\n")


def test_the_lines_of_one_message_belong_together(capsys: pytest.CaptureFixture[str]) -> None:
    """A guest's console in a message is set under it; problems of a spec are errors of their own."""
    with pytest.raises(SystemExit):
        _ending(lambda: errors.RolledBack("it failed\nAborted\n", hint="look")).main([], standalone_mode=False)
    assert capsys.readouterr().err == "error: it failed\n       Aborted\nhint: look\n"

    problems = [errors.Problem("osv.toml", 1, "name", "is missing"), errors.Problem("osv.toml", 2, "port", "is bad")]
    with pytest.raises(SystemExit):
        _ending(lambda: errors.SpecError(problems)).main([], standalone_mode=False)
    assert capsys.readouterr().err == "error: osv.toml:1: name: is missing\nerror: osv.toml:2: port: is bad\n"


def test_a_bug_shows_its_traceback_when_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With OSVDEPLOY_TRACEBACK=1 the traceback is on stderr, and in no file."""
    monkeypatch.setenv("OSVDEPLOY_TRACEBACK", "1")
    with pytest.raises(SystemExit) as ended:
        _ending(lambda: KeyError("x")).main([], standalone_mode=False)
    told = capsys.readouterr().err
    assert ended.value.code == 1
    assert told.startswith("Traceback") and "error: this is a bug in osvdeploy" in told


def test_a_bug_whose_traceback_cannot_be_kept_is_told_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A state directory that is not to be written to does not hide the bug."""
    (tmp_path / "state").write_text("a file, not a directory")
    monkeypatch.setenv("OSVDEPLOY_STATE", str(tmp_path / "state"))
    with pytest.raises(SystemExit) as ended:
        _ending(lambda: KeyError("x")).main([], standalone_mode=False)
    assert ended.value.code == 1
    assert "hint: set OSVDEPLOY_TRACEBACK=1 to see where" in capsys.readouterr().err


@pytest.mark.slow
def test_a_result_that_cannot_be_written_is_an_error() -> None:
    """A full disk behind > ends with 1 and says that only the result is lost."""
    with open("/dev/full", "wb") as full:  # noqa: PTH123 (a device)
        process = _run("pass", stdout=full.fileno(), stderr=subprocess.PIPE)
        _, told = process.communicate(timeout=20)
    assert process.returncode == 1
    assert told.decode().splitlines()[1:] == [
        "error: the result cannot be written: No space left on device",
        "hint: what the command did is done; only this is lost",
    ]


@pytest.mark.slow
def test_work_goes_on_when_nobody_reads_the_story() -> None:
    """A stderr that is closed at the other end costs the story, not the deploy."""
    reading, writing = os.pipe()
    os.close(reading)
    process = _run("ctx.report(Note('more'))", stdout=subprocess.PIPE, stderr=writing)
    os.close(writing)
    result, _ = process.communicate(timeout=20)
    assert (process.returncode, result) == (0, b"done\n")


@pytest.mark.slow
def test_sigterm_is_an_interrupt_too() -> None:
    """What a pipeline sends before it kills lets the command stop where the next one goes on."""
    process = _run("ctx.sleep(60)", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr is not None
    assert process.stderr.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"stopping; once more" in told and b"error: interrupted" in told


@pytest.mark.slow
def test_the_second_interrupt_ends_at_once() -> None:
    """What does not come to a safe point can still be ended."""
    process = _run("import time; time.sleep(60)", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr is not None
    assert process.stderr.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    process.stderr.readline()
    assert process.stderr.readline().startswith(b"stopping")
    process.send_signal(signal.SIGINT)
    result, _ = process.communicate(timeout=20)
    assert (process.returncode, result) == (130, b"")


@pytest.mark.slow
def test_nohup_is_respected() -> None:
    """A SIGHUP that was ignored when the command began stays ignored."""
    program = "import os, signal; os.kill(os.getpid(), signal.SIGHUP); ctx.check()"
    ignoring = (
        "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execv(sys.executable, sys.argv[1:])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", ignoring, sys.executable, "-c", WAITING.format(body=program)],
        capture_output=True,
        timeout=20,
    )
    assert (ran.returncode, ran.stdout) == (0, b"done\n")


@pytest.mark.slow
def test_file_names_that_are_no_text_come_out_as_they_are() -> None:
    """A path is bytes; what was given is what is printed."""
    ran = subprocess.run(
        [sys.executable, "-m", "osvdeploy", "build", "-f", b"/nowhere/\xff.toml"], capture_output=True, timeout=20
    )
    assert ran.returncode == 2
    assert b"/nowhere/\xff.toml: cannot be read" in ran.stderr


@pytest.mark.slow
def test_a_terminal_gets_a_line_that_moves() -> None:
    """On a terminal what is waited for stands on one line, which is gone at the end, and the cursor is back."""
    ours, theirs = pty.openpty()
    process = _run(
        "ctx.report(Waiting('2 machines', '1 healthy')); ctx.sleep(0.3)", stdout=subprocess.PIPE, stderr=theirs
    )
    os.close(theirs)
    result, _ = process.communicate(timeout=20)
    told = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert (process.returncode, result) == (0, b"done\n")
    assert "ready\r\n" in told and "waiting for 2 machines (1 healthy)" in told
    assert told.rindex("\x1b[?25h") > told.rindex("\x1b[?25l")
