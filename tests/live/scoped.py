"""Ports that see one test's share of an account: an empty one, however much is there.

What goes through them gets the test's label as a tag, and names that begin with it; of what comes back names are as
the test gave them, and lists hold what carries the label. So the suites say the same of an account in use as of one
that is new, and two runs in one account do not meet.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar, cast

from osvdeploy.cloud.interfaces import (
    ArchiveImages,
    AttachRequest,
    Block,
    BlockSink,
    Cloud,
    CloudImage,
    DiskImports,
    Ground,
    GroupCount,
    GroupRequest,
    GroupShape,
    GroupState,
    HealthRule,
    ImageFamilies,
    ImageRegistry,
    ImageRequest,
    ImageUser,
    ImportRequest,
    InstanceGroups,
    Machine,
    ReleaseId,
    Route,
    RouteState,
    Scaling,
    Slot,
    Snapshots,
    Tags,
    TargetHealth,
    TrafficRouter,
    UploadedDisk,
    UploadRequest,
)
from osvdeploy.context import Context
from tests.live.run import Label

G = TypeVar("G", bound=Ground)
Named = TypeVar("Named", UploadedDisk, CloudImage, GroupCount, GroupState)
Asked = TypeVar("Asked", UploadRequest, ImageRequest, GroupRequest, AttachRequest, ImportRequest)


def scoped(ground: G, label: Label) -> G:
    """A place's ports for one test."""
    images: ImageRegistry = ScopedImages(ground.images, label)
    groups: InstanceGroups = ScopedGroups(ground.groups, label)
    router: TrafficRouter = ScopedRouter(ground.router, label)
    if not isinstance(ground, Cloud):
        return replace(ground, images=images, groups=groups, router=router)
    snapshots: Snapshots = ScopedSnapshots(ground.snapshots, label)
    imports: DiskImports | None = ground.imports and ScopedImports(ground.imports, label)
    return replace(ground, images=images, groups=groups, router=router, snapshots=snapshots, imports=imports)


class _Scoped:
    def __init__(self, label: Label) -> None:
        self.label = label

    def tagged(self, tags: Tags) -> dict[str, str]:
        return {**tags, **self.label.tags}

    def ours(self, asked: Asked) -> Asked:
        """What a test asked for, as the account is asked."""
        return replace(asked, name=self.label.named(asked.name), tags=self.tagged(asked.tags))

    def theirs(self, found: Named) -> Named:
        """What the account told, as the test is told."""
        return replace(found, name=self.label.plain(found.name))


class ScopedSnapshots(_Scoped):
    """:class:`~osvdeploy.cloud.interfaces.Snapshots` of one test."""

    def __init__(self, inner: Snapshots, label: Label) -> None:
        super().__init__(label)
        self.inner = inner

    @property
    def block_size(self) -> int:
        return self.inner.block_size

    def find(self, ctx: Context, name: str) -> UploadedDisk | None:
        found = self.inner.find(ctx, self.label.named(name))
        return found and self.theirs(found)

    def start(self, ctx: Context, request: UploadRequest) -> BlockSink:
        return _ScopedSink(self.inner.start(ctx, self.ours(request)), self)

    def read(self, ctx: Context, disk_id: str, indexes: Collection[int], got: Callable[[Block], None]) -> None:
        self.inner.read(ctx, disk_id, indexes, got)

    def stored(self, ctx: Context, disk_id: str) -> int:
        return self.inner.stored(ctx, disk_id)

    def delete(self, ctx: Context, disk_id: str) -> None:
        self.inner.delete(ctx, disk_id)

    def owned(self, ctx: Context, tags: Tags) -> list[UploadedDisk]:
        return [self.theirs(each) for each in self.inner.owned(ctx, self.tagged(tags))]


@dataclass(frozen=True, slots=True)
class _ScopedSink:
    inner: BlockSink
    scope: ScopedSnapshots

    @property
    def id(self) -> str:
        return self.inner.id

    @property
    def finished(self) -> UploadedDisk | None:
        found = self.inner.finished
        return found and self.scope.theirs(found)

    def put(self, ctx: Context, blocks: Iterable[Block], stored: Callable[[int], None]) -> None:
        self.inner.put(ctx, blocks, stored)

    def complete(self, ctx: Context, count: int, checksum: bytes) -> UploadedDisk:
        return self.scope.theirs(self.inner.complete(ctx, count, checksum))

    def abort(self, ctx: Context) -> None:
        self.inner.abort(ctx)


