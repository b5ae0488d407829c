"""A real OSv boots what is composed here. Needs OSV_KERNEL, the path of a loader.img that OSv's own build made."""

from __future__ import annotations

import os
import random
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from osvdeploy.demo.hello import build_hello
from osvdeploy.demo.toolchain import Compiler, compile_program
from osvdeploy.osv.cmdline import BootCommand, with_environment
from osvdeploy.osv.console import Fault, Reached, read_boot_log
from osvdeploy.osv.disk import compose, release_block
from osvdeploy.osv.filetree import Content, Directory, FileTree, HostFile, Symlink, TreeBuilder
from osvdeploy.osv.kernel import Kernel, Payload, read_kernel
from osvdeploy.osv.rofs import lay_out
from osvdeploy.sizes import KIB, MIB
from tests.boot.qemu import Machine, boot, free_port, needs_qemu
from tests.demo.test_toolchain import each_compiler

pytestmark = [pytest.mark.osv, needs_qemu]

MEMORY = 256
RELEASE = "hello-1.0.0-0123abcd"
PORT = 8080

SHOW_ARGUMENTS = r"""
#include <stdio.h>
extern char **environ;
static void show(const char *kind, const char *text)
{
    printf("%s ", kind);
    for (; *text; text++)
        printf("%02x", (unsigned char)*text);
    printf("\n");
}
int main(int argc, char **argv)
{
    for (int index = 0; index < argc; index++)
        show("word", argv[index]);
    for (char **variable = environ; *variable; variable++)
        show("variable", *variable);
    printf("end\n");
    fflush(stdout);
    return 0;
}
"""

SHOW_FILES = r"""
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
static void hex(const char *text, long size)
{
    for (long index = 0; index < size; index++)
        printf("%02x", (unsigned char)text[index]);
}
static unsigned crc32_of(const char *path)
{
    static unsigned char piece[65536];
    unsigned crc = ~0u;
    size_t count;
    FILE *file = fopen(path, "rb");
    while (file && (count = fread(piece, 1, sizeof piece, file)) > 0)
        for (size_t index = 0; index < count; index++) {
            crc ^= piece[index];
            for (int bit = 0; bit < 8; bit++)
                crc = (crc >> 1) ^ (crc & 1 ? 0xedb88320u : 0);
        }
    if (file)
        fclose(file);
    return ~crc;
}
static void show(const char *directory)
{
    DIR *entries = opendir(directory);
    for (struct dirent *entry; entries && (entry = readdir(entries));) {
        char path[4096], target[4096];
        struct stat status;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        snprintf(path, sizeof path, "%s/%s", strcmp(directory, "/") ? directory : "", entry->d_name);
        if (lstat(path, &status) != 0) {
            printf("lost ");
            hex(path, (long)strlen(path));
        } else if (S_ISLNK(status.st_mode)) {
            printf("link ");
            hex(path, (long)strlen(path));
            printf(" ");
            hex(target, readlink(path, target, sizeof target));
            if (stat(path, &status) == 0 && S_ISREG(status.st_mode))
                printf(" %ld %08x", (long)status.st_size, crc32_of(path));
        } else if (S_ISDIR(status.st_mode)) {
            printf("directory ");
            hex(path, (long)strlen(path));
            printf("\n");
            show(path);
            continue;
        } else {
            printf("file ");
            hex(path, (long)strlen(path));
            printf(" %ld %08x", (long)status.st_size, crc32_of(path));
        }
        printf("\n");
    }
    if (entries)
        closedir(entries);
}
int main(void)
{
    show("/");
    printf("end\n");
    fflush(stdout);
    return 0;
}
"""


@pytest.fixture(scope="session")
def kernel() -> Kernel:
    path = os.environ.get("OSV_KERNEL")
    if not path:
        pytest.skip("OSV_KERNEL is not set: name a loader.img of OSv (build/last/loader.img) to boot a real one")
    kernel = read_kernel(Path(path))
    assert kernel.payload is Payload.LZLOADER, f"OSV_KERNEL={path} is not OSv's loader.img"
    return kernel


def hello_command(*, release: str = RELEASE) -> BootCommand:
    options = (("power-off-on-abort", None),)
    return BootCommand(options, (("OSVDEPLOY_RELEASE", release),), ("/hello", "--port", str(PORT)))


