"""SNS: topics, and what was published to them.

Sources: Amazon SNS API reference (CreateTopic, DeleteTopic, GetTopicAttributes, ListTopics, Publish); "Amazon SNS
message attributes" (names, reserved prefixes, what counts to the size); "Amazon SNS endpoints and quotas" (256 KiB).
Documents ``sns.topic`` by ARN, and ``sns.message``: what was published, in its order, for whoever wants to look.

Not simulated, and refused as such: subscriptions and whom they reach, FIFO topics, phones, platform endpoints, messages
by protocol, encryption, policies: whoever asks the sandbox may publish.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from osvdeploy.sandbox.errors import ApiError, NotSimulated
from osvdeploy.sandbox.services.scope import Doc, Operation, Scope
from osvdeploy.sizes import KIB

Wire = Mapping[str, Any]

TOPIC: Final = "sns.topic"
MESSAGE: Final = "sns.message"
LARGEST: Final = 256 * KIB
"""Bytes of a message with its attributes."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,256}")
_ARN = re.compile(r"arn:aws:sns:([a-z0-9-]+):([0-9]{12}):([A-Za-z0-9_.-]{1,256})")
_ATTRIBUTE = re.compile(r"(?!AWS\.|Amazon\.|\.)(?!.*\.\.)[A-Za-z0-9_.-]{1,256}(?<!\.)", re.IGNORECASE)
_SUBJECT = re.compile(r"[!-~][ -~]{0,98}")


def create_topic(scope: Scope, params: Wire) -> Doc:
    name = params["Name"]
    if name.endswith(".fifo"):
        raise NotSimulated("FIFO topics")
    if _NAME.fullmatch(name) is None:
        raise ApiError("InvalidParameter", "Invalid parameter: Topic Name")
    arn = f"arn:aws:sns:{scope.region}:{scope.account}:{name}"
    # The same name is the same topic.
    if scope.get(TOPIC, arn) is None:
        scope.put(TOPIC, arn, {"TopicArn": arn})
    return {"TopicArn": arn}


def delete_topic(scope: Scope, params: Wire) -> Doc:
    _readable(params["TopicArn"], "TopicArn")
    scope.delete(TOPIC, params["TopicArn"])
    return {}


def get_topic_attributes(scope: Scope, params: Wire) -> Doc:
    arn = _topic(scope, params["TopicArn"], "TopicArn")["TopicArn"]
    return {"Attributes": {"TopicArn": arn, "Owner": scope.account, "DisplayName": ""}}


def list_topics(scope: Scope, params: Wire) -> Doc:
    return {"Topics": [{"TopicArn": each["TopicArn"]} for each in scope.all(TOPIC)]}


def publish(scope: Scope, params: Wire) -> Doc:
    if "TopicArn" not in params:
        raise ApiError("InvalidParameter", "Invalid parameter: TopicArn or TargetArn Reason: no value for required")
    message, subject = params["Message"], params.get("Subject")
    if not message:
        raise ApiError("InvalidParameter", "Invalid parameter: Empty message")
    if subject is not None and _SUBJECT.fullmatch(subject) is None:
        raise ApiError("InvalidParameter", "Invalid parameter: Subject")
    attributes = params.get("MessageAttributes") or {}
    size = len(message.encode())
    for name, value in attributes.items():
        size += len(name.encode()) + _checked(name, value)
    if size > LARGEST:
        raise ApiError("InvalidParameter", "Invalid parameter: Message too long")
    topic = _topic(scope, params["TopicArn"], "TopicArn")["TopicArn"]
    number = scope.count(MESSAGE)
    identifier = "-".join(scope.new_id(length) for length in (8, 4, 4, 4, 12))
    document = {
        "TopicArn": topic,
        "MessageId": identifier,
        "Message": message,
        "Subject": subject,
        "attributes": {name: value["StringValue"] for name, value in attributes.items()},
        "at": scope.now.isoformat(),
    }
    scope.put(MESSAGE, f"{number:08d}", document)
    return {"MessageId": identifier}


def _checked(name: str, value: Mapping[str, Any]) -> int:
    """The bytes of an attribute's type and value. Raises ApiError for what is none."""
    if _ATTRIBUTE.fullmatch(name) is None:
        raise ApiError("ParameterValueInvalid", f"The message attribute '{name}' has an invalid name.")
    if value.get("DataType") != "String":
        raise NotSimulated(f"message attributes of the type {value.get('DataType')}")
    if not value.get("StringValue"):
        told = (
            f"The message attribute '{name}' must contain non-empty message attribute value for message attribute type"
        )
        raise ApiError("ParameterValueInvalid", f"{told} 'String'.")
    return len(b"String") + len(value["StringValue"].encode())


def _readable(arn: str, parameter: str) -> re.Match[str]:
    found = _ARN.fullmatch(arn)
    if found is None:
        raise ApiError("InvalidParameter", f"Invalid parameter: {parameter}")
    return found


def _topic(scope: Scope, arn: str, parameter: str) -> Doc:
    region, account, _ = _readable(arn, parameter).groups()
    if region != scope.region:
        raise ApiError("InvalidParameter", f"Invalid parameter: {parameter}")
    if account != scope.account:
        raise ApiError("AuthorizationError", f"User is not authorized to perform: SNS:Publish on resource: {arn}", 403)
    topic = scope.get(TOPIC, arn)
    if topic is None:
        raise ApiError("NotFound", "Topic does not exist", 404)
    return topic


OPERATIONS: Mapping[str, Operation] = {
    "CreateTopic": create_topic,
    "DeleteTopic": delete_topic,
    "GetTopicAttributes": get_topic_attributes,
    "ListTopics": list_topics,
    "Publish": publish,
}

PARAMETERS: Mapping[str, frozenset[str]] = {
    "CreateTopic": frozenset({"Name"}),
    "DeleteTopic": frozenset({"TopicArn"}),
    "GetTopicAttributes": frozenset({"TopicArn"}),
    "ListTopics": frozenset(),
    "Publish": frozenset({"TopicArn", "Message", "Subject", "MessageAttributes"}),
}
