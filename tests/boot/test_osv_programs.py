"""What the rules of programs call an error fails on a real OSv, and what they have nothing against runs.

Needs OSV_KERNEL, the path of a loader.img that OSv's own build made, and a C compiler.
"""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from osvdeploy.build.examine import ElfCache, examine
from osvdeploy.checks.finding import Severity
from osvdeploy.checks.loader import ImageFiles
from osvdeploy.checks.programs import check_programs
from osvdeploy.context import Context
from osvdeploy.demo.toolchain import find_compilers
from osvdeploy.osv.cmdline import BootCommand
from osvdeploy.osv.filetree import FileTree, TreeBuilder
from osvdeploy.osv.kernel_facts import KernelFacts, KernelFormat
from osvdeploy.osv.starts import Start
from tests.boot.qemu import needs_qemu
from tests.boot.real import POWER_OFF, console_of

pytestmark = [pytest.mark.osv, needs_qemu]

FACTS = KernelFacts(KernelFormat.LOADER_IMAGE, "x86_64", 0)
"""All that these rules need to know of the kernel."""

RAN = b"the program ran to its end"
SOURCES = {
    "app": f'#include <stdio.h>\nint main(void) {{ puts("{RAN.decode()}"); return 0; }}\n',
    "user": f'#include <stdio.h>\nint value(void);\nint main(void) {{ if (value() == 7) puts("{RAN.decode()}"); }}\n',
    "value": "int value(void) { return 7; }\n",
    "other": "int value(void); int other(void) { return value(); }\n",
}


@dataclass(frozen=True, slots=True)
class Workshop:
    """Compiles in a folder of its own."""

    folder: Path
    compiler: tuple[str, ...]

    def make(self, output: str, source: str, *options: str) -> Path:
        text = self.folder / f"{source}.c"
        text.write_text(SOURCES[source])
        command = [*self.compiler, *options[:1], str(text), *options[1:], "-o", output]
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True)
        return self.folder / output

    def program(self) -> Path:
        return self.make("app", "app", "-O1")

    def library(self) -> Path:
        return self.make("libvalue.so", "value", "-shared", "-fPIC", "-Wl,-soname,libvalue.so")

    def user(self, *options: str) -> Path:
        self.library()
        return self.make("user", "user", "-O1", "-L.", "-lvalue", *options)


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    compilers = find_compilers()
    if not compilers:
        pytest.skip("no C compiler: neither cc nor the PyPI package ziglang")
    return Workshop(tmp_path, compilers[0].command)


def patched(path: Path, patch: Callable[[bytearray], object]) -> Path:
    content = bytearray(path.read_bytes())
    patch(content)
    path.write_bytes(content)
    return path


def strange_segment(content: bytearray) -> None:
    """Give the stack's segment a type that OSv does not know."""
    (at,), (count,) = struct.unpack_from("<Q", content, 32), struct.unpack_from("<H", content, 56)
    for header in range(at, at + 56 * count, 56):
        if struct.unpack_from("<I", content, header)[0] == 0x6474E551:
            struct.pack_into("<I", content, header, 0x6474E554)


def ok(shop: Workshop) -> Mapping[str, Path]:
    return {"/app": shop.program()}


def with_library(shop: Workshop) -> Mapping[str, Path]:
    return {"/app": shop.user(), "/usr/lib/libvalue.so": shop.library()}


def with_origin(shop: Workshop) -> Mapping[str, Path]:
    return {"/app": shop.user("-Wl,-rpath,$ORIGIN/own"), "/own/libvalue.so": shop.library()}


def segment(shop: Workshop) -> Mapping[str, Path]:
    return {"/app": patched(shop.program(), strange_segment)}


def osabi(shop: Workshop) -> Mapping[str, Path]:
    return {"/app": patched(shop.program(), lambda content: content.__setitem__(7, 9))}


def machine(shop: Workshop) -> Mapping[str, Path]:
    return {"/app": patched(shop.program(), lambda content: content.__setitem__(18, 183))}


def script(shop: Workshop) -> Mapping[str, Path]:
    path = shop.folder / "script"
    path.write_text("#!/bin/sh\n" + "# long enough for an ELF header\n" * 4)
    return {"/app": path}


def missing(shop: Workshop) -> Mapping[str, Path]:
    return {"/app": shop.user()}


def misplaced(shop: Workshop) -> Mapping[str, Path]:
    return {"/app": shop.user(), "/lib/x86_64-linux-gnu/libvalue.so": shop.library()}


def braces(shop: Workshop) -> Mapping[str, Path]:
    return {"/app": shop.user("-Wl,-rpath,${ORIGIN}/own"), "/own/libvalue.so": shop.library()}


def circle(shop: Workshop) -> Mapping[str, Path]:
    shop.library()
    options = ("-shared", "-fPIC", "-Wl,--no-as-needed", "-L.")
    other = shop.make("libother.so", "other", *options, "-lvalue", "-Wl,-soname,libother.so")
    user = shop.user()
    value = shop.make("libvalue.so", "value", *options, "-lother", "-Wl,-soname,libvalue.so")
    return {"/app": user, "/usr/lib/libvalue.so": value, "/usr/lib/libother.so": other}


def opened_circle(shop: Workshop) -> Mapping[str, Path]:
    """As the rule has it: the one that closes the circle is linked without the other."""
    files = circle(shop)
    shop.make("libother.so", "other", "-shared", "-fPIC", "-Wl,-soname,libother.so")
    return files


def booted(files: Mapping[str, Path], folder: Path) -> tuple[FileTree, bytes]:
    builder = TreeBuilder()
    for guest, host in files.items():
        builder.add_file(guest.encode(), os.fsencode(host))
    tree = builder.tree()
    return tree, console_of(tree, BootCommand(POWER_OFF, (), ("/app",)), folder)


@pytest.mark.parametrize("made", [ok, with_library, with_origin, opened_circle])
def test_what_has_no_finding_runs(made: Callable[[Workshop], Mapping[str, Path]], workshop: Workshop) -> None:
    """To its end, with the libraries found where the rules find them."""
    tree, console = booted(made(workshop), workshop.folder)
    found = examine(Context(), tree, ElfCache())
    assert check_programs(None, [Start(("/app",))], ImageFiles(tree, found.elves, found.damaged)) == []
    assert RAN in console


@pytest.mark.parametrize(
    ("made", "rule", "says"),
    [
        (segment, "unknown-segment", b"Unknown p_type"),
        (osabi, "elf-not-accepted", b"bad os abi"),
        (machine, "wrong-machine", b"differs from the kernel"),
        (script, "program-not-elf", b"bad elf header"),
        (missing, "library-missing", b"failed looking up symbol value"),
        (misplaced, "library-misplaced", b"failed looking up symbol value"),
        (braces, "library-misplaced", b"failed looking up symbol value"),
        (circle, "library-cycle", b"load_needed"),
    ],
)
def test_what_is_an_error_fails(
    made: Callable[[Workshop], Mapping[str, Path]], rule: str, says: bytes, workshop: Workshop
) -> None:
    """As the rule says it does, and in OSv's own words."""
    tree, console = booted(made(workshop), workshop.folder)
    found = examine(Context(), tree, ElfCache())
    findings = check_programs(FACTS, [Start(("/app",))], ImageFiles(tree, found.elves, found.damaged))
    assert [finding.rule for finding in findings if finding.severity is Severity.ERROR] == [rule]
    assert RAN not in console
    assert says in console
