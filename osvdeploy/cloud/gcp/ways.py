"""The ways in that there are on Google: a URL map, which has weights, and a forwarding rule, which is a pointer.

Which one a route has is told by its listener.
"""

from __future__ import annotations

from collections.abc import Mapping

from osvdeploy.cloud.gcp.pointer import PointerRouter
from osvdeploy.cloud.gcp.router import UrlMapRouter
from osvdeploy.cloud.gcp.scope import area_of, forwarding_rule_of
from osvdeploy.cloud.gcp.session import Gcp
from osvdeploy.cloud.interfaces import ReleaseId, Route, RouteState, Slot, TargetHealth
from osvdeploy.context import Context


class GceRouter:
    """:class:`~osvdeploy.cloud.interfaces.TrafficRouter` and :class:`~osvdeploy.cloud.interfaces.Fence` of any route on
    Google."""

    def __init__(self, gcp: Gcp, place: str) -> None:
        """``place`` is the zone or region of the machines: only ways in of its region, and global ones, lead there."""
        region = area_of(place).rpartition("/")[2]
        region = region.rpartition("-")[0] if area_of(place).startswith("zones/") else region
        self._scopes = (f"projects/{gcp.project}/global", f"projects/{gcp.project}/regions/{region}")
        self._url_maps = UrlMapRouter(gcp)
        self._pointers = PointerRouter(gcp)

    def _of(self, route: Route) -> UrlMapRouter | PointerRouter:
        return self._url_maps if forwarding_rule_of(route.listener) is None else self._pointers

    def hold(self, route: Route, epoch: int) -> None:
        self._of(route).hold(route, epoch)

    def take_over(self, ctx: Context, route: Route, epoch: int) -> None:
        self._of(route).take_over(ctx, route, epoch)

    def observe(self, ctx: Context, route: Route) -> RouteState:
        return self._of(route).observe(ctx, route)

    def ensure_slots(self, ctx: Context, route: Route) -> None:
        self._of(route).ensure_slots(ctx, route)

    def health(self, ctx: Context, route: Route, slot: Slot) -> tuple[TargetHealth, ...]:
        return self._of(route).health(ctx, route, slot)

    def set_weights(self, ctx: Context, route: Route, weights: Mapping[Slot, int]) -> None:
        self._of(route).set_weights(ctx, route, weights)

    def find(self, ctx: Context, service: str, key: str) -> list[Route]:
        return [
            *self._url_maps.find(ctx, service, key, self._scopes),
            *self._pointers.find(ctx, service, key, self._scopes),
        ]

    def note_left(self, ctx: Context, route: Route, left: ReleaseId | None) -> None:
        self._of(route).note_left(ctx, route, left)

    def remove(self, ctx: Context, route: Route) -> None:
        self._of(route).remove(ctx, route)
