"""What is remembered of files, whatever it is."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from osvdeploy.build.stamped import Stamped, sealed, unsealed
from osvdeploy.context import Context, VirtualClock
from osvdeploy.osv.filetree import HostFile, stamp_of

LATER = Context(clock=VirtualClock())  # its time is years after every file's


class Words(Stamped[tuple[str, ...]]):
    """The words of text files; nothing of a file is a value too."""

    VERSION = 7

    def look(self, ctx: Context, path: Path) -> tuple[str, ...]:
        return self.recall_or_read(ctx, host_file(path), lambda file: tuple(path.read_text().split()))

    @staticmethod
    def _row(known: tuple[str, ...]) -> Sequence[object]:
        return known

    @staticmethod
    def _of_row(row: list[Any]) -> tuple[str, ...]:
        if not all(isinstance(word, str) for word in row):
            raise TypeError("no word")
        return tuple(row)


def host_file(path: Path) -> HostFile:
    return HostFile(os.fsencode(path), stamp_of(path.stat()))


def context_at(nanoseconds: int) -> Context:
    return Context(clock=VirtualClock(datetime.fromtimestamp(nanoseconds / 1e9, UTC)))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_text("a few words")
    return path


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "stats" / "words.json"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(codec="utf-8"), max_size=40))
def test_what_was_read_is_known_in_the_next_run(place: Path, source: Path, text: str) -> None:
    """Though nothing reads the file again, and be it nothing."""
    source.write_text(text)
    words = Words(place)
    known = words.look(LATER, source)
    words.save(LATER)
    assert Words.load(place).recall(host_file(source)) == (host_file(source).stamp, known)


def test_a_file_is_read_once_in_a_run_too(place: Path, source: Path) -> None:
    """An image may have it in two places."""
    words = Words(place)
    file = host_file(source)
    assert words.recall_or_read(LATER, file, lambda file: ("one",)) == ("one",)
    assert words.recall_or_read(LATER, file, lambda file: ("two",)) == ("one",)


def test_a_file_changed_a_moment_ago_is_not_remembered(place: Path, source: Path) -> None:
    """Within a tick of its last change it may change again and look the same: the racy rule of git's index."""
    stamp = host_file(source).stamp
    changed = max(stamp.modified, stamp.changed)
    for after, remembered in [(-(10**9), False), (10**9, False), (3 * 10**9, True)]:
        words = Words(place)
        words.look(context_at(changed + after), source)
        words.save(context_at(changed + after))
        assert (Words.load(place).recall(host_file(source)) is not None) is remembered


@pytest.mark.parametrize("field", ["device", "inode", "size", "modified", "changed"])
def test_every_part_of_the_stamp_counts(source: Path, field: str) -> None:
    """A file of which stat says anything else is not the one that was remembered."""
    words = Words()
    words.look(LATER, source)
    found = host_file(source)
    other = HostFile(found.path, found.stamp._replace(**{field: getattr(found.stamp, field) + 1}))
    assert words.recall(found) is not None and words.recall(other) is None


def test_names_that_are_no_text_are_remembered(tmp_path: Path, place: Path) -> None:
    """Paths are bytes."""
    path = tmp_path / "a\udcff"
    path.write_text("x")
    words = Words(place)
    words.look(LATER, path)
    words.save(LATER)
    assert Words.load(place).recall(host_file(path)) is not None


def test_what_is_not_used_any_more_is_forgotten(place: Path, source: Path) -> None:
    """A memory holds the files of the last run alone, so it does not grow."""
    words = Words(place)
    words.look(LATER, source)
    words.save(LATER)
    Words.load(place).save(LATER)
    assert Words.load(place).recall(host_file(source)) is None


def test_nothing_new_is_not_written_again(place: Path, source: Path) -> None:
    """A run that learned nothing leaves the file alone."""
    inodes = []
    for _ in range(2):
        words = Words.load(place)
        words.look(LATER, source)
        words.save(LATER)
        inodes.append(place.stat().st_ino)
    assert inodes[0] == inodes[1]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=60), st.tuples(st.integers(0, 250), st.integers(1, 255))))
def test_a_damaged_memory_is_an_empty_one(place: Path, source: Path, damage: bytes | tuple[int, int]) -> None:
    """Any bytes in its place, and any flipped byte in it, are no memory; the right answer is found anew."""
    words = Words(place)
    words.look(LATER, source)
    words.save(LATER)
    if isinstance(damage, bytes):
        place.write_bytes(damage)
    else:
        content = bytearray(place.read_bytes())
        content[damage[0] % len(content)] ^= damage[1]
        place.write_bytes(content)
    damaged = Words.load(place)
    assert damaged.recall(host_file(source)) is None
    assert damaged.look(LATER, source) == ("a", "few", "words")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    document=json_values
    | st.fixed_dictionaries({"version": st.just(7), "files": json_values})
    | st.fixed_dictionaries({"version": st.just(7), "files": st.dictionaries(st.text(max_size=5), json_values)})
)
def test_a_sealed_memory_of_anything_else_is_an_empty_one(place: Path, document: object) -> None:
    """Another version of us, or another program, wrote it; what has our form may be believed."""
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(sealed(json.dumps(document).encode()))
    for stamp, words in Words.load(place)._known.values():
        assert len(stamp) == 5 and all(isinstance(word, str) for word in words)


def test_a_memory_that_cannot_be_written_is_no_error(tmp_path: Path, source: Path) -> None:
    """It only makes the next run slower."""
    (tmp_path / "stats").write_text("in the way")
    words = Words(tmp_path / "stats" / "words.json")
    words.look(LATER, source)
    words.save(LATER)
    assert (tmp_path / "stats").read_text() == "in the way"


@given(body=st.binary(max_size=60), at=st.integers(0, 200), flip=st.integers(1, 255))
def test_a_seal_tells_any_change(body: bytes, at: int, flip: int) -> None:
    """What comes back is what went in, or nothing does."""
    content = bytearray(sealed(body))
    assert unsealed(bytes(content)) == body
    content[at % len(content)] ^= flip
    with pytest.raises(ValueError, match="checksum"):
        unsealed(bytes(content))
