"""Tells webhooks, and by the place's own means whoever is told by those."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from osvdeploy.cloud.interfaces import HookAnswer, Message, NoticeTarget, Notifier, RunningHook, WebhookTarget
from osvdeploy.cloud.local.hooks import Over, Post
from osvdeploy.cloud.local.prober import HttpProber
from osvdeploy.context import Context
from osvdeploy.errors import UsageError

TIME_LIMIT = 10.0
"""Seconds for all of a request."""


class Notifiers:
    """:class:`~osvdeploy.cloud.interfaces.Notifier` of webhooks, and of a cloud beside them."""

    def __init__(self, place: Notifier | None = None, environ: Mapping[str, str] | None = None) -> None:
        """``place`` tells by what the cloud has for that; ``environ`` has the addresses that are secret, os.environ
        where left out."""
        self._place = place
        self._environ = os.environ if environ is None else environ
        self._http = HttpProber()

    def refuse_unready(self, ctx: Context, target: NoticeTarget) -> None:
        if isinstance(target, WebhookTarget):
            self._address(target)
        elif self._place is None:
            raise UsageError(f"{target.kind} is not of this place", hint="take a webhook")
        else:
            self._place.refuse_unready(ctx, target)

    def send(self, ctx: Context, target: NoticeTarget, message: Message) -> RunningHook:
        try:
            if not isinstance(target, WebhookTarget):
                self.refuse_unready(ctx, target)
                assert self._place is not None
                return self._place.send(ctx, target, message)
            address = self._address(target)
        except UsageError as error:
            return Over(HookAnswer(False, str(error)))
        headers = {"x-osvdeploy-event": message.event, "x-osvdeploy-notice": message.notice}
        # Its path is the secret; where it is, anybody may know.
        secrets = [address, address.partition("://")[2].partition("/")[2]] if target.url is None else []
        return Post(ctx, self._http, address, headers, message.body, TIME_LIMIT, [each for each in secrets if each])

    def _address(self, target: WebhookTarget) -> str:
        if target.url is not None:
            return target.url
        assert target.variable is not None, "one of them is there"
        value = self._environ.get(target.variable, "").strip()
        if not value:
            raise UsageError(f"the variable {target.variable} is not set", hint=f"export {target.variable}")
        if not re.fullmatch(r"https?://[!-~]+", value):
            raise UsageError(f"the variable {target.variable} holds no address that begins with https://")
        return value
