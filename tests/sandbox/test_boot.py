"""From a volume's bytes to a program, and what OSv says where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.sandbox import boot
from osvdeploy.sandbox.boot import ABORTED, BootFailed, Machine
from tests.sandbox.volumes import PARTITION, Volume, volume

ADDRESS = "127.0.9.1"


def read(disk: Volume) -> Machine:
    return boot.read(disk.pread, disk.size, address=ADDRESS, cpus=2)


def failed(disk: Volume) -> BootFailed:
    with pytest.raises(BootFailed) as caught:
        read(disk)
    return caught.value


def test_a_disk_says_what_it_runs() -> None:
    """Program, arguments and environment come from the command line, OSV_IP and its kin from the machine."""
    machine = read(
        volume(
            {"/bin/app": b"program"},
            ("/bin/app", "--greeting", "good day", "$PORT"),
            options=(("verbose", None), ("power-off-on-abort", None)),
            environment=(("PORT", "8080"), ("NAME", "a b")),
        )
    )
    assert machine.program.arguments == ("/bin/app", "--greeting", "good day", "8080")
    assert machine.read_program() == b"program"
    assert machine.environment == {
        "OSV_VERSION": boot.VERSION,
        "OSV_CPUS": "2",
        "OSV_IP": ADDRESS,
        "PORT": "8080",
        "NAME": "a b",
    }
    assert machine.options.verbose
    assert machine.options.power_off_on_abort
    assert machine.banner.decode().splitlines() == [
        f"OSv {boot.VERSION}",
        f"eth0: {ADDRESS}",
        "Booted up in 0.00 ms",
        'Cmdline: /bin/app --greeting "good day" $PORT',
    ]


def test_a_program_is_found_as_osv_finds_it() -> None:
    """Links are followed; a bare name is looked up in / and then /usr/lib, a relative one from --cwd."""
    files: dict[str, bytes | str] = {"/usr/lib/tool": b"1", "/link": "usr/lib/tool", "/srv/run": b"2"}
    assert read(volume(files, ("tool",))).read_program() == b"1"
    assert read(volume(files, ("/link",))).read_program() == b"1"
    assert read(volume(files, ("./run",), options=(("cwd", "/srv"),))).read_program() == b"2"


NOTHING = b"This image has an empty command line. Nothing to run.\n"
MISSING = b"Failed to load object: /app. Powering off.\n"


@pytest.mark.parametrize(
    ("line", "last", "powers_off"),
    [
        (b"", NOTHING, True),
        (b"--verbose", NOTHING, True),
        (b"--nonsense /app", b"unrecognized option: nonsense\nOSv options:\n", True),
        (b"--assign-net /app", b"unrecognized option: assign-net\nOSv options:\n", True),
        (b"-x /app", b"not an option: -x\nOSv options:\n", True),
        (b"--rootfs /app", b"the required argument for option '--rootfs' is missing\nOSv options:\n", True),
        (b"--verbose=1 /app", b"unrecognized option: verbose\nOSv options:\n", True),
        (b'/app "open', b"Failed to parse command line.\n", True),
        (b"--console=lpt /app", b"Unknown console:lpt\n" + ABORTED, False),
        (b"--console=lpt --power-off-on-abort /app", b"Unknown console:lpt\n" + ABORTED, True),
        (b"--ip=eth0,10.0.0.2 /app", b"incorrect parameter on --ip\n" + ABORTED, False),
        (b"--rootfs=zfs /app", MISSING, True),
        (b"--nopci /app", MISSING, True),
        (b"/other", b"Failed to load object: /other. Powering off.\n", True),
        (b"other", b"Failed to load object: other. Powering off.\n", True),
    ],
)
def test_command_lines_that_run_nothing(line: bytes, last: bytes, powers_off: bool) -> None:
    """What OSv prints for each, and whether it powers off after it."""
    failure = failed(volume({"/app": b"x"}, line=line))
    assert last in failure.console
    assert failure.console.startswith(b"OSv ")
    assert failure.powers_off is powers_off


def test_disks_that_no_bios_boots() -> None:
    """Without a boot sector or a kernel nothing reaches the serial port, and the machine stays on."""
    good = volume({"/app": b"x"}).content
    for bad in [b"", good[:1000], good[:510] + b"\0\0" + good[512:], good[:65536] + bytes(len(good) - 65536)]:
        failure = failed(Volume(bad))
        assert (failure.console, failure.powers_off) == (b"", False)


def test_a_root_that_is_not_there() -> None:
    """No partition, or no ROFS in it, looks like a missing program; only --verbose says more."""
    good = volume({"/app": b"x"}).content
    unpartitioned = good[:0x1CE] + bytes(16) + good[0x1DE:]
    for bad in [unpartitioned, good[:PARTITION] + bytes(len(good) - PARTITION)]:
        assert failed(Volume(bad)).console.endswith(MISSING)
        assert b"Could not mount" not in failed(Volume(bad)).console
    verbose = volume({"/app": b"x"}, options=(("verbose", None),)).content
    assert b"Could not mount rofs root filesystem." in failed(Volume(verbose[:PARTITION] + bytes(4096))).console


def elf(**changes: int) -> bytes:
    header = bytearray(b"\x7fELF\x02\x01\x01\x00".ljust(64, b"\0"))
    header[16], header[18] = 3, 62
    for place, value in changes.items():
        header[int(place[2:])] = value
    return bytes(header)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (b"short", "executable too short /app: file_size=5 need=64. Powering off."),
        (b"#!/bin/sh\n".ljust(100), "bad elf header. Powering off."),
        (elf(at4=1), "bad elf class. Powering off."),
        (elf(at16=1), "bad executable type. Powering off."),
        (elf(at18=183), "machine type for /app differs from the kernel. Powering off."),
    ],
)
def test_programs_that_osv_does_not_load(program: bytes, said: str) -> None:
    """Each header field that is wrong has OSv's own line, after the boot's."""
    machine = read(volume({"/app": program}))
    with pytest.raises(BootFailed) as caught:
        machine.check_program()
    assert caught.value.console == machine.banner + said.encode() + b"\n"
    assert caught.value.powers_off
    read(volume({"/app": elf()})).check_program()


def test_the_tree_is_extracted_inside_its_root(tmp_path: Path) -> None:
    """Files, directories and links come out; an absolute link means the guest's root, not the host's."""
    files: dict[str, bytes | str] = {
        "/app": b"program",
        "/etc/name": b"guest",
        "/usr/share/name": "/etc/name",
        "/up": "usr/share/name",
    }
    read(volume(files)).extract(tmp_path / "root")
    assert (tmp_path / "root/usr/share/name").read_bytes() == b"guest"
    assert (tmp_path / "root/up").read_bytes() == b"guest"
    assert (tmp_path / "root/app").read_bytes() == b"program"


@given(st.binary(max_size=200), st.integers(0, 1200))
@settings(max_examples=100, deadline=None)
def test_any_bytes_boot_or_fail_as_osv(noise: bytes, offset: int) -> None:
    """Whatever is written over a disk's head: a program runs, or the boot fails with a console; never anything else."""
    good = volume({"/app": b"x"}).content
    noisy = good[:offset] + noise + good[offset + len(noise) :]
    try:
        read(Volume(noisy))
    except BootFailed as failure:
        assert failure.console == b"" or failure.console.startswith(b"OSv ")


@pytest.mark.parametrize(
    ("name", "value"),
    [("ip", "eth0,10.0.0.5,255.255.255.0"), ("mount-fs", "ramfs,none,/scratch"), ("redirect", "/log")],
)
def test_what_no_runner_does_is_said(name: str, value: str) -> None:
    """An option that would change what the program sees, and does not here, ends the boot and says so."""
    with pytest.raises(boot.BootFailed) as failed:
        read(volume({"/app": elf()}, options=((name, value),)))
    assert f"does not simulate OSv's boot option --{name}".encode() in failed.value.console
    assert failed.value.powers_off
