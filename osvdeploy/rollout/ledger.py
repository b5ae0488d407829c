"""The ledger: numbered, create-only documents that say what a service has, what serves, and who is at work.

Keys under the address of an object store:

    APP/ENV/head/<12 digits of 10^12 - 1 - N>.json    heads; the newest sorts first
    APP/ENV/releases/<ID>.json                         releases; a deploy with other settings adds <ID>.2.json, ...
    APP/ENV/requests/<RUN>/<6 digits>.json             what people asked of a run, numbered from 1

A document is JSON: ``{"schema": 1, "osvdeploy": "<version that wrote it>", "head" | "release" | "request": {...}}``,
keys sorted. The fields are those of :class:`Head`, :class:`~osvdeploy.rollout.releases.Release` and
:class:`~osvdeploy.rollout.model.Request`, dates in ISO 8601, durations in seconds. A head is whole in itself.
The one writing primitive is *put if absent*: nothing is overwritten, so there is
no lost update, and the heads are the log.
"""

from __future__ import annotations

import functools
import json
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from threading import Event
from typing import TYPE_CHECKING, Any, TypeVar

from osvdeploy.cloud.interfaces import ObjectStore, ReleaseId, Route, RouteState, Scaling, Slot
from osvdeploy.cloud.parallel import in_flight
from osvdeploy.context import Context, ProcessIdentity
from osvdeploy.errors import (
    CloudError,
    DeadlineExceeded,
    LeaseLost,
    LedgerError,
    LedgerTooNew,
    Unavailable,
    UsageError,
)
from osvdeploy.retry import insisting
from osvdeploy.rollout.model import Request, Run
from osvdeploy.rollout.news import News, Notice, of_hold, of_run, owed, owed_to
from osvdeploy.rollout.releases import Release, service_name
from osvdeploy.version import __version__

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")

SCHEMA = 1
_REVISION = re.compile(r"(?:\.([0-9]+))?\.json$")
"""What follows a release's id in its key. An id ends in eight hex digits after a dash, so this is unambiguous."""
_HALF = re.compile("[\ud800-\udfff]")
_LAST = 10**12 - 1
_LAST_CALL = 15.0
"""Seconds before the end of a lease after which its holder sends nothing more that changes the cloud: a call that is
sent right before, by a connection that is there, has 10 s to be answered."""
MANY = 16
"""Documents that are read at once, where many are wanted: a bucket answers each within tens of milliseconds."""


@dataclass(frozen=True, slots=True)
class Lease:
    """Who may act on the service. It is over when the head has not changed for ``length`` seconds."""

    holder: ProcessIdentity
    length: float


@dataclass(frozen=True, slots=True)
class Hold:
    """Refuses one release, or every one where ``release`` is None."""

    release: ReleaseId | None
    why: str
    by: str
    at: datetime

    @property
    def told(self) -> str:
        """What is held, by whom and why."""
        return f"{self.release or 'every release'} is held since {self.at:%Y-%m-%d %H:%M} UTC by {self.by}: {self.why}"


@dataclass(frozen=True, slots=True)
class SlotRecord:
    """What stands in a slot. ``warm_until`` is set once it no longer serves: until then it can be gone back to."""

    release: ReleaseId
    group: str
    since: datetime
    warm_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Lent:
    """A group that somebody else made, while what scales it is suspended by a rollout: ``scaling`` is what did before,
    and does again once the group is let go. ``grown``: the group was put back into a slot, and made larger for that."""

    scaling: Scaling
    grown: bool = False


@dataclass(frozen=True, slots=True)
class Served:
    """A release that has served, and since when."""

    release: ReleaseId
    since: datetime


