"""The command line: arguments, output, exit codes; nothing else.

A command's module is imported when it is called, so that ``osvdeploy version`` costs no more than starting Python and
click. What a command needs of the product it imports itself, inside.
"""

from __future__ import annotations

import gc
import importlib
import io
import os
import sys
from typing import Final

import click

from osvdeploy.version import __version__

# name -> (module, attribute, what --help says of it), in the order of a service's life.
COMMANDS: Final[dict[str, tuple[str, str, str]]] = {
    "check": ("osvdeploy.cli.image", "check", "Everything that can be known without building."),
    "build": ("osvdeploy.cli.image", "build", "osv.toml to a raw disk."),
    "run": ("osvdeploy.cli.run", "run", "An image in QEMU, here."),
    "lock": ("osvdeploy.cli.image", "lock", "What came from elsewhere, pinned in osv.lock."),
    "inspect": ("osvdeploy.cli.inspect", "inspect", "What is in an image, whoever made it."),
    "convert": ("osvdeploy.cli.convert", "convert", "raw, qcow2, vmdk, vhd, Google's tar.gz into one another."),
    "kernel": ("osvdeploy.cli.kernel", "kernel", "What a kernel is; the kernels kept here."),
    "cache": ("osvdeploy.cli.cache", "cache", "What builds keep on this machine; room again."),
    "publish": ("osvdeploy.cli.release", "publish", "Raw disk to cloud image (AMI, GCE image)."),
    "verify": ("osvdeploy.cli.verify", "verify", "Read a published image back and compare."),
    "withdraw": ("osvdeploy.cli.withdraw", "withdraw", "Let image families lead past a version."),
    "plan": ("osvdeploy.cli.plan", "plan", "What a deploy would do, and what it costs."),
    "deploy": ("osvdeploy.cli.release", "deploy", "Build and publish if needed, roll out, watch."),
    "probe": ("osvdeploy.cli.probe", "probe", "One probe, for a rollout elsewhere."),
    "status": ("osvdeploy.cli.release", "status", "What serves now."),
    "history": ("osvdeploy.cli.release", "history", "Releases, and how each rollout ended."),
    "releases": ("osvdeploy.cli.releases", "releases", "The releases of a service, to a file and from one."),
    "diff": ("osvdeploy.cli.diff", "diff", "What makes a release another."),
    "events": ("osvdeploy.cli.reports", "events", "What happened to a service, and who did it."),
    "audit": ("osvdeploy.cli.reports", "audit", "Who changed what."),
    "report": ("osvdeploy.cli.reports", "report", "A rollout as one HTML file."),
    "wait": ("osvdeploy.cli.control", "wait", "Wait for a rollout to come so far."),
    "approve": ("osvdeploy.cli.control", "approve", "Let a rollout pass that waits for you."),
    "promote": ("osvdeploy.cli.control", "promote", "Leave out the rest of a bake, or all steps."),
    "pause": ("osvdeploy.cli.control", "pause", "Keep a rollout's traffic as it is."),
    "resume": ("osvdeploy.cli.control", "resume", "Let a paused rollout go on."),
    "abort": ("osvdeploy.cli.control", "abort", "End a rollout; what served before serves."),
    "recover": ("osvdeploy.cli.control", "recover", "Go on with a rollout that nobody works on."),
    "retry": ("osvdeploy.cli.control", "retry", "Try the last rollout again."),
    "adopt": ("osvdeploy.cli.adopt", "adopt", "Take over what stands in the cloud."),
    "rollback": ("osvdeploy.cli.release", "rollback", "Bring an earlier release back."),
    "hold": ("osvdeploy.cli.release", "hold", "Refuse a release, or every one."),
    "unhold": ("osvdeploy.cli.release", "unhold", "Take the holds away."),
    "drift": ("osvdeploy.cli.control", "drift", "What is not as the ledger says."),
    "pin": ("osvdeploy.cli.control", "pin", "Keep a release, whatever retention says."),
    "unpin": ("osvdeploy.cli.control", "unpin", "Let retention have a release again."),
    "destroy": ("osvdeploy.cli.release", "destroy", "Take a service away, with all it has."),
    "gc": ("osvdeploy.cli.release", "gc", "Remove images and machines that no release needs."),
    "pulumi": ("osvdeploy.cli.pulumi", "pulumi", "The Pulumi provider on this machine."),
    "sandbox": ("osvdeploy.cli.sandbox", "sandbox", "AWS and Google Cloud on loopback, without an account."),
    "demo": ("osvdeploy.cli.demo", "demo", "The whole story, in the sandbox."),
    "schema": ("osvdeploy.cli.about", "schema", "JSON Schema of osv.toml, for editors."),
    "version": ("osvdeploy.cli.about", "version", "The version of osvdeploy."),
}


class _Commands(click.Group):
    """A group that knows its commands by name and imports each when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, told) for name, (_, _, told) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if name and not name.startswith("-") and name not in COMMANDS:
            import difflib

            close = difflib.get_close_matches(name, COMMANDS, n=1)
            meant = f" (did you mean {close[0]!r}?)" if close else ""
            ctx.fail(f"no command {name!r}{meant}")
        return super().resolve_command(ctx, args)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="osvdeploy")
def cli() -> None:
    """Build, publish and roll out OSv unikernel images.

    One osv.toml says what an image is and where it runs. Results go to stdout (--json for programs), the story to
    stderr. Exit codes: 0 done, 1 failed, 2 refused (spec, usage, a pin, a finding; nothing was made), 3 rolled back
    (the old release serves), 4 lease held elsewhere, 5 waiting for approval, 6 rollback failed, 130 interrupted.
    """


def main() -> None:
    """Run the command line. Ends the process with the command's exit code."""
    # Starting up makes many objects and drops few; looking for garbage among them takes 8 ms of a build without work.
    gc.set_threshold(100_000)
    # Looking for plugins means reading the metadata of everything that is installed; a spec has no use for any.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # File names are bytes, and go out as they came; what another encoding lacks is escaped.
            known = stream.encoding.lower().replace("-", "") == "utf8"
            stream.reconfigure(errors="surrogateescape" if known else "backslashreplace")
    try:
        cli.main(standalone_mode=False, prog_name="osvdeploy")
    except click.exceptions.Exit as ended:
        sys.exit(ended.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        sys.exit(_show_misuse(error))
    except click.Abort:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader went away (`osvdeploy history | head`).
        from osvdeploy.cli.output import silence

        silence(sys.stdout)
        sys.exit(1)
    except Exception as error:
        from osvdeploy.cli.output import show_bug

        sys.exit(show_bug("", error, "--json" in sys.argv))


def _show_misuse(error: click.ClickException) -> int:
    """A command line that cannot be read is an error like any other, as a document too."""
    from osvdeploy.cli.output import show_error
    from osvdeploy.errors import UsageError

    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context is not None else "osvdeploy"
    told = UsageError(error.format_message(), hint=f"`{path} --help` tells what it takes")
    name = "" if path == "osvdeploy" else path.removeprefix("osvdeploy ")
    return show_error(name, told, "--json" in sys.argv)
