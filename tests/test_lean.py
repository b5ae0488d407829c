"""What forks much does so in a process of its own, which answers or tells how it ended."""

from __future__ import annotations

import os
import signal

import pytest

from tests.faults.lean import lean
from tests.google_types import Judge, Unfit

pytestmark = pytest.mark.slow


def _doubled(number: int) -> tuple[int, int]:
    return number * 2, os.getpid()


def _fails() -> None:
    raise ValueError("a release has no name")


def _is_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _judges(path: str) -> dict[str, int]:
    judge = Judge()
    judge.hold("GET", f"https://compute.googleapis.com{path}", None)
    return judge.seen


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


def test_requests_are_judged_there_by_what_judges_here() -> None:
    """And here again, after it."""
    path = "/compute/v1/projects/acme/zones/europe-west1-b/instances"
    assert lean(_judges, path) == _judges(path) == {"instances.list": 1}
    with pytest.raises(AssertionError, match=Unfit.__name__):
        lean(_judges, f"{path}?colour=red")
    assert lean(_judges, f"{path}?maxResults=5") == {"instances.list": 1}
