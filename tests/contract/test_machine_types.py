"""What every implementation of MachineTypes promises."""

from __future__ import annotations

from osvdeploy.cloud.interfaces import BootMode
from tests.contract.scenes import Scene


def test_a_type_is_described(scene: Scene) -> None:
    """The kind of machine that groups are made of is known, with its disk, its network and room for a guest."""
    found = scene.cloud.machines.describe(scene.ctx, scene.machine_type)
    assert found is not None
    assert found.name == scene.machine_type
    assert "x86_64" in found.architectures
    assert BootMode.BIOS in found.boot_modes
    assert len(found.disks) == len(found.networks) == 1
    assert found.cpus >= 1
    assert found.memory >= 1 << 28


def test_an_unknown_type_is_none(scene: Scene) -> None:
    """A name that the place does not know is no error; whoever asks can look for what is near it."""
    assert scene.cloud.machines.describe(scene.ctx, "t3.nanoo") is None
    assert scene.machine_type in scene.cloud.machines.names(scene.ctx)


def test_looking_changes_nothing(scene: Scene) -> None:
    """Neither question counts as a change."""
    before = scene.mutations()
    scene.cloud.machines.describe(scene.ctx, scene.machine_type)
    names = scene.cloud.machines.names(scene.ctx)
    assert names == sorted(names)
    assert scene.mutations() == before


def test_every_name_is_described(scene: Scene) -> None:
    """What is listed can be asked for, under its own name."""
    for name in scene.cloud.machines.names(scene.ctx):
        found = scene.cloud.machines.describe(scene.ctx, name)
        assert found is not None
        assert found.name == name