class ScopedImports(_Scoped):
    """:class:`~osvdeploy.cloud.interfaces.DiskImports` of one test, from its own part of a bucket."""

    def __init__(self, inner: DiskImports, label: Label) -> None:
        super().__init__(label)
        self.inner = inner

    def refuse_unready(self, ctx: Context, location: str) -> None:
        self.inner.refuse_unready(ctx, location)

    def find(self, ctx: Context, request: ImportRequest) -> str | None:
        return self.inner.find(ctx, self.ours(request))

    def start(self, ctx: Context, request: ImportRequest) -> str:
        return self.inner.start(ctx, self.ours(request))

    def finish(self, ctx: Context, request: ImportRequest, running: str) -> UploadedDisk:
        return self.theirs(self.inner.finish(ctx, self.ours(request), running))

    def reading(self, ctx: Context) -> set[str]:
        return {location for location in self.inner.reading(ctx) if f"/{self.label.value}/" in location}


class ScopedImages(_Scoped):
    """:class:`~osvdeploy.cloud.interfaces.ImageRegistry` of one test, with its archives and families, if any."""

    def __init__(self, inner: ImageRegistry, label: Label) -> None:
        super().__init__(label)
        self.inner = inner

    def find(self, ctx: Context, name: str) -> CloudImage | None:
        found = self.inner.find(ctx, self.label.named(name))
        return found and self.theirs(found)

    def get(self, ctx: Context, image_id: str) -> CloudImage | None:
        found = self.inner.get(ctx, image_id)
        return found and self.theirs(found)

    def register(self, ctx: Context, request: ImageRequest) -> CloudImage:
        return self.theirs(self.inner.register(ctx, self.ours(request)))

    def begin(self, ctx: Context, request: ImageRequest) -> None:
        cast("ArchiveImages", self.inner).begin(ctx, self.ours(request))

    def users(self, ctx: Context, images: Sequence[CloudImage]) -> Mapping[str, Sequence[ImageUser]]:
        return self.inner.users(ctx, images)

    def deregister(self, ctx: Context, image_id: str) -> None:
        self.inner.deregister(ctx, image_id)

    def owned(self, ctx: Context, tags: Tags) -> list[CloudImage]:
        return [self.theirs(each) for each in self.inner.owned(ctx, self.tagged(tags))]

    def retag(self, ctx: Context, image_id: str, tags: Tags, without: Collection[str] = ()) -> None:
        self.inner.retag(ctx, image_id, tags, without)

    # Of a family's images the adapters read the ids alone.

    @property
    def _families(self) -> ImageFamilies:
        return cast("ImageFamilies", self.inner)

    def current(self, ctx: Context, family: str) -> CloudImage | None:
        found = self._families.current(ctx, self.label.named(family))
        return found and self.theirs(found)

    def members(self, ctx: Context, family: str) -> list[CloudImage]:
        return [self.theirs(each) for each in self._families.members(ctx, self.label.named(family))]

    def offer(self, ctx: Context, image: CloudImage, family: str | None) -> None:
        self._families.offer(ctx, image, None if family is None else self.label.named(family))

    def withdraw(
        self, ctx: Context, image: CloudImage, replacement: CloudImage | None = None, *, obsolete: bool = False
    ) -> None:
        self._families.withdraw(ctx, image, replacement, obsolete=obsolete)

    def restore(self, ctx: Context, image: CloudImage) -> None:
        self._families.restore(ctx, image)


