from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from osvdeploy.errors import DiskInvalid, FileTreeInvalid, SourceChanged
from osvdeploy.osv import contents, workers
from osvdeploy.osv.filetree import Content, Directory, FileTree, HostFile, Symlink, TreeBuilder
from osvdeploy.osv.image import Extent
from osvdeploy.osv.rofs import RofsDirectory, RofsFile, RofsReader, RofsSymlink, lay_out, read_rofs, write_rofs
from osvdeploy.osv.rofs import layout as rofs_layout
from osvdeploy.osv.rofs import writer as rofs_writer
from tests.osv.images import file_trees


def write(tree: FileTree) -> bytes:
    image = bytearray()
    written = write_rofs(lay_out(tree), image.extend)
    assert (written.size, written.sha256) == (len(image), read(bytes(image)).digest())
    return bytes(image)


def read(image: bytes) -> RofsReader:
    return read_rofs(lambda offset, length: image[offset : offset + length], len(image))


def as_tree(reader: RofsReader) -> dict[bytes, object]:
    """What was read, in the words of a FileTree."""
    tree: dict[bytes, object] = {}
    for path, node in reader.nodes.items():
        match node:
            case RofsFile():
                tree[path] = Content(b"".join(reader.stream(node)))
            case RofsSymlink(target=target):
                tree[path] = Symlink(target)
            case RofsDirectory():
                tree[path] = Directory()
    return tree


@settings(max_examples=150, deadline=None)
@given(file_trees())
def test_any_tree_reads_back_as_written(tree: FileTree) -> None:
    """Any tree reads back as written, whatever its names, sizes and depth."""
    assert as_tree(read(write(tree))) == tree.entries


@settings(max_examples=60, deadline=None)
@given(file_trees(), st.data())
def test_a_torn_image_is_refused_or_read(tree: FileTree, data: st.DataObject) -> None:
    """Random damage gives DiskInvalid or a tree whose every byte can be read: no other error, no endless loop."""
    image = bytearray(write(tree))
    superblock = read(bytes(image)).superblock
    first = superblock.tables_block * 512
    tables_end = first + superblock.tables_blocks * 512 - 1
    places = st.one_of(st.integers(0, 63), st.integers(first, tables_end))
    for at, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=6)):
        image[at] = value
    cut = data.draw(st.sampled_from([len(image), len(image) - 512, 100]))
    try:
        as_tree(read(bytes(image[:cut])))
    except DiskInvalid:
        pass


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 9), min_size=5, max_size=5), st.binary(max_size=2000))
def test_any_superblock_and_tables_are_refused_or_read(fields: list[int], tables: bytes) -> None:
    """A superblock that promises anything over tables of anything is refused in bounded memory and time."""
    image = struct.pack("<8Q", 0xDEADBEAD, 1, 512, *fields).ljust(512, b"\0") + tables
    image += bytes(-len(image) % 512)
    try:
        as_tree(read(image))
    except DiskInvalid:
        pass


def test_the_bytes_are_those_of_the_format() -> None:
    """One file and one link, compared byte for byte with the layout that OSv's driver documents."""
    builder = TreeBuilder()
    builder.add_content("/é".encode(), b"hello", origin="a test")
    builder.add_symlink(b"/\xff", "é".encode(), origin="a test")
    image = write(builder.tree())
    assert image[:512] == struct.pack("<8Q", 0xDEADBEAD, 1, 512, 1, 1, 2, 1, 3).ljust(512, b"\0")
    entries = struct.pack("<QH2s", 2, 2, "é".encode()) + struct.pack("<QH1s", 3, 1, b"\xff")
    links = struct.pack("<H2s", 2, "é".encode())
    inodes = struct.pack("<12Q", 0x4000, 1, 0, 2, 0x8000, 2, 2, 5, 0xA000, 3, 0, 1)
    assert image[512:1024] == (entries + links + inodes).ljust(512, b"\0")
    assert image[1024:] == b"hello".ljust(512, b"\0")


