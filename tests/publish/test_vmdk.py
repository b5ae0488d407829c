"""The VMDK of a disk: read back by our reader and by QEMU's, the same bytes each time, without the holes."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from osvdeploy.errors import DiskInvalid, SourceChanged
from osvdeploy.osv.image import Extent, RawImage
from osvdeploy.osv.vmdk import read_vmdk
from osvdeploy.publish.vmdk import GRAIN, VmdkSource
from osvdeploy.sizes import GIB, KIB, MIB
from tests.publish.disk import bytes_of, raw_disk


@dataclass(frozen=True)
class Held:
    """Bytes in memory, as :class:`~osvdeploy.osv.disk.RandomAccess`."""

    content: bytes

    @property
    def size(self) -> int:
        return len(self.content)

    def pread(self, offset: int, length: int) -> bytes:
        return self.content[offset : offset + length] if offset >= 0 else b""


def disk(path: Path, size: int, extents: Iterable[Extent], seed: bytes = b"disk") -> RawImage:
    """A disk with other bytes everywhere in these extents."""
    extents = tuple(extents)
    with path.open("wb") as file:
        file.truncate(size)
        for extent in extents:
            file.seek(extent.start)
            file.write(hashlib.shake_128(seed + str(extent).encode()).digest(extent.end - extent.start))
    return replace(raw_disk(path.with_suffix(".other"), blocks=1), path=path, size=size, read=extents)


def packed(raw: RawImage, threads: int = 2) -> bytes:
    return b"".join(VmdkSource(raw, threads).pieces())


def test_what_is_read_comes_back(tmp_path: Path) -> None:
    """Every byte that something reads, zeros included; the holes are holes."""
    raw = raw_disk(tmp_path / "disk.raw", blocks=5)
    found = read_vmdk(Held(packed(raw)))
    assert found.size == raw.size
    for extent in raw.read:
        assert found.pread(extent.start, extent.end - extent.start) == bytes_of(raw, extent)
    assert [(each.start // GRAIN, each.end // GRAIN) for each in found.data(0, raw.size)] == [
        (index, index + 1) for index in range(5)
    ]
    assert found.pread(GIB - 10, 100) == bytes(10)


def test_the_same_bytes_each_time_whatever_the_threads(tmp_path: Path) -> None:
    """Of two runs, of one thread or many; and the digest names the disk and the writer."""
    raw = disk(tmp_path / "disk.raw", GIB, [Extent(0, 5 * MIB), Extent(700 * MIB, 703 * MIB)])
    once = packed(raw, 1)
    assert packed(raw, 1) == packed(raw, 7) == once
    source = VmdkSource(raw)
    assert b"".join(source.pieces()) == b"".join(source.pieces())
    other = replace(raw, digest=raw_disk(tmp_path / "other", seed=b"2").digest)
    assert VmdkSource(raw).digest == VmdkSource(replace(raw)).digest != VmdkSource(other).digest


def test_a_disk_of_holes_is_small(tmp_path: Path) -> None:
    """A GiB with 8 MiB in it is not much more than these."""
    raw = disk(tmp_path / "disk.raw", GIB, [Extent(0, 8 * MIB)])
    assert len(packed(raw)) < 8.5 * MIB


EXTENTS = st.lists(
    st.tuples(st.integers(0, 40 * MIB - 1), st.integers(1, 300 * KIB)).map(
        lambda each: Extent(each[0], min(each[0] + each[1], 40 * MIB))
    ),
    max_size=5,
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(extents=EXTENTS)
def test_any_extents_come_back(tmp_path: Path, extents: list[Extent]) -> None:
    """Wherever they lie, over the ends of grains and tables."""
    raw = disk(tmp_path / "disk.raw", 40 * MIB, extents)
    found = read_vmdk(Held(packed(raw)))
    for extent in extents:
        assert found.pread(extent.start, extent.end - extent.start) == bytes_of(raw, extent)


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")
@pytest.mark.slow
def test_qemu_reads_it_and_ours_reads_qemu_s(tmp_path: Path) -> None:
    """What is written is a VMDK to others, and what others write is one to the reader."""
    raw = disk(tmp_path / "disk.raw", 64 * MIB, [Extent(0, 3 * MIB), Extent(33 * MIB + 1000, 35 * MIB)])
    (tmp_path / "ours.vmdk").write_bytes(packed(raw))
    subprocess.run(
        ["qemu-img", "convert", "-f", "vmdk", "-O", "raw", tmp_path / "ours.vmdk", tmp_path / "back.raw"], check=True
    )
    assert (tmp_path / "back.raw").read_bytes() == raw.path.read_bytes()
    made = ["-o", "subformat=streamOptimized", str(raw.path), str(tmp_path / "theirs.vmdk")]
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "vmdk", *made], check=True)
    found = read_vmdk(Held((tmp_path / "theirs.vmdk").read_bytes()))
    assert found.pread(0, found.size) == raw.path.read_bytes()


def test_a_disk_that_changes_is_noticed(tmp_path: Path) -> None:
    """Cut short while it is read, or reading beyond its size from the beginning."""
    raw = disk(tmp_path / "disk.raw", 8 * MIB, [Extent(0, 8 * MIB)])
    with raw.path.open("r+b") as file:
        file.truncate(5 * MIB + 5)
    with pytest.raises(SourceChanged, match="ends within"):
        packed(raw)
    with pytest.raises(DiskInvalid):
        VmdkSource(replace(raw, read=(Extent(0, 9 * MIB),)))
    with pytest.raises(DiskInvalid):
        VmdkSource(replace(raw, size=8 * MIB + 512))


def test_leaving_early_ends_it(tmp_path: Path) -> None:
    """Who takes the first pieces alone waits for nothing more."""
    raw = disk(tmp_path / "disk.raw", 64 * MIB, [Extent(0, 64 * MIB)])
    pieces = VmdkSource(raw).pieces()
    assert len(next(pieces)) == 64 * KIB
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]  # a generator


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 70_000), byte=st.integers(0, 255), length=st.integers(0, 80_000))
def test_a_damaged_file_is_refused_or_read(tmp_path: Path, at: int, byte: int, length: int) -> None:
    """Whatever is wrong with it ends in an error of ours, in little memory."""
    good = packed(disk(tmp_path / "disk.raw", 4 * MIB, [Extent(0, 10_000)]))
    bad = bytearray(good[: len(good) - length] if length < 70_000 else good)
    if at < len(bad):
        bad[at] = byte
    try:
        found = read_vmdk(Held(bytes(bad)))
        assert len(found.pread(0, 4 * MIB)) <= 4 * MIB
    except DiskInvalid:
        pass
