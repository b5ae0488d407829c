"""Under which lease's epoch a process changes a route, whichever way in it has."""

from __future__ import annotations

from osvdeploy.cloud.interfaces import Route
from osvdeploy.errors import LeaseLost


class Epochs:
    """Those that this process holds, by service."""

    def __init__(self) -> None:
        self._held: dict[str, int] = {}

    def hold(self, route: Route, epoch: int) -> None:
        self._held[route.service] = epoch

    def of(self, route: Route, there: int) -> int:
        """The epoch to write under: ours, or without one what is ``there``.

        Raises :class:`~osvdeploy.errors.LeaseLost` where that is a later one: its holder was at work here.
        """
        ours = self._held.get(route.service, there)
        if ours < there:
            raise LeaseLost(
                f"{route.service}: another process took the lease over, and has changed {route.listener} since",
                hint="see `osvdeploy status`; what was begun is in the ledger and the new holder goes on with it",
            )
        return ours
