"""What others are told of a service: which news there are, to whom they are owed, and as what. Pure.

News are what differs between two documents that follow each other; what is owed stands in the second of them, so that
nothing is lost whoever dies. See :class:`Notice`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from osvdeploy.cloud.interfaces import Message, NoticeTarget, ReleaseId, WebhookTarget
from osvdeploy.rollout.hooks import Notify
from osvdeploy.rollout.model import Outcome, Run, Stage

SCHEMA = 1
"""Of what is told."""

OWED_FOR = timedelta(days=1)
"""How long it is tried to tell something."""

MOST_OWED = 100
"""Notices that one document has: of more, the oldest are given up."""

_LONGEST_WAIT = 300.0
"""Seconds between two tries, at most."""


class NewsKind(StrEnum):
    """What sort of thing is told."""

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


@dataclass(frozen=True, slots=True)
class News:
    """One thing that happened. ``event`` names it; ``told`` is a sentence for people. What of a run it has, a hold has
    not."""

    event: str
    notice: NewsKind
    at: datetime
    service: str
    told: str
    by: str
    run: str | None = None
    kind: str | None = None
    stage: str | None = None
    candidate: ReleaseId | None = None
    stable: ReleaseId | None = None
    weight: int | None = None
    outcome: str | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Notice:
    """News that are owed to somebody, or were: it stands in each document until it is delivered or given up.

    ``tries`` came to nothing so far, the last one ``tried`` then for the reason ``error``.
    """

    target: NoticeTarget
    news: News
    tries: int = 0
    tried: datetime | None = None
    error: str = ""

    @property
    def key(self) -> tuple[str, str]:
        return self.news.event, str(self.target)

    def due(self, now: datetime) -> bool:
        """Whether it is time to try (again)."""
        if self.tried is None:
            return True
        passed = (now - self.tried).total_seconds()
        # By a clock that was ahead: it is as long ago as nobody knows.
        return passed < 0 or passed >= min(2.0 ** min(self.tries, 10), _LONGEST_WAIT)

    def failed(self, error: str, now: datetime) -> Notice:
        return replace(self, tries=self.tries + 1, tried=now, error=error[:300])

    def given_up(self, now: datetime) -> bool:
        """Whether it is too old to be told."""
        return now - self.news.at > OWED_FOR


Settled = Mapping[tuple[str, str], Notice | None]
"""What came of notices since they were last written down: as they are now, None for delivered ones."""


def owed(notices: Sequence[Notice], settled: Settled, fresh: Sequence[Notice], now: datetime) -> tuple[Notice, ...]:
    """What the next document owes."""
    kept = [settled.get(notice.key, notice) for notice in notices]
    standing = [notice for notice in kept if notice is not None and not notice.given_up(now)]
    return (*standing, *fresh)[-MOST_OWED:]


def owed_to(notify: Sequence[Notify], news: Sequence[News]) -> tuple[Notice, ...]:
    """To whom news are owed, in the order of the news."""
    return tuple(Notice(each.target, one) for one in news for each in notify if one.notice in each.on)


def of_run(before: Run | None, run: Run, service: str, now: datetime) -> tuple[Run, tuple[News, ...]]:
    """What is new of a run since the document before, and the run with its count. Nothing where nobody is told."""
    had = before if before is not None and before.id == run.id else None
    if had is not None:
        # Whoever steps the run need not know how many there were.
        run = replace(run, news=had.news)
    if not run.settings.notify or run == had:
        return run, ()
    found = []
    for number, (notice, at, told, why) in enumerate(_of_run(had, run, now), run.news + 1):
        found.append(
            News(
                event=f"{run.id}/{number}",
                notice=notice,
                at=at,
                service=service,
                told=told,
                by=run.by,
                run=run.id,
                kind=run.kind.value,
                stage=run.stage.value,
                candidate=run.candidate,
                stable=run.stable,
                weight=run.moves[-1].weight if run.moves else 0,
                outcome=run.verdict.value if run.verdict is not None and run.over else None,
                why=why,
            )
        )
    return replace(run, news=run.news + len(found)) if found else run, tuple(found)


def _of_run(had: Run | None, run: Run, now: datetime) -> Iterator[tuple[NewsKind, datetime, str, str]]:
    what = f"{run.kind} of {run.candidate}"
    if had is None:
        over = f" over {run.stable}" if run.stable is not None else ""
        yield NewsKind.BEGUN, run.started, f"the {what}{over} has begun", ""
    passed = run.stages[len(had.stages) if had is not None else 0 :]
    step = had.step if had is not None else 0
    for number, record in enumerate(passed):
        entered = passed[number + 1].stage if number + 1 < len(passed) else run.stage
        if record.stage is Stage.SHIFT and entered is Stage.BAKE:
            share = run.steps[min(step, len(run.steps) - 1)].weight
            yield NewsKind.SHIFTED, record.left, f"{run.candidate} has {share} % of the traffic", record.why
        if record.stage is Stage.BAKE and entered is Stage.SHIFT:
            step += 1
        if entered is Stage.REVERT:
            yield NewsKind.REVERTING, record.left, f"traffic goes back to {run.stable}: {run.reason}", run.reason
    paused = run.paused if had is None or had.paused != run.paused else None
    if paused is not None:
        yield NewsKind.WAITING, paused.at, f"the {what} waits, paused by {paused.by}: {paused.why}", paused.why
    elif run.awaited and run.paused is None and (had is None or had.awaited != run.awaited):
        yield NewsKind.WAITING, now, f"the {what} waits for {run.awaited}", run.awaited
    if run.over and run.verdict is not None and (had is None or not had.over):
        yield NewsKind(run.verdict.value), run.ended or now, _ended(run), run.reason


def _ended(run: Run) -> str:
    match run.verdict:
        case Outcome.SUCCEEDED:
            return f"{run.candidate} serves"
        case Outcome.ROLLBACK_FAILED:
            serves = f"; {run.candidate} serves" if run.stable_gone else ""
            return f"traffic could not be brought back to {run.stable}: {run.reason}{serves}"
    serves = f"; {run.stable} serves" if run.stable is not None and run.cleaned_up else ""
    return f"the {run.kind} of {run.candidate} {run.verdict}: {run.reason}{serves}"


def of_hold(service: str, number: int, release: ReleaseId | None, why: str | None, by: str, now: datetime) -> News:
    """A hold that was set, or taken away (``why`` None). ``number`` is the document's."""
    what = release or "every release"
    told = f"{what} is held: {why}" if why is not None else f"{what} is held no more"
    notice = NewsKind.HELD if why is not None else NewsKind.UNHELD
    return News(f"head-{number}/{notice}/{what}", notice, now, service, told, by, candidate=release, why=why or "")


def message_of(notice: Notice) -> Message:
    """What is sent."""
    news = notice.news
    document = {"schema": SCHEMA, **asdict(news), "at": news.at.isoformat(), "notice": news.notice.value}
    text = f"*{_slack(news.service)}* {news.notice}: {_slack(news.told)}"
    slack = isinstance(notice.target, WebhookTarget) and notice.target.format == "slack"
    body = json.dumps({"text": text} if slack else document, sort_keys=True).encode()
    subject = "".join(char if " " <= char <= "~" else "?" for char in f"{news.service}: {news.notice}")[:100]
    return Message(news.event, news.notice.value, news.service, subject, body, text)


def _slack(text: str) -> str:
    """As Slack's markup has it: three characters are its own
    (https://docs.slack.dev/messaging/formatting-message-text)."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
