"""Pub/Sub: topics, and what was published to them.

Sources: Pub/Sub API v1 reference, projects.topics (create, delete, get, list, publish), PubsubMessage ("must contain
either a non-empty data field or at least one attribute"); "Pub/Sub quotas and limits" (1,000 messages and 10 MB a
request; 100 attributes, keys of 256 bytes, values of 1,024); "Resource names". Documents ``pubsub.topic`` by name, and
``pubsub.message``: what was published, in its order, for whoever wants to look.

Not documented, and decided here: the words of refusals.

Not simulated, and refused as such: subscriptions and whom they reach, ordering, schemas, retention, settings of topics,
permissions: whoever asks the sandbox may publish.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from osvdeploy.sandbox.errors import ApiError, NotSimulated
from osvdeploy.sandbox.services.scope import Doc, Operation, Scope

TOPIC: Final = "pubsub.topic"
MESSAGE: Final = "pubsub.message"
MOST_MESSAGES: Final = 1000
LARGEST: Final = 10_000_000
"""Bytes of a request's messages."""

_NAME = re.compile(r"projects/[a-z0-9.:-]+/topics/(?!goog)[A-Za-z][A-Za-z0-9._~+%-]{2,254}")


def create(scope: Scope, params: Mapping[str, Any]) -> Doc:
    name = params["name"]
    if _NAME.fullmatch(name) is None:
        raise _invalid(f"Invalid resource name given (name={name}).")
    settings = set(params.get("body") or {}) - {"name"}
    if settings:
        raise NotSimulated(f"settings of topics: {', '.join(sorted(settings))}")
    if scope.get(TOPIC, name) is not None:
        raise ApiError("alreadyExists", f"Resource already exists in the project (resource={_last(name)}).", 409)
    topic = {"name": name}
    scope.put(TOPIC, name, topic)
    return topic


def get(scope: Scope, params: Mapping[str, Any]) -> Doc:
    return _topic(scope, params["topic"])


def delete(scope: Scope, params: Mapping[str, Any]) -> Doc:
    scope.delete(TOPIC, _topic(scope, params["topic"])["name"])
    return {}


def list_topics(scope: Scope, params: Mapping[str, Any]) -> Doc:
    found = [each for each in scope.all(TOPIC) if each["name"].startswith(f"{params['project']}/")]
    return {"topics": found} if found else {}


def publish(scope: Scope, params: Mapping[str, Any]) -> Doc:
    topic = _topic(scope, params["topic"])["name"]
    messages = (params.get("body") or {}).get("messages") or []
    if not messages:
        raise _invalid("The request contains no messages.")
    if len(messages) > MOST_MESSAGES:
        raise _invalid(f"The request contains more than {MOST_MESSAGES} messages.")
    size = 0
    for message in messages:
        if message.get("orderingKey"):
            raise NotSimulated("ordering keys")
        size += _checked(message)
    if size > LARGEST:
        raise _invalid("Request payload size exceeds the limit: 10000000 bytes.")
    numbers = []
    for message in messages:
        number = str(scope.count(MESSAGE))
        document = {
            "topic": topic,
            "messageId": number,
            "data": message.get("data", ""),
            "attributes": message.get("attributes") or {},
            "at": scope.now.isoformat(),
        }
        scope.put(MESSAGE, number.rjust(8, "0"), document)
        numbers.append(number)
    return {"messageIds": numbers}


def _checked(message: Mapping[str, Any]) -> int:
    """A message's bytes. Raises ApiError for one that is none."""
    data, attributes = message.get("data") or "", message.get("attributes") or {}
    if not data and not attributes:
        raise _invalid("Some messages in the batch are empty: each has data or at least one attribute.")
    if len(attributes) > 100:
        raise _invalid("A message has more than 100 attributes.")
    for name, value in attributes.items():
        if not 1 <= len(name.encode()) <= 256 or name.startswith("goog"):
            raise _invalid(f"The attribute key is not allowed: {name}")
        if len(value.encode()) > 1024:
            raise _invalid(f"The value of the attribute {name} is longer than 1024 bytes.")
    return len(data) * 3 // 4 + sum(len(name.encode()) + len(value.encode()) for name, value in attributes.items())


def _topic(scope: Scope, name: str) -> Doc:
    topic = scope.get(TOPIC, name)
    if topic is None:
        raise ApiError("notFound", f"Resource not found (resource={_last(name)}).", 404)
    return topic


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _invalid(told: str) -> ApiError:
    return ApiError("badRequest", told)


OPERATIONS: Mapping[str, Operation] = {
    "projects.topics.create": create,
    "projects.topics.delete": delete,
    "projects.topics.get": get,
    "projects.topics.list": list_topics,
    "projects.topics.publish": publish,
}

PARAMETERS: Mapping[str, str] = {
    "projects.topics.create": "$base name body",
    "projects.topics.delete": "$base topic",
    "projects.topics.get": "$base topic",
    "projects.topics.list": "$base project",
    "projects.topics.publish": "$base topic body",
}
