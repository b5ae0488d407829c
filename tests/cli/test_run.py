"""`osvdeploy run`, as a user runs it, with a QEMU that is a fake: exit codes, output, and nothing left behind."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from osvdeploy.osv.disk import with_line, with_partition
from osvdeploy.osv.image import Extent
from tests.cli.running import Ran, osvdeploy
from tests.osv.images import LZLOADER, loader_image
from tests.osv.kernels import kernel_elf, lzloader, pack
from tests.osv.rofs_files import make_rofs, tree_of
from tests.qemu.fake import BOOT, FakeQemu, alive, small_disk

pytestmark = pytest.mark.slow

PATIENCE = 30.0
"""Seconds for a process to do what it does in a tenth of one, on a busy machine."""


def hear_signals() -> None:
    """As in a shell, even where these tests run under nohup."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@dataclass
class User:
    """A folder with a disk, a QEMU on PATH, and nothing else of the user's."""

    folder: Path
    qemu: FakeQemu

    def environ(self, **more: str) -> dict[str, str]:
        (self.folder / "tmp").mkdir(exist_ok=True)
        return {**os.environ, "PATH": self.qemu.path(), "TMPDIR": str(self.folder / "tmp"), **more}

    def start(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        """osvdeploy run, in a process group of its own, as a shell starts it."""
        self.qemu.install()
        command = [sys.executable, "-m", "osvdeploy", "run", *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **options}
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environ(), process_group=0, preexec_fn=hear_signals, **pipes
        )

    def run(self, *words: str) -> Ran:
        process = self.start(*words)
        stdout, stderr = process.communicate(timeout=PATIENCE)
        return Ran(process.returncode, stdout.decode(), stderr.decode())

    def pid(self) -> int:
        """The one QEMU that was started."""
        (call,) = self.qemu.calls()
        found: int = call["pid"]
        return found

    def left(self) -> list[Path]:
        """Files that are there and were not made by the test."""
        return [*(self.folder / "tmp").rglob("*")]


@pytest.fixture
def user(tmp_path: Path) -> User:
    small_disk(tmp_path / "disk.raw")
    return User(tmp_path, FakeQemu(tmp_path / "bin"))


def read_until(stream: int, words: bytes) -> bytes:
    """What a pipe or terminal says, up to ``words`` and what came with them."""
    told, deadline = b"", time.monotonic() + PATIENCE
    while words not in told:
        assert select.select([stream], [], [], max(0.0, deadline - time.monotonic()))[0], told
        piece = os.read(stream, 65_536)
        assert piece, told
        told += piece
    return told


def gone(pid: int) -> bool:
    """Whether a process is no more, or will be in a moment."""
    deadline = time.monotonic() + PATIENCE
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)  # polled: no child of ours
    return not alive(pid)


def test_the_console_is_stdout_and_the_story_is_stderr(user: User) -> None:
    """Byte for byte; the story has the stages, and the end."""
    ran = user.run("disk.raw", "--boot", "verbose", "--forward", "0:8080")
    assert (ran.code, ran.stdout) == (0, BOOT + "hello\r\n")
    assert "booting disk.raw: 256MiB, 1 processor, virtio-blk, TCG" in ran.stderr
    assert "leads to port 8080 of the guest" in ran.stderr
    assert "kernel" in ran.stderr and "the program ended" in ran.stderr
    assert user.left() == []


def spec_of(user: User, kernel: bytes, *, more: str = "") -> None:
    (user.folder / "loader.img").write_bytes(kernel)
    (user.folder / "hello").write_bytes(b"\x7fELF")
    (user.folder / "osv.toml").write_text(
        'name = "hello"\nversion = "1"\n[kernel]\nfile = "loader.img"\n[image]\ncommand = ["/hello"]\n'
        f'[[files]]\nfrom = "hello"\nto = "/hello"\n{more}'
    )


MICROVM = loader_image(payload=lzloader(pack(kernel_elf(classes=("N6virtio3blkE", "N6virtio11mmio_deviceE")))))
CARDLESS = loader_image(payload=lzloader(pack(kernel_elf(classes=("N6virtio3blkE", "N3pci8functionE")))))


