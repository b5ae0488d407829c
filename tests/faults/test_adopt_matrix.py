"""Adopting somebody's group, and going back without the ledger, in trouble at any call (matrix.py)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from osvdeploy.api import from_cloud
from osvdeploy.api.from_cloud import Whereabouts
from osvdeploy.cloud.gcp.urlmap import RELEASE_HEADER
from osvdeploy.cloud.interfaces import Slot
from osvdeploy.errors import Refused
from osvdeploy.rollout.ends import Rollout
from osvdeploy.rollout.model import Outcome
from osvdeploy.rollout.releases import Adopted, Release, adopted_release
from osvdeploy.sandbox.core import CrashHook, Moment
from osvdeploy.sandbox.runners import GuestAnswer
from osvdeploy.sandbox.wire import Call
from tests.contract import aws_scene, gcp_scene
from tests.contract.gcp_scene import ZONE, Network
from tests.faults.matrix import Scenario, Site, befallen, played, sampled, troubles
from tests.faults.scenarios import AwsSite, GcpSite
from tests.faults.venues import Killed
from tests.rollout.made import NOW, UNHURRIED
from tests.world import SETTLED, named_alike

pytestmark = [pytest.mark.slow, pytest.mark.sandbox]

SHARE = float(os.environ.get("OSVDEPLOY_FAULTS_SHARE", "0.25"))
"""Of all pairs of call and trouble, what one run tries; `make soak` tries all."""

GROUP = "legacy"


@dataclass(frozen=True)
class Clients:
    """What somebody else works with on AWS."""

    ec2: Any
    elbv2: Any
    autoscaling: Any


class TheirsOnAws(AwsSite):
    """A service on AWS that somebody made by hand: its listener's rule at 200 sends every request to their group."""

    def plant(self) -> None:
        self.made("0.9.0")
        session, network = self.place.session, self.place.network
        image = self.place.process().cloud.images.find(self.place.next_context(), self.releases["0.9.0"].id)
        clients: Any = Clients(session.client("ec2"), session.client("elbv2"), session.client("autoscaling"))
        aws_scene.plant_service(clients, network.listener, GROUP, image.id, network.subnets, 200)
        self.world.wait(120)

    def standing(self) -> Mapping[str, object]:
        """Theirs included: what their group stands behind, and our tags on it."""
        found = super().standing()
        asg: Any = self.place.session.client("autoscaling")
        groups = asg.describe_auto_scaling_groups(AutoScalingGroupNames=[GROUP])["AutoScalingGroups"]
        behind = [sorted(arn.split("/")[1] for arn in group["TargetGroupARNs"]) for group in groups]
        labelled = [sorted((tag["Key"], tag["Value"].rpartition("/")[0]) for tag in group["Tags"]) for group in groups]
        return {**found, "behind": behind, "labelled": labelled}

    def groups(self) -> Mapping[str, frozenset[str]]:
        return _without_theirs(self, super().groups())

    def adopted(self) -> Release:
        settings = self.world.settings
        health = replace(settings.health, version_header=None)
        return _adopted(replace(settings, health=health))


class TheirsOnGoogle(GcpSite):
    """Likewise on Google: the default of a path matcher, by a rule of theirs at 200."""

    def plant(self) -> None:
        self.made("0.9.0")
        network = self.place.network
        assert isinstance(network, Network)
        here = self.place.process()
        image = here.ground.images.find(here.ctx, self.releases["0.9.0"].id)
        gcp_scene.plant_service(here.ctx, self.place.account.gcp(), network, ZONE, GROUP, image.id, 200, "global")
        self.world.wait(300)

    def groups(self) -> Mapping[str, frozenset[str]]:
        return _without_theirs(self, super().groups())

    def adopted(self) -> Release:
        settings = self.world.settings
        return _adopted(replace(settings, health=replace(settings.health, version_header=RELEASE_HEADER)))

    def standing(self) -> Mapping[str, object]:
        """Theirs included: a rule of theirs names one service, and no weights."""
        self.world.sandbox.hook = None
        self.world.wait(SETTLED)
        matchers = self.place.network.ask("GET", "global/urlMaps/web").get("pathMatchers", [])
        leading = [
            (rule["priority"], rule.get("routeAction"), rule.get("service"))
            for matcher in matchers
            for rule in matcher["routeRules"]
        ]
        ports = self.place.network.ask("GET", f"zones/{ZONE}/instanceGroupManagers").get("items", [])
        held = {
            kind: named_alike(kind, keys) for kind, keys in self.world.held().items() if kind.startswith("compute.")
        }
        for passing in ("compute.operation", "compute.instance", "compute.disk", "compute.urlMap"):
            held.pop(passing, None)
        named = {each["name"]: each.get("namedPorts") for each in ports}
        return {**held, **self.ledger(), "leading": leading, "ports": named}

    def ask(self) -> str | None:
        """By what the program says of itself: before the adoption nobody else does."""
        answer = self.customer.get(self.address, self.port, "/")
        good = isinstance(answer, GuestAnswer) and answer.status == 200
        return answer.headers.get("x-release") if isinstance(answer, GuestAnswer) and good else None


def _without_theirs(site: Site, found: Mapping[str, frozenset[str]]) -> Mapping[str, frozenset[str]]:
    """Their group counts while it stands in a slot: after that it is none of ours."""
    head = site.world.ledger.head(site.world.next_context())
    ours = {record.group for record in head.slots.values()} if head is not None else set()
    return {name: behind for name, behind in found.items() if name != GROUP or name in ours}