@dataclass(frozen=True, slots=True)
class Place:
    """Where the service runs, resolved: ``status``, ``rollback`` and ``destroy`` need nothing but this document.
    ``endpoint`` is the address of the cloud's API that the spec named."""

    cloud: str
    account: str
    region: str
    route: Route
    base_url: str
    rules: Mapping[str, str] = field(default_factory=dict)
    backends: Mapping[Slot, str] = field(default_factory=dict)
    endpoint: str | None = None


SERVED_KEPT = 50

WRITTEN_AGAIN = "the ledger can be written again"
"""What a head records that is written once its store is in reach again."""


@dataclass(frozen=True, slots=True)
class Head:
    """The newest document of a service.

    ``n`` numbers heads from 1; ``epoch`` rises with each change of holder; ``nonce`` tells who wrote it, should the
    answer to a put be lost. ``serving`` is the slot that traffic goes to, ``run`` the rollout under way or the last
    one. ``served`` lists, oldest first, the releases that served, at most 50. ``why`` is what this document records.
    ``family_due``: the image family is yet to be led to what serves; ``given_up`` are releases whose images are yet to
    be withdrawn. ``notices`` is what others are yet to be told, oldest first. ``note`` is one of a rollback without the
    ledger (:attr:`~osvdeploy.cloud.interfaces.RouteState.left`) that was heard of and could not be taken off the route.
    ``lent`` are, by name, the groups of others that are yet to be let go as they were.
    """

    service: str
    n: int
    epoch: int
    nonce: str
    written: datetime
    why: str
    lease: Lease | None = None
    holds: tuple[Hold, ...] = ()
    slots: Mapping[Slot, SlotRecord] = field(default_factory=dict)
    serving: Slot | None = None
    run: Run | None = None
    served: tuple[Served, ...] = ()
    pins: tuple[ReleaseId, ...] = ()
    place: Place | None = None
    destroyed: bool = False
    family_due: bool = False
    given_up: tuple[ReleaseId, ...] = ()
    notices: tuple[Notice, ...] = ()
    note: ReleaseId | None = None
    lent: Mapping[str, Lent] = field(default_factory=dict)

    def unheard(self, state: RouteState) -> RouteState:
        """What stands behind the route, without a note that says nothing new."""
        return replace(state, left=None) if state.left is not None and state.left == self.note else state

    @property
    def stable(self) -> SlotRecord | None:
        """The record of the slot that serves."""
        return None if self.serving is None else self.slots.get(self.serving)

    def served_lately(self, release: ReleaseId, now: datetime) -> tuple[Served, ...]:
        """``served``, once a release serves from now on: each stands there once, and the oldest go."""
        others = (each for each in self.served if each.release != release)
        return (*others, Served(release, now))[-SERVED_KEPT:]

    def held_too(self, hold: Hold) -> tuple[Hold, ...]:
        """``holds`` with one more, in the place of an older one of the same."""
        return (*(each for each in self.holds if each.release != hold.release), hold)

    @property
    def unfinished(self) -> Run | None:
        """The run that has not come to its end."""
        return self.run if self.run is not None and not self.run.over else None


class HeadTaken(LedgerError):
    """Another process wrote this number first. ``winner`` is what it wrote."""

    def __init__(self, winner: Head) -> None:
        super().__init__(f"{winner.service}: head {winner.n} was written by another process")
        self.winner = winner


class OutOfReach(Unavailable):
    """A head cannot be written or read now, or nobody knows whether it was written. What it tells of was not done."""


