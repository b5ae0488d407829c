"""Service Quotas as the sandbox has it."""

from __future__ import annotations

import pytest

from osvdeploy.sandbox.errors import ApiError
from osvdeploy.sandbox.services import quotas
from tests.sandbox.world import World, check_shape, service_model

ASKED = {"ServiceCode": "ec2", "QuotaCode": quotas.STANDARD}


def test_a_quota_is_told_in_the_shape_of_the_model() -> None:
    answer = quotas.OPERATIONS["GetServiceQuota"](World(), ASKED)
    check_shape(service_model("service-quotas").operation_model("GetServiceQuota").output_shape, answer, "answer")
    assert answer["Quota"]["Value"] == 32.0


@pytest.mark.parametrize("other", [{"ServiceCode": "vpc"}, {"QuotaCode": "L-00000000"}])
def test_a_quota_that_is_not_there_is_refused(other: dict[str, str]) -> None:
    with pytest.raises(ApiError) as refused:
        quotas.OPERATIONS["GetServiceQuota"](World(), {**ASKED, **other})
    assert refused.value.code == "NoSuchResourceException"


def test_operations_and_their_parameters_are_those_of_the_model() -> None:
    """No operation is without its parameters, and none has one that the model has not."""
    assert quotas.OPERATIONS.keys() == quotas.PARAMETERS.keys()
    for operation, names in quotas.PARAMETERS.items():
        assert names <= set(service_model("service-quotas").operation_model(operation).input_shape.members)
