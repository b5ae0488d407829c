"""Rollouts in trouble, on AWS and on Google: what befalls any of their calls, they end well (matrix.py)."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.contract import gcp_place
from tests.faults.lean import lean
from tests.faults.matrix import Scenario, befallen, deaths, played, sampled, troubles
from tests.faults.scenarios import IN_OTHER_SITES, OTHER_SITES, SAMPLED_THERE, SCENARIOS, SITES, scenario_of
from tests.google_types import Judge

pytestmark = [pytest.mark.slow, pytest.mark.sandbox]

SHARES = {"aws": 1 / 7, "google": 1 / 14}
"""What one run tries of all pairs of call and trouble: on Google there are more, and each takes twice as long."""

OTHER_SHARE, OTHER_DEATHS = 0.03, 0.1
"""Likewise of Google's other ways, in a few scenarios."""

DEATHS = 1 / 4
"""What one run tries of all deaths."""

ALL = os.environ.get("OSVDEPLOY_FAULTS_SHARE")
"""Another share, for both: `make soak` tries all."""


ROWS = {
    "all at once": "all at once, the old release taken away",
    "canary": "canary of two shares",
    "bad release": "a release that answers 500",
    "approval": "an approved canary",
    "abort": "an aborted canary",
    "supersede": "a superseded canary",
    "gate that passes": "a metric gate that passes",
    "gate that fails": "a metric gate that fails",
    "paused, then aborted": "a gate fails, a person is asked, and aborts",
    "abort at the switch": "aborted right at a switch",
    "gc": "gc, of one release",
    "adopt": "adopting a group that somebody else made",
    "destroy what was adopted": "destroy of what was adopted",
    "rollback from cloud": "a rollback without the ledger, and learnt",
    "hooks that pass": "a canary with hooks that pass, and a webhook",
    "hook that fails": "a hook that fails under traffic, and a webhook",
}
"""What the table in docs/faults.md calls a scenario, where it is not by its name."""

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", SITES)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.name)
def test_trouble_at_any_call_is_got_over(
    kind: str, scenario: Scenario, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Lost answers, hung and throttled calls, refusals, stale reads, and death right before or after a change: the same
    end, and no client noticed."""
    _is_got_over(kind, scenario, tmp_path, record_property)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in OTHER_SITES for name in (SAMPLED_THERE if ALL is None else IN_OTHER_SITES)[kind]],
)
def test_trouble_is_got_over_by_googles_other_ways(
    kind: str, name: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Behind a forwarding rule, and with groups of a region: likewise."""
    _is_got_over(kind, scenario_of(name), tmp_path, record_property)


@dataclass(frozen=True)
class Tried:
    """What one scenario has, and what of it was tried."""

    calls: int
    changes: int
    troubles: int
    tried: int
    deaths: int
    died: int
    wrong: list[str]


def _is_got_over(kind: str, scenario: Scenario, folder: Path, record_property: Callable[[str, object], None]) -> None:
    share, deadly = (SHARES[kind], DEATHS) if kind in SHARES else (OTHER_SHARE, OTHER_DEATHS)
    if ALL is not None:
        share = deadly = float(ALL)
    found = lean(_tried, kind, scenario.name, folder, share, deadly)
    record_property(
        "told",
        f"{scenario.name:24} {kind:18} {found.calls:4} calls  {found.changes:3} changes  {found.troubles:4} troubles  "
        f"{found.tried:4} tried  {found.deaths:3} deaths  {found.died:3} died",
    )
    if kind in SITES:
        counted = ", ".join(map(str, (found.calls, found.changes, found.troubles, found.deaths)))
        written = _row(scenario)[list(SITES).index(kind)]
        assert written == counted, f"docs/faults.md has {written} for {scenario.name} on {kind}"
    assert not found.wrong, "\n".join([f"{len(found.wrong)} things are wrong:", *found.wrong[:20]])


def _tried(kind: str, name: str, folder: Path, share: float, deadly: float) -> Tried:
    """Those shares of a scenario's troubles and deaths, each in a branch: where a fork costs little."""
    gcp_place.judge = Judge()
    plot = played({**SITES, **OTHER_SITES}[kind](folder), scenario_of(name))
    found, dies = list(troubles(plot)), list(deaths(plot))
    tried, died = sampled(found, share), sampled(dies, deadly)
    changes = sum(mutating for _, _, mutating in plot.calls)
    wrong = befallen(plot, tried, died)
    return Tried(len(plot.calls), changes, len(found), len(tried), len(dies), len(died), wrong)


def _row(scenario: Scenario) -> tuple[str, str]:
    """Calls, changes, pairs and deaths of a rollout on each cloud, as the page has them."""
    four = r"(\d+, \d+, \d+, \d+)"
    title = re.escape(ROWS.get(scenario.name, scenario.name))
    [(aws, google)] = re.findall(rf"^\| {title} \| {four} \| {four} \|$", PAGE.read_text(), re.MULTILINE)
    return aws, google


def test_the_sums_of_the_table_are_those_that_the_page_has() -> None:
    """Pairs and deaths on both clouds; each row is held to what its scenario's own test has counted."""
    page, rows = " ".join(PAGE.read_text().split()), [_row(each) for each in SCENARIOS]
    for column, what in ((2, "pairs"), (3, "deaths")):
        aws, google = (sum(int(row[cloud].split(", ")[column]) for row in rows) for cloud in (0, 1))
        assert f"{aws + google:,} {what}, {aws:,} on AWS and {google:,} on Google" in page
