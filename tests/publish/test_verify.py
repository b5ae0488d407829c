"""Reading a published image back: equal is said of what is equal, and the rest by its place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osvdeploy.cloud.interfaces import CloudImage
from osvdeploy.context import Context, VirtualClock
from osvdeploy.errors import NotFound
from osvdeploy.osv.cmdline import BootCommand
from osvdeploy.osv.image import Extent, RawImage
from osvdeploy.publish.journal import Journal
from osvdeploy.publish.publisher import publish_image
from osvdeploy.publish.verify import Comparison, compare_published
from osvdeploy.sizes import KIB
from tests.publish.disk import BLOCK, BOOT, MemoryPlace, raw_disk


class Bench:
    """A disk, published."""

    def __init__(self, folder: Path) -> None:
        self.ctx = Context(clock=VirtualClock())
        self.place = MemoryPlace()
        self.raw = raw_disk(folder / "disk.raw")
        self.image = publish_image(
            self.ctx,
            self.raw,
            app="orders",
            version="1.0.0",
            tags={},
            cloud=self.place.cloud,
            journal=Journal(folder / "state"),
        ).image

    def compare(self, raw: RawImage | None = None, boot: BootCommand | None = None) -> Comparison:
        return compare_published(self.ctx, raw or self.raw, self.image, self.place.snapshots, boot)

    def spoil(self, offset: int) -> None:
        """Change one byte of the cloud's disk."""
        disk = self.image.disk or ""
        data = bytearray(self.place.snapshots.blocks(disk)[offset // BLOCK])
        data[offset % BLOCK] ^= 1
        self.place.snapshots.spoil(disk, offset // BLOCK, bytes(data))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("verify"))


def test_what_was_published_is_equal(published: Bench) -> None:
    """Every block that is needed is compared, blocks of zeros included."""
    assert published.compare() == Comparison(BLOCK, 5, (), ())


@given(offset=st.integers(0, 5 * BLOCK - 1))
def test_any_changed_byte_that_is_read_is_found(tmp_path_factory: pytest.TempPathFactory, offset: int) -> None:
    """One byte that something reads is found, at its place; one that nobody reads is no difference."""
    bench = _bench(tmp_path_factory)
    bench.spoil(offset)
    try:
        found = bench.compare()
    finally:
        bench.spoil(offset)
    read = any(each.start <= offset < each.end for each in bench.raw.read)
    assert found.equal is not read
    assert all(each.start <= offset < each.end for each in found.differing)


_kept: list[Bench] = []


def _bench(factory: pytest.TempPathFactory) -> Bench:
    """One for all examples: each leaves it as it was."""
    if not _kept:
        _kept.append(Bench(factory.mktemp("spoiled")))
    return _kept[0]


def test_a_block_that_is_not_there_is_missing(published: Bench) -> None:
    """What the cloud's disk does not have is told apart from what differs."""
    more = replace(published.raw, read=(*published.raw.read, Extent(9 * BLOCK, 9 * BLOCK + KIB)))
    found = published.compare(more)
    assert (found.blocks, found.differing, found.missing) == (6, (), (Extent(9 * BLOCK, 9 * BLOCK + KIB),))


def test_a_command_line_of_its_own_is_compared(published: Bench) -> None:
    """An image held to a release's command line differs in its first block, and there alone."""
    boot = BootCommand(BOOT.options, (*BOOT.environment, ("LEVEL", "debug")), BOOT.words)
    found = published.compare(boot=boot)
    assert [each.start // BLOCK for each in found.differing] == [0]


def test_an_image_without_a_disk(published: Bench) -> None:
    """A copy that stands on no disk cannot be read."""
    copy = CloudImage("image-9", "orders-1.0.0", published.raw.digest, None)
    with pytest.raises(NotFound, match="stands on no disk"):
        compare_published(published.ctx, published.raw, copy, published.place.snapshots)