def test_what_cannot_boot_in_the_machine_is_refused_before_it_is_started(user: User) -> None:
    """A driver that the kernel lacks, and an option that it does not take, all at once and each with its cure: a
    console seldom says so. Whoever names the rules boots it."""
    spec_of(user, loader_image(payload=LZLOADER))
    ran = user.run("--boot", "leak", "--disk", "nvme")
    assert (ran.code, ran.stdout) == (2, "") and "warning" not in ran.stderr
    assert "boot option leak: this kernel (" in ran.stderr and "does not take it [boot-option]" in ran.stderr
    assert "NVMe" in ran.stderr and "[disk-driver]" in ran.stderr and "another with --disk" in ran.stderr
    assert "to boot it all the same: --force boot-option --force disk-driver" in ran.stderr
    assert user.qemu.calls() == [] and not (user.folder / "osv.lock").exists()
    ran = user.run("--boot", "leak", "--disk", "nvme", "--force", "boot-option", "--force", "disk-driver")
    assert ran.code == 0 and ran.stderr.count("allowed: ") == 2 and "(forced)" in ran.stderr


def test_a_build_that_is_refused_can_be_forced_here_too(user: User) -> None:
    """What build refuses of a spec, run refuses; and a waiver of the spec is one here."""
    spec_of(user, loader_image(payload=LZLOADER), more="[image.boot]\nleak = true\n")
    assert user.run().code == 2 and user.run("--force", "boot-option").code == 0
    spec_of(user, loader_image(payload=LZLOADER), more='[image.boot]\nleak = true\n[waive]\nboot-option = "a try"\n')
    ran = user.run()
    assert ran.code == 0 and "(a try)" in ran.stderr
    # What --boot takes away is not held against the image.
    spec_of(user, loader_image(payload=LZLOADER), more="[image.boot]\nnopci = true\n")
    assert user.run().code == 2 and user.run("--boot", "nopci=false").code == 0


def test_a_spec_is_named_as_for_inspect(user: User) -> None:
    """By its folder or its file, with other values too."""
    spec_of(user, loader_image(payload=LZLOADER))
    for words in (["."], ["osv.toml"], ["--set", "image.boot.verbose=true", "."]):
        ran = user.run(*words, "--json")
        assert ran.code == 0 and ran.document["digest"] is not None
    assert ran.document["command_line"] == "--verbose /hello"
    assert user.run("-f", "osv.toml", ".").code == 2


def test_a_disk_is_held_to_the_same_rules(user: User) -> None:
    """By its kernel's own bytes, whoever made it: a kernel for Firecracker is called that. A program without network
    runs, and its disk's faults are told."""
    rofs = make_rofs(tree_of({b"/hello": b"\x7fELF"}))
    for name, kernel in (("microvm.raw", MICROVM), ("cardless.raw", CARDLESS)):
        head = with_line(with_partition(kernel, Extent(2 << 20, (2 << 20) + len(rofs))), b"/hello")
        (user.folder / name).write_bytes(head.ljust(2 << 20, b"\0") + rofs)
    ran = user.run("microvm.raw")
    assert (ran.code, ran.stdout) == (2, "") and user.qemu.calls() == []
    assert (
        "does not look there: it is for Firecracker and QEMU microvm; its drivers are virtio-blk, virtio-mmio"
        in ran.stderr
    )
    assert "use a kernel of the default driver profile" in ran.stderr and "--force bus-driver" in ran.stderr
    error = user.run("microvm.raw", "--json").document["error"]
    assert error["kind"] == "CheckFailed" and error["exit_code"] == 2
    assert user.run("microvm.raw", "--force", "bus-driver").code == 0
    ran = user.run("cardless.raw", "--memory", "64MiB")
    assert ran.code == 0 and "warning: QEMU: has a virtio-net network card" in ran.stderr
    ran = user.run("cardless.raw", "--memory", "8MiB")
    assert ran.code == 2 and "has 8MiB of memory" in ran.stderr and "give the machine more with --memory" in ran.stderr
    (user.folder / "cut.raw").write_bytes((user.folder / "cardless.raw").read_bytes()[:-600])
    ran = user.run("cut.raw")
    assert ran.code == 0 and "warning: cut.raw: the disk ends early" in ran.stderr
    assert user.run("cut.raw", "--force", "no-such").code == 2


