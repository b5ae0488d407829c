"""Rollouts in trouble, on AWS and on Google: what befalls any of their calls, they end well (matrix.py)."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.matrix import Scenario, Site, befallen, deaths, played, sampled, troubles
from tests.faults.scenarios import IN_OTHER_SITES, OTHER_SITES, SAMPLED_THERE, SCENARIOS, SITES, scenario_of

pytestmark = [pytest.mark.slow, pytest.mark.sandbox, pytest.mark.forks]

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
    _tried(kind, SITES[kind](tmp_path), scenario, record_property)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in OTHER_SITES for name in (SAMPLED_THERE if ALL is None else IN_OTHER_SITES)[kind]],
)
def test_trouble_is_got_over_by_googles_other_ways(
    kind: str, name: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Behind a forwarding rule, and with groups of a region: likewise."""
    _tried(kind, OTHER_SITES[kind](tmp_path), scenario_of(name), record_property)


def _tried(kind: str, site: Site, scenario: Scenario, record_property: Callable[[str, object], None]) -> None:
    plot = played(site, scenario)
    found = list(troubles(plot))
    tried = sampled(found, SHARES.get(kind, OTHER_SHARE) if ALL is None else float(ALL))
    dies = list(deaths(plot))
    died = sampled(dies, (DEATHS if kind in SHARES else OTHER_DEATHS) if ALL is None else float(ALL))
    wrong = befallen(plot, tried, died)
    changes = sum(mutating for _, _, mutating in plot.calls)
    record_property(
        "told",
        f"{scenario.name:24} {kind:18} {len(plot.calls):4} calls  {changes:3} changes  {len(found):4} troubles  "
        f"{len(tried):4} tried  {len(dies):3} deaths  {len(died):3} died",
    )
    if kind in SITES:
        counted = ", ".join(map(str, (len(plot.calls), changes, len(found), len(dies))))
        written = _row(scenario)[list(SITES).index(kind)]
        assert written == counted, f"docs/faults.md has {written} for {scenario.name} on {kind}"
    assert not wrong, "\n".join([f"{len(wrong)} things are wrong:", *wrong[:20]])


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
