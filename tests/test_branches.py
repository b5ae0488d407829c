"""What the crash suites stand on: a branch has its own memory, and what is wrong in it is told."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.branches import Branches


def test_each_branch_goes_on_from_where_it_was_with_a_memory_of_its_own() -> None:
    """And the run itself as if there had been none."""
    branches, counted = Branches(), [0]

    def work() -> list[str]:
        for number in range(1, 4):
            counted[0] += number
            if branches.here():
                counted[0] += 100
                break
        return [str(counted[0])]

    branches.run(work)
    assert branches.wrong == ["101", "103", "106", "6"] and counted == [6]


@pytest.mark.parametrize(
    ("ends", "told"),
    [
        (lambda: (_ for _ in ()).throw(AssertionError("it is not as it was")), "it is not as it was"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "ended by itself, with 9"),
        (lambda: os._exit(3), f"ended by itself, with {3 << 8}"),
        (lambda: (_ for _ in ()).throw(KeyboardInterrupt), "KeyboardInterrupt"),
    ],
    ids=["an assertion", "killed", "an exit", "interrupted"],
)
def test_a_branch_that_does_not_come_to_its_end_is_wrong(ends: Callable[[], object], told: str) -> None:
    branches = Branches()

    def work() -> list[str]:
        if branches.here():
            ends()
        return []

    branches.run(work)
    [wrong] = branches.wrong
    assert told in wrong


def test_files_are_as_they_were_after_a_branch(tmp_path: Path) -> None:
    """In the folders that are named."""
    branches = Branches(tmp_path / "ledger")
    (tmp_path / "ledger" / "heads").mkdir(parents=True)
    kept = tmp_path / "ledger" / "heads" / "1"
    kept.write_text("one")

    def work() -> list[str]:
        if branches.here():
            kept.write_text("other")
            (tmp_path / "ledger" / "heads" / "2").write_text("two")
        return []

    branches.run(work)
    assert not branches.wrong and kept.read_text() == "one" and [kept] == list(kept.parent.iterdir())


def test_beside_another_thread_nothing_is_split() -> None:
    """It would not go on in the branch."""
    branches, over = Branches(), threading.Event()
    assert branches.splits
    beside = threading.Thread(target=over.wait)
    beside.start()
    try:
        assert not branches.splits
    finally:
        over.set()
        beside.join()
    assert branches.splits


def test_what_fails_in_the_run_itself_is_raised() -> None:
    branches = Branches()

    def work() -> list[str]:
        branches.here()
        if not branches.is_branch:
            raise ValueError("in the run itself")
        return ["in the branch"]

    with pytest.raises(ValueError, match="in the run itself"):
        branches.run(work)
    assert branches.wrong == ["in the branch"]
