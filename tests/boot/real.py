"""What tests of a real OSv have in common: its kernel, small programs in C, and a boot to the end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from osvdeploy.demo.toolchain import compile_program, find_compilers
from osvdeploy.osv.cmdline import BootCommand
from osvdeploy.osv.disk import compose
from osvdeploy.osv.filetree import Content, FileTree
from osvdeploy.osv.kernel import read_kernel
from osvdeploy.osv.rofs import lay_out
from tests.boot.qemu import boot

POWER_OFF = (("power-off-on-abort", None),)
"""The boot options of a machine that shall end whatever happens."""


def real_kernel() -> Path:
    """The loader.img that OSV_KERNEL names; skips where it names none."""
    path = os.environ.get("OSV_KERNEL")
    if not path:
        pytest.skip("OSV_KERNEL is not set: name a loader.img of OSv (build/last/loader.img) to boot a real one")
    return Path(path)


def compiled(text: str, folder: Path) -> Path:
    """A program for Linux and OSv, from one source in C; skips where there is no compiler."""
    compilers = find_compilers()
    if not compilers:
        pytest.skip("no C compiler: neither cc nor the PyPI package ziglang")
    source = folder / "program.c"
    source.write_text(text)
    return compile_program([source], folder / "program", compiler=compilers[0])


def console_of(tree: FileTree, command: BootCommand, folder: Path) -> bytes:
    """All that a machine says that boots this and powers off by itself."""
    disk = folder / "disk.raw"
    compose(disk, read_kernel(real_kernel()), lay_out(tree), command)
    try:
        with boot(disk, memory=256, interface="virtio", arguments=["-cpu", "max"]) as machine:
            return machine.wait_until_off()
    finally:
        disk.unlink()


def content_of(tree: FileTree, path: bytes) -> bytes | None:
    """What a file has that was given by its bytes."""
    entry = tree.file(path)
    return entry.content if isinstance(entry, Content) else None