class Ledger:
    """The documents of one service in an object store. ``mark`` is in the names of all groups that are made by one that
    does not last: its epochs begin anew, and no other's groups are to have a name of its."""

    def __init__(self, store: ObjectStore, app: str, environment: str, mark: str = "") -> None:
        self.store = store
        self.mark = mark
        self.app = app
        self.environment = environment
        self.service = service_name(app, environment)

    @property
    def way_without(self) -> str:
        """What to type where the ledger is out of reach and traffic is to go back."""
        return f"`osvdeploy rollback {self.service} --from-cloud` goes back without it"

    def head(self, ctx: Context) -> Head | None:
        """The newest head, None for a service that was never deployed.

        Raises :class:`LedgerTooNew` when a newer osvdeploy wrote it, :class:`LedgerError` when it is damaged.
        """
        for key in self.store.keys(ctx, f"{self.service}/head/", limit=1):
            return self._read_head(ctx, key)
        return None

    def heads(self, ctx: Context, *, width: int = 1) -> Iterator[Head]:
        """All heads, newest first; up to ``width`` are read at once, where many are wanted: a rollout writes one each
        half minute at least."""
        keys = iter(self.store.keys(ctx, f"{self.service}/head/"))
        batch = 1
        while several := list(islice(keys, batch)):
            # The newest are often all that is looked at, so few are read ahead before many are.
            batch = min(2 * batch, width)
            yield from self._read_heads(ctx, several, width)

    def _read_heads(self, ctx: Context, keys: list[str], width: int) -> list[Head]:
        if len(keys) == 1:
            return [self._read_head(ctx, keys[0])]
        read: dict[str, Head] = {}

        def keep(found: tuple[str, Head]) -> None:
            read[found[0]] = found[1]

        in_flight(
            ctx,
            keys,
            lambda ctx, key, stop: (key, self._read_head(ctx, key)),
            keep,
            width=width,
            name="osvdeploy-heads",
        )
        return [read[key] for key in keys]

    def before(self, ctx: Context, when: datetime) -> Head | None:
        """The newest head that was written before then; None where there is none. Of many heads some are read, as a
        search by halves does."""
        keys = list(self.store.keys(ctx, f"{self.service}/head/"))
        found = bisect_left(keys, True, key=lambda key: self._read_head(ctx, key).written < when)
        return self._read_head(ctx, keys[found]) if found < len(keys) else None

    def served_since(self, ctx: Context, head: Head, when: datetime) -> tuple[Served, ...]:
        """The releases that served, oldest first, those included that have served since then and that ``head`` does not
        remember: heads from before do. One that came back stands there again."""
        known: tuple[Served, ...] = ()
        for earlier in self._served(ctx, head):
            known = (*earlier, *known)
            # What is not remembered had traffic until what is served, at the latest.
            if known and known[0].since <= when:
                break
        return known

    def has_served(self, ctx: Context, head: Head, release: ReleaseId) -> bool:
        """Whether a release has ever served. Heads from before are read only where ``head`` does not tell."""
        return any(each.release == release for some in self._served(ctx, head) for each in some)

    def _served(self, ctx: Context, head: Head) -> Iterator[tuple[Served, ...]]:
        """What served, oldest first: as ``head`` remembers it, then what was before that, as earlier heads do."""
        some, full = head.served, len(head.served) >= SERVED_KEPT
        yield some
        while full:
            oldest = some[0].since
            past = self.before(ctx, oldest)
            some = tuple(each for each in past.served if each.since < oldest) if past is not None else ()
            full = past is not None and len(past.served) >= SERVED_KEPT and bool(some)
            yield some

    def since(self, ctx: Context, n: int) -> list[Head]:
        """The heads from number ``n`` on, oldest first, and the one before them."""
        found: list[Head] = []
        for head in self.heads(ctx):
            found.append(head)
            if head.n < n:
                break
        return found[::-1]

    def write(self, ctx: Context, head: Head) -> None:
        """Put a head. Raises :class:`HeadTaken` when its number, or a higher one, is there already."""
        key = _head_key(self.service, head.n)
        body = _head_adapter().dump_python(head, mode="json")
        if body["run"] is not None:
            # What is counted from look to look is no fact about the run.
            del body["run"]["tally"]
        document = _dump("head", body)
        if not self.store.put_if_absent(ctx, key, document):
            there = self._read_head(ctx, key)
            # The answer to our own put may have been lost, and the call repeated.
            if there.nonce != head.nonce:
                raise HeadTaken(there)
        newest = self.head(ctx)
        if newest is not None and newest.n > head.n:
            raise HeadTaken(newest)

    def put_release(self, ctx: Context, release: Release) -> None:
        """Keep a release's document; one with other settings than the last, or that tells how the disk begins where
        the last does not, becomes a further revision of it."""
        for _ in range(100):
            revisions = self._revisions(ctx, release.id)
            if revisions:
                last = self._read_release(ctx, revisions[-1])
                known = last.first_block is not None or release.first_block is None
                if last.settings == release.settings and known:
                    return
            number = len(revisions) + 1
            name = release.id if number == 1 else f"{release.id}.{number}"
            document = _dump("release", _release_adapter().dump_python(release, mode="json"))
            if self.store.put_if_absent(ctx, f"{self.service}/releases/{name}.json", document):
                return
        raise LedgerError(f"{release.id}: 100 other writers were faster")

    def release(self, ctx: Context, release: ReleaseId) -> Release | None:
        """The release with its latest settings."""
        revisions = self._revisions(ctx, release)
        return self._read_release(ctx, revisions[-1]) if revisions else None

    def revisions(self, ctx: Context, release: ReleaseId) -> list[Release]:
        """The release with each of its settings, oldest first; none for one that was never deployed."""
        return [self._read_release(ctx, key) for key in self._revisions(ctx, release)]

    def releases(self, ctx: Context) -> list[Release]:
        """Every release that was ever deployed, oldest first, each with its latest settings."""
        names = {_REVISION.sub("", key.rpartition("/")[2]) for key in self._release_keys(ctx)}
        found = [release for name in names if (release := self.release(ctx, ReleaseId(name))) is not None]
        return sorted(found, key=lambda release: (release.created, release.id))

    def ask(self, ctx: Context, run: str, request: Request) -> int:
        """Put a request to whoever works on a run; its number. Anybody may: no lease is needed."""
        document = _dump("request", _request_adapter().dump_python(request, mode="json"))
        number = len(list(self.store.keys(ctx, f"{self.service}/requests/{run}/"))) + 1
        for taken in range(100):
            key = f"{self.service}/requests/{run}/{number + taken:06d}.json"
            if self.store.put_if_absent(ctx, key, document):
                return number + taken
        raise LedgerError(f"{self.service}: 100 others asked something of {run} and were faster")

    def requests(self, ctx: Context, run: str, heard: int) -> list[Request]:
        """What was asked of a run since the first ``heard`` requests, in order."""
        keys = sorted(self.store.keys(ctx, f"{self.service}/requests/{run}/"))
        return [
            _validated(_request_adapter(), self._read(ctx, key, "request"), self.store.address, key)
            for key in keys[heard:]
        ]

    def _release_keys(self, ctx: Context) -> Iterator[str]:
        return self.store.keys(ctx, f"{self.service}/releases/")

    def _revisions(self, ctx: Context, release: ReleaseId) -> list[str]:
        stem = f"{self.service}/releases/{release}"
        numbers = {key: _REVISION.search(key) for key in self.store.keys(ctx, f"{stem}.")}
        found = {
            key: int(number[1] or 1) for key, number in numbers.items() if number and _REVISION.sub("", key) == stem
        }
        return sorted(found, key=found.__getitem__)

    def _read_release(self, ctx: Context, key: str) -> Release:
        return _validated(_release_adapter(), self._read(ctx, key, "release"), self.store.address, key)

    def _read_head(self, ctx: Context, key: str) -> Head:
        return _head_in(self._content(ctx, key), self.store.address, key)

    def _read(self, ctx: Context, key: str, kind: str) -> object:
        return _part(self._content(ctx, key), kind, self.store.address, key)

    def _content(self, ctx: Context, key: str) -> bytes:
        content = self.store.get(ctx, key)
        if content is None:
            raise LedgerError(f"{self.store.address}: {key} vanished while it was read", hint="run the command again")
        return content


