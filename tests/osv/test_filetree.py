from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from osvdeploy.errors import FileTreeInvalid, OsvDeployError, SourceChanged
from osvdeploy.osv.filetree import DIRECTORY, Content, HostFile, Symlink, TreeBuilder, unreadable


def make(root: Path, *paths: str) -> bytes:
    """Files of those names, each holding its own name; a path with a slash at its end is a directory."""
    for path in paths:
        target = root / path
        if path.endswith("/"):
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(path)
    return os.fsencode(root)


def test_a_directory_is_taken_as_it_stands(tmp_path: Path) -> None:
    """Files, empty directories and links of a directory are all in the tree, and nothing else is."""
    host = make(tmp_path, "index.html", "css/a.css", "empty/")
    (tmp_path / "home").symlink_to("index.html")
    builder = TreeBuilder()
    builder.add_tree(b"/srv", host)
    tree = builder.tree().entries
    assert list(tree) == [
        b"/",
        b"/srv",
        b"/srv/css",
        b"/srv/css/a.css",
        b"/srv/empty",
        b"/srv/home",
        b"/srv/index.html",
    ]
    assert tree[b"/srv/empty"] == DIRECTORY
    assert tree[b"/srv/home"] == Symlink(b"index.html")
    page = tree[b"/srv/index.html"]
    assert isinstance(page, HostFile) and page.path == host + b"/index.html" and page.size == 10


def test_the_order_does_not_depend_on_how_the_tree_was_made() -> None:
    """Same entries, same order: parents first, siblings by name."""
    paths = [b"/a-b", b"/a/b", b"/a.b", b"/b", b"/a/a/c"]
    orders = []
    for given in (paths, paths[::-1]):
        builder = TreeBuilder()
        for path in given:
            builder.add_content(path, b"", origin="a test")
        orders.append(list(builder.tree().entries))
    assert orders[0] == orders[1] == [b"/", b"/a", b"/a/a", b"/a/a/c", b"/a/b", b"/a-b", b"/a.b", b"/b"]


def test_parents_are_made_and_may_be_named_too() -> None:
    """A file brings its directories; naming one of them as well is no conflict."""
    builder = TreeBuilder()
    builder.add_content(b"/a/b/c", b"", origin="a test")
    builder.add_directory(b"/a/b", origin="a test")
    assert list(builder.tree().entries) == [b"/", b"/a", b"/a/b", b"/a/b/c"]


def test_names_are_bytes(tmp_path: Path) -> None:
    """A name that is no text is kept as it is."""
    host = make(tmp_path)
    os.mknod(host + b"/\xff\xfe")
    builder = TreeBuilder()
    builder.add_tree(b"/", host)
    assert b"/\xff\xfe" in builder.tree().entries


def test_what_is_excluded_stays_out_with_all_below_it(tmp_path: Path) -> None:
    """The question is asked with the path inside the tree, once for a directory and never below it."""
    host = make(tmp_path, "keep/a", ".git/config", "keep/.git")
    asked: list[bytes] = []

    def excluded(path: bytes) -> bool:
        asked.append(path)
        return path == b".git"

    builder = TreeBuilder()
    builder.add_tree(b"/", host, excluded=excluded)
    assert list(builder.tree().entries) == [b"/", b"/keep", b"/keep/.git", b"/keep/a"]
    assert sorted(asked) == [b".git", b"keep", b"keep/.git", b"keep/a"]


@pytest.mark.parametrize("first", ["file", "content", "link"])
def test_two_sources_for_one_path_are_both_named(tmp_path: Path, first: str) -> None:
    """A conflict names the guest path and where each of the two came from."""
    make(tmp_path, "one/app", "two/app")
    builder = TreeBuilder()
    if first == "file":
        builder.add_file(b"/app", os.fsencode(tmp_path / "one/app"))
    elif first == "content":
        builder.add_content(b"/app", b"", origin=f"{tmp_path}/one/app")
    else:
        builder.add_symlink(b"/app", b"x", origin=f"{tmp_path}/one/app")
    with pytest.raises(FileTreeInvalid) as refused:
        builder.add_tree(b"/", os.fsencode(tmp_path / "two"))
    message = str(refused.value)
    assert message.startswith("/app: given twice")
    assert f"{tmp_path}/one/app" in message and f"{tmp_path}/two/app" in message


