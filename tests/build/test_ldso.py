from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.build.ldso import (
    X86_64_LIB,
    CacheEntry,
    conf_directories,
    expand,
    glibc_loader,
    musl_loader,
    parse_cache,
    parse_conf,
)
from tests.build.roots import root_at, write_cache

names = st.binary(min_size=1, max_size=12).filter(lambda name: b"\0" not in name)
rows = st.lists(st.tuples(names, names, st.integers(-(2**31), 2**31 - 1), st.sampled_from([0, 1, 2**62])), max_size=6)


@settings(max_examples=50, deadline=None)
@given(rows, st.none() | st.integers(0, 5))
def test_any_cache_reads_back_as_written(rows: list[tuple[bytes, bytes, int, int]], old: int | None) -> None:
    """Every library of a cache is found, alone or behind the table of the old format."""
    assert parse_cache(write_cache(rows, old=old)) == tuple(
        CacheEntry(soname, path, flags, hwcap != 0) for soname, path, flags, hwcap in rows
    )


@settings(max_examples=60, deadline=None)
@given(rows, st.data())
def test_any_damage_to_a_cache_gives_entries_or_a_reason(
    rows: list[tuple[bytes, bytes, int, int]], data: st.DataObject
) -> None:
    """Whatever bytes stand in /etc/ld.so.cache, they are read or refused; nothing else happens."""
    content = bytearray(write_cache(rows, old=data.draw(st.none() | st.integers(0, 2))))
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    try:
        parse_cache(bytes(content[:cut]))
    except ValueError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "too short"),
        (b"ld.so-1.7.0", "too short"),
        (b"x" * 100, "not an ld.so.cache"),
        (write_cache([(b"a", b"/a", 1, 0)], endian=1), "big-endian"),
        (write_cache([(b"a", b"/a", 1, 0)])[:-5], "do not fit"),
        (write_cache([(b"a", b"/a", 1, 0)])[:-1] + b"x", "does not end"),
        (b"ld.so-1.7.0\0" + b"\xff" * 4 + bytes(100), "too short"),
    ],
)
def test_a_broken_cache_is_refused_with_a_reason(content: bytes, says: str) -> None:
    """Each kind of damage has its own words."""
    with pytest.raises(ValueError, match=says):
        parse_cache(content)


def test_only_plain_libraries_of_this_machine_are_taken_from_the_cache(tmp_path: Path) -> None:
    """32-bit libraries, and those for newer processors alone, are not what an image of any machine may hold."""
    root = root_at(tmp_path / "root")
    row = b"liba.so.1"
    root.file(
        "/etc/ld.so.cache",
        write_cache(
            [
                (row, b"/lib32/liba.so.1", 3, 0),
                (row, b"/lib/glibc-hwcaps/x86-64-v3/liba.so.1", X86_64_LIB, 1 << 62),
                (row, b"/opt/liba.so.1", X86_64_LIB, 0),
                (row, b"relative", X86_64_LIB, 0),
            ]
        ),
    )

    assert glibc_loader(root.root).cache == {row: (b"/opt/liba.so.1",)}


def test_a_broken_cache_is_as_none(tmp_path: Path) -> None:
    """ldconfig's own list is taken in its place, and what was wrong is remembered."""
    root = root_at(tmp_path / "root")
    root.file("/etc/ld.so.cache", b"torn")
    root.file("/etc/ld.so.conf", "/opt/lib\n")

    loader = glibc_loader(root.root)

    assert loader.broken == "too short for an ld.so.cache"
    assert loader.directories[0] == b"/opt/lib"


def test_conf_includes_stand_where_they_are_named(tmp_path: Path) -> None:
    """Includes are sorted, relative to their file, followed in turn, and read once however they circle."""
    root = root_at(tmp_path / "root")
    root.file("/etc/ld.so.conf", "/first # why\ninclude ld.so.conf.d/*.conf\nhwcap 0 nosegneg\n/last/=libc6\n/first\n")
    root.file("/etc/ld.so.conf.d/b.conf", "/b\ninclude /etc/ld.so.conf\n")
    root.file("/etc/ld.so.conf.d/a.conf", "/a//\nrelative\n")
    root.file("/etc/ld.so.conf.d/.hidden.conf", "/hidden\n")

    assert conf_directories(root.root) == (b"/first", b"/a", b"/b", b"/last")


def test_conf_links_stay_in_the_root(tmp_path: Path) -> None:
    """An include by an absolute link is the root's file, not this machine's."""
    root = root_at(tmp_path / "root")
    (tmp_path / "outside.conf").write_text("/outside\n")
    root.file("/etc/ld.so.conf", "include a.conf b.conf\n")
    root.file("/inside.conf", "/inside\n")
    root.link("/etc/a.conf", "/inside.conf")
    root.link("/etc/b.conf", "../../outside.conf")

    assert conf_directories(root.root) == (b"/inside",)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([b"/a", b"include x", b"include", b"#", b"=", b"hwcap 1", b"\n", b"\0", b" ", b"\xff"]))
)
def test_any_conf_is_read(pieces: list[bytes]) -> None:
    """No line of an ld.so.conf is an error, and no directory is empty or holds a comment."""
    for kind, value in parse_conf(b"".join(pieces)):
        assert kind in ("directory", "include")
        assert value and b"#" not in value and b"\n" not in value


@pytest.mark.parametrize(
    ("entry", "means"),
    [
        (b"$ORIGIN", [b"/opt/app"]),
        (b"${ORIGIN}/../lib", [b"/opt/app/../lib"]),
        (b"/x/$PLATFORM", [b"/x/x86_64"]),
        (b"/usr/$LIB", [b"/usr/lib/x86_64-linux-gnu", b"/usr/lib64", b"/usr/lib"]),
        (b"$ORIGINAL/$LIBS", []),
        (b"relative", []),
        (b"/a/$ORIGIN_X", [b"/a/$ORIGIN_X"]),
    ],
)
def test_tokens_are_replaced_as_ld_so_does(entry: bytes, means: list[bytes]) -> None:
    """A longer name that begins like a token is none, and a relative directory is nowhere."""
    assert list(expand(entry, b"/opt/app")) == means


def test_musl_has_a_path_file(tmp_path: Path) -> None:
    """/etc/ld-musl-x86_64.path, by lines or colons, stands for the built-in directories."""
    root = root_at(tmp_path / "root")
    assert musl_loader(root.root).directories == (b"/lib", b"/usr/local/lib", b"/usr/lib")
    root.file("/etc/ld-musl-x86_64.path", "/a:/b\n/c\n")
    assert musl_loader(root.root).directories == (b"/a", b"/b", b"/c")
