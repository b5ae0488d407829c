"""What placing needs to know of a content: its digest, and a sketch that most changes of a large file leave alone."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import NamedTuple

from osvdeploy.digests import Digest
from osvdeploy.osv.contents import read_files
from osvdeploy.osv.filetree import Content, HostFile
from osvdeploy.sizes import KIB, MIB

LARGE = 1 * MIB
"""Bytes from which on a file has a group, and so a place, by itself. Its last block it shares with small ones."""

_PIECE = 64 * KIB


class Fingerprint(NamedTuple):
    """``sha256`` of a content and, where it is large, its ``sketch``: the lowest of the checksums of its 64 KiB pieces,
    else 0. Two contents of which most pieces agree have most often one sketch, which is where they want to stand;
    nothing else depends on it."""

    sha256: Digest
    sketch: int = 0

    @property
    def key(self) -> int:
        """What the content's place is drawn from."""
        return self.sketch or int(self.sha256[:16], 16)


def fingerprint(content: bytes) -> Fingerprint:
    """Of a content in memory."""
    hasher = _Hasher()
    hasher.update(content)
    return hasher.fingerprint()


def fingerprints(
    files: Sequence[HostFile | Content], going_on: Callable[[], object] | None = None
) -> list[Fingerprint]:
    """One for each file, in order. ``going_on`` is called about once per MiB, and may raise. Raises SourceChanged."""
    found: list[Fingerprint] = []
    hasher, taken = _Hasher(), 0
    with closing(read_files(files)) as buffers:
        for view, pieces in buffers:
            if going_on is not None:
                going_on()
            for index, start, end in pieces:
                if index > len(found):  # empty ones need not be among the pieces
                    found += [_EMPTY] * (index - len(found))
                size = files[index].size
                if end - start == size < LARGE:
                    # Most files: in one piece. This path decides what 50,000 files take.
                    found.append(Fingerprint(Digest(hashlib.sha256(view[start:end]).hexdigest())))
                    continue
                hasher.update(view[start:end])
                taken += end - start
                if taken == size:
                    found.append(hasher.fingerprint())
                    hasher, taken = _Hasher(), 0
    return found + [_EMPTY] * (len(files) - len(found))


class _Hasher:
    """Digest and sketch of a content that is read piece by piece."""

    def __init__(self) -> None:
        self._digest, self._size = hashlib.sha256(), 0
        self._checksum, self._left, self._lowest = 0, _PIECE, 1 << 32

    def update(self, content: bytes | memoryview) -> None:
        self._digest.update(content)
        view = memoryview(content)
        self._size += len(view)
        while view:
            part = view[: self._left]
            self._checksum = zlib.crc32(part, self._checksum)
            self._left -= len(part)
            view = view[len(part) :]
            if not self._left:
                self._end()

    def fingerprint(self) -> Fingerprint:
        if self._left < _PIECE:
            self._end()
        return Fingerprint(Digest(self._digest.hexdigest()), self._lowest if self._size >= LARGE else 0)

    def _end(self) -> None:
        # Counted from behind the checksum of zeros: a piece of zeros, which many files have, is the last to be lowest.
        # From 1, as 0 says that there is none.
        self._lowest = min(self._lowest, 1 + ((self._checksum - _ZEROS - 1) & 0xFFFF_FFFF))
        self._checksum, self._left = 0, _PIECE


_ZEROS = zlib.crc32(bytes(_PIECE))
_EMPTY = fingerprint(b"")
