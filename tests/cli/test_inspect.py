"""inspect, as a user types it."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from osvdeploy.cli import main
from osvdeploy.osv.filetree import TreeBuilder
from tests.cli.running import osvdeploy
from tests.osv.images import write_loader
from tests.osv.qcow2_files import Stored, make
from tests.osv.rofs_files import make_rofs
from tests.osv.test_anatomy import disk_of, ext_superblock


def image_of(files: dict[bytes, bytes], *, line: bytes = b"--verbose --env=A=b /hello 8080") -> bytes:
    builder = TreeBuilder()
    for path, content in files.items():
        builder.add_content(path, content, origin="a test")
    builder.add_directory(b"/tmp", origin="a test")
    builder.add_symlink(b"/etc/mnttab", b"/proc/mounts", origin="a test")
    builder.add_symlink(b"/current", b"hello", origin="a test")
    return disk_of(make_rofs(builder.tree()), line=line)


FILES = {b"/hello": b"\x7fELF\0\xff", b"/etc/fstab": b"ramfs /tmp\n"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "disk.raw").write_bytes(image_of(FILES))
    return tmp_path


def cat(*words: str, folder: Path) -> tuple[int, bytes]:
    """Run it with a stdout that takes bytes."""
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(io.StringIO()),
        mock.patch.object(sys, "argv", ["osvdeploy", "inspect", "cat", *words]),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    stdout.flush()
    assert isinstance(stdout.buffer, io.BytesIO)
    return ended.value.code if isinstance(ended.value.code, int) else 1, stdout.buffer.getvalue()


def test_an_image_is_told_to_people(folder: Path) -> None:
    """Layout, command line, files; all of it on stdout."""
    ran = osvdeploy("inspect", "disk.raw", folder=folder)
    assert ran.code == 0 and ran.stderr == ""
    for told in (
        "disk.raw: raw, ",
        "kernel: lzloader, 2 chunks, loader.img ",
        "partition 2, type 0x83, /dev/vblk0.1: ROFS",
        "kernel: OSv v0.57.0-398-g0e34e4dc, x86_64",
        "command line: --verbose --env=A=b /hello 8080",
        "words: '/hello', '8080'",
        "files: 2 files, 3 directories, 2 links, 17B",
    ):
        assert told in ran.stdout


def test_an_image_is_told_to_programs(folder: Path) -> None:
    """The fields that docs/json.md lists, and no others."""
    document = osvdeploy("inspect", "disk.raw", "--json", folder=folder).document
    page = (Path(__file__).parents[2] / "docs" / "json.md").read_text()
    (row,) = [line for line in page.splitlines() if line.startswith("| `inspect` ")]
    for name in document:
        assert name in ("schema", "command") or f"`{name}`" in row
    assert (document["command"], document["format"], document["layout"]) == ("inspect", "raw", "disk")
    assert document["command_line"]["env"] == [["A", "b"]] and document["command_line"]["words"] == ["/hello", "8080"]
    assert document["partitions"][0]["slot"] == 2 and document["partitions"][0]["file_system"] == "rofs"
    assert document["files"]["biggest"][0] == {"path": "/etc/fstab", "size": 11}
    assert document["read"]["blocks"] == 2


def test_a_kernel_that_cannot_be_unpacked_is_told(folder: Path) -> None:
    """OSv's loader around damage; the rest is shown as ever."""
    content = bytearray((folder / "disk.raw").read_bytes())
    at = content.index(b"OSv v0.57.0") - 60
    content[at : at + 40] = b"\xff" * 40
    (folder / "bad.raw").write_bytes(content)
    ran = osvdeploy("inspect", "bad.raw", folder=folder)
    assert ran.code == 0 and "wrong with it:\n  kernel: its" in ran.stdout and "files: 2 files" in ran.stdout
    kernel = osvdeploy("inspect", "bad.raw", "--json", folder=folder).document["kernel"]
    assert kernel["problem"] and kernel["version"] is None


