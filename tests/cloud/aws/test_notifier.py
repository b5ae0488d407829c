"""SNS is told by whoever deploys, in the topic's own region; what it refuses is an answer and no error."""

from __future__ import annotations

from typing import Any

import pytest

from osvdeploy.cloud.aws.notifier import SnsNotifier
from osvdeploy.cloud.aws.session import Aws
from osvdeploy.cloud.interfaces import HookAnswer, Message, NoticeTarget, SnsTarget, WebhookTarget
from osvdeploy.context import Context, VirtualClock
from osvdeploy.errors import UsageError
from osvdeploy.sandbox.core import Sandbox
from osvdeploy.sandbox.faults import Fault, FaultKind
from osvdeploy.sandbox.inprocess import connect
from osvdeploy.sandbox.runners.inline import InlineRunner

CLOCK = VirtualClock()
MESSAGE = Message("run-1/3", "succeeded", "hello/production", "hello/production: succeeded", b'{"a": 1}', "it serves")


class Place:
    """A topic in another region than the rollout's."""

    def __init__(self) -> None:
        self.sandbox = Sandbox(runner=InlineRunner())
        self.session = connect(self.sandbox, CLOCK, "eu-west-1")
        client: Any = self.session.client("sns", region_name="us-east-1")
        self.topic: str = client.create_topic(Name="rollouts")["TopicArn"]

    def tell(self, target: NoticeTarget) -> HookAnswer:
        sending = SnsNotifier(Aws("eu-west-1", self.session)).send(Context(clock=CLOCK), target, MESSAGE)
        sending.wait(20.0)
        answer = sending.answer()
        sending.close()
        assert answer is not None
        return answer


def test_a_topic_is_told_in_its_own_region() -> None:
    place = Place()
    answer = place.tell(SnsTarget(place.topic))
    assert answer.passed
    assert answer.told.startswith("message ")
    assert [call.operation for call in place.sandbox.calls(0)] == ["CreateTopic", "Publish"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("rollouts", "other"), "Topic does not exist"),
        (("123456789012", "999999999999"), "allow the action Publish"),
    ],
)
def test_a_refusal_is_an_answer(change: tuple[str, str], told: str) -> None:
    place = Place()
    answer = place.tell(SnsTarget(place.topic.replace(*change)))
    assert not answer.passed
    assert told in answer.told or "not authorized" in answer.told


def test_a_throttled_call_is_not_repeated_here() -> None:
    """Whoever owes the message tries again, later each time."""
    place = Place()
    place.sandbox.faults.add(Fault("sns:Publish", FaultKind.THROTTLED))
    answer = place.tell(SnsTarget(place.topic))
    assert not answer.passed
    assert [call.operation for call in place.sandbox.calls(0)].count("Publish") == 1


def test_what_is_no_topic_is_refused() -> None:
    place = Place()
    with pytest.raises(UsageError):
        SnsNotifier(Aws("eu-west-1", place.session)).refuse_unready(Context(clock=CLOCK), WebhookTarget("https://a"))
    assert not place.tell(WebhookTarget("https://a")).passed
