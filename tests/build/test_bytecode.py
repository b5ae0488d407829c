"""Bytecode by the interpreter that runs the tests: real processes."""

from __future__ import annotations

import importlib.util
import marshal
import os
import sys
from pathlib import Path

import pytest

from osvdeploy.build.hostroot import HostRoot
from osvdeploy.build.runtimes.bytecode import CannotRun, compile_sources
from osvdeploy.build.statcache import StatCache
from osvdeploy.context import Context
from osvdeploy.errors import BuildError, SourceChanged
from osvdeploy.osv.filetree import HostFile, stamp_of

pytestmark = pytest.mark.slow


def interpreter() -> HostFile:
    found = HostRoot().find(os.fsencode(os.path.realpath(sys.executable)))
    assert found is not None
    return found.file


def host_file(path: Path) -> HostFile:
    return HostFile(os.fsencode(path), stamp_of(path.stat()))


def sources_in(folder: Path) -> list[tuple[bytes, HostFile]]:
    folder.mkdir(parents=True)
    texts = {
        "good.py": "def f(x={1, 2, 'a'}):\n    return x, 'a-b', 'json', frozenset({'x', 'y', None})\n",
        "empty.py": "",
        "python2.py": "print 'no'\n",
        "bad-bytes.py": "# coding: utf-8\n'\udcff'\n",
        "über.py": "import json\njson.loads('1')\n",
    }
    for name, text in texts.items():
        (folder / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    return [(b"/app/" + name.encode(), host_file(folder / name)) for name in sorted(texts)]


def test_bytecode_is_a_function_of_source_and_guest_path(tmp_path: Path) -> None:
    """In two folders, in two caches, with and without neighbours: the same bytes; what is no Python has none."""
    one, two = sources_in(tmp_path / "one"), sources_in(tmp_path / "deeper" / "two")
    compiled = [
        dict(compile_sources(Context(), tmp_path / f"cache{number}", StatCache(), interpreter(), (), sources))
        for number, sources in enumerate((one, two, one[2:3] + one[:1]))
    ]
    tag = sys.implementation.cache_tag
    names = {f"/app/__pycache__/{name}.{tag}.pyc".encode() for name in ("good", "empty", "über")}

    assert set(compiled[0]) == set(compiled[1]) == names
    for name in names:
        made = {Path(os.fsdecode(each[name].path)).read_bytes() for each in compiled if name in each}
        assert len(made) == 1, name
        assert not any(str(tmp_path).encode() in content for content in made)


def test_bytecode_is_never_checked_and_names_the_guest(tmp_path: Path) -> None:
    """PEP 552: flags 1 means by hash and unchecked; tracebacks show the path that the guest has."""
    sources = sources_in(tmp_path / "one")
    made = dict(compile_sources(Context(), tmp_path / "cache", StatCache(), interpreter(), (), sources))
    content = Path(
        os.fsdecode(made[f"/app/__pycache__/good.{sys.implementation.cache_tag}.pyc".encode()].path)
    ).read_bytes()

    assert content[:4] == importlib.util.MAGIC_NUMBER
    assert content[4:8] == b"\1\0\0\0"
    assert content[8:16] == importlib.util.source_hash((tmp_path / "one" / "good.py").read_bytes())
    assert marshal.loads(content[16:]).co_filename == "/app/good.py"


def test_what_was_compiled_is_kept(tmp_path: Path) -> None:
    """A second build compiles what is new, and nothing else."""
    sources = sources_in(tmp_path / "one")
    first = compile_sources(Context(), tmp_path / "cache", StatCache(), interpreter(), (), sources)
    extra = tmp_path / "one" / "new.py"
    extra.write_text("x = 1\n")
    second = compile_sources(
        Context(), tmp_path / "cache", StatCache(), interpreter(), (), [*sources, (b"/app/new.py", host_file(extra))]
    )

    assert second[: len(first)] == first
    assert len(second) == len(first) + 1


def test_an_interpreter_that_does_not_run_is_told(tmp_path: Path) -> None:
    """Its own words are the reason; nothing is taken for bytecode."""
    broken = tmp_path / "python3"
    broken.write_text("#!/bin/sh\necho cannot find libpython >&2\nexit 127\n")
    broken.chmod(0o755)
    with pytest.raises(CannotRun, match="cannot find libpython"):
        compile_sources(Context(), tmp_path / "cache", StatCache(), host_file(broken), (), sources_in(tmp_path / "one"))


def test_what_could_not_be_written_is_no_bytecode(tmp_path: Path) -> None:
    """A compiler that runs out of room, or is killed, ends the build; the next one takes nothing of it for made."""
    narrow = tmp_path / "python3"
    narrow.write_text(f'#!/bin/sh\nulimit -f 0\nexec {sys.executable} "$@"\n')
    narrow.chmod(0o755)
    sources = sources_in(tmp_path / "one")
    with pytest.raises(BuildError, match="could not compile"):
        compile_sources(Context(), tmp_path / "cache", StatCache(), host_file(narrow), (), sources)
    assert not [*(tmp_path / "cache").rglob("*.pyc*")]


def test_a_source_that_changes_meanwhile_leaves_nothing_behind(tmp_path: Path) -> None:
    """Its bytecode would be kept under the digest of what it was."""
    sources, stats = sources_in(tmp_path / "one"), StatCache()
    for _, source in sources:
        stats.digest(Context(), source)
    stats._used |= {source.path: (source.stamp, StatCache().digest(Context(), source)) for _, source in sources}
    (tmp_path / "one" / "good.py").write_text("evil = True\n")
    with pytest.raises(SourceChanged, match=r"good\.py: changed while it was compiled"):
        compile_sources(Context(), tmp_path / "cache", stats, interpreter(), (), sources)
    assert not any(b"evil" in path.read_bytes() for path in (tmp_path / "cache").rglob("*.pyc"))
