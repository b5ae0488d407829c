"""Traffic on Google where nothing has weights: a forwarding rule that leads to a proxy of TCP, and two such proxies.

    the user's rule ─────────▶ proxy blue or green ──▶ backend service of the slot ──▶ group
    a slot's own rule ───────▶ its proxy

The switch is one ``setTarget`` of the user's forwarding rule. Each slot has a forwarding rule of its own beside, with
an address of its own: a backend service that no rule leads to is not known to be checked, so without it nobody could
tell whether an idle slot is well, and a switch would send traffic to machines of which the balancer knows nothing yet.
It is also where an idle slot is asked before it gets traffic.

A rule that passes packets through, to a backend service and without a proxy, is refused. Its packets are addressed to
the rule's address, for which Google's own guests set a local route up, and which OSv drops (bsd/sys/netinet/
ip_input.cc: what is no address of an interface's is forwarded or dropped; loader.cc gives an interface one, by DHCP or
by ``--ip``). Its health checks are sent to that address, too.

Sources: Compute Engine API reference (forwardingRules.setTarget: "of the same type as the old target"; setLabels;
targetTcpProxies, regionTargetTcpProxies, which has no change of its backend service); load balancing guide, "Proxy
Network Load Balancer overview", "Passthrough Network Load Balancer overview", "Health checks overview".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from osvdeploy.cloud.gcp.backends import RENAME, SCHEMES, Backend, Backends, backend_name, write
from osvdeploy.cloud.gcp.fence import Epochs
from osvdeploy.cloud.gcp.labels import labels_of, tags_of
from osvdeploy.cloud.gcp.marks import EPOCH, require_ours, short, written
from osvdeploy.cloud.gcp.scope import address_of, base_url, forwarding_rule_of, last, link_of, port_of
from osvdeploy.cloud.gcp.session import Document, Gcp
from osvdeploy.cloud.interfaces import HealthRule, ReleaseId, Route, RouteState, Slot, TargetHealth
from osvdeploy.cloud.tags import LEFT, SCHEMA, SCHEMA_VERSION, SERVICE, SLOT, is_ours
from osvdeploy.cloud.weights import require, require_one
from osvdeploy.context import Context
from osvdeploy.errors import NotFound, NotOurs, Refused, Unavailable, UsageError

BEFORE = "osvdeploy:before"
"""Of the user's forwarding rule: the target proxy that it led to when it was taken into use, where it leads again in
the end."""

_PROXIES = "targetTcpProxies"
_COPIED = ("network", "subnetwork", "networkTier", "ipVersion", "allowGlobalAccess")
"""What a slot's own rule has as the user's does: without, it could not lead to a proxy of the same kind."""


@dataclass(frozen=True, slots=True)
class _Way:
    """What of a slot's way is there: its backend service, its proxy, its own forwarding rule."""

    backend: Backend | None
    proxy: Document | None
    rule: Document | None

    @property
    def whole(self) -> bool:
        """Whether each part leads to the next."""
        return (
            self.backend is not None
            and self.proxy is not None
            and self.rule is not None
            and link_of(self.proxy.get("service", "")) == self.backend.link
            and link_of(self.rule.get("target", "")) == link_of(self.proxy["selfLink"])
        )


@dataclass(frozen=True, slots=True)
class _Standing:
    """The user's forwarding rule, its labels as tags, and the slots' ways."""

    rule: Document
    tags: Mapping[str, str]
    ways: Mapping[Slot, _Way]

    @property
    def taken(self) -> bool:
        """Whether the rule has been taken into use by the route's service."""
        return is_ours(self.tags)

    @property
    def target(self) -> str:
        return link_of(self.rule.get("target", ""))

    @property
    def leads_to(self) -> Slot | None:
        """The slot that has the traffic."""
        found = (slot for slot, way in self.ways.items() if way.proxy and link_of(way.proxy["selfLink"]) == self.target)
        return next(found, None)


