from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from osvdeploy.build.statcache import StatCache
from osvdeploy.context import Context, VirtualClock
from osvdeploy.digests import sha256
from osvdeploy.errors import SourceChanged
from osvdeploy.osv.filetree import HostFile, stamp_of

LATER = Context(clock=VirtualClock())  # its time is years after every file's


def host_file(path: Path) -> HostFile:
    return HostFile(os.fsencode(path), stamp_of(path.stat()))


def context_at(nanoseconds: int) -> Context:
    return Context(clock=VirtualClock(datetime.fromtimestamp(nanoseconds / 1e9, UTC)))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"content")
    return path


def test_an_unchanged_file_is_not_read_again(tmp_path: Path, source: Path) -> None:
    """What stat says is the same, so the remembered digest is the answer, in this run and the next."""
    cache = StatCache.load(tmp_path / "cache.json")
    found = host_file(source)
    assert cache.digest(LATER, found) == sha256(b"content")
    cache.save(LATER)
    again = StatCache.load(tmp_path / "cache.json")
    os.truncate(source, 0)  # would be seen if it were read
    assert again.digest(LATER, found) == sha256(b"content")


def test_a_file_changed_a_moment_ago_is_not_remembered(tmp_path: Path, source: Path) -> None:
    """Within a tick of its last change it may change again and look the same: the racy rule of git's index."""
    found = host_file(source)
    changed = max(found.stamp.modified, found.stamp.changed)
    for after, remembered in [(-(10**9), False), (10**9, False), (3 * 10**9, True)]:
        cache = StatCache(tmp_path / "cache.json")
        cache.digest(context_at(changed + after), found)
        cache.save(LATER)
        assert bool(StatCache.load(tmp_path / "cache.json")._known) is remembered


@pytest.mark.parametrize("field", ["device", "inode", "size", "modified", "changed"])
def test_every_part_of_the_stamp_counts(tmp_path: Path, source: Path, field: str) -> None:
    """A file of which stat says anything else is not the one that was remembered."""
    cache = StatCache()
    found = host_file(source)
    cache.digest(LATER, found)
    cache._known = cache._used
    other = HostFile(found.path, found.stamp._replace(**{field: getattr(found.stamp, field) + 1}))
    with pytest.raises(SourceChanged):
        cache.digest(LATER, other)


def test_a_file_that_changed_since_it_was_found_is_named(source: Path) -> None:
    """The digest is of the file that was found, or there is none."""
    found = host_file(source)
    source.write_bytes(b"longer content")
    with pytest.raises(SourceChanged, match="source: changed while it was read"):
        StatCache().digest(LATER, found)
    source.unlink()
    with pytest.raises(SourceChanged, match="source: cannot be read: No such file"):
        StatCache().digest(LATER, found)


def test_names_that_are_no_text_are_remembered(tmp_path: Path) -> None:
    """Paths are bytes."""
    path = tmp_path / "a\udcff"
    path.write_bytes(b"x")
    cache = StatCache(tmp_path / "cache.json")
    cache.digest(LATER, host_file(path))
    cache.save(LATER)
    assert StatCache.load(tmp_path / "cache.json")._known == cache._used


def test_what_is_not_used_any_more_is_forgotten(tmp_path: Path, source: Path) -> None:
    """The cache holds the files of the last build alone, so it does not grow."""
    cache = StatCache(tmp_path / "cache.json")
    cache.digest(LATER, host_file(source))
    cache.save(LATER)
    StatCache.load(tmp_path / "cache.json").save(LATER)
    assert StatCache.load(tmp_path / "cache.json")._known == {}


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=60), st.tuples(st.integers(0, 250), st.integers(1, 255))))
def test_a_damaged_cache_is_an_empty_one(tmp_path: Path, source: Path, damage: bytes | tuple[int, int]) -> None:
    """Any bytes in its place, and any flipped byte in it, are no cache; a right digest is computed anew."""
    file = tmp_path / "cache.json"
    cache = StatCache(file)
    cache.digest(LATER, host_file(source))
    cache.save(LATER)
    if isinstance(damage, bytes):
        file.write_bytes(damage)
    else:
        content = bytearray(file.read_bytes())
        content[damage[0] % len(content)] ^= damage[1]
        file.write_bytes(content)
    damaged = StatCache.load(file)
    assert damaged._known == {}
    assert damaged.digest(LATER, host_file(source)) == sha256(b"content")


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, source: Path) -> None:
    """It only makes the next build slower."""
    (tmp_path / "stats").write_text("in the way")
    cache = StatCache(tmp_path / "stats" / "cache.json")
    cache.digest(LATER, host_file(source))
    cache.save(LATER)
    assert (tmp_path / "stats").read_text() == "in the way"
