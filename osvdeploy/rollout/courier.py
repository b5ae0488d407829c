"""Delivers what is owed to others, for the process that holds the lease: in order for each, and never waited for while
a rollout goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from osvdeploy.cloud.interfaces import Notifier, RunningHook
from osvdeploy.context import Context
from osvdeploy.errors import UsageError
from osvdeploy.events import Note, Warned
from osvdeploy.rollout.hooks import Notify
from osvdeploy.rollout.ledger import HeldLedger
from osvdeploy.rollout.news import Notice, message_of, owed

PATIENCE = 8.0
"""Seconds at most that a command waits at its end for what it sends."""
_LOOK = 0.1


@dataclass(slots=True)
class Courier:
    """``notifier`` None: what is owed stays owed."""

    notifier: Notifier | None
    _under_way: dict[str, tuple[Notice, RunningHook]] = field(default_factory=dict)
    """By target: one at a time, so that news come in their order."""
    _failing: set[str] = field(default_factory=set)
    """Targets of which it was told that they cannot be reached."""

    def tick(self, ctx: Context, held: HeldLedger) -> None:
        """Take in what was answered, and send what is due. Waits for nothing, writes nothing."""
        for target, (notice, sending) in list(self._under_way.items()):
            if (answer := sending.answer()) is None:
                continue
            sending.close()
            del self._under_way[target]
            if answer.passed:
                held.settled[notice.key] = None
                ctx.report(Note(f"{target} was told: {notice.news.notice}"))
                self._failing.discard(target)
            else:
                held.settled[notice.key] = notice.failed(answer.told, ctx.now())
                if target not in self._failing:
                    self._failing.add(target)
                    ctx.report(
                        Warned(f"{target} cannot be told: {answer.told}", hint="it is tried again, and not waited for")
                    )
        for target, notice in self._next(held).items():
            if target not in self._under_way and self.notifier is not None and notice.due(ctx.now()):
                self._under_way[target] = notice, self.notifier.send(ctx, notice.target, message_of(notice))

    def finish(self, ctx: Context, held: HeldLedger) -> None:
        """At the end of a command: send what is due, and wait for that some seconds at most. What came of it is written
        with the next head, which gives the lease back."""
        if not held.head.notices:
            return
        for _ in range(round(PATIENCE / _LOOK)):
            self.tick(ctx, held)
            if not self._under_way:
                break
            next(iter(self._under_way.values()))[1].wait(_LOOK)
        self.tick(ctx, held)
        for _, sending in self._under_way.values():
            # Nobody knows whether it was heard: it is owed still, and told again as the same event.
            sending.stop()
            sending.close()
        for target, (notice, _) in self._under_way.items():
            held.settled[notice.key] = notice.failed("no answer came in time", ctx.now())
            self._failing.add(target)
        self._under_way.clear()
        still = owed(held.head.notices, held.settled, (), ctx.now())
        for told in owing(still):
            ctx.report(
                Warned(told, hint="the next command on the service that changes anything tries again, for a day")
            )

    def _next(self, held: HeldLedger) -> dict[str, Notice]:
        """The first notice of each target that is yet to be delivered."""
        found: dict[str, Notice] = {}
        for notice in held.head.notices:
            now = held.settled.get(notice.key, notice)
            if now is not None:
                found.setdefault(str(notice.target), now)
        return found


def owing(notices: Sequence[Notice]) -> Iterator[str]:
    """What each target is yet to be told of, and why it was not, in words."""
    for target in dict.fromkeys(str(notice.target) for notice in notices):
        left = [notice for notice in notices if str(notice.target) == target]
        last = next((notice.error for notice in left if notice.error), "")
        yield f"{target} is yet to be told of {_named(left)}" + (f": {last}" if last else "")


def _named(notices: Sequence[Notice]) -> str:
    """Notices by what they are about, in the order in which they are owed."""
    about: dict[str, list[str]] = {}
    for notice in notices:
        news = notice.news
        subject = f"the {news.kind} of {news.candidate}" if news.candidate is not None else news.service
        about.setdefault(subject, []).append(str(news.notice))
    return "; ".join(f"{', '.join(kinds)} ({subject})" for subject, kinds in about.items())


def warn_of_unready(ctx: Context, notifier: Notifier | None, notify: Sequence[Notify]) -> None:
    """Warn of those who cannot be told from here: a rollout does not depend on them."""
    for each in notify:
        try:
            if notifier is None:
                raise UsageError("there is nothing to tell others with here", hint="give `notifier`")
            notifier.refuse_unready(ctx, each.target)
        except UsageError as error:
            ctx.report(Warned(f"{each.target} will not be told: {error}", hint=error.hint))
