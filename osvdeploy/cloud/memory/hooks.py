"""Hooks in memory: what each comes to, and after how long, is told by the test; the receiver remembers what it got."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from osvdeploy.cloud.interfaces import CommandHook, HookAction, HookAnswer
from osvdeploy.context import Clock, Context
from osvdeploy.errors import UsageError

PASSED = HookAnswer(True, "all is well")


@dataclass
class Asked:
    """One time that a hook was started: what it was told, when it was, and whether it was ended before it was over."""

    facts: dict[str, Any]
    at: float
    takes: float
    comes_to: HookAnswer
    clock: Clock
    stopped: bool = False
    closed: bool = False

    def answer(self) -> HookAnswer | None:
        over = not self.stopped and self.clock.monotonic() - self.at >= self.takes
        return self.comes_to if over else None

    def wait(self, seconds: float) -> None:
        if self.answer() is None:
            self.clock.wait(seconds, threading.Event())

    def stop(self) -> None:
        self.stopped = self.stopped or self.answer() is None

    def close(self) -> None:
        self.stop()
        self.closed = True


Behaves = Callable[[dict[str, Any]], tuple[float, HookAnswer]]
"""By what a hook is told: how many seconds it takes, and what it comes to."""


@dataclass
class MemoryHooks:
    """:class:`~osvdeploy.cloud.interfaces.Hooks`. A hook passes at once unless :attr:`behaves` says otherwise."""

    clock: Clock
    behaves: Behaves | None = None
    missing: set[str] = field(default_factory=set)
    """Programs and addresses that cannot be started from here."""
    asked: list[Asked] = field(default_factory=list)

    def refuse_unready(self, ctx: Context, action: HookAction) -> None:
        if (name := _name(action)) in self.missing:
            raise UsageError(f"{name}: is not there", hint="mend `command` of the hook")

    def start(self, ctx: Context, action: HookAction, content: bytes, timeout: float) -> Asked:
        facts = json.loads(content)
        takes, answer = self.behaves(facts) if self.behaves is not None else (0.0, PASSED)
        if (name := _name(action)) in self.missing:
            takes, answer = 0.0, HookAnswer(False, f"{name}: is not there")
        started = Asked(facts, self.clock.monotonic(), takes, answer, self.clock)
        self.asked.append(started)
        return started

    @property
    def events(self) -> list[str]:
        """The events that were told, in order, each as often as it was."""
        return [each.facts["event"] for each in self.asked]

    @property
    def turns(self) -> list[str]:
        """``hook stage`` of each, in order."""
        return [f"{each.facts['hook']} {each.facts['stage']}" for each in self.asked]


def _name(action: HookAction) -> str:
    return action.argv[0] if isinstance(action, CommandHook) else action.url
