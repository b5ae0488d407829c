"""AWS in the sandbox, in process and in virtual time: an account with a network, and hello going live in it.

Everything of the product is real here, from the disk's bytes to boto3's requests; only sockets and clocks are not.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from osvdeploy.build import builder
from osvdeploy.build.cache import BuildCache
from osvdeploy.build.plan import FileMapping, ImageInputs
from osvdeploy.build.sources import FileKernel
from osvdeploy.cloud import aws, tags
from osvdeploy.cloud.interfaces import Cloud, ProbeAnswer, ProbeRequest
from osvdeploy.cloud.local.store import DirectoryStore
from osvdeploy.context import Context, ProcessIdentity, VirtualClock
from osvdeploy.events import Recorder
from osvdeploy.osv.cmdline import RELEASE_VARIABLE, with_environment
from osvdeploy.publish.blocks import first_block
from osvdeploy.publish.journal import Journal
from osvdeploy.publish.publisher import publish_image, publish_release
from osvdeploy.rollout.ledger import Head, Ledger
from osvdeploy.rollout.manager import Rollout, RolloutManager
from osvdeploy.rollout.model import Limits
from osvdeploy.rollout.releases import (
    Release,
    Settings,
    configuration_digest,
    release_digest,
    release_id,
)
from osvdeploy.sandbox.core import Sandbox
from osvdeploy.sandbox.inprocess import Client, connect
from osvdeploy.sandbox.runners import NoAnswer
from osvdeploy.sandbox.runners.inline import InlineRunner
from tests.rollout.made import NOW, SETTINGS

REGION = "eu-west-1"

GOOD: Mapping[str, Any] = {"headers": {"x-release": "$OSVDEPLOY_RELEASE"}, "answers": {"*": 200}}
BAD: Mapping[str, Any] = {**GOOD, "answers": {"*": 500}}
ABORTING: Mapping[str, Any] = {"boot": "abort", "after": 1.0}


class SandboxProber:
    """:class:`~osvdeploy.cloud.interfaces.Prober` through the sandbox's balancers, without a socket."""

    def __init__(self, sandbox: Sandbox, clock: VirtualClock) -> None:
        self.client = Client(sandbox, clock)

    def probe(self, ctx: Context, request: ProbeRequest) -> ProbeAnswer:
        split = urlsplit(request.url)
        host, _, port = (request.address or split.netloc).partition(":")
        answer = self.client.get(
            host, int(port or split.port or 80), split.path or "/", dict(request.headers), request.timeout
        )
        if isinstance(answer, NoAnswer):
            return ProbeAnswer(None, error=answer.value)
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return ProbeAnswer(answer.status, headers, answer.body[:2048])


def loader_image() -> bytes:
    """The smallest file that has a loader.img's form."""
    head = bytearray(65536 + 32768)
    head[0] = 0xEA
    head[0x10:0x12] = (1).to_bytes(2, "little")
    head[510:512] = b"\x55\xaa"
    # ELF32, little endian, i386 executable: what stands at LBA 128 of OSv's own.
    head[65536:65556] = b"\x7fELF\x01\x01\x01" + bytes(9) + b"\x02\x00\x03\x00"
    return bytes(head)


@dataclass
class Network:
    """What a user has before the first deploy."""

    listener: str
    subnets: tuple[str, ...]
    security_group: str


