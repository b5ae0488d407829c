"""Disks in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from osvdeploy.osv.image import Extent


@dataclass(frozen=True)
class Volume:
    """A disk that is no file: its bytes, and ``size`` where a hole follows them. ``asked`` has each read."""

    content: bytes
    length: int | None = None
    asked: list[tuple[int, int]] = field(default_factory=list, compare=False)

    @property
    def size(self) -> int:
        return len(self.content) if self.length is None else self.length

    def pread(self, offset: int, length: int) -> bytes:
        self.asked.append((offset, length))
        found = self.content[offset : offset + length]
        return found.ljust(max(0, min(length, self.size - offset)), b"\0")

    def data(self, start: int, end: int) -> Iterator[Extent]:
        end = min(end, len(self.content))
        if start < end:
            yield Extent(start, end)

    def held(self, start: int, end: int) -> int:
        return sum(each.end - each.start for each in self.data(start, end))
