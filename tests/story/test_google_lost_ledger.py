"""A ledger that was lost, or put back, while the balancer on Google still bears the marks of its leases."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from osvdeploy.cloud.local.store import DirectoryStore
from osvdeploy.errors import LeaseLost, LedgerBehind
from osvdeploy.events import Warned
from osvdeploy.rollout import lease
from osvdeploy.rollout.ledger import Ledger
from osvdeploy.rollout.manager import RolloutManager
from osvdeploy.rollout.model import Outcome
from tests.gcp_world import GcpWorld
from tests.world import BAD, Prepared

pytestmark = [pytest.mark.slow, pytest.mark.sandbox]


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Prepared[GcpWorld]:
    world = GcpWorld(tmp_path_factory.mktemp("marked"))
    world.settings = replace(world.settings, ledger=str(world.folder / "ledger"))
    for version in ("0.7.0", "0.8.0", "0.9.0"):
        assert world.deploy(world.build(version, BAD)).outcome is Outcome.FAILED
    return Prepared(world)


@pytest.fixture
def world(marked: Prepared[GcpWorld]) -> GcpWorld:
    """The marks of three leases on the balancer, and nothing behind it: no release ever came to serve."""
    return marked.again()


def warnings(world: GcpWorld) -> list[str]:
    return [each.text for each in world.recorder.events if isinstance(each, Warned)]


def test_a_new_ledger_at_the_same_address_goes_on_above(world: GcpWorld) -> None:
    """With a warning; and whoever held the lost one's lease is shut out."""
    late = world.process()
    lost = lease.acquire(late.ctx, world.ledger, "deploy")
    route = lost.head.place
    assert route is not None and late.ground.fence is not None
    late.ground.fence.hold(route.route, lost.head.epoch)
    shutil.rmtree(world.folder / "ledger")
    assert world.deploy(world.build("1.0.0")).outcome is Outcome.SUCCEEDED
    assert any("it was lost or put back" in told for told in warnings(world))
    assert world.head.epoch == 4
    with pytest.raises(LeaseLost):
        lost.confirm(late.ctx)
    assert world.deploy(world.build("1.1.0")).outcome is Outcome.SUCCEEDED


def test_another_ledger_is_told_from_a_lost_one(world: GcpWorld) -> None:
    """Which address the marks are of, how far each has come, and what to do; --take-over does it."""
    new = world.build("1.0.0")
    world.publish(new)
    here = world.process()
    elsewhere = Ledger(DirectoryStore(world.folder / "elsewhere"), "hello", "production")
    release = replace(new, settings=replace(new.settings, ledger=str(world.folder / "elsewhere")))
    manager = RolloutManager(elsewhere, here.ground, world.prober)
    with pytest.raises(LedgerBehind, match=rf"under lease 3 of the ledger {world.settings.ledger}") as raised:
        manager.deploy(here.ctx, release)
    assert "has come to 1 only" in str(raised.value) and "--take-over" in (raised.value.hint or "")
    again = world.process()
    manager = RolloutManager(elsewhere, again.ground, world.prober, take_over=True)
    assert manager.deploy(again.ctx, release).outcome is Outcome.SUCCEEDED


def test_a_ledger_that_was_put_back_goes_on(world: GcpWorld) -> None:
    """An older copy of it, at its own address: what serves is found as it is, and can be rolled back and away."""
    assert world.deploy(world.build("1.0.0")).outcome is Outcome.SUCCEEDED
    shutil.copytree(world.folder / "ledger", world.folder / "copy")
    for version in ("1.1.0", "1.2.0"):
        assert world.deploy(world.build(version, BAD)).outcome is Outcome.ROLLED_BACK
    shutil.rmtree(world.folder / "ledger")
    shutil.copytree(world.folder / "copy", world.folder / "ledger")
    here = world.process()
    here.manager.destroy(here.ctx)
    assert any("it was lost or put back" in told for told in warnings(world))
    assert "compute.backendService" not in world.held()
