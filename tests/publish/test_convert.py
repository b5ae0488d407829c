"""Disks in every format: what comes back, what is left out, and which bytes they are."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.errors import DiskInvalid
from osvdeploy.osv.formats import SourceFormat, open_as, open_disk
from osvdeploy.osv.image import Extent
from osvdeploy.osv.tarball import Tarball
from osvdeploy.publish.convert import CHUNK, Contents, Grown, Reading, Target, fitted, pieces_of, streamed, write
from osvdeploy.sizes import GIB, KIB, MIB, TIB
from tests.osv.volumes import Volume

PLACED = st.lists(
    st.tuples(st.integers(0, 4 * MIB), st.binary(min_size=1, max_size=50), st.integers(1, 4000)), max_size=6
)
SIZES = st.integers(4 * MIB // 512, 5 * MIB // 512).map(lambda sectors: sectors * 512)


def disk_of(placed: list[tuple[int, bytes, int]], size: int) -> bytes:
    content = bytearray(size)
    for at, part, times in placed:
        written = (part * times)[: size - at]
        content[at : at + len(written)] = written
    return bytes(content)


def put(target: Target, content: bytes, path: Path) -> Contents:
    """Write a disk, and tell what was on it."""
    disk = Grown(Volume(content), fitted(len(content), target))
    reading = Reading(disk.size, pieces_of(disk))
    with path.open("w+b") as file:
        if target.is_stream:
            file.writelines(streamed(target, disk, reading, threads=2))
        else:
            write(target, file.fileno(), reading)
    return reading.contents


def got(path: Path, target: Target) -> tuple[bytes, Contents]:
    """Read one. Not by what it begins like: on a raw disk that may be anything."""
    with open_as(path, SourceFormat(target.value.removesuffix("-fixed"))) as opened:
        disk = opened.disk
        assert disk is not None
        pieces = disk.pieces() if isinstance(disk, Tarball) else pieces_of(disk)
        content, reading = bytearray(disk.size), Reading(disk.size, pieces)
        for at, run in reading:
            content[at : at + len(run)] = run[: disk.size - at]
        return bytes(content), reading.contents


@pytest.mark.parametrize("target", [each for each in Target if each is not Target.GCE])
@settings(max_examples=25, deadline=None)
@given(PLACED, SIZES)
def test_any_disk_comes_back(target: Target, placed: list[tuple[int, bytes, int]], size: int) -> None:
    """Of every byte, with the same digest as before; and two writings are the same bytes."""
    content = disk_of(placed, size)
    with tempfile.TemporaryDirectory() as folder:
        path, again = Path(folder) / f"disk.{target}", Path(folder) / f"again.{target}"
        contents = put(target, content, path)
        found, told = got(path, target)
        assert found[:size] == content and not any(found[size:])
        assert told == contents
        put(target, content, again)
        assert path.read_bytes() == again.read_bytes()


@settings(max_examples=10, deadline=None)
@given(PLACED, st.integers(13 * MIB, 14 * MIB))
def test_any_disk_comes_back_from_an_archive(placed: list[tuple[int, bytes, int]], size: int) -> None:
    """Grown to a GiB, whatever its length was."""
    content = disk_of(placed, size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "disk"
        contents = put(Target.GCE, content, path)
        with open_disk(path) as opened:
            assert isinstance(opened.disk, Tarball)
            reading = Reading(opened.disk.size, opened.disk.pieces())
            for at, run in reading:
                assert run == content[at : at + len(run)].ljust(len(run), b"\0")
    assert reading.contents == contents
    assert contents.size == GIB


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 3 * CHUNK)), max_size=8),
    st.lists(st.booleans(), min_size=1, max_size=5),
)
@settings(max_examples=60, deadline=None)
def test_how_a_disk_is_cut_does_not_matter(gaps: list[tuple[int, int]], zeros: list[bool]) -> None:
    """Pieces of any length, with any gaps, that are zeros or not: the runs are whole chunks, none of them zeros, and
    tell of the same disk as the disk in one piece."""
    pieces, at = [], 0
    for number, (gap, length) in enumerate(gaps):
        at += gap * 20_000
        pieces.append((at, bytes(length) if zeros[number % len(zeros)] else bytes([1 + number]) * length))
        at += length
    size = at + 512
    content = bytearray(size)
    for place, piece in pieces:
        content[place : place + len(piece)] = piece
    cut, whole = Reading(size, pieces), Reading(size, [(0, bytes(content))])
    for place, run in cut:
        assert place % CHUNK == 0 and len(run) % CHUNK == 0
        assert all(any(run[each : each + CHUNK]) for each in range(0, len(run), CHUNK))
    list(whole)
    assert cut.contents == whole.contents
    assert cut.extents == whole.extents


def test_the_digest_is_what_the_page_says() -> None:
    """sha256 over the size, and place and content of each chunk that is not all zeros."""
    content = bytes(CHUNK) + b"a" * 10 + bytes(3 * CHUNK)
    reading = Reading(len(content), pieces_of(Volume(content)))
    list(reading)
    by_hand = hashlib.sha256(
        struct.pack("<Q", len(content)) + struct.pack("<Q", CHUNK) + (b"a" * 10).ljust(CHUNK, b"\0")
    )
    assert reading.contents == Contents(len(content), CHUNK, reading.contents.digest)
    assert reading.contents.digest == by_hand.hexdigest()


def test_holes_are_not_read() -> None:
    """Nor is what lies behind the end of a disk that grows."""
    volume = Volume(b"a" * 100, 3 * TIB)
    disk = Grown(volume, 4 * TIB)
    assert [(at, len(run)) for at, run in Reading(disk.size, pieces_of(disk))] == [(0, CHUNK)]
    assert volume.asked == [(0, CHUNK)]


def test_a_disk_that_ends_early_is_refused() -> None:
    class Short(Volume):
        def pread(self, offset: int, length: int) -> bytes:
            return super().pread(offset, length)[: max(0, 100 - offset)]

    with pytest.raises(DiskInvalid, match="ends at byte 100"):
        list(pieces_of(Short(bytes(200))))


def test_a_disk_takes_the_unit_of_its_format() -> None:
    """GCE's GiB, Azure's MiB, sectors elsewhere; and a disk that a format cannot hold is refused."""
    assert [fitted(MIB + 1, each) for each in (Target.GCE, Target.VHD_FIXED, Target.QCOW2, Target.RAW)] == [
        GIB,
        2 * MIB,
        MIB + 512,
        MIB + 1,
    ]
    for size, target in [(0, Target.RAW), (2041 * GIB, Target.VHD), (3 * TIB, Target.VMDK)]:
        with pytest.raises(DiskInvalid, match="cannot be written as"):
            fitted(size, target)


def test_a_qcow2_of_many_tables_is_whole(tmp_path: Path) -> None:
    """Data in the first, second and last of its tables, at their edges, and none in one between."""
    size, places = 3 * GIB, [0, GIB // 2 - CHUNK, GIB // 2, GIB, 3 * GIB - CHUNK]
    reading = Reading(size, [(at, bytes([65 + number]) * CHUNK) for number, at in enumerate(places)])
    with (tmp_path / "disk").open("w+b") as file:
        write(Target.QCOW2, file.fileno(), reading)
    with open_disk(tmp_path / "disk") as opened:
        disk = opened.disk
        assert disk is not None and not isinstance(disk, Tarball)
        assert [(run[0], at) for at, run in Reading(size, pieces_of(disk))] == [
            (65, 0),
            (66, places[1]),
            (68, GIB),
            (69, places[4]),
        ]
    assert (tmp_path / "disk").stat().st_size < MIB


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A raw disk of odd size with data at both ends, and a bit in the middle."""
    path = tmp_path_factory.mktemp("original") / "disk.raw"
    with path.open("wb") as file:
        file.write(os.urandom(510) + b"\x55\xaa" + os.urandom(3 * MIB))
        file.seek(700 * MIB)
        file.write(b"middle")
        file.seek(900 * MIB - 512)
        file.write(os.urandom(512))
    yield path