def test_a_spec_means_its_built_image(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its file or its folder; built first where it is not."""
    monkeypatch.setenv("OSVDEPLOY_CACHE", str(folder / "cache"))
    write_loader(folder / "loader.img")
    (folder / "hello").write_bytes(b"program")
    spec = '[kernel]\nfile = "loader.img"\n[image]\ncommand = ["/hi"]\n[[files]]\nfrom = "hello"\nto = "/hi"\n'
    (folder / "osv.toml").write_text(f'name = "hello"\nversion = "1"\n{spec}')
    ran = osvdeploy("inspect", "osv.toml", folder=folder)
    assert ran.code == 0 and "command line: /hi" in ran.stdout and "files: 3 files, 6 directories, 145B" in ran.stdout
    assert osvdeploy("inspect", "ls", ".", folder=folder).stdout.split() == ["dev", "etc", "hi", "proc", "sys", "tmp"]
    built = osvdeploy("build", folder=folder).stdout.strip()
    assert "blocks: 0 of " in osvdeploy("inspect", built, "--against", ".", folder=folder).stdout


def test_what_is_wrong_is_told_at_the_end(folder: Path) -> None:
    """And the exit code is 0: the image was inspected."""
    content = bytearray((folder / "disk.raw").read_bytes())
    content[0x10:0x12] = b"\xff\xff"
    content[(2 << 20) + 8] = 9
    (folder / "bad.raw").write_bytes(content)
    ran = osvdeploy("inspect", "bad.raw", folder=folder)
    assert ran.code == 0
    assert "wrong with it:\n  its boot sector loads 65535 chunks" in ran.stdout
    assert (
        "partition 2: ROFS: version 9" in ran.stdout and "files: not listed: its file system is damaged" in ran.stdout
    )


def test_a_disk_that_ends_early_is_told(folder: Path) -> None:
    """Half a download, raw or qcow2: how much is there, how much should be, and what to do; no talk of file systems."""
    raw = (folder / "disk.raw").read_bytes()
    size = (2 << 20) + 600
    (folder / "half.raw").write_bytes(raw[:size])
    (folder / "half.qcow2").write_bytes(make(raw, [Stored.PLAIN])[0][: len(raw) // 2])
    for words in (("ls", "half.raw"), ("cat", "half.raw", "/hello"), ("extract", "half.raw", "-o", "out")):
        ran = osvdeploy("inspect", *words, folder=folder)
        assert ran.code == 2 and f"error: half.raw: the disk ends early: it has {size} bytes (2.0MiB)" in ran.stderr
        assert f"ends at {len(raw)} (2.0MiB)\nhint: the file was cut short" in ran.stderr
    told = osvdeploy("inspect", "half.raw", folder=folder)
    assert told.code == 0 and "wrong with it:\n  partition 2: the disk ends early" in told.stdout
    ran = osvdeploy("inspect", "ls", "half.qcow2", folder=folder)
    assert ran.code == 2 and "half.qcow2: qcow2: " in ran.stderr and "hint: the file was cut short" in ran.stderr


def test_a_qcow2_is_the_disk_in_it(folder: Path) -> None:
    """Files and all; nothing is unpacked to disk."""
    raw = (folder / "disk.raw").read_bytes()
    (folder / "usr.img").write_bytes(make(raw, [Stored.PLAIN])[0])
    ran = osvdeploy("inspect", "usr.img", folder=folder)
    assert ran.code == 0 and "usr.img: qcow2 (version 3, clusters of 512B)" in ran.stdout
    assert "blocks: 0 of " in osvdeploy("inspect", "usr.img", "--against", "disk.raw", folder=folder).stdout
    assert sorted(each.name for each in folder.iterdir()) == ["disk.raw", "usr.img"]


def test_names_move_no_cursor(folder: Path) -> None:
    """An image is a stranger's: control characters and line breaks in names and command line are escaped."""
    (folder / "evil.raw").write_bytes(image_of({b"/\x1b[2Jx\ny\xff": b"1"}, line=b'--a=\x1b[31m "/x"'))
    for words in (("inspect", "evil.raw"), ("inspect", "ls", "evil.raw", "-l")):
        ran = osvdeploy(*words, folder=folder)
        assert ran.code == 0 and "\x1b" not in ran.stdout and r"\x1b[2Jx\ny\xff" in ran.stdout
    entries = osvdeploy("inspect", "ls", "evil.raw", "--json", folder=folder).document["entries"]
    assert os.fsencode(entries[0]["path"]) == b"/\x1b[2Jx\ny\xff"


def test_what_ls_shows_cat_takes_back(folder: Path) -> None:
    """Every name, whatever its bytes. What is typed without escapes is found too."""
    names = [
        b"\xff",
        b"a\\xff",
        b"\\",
        b"\\\\",
        b"two\nlines",
        b"a\xc2\xa0b",
        b"tab\t",
        "straße".encode(),
        b" x ",
        b"\\q",
    ]
    files = {b"/" + name: b"%d" % at for at, name in enumerate(names)}
    (folder / "odd.raw").write_bytes(image_of(files))
    listed = osvdeploy("inspect", "ls", "odd.raw", folder=folder).stdout.splitlines()
    found = {}
    for line in listed:
        code, content = cat("odd.raw", line, folder=folder)
        found[line] = content if code == 0 else b""
    assert sorted(each for each in found.values() if each) == sorted(files.values())
    assert [found[line] for line in (r"\xff", r"a\\xff", r"two\nlines")] == [b"0", b"1", b"4"]
    for typed, content in (
        ("a\udcff", b""),
        ("\udcff", b"0"),
        (r"\q", b"9"),
        ("straße", b"7"),
        (r"stra\xc3\x9fe", b"7"),
    ):
        assert cat("odd.raw", typed, folder=folder)[1] == content, typed
    ran = osvdeploy("inspect", "extract", "odd.raw", r"/two\nlines", "-o", "out", folder=folder)
    assert ran.code == 0 and (folder / "out" / "two\nlines").read_bytes() == b"4"
    against = osvdeploy("inspect", "odd.raw", "--against", "disk.raw", folder=folder).stdout
    assert r"added    /a\\xff (1B)" in against


@pytest.mark.slow
def test_where_stdout_has_no_such_letter_its_bytes_are_shown(folder: Path) -> None:
    """And not its number, which nothing would take back."""
    (folder / "odd.raw").write_bytes(image_of({"/straße".encode(): b"7"}))
    command = [sys.executable, "-m", "osvdeploy", "inspect", "ls", "odd.raw"]
    environ = {**os.environ, "PYTHONIOENCODING": "ascii"}
    shown = subprocess.run(command, cwd=folder, env=environ, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    assert r"stra\xc3\x9fe" in shown


def test_a_link_to_a_directory_is_listed_as_it(folder: Path) -> None:
    """As ls does it; with -l it is the link, unless its name ends in a slash."""
    builder = TreeBuilder()
    builder.add_content(b"/usr/lib/a.so", b"", origin="a test")
    builder.add_symlink(b"/lib64", b"usr/lib", origin="a test")
    builder.add_symlink(b"/loop", b"loop", origin="a test")
    (folder / "links.raw").write_bytes(disk_of(make_rofs(builder.tree())))
    assert osvdeploy("inspect", "ls", "links.raw", "/lib64", folder=folder).stdout == "a.so\n"
    assert osvdeploy("inspect", "ls", "links.raw", "/lib64/", "-l", folder=folder).stdout.endswith(" a.so\n")
    assert osvdeploy("inspect", "ls", "links.raw", "/lib64", "-l", folder=folder).stdout.endswith("-> usr/lib\n")
    assert osvdeploy("inspect", "ls", "links.raw", "/loop", folder=folder).stdout == "/loop\n"


def test_ls_lists_a_directory(folder: Path) -> None:
    """Names alone; with -l what they are; with -R all below, by whole path."""
    assert osvdeploy("inspect", "ls", "disk.raw", folder=folder).stdout == "current\netc\nhello\ntmp\n"
    assert osvdeploy("inspect", "ls", "disk.raw", "/etc", "-l", folder=folder).stdout.splitlines() == [
        "file                11 fstab",
        "link                 - mnttab -> /proc/mounts",
    ]
    assert osvdeploy("inspect", "ls", "-R", "disk.raw", "etc/", folder=folder).stdout == "/etc/fstab\n/etc/mnttab\n"
    assert osvdeploy("inspect", "ls", "disk.raw", "/hello", folder=folder).stdout == "/hello\n"
    assert osvdeploy("inspect", "ls", "disk.raw", "/tmp", folder=folder).stdout == ""


def test_cat_writes_the_bytes(folder: Path) -> None:
    """As they are, through links too; with --json what they are instead."""
    assert cat("disk.raw", "/hello", folder=folder) == (0, FILES[b"/hello"])
    assert cat("disk.raw", "/current", folder=folder) == (0, FILES[b"/hello"])
    document = osvdeploy("inspect", "cat", "disk.raw", "/hello", "--json", folder=folder).document
    assert (document["command"], document["size"], len(document["sha256"])) == ("inspect cat", 6, 64)


@pytest.mark.parametrize(("path", "says"), [("/tmp", "a directory"), ("/etc/mnttab", "a link that leads to no file")])
def test_cat_of_no_file_is_refused(folder: Path, path: str, says: str) -> None:
    """A directory, and a link that leads out of the image."""
    ran = osvdeploy("inspect", "cat", "disk.raw", path, folder=folder)
    assert ran.code == 2 and f"error: {path}: {says}" in ran.stderr


def test_extract_writes_below_a_folder(folder: Path) -> None:
    """And says how much."""
    ran = osvdeploy("inspect", "extract", "disk.raw", "-o", "out", folder=folder)
    assert (ran.code, ran.stdout) == (0, "out: 2 files, 3 directories, 2 links, 17B\n")
    assert (folder / "out/etc/fstab").read_bytes() == FILES[b"/etc/fstab"]
    again = osvdeploy("inspect", "extract", "disk.raw", "/hello", "-o", "out", folder=folder)
    assert again.code == 2 and "out/hello: is there already" in again.stderr


def test_against_another_image(folder: Path) -> None:
    """Files and blocks, for people and for programs."""
    (folder / "new.raw").write_bytes(image_of({b"/hello": b"longer than it was", b"/etc/tab": FILES[b"/etc/fstab"]}))
    ran = osvdeploy("inspect", "new.raw", "--against", "disk.raw", folder=folder)
    assert ran.code == 0 and ran.stdout.splitlines() == [
        "new.raw against disk.raw",
        "  kernel: the same",
        "  command line: the same",
        "  files: 1 changed, 1 moved",
        "    moved    /etc/fstab -> /etc/tab",
        "    changed  /hello (6B -> 18B)",
        "  blocks: 1 of 2 to send, 512KiB, if the other were the parent snapshot",
    ]
    document = osvdeploy("inspect", "new.raw", "--against", "disk.raw", "--json", folder=folder).document
    assert document["blocks"] == {"size": 524288, "needed": 2, "changed": [4], "bytes_to_send": 524288}
    assert [each["change"] for each in document["files"]] == ["moved", "changed"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("nothing.raw",), "nothing.raw: cannot be read: No such file"),
        (("ls", "nothing.raw"), "nothing.raw: cannot be read"),
        (("text",), "text: text, not a disk"),
        (("ls", "ext.raw"), "ext.raw: its file system is ext, which cannot be listed"),
        (("extract", "ext.raw", "-o", "out"), "ext.raw: its file system is ext"),
        (("ls", "disk.raw", "/nothing"), "/nothing: not in the image"),
        (("extract", "disk.raw", "/nothing", "-o", "out"), "/nothing: not in the image"),
        (("extract", "disk.raw"), "Missing option '-o'"),
        (("cat", "disk.raw"), "Missing argument 'PATH'"),
        (("disk.raw", "--aganst", "x"), "No such option"),
        (("disk.raw", "ls"), "unexpected extra argument"),
        (("disk.raw", "--against", "text"), "text: text, not a disk"),
    ],
)
def test_a_mistake_is_exit_code_2_with_the_reason(folder: Path, words: tuple[str, ...], says: str) -> None:
    """And never a traceback."""
    (folder / "text").write_bytes(b"hello\n" * 100)
    (folder / "ext.raw").write_bytes(disk_of(ext_superblock().ljust(8192, b"\0")))
    ran = osvdeploy("inspect", *words, folder=folder)
    assert (ran.code, ran.stdout) == (2, "")
    assert says in ran.stderr and "Traceback" not in ran.stderr and not (folder / "out").exists()