class PointerRouter:
    """:class:`~osvdeploy.cloud.interfaces.TrafficRouter` of a proxy network load balancer, and its
    :class:`~osvdeploy.cloud.interfaces.Fence`.

    The epoch is a label of the user's rule. ``setTarget`` can carry none, and no fingerprint: so it is written when a
    lease is taken over, before anything else is, and looked at before each switch. A switch that its sender began
    before that, and that reaches Google after it, is not shut out.
    """

    def __init__(self, gcp: Gcp, backends: Backends | None = None) -> None:
        self._gcp = gcp
        self._backends = backends or Backends(gcp)
        self._epochs = Epochs()

    def hold(self, route: Route, epoch: int) -> None:
        self._epochs.hold(route, epoch)

    def take_over(self, ctx: Context, route: Route, epoch: int) -> None:
        self.hold(route, epoch)
        try:
            standing = self._looked(ctx, route)
        except NotFound:
            return  # nothing is there that anybody could change
        if standing.taken and self._epoch(route, standing) > _epoch_of(standing):
            self._label(ctx, route, standing, {**standing.tags, EPOCH: str(epoch)})

    def observe(self, ctx: Context, route: Route) -> RouteState:
        standing = self._standing(ctx, route)
        wired = {slot: way for slot, way in standing.ways.items() if way.whole and standing.taken}
        leads_to = standing.leads_to
        rules = {f"preview-{slot}": str(way.rule["name"]) for slot, way in standing.ways.items() if way.rule}
        return RouteState(
            backends={slot: way.backend.link for slot, way in wired.items() if way.backend},
            weights=None if leads_to is None else {slot: 100 * (slot is leads_to) for slot in Slot},
            base_url=_entry(standing.rule),
            addresses=(str(standing.rule["IPAddress"]),),
            rules=rules if leads_to is None else {"route": str(standing.rule["name"]), **rules},
            weighted=False,
            previews={slot: _entry(way.rule) for slot, way in wired.items() if way.rule},
            left=ReleaseId(standing.tags[LEFT]) if LEFT in standing.tags else None,
            # One address, which every machine of Google's network passes on by itself.
            partial=True,
        )

    def ensure_slots(self, ctx: Context, route: Route) -> None:
        standing = self._standing(ctx, route)
        if not standing.taken:
            # First of all: from then on no other service takes it, and where it led is known.
            mine = {**short(route.tags), SCHEMA: SCHEMA_VERSION, EPOCH: str(self._epoch(route, standing))}
            led = {} if standing.leads_to is not None else {BEFORE: last(standing.target)}
            self._label(ctx, route, standing, {**standing.tags, **mine, **led})
        else:
            self._epoch(route, standing)
        for slot, way in standing.ways.items():
            if not way.whole:
                self._make(ctx, route, slot, way, standing.rule)

    def health(self, ctx: Context, route: Route, slot: Slot) -> tuple[TargetHealth, ...]:
        return self._backends.health(ctx, route, _scope(route), slot)

    def set_weights(self, ctx: Context, route: Route, weights: Mapping[Slot, int]) -> None:
        require(route, weights)
        slot = require_one(route, weights)
        standing = self._standing(ctx, route)
        proxy = standing.ways[slot].proxy
        # Where the rule leads to a slot it is this service's, whoever took the labels away: the way back stays open.
        if proxy is None or not (standing.taken or standing.leads_to is not None):
            raise NotFound(f"target proxy {backend_name(route, slot)}: does not exist (yet)")
        self._epoch(route, standing)
        self._point(ctx, route, link_of(proxy["selfLink"]))

    def check_of(self, ctx: Context, route: Route, slot: Slot) -> HealthRule | None:
        return self._backends.rule_in_use(ctx, route, _scope(route), slot)

    def find(self, ctx: Context, service: str, key: str, scopes: Sequence[str]) -> list[Route]:
        """That of a service, by the labels of the forwarding rules in these scopes."""
        found = []
        for scope in scopes:
            pages = self._gcp.pages(ctx, address_of(self._gcp, f"{scope}/forwardingRules"), "forwardingRules")
            for rule in (each for page in pages for each in page.get("items", [])):
                if tags_of(rule.get("labels") or {}).get(SERVICE) != service:
                    continue
                backend = next(
                    (
                        each
                        for slot in Slot
                        if (each := self._backends.find(ctx, f"{scope}/backendServices/osvd-{key}-{slot}")) is not None
                    ),
                    None,
                )
                health = self._backends.rule_of_check(ctx, key, scope)
                if backend is not None and health is not None:
                    listener, tags = link_of(rule["selfLink"]), backend.service_tags
                    found.append(Route(key, service, listener, 0, backend.port, health, "", tags=tags))
        return found

    def forget(self) -> None:
        """Nothing is remembered of rules: each look reads them."""

    def note_left(self, ctx: Context, route: Route, left: ReleaseId | None) -> None:
        standing = self._looked(ctx, route)
        if standing.leads_to is None:
            raise NotFound(f"{route.service}: {route.listener} leads to no slot of it")
        if standing.tags.get(LEFT) != left:
            self._epoch(route, standing)
            tags = {key: value for key, value in standing.tags.items() if key != LEFT}
            self._label(ctx, route, standing, tags if left is None else {**tags, LEFT: left})

    def weights_of(self, ctx: Context, routes: Sequence[Route]) -> Mapping[str, Mapping[Slot, int] | None]:
        """By the lists of forwarding rules alone: a slot's proxy is named by route and slot."""
        found: dict[str, Mapping[Slot, int] | None] = {}
        for scope in dict.fromkeys(_scope(route) for route in routes):
            pages = self._gcp.pages(ctx, address_of(self._gcp, f"{scope}/forwardingRules"), "forwarding rules")
            rules = {link_of(each["selfLink"]): each for page in pages for each in page.get("items", [])}
            for route in routes:
                if _scope(route) == scope and route.listener in rules:
                    name = last(str(rules[route.listener].get("target", "")))
                    leads_to = next((slot for slot in Slot if backend_name(route, slot) == name), None)
                    told = None if leads_to is None else {slot: 100 * (slot is leads_to) for slot in Slot}
                    found[route.key] = told
        return found

    def give_back(self, ctx: Context, route: Route) -> None:
        standing = self._looked(ctx, route)
        if standing.leads_to is not None:
            self._epoch(route, standing)
            self._point(ctx, route, self._before(ctx, route, standing))

    def remove(self, ctx: Context, route: Route) -> None:
        standing: _Standing | None = None
        try:
            standing = self._looked(ctx, route)
            ways = standing.ways
        except NotFound:
            ways = self._ways(ctx, route)  # the user's rule is gone; what was ours is not
        if standing is not None:
            self._epoch(route, standing)
            if standing.leads_to is not None:
                self._point(ctx, route, self._before(ctx, route, standing))
        for way in ways.values():
            if way.rule is not None:
                self._delete(ctx, way.rule, "forwarding rule")
        for way in ways.values():
            if way.proxy is not None:
                self._delete(ctx, way.proxy, "target proxy")
        for way in ways.values():
            if way.backend is not None:
                self._backends.delete(ctx, way.backend)
        self._backends.delete_check(ctx, route, _scope(route))
        if standing is not None and standing.taken:
            # Last of all: whoever goes on after a crash knows by them whose the rule is.
            self._label(ctx, route, standing, {})

    def standing_parts(self, ctx: Context, route: Route) -> tuple[bool, set[Slot]]:
        """Whether the user's rule has been taken into use, and the slots whose ways are whole."""
        standing = self._standing(ctx, route)
        return standing.taken, {slot for slot, way in standing.ways.items() if way.whole}

    # -------------------------------------------------------------------------------------------------------- looking

    def _standing(self, ctx: Context, route: Route) -> _Standing:
        """What is there now, fit to be led to a slot. Raises as :meth:`_looked` does, UsageError for a rule of another
        kind, and NotOurs for one that leads to somebody else."""
        standing = self._looked(ctx, route, fit=True)
        if standing.leads_to is not None:
            return standing
        if standing.taken and last(standing.target) != standing.tags.get(BEFORE):
            raise NotOurs(
                f"forwarding rule {route.listener}: leads to {standing.target} by now, which is none of ours",
                hint=f"let it lead to {backend_name(route, Slot.BLUE)} or {backend_name(route, Slot.GREEN)} again, "
                "whichever serves, with `gcloud compute forwarding-rules set-target`",
            )
        if SERVICE not in standing.tags:
            self._refuse_in_use(ctx, route, standing)
        return standing

    def _looked(self, ctx: Context, route: Route, *, fit: bool = False) -> _Standing:
        """What is there now. Raises NotFound without the rule, NotOurs where something is another service's; and where
        the rule must be ``fit`` to be led to a slot, UsageError."""
        rule = self._gcp.counted_on(
            ctx,
            address_of(self._gcp, route.listener),
            f"forwarding rule {route.listener}",
            key="forwarding-rule",
            made_by='docs/spec.md has the commands: "A rule to begin with"',
        )
        if fit:
            _require_proxied(route, rule)
        tags = tags_of(rule.get("labels") or {})
        owner = tags.get(SERVICE)
        if owner is not None and owner != route.service:
            raise NotOurs(
                f"forwarding rule {route.listener}: belongs to {owner}, not to {route.service}",
                hint="a forwarding rule leads to one service: name another one",
            )
        return _Standing(rule, tags, self._ways(ctx, route))

    def _refuse_in_use(self, ctx: Context, route: Route, standing: _Standing) -> None:
        """Raise NotOurs where machines stand behind a rule that nobody has declared to be this service's."""
        proxy = self._find(ctx, standing.target, "target proxy")
        service = None if proxy is None else self._backends.find(ctx, link_of(proxy.get("service", "")))
        if service is not None and service.document.get("backends"):
            label = ",".join(f"{name}={value}" for name, value in labels_of({SERVICE: route.service}).items())
            raise NotOurs(
                f"forwarding rule {route.listener}: machines of {service.link} are behind it, and the first deploy "
                "would take their traffic away",
                hint="name another rule; or, if that is meant, say so by a label: `gcloud compute forwarding-rules "
                f"update {last(route.listener)} --update-labels {label}`",
            )

    def _ways(self, ctx: Context, route: Route) -> dict[Slot, _Way]:
        return {slot: self._way(ctx, route, slot) for slot in Slot}

    def _way(self, ctx: Context, route: Route, slot: Slot) -> _Way:
        scope, name = _scope(route), backend_name(route, slot)
        parts = {}
        for collection, what in ((_PROXIES, "target proxy"), ("forwardingRules", "forwarding rule")):
            link = f"{scope}/{collection}/{name}"
            found = self._find(ctx, link, what)
            if found is not None:
                require_ours(found, f"{what} {link}", service=route.service, hint=RENAME)
            parts[collection] = found
        return _Way(self._backends.of_slot(ctx, route, scope, slot), parts[_PROXIES], parts["forwardingRules"])

    def _find(self, ctx: Context, link: str, what: str) -> Document | None:
        try:
            return self._gcp.get(ctx, address_of(self._gcp, link), f"{what} {link}")
        except NotFound:
            return None

    def _epoch(self, route: Route, standing: _Standing) -> int:
        """The epoch to write under. Raises :class:`~osvdeploy.errors.Outranked` where a later one was at work here."""
        backends = [way.backend.document for way in standing.ways.values() if way.backend is not None]
        return self._epochs.of(route, _epoch_of(standing), backends)

    # ------------------------------------------------------------------------------------------------------- changing

    def _make(self, ctx: Context, route: Route, slot: Slot, way: _Way, like: Document) -> None:
        """Make what of a slot's way is not there."""
        scope, name = _scope(route), backend_name(route, slot)
        marks = written({**short(route.tags), SLOT: slot.value})
        scheme = str(like["loadBalancingScheme"])
        backend = self._backends.ensure(ctx, route, scope, slot, scheme, protocol="TCP")
        proxy, rule = f"{scope}/{_PROXIES}/{name}", f"{scope}/forwardingRules/{name}"
        for part, found, field, leads_to in (
            (proxy, way.proxy, "service", backend.link),
            (rule, way.rule, "target", proxy),
        ):
            if found is not None and (led := link_of(found.get(field, ""))) != leads_to:
                raise NotOurs(
                    f"{part}: leads to {led or 'nothing'}, not to {leads_to}", hint="somebody changed it; delete it"
                )
        document: Document = {"name": name, "description": marks, "service": address_of(self._gcp, backend.link)}
        self._backends.insert_part(ctx, f"{scope}/{_PROXIES}", document, f"target proxy {proxy}")
        document = {
            "name": name,
            "description": marks,
            "loadBalancingScheme": scheme,
            "IPProtocol": "TCP",
            "portRange": str(port_of(like)),
            "target": address_of(self._gcp, proxy),
            **{key: like[key] for key in _COPIED if key in like},
        }
        self._backends.insert_part(ctx, f"{scope}/forwardingRules", document, f"forwarding rule {rule}")

    def _before(self, ctx: Context, route: Route, standing: _Standing) -> str:
        """The proxy that the user's rule led to before. Raises Refused where there is none to lead it to again."""
        name = standing.tags.get(BEFORE)
        before = f"{_scope(route)}/{_PROXIES}/{name}"
        if name is None or self._find(ctx, before, "target proxy") is None:
            told = (
                "where it led before is not known"
                if name is None
                else f"the proxy {name}, where it led before, is gone"
            )
            raise Refused(
                f"forwarding rule {route.listener}: {told}, and a rule must lead somewhere",
                hint="let it lead to another target TCP proxy, with `gcloud compute forwarding-rules set-target`, or "
                "delete it; then run the same command again",
            )
        return before

    def _point(self, ctx: Context, route: Route, proxy: str) -> None:
        document = {"target": address_of(self._gcp, proxy)}
        write(self._gcp, ctx, f"{route.listener}/setTarget", document, f"forwarding rule {route.listener}", "POST")

    def _label(self, ctx: Context, route: Route, standing: _Standing, tags: Mapping[str, str]) -> None:
        """Let the user's rule have these tags of ours, beside the user's own labels."""
        there = standing.rule.get("labels") or {}
        own = {name: value for name, value in there.items() if not name.startswith(SCHEMA)}
        ours = labels_of({tag: value for tag, value in tags.items() if tag.startswith(SCHEMA)})
        document = {"labels": {**own, **ours}, "labelFingerprint": standing.rule.get("labelFingerprint", "")}
        what = f"forwarding rule {route.listener}"
        # Of a global rule the method knows no request ids, so that a lost answer's repetition is refused as stale.
        identified = not _scope(route).endswith("/global")
        try:
            write(self._gcp, ctx, f"{route.listener}/setLabels", document, what, "POST", identified=identified)
        except Unavailable:
            now = self._gcp.get(ctx, address_of(self._gcp, route.listener), what)
            if (now.get("labels") or {}) != document["labels"]:
                raise

    def _delete(self, ctx: Context, found: Document, what: str) -> None:
        link = link_of(found["selfLink"])
        self._backends.delete_part(ctx, link, str(found["id"]), f"{what} {link}")


