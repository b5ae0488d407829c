"""What was read of files, remembered by what stat(2) says of them, so that an unchanged file is not read again.

As in git's index, a file that was changed just before it was read is not remembered: it could change once more within
one tick of the file system's clock, and look the same. A memory is a hint: what cannot be read, or does not match its
own checksum, is an empty one. It holds what the last run used, so files that are gone are forgotten.
"""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

from osvdeploy.build.files import replace_file
from osvdeploy.build.uses import touch
from osvdeploy.context import Context
from osvdeploy.osv.filetree import HostFile, Stamp

TICK = 2_000_000_000
"""Nanoseconds within which two changes may leave one timestamp: FAT counts in 2 s, everything else is finer."""

Known = TypeVar("Known")


class Stamped(ABC, Generic[Known]):
    """What is known of files, by path. ``file`` None remembers nothing beyond this process.

    A kind of memory says how what it knows is written as JSON, and raises ``VERSION`` when that, or how it reads files,
    is another than before.
    """

    VERSION: ClassVar[int]

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self._known: dict[bytes, tuple[Stamp, Known]] = {}
        self._used: dict[bytes, tuple[Stamp, Known]] = {}
        self._new = False

    @staticmethod
    @abstractmethod
    def _row(known: Known) -> Sequence[object]:
        """What is known of a file, as JSON."""

    @staticmethod
    @abstractmethod
    def _of_row(row: list[Any]) -> Known:
        """Back. May raise ValueError, KeyError, TypeError, IndexError and AttributeError for what is no such row."""

    @classmethod
    def load(cls, file: Path) -> Self:
        """Never fails: at worst it knows nothing."""
        memory = cls(file)
        try:
            document = json.loads(unsealed(file.read_bytes()))
            if document["version"] == cls.VERSION:
                of_row = cls._of_row
                memory._known = {
                    os.fsencode(path): (Stamp(*row[:5]), of_row(row[5:])) for path, row in document["files"].items()
                }
                touch(file)
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
            pass
        return memory

    def recall(self, file: HostFile) -> tuple[Stamp, Known] | None:
        """What is known of a file that is as it was; None where it is to be read. ``[1]`` is what is known."""
        row = self._used.get(file.path) or self._known.get(file.path)
        if row is None or row[0] != file.stamp:
            return None
        self._used[file.path] = row
        return row

    def learn(self, file: HostFile, known: Known, *, began: int) -> None:
        """Remember what was read of a file, unless it was changed too shortly before: reading ``began`` then (see
        :func:`now`)."""
        if max(file.stamp.modified, file.stamp.changed) + TICK < began:
            self._used[file.path] = (file.stamp, known)
            self._new = True

    def recall_or_read(self, ctx: Context, file: HostFile, read: Callable[[HostFile], Known]) -> Known:
        """What is known of a file, or what ``read`` makes of it, which is remembered."""
        if (row := self.recall(file)) is not None:
            return row[1]
        ctx.check()
        began = now(ctx)
        known = read(file)
        self.learn(file, known, began=began)
        return known

    def save(self, ctx: Context) -> None:
        """Keep what this run used, and nothing else. A memory that cannot be written is no error."""
        # What was used is either new or was known, so as many of them are the same ones.
        if self.file is None or not (self._new or len(self._used) != len(self._known)):
            return
        row = self._row
        files = {os.fsdecode(path): [*stamp, *row(known)] for path, (stamp, known) in self._used.items()}
        body = json.dumps({"version": self.VERSION, "files": files}, separators=(",", ":")).encode()
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            # Not synced: the checksum tells a torn one.
            replace_file(self.file, sealed(body), nonce=ctx.nonce(), durable=False)
        except OSError:
            pass


def now(ctx: Context) -> int:
    """The time as files are stamped, in nanoseconds."""
    return int(ctx.now().timestamp() * 1e9)


def sealed(body: bytes) -> bytes:
    """A checksum, and on the next line what it is of."""
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def unsealed(content: bytes) -> bytes:
    """What :func:`sealed` was given. Raises ValueError where the checksum is another."""
    checksum, _, body = content.partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != checksum:
        raise ValueError("its checksum is another")
    return body
