"""What the rules say of programs that Go's own linker made, on a real OSv.

Needs OSV_KERNEL, the path of a loader.img that OSv's own build made; programs of a real Go need its `go` too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from osvdeploy.build.examine import ElfCache, examine
from osvdeploy.checks.finding import Severity
from osvdeploy.checks.loader import ImageFiles
from osvdeploy.checks.programs import check_programs
from osvdeploy.context import Context
from osvdeploy.osv.cmdline import BootCommand
from osvdeploy.osv.disk import compose
from osvdeploy.osv.filetree import TreeBuilder
from osvdeploy.osv.kernel import read_kernel
from osvdeploy.osv.kernel_image import read_kernel_facts
from osvdeploy.osv.rofs import lay_out
from osvdeploy.osv.starts import Start
from tests.boot.qemu import boot, needs_qemu
from tests.boot.real import POWER_OFF, real_kernel
from tests.osv.go_programs import SAYS, GoProgram, make_go

pytestmark = [pytest.mark.osv, needs_qemu]

STANDS_STILL = 8.0
"""Seconds behind its command line after which a program that has said nothing says nothing; it takes a tenth."""

APART = GoProgram()

MAIN = """
package main

import (
	"fmt"
	"net"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		listener.Close()
		fmt.Println("go ran to its end")
	}
}
"""


def errors_and_console(program: Path, folder: Path) -> tuple[list[str], bytes]:
    """The rules that refuse a program, and what it says on a real OSv."""
    kernel = real_kernel()
    facts = read_kernel_facts(kernel)
    if not (facts.static_executables and facts.faults_through_thread_pointer):
        pytest.skip("another kernel than those that are known to stand still")
    builder = TreeBuilder()
    builder.add_file(b"/app", os.fsencode(program))
    tree, disk = builder.tree(), folder / "disk.raw"
    found = examine(Context(), tree, ElfCache())
    findings = check_programs(facts, [Start(("/app",))], ImageFiles(tree, found.elves, found.damaged))
    command = BootCommand(POWER_OFF, (), ("/app",))
    compose(disk, read_kernel(kernel), lay_out(tree), command)
    with boot(disk, memory=256, interface="virtio", arguments=["-cpu", "max"]) as machine:
        machine.wait_for(lambda console: b"Cmdline: /app" in console)
        until = time.monotonic() + STANDS_STILL
        while machine.running and time.monotonic() < until:
            time.sleep(0.1)  # polled: what is to be seen is that nothing happens
        disk.unlink()
        return [each.rule for each in findings if each.severity is Severity.ERROR], machine.console


@pytest.mark.parametrize(
    ("made", "refused"),
    [
        (APART, ["tls-untouched"]),
        (replace(APART, m0=APART.end - 0x1000 - 8), ["tls-untouched"]),
        (replace(APART, g0=APART.m0 + 0x200), []),
        (replace(APART, sections=(b".note.osv-mlock",)), []),
    ],
)
def test_what_is_made_like_a_go_program_runs_unless_it_is_refused(
    made: GoProgram, refused: list[str], tmp_path: Path
) -> None:
    """One that is refused says nothing more, and does not end."""
    program = tmp_path / "app"
    program.write_bytes(make_go(made))
    errors, console = errors_and_console(program, tmp_path)
    assert errors == refused
    assert (SAYS.strip() in console) == (not refused)


def go_build(folder: Path, *flags: str, **variables: str) -> Path:
    if shutil.which("go") is None:
        pytest.skip("go is not here")
    (folder / "go.mod").write_text("module app\n\ngo 1.21\n")
    (folder / "main.go").write_text(MAIN)
    environment: Mapping[str, str] = {**os.environ, "GOFLAGS": "-buildvcs=false", **variables}
    done = subprocess.run(["go", "build", "-o", "app", *flags, "."], cwd=folder, env=environment, capture_output=True)
    if done.returncode != 0:
        pytest.skip(f"go does not build this here: {done.stderr.decode(errors='replace')[-200:]}")
    return folder / "app"


def test_a_static_program_of_go_runs_once_it_is_mapped_at_once(tmp_path: Path) -> None:
    """Whether it runs as it is depends on its linker; the rule knows, and its cure helps where it is needed."""
    program = go_build(tmp_path, CGO_ENABLED="0")
    errors, console = errors_and_console(program, tmp_path)
    assert errors in ([], ["tls-untouched"])
    assert (b"ran to its end" in console) == (errors == [])
    objcopy = shutil.which("objcopy")
    if objcopy is None:
        pytest.skip("objcopy is not here")
    subprocess.run([objcopy, "--add-section", ".note.osv-mlock=/dev/null", str(program)], check=True)
    errors, console = errors_and_console(program, tmp_path)
    assert (errors, b"ran to its end" in console) == ([], True)


def test_a_dynamic_program_of_go_runs_when_the_c_compiler_links_it(tmp_path: Path) -> None:
    """With net among its packages, and C, `go build` makes one that OSv cannot start."""
    errors, console = errors_and_console(go_build(tmp_path, CGO_ENABLED="1"), tmp_path)
    assert errors == ["entry-without-libc"]
    assert b"ran to its end" not in console
    errors, console = errors_and_console(
        go_build(tmp_path, "-ldflags", "-linkmode external", CGO_ENABLED="1"), tmp_path
    )
    assert (errors, b"ran to its end" in console) == ([], True)