def test_a_file_under_a_file_names_both(tmp_path: Path) -> None:
    """A path below something that is no directory is refused with both sources."""
    make(tmp_path, "app", "page")
    builder = TreeBuilder()
    builder.add_file(b"/app", os.fsencode(tmp_path / "app"))
    with pytest.raises(FileTreeInvalid) as refused:
        builder.add_file(b"/app/deep/page", os.fsencode(tmp_path / "page"))
    assert f"{tmp_path}/page" in str(refused.value) and f"/app above it is a file, from {tmp_path}/app" in str(
        refused.value
    )


def test_a_directory_where_a_file_stands_names_both(tmp_path: Path) -> None:
    """A file does not turn into a directory because a later source has one."""
    make(tmp_path, "a/x", "b/x/y")
    builder = TreeBuilder()
    builder.add_tree(b"/", os.fsencode(tmp_path / "a"))
    with pytest.raises(FileTreeInvalid, match=r"/x: given twice: a file, from .*/a/x, and a directory, from .*/b/x"):
        builder.add_tree(b"/", os.fsencode(tmp_path / "b"))


@pytest.mark.parametrize(
    ("guest", "says"),
    [
        (b"app", "not an absolute path"),
        (b"", "not an absolute path"),
        (b"/a//b", "holds the name ''"),
        (b"/a/../b", "holds the name '..'"),
        (b"/./b", "holds the name '.'"),
        (b"/a/", "holds the name ''"),
        (b"/a\0b", "holds a NUL"),
        (b"/" + b"n" * 256, "a name of 256 bytes"),
        (b"/" + b"/".join([b"n" * 250] * 17), "OSv's limit is 4095"),
    ],
)
def test_a_guest_path_that_osv_cannot_hold_is_refused(guest: bytes, says: str) -> None:
    """Each error names the path, the source and the limit."""
    with pytest.raises(FileTreeInvalid) as refused:
        TreeBuilder().add_content(guest, b"", origin="the source")
    assert says in str(refused.value) and "the source" in str(refused.value)


def test_the_longest_names_and_paths_are_accepted() -> None:
    """255 bytes of a name and 4,095 of a path are within OSv's limits."""
    builder = TreeBuilder()
    builder.add_content(b"/" + b"o" * 255, b"", origin="a test")
    builder.add_content(b"/" + b"/".join([b"n" * 255] * 15 + [b"m" * 254]), b"", origin="a test")
    assert max(len(path) for path in builder.tree().entries) == 4095


@pytest.mark.parametrize("target", [b"", b"a\0", b"a" * 4096])
def test_a_link_target_that_osv_cannot_hold_is_refused(target: bytes) -> None:
    """A target has 1 to 4,095 bytes and no NUL."""
    with pytest.raises(FileTreeInvalid, match="link target of"):
        TreeBuilder().add_symlink(b"/link", target, origin="a test")


@pytest.mark.parametrize(
    ("link", "target", "leaves"),
    [
        ("link", "../secret", True),
        ("a/link", "../b", False),
        ("a/link", "../../b", True),
        ("a/link", "./../a/../../x", True),
        ("link", "a/../a/x", False),
        ("link", "/etc/passwd", True),
        ("link", "nowhere", False),
    ],
)
def test_a_link_that_leaves_its_tree_is_refused(tmp_path: Path, link: str, target: str, leaves: bool) -> None:
    """A link may point anywhere within the tree it was found in, and nowhere else."""
    host = make(tmp_path / "tree", "a/", "b")
    (tmp_path / "tree" / link).symlink_to(target)
    builder = TreeBuilder()
    if not leaves:
        builder.add_tree(b"/srv", host)
        assert builder.tree().entries[b"/srv/" + link.encode()] == Symlink(target.encode())
        return
    with pytest.raises(FileTreeInvalid) as refused:
        builder.add_tree(b"/srv", host)
    assert str(tmp_path / "tree" / link) in str(refused.value) and target in str(refused.value)