def tree_with(program: Path | None, name: bytes = b"/hello") -> FileTree:
    builder = TreeBuilder()
    if program is not None:
        builder.add_file(name, os.fsencode(program))
    return builder.tree()


def write(path: Path, kernel: Kernel, tree: FileTree, command: BootCommand) -> Path:
    compose(path, kernel, lay_out(tree), command)
    return path


@contextmanager
def running(disk: Path, *, forwarded: int | None = None, bus: str = "virtio-blk") -> Iterator[Machine]:
    """``disk`` booted with one network card; 127.0.0.1:``forwarded`` reaches the guest's port."""
    forward = "" if forwarded is None else f",hostfwd=tcp:127.0.0.1:{forwarded}-:{PORT}"
    arguments = [
        "-cpu",
        "max",
        "-netdev",
        f"user,id=net0,restrict=on{forward}",
        "-device",
        "virtio-net-pci,netdev=net0",
    ]
    arguments += ["-device", "virtio-rng-pci"]
    interface = "virtio" if bus == "virtio-blk" else "none"
    if bus == "virtio-scsi":
        arguments += ["-device", "virtio-scsi-pci", "-device", "scsi-hd,drive=disk0"]
    elif bus == "nvme":
        arguments += ["-device", "nvme,drive=disk0,serial=disk0"]
    with boot(disk, memory=MEMORY, interface=interface, arguments=arguments) as machine:
        yield machine


def get(port: int, path: str) -> tuple[int, str | None, str]:
    # No proxy: one set for the user would be asked for the guest.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        answer = opener.open(f"http://127.0.0.1:{port}{path}", timeout=30)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        return answer.status, answer.headers["x-release"], answer.read().decode()


def program_of(source: str, folder: Path, name: str) -> Path:
    text = folder / f"{name}.c"
    text.write_text(source)
    return compile_program([text], folder / name)


@each_compiler
def test_hello_answers_with_its_release(compiler: Compiler, kernel: Kernel, tmp_path: Path) -> None:
    """What each compiler makes runs on OSv, answers over HTTP, and names the release from the command line."""
    program = build_hello("1.0.0", tmp_path / "hello", compiler=compiler)
    disk = write(tmp_path / "disk.raw", kernel, tree_with(program), hello_command())
    port = free_port()
    with running(disk, forwarded=port) as machine:
        console = machine.wait_for(lambda seen: b"listens on" in seen).decode()
        assert get(port, "/") == (200, RELEASE, "hello 1.0.0\n")
        assert {get(port, "/healthz") for _ in range(100)} == {(200, RELEASE, "hello 1.0.0 is well\n")}
        assert machine.running
    log = read_boot_log(console)
    assert (log.reached, log.fault, log.suspicions) == (Reached.STARTING, None, ())
    assert log.addresses == ("10.0.2.15",)
    assert log.command_line == f"/hello --port {PORT}"
    assert log.version is not None


@pytest.mark.parametrize("bus", ["virtio-scsi", "nvme"])
def test_hello_boots_from_the_disks_of_clouds(bus: str, kernel: Kernel, tmp_path: Path) -> None:
    """The same disk boots behind virtio-scsi, as on Google Compute Engine, and as NVMe, as on AWS Nitro."""
    program = build_hello("1.1.0", tmp_path / "hello")
    disk = write(tmp_path / "disk.raw", kernel, tree_with(program), hello_command())
    port = free_port()
    with running(disk, forwarded=port, bus=bus) as machine:
        console = machine.wait_for(lambda seen: b"listens on" in seen or b"Failed to load" in seen).decode()
        if bus == "nvme" and read_boot_log(console).version == "v0.57.0":
            pytest.skip("OSv v0.57.0 has no NVMe driver")
        assert get(port, "/you") == (200, RELEASE, "hello 1.1.0 greets you\n")


def test_a_release_block_changes_the_release_and_nothing_else(kernel: Kernel, tmp_path: Path) -> None:
    """An image's disk with a release's first block is that release."""
    program = build_hello("1.0.0", tmp_path / "hello")
    disk = write(tmp_path / "disk.raw", kernel, tree_with(program), hello_command(release="none yet"))
    with disk.open("r+b") as file:
        block = release_block(file.read(512 * KIB), hello_command(release="hello-1.0.0-89abcdef"))
        file.seek(0)
        file.write(block)
    port = free_port()
    with running(disk, forwarded=port) as machine:
        machine.wait_for(lambda seen: b"listens on" in seen)
        assert get(port, "/healthz")[1] == "hello-1.0.0-89abcdef"


