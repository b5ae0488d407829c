"""Which blocks are sent, and that they are enough."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.digests import Digest
from osvdeploy.errors import DiskInvalid, SourceChanged
from osvdeploy.osv.cmdline import BootCommand
from osvdeploy.osv.image import Extent, RawImage
from osvdeploy.publish.blocks import Outgoing, first_block, needed

BLOCK = 64


def image(path: Path, content: bytes, read: list[Extent]) -> RawImage:
    path.write_bytes(content)
    return RawImage(path, len(content), Digest(""), Digest(""), Digest(""), tuple(read), BootCommand((), (), ("/a",)))


@st.composite
def disks(draw: st.DrawFn) -> tuple[bytes, list[Extent]]:
    """A disk of a few blocks, with runs of zeros, and the ranges of it that something reads."""
    count = draw(st.integers(1, 12))
    content = b"".join(draw(st.sampled_from([bytes(BLOCK), os.urandom(BLOCK)])) for _ in range(count))
    points = sorted(draw(st.lists(st.integers(0, len(content)), max_size=8)))
    return content, [Extent(start, end) for start, end in zip(points[::2], points[1::2], strict=False)]


@settings(max_examples=60, deadline=None)
@given(disks(), st.sets(st.integers(0, 12)))
def test_every_readable_byte_comes_back(disk: tuple[bytes, list[Extent]], stored: set[int]) -> None:
    """Blocks laid over noise, as an encrypted volume shows absent ones, equal the disk wherever something reads."""
    content, read = disk
    with tempfile.TemporaryDirectory() as folder:
        outgoing = Outgoing(image(Path(folder, "disk"), content, read), BLOCK, stored)
        sent = list(outgoing)

    restored = bytearray(os.urandom(len(content)))
    for index in stored & set(outgoing.indexes):  # what an earlier run put
        restored[index * BLOCK : (index + 1) * BLOCK] = content[index * BLOCK : (index + 1) * BLOCK]
    for block in sent:
        assert block.index not in stored
        assert hashlib.sha256(block.data).digest() == block.sha256
        restored[block.index * BLOCK : (block.index + 1) * BLOCK] = block.data

    for extent in read:
        assert restored[extent.start : extent.end] == content[extent.start : extent.end]
    every = [content[index * BLOCK : (index + 1) * BLOCK] for index in outgoing.indexes]
    assert outgoing.checksum() == hashlib.sha256(b"".join(hashlib.sha256(data).digest() for data in every)).digest()


@settings(max_examples=60, deadline=None)
@given(disks())
def test_nothing_else_is_sent(disk: tuple[bytes, list[Extent]]) -> None:
    """A block is sent exactly when some byte of it is read, whatever the byte's value."""
    content, read = disk
    for index in range(len(content) // BLOCK):
        start, end = index * BLOCK, (index + 1) * BLOCK
        holds = any(extent.start < end and start < extent.end and extent.start < extent.end for extent in read)
        assert (index in needed(read, BLOCK)) == holds


def test_indexes_ascend_and_are_unique() -> None:
    """Ranges that share a block, or touch, name it once."""
    assert needed([Extent(0, 10), Extent(10, 65), Extent(127, 128), Extent(500, 500)], BLOCK) == [0, 1]


def test_a_file_that_was_cut_short(tmp_path: Path) -> None:
    """A file shorter than its image says is an error, not a short block."""
    raw = image(tmp_path / "disk", bytes(4 * BLOCK), [Extent(0, 4 * BLOCK)])
    os.truncate(raw.path, 3 * BLOCK + 1)
    with pytest.raises(SourceChanged, match="block 3"):
        list(Outgoing(raw, BLOCK))
    os.truncate(raw.path, 1)
    with pytest.raises(SourceChanged):
        first_block(raw, BLOCK)


def test_a_range_beyond_the_disk(tmp_path: Path) -> None:
    """A disk that reads beyond its own end is refused before anything is read."""
    with pytest.raises(DiskInvalid):
        Outgoing(image(tmp_path / "disk", bytes(2 * BLOCK), [Extent(0, 2 * BLOCK + 1)]), BLOCK)


def test_a_checksum_too_early(tmp_path: Path) -> None:
    """There is no checksum of blocks that were not read."""
    with pytest.raises(ValueError, match="not all been read"):
        Outgoing(image(tmp_path / "disk", bytes(BLOCK), [Extent(0, 1)]), BLOCK).checksum()
