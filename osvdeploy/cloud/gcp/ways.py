"""The ways in that there are on Google: a URL map, which has weights, and a forwarding rule, which is a pointer.

Which one a route has is told by its listener.
"""

from __future__ import annotations

from collections.abc import Mapping

from osvdeploy.cloud.gcp.pointer import PointerRouter
from osvdeploy.cloud.gcp.router import UrlMapRouter
from osvdeploy.cloud.gcp.scope import forwarding_rule_of
from osvdeploy.cloud.gcp.session import Gcp
from osvdeploy.cloud.interfaces import Route, RouteState, Slot, TargetHealth
from osvdeploy.context import Context


class GceRouter:
    """:class:`~osvdeploy.cloud.interfaces.TrafficRouter` and :class:`~osvdeploy.cloud.interfaces.Fence` of any route on
    Google."""

    def __init__(self, gcp: Gcp) -> None:
        self.url_maps = UrlMapRouter(gcp)
        self.pointers = PointerRouter(gcp)

    def _of(self, route: Route) -> UrlMapRouter | PointerRouter:
        return self.url_maps if forwarding_rule_of(route.listener) is None else self.pointers

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

    def remove(self, ctx: Context, route: Route) -> None:
        self._of(route).remove(ctx, route)
