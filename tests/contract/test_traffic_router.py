"""What every implementation of TrafficRouter promises, and every Prober that asks through it."""

from __future__ import annotations

import pytest

from osvdeploy.cloud import tags
from osvdeploy.cloud.interfaces import ProbeRequest, ReleaseId, Route, Slot
from osvdeploy.errors import NotFound, NotOurs, Refused
from tests.contract.scenes import Guest, Scene


def test_a_route_begins_with_nothing(scene: Scene) -> None:
    """Looking makes nothing, and tells where a client will enter."""
    for _ in range(2):
        state = scene.cloud.router.observe(scene.ctx, scene.route())
        assert (dict(state.backends), state.weights, dict(state.rules)) == ({}, None, {})
        assert state.base_url.startswith("http://")
        assert state.addresses
    assert scene.health(Slot.BLUE) == ()


def test_an_unknown_listener_is_not_found(scene: Scene) -> None:
    """Whatever is asked of a listener that does not exist."""
    gone = scene.listener[:-1] + ("0" if scene.listener[-1] != "0" else "1")
    route = scene.route(listener=gone)
    with pytest.raises(NotFound):
        scene.cloud.router.observe(scene.ctx, route)
    with pytest.raises(NotFound):
        scene.cloud.router.ensure_slots(scene.ctx, route)


def test_slots_are_made_once(scene: Scene) -> None:
    """Both backends and both preview rules; the route's own rule is not made; a second call adds nothing."""
    scene.cloud.router.ensure_slots(scene.ctx, scene.route())
    state = scene.cloud.router.observe(scene.ctx, scene.route())
    assert set(state.backends) == set(Slot)
    assert len(set(state.backends.values())) == 2
    assert len(set(state.rules.values())) == 2
    assert state.weights is None
    scene.cloud.router.ensure_slots(scene.ctx, scene.route())
    assert scene.cloud.router.observe(scene.ctx, scene.route()) == state


def test_weights_read_back_as_set(scene: Scene) -> None:
    """The first setting makes the route's rule, later ones change it; both slots are always in it."""
    scene.cloud.router.ensure_slots(scene.ctx, scene.route())
    rules = set()
    for blue, green in ((100, 0), (95, 5), (0, 100), (50, 50)):
        scene.weights(blue, green)
        state = scene.cloud.router.observe(scene.ctx, scene.route())
        assert state.weights == {Slot.BLUE: blue, Slot.GREEN: green}
        assert len(state.rules) == 3
        rules.add(tuple(sorted(state.rules.values())))
    assert len(rules) == 1


def test_setting_weights_is_one_change(scene: Scene) -> None:
    """One mutating call moves traffic: the first time, and every time."""
    scene.cloud.router.ensure_slots(scene.ctx, scene.route())
    for blue, green in ((100, 0), (0, 100)):
        before = scene.mutations()
        scene.weights(blue, green)
        assert scene.mutations() == before + 1


@pytest.mark.parametrize("weights", [{Slot.BLUE: 101, Slot.GREEN: 0}, {Slot.BLUE: -1, Slot.GREEN: 0}, {Slot.BLUE: 100}])
def test_other_weights_are_refused(scene: Scene, weights: dict[Slot, int]) -> None:
    """0 to 100, one for each slot; else nothing changes."""
    scene.cloud.router.ensure_slots(scene.ctx, scene.route())
    scene.weights(100, 0)
    with pytest.raises(Refused):
        scene.cloud.router.set_weights(scene.ctx, scene.route(), weights)
    state = scene.cloud.router.observe(scene.ctx, scene.route())
    assert state.weights == {Slot.BLUE: 100, Slot.GREEN: 0}


@pytest.mark.parametrize("priority", [98, 99, 100])
def test_a_rule_of_somebody_elses_is_refused(scene: Scene, priority: int) -> None:
    """At any of the three priorities, by name, before anything is made."""
    scene.plant_rule(priority)
    router = scene.cloud.router
    with pytest.raises(NotOurs, match=rf"\b{priority}\b") as raised:
        router.observe(scene.ctx, scene.route())
    assert raised.value.hint
    with pytest.raises(NotOurs):
        router.ensure_slots(scene.ctx, scene.route())
    if priority == 100:
        with pytest.raises(NotOurs):
            router.set_weights(scene.ctx, scene.route(), {Slot.BLUE: 100, Slot.GREEN: 0})
    with pytest.raises(NotOurs):
        router.remove(scene.ctx, scene.route())
    free = router.observe(scene.ctx, scene.route(priority=200))
    assert dict(free.backends) == {}


def another(scene: Scene, **changes: object) -> Route:
    labels = tags.service_tags("other", "other/production", "ledger")
    return scene.route(service="other/production", tags=labels, **changes)


def test_another_services_rule_is_refused(scene: Scene) -> None:
    """Ours by its tags, but another service's: as foreign as any."""
    scene.cloud.router.ensure_slots(scene.ctx, scene.route())
    with pytest.raises(NotOurs, match="hello/production"):
        scene.cloud.router.observe(scene.ctx, another(scene, key="9876543210"))


def test_another_services_backend_is_refused(scene: Scene) -> None:
    """Two services whose keys collide do not share machines."""
    scene.cloud.router.ensure_slots(scene.ctx, scene.route())
    with pytest.raises(NotOurs, match="hello/production"):
        scene.cloud.router.observe(scene.ctx, another(scene, priority=200))


