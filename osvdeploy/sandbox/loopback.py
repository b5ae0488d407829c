"""Addresses of this host's loopback network, for machines and balancers."""

from __future__ import annotations

import hashlib
from collections.abc import Container


def own_address(name: str, taken: Container[str]) -> str:
    """An address for a machine that no other one has. It follows from the machine's id, so that two sandboxes on one
    host hardly ever choose the same."""
    count = 0
    while True:
        digest = hashlib.sha256(f"{name} {count}".encode()).digest()
        address = f"127.{10 + digest[0] % 90}.{digest[1]}.{1 + digest[2] % 254}"
        if address not in taken:
            return address
        count += 1
