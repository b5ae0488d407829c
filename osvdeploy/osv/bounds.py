"""How much a reader of a stranger's bytes lets them ask for.

A few bytes may speak of many: a hole, a compressed cluster, a kernel that is packed twice. What is read whole into
memory is therefore held to what the file really has of it. The worst that is known of a file of 2 MB then costs 250 MB
and 2 s (tests/osv/test_hostile.py); the largest has 2 million files in tables of 256 MiB, whatever its size.
"""

from __future__ import annotations

from osvdeploy.sizes import MIB

EXPANSION = 16
"""How many times its stored bytes something may be that is read whole. Tables of ROFS, which compress best, were
measured at 5 to 17 with zlib and zstd; a kernel is compressed already, at 2."""

ALWAYS = 4 * MIB
"""Bytes that are read whatever they are stored in: tables of 50,000 files, or the whole of a usual kernel."""


def reading_limit(held: int) -> int:
    """The most bytes that are read whole of what takes ``held`` bytes of a file."""
    return max(ALWAYS, EXPANSION * held)
