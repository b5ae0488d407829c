"""The model of how OSv follows links. tests/boot/test_osv_links.py holds it against a real one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osvdeploy.osv.filetree import Directory, FileTree, Symlink, TreeBuilder, resolve
from osvdeploy.osv.links import LINKS_FOLLOWED, followed, spelled, unfollowed

FILES = ("/f", "/.f", "/d/f", "/d/.libs/f", "/d/sub/f", "/e/sub/f", "/e/f")


def tree_of(links: Mapping[str, str]) -> FileTree:
    builder = TreeBuilder()
    for path in FILES:
        builder.add_content(path.encode(), path.encode(), origin="test")
    for path, target in links.items():
        builder.add_symlink(path.encode(), target.encode(), origin="test")
    return builder.tree()


def seen(tree: FileTree, path: bytes) -> bytes | bool | None:
    entry = tree.entries.get(path)
    return entry.target if isinstance(entry, Symlink) else None if entry is None else isinstance(entry, Directory)


def by_osv(tree: FileTree, path: str) -> str | None:
    found = followed(path.encode(), lambda name: seen(tree, name))
    return None if found is None else found.decode()


@pytest.mark.parametrize(
    ("link", "target", "opened", "found"),
    [
        ("/l", "f", "/l", None),
        ("/l", "d", "/l/f", None),
        ("/l", "./d", "/l/f", None),
        ("/l", "../d", "/l/f", None),
        ("/l", ".", "/l/f", "/f"),
        ("/l", "/d", "/l/f", "/d/f"),
        ("/l", "/d/../f", "/l", None),
        ("/l", "/d/./f", "/l", None),
        ("/l", "//d//f", "/l", "/d/f"),
        ("/d/l", "f", "/d/l", "/d/f"),
        ("/d/l", "./f", "/d/l", "/d/f"),
        ("/d/l", "sub", "/d/l/f", "/d/sub/f"),
        ("/d/l", "../e/./sub/../f", "/d/l", "/e/f"),
        ("/d/l", ".libs/f", "/d/l", None),
        ("/d/l", "./.libs/f", "/d/l", "/d/.libs/f"),
        ("/d/l", "../.f", "/d/l", "/.f"),
        ("/d/sub/l", "../..", "/d/sub/l/f", "/f"),
        ("/d/sub/l", "../../../../f", "/d/sub/l", "/f"),
    ],
)
def test_a_link_is_followed_as_osv_does(link: str, target: str, opened: str, found: str | None) -> None:
    """Each was seen on v0.57.0-398."""
    assert by_osv(tree_of({link: target}), opened) == found


def test_two_dots_go_by_the_text() -> None:
    """Back from where the link stands in the path, not from where it leads."""
    assert by_osv(tree_of({"/d/far": "/e/sub", "/d/l": "far/../f"}), "/d/l") == "/d/f"


def test_a_slash_too_many_loses_the_next_link() -> None:
    """The rest of the path is counted from names, and taken from the text."""
    tree = tree_of({"/l": "/d/sub/", "/d/sub/g": "f"})
    assert by_osv(tree, "/l/f") == "/d/sub/f"
    assert by_osv(tree, "/l/g") is None
    assert [each.path for each in unfollowed(tree)] == [b"/l"]


def test_nineteen_links_are_followed() -> None:
    """The twentieth is one too many."""
    links = {f"/k/{count}": f"{count + 1}" for count in range(25)} | {"/k/25": "/f"}
    assert by_osv(tree_of(links), f"/k/{26 - LINKS_FOLLOWED}") == "/f"
    assert by_osv(tree_of(links), f"/k/{25 - LINKS_FOLLOWED}") is None
    assert len(unfollowed(tree_of(links))) == 26 - LINKS_FOLLOWED


def test_what_only_leads_over_a_bad_link_is_not_told() -> None:
    """A root of today's distributions: four links in `/`, and whatever goes through them."""
    tree = tree_of({"/lib": "d", "/d/l": "/lib/f", "/e/l": "../lib/f", "/bin": "d/sub"})
    assert [(each.path, each.cure) for each in unfollowed(tree)] == [(b"/bin", b"/d/sub"), (b"/lib", b"/d")]


def test_links_to_what_the_guest_mounts_are_judged_and_circles_are_not() -> None:
    """/proc/mounts is in no image, and there in the guest."""
    tree = tree_of({"/mtab": "proc/mounts", "/d/mtab": "../proc/mounts", "/a": "/b", "/b": "/a"})
    assert [(each.path, each.cure) for each in unfollowed(tree)] == [(b"/mtab", b"/proc/mounts")]


NAMES = st.sampled_from(["a", ".a", "..a", "d", "f", ".", "..", "e", "sub", ""])
TARGETS = st.tuples(st.sampled_from(["", "/"]), st.lists(NAMES, min_size=1, max_size=4)).map(
    lambda made: made[0] + "/".join(made[1])
)
LINKS = st.dictionaries(
    st.sampled_from(["/a", "/.a", "/d/a", "/d/.a", "/d/..a", "/e/a", "/e/sub/a", "/d/sub/a", "/e/sub/.a"]),
    TARGETS.filter(bool),
)


@given(LINKS)
def test_the_cure_leads_where_linux_comes(links: dict[str, str]) -> None:
    """Whatever links there are: with each that is told made as it is told, none is left to tell."""
    tree = tree_of(links)
    wrong = unfollowed(tree)
    mended = replace(tree, entries=dict(tree.entries) | {each.path: Symlink(each.cure) for each in wrong})
    assert unfollowed(mended) == []
    for each in wrong:
        end = resolve(each.path, lambda name: seen(tree, name))
        if end is not None:
            assert followed(each.path, lambda name: seen(mended, name)) == end


@given(st.sampled_from(["/l", "/d/l", "/d/sub/l"]), st.sampled_from([*FILES, "/", "/d", "/d/.libs"]))
def test_a_link_of_ours_is_followed_by_both(path: str, leads_to: str) -> None:
    """Wherever it stands and whatever it leads to."""
    tree = tree_of({path: spelled(path.encode(), leads_to.encode()).decode()})
    assert by_osv(tree, path) == leads_to
    assert resolve(path.encode(), lambda name: seen(tree, name)) == leads_to.encode()
