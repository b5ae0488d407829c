"""How a guest's end is told from its console and the machine's power."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.cloud.local.guest import Ending, _Kept, judge
from osvdeploy.osv.console import Fault, read_boot_log
from osvdeploy.qemu.machine import Power

BOOT = "OSv v0.57.0\n"
NETWORK = BOOT + "eth0: 10.0.2.15\n"
STARTED = NETWORK + "Booted up in 1.00 ms\nCmdline: /hello\n"
TRACE = "\n[backtrace]\n0x0000000040200000 <main+3>\n"


@pytest.mark.parametrize(
    ("console", "ending", "code"),
    [
        (STARTED + "hello\n", Ending.PROGRAM_ENDED, 0),
        (STARTED + "program /hello returned 0\n", Ending.PROGRAM_ENDED, 0),
        (STARTED + "program /hello returned 3\nPowering off.\n", Ending.PROGRAM_ENDED, 3),
        (STARTED + "program exited with status 4\nROFS: read 3\n", Ending.PROGRAM_ENDED, 4),
        (STARTED + "program /hello returned 3\nVFS: unmounting /proc\nWarning: unmount_rootfs: failed to unmount "
         "/proc, error = Invalid argument\nROFS: hit ratio is 96%\nPowering off.\n", Ending.PROGRAM_ENDED, 3),
        (STARTED + "program /hello returned -1\n", Ending.PROGRAM_ENDED, 255),
        (STARTED + "program /hello returned 256\n", Ending.PROGRAM_ENDED, 1),
        (STARTED + "Aborted\n" + TRACE, Ending.CRASHED, 134),
        (STARTED + "Assertion failed: x (a.cc: f: 3)\n" + TRACE, Ending.CRASHED, 134),
        (STARTED + "page fault outside application, addr: 0x10\n[registers]\n", Ending.CRASHED, 134),
        (STARTED + "Out of memory: could not reclaim any further. Current memory: 5 Kb" + TRACE,
         Ending.OUT_OF_MEMORY, 137),
        (STARTED + 'Uncaught signal 15 ("Terminated"). Powering off.\n', Ending.SIGNALLED, 143),
        (STARTED + "Failed to load object: /hello. Powering off.\n", Ending.PROGRAM_MISSING, 127),
        (STARTED + "bad elf header. Powering off.\n", Ending.PROGRAM_UNUSABLE, 126),
        (STARTED + "/hello: failed looking up symbol x\n" + TRACE, Ending.NOT_LINKED, 123),
        (NETWORK + "This image has an empty command line. Nothing to run.\n", Ending.COMMAND_LINE, 120),
        (NETWORK + "Failed to parse command line.\n", Ending.COMMAND_LINE, 120),
        (BOOT + "unrecognized option: verbos\nOSv options:\n  --help\n", Ending.BOOT_OPTION, 121),
        (NETWORK + "Could not mount rofs root filesystem.\n", Ending.ROOT_NOT_MOUNTED, 122),
        ("Error reading disk (real mode): 00000000000000c2\n", Ending.ROOT_NOT_MOUNTED, 122),
        (NETWORK, Ending.UNKNOWN, 125),
        ("", Ending.UNKNOWN, 125),
        ("SeaBIOS\nsomething else\n", Ending.UNKNOWN, 125),
    ],
)  # fmt: skip
def test_the_console_tells_how_a_machine_went_off(console: str, ending: Ending, code: int) -> None:
    """One name and one exit code for each end, and a cause for people."""
    verdict = judge(read_boot_log(console), Power.OFF)
    assert (verdict.ending, verdict.exit_code) == (ending, code)
    assert verdict.cause and (verdict.cure or code in (0, 123) or ending in (Ending.PROGRAM_ENDED, Ending.SIGNALLED))


def test_a_machine_that_restarts_did_not_end_well() -> None:
    """The same console that means a good end where the machine switched itself off."""
    log = read_boot_log(STARTED + "hello\n")
    assert judge(log, Power.OFF).exit_code == 0
    assert judge(log, Power.RESET).ending is Ending.UNKNOWN
    proved = read_boot_log(STARTED + "program /hello returned 0\nPowering off.\n")
    assert judge(proved, Power.RESET).exit_code == 0


@pytest.mark.parametrize(
    ("console", "told"),
    [("", "no word of OSv"), (BOOT, "no address"), (NETWORK, "not started"), (STARTED + "x", "was running")],
)
def test_time_that_is_over_tells_how_far_it_came(console: str, told: str) -> None:
    """What it was waiting for, most likely, and what to do; a crash before the end is a crash."""
    verdict = judge(read_boot_log(console), Power.STOPPED, stopped=Ending.TIME_OVER, seconds=60.0)
    assert (verdict.ending, verdict.exit_code) == (Ending.TIME_OVER, 124)
    assert told in verdict.cause and verdict.cause.startswith("still on after 60.0 s") and verdict.cure
    crashed = judge(read_boot_log(STARTED + "Aborted" + TRACE), Power.STOPPED, stopped=Ending.TIME_OVER)
    assert crashed.ending is Ending.CRASHED


def test_an_interrupt_is_an_interrupt() -> None:
    """Whatever the console says by then."""
    log = read_boot_log(STARTED + "Aborted" + TRACE)
    assert judge(log, Power.STOPPED, stopped=Ending.INTERRUPTED).exit_code == 130


def test_every_ending_has_a_code_of_its_own() -> None:
    """A script can tell them apart, and from osvdeploy's own 1 to 6."""
    codes = [each.code for each in Ending]
    assert len(set(codes)) == len(codes)
    assert not set(codes) & set(range(1, 7))


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(Fault), st.sampled_from(Power), st.text(max_size=30))
def test_any_console_has_a_verdict(fault: Fault, power: Power, text: str) -> None:
    """Nothing that a guest prints is an exception."""
    for console in (text, STARTED + text, STARTED + f"program {text} returned {text}\n", f"Uncaught signal {text}"):
        assert 0 <= judge(read_boot_log(console), power).exit_code <= 255


def test_a_console_is_kept_at_both_ends() -> None:
    """A guest that talks for days fills no memory, and how it started and ended is still known."""
    kept = _Kept()
    kept.add(STARTED.encode())
    for number in range(3000):
        kept.add(b"%07d " % number * 100 + b"\n")
    kept.add(b"program /hello returned 4\n")
    assert kept.size == len(STARTED) + 3000 * 801 + 26
    assert len(kept.text()) < 800_000
    assert judge(read_boot_log(kept.text()), Power.OFF).exit_code == 4
    assert kept.end(30).endswith(b"\nprogram /hello returned 4\n") and len(kept.end(30)) == 30
    short = _Kept()
    short.add(b"abc")
    assert (short.text(), short.end(2), short.end(9)) == ("abc", b"bc", b"abc")
