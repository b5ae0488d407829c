"""What every implementation of TrafficRouter promises, and every Prober that asks through it.

``way`` is every way in; ``scene`` those with rules and weights. A ``pointer`` has neither: all that comes to it is one
service's, so there are no shares, no other rules beside its own, no hosts and paths, no second service.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from osvdeploy.cloud import tags
from osvdeploy.cloud.interfaces import ProbeRequest, ReleaseId, Route, Slot
from osvdeploy.errors import NotFound, NotOurs, Refused
from tests.contract.scenes import SERVICE, Guest, Scene


def test_a_route_begins_with_nothing(way: Scene) -> None:
    """Looking makes nothing, and tells where a client will enter."""
    for _ in range(2):
        state = way.cloud.router.observe(way.ctx, way.route())
        assert (dict(state.backends), state.weights, dict(state.rules)) == ({}, None, {})
        assert state.base_url.startswith("http://")
        assert state.addresses
    assert way.health(Slot.BLUE) == ()


def test_an_unknown_listener_is_not_found(way: Scene) -> None:
    """Whatever is asked of a listener that does not exist."""
    gone = way.listener[:-1] + ("0" if way.listener[-1] != "0" else "1")
    route = way.route(listener=gone)
    with pytest.raises(NotFound):
        way.cloud.router.observe(way.ctx, route)
    with pytest.raises(NotFound):
        way.cloud.router.ensure_slots(way.ctx, route)
    assert way.cloud.router.weights_of(way.ctx, [route]) == {}


def test_slots_are_made_once(way: Scene) -> None:
    """Both backends and both preview rules; the route's own rule is not made; a second call adds nothing."""
    way.cloud.router.ensure_slots(way.ctx, way.route())
    state = way.cloud.router.observe(way.ctx, way.route())
    assert set(state.backends) == set(Slot)
    assert len(set(state.backends.values())) == 2
    assert len(set(state.rules.values())) == 2
    assert state.weights is None
    way.cloud.router.ensure_slots(way.ctx, way.route())
    assert way.cloud.router.observe(way.ctx, way.route()) == state


def test_weights_read_back_as_set(scene: Scene) -> None:
    """The first setting makes the route's rule, later ones change it; both slots are always in it."""
    scene.cloud.router.ensure_slots(scene.ctx, scene.route())
    rules = set()
    for blue, green in ((100, 0), (95, 5), (0, 100), (50, 50)):
        scene.weights(blue, green)
        state = scene.cloud.router.observe(scene.ctx, scene.route())
        assert state.weights == {Slot.BLUE: blue, Slot.GREEN: green}
        many = [scene.route(), scene.route(key="9876543210", service="another/production", priority=200)]
        assert scene.cloud.router.weights_of(scene.ctx, many) == {many[0].key: state.weights, many[1].key: None}
        assert len(state.rules) == 3
        rules.add(tuple(sorted(state.rules.values())))
    assert len(rules) == 1


def test_setting_weights_is_one_change(way: Scene) -> None:
    """One mutating call moves traffic: the first time, and every time."""
    way.cloud.router.ensure_slots(way.ctx, way.route())
    for blue, green in ((100, 0), (0, 100)):
        before = way.mutations()
        way.weights(blue, green)
        assert way.mutations() == before + 1
        told = way.cloud.router.weights_of(way.ctx, [way.route()])
        assert told == {way.route().key: {Slot.BLUE: blue, Slot.GREEN: green}}


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


def test_another_services_rule_is_refused(way: Scene) -> None:
    """Ours by its tags, but another service's: as foreign as any."""
    way.cloud.router.ensure_slots(way.ctx, way.route())
    with pytest.raises(NotOurs, match="hello/production"):
        way.cloud.router.observe(way.ctx, another(way, key="9876543210"))


def test_another_services_backend_is_refused(way: Scene) -> None:
    """Two services whose keys collide do not share machines."""
    way.cloud.router.ensure_slots(way.ctx, way.route())
    with pytest.raises(NotOurs, match="hello/production"):
        way.cloud.router.observe(way.ctx, another(way, priority=200))


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


def test_targets_become_healthy(way: Scene) -> None:
    """A machine is registered, is checked though its slot has no weight yet, and becomes healthy."""
    way.stand(Slot.GREEN, "hello-1", capacity=1)
    seen: set[str] = set()

    def healthy() -> bool:
        seen.update(target.state for target in way.health(Slot.GREEN))
        return "healthy" in seen

    way.until(healthy)
    expected = {way.unchecked, "healthy"}
    assert seen <= expected | way.while_booting
    # Between two looks at an account a state may come and go.
    assert expected <= seen or way.pause > 1
    assert way.health(Slot.BLUE) == ()


@pytest.mark.parametrize("guest", [Guest.HANGS, Guest.SICK])
def test_a_sick_machine_is_said_to_be(way: Scene, guest: Guest) -> None:
    """A machine that does not answer, or answers 500, becomes unhealthy, with a reason."""
    way.stand(Slot.GREEN, "hello-1", guest, capacity=1)
    way.until(lambda: [target.state for target in way.health(Slot.GREEN)] == ["unhealthy"])
    (target,) = way.health(Slot.GREEN)
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


