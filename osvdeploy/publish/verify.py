"""A published image read back, and compared with the disk that it was made of.

What something reads is compared, and nothing else: an import leaves out what nobody reads, where a block upload sends
the rest of a block along. A release's disk differs from its image's in block 0, where its own command line stands; that
block is made anew here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from osvdeploy.cloud.interfaces import Block, CloudImage, Snapshots
from osvdeploy.context import Context
from osvdeploy.errors import NotFound, SourceChanged
from osvdeploy.events import Progress
from osvdeploy.osv.cmdline import BootCommand
from osvdeploy.osv.disk import release_block
from osvdeploy.osv.image import Extent, RawImage
from osvdeploy.publish.blocks import needed


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of it. ``blocks`` of ``block_size`` bytes were compared; ``differing`` are the ranges of the disk that
    hold other bytes in the cloud, in ascending order, whole read ranges of one block each; ``missing`` are likewise not
    there at all."""

    block_size: int
    blocks: int
    differing: tuple[Extent, ...]
    missing: tuple[Extent, ...]

    @property
    def equal(self) -> bool:
        return not self.differing and not self.missing


def compare_published(
    ctx: Context, raw: RawImage, image: CloudImage, snapshots: Snapshots, boot: BootCommand | None = None
) -> Comparison:
    """Read an image's disk back and compare it with ``raw``; ``boot`` is the command line of a release's own, None for
    the image's. Memory holds the blocks in flight.

    Raises :class:`~osvdeploy.errors.NotFound` where the image stands on no disk, or one that is not there,
    :class:`~osvdeploy.errors.SourceChanged` where the raw disk was cut short meanwhile.
    """
    if image.disk is None:
        raise NotFound(f"{image.name}: {image.id} stands on no disk that could be read")
    size = snapshots.block_size
    left = set(needed(raw.read, size))
    total = len(left)
    differing: list[Extent] = []
    with raw.path.open("rb", buffering=0) as file:

        def got(block: Block) -> None:
            left.discard(block.index)
            ours = os.pread(file.fileno(), size, block.index * size)
            if len(ours) != size:
                raise SourceChanged(f"{raw.path}: ends within block {block.index}", hint="build it again")
            if block.index == 0 and boot is not None:
                ours = release_block(ours, boot)
            if ours != block.data:
                differing.extend(_differing(raw, block, ours))
            ctx.report(Progress(f"read {image.name} back", total - len(left), total, "blocks"))

        snapshots.read(ctx, image.disk, frozenset(left), got)
    missing = [each for index in left for each in _read_of(raw, index, size)]
    return Comparison(size, total, _sorted(differing), _sorted(missing))


def _differing(raw: RawImage, block: Block, ours: bytes) -> Iterator[Extent]:
    start = block.index * len(ours)
    for each in _read_of(raw, block.index, len(ours)):
        here = slice(each.start - start, each.end - start)
        if ours[here] != block.data[here]:
            yield each


def _read_of(raw: RawImage, index: int, size: int) -> Iterator[Extent]:
    """What of a block something reads."""
    for extent in raw.read:
        start, end = max(extent.start, index * size), min(extent.end, (index + 1) * size)
        if start < end:
            yield Extent(start, end)


def _sorted(extents: list[Extent]) -> tuple[Extent, ...]:
    return tuple(sorted(extents, key=lambda extent: extent.start))
