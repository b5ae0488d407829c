"""What every implementation of MachineTypes promises."""

from __future__ import annotations

import pytest

from osvdeploy.cloud.interfaces import BootMode, Cloud, MachineTypes
from tests.contract.conftest import AWS_SCENE, PLACES
from tests.contract.scenes import Scene

# Google tells less of a type than the port asks for: tests/sandbox/google and tests/test_place_of.py hold it.
pytestmark = pytest.mark.parametrize("scene", [*PLACES, AWS_SCENE], indirect=True)


def types_of(scene: Scene) -> MachineTypes:
    assert isinstance(scene.cloud, Cloud)
    return scene.cloud.machines


def test_a_type_is_described(scene: Scene) -> None:
    """The kind of machine that groups are made of is known, with its disk, its network and room for a guest."""
    found = types_of(scene).describe(scene.ctx, scene.machine_type)
    assert found is not None
    assert found.name == scene.machine_type
    assert "x86_64" in found.architectures
    assert BootMode.BIOS in found.boot_modes
    assert len(found.disks) == len(found.networks) == 1
    assert found.cpus >= 1
    assert found.memory >= 1 << 28


def test_an_unknown_type_is_none(scene: Scene) -> None:
    """A name that the place does not know is no error; whoever asks can look for what is near it."""
    assert types_of(scene).describe(scene.ctx, "t3.nanoo") is None
    assert scene.machine_type in types_of(scene).names(scene.ctx)


def test_looking_changes_nothing(scene: Scene) -> None:
    """Neither question counts as a change."""
    before = scene.mutations()
    types_of(scene).describe(scene.ctx, scene.machine_type)
    names = types_of(scene).names(scene.ctx)
    assert names == sorted(names)
    assert scene.mutations() == before


@pytest.mark.not_live("EC2 has several hundred types, and is asked for one at a time")
def test_every_name_is_described(scene: Scene) -> None:
    """What is listed can be asked for, under its own name."""
    for name in types_of(scene).names(scene.ctx):
        found = types_of(scene).describe(scene.ctx, name)
        assert found is not None
        assert found.name == name
