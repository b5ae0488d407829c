"""docs/faults.md names the suites and tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).parent
DOCS = (FOLDER.parents[1] / "docs" / "faults.md").read_text()


def test_every_test_that_the_docs_name_is_there() -> None:
    """By its name, in one of the suites."""
    there = set(re.findall(r"^def (test_\w+)", "".join(each.read_text() for each in FOLDER.glob("test_*.py")), re.M))
    named = set(re.findall(r"`(test_\w+)`", DOCS))
    assert len(named) > 40
    assert named <= there


def test_every_suite_is_told_of() -> None:
    """But for this one."""
    suites = {each.name for each in FOLDER.glob("test_*.py")} - {"test_told.py"}
    assert suites <= set(re.findall(r"test_\w+\.py", DOCS))


def test_every_story_is_told_of() -> None:
    """What is in the suite of stories is in the table, or is one of ours."""
    ours = {"test_a_broken_notification_or_metric_keeps_no_traffic_from_coming_back"}
    ours |= {"test_a_deploy_goes_no_further_than_its_process_was_told", "test_gc_waits_for_a_cloud_that_cannot_now"}
    for suite in ("test_stories.py", "test_stories_in_clouds.py"):
        told = set(re.findall(r"^def (test_\w+)", (FOLDER / suite).read_text(), re.M))
        assert told - ours <= set(re.findall(r"`(test_\w+)`", DOCS)), suite
