"""The memory cloud as a place under test."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from osvdeploy.cloud.interfaces import Block, CloudWatchMetric, ImageRequest, ReleaseId, Statistic, UploadRequest
from osvdeploy.cloud.memory import Call, MemoryCloud, Moment, Timing
from osvdeploy.cloud.tags import image_tags
from osvdeploy.context import Context, VirtualClock
from osvdeploy.digests import sha256
from tests.contract.scenes import APP, SERVICE, THEIRS, Guest, Scene

_ABORTED = """OSv v0.57.0
eth0: 10.0.0.7
Booted up in 0.01 ms
Cmdline: /hello
Aborted
[backtrace]
0x0000000040266c1d <abort(char const*, ...)+285>
"""

_ENDED = """OSv v0.57.0
eth0: 10.0.0.7
Booted up in 0.01 ms
Cmdline: /hello
program /hello returned 3
"""

_BEHAVIOURS: dict[Guest, dict[str, object]] = {
    Guest.SERVES: {},
    Guest.HANGS: {"never_healthy": True},
    Guest.SICK: {"answers": (500,)},
    Guest.ABORTS: {"aborts": _ABORTED},
    Guest.FAILS: {"answers": (500,), "health": 200},
    Guest.ENDS: {"never_healthy": True, "dies_at": 0.5, "console": _ENDED},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryScene(Scene):
    """The scene, with the world behind it."""

    place: MemoryCloud


def memory_scene(timing: Timing | None = None, *, pointer: bool = False) -> MemoryScene:
    clock = VirtualClock()
    ctx = Context(clock=clock)
    place = MemoryCloud(clock, timing)
    cloud = place.cloud
    listener = "pointer-1" if pointer else "listener-1"

    def image(release: ReleaseId, guest: Guest) -> str:
        digest = sha256(release.encode())
        labels = image_tags(APP, "1.0.0", digest)
        data = bytes(cloud.snapshots.block_size)
        block = Block(0, data, hashlib.sha256(data).digest())
        sink = cloud.snapshots.start(ctx, UploadRequest(release, digest, 1, labels))
        sink.put(ctx, [block], lambda index: None)
        disk = sink.complete(ctx, 1, hashlib.sha256(block.sha256).digest())
        if _BEHAVIOURS[guest]:
            place.behave(release, **_BEHAVIOURS[guest])
        return cloud.images.register(ctx, ImageRequest(release, digest, disk, labels)).id

    def on_change(hook: Callable[[str, bool], None] | None) -> None:
        def asked(call: Call, moment: Moment) -> None:
            if hook is not None and call.mutating:
                hook(call.operation, moment is Moment.AFTER)

        place.on_call(asked)

    def plant_rule(priority: int) -> None:
        place.plant_rule(priority, listener)

    return MemoryScene(
        ctx=ctx,
        cloud=cloud,
        prober=place.prober,
        listener=listener,
        networks=("net-1", "net-2"),
        firewalls=("wall-1",),
        machine_type="small",
        image=image,
        plant_rule=plant_rule,
        plant_group=lambda name: place.plant_group(name, image=image(THEIRS, Guest.SERVES)),
        plant_service=lambda name, priority: place.plant_service(name, priority or 50_000),
        share_out=lambda weight: place.share_out(SERVICE, weight),
        narrow=lambda path: place.narrow(SERVICE, path),
        scale=lambda group, minimum, maximum: place.scale(group, minimum, maximum, cpu="60 %", night="0 3 * * *"),
        unload=lambda group: place.load(group, 0),
        mutations=lambda: len(place.mutations),
        on_change=on_change,
        errors=CloudWatchMetric("HTTPCode_Target_5XX_Count", "RequestCount", Statistic.SUM),
        pointer=pointer,
        place=place,
    )
