"""A machine: what QEMU is asked for, what it says, how it ends, and that nothing is left of it. QEMU is a fake here."""

from __future__ import annotations

import json
import socket
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from osvdeploy.context import CancelToken, Context
from osvdeploy.errors import Interrupted, MachineError, ToolMissing, UsageError
from osvdeploy.events import Note, Recorder
from osvdeploy.qemu import host, machine
from osvdeploy.qemu.machine import (
    Accelerator,
    Descriptors,
    DirectKernel,
    DiskBus,
    Forward,
    GdbStub,
    Machine,
    MachineSpec,
    Power,
    arguments,
)
from osvdeploy.qemu.overlay import DiskFile, DiskFormat
from osvdeploy.sizes import MIB
from tests.qemu.fake import BOOT, FakeQemu, alive, small_disk

DISK = DiskFile(Path("/disks/a,b.raw"), DiskFormat.RAW, 1 << 30)
GIVEN = Descriptors(qmp=5, overlay=6, disk=7, kernel=8)


def told(spec: MachineSpec, option: str) -> list[str]:
    words = arguments(spec, Accelerator.TCG, GIVEN)
    return [words[at + 1] for at, word in enumerate(words) if word == option]


@pytest.mark.parametrize(
    ("text", "forward"),
    [
        ("8080", Forward(8080, 8080, "127.0.0.1")),
        ("80:8080", Forward(8080, 80, "127.0.0.1")),
        ("0:8080", Forward(8080, 0, "127.0.0.1")),
        ("0.0.0.0:80:8080", Forward(8080, 80, "0.0.0.0")),
    ],
)
def test_a_forward_is_read(text: str, forward: Forward) -> None:
    """A port alone is the same on both sides; without an address it is loopback's."""
    assert Forward.parse(text) == forward


@pytest.mark.parametrize(
    "text", ["", "a", "80:", "80:0", "0", ":80:80", "host:80:80", "::1:80:80", "80:65536", "-1:80", "1:2:3:4", "٣:80"]
)
def test_a_forward_that_makes_no_sense_is_refused(text: str) -> None:
    """With an error that repeats it; a comma would be an option of QEMU's."""
    with pytest.raises(ValueError, match=r"port|address|PORT"):
        Forward.parse(text)


def test_the_disk_lies_below_a_layer_and_is_only_read() -> None:
    """QEMU is handed open files, so that no character of a path means anything to it."""
    (node,) = [json.loads(text) for text in told(MachineSpec(DISK), "-blockdev")]
    assert node["backing"]["read-only"] and node["backing"]["file"]["filename"] == "/dev/fdset/2"
    assert told(MachineSpec(DISK), "-add-fd") == ["fd=6,set=1", "fd=7,set=2"]
    assert "a,b" not in " ".join(arguments(MachineSpec(DISK), Accelerator.TCG, GIVEN))


@pytest.mark.parametrize("bus", DiskBus)
def test_each_bus_has_the_disk_on_it(bus: DiskBus) -> None:
    """And boots from it first, unless QEMU loads a kernel, which takes that place."""
    (device,) = [each for each in told(MachineSpec(DISK, bus=bus), "-device") if "drive=disk0" in each]
    assert device.endswith("bootindex=0")
    direct = MachineSpec(DISK, bus=bus, kernel=DirectKernel(b"elf", "/a"))
    assert "bootindex" not in " ".join(told(direct, "-device"))


def test_gdb_and_a_direct_kernel_are_options_of_their_own() -> None:
    """A guest that waits for gdb starts stopped; of the kernel QEMU is handed an open file."""
    spec = MachineSpec(DISK, gdb=GdbStub(4321, wait=True), kernel=DirectKernel(b"elf", "--verbose /a,b"))
    words = arguments(spec, Accelerator.KVM, GIVEN)
    assert words[words.index("-gdb") + 1] == "tcp:127.0.0.1:4321" and "-S" in words
    assert words[words.index("-append") + 1] == "--verbose /a,b"
    assert words[words.index("-kernel") + 1] == "/proc/self/fd/8"
    assert words[words.index("-cpu") + 1] == "host"


@pytest.fixture
def qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeQemu:
    fake = FakeQemu(tmp_path / "bin")
    monkeypatch.setenv("PATH", fake.path())
    return fake


@pytest.fixture
def spec(tmp_path: Path) -> MachineSpec:
    path = small_disk(tmp_path / "disk.raw")
    return MachineSpec(DiskFile(path, DiskFormat.RAW, path.stat().st_size), accelerator=Accelerator.TCG)


