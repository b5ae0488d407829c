"""Withdrawing a version on Google for good: not while machines may have to be started from its images."""

from __future__ import annotations

import pytest

from osvdeploy.api import wiring, withdrawing
from osvdeploy.api.declared import load_spec
from osvdeploy.api.withdrawing import Withdrawal
from osvdeploy.cloud.gcp.images import GceImages
from osvdeploy.cloud.interfaces import ArchivePlace
from osvdeploy.errors import UsageError
from osvdeploy.rollout.model import Outcome
from osvdeploy.spec import LoadedSpec
from tests.contract.gcp_place import PROJECT
from tests.gcp_world import GcpWorld
from tests.world import Prepared

pytestmark = [pytest.mark.slow, pytest.mark.sandbox]

SPEC = """
name = "hello"
version = "1.0.0"

[kernel]
file = "loader.img"

[image]
command = ["/app"]

[publish.gcp]
project = "acme-prod"
bucket = "acme"

[deploy.production]
cloud = "gcp"
zone = "europe-west1-b"
url-map = "web"
port = 8080
ledger = "ledger"
route = { path = "/*", priority = 100 }
"""

FINAL = pytest.mark.parametrize("how", [Withdrawal.OBSOLETE, Withdrawal.DELETED])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Prepared[GcpWorld]:
    world = GcpWorld(tmp_path_factory.mktemp("served"))
    (world.folder / "osv.toml").write_text(SPEC)
    for version in ("1.0.0", "1.1.0"):
        assert world.deploy(world.build(version)).outcome is Outcome.SUCCEEDED
    return Prepared(world)


@pytest.fixture
def world(served: Prepared[GcpWorld], monkeypatch: pytest.MonkeyPatch) -> GcpWorld:
    """1.1.0 serves, 1.0.0 is warm."""
    world = served.again()

    def images(_: object) -> ArchivePlace:
        made = GceImages(world.account.gcp())
        return ArchivePlace("gcp", PROJECT, "global", made, made, world.account.store())

    monkeypatch.setattr(wiring, "google_images", images)
    return world


def loaded(world: GcpWorld) -> LoadedSpec:
    return load_spec(world.folder / "osv.toml")


def withdraw(world: GcpWorld, version: str, how: Withdrawal, *, force: bool = False) -> list[str]:
    found = withdrawing.withdraw(world.process().ctx, loaded(world), version, how, force=force)
    return [image.name for image in found.images]


@FINAL
def test_what_serves_is_withdrawn_by_nobody(world: GcpWorld, how: Withdrawal) -> None:
    """Forced or not; a family may be led past it."""
    for force in (False, True):
        with pytest.raises(UsageError, match=r"hello/production: hello-1\.1\.0-\w+ serves") as raised:
            withdraw(world, "1.1.0", how, force=force)
        assert "osvdeploy rollback" in (raised.value.hint or "")
    assert len(withdraw(world, "1.1.0", Withdrawal.DEPRECATED)) == 2


@FINAL
def test_what_is_warm_is_withdrawn_by_force_alone(world: GcpWorld, how: Withdrawal) -> None:
    """Who has it is told: the ledger, and the group with its machines. Cold, nobody has it."""
    with pytest.raises(UsageError, match=r"hello-1\.0\.0-\w+ is warm until 2030-01-01") as raised:
        withdraw(world, "1.0.0", how)
    assert "instance group osvd-" in str(raised.value) and "zones/europe-west1-b (2 machines)" in str(raised.value)
    assert "--force" in (raised.value.hint or "")
    assert len(withdraw(world, "1.0.0", how, force=True)) == 2
    if how is Withdrawal.OBSOLETE:
        withdrawing.restore(world.process().ctx, loaded(world), "1.0.0")
        world.wait(2 * 3600)
        world.gc()
        world.wait(600)
        assert len(withdraw(world, "1.0.0", how)) == 2


def test_what_others_start_machines_from_is_told(world: GcpWorld) -> None:
    """A template of theirs, and a group that it makes."""
    world.rollback()
    world.wait(600)
    image = next(each for each in world.network.ask("GET", "global/images")["items"] if "1-1-0" in each["name"])
    disk = {"boot": True, "initializeParams": {"sourceImage": image["selfLink"]}}
    card = {"network": "global/networks/default"}
    properties = {"machineType": "e2-small", "disks": [disk], "networkInterfaces": [card]}
    world.network.make("global/instanceTemplates", name="theirs", properties=properties)
    with pytest.raises(UsageError, match="instance template theirs, which others made, has hello-"):
        withdraw(world, "1.1.0", Withdrawal.DELETED)
    world.network.make(
        "regions/europe-west1/instanceGroupManagers",
        name="theirs",
        baseInstanceName="theirs",
        instanceTemplate=f"projects/{PROJECT}/global/instanceTemplates/theirs",
        targetSize=0,
    )
    told = r"instance group theirs in regions/europe-west1 \(0 machines\), which others made, has hello-"
    with pytest.raises(UsageError, match=told):
        withdraw(world, "1.1.0", Withdrawal.DELETED)