def environments(ctx: Context, store: ObjectStore, app: str) -> list[str]:
    """The environments of an app that a store has ledgers of, sorted."""
    keys = (key.split("/") for key in store.keys(ctx, f"{app}/"))
    return sorted({parts[1] for parts in keys if len(parts) == 4 and parts[2] == "head"})


def services(ctx: Context, store: ObjectStore, app: str | None = None) -> list[tuple[str, str]]:
    """App and environment of every service that a store may have a ledger of, sorted; of one ``app`` where it is given.
    What is below them is not gone through, so another folder of two levels is one of them."""
    apps = [app] if app is not None else list(store.folders(ctx, ""))
    found: list[tuple[str, str]] = []

    def below(ctx: Context, app: str, stop: Event) -> list[tuple[str, str]]:
        return [(app, environment) for environment in store.folders(ctx, f"{app}/")]

    in_flight(ctx, apps, below, found.extend, width=MANY, name="osvdeploy-apps")
    return sorted(found)


def heads_of(ctx: Context, ledgers: Sequence[Ledger]) -> list[Head | LedgerError | None]:
    """The newest head of each, in their order: two reads each, several at once. Of one that cannot be read, why."""
    found: dict[str, Head | LedgerError | None] = {}

    def read(ctx: Context, ledger: Ledger, stop: Event) -> tuple[str, Head | LedgerError | None]:
        try:
            return ledger.service, ledger.head(ctx)
        except LedgerError as error:
            return ledger.service, error

    def keep(told: tuple[str, Head | LedgerError | None]) -> None:
        found[told[0]] = told[1]

    in_flight(ctx, ledgers, read, keep, width=MANY, name="osvdeploy-heads")
    return [found[ledger.service] for ledger in ledgers]


