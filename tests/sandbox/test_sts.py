"""STS as the sandbox has it."""

from __future__ import annotations

import re

from osvdeploy.sandbox.services import sts
from tests.sandbox.world import World, check_shape, service_model


def test_the_caller_is_a_user_of_the_account() -> None:
    """The answer is complete, in the model's shape, and its three parts tell of one user in the scope's account."""
    world = World()
    world.account = "210987654321"
    answer = sts.OPERATIONS["GetCallerIdentity"](world, {})
    shape = service_model("sts").operation_model("GetCallerIdentity").output_shape
    check_shape(shape, answer, "GetCallerIdentity")
    assert set(answer) == set(shape.members)
    assert answer["Account"] == "210987654321"
    assert re.fullmatch(r"arn:aws:iam::210987654321:user/\w+", answer["Arn"])
    assert re.fullmatch(r"AIDA[A-Z0-9]{17}", answer["UserId"])


def test_operations_and_their_parameters_are_those_of_the_model() -> None:
    """No operation is without its parameters, and none has one that the model has not."""
    assert sts.OPERATIONS.keys() == sts.PARAMETERS.keys()
    for operation, names in sts.PARAMETERS.items():
        shape = service_model("sts").operation_model(operation).input_shape
        assert names <= set(shape.members)
