"""The ways in that there are on Google: a URL map, which has weights, and a forwarding rule, which is a pointer.

Which one a route has is told by its listener.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from osvdeploy.cloud.gcp.backends import Backends
from osvdeploy.cloud.gcp.pointer import PointerRouter
from osvdeploy.cloud.gcp.router import UrlMapRouter
from osvdeploy.cloud.gcp.scope import forwarding_rule_of
from osvdeploy.cloud.gcp.session import Gcp
from osvdeploy.cloud.interfaces import Route, RouteState, Slot, TargetHealth
from osvdeploy.context import Context
from osvdeploy.errors import Refused


class GceRouter:
    """:class:`~osvdeploy.cloud.interfaces.TrafficRouter` and :class:`~osvdeploy.cloud.interfaces.Fence` of any route on
    Google."""

    def __init__(self, gcp: Gcp, backends: Backends | None = None) -> None:
        backends = backends or Backends(gcp)
        self._url_maps = UrlMapRouter(gcp, backends)
        self._pointers = PointerRouter(gcp, backends)

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

    def weights_of(self, ctx: Context, routes: Sequence[Route]) -> Mapping[str, Mapping[Slot, int] | None]:
        ways: dict[UrlMapRouter | PointerRouter, list[Route]] = {}
        for route in routes:
            ways.setdefault(self._of(route), []).append(route)
        return {key: found for way, its in ways.items() for key, found in way.weights_of(ctx, its).items()}

    def slow_start(self, ctx: Context, route: Route, slot: Slot) -> float | None:
        return None

    def set_slow_start(self, ctx: Context, route: Route) -> None:
        if route.slow_start:
            raise Refused(
                f"{route.service}: Google's balancers have no slow start",
                hint="leave it out, and let traffic rise by the strategy's steps",
            )

    def remove(self, ctx: Context, route: Route) -> None:
        self._of(route).remove(ctx, route)
