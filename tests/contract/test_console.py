"""What every implementation of Console promises."""

from __future__ import annotations

import pytest

from osvdeploy.cloud.interfaces import MachineState, Slot
from osvdeploy.errors import CloudError
from osvdeploy.osv.console import read_boot_log
from tests.contract.scenes import Guest, Scene


def text_of(scene: Scene, name: str) -> str:
    """The console of the first machine of a group; "" before there is one."""
    machines = scene.cloud.groups.machines(scene.ctx, name)
    return scene.cloud.console.read(scene.ctx, machines[-1].id) if machines else ""


def test_a_boot_can_be_read(scene: Scene) -> None:
    """What the guest printed comes within bounded time, and shows how far the boot got."""
    made = scene.stand(Slot.BLUE, "hello-1", capacity=1)
    scene.until(lambda: read_boot_log(text_of(scene, made.name)).version is not None)
    assert read_boot_log(text_of(scene, made.name)).fault is None


def test_an_abort_can_be_read(scene: Scene) -> None:
    """What a rollout needs most: the certain end of a program, within bounded time."""
    made = scene.stand(Slot.BLUE, "hello-1", Guest.ABORTS, capacity=1)

    def told() -> bool:
        fault = read_boot_log(text_of(scene, made.name)).fault
        return fault is not None and fault.fatal

    scene.until(told)


def test_a_machine_that_is_gone_can_be_read(scene: Scene) -> None:
    """Its last words stay for a while, where the place keeps any: else it has none, which is no error."""
    made = scene.stand(Slot.BLUE, "hello-1", Guest.ENDS, capacity=1)
    ended = MachineState.GONE if scene.keeps_dead else MachineState.STOPPED

    def gone() -> bool:
        machines = scene.cloud.groups.machines(scene.ctx, made.name)
        return bool(machines) and machines[-1].state is ended

    scene.until(gone)
    said = text_of(scene, made.name)
    assert read_boot_log(said).version is not None if scene.keeps_dead else said == ""


def test_a_machine_nobody_knows_is_an_error(scene: Scene) -> None:
    """Not "", which says that a machine has printed nothing."""
    with pytest.raises(CloudError):
        scene.cloud.console.read(scene.ctx, "i-0123456789abcdef0")
