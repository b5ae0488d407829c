"""What an upload has come to, kept on this machine so that a run that died is taken up where it stopped.

It is a hint. Losing it, or any line of it, costs time only: the blocks are put again, or an attempt is found to be dead
by asking the cloud. So a state directory that cannot be written is no error.

One file per upload (what is uploaded, and where to): JSON values, one per line, only ever appended.

    {"journal": 1, "name": ..., "digest": ..., "cloud": ..., "account": ..., "region": ...}
    {"attempt": 0}                        synced to the disk before the attempt is sent
    {"attempt": 0, "upload": "snap-1"}    the cloud's answer
    {"attempt": 0, "stored": 17}          the cloud has confirmed block 17
    {"attempt": 0, "finished": true}
    {"attempt": 1, "leaving": "snap-1"}   refused: the next attempt is 1, and snap-1 is about to be removed
    {"attempt": 1, "left": "snap-1"}      it is removed

A line that is cut off or cannot be read is skipped, a file of another version is not believed at all. Two processes
may append to one file: each line says which attempt it is about, and the highest attempt counts.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeGuard

from osvdeploy.context import Context
from osvdeploy.digests import Digest, digest_of
from osvdeploy.events import Warned

VERSION = 1
STATE_VARIABLE = "OSVDEPLOY_STATE"
"""Environment variable that names another state directory."""

KEPT = 7 * 86_400.0
"""Seconds after its last line that a file is kept. Clouds let unfinished uploads expire within hours or days."""


@dataclass(frozen=True, slots=True)
class UploadKey:
    """What is uploaded, and where to."""

    name: str
    digest: Digest
    cloud: str
    account: str
    region: str


@dataclass(slots=True)
class UploadLog:
    """One upload: what is known of its newest attempt, and the file that remembers it.

    ``upload`` is the cloud's id of it, ``stored`` are the blocks it has confirmed, ``finished`` says it was completed.
    ``leaving`` are uploads of earlier attempts that were to be removed, and may not have been.
    """

    path: Path
    attempt: int = 0
    upload: str | None = None
    stored: set[int] = field(default_factory=set)
    finished: bool = False
    leaving: set[str] = field(default_factory=set)
    _failed: bool = field(default=False, repr=False)

    def begin(self, ctx: Context, attempt: int) -> None:
        """Remember that this attempt is about to be sent; on return the disk has it."""
        if attempt != self.attempt:
            self.attempt, self.upload, self.stored, self.finished = attempt, None, set(), False
        self._append(ctx, {"attempt": attempt}, sync=True)

    def opened(self, ctx: Context, upload: str) -> None:
        """The cloud's id of the attempt. Where it is not the one remembered, nothing that was remembered holds."""
        if upload != self.upload:
            self.upload, self.stored, self.finished = upload, set(), False
            self._append(ctx, {"attempt": self.attempt, "upload": upload})

    def store(self, ctx: Context, index: int) -> None:
        self.stored.add(index)
        self._append(ctx, {"attempt": self.attempt, "stored": index})

    def finish(self, ctx: Context) -> None:
        self.finished = True
        self._append(ctx, {"attempt": self.attempt, "finished": True}, sync=True)

    def leave(self, ctx: Context, upload: str) -> None:
        """Give this attempt up: the next one counts from now on, and ``upload`` has to be removed."""
        self.begin(ctx, self.attempt + 1)
        self.leaving.add(upload)
        self._append(ctx, {"attempt": self.attempt, "leaving": upload}, sync=True)

    def left(self, ctx: Context, upload: str) -> None:
        """``upload`` is removed."""
        self.leaving.discard(upload)
        self._append(ctx, {"attempt": self.attempt, "left": upload})

    def _append(self, ctx: Context, entry: dict[str, int | str | bool], *, sync: bool = False) -> None:
        if self._failed:
            return
        try:
            with self.path.open("ab", buffering=0) as file:
                # One write per line: appending keeps the lines of two processes apart.
                file.write(json.dumps(entry).encode() + b"\n")
                if sync:
                    os.fsync(file.fileno())
        except OSError as error:
            self._failed = True
            ctx.report(_unwritable(self.path, error))

    def _read(self, key: UploadKey) -> bool:
        """Take in what the file says. False where it is missing, or not to be believed."""
        try:
            content = self.path.read_bytes()
        except OSError:
            return False
        entries = [entry for line in content.split(b"\n")[:-1] if (entry := _entry(line)) is not None]
        if not entries or entries[0] != _heading(key):
            return False
        for entry in entries[1:]:
            self._take(entry)
        return True

    def _take(self, entry: dict[str, object]) -> None:
        if isinstance(leaving := entry.get("leaving"), str):
            self.leaving.add(leaving)
        if isinstance(left := entry.get("left"), str):
            self.leaving.discard(left)
        attempt = entry.get("attempt")
        if not _is_count(attempt) or attempt < self.attempt:
            return
        if attempt > self.attempt:
            self.attempt, self.upload, self.stored, self.finished = attempt, None, set(), False
        upload, stored = entry.get("upload"), entry.get("stored")
        if isinstance(upload, str) and upload != self.upload:
            self.upload, self.stored, self.finished = upload, set(), False
        if _is_count(stored) and self.upload is not None:
            self.stored.add(stored)
        if entry.get("finished") is True and self.upload is not None:
            self.finished = True


class Journal:
    """All uploads of this user on this machine. ``root`` is the state directory."""

    def __init__(self, root: Path) -> None:
        self._folder = root / "uploads"

    @classmethod
    def of_user(cls) -> Journal:
        """In the user's state directory, or where OSVDEPLOY_STATE says."""
        if chosen := os.environ.get(STATE_VARIABLE):
            return cls(Path(chosen))
        import platformdirs

        return cls(platformdirs.user_state_path("osvdeploy"))

    def upload(self, ctx: Context, key: UploadKey) -> UploadLog:
        """What is known of an upload. Old files of other uploads go away on this occasion."""
        facts = {"name": key.name, "cloud": key.cloud, "account": key.account, "region": key.region}
        path = self._folder / f"{digest_of({**facts, 'digest': key.digest})[:32]}.jsonl"
        log = UploadLog(path)
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._forget_old(ctx, path)
            if log._read(key):
                _end_torn_line(path)
            else:
                _replace(path, json.dumps(_heading(key)).encode() + b"\n")
                log = UploadLog(path)
        except OSError as error:
            log._failed = True
            ctx.report(_unwritable(path, error))
        return log

    def _forget_old(self, ctx: Context, wanted: Path) -> None:
        oldest = ctx.now().timestamp() - KEPT
        for path in self._folder.iterdir():
            try:
                if path != wanted and path.stat().st_mtime < oldest:
                    path.unlink()
            except OSError:
                continue  # another process was quicker


def _heading(key: UploadKey) -> dict[str, object]:
    return {
        "journal": VERSION,
        "name": key.name,
        "digest": key.digest,
        "cloud": key.cloud,
        "account": key.account,
        "region": key.region,
    }


def _entry(line: bytes) -> dict[str, object] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _end_torn_line(path: Path) -> None:
    """Give a last line that was cut off its end, so that the next one is not glued to it."""
    with path.open("rb+") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")


def _replace(path: Path, content: bytes) -> None:
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_bytes(content)
    fresh.replace(path)


def _unwritable(path: Path, error: OSError) -> Warned:
    return Warned(
        f"{path}: cannot keep a journal: {error.strerror or error}",
        hint=f"an interrupted upload starts again at block 0; {STATE_VARIABLE} can name a directory to write to",
    )