def test_a_bad_release_answers_500(kernel: Kernel, tmp_path: Path) -> None:
    """hello 1.2.0 boots like a good one: only its answers are bad, and its console says why."""
    program = build_hello("1.2.0", tmp_path / "hello")
    disk = write(tmp_path / "disk.raw", kernel, tree_with(program), hello_command())
    port = free_port()
    with running(disk, forwarded=port) as machine:
        log = read_boot_log(machine.wait_for(lambda seen: b"listens on" in seen).decode())
        assert (log.reached, log.fault) == (Reached.STARTING, None)
        assert get(port, "/healthz")[0] == 500
        machine.wait_for(lambda seen: b"cannot read /etc/hello/greeting" in seen)


def test_a_release_that_aborts_is_seen_in_its_console(kernel: Kernel, tmp_path: Path) -> None:
    """hello 1.3.0 aborts while it starts: the console is read so, and the machine is off."""
    program = build_hello("1.3.0", tmp_path / "hello")
    disk = write(tmp_path / "disk.raw", kernel, tree_with(program), hello_command())
    with running(disk) as machine:
        console = machine.wait_until_off().decode(errors="replace")
    log = read_boot_log(console)
    assert "HELLO_GREETING is not set" in console
    assert log.fault is not None and log.fault.fault is Fault.ABORTED
    assert log.reached is Reached.STARTING


def test_a_missing_program_is_seen_in_the_console(kernel: Kernel, tmp_path: Path) -> None:
    """A command that names no file of the image powers the machine off, and the console is read so."""
    disk = write(tmp_path / "disk.raw", kernel, tree_with(None), hello_command())
    with running(disk) as machine:
        log = read_boot_log(machine.wait_until_off().decode(errors="replace"))
    assert log.fault is not None and log.fault.fault is Fault.PROGRAM_NOT_LOADED


def test_words_and_environment_arrive_as_they_were_written(kernel: Kernel, tmp_path: Path) -> None:
    """OSv reads the command line as it is meant, whatever its words and variables hold."""
    words = (
        "/show",
        "two words",
        "",
        'a"quote',
        "it's",
        "back\\slash",
        "semi;colon",
        "a&b!c",
        "-x",
        "tab\there",
        "~{}[]",
    )
    environment = {
        "PLAIN": "value",
        # In front: OSv takes a backslash out by moving the rest of the line over it, with a memmove that loses bytes
        # (libc/string/memmove.c gives overlapping ranges to an SSSE3 memcpy) where the rest is 1024 bytes or more.
        "LONG": "v" * 20_000,
        "SPACES": " a  b ",
        "UNICODE": "grüß dich",
        "LINES": "one\ntwo\\n",
        "QUOTES": "\"'`$HOME",
        "EMPTY": "",
    }
    program = program_of(SHOW_ARGUMENTS, tmp_path, "show")
    command = with_environment(BootCommand((), (), words), environment)
    disk = write(tmp_path / "disk.raw", kernel, tree_with(program, b"/show"), command)
    with running(disk) as machine:
        console = machine.wait_until_off().decode(errors="replace")
    shown = [line.split(" ") for line in console.replace("\r", "").split("\n")]
    assert [bytes.fromhex(value[1]).decode() for value in shown if value[0] == "word"] == list(words)
    seen = dict(bytes.fromhex(value[1]).decode().split("=", 1) for value in shown if value[0] == "variable")
    assert {name: seen.get(name) for name in environment} == environment


