"""Pub/Sub: a message to a topic, of any project.

Source: Pub/Sub API v1 reference, projects.topics.publish; PubsubMessage: data in base64, attributes.
"""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

from osvdeploy.cloud.gcp.session import Gcp
from osvdeploy.cloud.interfaces import Message, NoticeTarget, PubSubTarget, RunningHook
from osvdeploy.cloud.sending import Sending
from osvdeploy.context import Context
from osvdeploy.errors import Refused, UsageError

TIME_LIMIT = 10.0
"""Seconds for all of a request."""


class PubSubNotifier:
    """:class:`~osvdeploy.cloud.interfaces.Notifier` of Pub/Sub, with the environment's credentials."""

    def __init__(self, gcp: Gcp) -> None:
        self._gcp = gcp

    def refuse_unready(self, ctx: Context, target: NoticeTarget) -> None:
        """Whether it may be published to, only publishing tells."""
        if not isinstance(target, PubSubTarget):
            raise UsageError(f"{target.kind} is not of Google", hint="take pubsub, or a webhook")

    def send(self, ctx: Context, target: NoticeTarget, message: Message) -> RunningHook:
        # Credentials may have to be asked for, which takes longer than a rollout should wait.
        return Sending(lambda: self._publish(ctx, target, message))

    def _publish(self, ctx: Context, target: NoticeTarget, message: Message) -> str:
        self.refuse_unready(ctx, target)
        assert isinstance(target, PubSubTarget)
        attributes = {"event": message.event, "notice": message.notice, "service": message.service}
        wanted = {"messages": [{"data": base64.b64encode(message.body).decode(), "attributes": attributes}]}
        url = f"{self._gcp.pubsub}/v1/{quote(target.topic, safe='/')}:publish"
        # What is not taken is tried again by whoever owes it, later each time.
        body = json.dumps(wanted).encode()
        answer = self._gcp.send(
            ctx, "POST", url, f"topic {target.topic}", body=body, seconds=TIME_LIMIT, attempts=1
        ).json()
        numbers = answer.get("messageIds") or []
        if not numbers:
            raise Refused(f"topic {target.topic}: Pub/Sub answered no message id")
        return f"message {numbers[0]}"
