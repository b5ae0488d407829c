"""What a fake cloud shall do wrong, and when."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Plan:
    operation: str
    error: BaseException
    at: int
    times: int
    after: bool


@dataclass(slots=True)
class Faults:
    """Tells a fake to fail. ``calls`` lists the operations asked for so far, in order.

    >>> cloud.faults.fail("snapshots.put", Refused("no room"), at=7)            # the 7th block is refused
    >>> cloud.faults.fail("images.register", Unavailable("lost"), after=True)   # done, but the answer is lost

    ``error`` may be any exception; one that is no Exception (a class derived from BaseException) stands for the
    process being killed there.
    """

    calls: list[str] = field(default_factory=list)
    _plans: list[_Plan] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(self, operation: str, error: BaseException, *, at: int = 1, times: int = 1, after: bool = False) -> None:
        """Raise ``error`` at the ``at``-th call of ``operation`` from now on and the ``times - 1`` calls behind it:
        before it took effect, or with ``after`` once it did. ``operation`` "*" counts every call."""
        with self._lock:
            self._plans.append(_Plan(operation, error, at, times, after))

    def clear(self) -> None:
        """Fail no more."""
        with self._lock:
            self._plans.clear()

    @contextmanager
    def around(self, operation: str, *arguments: object) -> Iterator[None]:
        """What a fake wraps each of its operations in; ``arguments`` say on what, for those that keep a log."""
        before, after = self._due(operation)
        if before is not None:
            raise before
        yield
        if after is not None:
            raise after

    def _due(self, operation: str) -> tuple[BaseException | None, BaseException | None]:
        found: dict[bool, BaseException] = {}
        with self._lock:
            self.calls.append(operation)
            for plan in self._plans:
                if plan.operation not in ("*", operation):
                    continue
                plan.at -= 1
                if plan.at <= 0 and plan.times > 0:
                    plan.times -= 1
                    found.setdefault(plan.after, plan.error)
        return found.get(False), found.get(True)
