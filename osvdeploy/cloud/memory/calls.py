"""Every call to the memory cloud, and a hook that sees each before and after it took effect."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum

from osvdeploy.cloud.memory.faults import Faults

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

    @contextmanager
    def around(self, operation: str, *arguments: object) -> Iterator[None]:
        call = Call(operation, arguments)
        self.log.append(call)
        if self.hook is not None:
            self.hook(call, Moment.BEFORE)
        # Not super(): a slotted dataclass is another class than the one that stands here.
        with Faults.around(self, operation):
            yield
        if self.hook is not None:
            self.hook(call, Moment.AFTER)
