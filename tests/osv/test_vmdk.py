"""Monolithic sparse VMDKs. What is stream-optimized is tested with its writer (tests/publish/test_vmdk.py)."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.errors import DiskInvalid
from osvdeploy.osv.vmdk import read_vmdk
from osvdeploy.sizes import KIB, MIB
from tests.osv.volumes import Volume

GRAIN = 64 * KIB
TABLE = 2048
NO_PARENT = b'# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType="monolithicSparse"\n'


def sparse(
    grains: Mapping[int, int],
    data: int,
    *,
    count: int = 600,
    text: bytes = NO_PARENT,
    tables: tuple[int, ...] = (0, 1),
    flags: int = 3,
) -> bytes:
    """A disk of ``count`` grains: which of ``data`` grains in the file stands for which. ``tables`` says which of the
    two tables each entry of the directory leads to. Grain ``n`` of the file is full of the byte n + 1."""
    directory, first = 2, 3
    start = first + 2 * TABLE // 512
    start += -start % 128
    head = struct.pack(
        "<4sIIQQQQIQQQB4sH", b"KDMV", 1, flags, count * 128, 128, 1, 1, 512, 0, directory, start, 0, b"\n \r\n", 0
    ).ljust(512, b"\0")
    file = bytearray(head + text.ljust(512, b"\0"))
    file += struct.pack(f"<{len(tables)}I", *(first + each * 4 for each in tables)).ljust(512, b"\0")
    entries = [0] * 1024
    for index, place in grains.items():
        entries[index] = start + place * 128 if place >= 0 else 1
    file += struct.pack("<1024I", *entries)
    file = file.ljust(start * 512, b"\0")
    return bytes(file) + b"".join(bytes([1 + each]) * GRAIN for each in range(data))


def test_grains_are_found_and_the_others_are_zeros() -> None:
    """In any order, in both tables; where the header says so, 1 is a grain of zeros."""
    disk = read_vmdk(Volume(sparse({0: 1, 3: 0, 520: 2, 7: -1}, 3, flags=7)))
    assert (disk.size, disk.detail) == (600 * GRAIN, "sparse, grains of 64KiB")
    assert [each.start // GRAIN for each in disk.data(0, disk.size)] == [0, 3, 520]
    assert disk.pread(GRAIN - 1, 2) == b"\2\0"
    assert disk.pread(3 * GRAIN, 1) + disk.pread(520 * GRAIN + 9, 1) + disk.pread(7 * GRAIN, 1) == b"\1\3\0"
    assert disk.pread(disk.size - 1, 9) == b"\0"


def test_two_in_one_place_are_refused() -> None:
    """Or a short file could be a disk of gigabytes of data."""
    for file in (
        sparse({0: 0, 1: 0}, 1),
        sparse({0: 0, 513: 0}, 1),
        sparse({0: 0}, 1, tables=(0, 0)),
    ):
        with pytest.raises(DiskInvalid, match="in one place"):
            list(read_vmdk(Volume(file)).data(0, 600 * GRAIN))


def test_what_is_not_all_of_a_disk_is_refused() -> None:
    """The changes to another one, and one of several files."""
    with pytest.raises(DiskInvalid, match="changes to another disk"):
        read_vmdk(Volume(sparse({}, 0, text=NO_PARENT.replace(b"ffffffff", b"1234abcd"))))
    part = bytearray(sparse({}, 0))
    part[28:36] = bytes(8)
    with pytest.raises(DiskInvalid, match="several files"):
        read_vmdk(Volume(bytes(part)))


def test_a_file_that_was_cut_short_is_refused() -> None:
    disk = read_vmdk(Volume(sparse({0: 0}, 1)[:-5]))
    with pytest.raises(DiskInvalid, match="grain 0"):
        disk.pread(0, GRAIN)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 6000), st.integers(0, 255)), min_size=1, max_size=6),
    st.none() | st.integers(0, 200_000),
)
def test_any_damage_is_refused_or_read(damage: list[tuple[int, int]], cut: int | None) -> None:
    file = bytearray(sparse({0: 1, 3: 0, 520: 2}, 3))
    for at, value in damage:
        file[at] = value
    try:
        disk = read_vmdk(Volume(bytes(file[:cut])))
        stored = sum(each.end - each.start for each in disk.data(0, disk.size))
        assert stored <= len(file) + 2 * MIB
        assert len(disk.pread(0, MIB)) == min(MIB, disk.size)
    except DiskInvalid:
        pass
