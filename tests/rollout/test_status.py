"""What `osvdeploy status` tells of a service that is not as its ledger says, or that goes no further."""

from __future__ import annotations

from dataclasses import replace

import pytest

from osvdeploy.api import wiring
from osvdeploy.cloud.interfaces import ObjectStore
from osvdeploy.cloud.memory import Call, Moment
from osvdeploy.rollout.model import Outcome, Stage
from tests.cli.running import Ran, osvdeploy
from tests.rollout.unledgered import Died, Gone, Unledgered, dies_entering

pytestmark = pytest.mark.whole


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Unledgered:
    """1.1.0 serves, 1.0.0 stands warm beside it."""
    service = Unledgered()
    for version in ("1.0.0", "1.1.0"):
        assert service.deploy(version).outcome is Outcome.SUCCEEDED

    def opened(address: str) -> ObjectStore:
        return Gone() if service.lost else service.cloud.store

    monkeypatch.setattr(wiring, "open_store", opened)
    monkeypatch.setattr(wiring, "ground_of", lambda ctx, place: service.cloud.cloud)
    return service


def status(*words: str) -> Ran:
    ran = osvdeploy("status", "hello/production", "--ledger", "memory", *words)
    assert ran.code == 0, ran.stderr
    return ran


def back_without_the_ledger(service: Unledgered, to: str) -> None:
    service.lost = True
    service.back(to=to)
    service.clock.advance(120)
    service.lost = False


def test_what_serves_by_the_cloud_comes_first_until_the_ledger_knows(service: Unledgered) -> None:
    """With what the ledger learns it by, and in the document; after that, nothing is said of it."""
    back_without_the_ledger(service, "1.0.0")
    old, new = service.id("1.0.0"), service.id("1.1.0")
    first, second, *_ = status().stdout.splitlines()
    assert first.startswith(f"hello/production: {old} has the traffic at http://")
    assert first.endswith(f": it was taken from {new} without the ledger, which does not know that yet")
    assert "`osvdeploy drift --repair`" in second
    document = status("--json").document
    assert (document["left"], document["carrying"], document["serving"]) == (new, old, new)
    service.manager().realign(service.context())
    assert status().stdout.startswith(f"hello/production: {old} serves at http://")
    document = status("--json").document
    assert (document["left"], document["carrying"], document["serving"]) == (None, None, old)


def test_so_it_does_while_a_rollout_is_under_way(service: Unledgered) -> None:
    """Which `recover` ends."""
    dies_entering(service, Stage.SHIFT)
    back_without_the_ledger(service, "1.0.0")
    first, second, *_ = status().stdout.splitlines()
    assert first.startswith(f"hello/production: {service.id('1.0.0')} has the traffic at http://")
    assert "`osvdeploy recover`" in second
    service.manager().recover(service.context())
    assert status().stdout.startswith(f"hello/production: {service.id('1.0.0')} serves at http://")


def test_a_note_that_nothing_followed_is_told_as_such(service: Unledgered) -> None:
    """Whoever wrote it died before traffic moved."""

    def dies(call: Call, moment: Moment) -> None:
        if call.operation == "router.note_left" and moment is Moment.AFTER:
            raise Died

    service.lost = True
    service.cloud.on_call(dies)
    with pytest.raises(Died):
        service.back(to="1.0.0")
    service.cloud.on_call(None)
    service.lost = False
    first, second, *_ = status().stdout.splitlines()
    new = service.id("1.1.0")
    assert first.startswith(f"hello/production: {new} serves at http://")
    assert second == f"a rollback without the ledger was to take traffic from {new}, and has not done so"


def test_a_rollout_that_is_held_is_said_to_go_no_further(service: Unledgered) -> None:
    """Rather than what would let it go on."""
    service.settings = replace(service.settings, strategy=replace(service.settings.strategy, approve=True))
    assert service.deploy("1.2.0").outcome is Outcome.WAITING
    assert "osvdeploy approve" in status().stdout
    service.manager().hold(service.context(), None, "freeze until Monday")
    told = status().stdout
    assert "goes no further: every release is held since" in told and "osvdeploy approve" not in told
    assert "`osvdeploy unhold hello/production` lets it go on" in told