def _adopted(settings: Any) -> Release:
    group = Adopted(GROUP, "their image", "the rule at priority 200")
    return adopted_release("hello", "adopted", group, settings, created=NOW, by="somebody")


def _adopt(site: Any) -> Rollout:
    here = site.place.process(UNHURRIED)
    ended: Rollout = here.manager.adopt(here.ctx, site.adopted())
    return ended


def _adopt_and_deploy(site: Any) -> None:
    site.plant()
    assert _adopt(site).outcome is Outcome.SUCCEEDED


def _destroy(site: Any) -> object:
    return site.destroy()


def _back_from_cloud(site: Any) -> Rollout:
    """While the ledger's store is out of reach."""
    here = site.place.process(UNHURRIED)
    ground = getattr(here, "cloud", None) or here.ground
    # Named by another address, so that the service's own is not asked; it is read by whoever watches.
    where = Whereabouts("hello", "production", ground.kind, ground.region, ledger=str(site.world.folder / "gone"))
    # With --to: a second run of a command that ended as it should not does not go back further.
    return from_cloud.go_back(here.ctx, where, ground, site.world.prober, to="1.0.0", limits=UNHURRIED).rollout


def _back_and_learnt(site: Any) -> object:
    """And then the ledger is there again: the next command learns it."""
    ended = _back_from_cloud(site) if site.world.head.stable.release == site.names["1.1.0"] else None
    if ended is not None and ended.outcome is not Outcome.SUCCEEDED:
        return ended
    here = site.place.process(UNHURRIED)
    try:
        here.manager.realign(here.ctx)
    except Refused:
        # The note could not be written, which was said, and what to do then.
        ground = getattr(here, "cloud", None) or here.ground
        ledger = str(site.world.folder / "ledger")
        where = Whereabouts(
            "hello", "production", ground.kind, ground.region, ledger=ledger, settings=site.world.settings
        )
        from_cloud.write_anew(here.ctx, where, ground, site.world.prober)
    return ended


def _one(*versions: str) -> frozenset[str]:
    return frozenset(versions)


SCENARIOS = [
    Scenario("adopt", lambda each: each.plant(), _adopt, _one("0.9.0")),  # type: ignore[attr-defined]  # sites of ours
    Scenario("destroy what was adopted", _adopt_and_deploy, _destroy, _one("0.9.0")),
    Scenario(
        "rollback from cloud",
        lambda each: each.put_into_service("1.0.0", "1.1.0"),
        _back_and_learnt,
        _one("1.0.0", "1.1.0"),
    ),
]

SITES: dict[str, Callable[[Path], Site]] = {"aws": TheirsOnAws, "google": TheirsOnGoogle}


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
        f"{scenario.name:24} {kind:6} {len(plot.calls):4} calls  {changes:3} changes  {len(found):4} troubles  "
        f"{len(tried):4} tried",
    )
    assert not wrong, "\n".join([f"{len(wrong)} things are wrong:", *wrong[:20]])


@pytest.mark.parametrize("kind", SITES)
def test_a_deploy_and_a_rollback_go_beside_what_was_adopted(kind: str, tmp_path: Path) -> None:
    """With nobody noticing; their group is let go by the deploy that needs its slot, and stays."""
    site: Any = SITES[kind](tmp_path)
    _adopt_and_deploy(site)
    site.made("1.0.0")
    assert site.deploy("1.0.0").outcome is Outcome.SUCCEEDED
    assert site.ask() == site.names["1.0.0"]
    assert site.rollback().outcome is Outcome.SUCCEEDED
    assert site.world.head.slots[Slot.BLUE].group == GROUP
    for version in ("1.1.0", "1.2.0"):
        site.made(version)
        assert site.deploy(version).outcome is Outcome.SUCCEEDED
    site.destroy()
    site.world.wait(300)
    assert site.ask() == site.names["0.9.0"]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", SITES)
@pytest.mark.parametrize("scenario", [SCENARIOS[0], SCENARIOS[2]], ids=lambda each: each.name)
def test_a_process_that_dies_at_any_change_is_gone_on_with(kind: str, scenario: Scenario, tmp_path: Path) -> None:
    """Before the change and after it: the same command ends as it would have, and no client noticed."""
    plot = played(SITES[kind](tmp_path), scenario)
    site, world = plot.site, plot.site.world
    wrong: list[str] = []
    for number, (operation, stage, mutating) in enumerate(plot.calls, 1):
        for after in (False, True) if mutating else ():
            world.put_back(plot.start)
            world.sandbox.hook = _dying(number, after=after)
            with pytest.raises(Killed):
                scenario.command(site)
            world.sandbox.hook = None
            for _ in range(8):
                if site.ask() not in {site.names[version] for version in scenario.answers or ()}:
                    wrong.append(f"killed at {operation} in {stage}: a client got {site.ask()}")
                world.wait(10)
            scenario.command(site)
            left = site.standing()
            wrong += [
                f"killed {'after' if after else 'before'} {operation} in {stage}: {what} is {left.get(what)}"
                for what in plot.left
                if left.get(what) != plot.left[what]
            ]
    assert not wrong, "\n".join(wrong[:20])


def _dying(kill: int, *, after: bool) -> CrashHook:
    """The ``kill``-th call is the last, before or ``after`` it took effect."""
    calls = 0

    def hook(moment: Moment, call: Call) -> None:
        nonlocal calls
        calls += moment is Moment.BEFORE
        if calls > kill or (calls == kill and (moment is Moment.AFTER) == after):
            raise Killed

    return hook
