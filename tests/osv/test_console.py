from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.osv.console import _RULES, Fault, Reached, Stage, StageWatch, read_boot_log

BOOT = "\x1b[2JSeaBIOS (version 1.16)\r\nBooting from Hard Disk...\r\nOSv v0.57.0-398-g0e34e4dc\r\n"
NETWORK = BOOT + "eth0: 10.0.2.15\r\n"
STARTED = NETWORK + "Booted up in 12.34 ms\r\nCmdline: /hello --port 8080\r\n"
BACKTRACE = "\n[backtrace]\n0x000000004020c9b9 <abort(char const*, ...)+281>\n0x0000000040200000 <main+3>\n"


@pytest.mark.parametrize(
    ("text", "reached"),
    [
        ("", Reached.SILENT),
        ("SeaBIOS (version 1.16)\nBooting from Hard Disk...\n", Reached.SILENT),
        (BOOT, Reached.KERNEL),
        (NETWORK, Reached.NETWORK),
        (STARTED, Reached.STARTING),
        (STARTED + "listening on 8080\n", Reached.STARTING),
        ("eth0: 10.0.2.15\n", Reached.NETWORK),
        (BOOT + "Cmdline: \n", Reached.STARTING),
    ],
)
def test_a_boot_log_tells_how_far_it_got(text: str, reached: Reached) -> None:
    """The stage is that of the last marker that OSv prints, whatever the BIOS said before; no fault is seen in it."""
    log = read_boot_log(text)
    assert (log.reached, log.fault, log.suspicions) == (reached, None, ())


def test_what_a_good_boot_says_is_kept() -> None:
    """Version, address and the program's line are read out of the log."""
    log = read_boot_log(STARTED)
    assert (log.version, log.addresses) == ("v0.57.0-398-g0e34e4dc", ("10.0.2.15",))
    assert log.command_line == "/hello --port 8080"


@pytest.mark.parametrize(
    ("text", "fault", "names"),
    [
        (STARTED + "Failed to load object: /hello. Powering off.\n", Fault.PROGRAM_NOT_LOADED, "/hello"),
        (STARTED + "executable too short /h: file_size=4 need=64. Powering off.\n", Fault.PROGRAM_UNUSABLE, "/h"),
        (STARTED + "bad elf header. Powering off.\n", Fault.PROGRAM_UNUSABLE, "bad elf header"),
        (BOOT + "Cmdline: \nThis image has an empty command line. Nothing to run.\n", Fault.COMMAND_LINE_EMPTY, ""),
        (STARTED + "Failed to parse command line.\n", Fault.COMMAND_LINE_REFUSED, ""),
        (BOOT + "unrecognized option: sysctl\nOSv options:\n  --help  show\n", Fault.COMMAND_LINE_REFUSED, "sysctl"),
        (BOOT + "not an option: -x\nOSv options:\n", Fault.COMMAND_LINE_REFUSED, "-x"),
        (BOOT + "Unknown console:tty" + BACKTRACE, Fault.COMMAND_LINE_REFUSED, "tty"),
        (STARTED + "/hello: failed looking up symbol frobnicate\n" + BACKTRACE, Fault.SYMBOL_MISSING, "frobnicate"),
        (STARTED + "serving\nAborted\n" + BACKTRACE, Fault.ABORTED, "crashed"),
        (STARTED + "Aborted\nHalting.\n", Fault.ABORTED, "crashed"),
        (STARTED + "Assertion failed: uid == 0 (libc/user.cc: setuid: 33)\n" + BACKTRACE, Fault.ASSERTION, "uid == 0"),
        (
            STARTED + "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n"
            "Aborted\n" + BACKTRACE,
            Fault.OUT_OF_MEMORY,
            "memory",
        ),
        (
            STARTED + "page fault outside application, addr: 0x00\n[registers]\nRIP: 0x0\nAborted\n" + BACKTRACE,
            Fault.KERNEL_FAULT,
            "0x00",
        ),
        (STARTED + "Uncaught signal 15 (\"Terminated\"). Powering off.\n", Fault.SIGNALLED, "15"),
        (STARTED + "program /hello returned 3\nPowering off.\n", Fault.PROGRAM_ENDED, "status 3"),
        (BOOT + "can't read elf header: I/O error. Powering off.\n", Fault.DISK_READ, "disk could not be read"),
        (BOOT + "trying to execute or access missing symbol\n" + BACKTRACE, Fault.KERNEL_FAULT, "OSv itself stopped"),
        (BOOT + "Aborted\n" + BACKTRACE, Fault.KERNEL_FAULT, "OSv itself stopped while it booted"),
        (STARTED + "trying to execute null pointer\n" + BACKTRACE, Fault.SYMBOL_MISSING, "the program used a function"),
        (BOOT + "Error reading disk (real mode): 00000000000000e7\n", Fault.DISK_READ, "e7"),
        (BOOT + "Could not mount rofs root filesystem.\n" + "Cmdline: /a\nFailed to load object: /a. Powering off.\n",
         Fault.ROOT_NOT_MOUNTED, "not mounted"),
    ],
)  # fmt: skip
def test_what_ended_a_machine_is_told_with_its_cause(text: str, fault: Fault, names: str) -> None:
    """Each certain end is recognised, and its cause names the thing at fault."""
    found = read_boot_log(text).fault
    assert found is not None and found.fault is fault
    assert names in found.cause and "{" not in found.cause
    assert text.replace("\r", "").splitlines()[found.number - 1].strip() == found.line


