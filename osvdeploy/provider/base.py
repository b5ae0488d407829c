"""What a resource and a function of the provider are: what they declare and what they do, in typed values.

A resource never sees protobuf: it is given dataclasses and answers with dataclasses. In a preview any part of what it
is given may be UNKNOWN (:func:`osvdeploy.provider.values.is_known`), and what it cannot say yet it answers so.
"""

from __future__ import annotations

import dataclasses
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, ClassVar, Final, Generic, TypeVar

from osvdeploy.context import Context
from osvdeploy.events import Event, Warned
from osvdeploy.provider.diffing import Change
from osvdeploy.provider.parsing import Failure
from osvdeploy.provider.settings import Settings
from osvdeploy.provider.values import UNKNOWN

I = TypeVar("I")  # noqa: E741 (inputs)
O = TypeVar("O")  # noqa: E741 (outputs)

NO_TIMEOUTS: Final[Mapping[Operation, float]] = {}


class Operation(Enum):
    """What may be given a time, by Pulumi's names in `customTimeouts`."""

    CREATE = "create"
    READ = "read"
    UPDATE = "update"
    DELETE = "delete"


class NamingMode(Enum):
    PROPOSE = "propose"
    ENFORCE = "enforce"
    DISABLE = "disable"


@dataclass(frozen=True, slots=True)
class Naming:
    """What something whose name the program leaves out is to be called: Pulumi's autonaming.

    ``name`` is the resource's in the program, ``seed`` the engine's randomness, the same each time for one resource,
    ``proposed`` and ``mode`` what the stack's configuration says.
    """

    name: str
    seed: bytes = b""
    proposed: str = ""
    mode: NamingMode = NamingMode.PROPOSE

    def choose(self, old: str | None, *, longest: int = 63) -> str | None:
        """The name: ``old`` where there is one, else made; None where the configuration wants one to be given."""
        if old is not None and old is not UNKNOWN:
            return old
        if self.mode is NamingMode.DISABLE:
            return None
        if self.mode is NamingMode.ENFORCE or self.proposed:
            return self.proposed
        suffix = hashlib.sha256(self.seed or self.name.encode()).hexdigest()[:7]
        return f"{self.name[: longest - len(suffix) - 1]}-{suffix}"


def _nobody(text: str) -> None:
    """Hears nothing."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a resource or function.

    ``ctx`` carries the deadline (the program's `customTimeouts`, else the resource's) and the cancel (^C, a lost
    connection, the process's end), and its events are shown in the resource's row while it works. ``status`` sets the
    text in the row, ``info`` and ``warn`` leave lines that stay. Secrets are taken out of all of them.
    """

    ctx: Context
    urn: str
    settings: Settings
    preview: bool = False
    naming: Naming = field(default_factory=lambda: Naming(""))
    status: Callable[[str], None] = _nobody
    info: Callable[[str], None] = _nobody
    warn: Callable[[str], None] = _nobody

    def without_warnings(self) -> Call:
        """The same for looking at what is then done in another call: that warns, and once is enough."""
        report = self.ctx.report

        def told(event: Event) -> None:
            if not isinstance(event, Warned):
                report(event)

        return replace(self, ctx=self.ctx.reporting_to(told))


@dataclass(frozen=True, slots=True)
class State(Generic[I, O]):
    """What is recorded of a resource.

    ``inputs``: as it was last made from. ``actual``: the same properties as they were last seen, which differ after a
    refresh that found drift. Both, and ``outputs``, may have been written by an earlier version: what is missing is
    UNKNOWN.
    """

    id: str
    inputs: I
    actual: I
    outputs: O


@dataclass(frozen=True, slots=True)
class Checked(Generic[I]):
    """A check's answer: the inputs, with what the resource filled in, and what is wrong with them."""

    inputs: I
    failures: Sequence[Failure] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """A diff's answer. ``warnings`` are shown once, when this is the diff of a plan and no refresh."""

    changes: Sequence[Change] = ()
    delete_before_replace: bool = False
    warnings: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Created(Generic[O]):
    """What was made. ``id`` must be enough to find it again: it is what `pulumi import` is given."""

    id: str
    outputs: O


