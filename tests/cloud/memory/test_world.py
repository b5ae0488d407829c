"""The memory cloud's own story: what tests script, and what they can see of it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.cloud.interfaces import MachineState, ReleaseId, Slot
from osvdeploy.cloud.memory import Call, Moment, Timing
from osvdeploy.errors import Unavailable
from tests.contract.memory_scene import MemoryScene, memory_scene
from tests.contract.scenes import SERVICE, Guest


@pytest.fixture
def scene() -> MemoryScene:
    return memory_scene()


def test_a_release_that_cannot_be_started_says_why(scene: MemoryScene) -> None:
    """A place without room starts nothing, keeps trying, and says so; when there is room, it starts."""
    scene.place.behave("hello-1", launch_fails="no capacity for t3.nano here")
    made = scene.stand(Slot.BLUE, "hello-1")
    scene.ctx.sleep(30)
    seen = scene.cloud.groups.observe(scene.ctx, made.name)
    assert seen is not None
    assert (seen.machines, seen.troubles) == ((), ("no capacity for t3.nano here",))
    scene.place.behave("hello-1", launch_fails=None)
    scene.until(lambda: scene.healthy(Slot.BLUE) == 2)
    seen = scene.cloud.groups.observe(scene.ctx, made.name)
    assert seen is not None and seen.troubles == ()


def test_a_machine_that_dies_is_replaced(scene: MemoryScene) -> None:
    """It is told of as gone, with a note, and another takes its place."""
    scene.place.behave("hello-1", dies_at=30.0)
    made = scene.stand(Slot.BLUE, "hello-1", capacity=1)
    scene.until(lambda: len(scene.cloud.groups.machines(scene.ctx, made.name)) == 2)
    newest, oldest = scene.cloud.groups.machines(scene.ctx, made.name)
    assert (oldest.state, bool(oldest.note)) == (MachineState.GONE, True)
    assert newest.state is not MachineState.GONE


def test_machines_of_a_group_come_up_apart(scene: MemoryScene) -> None:
    """Each so many seconds later than the one before."""
    scene.place.behave("hello-1", apart=20.0)
    scene.stand(Slot.BLUE, "hello-1", capacity=3)
    found, began = list[int](), scene.ctx.clock.monotonic()
    for seconds in (15, 35, 60):
        scene.ctx.sleep(began + seconds - scene.ctx.clock.monotonic())
        found.append(scene.healthy(Slot.BLUE))
    assert found == [1, 2, 3]


def test_a_release_can_turn_sick(scene: MemoryScene) -> None:
    """What was healthy becomes unhealthy, and a balancer with nothing healthy left sends to what there is."""
    scene.place.behave("hello-1", sick_after=60.0)
    scene.stand(Slot.BLUE, "hello-1", capacity=1)
    scene.weights(100, 0)
    scene.until(lambda: scene.answering() == {"hello-1"} and scene.ask().status == 200)
    scene.until(lambda: [target.state for target in scene.health(Slot.BLUE)] == ["unhealthy"])
    assert scene.ask().status == 500


def test_answers_come_in_turn(scene: MemoryScene) -> None:
    """A release that fails every third request while its health checks pass."""
    scene.place.behave("hello-1", answers=(200, 200, 500), health=200)
    scene.stand(Slot.BLUE, "hello-1")
    scene.weights(100, 0)
    scene.until(lambda: scene.healthy(Slot.BLUE) == 2)
    assert sorted(scene.ask().status or 0 for _ in range(6)) == [200, 200, 200, 200, 500, 500]


def test_each_entry_point_learns_in_its_own_time() -> None:
    """A switch is in force at one address while another still sends by the old weights."""
    scene = memory_scene(Timing(propagation=(1.0, 20.0)))
    scene.stand(Slot.BLUE, "hello-1")
    scene.stand(Slot.GREEN, "hello-2")
    scene.weights(100, 0)
    scene.until(lambda: scene.answering() == {"hello-1"})
    scene.weights(0, 100)
    scene.ctx.sleep(5)
    first, second = scene.cloud.router.observe(scene.ctx, scene.route()).addresses
    assert scene.ask(address=first).headers["x-release"] == "hello-2"
    assert scene.ask(address=second).headers["x-release"] == "hello-1"
    assert scene.place.serving == {"hello-2"}
    scene.ctx.sleep(20)
    assert scene.ask(address=second).headers["x-release"] == "hello-2"


@settings(max_examples=20, deadline=None)
@given(blue=st.integers(0, 100), requests=st.integers(1, 120))
def test_weights_are_kept_exactly(blue: int, requests: int) -> None:
    """Of any run of requests each slot gets its share, to within one."""
    scene = memory_scene(Timing(propagation=(0.0,)))
    scene.stand(Slot.BLUE, "hello-1", capacity=1)
    scene.stand(Slot.GREEN, "hello-2", capacity=1)
    scene.until(lambda: scene.healthy(Slot.BLUE) == scene.healthy(Slot.GREEN) == 1)
    scene.weights(blue, 100 - blue)
    answers = [scene.ask().headers["x-release"] for _ in range(requests)]
    assert abs(answers.count("hello-1") - requests * blue / 100) <= 1


class Killed(BaseException):
    """The process dies here."""


@pytest.mark.parametrize("operation", ["groups.create_template", "groups.create_group"])
def test_two_that_make_one_group_at_once_make_one(scene: MemoryScene, operation: str) -> None:
    """Whose call comes late finds the name taken: no machines are left behind that nobody counts."""

    scene.cloud.router.ensure_slots(scene.ctx, scene.route())
    wanted = scene.request(Slot.BLUE, "hello-1", scene.image(ReleaseId("hello-1"), Guest.SERVES), 2)

    def meanwhile(call: Call, moment: Moment) -> None:
        if call.operation == operation and moment is Moment.BEFORE:
            scene.place.on_call(None)
            scene.cloud.groups.ensure(scene.ctx, wanted)

    scene.place.on_call(meanwhile)
    scene.cloud.groups.ensure(scene.ctx, wanted)
    scene.until(lambda: scene.healthy(Slot.BLUE) == 2)
    scene.ctx.sleep(60)
    assert len(scene.health(Slot.BLUE)) == 2


@pytest.mark.parametrize("moment", list(Moment))
def test_the_hook_can_kill_before_and_after(scene: MemoryScene, moment: Moment) -> None:
    """Before, nothing happened; after, it did, though nobody heard of it."""
    scene.cloud.router.ensure_slots(scene.ctx, scene.route())

    def kill(call: Call, at: Moment) -> None:
        if call.operation == "router.create_rule" and at is moment:
            raise Killed

    scene.place.on_call(kill)
    with pytest.raises(Killed):
        scene.weights(100, 0)
    scene.place.on_call(None)
    weights = scene.cloud.router.observe(scene.ctx, scene.route()).weights
    assert (weights is not None) is (moment is Moment.AFTER)


def test_planned_faults_reach_every_port(scene: MemoryScene) -> None:
    """One list of faults for the whole cloud."""
    scene.cloud.router.ensure_slots(scene.ctx, scene.route())
    scene.place.faults.fail("router.observe", Unavailable("throttled"))
    with pytest.raises(Unavailable):
        scene.cloud.router.observe(scene.ctx, scene.route())
    scene.cloud.router.observe(scene.ctx, scene.route())


def test_the_log_tells_what_was_changed(scene: MemoryScene) -> None:
    """Calls that change something, one by one, with what they were about."""
    scene.stand(Slot.BLUE, "hello-1", capacity=1)
    scene.weights(100, 0)
    told = [str(call) for call in scene.place.mutations if call.operation.startswith(("router", "groups"))]
    assert [line.partition("(")[0] for line in told] == [
        "router.create_backend",
        "router.create_backend",
        "router.create_rule",
        "router.create_rule",
        "groups.create_template",
        "groups.create_group",
        "router.create_rule",
    ]
    assert told[-1] == "router.create_rule(100, blue=100, green=0)"


def test_the_world_outlives_a_controller(scene: MemoryScene) -> None:
    """What one view made, another sees; what stands and serves can be asked for."""
    made = scene.stand(Slot.BLUE, "hello-1", capacity=1)
    scene.weights(100, 0)
    scene.until(lambda: scene.healthy(Slot.BLUE) == 1)
    again = scene.place.cloud
    assert again.groups.observe(scene.ctx, made.name) == scene.cloud.groups.observe(scene.ctx, made.name)
    assert scene.place.running == scene.place.serving == {ReleaseId("hello-1")}
    assert len(scene.place.standing) == 2 + 2 + 3
    again.groups.delete(scene.ctx, made.name)
    scene.until(lambda: not scene.place.running)
    again.router.remove(scene.ctx, scene.route())
    again.groups.delete_template(scene.ctx, made.name)
    assert scene.place.standing == set()


def test_somebody_can_change_weights_behind_our_back(scene: MemoryScene) -> None:
    """What another hand set is what is observed."""
    scene.cloud.router.ensure_slots(scene.ctx, scene.route())
    scene.weights(100, 0)
    scene.place.set_weights(SERVICE, {Slot.BLUE: 1, Slot.GREEN: 2})
    state = scene.cloud.router.observe(scene.ctx, scene.route())
    assert state.weights == {Slot.BLUE: 1, Slot.GREEN: 2}
