"""The sandbox's core: one cloud's request in, one answer out, and what happens by itself in between.

:class:`Sandbox` has no socket, no thread and no clock: time is an argument. What takes time in a cloud is a due
event in the store, and :meth:`Sandbox.settle` runs them in order. Each call and each event is one :class:`Turn`, one
transaction: a fault before it means that nothing happened, and a fault after it that the answer alone is lost.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from enum import StrEnum
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

from osvdeploy.sandbox import dataplane, faults, wire, wires
from osvdeploy.sandbox.errors import ApiError, NotSimulated
from osvdeploy.sandbox.faults import Faults, Lost
from osvdeploy.sandbox.google import compute, monitoring, pubsub, storage
from osvdeploy.sandbox.runners import GuestAnswer, GuestRequest, NoAnswer, Runner
from osvdeploy.sandbox.services import autoscaling, cloudwatch, ebs, ec2, elbv2, iam, quotas, s3, sns, sts
from osvdeploy.sandbox.services.scope import Doc, EventHandler, Operation, Scope
from osvdeploy.sandbox.store import Blobs, CallRecord, DueEvent, Store, Transaction
from osvdeploy.sandbox.traffic import Traffic
from osvdeploy.sandbox.wire import ApiRequest, ApiResponse, Call
from osvdeploy.sandbox.wires import Wire

T = TypeVar("T")

ACCOUNT = "123456789012"
"""The account of AWS's own examples."""

_GLOBAL = ""
"""The place of what belongs to the account in every region."""

_MODULES: Mapping[str, Any] = {
    "autoscaling": autoscaling,
    "cloudwatch": cloudwatch,
    "compute": compute,
    "ebs": ebs,
    "ec2": ec2,
    "elbv2": elbv2,
    "iam": iam,
    "monitoring": monitoring,
    "pubsub": pubsub,
    "s3": s3,
    "service-quotas": quotas,
    "sns": sns,
    "storage": storage,
    "sts": sts,
}

ALWAYS_CURRENT = ("compute", "s3", "storage")
"""Services whose reads see every earlier write, whatever the sandbox's lag. Compute Engine's operations tell when that
is so."""

_EVENTS: Mapping[str, EventHandler] = {
    name: handler for module in _MODULES.values() for name, handler in getattr(module, "EVENTS", {}).items()
}


def _understood(declared: str | frozenset[str]) -> frozenset[str]:
    return frozenset(declared.split()) if isinstance(declared, str) else declared


_OPERATIONS: Mapping[tuple[str, str], tuple[Operation, frozenset[str]]] = {
    (service, name): (operation, _understood(module.PARAMETERS[name]))
    for service, module in _MODULES.items()
    for name, operation in module.OPERATIONS.items()
}

_NO_HOLDINGS = (
    "autoscaling.activity",
    "autoscaling.member",
    "elbv2.hosts-seen",
    "elbv2.in-force",
    "elbv2.target",
    "import-snapshot-task",
    "pubsub.message",
    "s3.part/",
    "sns.message",
    "block/",
    "compute.boot-disk",
    "compute.in-force",
    "compute.member",
    "compute.operation",
    "compute.probe",
    "compute.request",
    "count",
    "seed",
    "storage.upload",
    "token",
)
"""Kinds of documents that record or serve others and are nothing that somebody holds."""


class Moment(StrEnum):
    """When a crash hook is called: before anything was written, or after all of it was."""

    BEFORE = "before"
    AFTER = "after"


CrashHook = Callable[[Moment, Call], None]
"""Called around each call that is carried out; whatever it raises comes out of :meth:`Sandbox.handle`."""


