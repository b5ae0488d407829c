"""What people and programs see: reporters on stderr, results on stdout, errors with their hint, exit codes.

stdout carries the result alone. With ``--json`` that is one document: ``{"schema": 1, "command": ..., ...}``, or
``{"schema": 1, "command": ..., "error": {"kind", "message", "hint", "exit_code"}}``; docs/json.md is the contract.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import click

from osvdeploy.context import CancelToken, Context
from osvdeploy.errors import OsvDeployError, SpecError
from osvdeploy.events import CloudCall, Event, GateJudged, Note, Progress, Reporter, StageEntered, Waiting, Warned

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Result:
    """What a command ends with: ``text`` for people, ``document`` for programs, and the exit code."""

    text: str
    document: Mapping[str, Any] = field(default_factory=dict)
    exit_code: int = 0


def command(function: Callable[..., Result]) -> Callable[..., None]:
    """Make a click callback of a function that takes a Context first and returns a Result.

    Adds ``--json``, ``--quiet`` and ``--verbose``; maps errors and interrupts to what users see, never a traceback.
    """

    @click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")
    @click.option("-q", "--quiet", is_flag=True, help="Print no progress.")
    @click.option("-v", "--verbose", is_flag=True, help="Print every API call.")
    @functools.wraps(function)
    def callback(as_json: bool, quiet: bool, verbose: bool, **arguments: Any) -> None:
        name = click.get_current_context().info_name or function.__name__
        reporter = make_reporter(sys.stderr, quiet=quiet, verbose=verbose)
        cancel = CancelToken()
        ctx = Context(reporter=reporter, cancel=cancel)
        with _Signals(cancel):
            try:
                result = function(ctx, **arguments)
            except click.ClickException:
                raise
            except OsvDeployError as error:
                _finish(reporter)
                sys.exit(_show_error(name, error, as_json))
            except BrokenPipeError:
                raise
            except Exception as error:
                _finish(reporter)
                sys.exit(_show_bug(name, error, as_json))
        _finish(reporter)
        if as_json:
            print(json.dumps({"schema": SCHEMA, "command": name, **result.document}, indent=1, default=_plain))
        elif result.text:
            print(result.text)
        sys.stdout.flush()
        sys.exit(result.exit_code)

    return callback


def _plain(value: object) -> object:
    """JSON for what the standard library has no JSON for."""
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset | tuple):
        return list(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


# ------------------------------------------------------------------------------------------------------------ errors


def _show_error(name: str, error: OsvDeployError, as_json: bool) -> int:
    if as_json:
        told: dict[str, Any] = {
            "kind": type(error).__name__,
            "message": error.message,
            "hint": error.hint,
            "exit_code": error.exit_code,
        }
        if isinstance(error, SpecError):
            told["problems"] = [
                {"file": each.file, "line": each.line, "path": each.path, "message": each.message}
                for each in error.problems
            ]
        print(json.dumps({"schema": SCHEMA, "command": name, "error": told}, indent=1))
    style = _style(sys.stderr)
    lines = error.message.splitlines() or [type(error).__name__]
    for line in lines:
        print(f"{style('error:', '1;31')} {line}", file=sys.stderr)
    if error.hint:
        print(f"{style('hint:', '1;36')} {error.hint}", file=sys.stderr)
    sys.stdout.flush()
    return error.exit_code


def _show_bug(name: str, error: Exception, as_json: bool) -> int:
    told = "".join(traceback.format_exception(error))
    hint = "set OSVDEPLOY_TRACEBACK=1 to see where"
    if os.environ.get("OSVDEPLOY_TRACEBACK"):
        print(told, file=sys.stderr)
    else:
        kept = _keep_traceback(told)
        if kept is not None:
            hint = f"please report it with {kept}"
    summary = f"{type(error).__name__}: {error}".splitlines()[0]
    message = f"this is a bug in osvdeploy, not in what you did ({summary})"
    return _show_error(name, OsvDeployError(message, hint=hint), as_json)


def _keep_traceback(told: str) -> Path | None:
    import platformdirs

    folder = Path(os.environ.get("OSVDEPLOY_STATE") or platformdirs.user_state_dir("osvdeploy"))
    path = folder / f"traceback-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}.txt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(told)
    except OSError:
        return None
    return path


class _Signals:
    """Ctrl-C and SIGTERM cancel; what runs ends at its next safe point. The second ends the process at once."""

    def __init__(self, cancel: CancelToken) -> None:
        self.cancel = cancel
        self.before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self.before[number] = signal.signal(number, self._on_signal)

    def __exit__(self, *ended: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.cancel.cancelled:
            os._exit(130)
        self.cancel.cancel()
        # Not print(): the signal may have come in the middle of one.
        os.write(2, b"\nstopping at the next safe point; once more to stop at once\n")


# --------------------------------------------------------------------------------------------------------- reporters


def make_reporter(stream: TextIO, *, quiet: bool = False, verbose: bool = False) -> Reporter:
    """Lines for a pipe or a log; on a terminal also one line that moves."""
    if quiet:
        return _quiet
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        return TerminalReporter(stream, verbose=verbose)
    return LineReporter(stream, verbose=verbose)


def _quiet(event: Event) -> None:
    if isinstance(event, Warned):
        print(f"warning: {event.text}", file=sys.stderr)


def _finish(reporter: Reporter) -> None:
    if isinstance(reporter, TerminalReporter):
        reporter.finish()


class LineReporter:
    """One line per event that matters, as it happens; what is waited for is told when it changes."""

    def __init__(self, stream: TextIO, *, verbose: bool = False) -> None:
        self.stream = stream
        self.verbose = verbose
        self.style = _style(stream)
        self._waiting = ""
        self._tenth: dict[str, int] = {}

    def __call__(self, event: Event) -> None:
        match event:
            case Waiting(what, seen):
                self.waiting(what, seen)
            case Progress(what, done, total, unit):
                self.progress(what, done, total, unit)
            case _:
                line = self.line(event)
                if line is not None:
                    self.write(line)

    def line(self, event: Event) -> str | None:
        """The line for an event, None for one that has none."""
        match event:
            case Note(text):
                return text
            case Warned(text, hint):
                warning = f"{self.style('warning:', '1;33')} {text}"
                return f"{warning}\n{self.style('hint:', '1;36')} {hint}" if hint else warning
            case StageEntered(_, stage, why):
                return f"{self.style(f'{stage:<9}', '1')} {why}"
            case GateJudged(gate, passed, seen):
                mark = self.style("passed", "32") if passed else self.style("failed", "1;31")
                return f"  gate {mark}: {gate}: {seen}"
            case CloudCall(service, operation, mutating, seconds, error) if self.verbose:
                kind = "changes" if mutating else "reads"
                return f"  call {service}.{operation} ({kind}, {seconds * 1000:.0f} ms){f': {error}' if error else ''}"
            case _:
                return None

    def write(self, line: str) -> None:
        print(line, file=self.stream, flush=True)

    def waiting(self, what: str, seen: str) -> None:
        if what != self._waiting:
            self._waiting = what
            self.write(f"  waiting for {what}" if not seen or seen in what else f"  waiting for {what} ({seen})")

    def progress(self, what: str, done: int, total: int | None, unit: str) -> None:
        tenth = 10 if total == done else done * 10 // total if total else 0
        if tenth != self._tenth.get(what):
            self._tenth[what] = tenth
            self.write(f"  {what}: {done} of {total} {unit}" if total is not None else f"  {what}: {done} {unit}")


class TerminalReporter(LineReporter):
    """Lines as above, and below them one that moves: what is waited for, or how far something is."""

    def __init__(self, stream: TextIO, *, verbose: bool = False) -> None:
        super().__init__(stream, verbose=verbose)
        # Only a terminal pays for rich's import.
        from rich.console import Console
        from rich.status import Status

        self.console = Console(file=stream, highlight=False)
        self.status = Status("", console=self.console, spinner="dots")
        self._running = False
        self._since = time.monotonic()

    def write(self, line: str) -> None:
        from rich.text import Text

        self.console.print(Text.from_ansi(line))

    def waiting(self, what: str, seen: str) -> None:
        if what != self._waiting:
            self._waiting, self._since = what, time.monotonic()
        self._move(f"waiting for {what}  {time.monotonic() - self._since:.0f}s")

    def progress(self, what: str, done: int, total: int | None, unit: str) -> None:
        if total is None:
            self._move(f"{what}: {done} {unit}")
            return
        filled = 24 * done // total if total else 24
        self._move(f"{what}  {'━' * filled}{'╌' * (24 - filled)}  {done}/{total} {unit}")
        if done == total:
            self.finish()
            self.write(f"  {what}: {done} {unit}")

    def finish(self) -> None:
        """Take the moving line away."""
        if self._running:
            self._running = False
            self.status.stop()

    def _move(self, text: str) -> None:
        from rich.text import Text

        self.status.update(Text(text[: max(10, self.console.width - 4)], style="dim"))
        if not self._running:
            self._running = True
            self.status.start()


def _style(stream: TextIO) -> Callable[[str, str], str]:
    """Colour where it is wanted: on a terminal, unless NO_COLOR is set (https://no-color.org)."""
    if os.environ.get("NO_COLOR") or not stream.isatty():
        return lambda text, code: text
    return lambda text, code: f"\x1b[{code}m{text}\x1b[0m"
