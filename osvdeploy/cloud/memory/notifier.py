"""Others in memory: what each was told, in its order; whether and when they answer is told by the test."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from osvdeploy.cloud.interfaces import HookAnswer, Message, NoticeTarget
from osvdeploy.cloud.memory.hooks import Asked
from osvdeploy.context import Clock, Context

TOLD = HookAnswer(True, "answered 200")


@dataclass
class MemoryNotifier:
    """:class:`~osvdeploy.cloud.interfaces.Notifier`. All are told at once unless :attr:`behaves` says otherwise."""

    clock: Clock
    behaves: Callable[[str, Message], tuple[float, HookAnswer]] | None = None
    """By target and message: how many seconds it takes, and what comes of it."""
    sent: list[tuple[str, Message, Asked]] = field(default_factory=list)

    def refuse_unready(self, ctx: Context, target: NoticeTarget) -> None:
        """Everybody can be told."""

    def send(self, ctx: Context, target: NoticeTarget, message: Message) -> Asked:
        takes, answer = self.behaves(str(target), message) if self.behaves is not None else (0.0, TOLD)
        document: dict[str, Any] = json.loads(message.body)
        sending = Asked(document, self.clock.monotonic(), takes, answer, self.clock)
        self.sent.append((str(target), message, sending))
        return sending

    def heard(self, events: str = "") -> dict[str, str]:
        """What sort of news each event that begins so was that arrived, in the order in which they first did."""
        return {
            message.event: message.notice
            for _, message, sending in self.sent
            if sending.comes_to.passed and message.event.startswith(events)
        }

    def told(self, target: str | None = None) -> list[str]:
        """What sorts of news arrived, in order, each as often as it did."""
        return [
            message.notice
            for to, message, sending in self.sent
            if sending.comes_to.passed and sending.takes < 1e6 and target in (None, to)
        ]
