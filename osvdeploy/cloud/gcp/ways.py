"""The ways in that there are on Google: a URL map, which has weights, and a forwarding rule, which is a pointer.

Which one a route has is told by its listener.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from osvdeploy.cloud.gcp.backends import Backends
from osvdeploy.cloud.gcp.pointer import PointerRouter
from osvdeploy.cloud.gcp.router import UrlMapRouter
from osvdeploy.cloud.gcp.scope import area_of, forwarding_rule_of, scopes_of
from osvdeploy.cloud.gcp.session import Gcp
from osvdeploy.cloud.interfaces import HealthRule, ReleaseId, Route, RouteState, Slot, TargetHealth
from osvdeploy.context import Context
from osvdeploy.errors import Refused, UsageError


class GceRouter:
    """:class:`~osvdeploy.cloud.interfaces.TrafficRouter` and :class:`~osvdeploy.cloud.interfaces.Fence` of any route on
    Google."""

    def __init__(self, gcp: Gcp, place: str, backends: Backends | None = None) -> None:
        """``place`` is the zone or region of the machines: only ways in of its region, and global ones, lead there."""
        backends = backends or Backends(gcp)
        self._scopes = scopes_of(gcp.project, place)
        self._area = f"projects/{gcp.project}/{area_of(place)}"
        self.url_maps = UrlMapRouter(gcp, backends)
        self.pointers = PointerRouter(gcp, backends)

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

    def find(self, ctx: Context, service: str, key: str) -> list[Route]:
        return [
            *self.url_maps.find(ctx, service, key, self._scopes),
            *self.pointers.find(ctx, service, key, self._scopes),
        ]

    def forget(self) -> None:
        self.url_maps.forget()
        self.pointers.forget()

    def note_left(self, ctx: Context, route: Route, left: ReleaseId | None) -> None:
        self._of(route).note_left(ctx, route, left)

    def in_use(self, ctx: Context, route: Route) -> str:
        # A forwarding rule that leads to machines is refused by every look at it.
        return "" if forwarding_rule_of(route.listener) is not None else self.url_maps.in_use(ctx, route)

    def weights_of(self, ctx: Context, routes: Sequence[Route]) -> Mapping[str, Mapping[Slot, int] | None]:
        ways: dict[UrlMapRouter | PointerRouter, list[Route]] = {}
        for route in routes:
            ways.setdefault(self._of(route), []).append(route)
        return {key: found for way, its in ways.items() for key, found in way.weights_of(ctx, its).items()}

    def slow_start(self, ctx: Context, route: Route, slot: Slot) -> float | None:
        return None

    def check_of(self, ctx: Context, route: Route, slot: Slot) -> HealthRule | None:
        return self._of(route).check_of(ctx, route, slot)

    def set_slow_start(self, ctx: Context, route: Route) -> None:
        if route.slow_start:
            raise Refused(
                f"{route.service}: Google's balancers have no slow start",
                hint="leave it out, and let traffic rise by the strategy's steps",
            )

    def refuse_unadoptable(self, ctx: Context, route: Route, group: str) -> str:
        if forwarding_rule_of(route.listener) is not None:
            raise UsageError(
                f"forwarding rule {route.listener}: leads to one thing at a time, so what is behind it cannot be in a "
                "slot, too, while it has the traffic",
                hint="deploy beside it, and let the first switch take the traffic: the label that says so is told by "
                "`osvdeploy deploy`. Behind a URL map a group can be adopted",
            )
        return self.url_maps.refuse_unadoptable(ctx, route, self._area, group)

    def give_back(self, ctx: Context, route: Route) -> None:
        self._of(route).give_back(ctx, route)

    def remove(self, ctx: Context, route: Route) -> None:
        self._of(route).remove(ctx, route)
