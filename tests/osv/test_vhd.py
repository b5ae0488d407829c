"""VHD: what is refused by name, and any damage. What is read is tested with the writer (tests/publish)."""

from __future__ import annotations

import os
import struct
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.errors import DiskInvalid
from osvdeploy.osv.vhd import DYNAMIC, FOOTER, HEADER, checksum, is_fixed_vhd, read_vhd
from osvdeploy.publish.vhd import BLOCK, vhd_footer, write_vhd
from osvdeploy.sizes import GIB, MIB
from tests.osv.volumes import Volume

SIZE = 8 * MIB


def dynamic(*blocks: int, size: int = SIZE) -> bytearray:
    """A disk with a few bytes in these blocks."""
    with tempfile.TemporaryFile() as file:
        write_vhd(file.fileno(), size, [(block * BLOCK, b"data" * 128) for block in blocks], lambda: bytes(16))
        return bytearray(os.pread(file.fileno(), 1 << 26, 0))


def fields(footer: bytes, at: int, value: bytes) -> bytes:
    """With another value, and a right checksum."""
    changed = footer[:at] + value + footer[at + len(value) :]
    return changed[:64] + struct.pack(">I", checksum(changed[:64] + bytes(4) + changed[68:])) + changed[68:]


def test_blocks_are_found_and_the_others_are_zeros() -> None:
    disk = read_vhd(Volume(bytes(dynamic(1, 3))))
    assert (disk.size, disk.detail) == (SIZE, "dynamic, blocks of 2MiB")
    assert disk.pread(BLOCK - 4, 8) == bytes(4) + b"data"
    assert disk.pread(SIZE - 4, 100) == bytes(4)
    assert [each.start // BLOCK for each in disk.data(0, disk.size)] == [1, 3]
    assert [(each.start, each.end) for each in disk.data(BLOCK + 5, BLOCK + 9)] == [(BLOCK + 5, BLOCK + 9)]


def test_the_size_goes_by_the_creator() -> None:
    """Virtual PC and QEMU mean the geometry, all others the field."""
    footer = vhd_footer(SIZE, bytes(16))
    for creator, geometry, size in [
        (b"win ", b"\0\x10\4\x11", SIZE),
        (b"vpc ", b"\0\x10\4\x11", 16 * 4 * 17 * 512),
        (b"vpc ", b"\xff\xff\x10\xff", SIZE),
        (b"vbox", b"\0\x10\4\x11", SIZE),
    ]:
        file = Volume(bytes(SIZE) + fields(fields(footer, 28, creator), 56, geometry))
        assert is_fixed_vhd(file) and read_vhd(file).size == size


def moved(file: bytearray, entry: int, place: int) -> bytes:
    struct.pack_into(">I", file, FOOTER.size + HEADER.size + 4 * entry, place)
    return bytes(file)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (fields(vhd_footer(SIZE, bytes(16)), 60, b"\0\0\0\4"), "changes to another disk"),
        (fields(vhd_footer(SIZE, bytes(16)), 60, b"\0\0\0\7"), "kind 7"),
        (vhd_footer(SIZE, bytes(16))[:70] + b"?" * 442, "checksum"),
        (vhd_footer(SIZE, bytes(16)), "8388608 bytes in a file of 512"),
        (fields(vhd_footer(SIZE, bytes(16)), 48, struct.pack(">Q", 3000 * GIB)), "the format ends"),
        (vhd_footer(SIZE, bytes(16), kind=DYNAMIC), "no header"),
        (b"conectix", "no footer"),
        (moved(dynamic(1, 3), 3, struct.unpack_from(">I", dynamic(1), 1540)[0] + 5), "two blocks"),
        (bytes(dynamic(1, 3)[:4000]), "data is said to stand"),
        (bytes(dynamic(1, 3)[:1530]), "header"),
        (bytes(dynamic(1, 3)[:1540]), "table"),
    ],
)
def test_what_is_wrong_is_told(content: bytes, says: str) -> None:
    with pytest.raises(DiskInvalid, match=says):
        read_vhd(Volume(content)).pread(0, SIZE)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2100), st.integers(0, 255)), min_size=1, max_size=6),
    st.none() | st.integers(0, 6000),
    st.booleans(),
)
def test_any_damage_is_refused_or_read(damage: list[tuple[int, int]], cut: int | None, mended: bool) -> None:
    """Whatever it is, checksums that are right all the same included."""
    file = dynamic(0)
    for at, value in damage:
        file[at] = value
    if mended:
        file[64:68] = struct.pack(">I", checksum(bytes(file[:64] + bytes(4) + file[68:512])))
        file[548:552] = struct.pack(">I", checksum(bytes(file[512:548] + bytes(4) + file[552:1536])))
    try:
        disk = read_vhd(Volume(bytes(file[:cut])))
        for extent in disk.data(0, min(disk.size, GIB)):
            assert extent.end > extent.start
        assert len(disk.pread(0, 3 * MIB)) == min(3 * MIB, disk.size)
    except DiskInvalid:
        pass


def test_a_file_of_other_make_is_no_vhd(tmp_path: Path) -> None:
    assert not is_fixed_vhd(Volume(bytes(5000)))
    assert not is_fixed_vhd(Volume(b"conectix"))
