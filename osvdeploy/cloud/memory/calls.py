"""Every call to the memory cloud, and a hook that sees each before and after it took effect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from osvdeploy.cloud.memory.faults import Around, Faults

_READS = frozenset(
    {
        "find",
        "owned",
        "observe",
        "shape",
        "machines",
        "scaling",
        "templates",
        "health",
        "slow_start",
        "read",
        "probe",
        "get",
        "keys",
        "folders",
        "counted",
        "weights_of",
        "uploads",
        "current",
        "members",
        "users",
    }
)


class Moment(StrEnum):
    """Where in a call the hook is asked."""

    BEFORE = "before"
    AFTER = "after"


@dataclass(frozen=True, slots=True)
class Call:
    """One call as a cloud would count it: a port's method that changes several things makes one for each.

    ``operation`` is ``router.modify_rule``, ``groups.create_group`` ...; ``arguments`` say on what.
    """

    operation: str
    arguments: tuple[object, ...] = ()

    @property
    def mutating(self) -> bool:
        return self.operation.rpartition(".")[2] not in _READS

    def __str__(self) -> str:
        return f"{self.operation}({', '.join(str(argument) for argument in self.arguments)})"


Hook = Callable[[Call, Moment], None]


@dataclass(slots=True)
class CallLog(Faults):
    """Keeps every call with its arguments, beside the faults that were planned.

    ``hook`` may raise: before, the call does not happen; after, it happened and the caller does not hear of it.
    """

    log: list[Call] = field(default_factory=list)
    hook: Hook | None = None

    @property
    def mutations(self) -> list[Call]:
        return [call for call in self.log if call.mutating]

    def around(self, operation: str, *arguments: object) -> Around:
        return _Seen(self, Call(operation, arguments))


class _Seen(Around):
    """One call, and the hook around it."""

    __slots__ = ("_call", "_calls")

    def __init__(self, calls: CallLog, call: Call) -> None:
        super().__init__(calls, call.operation)
        self._calls, self._call = calls, call

    def __enter__(self) -> None:
        self._calls.log.append(self._call)
        if self._calls.hook is not None:
            self._calls.hook(self._call, Moment.BEFORE)
        super().__enter__()

    def __exit__(self, failed: type[BaseException] | None, *rest: object) -> None:
        super().__exit__(failed, *rest)
        if failed is None and self._calls.hook is not None:
            self._calls.hook(self._call, Moment.AFTER)
