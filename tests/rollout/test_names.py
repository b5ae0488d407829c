"""Names of groups: none is given twice, so what is taken away late is nobody's; old ones are gone on with."""

from __future__ import annotations

from dataclasses import replace

import pytest

from osvdeploy.cloud.interfaces import Slot
from osvdeploy.cloud.memory import Call, Moment
from osvdeploy.rollout.ledger import SlotRecord
from osvdeploy.rollout.model import Outcome
from osvdeploy.rollout.releases import group_stem
from tests.faults.venues import Killed
from tests.rollout.made import SETTINGS
from tests.rollout.service import Service

pytestmark = pytest.mark.whole


def of_old(service: Service) -> str:
    """What serves was made by a release of osvdeploy that gave no numbers: the name of its group now."""
    stable, serving = service.head.stable, service.head.serving
    assert stable is not None and serving is not None
    old, world = group_stem("hello/production", stable.release), service.cloud.world
    world.groups[old] = world.groups.pop(stable.group)
    world.groups[old].name = old
    world.templates[old] = replace(world.templates.pop(stable.group), name=old)
    ctx, head = service.context(), service.head
    slots = {**head.slots, serving: SlotRecord(stable.release, old, stable.since, stable.warm_until)}
    service.ledger.write(ctx, replace(head, n=head.n + 1, nonce=ctx.nonce(), slots=slots, run=None))
    return old


def test_what_stands_warm_is_gone_back_to_and_what_is_gone_is_made_under_another_name() -> None:
    """However often a release comes and goes."""
    service = Service()
    names: set[str] = set()
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        assert service.deploy(version).outcome is Outcome.SUCCEEDED
        names.add(service.group(version))
    warm = service.group("1.1.0")
    assert service.rollback().outcome is Outcome.SUCCEEDED and service.group("1.1.0") == warm
    assert service.rollback("1.0.0").outcome is Outcome.SUCCEEDED and service.group("1.0.0") not in names


def test_no_two_runs_make_groups_of_one_name() -> None:
    """Deploys that fail are tried again, by the same command or by `retry`."""
    service = Service()
    service.deploy("1.0.0")
    service.cloud.behave(service.id("1.1.0"), answers=(500,))
    runs: dict[str, set[str]] = {}

    def noted(call: Call, moment: Moment) -> None:
        if call.operation == "groups.create_group" and moment is Moment.BEFORE:
            assert service.head.run is not None
            runs.setdefault(str(call.arguments[0]), set()).add(service.head.run.id)

    service.cloud.on_call(noted)
    for _ in range(2):
        assert service.deploy("1.1.0").outcome is Outcome.ROLLED_BACK
        assert service.manager().retry(service.context()).outcome is Outcome.ROLLED_BACK
    assert [len(each) for each in runs.values()] == [1, 1, 1, 1]


def test_a_destroy_says_first_that_nothing_serves() -> None:
    """So whoever takes over from a process that stood still before it took a group away builds on none of them."""
    service = Service()
    service.deploy("1.0.0")
    service.cloud.faults.fail("groups.delete", Killed())
    with pytest.raises(Killed):
        service.destroy()
    assert service.head.slots == {} and service.head.stable is None and not service.head.destroyed
    assert service.deploy("1.1.0").outcome is Outcome.SUCCEEDED
    assert service.head.serving is Slot.GREEN and service.cloud.serving == {service.id("1.1.0")}
    service.destroy()
    assert service.cloud.standing == set()


@pytest.mark.parametrize("way", ["warm", "cold", "resized", "destroyed"])
def test_a_group_that_was_named_without_a_number_is_gone_on_with(way: str) -> None:
    """Served, kept warm, gone back to, made another size, and taken away."""
    service = Service()
    service.deploy("1.0.0")
    old = of_old(service)
    service.clock.advance(30)
    if way == "resized":
        service.settings = replace(SETTINGS, capacity=3)
        assert service.deploy("1.0.0").outcome is Outcome.SUCCEEDED
        assert service.cloud.world.groups[old].capacity == 3
        return
    assert service.deploy("1.1.0").outcome is Outcome.SUCCEEDED
    assert service.head.slots[Slot.BLUE].group == old and old in service.cloud.world.groups
    if way == "destroyed":
        service.destroy()
        assert service.cloud.standing == set()
        return
    if way == "cold":
        assert service.deploy("1.2.0").outcome is Outcome.SUCCEEDED
        service.clock.advance(60)
        assert old not in service.cloud.world.groups
    back = service.rollback("1.0.0")
    assert back.outcome is Outcome.SUCCEEDED and service.cloud.serving == {service.id("1.0.0")}
    assert back.run is not None and (back.run.group == old) == back.run.warm == (way == "warm")