def test_with_json_stdout_is_one_document(user: User) -> None:
    """The console goes to stderr, and its end is in the document, with all that is known of the run."""
    user.qemu.console = [BOOT, "syscall(): unimplemented system call 334\n", "Aborted\n[backtrace]\n0x1 <main+1>\n"]
    user.qemu.ends = "guest-reset"
    ran = user.run("disk.raw", "--json", "--forward", "0:8080", "--gdb", "0", "--memory", "64MiB", "--cpus", "2")
    told = ran.document
    assert ran.code == told["exit_code"] == 134
    assert (told["ended"], told["power"], told["program_status"]) == ("crashed", "reset", None)
    assert [each["stage"] for each in told["stages"]] == ["kernel", "network", "booted", "command-line", "output"]
    assert all(0 < each["seconds"] <= told["seconds"] for each in told["stages"])
    (forwarded,) = told["forwarded"]
    assert forwarded["guest_port"] == 8080 and forwarded["port"] > 0 and told["gdb"]["port"] > 0
    assert told["machine"] == {
        "accelerator": "tcg", "memory": 64 << 20, "cpus": 2, "disk": "virtio-blk", "kernel_direct": False,
    }  # fmt: skip
    assert (told["osv_version"], told["addresses"]) == ("v0.57.0-1-gabcdef", ["10.0.2.15"])
    assert told["fault"]["fault"] == "aborted" and told["fault"]["fatal"]
    assert told["suspicions"][0]["fault"] == "unimplemented"
    assert told["command_line"] == "/hello" and told["console"].startswith("SeaBIOS")
    assert "Aborted" in ran.stderr and "Aborted" not in user.run("disk.raw", "--json", "-q").stderr


@pytest.mark.parametrize(
    ("console", "ends", "code", "told"),
    [
        ("program /hello returned 7\n", "guest-shutdown", 7, "the program ended with status 7"),
        ("Failed to load object: /hello. Powering off.\n", "guest-shutdown", 127, "/hello is not in the image"),
        ("This image has an empty command line. Nothing to run.\n", "guest-shutdown", 120, "names no program"),
        ("unrecognized option: x\nOSv options:\n", "guest-shutdown", 121, "does not know a boot option"),
        ("hello\n", "guest-reset", 125, "restarted itself"),
        ("hello\n", "abort", 1, "QEMU was lost: it ended by SIGABRT"),
    ],
)
def test_the_exit_code_tells_how_the_guest_ended(user: User, console: str, ends: str, code: int, told: str) -> None:
    """And the error on stderr says why, with what to do."""
    user.qemu.console, user.qemu.ends = [BOOT, console], ends
    ran = user.run("disk.raw")
    assert ran.code == code
    assert told in ran.stderr and "error: " in ran.stderr and "Traceback" not in ran.stderr


def test_a_guest_that_stays_on_is_ended_in_time(user: User) -> None:
    """With a code of its own, and how far it came."""
    user.qemu.console, user.qemu.ends = ["OSv v0.57.0\n"], "never"
    ran = user.run("disk.raw", "--timeout", "700ms")
    assert (ran.code, ran.stdout) == (124, "OSv v0.57.0\n")
    assert "had no address yet" in ran.stderr and gone(user.pid())


def test_a_guest_that_has_halted_is_not_waited_for(user: User) -> None:
    """Without power-off-on-abort OSv stands still behind its backtrace."""
    user.qemu.console, user.qemu.ends = [BOOT, "Aborted\n[backtrace]\n0x1 <main+1>\n"], "never"
    ran = user.run("disk.raw")
    assert ran.code == 134 and gone(user.pid())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_guest(user: User, number: signal.Signals) -> None:
    """Exit code 130, QEMU gone, nothing left in the temporary directory; how far the guest was is told, and with --json
    still one document."""
    user.qemu.ends = "never"
    process = user.start("disk.raw", "--json")
    assert process.stdout is not None and process.stderr is not None
    read_until(process.stderr.fileno(), b"hello")
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=PATIENCE)
    told = json.loads(stdout)
    assert process.returncode == told["exit_code"] == 130
    assert told["ended"] == "interrupted" and gone(user.pid()) and user.left() == []
    assert re.fullmatch(
        r"the guest was ended by the interrupt, after [\d.]+m?s: the program was running", told["cause"]
    )
    assert told["cause"] in stderr.decode() and told["cure"] is None


@pytest.mark.parametrize("deaf", [False, True])
def test_kill_9_leaves_no_process_and_no_file(user: User, deaf: bool) -> None:
    """The kernel ends QEMU with us, whether it would listen or not; its copy on write never had a name."""
    user.qemu.ends, user.qemu.deaf = "never", deaf
    process = user.start("disk.raw")
    assert process.stdout is not None
    read_until(process.stdout.fileno(), b"hello")
    assert alive(user.pid()) and user.left() == []
    process.kill()
    process.communicate()
    assert gone(user.pid()) and user.left() == []


def test_a_second_signal_ends_at_once(user: User) -> None:
    """Also a QEMU that is deaf."""
    user.qemu.ends, user.qemu.deaf = "never", True
    process = user.start("disk.raw")
    assert process.stdout is not None and process.stderr is not None
    read_until(process.stdout.fileno(), b"hello")
    process.send_signal(signal.SIGINT)
    read_until(process.stderr.fileno(), b"stopping")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and gone(user.pid())