def _require_proxied(route: Route, rule: Document) -> None:
    """Raise UsageError for a rule that a switch cannot be made with."""
    what = f"forwarding rule {route.listener}"
    if rule.get("backendService"):
        raise UsageError(
            f"{what}: passes packets on as they are, addressed to the rule's own address ({rule.get('IPAddress')}), "
            "and OSv drops what is not addressed to its machine",
            hint="use a proxy network load balancer: a forwarding rule that leads to a target TCP proxy",
        )
    target = str(rule.get("target", ""))
    if f"/{_PROXIES}/" not in target:
        by_map = "/targetHttp" in target
        raise UsageError(
            f"{what}: leads to {link_of(target) or 'nothing'}, which is no target TCP proxy",
            hint="name its URL map, as `url-map` in place of `forwarding-rule`: there are weights and previews then"
            if by_map
            else "let it lead to a target TCP proxy",
        )
    scheme = str(rule.get("loadBalancingScheme", "EXTERNAL"))
    if scheme not in SCHEMES:
        raise UsageError(
            f"{what}: is of the kind {scheme}, which osvdeploy does not serve",
            hint=f"use a proxy network load balancer of the kind {' or '.join(SCHEMES)}",
        )


def _entry(rule: Document) -> str:
    return base_url("http", str(rule["IPAddress"]), port_of(rule))


def _scope(route: Route) -> str:
    found = forwarding_rule_of(route.listener)
    assert found is not None, "who chose this router has looked"
    return found[0]


def _epoch_of(standing: _Standing) -> int:
    told = standing.tags.get(EPOCH, "0")
    return int(told) if told.isdigit() else 0
