"""What a configuration of stacks/aws may say, and what it is told that it may not."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pulumi
import pytest
import yaml

from tests.pulumi.stacks import STACKS, listed, loaded, settings_of

STACK = STACKS / "aws"
VPC = {"vpcId": "vpc-1", "subnetIds": ["subnet-1", "subnet-2"]}
LISTENER = {"listenerArn": "arn:aws:elasticloadbalancing:eu-west-1:123456789012:listener/app/web/1/2"}
INSIDE = {"balancerSubnetIds": ["subnet-3", "subnet-4"]}


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The stack's module."""
    with settings_of(STACK, monkeypatch) as module:
        yield module


@pytest.mark.parametrize("stack", ["dev", "production"])
def test_the_files_that_come_with_it(settings: ModuleType, monkeypatch: pytest.MonkeyPatch, stack: str) -> None:
    """Both of the stack's own files are understood; the one has a network made, the other is put into one."""
    document = yaml.safe_load((STACK / f"Pulumi.{stack}.yaml").read_text())["config"]
    said = loaded(settings, monkeypatch, document)
    assert (said.existing is None) is (stack == "dev")
    assert said.capacity == {"dev": 1, "production": 3}[stack]


def test_what_is_left_out(settings: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The region alone is enough. A certificate makes it HTTPS."""
    said = loaded(settings, monkeypatch, {"aws:region": "eu-west-1"})
    assert (said.capacity, said.listener_port, said.existing, said.env) == (2, 80, None, None)
    secure = loaded(settings, monkeypatch, {"aws:region": "eu-west-1", "certificateArn": "arn:aws:acm:x"})
    assert secure.listener_port == 443


@pytest.mark.parametrize(
    ("given", "balancer"),
    [({**VPC, **LISTENER}, LISTENER["listenerArn"]), ({**VPC, **INSIDE}, None)],
    ids=["balancer", "network alone"],
)
def test_what_is_there_already(
    settings: ModuleType, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], balancer: str | None
) -> None:
    """A network and a balancer, or a network that a balancer is made in."""
    said = loaded(settings, monkeypatch, {"aws:region": "eu-west-1", **given})
    assert said.existing.vpc_id == "vpc-1"
    assert list(said.existing.subnet_ids) == VPC["subnetIds"]
    assert said.existing.listener_arn == balancer


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"vpcId": "vpc-1"}, "half a network: subnetIds is missing"),
        ({"subnetIds": ["subnet-1"]}, "half a network: vpcId is missing"),
        (LISTENER, "half a network: vpcId and subnetIds is missing"),
        (INSIDE, "half a network: vpcId and subnetIds is missing"),
        (VPC, "no way in"),
        ({**VPC, "balancerSubnetIds": ["subnet-3"]}, "two or more in different zones"),
        ({**VPC, **LISTENER, **INSIDE}, "listenerArn and balancerSubnetIds: give one"),
        ({**VPC, **LISTENER, "certificateArn": "arn:aws:acm:x"}, "listenerArn and certificateArn: give one"),
        ({**VPC, **INSIDE, "cidr": "10.1.0.0/16"}, "cidr: is of a VPC that the stack makes, and vpcId names one"),
        (
            {**VPC, **LISTENER, "listenerPort": "8000", "clients": ["10.0.0.0/8"]},
            "clients, listenerPort: of a balancer that the stack makes, and listenerArn names one",
        ),
        ({"cidr": "10.1.2.3/16"}, "cidr: 10.1.2.3/16 has host bits set"),
        ({"cidr": "everywhere"}, "cidr: Expected 4 octets in 'everywhere'"),
        ({"cidr": "10.1.0.0/24"}, "cidr: 10.1.0.0/24 is too small: a /23 or larger, up to a /16"),
        ({"cidr": "10.0.0.0/8"}, "cidr: 10.0.0.0/8 is too large: a /23 or larger, up to a /16"),
        ({"listenerPort": "80", "certificateArn": "arn:aws:acm:x"}, "listenerPort 80 and certificateArn"),
        ({"capcity": "3"}, "no such setting: capcity; there are bake, "),
        ({"capacity": "many"}, "'service:capacity' value 'many' is not a valid 'int'"),
        ({"subnetIds": "subnet-1"}, "'service:subnetIds' value 'subnet-1' is not a valid 'JSON object'"),
    ],
)
def test_what_is_refused(
    settings: ModuleType, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], told: str
) -> None:
    """Half of what belongs together, two that exclude each other, a name that nobody knows, a value of another type."""
    with pytest.raises(pulumi.RunError) as refused:
        loaded(settings, monkeypatch, {"aws:region": "eu-west-1", **given})
    assert told in str(refused.value)


def test_variables_are_texts(settings: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """`pulumi config set --path env.WORKERS 4` writes a number, and `true` a truth; a program sees what was typed."""
    assert settings.texts({"WORKERS": 4, "DEBUG": True, "NAME": "a", "RATIO": 0.5}) == {
        "WORKERS": "4", "DEBUG": "true", "NAME": "a", "RATIO": "0.5",
    }  # fmt: skip
    with pytest.raises(pulumi.RunError, match=r"env\.LIST: is no text"):
        settings.texts({"LIST": ["a"]})


def test_lists_are_handed_on_as_they_stand(settings: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a release is held to, what is asked and who is told: the resource judges them."""
    required = {"aws:region": "eu-west-1"}
    given = {name: [{"a": {"b": 1}}] for name in ("gates", "hooks", "notify")}
    said = loaded(settings, monkeypatch, {**required, **given})
    assert {"gates": said.gates, "hooks": said.hooks, "notify": said.notify} == given
    left_out = loaded(settings, monkeypatch, required)
    assert [left_out.gates, left_out.hooks, left_out.notify] == [[], [], []]


def test_the_readme_lists_every_setting(settings: ModuleType) -> None:
    """And no other."""
    assert listed(STACK) == {*settings.KEYS, "aws:region", "osvdeploy:ledger"}