def release_document(release: Release) -> dict[str, Any]:
    """A release as the ledger writes it: JSON's own values."""
    found: dict[str, Any] = _release_adapter().dump_python(release, mode="json")
    return found


def read_release(document: object, source: str) -> Release:
    """The release of such a document. Raises :class:`~osvdeploy.errors.UsageError` for what is none; ``source`` is
    where it is from."""
    from pydantic import ValidationError

    try:
        return _release_adapter().validate_json(json.dumps(document))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            f"{source}: a release in it cannot be read: {where}: {first['msg']}",
            hint="`osvdeploy releases export --format json` writes what can be",
        ) from None


class HeldLedger:
    """The ledger while this process holds the lease: every write says so, and a lost one stops us."""

    def __init__(
        self,
        ledger: Ledger,
        head: Head,
        *,
        written: float,
        taken_over: bool = False,
        before: datetime | None = None,
    ) -> None:
        """``written``: when the head was begun to be written, in the clock's monotonic seconds. ``taken_over``: whoever
        held it before did not give it back. ``before``: when the head before was written, the last that is known of
        whoever was at work then."""
        self.ledger = ledger
        self.head = head
        self.taken_over = taken_over
        self.before = before
        self._written = written
        self.settled: dict[tuple[str, str], Notice | None] = {}
        """What came of notices since the last head: written with the next one."""
        self._in_doubt: set[str] = set()
        """The nonces of heads of the next number whose writing ended without an answer: any of them may be there."""

    def save(self, ctx: Context, why: str, **changes: Any) -> Head:
        """Write the next head, with these fields changed. Raises :class:`~osvdeploy.errors.LeaseLost`."""
        while (written := self._written_as(ctx, why, changes)) is None:
            pass
        return written

    def _written_as(self, ctx: Context, why: str, changes: Mapping[str, Any]) -> Head | None:
        """The next head; None where it is to be tried again."""
        # A nonce for each: any of several tries may be the one that arrived, and they need not say the same.
        head = replace(self.head, n=self.head.n + 1, nonce=ctx.nonce(), written=ctx.now(), why=why, **changes)
        head = self._with_news(ctx, head)
        began = ctx.monotonic()
        try:
            self.ledger.write(ctx, head)
        except HeadTaken as taken:
            if self._is_ours(taken.winner):
                return None
            raise _lost(self.ledger, taken.winner) from taken
        except CloudError as error:
            self._in_doubt.add(head.nonce)
            self._out_of_reach(error)
            raise
        self.head = head
        self._in_doubt.clear()
        self.settled.clear()
        # Others count from when they can see it, which is later.
        self._written = began
        return head

    def _with_news(self, ctx: Context, head: Head) -> Head:
        """The head with what others are to be told of its difference from the last one."""
        run, news = head.run, list[News]()
        if run is not None:
            run, found = of_run(self.head.run, run, head.service, head.written)
            news += found
            if run.settings.notify and head.holds != self.head.holds:
                by = f"{ctx.process.user}@{ctx.process.host}"
                held, had = ({hold.release: hold.why for hold in each.holds} for each in (head, self.head))
                for release in dict.fromkeys((*held, *had)):
                    if held.get(release) != had.get(release):
                        why = held.get(release)
                        news.append(of_hold(head.service, head.n, release, why, by, head.written))
        fresh = owed_to(run.settings.notify, news) if run is not None else ()
        if not fresh and not head.notices:
            return replace(head, run=run)
        return replace(head, run=run, notices=owed(head.notices, self.settled, fresh, head.written))

    @contextmanager
    def acting(self, ctx: Context) -> Iterator[Context]:
        """A context to change the cloud in: every call made in it is over before anybody may take the lease over.

        Half of the lease, or more, is left at its begin. Raises :class:`~osvdeploy.errors.Unavailable` where the cloud
        takes longer, so that it is looked at again; the time or the cancel of ``ctx`` itself is raised as it is.
        """
        self.renew(ctx)
        lease = self.head.lease
        if lease is None:
            yield ctx
            return
        try:
            yield ctx.within(lease.length - _LAST_CALL - (ctx.monotonic() - self._written))
        except DeadlineExceeded as error:
            ctx.check()
            raise Unavailable("the cloud takes longer than the lease lasts", hint="it is looked at again") from error

    def insist(self, ctx: Context, change: Callable[[Context, T], None], what: T) -> None:
        """Change the cloud as in :meth:`acting`, and again for a while where it cannot now."""

        def once() -> None:
            with self.acting(ctx) as acting:
                change(acting, what)

        insisting(ctx, once)

    def confirm(self, ctx: Context) -> None:
        """Raise :class:`~osvdeploy.errors.LeaseLost` unless our head is still the newest: asked before an action that
        is repeated without a write of its own."""
        try:
            newest = self.ledger.head(ctx)
        except CloudError as error:
            self._out_of_reach(error)
            raise
        if newest is None or (newest.n != self.head.n and not self._is_ours(newest)):
            raise _lost(self.ledger, newest)

    def _out_of_reach(self, error: CloudError) -> None:
        """Say with an error what goes on from there. Raises :class:`OutOfReach` where the store may answer later."""
        goes_on = f"`osvdeploy recover {self.ledger.service}` goes on once the ledger can be written"
        error.hint = f"{error.hint or goes_on}; {self.ledger.way_without}"
        if isinstance(error, Unavailable):
            raise OutOfReach(str(error), operation=error.operation, code=error.code, hint=error.hint) from error

    def _is_ours(self, found: Head) -> bool:
        """Whether a head is the one that we got no answer to; then it is the one that we go on from."""
        if found.nonce not in self._in_doubt:
            return False
        self.head = found
        self._in_doubt.clear()
        return True

    def renew(self, ctx: Context) -> None:
        """Write a head when half of the lease is over."""
        lease = self.head.lease
        if lease is not None and ctx.monotonic() - self._written >= lease.length / 2:
            self.save(ctx, "lease renewed")

    def give_up(self, ctx: Context) -> None:
        """Give the lease back; what the head records stays."""
        if self.head.lease is not None:
            self.save(ctx, "lease given back", lease=None)


