"""verify: a published image, read back and compared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from osvdeploy.cli.options import spec_options
from osvdeploy.cli.output import Result, command
from osvdeploy.context import Context

if TYPE_CHECKING:
    from osvdeploy.api import VerifiedImage

_TOLD = 20


@click.command(short_help="Read a published image back and compare.")
@spec_options
@command
def verify(ctx: Context, spec_file: Path, environment: str | None, sets: tuple[str, ...]) -> Result:
    """Read what is published of the spec back, block by block, and compare it with what the spec builds.

    Both the image app-version and the environment's release of it are read, as far as they are there. Changes nothing.
    Exit codes: 0 equal, 1 other bytes are in the cloud, 2 there is nothing to compare. EBS charges for blocks that are
    read. On AWS alone: Google gives no bytes of an image back. Example: osvdeploy verify --env production
    """
    from osvdeploy import api

    found = api.verify(ctx, api.load_spec(spec_file, sets=sets), environment)
    document = {
        "equal": found.equal,
        "images": [
            {
                "id": each.image.id,
                "name": each.image.name,
                "digest": each.image.digest,
                "blocks": each.blocks,
                "block_size": each.block_size,
                "differences": [
                    {"start": one.start, "end": one.end, "missing": one.missing, "holds": one.holds}
                    for one in each.differences
                ],
            }
            for each in found.images
        ],
    }
    lines = [line for each in found.images for line in _told(each)]
    return Result("\n".join(lines), document, 0 if found.equal else 1)


def _told(each: VerifiedImage) -> list[str]:
    head = f"{each.image.name} ({each.image.id}): "
    if not each.differences:
        return [f"{head}equal, {each.blocks} blocks"]
    lines = [f"{head}differs in {len(each.differences)} places of {each.blocks} blocks"]
    lines += [
        f"  bytes {one.start} to {one.end} {'are missing' if one.missing else 'differ'}: {one.holds}"
        for one in each.differences[:_TOLD]
    ]
    if len(each.differences) > _TOLD:
        lines.append(f"  and {len(each.differences) - _TOLD} more; --json lists all")
    return lines
