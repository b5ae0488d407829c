"""What a fake cloud shall do wrong, and when."""

from __future__ import annotations

import threading
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

    def around(self, operation: str, *arguments: object) -> Around:
        """What a fake wraps each of its operations in; ``arguments`` say on what, for those that keep a log."""
        return Around(self, operation)

    def due(self, operation: str) -> tuple[BaseException | None, BaseException | None]:
        """What an operation that is asked for now raises before it takes effect, and after that."""
        found: dict[bool, BaseException] = {}
        with self._lock:
            self.calls.append(operation)
            if not self._plans:
                return None, None
            for plan in self._plans:
                if plan.operation not in ("*", operation):
                    continue
                plan.at -= 1
                if plan.at <= 0 and plan.times > 0:
                    plan.times -= 1
                    found.setdefault(plan.after, plan.error)
        return found.get(False), found.get(True)


class Around:
    """One call. A class, and no generator: suites make millions of them."""

    __slots__ = ("_after", "_faults", "_operation")

    def __init__(self, faults: Faults, operation: str) -> None:
        self._faults, self._operation = faults, operation
        self._after: BaseException | None = None

    def __enter__(self) -> None:
        before, self._after = self._faults.due(self._operation)
        if before is not None:
            raise before

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        if failed is None and self._after is not None:
            raise self._after
