from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings

from osvdeploy.errors import DiskInvalid, Interrupted, UsageError
from osvdeploy.osv.extract import Extracted, children, extract, find
from osvdeploy.osv.filetree import Content, Directory, FileTree, Symlink, TreeBuilder
from osvdeploy.osv.names import escaped
from osvdeploy.osv.rofs import RofsReader, read_rofs
from tests.osv.images import file_trees
from tests.osv.rofs_files import make_rofs


def reader_of(tree: FileTree) -> RofsReader:
    image = make_rofs(tree)
    return read_rofs(lambda offset, length: image[offset : offset + length], len(image))


@pytest.fixture
def reader() -> RofsReader:
    builder = TreeBuilder()
    for path in (b"/etc/hosts", b"/etc/rc", b"/usr/lib/a.so"):
        builder.add_content(path, b"this is " + path, origin="a test")
    builder.add_directory(b"/tmp", origin="a test")
    builder.add_symlink(b"/etc/mnttab", b"/proc/mounts", origin="a test")
    builder.add_symlink(b"/lib", b"usr/lib", origin="a test")
    return reader_of(builder.tree())


def tree_in(folder: Path) -> dict[bytes, object]:
    """What stands in a directory of this machine, in the words of a FileTree."""
    found: dict[bytes, object] = {b"/": Directory()}
    for whole in folder.rglob("*"):
        path = os.fsencode(whole)[len(os.fsencode(folder)) :]
        if whole.is_symlink():
            found[path] = Symlink(os.fsencode(os.readlink(whole)))  # noqa: PTH115 (a Path loses what is written twice)
        else:
            found[path] = Directory() if whole.is_dir() else Content(whole.read_bytes())
    return found


@settings(max_examples=25, deadline=None)
@given(file_trees())
def test_any_tree_is_extracted_as_it_is(tree: FileTree) -> None:
    """Any bytes in names, empty files and directories, links with their targets: nothing else, nothing less."""
    with tempfile.TemporaryDirectory() as folder:
        done = extract(reader_of(tree), b"/", Path(folder))
        assert tree_in(Path(folder)) == tree.entries
        assert done.files == len(list(tree.files()))
        assert done.files + done.directories + done.links == len(tree.entries)


@settings(max_examples=60, deadline=None)
@given(file_trees())
def test_every_path_is_found_as_it_is_shown(tree: FileTree) -> None:
    """Its text, and its bytes."""
    found = reader_of(tree)
    for path in found.nodes:
        assert find(found, escaped(path)) == find(found, path) == path


def test_a_part_keeps_its_whole_path(reader: RofsReader, tmp_path: Path) -> None:
    """/etc/hosts becomes FOLDER/etc/hosts, and the folder is made."""
    assert extract(reader, b"/etc/hosts", tmp_path / "new") == Extracted(1, 0, 0, 18)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["etc"]
    assert (tmp_path / "new/etc/hosts").read_bytes() == b"this is /etc/hosts"


def test_zeros_take_no_room(tmp_path: Path) -> None:
    """An image may speak of a file far larger than itself."""
    size = 24 << 20
    builder = TreeBuilder()
    builder.add_content(b"/big", bytes(size) + b"end", origin="a test")
    extract(reader_of(builder.tree()), b"/", tmp_path / "new")
    made = tmp_path / "new/big"
    assert made.stat().st_size == size + 3 and made.read_bytes() == bytes(size) + b"end"
    assert made.stat().st_blocks * 512 < size // 4


def test_a_directory_is_not_its_namesake(reader: RofsReader, tmp_path: Path) -> None:
    """/usr is no part of /us, and / is all."""
    assert extract(reader, b"/usr", tmp_path).files == 1
    assert not (tmp_path / "etc").exists()


def test_files_are_executable_as_osv_has_them(reader: RofsReader, tmp_path: Path) -> None:
    """OSv reports 0555 for every file."""
    extract(reader, b"/etc/rc", tmp_path)
    assert os.access(tmp_path / "etc/rc", os.X_OK)


