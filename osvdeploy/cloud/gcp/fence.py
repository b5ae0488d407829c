"""Under which lease's epoch a process changes a route, whichever way in it has."""

from __future__ import annotations

from collections.abc import Iterable

from osvdeploy.cloud.gcp.marks import marks_of
from osvdeploy.cloud.gcp.session import Document
from osvdeploy.cloud.interfaces import Route
from osvdeploy.cloud.tags import LEDGER
from osvdeploy.errors import Outranked


class Epochs:
    """Those that this process holds, by service."""

    def __init__(self) -> None:
        self._held: dict[str, int] = {}

    def hold(self, route: Route, epoch: int) -> None:
        self._held[route.service] = epoch

    def of(self, route: Route, there: int, marked: Iterable[Document]) -> int:
        """The epoch to write under: ours, or without one what is ``there``. ``marked`` are the service's backend
        services, which tell the ledger.

        Raises :class:`~osvdeploy.errors.Outranked` where that is a later one: its holder was at work here.
        """
        ours = self._held.get(route.service, there)
        if ours < there:
            ledgers = {marks_of(each).get(LEDGER) for each in marked}
            raise Outranked(
                f"{route.service}: another process took the lease over, and has changed {route.listener} since",
                epoch=there,
                ledger=ledgers.pop() if len(ledgers) == 1 else None,
                hint="see `osvdeploy status`; what was begun is in the ledger and the new holder goes on with it",
            )
        return ours
