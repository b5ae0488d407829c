"""What is Google's own about moving traffic: balancers without weights, late writers, the release in each answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from osvdeploy.cloud.gcp.router import UrlMapRouter
from osvdeploy.cloud.interfaces import Slot
from osvdeploy.errors import LeaseLost, Unavailable, UsageError
from osvdeploy.sandbox.faults import Fault, FaultKind
from tests.contract.gcp_place import GcpSandbox
from tests.contract.gcp_scene import URL_MAP, GcpScene, Network, change_own_rule, gcp_scene
from tests.contract.scenes import Guest

pytestmark = pytest.mark.sandbox

BLUE, GREEN = {Slot.BLUE: 100, Slot.GREEN: 0}, {Slot.BLUE: 0, Slot.GREEN: 100}


@pytest.fixture
def scene() -> GcpScene:
    return gcp_scene()


def another(scene: GcpScene) -> UrlMapRouter:
    """The router of another process."""
    return UrlMapRouter(scene.place.gcp())


def weights(scene: GcpScene) -> dict[Slot, int] | None:
    found = another(scene).observe(scene.ctx, scene.route()).weights
    return None if found is None else dict(found)


def test_a_classic_balancer_is_refused(scene: GcpScene) -> None:
    """It has no weights; which kinds have, is said."""
    place = GcpSandbox()
    Network(place, scheme="EXTERNAL")
    router = UrlMapRouter(place.gcp())
    with pytest.raises(UsageError, match="the kind EXTERNAL leads to it, which has no weights") as raised:
        router.ensure_slots(place.ctx, scene.route())
    assert "EXTERNAL_MANAGED or INTERNAL_MANAGED" in (raised.value.hint or "")


def test_a_url_map_that_nothing_leads_to_is_refused(scene: GcpScene) -> None:
    """No client would ever come."""
    scene.network.make("global/urlMaps", name="lone", defaultService="global/backendServices/nobody")
    route = scene.route(listener=URL_MAP.replace("/web", "/lone"))
    with pytest.raises(UsageError, match="no forwarding rule leads to it"):
        scene.cloud.router.observe(scene.ctx, route)


@pytest.mark.parametrize(
    ("scheme", "scope"),
    [
        ("INTERNAL_MANAGED", "regions/europe-west1"),
        ("EXTERNAL_MANAGED", "regions/europe-west1"),
        ("INTERNAL_MANAGED", "global"),
    ],
)
def test_each_balancer_with_weights_will_do(scheme: str, scope: str) -> None:
    """Of a region or of all of them, from within or without: what is made is of its kind, in its place."""
    scene = gcp_scene(scheme, scope)
    scene.stand(Slot.BLUE, "hello-1", capacity=1)
    scene.cloud.router.ensure_slots(scene.ctx, scene.route())
    scene.until(lambda: scene.healthy(Slot.BLUE) == 1)
    scene.weights(100, 0)
    scene.until(lambda: scene.answering() == {"hello-1"})
    backends = scene.cloud.router.observe(scene.ctx, scene.route()).backends
    assert {link.rpartition("/backendServices/")[0] for link in backends.values()} == {f"projects/sandbox/{scope}"}
    scene.cloud.groups.delete(scene.ctx, next(iter(scene.cloud.groups.templates(scene.ctx, {}))))
    scene.cloud.router.remove(scene.ctx, scene.route())
    assert scene.network.ask("GET", f"{scope}/backendServices")["items"][0]["name"] == "nobody"


def test_what_is_no_url_map_is_refused_unasked(scene: GcpScene) -> None:
    """With what one looks like."""
    with pytest.raises(UsageError, match="'web' is no URL map"):
        scene.cloud.router.observe(scene.ctx, scene.route(listener="web"))


def test_answers_name_the_release_whatever_the_program_says(scene: GcpScene) -> None:
    """By the balancer's own header, in the slot's previews and in live traffic, and in place of the program's."""
    scene.stand(Slot.BLUE, "hello-1")
    scene.cloud.router.ensure_slots(scene.ctx, scene.route())
    scene.until(lambda: scene.healthy(Slot.BLUE) == 2)

    def named(**headers: str) -> str | None:
        return scene.ask(headers).headers.get("x-osvdeploy-release")

    scene.until(lambda: named(**{"x-preview": "blue"}) == "hello-1")
    assert named() is None
    scene.weights(100, 0)
    scene.until(lambda: named() == "hello-1")


def test_a_slot_is_not_wired_while_its_preview_names_another_release(scene: GcpScene) -> None:
    """Whoever looks sees that it is to be written anew; doing so makes it whole."""
    scene.stand(Slot.BLUE, "hello-1", Guest.HANGS, capacity=1)
    router, route = scene.cloud.router, scene.route()
    assert set(router.observe(scene.ctx, route).backends) == {Slot.GREEN}
    router.ensure_slots(scene.ctx, route)
    assert set(router.observe(scene.ctx, route).backends) == set(Slot)


def overtaken(scene: GcpScene, by: Callable[[], None]) -> None:
    """Let somebody else write right before our next patch of the URL map takes effect."""

    def asked(operation: str, after: bool) -> None:
        if operation == "urlMaps.patch" and not after:
            scene.on_change(None)
            by()

    scene.on_change(asked)