@dataclass(frozen=True, slots=True)
class Seen(Generic[I, O]):
    """What is there. ``actual``: the inputs as reality has them; None where it is as recorded. ``problems``: why it is
    not healthy, so that the next `up` works on it, whatever the program says."""

    outputs: O
    actual: I | None = None
    problems: Sequence[str] = ()


class Unfinished(Exception):
    """Something was made or changed, but not all that was asked for: Pulumi records it, with the reasons, and the next
    `up` goes on. ``id`` is needed from a creation alone."""

    def __init__(self, reasons: Sequence[str], outputs: Any, *, id: str = "", cause: Exception | None = None) -> None:
        super().__init__("; ".join(reasons))
        self.reasons, self.outputs, self.id, self.cause = tuple(reasons), outputs, id, cause


class Resource(ABC, Generic[I, O]):
    """A custom resource. One instance serves all calls, from many threads: it keeps nothing.

    ``INPUTS`` and ``OUTPUTS`` declare it; the outputs are the resource's own to say, and inputs are outputs too without
    being said again. ``TIMEOUTS`` are seconds, in force where the program gives none.
    """

    TOKEN: ClassVar[str]
    INPUTS: ClassVar[type[Any]]
    OUTPUTS: ClassVar[type[Any]]
    REFRESH_BEFORE_UPDATE: ClassVar[bool] = False
    TIMEOUTS: ClassVar[Mapping[Operation, float]] = NO_TIMEOUTS

    def check(self, call: Call, wanted: I, before: I | None) -> Checked[I]:
        """Judge what the declaration cannot, and fill in what is ``derived`` or named automatically. ``before`` is
        what was recorded, where something was. Asks no cloud. May be called again with its own answer."""
        return Checked(wanted)

    def judge(self, before: State[I, O], wanted: I, changes: Sequence[Change]) -> Verdict:
        """Say what the change means; ``changes`` are what differs between ``before.actual`` and ``wanted``. Pure: no
        clouds, files or clocks, since a refresh asks too, with what it saw as ``before``."""
        return Verdict(changes)

    @abstractmethod
    def preview(self, call: Call, wanted: I, before: State[I, O] | None) -> O:
        """What a creation (``before`` is None) or an update would give. Changes nothing; UNKNOWN is an answer."""

    @abstractmethod
    def create(self, call: Call, wanted: I) -> Created[O]:
        """Make it, or find that an earlier call whose answer was lost made it. Raises Unfinished."""

    @abstractmethod
    def read(self, call: Call, id: str, before: State[I, O] | None) -> Seen[I, O] | None:
        """What is there; None where it is certain that nothing is. Without ``before`` it is an import: ``actual`` must
        be given, and be such that :meth:`check` accepts it and nothing differs."""

    @abstractmethod
    def update(self, call: Call, before: State[I, O], wanted: I) -> O:
        """Change it in place. Raises Unfinished."""

    @abstractmethod
    def delete(self, call: Call, before: State[I, O]) -> None:
        """Take it away, or find that it is gone."""


class Function(ABC, Generic[I, O]):
    """What programs may ask without having a resource. It changes nothing. Its description is its class's."""

    TOKEN: ClassVar[str]
    INPUTS: ClassVar[type[Any]]
    OUTPUTS: ClassVar[type[Any]]

    @abstractmethod
    def invoke(self, call: Call, asked: I) -> O:
        """The answer."""


def all_unknown(declaring: type[O]) -> O:
    """Outputs of which nothing is known yet."""
    return declaring(**{each.name: UNKNOWN for each in dataclasses.fields(declaring)})  # type: ignore[arg-type]
