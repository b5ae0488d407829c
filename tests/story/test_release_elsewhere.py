"""A release that staging has proved, deployed in production: the same blocks, another command line, nothing built."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from osvdeploy import api
from osvdeploy.api import wiring
from osvdeploy.api.carrying import find_elsewhere
from osvdeploy.api.declared import Service
from osvdeploy.cloud import aws, tags
from osvdeploy.cloud.interfaces import Block, Cloud, ImageRequest, UploadRequest
from osvdeploy.context import Context
from osvdeploy.digests import sha256
from osvdeploy.errors import CheckFailed, ImageDiffers, PlanOutdated, UsageError
from osvdeploy.osv.cmdline import RELEASE_VARIABLE, decode
from osvdeploy.osv.disk import line_of
from osvdeploy.rollout.model import Outcome
from osvdeploy.sandbox.inprocess import connect
from osvdeploy.spec import LoadedSpec
from tests.aws_world import REGION, AwsWorld, Network
from tests.world import BAD, GOOD, loader_image

pytestmark = pytest.mark.slow

FORCED = ("symbol-missing-at-load", "program-not-elf", "no-power-off-on-abort")
"""What is brought is a few bytes of text."""


class Shop:
    """An account, a project with two environments, and a machine in a pipeline that has its osv.toml alone."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (folder / "world").mkdir()
        self.folder, self.world = folder, AwsWorld(folder / "world")
        self.regions = {"staging": REGION, "production": REGION}
        self.monkeypatch = monkeypatch
        self.networks: dict[str, Network] = {}
        monkeypatch.setenv("OSVDEPLOY_CACHE", str(folder / "cache"))
        monkeypatch.setenv("OSVDEPLOY_STATE", str(folder / "state"))
        monkeypatch.setattr(wiring, "connect", self._connect)
        monkeypatch.setattr(wiring, "ground", lambda ctx, cloud, account, region, *_: self._connect(ctx, cloud, region))
        monkeypatch.setattr(wiring, "prober", lambda: self.world.prober)
        self.project = folder / "project"
        self.project.mkdir()
        (self.project / "loader.img").write_bytes(loader_image())
        self.write("1.0.0")
        self.pipeline = folder / "pipeline"

    def _connect(self, ctx: Context, cloud: str, region: str) -> Cloud:
        session = self.world.session if region == REGION else connect(self.world.sandbox, self.world.clock, region)
        return aws.connect(ctx, region, session)

    def write(self, version: str, program: object = GOOD, **variables: str) -> None:
        assert isinstance(program, dict)
        (self.project / "app").write_bytes(b"#!inline\n" + json.dumps({**program, "says": f"hello {version}"}).encode())
        (self.project / "app").chmod(0o755)
        networks = {REGION: self.world.network, **self.networks}
        environments = "".join(
            f"""
[deploy.{name}]
cloud = "aws"
region = "{self.regions[name]}"
instance-type = "t3.nano"
capacity = {capacity}
subnets = {json.dumps(list(networks[self.regions[name]].subnets))}
security-groups = ["{networks[self.regions[name]].security_group}"]
listener = "{networks[self.regions[name]].listener}"
route = {{ host = "{name}.example", priority = {priority} }}
port = 8080
ledger = "../{name}-ledger"
health = {{ path = "/healthz", version-header = "x-release", min-ready = "2s" }}
env = {{ {", ".join(f'{key} = "{value}"' for key, value in {"STAGE": name, **variables}.items())} }}
"""
            for name, capacity, priority in (("staging", 1, 50), ("production", 2, 100))
        )
        (self.project / "osv.toml").write_text(
            f'name = "hello"\nversion = "{version}"\n[kernel]\nfile = "loader.img"\n'
            '[image]\ncommand = ["/app"]\nenv = { STAGE = "none", LEVEL = "info" }\n'
            '[[files]]\nfrom = "app"\nto = "/app"\n' + environments
        )

    def spec(self, folder: Path | None = None) -> LoadedSpec:
        return api.load_spec((folder or self.project) / "osv.toml")

    def elsewhere(self) -> LoadedSpec:
        """The spec on a machine without sources, kernel, cache or state."""
        shutil.rmtree(self.pipeline, ignore_errors=True)
        self.pipeline.mkdir()
        shutil.copy(self.project / "osv.toml", self.pipeline)
        for name in ("CACHE", "STATE"):
            self.monkeypatch.setenv(f"OSVDEPLOY_{name}", str(self.pipeline / name))
        return self.spec(self.pipeline)

    def ctx(self) -> Context:
        return self.world.next_context()

    def stage(self, version: str, program: object = GOOD) -> api.Deployed:
        """Build and deploy in staging."""
        self.write(version, program)
        deployed = api.deploy(self.ctx(), self.spec(), "staging", forced=FORCED)
        assert (program is BAD) == (deployed.rollout.exit_code != 0), deployed.rollout.told
        return deployed

    def carry(self, wanted: str, **options: object) -> api.Deployed:
        """To production, from the other machine."""
        return api.deploy_release(self.ctx(), self.elsewhere(), "production", wanted, **options)  # type: ignore[arg-type]

    def line(self, name: str) -> dict[str, str]:
        """The variables in the command line of an image."""
        image = self.cloud.images.find(self.ctx(), name)
        assert image is not None and image.disk is not None
        return dict(decode(line_of(self.block(image.disk))).environment)

    def block(self, disk: str, index: int = 0) -> bytes:
        found: list[bytes] = []
        self.cloud.snapshots.read(self.ctx(), disk, [index], lambda block: found.append(block.data))
        return found[0]

    @property
    def cloud(self) -> Cloud:
        return self._connect(self.ctx(), "aws", REGION)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    return Shop(tmp_path, monkeypatch)