def test_equal_contents_are_stored_once(tmp_path: Path) -> None:
    """Whatever their names, and whether they are files or given; empty files are stored nowhere."""
    builder = TreeBuilder()
    (tmp_path / "file").write_bytes(b"same" * 300)
    builder.add_file(b"/a/file", os.fsencode(tmp_path / "file"))
    builder.add_content(b"/given", b"same" * 300, origin="a test")
    builder.add_content(b"/other", b"other", origin="a test")
    for name in (b"/a/empty", b"/empty"):
        builder.add_content(name, b"", origin="a test")
    image = write(builder.tree())
    assert len(image) == 512 * (1 + 1 + 3 + 1)
    assert list(read(image).places().values()) == [[b"/a/file", b"/given"], [b"/other"]]


def test_an_empty_tree_is_a_root() -> None:
    """A tree of nothing has its root directory and one block of tables."""
    image = write(TreeBuilder().tree())
    assert len(image) == 1024
    assert as_tree(read(image)) == {b"/": Directory()}


def test_files_larger_than_a_buffer_are_copied_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Contents that span buffers and batches, and fill one exactly, come out as they went in."""
    monkeypatch.setattr(contents, "BUFFER_SIZE", 2048)
    for module in (workers, rofs_writer):
        monkeypatch.setattr(module, "BATCH", 4096)
    builder = TreeBuilder()
    for size in (0, 1, 511, 512, 513, 1024, 1536, 2048, 2049, 4096, 10_000):
        path = tmp_path / str(size)
        path.write_bytes(os.urandom(size))
        builder.add_file(b"/%d" % size, os.fsencode(path))
    builder.add_content(b"/inline", bytes(range(256)) * 20, origin="a test")
    expected = {
        path: Content(Path(os.fsdecode(entry.path)).read_bytes()) if isinstance(entry, HostFile) else entry
        for path, entry in builder.tree().entries.items()
    }
    assert as_tree(read(write(builder.tree()))) == expected


@pytest.mark.parametrize("change", ["rewritten", "shorter", "longer", "replaced", "gone"])
def test_a_file_that_changes_under_the_writer_is_named(tmp_path: Path, change: str) -> None:
    """A source that is no longer what the tree says stops the write and is named."""
    path = tmp_path / "page.html"
    path.write_bytes(b"one")
    builder = TreeBuilder()
    builder.add_file(b"/page.html", os.fsencode(path))
    layout = lay_out(builder.tree())
    status = path.stat()
    match change:
        case "rewritten":
            path.write_bytes(b"two")
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
        case "shorter":
            path.write_bytes(b"on")
        case "longer":
            path.write_bytes(b"ones")
        case "replaced":
            path.rename(tmp_path / "old.html")
            path.write_bytes(b"one")
        case "gone":
            path.unlink()
    with pytest.raises(SourceChanged) as refused:
        write_rofs(layout, lambda view: None)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("size", [10, 3000, 100_000])
def test_a_sink_that_fails_ends_the_write(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """The sink's own error comes out, early or late."""
    monkeypatch.setattr(contents, "BUFFER_SIZE", 2048)

    def full(view: memoryview) -> None:
        raise OSError(28, "No space left on device")

    builder = TreeBuilder()
    builder.add_content(b"/file", bytes(size), origin="a test")
    with pytest.raises(OSError, match="No space left"):
        write_rofs(lay_out(builder.tree()), full)


