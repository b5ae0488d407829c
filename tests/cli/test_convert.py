"""osvdeploy convert: sources of any format and name, targets that are whole or not there, and what is refused."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from osvdeploy.publish.convert import Reading, Target, write
from osvdeploy.sizes import GIB, MIB
from tests.cli.projects import built_project
from tests.cli.running import osvdeploy


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a raw disk of 6 MiB and some in it."""
    monkeypatch.setenv("OSVDEPLOY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OSVDEPLOY_STATE", str(tmp_path / "state"))
    home = tmp_path / "here"
    home.mkdir()
    with (home / "disk.raw").open("wb") as file:
        file.write(bytes(510) + b"\x55\xaa" + b"boot")
        file.seek(3 * MIB)
        file.write(os.urandom(100_000))
        file.truncate(6 * MIB)
    return home


ENDINGS = ["raw", "img", "qcow2", "vmdk", "vhd", "tar.gz", "tgz"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_there_and_back(ending: str, folder: Path) -> None:
    """The target's ending says what it is, its bytes say it afterwards, whatever it is called then."""
    ran = osvdeploy("convert", "disk.raw", f"there.{ending}", "--json", folder=folder)
    assert ran.code == 0, ran.stderr
    made = folder / f"there.{ending}"
    told = ran.document
    assert told["bytes"] == made.stat().st_size and told["source_format"] == "raw" and told["source"] == "disk.raw"
    sha256 = hashlib.sha256(made.read_bytes()).hexdigest() if ending not in ("tar.gz", "tgz") else told["sha256"]
    assert told["sha256"] == (None if told["format"] == "raw" else sha256)
    made.rename(folder / "anything")
    ran = osvdeploy("convert", "anything", "back", "--format", "raw", "--json", folder=folder)
    assert ran.code == 0, ran.stderr
    size = GIB if told["format"] == "gce" else 6 * MIB
    assert (ran.document["size"], ran.document["source_format"]) == (size, told["format"])
    assert ran.document["digest"] == told["digest"]
    back = folder / "back"
    assert (back.stat().st_size, back.stat().st_blocks < 1000) == (size, True)
    with back.open("rb") as file:
        assert file.read(6 * MIB) == (folder / "disk.raw").read_bytes()


def test_an_archive_is_the_same_of_every_format(folder: Path) -> None:
    """And grown to a GiB, which is told."""
    for each in ("a.qcow2", "a.vmdk", "a.vhd"):
        assert osvdeploy("convert", "disk.raw", each, folder=folder).code == 0
    found = set()
    for each in ("disk.raw", "a.qcow2", "a.vmdk", "a.vhd"):
        ran = osvdeploy("convert", each, "a.tar.gz", "--force", folder=folder)
        assert f"grew by zeros from {6 * MIB} to {GIB} bytes: gce takes whole GiB" in ran.stdout
        found.add((folder / "a.tar.gz").read_bytes())
    assert len(found) == 1


def test_the_image_of_a_spec_is_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the one that is here, or of its folder or file by name; with --set another one is built."""
    folder = built_project(tmp_path, monkeypatch)
    digests = []
    for words in (["a.qcow2"], [".", "b.qcow2"], ["osv.toml", "c.qcow2"], ["-f", "osv.toml", "d.qcow2"]):
        ran = osvdeploy("convert", *words, "--json", folder=folder)
        assert ran.code == 0, ran.stderr
        digests.append(ran.document["digest"])
    assert len(set(digests)) == 1
    changed = osvdeploy("convert", "e.qcow2", "--set", "image.size=2GiB", "--json", folder=folder)
    assert changed.code == 0 and changed.document["size"] == 2 * GIB, changed.stderr


def test_an_image_that_is_the_only_name_is_not_taken_for_a_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who names an image that is there alone, beside a spec, may mean to convert it: --force says otherwise."""
    folder = built_project(tmp_path, monkeypatch)
    (folder / "mine.qcow2").write_bytes(b"mine")
    ran = osvdeploy("convert", "mine.qcow2", folder=folder)
    assert ran.code == 2 and "the only name that is given is TARGET" in ran.stderr, ran.stderr
    assert "osvdeploy convert mine.qcow2 TARGET" in ran.stderr and "--force" in ran.stderr
    assert (folder / "mine.qcow2").read_bytes() == b"mine"
    assert osvdeploy("convert", "mine.qcow2", "--force", folder=folder).code == 0


@pytest.mark.parametrize(
    ("words", "code", "says", "hint"),
    [
        (["disk.raw", "there"], 2, "there: no name that says which format", "--format"),
        (["disk.raw", "no/there.raw"], 2, "no such folder", "make no first"),
        (["disk.raw", "old.qcow2"], 2, "old.qcow2: exists already", "--force"),
        (["disk.raw", "disk.raw", "--force"], 2, "source and target are one file", "another target"),
        (["disk.raw", "/dev/null", "--format", "raw"], 2, "not a regular file", "-"),
        (["missing.raw", "a.qcow2"], 2, "missing.raw: cannot be read: No such file", None),
        (["text", "a.qcow2"], 2, "text: of no format that is known, and without boot sector", "--from raw"),
        (["a.vdi.gz", "a.qcow2"], 2, "a.vdi.gz: gzip: what is in it is no tar archive", "gunzip -k a.vdi.gz"),
        (["a.zip", "a.qcow2"], 2, "a.zip: a zip archive", "unzip a.zip"),
        (["old.qcow2", "a.vhd"], 2, "old.qcow2: qcow2: ", None),
        (
            ["disk.raw", "a.vhd", "--from", "qcow2"],
            2,
            "disk.raw: not a qcow2 image: nothing at its beginning",
            "--from",
        ),
        (["good.qcow2", "a.vhd", "--from", "raw"], 2, "good.qcow2: a qcow2 image, not a raw disk", "--from"),
        (["a.raw"], 2, "a.raw: the only name that is given, and there is no osv.toml", "SOURCE TARGET"),
        (["a", "b", "c"], 2, "3 names are given", None),
        (["disk.raw", "-"], 2, "no name that says which format", "--format"),
        (["disk.raw", "-", "--format", "vmdk", "--json"], 2, "cannot both go to standard output", "TARGET"),
        (["disk.raw", "a.raw", "--set", "version=2"], 2, "--set changes a spec", None),
        (["disk.raw", "a.raw", "-f", "osv.toml"], 2, "both an image and a spec", None),
    ],
)
def test_what_cannot_be_is_refused(words: list[str], code: int, says: str, hint: str | None, folder: Path) -> None:
    """By name, with the way out, and nothing is made."""
    (folder / "text").write_text("no disk" * 200)
    (folder / "a.zip").write_bytes(b"PK\3\4" + bytes(1000))
    (folder / "a.vdi.gz").write_bytes(gzip.compress(bytes(2000)))
    (folder / "old.qcow2").write_bytes(b"QFI\xfb" + bytes(200))
    assert osvdeploy("convert", "disk.raw", "good.qcow2", folder=folder).code == 0
    before = sorted(folder.iterdir())
    ran = osvdeploy("convert", *words, folder=folder)
    assert ran.code == code and (ran.stdout == "" or "--json" in words), ran.stderr
    assert f"error: {says}" in ran.stderr or says in ran.stderr.partition("error: ")[2].splitlines()[0]
    assert hint is None or hint in ran.stderr.partition("hint: ")[2], ran.stderr
    assert sorted(folder.iterdir()) == before


def test_what_is_said_to_be_raw_may_be_anything(folder: Path) -> None:
    """As long as it is no other format."""
    (folder / "data").write_bytes(b"a file system without a partition table" * 100)
    assert osvdeploy("convert", "data", "data.qcow2", "--from", "raw", folder=folder).code == 0


def test_a_full_disk_is_told_and_nothing_is_left(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = sorted(folder.iterdir())
    monkeypatch.setattr(os, "pwrite", full)
    for name in ("a.qcow2", "a.raw", "a.vhd"):
        ran = osvdeploy("convert", "disk.raw", name, folder=folder)
        assert ran.code == 1 and "no room: up to" in ran.stderr and "are free" in ran.stderr, ran.stderr
    assert sorted(folder.iterdir()) == before


def test_what_is_read_back_otherwise_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that forgets what is written to it: the target is not put in place."""
    before = sorted(folder.iterdir())
    real = os.pwrite
    monkeypatch.setattr(
        os, "pwrite", lambda fd, content, at: real(fd, bytes(len(content)), at) if at > MIB else real(fd, content, at)
    )
    ran = osvdeploy("convert", "disk.raw", "a.raw", folder=folder)
    assert ran.code == 1 and "what was read back is not what was written" in ran.stderr
    assert sorted(folder.iterdir()) == before


def test_a_source_that_changes_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written to while it is read, as by a machine that runs on it."""
    real = os.ftruncate

    def meanwhile(fd: int, length: int) -> None:
        os.utime(folder / "disk.raw", ns=(1, 1))
        real(fd, length)

    monkeypatch.setattr(os, "ftruncate", meanwhile)
    ran = osvdeploy("convert", "disk.raw", "a.raw", folder=folder)
    assert ran.code == 1 and "disk.raw: changed while it was read" in ran.stderr
    assert not (folder / "a.raw").exists()


def test_formats_of_qemu_need_qemu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which ones is said, and what to install."""
    (folder / "a.vhdx").write_bytes(b"vhdxfile" + bytes(1000))
    monkeypatch.setenv("PATH", "/nowhere")
    ran = osvdeploy("convert", "a.vhdx", "a.raw", folder=folder)
    assert ran.code == 2 and "vhdx is read by qemu-img, which is not installed (vdi and vhdx need it)" in ran.stderr
    assert "qemu-utils" in ran.stderr


def test_a_disk_may_begin_like_a_file_of_another_format(folder: Path) -> None:
    """An installer's, which is an ISO image too, comes out of a qcow2 as it went in."""
    for content in (b"PK\3\4", b"QFI\xfb", b"\x7fELF", b"\x1f\x8b"):
        with (folder / "disk.raw").open("r+b") as file:
            file.write(content)
        (folder / "a.qcow2").unlink(missing_ok=True)
        with (folder / "a.qcow2").open("w+b") as file, (folder / "disk.raw").open("rb") as disk:
            write(Target.QCOW2, file.fileno(), Reading(6 * MIB, [(0, disk.read())]))
        assert osvdeploy("convert", "a.qcow2", "b.raw", "--force", folder=folder).code == 0
        assert osvdeploy("convert", "a.qcow2", "b.vhd", "--format", "vhd-fixed", "--force", folder=folder).code == 0
        assert (folder / "b.raw").read_bytes() == (folder / "disk.raw").read_bytes()
        assert (folder / "b.vhd").read_bytes()[:-512] == (folder / "disk.raw").read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")
@pytest.mark.parametrize("name", ["vdi", "vhdx"])
def test_what_qemu_reads_is_converted(name: str, folder: Path) -> None:
    """And what it cannot read is told in its words."""
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", name, "disk.raw", "a"], cwd=folder, check=True)
    ran = osvdeploy("convert", "a", "b.raw", folder=folder)
    assert ran.code == 0, ran.stderr
    assert (folder / "b.raw").read_bytes() == (folder / "disk.raw").read_bytes()
    (folder / "a").write_bytes((folder / "a").read_bytes()[:70])
    ran = osvdeploy("convert", "a", "c.raw", folder=folder)
    assert ran.code == 2 and "a: qemu-img cannot read it: " in ran.stderr, ran.stderr


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "osvdeploy", "convert", *words]


@pytest.mark.slow
def test_a_stream_goes_to_standard_output(folder: Path) -> None:
    """The image alone, the same as in a file; the story goes to stderr. What is no stream is refused there."""
    for form in ("gce", "vmdk"):
        assert osvdeploy("convert", "disk.raw", "file", "--format", form, "--force", folder=folder).code == 0
        ran = subprocess.run(command("disk.raw", "-", "--format", form), cwd=folder, capture_output=True)
        assert ran.returncode == 0 and ran.stdout == (folder / "file").read_bytes()
        assert f"standard output: {form}" in ran.stderr.decode()
    ran = subprocess.run(command("disk.raw", "-", "--format", "qcow2"), cwd=folder, capture_output=True)
    assert ran.returncode == 2 and b"cannot be written to a stream" in ran.stderr and ran.stdout == b""
    with open("/dev/full", "wb") as full:  # noqa: PTH123 (a device)
        ran = subprocess.run(
            command("disk.raw", "-", "--format", "gce"), cwd=folder, stdout=full, stderr=subprocess.PIPE
        )
    assert ran.returncode == 1 and b"standard output cannot be written" in ran.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_nothing_half_made_is_left(number: int, code: int, folder: Path) -> None:
    """By Ctrl-C nothing at all; what a kill leaves is swept by the next run."""
    with (folder / "large.raw").open("wb") as file:
        file.write(bytes(510) + b"\x55\xaa")
        for _ in range(400):
            file.write(os.urandom(1000).ljust(MIB, b"x"))
    process = subprocess.Popen(command("large.raw", "a.qcow2"), cwd=folder, stderr=subprocess.DEVNULL)
    ends = time.monotonic() + 20
    while not (parts := list(folder.glob(".osvdeploy-*"))) and time.monotonic() < ends:
        time.sleep(0.005)
    assert parts
    process.send_signal(number)
    assert process.wait(20) == code
    assert not (folder / "a.qcow2").exists()
    assert len(list(folder.glob(".osvdeploy-*"))) == (number == signal.SIGKILL)
    assert osvdeploy("convert", "disk.raw", "a.qcow2", folder=folder).code == 0
    assert not list(folder.glob(".osvdeploy-*"))
