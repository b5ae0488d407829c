"""Remembers the digests of files by what stat(2) says of them, so that an unchanged file is not read again.

As in git's index, a file that was changed just before it was read is not remembered: it could change once more within
one tick of the file system's clock, and look the same. The cache is a hint: what cannot be read, or does not match
its own checksum, is an empty cache.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from osvdeploy.build.files import replace_file
from osvdeploy.context import Context
from osvdeploy.digests import Digest
from osvdeploy.errors import SourceChanged
from osvdeploy.osv.filetree import HostFile, Stamp, show, stamp_of

TICK = 2_000_000_000
"""Nanoseconds within which two changes may leave one timestamp: FAT counts in 2 s, everything else is finer."""

_VERSION = 1
_READ_SIZE = 1 << 20


@dataclass(slots=True)
class StatCache:
    """Digests by path. ``file`` None remembers nothing beyond this process."""

    file: Path | None = None
    _known: dict[bytes, tuple[Stamp, Digest]] = field(default_factory=dict)
    _used: dict[bytes, tuple[Stamp, Digest]] = field(default_factory=dict)

    @classmethod
    def load(cls, file: Path) -> StatCache:
        """Never fails: at worst it knows nothing."""
        return cls(file, _parse(file))

    def digest(self, ctx: Context, file: HostFile) -> Digest:
        """sha256 of a file as it was when it was found. Raises SourceChanged when it is not so any more."""
        known = self._used.get(file.path) or self._known.get(file.path)
        if known is not None and known[0] == file.stamp:
            self._used[file.path] = known
            return known[1]
        ctx.check()
        before = int(ctx.now().timestamp() * 1e9)
        digest = _read(file)
        if max(file.stamp.modified, file.stamp.changed) + TICK < before:
            self._used[file.path] = (file.stamp, digest)
        return digest

    def save(self, ctx: Context) -> None:
        """Keep what this run used, and nothing else. A cache that cannot be written is no error."""
        if self.file is None or self._used == self._known:
            return
        files = {os.fsdecode(path): [*stamp, digest] for path, (stamp, digest) in self._used.items()}
        body = json.dumps({"version": _VERSION, "files": files}, separators=(",", ":")).encode()
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            # Not synced: the checksum tells a torn one.
            replace_file(self.file, _checksum(body) + b"\n" + body, nonce=ctx.nonce(), durable=False)
        except OSError:
            pass


def _read(file: HostFile) -> Digest:
    digest = hashlib.sha256()
    try:
        fd = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as error:
        raise SourceChanged(
            f"{show(file.path)}: cannot be read: {error.strerror}",
            hint="every file of the image must be readable, and none may go while it is built",
        ) from None
    try:
        left = file.size
        while left and (piece := os.read(fd, min(left, _READ_SIZE))):
            digest.update(piece)
            left -= len(piece)
        if left or stamp_of(os.fstat(fd)) != file.stamp:
            raise SourceChanged(
                f"{show(file.path)}: changed while it was read",
                hint="let nothing write to the sources while they are built",
            )
    except OSError as error:
        raise SourceChanged(f"{show(file.path)}: cannot be read: {error.strerror}") from None
    finally:
        os.close(fd)
    return Digest(digest.hexdigest())


def _parse(file: Path) -> dict[bytes, tuple[Stamp, Digest]]:
    try:
        checksum, _, body = file.read_bytes().partition(b"\n")
        if checksum != _checksum(body):
            return {}
        document = json.loads(body)
        if document["version"] != _VERSION:
            return {}
        return {os.fsencode(path): (Stamp(*row[:5]), Digest(row[5])) for path, row in document["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return {}


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()
