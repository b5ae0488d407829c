"""Images run here: in the real QEMU, with the boot guest, and with OSv where OSV_KERNEL names its loader.img."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from osvdeploy import api
from osvdeploy.cloud.local.guest import Ending
from osvdeploy.cloud.local.run import RunOptions, RunResult
from osvdeploy.context import CancelToken, Context
from osvdeploy.demo.guest import read_report
from osvdeploy.demo.hello import build_hello
from osvdeploy.errors import CheckFailed, KernelInvalid
from osvdeploy.osv.cmdline import BootCommand
from osvdeploy.osv.console import Fault, Stage
from osvdeploy.osv.disk import compose, read_disk
from osvdeploy.osv.filetree import TreeBuilder
from osvdeploy.osv.kernel import Kernel, read_kernel
from osvdeploy.osv.rofs import lay_out
from osvdeploy.qemu.host import qemu_version
from osvdeploy.qemu.machine import DiskBus, Forward, Power
from osvdeploy.sizes import MIB
from tests.boot.qemu import BOOT_TIMEOUT, QEMU, needs_qemu
from tests.boot.test_osv import get, kernel, program_of
from tests.qemu.fake import alive

__all__ = ["kernel"]  # the fixture

boots = pytest.mark.boot
boots_osv = pytest.mark.osv
pytestmark = needs_qemu


def disk_of(
    path: Path,
    kernel: Kernel,
    *words: str,
    options: tuple[tuple[str, str | None], ...] = (),
    program: Path | None = None,
    name: bytes = b"/hello",
) -> Path:
    builder = TreeBuilder()
    if program is not None:
        builder.add_file(name, os.fsencode(program))
    else:
        builder.add_content(b"/nothing", b"", origin="the test")
    compose(path, kernel, lay_out(builder.tree()), BootCommand(options, (), words))
    return path


@dataclass
class Watched:
    """A run whose console is watched: when ``until`` is on it, ``then`` is done and the run cancelled."""

    until: bytes = b"\0never"
    then: Callable[[], object] = lambda: None
    console: bytearray = field(default_factory=bytearray)
    cancel: CancelToken = field(default_factory=CancelToken)

    def show(self, data: bytes) -> None:
        self.console += data
        if self.until in self.console and not self.cancel.cancelled:
            self.then()
            self.cancel.cancel()

    def run(self, disk: Path, options: RunOptions, *, forced: Collection[str] = ()) -> RunResult:
        return api.run(Context(cancel=self.cancel), disk, options, forced=forced, show=self.show)


def run(
    disk: Path, *boot: str, bus: DiskBus = DiskBus.VIRTIO_BLK, direct: bool = False, forced: Collection[str] = ()
) -> RunResult:
    options = RunOptions(boot=boot, bus=bus, kernel_direct=direct, timeout=BOOT_TIMEOUT)
    return Watched().run(disk, options, forced=forced)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ------------------------------------------------------------------------------------------------------ boot guest


@boots
@pytest.mark.parametrize("bus", DiskBus)
def test_a_disk_boots_on_each_bus_with_other_options_and_stays_as_it_was(
    bus: DiskBus, guest: Kernel, tmp_path: Path
) -> None:
    """The guest reads the line that --boot made, and the rest of the disk as it is; not a byte of the file changes."""
    disk = disk_of(tmp_path / "disk.raw", guest, "/hello", "--port", "80", options=(("verbose", None),))
    before = digest(disk)
    ran = run(disk, "verbose=false", "delay=0.5", "cwd=/a", bus=bus)
    report = read_report(ran.guest.console)
    assert (report.error, report.finished) == (None, True)
    assert report.command_line == b"--delay=0.5 --cwd=/a /hello --port 80" == ran.command_line.encode()
    assert [entry.name for entry in report.entries] == [b"nothing"]
    assert digest(disk) == before
    # It is no OSv, and what is not seen is not claimed.
    assert ran.guest.power in (Power.OFF, Power.RESET)
    assert ran.guest.verdict.ending is Ending.UNKNOWN


@boots
@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not here")
def test_a_qcow2_image_boots_with_other_options(guest: Kernel, tmp_path: Path) -> None:
    """As a raw one, compressed or not."""
    raw = disk_of(tmp_path / "disk.raw", guest, "/hello")
    for flags in ([], ["-c"]):
        disk = tmp_path / "disk.qcow2"
        subprocess.run(["qemu-img", "convert", *flags, "-O", "qcow2", str(raw), str(disk)], check=True)
        before = digest(disk)
        assert read_report(run(disk).guest.console).command_line == b"/hello"
        assert read_report(run(disk, "verbose").guest.console).command_line == b"--verbose /hello"
        assert digest(disk) == before


@boots
def test_a_kernel_that_is_not_osv_is_not_loaded_directly(guest: Kernel, tmp_path: Path) -> None:
    """Only OSv's lzloader is known to hold an ELF kernel."""
    with pytest.raises(KernelInvalid, match="not OSv"):
        run(disk_of(tmp_path / "disk.raw", guest, "/hello"), direct=True)


