"""What every composed image has around its program."""

from __future__ import annotations

from dataclasses import replace

import pytest

from osvdeploy.build.plan import FileMapping, TreeInputs, file_tree
from osvdeploy.build.surroundings import FSTAB, SURROUNDINGS, surround, with_skeleton
from osvdeploy.osv.filetree import DIRECTORY, Content, FileTree, HostFile, Symlink, TreeBuilder
from tests.build.projects import Project


def surrounded(*options: tuple[str, str | None], **entries: bytes | None) -> FileTree:
    """A tree that has the given files (None: directories), and what is added to it."""
    builder = TreeBuilder()
    for name, content in entries.items():
        path = b"/" + name.replace("_", "/").encode()
        if content is None:
            builder.add_directory(path, origin="test")
        else:
            builder.add_content(path, content, origin="test")
    surround(builder, options)
    return builder.tree()


def test_an_image_has_what_a_program_takes_for_granted() -> None:
    """The mounts of OSv's own images, the directories for them, and its own host."""
    assert surrounded().entries == {b"/": DIRECTORY, b"/etc": DIRECTORY, **SURROUNDINGS}
    assert [line.split()[1:3] for line in FSTAB.splitlines()] == [
        [b"/dev", b"devfs"], [b"/proc", b"procfs"], [b"/sys", b"sysfs"], [b"/tmp", b"ramfs"],
    ]  # fmt: skip


def test_what_is_there_stays() -> None:
    """The user's own tables, and a directory that has something in it."""
    tree = surrounded(etc_fstab=b"", tmp_seed=b"x")
    assert tree.entries[b"/etc/fstab"] == Content(b"")
    assert tree.entries[b"/tmp/seed"] == Content(b"x")
    assert tree.entries[b"/etc/hosts"] == SURROUNDINGS[b"/etc/hosts"]


def test_what_stands_in_the_way_is_no_conflict() -> None:
    """A file, or a link, where a directory would be."""
    builder = TreeBuilder()
    builder.add_symlink(b"/etc", b"/usr/etc", origin="test")
    builder.add_content(b"/tmp", b"x", origin="test")
    surround(builder, [("mount-fs", "ramfs,none,/tmp"), ("mount-fs", "ramfs,none,/etc/run")])
    tree = builder.tree()
    assert tree.entries[b"/etc"] == Symlink(b"/usr/etc")
    assert tree.entries[b"/tmp"] == Content(b"x")
    assert b"/etc/fstab" not in tree.entries and b"/etc/run" not in tree.entries


@pytest.mark.parametrize(
    ("value", "made"),
    [
        ("ramfs,none,/scratch", b"/scratch"),
        ("zfs,/dev/vblk1.1,/data/db/", b"/data/db"),
        ("ramfs,none,/tmp/below", None),
        ("ramfs,none,scratch", None),
        ("ramfs,none,/a/../b", None),
        ("ramfs,none,/", None),
        ("ramfs,/scratch", None),
        ("ramfs,none,/a,/b", None),
    ],
)
def test_there_is_a_directory_for_each_mount(value: str, made: bytes | None) -> None:
    """OSv cannot make one in a ROFS; what it would not mount, or below another mount, has none."""
    added = surrounded(("mount-fs", value)).entries.keys() - surrounded().entries.keys()
    assert max(added, default=None) == made


def test_files_alone_make_an_image_that_has_them(project: Project) -> None:
    """As programs of a host do; an image that a source tree builds has them of the tree's skeleton."""
    inputs = replace(project.inputs, options=(("mount-fs", "ramfs,none,/scratch"),))
    tree = file_tree(inputs)
    assert tree.entries.items() >= SURROUNDINGS.items()
    assert tree.entries[b"/scratch"] == DIRECTORY
    project.write("fstab", "")
    own = file_tree(replace(inputs, files=(*inputs.files, FileMapping("fstab", "/etc/fstab"))))
    assert isinstance(own.entries[b"/etc/fstab"], HostFile)
    of_tree = file_tree(replace(inputs, kernel=None, tree=TreeInputs("osv")))
    assert not of_tree.entries.keys() & (SURROUNDINGS.keys() | {b"/scratch"})
    assert with_skeleton(of_tree).entries.items() >= SURROUNDINGS.items()