def heard(running: Machine) -> bytes:
    return b"".join(each.data for each in running.console())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ends", "power"),
    [("guest-shutdown", Power.OFF), ("guest-reset", Power.RESET)],
)
def test_a_machine_tells_its_console_and_how_it_ended(
    qemu: FakeQemu, spec: MachineSpec, ends: str, power: Power
) -> None:
    """Every byte that the guest wrote, and what QMP said of the end; the process is gone."""
    qemu.ends, qemu.noise = ends, ["warning: nothing of note"]
    qemu.install()
    before = spec.disk.path.read_bytes()
    with Machine.start(Context(), spec) as running:
        assert heard(running) == (BOOT + "hello\r\n").encode()
        assert running.power is power
    assert running.said == "warning: nothing of note"
    assert not alive(qemu.calls()[0]["pid"])
    assert spec.disk.path.read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("deaf", [False, True])
def test_a_machine_is_stopped_whether_it_listens_or_not(
    qemu: FakeQemu, spec: MachineSpec, deaf: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked first, killed then; stopping it again does nothing."""
    monkeypatch.setattr("osvdeploy.qemu.process._QUIT_LIMIT", 0.3 if deaf else 20.0)
    qemu.ends, qemu.deaf = "never", deaf
    qemu.install()
    with Machine.start(Context(), spec) as running:
        for each in running.console():
            if b"hello" in each.data:
                break
        running.stop()
        assert running.power is Power.STOPPED
        running.stop()
    assert not alive(qemu.calls()[0]["pid"])


@pytest.mark.slow
def test_a_console_that_nobody_reads_does_not_keep_a_machine(qemu: FakeQemu, spec: MachineSpec) -> None:
    """Its pipe is full, QEMU waits, and is ended all the same."""
    qemu.console, qemu.ends = ["x" * 60_000 + "\n"] * 400, "never"
    qemu.install()
    with Machine.start(Context(), spec):
        pass
    assert not alive(qemu.calls()[0]["pid"])


@pytest.mark.slow
def test_a_qemu_that_crashes_is_lost(qemu: FakeQemu, spec: MachineSpec) -> None:
    """It is no guest's end: an error that has the signal and QEMU's words."""
    qemu.ends, qemu.noise = "abort", ["Assertion `ret' failed."]
    qemu.install()
    with Machine.start(Context(), spec) as running, pytest.raises(MachineError, match="SIGABRT") as lost:
        heard(running)
    assert lost.value.hint is not None and "Assertion `ret' failed." in lost.value.hint
    assert running.power is Power.LOST


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fails", "hint"),
    [
        ("cannot set up guest memory 'pc.ram': Cannot allocate memory", "--memory"),
        ("network backend 'user' is not compiled into this binary", "libslirp"),
        ("Is another process using the image [x]?", "another process uses the disk"),
        ("-gdb tcp:127.0.0.1:9: Failed to find an available port", "--gdb"),
        ("-blockdev {}: something new", "the words above"),
    ],
)
def test_what_keeps_qemu_from_starting_is_told_with_its_cure(
    qemu: FakeQemu, spec: MachineSpec, fails: str, hint: str
) -> None:
    """Its own words, whole, and what to do where they are known."""
    qemu.fails = fails
    qemu.install()
    with pytest.raises(MachineError, match="did not start") as failed:
        Machine.start(Context(), spec)
    assert f"QEMU said: qemu-system-x86_64: {fails}" in failed.value.message
    assert failed.value.hint is not None and hint in failed.value.hint


@pytest.mark.slow
def test_a_qemu_that_is_too_old_is_named(qemu: FakeQemu, spec: MachineSpec) -> None:
    """What it does not know is only the symptom."""
    qemu.unknown, qemu.version = ["-blockdev"], "4.2.1 (Debian 1:4.2-3)"
    qemu.install()
    with pytest.raises(MachineError, match="-blockdev: invalid option") as failed:
        Machine.start(Context(), spec)
    assert failed.value.hint is not None and "is 4.2" in failed.value.hint


def test_a_qemu_that_is_not_there_is_told(spec: MachineSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing, match="not on PATH") as failed:
        Machine.start(Context(), spec)
    assert failed.value.hint is not None and "apt-get install" in failed.value.hint


def test_no_room_for_the_machines_files_is_told(
    qemu: FakeQemu, spec: MachineSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No temporary directory, or a disk that went away: an error that says so, and no QEMU called."""
    qemu.install()
    gone = replace(spec, disk=replace(spec.disk, path=tmp_path / "gone"))
    with pytest.raises(MachineError, match="No such file"):
        Machine.start(Context(), gone)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(MachineError, match="nowhere") as failed:
        Machine.start(Context(), spec)
    assert failed.value.hint is not None and "TMPDIR" in failed.value.hint
    assert qemu.calls() == []


def test_a_port_that_is_taken_is_refused_before_anything_starts(qemu: FakeQemu, spec: MachineSpec) -> None:
    """By name: the port, the address and what it was for."""
    qemu.install()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"--forward: port {port} of 127.0.0.1"):
            Machine.start(Context(), replace(spec, forwards=(Forward(80, port),)))
        with pytest.raises(UsageError, match=f"--gdb: port {port}"):
            Machine.start(Context(), replace(spec, gdb=GdbStub(port)))
    with pytest.raises(UsageError, match=r"192\.0\.2\.1"):
        Machine.start(Context(), replace(spec, forwards=(Forward(80, 0, "192.0.2.1"),)))
    assert qemu.calls() == []