def test_an_absolute_link_is_kept_where_the_tree_is_the_root(tmp_path: Path) -> None:
    """In a root file system an absolute link means the guest's path."""
    host = make(tmp_path, "usr/lib/")
    (tmp_path / "lib").symlink_to("/usr/lib")
    builder = TreeBuilder()
    builder.add_tree(b"/", host)
    assert builder.tree().entries[b"/lib"] == Symlink(b"/usr/lib")


def test_part_of_a_tree_is_measured_against_the_whole(tmp_path: Path) -> None:
    """A directory that a pattern found is a part: its links may go to other parts of the same tree, not further."""
    host = make(tmp_path / "tree", "part/", "other/x")
    (tmp_path / "tree/part/link").symlink_to("../other/x")
    builder = TreeBuilder()
    builder.add_tree(b"/srv/part", host + b"/part", root=host)
    assert builder.tree().entries[b"/srv/part/link"] == Symlink(b"../other/x")
    (tmp_path / "tree/part/link").unlink()
    (tmp_path / "tree/part/link").symlink_to("../../x")
    with pytest.raises(FileTreeInvalid, match="leaves"):
        TreeBuilder().add_tree(b"/srv/part", host + b"/part", root=host)


def test_what_is_no_file_directory_or_link_is_refused(tmp_path: Path) -> None:
    """Pipes and sockets are named with what they are."""
    host = make(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileTreeInvalid, match="pipe: a named pipe"):
        TreeBuilder().add_tree(b"/", host)
    (tmp_path / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "s"))
    with pytest.raises(FileTreeInvalid, match="s: a socket, not a regular file"):
        TreeBuilder().add_file(b"/s", host + b"/s")


def test_a_source_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A missing file or directory is an error that names it."""
    host = make(tmp_path)
    with pytest.raises(FileTreeInvalid, match="missing: cannot be read: No such file"):
        TreeBuilder().add_file(b"/missing", host + b"/missing")
    with pytest.raises(FileTreeInvalid, match="missing: cannot be read: No such file"):
        TreeBuilder().add_tree(b"/", host + b"/missing")
    with pytest.raises(FileTreeInvalid, match="a directory, not a regular file"):
        TreeBuilder().add_file(b"/dir", host)


def test_a_link_given_as_a_file_is_followed(tmp_path: Path) -> None:
    """Whoever names a link as a source means the file behind it."""
    make(tmp_path, "app-1.2")
    (tmp_path / "app").symlink_to("app-1.2")
    builder = TreeBuilder()
    builder.add_file(b"/app", os.fsencode(tmp_path / "app"))
    assert builder.tree().entries[b"/app"].size == 7  # type: ignore[union-attr]  # a file


def test_contents_given_as_bytes_are_files() -> None:
    """A generated file stands beside those of the machine."""
    builder = TreeBuilder()
    builder.add_content(b"/etc/hosts", b"127.0.0.1 localhost\n", origin="a test")
    assert dict(builder.tree().files()) == {b"/etc/hosts": Content(b"127.0.0.1 localhost\n")}


@pytest.mark.parametrize(
    ("number", "error"), [(errno.EACCES, FileTreeInvalid), (errno.ENOENT, SourceChanged), (errno.EIO, SourceChanged)]
)
def test_a_file_that_cannot_be_read_is_the_users_where_he_can_let_us(number: int, error: type[OsvDeployError]) -> None:
    """A mode is mended, and until then it is refused; a file that is gone, or a disk that failed, is another matter."""
    raised = unreadable(b"/srv/a\xff", OSError(number, os.strerror(number)))
    assert type(raised) is error and str(raised) == f"/srv/a\\xff: cannot be read: {os.strerror(number)}"
    assert raised.hint