def test_a_writer_that_was_overtaken_changes_nothing(scene: GcpScene) -> None:
    """It is told to look again, and what the other wrote stands."""
    router, other, route = scene.cloud.router, another(scene), scene.route()
    router.ensure_slots(scene.ctx, route)
    router.set_weights(scene.ctx, route, BLUE)
    overtaken(scene, lambda: other.set_weights(scene.ctx, route, GREEN))
    with pytest.raises(Unavailable) as raised:
        router.set_weights(scene.ctx, route, BLUE)
    assert raised.value.code == "conditionNotMet"
    assert weights(scene) == GREEN


def test_who_lost_the_lease_stops(scene: GcpScene) -> None:
    """Once the new holder has written, at its first change or at once; what it wrote stands."""
    late, route = another(scene), scene.route()
    late.hold(route, 4)
    late.ensure_slots(scene.ctx, route)
    late.set_weights(scene.ctx, route, BLUE)
    new = another(scene)
    new.hold(route, 5)
    late.set_weights(scene.ctx, route, BLUE)
    new.set_weights(scene.ctx, route, GREEN)
    with pytest.raises(LeaseLost, match="another process took the lease over"):
        late.set_weights(scene.ctx, route, BLUE)
    with pytest.raises(LeaseLost):
        late.remove(scene.ctx, route)
    another(scene).take_over(scene.ctx, route, 6)
    with pytest.raises(LeaseLost):
        new.set_weights(scene.ctx, route, BLUE)
    assert weights(scene) == GREEN


def test_taking_over_shuts_out_who_has_read_already(scene: GcpScene) -> None:
    """Its fingerprint is an old one; and taking over a route that is not there makes nothing."""
    late, new, route = another(scene), another(scene), scene.route()
    new.take_over(scene.ctx, route, 2)
    before = scene.network.ask("GET", "global/urlMaps/web")
    assert "pathMatchers" not in before
    late.hold(route, 4)
    late.ensure_slots(scene.ctx, route)
    late.set_weights(scene.ctx, route, BLUE)
    overtaken(scene, lambda: new.take_over(scene.ctx, route, 5))
    with pytest.raises(Unavailable):
        late.set_weights(scene.ctx, route, GREEN)
    assert weights(scene) == BLUE


@pytest.mark.parametrize("kind", [FaultKind.AFTER, FaultKind.HANG_AFTER, FaultKind.BEFORE, FaultKind.THROTTLED])
def test_a_lost_answer_changes_nothing_twice(scene: GcpScene, kind: FaultKind) -> None:
    """Whichever change it is: the same request is sent again, and is one change."""
    for operation in ("*.insert", "*.patch"):
        scene.place.sandbox.faults.add(Fault(operation, kind))
    made = scene.stand(Slot.BLUE, "hello-1", capacity=1)
    scene.weights(100, 0)
    assert weights(scene) == BLUE
    scene.until(lambda: scene.healthy(Slot.BLUE) == 1)
    assert len(scene.cloud.groups.machines(scene.ctx, made.name)) == 1


def test_a_path_that_somebody_gave_the_rule_beside_its_own_stays(scene: GcpScene) -> None:
    """It keeps nobody away. Where the route's own is missing, setting weights puts it there alone."""
    scene.cloud.router.ensure_slots(scene.ctx, scene.route())
    scene.weights(100, 0)
    network = scene.network
    assert isinstance(network, Network)
    own: dict[str, Any] = {"prefixMatch": "/"}
    more = {"fullPathMatch": "/more", "headerMatches": [{"headerName": "x", "exactMatch": "1"}]}

    def left_of(matches: list[dict[str, Any]]) -> list[dict[str, Any]]:
        change_own_rule(network, lambda rule: rule.update(matchRules=matches))
        scene.weights(0, 100)
        found: list[dict[str, Any]] = []
        change_own_rule(network, lambda rule: found.extend(rule["matchRules"]))
        return found

    assert left_of([own, more]) == [own, more]
    assert left_of([more]) == [own]


def test_others_rules_are_as_they_were(scene: GcpScene) -> None:
    """A service that came and went leaves the URL map's own rules behind, and nothing else."""
    scene.plant_rule(7)
    before = scene.network.ask("GET", "global/urlMaps/web")
    router, route = scene.cloud.router, scene.route()
    router.ensure_slots(scene.ctx, route)
    router.set_weights(scene.ctx, route, BLUE)
    router.remove(scene.ctx, route)
    after = scene.network.ask("GET", "global/urlMaps/web")
    assert (after["hostRules"], after["pathMatchers"]) == (before["hostRules"], before["pathMatchers"])


def test_every_group_behind_a_slot_is_asked_for(scene: GcpScene) -> None:
    """Somebody puts another before ours: its machines get requests, and are told by their own names."""
    for slot, release in ((Slot.BLUE, "hello-1"), (Slot.GREEN, "hello-2")):
        scene.stand(slot, release)
    scene.until(lambda: scene.healthy(Slot.BLUE) == scene.healthy(Slot.GREEN) == 2)
    scene.cloud.router.ensure_slots(scene.ctx, scene.route())
    backends = another(scene).observe(scene.ctx, scene.route()).backends
    links = {slot: link.partition("/sandbox/")[2] for slot, link in backends.items()}
    theirs, ours = (scene.network.ask("GET", links[slot]) for slot in Slot)
    both = {"backends": [*theirs["backends"], *ours["backends"]], "fingerprint": ours["fingerprint"]}
    scene.network.ask("PATCH", links[Slot.GREEN], both)
    scene.until(lambda: scene.healthy(Slot.GREEN) == 4)
    blue, green = ({each.machine for each in another(scene).health(scene.ctx, scene.route(), slot)} for slot in Slot)
    assert blue < green and len(green) == 4
