"""Every scenario on a cloud that is slow in all that a cloud can be slow in (slow.py): the same end, no client notices,
and it takes no longer than is written here."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from osvdeploy.errors import OsvDeployError
from osvdeploy.rollout.model import Limits
from tests.faults.matrix import Scenario, Site, Watch, played
from tests.faults.scenarios import IN_OTHER_SITES, OTHER_SITES, SAMPLED_THERE, SCENARIOS, SITES, scenario_of
from tests.faults.slow import PROPAGATION, FarAway, reach_late

pytestmark = [pytest.mark.slow, pytest.mark.sandbox]

ALL = os.environ.get("OSVDEPLOY_FAULTS_SHARE")
"""Where it is set, as by `make soak`, Google's other ways are tried whole."""

BOUNDS = {
    "first deploy": (4, 6),
    "blue-green": (3, 5),
    "all at once": (3, 5),
    "canary": (4, 8),
    "linear": (4, 8),
    "gate that passes": (6, 9),
    "gate that fails": (7, 12),
    "paused, then aborted": (7, 12),
    "bad release": (3, 10),
    "approval": (3, 5),
    "abort": (3, 6),
    "abort at the switch": (5, 8),
    "supersede": (6, 10),
    "warm rollback": (3, 4),
    "cold rollback": (3, 8),
    "gc": (1, 2),
    "destroy": (1, 2),
    "adopt": (3, 5),
    "destroy what was adopted": (3, 4),
    "rollback from cloud": (3, 4),
    "hooks that pass": (5, 9),
    "hook that fails": (5, 10),
}
"""Minutes of the cloud's time, on AWS and on Google, from the command to its end; docs/faults.md has them too."""

OTHERS = (10, 15)
"""Of what is not among them."""


@pytest.mark.parametrize("kind", SITES)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.name)
def test_a_slow_cloud_is_waited_for(
    kind: str,
    scenario: Scenario,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    """Each call takes its time, half of them are throttled, and what changes is in force a minute later."""
    took = _slowly(kind, SITES[kind](tmp_path), scenario, monkeypatch, record_property)
    assert took / 60 <= BOUNDS.get(scenario.name, OTHERS)[list(SITES).index(kind)]


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in OTHER_SITES for name in (SAMPLED_THERE if ALL is None else IN_OTHER_SITES)[kind]],
)
def test_a_slow_cloud_is_waited_for_by_googles_other_ways(
    kind: str,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    """Behind a forwarding rule, and with groups of a region: likewise, within the time of Google's first way."""
    took = _slowly(kind, OTHER_SITES[kind](tmp_path), scenario_of(name), monkeypatch, record_property)
    assert took / 60 <= BOUNDS[name][1]


def _slowly(
    kind: str,
    site: Site,
    scenario: Scenario,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> float:
    """Seconds of the cloud's time that the scenario's command takes."""
    plot = played(site, scenario)
    site, world = plot.site, plot.site.world
    # As often as a user's own run looks.
    site.limits = Limits()
    reach_late(monkeypatch)
    world.put_back(plot.start)
    far = FarAway(world.clock)
    monkeypatch.setattr(world.sandbox, "faults", far)
    watch = Watch(site, scenario)
    world.sandbox.hook = watch
    began = world.clock.monotonic()
    ended = scenario.command(site)
    took = world.clock.monotonic() - began
    world.sandbox.hook = None
    watch.go_on(2 * int(PROPAGATION))
    monkeypatch.undo()
    record_property(
        "told",
        f"{scenario.name:19} {kind:18} {len(watch.seen):4} calls  {far.throttled:3} throttled  {took / 60:5.1f} min",
    )
    assert not isinstance(ended, OsvDeployError)
    assert not watch.wrong, "\n".join(watch.wrong[:10])
    assert site.standing() == plot.left
    return took


def test_the_bounds_are_those_that_the_docs_have() -> None:
    """Row by row."""
    docs = (Path(__file__).parents[2] / "docs" / "faults.md").read_text()
    for name, (aws, google) in BOUNDS.items():
        assert f"| {name} | {aws} | {google} |" in docs
