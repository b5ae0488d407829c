"""Google in the sandbox, in process and in virtual time: a project with a balancer, and hello going live in it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from osvdeploy.api import services, wiring
from osvdeploy.api.declared import Service
from osvdeploy.cloud import gcp, tags
from osvdeploy.cloud.gcp.images import GceImages
from osvdeploy.cloud.gcp.urlmap import RELEASE_HEADER
from osvdeploy.cloud.interfaces import ArchivePlace, Ground, ObjectStore
from osvdeploy.cloud.local.store import DirectoryStore
from osvdeploy.context import Context, VirtualClock
from osvdeploy.osv.cmdline import RELEASE_VARIABLE, with_environment
from osvdeploy.publish.archiving import ReleaseOrder, publish_archived
from osvdeploy.rollout.ends import Rollout
from osvdeploy.rollout.manager import RolloutManager
from osvdeploy.rollout.model import Limits
from osvdeploy.rollout.releases import Release
from osvdeploy.rollout.retention import Garbage
from tests.contract.gcp_place import PROJECT, GcpSandbox
from tests.contract.gcp_scene import URL_MAP, ZONE, Network, Pointer, Project
from tests.rollout.made import NOW, SETTINGS
from tests.world import World


class GcpWorld(World):
    """The world on Google. Machines do not power off when they abort: what they said could not be read then.

    With ``pointer`` the way in is a forwarding rule, and not a URL map.
    """

    network: Project

    def __init__(
        self, folder: Path, place: str = ZONE, *, pointer: bool = False, clock: VirtualClock | None = None
    ) -> None:
        clock = clock or VirtualClock(NOW)
        self.account = GcpSandbox(clock)
        settings = replace(
            SETTINGS,
            cloud="gcp",
            region=place,
            networks=(),
            firewalls=("hello",),
            machine_type="e2-small",
            health=replace(SETTINGS.health, boot_timeout=300.0),
        )
        if pointer:
            # Nobody but the program names the release.
            self.network = Pointer(self.account)
            settings = replace(settings, listener=self.network.rule, path=None, priority=0, preview_header="")
        else:
            self.network = Network(self.account)
            # The program names no release: the balancer does.
            health = replace(settings.health, version_header=RELEASE_HEADER)
            settings = replace(settings, listener=URL_MAP, path="/*", health=health)
        super().__init__(folder, self.account.sandbox, clock, settings)

    def deploy(self, release: Release) -> Rollout:
        """publish and deploy, as ``osvdeploy deploy`` does, from what build() made last."""
        self.publish(release)
        here = self.process()
        return here.manager.deploy(here.ctx, release)

    def publish(self, release: Release, ledger: str | None = None) -> str:
        """The release's image, from what build() made last; its name. Without a ledger, as published alone."""
        here = self.process()
        images = GceImages(self.account.gcp())
        labels = tags.release_tags(
            tags.service_tags("hello", release.service, self.settings.ledger if ledger is None else ledger),
            release=release.id,
            version=release.version,
            image=release.image,
            configuration=release.configuration,
            digest=release.digest,
        )
        publish_archived(
            here.ctx,
            self.raw,
            app="hello",
            version=release.version,
            tags={},
            place=ArchivePlace("gcp", PROJECT, "global", images, images, self.account.store("gs://acme/osvdeploy")),
            release=ReleaseOrder(
                id=release.id,
                digest=release.digest,
                boot=with_environment(self.raw.boot, {RELEASE_VARIABLE: release.id}),
                tags={key: value for key, value in labels.items() if value},
                family=None,
            ),
        )
        return release.id

    def rollback(self, to: Release | None = None) -> Rollout:
        here = self.process()
        return here.manager.rollback(here.ctx, to)

    def gc(self, keep: int = 10, *, dry_run: bool = False) -> Garbage:
        """``osvdeploy gc``, with a spec beside it that names the bucket."""
        here = self.process()
        service = Service("hello", "production", str(self.folder / "ledger"))

        def opened(address: str) -> ObjectStore:
            return self.account.store(address) if "://" in address else DirectoryStore(Path(address))

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(wiring, "ground", lambda *_: here.ground)
            patched.setattr(wiring, "open_store", opened)
            return services.gc(here.ctx, service, keep=keep, dry_run=dry_run, buckets={"gcp": "acme"})

    def process(self, limits: Limits | None = None) -> Process:
        """A new process: another identity, its own clients."""
        ctx = self.next_context()
        ground = gcp.ground(self.account.gcp(), self.settings.region)
        return Process(
            ctx,
            ground,
            RolloutManager(self.ledger, ground, self.prober, limits, hooks=self.hooks, notifier=self.notifier),
        )

    def changes(self, since: int = 0) -> list[str]:
        """Every call since that number that asked Compute Engine for a change."""
        return [
            call.operation
            for call in self.sandbox.calls(since)
            if call.service == "compute" and not call.operation.endswith(_READING)
        ]


_READING = (".get", ".list", ".wait", ".getHealth", ".listManagedInstances", ".listErrors", ".getSerialPortOutput")


@dataclass
class Process:
    """One run of the command line: its context, its clients, its manager."""

    ctx: Context
    ground: Ground
    manager: RolloutManager