def test_tables_past_what_osv_loads_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer refuses what the reader would: tables beyond the limit."""
    monkeypatch.setattr(rofs_layout, "TABLES_LIMIT", 32)
    builder = TreeBuilder()
    builder.add_directory(b"/a", origin="a test")
    with pytest.raises(FileTreeInvalid, match="ROFS tables"):
        lay_out(builder.tree())


def _image(inodes: list[tuple[int, int, int, int]], entries: list[tuple[int, bytes]], links: list[bytes]) -> bytes:
    tables = b"".join(struct.pack("<QH", number, len(name)) + name for number, name in entries)
    tables += b"".join(struct.pack("<H", len(target)) + target for target in links)
    tables += b"".join(struct.pack("<4Q", *inode) for inode in inodes)
    tables += bytes(-len(tables) % 512)
    counts = (1, len(tables) // 512, len(entries), len(links), len(inodes))
    return struct.pack("<8Q", 0xDEADBEAD, 1, 512, *counts).ljust(512, b"\0") + tables


ROOT = (0x4000, 1, 0, 1)
TWO = [(0x4000, 1, 0, 2), (0x8000, 2, 2, 600), (0x8000, 3, 3, 5)]


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (_image([(0x8000, 1, 0, 0)], [], []), "root, is not a directory"),
        (_image([ROOT, (0x4000, 2, 0, 1)], [(2, b"a")], []), "shares entries|reached twice"),
        (_image([(0x4000, 1, 0, 1), (0x4000, 2, 1, 1)], [(2, b"a"), (1, b"b")], []), "reached twice"),
        (_image([(0x4000, 1, 0, 2), (0x8000, 2, 0, 0)], [(2, b"a"), (2, b"a")], []), "there twice"),
        (_image([ROOT], [(2, b"a")], []), "inode 2 of 1"),
        (_image([ROOT, (0x8000, 2, 1, 3)], [(2, b"a")], []), "/a at byte 512 and the tables.* overlap"),
        (_image([ROOT, (0x8000, 2, 0, 3)], [(2, b"a")], []), "/a at byte 0 and the superblock.* overlap"),
        (_image(TWO, [(2, b"a"), (3, b"b")], []) + bytes(2048), "/b at byte 1536 and /a.* overlap"),
        (_image([ROOT, (0x8000, 2, 1, 513)], [(2, b"a")], []), "past the image"),
        (_image([ROOT, (0x8000, 3, 1, 1)], [(2, b"a")], []), "says it is inode 3"),
        (_image([ROOT, (0xA000, 2, 1, 1)], [(2, b"a")], [b"x"]), "link 1 of 1"),
        (_image([ROOT, (0x2000, 2, 1, 1)], [(2, b"a")], []), "mode 0x2000"),
        (_image([ROOT, (0x8000, 2, 1, 1)], [(2, b"a/b")], []), "has the name"),
        (_image([ROOT, (0x8000, 2, 1, 1)], [(2, b"")], []), "has the name"),
        (_image([(0x4000, 1, 1, 1)], [(1, b"a")], []), "past the table"),
        (_image([ROOT, (0x4000, 2, 1, 1), (0x8000, 3, 0, 0)], [(2, b"a" * 4000), (3, b"b" * 99)], []), "limit is 4095"),
    ],
)
def test_a_wrong_image_is_refused_with_the_reason(image: bytes, says: str) -> None:
    """Each of these is well-formed bytes that OSv would trip over, or follow for ever."""
    with pytest.raises(DiskInvalid, match=says):
        read(image)


def test_two_names_for_one_file_are_read() -> None:
    """Hard links, which other writers may emit, are two paths to one inode."""
    image = _image([(0x4000, 1, 0, 2), (0x8000, 2, 2, 3)], [(2, b"a"), (2, b"b")], []) + b"yes".ljust(512, b"\0")
    reader = read(image)
    assert reader.nodes[b"/a"] == reader.nodes[b"/b"]
    assert reader.places() == {Extent(1024, 1027): [b"/a", b"/b"]}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (b"/bin/app", True),
        (b"bin//./app", True),
        (b"/current", True),
        (b"/there/app", True),
        (b"/bin/../bin/app", True),
        (b"/../bin/app", True),
        (b"/up/current", True),
        (b"/loop", False),
        (b"/bin", False),
        (b"/bin/app/more", False),
        (b"/nothing", False),
    ],
)
def test_a_program_is_found_as_osv_would_find_it(path: bytes, found: bool) -> None:
    """Links are followed, absolute and relative, and a loop of them ends."""
    builder = TreeBuilder()
    builder.add_content(b"/bin/app", b"#!", origin="a test")
    for link, target in [(b"/current", b"bin/app"), (b"/there", b"/bin"), (b"/loop", b"loop"), (b"/a/up", b"..")]:
        builder.add_symlink(link, target, origin="a test")
    builder.add_symlink(b"/up", b"a/up", origin="a test")
    reader = read(write(builder.tree()))
    assert (reader.file(path) == reader.nodes[b"/bin/app"]) is found


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(2, 5))
def test_memory_does_not_grow_with_the_file(monkeypatch: pytest.MonkeyPatch, buffers: int) -> None:
    """Whatever the size of a file, no more is handed on at once than one buffer."""
    monkeypatch.setattr(contents, "BUFFER_SIZE", 1024)
    pieces: list[int] = []
    builder = TreeBuilder()
    builder.add_content(b"/file", bytes(buffers * 5000), origin="a test")
    write_rofs(lay_out(builder.tree()), lambda view: pieces.append(len(view)))
    assert max(pieces) <= 1024
