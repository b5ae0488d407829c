"""The places that every suite of this folder runs on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from osvdeploy.cloud.memory.disks import MemoryImages, MemorySnapshots
from osvdeploy.context import Context, VirtualClock
from tests.contract.aws_place import aws_place
from tests.contract.aws_scene import aws_scene
from tests.contract.disks import Place
from tests.contract.gcp_scene import gcp_scene, pointer_scene
from tests.contract.memory_scene import memory_scene
from tests.contract.scenes import Scene

PLACES = ["memory", pytest.param("aws", marks=pytest.mark.sandbox)]


def memory_place() -> Place:
    ctx = Context(clock=VirtualClock())
    snapshots = MemorySnapshots()
    images = MemoryImages(snapshots)

    def put_foreign(name: str) -> str:
        return images.put_foreign(ctx, name).id

    return Place(ctx, snapshots, images, snapshots.blocks, put_foreign)


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Place:
    """Snapshots and an image registry, empty, in virtual time."""
    return aws_place() if request.param == "aws" else memory_place()


SCENES: dict[str, Callable[[], Scene]] = {
    "memory": memory_scene,
    "aws": aws_scene,
    "gcp": gcp_scene,
    "memory-pointer": partial(memory_scene, pointer=True),
    "gcp-pointer": pointer_scene,
}


@pytest.fixture(params=[*PLACES, pytest.param("gcp", marks=pytest.mark.sandbox)])
def scene(request: pytest.FixtureRequest) -> Scene:
    """Groups, router, console and prober of one place, with a listener and networks, in virtual time."""
    return SCENES[request.param]()


POINTERS = ["memory-pointer", pytest.param("gcp-pointer", marks=pytest.mark.sandbox)]


@pytest.fixture(params=POINTERS)
def pointer(request: pytest.FixtureRequest) -> Scene:
    """A place whose listener sends all of its traffic to one slot."""
    return SCENES[request.param]()


@pytest.fixture(params=[*PLACES, pytest.param("gcp", marks=pytest.mark.sandbox), *POINTERS])
def way(request: pytest.FixtureRequest) -> Scene:
    """Every place, and every way in that it has."""
    return SCENES[request.param]()
