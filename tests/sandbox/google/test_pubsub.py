"""Pub/Sub as the sandbox has it: what is published to a topic that is there, within Pub/Sub's bounds."""

from __future__ import annotations

import base64
import json
from typing import Any

from osvdeploy.context import VirtualClock
from osvdeploy.sandbox.google import pubsub
from tests.contract.gcp_place import GcpSandbox
from tests.sandbox.refusal_sites import met, missed

ROOT = "https://pubsub.googleapis.com/v1"
TOPIC = "projects/p-rollouts/topics/rollouts"
DATA = base64.b64encode(b"hello").decode()


class Place:
    def __init__(self) -> None:
        self.account = GcpSandbox(VirtualClock())
        assert self.ask("PUT", TOPIC, {}).status_code == 200

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        session = self.account.gcp()._given
        assert session is not None
        content = None if body is None else json.dumps(body)
        return session.request(method, f"{ROOT}/{path}", data=content, headers={"content-type": "application/json"})

    def publish(self, *messages: dict[str, Any], topic: str = TOPIC) -> Any:
        return self.ask("POST", f"{topic}:publish", {"messages": list(messages)})


def test_what_is_published_is_numbered_in_its_order() -> None:
    place = Place()
    first = place.publish({"data": DATA, "attributes": {"event": "run-1/1"}}, {"attributes": {"a": "b"}})
    assert (first.status_code, first.json()) == (200, {"messageIds": ["1", "2"]})
    assert place.publish({"data": DATA}).json() == {"messageIds": ["3"]}


def test_topics_are_made_listed_and_taken_away() -> None:
    place = Place()
    assert place.ask("GET", TOPIC).json() == {"name": TOPIC}
    assert place.ask("GET", "projects/p-rollouts/topics").json() == {"topics": [{"name": TOPIC}]}
    assert place.ask("GET", "projects/p-others/topics").ok
    assert place.ask("DELETE", TOPIC).ok
    assert place.ask("GET", TOPIC).status_code == 404


def refused(place: Place) -> list[tuple[str, int]]:
    """What is asked that Pub/Sub refuses, with the statuses."""
    asked = {
        "again": lambda: place.ask("PUT", TOPIC, {}),
        "name": lambda: place.ask("PUT", "projects/p-rollouts/topics/1", {}),
        "settings": lambda: place.ask("PUT", "projects/p-rollouts/topics/other", {"kmsKeyName": "k"}),
        "no topic": lambda: place.publish({"data": DATA}, topic="projects/p-rollouts/topics/other"),
        "no messages": lambda: place.publish(),
        "many": lambda: place.publish(*[{"data": DATA}] * 1001),
        "empty": lambda: place.publish({"data": ""}),
        "ordered": lambda: place.publish({"data": DATA, "orderingKey": "k"}),
        "attributes": lambda: place.publish({"attributes": {str(number): "" for number in range(101)}}),
        "key": lambda: place.publish({"attributes": {"google": "x"}}),
        "value": lambda: place.publish({"attributes": {"a": "x" * 1025}}),
        "large": lambda: place.publish({"data": base64.b64encode(b"x" * 10_000_001).decode()}),
        "no base64": lambda: place.publish({"data": "!"}),
        "unknown": lambda: place.publish({"text": "hello"}),
    }
    return [(name, ask().status_code) for name, ask in asked.items()]


def test_what_pub_sub_refuses_is_refused() -> None:
    place = Place()
    assert dict(refused(place)) == {"again": 409, "no topic": 404} | dict.fromkeys(
        [
            "name", "settings", "no messages", "many", "empty", "ordered", "attributes", "key", "value", "large",
            "no base64", "unknown",
        ],
        400,
    )  # fmt: skip
    assert place.publish({"data": DATA}).json() == {"messageIds": ["1"]}


def test_every_refusal_is_met() -> None:
    with met() as found:
        refused(Place())
    assert missed(found, "google/pubsub/__init__.py") == []


def test_parameters_are_declared() -> None:
    assert pubsub.OPERATIONS.keys() == pubsub.PARAMETERS.keys()