def test_help_tells_of_image_and_verbs() -> None:
    """One page for the short form and what else there is."""
    told = osvdeploy("inspect", "--help").stdout
    for word in ("inspect [OPTIONS] IMAGE", "--against", "ls ", "cat ", "extract "):
        assert word in told
    for verb in ("ls", "cat", "extract"):
        assert "Example: osvdeploy inspect " + verb in osvdeploy("inspect", verb, "--help").stdout


def test_an_image_called_like_a_verb_is_reached_by_its_path(folder: Path) -> None:
    """./ls is a file."""
    (folder / "disk.raw").rename(folder / "ls")
    assert osvdeploy("inspect", "./ls", folder=folder).code == 0


@pytest.mark.slow
def test_a_reader_that_goes_away_ends_cat(folder: Path) -> None:
    """`cat | head` is no complaint."""
    (folder / "big.raw").write_bytes(image_of({b"/big": b"line\n" * 1_000_000}))
    command = f"{sys.executable} -m osvdeploy inspect cat big.raw /big | head -1"
    ran = subprocess.run(["sh", "-c", command], capture_output=True, text=True, cwd=folder)
    assert ran.stdout == "line\n" and ran.stderr == ""


@pytest.mark.slow
def test_a_full_disk_behind_cat_is_an_error(folder: Path) -> None:
    """Half a file is not a success."""
    with open("/dev/full", "wb") as full:  # noqa: PTH123 (a device)
        ran = subprocess.run(
            [sys.executable, "-m", "osvdeploy", "inspect", "cat", "disk.raw", "/hello"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
        )
    assert ran.returncode == 1 and "cannot be written to stdout: No space left" in ran.stderr
    assert "Traceback" not in ran.stderr and "Exception" not in ran.stderr
