"""Webhooks are posted to, and their addresses are in nothing that is told of them."""

from __future__ import annotations

import json
import threading

import pytest

from osvdeploy.cloud.interfaces import HookAnswer, Message, PubSubTarget, RunningHook, WebhookTarget
from osvdeploy.cloud.local.notifier import Notifiers
from osvdeploy.context import Context
from osvdeploy.errors import UsageError
from tests.alive import until
from tests.cloud.local.test_hooks import receiver

CTX = Context()
MESSAGE = Message("run-1/3", "succeeded", "hello/production", "hello/production: succeeded", b'{"a": 1}', "it serves")


def came_to(sending: RunningHook) -> HookAnswer:
    until(lambda: sending.answer() is not None)
    answer = sending.answer()
    sending.close()
    assert answer is not None
    return answer


def test_a_webhook_is_posted_the_message_with_its_event() -> None:
    with receiver(200) as (url, got):
        assert came_to(Notifiers().send(CTX, WebhookTarget(url), MESSAGE)).passed
    ((_, headers, content),) = got
    seen = {name.lower(): value for name, value in headers.items()}
    assert json.loads(content) == {"a": 1}
    assert (seen["x-osvdeploy-event"], seen["content-type"]) == ("run-1/3", "application/json")


def test_the_address_of_a_variable_is_read_when_it_is_sent() -> None:
    environ: dict[str, str] = {}
    notifier = Notifiers(environ=environ)
    target = WebhookTarget(None, "SLACK")
    assert came_to(notifier.send(CTX, target, MESSAGE)) == HookAnswer(False, "the variable SLACK is not set")
    with receiver(200) as (url, got):
        environ["SLACK"] = f"{url}\n"
        assert came_to(notifier.send(CTX, target, MESSAGE)).passed
    assert len(got) == 1


def test_an_address_that_is_echoed_is_not_told() -> None:
    with receiver(404, b"no such webhook: /hook?a=1") as (url, _):
        answer = came_to(Notifiers(environ={"SLACK": url}).send(CTX, WebhookTarget(None, "SLACK"), MESSAGE))
    assert not answer.passed
    assert "hook?a=1" not in answer.told + answer.output


@pytest.mark.parametrize("value", ["", "hooks.acme.example/x", "ftp://acme.example", "https://a b"])
def test_a_variable_without_an_address_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match="SLACK"):
        Notifiers(environ={"SLACK": value}).refuse_unready(CTX, WebhookTarget(None, "SLACK"))


def test_what_another_place_tells_is_refused() -> None:
    target = PubSubTarget("projects/acme-prod/topics/rollouts")
    with pytest.raises(UsageError):
        Notifiers().refuse_unready(CTX, target)
    assert not came_to(Notifiers().send(CTX, target, MESSAGE)).passed


def test_sending_waits_for_nobody() -> None:
    hanging = threading.Event()
    with receiver(200, b"", hanging) as (url, got):
        sending = Notifiers().send(CTX, WebhookTarget(url), MESSAGE)
        until(lambda: got)
        assert sending.answer() is None
        sending.close()
        hanging.set()