def test_the_preview_reaches_an_idle_slot(way: Scene) -> None:
    """With the header a request reaches the slot it names, whatever the weights and before there are any; where there
    is none, a slot has an address of its own."""
    way.stand(Slot.BLUE, "hello-1")
    way.stand(Slot.GREEN, "hello-2")
    way.until(lambda: way.healthy(Slot.BLUE) == way.healthy(Slot.GREEN) == 2)

    def previewed(slot: Slot) -> str | None:
        return way.previewed(slot).headers.get("x-release")

    way.until(lambda: (previewed(Slot.BLUE), previewed(Slot.GREEN)) == ("hello-1", "hello-2"))
    way.weights(100, 0)
    way.until(lambda: way.answering() == {"hello-1"})
    assert previewed(Slot.GREEN) == "hello-2"


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


def test_a_stranger_with_weight_in_the_rule_is_told_until_weights_are_set(scene: Scene) -> None:
    """Whoever it is takes clients that the weights of the slots do not show: setting those takes it out."""
    scene.stand(Slot.BLUE, "hello-1", capacity=1)
    scene.weights(100, 0)
    scene.until(lambda: scene.answering() == {"hello-1"})
    assert scene.cloud.router.observe(scene.ctx, scene.route()).changed == ""
    scene.share_out(900)
    scene.until(lambda: "" in scene.answering())
    state = scene.cloud.router.observe(scene.ctx, scene.route())
    assert state.weights == {Slot.BLUE: 100, Slot.GREEN: 0}
    assert state.changed.startswith("sends 900 of 1000 to ")
    scene.weights(100, 0)
    assert scene.cloud.router.observe(scene.ctx, scene.route()).changed == ""
    scene.until(lambda: scene.answering(30) == {"hello-1"})


def test_a_rule_that_takes_other_requests_is_told_until_weights_are_set(scene: Scene) -> None:
    """The slots have all of its weights, and no client comes to them; the previews go on."""
    scene.stand(Slot.BLUE, "hello-1", capacity=1)
    scene.weights(100, 0)
    scene.until(lambda: scene.answering() == {"hello-1"})
    scene.narrow("/nowhere")
    scene.until(lambda: scene.answering() == {""})
    state = scene.cloud.router.observe(scene.ctx, scene.route())
    assert state.weights == {Slot.BLUE: 100, Slot.GREEN: 0}
    assert scene.previewed(Slot.BLUE).headers.get("x-release") == "hello-1"
    assert "/nowhere" in state.changed and "every request" in state.changed
    before = scene.mutations()
    scene.weights(100, 0)
    assert scene.mutations() == before + 1
    assert scene.cloud.router.observe(scene.ctx, scene.route()).changed == ""
    scene.until(lambda: scene.answering() == {"hello-1"})


def test_removing_leaves_nothing(way: Scene) -> None:
    """Rules and backends go, repeatedly; the listener answers as if the route had never been."""
    router = way.cloud.router
    nobody = way.ask().status
    way.stand(Slot.BLUE, "hello-1", capacity=1)
    way.weights(100, 0)
    way.until(lambda: way.answering() == {"hello-1"})
    for _ in range(2):
        router.remove(way.ctx, way.route())
        state = router.observe(way.ctx, way.route())
        assert (dict(state.backends), state.weights, dict(state.rules)) == ({}, None, {})
    way.until(lambda: way.ask().status == nobody)


def test_slow_start_is_set_with_the_slots_and_changed_in_use(way: Scene) -> None:
    """For both at once, where the place has it; else it is refused when it is wanted, and none is told of."""
    router, ctx = way.cloud.router, way.ctx
    assert [router.slow_start(ctx, way.route(), slot) for slot in Slot] == [None, None]
    router.set_slow_start(ctx, way.route())
    router.ensure_slots(ctx, way.route(slow_start=45.0))
    told = [router.slow_start(ctx, way.route(), slot) for slot in Slot]
    if told == [None, None]:
        with pytest.raises(Refused):
            router.set_slow_start(ctx, way.route(slow_start=60.0))
        return
    assert told == [45.0, 45.0]
    for seconds in (60.0, 60.0, 0.0):
        router.set_slow_start(ctx, way.route(slow_start=seconds))
        assert [router.slow_start(ctx, way.route(), slot) for slot in Slot] == [seconds, seconds]


def test_how_machines_are_checked_is_told_as_the_route_has_it(way: Scene) -> None:
    """Whatever the place rounds up; where it is another, as it is."""
    router, ctx = way.cloud.router, way.ctx
    declared = replace(way.route().health, interval=5.5)
    assert [router.check_of(ctx, way.route(), slot) for slot in Slot] == [None, None]
    router.ensure_slots(ctx, way.route(health=declared))
    assert [router.check_of(ctx, way.route(health=declared), slot) for slot in Slot] == [declared] * 2
    other = replace(declared, path="/other", unhealthy=4)
    found = [router.check_of(ctx, way.route(health=other), slot) for slot in Slot]
    assert [each is not None and each.unhealthy for each in found] == [declared.unhealthy] * 2


