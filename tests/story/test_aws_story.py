"""The story on AWS in the sandbox, in process and in virtual time: from bytes to traffic, and back to nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from osvdeploy.cloud.interfaces import Slot
from osvdeploy.rollout.model import Outcome
from tests.aws_world import AwsWorld
from tests.world import ABORTING, BAD

pytestmark = pytest.mark.slow


@pytest.fixture
def world(tmp_path: Path) -> AwsWorld:
    return AwsWorld(tmp_path)


def serving(world: AwsWorld) -> str | None:
    return world.answer().headers.get("x-release")


def test_blue_green_and_back(world: AwsWorld) -> None:
    """Two good releases, a bad one, an aborting one, a warm and a cold rollback, and nothing left at the end."""
    first = world.build("1.0.0")
    assert world.deploy(first).outcome is Outcome.SUCCEEDED
    assert serving(world) == first.id

    second = world.build("1.1.0")
    assert world.deploy(second).outcome is Outcome.SUCCEEDED
    assert serving(world) == second.id

    bad = world.build("1.2.0", BAD)
    outcome = world.deploy(bad)
    assert outcome.exit_code == 3 and "[500]" in outcome.told
    assert serving(world) == second.id

    aborting = world.build("1.3.0", ABORTING)
    began = world.clock.monotonic()
    outcome = world.deploy(aborting)
    assert outcome.exit_code == 3 and "boot log" in outcome.told and "Aborted" in outcome.told
    assert outcome.run is not None and outcome.run.ended is not None
    assert world.clock.monotonic() - began < 200
    assert serving(world) == second.id

    third = world.build("1.4.0")
    assert world.deploy(third).outcome is Outcome.SUCCEEDED

    before = len(world.calls())
    outcome = world.rollback()
    assert outcome.outcome is Outcome.SUCCEEDED and outcome.run is not None and outcome.run.warm
    changes = [
        call for call in world.calls(before) if not call.partition(".")[2].startswith(("Describe", "Get", "List"))
    ]
    assert changes[0] == "elbv2.ModifyRule" and set(changes[1:]) <= {"autoscaling.DeleteAutoScalingGroup"}
    assert serving(world) == second.id

    assert world.rollback(first).outcome is Outcome.SUCCEEDED
    assert serving(world) == first.id

    here = world.process()
    here.manager.destroy(here.ctx)
    world.wait(600)
    held = world.held()
    assert set(held) <= {"image", "snapshot"}, held


def test_a_rollout_s_record_names_the_place(world: AwsWorld) -> None:
    """The head holds all that rollback and destroy need: account, region, listener, rules, backends."""
    world.deploy(world.build("1.0.0"))
    place = world.head.place
    assert place is not None
    assert place.cloud == "aws" and place.region == "eu-west-1" and place.account == world.sandbox.account
    assert place.route.listener == world.network.listener
    assert world.head.serving is Slot.BLUE
