"""What the sandbox keeps: documents, due events, blobs and the log of calls, in one SQLite file or in memory.

One process owns a store, and :class:`osvdeploy.sandbox.core.Sandbox` uses it under its lock. A :class:`Transaction`
collects what a call writes and reaches the file in one SQLite transaction, so a process that dies at any moment leaves
every call whole or not at all.

On disk a store is a directory: ``account.db`` and ``blobs/``, one file per content, named by its sha256.
"""

from __future__ import annotations

import hashlib
import json
import marshal
import os
import re
import sqlite3
import tempfile
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from osvdeploy.sandbox.errors import StoreUnusable

SCHEMA = 1

Doc = dict[str, Any]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NEVER = 2**62
_TABLES = (
    "CREATE TABLE document (number INTEGER PRIMARY KEY AUTOINCREMENT, place TEXT NOT NULL, kind TEXT NOT NULL, "
    "key TEXT NOT NULL, body TEXT NOT NULL, UNIQUE (place, kind, key))",
    # away: the event's work goes on outside of the lock.
    "CREATE TABLE due (number INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, place TEXT NOT NULL, "
    "event TEXT NOT NULL, payload TEXT NOT NULL, away INTEGER NOT NULL DEFAULT 0)",
    "CREATE INDEX due_at ON due (away, at, number)",
    "CREATE TABLE call (number INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, region TEXT NOT NULL, "
    "service TEXT NOT NULL, operation TEXT NOT NULL, mutating INTEGER NOT NULL, error TEXT NOT NULL, "
    "client TEXT NOT NULL)",
)
_DIGEST = re.compile(r'"([0-9a-f]{64})"')


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _time(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


@dataclass(frozen=True, slots=True)
class DueEvent:
    """Something that happens by itself at ``at``. ``place`` is an account and region."""

    number: int
    at: datetime
    place: str
    event: str
    payload: Doc


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One API call as it ended. ``error`` is AWS's code, "lost" for an answer that never left, "" for success;
    ``client`` the access key that signed it. ``number`` counts from 1 and never repeats."""

    number: int
    at: datetime
    region: str
    service: str
    operation: str
    mutating: bool
    error: str
    client: str


class Blobs(Protocol):
    """Contents by their sha256, each kept once. From any thread, also after the call is over."""

    def put(self, content: bytes) -> str:
        """Keep a content; its sha256 in hex. It stays while a document names it."""

    def get(self, digest: str) -> bytes:
        """Raises KeyError for what was never put."""


class _MemoryBlobs:
    def __init__(self) -> None:
        self._contents: dict[str, bytes] = {}

    def put(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        self._contents.setdefault(digest, bytes(content))
        return digest

    def get(self, digest: str) -> bytes:
        return self._contents[digest]


class _DirectoryBlobs:
    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(exist_ok=True)

    def put(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        path = self._root / digest
        if not path.exists():
            # By rename: a file of that name is whole, whenever the process dies.
            number, name = tempfile.mkstemp(dir=self._root, prefix="new-")
            with os.fdopen(number, "wb") as file:
                file.write(content)
            Path(name).rename(path)
        return digest

    def get(self, digest: str) -> bytes:
        try:
            return (self._root / digest).read_bytes()
        except FileNotFoundError:
            raise KeyError(digest) from None

    def sweep(self, named: set[str]) -> None:
        """Remove every content that no document names."""
        for path in self._root.iterdir():
            if path.name not in named:
                path.unlink()


@dataclass(frozen=True, slots=True)
class _Change:
    """A document that was changed at ``at``, and what it was ``before`` (None: not there)."""

    at: datetime
    place: str
    kind: str
    key: str
    before: bytes | None


class Store:
    """The store in the directory ``path`` (made where it is missing), or one in memory.

    Raises :class:`StoreUnusable`.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.blobs: Blobs
        if path is None:
            self._connect(":memory:")
            self._make_tables()
            self.blobs = _MemoryBlobs()
        else:
            self._open(path)
            files = _DirectoryBlobs(path / "blobs")
            # Only while nothing runs: a guest reads from its disk's blobs also when no snapshot has them any more.
            bodies = self._database.execute("SELECT body FROM document")
            files.sweep({digest for (body,) in bodies for digest in _DIGEST.findall(body)})
            self.blobs = files
        # All documents, in marshal's form: each reader gets a copy of its own, several times faster than by copying
        # or from JSON. The file is only read here.
        self._documents: dict[tuple[str, str], dict[str, bytes]] = {}
        for place, kind, key, body in self._database.execute(
            "SELECT place, kind, key, body FROM document ORDER BY number"
        ):
            self._documents.setdefault((place, kind), {})[key] = marshal.dumps(json.loads(body))
        self.version = 0
        """Rises with every transaction that changed a document."""
        self.soonest: int | None = None
        """Nothing is due before that microsecond; None: not known. Most looks are for nothing, and this says so."""
        self._past: deque[_Change] = deque()

    def _connect(self, file: Path | str) -> None:
        self._database = sqlite3.connect(file, isolation_level=None, check_same_thread=False, timeout=0.2)
        # Also a store that nobody holds any more, or that could not be used, is closed.
        self._closing = weakref.finalize(self, self._database.close)

    def _open(self, path: Path) -> None:
        file = path / "account.db"
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._connect(file)
            # Exclusive: another process would not see what this one keeps in memory.
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._database.execute("PRAGMA journal_mode = WAL")
            # A killed process loses nothing that was committed; only a power cut might, and this is a sandbox.
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.execute("BEGIN IMMEDIATE")
            (schema,) = self._database.execute("PRAGMA user_version").fetchone()
            if schema == 0:
                self._make_tables()
                self._database.execute(f"PRAGMA user_version = {SCHEMA}")
            self._database.execute("COMMIT")
        except (OSError, sqlite3.OperationalError) as error:
            raise StoreUnusable(
                f"{file}: in use by another process, or not writable ({error})",
                hint="stop the sandbox that runs on it: `osvdeploy sandbox stop`",
            ) from None
        except sqlite3.DatabaseError as error:
            raise StoreUnusable(f"{file}: no store ({error})", hint="start anew: `osvdeploy sandbox reset`") from None
        if schema > SCHEMA:
            raise StoreUnusable(
                f"{file}: written by a newer osvdeploy (format {schema})",
                hint="update osvdeploy, or start anew: `osvdeploy sandbox reset`",
            )

    def _make_tables(self) -> None:
        for statement in _TABLES:
            self._database.execute(statement)

    def begin(self) -> Transaction:
        return Transaction(self)

    def as_of(self, moment: datetime) -> Transaction:
        """The documents as they were then, to read only: as far back as :meth:`forget` left what is needed for it."""
        past: dict[tuple[str, str], dict[str, bytes | None]] = {}
        for change in reversed(self._past):
            if change.at <= moment:
                break
            past.setdefault((change.place, change.kind), {})[change.key] = change.before
        return Transaction(self, past)

    def forget(self, before: datetime) -> None:
        """Nobody reads as of a time before that any more."""
        while self._past and self._past[0].at <= before:
            self._past.popleft()

    def close(self) -> None:
        self._closing()

    # ------------------------------------------------------------------------------------------------------- reading

    def kinds(self) -> dict[tuple[str, str], list[str]]:
        """The keys of every place and kind, in the order they were first put."""
        return {at: list(found) for at, found in self._documents.items() if found}

    def next_due(self) -> datetime | None:
        """When the next event is due."""
        (at,) = self._database.execute("SELECT min(at) FROM due WHERE away = 0").fetchone()
        return None if at is None else _time(at)

    def first_due(self, until: datetime) -> DueEvent | None:
        """The first event that is due by ``until``: by time, then in the order they were planned."""
        end = _micros(until)
        if self.soonest is not None and self.soonest > end:
            return None
        row = self._database.execute(
            "SELECT number, at, place, event, payload FROM due WHERE away = 0 ORDER BY at, number LIMIT 1"
        ).fetchone()
        self.soonest = _NEVER if row is None else row[1]
        if self.soonest > end:
            return None
        return DueEvent(row[0], _time(row[1]), row[2], row[3], json.loads(row[4]))

    def calls(self, after: int = 0, limit: int = -1) -> list[CallRecord]:
        """Calls whose number is above ``after``, oldest first, the last ``limit`` of them (-1: all)."""
        rows = self._database.execute(
            "SELECT number, at, region, service, operation, mutating, error, client FROM call WHERE number > ? "
            "ORDER BY number DESC LIMIT ?",
            (after, limit),
        ).fetchall()
        return [
            CallRecord(number, _time(at), region, service, operation, bool(mutating), error, client)
            for number, at, region, service, operation, mutating, error, client in reversed(rows)
        ]

    # ------------------------------------------------------------------------------------------------------- writing

    def take_up_again(self, now: datetime) -> None:
        """After the store was opened: time stood still meanwhile, and work that was under way is due once more."""
        first, self.soonest = self.next_due(), None
        gap = max(timedelta(), now - first) if first is not None else timedelta()
        self._database.execute("UPDATE due SET at = at + ? WHERE away = 0", (gap // _MICROSECOND,))
        self._database.execute("UPDATE due SET at = ?, away = 0 WHERE away = 1", (_micros(now),))

    def _commit(
        self, changes: Mapping[tuple[str, str, str], str | None], statements: Sequence[tuple[str, tuple[object, ...]]]
    ) -> None:
        execute = self._database.execute
        if self.path is None:
            # Nobody opens it again: its documents are those that are kept beside.
            for sql, values in statements:
                execute(sql, values)
            return
        execute("BEGIN IMMEDIATE")
        try:
            for at, body in changes.items():
                if body is None:
                    execute("DELETE FROM document WHERE place = ? AND kind = ? AND key = ?", at)
                else:
                    execute(
                        "INSERT INTO document (place, kind, key, body) VALUES (?, ?, ?, ?) "
                        "ON CONFLICT (place, kind, key) DO UPDATE SET body = excluded.body",
                        (*at, body),
                    )
            for sql, values in statements:
                execute(sql, values)
            execute("COMMIT")
        except BaseException:
            execute("ROLLBACK")
            raise


def _alike(one: Any, other: Any) -> bool:
    """Whether both have the same values of the same types, in the same order; False also where only JSON tells."""
    try:
        # Of this version equal values have equal forms: later ones also tell which of them are the same object.
        return marshal.dumps(one, 2) == marshal.dumps(other, 2)
    except ValueError:
        return False


class Transaction:
    """What one call or event reads and writes. Nothing is kept before :meth:`commit`; to drop it undoes it all."""

    def __init__(self, store: Store, past: dict[tuple[str, str], dict[str, bytes | None]] | None = None) -> None:
        self._store = store
        self._read_only = past is not None
        self._changes: dict[tuple[str, str], dict[str, bytes | None]] = past or {}
        self._bodies: dict[tuple[str, str, str], str | None] = {}
        self._statements: list[tuple[str, tuple[object, ...]]] = []
        self._soonest = _NEVER

    def get(self, place: str, kind: str, key: str) -> Doc | None:
        mine = self._changes.get((place, kind), {})
        kept = mine[key] if key in mine else self._store._documents.get((place, kind), {}).get(key)
        return None if kept is None else marshal.loads(kept)

    def put(self, place: str, kind: str, key: str, document: Mapping[str, Any]) -> None:
        before = self._store._documents.get((place, kind), {}).get(key)
        first = (place, kind, key) not in self._bodies
        if first and before is not None and _alike(marshal.loads(before), document):
            return  # as it was: most health checks find what the one before found
        body = json.dumps(document, separators=(",", ":"))
        # By way of JSON, so that a document reads the same before and after a restart.
        kept = marshal.dumps(json.loads(body))
        if first and before == kept:
            return
        self._bodies[place, kind, key] = body
        self._changes.setdefault((place, kind), {})[key] = kept

    def delete(self, place: str, kind: str, key: str) -> None:
        self._bodies[place, kind, key] = None
        self._changes.setdefault((place, kind), {})[key] = None

    def all(self, place: str, kind: str) -> list[Doc]:
        """In the order they were first put."""
        mine = dict(self._changes.get((place, kind), {}))
        before = self._store._documents.get((place, kind), {})
        found = [mine.pop(key) if key in mine else kept for key, kept in before.items()] if mine else before.values()
        return [marshal.loads(kept) for kept in (*found, *mine.values()) if kept is not None]

    def plan(self, at: datetime, place: str, event: str, payload: Mapping[str, Any]) -> None:
        """Let an event be due."""
        sql = "INSERT INTO due (at, place, event, payload) VALUES (?, ?, ?, ?)"
        self._statements.append((sql, (_micros(at), place, event, json.dumps(payload))))
        self._soonest = min(self._soonest, _micros(at))

    def happened(self, event: DueEvent, *, away: bool = False) -> None:
        """An event is over; or ``away``: its work goes on outside, and it is due again should the process end."""
        sql = "UPDATE due SET away = 1 WHERE number = ?" if away else "DELETE FROM due WHERE number = ?"
        self._statements.append((sql, (event.number,)))

    def log(
        self, at: datetime, *, region: str, service: str, operation: str, mutating: bool, error: str, client: str
    ) -> None:
        sql = "INSERT INTO call (at, region, service, operation, mutating, error, client) VALUES (?, ?, ?, ?, ?, ?, ?)"
        self._statements.append((sql, (_micros(at), region, service, operation, int(mutating), error, client)))

    def commit(self, at: datetime | None = None) -> None:
        """Keep it all. With ``at``, :meth:`Store.as_of` finds what was before."""
        assert not self._read_only, "the past is not written"
        store = self._store
        store._commit(self._bodies, self._statements)
        if store.soonest is not None:
            store.soonest = min(store.soonest, self._soonest)
        for (place, kind), mine in self._changes.items():
            kept = store._documents.setdefault((place, kind), {})
            for key, document in mine.items():
                if at is not None:
                    store._past.append(_Change(at, place, kind, key, kept.get(key)))
                if document is None:
                    kept.pop(key, None)
                else:
                    kept[key] = document
        store.version += bool(self._changes)