@boots
def test_the_version_of_qemu_is_known() -> None:
    """As its --version tells it."""
    assert QEMU is not None
    version = qemu_version(QEMU)
    assert version is not None and version >= (6, 0)


@boots
def test_gdb_is_answered_and_kill_9_takes_the_real_qemu_along(guest: Kernel, tmp_path: Path) -> None:
    """A guest that waits for gdb is there to be asked; nothing of it is left: no process, no file."""
    disk = disk_of(tmp_path / "disk.raw", guest, "/hello")
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    # Stopped before its first instruction, it stays on.
    command = [sys.executable, "-m", "osvdeploy", "run", str(disk), "--gdb", "0", "--gdb-wait"]
    environ = {**os.environ, "TMPDIR": str(scratch)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environ)
    assert process.stderr is not None
    told = next(line for line in process.stderr if b"gdb -ex" in line)
    port = int(told.partition(b"127.0.0.1:")[2].partition(b"'")[0])
    with socket.create_connection(("127.0.0.1", port), timeout=BOOT_TIMEOUT) as gdb:
        gdb.sendall(b"$?#3f")  # why has it stopped? by signal 5, of thread 1
        answer = b""
        while b"#" not in answer:
            answer += gdb.recv(100)
        assert answer.startswith(b"+$T05")
    threads = Path(f"/proc/{process.pid}/task").iterdir()
    children = [int(pid) for thread in threads for pid in (thread / "children").read_text().split()]
    assert len(children) == 1 and alive(children[0])
    process.send_signal(signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + BOOT_TIMEOUT
    while alive(children[0]) and time.monotonic() < deadline:
        time.sleep(0.01)  # polled: no child of ours
    assert not alive(children[0]) and not any(scratch.iterdir())


# -------------------------------------------------------------------------------------------------------------- OSv


@boots_osv
@pytest.mark.parametrize(
    ("bus", "direct"),
    [*((bus, False) for bus in DiskBus), (DiskBus.VIRTIO_BLK, True), (DiskBus.NVME, True)],
)
def test_hello_answers_on_a_forwarded_port(bus: DiskBus, direct: bool, kernel: Kernel, tmp_path: Path) -> None:
    """On each bus, booted by the BIOS or its kernel loaded directly; every stage is told, in order."""
    disk = disk_of(
        tmp_path / "disk.raw", kernel, "/hello", "--port", "8080", program=build_hello("1.0.0", tmp_path / "hello")
    )
    ports: list[int] = []
    answers: list[tuple[int, str | None, str]] = []

    def note(event: object) -> None:
        text = getattr(event, "text", "")
        if " leads to port 8080" in text:
            ports.append(int(text.partition(" ")[0].rpartition(":")[2]))

    watched = Watched(b"listens on", lambda: answers.append(get(ports[0], "/")))
    options = RunOptions(forwards=(Forward(8080),), bus=bus, kernel_direct=direct, timeout=BOOT_TIMEOUT)
    ctx = Context(cancel=watched.cancel, reporter=note)
    ran = api.run(ctx, disk, options, show=watched.show)
    assert [answer[2] for answer in answers] == ["hello 1.0.0\n"]
    assert [each.stage for each in ran.guest.stages] == list(Stage)
    seconds = [each.seconds for each in ran.guest.stages]
    assert seconds == sorted(seconds) and seconds[0] > 0 and seconds[-1] <= ran.guest.seconds
    assert ran.guest.forwards[0].port == ports[0]
    assert (ran.guest.verdict.ending, ran.guest.log.fault) == (Ending.INTERRUPTED, None)


@boots_osv
@pytest.mark.parametrize(("ends", "code", "status"), [("return 0", 0, None), ("return 3", 3, 3), ("exit(4)", 4, 4)])
def test_a_programs_status_is_the_exit_code_where_osv_tells_it(
    ends: str, code: int, status: int | None, kernel: Kernel, tmp_path: Path
) -> None:
    """With verbose, of a 0 that is returned only the end; without, the end is all that is known."""
    program = program_of(f"#include <stdlib.h>\nint main(void) {{ {ends}; }}\n", tmp_path, "ends")
    disk = disk_of(tmp_path / "disk.raw", kernel, "/hello", program=program)
    verbose, quiet = run(disk, "verbose").guest, run(disk).guest
    assert (verbose.verdict.exit_code, verbose.verdict.status) == (code, status)
    assert (quiet.verdict.exit_code, quiet.verdict.status) == (0, None)
    assert {verbose.verdict.ending, quiet.verdict.ending} == {Ending.PROGRAM_ENDED}


@boots_osv
@pytest.mark.parametrize("options", [(), (("power-off-on-abort", None),)])
def test_an_abort_ends_the_machine_with_or_without_its_option(
    options: tuple[tuple[str, str | None], ...], kernel: Kernel, tmp_path: Path
) -> None:
    """OSv halts its processors by default; it is seen all the same, and told as a crash."""
    program = program_of("#include <stdlib.h>\nint main(void) { abort(); }\n", tmp_path, "aborts")
    ran = run(disk_of(tmp_path / "disk.raw", kernel, "/hello", program=program, options=options))
    assert (ran.guest.verdict.ending, ran.guest.verdict.exit_code) == (Ending.CRASHED, 134)
    assert ran.guest.log.fault is not None and ran.guest.log.fault.fault is Fault.ABORTED


@boots_osv
@pytest.mark.parametrize(
    ("words", "options", "ending"),
    [
        (("/nowhere",), (), Ending.PROGRAM_MISSING),
        (("/nothing",), (), Ending.PROGRAM_UNUSABLE),
        ((), (), Ending.COMMAND_LINE),
        (("/hello",), (("no-such-option", None),), Ending.BOOT_OPTION),
        (("/hello",), (("console", "com7"),), Ending.BOOT_OPTION),
        (("/hello",), (("ip", "eth0"),), Ending.BOOT_OPTION),
        (("/hello",), (("nopci", None), ("verbose", None)), Ending.ROOT_NOT_MOUNTED),
    ],
)
def test_each_failure_of_a_boot_has_its_exit_code(
    words: tuple[str, ...], options: tuple[tuple[str, str | None], ...], ending: Ending, kernel: Kernel, tmp_path: Path
) -> None:
    """What OSv prints is told apart, with a cause and a cure; also where a rule knew it before."""
    disk = disk_of(tmp_path / "disk.raw", kernel, *words, options=options)
    if refused := {"nopci": "nopci", "no-such-option": "boot-option"}.get(next((name for name, _ in options), "")):
        with pytest.raises(CheckFailed, match=rf"\[{refused}\]"):
            run(disk)
    verdict = run(disk, forced=("nopci", "boot-option")).guest.verdict
    assert (verdict.ending, verdict.exit_code) == (ending, ending.code)
    assert verdict.cause and verdict.cure


@boots_osv
def test_a_machine_that_is_too_small_says_nothing_and_is_told_so(kernel: Kernel, tmp_path: Path) -> None:
    """OSv does not get as far as its first line."""
    disk = disk_of(tmp_path / "disk.raw", kernel, "/hello")
    options = RunOptions(memory=4 * MIB, timeout=8.0)
    with pytest.raises(CheckFailed, match="has 4MiB of memory"):
        Watched().run(disk, options)
    verdict = Watched().run(disk, options, forced=["memory"]).guest.verdict
    assert verdict.ending in (Ending.UNKNOWN, Ending.TIME_OVER)
    assert verdict.cure is not None and "memory" in verdict.cure


@boots_osv
def test_a_kernel_for_firecracker_is_refused_and_where_forced_not_taken_for_a_program(tmp_path: Path) -> None:
    """It finds nothing on PCI; without KVM it has no clock either, and stops before it comes to the program."""
    if (path := os.environ.get("OSV_MICROVM_KERNEL")) is None:
        pytest.skip("needs OSV_MICROVM_KERNEL, a loader.img of the microvm profile")
    disk = disk_of(tmp_path / "disk.raw", read_kernel(Path(path)), "/hello")
    with pytest.raises(CheckFailed, match="for Firecracker and QEMU microvm; its drivers are virtio-blk") as caught:
        run(disk)
    assert caught.value.hint is not None and "--force bus-driver" in caught.value.hint
    verdict = run(disk, forced=["bus-driver"]).guest.verdict
    # With KVM it comes as far as the program, which is on the disk that it does not find.
    assert verdict.ending in (Ending.CRASHED, Ending.PROGRAM_MISSING)
    assert "the program used" not in verdict.cause and verdict.cure is not None


@boots_osv
def test_what_is_typed_reaches_the_program(kernel: Kernel, tmp_path: Path) -> None:
    """A program that reads its standard input gets what comes from the keyboard's descriptor."""
    source = (
        "#include <stdio.h>\nint main(void) { char name[40] = \"\"; printf(\"name? \"); fflush(stdout);\n"
        "if (fgets(name, sizeof name, stdin)) printf(\"hello %s\", name); fflush(stdout); return 0; }\n"
    )  # fmt: skip
    disk = disk_of(tmp_path / "disk.raw", kernel, "/hello", program=program_of(source, tmp_path, "asks"))
    read, write = os.pipe()
    console = bytearray()

    def show(data: bytes) -> None:
        console.extend(data)
        if b"name? " in console and b"typed" not in console:
            os.write(write, b"typed\n")

    try:
        ran = api.run(Context(), disk, RunOptions(timeout=BOOT_TIMEOUT), show=show, keyboard=read)
    finally:
        os.close(read)
        os.close(write)
    assert b"hello typed" in console
    assert ran.guest.verdict.exit_code == 0


@boots_osv
def test_the_command_line_is_that_of_the_disk_read_back(kernel: Kernel, tmp_path: Path) -> None:
    """What was booted is what the file holds, but for --boot."""
    disk = disk_of(tmp_path / "disk.raw", kernel, "/nowhere", options=(("verbose", None),))
    ran = run(disk, "verbose=false")
    assert ran.command_line == "/nowhere"
    assert read_disk(disk).command_line == b"--verbose /nowhere"
    assert b"Powering off.\r\n" not in ran.guest.console.replace(b"/nowhere. Powering off.\r\n", b"")
