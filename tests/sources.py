"""Sources of large objects, made anew as often as asked."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from osvdeploy.digests import Digest, sha256
from osvdeploy.errors import Interrupted


@dataclass
class Made:
    """:class:`~osvdeploy.cloud.interfaces.ObjectSource`: ``size`` bytes that nothing compresses, told by ``name``."""

    name: str
    length: int
    piece: int = 100_000
    known: bool = True
    before: Callable[[int], None] = lambda at: None
    """Called before the piece at that offset is made: it may raise."""

    @property
    def digest(self) -> Digest:
        return sha256(f"{self.name} {self.length}".encode())

    @property
    def size(self) -> int | None:
        return self.length if self.known else None

    def pieces(self) -> Iterator[bytes]:
        content = self.content
        for at in range(0, self.length, self.piece):
            self.before(at)
            yield content[at : at + self.piece]

    @property
    def content(self) -> bytes:
        return _content(self.name, self.length)


@functools.lru_cache(maxsize=8)
def _content(name: str, length: int) -> bytes:
    return hashlib.shake_128(name.encode()).digest(length)


def stopping(offset: int) -> Callable[[int], None]:
    """What interrupts whoever reads a source, from that offset on."""

    def stop(at: int) -> None:
        if at >= offset:
            raise Interrupted("killed")

    return stop
