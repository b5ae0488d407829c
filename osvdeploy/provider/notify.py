"""Who is told of rollouts, as a program declares it and as it comes back from a ledger: as of gates
(:mod:`osvdeploy.provider.gates`), the words are the spec's, what was left out is for its model to fill in, and compared
is what a rollout has.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar

from osvdeploy.cloud.interfaces import PubSubTarget, SnsTarget, WebhookTarget
from osvdeploy.errors import SpecError
from osvdeploy.provider.declare import Nested, declared, prop
from osvdeploy.provider.spelling import plain
from osvdeploy.provider.values import UNKNOWN, is_known

if TYPE_CHECKING:
    from osvdeploy.rollout.hooks import Notify


class WebhookFormat(StrEnum):
    """What a webhook is posted."""

    JSON = "json"
    SLACK = "slack"


class NoticeKind(StrEnum):
    """A sort of news of a service."""

    BEGUN = "begun"
    WAITING = "waiting"
    SHIFTED = "shifted"
    REVERTING = "reverting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ROLLED_BACK = "rolled-back"
    ABORTED = "aborted"
    ROLLBACK_FAILED = "rollback-failed"
    HELD = "held"
    UNHELD = "unheld"


@declared
class DeploymentNotify(Nested):
    """Who is told of rollouts."""

    MODULE: ClassVar[str] = "index"

    webhook_variable: str | None = prop(
        "The environment variable of whoever deploys that holds the address of a webhook, which is posted to. It is "
        "read when something is sent, and in no document.",
        default=None,
    )
    webhook: str | None = prop("The address of a webhook that is no secret: it stands in the ledger.", default=None)
    format: WebhookFormat | None = prop(
        "Of a webhook: json is all that there is to tell; slack a text, as incoming webhooks of Slack take it. Left "
        "out: json.",
        default=None,
    )
    sns: str | None = prop("A topic of SNS, of an environment on AWS.", default=None)
    pubsub: str | None = prop("A topic of Pub/Sub, of an environment on Google.", default=None)
    on: tuple[NoticeKind, ...] | None = prop(
        "Of what: begun, waiting (for a person), shifted (a share is proved), reverting (traffic goes back), "
        "succeeded, failed, rolled-back, aborted, rollback-failed, held, unheld. Left out: begun, waiting, succeeded, "
        "failed, rolled-back, aborted, rollback-failed.",
        default=None,
    )


def as_a_rollout_has_it(notify: DeploymentNotify) -> Any:
    """The same with all that follows from what it says in its place. Itself where no check has let it through; UNKNOWN
    where any of it is."""
    if not is_known(notify):
        return UNKNOWN
    from osvdeploy.api.declared import notify_for
    from osvdeploy.spec import notify_of_document

    told = plain(notify)
    assert isinstance(told, dict)
    try:
        return spelled_out(notify_for(notify_of_document(told)))
    except SpecError:
        return notify


def spelled_out(notify: Notify) -> DeploymentNotify:
    """A rollout's, with everything said that it has."""
    on = tuple(kind for kind in NoticeKind if kind in notify.on)
    match notify.target:
        case SnsTarget(topic=topic):
            return DeploymentNotify(sns=topic, on=on)
        case PubSubTarget(topic=topic):
            return DeploymentNotify(pubsub=topic, on=on)
        case WebhookTarget(url=url, variable=variable, format=format):
            return DeploymentNotify(webhook=url, webhook_variable=variable, format=WebhookFormat(format), on=on)


def as_one_writes_it(notify: Notify) -> DeploymentNotify:
    """A rollout's as a program declares it: without what follows from the rest."""
    whole = shortest = spelled_out(notify)
    if as_a_rollout_has_it(tried := replace(shortest, format=None)) == whole:
        shortest = tried
    if as_a_rollout_has_it(tried := replace(shortest, on=None)) == whole:
        shortest = tried
    return shortest
