"""ROFS images that nobody would write by mistake."""

from __future__ import annotations

import struct
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.errors import DiskInvalid, FileTreeInvalid
from osvdeploy.osv.filetree import Content, Directory, Entry, FileTree, TreeBuilder
from osvdeploy.osv.image import Extent
from osvdeploy.osv.rofs import RofsFile, RofsReader, lay_out, read_rofs
from osvdeploy.osv.rofs import layout as rofs_layout
from osvdeploy.osv.rofs import reader as rofs_reader
from osvdeploy.osv.rofs.reader import PATHS_ALWAYS
from osvdeploy.osv.source import Part
from tests.osv.hostile_files import names_of_one_file, superblock
from tests.osv.images import file_trees
from tests.osv.rofs_files import make_rofs, tree_of
from tests.osv.volumes import Volume

KIB, MIB = 1 << 10, 1 << 20


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
    assert peak < 66 * MIB  # the tables


def test_long_paths_do_not_multiply(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of names below one long name are refused before their paths fill the memory."""
    monkeypatch.setattr(rofs_reader, "PATHS_LIMIT", 4 * MIB)
    folder = b"/" + b"x" * 4000
    entries: dict[bytes, Entry] = {b"/": Directory(), folder: Directory()}
    entries |= {folder + b"/%d" % number: Content(b"") for number in range(1100)}
    tree = FileTree(entries)
    with pytest.raises(DiskInvalid, match="the paths of its files take more than 4194304 bytes"):
        read(make_rofs(tree))


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 2000), st.integers(1, 4000), st.sampled_from(["files", "names", "links"]))
def test_memory_goes_by_the_tables(count: int, below: int, kind: str) -> None:
    """Whatever they say: as many files, names of one file or links as fit into them, below a name of any length."""
    builder = TreeBuilder()
    builder.add_directory(b"/" + b"x" * min(below, 255), origin="a test")
    names = [b"/" + b"x" * min(below, 255) + b"/%x" % at for at in range(count)]
    for name in names:
        if kind == "links":
            builder.add_symlink(name, b"a", origin="a test")
        else:
            builder.add_content(name, b"", origin="a test")
    image = make_rofs(builder.tree()) if kind != "names" else names_of_one_file(count, 20 * KIB * 4, below=b"x" * below)
    tracemalloc.start()
    try:
        found = read(image)
        assert len(found.nodes) == count + 2
    except DiskInvalid as error:
        assert "paths of its files take more" in error.message
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < PATHS_ALWAYS + 100 * KIB + 60 * len(image)


def test_tables_that_are_not_there_are_not_read() -> None:
    """A superblock before a hole: nobody makes room for what the file does not have."""
    image = names_of_one_file(10, 64 * KIB)
    hollow = superblock(64 * MIB, 11, 0, 3) + image[64 * KIB :]
    part = Part(Volume(hollow, 65 * MIB), Extent(0, 65 * MIB))
    with pytest.raises(DiskInvalid, match="tables of 64MiB, of which the file holds 64KiB"):
        read_rofs(part.pread, part.size, stored=part)
    assert len(read_rofs(part.pread, part.size).nodes) == 12


def test_more_files_than_anyone_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the reader, and by the writer too."""
    tree = tree_of({b"/%d" % number: b"" for number in range(20)})
    image = make_rofs(tree)
    monkeypatch.setattr(rofs_reader, "NODES_LIMIT", 20)
    monkeypatch.setattr(rofs_layout, "NODES_LIMIT", 20)
    with pytest.raises(DiskInvalid, match="21 files, directories or links; no more than 20"):
        read(image)
    with pytest.raises(FileTreeInvalid, match="21 files, directories and links"):
        lay_out(tree)


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