def test_production_gets_the_blocks_that_staging_proved(shop: Shop) -> None:
    """With production's own variables, settings and capacity; by one block put and one read, with neither sources nor
    cache nor state on that machine. The same command again does nothing."""
    staged = shop.stage("1.0.0").release
    before = len(shop.world.calls())
    carried = shop.carry("1.0.0")
    assert carried.rollout.outcome is Outcome.SUCCEEDED, carried.rollout.told
    release = carried.release
    assert (release.image, release.version) == (staged.image, "1.0.0") and release.id != staged.id
    assert release.origin == "hello/staging" and release.first_block == staged.first_block
    calls = shop.world.calls(before)
    assert calls.count("ebs.PutSnapshotBlock") == calls.count("ebs.GetSnapshotBlock") == 1
    assert carried.published.blocks == carried.published.blocks_sent == 1
    assert shop.line(release.id) == {"STAGE": "production", "LEVEL": "info", RELEASE_VARIABLE: release.id}
    assert shop.line(staged.id)["STAGE"] == "staging"
    ledger = wiring.open_ledger(Service("hello", "production", str(shop.folder / "production-ledger")))
    head = ledger.head(shop.ctx())
    assert head is not None and head.stable is not None and head.stable.release == release.id
    [kept] = ledger.releases(shop.ctx())
    assert kept == release and kept.settings.capacity == 2
    assert not list(shop.pipeline.glob("CACHE/**/disk.raw"))
    before = len(shop.world.calls())
    again = shop.carry(staged.id, origin="staging")
    assert again.rollout.run is None and again.published.reused
    assert not any(call.startswith("ebs.") for call in shop.world.calls(before))


def take_away_the_image(shop: Shop) -> None:
    image = shop.cloud.images.find(shop.ctx(), "hello-1.0.0")
    assert image is not None and image.disk is not None
    shop.cloud.images.deregister(shop.ctx(), image.id)
    shop.cloud.snapshots.delete(shop.ctx(), image.disk)


def take_away_the_release(shop: Shop) -> None:
    staged = find_elsewhere(shop.ctx(), shop.spec(), "production", "1.0.0").release
    image = shop.cloud.images.find(shop.ctx(), staged.id)
    assert image is not None
    shop.cloud.images.deregister(shop.ctx(), image.id)


@pytest.mark.parametrize("gone", [take_away_the_image, take_away_the_release])
def test_either_image_will_do(shop: Shop, gone: Callable[[Shop], None]) -> None:
    """Without the image app-version, that of the release gives the same first block back, and the other way round."""
    staged = shop.stage("1.0.0").release
    gone(shop)
    carried = shop.carry("1.0.0")
    assert carried.rollout.outcome is Outcome.SUCCEEDED, carried.rollout.told
    assert shop.line(carried.release.id) == {
        "STAGE": "production",
        "LEVEL": "info",
        RELEASE_VARIABLE: carried.release.id,
    }
    assert carried.release.image == staged.image


