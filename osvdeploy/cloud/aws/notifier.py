"""Amazon SNS: a message to a topic, in the topic's own region.

Source: Amazon SNS API reference, Publish: a message of at most 256 KiB of UTF-8; a subject of ASCII without line
breaks, shorter than 100 characters, that begins with a letter, a digit or a punctuation mark.
"""

from __future__ import annotations

from osvdeploy.cloud.aws.session import Aws
from osvdeploy.cloud.interfaces import Message, NoticeTarget, RunningHook, SnsTarget
from osvdeploy.cloud.sending import Sending
from osvdeploy.context import Context
from osvdeploy.errors import UsageError

_SUBJECT = 99


class SnsNotifier:
    """:class:`~osvdeploy.cloud.interfaces.Notifier` of SNS, with the environment's credentials."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws

    def refuse_unready(self, ctx: Context, target: NoticeTarget) -> None:
        """Whether it may be published to, only publishing tells."""
        if not isinstance(target, SnsTarget):
            raise UsageError(f"{target.kind} is not of AWS", hint="take sns, or a webhook")

    def send(self, ctx: Context, target: NoticeTarget, message: Message) -> RunningHook:
        # Making a client takes longer than a rollout should wait, so that happens there too.
        return Sending(lambda: self._publish(ctx, target, message))

    def _publish(self, ctx: Context, target: NoticeTarget, message: Message) -> str:
        self.refuse_unready(ctx, target)
        assert isinstance(target, SnsTarget)
        region = target.topic.split(":")[3]
        aws = self._aws if region == self._aws.region else self._aws.elsewhere(region)
        attributes = {"event": message.event, "notice": message.notice, "service": message.service}
        # What is not taken is tried again by whoever owes it, later each time.
        with aws.calling(ctx, f"topic {target.topic}", attempts=1):
            answer = aws.sns.publish(
                TopicArn=target.topic,
                Message=message.body.decode(),
                Subject=message.subject[:_SUBJECT],
                MessageAttributes={
                    name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()
                },
            )
        return f"message {answer['MessageId']}"
