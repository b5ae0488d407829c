"""What every place promises of somebody else's group: it stands behind a slot too, with its traffic, and is let go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from osvdeploy.cloud import tags
from osvdeploy.cloud.interfaces import AttachRequest, ReleaseId, Slot
from osvdeploy.errors import NotFound, NotOurs, UsageError
from tests.contract.scenes import SERVICE, SERVICE_TAGS, Scene

GROUP = "legacy"


def request(scene: Scene, *, release: str = "hello-0", own: bool = False, service: str = SERVICE) -> AttachRequest:
    """The group behind slot blue, which is wired as the rollout does it: again, once it is known what stands there."""
    scene.cloud.router.ensure_slots(scene.ctx, scene.route())
    backend = scene.cloud.router.observe(scene.ctx, scene.route()).backends[Slot.BLUE]
    labels = tags.release_tags(
        tags.slot_tags({**SERVICE_TAGS, tags.SERVICE: service}, Slot.BLUE),
        release=ReleaseId(release),
        version="0",
        image=SERVICE_TAGS[tags.APP],  # type: ignore[arg-type]  # any text
        configuration="none",  # type: ignore[arg-type]
        digest="none",  # type: ignore[arg-type]
    )
    return AttachRequest(GROUP, ReleaseId(release), backend, tags.adopted_tags(labels, backend, own=own))


@pytest.fixture
def theirs(scene: Scene) -> Scene:
    """Somebody's group has every request."""
    scene.plant_service(GROUP, 200)
    scene.until(lambda: scene.ask().status == 200)
    return scene


def test_a_group_stands_behind_a_slot_beside_where_it_stood(theirs: Scene) -> None:
    """It becomes healthy there, and what has its traffic goes on having it."""
    groups = theirs.cloud.groups
    assert groups.owned(theirs.ctx, {}) == []
    for _ in range(2):
        groups.attach(theirs.ctx, request(theirs))
    theirs.until(lambda: theirs.healthy(Slot.BLUE) == 2)
    assert theirs.ask().status == 200
    [found] = groups.owned(theirs.ctx, {tags.SERVICE: SERVICE})
    assert (found.name, found.release, found.capacity, found.deleting) == (GROUP, "hello-0", 2, False)
    assert found.tags[tags.SLOT] == "blue"
    theirs.cloud.router.ensure_slots(theirs.ctx, theirs.route())
    theirs.until(lambda: theirs.previewed(Slot.BLUE).status == 200)
    assert theirs.previewed(Slot.BLUE).status == 200


def test_the_routes_rule_takes_their_traffic_and_gives_it_back(theirs: Scene) -> None:
    """Nobody is left without an answer; giving back twice is once."""
    router = theirs.cloud.router
    theirs.cloud.groups.attach(theirs.ctx, request(theirs))
    theirs.until(lambda: theirs.healthy(Slot.BLUE) == 2)
    theirs.weights(100, 0)
    for _ in range(40):
        theirs.ctx.sleep(1)
        assert theirs.ask().status == 200
    for _ in range(2):
        router.give_back(theirs.ctx, theirs.route())
        assert router.observe(theirs.ctx, theirs.route()).weights is None
    router.ensure_slots(theirs.ctx, theirs.route())
    assert set(router.observe(theirs.ctx, theirs.route()).backends) == set(Slot)
    for _ in range(40):
        theirs.ctx.sleep(1)
        assert theirs.ask().status == 200


def test_deleting_lets_a_group_go_that_is_kept(theirs: Scene) -> None:
    """It stays as it was: its machines, its traffic, without anything of ours."""
    groups = theirs.cloud.groups
    groups.attach(theirs.ctx, request(theirs))
    theirs.until(lambda: theirs.healthy(Slot.BLUE) == 2)
    groups.delete(theirs.ctx, GROUP)
    theirs.until(lambda: groups.owned(theirs.ctx, {}) == [] and theirs.health(Slot.BLUE) == ())
    assert len([each for each in groups.machines(theirs.ctx, GROUP) if each.state == "running"]) == 2
    theirs.cloud.router.remove(theirs.ctx, theirs.route())
    assert theirs.ask().status == 200
    with pytest.raises(NotOurs):
        groups.delete(theirs.ctx, GROUP)


def test_what_scales_a_group_goes_on_though_it_was_made_larger(theirs: Scene) -> None:
    """To be put behind a slot again with more machines, it may have to be turned off."""
    groups = theirs.cloud.groups
    theirs.scale(GROUP, 1, 6)
    before = groups.scaling(theirs.ctx, GROUP)
    assert before is not None and not before.paused
    for _ in range(2):
        groups.attach(theirs.ctx, replace(request(theirs), capacity=3))
    there = groups.observe(theirs.ctx, GROUP)
    assert there is not None and there.capacity == 3
    for _ in range(2):
        groups.resume(theirs.ctx, GROUP, before, grown=True)
    after = groups.scaling(theirs.ctx, GROUP)
    assert after is not None and replace(after, desired=2) == before


