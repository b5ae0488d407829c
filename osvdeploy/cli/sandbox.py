"""sandbox: AWS, and Google's storage and Compute Engine, on loopback; start, stop, env, status, fault, reset."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from osvdeploy.cli.output import Result, command
from osvdeploy.context import Context
from osvdeploy.errors import UsageError

if TYPE_CHECKING:
    from osvdeploy.sandbox.control import Running

_directory = click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="The sandbox's directory (or OSVDEPLOY_SANDBOX); it holds the account.",
)

FAULTS = ("before", "after", "hang", "hang-after", "unreachable", "throttled", "denied", "broken", "exhausted", "quota")
"""Kinds of :class:`osvdeploy.sandbox.faults.FaultKind`, which is not loaded to print help."""


def _chosen(directory: Path | None) -> Path:
    from osvdeploy.sandbox.control import default_directory

    return directory.absolute() if directory is not None else default_directory()


@click.group(short_help="AWS and Google Cloud on loopback, without an account.")
def sandbox() -> None:
    """A strict simulator, on this machine, of the APIs of AWS that osvdeploy uses, and of Google's Cloud Storage and
    Compute Engine's images and managed groups.

    What the cloud refuses, it refuses; instances are processes of this machine, balancers listen on loopback.

    \b
    Example:
        osvdeploy sandbox start --speed 10
        eval "$(osvdeploy sandbox env)"
        aws ec2 describe-instances
        osvdeploy sandbox stop
    """


@sandbox.command(short_help="Start it, or say where it runs.")
@_directory
@click.option(
    "--speed", type=click.FloatRange(0.01, 1000), default=1.0, show_default=True, help="Times as fast as the cloud."
)
@click.option("--port", type=click.IntRange(0, 65535), help="Of the API on 127.0.0.1; left out: a free one.")
@click.option("--foreground", is_flag=True, help="Stay, and serve until Ctrl-C.")
@command
def start(ctx: Context, directory: Path | None, speed: float, port: int | None, foreground: bool) -> Result:
    """Start the sandbox in the background and wait until it answers. The account is the one it had when it stopped.

    Example: osvdeploy sandbox start --speed 10
    """
    from osvdeploy.sandbox import control

    folder = _chosen(directory)
    if foreground:
        return _serve(ctx, folder, speed, port)
    running, fresh = control.start(folder, speed=speed, port=port)
    told = _introduction(running) if fresh else f"already running: {_introduction(running)}"
    document = {"url": running.url, "speed": running.speed, "pid": running.pid, "started": fresh}
    return Result(told, {**document, "directory": folder})


def _introduction(running: Running) -> str:
    pace = "as fast as the cloud" if running.speed == 1 else f"{running.speed:g} times as fast as the cloud"
    return (
        f"sandbox at {running.url}, {pace}\npoint clients of AWS and Google at it: " + 'eval "$(osvdeploy sandbox env)"'
    )


def _serve(ctx: Context, folder: Path, speed: float, port: int | None) -> Result:
    from osvdeploy.events import Note
    from osvdeploy.sandbox import control
    from osvdeploy.sandbox.core import Sandbox
    from osvdeploy.sandbox.http import Shell
    from osvdeploy.sandbox.loopback import Claim
    from osvdeploy.sandbox.runners.process import ProcessRunner

    if control.find(folder) is not None:
        raise UsageError(f"a sandbox is running on {folder}", hint="stop it first: `osvdeploy sandbox stop`")
    chosen = control.chosen_port(folder, port)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: {error.strerror}", hint="choose another with --dir or OSVDEPLOY_SANDBOX") from None
    # Guests end with the sandbox; what one that was killed left of them is of no use.
    guests = folder / "guests"
    claim = Claim()
    account = Sandbox(folder, runner=ProcessRunner(guests), speed=speed, free=claim.take)
    # One that was made before keeps its addresses, whoever has them by now; its listeners say when they cannot open.
    claim.take(account.balancers)
    shutil.rmtree(guests, ignore_errors=True)
    try:
        shell = Shell(account, port=chosen)
    except OSError as error:
        account.close()
        raise UsageError(f"port {chosen} of 127.0.0.1: {error.strerror}", hint="choose another with --port") from None
    shell.start()
    try:
        control.announce(folder, os.getpid(), shell.url, speed, shell.sandbox.balancers)
        ctx.report(Note(f"sandbox at {shell.url}, {speed:g} times as fast as the cloud; Ctrl-C stops it"))
        while not ctx.cancel.cancelled and not shell.ended.wait(0.1):
            pass
    finally:
        shell.stop()
        control.withdraw(folder)
        claim.close()
    return Result("stopped", {"stopped": True})


@sandbox.command(short_help="Stop it; the account is kept.")
@_directory
@command
def stop(ctx: Context, directory: Path | None) -> Result:
    """Stop the sandbox and the instances in it. The next start goes on with the same account.

    Example: osvdeploy sandbox stop
    """
    from osvdeploy.sandbox import control

    stopped = control.stop(_chosen(directory))
    return Result("stopped" if stopped else "no sandbox was running", {"stopped": stopped})


@sandbox.command(short_help="Point a shell's AWS and Google clients at it.")
@_directory
@command
def env(ctx: Context, directory: Path | None) -> Result:
    """Print the lines that a shell evaluates, so that any AWS client, Google's clients of Cloud Storage, and
    osvdeploy itself talk to the sandbox.

    Example: eval "$(osvdeploy sandbox env)"
    """
    from osvdeploy.sandbox import control

    found = control.environment(control.required(_chosen(directory)))
    return Result(found.lines(), {"variables": dict(found.variables), "unset": found.unset})


@sandbox.command(short_help="What runs, and what the account holds.")
@_directory
@click.option("--calls", is_flag=True, help="Also every API call.")
@click.option("--after", type=click.IntRange(0), default=0, help="Only calls with a higher number.")
@command
def status(ctx: Context, directory: Path | None, calls: bool, after: int) -> Result:
    """Tell whether the sandbox runs, what the account holds, and which calls it received.

    Example: osvdeploy sandbox status --calls
    """
    from osvdeploy.sandbox import control

    folder = _chosen(directory)
    running = control.find(folder)
    if running is None:
        return Result("no sandbox is running", {"running": False, "directory": folder})
    told = running.ask("GET", "status")
    document: dict[str, Any] = {"running": True, "directory": folder, **told}
    lines = [
        f"{'running':<12}{told['url']}, {told['speed']:g} times as fast as the cloud, since {told['started'][:19]}Z"
    ]
    lines += [f"{'listener':<12}{address}" for address in told["listeners"]]
    lines += [f"{'problem':<12}listener {problem}" for problem in told["problems"]]
    lines += [f"{'fault':<12}{each['kind']} for {each['operation']}" for each in told["faults"]]
    lines += [f"{kind:<24}{len(held):>4}  {' '.join(held)}" for kind, held in told["inventory"].items()]
    if calls:
        document["calls"] = running.ask("GET", f"calls?after={after}")["calls"]
        lines += ["", *map(_call_line, document["calls"])]
    return Result("\n".join(lines), document)


def _call_line(call: dict[str, Any]) -> str:
    kind = "changes" if call["mutating"] else "reads"
    what = f"{call['service']}.{call['operation']}"
    return f"{call['number']:>6}  {call['time'][11:23]}  {kind:<8}{what:<44}{call['error'] or ''}".rstrip()


@sandbox.command(short_help="Let calls fail on purpose.")
@_directory
@click.argument("operation", required=False)
@click.argument("kind", required=False, type=click.Choice(FAULTS))
@click.option("--skip", type=click.IntRange(0), default=0, help="Let this many matching calls pass first.")
@click.option("--times", type=click.IntRange(1), default=1, show_default=True, help="Strike this many calls.")
@click.option("--always", is_flag=True, help="Strike every matching call.")
@click.option("--clear", is_flag=True, help="Take all faults away.")
@command
def fault(
    ctx: Context,
    directory: Path | None,
    operation: str | None,
    kind: str | None,
    skip: int,
    times: int,
    always: bool,
    clear: bool,
) -> Result:
    """Let the next call of OPERATION (a name or a pattern: RunInstances, "ec2:Describe*", objects.insert) go wrong.

    before: the connection ends, nothing happened. after: it took effect, the answer is lost. hang, hang-after: the
    same, but the client waits. unreachable, throttled, denied, broken: refused.

    \b
    Example:
        osvdeploy sandbox fault elbv2:ModifyRule after
        osvdeploy sandbox fault --clear
    """
    from osvdeploy.sandbox import control

    running = control.required(_chosen(directory))
    if clear:
        running.ask("DELETE", "faults")
    elif operation is None or kind is None:
        raise UsageError("which OPERATION, and which KIND of fault?", hint="see `osvdeploy sandbox fault --help`")
    if operation is not None and kind is not None:
        wanted = {"operation": operation, "kind": kind, "skip": skip, "times": None if always else times}
        running.ask("POST", "faults", wanted)
    waiting = running.ask("GET", "status")["faults"]
    lines = [f"{each['kind']} for {each['operation']}" for each in waiting]
    return Result("\n".join(lines) or "no faults wait", {"faults": waiting})


@sandbox.command(short_help="Stop it and forget the account.")
@_directory
@command
def reset(ctx: Context, directory: Path | None) -> Result:
    """Stop the sandbox and forget everything that its account holds.

    Example: osvdeploy sandbox reset
    """
    from osvdeploy.sandbox import control

    forgotten = control.reset(_chosen(directory))
    return Result("the account is empty now" if forgotten else "there was no account", {"forgotten": forgotten})