def test_a_plan_tells_the_calls_of_what_staging_proved_and_is_followed_once(shop: Shop) -> None:
    """One block, one image, and the rollout's; nothing is built and nothing is changed. Whatever serves since then, the
    plan is none any more."""
    shop.stage("1.0.0")
    loaded = shop.elsewhere()
    since = len(shop.world.sandbox.calls(0))
    plan = api.plan_release(shop.ctx(), loaded, "production", "1.0.0", forced=FORCED)
    assert [call for call in shop.world.sandbox.calls(since) if call.mutating] == []
    assert plan.publishing.image is not None and plan.deeds is not None and plan.objections == ()
    told = [*plan.publishing.calls.items(), *((call.operation, 1) for deed in plan.deeds for call in deed.calls)]
    since = len(shop.world.sandbox.calls(0))
    deployed = shop.carry("1.0.0", planned=plan.basis)
    assert deployed.rollout.outcome is Outcome.SUCCEEDED and deployed.release.id == plan.release
    made = Counter(call.operation for call in shop.world.sandbox.calls(since) if call.mutating)
    assert made == Counter({name: sum(count for each, count in told if each == name) for name, _ in told})
    with pytest.raises(PlanOutdated, match="serving: none -> hello-1"):
        shop.carry("1.0.0", planned=plan.basis)
    again = api.plan_release(shop.ctx(), loaded, "production", "1.0.0", forced=FORCED)
    assert again.told.endswith("serves already") and again.publishing.release is not None


def test_a_place_without_any_image_of_it_is_told_of(shop: Shop) -> None:
    """Which place that is, where the release serves, and what brings the image there."""
    shop.stage("1.0.0")
    take_away_the_release(shop)
    take_away_the_image(shop)
    with pytest.raises(
        UsageError, match=r"no image of hello 1\.0\.0 .* is in aws eu-west-1.*hello/staging is in"
    ) as told:
        shop.carry("1.0.0")
    assert told.value.hint is not None and "osvdeploy publish --env production" in told.value.hint
    assert not (shop.folder / "production-ledger").exists()


def spoiled(shop: Shop, offset: int, content: bytes) -> None:
    """Let the image app-version be one that somebody else made, with our tags and other bytes."""
    image = shop.cloud.images.find(shop.ctx(), "hello-1.0.0")
    assert image is not None and image.disk is not None
    block = bytearray(shop.block(image.disk))
    block[offset : offset + len(content)] = content
    ctx, disk = shop.ctx(), shop.cloud.snapshots.find(shop.ctx(), "hello-1.0.0")
    assert disk is not None
    shop.cloud.images.deregister(ctx, image.id)
    sink = shop.cloud.snapshots.start(ctx, UploadRequest("hello-1.0.0", image.digest, 1, {**image.tags}, parent=disk))
    data = bytes(block)
    checksum = bytes.fromhex(sha256(data))
    sink.put(ctx, [Block(0, data, checksum)], lambda _: None)
    made = sink.complete(ctx, 1, bytes.fromhex(sha256(checksum)))
    shop.cloud.images.register(ctx, ImageRequest("hello-1.0.0", image.digest, made, dict(image.tags)))


@pytest.mark.parametrize(
    ("offset", "content"),
    [(3, b"\x90\x90"), (0x1CE + 8, b"\1"), (70_000, b"x"), (512, b"/app --evil\0")],
    ids=["boot sector", "partition", "kernel", "command line"],
)
def test_an_image_that_begins_otherwise_is_refused(shop: Shop, offset: int, content: bytes) -> None:
    """Whatever its tags say: before anything is made, and with the image's id."""
    shop.stage("1.0.0")
    spoiled(shop, offset, content)
    held = shop.world.held()
    with pytest.raises(ImageDiffers, match="says that it is of image") as told:
        shop.carry("1.0.0")
    assert "hello-1.0.0: ami-" in told.value.message and told.value.exit_code == 2
    assert shop.world.held() == held


