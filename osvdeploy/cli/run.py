"""run: an image in QEMU, here."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TextIO, TypeVar

import click

from osvdeploy.cli.options import force_option, spec_file_option
from osvdeploy.cli.output import Result, command, show_error, silence
from osvdeploy.context import Context

if TYPE_CHECKING:
    from osvdeploy.cloud.local.run import RunResult
    from osvdeploy.osv.console import Finding
    from osvdeploy.qemu.machine import Forward

Value = TypeVar("Value")

MENTIONED = 5
"""Suspicions that are told where a guest ended badly; --json has all."""

BUSES = ("virtio-blk", "virtio-scsi", "nvme", "ahci")


def _size(context: click.Context, option: click.Parameter, text: str) -> int:
    from osvdeploy.sizes import parse_size

    return _parsed(parse_size, text)


def _duration(context: click.Context, option: click.Parameter, text: str | None) -> float | None:
    from osvdeploy.sizes import parse_duration

    return None if text is None else _parsed(parse_duration, text)


def _forwards(context: click.Context, option: click.Parameter, texts: tuple[str, ...]) -> tuple[Forward, ...]:
    if not texts:
        return ()
    from osvdeploy.qemu.machine import Forward

    return tuple(_parsed(Forward.parse, text) for text in texts)


def _parsed(parse: Callable[[str], Value], text: str) -> Value:
    try:
        return parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command(short_help="An image in QEMU, here.")
@spec_file_option
@click.option(
    "--memory", default="256MiB", show_default=True, callback=_size, metavar="SIZE", help="The machine's memory."
)
@click.option("--cpus", type=int, default=1, show_default=True, metavar="N", help="Its processors.")
@click.option(
    "--forward",
    "forwards",
    multiple=True,
    callback=_forwards,
    metavar="[[HOST:]PORT:]GUESTPORT",
    help="Lead a TCP port of this host (127.0.0.1 without HOST; port 0: a free one) to the guest's. Repeatable.",
)
@click.option(
    "--boot",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="A boot option, added to the image's or in its place: verbose, delay=0.5, nopci=false. Repeatable.",
)
@click.option("--disk", type=click.Choice(BUSES), default=BUSES[0], show_default=True, help="What the disk hangs on.")
@click.option("--kernel-direct", is_flag=True, help="Let QEMU load the image's kernel (PVH), not the BIOS.")
@click.option(
    "--gdb",
    is_flag=False,
    flag_value=1234,
    type=click.IntRange(0, 65535),
    metavar="[PORT]",
    help="Open QEMU's gdb stub on loopback, port 1234 if not told otherwise (0: a free one).",
)
@click.option("--gdb-wait", is_flag=True, help="Let the guest wait until gdb lets it go on.")
@click.option("--timeout", callback=_duration, metavar="TIME", help="End the guest after this time, as in 60s.")
@force_option
@click.option("-i", "--interactive", is_flag=True, help="What is typed on this terminal goes to the guest.")
@click.argument("image", required=False, type=click.Path(path_type=Path))
@command
def run(
    ctx: Context,
    spec_file: Path,
    sets: tuple[str, ...],
    memory: int,
    cpus: int,
    forwards: tuple[Forward, ...],
    boot: tuple[str, ...],
    disk: str,
    kernel_direct: bool,
    gdb: int | None,
    gdb_wait: bool,
    timeout: float | None,
    forced: tuple[str, ...],
    interactive: bool,
    image: Path | None,
) -> Result:
    """Boot the image in QEMU on this machine: the spec's, built if needed, or IMAGE, a raw or qcow2 disk.

    The guest's console goes to stdout as it comes, all else to stderr; with --json the console goes to stderr and
    stdout gets one document at the end. KVM is used where it works. The disk is never changed, and Ctrl-C ends the
    guest. What is known not to boot in this machine, such as a kernel without a driver for its disk, is refused first,
    unless --force names the rule.

    \b
    Exit codes tell how the guest ended:
        0  the program ended (with --boot verbose: what it returned)
        1  QEMU failed                     2  refused, nothing was started
      120  command line empty, unreadable  121  boot option unknown to this kernel
      122  root file system not mounted    123  library or symbol missing
      124  --timeout is over               125  off, and OSv did not say why
      126  program cannot be run           127  program not in the image
      128+N  ended by signal N             130  Ctrl-C, SIGTERM
      134  crashed: abort, assertion       137  out of memory

    Example: osvdeploy run --forward 8080:8080 --boot verbose
    """
    from osvdeploy import api
    from osvdeploy.cloud.local.run import RunOptions
    from osvdeploy.errors import UsageError
    from osvdeploy.qemu.machine import DiskBus, GdbStub

    context = click.get_current_context()
    if image is not None and context.get_parameter_source("spec_file") is not click.core.ParameterSource.DEFAULT:
        raise UsageError(f"both an image and a spec are given: {image}, {spec_file}", hint="leave one of them out")
    if gdb is None and gdb_wait:
        gdb = 1234
    options = RunOptions(
        memory=memory,
        cpus=cpus,
        forwards=forwards,
        bus=DiskBus(disk),
        boot=boot,
        kernel_direct=kernel_direct,
        gdb=None if gdb is None else GdbStub(gdb, gdb_wait),
        timeout=timeout,
    )
    options.refuse_wrong()
    as_json, quiet = bool(context.params["as_json"]), bool(context.params["quiet"])
    source = image if image is not None else api.load_spec(spec_file, sets=sets)
    with _terminal(interactive) as keyboard, _Console(as_json=as_json, quiet=quiet) as console:
        ran = api.run(ctx, source, options, forced=forced, show=console.show, keyboard=keyboard)
    return Result("", _document(ran), _tell(ctx, ran))


class _Console:
    """Where the guest's console goes: stdout, or stderr (nowhere with ``quiet``) where stdout is for a document.

    Bytes go out as they come. On a terminal, what the guest may have left behind is put right at the end: colours, a
    hidden cursor, half a line.
    """

    def __init__(self, *, as_json: bool, quiet: bool) -> None:
        self._stream: TextIO | None = sys.stdout if not as_json else None if quiet else sys.stderr
        self._optional = as_json
        self._last = b"\n"
        self._escaped = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        if self._stream is not None and self._stream.isatty():
            self.show((b"\x1b[0m\x1b[?25h" if self._escaped else b"") + (b"\n" if self._last != b"\n" else b""))

    def show(self, data: bytes) -> None:
        """Raises BrokenPipeError where the reader went away, OsvDeployError where stdout takes no more."""
        from osvdeploy.errors import OsvDeployError

        if self._stream is None or not data:
            return
        self._last, self._escaped = data[-1:], self._escaped or b"\x1b" in data
        try:
            self._stream.buffer.write(data)
            self._stream.buffer.flush()
        except OSError as error:
            if self._optional:
                self._stream = None
            elif isinstance(error, BrokenPipeError):
                raise
            else:
                silence(self._stream)
                raise OsvDeployError(f"the console cannot be written: {error.strerror}") from None


@contextmanager
def _terminal(interactive: bool) -> Iterator[int | None]:
    """The descriptor of the terminal, each key as it is pressed and none shown (OSv shows what it takes); as it was
    afterwards. Ctrl-C stays ours."""
    if not interactive:
        yield None
        return
    import termios
    import tty

    from osvdeploy.errors import UsageError

    if not sys.stdin.isatty():
        raise UsageError("--interactive: stdin is no terminal", hint="leave it out: nothing is typed at the guest then")
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield descriptor
    finally:
        termios.tcsetattr(descriptor, termios.TCSANOW, before)


def _tell(ctx: Context, ran: RunResult) -> int:
    """The end of the story, on stderr; the exit code."""
    from osvdeploy.cloud.local.guest import Ending
    from osvdeploy.errors import GuestFailed
    from osvdeploy.events import Note, Warned
    from osvdeploy.sizes import format_duration

    guest, verdict = ran.guest, ran.guest.verdict
    stages = ", ".join(f"{each.stage.value} {format_duration(each.seconds)}" for each in guest.stages)
    ctx.report(Note(f"on for {format_duration(guest.seconds)}{f': {stages}' if stages else ''}"))
    if guest.said:
        ctx.report(Note("\n".join(f"QEMU said: {line}" for line in guest.said.splitlines())))
    if verdict.exit_code == 0 or verdict.ending is Ending.INTERRUPTED:
        ctx.report(Note(verdict.cause))
        return verdict.exit_code
    causes = {each.cause: each for each in guest.log.suspicions}
    for each in list(causes.values())[:MENTIONED]:
        ctx.report(Warned(f"line {each.number} of the console: {each.cause}", each.cure))
    failure = GuestFailed(verdict.cause, exit_code=verdict.exit_code, hint=verdict.cure)
    return show_error("run", failure, as_json=False)


def _document(ran: RunResult) -> dict[str, Any]:
    guest, verdict = ran.guest, ran.guest.verdict
    return {
        "image": ran.path,
        "digest": ran.digest,
        "command_line": ran.command_line,
        "machine": {
            "accelerator": guest.accelerator,
            "memory": ran.options.memory,
            "cpus": ran.options.cpus,
            "disk": ran.options.bus,
            "kernel_direct": ran.options.kernel_direct,
        },
        "forwarded": [{"host": each.host, "port": each.port, "guest_port": each.guest_port} for each in guest.forwards],
        "gdb": None if guest.gdb is None else {"host": "127.0.0.1", "port": guest.gdb.port, "wait": guest.gdb.wait},
        "osv_version": guest.log.version,
        "addresses": guest.log.addresses,
        "stages": [{"stage": each.stage, "seconds": round(each.seconds, 3)} for each in guest.stages],
        "seconds": round(guest.seconds, 3),
        "ended": verdict.ending.label,
        "power": guest.power,
        "exit_code": verdict.exit_code,
        "program_status": verdict.status,
        "cause": verdict.cause,
        "cure": verdict.cure,
        "fault": None if guest.log.fault is None else _finding(guest.log.fault),
        "suspicions": [_finding(each) for each in guest.log.suspicions],
        "console": guest.console.decode(errors="replace"),
        "console_bytes": guest.console_bytes,
        "qemu_said": guest.said,
    }


def _finding(found: Finding) -> dict[str, Any]:
    return {
        "fault": found.fault,
        "line": found.line,
        "number": found.number,
        "cause": found.cause,
        "cure": found.cure,
        "fatal": found.fatal,
    }
