"""Remembers the digests of files by what stat(2) says of them, so that an unchanged file is not read again.

As in git's index, a file that was changed just before it was read is not remembered: it could change once more within
one tick of the file system's clock, and look the same. The cache is a hint: what cannot be read, or does not match
its own checksum, is an empty cache.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from osvdeploy.build.files import replace_file
from osvdeploy.context import Context
from osvdeploy.digests import Digest
from osvdeploy.osv.filetree import Content, HostFile, Stamp
from osvdeploy.osv.rofs import Fingerprint, fingerprints

TICK = 2_000_000_000
"""Nanoseconds within which two changes may leave one timestamp: FAT counts in 2 s, everything else is finer."""

_VERSION = 2


@dataclass(slots=True)
class StatCache:
    """Digests and sketches by path. ``file`` None remembers nothing beyond this process."""

    file: Path | None = None
    _known: dict[bytes, tuple[Stamp, Fingerprint]] = field(default_factory=dict)
    _used: dict[bytes, tuple[Stamp, Fingerprint]] = field(default_factory=dict)

    @classmethod
    def load(cls, file: Path) -> StatCache:
        """Never fails: at worst it knows nothing."""
        return cls(file, _parse(file))

    def digest(self, ctx: Context, file: HostFile) -> Digest:
        """sha256 of a file as it was when it was found. Raises SourceChanged when it is not so any more."""
        return self.fingerprints(ctx, [file])[0].sha256

    def fingerprints(self, ctx: Context, files: Sequence[HostFile | Content]) -> list[Fingerprint]:
        """One for each of these, in order. What is not known is read. Raises SourceChanged."""
        known, used = self._known, self._used
        found: list[Fingerprint | None] = []
        unknown: list[HostFile | Content] = []
        for file in files:
            row = used.get(file.path) or known.get(file.path) if isinstance(file, HostFile) else None
            if row is not None and isinstance(file, HostFile) and row[0] == file.stamp:
                used[file.path] = row
                found.append(row[1])
            else:
                found.append(None)
                unknown.append(file)
        if not unknown:
            return [each for each in found if each is not None]
        ctx.check()
        before = int(ctx.now().timestamp() * 1e9)
        read = fingerprints(unknown, ctx.check)
        for file, answer in zip(unknown, read, strict=True):
            if isinstance(file, HostFile) and max(file.stamp.modified, file.stamp.changed) + TICK < before:
                used[file.path] = (file.stamp, answer)
        following = iter(read)
        return [next(following) if each is None else each for each in found]

    def save(self, ctx: Context) -> None:
        """Keep what this run used, and nothing else. A cache that cannot be written is no error."""
        if self.file is None or self._used == self._known:
            return
        files = {os.fsdecode(path): [*stamp, *known] for path, (stamp, known) in self._used.items()}
        body = json.dumps({"version": _VERSION, "files": files}, separators=(",", ":")).encode()
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            # Not synced: the checksum tells a torn one.
            replace_file(self.file, _checksum(body) + b"\n" + body, nonce=ctx.nonce(), durable=False)
        except OSError:
            pass


def _parse(file: Path) -> dict[bytes, tuple[Stamp, Fingerprint]]:
    try:
        checksum, _, body = file.read_bytes().partition(b"\n")
        if checksum != _checksum(body):
            return {}
        document = json.loads(body)
        if document["version"] != _VERSION:
            return {}
        return {os.fsencode(path): (Stamp(*row[:5]), Fingerprint(*row[5:])) for path, row in document["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return {}


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()
