from __future__ import annotations

import os
from pathlib import Path

import pytest

from osvdeploy.build.statcache import StatCache
from osvdeploy.context import Context, VirtualClock
from osvdeploy.digests import sha256
from osvdeploy.errors import SourceChanged
from osvdeploy.osv.filetree import HostFile, stamp_of

LATER = Context(clock=VirtualClock())  # its time is years after every file's


def host_file(path: Path) -> HostFile:
    return HostFile(os.fsencode(path), stamp_of(path.stat()))


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