def _lost(ledger: Ledger, newest: Head | None) -> LeaseLost:
    holder = newest.lease.holder if newest is not None and newest.lease else None
    who = f"process {holder.pid} on {holder.host}" if holder else "another process"
    return LeaseLost(
        f"{ledger.service}: {who} took the lease over",
        hint="see `osvdeploy status`; what was begun is in the ledger and the new holder goes on with it",
    )


def _head_key(service: str, n: int) -> str:
    return f"{service}/head/{_LAST - n:012d}.json"


def _dump(kind: str, body: object) -> bytes:
    from pydantic_core import to_json

    document = {"schema": SCHEMA, "osvdeploy": __version__, kind: body}
    try:
        # Not json.dumps: where that indents it is Python, and a fifth of what a rollout computes.
        return to_json(document, indent=1) + b"\n"
    except ValueError:
        text = json.dumps(document, indent=1, ensure_ascii=False)
    # Bytes that are no UTF-8, of an argument or a console, are half a character here, which no JSON can hold.
    return _HALF.sub(lambda half: f"\\\\u{ord(half[0]):04x}", text).encode() + b"\n"


def _damaged(address: str, key: str) -> LedgerError:
    return LedgerError(
        f"{address}: {key} is not a document of this ledger",
        hint="if it was edited or cut off by hand, remove that one file; the document before it then counts",
    )