@pytest.mark.parametrize(
    "line",
    [
        "Aborted",
        "Aborted\nretrying in 5 s\n[backtrace]",
        "worker: Aborted",
        "Failed to load object: x. Powering off.\nserving 1 request",
        "Assertion failed: it was a joke",
        "unrecognized option: color\nusing the default",
        "general protection fault",
        "program a returned 1\nstarting it again",
        "fork() stubbed",
        "syscall(): unimplemented system call 334",
        "failed to mount /data, error = No such file or directory",
        "WARNING: /hello is a PIE using TLS of size 900 which is greater than app_local_exec_tls_size=512",
    ],
)
def test_what_a_program_may_say_is_no_end(line: str) -> None:
    """The same words from a program that goes on, or without OSv's proof behind them, do not fail a release."""
    assert read_boot_log(STARTED + line + "\n").fault is None


def test_a_backtrace_of_a_program_that_talks_on_is_a_suspicion() -> None:
    """A machine that has aborted says no more."""
    log = read_boot_log(STARTED + "Aborted\n[backtrace]\n" + "request served\n" * 30)
    assert log.fault is None
    assert [suspicion.fault for suspicion in log.suspicions] == [Fault.ABORTED]


def test_suspicions_are_told_beside_the_fault() -> None:
    """A harmless line is listed, and does not hide the one that ended the machine."""
    log = read_boot_log(STARTED + "syscall(): unimplemented system call 334\nAborted\n" + BACKTRACE)
    assert log.fault is not None and log.fault.fault is Fault.ABORTED
    assert [(item.fault, item.number) for item in log.suspicions] == [(Fault.UNIMPLEMENTED, 7)]
    assert "334" in log.suspicions[0].cause


def test_braces_on_the_console_are_only_text() -> None:
    """What the console says cannot break the sentence it is put into."""
    log = read_boot_log(STARTED + "Failed to load object: {0}{what}. Powering off.\n")
    assert log.fault is not None and log.fault.cause.startswith("{0}{what} is not in the image")


lines = st.sampled_from(
    ["Aborted", "[backtrace]", "[registers]", "OSv v1", "eth0: 1.2.3.4", "Cmdline: /a", "Halting.", "", "talk", "\x1b[",
     "Failed to load object: {x}. Powering off.", "page fault outside application, addr: 0x1", "not an option: -x"]
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.text(max_size=200), st.lists(lines | st.text(max_size=10), max_size=12).map("\r\n".join)))
def test_any_text_is_read(text: str) -> None:
    """Whatever a console holds, there is an answer, and every finding is a line of the text."""
    log = read_boot_log(text)
    findings = [*log.suspicions, *([log.fault] if log.fault else [])]
    assert all(finding.line in text.replace("\0", "") or "\x1b" in text for finding in findings)


def test_every_rule_fills_its_sentence() -> None:
    """A cause names only what its pattern finds."""
    for rule in _RULES:
        cause = rule.cause
        for name in rule.pattern.groupindex:
            cause = cause.replace("{" + name + "}", "")
        assert "{" not in cause, rule.pattern.pattern


def test_stages_are_told_as_they_come() -> None:
    """Each once, in whatever pieces the console arrives; the program's first byte counts without its line's end."""
    told = STARTED + "name? "
    for size in (1, 7, len(told)):
        watch = StageWatch()
        found = [stage for at in range(0, len(told), size) for stage in watch.feed(told[at : at + size].encode())]
        assert found == list(Stage), size
    watch = StageWatch()
    assert watch.feed(STARTED.encode()) == tuple(Stage)[:-1]
    assert watch.feed(b"\r\n \r\n") == ()
    assert watch.feed(b"x") == (Stage.OUTPUT,)
    assert watch.feed(STARTED.encode()) == ()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=40) | lines.map(str.encode), max_size=8))
def test_any_bytes_are_watched(pieces: list[bytes]) -> None:
    """No stage is told twice, and what is held between two pieces stays small."""
    watch = StageWatch()
    found = [stage for piece in [*pieces, b"\x1b[" * 3000] for stage in watch.feed(piece)]
    assert len(found) == len(set(found))
    assert len(watch._rest) <= 2000
