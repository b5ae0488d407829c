"""What forks much does so in a process of its own, which answers or tells how it ended."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.contract import gcp_place
from tests.faults.lean import lean, run
from tests.google_types import Judge, Unfit

pytestmark = pytest.mark.slow


def _doubled(number: int) -> tuple[int, int]:
    return number * 2, os.getpid()


def _fails() -> None:
    raise ValueError("a release has no name")


def _is_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _judges(path: str) -> dict[str, int]:
    assert gcp_place.judge is not None
    gcp_place.judge.hold("GET", f"https://compute.googleapis.com{path}", None)
    return gcp_place.judge.seen


def test_work_is_done_in_another_process() -> None:
    """Each piece in one of its own."""
    (first, there), (second, elsewhere) = lean(_doubled, 2), lean(_doubled, number=4)
    assert (first, second) == (4, 8) and len({there, elsewhere, os.getpid()}) == 3


def test_what_it_raises_is_told_with_where_it_was() -> None:
    with pytest.raises(AssertionError, match=r"in _fails\n(.*\n)*ValueError: a release has no name"):
        lean(_fails)


def test_that_it_ended_by_itself_is_told() -> None:
    with pytest.raises(AssertionError, match="the process of _is_killed ended by itself, with -9"):
        lean(_is_killed)


def test_requests_are_judged_there_where_they_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """And here again, after it."""
    monkeypatch.setattr(gcp_place, "judge", Judge())
    path = "/compute/v1/projects/acme/zones/europe-west1-b/instances"
    assert lean(_judges, path) == _judges(path) == {"instances.list": 1}
    with pytest.raises(AssertionError, match=Unfit.__name__):
        lean(_judges, f"{path}?colour=red")
    assert lean(_judges, f"{path}?maxResults=5") == {"instances.list": 1}


@pytest.mark.forks
@pytest.mark.parametrize(("word", "ends"), [(lambda: "good", str.upper), (lambda: "well", str.title)])
@pytest.mark.parametrize("name", {"first": 1, "second": 2})
def test_a_test_that_forks_is_run_elsewhere(
    name: str, word: Callable[[], str], ends: Callable[[str], str], tmp_path: Path
) -> None:
    """With what it is parametrized with, whatever that is, and its folder."""
    assert multiprocessing.parent_process() is not None
    assert (name, ends(word())) in {(each, said) for each in ("first", "second") for said in ("GOOD", "Well")}
    assert tmp_path.is_dir()


def _holds(record_property: Callable[[str, object], None], tmp_path: Path) -> None:
    record_property("told", "half of it")
    (tmp_path / "made").mkdir()
    assert tmp_path.name != "elsewhere", "only here"


def _told(record_property: Callable[[str, object], None]) -> None:
    record_property("told", "all of it")


def _item(test: Callable[..., None], **given: object) -> Any:
    return SimpleNamespace(
        module=sys.modules[__name__],
        originalname=test.__name__,
        obj=test,
        funcargs=given,
        user_properties=[],
    )


def test_what_a_test_recorded_elsewhere_is_told_here() -> None:
    item = _item(_told, record_property=print)
    run(item)
    assert item.user_properties == [("told", "all of it")]


@pytest.mark.parametrize("name", ("first", "second"))
@pytest.mark.parametrize("at", (0, 1))
def test_it_is_given_there_what_it_is_given_here(name: str, at: int) -> None:
    """Each combination, and no other."""
    item = _item(_spoken, record_property=print)
    item.callspec = SimpleNamespace(params={"name": name, "word": _WORDS[at][0], "ends": _WORDS[at][1]})
    run(item)
    assert item.user_properties == [("told", f"{name}: {('GOOD', 'Well')[at]}")]


_WORDS = [(lambda: "good", str.upper), (lambda: "well", str.title)]


@pytest.mark.parametrize(("word", "ends"), _WORDS)
@pytest.mark.parametrize("name", ("first", "second"))
def _spoken(
    name: str, word: Callable[[], str], ends: Callable[[str], str], record_property: Callable[[str, object], None]
) -> None:
    record_property("told", f"{name}: {ends(word())}")


def test_one_that_fails_elsewhere_fails_though_it_passes_here(tmp_path: Path) -> None:
    """It is run here, too, in a folder that nobody was in: an assert is explained here alone."""
    with pytest.raises(AssertionError, match="only here"):
        run(_item(_holds, record_property=lambda name, value: None, tmp_path=tmp_path))
    assert (tmp_path / "made").is_dir()
