"""The places whose groups, routers, consoles and probers are held to their promises, and what the tests do there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

import pytest

from osvdeploy.cloud import tags
from osvdeploy.cloud.interfaces import (
    Ground,
    GroupRequest,
    HealthRule,
    Measured,
    Metric,
    ProbeAnswer,
    Prober,
    ProbeRequest,
    ReleaseId,
    Route,
    RouteState,
    Slot,
    TargetHealth,
)
from osvdeploy.context import Context
from osvdeploy.digests import sha256

APP, SERVICE = "hello", "hello/production"
SERVICE_TAGS = tags.service_tags(APP, SERVICE, "ledger")
THEIRS = ReleaseId("theirs")
"""What somebody else's group runs."""


class Guest(StrEnum):
    """What a release's program does: serve, never listen, answer 500, abort while it starts, or end at once; or be well
    by its health check alone, and answer everybody else 500."""

    SERVES = "serves"
    HANGS = "hangs"
    SICK = "sick"
    ABORTS = "aborts"
    ENDS = "ends"
    FAILS = "fails"


def _not_planted(name: str, priority: int | None) -> None:
    # It would take the requests of every other test on the account's one listener.
    pytest.skip("not on accounts")


def _not_changed(what: object) -> None:
    pytest.skip("not on accounts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One place under test, with a listener and networks.

    ``image(release, guest)`` makes an image whose program behaves so and names its release in ``x-release``;
    ``plant_rule(priority)`` and ``plant_group(name)`` make what is somebody else's, a group of no machines and the
    template that it is made of, and give the id of its image; ``mutations()`` counts the calls
    so far that changed something. ``on_change(hook)`` has ``hook(operation, after)`` asked before and after each of
    those takes effect; what it raises comes out of the call. ``keeps_dead``: a machine that ended is told of, and can
    be read, beside the one in its place; ``unchecked`` is what a target is before its first check, ``while_booting``
    what it may be besides before its machine has booted. ``pointer``: the listener sends all of its traffic to one
    slot; ``plant_rule`` then lets it lead to machines of somebody else's. ``patience`` is how many times as long as in
    virtual time tests wait here, looking every ``pause`` seconds.

    ``errors`` is the metric of answers of 5xx per request that the place has; what was counted in a minute is told
    ``published`` seconds after its end.

    ``plant_service(group, priority)`` makes a group of two machines that is somebody else's, and has the listener's
    requests by a rule of theirs there; where that is None, by what no rule takes.

    ``share_out(weight)`` gives a backend of somebody else's, of no machines, that weight in the route's own rule beside
    what it has; ``narrow(path)`` lets that rule take this path alone.

    ``scale(group, minimum, maximum)`` attaches to a group what scales it, as a user would, with every kind of rule that
    the place has; ``unload(group)`` lets its load go: what scales it makes it as small as it may, a minute later.
    """

    ctx: Context
    cloud: Ground
    prober: Prober
    listener: str
    networks: tuple[str, ...]
    firewalls: tuple[str, ...]
    machine_type: str
    image: Callable[[ReleaseId, Guest], str]
    plant_rule: Callable[[int], None]
    plant_group: Callable[[str], str]
    scale: Callable[[str, int, int], None]
    unload: Callable[[str], None]
    mutations: Callable[[], int]
    on_change: Callable[[Callable[[str, bool], None] | None], None]
    plant_service: Callable[[str, int | None], None] = field(default=_not_planted)
    share_out: Callable[[int], None] = field(default=_not_changed)
    narrow: Callable[[str], None] = field(default=_not_changed)
    errors: Metric | None = None
    published: float = 60.0
    keeps_dead: bool = True
    unchecked: str = "initial"
    pointer: bool = False
    while_booting: frozenset[str] = frozenset()
    patience: float = 1.0
    pause: float = 1.0

    def route(self, **changes: object) -> Route:
        made = Route(
            key="0123456789",
            service=SERVICE,
            listener=self.listener,
            priority=0 if self.pointer else 100,
            port=8080,
            health=HealthRule(path="/healthz", interval=5.0, timeout=2.0),
            preview_header="" if self.pointer else "x-preview",
            tags=SERVICE_TAGS,
        )
        return replace(made, **changes)  # type: ignore[arg-type]  # the caller names fields

    def request(
        self,
        slot: Slot,
        release: str,
        image: str,
        capacity: int = 2,
        name: str | None = None,
        route: Route | None = None,
    ) -> GroupRequest:
        """A group in a slot whose backend stands."""
        state = self.cloud.router.observe(self.ctx, route or self.route())
        release_id = ReleaseId(release)
        return GroupRequest(
            name=name or f"osvd-{sha256(release.encode())[:8]}",
            release=release_id,
            image=image,
            capacity=capacity,
            machine_type=self.machine_type,
            networks=self.networks,
            firewalls=self.firewalls,
            backend=state.backends[slot],
            tags=tags.release_tags(
                tags.slot_tags(SERVICE_TAGS, slot),
                release=release_id,
                version="1.0.0",
                image=sha256(b"image"),
                configuration=sha256(b"configuration"),
                digest=sha256(release.encode()),
            ),
        )

    def stand(self, slot: Slot, release: str, guest: Guest = Guest.SERVES, capacity: int = 2) -> GroupRequest:
        """Both slots wired, and a release's group made in one of them."""
        self.cloud.router.ensure_slots(self.ctx, self.route())
        request = self.request(slot, release, self.image(ReleaseId(release), guest), capacity)
        self.cloud.groups.ensure(self.ctx, request)
        return request

    def until(self, holds: Callable[[], bool], seconds: float = 600.0) -> None:
        """Wait, by the context's clock, for something to hold; fail when it does not."""
        began = self.ctx.monotonic()
        while not holds():
            assert self.ctx.monotonic() - began < seconds * self.patience, "never came true"
            self.ctx.sleep(self.pause)

    def health(self, slot: Slot) -> tuple[TargetHealth, ...]:
        return self.cloud.router.health(self.ctx, self.route(), slot)

    def healthy(self, slot: Slot) -> int:
        return sum(target.state == "healthy" for target in self.health(slot))

    def weights(self, blue: int, green: int) -> None:
        self.cloud.router.set_weights(self.ctx, self.route(), {Slot.BLUE: blue, Slot.GREEN: green})

    def ask(self, headers: Mapping[str, str] | None = None, address: str | None = None) -> ProbeAnswer:
        return self._ask(self.cloud.router.observe(self.ctx, self.route()), headers or {}, address)

    def answering(self, count: int = 10) -> set[str]:
        """The releases that answer through the balancer, at every entry point; "" for an answer of nobody's."""
        state = self.cloud.router.observe(self.ctx, self.route())
        return {
            self._ask(state, {}, address).headers.get("x-release", "")
            for address in state.addresses
            for _ in range(count)
        }

    def previewed(self, slot: Slot) -> ProbeAnswer:
        """What a slot answers, with traffic or without: by a header, or at an address of its own."""
        state = self.cloud.router.observe(self.ctx, self.route())
        if state.weighted:
            return self._ask(state, {"x-preview": slot.value}, None)
        return self.prober.probe(self.ctx, ProbeRequest(f"{state.previews[slot]}/"))

    def measured(self, slot: Slot, release: str) -> Measured:
        """What stands in a slot, as metrics are asked of it."""
        name = f"osvd-{sha256(release.encode())[:8]}"
        return Measured(self.route(), slot, ReleaseId(release), name)

    def _ask(self, state: RouteState, headers: Mapping[str, str], address: str | None) -> ProbeAnswer:
        request = ProbeRequest(f"{state.base_url}/", headers, address=address or state.addresses[0])
        return self.prober.probe(self.ctx, request)
