"""Traffic on Google: route rules of a URL map, and two backend services behind them.

The switch is one patch of the URL map, which carries the fingerprint that was read: whoever was overtaken is refused
(412) and looks again. The balancer names the release of the slot that it asked in each answer, so that a switch is
proved whatever the program says.

A URL map is led to by forwarding rules, which are looked for: they tell the address, the port, and the balancer's kind.
The classic kind (EXTERNAL) has no weights and changes no headers.

Sources: Compute Engine API reference (urlMaps, backendServices.getHealth, forwardingRules, targetHttpProxies); load
balancing guide, "Traffic management overview" of each application load balancer.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from osvdeploy.cloud.gcp import adopting, urlmap
from osvdeploy.cloud.gcp.backends import SCHEMES, Backend, Backends, backend_name, write
from osvdeploy.cloud.gcp.fence import Epochs
from osvdeploy.cloud.gcp.scope import address_of, base_url, last, link_of, port_of, url_map_of
from osvdeploy.cloud.gcp.session import Document, Gcp
from osvdeploy.cloud.interfaces import HealthRule, ReleaseId, Route, RouteState, Slot, TargetHealth
from osvdeploy.cloud.parallel import in_flight
from osvdeploy.cloud.weights import require
from osvdeploy.context import Context
from osvdeploy.errors import NotFound, NotOurs, UsageError

URL_MAPS_AT_ONCE = 8
"""URL maps that are read at once, where many are."""

_PROXIES = {"http": "targetHttpProxies", "https": "targetHttpsProxies"}
"""By scheme. A URL map that both lead to answers the same on both, and needs no certificate on the first."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """What leads to a URL map: where clients enter, and the kind of the balancer."""

    scheme: str
    addresses: tuple[str, ...]
    port: int
    kind: str


@dataclass(frozen=True, slots=True)
class _Standing:
    """What of a route is there, all of it ours. A slot is in ``wired`` when its preview rule sends to its backend
    service and names the release that stands there."""

    found: Document
    rules: Mapping[Slot | None, Document]
    backends: Mapping[Slot, Backend]
    wired: Mapping[Slot, Backend]


class UrlMapRouter:
    """:class:`~osvdeploy.cloud.interfaces.TrafficRouter` of an application load balancer, and its
    :class:`~osvdeploy.cloud.interfaces.Fence`: the epoch stands in the descriptions of the route's rules, and not in
    the URL map's own, which is the user's and of several services."""

    def __init__(self, gcp: Gcp, backends: Backends | None = None) -> None:
        self._gcp = gcp
        self._backends = backends or Backends(gcp)
        self._entries: dict[str, _Entry] = {}
        self._epochs = Epochs()

    def hold(self, route: Route, epoch: int) -> None:
        self._epochs.hold(route, epoch)

    def take_over(self, ctx: Context, route: Route, epoch: int) -> None:
        self.hold(route, epoch)
        try:
            standing = self._standing(ctx, route)
        except NotFound:
            return  # nothing is there that anybody could change
        if self._epoch(route, standing) > urlmap.epoch_of(standing.rules) and standing.rules:
            rules = {place: urlmap.under(rule, epoch) for place, rule in standing.rules.items()}
            self._write(ctx, route, standing, urlmap.with_rules(standing.found, route, rules))

    def observe(self, ctx: Context, route: Route) -> RouteState:
        entry = self._entry(ctx, route)
        standing = self._standing(ctx, route, lately=True)
        rule = standing.rules.get(None)
        names = {"route" if place is None else f"preview-{place}": each for place, each in standing.rules.items()}
        return RouteState(
            backends={slot: backend.link for slot, backend in standing.wired.items()},
            weights=None if rule is None else _weights(rule, route),
            base_url=base_url(entry.scheme, entry.addresses[0], entry.port),
            addresses=entry.addresses,
            rules={name: urlmap.rule_name(standing.found, route, each) for name, each in names.items()},
            left=urlmap.left_of(rule),
            # One address, behind which there are many front ends.
            partial=True,
            changed="" if rule is None else urlmap.changed(rule, route, [backend_name(route, slot) for slot in Slot]),
        )

    def ensure_slots(self, ctx: Context, route: Route) -> None:
        entry = self._entry(ctx, route)
        standing = self._standing(ctx, route)
        missing = [slot for slot in Slot if slot not in standing.wired]
        if not missing:
            return
        scope, _ = url_map_of(route.listener)
        backends = {slot: self._backends.ensure(ctx, route, scope, slot, entry.kind) for slot in missing}
        epoch = self._epoch(route, standing)
        rules: dict[Slot | None, Document] = {
            slot: urlmap.rule_of(route, slot, [(self._address(backend), 100, backend.release)], epoch)
            for slot, backend in backends.items()
        }
        self._write(ctx, route, standing, urlmap.with_rules(standing.found, route, rules))

    def health(self, ctx: Context, route: Route, slot: Slot) -> tuple[TargetHealth, ...]:
        scope, _ = url_map_of(route.listener)
        return self._backends.health(ctx, route, scope, slot)

    def set_weights(self, ctx: Context, route: Route, weights: Mapping[Slot, int]) -> None:
        require(route, weights)
        standing = self._standing(ctx, route)
        sends = []
        for slot in Slot:
            backend = standing.backends.get(slot)
            if backend is None:
                raise NotFound(f"backend service {backend_name(route, slot)}: does not exist (yet)")
            sends.append((self._address(backend), weights[slot], backend.release))
        there = standing.rules.get(None)
        rule = urlmap.rule_of(route, None, sends, self._epoch(route, standing), urlmap.left_of(there))
        if there is not None and urlmap.takes(there, route):
            rule["matchRules"] = there["matchRules"]  # somebody may have given it more
        self._write(ctx, route, standing, urlmap.with_rules(standing.found, route, {None: rule}))

    def check_of(self, ctx: Context, route: Route, slot: Slot) -> HealthRule | None:
        scope, _ = url_map_of(route.listener)
        return self._backends.rule_in_use(ctx, route, scope, slot)

    def find(self, ctx: Context, service: str, key: str, scopes: Sequence[str]) -> list[Route]:
        """Those of a service in URL maps of these scopes."""
        return [
            route
            for scope in scopes
            for found in self._all(ctx, f"{scope}/urlMaps")
            for each in urlmap.routes_of(found, service)
            if (route := self._route(ctx, service, key, scope, link_of(found["selfLink"]), each)) is not None
        ]

    def _route(
        self, ctx: Context, service: str, key: str, scope: str, listener: str, found: urlmap.FoundRoute
    ) -> Route | None:
        """A route, by its rules and one of its backend services."""
        looked = (self._backends.find(ctx, link) for link in found.sends)
        backend = next((each for each in looked if each is not None), None)
        health = self._backends.rule_of_check(ctx, key, scope)
        if backend is None or health is None:
            return None
        return Route(
            key=key,
            service=service,
            listener=listener,
            priority=found.priority,
            port=backend.port,
            health=health,
            preview_header=found.preview_header,
            host=found.host,
            path=found.path,
            tags=backend.service_tags,
        )

    def forget(self) -> None:
        """Nothing is remembered of rules: each look reads them."""

    def note_left(self, ctx: Context, route: Route, left: ReleaseId | None) -> None:
        standing = self._standing(ctx, route)
        rule = standing.rules.get(None)
        if rule is None:
            raise NotFound(f"{route.service}: it has no rule that sends traffic")
        if urlmap.left_of(rule) != left:
            noted = urlmap.noting(rule, self._epoch(route, standing), left)
            self._write(ctx, route, standing, urlmap.with_rules(standing.found, route, {None: noted}))

    def in_use(self, ctx: Context, route: Route) -> str:
        found = self._url_map(ctx, route, url_map_of(route.listener)[1])
        for told, links in adopting.takers(found, route):
            looked = [self._backends.find(ctx, link) for link in links]
            busy = [each for each in looked if each is not None and each.group is not None]
            if busy:
                return f"{told}, which sends them to {', '.join(last(each.link) for each in busy)}"
        return ""

    def weights_of(self, ctx: Context, routes: Sequence[Route]) -> Mapping[str, Mapping[Slot, int] | None]:
        """By the URL maps alone: what they send to is named by route and slot."""
        by_listener: dict[str, list[Route]] = {}
        for route in routes:
            by_listener.setdefault(route.listener, []).append(route)
        found: dict[str, Mapping[Slot, int] | None] = {}

        def look(ctx: Context, listener: str, stop: threading.Event) -> dict[str, Mapping[Slot, int] | None]:
            try:
                url_map = self._gcp.get(ctx, address_of(self._gcp, listener), f"URL map {listener}")
            except NotFound:
                return {}
            told: dict[str, Mapping[Slot, int] | None] = {}
            for route in by_listener[listener]:
                try:
                    rule = urlmap.rules_of(url_map, route).get(None)
                except NotOurs:
                    rule = None
                told[route.key] = None if rule is None else _weights(rule, route)
            return told

        in_flight(ctx, by_listener, look, found.update, width=URL_MAPS_AT_ONCE, name="url-maps")
        return found

    def refuse_unadoptable(self, ctx: Context, route: Route, area: str, group: str) -> str:
        """As the port says, for a managed group of that area."""
        scope, name = url_map_of(route.listener)
        self._entry(ctx, route)
        found = self._url_map(ctx, route, name)
        try:
            manager = self._gcp.get(
                ctx, address_of(self._gcp, f"{area}/instanceGroupManagers/{group}"), f"instance group {group}"
            )
        except NotFound as error:
            raise UsageError(
                f"{group}: there is no managed instance group of that name in {area}",
                hint="machines that are in no managed group cannot be adopted: make one of their template first",
            ) from error
        pages = self._gcp.pages(ctx, address_of(self._gcp, f"{scope}/backendServices"), "backendServices")
        services = {link_of(each["selfLink"]): each for page in pages for each in page.get("items", [])}
        ours = {f"{scope}/backendServices/{backend_name(route, slot)}" for slot in Slot}
        link = f"{area}/instanceGroups/{group}"
        theirs = {
            service: each
            for service, each in services.items()
            if service not in ours and link in (link_of(one["group"]) for one in each.get("backends", []))
        }
        service, told = adopting.leading(found, route, set(theirs), group)
        adopting.refuse_other_service(theirs[service], manager, route, group)
        return told

    def give_back(self, ctx: Context, route: Route) -> None:
        try:
            standing = self._standing(ctx, route)
        except NotFound:
            return
        if None not in standing.rules:
            return
        self._epoch(route, standing)
        left = urlmap.without_rules(standing.found, route, (None,))
        if left is not None:
            self._write(ctx, route, standing, left)

    def remove(self, ctx: Context, route: Route) -> None:
        scope, _ = url_map_of(route.listener)
        try:
            standing = self._standing(ctx, route)
        except NotFound:
            # The URL map is gone, and its rules with it; the backend services are not.
            backends = {slot: self._backends.of_slot(ctx, route, scope, slot) for slot in Slot}
            standing = _Standing({}, {}, {slot: each for slot, each in backends.items() if each is not None}, {})
        self._epoch(route, standing)
        left = urlmap.without_rules(standing.found, route)
        if left is not None:
            self._write(ctx, route, standing, left)
        for backend in standing.backends.values():
            self._backends.delete(ctx, backend)
        self._backends.delete_check(ctx, route, scope)

    def standing_rules(self, ctx: Context, route: Route) -> int:
        """How many of the route's rules there are."""
        return len(self._standing(ctx, route).rules)

    # -------------------------------------------------------------------------------------------------------- details

    def _address(self, backend: Backend) -> str:
        return address_of(self._gcp, backend.link)

    def _epoch(self, route: Route, standing: _Standing) -> int:
        """The epoch to write under. Raises :class:`~osvdeploy.errors.Outranked` where a later one was at work here."""
        backends = [backend.document for backend in standing.backends.values()]
        return self._epochs.of(route, urlmap.epoch_of(standing.rules), backends)

    def _write(self, ctx: Context, route: Route, standing: _Standing, changes: Document) -> None:
        document = {**changes, "fingerprint": standing.found["fingerprint"]}
        write(self._gcp, ctx, route.listener, document, f"URL map {route.listener}")

    def _standing(self, ctx: Context, route: Route, *, lately: bool = False) -> _Standing:
        """What is there now, backends with ``lately`` as they were a moment ago. Raises NotFound without the URL map,
        NotOurs where something is another's."""
        scope, name = url_map_of(route.listener)
        found = self._url_map(ctx, route, name)
        rules = urlmap.rules_of(found, route)
        looked = {slot: self._backends.of_slot(ctx, route, scope, slot, lately=lately) for slot in Slot}
        backends = {slot: backend for slot, backend in looked.items() if backend is not None}
        wired = {
            slot: backend
            for slot, backend in backends.items()
            if slot in rules and _leads(rules[slot], route, slot, backend)
        }
        return _Standing(found, rules, backends, wired)

    def _entry(self, ctx: Context, route: Route) -> _Entry:
        """What leads to the route's URL map: asked once.

        Raises NotFound without the URL map, UsageError where nothing, or a balancer without weights, leads to it.
        """
        if route.listener not in self._entries:
            self._entries[route.listener] = self._look_for_entry(ctx, route)
        return self._entries[route.listener]

    def _url_map(self, ctx: Context, route: Route, name: str) -> Document:
        """Raises NotFound, with what to do."""
        return self._gcp.counted_on(
            ctx,
            address_of(self._gcp, route.listener),
            f"URL map {name}",
            key="url-map",
            made_by="examples/google-balancer does",
        )

    def _look_for_entry(self, ctx: Context, route: Route) -> _Entry:
        scope, name = url_map_of(route.listener)
        self._url_map(ctx, route, name)
        rules = self._all(ctx, f"{scope}/forwardingRules")
        for scheme, collection in _PROXIES.items():
            proxies = {
                link_of(each["selfLink"])
                for each in self._all(ctx, f"{scope}/{collection}")
                if link_of(each.get("urlMap", "")) == route.listener
            }
            leading = [rule for rule in rules if link_of(rule.get("target", "")) in proxies]
            kinds = {str(rule.get("loadBalancingScheme", "EXTERNAL")) for rule in leading}
            if kinds - set(SCHEMES) or len(kinds) > 1:
                raise UsageError(
                    f"URL map {name}: a balancer of the kind {' and '.join(sorted(kinds))} leads to it, which has no "
                    "weights",
                    hint="use an application load balancer of the kind EXTERNAL_MANAGED or INTERNAL_MANAGED; Google's "
                    "guide has how a classic one becomes one",
                )
            if leading:
                # One port for all: the lowest, which is the well-known one where there are several.
                port = min(port_of(rule) for rule in leading)
                addresses = sorted({str(rule["IPAddress"]) for rule in leading if port_of(rule) == port})
                return _Entry(scheme, tuple(addresses), port, kinds.pop())
        raise UsageError(
            f"URL map {name}: no forwarding rule leads to it, so that no client does",
            hint="make a target proxy of it and a forwarding rule first; osvdeploy owns rules in a URL map, and no "
            "balancer",
        )

    def _all(self, ctx: Context, collection: str) -> list[Document]:
        pages = self._gcp.pages(ctx, address_of(self._gcp, collection), collection.rpartition("/")[2])
        return [each for page in pages for each in page.get("items", [])]


def _leads(rule: Document, route: Route, slot: Slot, backend: Backend) -> bool:
    """Whether a preview rule is as it should be. Of what is not there any more it may name the release."""
    sends = urlmap.sent(rule)
    if set(sends) != {backend.link} or not urlmap.previews(rule, route, slot):
        return False
    return backend.release is None or sends[backend.link][1] == backend.release


def _weights(rule: Document, route: Route) -> dict[Slot, int]:
    by_name = {link.rpartition("/")[2]: weight for link, (weight, _) in urlmap.sent(rule).items()}
    return {slot: by_name.get(backend_name(route, slot), 0) for slot in Slot}
