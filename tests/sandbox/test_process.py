"""Guests as processes of this host."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from osvdeploy.sandbox.boot import ABORTED
from osvdeploy.sandbox.runners import Guest, GuestAnswer, GuestRequest, GuestStatus, NoAnswer, Power
from osvdeploy.sandbox.runners.process import ProcessRunner, loopback_addresses_work
from tests.alive import until as until_true
from tests.sandbox.programs import compiled
from tests.sandbox.volumes import Volume, volume

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux") or os.uname().machine != "x86_64", reason="runs ELF here"),
    pytest.mark.skipif(not loopback_addresses_work(), reason="needs all of 127.0.0.0/8"),
]
NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return compiled(tmp_path_factory.mktemp("program"))


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[ProcessRunner]:
    made = ProcessRunner(tmp_path / "guests")
    yield made
    made.close()


def guest(disk: Volume, name: str = "i-1", address: str = "127.61.9.1") -> Guest:
    return disk.guest(name, address)


def until(
    runner: ProcessRunner, reached: Callable[[GuestStatus], bool], name: str = "i-1", seconds: float = 20
) -> GuestStatus:
    """The guest's status once it is as wanted; the limit only ends a test that has failed."""
    limit = time.monotonic() + seconds
    while True:
        status = runner.status(name, NOW)
        assert status is not None
        if reached(status):
            return status
        assert time.monotonic() < limit, status
        time.sleep(0.01)  # polled: guests are no children of ours


def listening(status: GuestStatus) -> bool:
    return b"listening\n" in status.console


def until_gone(group: int) -> None:
    """Wait for a group that was killed: of grandchildren the kernel tells when it gets to it."""
    until_true(lambda: not processes_of(group), 10.0)


def processes_of(group: int) -> list[int]:
    """Living members of a process group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def test_a_program_runs_and_answers_at_its_own_address(runner: ProcessRunner, program: bytes) -> None:
    """Two guests of one image listen on one port, each at its OSV_IP, with the command line's environment alone."""
    for number in (1, 2):
        environment = (("OSVDEPLOY_RELEASE", f"app-{number}"),)
        disk = volume({"/app": program}, ("/app", "a b"), environment=environment)
        runner.start(guest(disk, f"i-{number}", f"127.61.9.{number}"), NOW)
    for number in (1, 2):
        status = until(runner, listening, f"i-{number}")
        lines = status.console.decode().splitlines()
        assert lines[0].startswith("OSv v")
        assert lines[1] == f"eth0: 127.61.9.{number}"
        assert lines[2].startswith("Booted up in ")
        assert lines[3:] == ['Cmdline: /app "a b"', "words: /app a b", "PATH is unset", "listening"]
        answer = runner.ask(f"i-{number}", f"127.61.9.{number}", 18980, GuestRequest("GET", "/"), 5, NOW)
        assert isinstance(answer, GuestAnswer)
        assert (answer.status, answer.headers["X-Release"], answer.body) == (200, f"app-{number}", b"hi")


@pytest.mark.parametrize(
    ("words", "options", "power", "console"),
    [
        (("exit", "3"), (("verbose", None),), Power.OFF, b"program /app returned 3\nPowering off.\n"),
        (("exit", "0"), (), Power.OFF, b"PATH is unset\n"),
        (("exit", "0"), (("noshutdown", None),), Power.ON, b"PATH is unset\n"),
        (("raise", str(int(signal.SIGABRT))), (), Power.ON, ABORTED),
        (("raise", str(int(signal.SIGSEGV))), (("power-off-on-abort", None),), Power.OFF, ABORTED),
        (("raise", str(int(signal.SIGTERM))), (), Power.OFF, b"PATH is unset\n"),
    ],
)
def test_how_programs_end(
    runner: ProcessRunner,
    program: bytes,
    words: tuple[str, ...],
    options: tuple[tuple[str, str | None], ...],
    power: Power,
    console: bytes,
) -> None:
    """A crash halts the machine, which looks alive from outside; anything else powers it off."""
    runner.start(guest(volume({"/app": program}, ("/app", *words), options=options)), NOW)
    ended = until(runner, lambda status: status.console.endswith(console))
    assert until(runner, lambda status: status.power is power).console == ended.console


def test_what_is_no_program_for_osv_never_runs(runner: ProcessRunner) -> None:
    """A script is no ELF: OSv's message, and off."""
    status = runner.start(guest(volume({"/app": b"#!/bin/sh\necho ran\n".ljust(80)})), NOW)
    assert status.power is Power.OFF
    assert status.console.endswith(b"bad elf header. Powering off.\n")


def test_stopping_ends_the_whole_process_group(runner: ProcessRunner, program: bytes) -> None:
    """Children too; the console is kept, the address free again, the guest's files gone."""
    runner.start(guest(volume({"/app": program}, ("/app", "fork"))), NOW)
    until(runner, listening)
    group = runner.process_group("i-1")
    assert group is not None
    assert len(processes_of(group)) == 2
    assert runner.stop("i-1", NOW).endswith(b"listening\n")
    until_gone(group)
    assert runner.status("i-1", NOW) is None
    assert runner.ask("i-1", "127.61.9.1", 18980, GuestRequest("GET", "/"), 5, NOW) is NoAnswer.REFUSED
    assert runner.stop("i-1", NOW) == b""


KILLED = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from osvdeploy.sandbox.runners.process import ProcessRunner
from tests.sandbox.programs import compiled
from tests.sandbox.volumes import volume
import threading
runner = ProcessRunner(Path(sys.argv[1]))
disk = volume({"/app": Path(sys.argv[2]).read_bytes()})
# A request's thread ends long before the program does.
start = threading.Thread(target=lambda: runner.start(disk.guest("i-1", "127.61.9.7"), datetime.now(UTC)))
start.start()
start.join()
print(runner.process_group("i-1"), flush=True)
sys.stdin.read()
"""


def test_no_program_outlives_a_killed_sandbox(tmp_path: Path, program: bytes) -> None:
    """After kill -9 of the sandbox its guests are gone, and the next one reports them as powered off."""
    (tmp_path / "app").write_bytes(program)
    words = [sys.executable, "-c", KILLED, str(tmp_path / "guests"), str(tmp_path / "app")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as sandbox:
        assert sandbox.stdout is not None
        group = int(sandbox.stdout.readline())
        console = tmp_path / "guests/i-1/console"
        limit = time.monotonic() + 20
        while b"listening" not in console.read_bytes() and time.monotonic() < limit:
            time.sleep(0.01)  # polled: guests are no children of ours
        assert processes_of(group)
        sandbox.kill()
    while processes_of(group) and time.monotonic() < limit:
        time.sleep(0.01)  # polled: guests are no children of ours
    assert processes_of(group) == []
    runner = ProcessRunner(tmp_path / "guests")
    status = runner.status("i-1", NOW)
    runner.close()
    assert status is not None
    assert status.power is Power.OFF
    assert status.console.endswith(b"listening\n")
