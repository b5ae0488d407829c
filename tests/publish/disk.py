"""Raw disks for tests of publishing, made without a kernel."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import cast

from osvdeploy.cloud.interfaces import Cloud, Console, InstanceGroups, MachineTypes, TrafficRouter
from osvdeploy.cloud.memory.disks import MemoryImages, MemorySnapshots
from osvdeploy.cloud.memory.faults import Faults
from osvdeploy.digests import sha256
from osvdeploy.osv.cmdline import BootCommand
from osvdeploy.osv.image import Extent, RawImage
from osvdeploy.sizes import GIB, KIB

BLOCK = 64 * KIB
"""Smaller than a cloud's, so that tests are quick; large enough for the command line."""
BOOT = BootCommand((("verbose", None),), (("LOG_LEVEL", "info"),), ("/hello", "--port", "8080"))


def raw_disk(path: Path, blocks: int = 5, seed: bytes = b"1.0.0", block: int = BLOCK) -> RawImage:
    """A 1 GiB disk whose first ``blocks`` blocks are read but for the middle of one, with a hole behind them.

    Block 1 is read and all zeros; what nobody reads behind the last byte of the last block is not zero.
    """
    with path.open("wb") as file:
        for index in range(blocks):
            filling = hashlib.sha256(seed + bytes([index])).digest() * (block // 32)
            file.write(bytes(block) if index == 1 else filling)
        file.truncate(GIB)
    return RawImage(
        path=path,
        size=GIB,
        digest=sha256(seed),
        kernel=sha256(b"kernel"),
        rofs=sha256(b"rofs" + seed),
        read=(Extent(0, 32 * KIB), Extent(block, 2 * block), Extent(2 * block, blocks * block - 100)),
        boot=BOOT,
    )


def bytes_of(raw: RawImage, extent: Extent) -> bytes:
    """What stands there. A disk is a GiB of holes: to read all of it takes half a second."""
    with raw.path.open("rb") as file:
        file.seek(extent.start)
        return file.read(extent.end - extent.start)


class MemoryPlace:
    """A cloud of disks and images alone, with one place to say what shall fail. Publishing that asked for another port
    would fail here."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.snapshots = MemorySnapshots(self.faults, BLOCK)
        self.images = MemoryImages(self.snapshots)
        self.cloud = Cloud(
            kind="memory",
            account="me",
            region="here",
            snapshots=self.snapshots,
            images=self.images,
            groups=cast("InstanceGroups", None),
            router=cast("TrafficRouter", None),
            console=cast("Console", None),
            machines=cast("MachineTypes", None),
        )
