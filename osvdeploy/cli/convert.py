"""convert: a disk image from one format to another."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from osvdeploy.cli.options import spec_file_option
from osvdeploy.cli.output import Result, command
from osvdeploy.context import Context
from osvdeploy.errors import UsageError

if TYPE_CHECKING:
    from osvdeploy.api import Converted

SOURCES = ("raw", "qcow2", "vmdk", "vhd", "gce", "vdi", "vhdx")
TARGETS = ("raw", "qcow2", "vmdk", "vhd", "vhd-fixed", "gce")


@click.command(short_help="raw, qcow2, vmdk, vhd, Google's tar.gz into one another.")
@spec_file_option
@click.option("--format", "wanted", type=click.Choice(TARGETS), help="What to write; else TARGET's ending says it.")
@click.option("--from", "expected", type=click.Choice(SOURCES), help="Refuse a source of another format than this.")
@click.option("--force", is_flag=True, help="Replace TARGET where it exists.")
@click.argument("names", nargs=-1, required=True, metavar="[SOURCE] TARGET")
@command
def convert(
    ctx: Context,
    spec_file: Path,
    sets: tuple[str, ...],
    wanted: str | None,
    expected: str | None,
    force: bool,
    names: tuple[str, ...],
) -> Result:
    """Write a disk image in another format, without its holes, and read it back.

    SOURCE is an image of any format, told by its bytes, or an osv.toml or its folder: then, and without SOURCE, it is
    the spec's image, built if needed. TARGET's ending says what is written: .raw and .img, .qcow2, .vmdk
    (stream-optimized), .vhd (dynamic), .tar.gz and .tgz (gce, what Google makes images of: the disk grows to whole
    GiB). "-" is standard output, for gce and vmdk.

    Example: osvdeploy convert usr.img orders.tar.gz
    """
    from osvdeploy import api

    context = click.get_current_context()
    if len(names) > 2:
        raise UsageError(
            f"{len(names)} names are given; a source and a target are meant", hint="quote names with spaces"
        )
    image = Path(names[0]) if len(names) == 2 else None
    spec_named = context.get_parameter_source("spec_file") is not click.core.ParameterSource.DEFAULT
    if image is not None and spec_named:
        raise UsageError(f"both an image and a spec are given: {image}, {spec_file}", hint="leave one of them out")
    if image is None and not spec_named and not spec_file.exists():
        raise UsageError(
            f"{names[0]}: the only name that is given, and there is no {spec_file} here whose image could be meant",
            hint="osvdeploy convert SOURCE TARGET",
        )
    if image is not None and (image.suffix == ".toml" or (image / "osv.toml").is_file()):
        spec_file, image = (image if image.suffix == ".toml" else image / "osv.toml"), None
    if image is not None and sets:
        raise UsageError(f"--set changes a spec, and {image} is an image", hint="leave it out, or name the spec")
    if len(names) == 1 and not spec_named and not force and Path(names[0]).is_file():
        # An image that is there is more likely meant to be converted than to be replaced.
        raise UsageError(
            f"{names[0]}: exists already, and the only name that is given is TARGET: the image of {spec_file} would be "
            "written there",
            hint=f"to convert it: `osvdeploy convert {names[0]} TARGET`; to replace it: --force",
        )
    source = image if image is not None else api.load_spec(spec_file, sets=sets)
    if names[-1] != "-":
        done = api.convert(ctx, source, Path(names[-1]), wanted=wanted, expected=expected, force=force)
        return Result(_told(done), _document(done))
    if context.params["as_json"]:
        raise UsageError("--json and the image cannot both go to standard output", hint="name a file as TARGET")
    if wanted is None:
        raise UsageError(
            "standard output: no name that says which format is wanted", hint="say it: --format gce, or --format vmdk"
        )
    if sys.stdout.isatty():
        raise UsageError("standard output is a terminal", hint="lead it into a file or a program, or name a TARGET")
    from osvdeploy.events import Note

    done = api.convert(ctx, source, sys.stdout.buffer, wanted=wanted, expected=expected)
    ctx.report(Note(_told(done)))
    return Result("")


def _told(done: Converted) -> str:
    from osvdeploy.sizes import format_size

    detail = f" ({done.detail})" if done.detail else ""
    lines = [
        f"{done.target or 'standard output'}: {done.format}, {format_size(done.bytes)}: a disk of "
        f"{format_size(done.size)} with {format_size(done.data)} of data, from {done.source_format}{detail}"
    ]
    if done.size != done.source_size:
        lines.append(
            f"the disk grew by zeros from {done.source_size} to {done.size} bytes: {done.format} takes {_unit(done)}"
        )
    return "\n".join(lines)


def _unit(done: Converted) -> str:
    return {"gce": "whole GiB", "vhd-fixed": "whole MiB"}.get(done.format, "whole sectors of 512 bytes")


def _document(done: Converted) -> dict[str, object]:
    return {
        "source": done.source,
        "source_format": done.source_format,
        "source_size": done.source_size,
        "target": done.target,
        "format": done.format,
        "size": done.size,
        "data": done.data,
        "bytes": done.bytes,
        "digest": done.digest,
        "sha256": done.sha256,
    }