def test_osv_sees_the_tree_that_was_written(kernel: Kernel, tmp_path: Path) -> None:
    """Names of any bytes, sizes around blocks, links, empty directories and a thousand files are OSv's own view too."""
    contents: Mapping[bytes, bytes] = {
        **{
            b"/sizes/%d" % size: bytes(range(256)) * (size // 256 + 1)
            for size in (0, 256, 511, 512, 4095, 4096, 40_000)
        },
        **{b"/many/%d/file-%d" % (number % 30, number): b"%d" % number for number in range(1000)},
        b"/caf\xc3\xa9/\xff\xfe": b"no text",
        b"/names/a b\tc\nd": b"white space",
        b"/names/" + b"n" * 250: b"long",
        b"/big": bytes(range(251)) * (2 * MIB // 251),
    }
    program = program_of(SHOW_FILES, tmp_path, "show")
    builder = TreeBuilder()
    builder.add_file(b"/show", os.fsencode(program))
    for path, content in contents.items():
        builder.add_content(path, content, origin="the test")
    builder.add_directory(b"/empty/er", origin="the test")
    builder.add_symlink(b"/link", b"/big", origin="the test")
    tree = builder.tree()
    disk = write(tmp_path / "disk.raw", kernel, tree, BootCommand((), (), ("/show",)))
    with running(disk) as machine:
        console = machine.wait_until_off().decode(errors="replace")
    assert shown_files(console) == written_files(tree)


def test_osv_reads_ten_thousand_files_as_they_are(kernel: Kernel, tmp_path: Path) -> None:
    """Deep paths, names of 255 bytes that are no ASCII, empty files, equal ones, large ones, and links over links: the
    guest lists all of them, and its digests are this machine's. And again when one file has grown and moved others."""
    chance = random.Random(7)
    noise = chance.randbytes(4 * MIB)
    sizes = [0, 1, 511, 512, 513, 4095, 4096, 32767, 32768, 40_000]
    contents = {}
    for number in range(9_900):
        deep = b"".join(b"d%d/" % (number // 7**level % 7) for level in range(number % 9))
        size = chance.choice(sizes) if number % 10 == 0 else chance.randrange(900)
        start = 0 if number % 50 == 0 else chance.randrange(4 * MIB - size)
        contents[b"/tree/" + deep + b"f%d" % number] = noise[start : start + size]
    for number in range(90):
        name = b"%03d" % number + ("é漢🙂" * 40).encode()[: 252 - 252 % 9]
        contents[b"/names/" + name + b"\xff" * (255 - len(name))] = noise[number : number + 300]
    contents[b"/" + b"/".join([b"n" * 250] * 14) + b"/end"] = b"far down"
    for number, size in enumerate((600_000, 1 * MIB, 3 * MIB + 5)):
        contents[b"/large/%d" % number] = noise[number : number + size]
    program = program_of(SHOW_FILES, tmp_path, "show")
    for grown in (0, 30_000):
        contents[b"/tree/d1/grows"] = noise[: 10_000 + grown]
        builder = TreeBuilder()
        builder.add_file(b"/show", os.fsencode(program))
        for path, content in contents.items():
            builder.add_content(path, content, origin="the test")
        for number in range(12):
            target = b"l%d" % (number - 1) if number else b"../large/2"
            builder.add_symlink(b"/links/l%d" % number, target, origin="the test")
        builder.add_symlink(b"/links/away", b"/nowhere", origin="the test")
        tree = builder.tree()
        assert sum(isinstance(entry, Content) for entry in tree.entries.values()) >= 9_990
        disk = write(tmp_path / f"disk-{grown}.raw", kernel, tree, BootCommand((), (), ("/show",)))
        with running(disk) as machine:
            console = machine.wait_until_off().decode(errors="replace")
        assert shown_files(console) == written_files(tree)


def shown_files(console: str) -> dict[bytes, tuple[str, ...]]:
    shown = {}
    for line in console.replace("\r", "").split("\n"):
        kind, _, rest = line.partition(" ")
        if kind in ("file", "directory", "link", "lost"):
            path, *details = rest.split(" ")
            shown[bytes.fromhex(path)] = (kind, *details)
    return shown


def written_files(tree: FileTree) -> dict[bytes, tuple[str, ...]]:
    written: dict[bytes, tuple[str, ...]] = {}
    for path, entry in tree.entries.items():
        match entry:
            case Directory():
                written[path] = ("directory",)
            case Symlink(target):
                file = tree.file(path)
                written[path] = ("link", target.hex(), *(size_and_digest(file) if file else ()))
            case _:
                written[path] = ("file", *size_and_digest(entry))
    del written[b"/"]
    return written


def size_and_digest(file: HostFile | Content) -> tuple[str, str]:
    content = file.content if isinstance(file, Content) else Path(os.fsdecode(file.path)).read_bytes()
    return str(len(content)), f"{zlib.crc32(content):08x}"
