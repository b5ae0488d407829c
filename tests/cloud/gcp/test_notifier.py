"""Pub/Sub is told by whoever deploys; what it refuses is an answer and no error."""

from __future__ import annotations

import json

import pytest

from osvdeploy.cloud.gcp.notifier import PubSubNotifier
from osvdeploy.cloud.gcp.session import PUBSUB_VARIABLE, Gcp
from osvdeploy.cloud.interfaces import HookAnswer, Message, NoticeTarget, PubSubTarget, WebhookTarget
from osvdeploy.context import Context, VirtualClock
from osvdeploy.errors import UsageError
from osvdeploy.sandbox.faults import Fault, FaultKind
from tests.contract.gcp_place import GcpSandbox

CLOCK = VirtualClock()
TOPIC = "projects/p-elsewhere/topics/rollouts"
MESSAGE = Message("run-1/3", "succeeded", "hello/production", "hello/production: succeeded", b'{"a": 1}', "it serves")


class Place:
    """A topic in another project than the rollout's."""

    def __init__(self) -> None:
        self.account = GcpSandbox(CLOCK)
        self.gcp = self.account.gcp()
        url = f"{self.gcp.pubsub}/v1/{TOPIC}"
        self.gcp.send(Context(clock=CLOCK), "PUT", url, "topic", body=b"{}")

    def tell(self, target: NoticeTarget | None = None) -> HookAnswer:
        sending = PubSubNotifier(self.gcp).send(Context(clock=CLOCK), target or PubSubTarget(TOPIC), MESSAGE)
        sending.wait(20.0)
        answer = sending.answer()
        sending.close()
        assert answer is not None
        return answer

    def published(self) -> int:
        return [call.operation for call in self.account.sandbox.calls(0)].count("projects.topics.publish")


def test_a_topic_of_any_project_is_told() -> None:
    place = Place()
    assert place.tell() == HookAnswer(True, "message 1")
    assert place.published() == 1


@pytest.mark.parametrize(
    ("kind", "told"),
    [(FaultKind.DENIED, "ermission"), (FaultKind.THROTTLED, "now"), (FaultKind.BROKEN, "now"), (FaultKind.AFTER, "")],
)
def test_a_refusal_or_a_lost_answer_is_an_answer_and_not_repeated_here(kind: FaultKind, told: str) -> None:
    place = Place()
    place.account.sandbox.faults.add(Fault("pubsub:projects.topics.publish", kind))
    answer = place.tell()
    assert not answer.passed
    assert told in answer.told
    assert place.published() == 1


def test_a_topic_that_is_not_there_is_told() -> None:
    answer = Place().tell(PubSubTarget("projects/p-elsewhere/topics/other"))
    assert not answer.passed
    assert "Resource not found (resource=other)" in answer.told


def test_what_is_no_topic_is_refused() -> None:
    place = Place()
    with pytest.raises(UsageError):
        PubSubNotifier(place.gcp).refuse_unready(Context(clock=CLOCK), WebhookTarget("https://a"))
    assert not place.tell(WebhookTarget("https://a")).passed


def test_the_emulator_s_variable_is_a_host_and_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PUBSUB_VARIABLE, "localhost:8085")
    assert Gcp("p-rollouts").pubsub == "http://localhost:8085"
    monkeypatch.delenv(PUBSUB_VARIABLE)
    assert Gcp("p-rollouts").pubsub == "https://pubsub.googleapis.com"


def test_what_is_sent_is_the_message() -> None:
    assert json.loads(MESSAGE.body) == {"a": 1}