def test_what_scales_a_group_is_given_to_the_one_that_comes(theirs: Scene) -> None:
    """A policy by requests of their target group, which is called as the group is, counts those of the new one's."""
    groups = theirs.cloud.groups
    groups.attach(theirs.ctx, request(theirs))
    theirs.scale(GROUP, 1, 6)
    found = groups.scaling(theirs.ctx, GROUP)
    assert found is not None
    made = theirs.stand(Slot.GREEN, "hello-1", capacity=2)
    groups.apply(theirs.ctx, made.name, found)
    assert groups.follows(theirs.ctx, made.name, found)
    given = groups.scaling(theirs.ctx, made.name)
    assert given is not None and given.rules == found.rules


def test_what_its_user_has_suspended_stays_so_though_it_was_made_larger(theirs: Scene) -> None:
    """It is as it was before."""
    groups = theirs.cloud.groups
    theirs.scale(GROUP, 1, 6)
    groups.pause(theirs.ctx, GROUP)
    before = groups.scaling(theirs.ctx, GROUP)
    assert before is not None and before.paused
    groups.attach(theirs.ctx, replace(request(theirs), capacity=3))
    groups.resume(theirs.ctx, GROUP, before, grown=True)
    after = groups.scaling(theirs.ctx, GROUP)
    assert after is not None and replace(after, desired=2) == before


def test_deleting_takes_a_group_away_that_was_given(theirs: Scene) -> None:
    """With its machines."""
    groups = theirs.cloud.groups
    groups.attach(theirs.ctx, request(theirs, own=True))
    theirs.until(lambda: theirs.healthy(Slot.BLUE) == 2)
    theirs.cloud.groups.shape(theirs.ctx, GROUP)
    if theirs.cloud.kind != "gcp":  # where a backend service of theirs still has it, Google deletes no group
        groups.delete(theirs.ctx, GROUP)
        theirs.until(lambda: groups.observe(theirs.ctx, GROUP) is None)


def test_a_group_of_another_service_is_not_attached(theirs: Scene) -> None:
    """Nor one of another release; nor one that is not there."""
    groups, first = theirs.cloud.groups, request(theirs)
    groups.attach(theirs.ctx, first)
    with pytest.raises(NotOurs):
        groups.attach(theirs.ctx, request(theirs, release="hello-1"))
    with pytest.raises(NotFound):
        groups.attach(theirs.ctx, AttachRequest("nobody", first.release, first.backend, first.tags))
    [found] = groups.owned(theirs.ctx, {})
    assert found.release == "hello-0"


@pytest.mark.parametrize("priority", [200, None])
def test_what_has_the_traffic_is_told(scene: Scene, priority: int | None) -> None:
    """A rule, or what stands for all that no rule takes; nothing is changed."""
    scene.plant_service(GROUP, priority)
    before = scene.mutations()
    told = scene.cloud.router.refuse_unadoptable(scene.ctx, scene.route(), GROUP)
    assert "200" in told or "default" in told or "50000" in told
    assert scene.mutations() == before


@pytest.mark.parametrize("changes", [{"priority": 200}, {"priority": 300}, {"path": "/other/*"}])
def test_a_route_that_would_not_take_just_their_requests_is_refused(scene: Scene, changes: dict[str, object]) -> None:
    """Behind theirs, in its place, or for other requests."""
    scene.plant_service(GROUP, 200)
    with pytest.raises(UsageError, match=GROUP):
        scene.cloud.router.refuse_unadoptable(scene.ctx, scene.route(**changes), GROUP)


def test_a_group_without_traffic_is_refused(scene: Scene) -> None:
    """There is nothing to go on with; nor is there a group of any name."""
    scene.plant_group("idle")
    with pytest.raises(UsageError, match="idle"):
        scene.cloud.router.refuse_unadoptable(scene.ctx, scene.route(), "idle")
    with pytest.raises(UsageError, match="nobody"):
        scene.cloud.router.refuse_unadoptable(scene.ctx, scene.route(), "nobody")


def test_behind_a_pointer_nothing_is_adopted(pointer: Scene) -> None:
    """It leads to one thing at a time."""
    with pytest.raises(UsageError):
        pointer.cloud.router.refuse_unadoptable(pointer.ctx, pointer.route(), GROUP)


@pytest.mark.parametrize("priority", [200, None])
def test_who_would_lose_the_requests_is_told(scene: Scene, priority: int | None) -> None:
    """Of somebody else's, and with machines; who has other requests would not, nor who comes first."""
    router = scene.cloud.router
    assert router.in_use(scene.ctx, scene.route()) == ""
    scene.plant_service(GROUP, priority)
    told = router.in_use(scene.ctx, scene.route())
    assert ("200" in told) if priority is not None else ("default" in told or "50000" in told)
    assert router.in_use(scene.ctx, scene.route(path="/other/*")) == ""
    if priority is not None:
        assert router.in_use(scene.ctx, scene.route(priority=300)) == ""


def test_nobody_loses_anything_behind_a_pointer_unsaid(pointer: Scene) -> None:
    """A pointer in use is refused by every look at it."""
    assert pointer.cloud.router.in_use(pointer.ctx, pointer.route()) == ""