@functools.cache
def _head_adapter() -> TypeAdapter[Head]:
    # pydantic derives reading and writing from the dataclasses, so that no field is listed twice. Imported here: the
    # commands that never open a ledger do not pay for it.
    from pydantic import TypeAdapter

    return TypeAdapter(Head)


@dataclass(frozen=True, slots=True)
class _HeadDocument:
    schema: int
    head: Head


@functools.cache
def _head_document_adapter() -> TypeAdapter[_HeadDocument]:
    from pydantic import TypeAdapter

    return TypeAdapter(_HeadDocument)


@functools.cache
def _release_adapter() -> TypeAdapter[Release]:
    from pydantic import TypeAdapter

    return TypeAdapter(Release)


@functools.cache
def _request_adapter() -> TypeAdapter[Request]:
    from pydantic import TypeAdapter

    return TypeAdapter(Request)


def _part(content: bytes, kind: str, address: str, key: str) -> object:
    """What a document is there for. Raises :class:`LedgerTooNew`, and :class:`LedgerError` for what is none."""
    try:
        document = json.loads(content)
        schema = document["schema"]
        if isinstance(schema, int) and schema > SCHEMA:
            writer = document.get("osvdeploy")
            raise LedgerTooNew(
                f"{address}: {key} has schema {schema}, written by osvdeploy {writer}; "
                f"this is {__version__}, which knows {SCHEMA}",
                hint="update osvdeploy; nothing was changed",
            )
        return document[kind]
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(address, key) from error


@functools.lru_cache(maxsize=16)
def _head_in(content: bytes, address: str, key: str) -> Head:
    """The head of a document. Kept: while a rollout waits, the same one is read at every look."""
    from pydantic import ValidationError

    try:
        # In one pass: a thousand services are read at once.
        document = _head_document_adapter().validate_json(content)
        if document.schema <= SCHEMA:
            return document.head
    except ValidationError:
        pass  # what is wrong with it is told by its parts
    return _validated(_head_adapter(), _part(content, "head", address, key), address, key)


def _validated(adapter: TypeAdapter[T], body: object, address: str, key: str) -> T:
    from pydantic import ValidationError

    try:
        return adapter.validate_json(json.dumps(body))
    except ValidationError as error:
        raise _damaged(address, key) from error