def test_a_reader_that_goes_away_ends_the_guest(user: User) -> None:
    """`osvdeploy run | head -1` leaves no machine behind, and no traceback."""
    user.qemu.console, user.qemu.ends = [BOOT, *(each for _ in range(2000) for each in (0.01, "talk\n"))], "never"
    process = user.start("disk.raw")
    assert process.stdout is not None
    read_until(process.stdout.fileno(), b"OSv")
    process.stdout.close()
    process.stdout = None
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1 and b"Traceback" not in stderr and gone(user.pid())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_console_that_cannot_be_written_is_told(user: User) -> None:
    """A full disk behind `>` is an error, and the guest is ended."""
    user.qemu.ends = "never"
    with Path("/dev/full").open("wb") as full:
        process = user.start("disk.raw", stdout=full)
        _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1 and b"the console cannot be written: No space left" in stderr
    assert gone(user.pid())


def test_the_terminal_is_as_it_was(user: User) -> None:
    """What is typed reaches the guest with --interactive; afterwards the terminal echoes again, in its own colours."""
    import termios

    user.qemu.console, user.qemu.ends = [BOOT, "\x1b[?25l\x1b[31mred"], "never"
    near, far = pty.openpty()
    try:
        before = termios.tcgetattr(far)
        process = user.start("disk.raw", "-i", stdin=far, stdout=far, stderr=far)
        read_until(near, b"red")
        assert not termios.tcgetattr(far)[3] & (termios.ECHO | termios.ICANON)
        process.send_signal(signal.SIGINT)
        shown = read_until(near, b"ended by the interrupt")
        assert process.wait(PATIENCE) == 130
        assert termios.tcgetattr(far) == before
        assert b"\x1b[0m\x1b[?25h\r\n" in shown
    finally:
        os.close(near)
        os.close(far)


def test_bad_usage_starts_nothing(user: User) -> None:
    """Each with exit code 2, a message that names it, and no QEMU called."""
    user.qemu.install()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for words, told in [
            (["--forward", "x:y"], "'x:y'"),
            (["--forward", f"{port}:80"], f"port {port} of 127.0.0.1 cannot be had: Address already in use"),
            (["--gdb", str(port)], f"--gdb: port {port}"),
            (["--memory", "256"], "has no unit"),
            (["--memory", "1KiB"], "whole MiB"),
            (["--cpus", "65"], "1 to 64"),
            (["--boot", "verbos"], "did you mean 'verbose'?"),
            (["--boot", "nameserver=10.0.0.1"], "only together with ip"),
            (["--disk", "ide"], "'ide' is not one of"),
            (["--timeout", "0s"], "no time at all"),
            (["--timeout", "60"], "has no unit"),
            (["-i"], "stdin is no terminal"),
            (["-f", "osv.toml"], "both an image and a spec"),
            (["--set", "version=2"], "--set changes a spec, and disk.raw is a disk"),
        ]:
            ran = user.run("disk.raw", *words)
            assert (ran.code, ran.stdout) == (2, ""), (words, ran)
            assert told in ran.stderr and "Traceback" not in ran.stderr, (words, ran)
    assert user.qemu.calls() == []


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "empty"),
        (b"x" * 4096, "other: text\n"),
        (b"\x90" * 4096, "no boot sector"),
        (b"\0" * 510 + b"\x55\xaa" + b"\0" * 4096, "partition table is empty"),
        (b"\x7fELF" + b"\0" * 600, "ELF"),
        (b"QFI\xfb\0\0\0\x09" + b"\0" * 600, "version"),
    ],
)
def test_what_is_no_disk_is_refused(content: bytes, told: str, user: User) -> None:
    """Before QEMU is called, with what the file is instead."""
    (user.folder / "other").write_bytes(content)
    ran = user.run("other")
    assert (ran.code, ran.stdout) == (2, "") and told in ran.stderr
    assert user.run("nowhere").code == 2
    assert user.qemu.calls() == []


def test_a_missing_spec_and_a_missing_qemu_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is built for a machine that cannot be had."""
    assert osvdeploy("run", folder=tmp_path).code == 2
    monkeypatch.setenv("PATH", str(tmp_path))
    ran = osvdeploy("run", str(small_disk(tmp_path / "disk.raw")), folder=tmp_path)
    assert ran.code == 2 and "qemu-system-x86_64 is not on PATH" in ran.stderr and "apt-get install" in ran.stderr