class AwsWorld:
    """One account, one service, any number of processes that deploy it one after the other."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.clock = VirtualClock(NOW)
        self.sandbox = Sandbox(runner=InlineRunner())
        self.session = connect(self.sandbox, self.clock, REGION)
        self.prober = SandboxProber(self.sandbox, self.clock)
        self.network = self._make_network()
        self.recorder = Recorder()
        self.settings: Settings = replace(
            SETTINGS,
            cloud="aws",
            region=REGION,
            listener=self.network.listener,
            networks=self.network.subnets,
            firewalls=(self.network.security_group,),
            path="/*",
            **settings,
        )
        self.empty = self.sandbox.inventory()
        self._processes = 0

    # -------------------------------------------------------------------------------------------------- as a user

    def build(self, version: str, program: Mapping[str, Any] = GOOD) -> Release:
        """Write the program's source, build its image, and name the release it makes. Nothing leaves this machine."""
        base = self.folder / "hello"
        base.mkdir(exist_ok=True)
        (base / "loader.img").write_bytes(loader_image())
        (base / "app").write_bytes(b"#!inline\n" + json.dumps({**program, "says": f"hello {version}"}).encode())
        inputs = ImageInputs(
            app="hello",
            version=version,
            base=base,
            kernel=FileKernel("loader.img"),
            command=("/app",),
            options=(("power-off-on-abort", None),),
            files=(FileMapping("app", "/app"),),
        )
        self.raw = builder.build(Context(), inputs, BuildCache(self.folder / "cache")).image
        configuration = configuration_digest((), ())
        digest = release_digest(self.raw.digest, configuration)
        return Release(
            id=release_id("hello", version, digest),
            app="hello",
            version=version,
            image=self.raw.digest,
            configuration=configuration,
            digest=digest,
            created=NOW,
            by="somebody",
            settings=self.settings,
        )

    def deploy(self, release: Release, process: Process | None = None) -> Rollout:
        """publish and deploy, as ``osvdeploy deploy`` does, from what build() made last."""
        here = process or self.process()
        published = publish_image(
            here.ctx, self.raw, app="hello", version=release.version, tags={}, cloud=here.cloud, journal=self.journal
        )
        service = tags.service_tags("hello", release.service, self.settings.ledger)
        publish_release(
            here.ctx,
            published.image,
            block0=first_block(self.raw, here.cloud.snapshots.block_size),
            boot=with_environment(self.raw.boot, {RELEASE_VARIABLE: release.id}),
            release=release.id,
            digest=release.digest,
            tags=tags.release_tags(
                service,
                release=release.id,
                version=release.version,
                image=release.image,
                configuration=release.configuration,
                digest=release.digest,
            ),
            cloud=here.cloud,
            journal=self.journal,
        )
        return here.manager.deploy(here.ctx, release)

    def rollback(self, to: Release | None = None, process: Process | None = None) -> Rollout:
        here = process or self.process()
        return here.manager.rollback(here.ctx, to)

    def process(self, limits: Limits | None = None) -> Process:
        """A new process: another identity, its own clients."""
        self._processes += 1
        identity = self.identity(self._processes)
        ctx = Context(clock=self.clock, reporter=self.recorder, process=identity)
        cloud = aws.connect(ctx, REGION, self.session)
        return Process(ctx, cloud, RolloutManager(self.ledger, cloud, self.prober, limits))

    def identity(self, number: int) -> ProcessIdentity:
        """Whose process the ``number``-th is: each on a host of its own, so that nobody can know that it is dead."""
        return ProcessIdentity(f"host-{number}", "", "", number, "1", "somebody")

    @property
    def ledger(self) -> Ledger:
        return Ledger(DirectoryStore(self.folder / "ledger"), "hello", "production")

    @property
    def journal(self) -> Journal:
        return Journal(self.folder / "state")

    @property
    def head(self) -> Head:
        head = self.ledger.head(Context(clock=self.clock))
        assert head is not None
        return head

    # ------------------------------------------------------------------------------------------------- to look at it

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.sandbox.settle(self.clock.now())

    def held(self) -> dict[str, list[str]]:
        """What the account holds beyond the network, by kind."""
        self.sandbox.settle(self.clock.now())
        now = self.sandbox.inventory()
        found = {kind: sorted(set(keys) - set(self.empty.get(kind, []))) for kind, keys in now.items()}
        return {kind: keys for kind, keys in found.items() if keys}

    def answer(self) -> ProbeAnswer:
        """What a client gets now."""
        route = self.head.place
        assert route is not None
        return self.prober.probe(Context(clock=self.clock), ProbeRequest(f"{route.base_url}/"))

    def calls(self, since: int = 0) -> list[str]:
        """``service.Operation`` of every call since that number."""
        return [f"{call.service}.{call.operation}" for call in self.sandbox.calls(since)]

    # ------------------------------------------------------------------------------------------------ to go back to it

    def kept(self) -> Kept:
        """The account, the guests, the files and the time as they are this moment: what a kill -9 leaves."""
        with self.sandbox._lock:
            store, runner = self.sandbox.store, self.sandbox.runner
            assert isinstance(runner, InlineRunner)
            return Kept(
                documents={at: dict(found) for at, found in store._documents.items()},
                database=store._database.serialize(),
                version=store.version,
                now=self.sandbox._now,
                answered=self.sandbox._answered,
                guests=dict(runner._guests),
                passed=self.clock.monotonic(),
                files={
                    path.relative_to(self.folder): path.read_bytes()
                    for folder in _KEPT_FOLDERS
                    for path in (self.folder / folder).rglob("*")
                    if path.is_file()
                },
            )

    def put_back(self, kept: Kept) -> None:
        """Let everything be as it was then. Blobs stay: they go by their digests."""
        store, runner = self.sandbox.store, self.sandbox.runner
        assert isinstance(runner, InlineRunner)
        store._documents = {at: dict(found) for at, found in kept.documents.items()}
        store._database.deserialize(kept.database)
        store.version = kept.version
        self.sandbox._now, self.sandbox._answered = kept.now, kept.answered
        runner._guests = dict(kept.guests)
        self.clock._passed = kept.passed
        for folder in _KEPT_FOLDERS:
            shutil.rmtree(self.folder / folder, ignore_errors=True)
        for path, content in kept.files.items():
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / path).write_bytes(content)

    def _make_network(self) -> Network:
        ec2, elb = self.session.client("ec2"), self.session.client("elbv2")
        vpc = ec2.create_vpc(CidrBlock="10.20.0.0/16")["Vpc"]["VpcId"]
        zones = [zone["ZoneName"] for zone in ec2.describe_availability_zones()["AvailabilityZones"]][:2]
        subnets = tuple(
            ec2.create_subnet(VpcId=vpc, AvailabilityZone=zone, CidrBlock=f"10.20.{number}.0/24")["Subnet"]["SubnetId"]
            for number, zone in enumerate(zones)
        )
        group = ec2.create_security_group(GroupName="hello", Description="hello", VpcId=vpc)["GroupId"]
        balancer = elb.create_load_balancer(Name="hello", Subnets=list(subnets), SecurityGroups=[group])
        nothing = {"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "404"}}
        listener = elb.create_listener(
            LoadBalancerArn=balancer["LoadBalancers"][0]["LoadBalancerArn"],
            Protocol="HTTP",
            Port=8080,
            DefaultActions=[nothing],
        )
        self.clock.advance(60)
        self.sandbox.settle(self.clock.now())
        return Network(listener["Listeners"][0]["ListenerArn"], subnets, group)


_KEPT_FOLDERS = ("ledger", "state")


@dataclass(frozen=True)
class Kept:
    """An :class:`AwsWorld` at one moment."""

    documents: dict[tuple[str, str], dict[str, bytes]]
    database: bytes
    version: int
    now: datetime
    answered: int
    guests: dict[str, Any]
    passed: float
    files: dict[Path, bytes]

    @property
    def mark(self) -> tuple[int, float, int, int]:
        """Equal for two moments of one run between which nothing happened."""
        return self.version, self.passed, len(self.files), sum(map(len, self.files.values()))


@dataclass
class Process:
    """One run of the command line: its context, its clients, its manager."""

    ctx: Context
    cloud: Cloud
    manager: RolloutManager


Scenario = Callable[[AwsWorld], object]