@pytest.mark.slow
def test_a_free_port_is_found_and_leads_to_the_guest(qemu: FakeQemu, spec: MachineSpec) -> None:
    """Several at once are several; each is open when the machine stands."""
    qemu.ends = "never"
    qemu.install()
    with Machine.start(Context(), replace(spec, forwards=(Forward(80), Forward(81)), gdb=GdbStub(0))) as running:
        ports = {each.port for each in running.forwards}
        assert len(ports) == 2 and 0 not in ports
        assert running.gdb is not None and running.gdb.port not in {0, *ports}
        for port in ports:
            socket.create_connection(("127.0.0.1", port)).close()


@pytest.mark.slow
def test_a_free_port_that_another_takes_first_is_replaced(
    qemu: FakeQemu, spec: MachineSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between our look and QEMU's there is time for another program."""
    qemu.install()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settled = machine._settle_ports
        first = [replace(spec, forwards=(Forward(80, taken.getsockname()[1]),))]
        monkeypatch.setattr(machine, "_settle_ports", lambda wanted: first.pop() if first else settled(wanted))
        with Machine.start(Context(), replace(spec, forwards=(Forward(80),))) as running:
            assert running.forwards[0].port != taken.getsockname()[1]
    assert len(qemu.calls()) == 2


@pytest.mark.slow
def test_a_cancel_while_qemu_starts_leaves_nothing(qemu: FakeQemu, spec: MachineSpec) -> None:
    """It is interrupted, and QEMU is gone."""
    qemu.install()
    cancel = CancelToken()
    cancel.cancel()
    with pytest.raises(Interrupted):
        Machine.start(Context(cancel=cancel), spec)
    assert all(not alive(call["pid"]) for call in qemu.calls())


@pytest.mark.slow
def test_no_thread_and_no_descriptor_is_left(qemu: FakeQemu, spec: MachineSpec) -> None:
    """A service that starts machines for days does not fill up."""
    qemu.install()
    with Machine.start(Context(), spec) as running:
        heard(running)
    before = (threading.active_count(), len(list(Path("/proc/self/fd").iterdir())))
    for _ in range(3):
        with Machine.start(Context(), spec) as running:
            heard(running)
    assert (threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))) == before


def test_without_kvm_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no machine can be made under KVM, QEMU translates, and people know why it is slow."""
    recorder = Recorder()
    monkeypatch.setattr(machine, "kvm_trouble", lambda qemu: "/dev/kvm is not here")
    assert machine._accelerator(Context(reporter=recorder), "qemu") is Accelerator.TCG
    assert recorder.events == [Note("without KVM, about ten times slower: /dev/kvm is not here")]
    monkeypatch.setattr(machine, "kvm_trouble", lambda qemu: None)
    assert machine._accelerator(Context(), "qemu") is Accelerator.KVM


@pytest.mark.slow
@pytest.mark.parametrize(
    ("does", "told"),
    [
        ("sys.exit(33)", None),
        ("print('qemu: failed to set MSR 0x10a', file=sys.stderr); os.abort()", "failed to set MSR 0x10a"),
        ("sys.exit(1)", "with status 1"),
        ("import time; time.sleep(60)", "had not started after 300ms"),
    ],
)
def test_kvm_works_where_a_guest_under_it_does(
    does: str, told: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A BIOS that reaches our boot sector proves it; QEMU's crash, any other end and silence do not."""
    monkeypatch.setattr(host, "_PROBE_LIMIT", 0.3)
    program = tmp_path / "qemu"
    program.write_text(f"#!{sys.executable} -IS\nimport os, sys\n{does}\n")
    program.chmod(0o755)
    trouble = host._kvm_failure(str(program))
    assert trouble is None if told is None else trouble is not None and told in trouble


def test_memory_is_whole_mib() -> None:
    """As QEMU is told it."""
    assert told(MachineSpec(DISK, memory=96 * MIB, cpus=2), "-m") == ["96M"]
    assert told(MachineSpec(DISK, cpus=2), "-smp") == ["2"]
