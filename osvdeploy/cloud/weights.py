"""What weights a route may have, wherever it is."""

from __future__ import annotations

from collections.abc import Mapping

from osvdeploy.cloud.interfaces import Route, Slot
from osvdeploy.errors import Refused


def require(route: Route, weights: Mapping[Slot, int]) -> None:
    """Raise :class:`~osvdeploy.errors.Refused` unless there is one of 0 to 100 for each slot."""
    if set(weights) != set(Slot) or any(not 0 <= weight <= 100 for weight in weights.values()):
        raise Refused(
            f"{route.service}: weights are 0 to 100, one for each slot, not "
            + ", ".join(f"{slot} {weight}" for slot, weight in weights.items())
        )
