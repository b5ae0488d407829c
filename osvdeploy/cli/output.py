"""What people and programs see: reporters on stderr, results on stdout, errors with their hint, exit codes.

stdout carries the result alone. With ``--json`` that is one document: ``{"schema": 1, "command": ..., ...}``, or
``{"schema": 1, "command": ..., "error": {"kind", "message", "hint", "exit_code"}}``; docs/json.md is the contract.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

import click

from osvdeploy.context import CancelToken, Context
from osvdeploy.errors import OsvDeployError, SpecError
from osvdeploy.events import (
    CloudCall,
    Event,
    GateJudged,
    HookEnded,
    HookStarted,
    Note,
    Progress,
    Reporter,
    RolloutSeen,
    StageEntered,
    Waiting,
    Warned,
)
from osvdeploy.sizes import format_duration, format_size
from osvdeploy.version import __version__
from osvdeploy.visible import visible

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.text import Text

    from osvdeploy.cli.board import Board

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Result:
    """What a command ends with: ``text`` for people, ``document`` for programs, and the exit code. Without a document
    it has told all as it came (:func:`tell`)."""

    text: str
    document: Mapping[str, Any] | None = field(default_factory=dict)
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
        name = _name(click.get_current_context())
        reporter = make_reporter(sys.stderr, quiet=quiet, verbose=verbose)
        cancel = CancelToken()
        ctx = Context(reporter=reporter, cancel=cancel)
        with _Signals(cancel):
            try:
                result = function(ctx, **arguments)
            except click.ClickException:
                _finish(reporter)
                raise
            except OsvDeployError as error:
                _finish(reporter)
                sys.exit(show_error(name, error, as_json))
            except BrokenPipeError:
                _finish(reporter)
                raise
            except Exception as error:
                _finish(reporter)
                sys.exit(show_bug(name, error, as_json))
        _finish(reporter)
        if as_json:
            if result.document is not None:
                _write(json.dumps({"schema": SCHEMA, "command": name, **result.document}, indent=1, default=_plain))
        elif result.text:
            _write(result.text)
        sys.exit(result.exit_code)

    # An example stands on a line of its own, which click's wrapping leaves whole.
    callback.__doc__ = re.sub(r"\s*\bExample: ", "\n\n\b\nExample: ", inspect.cleandoc(function.__doc__ or ""))
    return callback


def _name(context: click.Context) -> str:
    """What the user typed: ``deploy``, ``sandbox start``."""
    return context.command_path.removeprefix("osvdeploy ")


def tell(text: str, document: Mapping[str, Any]) -> None:
    """Put a part of a result on stdout now: a line for people, with ``--json`` a document on one line."""
    context = click.get_current_context()
    if context.params.get("as_json"):
        text = json.dumps({"schema": SCHEMA, "command": _name(context), **document}, default=_plain)
    _write(text)


def _write(text: str) -> None:
    """Put the result on stdout, so that ``> file`` on a full disk is an error and no half a result.

    A terminal is shown no control character: a guest's words, which may hold any, are in results too.

    Raises BrokenPipeError where the reader went away; any other trouble ends the process with 1.
    """
    if sys.stdout.isatty():
        text = visible(text)
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        silence(sys.stdout)
        trouble = OsvDeployError(
            f"the result cannot be written: {error.strerror}", hint="what the command did is done; only this is lost"
        )
        sys.exit(show_error("", trouble, as_json=False))


def silence(stream: TextIO) -> None:
    """Let a stream lead nowhere, so that Python's own flush at exit does not complain of it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


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


def show_error(name: str, error: OsvDeployError, as_json: bool) -> int:
    """Print an error and its hint on stderr, with ``as_json`` a document on stdout too; the exit code."""
    style = _style(sys.stderr)
    # Each problem of a spec is an error of its own; the lines of any other message belong together.
    told = [str(each) for each in error.problems] if isinstance(error, SpecError) else [error.message]
    for message in told:
        first, *rest = message.splitlines() or [type(error).__name__]
        _complain("\n".join([f"{style('error:', '1;31')} {first}", *(f"       {line}" for line in rest)]))
    if error.hint:
        _complain(f"{style('hint:', '1;36')} {error.hint}")
    if as_json:
        _write(json.dumps({"schema": SCHEMA, "command": name, "error": _document(error)}, indent=1))
    return error.exit_code


