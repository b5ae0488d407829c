"""ROFS images that nobody would write by mistake."""

from __future__ import annotations

import struct
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.errors import DiskInvalid
from osvdeploy.osv.filetree import Content, Directory, Entry, FileTree
from osvdeploy.osv.rofs import RofsFile, RofsReader, read_rofs
from osvdeploy.osv.rofs import reader as rofs_reader
from tests.osv.images import file_trees
from tests.osv.rofs_files import make_rofs, tree_of
from tests.osv.volumes import Volume

MIB = 1 << 20


def read(image: bytes, size: int | None = None) -> RofsReader:
    volume = Volume(image, size)
    return read_rofs(volume.pread, volume.size)


def test_a_hole_is_no_eight_million_inodes() -> None:
    """Zeros where the inodes should be end at the first, whatever their number is said to be."""
    blocks = 64 * MIB // 512
    superblock = struct.pack("<8Q", 0xDEADBEAD, 1, 512, 1, blocks, 0, 0, 64 * MIB // 32).ljust(512, b"\0")
    tracemalloc.start()
    with pytest.raises(DiskInvalid, match="inode 1 says it is inode 0"):
        read(superblock, 65 * MIB)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 260 * MIB  # the tables, and copies of them


def test_long_paths_do_not_multiply(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of names below one long name are refused before their paths fill the memory."""
    monkeypatch.setattr(rofs_reader, "PATHS_LIMIT", 4 * MIB)
    folder = b"/" + b"x" * 4000
    entries: dict[bytes, Entry] = {b"/": Directory(), folder: Directory()}
    entries |= {folder + b"/%d" % number: Content(b"") for number in range(1100)}
    tree = FileTree(entries)
    with pytest.raises(DiskInvalid, match="the paths of its files take more than 4194304 bytes"):
        read(make_rofs(tree))


def test_contents_within_the_tables_are_refused() -> None:
    """No writer puts a file's bytes where superblock and tables stand; one that seems to is damaged."""
    tree = tree_of({b"/a": b"x" * 1024})
    image = make_rofs(tree, {b"/a": 8}, tables=1)
    node = read(image).nodes[b"/a"]
    assert isinstance(node, RofsFile)
    at = image.index(struct.pack("<QQQQ", 0x8000, node.inode, 8, 1024)) + 16
    with pytest.raises(DiskInvalid, match="/a at byte 0 and the superblock, which ends at 512, overlap"):
        read(image[:at] + bytes(8) + image[at + 8 :])


@settings(max_examples=60, deadline=None)
@given(file_trees(), st.booleans(), st.data())
def test_flipped_bits_are_refused_or_read(tree: FileTree, first: bool, data: st.DataObject) -> None:
    """One to three bits of a valid image, in superblock and tables wherever they stand: DiskInvalid, or a tree whose
    every byte can be read."""
    image = bytearray(make_rofs(tree, {path: 100 + 8 * at for at, (path, _) in enumerate(tree.files())}, tables=1))
    tables = struct.unpack_from("<Q", image, 32)[0] * 512
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, 63) if first else st.integers(512, 511 + tables))
        image[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        reader = read(bytes(image))
        for node in reader.nodes.values():
            if isinstance(node, RofsFile):
                assert sum(len(piece) for piece in reader.stream(node)) == node.size
    except DiskInvalid:
        pass
