"""A release that staging has proved on Google, deployed in production of the disk that is kept in the bucket."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from osvdeploy import api
from osvdeploy.api import services, wiring
from osvdeploy.api.declared import Service
from osvdeploy.cloud import gcp
from osvdeploy.cloud.gcp.images import GceImages
from osvdeploy.cloud.gcp.machines import GceMachineTypes
from osvdeploy.cloud.interfaces import ArchivePlace, ObjectStore
from osvdeploy.cloud.local.store import DirectoryStore
from osvdeploy.context import Context
from osvdeploy.errors import UsageError
from osvdeploy.osv.cmdline import RELEASE_VARIABLE, decode
from osvdeploy.osv.disk import line_of
from osvdeploy.rollout.model import Outcome
from osvdeploy.spec import LoadedSpec
from tests.contract.gcp_place import PROJECT
from tests.contract.gcp_scene import ZONE
from tests.gcp_world import GcpWorld
from tests.sandbox.google.place import disk_of
from tests.story.test_release_elsewhere import FORCED
from tests.world import GOOD, loader_image

pytestmark = pytest.mark.slow


class Shop:
    """A project with a URL map, and a spec with two environments."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, keep: bool) -> None:
        (folder / "world").mkdir()
        self.folder, self.world, self.monkeypatch = folder, GcpWorld(folder / "world"), monkeypatch
        account = self.world.account
        images = GceImages(account.gcp())

        def opened(address: str) -> ObjectStore:
            return account.store(address) if "://" in address else DirectoryStore(Path(address))

        place = ArchivePlace("gcp", PROJECT, "global", images, images, account.store("gs://acme/osvdeploy"))
        monkeypatch.setenv("OSVDEPLOY_CACHE", str(folder / "cache"))
        monkeypatch.setattr(wiring, "ground", lambda ctx, cloud, project, zone, *_: gcp.ground(account.gcp(), zone))
        monkeypatch.setattr(wiring, "google_images", lambda publish: place)
        monkeypatch.setattr(wiring, "google_machines", lambda publish, zone: GceMachineTypes(account.gcp(), zone))
        monkeypatch.setattr(wiring, "open_store", opened)
        monkeypatch.setattr(wiring, "prober", lambda: self.world.prober)
        self.project = folder / "project"
        self.project.mkdir()
        (self.project / "loader.img").write_bytes(loader_image())
        (self.project / "app").write_bytes(b"#!inline\n" + json.dumps({**GOOD, "says": "hello"}).encode())
        (self.project / "app").chmod(0o755)
        environments = "".join(
            f"""
[deploy.{name}]
cloud = "gcp"
zone = "{ZONE}"
url-map = "web"
machine-type = "e2-small"
capacity = 1
network-tags = ["hello"]
route = {{ host = "{name}.example", priority = {priority} }}
port = 8080
ledger = "../{name}-ledger"
health = {{ path = "/healthz", min-ready = "2s" }}
env = {{ STAGE = "{name}" }}
"""
            for name, priority in (("staging", 50), ("production", 100))
        )
        (self.project / "osv.toml").write_text(
            f'name = "hello"\nversion = "1.0.0"\n[kernel]\nfile = "loader.img"\n[image]\ncommand = ["/app"]\n'
            f'[[files]]\nfrom = "app"\nto = "/app"\n[publish.gcp]\nproject = "{PROJECT}"\nbucket = "acme"\n'
            f"keep-disk = {json.dumps(keep)}\n{environments}"
        )

    def ctx(self) -> Context:
        return self.world.next_context()

    def stage(self) -> api.Deployed:
        deployed = api.deploy(self.ctx(), api.load_spec(self.project / "osv.toml"), "staging", forced=FORCED)
        assert deployed.rollout.outcome is Outcome.SUCCEEDED, deployed.rollout.told
        return deployed

    def elsewhere(self) -> LoadedSpec:
        """The spec on a machine that has nothing else."""
        pipeline = self.folder / "pipeline"
        shutil.rmtree(pipeline, ignore_errors=True)
        pipeline.mkdir()
        shutil.copy(self.project / "osv.toml", pipeline)
        self.monkeypatch.setenv("OSVDEPLOY_CACHE", str(pipeline / "cache"))
        return api.load_spec(pipeline / "osv.toml")

    def carry(self) -> api.Deployed:
        return api.deploy_release(self.ctx(), self.elsewhere(), "production", "1.0.0")

    def gc(self, environment: str, keep: int = 10) -> None:
        service = Service("hello", environment, str(self.folder / f"{environment}-ledger"))
        services.gc(self.ctx(), service, keep=keep, buckets={"gcp": "acme"})

    def left(self) -> list[str]:
        return [key.rpartition("/")[2] for key in wiring.open_store("gs://acme/osvdeploy").keys(self.ctx(), "")]


def test_production_gets_the_disk_that_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its own variables, and nothing built; gc leaves what is kept as long as an image of it is there."""
    shop = Shop(tmp_path, monkeypatch, keep=True)
    staged = shop.stage().release
    plan = api.plan_release(shop.ctx(), shop.elsewhere(), "production", "1.0.0")
    assert plan.publishing.calls == {"images.insert": 1} and "is kept in gs://acme/osvdeploy" in plan.publishing.why
    carried = shop.carry()
    assert plan.release == carried.release.id and plan.deeds
    assert carried.rollout.outcome is Outcome.SUCCEEDED, carried.rollout.told
    release = carried.release
    assert release.image == staged.image and release.origin == "hello/staging" and release.id != staged.id
    name = release.id.replace(".", "-")
    variables = dict(decode(line_of(disk_of(shop.world.sandbox, f"{PROJECT}/{name}")[0])).environment)
    assert variables == {"STAGE": "production", RELEASE_VARIABLE: release.id}
    assert shop.carry().rollout.run is None
    assert shop.left() == ["body", "head", "sum"]
    shop.world.wait(7200)
    shop.gc("production")
    assert shop.left() == ["body", "head", "sum"]
    for environment in ("staging", "production"):
        services.destroy(shop.ctx(), Service("hello", environment, str(tmp_path / f"{environment}-ledger")))
    for _ in range(2):
        shop.world.wait(7200)
        shop.gc("staging", keep=1)
        shop.gc("production", keep=1)
    assert shop.left() == []


def test_without_a_kept_disk_it_is_said_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Publishing production's own image where the sources are is enough; it is found by its name."""
    shop = Shop(tmp_path, monkeypatch, keep=False)
    shop.stage()
    with pytest.raises(UsageError, match="nor its disk in gs://acme/osvdeploy"):
        api.plan_release(shop.ctx(), shop.elsewhere(), "production", "1.0.0")
    with pytest.raises(UsageError, match="nor its disk in gs://acme/osvdeploy") as told:
        shop.carry()
    assert told.value.hint is not None
    assert "osvdeploy publish --env production" in told.value.hint and "keep-disk = true" in told.value.hint
    assert not (tmp_path / "production-ledger").exists()
    monkeypatch.setenv("OSVDEPLOY_CACHE", str(tmp_path / "cache"))
    published = api.publish(shop.ctx(), api.load_spec(shop.project / "osv.toml"), "production", forced=FORCED)
    assert published.release is not None
    carried = shop.carry()
    assert carried.rollout.outcome is Outcome.SUCCEEDED and carried.published.reused
    assert carried.published.image.id == published.release.image.id
