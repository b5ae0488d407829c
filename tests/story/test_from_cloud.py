"""Going back and writing a ledger anew by tags alone, on AWS and on Google, in virtual time."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from osvdeploy.api import ProbeFrom, from_cloud
from osvdeploy.api.from_cloud import WentBack, Whereabouts
from osvdeploy.cloud import gcp
from osvdeploy.cloud.interfaces import ProbeAnswer, Prober, ProbeRequest
from osvdeploy.context import Context
from osvdeploy.errors import UsageError
from osvdeploy.rollout.model import Outcome
from osvdeploy.rollout.releases import ProbePlace
from osvdeploy.sandbox.core import Moment
from osvdeploy.sandbox.wire import Call
from tests.aws_world import REGION, AwsWorld
from tests.contract.gcp_place import PROJECT
from tests.contract.gcp_scene import ZONE
from tests.gcp_world import GcpWorld
from tests.world import Prepared, World

pytestmark = [pytest.mark.slow, pytest.mark.sandbox]

HIDDEN = "ledger-out-of-reach"

PLACES: dict[str, Callable[[Path], World]] = {
    "aws": AwsWorld,
    "google": GcpWorld,
    "google-pointer": lambda folder: GcpWorld(folder, pointer=True),
}


@pytest.fixture(scope="module", params=PLACES)
def prepared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Prepared[Any]:
    """1.1.0 serves, and 1.0.0 stands warm beside it."""
    world: Any = PLACES[request.param](tmp_path_factory.mktemp("world"))
    for version in ("1.0.0", "1.1.0"):
        assert world.deploy(world.build(version)).outcome is Outcome.SUCCEEDED
    return Prepared(world)


@pytest.fixture
def world(prepared: Prepared[Any]) -> Any:
    return prepared.again()


def _answers(world: Any, version: str) -> bool:
    """Whether a client is answered by that version."""
    answer = world.answer()
    named = [value for value in answer.headers.values() if value.startswith("hello-")]
    return answer.status == 200 and all(value.startswith(f"hello-{version}-") for value in named) and bool(named)


class Unreached:
    """A machine from which nobody reaches the balancer; the service's clients do, each time that anybody tries."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.asked = 0
        self.address = world.head.place.base_url
        world.sandbox.hook = self.come

    def come(self, moment: Moment, call: Call) -> None:
        for _ in range(5):
            self.world.prober.probe(Context(clock=self.world.clock), ProbeRequest(f"{self.address}/"))

    def probe(self, ctx: Context, request: ProbeRequest) -> ProbeAnswer:
        self.asked += 1
        return ProbeAnswer(None, error="connection timed out")


def _back(
    world: Any, to: str | None = None, prober: Prober | None = None, probe_from: ProbeFrom | None = None
) -> WentBack:
    """``osvdeploy rollback hello/production --from-cloud``, while the ledger cannot be reached."""
    here = world.process()
    ground = getattr(here, "cloud", None) or here.ground
    where = Whereabouts("hello", "production", ground.kind, ground.region)
    (world.folder / "ledger").rename(world.folder / HIDDEN)
    try:
        return from_cloud.go_back(here.ctx, where, ground, prober or world.prober, to=to, probe_from=probe_from)
    finally:
        (world.folder / HIDDEN).rename(world.folder / "ledger")


def test_a_warm_release_is_gone_back_to_by_tags_alone(world: Any) -> None:
    """By one switch, proved through the balancer; the ledger learns it with the next command."""
    went = _back(world)
    assert went.rollout.outcome is Outcome.SUCCEEDED
    assert went.noted
    assert _answers(world, "1.0.0")
    run = went.rollout.run
    assert run is not None and run.settings.health.version_header is not None
    assert [move.weight for move in run.moves] == [100]

    newer = world.build("1.2.0")
    assert world.deploy(newer).outcome is Outcome.SUCCEEDED
    assert _answers(world, "1.2.0")
    assert [hold.release.rpartition("-")[0] for hold in world.head.holds] == ["hello-1.1.0"]
    assert [each.release.rpartition("-")[0] for each in world.head.served[-2:]] == ["hello-1.0.0", "hello-1.2.0"]


