"""Connections that look once more before they carry anything: how long it takes to have one has no limit of its own.

A resolver takes what it takes, and urllib3 gives each of a name's addresses the whole of its connect timeout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def looking_when_connected(pools: Mapping[str, Any], look: Callable[[], None]) -> dict[str, Any]:
    """urllib3's ``pool_classes_by_scheme``, with connections that call ``look`` when they are made (TLS, and the tunnel
    of a proxy, included) and nothing was sent yet. What it raises ends the request and closes the connection."""
    return {scheme: _pool_class(pool, look) for scheme, pool in pools.items()}


def _pool_class(pool: Any, look: Callable[[], None]) -> Any:
    kind = pool.ConnectionCls

    def connect(self: Any) -> None:
        kind.connect(self)
        try:
            look()
        except BaseException:
            self.close()
            raise

    return type(pool.__name__, (pool,), {"ConnectionCls": type(kind.__name__, (kind,), {"connect": connect})})