class ScopedGroups(_Scoped):
    """:class:`~osvdeploy.cloud.interfaces.InstanceGroups` of one test."""

    def __init__(self, inner: InstanceGroups, label: Label) -> None:
        super().__init__(label)
        self.inner = inner

    def ensure(self, ctx: Context, request: GroupRequest) -> None:
        self.inner.ensure(ctx, self.ours(request))

    def observe(self, ctx: Context, name: str) -> GroupState | None:
        found = self.inner.observe(ctx, self.label.named(name))
        return found and self.theirs(found)

    def machines(self, ctx: Context, name: str) -> tuple[Machine, ...]:
        return self.inner.machines(ctx, self.label.named(name))

    def delete(self, ctx: Context, name: str) -> None:
        self.inner.delete(ctx, self.label.named(name))

    def owned(self, ctx: Context, tags: Tags) -> list[GroupState]:
        return [self.theirs(each) for each in self.inner.owned(ctx, self.tagged(tags))]

    def attach(self, ctx: Context, request: AttachRequest) -> None:
        self.inner.attach(ctx, self.ours(request))

    def shape(self, ctx: Context, name: str) -> GroupShape | None:
        return self.inner.shape(ctx, self.label.named(name))

    def counted(self, ctx: Context, tags: Tags) -> list[GroupCount]:
        return [self.theirs(each) for each in self.inner.counted(ctx, self.tagged(tags))]

    def scaling(self, ctx: Context, name: str) -> Scaling | None:
        return self.inner.scaling(ctx, self.label.named(name))

    def pause(self, ctx: Context, name: str) -> None:
        self.inner.pause(ctx, self.label.named(name))

    def resume(self, ctx: Context, name: str, scaling: Scaling, *, grown: bool = False) -> None:
        self.inner.resume(ctx, self.label.named(name), scaling, grown=grown)

    def unpaused(self, there: Scaling, before: Scaling) -> Scaling:
        return self.inner.unpaused(there, before)

    def apply(self, ctx: Context, name: str, scaling: Scaling) -> None:
        self.inner.apply(ctx, self.label.named(name), scaling)

    def follows(self, ctx: Context, name: str, scaling: Scaling) -> bool:
        return self.inner.follows(ctx, self.label.named(name), scaling)

    def templates(self, ctx: Context, tags: Tags) -> list[str]:
        return [self.label.plain(name) for name in self.inner.templates(ctx, self.tagged(tags))]

    def delete_template(self, ctx: Context, name: str) -> None:
        self.inner.delete_template(ctx, self.label.named(name))


class ScopedRouter(_Scoped):
    """:class:`~osvdeploy.cloud.interfaces.TrafficRouter` of one test."""

    def __init__(self, inner: TrafficRouter, label: Label) -> None:
        super().__init__(label)
        self.inner = inner

    def _of(self, route: Route) -> Route:
        return replace(route, key=self.label.key(route.key), tags=self.tagged(route.tags))

    def observe(self, ctx: Context, route: Route) -> RouteState:
        return self.inner.observe(ctx, self._of(route))

    def ensure_slots(self, ctx: Context, route: Route) -> None:
        self.inner.ensure_slots(ctx, self._of(route))

    def health(self, ctx: Context, route: Route, slot: Slot) -> tuple[TargetHealth, ...]:
        return self.inner.health(ctx, self._of(route), slot)

    def set_weights(self, ctx: Context, route: Route, weights: Mapping[Slot, int]) -> None:
        self.inner.set_weights(ctx, self._of(route), weights)

    def find(self, ctx: Context, service: str, key: str) -> list[Route]:
        found = self.inner.find(ctx, service, self.label.key(key))
        ours = [each for each in found if self.tagged({}).items() <= dict(each.tags).items()]
        return [
            replace(
                each,
                key=key,
                tags={name: value for name, value in each.tags.items() if name not in self.tagged({})},
            )
            for each in ours
        ]

    def in_use(self, ctx: Context, route: Route) -> str:
        return self.inner.in_use(ctx, self._of(route))

    def refuse_unadoptable(self, ctx: Context, route: Route, group: str) -> str:
        return self.inner.refuse_unadoptable(ctx, self._of(route), self.label.named(group))

    def give_back(self, ctx: Context, route: Route) -> None:
        self.inner.give_back(ctx, self._of(route))

    def forget(self) -> None:
        self.inner.forget()

    def note_left(self, ctx: Context, route: Route, left: ReleaseId | None) -> None:
        self.inner.note_left(ctx, self._of(route), left)

    def weights_of(self, ctx: Context, routes: Sequence[Route]) -> Mapping[str, Mapping[Slot, int] | None]:
        plain = {self.label.key(route.key): route.key for route in routes}
        found = self.inner.weights_of(ctx, [self._of(route) for route in routes])
        return {plain[key]: weights for key, weights in found.items()}

    def slow_start(self, ctx: Context, route: Route, slot: Slot) -> float | None:
        return self.inner.slow_start(ctx, self._of(route), slot)

    def check_of(self, ctx: Context, route: Route, slot: Slot) -> HealthRule | None:
        return self.inner.check_of(ctx, self._of(route), slot)

    def set_slow_start(self, ctx: Context, route: Route) -> None:
        self.inner.set_slow_start(ctx, self._of(route))

    def remove(self, ctx: Context, route: Route) -> None:
        self.inner.remove(ctx, self._of(route))
