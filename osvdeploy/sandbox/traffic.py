"""What balancers counted: every request that was sent to a target, by backend and minute.

Counts are kept in memory, for as long as metrics are asked for here: they end with the sandbox's process, and are no
part of what it keeps on disk. A request that no target was chosen for is counted nowhere, as in the clouds' metrics of
backends.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

MINUTE = 60
KEPT = 180
"""Minutes of each backend that are kept."""


@dataclass(slots=True)
class Minute:
    """One minute of one backend. ``answers`` counts by the status of what the target answered, ``failed`` by that of
    what the balancer answered in its place; ``seconds`` counts the targets' response times, by milliseconds."""

    answers: dict[int, int] = field(default_factory=dict)
    failed: dict[int, int] = field(default_factory=dict)
    unconnected: int = 0
    seconds: Counter[float] = field(default_factory=Counter)

    @property
    def requests(self) -> int:
        return sum(self.answers.values()) + sum(self.failed.values())

    def answered(self, hundred: int) -> int:
        """How many targets' answers had a status of this class: 5 for 5xx."""
        return sum(count for status, count in self.answers.items() if status // 100 == hundred)


class Traffic:
    """Counts requests. Safe to use from several threads."""

    def __init__(self) -> None:
        self._minutes: dict[str, dict[int, Minute]] = {}
        self._lock = threading.Lock()

    def answered(self, backend: str, status: int, seconds: float, now: datetime) -> None:
        """A target answered; ``backend`` is its target group's ARN, or its backend service's path."""
        with self._lock:
            minute = self._minute(backend, now)
            minute.answers[status] = minute.answers.get(status, 0) + 1
            minute.seconds[round(seconds, 3)] += 1

    def failed(self, backend: str, status: int, now: datetime, *, connected: bool) -> None:
        """A target was chosen and gave no answer; the balancer answered by itself (0: it closed the connection)."""
        with self._lock:
            minute = self._minute(backend, now)
            minute.failed[status] = minute.failed.get(status, 0) + 1
            minute.unconnected += not connected

    def _minute(self, backend: str, now: datetime) -> Minute:
        number = int(now.timestamp()) // MINUTE
        minutes = self._minutes.setdefault(backend, {})
        if number not in minutes:
            minutes[number] = Minute()
            for old in [each for each in minutes if each <= number - KEPT]:
                del minutes[old]
        return minutes[number]

    def between(self, backend: str, since: datetime, until: datetime) -> Iterator[tuple[datetime, Minute]]:
        """Minutes with requests that begin at ``since`` or later and before ``until``, in the order of time."""
        with self._lock:
            found = sorted(self._minutes.get(backend, {}).items())
        for number, minute in found:
            at = datetime.fromtimestamp(number * MINUTE, UTC)
            if since <= at < until:
                yield at, minute
