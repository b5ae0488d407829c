"""Rollouts in trouble, on AWS and on Google: what befalls any of their calls, they end well (matrix.py)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from osvdeploy.rollout.model import RequestKind
from osvdeploy.rollout.releases import Concurrent, Strategy, StrategyKind, TrafficStep
from tests.aws_world import REGION, AwsWorld
from tests.faults.matrix import Scenario, Site, befallen, played, sampled, troubles
from tests.faults.test_deploy_crashes import _name
from tests.gcp_world import GcpWorld
from tests.world import BAD, SETTLED

pytestmark = [pytest.mark.slow, pytest.mark.sandbox]

SHARE = float(os.environ.get("OSVDEPLOY_FAULTS_SHARE", "0.5"))
"""Of all pairs of call and trouble, what one run tries; `make soak` tries all."""

CANARY = Strategy(StrategyKind.CANARY, (TrafficStep(20, 5.0), TrafficStep(100)), 5.0, 3600.0)
ASKING = replace(CANARY, steps=(TrafficStep(20, 5.0, approve=True), TrafficStep(100)))
AT_ONCE = Strategy(StrategyKind.ALL_AT_ONCE, (TrafficStep(100),), 0.0, 0.0)


class AwsSite(Site):
    """A service on AWS."""

    version_header = "x-release"

    def __init__(self, folder: Path) -> None:
        super().__init__(AwsWorld(folder), 8080)

    @property
    def address(self) -> str:
        return str(self.world.sandbox.store.begin().all(REGION, "elbv2.balancer")[0]["DNSName"])

    def standing(self) -> Mapping[str, object]:
        self.world.sandbox.hook = None
        self.world.wait(SETTLED)
        store = self.world.sandbox.store.begin()
        held = {
            kind: sorted(_name(key, store.get(REGION, kind, key) or {}) for key in keys)
            for kind, keys in self.world.held().items()
        }
        carrying = [] if self.world.head.destroyed else sorted(arn.split("/")[1] for arn in self.carrying())
        return {**held, **self.ledger(), "carrying": carrying}


class GcpSite(Site):
    """A service on Google, behind a URL map."""

    version_header = "x-osvdeploy-release"

    def __init__(self, folder: Path) -> None:
        super().__init__(GcpWorld(folder), 8000)
        self.entry = self.place.network.ask("GET", "global/forwardingRules/web")

    @property
    def address(self) -> str:
        return str(self.entry["IPAddress"])

    def standing(self) -> Mapping[str, object]:
        self.world.sandbox.hook = None
        self.world.wait(SETTLED)
        matchers = self.place.network.ask("GET", "global/urlMaps/web").get("pathMatchers", [])
        leading = [(rule["priority"], rule["routeAction"]) for matcher in matchers for rule in matcher["routeRules"]]
        held = {kind: keys for kind, keys in self.world.held().items() if kind.startswith("compute.")}
        for passing in ("compute.operation", "compute.instance", "compute.disk", "compute.urlMap"):
            held.pop(passing, None)
        return {**held, **self.ledger(), "leading": leading}


def _one(*versions: str) -> frozenset[str]:
    return frozenset(versions)


def _asked(site: Site) -> None:
    """A canary that waits for approval at its first share."""
    site.new("1.0.0", strategy=ASKING)
    assert site.deploy("new").exit_code == 5


def _superseding(site: Site) -> None:
    _asked(site)
    site.made("newest", strategy=replace(AT_ONCE, concurrent=Concurrent.SUPERSEDE))


SCENARIOS = [
    Scenario("first deploy", lambda each: each.new(), lambda each: each.deploy("new"), None),
    Scenario("blue-green", lambda each: each.new("1.0.0"), lambda each: each.deploy("new"), _one("1.0.0", "new")),
    Scenario(
        "all at once",
        lambda each: each.new("1.0.0", strategy=AT_ONCE),
        lambda each: each.deploy("new"),
        _one("1.0.0", "new"),
    ),
    Scenario(
        "canary",
        lambda each: each.new("1.0.0", strategy=CANARY),
        lambda each: each.deploy("new"),
        _one("1.0.0", "new"),
    ),
    Scenario(
        "bad release",
        lambda each: each.new("1.0.0", program=BAD),
        lambda each: each.deploy("new"),
        _one("1.0.0"),
    ),
    Scenario("approval", _asked, lambda each: each.say(RequestKind.APPROVE), _one("1.0.0", "new")),
    Scenario("abort", _asked, lambda each: each.say(RequestKind.ABORT), _one("1.0.0", "new")),
    Scenario("supersede", _superseding, lambda each: each.deploy("newest"), _one("1.0.0", "new", "newest")),
    Scenario(
        "warm rollback",
        lambda each: each.put_into_service("1.0.0", "1.1.0"),
        lambda each: each.rollback(),
        _one("1.0.0", "1.1.0"),
    ),
    Scenario(
        "cold rollback",
        lambda each: each.put_into_service("1.0.0", "1.1.0", "1.2.0"),
        lambda each: each.rollback("1.0.0"),
        _one("1.0.0", "1.2.0"),
    ),
    Scenario("destroy", lambda each: each.put_into_service("1.0.0", "1.1.0"), lambda each: each.destroy(), None),
]

SITES: dict[str, Callable[[Path], Site]] = {"aws": AwsSite, "google": GcpSite}


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", SITES)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.name)
def test_trouble_at_any_call_is_got_over(
    kind: str, scenario: Scenario, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Lost answers, hung and throttled calls, refusals, stale reads: the same end, and no client noticed."""
    plot = played(SITES[kind](tmp_path), scenario)
    found = list(troubles(plot))
    tried = sampled(found, SHARE)
    wrong = [each for trouble in tried for each in befallen(plot, trouble)]
    changes = sum(mutating for _, _, mutating in plot.calls)
    record_property(
        "told",
        f"{scenario.name:15} {kind:6} {len(plot.calls):4} calls  {changes:3} changes  {len(found):4} troubles  "
        f"{len(tried):4} tried",
    )
    assert not wrong, "\n".join([f"{len(wrong)} things are wrong:", *wrong[:20]])