def _document(error: OsvDeployError) -> dict[str, Any]:
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
    return told


def show_bug(name: str, error: Exception, as_json: bool) -> int:
    """Print that osvdeploy is at fault, and where the traceback was put; the exit code."""
    told = "".join(traceback.format_exception(error))
    hint = "set OSVDEPLOY_TRACEBACK=1 to see where"
    if os.environ.get("OSVDEPLOY_TRACEBACK"):
        _complain(told)
        hint = "please report it with the traceback above"
    else:
        kept = _keep_traceback(told)
        if kept is not None:
            hint = f"please report it with {kept}"
    summary = " ".join(f"{type(error).__name__}: {error}".split())
    doing = f"`osvdeploy {name}` ended with " if name else ""
    message = f"this is a bug in osvdeploy, not in what you did: {doing}{summary[:300]}"
    return show_error(name, OsvDeployError(message, hint=hint), as_json)


def _complain(text: str) -> None:
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        # Nobody reads stderr any more; the exit code says it too.
        silence(sys.stderr)


def _keep_traceback(told: str) -> Path | None:
    import platformdirs

    folder = Path(os.environ.get("OSVDEPLOY_STATE") or platformdirs.user_state_dir("osvdeploy"))
    path = folder / f"traceback-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}.txt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(f"osvdeploy {__version__}, Python {sys.version}\n{sys.argv}\n\n{told}")
    except OSError:
        return None
    return path