@pytest.mark.parametrize("occupant", ["file", "link", "directory"])
def test_nothing_is_overwritten(reader: RofsReader, tmp_path: Path, occupant: str) -> None:
    """What is there stays, whatever it is; the error names it."""
    (tmp_path / "etc").mkdir()
    place = tmp_path / "etc/hosts"
    if occupant == "file":
        place.write_bytes(b"precious")
    elif occupant == "link":
        place.symlink_to("nowhere")
    else:
        place.mkdir()
    with pytest.raises(UsageError, match="etc/hosts: is there already"):
        extract(reader, b"/etc/hosts", tmp_path)
    assert not (tmp_path / "etc/nowhere").exists()
    assert [path.name for path in (tmp_path / "etc").iterdir()] == ["hosts"]


@pytest.mark.parametrize("target", ["..", "/", "elsewhere"])
def test_a_link_in_the_folder_is_not_followed(reader: RofsReader, tmp_path: Path, target: str) -> None:
    """Whoever put it there does not decide where files go."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "elsewhere").mkdir()
    (folder / "etc").symlink_to(target)
    with pytest.raises(UsageError, match="not followed"):
        extract(reader, b"/etc", folder)
    assert not (tmp_path / "hosts").exists() and list((folder / "elsewhere").iterdir()) == []


def test_a_link_of_the_image_is_not_followed_either(tmp_path: Path) -> None:
    """It is made as it is; that nothing can stand below it is the format's own rule."""
    builder = TreeBuilder()
    builder.add_symlink(b"/out", str(tmp_path / "victim").encode(), origin="a test")
    extract(reader_of(builder.tree()), b"/", tmp_path / "into")
    assert (tmp_path / "into/out").readlink() == tmp_path / "victim" and not (tmp_path / "victim").exists()


def test_a_file_that_cannot_be_read_whole_is_not_there(tmp_path: Path) -> None:
    """Neither under its name nor under the one it was written to; those before it are."""
    builder = TreeBuilder()
    builder.add_content(b"/a", b"whole", origin="a test")
    builder.add_content(b"/b", b"x" * 2000, origin="a test")
    image = make_rofs(builder.tree())

    def read_at(offset: int, length: int) -> bytes:
        return image[offset : offset + length][: 5 if length == 2000 else None]

    with pytest.raises(DiskInvalid, match=r"/b: ROFS: file data"):
        extract(read_rofs(read_at, len(image)), b"/", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_cancel_leaves_no_half_file(reader: RofsReader, tmp_path: Path) -> None:
    """What was written until then is whole."""
    calls = iter(range(100))

    def check() -> None:
        if next(calls) == 4:
            raise Interrupted("enough")

    with pytest.raises(Interrupted):
        extract(reader, b"/", tmp_path, check=check)
    for path in tmp_path.rglob("*"):
        assert not path.name.startswith(".")


def test_a_folder_that_is_a_file_is_refused(reader: RofsReader, tmp_path: Path) -> None:
    """With its name."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="file: no directory to write to"):
        extract(reader, b"/", tmp_path / "file")


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (b"/etc/hosts", b"/etc/hosts"),
        (b"etc//hosts/", b"/etc/hosts"),
        (b"/", b"/"),
        (b"", b"/"),
        (b"/lib", b"/lib"),
        (b"/lib/a.so", b"/usr/lib/a.so"),
        (b"/usr/../etc/./hosts", b"/etc/hosts"),
        (b"/..", b"/"),
    ],
)
def test_a_path_is_found_as_people_write_it(reader: RofsReader, given: bytes, found: bytes) -> None:
    """A link by its own name, links on the way followed."""
    assert find(reader, given) == found


@pytest.mark.parametrize("path", [b"/nothing", b"/etc/hosts/more", b"/etc/mnttab/x", b"/ETC"])
def test_a_path_that_is_not_there_is_named(reader: RofsReader, path: bytes) -> None:
    """With how to see what is."""
    with pytest.raises(UsageError, match="not in the image") as caught:
        find(reader, path)
    assert caught.value.hint is not None and "inspect ls" in caught.value.hint


def test_children_are_those_of_one_directory(reader: RofsReader) -> None:
    """Sorted, and none of their own children."""
    assert children(reader, b"/") == [b"/etc", b"/lib", b"/tmp", b"/usr"]
    assert children(reader, b"/etc") == [b"/etc/hosts", b"/etc/mnttab", b"/etc/rc"]
