"""The network script of the examples, over AWS's wire."""

from __future__ import annotations

import importlib.util
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest

from osvdeploy.sandbox.core import Sandbox
from osvdeploy.sandbox.inprocess import connect
from osvdeploy.sandbox.runners.inline import InlineRunner

SCRIPT = Path(__file__).parents[2] / "examples" / "aws-network" / "network.py"


class Passing:
    """A clock that moves on with every look at it, as one does for a script that waits."""

    def __init__(self) -> None:
        self._now = datetime(2030, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        self._now += timedelta(seconds=5)
        return self._now


def test_the_example_makes_a_network_and_takes_it_away_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two subnets in two zones of one VPC, a group, a listener; afterwards the account holds nothing."""
    found = importlib.util.spec_from_file_location("network", SCRIPT)
    assert found is not None
    assert found.loader is not None
    network: Any = importlib.util.module_from_spec(found)
    found.loader.exec_module(network)
    sandbox = Sandbox(runner=InlineRunner())
    session = connect(sandbox, Passing())
    monkeypatch.setattr(boto3, "client", session.client)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    made = network.create("osv", 8080)
    ec2 = session.client("ec2")
    names = [value for name, value in made.items() if "SUBNET" in name]
    subnets = ec2.describe_subnets(SubnetIds=names)["Subnets"]
    assert len({subnet["AvailabilityZone"] for subnet in subnets}) == 2
    assert len({subnet["VpcId"] for subnet in subnets}) == 1
    held = sandbox.inventory()
    assert {kind: len(names) for kind, names in held.items()} == {
        "elbv2.balancer": 1,
        "elbv2.listener": 1,
        "internet-gateway": 1,
        "route-table": 1,
        "security-group": 2,
        "subnet": 2,
        "vpc": 1,
    }
    assert network.create("osv", 8080) == made, "what is there is found again"
    assert sandbox.inventory() == held
    with pytest.raises(SystemExit, match=r"network\.py delete"):
        network.create("osv", 80)
    network.delete("osv")
    assert sandbox.inventory() == {}
    sandbox.close()
