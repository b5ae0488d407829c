"""One service in a memory cloud, deployed and rolled back as the product does it."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import replace

from osvdeploy.cloud.interfaces import Block, ImageRequest, ObjectStore, ReleaseId, Scaling, UploadRequest
from osvdeploy.cloud.memory import MemoryCloud
from osvdeploy.cloud.tags import SERVICE, release_tags, service_tags
from osvdeploy.context import Context, ProcessIdentity, VirtualClock
from osvdeploy.errors import UploadGone
from osvdeploy.events import Recorder
from osvdeploy.rollout.ends import Rollout
from osvdeploy.rollout.ledger import Head, Ledger
from osvdeploy.rollout.manager import RolloutManager
from osvdeploy.rollout.model import Limits
from osvdeploy.rollout.releases import Release
from tests.rollout.made import NOW, SETTINGS
from tests.rollout.made import release as made_release
from tests.world import newest_group


class Service:
    """hello/production. Each command runs as a process of its own: another identity, nothing remembered."""

    def __init__(self, clock: VirtualClock | None = None, **settings: object) -> None:
        self.clock = clock or VirtualClock(NOW)
        self.cloud = MemoryCloud(self.clock)
        self.store: ObjectStore = self.cloud.store
        self.settings = replace(SETTINGS, **settings)  # type: ignore[arg-type]  # the caller names fields
        self.recorder = Recorder()
        self.limits: Limits | None = None
        self._processes = 0

    def context(self) -> Context:
        self._processes += 1
        # Another host each time: nobody can know whether the process before is dead, so its lease must be waited out.
        process = ProcessIdentity(f"host-{self._processes}", "", "", self._processes, "1", "somebody")
        return Context(clock=self.clock, reporter=self.recorder, process=process)

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.store, "hello", "production")

    @property
    def head(self) -> Head:
        head = self.ledger.head(self.context())
        assert head is not None
        return head

    def release(self, version: str) -> Release:
        return made_release(version, settings=self.settings)

    def id(self, version: str) -> ReleaseId:
        return self.release(version).id

    def manager(self) -> RolloutManager:
        return RolloutManager(self.ledger, self.cloud.cloud, self.cloud.prober, self.limits, hooks=self.cloud.hooks)

    def publish(self, version: str) -> None:
        """Register an image for the release, as publishing would."""
        ctx, release = self.context(), self.release(version)
        service = service_tags(release.app, release.service, release.settings.ledger)
        tags = release_tags(
            service,
            release=release.id,
            version=version,
            image=release.image,
            configuration=release.configuration,
            digest=release.digest,
        )
        for attempt in itertools.count():
            try:
                upload = self.cloud.snapshots.start(
                    ctx, UploadRequest(release.id, release.digest, 1, tags, None, attempt)
                )
                break
            except UploadGone:
                # It was published before, and collected.
                continue
        if upload.finished is None:
            content = bytes(self.cloud.snapshots.block_size)
            checksum = hashlib.sha256(content).digest()
            upload.put(ctx, [Block(0, content, checksum)], lambda index: None)
            disk = upload.complete(ctx, 1, hashlib.sha256(checksum).digest())
        else:
            disk = upload.finished
        self.cloud.images.register(ctx, ImageRequest(release.id, release.digest, disk, tags))

    def group(self, version: str) -> str:
        """The name of the release's group that stands, else of the newest one that the ledger knows of."""
        release = self.id(version)
        found = [
            each.name
            for each in self.cloud.world.groups.values()
            if each.release == release and each.tags.get(SERVICE) == "hello/production" and not each.deleting
        ]
        return found[-1] if found else newest_group(self.ledger.heads(self.context()), release)

    def scale(self, version: str, minimum: int, maximum: int) -> None:
        """Attach to the release's group what scales it, as a user would."""
        self.cloud.scale(self.group(version), minimum, maximum, cpu="60 %", night="0 3 * * *")

    def scaling(self, version: str) -> Scaling | None:
        return self.cloud.cloud.groups.scaling(self.context(), self.group(version))

    def deploy(self, version: str) -> Rollout:
        self.publish(version)
        return self.manager().deploy(self.context(), self.release(version))

    def rollback(self, version: str | None = None) -> Rollout:
        to = self.release(version) if version is not None else None
        return self.manager().rollback(self.context(), to)

    def destroy(self) -> Head:
        return self.manager().destroy(self.context())