def test_a_note_of_another_process_is_seen_by_one_that_looks_anew(world: Any) -> None:
    """A deploy whose ledger was out of reach for a while asks whether somebody has gone back meanwhile."""
    here, other = world.process(), world.process()
    ours, theirs = (getattr(each, "cloud", None) or each.ground for each in (here, other))
    assert world.head.place is not None
    route, left = world.head.place.route, world.head.stable.release
    assert ours.router.observe(here.ctx, route).left is None
    theirs.router.note_left(other.ctx, route, left)
    ours.router.forget()
    assert ours.router.observe(here.ctx, route).left == left


def test_who_does_not_reach_the_balancer_goes_back_by_what_it_counts(world: Any) -> None:
    """By the ledger and by tags alike, as one switch that is made at once. Nobody counts what a pointer passes on."""
    there = Unreached(world)
    here = world.process()
    manager = here.manager
    manager.executor.prober = there
    manager.driver.probe_from = ProbePlace.REQUESTS
    if not world.head.place.route.preview_header:
        for word in (lambda: manager.rollback(here.ctx), lambda: _back(world, None, there, "requests")):
            with pytest.raises(UsageError, match="requests are not counted behind"):
                word()
        return
    ended = [manager.rollback(here.ctx), _back(world, "1.1.0", there, "requests").rollout]
    for version, rollout in zip(("1.0.0", "1.1.0"), ended, strict=True):
        run = rollout.run
        assert rollout.outcome is Outcome.SUCCEEDED and run is not None and not there.asked, rollout.told
        assert run.candidate.startswith(f"hello-{version}-") and [move.weight for move in run.moves] == [100]
        assert "in a minute, 0 to the other slot" in run.gates[-1].seen
    assert _answers(world, "1.1.0")


def test_what_speaks_no_http_is_gone_back_to_without_being_asked_for_it(tmp_path: Path) -> None:
    """That the balancer checks connections stands on its check, and stays so."""
    world = GcpWorld(tmp_path, pointer=True)
    health = replace(world.settings.health, kind="tcp", version_header=None)
    world.settings = replace(world.settings, health=health)
    for version in ("1.0.0", "1.1.0"):
        assert world.deploy(world.build(version)).outcome is Outcome.SUCCEEDED
    went = _back(world)
    assert went.rollout.outcome is Outcome.SUCCEEDED, went.rollout.told
    run = went.rollout.run
    assert run is not None and run.settings.health.kind == "tcp"
    checks = [each["resource"] for each in world.sandbox.store.begin().all("", "compute.healthCheck")]
    assert [each["type"] for each in checks if each["name"].startswith("osvd-")] == ["TCP"]
    assert world.deploy(world.build("1.2.0")).outcome is Outcome.SUCCEEDED


def test_a_lost_ledger_is_written_anew_and_gone_on_with(world: Any) -> None:
    """With marks of leases in the cloud that it knows nothing of."""
    old = world.head
    shutil.rmtree(world.folder / "ledger")
    here = world.process()
    ground = getattr(here, "cloud", None) or here.ground
    where = Whereabouts(
        "hello",
        "production",
        ground.kind,
        ground.region,
        ledger=str(world.folder / "ledger"),
        settings=world.settings,
    )
    from_cloud.write_anew(here.ctx, where, ground, world.prober)
    assert world.head.serving is old.serving
    assert world.head.place.route.listener == old.place.route.listener
    assert world.rollback().outcome is Outcome.SUCCEEDED
    assert _answers(world, "1.0.0")
    assert world.deploy(world.build("1.2.0")).outcome is Outcome.SUCCEEDED
    here = world.process()
    here.manager.destroy(here.ctx)


def test_on_google_the_project_is_enough(tmp_path: Path) -> None:
    """Which zone a service is in, is found."""
    world = GcpWorld(tmp_path)
    assert world.deploy(world.build("1.0.0")).outcome is Outcome.SUCCEEDED
    ctx, account = world.next_context(), world.account.gcp()
    assert account.project == PROJECT
    assert gcp.places_of(ctx, account, "hello/production") == [ZONE]
    assert gcp.places_of(ctx, account, "hello/staging") == []


def test_the_region_of_aws_is_enough(tmp_path: Path) -> None:
    """Listener, priority, header: all of it is found; and a cold release is started as what serves is."""
    world = AwsWorld(tmp_path)
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        assert world.deploy(world.build(version)).outcome is Outcome.SUCCEEDED
    assert _back(world, "1.0.0").rollout.outcome is Outcome.SUCCEEDED
    assert _answers(world, "1.0.0")
    assert REGION in world.network.listener
