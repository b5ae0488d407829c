"""A service whose balancer somebody has taken away, or that is in another account than whoever asks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from osvdeploy.api import Service, destroy, gc, holdings, wiring
from osvdeploy.cloud.gcp.scope import address_of
from osvdeploy.cloud.interfaces import Ground
from osvdeploy.errors import UsageError
from osvdeploy.rollout.model import Outcome
from tests.aws_world import AwsWorld
from tests.cli.running import osvdeploy
from tests.contract.gcp_scene import ZONE
from tests.gcp_world import GcpWorld

pytestmark = [pytest.mark.slow, pytest.mark.sandbox]

PLACES: dict[str, Callable[[Path], Any]] = {
    "aws": AwsWorld,
    "google": GcpWorld,
    "google-pointer": lambda folder: GcpWorld(folder, ZONE, pointer=True),
}


@pytest.fixture(params=PLACES)
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """1.0.0 serves; commands find the same place as the world's own processes."""
    made = PLACES[request.param](tmp_path)
    assert made.deploy(made.build("1.0.0")).outcome is Outcome.SUCCEEDED
    monkeypatch.setattr(wiring, "ground", lambda *_: ground_of(made))
    return made


def ground_of(world: Any) -> Ground:
    here = world.process()
    found: Ground = getattr(here, "cloud", None) or here.ground
    return found


def service_of(world: Any) -> Service:
    return Service("hello", "production", str(world.folder / "ledger"))


def take_the_way_in_away(world: Any) -> None:
    """As its owner does: a listener, or what clients enter by and, on Google, all that leads to its URL map."""
    if isinstance(world, AwsWorld):
        world.session.client("elbv2").delete_listener(ListenerArn=world.network.listener)
        return
    ctx, gcp = world.next_context(), world.account.gcp()

    def delete(link: str) -> None:
        gcp.perform(ctx, "DELETE", address_of(gcp, link), link, request_id=None)

    listener = world.settings.listener
    if "/urlMaps/" not in listener:
        delete(listener)
        return
    own = gcp.get(ctx, address_of(gcp, listener), "URL map")["selfLink"]
    for kind in ("forwardingRules", "targetHttpProxies"):
        for scope in ("global", "regions/europe-west1"):
            for page in gcp.pages(ctx, f"{gcp.project_path}/{scope}/{kind}", kind):
                for each in page.get("items", []):
                    if kind == "forwardingRules" or each["urlMap"] == own:
                        gcp.perform(ctx, "DELETE", each["selfLink"], each["name"], request_id=None)
    delete(listener)


def test_a_service_whose_way_in_is_gone_can_be_destroyed(world: Any) -> None:
    """`osvdeploy drift` says so. Its machines cost until then."""
    take_the_way_in_away(world)
    service = service_of(world)
    found = holdings(world.next_context(), service)
    assert found.gone and not found.rules and len(found.groups) == 1 and found.serving is not None
    told = osvdeploy("destroy", "hello/production", "--ledger", service.ledger, "--dry-run", folder=world.folder)
    assert told.code == 0 and "its way in is gone" in told.stdout, told.stderr
    assert destroy(world.next_context(), service).destroyed
    here = world.process()
    assert not (getattr(here, "cloud", None) or here.ground).groups.owned(here.ctx, {})


def test_credentials_of_another_account_change_nothing_and_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has nothing of the service: taken for its end, the ledger would say destroyed while it serves."""
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
    world = AwsWorld(tmp_path / "ours")
    assert world.deploy(world.build("1.0.0")).outcome is Outcome.SUCCEEDED
    other = AwsWorld(tmp_path / "theirs", clock=world.clock)
    monkeypatch.setattr(wiring, "ground", lambda *_: replace(other.process().cloud, account="999999999999"))
    service = service_of(world)
    for command in (destroy, holdings, gc):
        with pytest.raises(UsageError, match=r"hello/production: is in aws account \d+, and these .* of 999999999999"):
            command(world.next_context(), service)
    status = osvdeploy("status", "hello/production", "--ledger", service.ledger, "--json", folder=world.folder)
    assert "999999999999" in str(status.document["cloud_error"]) and status.document["serving"] is not None
    board = osvdeploy("status", "--all", "--ledger", service.ledger, folder=world.folder)
    assert "999999999999" in board.stdout + board.stderr and "gone" not in board.stdout
    assert not world.head.destroyed and world.answer().status == 200
