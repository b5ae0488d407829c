from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from osvdeploy.build.examine import ElfCache, Examined, examine
from osvdeploy.context import Context, VirtualClock
from osvdeploy.errors import SourceChanged
from osvdeploy.osv.filetree import FileTree, TreeBuilder
from tests.osv.elves import Made, Symbol, make_elf
from tests.osv.go_programs import GoProgram, make_go

LATER = Context(clock=VirtualClock())  # its time is years after every file's

PROGRAM = make_elf(
    Made(
        interpreter=b"/ld.so", needed=[b"libc.so.6"], soname=b"a\xff", runpath=b"$ORIGIN:/x", tls=(9, 8),
        symbols={b"main": Symbol.DEFINED, b"new\nline": Symbol.UNDEFINED, b"\xe9t\xe9": Symbol.COPIED},
    )
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "program").write_bytes(PROGRAM)
    (folder / "go").write_bytes(make_go(GoProgram()))
    (folder / "torn").write_bytes(PROGRAM[:-1])
    (folder / "text").write_bytes(b"text")
    (folder / "empty").write_bytes(b"")
    (folder / "link").symlink_to("program")
    return folder


def tree_of(folder: Path) -> FileTree:
    builder = TreeBuilder()
    builder.add_tree(b"/", os.fsencode(folder))
    builder.add_content(b"/given", PROGRAM, origin="test")
    builder.add_content(b"/given-torn", PROGRAM[:200], origin="test")
    return builder.tree()


def test_every_elf_file_is_found_and_nothing_else(folder: Path) -> None:
    """Files of the host and given bytes, links not among them; the torn ones are kept apart, with what is wrong."""
    found = examine(LATER, tree_of(folder), ElfCache())
    assert found.elves.keys() == {b"/program", b"/given", b"/go"}
    assert found.damaged.keys() == {b"/torn", b"/given-torn"}
    assert all(told.startswith("truncated") for told in found.damaged.values())


def test_an_unchanged_file_is_not_opened_again(folder: Path, tmp_path: Path) -> None:
    """The second look answers the same from what is remembered, of what is no ELF file too."""
    tree, cache = tree_of(folder), ElfCache.load(tmp_path / "elves.json")
    first = examine(LATER, tree, cache)
    cache.save(LATER)
    for name in ("program", "go", "torn", "text", "empty"):
        (folder / name).unlink()  # would be seen if it were opened
    assert examine(LATER, tree, ElfCache.load(tmp_path / "elves.json")) == first


def test_a_changed_file_is_read_again(folder: Path, tmp_path: Path) -> None:
    """Other bytes, other stamp."""
    cache = ElfCache.load(tmp_path / "elves.json")
    examine(LATER, tree_of(folder), cache)
    cache.save(LATER)
    (folder / "text").write_bytes(PROGRAM)
    found = examine(LATER, tree_of(folder), ElfCache.load(tmp_path / "elves.json"))
    assert b"/text" in found.elves


def test_a_file_changed_a_moment_ago_is_not_remembered(folder: Path, tmp_path: Path) -> None:
    """It may change once more and look the same."""
    changed = max((folder / name).stat().st_ctime_ns for name in ("program", "text"))
    for after, remembered in [(10**9, False), (3 * 10**9, True)]:
        cache = ElfCache(tmp_path / "elves.json")
        now = Context(clock=VirtualClock(datetime.fromtimestamp((changed + after) / 1e9, UTC)))
        examine(now, tree_of(folder), cache)
        cache.save(now)
        assert bool(ElfCache.load(tmp_path / "elves.json")._known) is remembered


def test_a_file_that_went_or_changed_is_refused(folder: Path) -> None:
    """What was found is what is looked at, or an error names it."""
    tree = tree_of(folder)
    (folder / "text").write_bytes(b"other bytes")
    with pytest.raises(SourceChanged, match="text: changed"):
        examine(LATER, tree, ElfCache())
    (folder / "text").unlink()
    with pytest.raises(SourceChanged, match="text: cannot be read"):
        examine(LATER, tree, ElfCache())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=80), st.tuples(st.integers(0, 3000), st.binary(min_size=1, max_size=4))))
def test_a_damaged_memory_is_an_empty_one(folder: Path, tmp_path: Path, damage: bytes | tuple[int, bytes]) -> None:
    """Whatever stands in the file, the answer is right."""
    file = tmp_path / "elves.json"
    tree = tree_of(folder)
    cache = ElfCache(file)
    right: Examined = examine(LATER, tree, cache)
    cache.save(LATER)
    content = bytearray(file.read_bytes())
    if isinstance(damage, bytes):
        content = bytearray(damage)
    else:
        content[damage[0] : damage[0] + len(damage[1])] = damage[1]
    file.write_bytes(content)
    assert examine(LATER, tree, ElfCache.load(file)) == right


def test_nothing_new_is_not_written_again(folder: Path, tmp_path: Path) -> None:
    """A look that learned nothing leaves the file alone."""
    file = tmp_path / "elves.json"
    for _ in range(2):
        cache = ElfCache.load(file)
        examine(LATER, tree_of(folder), cache)
        before = file.stat().st_mtime_ns if file.exists() else None
        cache.save(LATER)
    assert file.stat().st_mtime_ns == before
