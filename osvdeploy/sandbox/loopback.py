"""Addresses of this host's loopback network, for machines and balancers."""

from __future__ import annotations

import errno
import hashlib
import socket
from collections.abc import Container

CLAIMED = 47631
"""The UDP port by which a sandbox has a net of addresses for itself. Nothing is ever sent to it."""


class Claim:
    """One net of addresses (those that begin with ``127.0.7``, say) that no other sandbox of this host opens, until
    :meth:`close`. Where a host has no such addresses, nobody is kept from them."""

    def __init__(self) -> None:
        self._net = ""
        self._held: socket.socket | None = None

    def take(self, net: str) -> bool:
        """Whether it is ours now; in place of the one that was before."""
        if net == self._net:
            return True
        self.close()
        held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            held.bind((f"{net}.255", CLAIMED))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                held.close()
                return False
        self._net, self._held = net, held
        return True

    def close(self) -> None:
        if self._held is not None:
            self._held.close()
        self._net, self._held = "", None


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
