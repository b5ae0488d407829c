"""SNS as the sandbox has it: what is published to a topic that is there, within SNS's bounds."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from osvdeploy.context import VirtualClock
from osvdeploy.sandbox.core import Sandbox
from osvdeploy.sandbox.errors import ApiError, NotSimulated
from osvdeploy.sandbox.inprocess import connect
from osvdeploy.sandbox.runners.inline import InlineRunner
from osvdeploy.sandbox.services import sns
from tests.sandbox.refusal_sites import met, sites
from tests.sandbox.world import World, check_shape, service_model


def made(world: World) -> str:
    return str(sns.OPERATIONS["CreateTopic"](world, {"Name": "rollouts"})["TopicArn"])


def attribute(value: str = "x", kind: str = "String") -> dict[str, str]:
    return {"DataType": kind, "StringValue": value}


def publish(world: World, **changes: Any) -> dict[str, Any]:
    asked = {"TopicArn": made(world), "Message": "hello", "Subject": "a subject", **changes}
    return sns.OPERATIONS["Publish"](world, {name: value for name, value in asked.items() if value is not None})


def test_what_is_published_is_there_in_its_order() -> None:
    world = World()
    first, second = publish(world), publish(world, Message="again", MessageAttributes={"event": attribute("run-1/2")})
    assert first["MessageId"] != second["MessageId"]
    assert [(each["Message"], each["attributes"]) for each in world.all(sns.MESSAGE)] == [
        ("hello", {}), ("again", {"event": "run-1/2"}),
    ]  # fmt: skip


def test_the_same_name_is_the_same_topic() -> None:
    world = World()
    assert made(world) == made(world)
    assert sns.OPERATIONS["ListTopics"](world, {})["Topics"] == [{"TopicArn": made(world)}]
    sns.OPERATIONS["DeleteTopic"](world, {"TopicArn": made(world)})
    assert sns.OPERATIONS["ListTopics"](world, {})["Topics"] == []


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"TopicArn": None}, "InvalidParameter"),
    ({"TopicArn": "rollouts"}, "InvalidParameter"),
    ({"TopicArn": "arn:aws:sns:us-east-2:123456789012:rollouts"}, "InvalidParameter"),
    ({"TopicArn": "arn:aws:sns:{region}:999999999999:rollouts"}, "AuthorizationError"),
    ({"TopicArn": "arn:aws:sns:{region}:{account}:other"}, "NotFound"),
    ({"Message": ""}, "InvalidParameter"),
    ({"Message": "x" * (sns.LARGEST + 1)}, "InvalidParameter"),
    ({"Subject": "x" * 100}, "InvalidParameter"),
    ({"Subject": "two\nlines"}, "InvalidParameter"),
    ({"Subject": "é"}, "InvalidParameter"),
    ({"MessageAttributes": {"AWS.x": attribute()}}, "ParameterValueInvalid"),
    ({"MessageAttributes": {"a..b": attribute()}}, "ParameterValueInvalid"),
    ({"MessageAttributes": {"a": attribute("")}}, "ParameterValueInvalid"),
]


@pytest.mark.parametrize(("changes", "code"), REFUSED)
def test_what_sns_refuses_is_refused(changes: dict[str, Any], code: str) -> None:
    world = World()
    if arn := changes.get("TopicArn"):
        changes = {"TopicArn": arn.format(region=world.region, account=world.account)}
    with pytest.raises(ApiError) as refused:
        publish(world, **changes)
    assert refused.value.code == code
    assert world.all(sns.MESSAGE) == []


def test_every_refusal_is_met() -> None:
    with met() as found:
        for changes, _ in REFUSED:
            with pytest.raises(ApiError):
                world = World()
                arn = changes.get("TopicArn")
                given = {"TopicArn": arn.format(region=world.region, account=world.account)} if arn else changes
                publish(world, **given)
        with pytest.raises(ApiError):
            sns.OPERATIONS["CreateTopic"](World(), {"Name": "a b"})
        with pytest.raises(NotSimulated):
            sns.OPERATIONS["CreateTopic"](World(), {"Name": "a.fifo"})
        with pytest.raises(NotSimulated):
            publish(World(), MessageAttributes={"a": attribute("1", "Number")})
    assert [str(site) for site in sites("services/sns.py") if not any(
        (site.file, line) in found for line in range(site.first, site.last + 1)
    )] == []  # fmt: skip


def test_answers_have_the_model_s_shape_and_parameters_its_names() -> None:
    world = World()
    answers = {
        "Publish": publish(world),
        "ListTopics": sns.OPERATIONS["ListTopics"](world, {}),
    }
    for operation, answer in answers.items():
        check_shape(service_model("sns").operation_model(operation).output_shape, answer, operation)
    shown = sns.OPERATIONS["GetTopicAttributes"](world, {"TopicArn": made(world)})
    assert shown["Attributes"]["TopicArn"] == made(world)
    assert sns.OPERATIONS.keys() == sns.PARAMETERS.keys()
    for operation, names in sns.PARAMETERS.items():
        shape = service_model("sns").operation_model(operation).input_shape
        assert names <= set(shape.members if shape is not None else ())


def test_the_sdk_is_answered() -> None:
    """Through botocore, as a client sends it."""
    sandbox = Sandbox(runner=InlineRunner())
    client: Any = connect(sandbox, VirtualClock(), "eu-west-1").client("sns")
    topic = client.create_topic(Name="rollouts")["TopicArn"]
    assert client.publish(TopicArn=topic, Message="hello", MessageAttributes={"event": attribute("run-1/1")})
    with pytest.raises(ClientError, match="Topic does not exist"):
        client.publish(TopicArn=topic.replace("rollouts", "other"), Message="hello")
