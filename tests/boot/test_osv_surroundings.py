"""A program of [[files]] alone finds on a real OSv what it takes for granted.

Needs OSV_KERNEL, the path of a loader.img that OSv's own build made, and a C compiler.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from osvdeploy.build.plan import FileMapping, ImageInputs, file_tree
from osvdeploy.build.sources import FileKernel
from osvdeploy.osv.cmdline import BootCommand
from tests.boot.qemu import needs_qemu
from tests.boot.real import POWER_OFF, compiled, console_of

pytestmark = [pytest.mark.osv, needs_qemu]

LOOK_AROUND = r"""
#include <stdio.h>
static void written(const char *path)
{
    FILE *file = fopen(path, "w");
    printf("%s %s\n", path, file && fputs("x", file) >= 0 && fclose(file) == 0 ? "written" : "not written");
}
static void read_of(const char *path)
{
    char text[4096] = "";
    FILE *file = fopen(path, "r");
    size_t count = file ? fread(text, 1, sizeof text - 1, file) : 0;
    printf("%s %s\n", path, count > 0 ? "read" : "not read");
}
int main(void)
{
    written("/tmp/new");
    written("/dev/null");
    written("/scratch/new");
    written("/etc/new");
    read_of("/dev/urandom");
    read_of("/proc/self/maps");
    read_of("/proc/mounts");
    read_of("/sys/devices/system/cpu/online");
    read_of("/etc/hosts");
    puts("end");
    return 0;
}
"""


def test_a_program_finds_devices_files_of_the_system_and_room_to_write(tmp_path: Path) -> None:
    """All that is mounted, with no file of the user's but the program; the root is still read-only."""
    program = compiled(LOOK_AROUND, tmp_path)
    options = (*POWER_OFF, ("mount-fs", "ramfs,none,/scratch"))
    inputs = ImageInputs(
        app="look",
        version="1",
        base=tmp_path,
        kernel=FileKernel("loader.img"),
        command=("/look",),
        options=options,
        files=(FileMapping(program.name, "/look"),),
    )
    console = console_of(file_tree(inputs), BootCommand(options, (), ("/look",)), tmp_path).decode().replace("\r", "")
    assert console.splitlines()[-10:] == [
        "/tmp/new written",
        "/dev/null written",
        "/scratch/new written",
        "/etc/new not written",
        "/dev/urandom read",
        "/proc/self/maps read",
        "/proc/mounts read",
        "/sys/devices/system/cpu/online read",
        "/etc/hosts read",
        "end",
    ]