class Turn:
    """One call or one due event: the real :class:`~osvdeploy.sandbox.services.scope.Scope`."""

    def __init__(self, sandbox: Sandbox, transaction: Transaction, place: str, now: datetime) -> None:
        self._sandbox = sandbox
        self._transaction = transaction
        self._place = place
        self.now = now
        self.outgoing: list[tuple[Callable[[], Any], Callable[[Scope, Any], None]]] = []

    @property
    def account(self) -> str:
        return self._sandbox.account

    @property
    def region(self) -> str:
        return self._place

    @property
    def runner(self) -> Runner:
        return self._sandbox.runner

    @property
    def speed(self) -> float:
        return self._sandbox.speed

    @property
    def blobs(self) -> Blobs:
        return self._sandbox.store.blobs

    @property
    def traffic(self) -> Traffic:
        return self._sandbox.traffic

    @property
    def ec2(self) -> ec2.Ec2Service:
        return ec2.Ec2Service(self)

    @property
    def everywhere(self) -> Turn:
        return Turn(self._sandbox, self._transaction, _GLOBAL, self.now)

    def get(self, kind: str, key: str) -> Doc | None:
        return self._transaction.get(self._place, kind, key)

    def put(self, kind: str, key: str, document: Doc) -> None:
        self._transaction.put(self._place, kind, key, document)

    def delete(self, kind: str, key: str) -> None:
        self._transaction.delete(self._place, kind, key)

    def all(self, kind: str) -> Sequence[Doc]:
        return self._transaction.all(self._place, kind)

    def later(self, seconds: float, event: str, payload: Doc, after: datetime | None = None) -> None:
        assert event in _EVENTS, event
        at = (after or self.now) + timedelta(seconds=seconds / self._sandbox.speed)
        self._transaction.plan(at, self._place, event, payload)

    def count(self, what: str) -> int:
        """1, 2, 3 ... in the whole account, never the same again."""
        kept = self._transaction.get(_GLOBAL, "count", what)
        number = 1 if kept is None else int(kept["number"]) + 1
        self._transaction.put(_GLOBAL, "count", what, {"number": number})
        return number

    def new_id(self, length: int) -> str:
        return hashlib.sha256(f"{self._sandbox.seed}/{self.count('id')}".encode()).hexdigest()[:length]

    def shortage(self, operation: str) -> faults.FaultKind | None:
        service, _, name = operation.partition(":")
        return self._sandbox.faults.take(Call(service, self._place, name, {}), faults.SHORTAGES)

    def outside(self, work: Callable[[], T], then: Callable[[Scope, T], None]) -> None:
        if self.runner.instant:
            then(self, work())
        else:
            self.outgoing.append((work, then))


@dataclass(frozen=True, slots=True)
class _Served:
    """A call as it ended: ``error`` as the log has it."""

    wire: Wire
    call: Call
    identifier: str
    error: str = ""