class _Signals:
    """Ctrl-C, SIGTERM and a terminal that closes cancel; what runs ends at its next safe point. The second ends the
    process at once."""

    def __init__(self, cancel: CancelToken) -> None:
        self.cancel = cancel
        self.before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # nohup and a shell's `&` have them ignored on purpose.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self.before[number] = signal.signal(number, self._on_signal)

    def __exit__(self, *ended: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        again = self.cancel.cancelled
        self.cancel.cancel()
        # Not print(): the signal may have come in the middle of one. Rich hides the cursor while a line moves.
        told = b"\nstopping; once more to stop at once\n"
        try:
            os.write(2, (b"\x1b[?25h\n" if os.isatty(2) else b"") if again else told)
        except OSError:
            pass
        if again:
            os._exit(130)


# --------------------------------------------------------------------------------------------------------- reporters


def make_reporter(stream: TextIO, *, quiet: bool = False, verbose: bool = False) -> Reporter:
    """Lines for a pipe or a log; on a terminal also one line that moves; with ``quiet`` warnings alone."""
    if quiet:
        return QuietReporter(stream)
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        return TerminalReporter(stream, verbose=verbose)
    return LineReporter(stream, verbose=verbose)


def _finish(reporter: Reporter) -> None:
    if isinstance(reporter, TerminalReporter):
        reporter.finish()


class LineReporter:
    """One line per event that matters, as it happens. Safe to call from any thread.

    Of what is waited for and of progress, it tells what is new: not every second, but often enough that a log shows
    life. A stream that nobody reads any more is left alone: a rollout does not stop because its log is gone.
    """

    def __init__(self, stream: TextIO, *, verbose: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self.stream = stream
        self.verbose = verbose
        self.style = _style(stream)
        self.shown: Callable[[str], str] = visible if stream.isatty() else str
        """A guest's words are in what is told: no terminal obeys them."""
        self.clock = clock
        self._lock = threading.RLock()
        self._gone = False
        self._waiting = ("", "")
        self._told_at = 0.0
        self._traffic = ""
        self._tenth: dict[str, int] = {}

    def __call__(self, event: Event) -> None:
        with self._lock:
            if self._gone:
                return
            try:
                self.tell(event)
            except (OSError, ValueError):
                # Broken pipe, a terminal that was closed, a full disk behind 2>, a stream that is closed.
                self._gone = True

    def tell(self, event: Event) -> None:
        """Write what there is to say of an event."""
        match event:
            case Waiting(what, seen, until):
                self.waiting(what, seen, until)
            case RolloutSeen():
                self.seen(event)
            case GateJudged(gate, None, seen):
                self.waiting(gate, seen)
            case Progress():
                self.progress(event)
            case _:
                line = self.line(event)
                if line is not None:
                    self.write(line)

    def line(self, event: Event) -> str | None:
        """The line for an event, None for one that has none."""
        match event:
            case Note(text):
                return self.shown(text)
            case Warned(text, hint):
                warning = f"{self.style('warning:', '1;33')} {self.shown(text)}"
                return f"{warning}\n{self.style('hint:', '1;36')} {self.shown(hint)}" if hint else warning
            case StageEntered(_, stage, why):
                return f"{self.style(f'{stage:<9}', '1')} {self.shown(why)}"
            case GateJudged(gate, passed, seen):
                mark = self.style("passed", "32") if passed else self.style("failed", "1;31")
                return f"  gate {mark}: {gate}: {self.shown(seen)}"
            case HookStarted(hook, stage, attempt):
                again = f", attempt {attempt}: whoever asked it before is gone" if attempt > 1 else ""
                return f"  hook {hook} ({stage}) is asked{again}"
            case HookEnded(hook, stage, passed, told):
                mark = self.style("passed", "32") if passed else self.style("failed", "1;31")
                return f"  hook {mark}: {hook} ({stage}): {self.shown(told)}"
            case CloudCall(service, operation, mutating, seconds, error) if self.verbose:
                kind = "changes" if mutating else "reads"
                return f"  call {service}.{operation} ({kind}, {seconds * 1000:.0f} ms){f': {error}' if error else ''}"
            case _:
                return None

    def write(self, line: str) -> None:
        print(line, file=self.stream, flush=True)

    def seen(self, event: RolloutSeen) -> None:
        """Tell the shares of the traffic when they have moved."""
        from osvdeploy.cli.board import traffic

        told = traffic(event.slots)
        if told and told != self._traffic:
            self._traffic = told
            self.write(f"  traffic: {told}")

    def waiting(self, what: str, seen: str, until: datetime | None = None) -> None:
        """Tell it when it is another thing; when only its numbers moved, four times a minute."""
        told = _wait(what, seen)
        kind = _NUMBER.sub("#", told)
        now = self.clock()
        if kind != self._waiting[1] or (told != self._waiting[0] and now - self._told_at >= 15):
            self._waiting, self._told_at = (told, kind), now
            ends = f", until {until.astimezone(UTC):%H:%M:%S} UTC" if until is not None else ""
            self.write(f"  {told}{ends}")

    def progress(self, event: Progress) -> None:
        """Tell it in tenths."""
        tenth = 10 if event.total == event.done else event.done * 10 // event.total if event.total else 0
        if tenth != self._tenth.get(event.what):
            self._tenth[event.what] = tenth
            self.write(f"  {event.what}: {_amount(event)}")


class QuietReporter(LineReporter):
    """Warnings alone."""

    def tell(self, event: Event) -> None:
        if isinstance(event, Warned):
            super().tell(event)


class TerminalReporter(LineReporter):
    """Lines as above, and below them one that moves: what is waited for, or how far something is. During a rollout a
    board of lines: its way, slots, gates, and what is waited for until when."""

    def __init__(
        self,
        stream: TextIO,
        *,
        verbose: bool = False,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        super().__init__(stream, verbose=verbose, clock=clock)
        self.now = now
        self._board: Board | None = None
        # Only a terminal pays for rich's import.
        from rich.console import Console
        from rich.status import Status

        self.console = Console(file=stream, highlight=False)
        self.status = Status("", console=self.console, spinner="dots", refresh_per_second=5)
        self._running = False
        self._since = self.clock()

    def tell(self, event: Event) -> None:
        if self._board is not None and isinstance(event, GateJudged):
            self._board.judged(event)
            if event.passed is None:
                return
        elif isinstance(event, StageEntered | GateJudged) and self._board is None:
            # What was waited for has come.
            self.finish()
        if isinstance(event, StageEntered):
            if event.stage == "done":
                self.finish()
            elif self._board is not None:
                self._board.entered(event.stage, self.now())
        super().tell(event)

    def write(self, line: str) -> None:
        from rich.text import Text

        for each in line.split("\n"):
            for part in _folded(Text.from_ansi(each), self.console.width):
                # Soft wrap: what has no space is broken by the terminal, so that a path can be copied whole.
                self.console.print(part, soft_wrap=True)

    def seen(self, event: RolloutSeen) -> None:
        from osvdeploy.cli.board import Board

        if self._board is None:
            self.finish()
            self._board = Board(event)
        else:
            self._board.look(event)

    def waiting(self, what: str, seen: str, until: datetime | None = None) -> None:
        if self._board is not None:
            self._board.wait(what, seen, until)
            self._show(_Moving(self._board, self.now))
            return
        told = _wait(what, seen)
        kind = _NUMBER.sub("#", told)
        if kind != self._waiting[1]:
            self._since = self.clock()
        self._waiting = (told, kind)
        self._move(told, self._waited)

    def progress(self, event: Progress) -> None:
        if event.total is None:
            self._move(f"{event.what}: {_amount(event)}")
        elif event.done < event.total:
            filled = 24 * event.done // event.total
            bar = f"  {'━' * filled}{'╌' * (24 - filled)}  {_amount(event)}"
            self._move(event.what, lambda: bar)
        elif self._tenth.get(event.what) != 10:
            self._tenth[event.what] = 10
            self.finish()
            self.write(f"  {event.what}: {_amount(event)}")

    def finish(self) -> None:
        """Take the moving line away."""
        with self._lock:
            self._board = None
            if self._running:
                self._running = False
                try:
                    self.status.stop()
                except OSError:
                    self._gone = True

    def _waited(self) -> str:
        seconds = int(self.clock() - self._since)
        return f"  {format_duration(seconds)}" if seconds else ""

    def _move(self, text: str, after: Callable[[], str] = lambda: "") -> None:
        self._show(_MovingLine(text, after))

    def _show(self, moving: RenderableType) -> None:
        self.status.update(moving)
        if not self._running:
            self._running = True
            self.status.start()


@dataclass(frozen=True, slots=True)
class _Moving:
    """The board of a rollout, drawn anew likewise: its clocks go on by themselves."""

    board: Board
    now: Callable[[], datetime]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from rich.text import Text

        for line in self.board.lines(options.max_width, self.now()):
            yield Text(line, no_wrap=True, overflow="crop")


@dataclass(frozen=True, slots=True)
class _MovingLine:
    """The moving line. Rich asks for it anew with every turn of the spinner, so the seconds go on by themselves."""

    text: str
    after: Callable[[], str]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from rich.text import Text

        after = self.after()
        room = max(10, options.max_width - len(after))
        text = self.text if len(self.text) <= room else f"{self.text[: room - 1]}…"
        yield Text(text + after, style="dim", no_wrap=True, overflow="crop")


def _folded(line: Text, wide: int) -> Iterator[Text]:
    """A line in ``wide`` columns: broken at spaces alone, each part below the first a little further in. What is to be
    typed stays whole."""
    from osvdeploy.cli.tables import folded

    plain = line.plain
    stage = _STAGE.match(plain)
    indent = stage.end() if stage else min(len(plain) - len(plain.lstrip()) + 2, 12)
    if len(plain) <= wide or plain.startswith("hint: "):
        yield line
        return
    begin = 0
    for number, told in enumerate(folded(plain, 0, wide - indent).split("\n")):
        begin = plain.index(told, begin)
        part = line[begin : begin + len(told)]
        part.pad_left(indent if number else 0)
        yield part
        begin += len(told)


_STAGE = re.compile(r"[a-z-]+ +(?<=^.{10})(?=\S)")
"""A stage's name at the beginning of its line, with the blanks behind it: ten columns."""

_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")


def _wait(what: str, seen: str) -> str:
    told = f"waiting for {what}" if not seen or seen in what else f"waiting for {what} ({seen})"
    return visible(" ".join(told.split()))


def _amount(event: Progress) -> str:
    if event.unit == "bytes":
        done, total = format_size(event.done), "" if event.total is None else format_size(event.total)
        return f"{done} of {total}" if total else done
    return f"{event.done} of {event.total} {event.unit}" if event.total is not None else f"{event.done} {event.unit}"


def _style(stream: TextIO) -> Callable[[str, str], str]:
    """Colour where it is wanted: on a terminal, unless NO_COLOR is set (https://no-color.org)."""
    if os.environ.get("NO_COLOR") or not stream.isatty():
        return lambda text, code: text
    return lambda text, code: f"\x1b[{code}m{text}\x1b[0m"
