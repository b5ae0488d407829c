"""A disk as it is, held to the machine that `osvdeploy run` makes."""

from __future__ import annotations

import pytest

from osvdeploy.checks.finding import Finding, Severity
from osvdeploy.checks.here import at_hand, disk_findings, faults
from osvdeploy.checks.places import qemu
from osvdeploy.cloud.interfaces import DiskInterface
from osvdeploy.osv.anatomy import look
from osvdeploy.osv.disk import line_of, with_line
from osvdeploy.qemu.machine import DiskBus
from osvdeploy.sizes import MIB
from tests.osv.images import loader_image
from tests.osv.kernels import kernel_elf, lzloader, pack
from tests.osv.rofs_files import make_rofs, tree_of
from tests.osv.test_anatomy import disk_of, ext_superblock, zfs_labels
from tests.osv.volumes import Volume

ROFS = make_rofs(tree_of({b"/hello": b"program", b"/data": b"x" * 4 * MIB}))
LARGE = make_rofs(tree_of({b"/hello": b"program", b"/big": b"x" * 40 * MIB}))


def rules(content: bytes, line: bytes = b"/hello", **machine: object) -> dict[str, Severity]:
    source = Volume(with_line(content, line))
    found = disk_findings(source, look(source), line_of(source.content), qemu(**machine))  # type: ignore[arg-type]  # the caller names fields
    return {each.rule: each.severity for each in found}


def with_kernel(disk: bytes, *classes: str) -> bytes:
    """The same disk with a kernel that has these drivers."""
    loader = loader_image(payload=lzloader(pack(kernel_elf(classes=classes))))
    return disk[:65_536] + loader[65_536:] + disk[len(loader) :]


def test_a_disk_that_boots_here_is_not_spoken_against() -> None:
    """A kernel with the drivers, options that it takes, memory enough."""
    assert rules(disk_of(ROFS), b"--verbose /hello", memory=256 * MIB) == {}


@pytest.mark.parametrize(
    ("line", "machine", "wanted"),
    [
        (b"--frobnicate /hello", {}, {"boot-option": Severity.ERROR}),
        (b"--frobnicate /a; /b", {}, {"boot-option": Severity.ERROR}),
        (b"--env=frobnicate=1 /a --frobnicate", {}, {}),
        (b"--nopci /a", {}, {"nopci": Severity.ERROR}),
        (b"/a", {"disk": DiskInterface.NVME}, {"disk-driver": Severity.ERROR}),
        (b"/a", {"disk": DiskInterface.AHCI}, {"disk-driver": Severity.ERROR}),
        (b"/a", {"disk": DiskInterface.VIRTIO_SCSI}, {}),
        (b"/a", {"memory": 8 * MIB}, {"memory": Severity.ERROR}),
    ],
)
def test_line_and_machine_are_held_to_the_kernel(
    line: bytes, machine: dict[str, object], wanted: dict[str, Severity]
) -> None:
    """By the rules that clouds are held to."""
    assert rules(disk_of(ROFS), line, **machine) == wanted


def test_memory_is_held_to_what_the_disk_s_files_fill() -> None:
    """By the same rules."""
    disk = disk_of(LARGE)
    assert rules(disk, b"/a", memory=32 * MIB) == {"rofs-cache": Severity.WARNING}
    assert rules(disk, b"/a", memory=256 * MIB) == {}


def test_a_guest_without_a_network_runs() -> None:
    """So the driver of a card is warned of, and that of the disk is not missed where the files are in the kernel."""
    assert rules(with_kernel(disk_of(ROFS), "N6virtio3blkE", "N3pci8functionE")) == {"network-driver": Severity.WARNING}
    assert rules(with_kernel(disk_of(b""), "N3pci8functionE")) == {"network-driver": Severity.WARNING}
    assert "disk-driver" in rules(with_kernel(disk_of(ROFS), "N3pci8functionE"))


def test_the_root_is_what_stands_on_the_disk() -> None:
    """A kernel that does not mount it is refused; what comes from outside is named by an option."""
    assert rules(disk_of(zfs_labels(2 * MIB))) == {"root-file-system": Severity.ERROR}
    assert rules(disk_of(ext_superblock().ljust(MIB, b"\0"))) == {"root-file-system": Severity.ERROR}
    assert rules(disk_of(b"")) == {}
    assert rules(disk_of(b""), b"--rootfs=virtiofs /a") == {
        "boot-option": Severity.ERROR,
        "root-file-system": Severity.ERROR,
    }


def test_of_another_kernel_nothing_is_known() -> None:
    """Neither of a payload that is no OSv, nor of one that cannot be unpacked."""
    disk = disk_of(ROFS)
    assert rules(disk[:65_536] + b"\x90" * 65_536 + disk[131_072:]) == {"unknown-kernel": Severity.WARNING}
    at = disk.index(b"OSv v0.57.0") - 60
    assert rules(disk[:at] + b"\xff" * 40 + disk[at + 40 :]) == {"unknown-kernel": Severity.WARNING}


def test_faults_are_those_of_the_disk_and_its_root() -> None:
    """What OSv passes over is none of its business."""
    assert faults(look(Volume(disk_of(ROFS)))) == []
    (told,) = faults(look(Volume(disk_of(ROFS)[: 3 * MIB])))
    assert told.startswith("the disk ends early")


def test_every_bus_has_its_interface() -> None:
    """What --disk offers can be judged."""
    assert {each.name for each in DiskBus} <= set(DiskInterface.__members__)


def test_cures_are_those_of_a_machine_made_by_options() -> None:
    """Nobody chooses a machine type here."""
    finding = Finding("memory", Severity.ERROR, "QEMU", "what", "why", "choose a machine type", "source")
    (told,) = at_hand([finding])
    assert "--memory" in told.cure and "machine type" not in told.cure
