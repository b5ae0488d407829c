"""What an account may run in a region, and runs: by the families that one quota is of."""

from __future__ import annotations

from pathlib import Path

import pytest

from osvdeploy.cloud.interfaces import Cloud
from osvdeploy.errors import Refused
from osvdeploy.rollout.model import Outcome
from osvdeploy.sandbox.faults import Fault, FaultKind
from tests.aws_world import AwsWorld

pytestmark = [pytest.mark.slow, pytest.mark.sandbox]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> AwsWorld:
    """Two machines of t3.nano run."""
    world = AwsWorld(Path(tmp_path_factory.mktemp("world")))
    assert world.deploy(world.build("1.0.0")).outcome is Outcome.SUCCEEDED
    return world


def test_what_runs_counts_by_its_processors(world: AwsWorld) -> None:
    """Of every standard family together, whichever of them is asked about."""
    here = world.process()
    assert isinstance(here.cloud, Cloud) and here.cloud.quotas is not None
    for machine_type in ("t3.nano", "m5zn.large", "im4gn.large"):
        (found,) = here.cloud.quotas.of(here.ctx, machine_type)
        assert (found.name, found.limit, found.used) == ("vCPUs of standard on-demand instances", 32.0, 4.0)


@pytest.mark.parametrize("machine_type", ["p3.2xlarge", "inf1.xlarge", "u-6tb1.metal", "hpc7g.4xlarge", "trn1.2xlarge"])
def test_of_other_families_nothing_is_told(world: AwsWorld, machine_type: str) -> None:
    """They have quotas of their own, and no call is made."""
    here, since = world.process(), len(world.sandbox.calls(0))
    assert here.cloud.quotas is not None
    since = len(world.sandbox.calls(0))
    assert here.cloud.quotas.of(here.ctx, machine_type) == ()
    assert world.sandbox.calls(since) == []


def test_who_may_not_ask_is_told_what_is_to_be_allowed(world: AwsWorld) -> None:
    here = world.process()
    assert here.cloud.quotas is not None
    world.sandbox.faults.add(Fault("service-quotas:GetServiceQuota", FaultKind.DENIED))
    with pytest.raises(Refused, match="quota L-1216C47A of ec2") as told:
        here.cloud.quotas.of(here.ctx, "t3.nano")
    assert told.value.hint == "allow the action servicequotas:GetServiceQuota"
