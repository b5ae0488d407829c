"""Disks that are kept in blocks, read as one."""

from __future__ import annotations

import functools
from collections.abc import Callable

from osvdeploy.sandbox.runners import DiskReader


def reader(block: Callable[[int], bytes], block_size: int, size: int) -> DiskReader:
    """Reads a disk of ``size`` bytes whose block of each index ``block`` gives, whole; from any thread."""
    kept = functools.lru_cache(maxsize=8)(block)

    def read(offset: int, length: int) -> bytes:
        end = min(offset + length, size)
        parts = []
        while offset < end:
            index, begin = divmod(offset, block_size)
            part = kept(index)[begin : begin + end - offset]
            parts.append(part)
            offset += len(part)
        return b"".join(parts)

    return read
