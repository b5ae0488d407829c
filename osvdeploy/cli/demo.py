"""demo: the whole story, in the sandbox."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from osvdeploy.cli.output import Result, command
from osvdeploy.context import Context


@click.command(short_help="The whole story, in the sandbox.")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("osvdeploy-demo"),
    show_default=True,
    help="Where the story happens; emptied first.",
)
@click.option(
    "--speed", type=click.FloatRange(1, 100), default=10, show_default=True, help="Times as fast as the cloud."
)
@click.option(
    "--cloud", type=click.Choice(["aws", "gcp"]), default="aws", show_default=True, help="Whose the sandbox is."
)
@command
def demo(ctx: Context, folder: Path, speed: float, cloud: str) -> Result:
    """hello from source to live traffic, two bad releases, and back: on this machine, without an account.

    Every step is a command that is shown and can be repeated. With OSV_KERNEL (a loader.img) the images are OSv's.
    Example: osvdeploy demo
    """
    from osvdeploy.cli.tables import table
    from osvdeploy.demo.story import STAGES, Story

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    kernel = Path(os.environ["OSV_KERNEL"]).resolve() if os.environ.get("OSV_KERNEL") else None
    told = Story(folder.resolve(), say, STAGES[cloud], speed=speed, kernel=kernel).tell()
    rows = [
        (each.step, each.outcome, f"{each.seconds:.1f} s" if each.seconds else "", str(each.calls), str(each.mutating))
        for each in told
    ]
    heading = ("STEP", "OUTCOME", "TIME", "API CALLS", "OF THEM CHANGES")
    document = {
        "folder": folder.resolve(),
        "steps": [
            {
                "step": each.step,
                "outcome": each.outcome,
                "seconds": round(each.seconds, 3),
                "calls": each.calls,
                "mutating": each.mutating,
            }
            for each in told
        ],
    }
    return Result("\n" + table(heading, rows), document)