def test_a_pointer_is_known_as_one(pointer: Scene) -> None:
    """It says so before anything is made, and where each slot is asked once it is wired."""
    router = pointer.cloud.router
    state = router.observe(pointer.ctx, pointer.route())
    assert (state.weighted, dict(state.previews)) == (False, {})
    router.ensure_slots(pointer.ctx, pointer.route())
    state = router.observe(pointer.ctx, pointer.route())
    assert set(state.previews) == set(Slot)
    assert len({*state.previews.values(), state.base_url}) == 3


def test_a_pointer_leads_to_one_slot(pointer: Scene) -> None:
    """It reads back as all or nothing; shares are refused, and change nothing."""
    pointer.cloud.router.ensure_slots(pointer.ctx, pointer.route())
    for blue, green in ((100, 0), (0, 100), (100, 0)):
        pointer.weights(blue, green)
        state = pointer.cloud.router.observe(pointer.ctx, pointer.route())
        assert state.weights == {Slot.BLUE: blue, Slot.GREEN: green}
        assert set(state.rules) == {"route", "preview-blue", "preview-green"}
    for shares in ((95, 5), (50, 50), (100, 100), (0, 0)):
        with pytest.raises(Refused, match="no weights"):
            pointer.weights(*shares)
    state = pointer.cloud.router.observe(pointer.ctx, pointer.route())
    assert state.weights == {Slot.BLUE: 100, Slot.GREEN: 0}


def test_traffic_follows_a_pointer(pointer: Scene) -> None:
    """After a switch, within bounded time, nobody else answers; and on the way nobody is without an answer."""
    pointer.stand(Slot.BLUE, "hello-1")
    pointer.stand(Slot.GREEN, "hello-2")
    pointer.until(lambda: pointer.healthy(Slot.BLUE) == pointer.healthy(Slot.GREEN) == 2)
    pointer.weights(100, 0)
    pointer.until(lambda: pointer.answering() == {"hello-1"})
    for blue, green, serving in ((0, 100, "hello-2"), (100, 0, "hello-1")):
        pointer.weights(blue, green)
        seen: set[str] = set()

        def moved(serving: str = serving, seen: set[str] = seen) -> bool:
            answering = pointer.answering()
            seen.update(answering)
            return answering == {serving}

        pointer.until(moved)
        assert "" not in seen


def test_a_pointer_at_somebody_elses_machines_is_refused(pointer: Scene) -> None:
    """Before anything is made: nobody's traffic is taken away unasked."""
    pointer.plant_rule(0)
    router, route = pointer.cloud.router, pointer.route()
    before = pointer.mutations()
    with pytest.raises(NotOurs) as raised:
        router.observe(pointer.ctx, route)
    assert raised.value.hint
    with pytest.raises(NotOurs):
        router.ensure_slots(pointer.ctx, route)
    with pytest.raises(NotOurs):
        router.set_weights(pointer.ctx, route, {Slot.BLUE: 100, Slot.GREEN: 0})
    # Nothing of ours is there to be taken away.
    router.remove(pointer.ctx, route)
    assert pointer.mutations() == before


def test_a_route_is_found_by_its_service_alone(way: Scene) -> None:
    """Once it sends traffic: with all that its rules, its backends and their checks tell."""
    router, wanted = way.cloud.router, way.route()
    assert router.find(way.ctx, SERVICE, wanted.key) == []
    made = way.stand(Slot.BLUE, "hello-1", capacity=1)
    way.weights(100, 0)
    found = router.find(way.ctx, SERVICE, wanted.key)
    assert len(found) == 1
    # What stands in for "every request" may be told as the path that it is.
    path = None if found[0].path == "/*" else found[0].path
    assert replace(found[0], path=path) == wanted
    assert router.find(way.ctx, "other/production", "9876543210") == []
    way.cloud.groups.delete(way.ctx, made.name)
    way.until(lambda: way.cloud.groups.observe(way.ctx, made.name) is None)
    router.remove(way.ctx, wanted)
    assert router.find(way.ctx, SERVICE, wanted.key) == []


def test_a_route_keeps_a_note_of_what_was_left(way: Scene) -> None:
    """Until it is taken away, by whatever process, and whatever weights are set meanwhile."""
    router, route = way.cloud.router, way.route()
    way.stand(Slot.BLUE, "hello-1", capacity=1)
    with pytest.raises(NotFound):
        router.note_left(way.ctx, route, ReleaseId("hello-2"))
    way.weights(0, 100)
    assert router.observe(way.ctx, route).left is None
    for _ in range(2):
        router.note_left(way.ctx, route, ReleaseId("hello-2"))
    assert router.observe(way.ctx, route).left == "hello-2"
    way.weights(100, 0)
    seen = router.observe(way.ctx, route)
    assert (seen.left, seen.weights) == ("hello-2", {Slot.BLUE: 100, Slot.GREEN: 0})
    for _ in range(2):
        router.note_left(way.ctx, route, None)
    seen = router.observe(way.ctx, route)
    assert (seen.left, seen.weights) == (None, {Slot.BLUE: 100, Slot.GREEN: 0})