def test_what_staging_did_not_prove_is_refused(shop: Shop) -> None:
    """A release that was rolled back there, and one that somebody holds; a word lets it go. Nothing is made before."""
    shop.stage("1.0.0")
    bad = shop.stage("1.1.0", BAD)
    assert bad.rollout.exit_code == 3
    held = shop.world.held()
    with pytest.raises(CheckFailed, match=rf"{bad.release.id} in hello/staging: .*\[release-not-proved\]"):
        shop.carry("1.1.0")
    staging = Service("hello", "staging", str(shop.folder / "staging-ledger"))
    api.hold(shop.ctx(), staging, "1.0.0", "it eats orders")
    with pytest.raises(CheckFailed, match="it eats orders"):
        shop.carry("1.0.0")
    assert shop.world.held() == held
    carried = shop.carry("1.0.0", forced=["release-not-proved"])
    assert carried.rollout.outcome is Outcome.SUCCEEDED


def test_what_staging_proved_long_ago_is_deployed_without_a_word(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its newest document remembers the last releases alone that have served. What never did is refused as ever."""
    monkeypatch.setattr("osvdeploy.rollout.ledger.SERVED_KEPT", 2)
    for version, program in (("0.9.0", GOOD), ("1.0.0", GOOD), ("1.1.0", BAD), ("1.2.0", GOOD), ("1.3.0", GOOD)):
        shop.stage(version, program)
    with pytest.raises(CheckFailed, match="it did not come to serve there"):
        shop.carry("1.1.0")
    assert shop.carry("1.0.0").rollout.outcome is Outcome.SUCCEEDED
    assert shop.carry("0.9.0").rollout.outcome is Outcome.SUCCEEDED


def test_a_ledger_that_does_not_say_how_a_disk_begins_needs_a_word(shop: Shop) -> None:
    """A release of Pulumi's, or of an older osvdeploy: with it, the image app-version is believed, and no other."""
    staged = shop.stage("1.0.0").release
    ledger = shop.folder / "staging-ledger" / "hello" / "staging" / "releases" / f"{staged.id}.json"
    document = json.loads(ledger.read_text())
    del document["release"]["first_block"]
    ledger.write_text(json.dumps(document))
    with pytest.raises(CheckFailed, match="release-not-recorded"):
        shop.carry("1.0.0")
    assert shop.carry("1.0.0", forced=["release-not-recorded"]).rollout.outcome is Outcome.SUCCEEDED
    # Deployed once more where the sources are, the ledger says it.
    api.deploy(shop.ctx(), shop.spec(), "staging", forced=FORCED)
    found = find_elsewhere(shop.ctx(), shop.spec(), "production", "1.0.0").release
    assert found.first_block == staged.first_block


def test_a_release_that_nobody_knows_is_told_with_the_ledgers_that_were_asked(shop: Shop) -> None:
    """And so are an environment that is the target itself, and one that the spec does not have."""
    shop.stage("1.0.0")
    with pytest.raises(UsageError, match=r"no release '9' was ever deployed in hello/staging \(ledger /"):
        shop.carry("9")
    with pytest.raises(UsageError, match="--from production is the environment that is deployed to"):
        shop.carry("1.0.0", origin="production")
    with pytest.raises(UsageError, match=r"has no \[deploy.nowhere\]"):
        shop.carry("1.0.0", origin="nowhere")


def test_the_tags_tell_whose_it_is(shop: Shop) -> None:
    """The image is production's, and its gc takes it when nothing needs it."""
    shop.stage("1.0.0")
    carried = shop.carry("1.0.0")
    image = shop.cloud.images.find(shop.ctx(), carried.release.id)
    assert image is not None and image.tags[tags.SERVICE] == "hello/production"
    assert image.tags[tags.LEDGER] == str(shop.folder / "production-ledger")
    assert image.digest == carried.release.digest


def test_another_region_needs_the_image_there(shop: Shop) -> None:
    """It is not copied: that is said, with both places. Once it was published there, the release follows."""
    other = "us-east-1"
    shop.networks[other] = shop.world.network_in(other)
    shop.regions["staging"] = other
    staged = shop.stage("1.0.0").release
    with pytest.raises(
        UsageError, match=r"is in aws eu-west-1, account \d+; hello/staging is in aws us-east-1"
    ) as told:
        shop.carry("1.0.0")
    assert told.value.hint is not None and "osvdeploy publish --env production" in told.value.hint
    shop.monkeypatch.setenv("OSVDEPLOY_CACHE", str(shop.folder / "cache"))
    api.publish(shop.ctx(), shop.spec(), "production", forced=FORCED)
    carried = shop.carry("1.0.0")
    assert carried.rollout.outcome is Outcome.SUCCEEDED and carried.release.image == staged.image