QEMU_NAMES = {Target.VHD: "vpc", Target.VHD_FIXED: "vpc"}
needs_qemu = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")


@pytest.mark.slow
@needs_qemu
@pytest.mark.parametrize("target", [each for each in Target if each is not Target.GCE])
def test_qemu_reads_the_same_disk(target: Target, original: Path, tmp_path: Path) -> None:
    """Byte for byte, and finds nothing wrong with a qcow2."""
    with open_disk(original) as opened, (tmp_path / "disk").open("w+b") as file:
        source = opened.disk
        assert source is not None and not isinstance(source, Tarball)
        disk = Grown(source, fitted(source.size, target))
        reading = Reading(disk.size, pieces_of(disk))
        if target.is_stream:
            file.writelines(streamed(target, disk, reading))
        else:
            write(target, file.fileno(), reading)
    name = QEMU_NAMES.get(target, target.value)
    subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", name, original, tmp_path / "disk"], check=True)
    if target is Target.QCOW2:
        subprocess.run(["qemu-img", "check", tmp_path / "disk"], check=True)


@pytest.mark.slow
@needs_qemu
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("qcow2", "cluster_size=64k"),
        ("qcow2", "compat=0.10,cluster_size=4k"),
        ("vmdk", "subformat=streamOptimized"),
        ("vmdk", "subformat=monolithicSparse"),
        ("vmdk", "subformat=monolithicSparse,zeroed_grain=on"),
        ("vpc", "force_size=on"),
        ("vpc", "force_size=on,subformat=fixed"),
        ("vpc", "subformat=dynamic"),
    ],
)
def test_what_qemu_writes_is_the_same_disk(name: str, options: str, original: Path, tmp_path: Path) -> None:
    """Where QEMU rounds a VHD up to a geometry, the disk has zeros behind it."""
    made = tmp_path / "disk"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", name, "-o", options, original, made], check=True)
    with open_disk(made) as opened, open_disk(original) as expected:
        disk, raw = opened.disk, expected.disk
        assert disk is not None and not isinstance(disk, Tarball) and raw is not None and not isinstance(raw, Tarball)
        assert opened.format.value == {"vpc": "vhd"}.get(name, name)
        assert disk.size == raw.size or name == "vpc"
        assert list(Reading(disk.size, pieces_of(disk))) == list(Reading(raw.size, pieces_of(raw)))
        assert sum(each.end - each.start for each in disk.data(0, disk.size)) < 8 * MIB


def test_extents_are_told_as_they_stand() -> None:
    """What touches is one, and the last one ends with the disk."""
    reading = Reading(3 * CHUNK + 5, pieces_of(Volume(b"a" * (3 * CHUNK + 5))))
    list(reading)
    assert reading.extents == [Extent(0, 3 * CHUNK + 5)]
    assert CHUNK == 64 * KIB
