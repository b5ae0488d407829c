"""Converting a disk of a GiB with 64 MiB in it, against GNU tar with gzip and against qemu-img, in one run."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from osvdeploy import api
from osvdeploy.context import Context
from osvdeploy.sizes import GIB, MIB

ROUNDS = 5
DATA = 64 * MIB


def programs() -> bytes:
    """What a disk is full of: code, as much as is wanted, of this Python and what it has loaded."""
    found, folder = bytearray(), Path(sys.executable).resolve().parent.parent
    for path in [
        Path(sys.executable).resolve(),
        *sorted(folder.rglob("*.so*")),
        *sorted(Path("/usr/lib").rglob("*.so*")),
    ]:
        if len(found) >= DATA:
            break
        if path.is_file():
            found += path.read_bytes()
    return bytes(found[:DATA])


@pytest.mark.skipif(None in (shutil.which("tar"), shutil.which("gzip")), reason="needs tar and gzip")
@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")
def test_convert_against_tar_and_qemu_img(tmp_path: Path) -> None:
    """Ours reads the target back, compares it and syncs it to the disk; theirs do not."""
    content = programs()
    assert len(content) == DATA
    with (tmp_path / "disk.raw").open("wb") as file:
        file.write(bytes(510) + b"\x55\xaa" + content[512:])
        file.truncate(GIB)

    def ours(target: str) -> None:
        api.convert(Context(), tmp_path / "disk.raw", tmp_path / target, force=True)

    def as_command(target: str) -> None:
        words = [sys.executable, "-m", "osvdeploy", "convert", "-q", "--force", "disk.raw", target]
        subprocess.run(words, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)

    def theirs(*words: str) -> None:
        subprocess.run(words, cwd=tmp_path, check=True)

    def checked() -> None:
        theirs("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "disk.raw", "theirs.qcow2")
        theirs("qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", "disk.raw", "theirs.qcow2")
        theirs("sync", "theirs.qcow2", ".")

    ways: dict[str, tuple[str, Callable[[], None]]] = {
        "gce": ("ours.tar.gz", lambda: ours("ours.tar.gz")),
        "gce, as a command": ("ours.tar.gz", lambda: as_command("ours.tar.gz")),
        "tar -S | gzip": ("theirs.tar.gz", lambda: theirs("tar", "-cSzf", "theirs.tar.gz", "disk.raw")),
        "qcow2": ("ours.qcow2", lambda: ours("ours.qcow2")),
        "qcow2, as a command": ("ours.qcow2", lambda: as_command("ours.qcow2")),
        "qemu-img convert": (
            "theirs.qcow2",
            lambda: theirs("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "disk.raw", "theirs.qcow2"),
        ),
        "and compare, and sync": ("theirs.qcow2", checked),
    }
    took: dict[str, float] = {}
    for _ in range(ROUNDS):
        for way, (_, convert) in ways.items():
            began = time.perf_counter()
            convert()
            took[way] = min(took.get(way, 1e9), time.perf_counter() - began)
    print()
    for way, (target, _) in ways.items():
        print(f"{way:22} {took[way] * 1000:7.0f} ms  {(tmp_path / target).stat().st_size / MIB:6.1f} MiB")
    for one, other in (("gce", "tar -S | gzip"), ("qcow2", "qemu-img convert"), ("qcow2", "and compare, and sync")):
        print(
            f"{one}: {took[one] / took[other]:.2f} x {other}; "
            f"as a command {took[f'{one}, as a command'] / took[other]:.2f} x"
        )