class Sandbox:
    """An AWS account in every region, and Google's Cloud Storage and machines. Safe to use from several threads; calls
    are carried out one after another.

    ``path`` is the store's directory, None for one in memory. ``speed`` divides every simulated delay. ``access_key``
    pins the only one that AWS accepts. ``lag`` is for how many seconds (divided as any delay) reads do not see what
    changed, as where a cloud is eventually consistent; ``stale`` likewise, for reads that a fault of that kind strikes.
    ``seed`` decides all ids (left out: random on disk, fixed in
    memory).

    Raises :class:`~osvdeploy.sandbox.errors.StoreUnusable`.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        runner: Runner,
        speed: float = 1.0,
        seed: str | None = None,
        account: str = ACCOUNT,
        access_key: str | None = None,
        lag: float = 0.0,
        stale: float = 0.0,
        free: Callable[[str], bool] | None = None,
    ) -> None:
        """``free``: whether a new sandbox may open addresses that begin like this (``127.0.7``); without it, any."""
        if speed <= 0:
            raise ValueError(f"speed {speed}: must be above 0")
        self.store = Store(path)
        self.runner = runner
        self.speed = speed
        self.account = account
        self.access_key = access_key
        self.lag = timedelta(seconds=lag / speed)
        self.stale = timedelta(seconds=stale / speed)
        self.faults = Faults()
        self.traffic = Traffic()
        self.hook: CrashHook | None = None
        self.work_outside: Callable[[Callable[[], None]], None] | None = None
        """Does work that takes real time in a thread of the shell's; without one it is done at once."""
        self.clock: Callable[[], datetime] | None = None
        """The shell's time, for what comes back from outside."""
        self._lock = threading.RLock()
        self._now = datetime(1970, 1, 1, tzinfo=UTC)
        self._answered = 0
        self._viewed: tuple[int, dataplane.View | None] = (0, None)
        self.seed = self._kept_seed(seed, free)

    def _kept_seed(self, wanted: str | None, free: Callable[[str], bool] | None) -> str:
        transaction = self.store.begin()
        kept = transaction.get(_GLOBAL, "seed", "seed")
        if kept is not None:
            return str(kept["seed"])
        seed = wanted if wanted is not None else "" if self.store.path is None else self._new_seed(free)
        transaction.put(_GLOBAL, "seed", "seed", {"seed": seed})
        # Two sandboxes on one host must not open the same listener: each counts its balancers from elsewhere.
        transaction.put(_GLOBAL, "count", "balancer", {"number": self._net(seed) * elbv2.HOSTS})
        self._commit(transaction)
        return seed

    def _new_seed(self, free: Callable[[str], bool] | None) -> str:
        for _ in range(4 * elbv2.NETS):
            seed = secrets.token_hex(8)
            if free is None or free(self._addresses(seed)):
                break
        return seed

    def _net(self, seed: str) -> int:
        if not seed or self.store.path is None:
            return 0
        return int(hashlib.sha256(seed.encode()).hexdigest()[:4], 16) % elbv2.NETS

    @property
    def balancers(self) -> str:
        """What the addresses of the first 254 balancers begin with, such as ``127.0.7``."""
        return self._addresses(self.seed)

    def _addresses(self, seed: str) -> str:
        return f"127.0.{elbv2.FIRST_NET + self._net(seed)}"

    # --------------------------------------------------------------------------------------------------------- calls

    def handle(self, request: ApiRequest, now: datetime) -> ApiResponse | Lost:
        """Answer one request as of ``now``; what is due until then happens first."""
        answer = self._handle(request, now)
        if not isinstance(answer, ApiResponse):
            return answer
        bare = request.method == "HEAD" or answer.status == HTTPStatus.NOT_MODIFIED
        headers = {**answer.headers, "date": format_datetime(now, usegmt=True)}
        return replace(answer, headers=headers, body=b"" if bare else answer.body)

    def _handle(self, request: ApiRequest, now: datetime) -> ApiResponse | Lost:
        refused: ApiError | None = None
        spoken = wires.wire_of(request)
        try:
            # Outside of the lock: most of the work of a call.
            call = spoken.parse(request)
        except wire.Unreadable as unreadable:
            call, refused = unreadable.call, unreadable.refusal
        with self._lock:
            self.settle(now)
            served = _Served(spoken, call, self._new_request_id())
            if refused is not None:
                return self._refuse(served, refused)
            fault = self.faults.take(call)
            if fault is not None and not faults.takes_effect(fault):
                return self._strike(served, fault)
            lost = None if fault is None else faults.lost(fault)
            if self.hook is not None:
                self.hook(Moment.BEFORE, call)
            response = self._carry_out(served, lost, self.stale if fault is faults.FaultKind.STALE else self.lag)
            if self.hook is not None:
                self.hook(Moment.AFTER, call)
            return lost or response

    def _strike(self, served: _Served, fault: faults.FaultKind) -> ApiResponse | Lost:
        refused = faults.refusal(fault, served.call)
        if refused is not None:
            return self._refuse(served, refused)
        self._log(replace(served, error="lost"))
        return faults.lost(fault) or Lost.CLOSED

    def _carry_out(self, served: _Served, lost: Lost | None, lag: timedelta) -> ApiResponse:
        stale = bool(lag) and not served.call.mutating and served.call.service not in ALWAYS_CURRENT
        turn, transaction = self._begin(served.call.region, self._now - lag if stale else None)
        try:
            result = self._operate(turn, served)
            # Before the commit: what cannot be sent must not have happened.
            response = served.wire.answer(served.call, result, served.identifier)
        except ApiError as refused:
            return self._refuse(served, refused)
        self._log(served if lost is None else replace(served, error="lost"), None if stale else transaction)
        self._send_out(turn, None)
        return response

    def _operate(self, turn: Turn, served: _Served) -> Doc:
        call = served.call
        served.wire.admit(call, self.access_key)
        operation, declared = _OPERATIONS.get((call.service, call.operation), (None, frozenset()))
        if operation is None:
            raise NotSimulated(f"{call.service} {call.operation}")
        params = dict(call.params)
        dry = call.service == "ec2" and params.pop("DryRun", False)
        wire.refuse_unsupported(replace(call, params=params), declared)
        result = operation(turn, params)
        if dry:
            raise ApiError("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412)
        return result

    def _refuse(self, served: _Served, refused: ApiError) -> ApiResponse:
        self._log(replace(served, error=refused.code))
        return served.wire.refusal(served.call, refused, served.identifier)

    def _log(self, served: _Served, transaction: Transaction | None = None) -> None:
        """Log a call and commit: with what it did, or alone."""
        call = served.call
        transaction = transaction or self.store.begin()
        transaction.log(
            self._now,
            region=call.region,
            service=call.service,
            operation=call.operation,
            mutating=call.mutating,
            error=served.error,
            client=call.access_key,
        )
        self._commit(transaction)

    def _new_request_id(self) -> str:
        self._answered += 1
        return wire.request_id(f"{self.seed}/{self._now.isoformat()}/{self._answered}")

    # --------------------------------------------------------------------------------------- what happens by itself

    def settle(self, now: datetime) -> None:
        """Let everything happen that is due by ``now``, each at its time. Time never runs backwards."""
        with self._lock:
            while (event := self.store.first_due(now)) is not None:
                self._now = max(self._now, event.at)
                self._happen(event)
            self._now = max(self._now, now)

    def _happen(self, event: DueEvent) -> None:
        turn, transaction = self._begin(event.place)
        try:
            _EVENTS[event.event](turn, event.payload)
        except BaseException:
            # A fault in the sandbox itself: the event must not come again and again.
            undone = self.store.begin()
            undone.happened(event)
            self._commit(undone)
            raise
        transaction.happened(event, away=bool(turn.outgoing))
        self._commit(transaction)
        self._send_out(turn, event)

    def next_due(self) -> datetime | None:
        """When the next thing happens by itself."""
        with self._lock:
            return self.store.next_due()

    def resume(self, now: datetime) -> None:
        """Go on with a store that was opened: time stood still meanwhile, and guests that ran are started again.

        Waits until they are: before it, a look would take them for lost.
        """
        with self._lock:
            self.store.take_up_again(now)
            self._now = max(self._now, now)
            elsewhere, self.work_outside = self.work_outside, None
            try:
                self._in_all_regions(ec2.resume)
                self._in_place(_GLOBAL, compute.resume)
            finally:
                self.work_outside = elsewhere

    def look(self, now: datetime) -> None:
        """See what guests did by themselves: for a runner that cannot say when a look is worth while."""
        with self._lock:
            self.settle(now)
            self._in_all_regions(ec2.look)
            self._in_place(_GLOBAL, compute.look)

    def _in_all_regions(self, act: Callable[[Turn], None]) -> None:
        for region in self._regions():
            self._in_place(region, act)

    def _in_place(self, place: str, act: Callable[[Turn], None]) -> None:
        turn, transaction = self._begin(place)
        act(turn)
        self._commit(transaction)
        self._send_out(turn, None)

    def _regions(self) -> list[str]:
        return sorted({place for place, _ in self.store.kinds()} - {_GLOBAL})

    def _begin(self, place: str, as_of: datetime | None = None) -> tuple[Turn, Transaction]:
        transaction = self.store.begin() if as_of is None else self.store.as_of(as_of)
        return Turn(self, transaction, place, self._now), transaction

    def _commit(self, transaction: Transaction) -> None:
        longest = max(self.lag, self.stale)
        if longest:
            self.store.forget(self._now - longest)
        transaction.commit(self._now if longest else None)

    def _send_out(self, turn: Turn, event: DueEvent | None) -> None:
        """Have the work done that a turn asked for; its event is over when the last of it is."""
        if not turn.outgoing:
            return

        def work() -> None:
            for job, then in turn.outgoing:
                self._bring_in(turn, job(), then)
            if event is not None:
                with self._lock:
                    transaction = self.store.begin()
                    transaction.happened(event)
                    self._commit(transaction)

        if self.work_outside is None:
            work()
        else:
            self.work_outside(work)

    def _bring_in(self, asked: Turn, result: Any, then: Callable[[Scope, Any], None]) -> None:
        with self._lock:
            self._now = max(self._now, self._now if self.clock is None else self.clock())
            turn, transaction = self._begin(asked.region)
            then(turn, result)
            self._commit(transaction)
            self._send_out(turn, None)

    # ---------------------------------------------------------------------------------------------------- data plane

    @property
    def version(self) -> int:
        """Rises with every change: a view made at the same version is the same."""
        return self.store.version

    def view(self) -> dataplane.View:
        """What balancers decide by now, in all regions."""
        with self._lock:
            version, known = self._viewed
            if known is not None and version == self.store.version:
                return known
            views = [elbv2.view(self._begin(region)[0]) for region in self._regions()]
            views.append(compute.view(self._begin(_GLOBAL)[0]))
            made = dataplane.View(
                {arn: endpoint for view in views for arn, endpoint in view.endpoints.items()},
                {arn: targets for view in views for arn, targets in view.targets.items()},
            )
            self._viewed = self.store.version, made
            return made

    def forward(
        self, address: str, port: int, request: dataplane.HttpRequest, now: datetime, *, draw: float, timeout: float
    ) -> GuestAnswer | NoAnswer:
        """What a client of a balancer gets, without a socket. REFUSED where no listener is open."""
        self.settle(now)
        view = self.view()
        for endpoint in view.endpoints.values():
            if (endpoint.address, endpoint.listener.port) == (address, port):
                break
        else:
            return NoAnswer.REFUSED
        decision = endpoint.listener.decide(request, view.targets_at(now), draw)
        if isinstance(decision, dataplane.SendTo):
            target = decision.target
            asked = GuestRequest(request.method, request.target, decision.request.applied(request.headers))
            answer = self.runner.ask(target.id, target.address, target.port, asked, timeout, now)
            if isinstance(answer, GuestAnswer):
                self.traffic.answered(decision.group, answer.status, answer.seconds, now)
                return replace(answer, headers=dict(decision.answer.applied(tuple(answer.headers.items()))))
            failed = decision.failed(in_time=answer is not NoAnswer.TIMEOUT)
            status = failed.status if isinstance(failed, dataplane.Answer) else 0
            self.traffic.failed(decision.group, status, now, connected=answer is not NoAnswer.REFUSED)
            decision = failed
        if isinstance(decision, dataplane.Hangup):
            return NoAnswer.BROKEN
        headers = {"Content-Type": decision.content_type}
        if decision.location is not None:
            headers["Location"] = decision.location
        return GuestAnswer(decision.status, headers, decision.body.encode())

    # --------------------------------------------------------------------------------------------------- to look at it

    def calls(self, after: int = 0, limit: int = -1) -> list[CallRecord]:
        """The log: calls whose number is above ``after``, oldest first, the last ``limit`` of them (-1: all)."""
        with self._lock:
            return self.store.calls(after, limit)

    def inventory(self) -> dict[str, list[str]]:
        """What the account holds: ids or names by kind, in order. What is gone, and only still shown, is left out."""
        with self._lock:
            found: dict[str, list[str]] = {}
            for (place, kind), keys in self.store.kinds().items():
                if kind.startswith(_NO_HOLDINGS):
                    continue
                turn, _ = self._begin(place)
                held = [key for key in keys if not _is_gone(turn.get(kind, key))]
                if held:
                    found.setdefault(kind, []).extend(held)
            return {kind: sorted(keys) for kind, keys in sorted(found.items())}

    def close(self) -> None:
        """End every guest and close the store."""
        with self._lock:
            self.runner.close()
            self.store.close()


def _is_gone(document: Doc | None) -> bool:
    if document is None:
        return True
    state = document.get("State", document.get("state"))
    return (state.get("Name") if isinstance(state, Mapping) else state) in ("shutting-down", "terminated")
