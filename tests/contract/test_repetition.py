"""What a killed process began, the next one goes on with: every call of every port may be repeated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from osvdeploy.cloud.interfaces import GroupRequest, ReleaseId, Slot
from osvdeploy.errors import NotFound, Unavailable
from tests.contract.scenes import Guest, Scene

pytestmark = [
    pytest.mark.slow,
    pytest.mark.not_live(
        "calls to an account cannot be struck before they take effect; tests/faults does it in the sandbox"
    ),
]


class Killed(BaseException):
    """The process dies here."""


def dying(scene: Scene, work: Callable[[], None]) -> int:
    """Do work that dies at each kind of change: twice before it takes effect, twice after. Returns the deaths."""
    died: Counter[tuple[str, bool]] = Counter()

    def kill(operation: str, after: bool) -> None:
        if died[operation, after] < 2:
            died[operation, after] += 1
            raise Killed

    for _ in range(200):
        scene.on_change(kill)
        try:
            work()
        except Killed:
            continue
        except (NotFound, Unavailable):
            scene.ctx.sleep(1)
            continue
        finally:
            scene.on_change(None)
        return died.total()
    raise AssertionError("never came to an end")


def test_a_service_is_made_and_removed_by_processes_that_die(scene: Scene) -> None:
    """However often and wherever they die: each thing is there once in the end, and then nothing."""
    ctx, cloud, route = scene.ctx, scene.cloud, scene.route()
    image = scene.image(ReleaseId("hello-1"), Guest.SERVES)
    requests: list[GroupRequest] = []

    def make() -> None:
        cloud.router.ensure_slots(ctx, route)
        request = scene.request(Slot.BLUE, "hello-1", image)
        cloud.groups.ensure(ctx, request)
        scene.weights(100, 0)
        requests[:] = [request]

    assert dying(scene, make) >= 12
    (request,) = requests
    state = cloud.router.observe(ctx, route)
    assert (set(state.backends), state.weights) == (set(Slot), {Slot.BLUE: 100, Slot.GREEN: 0})
    scene.until(lambda: scene.healthy(Slot.BLUE) == 2)
    scene.until(lambda: scene.answering() == {"hello-1"})
    ctx.sleep(120)
    assert len(cloud.groups.machines(ctx, request.name)) == 2
    assert cloud.groups.templates(ctx, {}) == [request.name]

    def unmake() -> None:
        cloud.groups.delete(ctx, request.name)
        cloud.router.remove(ctx, route)
        cloud.groups.delete_template(ctx, request.name)

    assert dying(scene, unmake) >= 8
    scene.until(lambda: cloud.groups.owned(ctx, {}) == [])
    state = cloud.router.observe(ctx, route)
    assert (dict(state.backends), state.weights, dict(state.rules)) == ({}, None, {})
    assert cloud.groups.templates(ctx, {}) == []


def test_scaling_is_handed_over_by_processes_that_die(scene: Scene) -> None:
    """However often and wherever: the one group is paused, the other is scaled as the first was, and nothing is there
    twice."""
    blue, green = scene.stand(Slot.BLUE, "hello-1"), scene.stand(Slot.GREEN, "hello-2")
    scene.scale(blue.name, 1, 4)
    groups, wanted = scene.cloud.groups, scene.cloud.groups.scaling(scene.ctx, blue.name)
    assert wanted is not None

    def hand_over() -> None:
        groups.pause(scene.ctx, blue.name)
        groups.apply(scene.ctx, green.name, wanted)

    assert dying(scene, hand_over) >= 4
    found, left = groups.scaling(scene.ctx, green.name), groups.scaling(scene.ctx, blue.name)
    assert groups.follows(scene.ctx, green.name, wanted)
    assert found is not None and (found.rules, len(found.parts)) == (wanted.rules, len(wanted.parts))
    assert left is not None and left.paused

    assert dying(scene, lambda: groups.resume(scene.ctx, blue.name, wanted)) >= 2
    assert groups.scaling(scene.ctx, blue.name) == wanted
