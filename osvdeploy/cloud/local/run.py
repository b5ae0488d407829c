"""An image in a file, run here as it is or with other boot options: the machine to be, and what came of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from osvdeploy.cloud.local.guest import GuestRun, run_guest
from osvdeploy.context import Context
from osvdeploy.digests import Digest
from osvdeploy.errors import DiskInvalid, KernelInvalid, UsageError
from osvdeploy.events import Note
from osvdeploy.osv.cmdline import options_of, with_options
from osvdeploy.osv.disk import SECTOR, line_of, with_line
from osvdeploy.osv.kernel import CHUNK_SIZE, KERNEL_OFFSET, MAX_SIZE, chunk_count
from osvdeploy.osv.kernel_image import kernel_elf
from osvdeploy.osv.source import ImageFile, open_image
from osvdeploy.qemu.machine import DirectKernel, DiskBus, Forward, GdbStub, Machine, MachineSpec
from osvdeploy.qemu.overlay import CLUSTER, DiskFile, DiskFormat
from osvdeploy.sizes import MIB, TIB, format_size
from osvdeploy.spec.boot import boot_options, worded_options, wrong_options

SIZE_LIMIT = 2 * TIB
"""Bytes that a partition table can speak of."""

CPU_LIMIT = 64
"""OSv starts on no machine with more."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to run an image here. ``memory`` in bytes, whole MiB; ``timeout`` in seconds.

    ``boot`` adds to the image's boot options or replaces them: ``verbose``, ``verbose=false``, ``delay=0.5``.
    ``kernel_direct``: QEMU loads the kernel itself, not the BIOS from the disk.
    """

    memory: int = 256 * MIB
    cpus: int = 1
    forwards: tuple[Forward, ...] = ()
    bus: DiskBus = DiskBus.VIRTIO_BLK
    boot: tuple[str, ...] = ()
    kernel_direct: bool = False
    gdb: GdbStub | None = None
    timeout: float | None = None

    def refuse_wrong(self) -> None:
        """Raise UsageError for what no machine can be made of, and for boot options that no OSv knows."""
        if not 1 <= self.cpus <= CPU_LIMIT:
            raise UsageError(f"--cpus {self.cpus}: OSv runs on 1 to {CPU_LIMIT} processors")
        if self.memory < MIB or self.memory % MIB:
            raise UsageError(f"--memory {format_size(self.memory)}: a machine has whole MiB, at least one")
        if self.timeout is not None and self.timeout <= 0:
            raise UsageError("--timeout: no time at all", hint="leave it out to run without a limit")
        # What an option needs beside it may stand in the image: that is looked at when its line is known.
        _refuse_wrong_options(worded_options(self.boot), {"ip": True, "trace": True})


@dataclass(frozen=True, slots=True)
class RunResult:
    """An image that was run here: which (``digest`` where it was built from a spec), with which command line, and how
    it went."""

    path: Path
    digest: Digest | None
    command_line: str
    options: RunOptions
    guest: GuestRun


def run_image(
    ctx: Context,
    path: Path,
    options: RunOptions,
    *,
    show: Callable[[bytes], object],
    before: Callable[[ImageFile, bytes], object] = lambda file, line: None,
    digest: Digest | None = None,
    keyboard: int | None = None,
) -> RunResult:
    """Run the image in a file until it ends. The file is not changed. ``before`` is shown the open image and the line
    that it will boot with, and may raise.

    Raises UsageError, DiskInvalid, CommandLineInvalid, KernelInvalid before anything runs; else as run_guest does.
    """
    with open_image(path) as file:
        _refuse_unbootable(file)
        disk = DiskFile(path, DiskFormat(file.format.value), file.source.size)
        head = file.source.pread(0, CLUSTER)
        line = line_of(head)
        wanted = _with_boot_words(line, options.boot)
        before(file, wanted)
        kernel = DirectKernel(_kernel_of(file), os.fsdecode(wanted)) if options.kernel_direct else None
    spec = MachineSpec(
        disk=disk,
        memory=options.memory,
        cpus=options.cpus,
        bus=options.bus,
        forwards=options.forwards,
        head=None if wanted == line else with_line(head, wanted),
        kernel=kernel,
        gdb=options.gdb,
    )

    def started(machine: Machine) -> None:
        for told in _told(machine, str(path) if digest is None else f"image {digest[:12]}"):
            ctx.report(Note(told))

    guest = run_guest(ctx, spec, show=show, started=started, timeout=options.timeout, keyboard=keyboard)
    return RunResult(path, digest, wanted.decode(errors="replace"), options, guest)


def _refuse_unbootable(file: ImageFile) -> None:
    """Raise DiskInvalid for a disk that no BIOS boots from, or that no OSv finds its root on."""
    size, sector = file.source.size, file.source.pread(0, SECTOR)
    if size > SIZE_LIMIT:
        raise DiskInvalid(f"{file.path}: a disk of {size} bytes; its partition table reaches to 2 TiB")
    if sector[510:] != b"\x55\xaa":
        raise DiskInvalid(
            f"{file.path}: no boot sector: bytes 510 and 511 are not 55 AA",
            hint="name a disk that `osvdeploy build -o` or OSv's own build (usr.img) made",
        )
    if not any(sector[0x1BE:510]):
        raise DiskInvalid(
            f"{file.path}: its partition table is empty: a kernel without a file system",
            hint="name it as `file` under [kernel] of an osv.toml, and run that",
        )


def _kernel_of(file: ImageFile) -> bytes:
    """The ELF kernel out of the loader.img that a disk begins with. Raises KernelInvalid."""
    head = file.source.pread(0, SECTOR)
    size = KERNEL_OFFSET + chunk_count(head) * CHUNK_SIZE
    if size > MAX_SIZE:
        raise KernelInvalid(f"{file.path}: its boot sector loads {format_size(size)}, more than any kernel has")
    # A loader.img has no partitions yet.
    loader = head[:0x1BE].ljust(510, b"\0") + head[510:] + file.source.pread(SECTOR, size - SECTOR)
    return kernel_elf(loader, name=str(file.path))


def _with_boot_words(line: bytes, words: tuple[str, ...]) -> bytes:
    """The image's line with the boot options that ``words`` write. Raises UsageError where one makes no sense in it."""
    if not words:
        return line
    table = worded_options(words)
    _refuse_wrong_options(table, {name: True for name, _ in options_of(line)})
    options: dict[str, list[str | None]] = {name: [] for name in table}
    for name, value in boot_options(table):
        options[name].append(value)
    return with_options(line, options)


def _refuse_wrong_options(table: Mapping[str, object], standing: Mapping[str, object]) -> None:
    problems = [(name, told) for name, told in wrong_options({**standing, **table}) if name in table]
    if problems:
        raise UsageError("\n".join(f"--boot {name}: {told}" for name, told in problems))


def _told(machine: Machine, name: str) -> list[str]:
    spec = machine.spec
    cpus = "1 processor" if spec.cpus == 1 else f"{spec.cpus} processors"
    how = f"{spec.bus}, {machine.accelerator.upper()}{', kernel loaded directly' if spec.kernel is not None else ''}"
    told = [f"booting {name}: {format_size(spec.memory)}, {cpus}, {how}"]
    told += [f"{each.host}:{each.port} leads to port {each.guest_port} of the guest" for each in machine.forwards]
    if machine.gdb is not None:
        waits = "; the guest waits for its `continue`" if machine.gdb.wait else ""
        told.append(f"gdb -ex 'target remote 127.0.0.1:{machine.gdb.port}' loader.elf{waits}")
    return told