def test_two_services_share_a_listener(scene: Scene) -> None:
    """Each sees its own rules and backends alone."""
    route = another(scene, key="9876543210", priority=200, path="/other/*")
    scene.cloud.router.ensure_slots(scene.ctx, scene.route())
    scene.cloud.router.ensure_slots(scene.ctx, route)
    ours, theirs = (scene.cloud.router.observe(scene.ctx, each) for each in (scene.route(), route))
    assert not set(ours.backends.values()) & set(theirs.backends.values())
    assert not set(ours.rules.values()) & set(theirs.rules.values())
    scene.cloud.router.remove(scene.ctx, route)
    assert scene.cloud.router.observe(scene.ctx, scene.route()) == ours


def test_targets_become_healthy(scene: Scene) -> None:
    """A machine is registered, is checked though its slot has no weight yet, and becomes healthy."""
    scene.stand(Slot.GREEN, "hello-1", capacity=1)
    seen: set[str] = set()

    def healthy() -> bool:
        seen.update(target.state for target in scene.health(Slot.GREEN))
        return "healthy" in seen

    scene.until(healthy)
    expected = {scene.unchecked, "healthy"}
    assert seen <= expected | scene.while_booting
    # Between two looks at an account a state may come and go.
    assert expected <= seen or scene.pause > 1
    assert scene.health(Slot.BLUE) == ()


@pytest.mark.parametrize("guest", [Guest.HANGS, Guest.SICK])
def test_a_sick_machine_is_said_to_be(scene: Scene, guest: Guest) -> None:
    """A machine that does not answer, or answers 500, becomes unhealthy, with a reason."""
    scene.stand(Slot.GREEN, "hello-1", guest, capacity=1)
    scene.until(lambda: [target.state for target in scene.health(Slot.GREEN)] == ["unhealthy"])
    (target,) = scene.health(Slot.GREEN)
    assert target.reason


def test_traffic_follows_the_weights(scene: Scene) -> None:
    """Before a slot has weight nobody of it answers; after a switch, within bounded time, nobody else does."""
    scene.stand(Slot.BLUE, "hello-1")
    scene.stand(Slot.GREEN, "hello-2")
    scene.until(lambda: scene.healthy(Slot.BLUE) == scene.healthy(Slot.GREEN) == 2)
    scene.weights(100, 0)
    scene.until(lambda: scene.answering() == {"hello-1"})
    scene.weights(0, 100)
    scene.until(lambda: scene.answering() == {"hello-2"})
    scene.weights(50, 50)
    scene.until(lambda: scene.answering(30) == {"hello-1", "hello-2"})


def test_the_preview_reaches_an_idle_slot(scene: Scene) -> None:
    """With the header a request reaches the slot it names, whatever the weights and before there are any."""
    scene.stand(Slot.BLUE, "hello-1")
    scene.stand(Slot.GREEN, "hello-2")
    scene.until(lambda: scene.healthy(Slot.BLUE) == scene.healthy(Slot.GREEN) == 2)

    def previewed(slot: str) -> str | None:
        return scene.ask({"x-preview": slot}).headers.get("x-release")

    scene.until(lambda: (previewed("blue"), previewed("green")) == ("hello-1", "hello-2"))
    scene.weights(100, 0)
    scene.until(lambda: scene.answering() == {"hello-1"})
    assert previewed("green") == "hello-2"


def test_a_host_and_a_path_narrow_a_route(scene: Scene) -> None:
    """Only requests that match both reach the slots, previews included."""
    route = scene.route(host="*.hello.example", path="/api/*")
    router = scene.cloud.router
    router.ensure_slots(scene.ctx, route)
    image = scene.image(ReleaseId("hello-1"), Guest.SERVES)
    scene.cloud.groups.ensure(scene.ctx, scene.request(Slot.BLUE, "hello-1", image, route=route))
    router.set_weights(scene.ctx, route, {Slot.BLUE: 100, Slot.GREEN: 0})
    scene.until(lambda: sum(each.state == "healthy" for each in router.health(scene.ctx, route, Slot.BLUE)) == 2)

    def reached(host: str, path: str, **headers: str) -> bool:
        state = router.observe(scene.ctx, route)
        request = ProbeRequest(f"{state.base_url}{path}", {"Host": host, **headers}, address=state.addresses[0])
        return scene.prober.probe(scene.ctx, request).headers.get("x-release") == "hello-1"

    scene.until(lambda: reached("a.hello.example", "/api/x"))
    assert reached("A.HELLO.example", "/api/")
    assert not reached("hello.example", "/api/x")
    assert not reached("a.hello.example", "/other")
    scene.until(lambda: reached("a.hello.example", "/api/x", **{"x-preview": "blue"}))
    assert not reached("other.example", "/api/x", **{"x-preview": "blue"})


def test_removing_leaves_nothing(scene: Scene) -> None:
    """Rules and backends go, repeatedly; the listener answers as if the route had never been."""
    router = scene.cloud.router
    nobody = scene.ask().status
    scene.stand(Slot.BLUE, "hello-1", capacity=1)
    scene.weights(100, 0)
    scene.until(lambda: scene.answering() == {"hello-1"})
    for _ in range(2):
        router.remove(scene.ctx, scene.route())
        state = router.observe(scene.ctx, scene.route())
        assert (dict(state.backends), state.weights, dict(state.rules)) == ({}, None, {})
    scene.until(lambda: scene.ask().status == nobody)
