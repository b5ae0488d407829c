"""Behaves as OSv's scripts/build does, on a tree of tests.build.fake_tree: its arguments, what it says, what it leaves,
and that it ends with status 0 when something failed.

    python fake_scripts_build.py NAME=VALUE... [-jN] [--append-manifest]

``build/fault`` in the tree names what is to go wrong. Nothing is compiled: a kernel is a digest of what went into it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).parents[2]))

from osvdeploy.osv.disk import with_partition
from osvdeploy.osv.filetree import FileTree, TreeBuilder
from osvdeploy.osv.image import Extent
from osvdeploy.osv.rofs import lay_out, write_rofs
from tests.build.qcow2 import write_qcow2
from tests.osv.images import LZLOADER, loader_image

MIB = 1 << 20

# What a step says before scripts/build ends; make's steps are the only ones whose status it passes on.
LOUD = {
    "memory": ["g++: fatal error: Killed signal terminated program cc1plus", "compilation terminated."],
    "disk-full": ["/tmp/ccX.s: Assembler messages:", "/tmp/ccX.s: Fatal error: can't write: No space left on device"],
    "compile": ["core/elf.cc:12:5: error: expected ';' before 'return'"],
    "link": ["loader.cc:5: undefined reference to `nowhere()'"],
    "tool": ["/bin/sh: 1: cmake: not found"],
    "compiler": ["Makefile:2026: *** Error: libstdc++.a needs to be installed..  Stop."],
    "submodule": [
        'Makefile:189: *** Missing musl/ directory. Please run "git submodule update --init --recursive".  Stop.'
    ],
    "profile": ["Makefile:167: *** unsupported drivers profile aws_nitro.  Stop."],
    "config": ["build/release.x64/.config:7:warning: symbol value 'x' invalid for memory_l1_pool_size", "conf: error"],
}
QUIET = {
    "trap": ["Traceback (most recent call last):", "KeyError: 'libgcc_s_dir'"],
    "network": ["fatal: unable to access 'https://example.com/x.git/': Could not resolve host: example.com"],
    "sudo": ["sudo: a terminal is required to read the password; either use the -S option"],
    "kvm": ["Could not access KVM kernel module: Permission denied", "qemu failed."],
    "port": ["qemu-system-x86_64: -netdev user: Could not set up host forwarding rule 'tcp:127.0.0.1:1-:10000'"],
    "qemu-img": ["scripts/build: line 300: qemu-img: command not found"],
    "reset": ["ConnectionResetError: [Errno 104] Connection reset by peer"],
}


def say(*lines: str) -> None:
    for line in lines:
        print(line, flush=True)


def trapped(command: str) -> NoReturn:
    """The ERR trap: it prints, and the shell then ends with the status of that print."""
    print(f"scripts/build failed: {command}", file=sys.stderr, flush=True)
    sys.exit(0)


def gave_up() -> NoReturn:
    say("make: *** [Makefile:300: core] Error 1", "make failed. Exiting from build script")
    sys.exit(2)


def main() -> None:
    given = dict(argument.split("=", 1) for argument in sys.argv[1:] if "=" in argument)
    fs, out = given.get("fs", "zfs"), Path("build", f"{given.get('mode', 'release')}.{given.get('arch', 'x64')}")
    fault_file = Path("build/fault")
    fault = fault_file.read_text() if fault_file.exists() else ""
    Path("build/called.json").write_text(json.dumps({"arguments": sys.argv[1:], "environment": dict(os.environ)}))
    if fault == "nothing":
        sys.exit(0)
    out.mkdir(parents=True, exist_ok=True)
    Path("build/last").unlink(missing_ok=True)
    Path("build/last").symlink_to(out.name)
    headers(out, given, lost=fault == "option-lost")
    say("  GEN gen/include/osv/version.h", *(f"  CXX core/{name}.cc" for name in ("app", "elf", "mmu")))
    waits(fault)
    if fault in LOUD:
        say(*LOUD[fault])
        gave_up()
    (out / "loader.o").write_bytes(b"")
    manifest = modules(out, given.get("image", "default"))
    if "--append-manifest" in sys.argv:
        manifest += (out / "append.manifest").read_text()
    (out / "usr.manifest").write_text(manifest)
    say("  LINK loader.elf", "  STRIP loader.elf -> loader-stripped.elf ", "  LINK lzloader.elf")
    kernel = loader_image(chunks=2, payload=LZLOADER + kernel_digest(out, given, manifest, fs))
    (out / "loader.img").write_bytes(kernel)
    tree = files(out, manifest)
    if fault == "lost-file":
        tree = FileTree({path: entry for path, entry in tree.entries.items() if path != b"/hello"})
    if "export_dir" in given:
        export(tree, Path(given["export_dir"]))
    if fault in QUIET:
        say(*QUIET[fault])
        if fault in ("trap", "network", "qemu-img"):
            trapped('"$SRC"/scripts/gen-rofs-img.py -o rofs.img -m usr.manifest')
    if fault == "no-image":
        return
    disk, size = make_disk(fs, kernel, tree, int(given.get("fs_size", 512 * MIB)), finished=fault != "unfilled")
    if fault == "other-kernel":
        disk[70_000] ^= 1
    if fault == "no-file-system":
        disk[2 * MIB :] = bytes(len(disk) - 2 * MIB)
    write_qcow2(out / "usr.img", bytes(disk), size)
    (out / "cmdline").write_text(f"--rootfs={fs} /of-a-module")


def waits(fault: str) -> None:
    """A build that takes its time: until it is told to go on, or for ever, with a child in the background."""
    if fault == "hang":
        child = subprocess.Popen(["sleep", "600"])
        Path("build/pids").write_text(f"{os.getpid()} {child.pid}")
        child.wait()
    elif fault == "wait":
        Path("build/waiting").touch()
        while not Path("build/go").exists():
            time.sleep(0.02)  # until the test says so, by a file


def headers(out: Path, given: dict[str, str], *, lost: bool) -> None:
    """What C code would see: .config alone for its options, the command line for drivers."""
    place = out / "gen" / "include" / "osv"
    place.mkdir(parents=True, exist_ok=True)
    config = (out / ".config").read_text() if (out / ".config").exists() else ""
    for name, value in re.findall(r"^CONF_(\w+)=(.*)$", config, re.M):
        shown = "7" if lost else {"y": "1"}.get(value, value)
        (place / f"kernel_config_{name}.h").write_text(f"#define CONF_{name} {shown}\n")
    for name in re.findall(r"^# CONF_(\w+) is not set$", config, re.M):
        (place / f"kernel_config_{name}.h").write_text(f"#define CONF_{name} 0\n")
    drivers = [f"#define CONF_{name[5:]} {value}" for name, value in given.items() if name.startswith("conf_drivers_")]
    (place / "drivers_config.h").write_text("\n".join(drivers))


def modules(out: Path, image: str) -> str:
    """The manifest of what the modules have, on top of the skeleton."""
    say("Modules:")
    manifest = "[manifest]\n/etc/fstab: fstab\n/etc/mnttab: ->/proc/mounts\n/tmp: ../../modules\n"
    (out / "fstab").write_text("none /dev devfs defaults 0 0\n")
    if Path("images", f"{image}.py").exists():
        return manifest
    for name in (module.split(".")[0] for module in image.split(",")):
        place = next((Path(top, name) for top in ("apps", "modules") if Path(top, name).is_dir()), None)
        if place is None:
            say(
                "Traceback (most recent call last):",
                f"Exception: Module not found: {name}. Please check configuration: {Path.cwd()}/config.json",
            )
            trapped("scripts/module.py build")
        say(f"Importing {place}/module.py")
        recipe = place / "usr.manifest"
        manifest += recipe.read_text().replace("${MODULE_DIR}", str(place.absolute())) if recipe.exists() else ""
        # Modules leave what they make beside their sources.
        (place / "made").write_text(name)
    return manifest


def kernel_digest(out: Path, given: dict[str, str], manifest: str, fs: str) -> bytes:
    told = {name: value for name, value in given.items() if name.startswith(("conf_", "app_"))}
    sources = sorted(Path("core").glob("*.cc"))
    config = (out / ".config").read_text() if (out / ".config").exists() else ""
    everything = [config, json.dumps(told, sort_keys=True), *(source.read_text() for source in sources)]
    return hashlib.sha256("\0".join([*everything, manifest if fs == "ramfs" else ""]).encode()).hexdigest().encode()


def files(out: Path, manifest: str) -> FileTree:
    """A manifest as OSv's scripts read it, without their patterns."""
    entries: dict[str, str] = {}
    for line in manifest.splitlines():
        if line.strip() and line.strip() != "[manifest]" and not line.startswith("#"):
            guest, host = line.split(": ", 2)[:2]
            entries[guest.strip()] = (host.strip() % {"libgcc_s_dir": "/lib"}).replace("\0", "")
    builder = TreeBuilder()
    for guest, host in entries.items():
        if host.startswith("->"):
            builder.add_symlink(guest.encode(), host[2:].encode(), origin="manifest")
            say(f"Link {guest} to {host[2:]}")
            continue
        path = Path(host) if host.startswith("/") else out / host
        if path.is_dir():
            builder.add_directory(guest.encode(), origin="manifest")
        elif not guest.endswith("-stripped.so"):
            builder.add_content(guest.encode(), path.read_bytes(), origin="manifest")
            say(f"Adding {guest}")
    return builder.tree()


def export(tree: FileTree, to: Path) -> None:
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir()
    for path, entry in tree.entries.items():
        place = to / path.decode().lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if (content := getattr(entry, "content", None)) is not None:
            place.write_bytes(content)
        elif (target := getattr(entry, "target", None)) is not None:
            place.symlink_to(target.decode())
        else:
            place.mkdir(exist_ok=True)


def make_disk(fs: str, kernel: bytes, tree: FileTree, size: int, *, finished: bool) -> tuple[bytearray, int]:
    """The disk's content from its start, and its size."""
    start = -(-len(kernel) // (2 * MIB)) * 2 * MIB
    disk = bytearray(kernel.ljust(start, b"\0"))

    def partition(slot: int, begin: int, length: int) -> None:
        entry = with_partition(bytes(512), Extent(begin, begin + length))[0x1CE:0x1DE]
        at = 0x1BE + 16 * (slot - 1)
        disk[at : at + 16] = entry

    def zfs(length: int) -> bytes:
        say("OSv v0.57.0-0-gfake", "Cmdline: /tools/mkfs.so", "Running mkfs...", "Waiting for connection from host...")
        say(*(f"Adding {path.decode()}..." for path, _ in tree.files()), *(["cpiod finished"] if finished else []))
        return (bytes(128 * 1024) + struct.pack("<Q", 0x00BAB10C) + repr(sorted(tree.entries)).encode()).ljust(
            MIB, b"\0"
        )

    match fs:
        case "rofs" | "rofs_with_zfs":
            rofs = bytearray()
            layout = lay_out(tree)

            write_rofs(layout, rofs.extend)
            disk += rofs
            partition(2, start, len(rofs))
            if fs == "rofs_with_zfs":
                size += len(rofs)
                rest = size - start - len(rofs)
                partition(3, start + len(rofs), rest // 512 * 512)
                disk += zfs(rest)
        case "zfs":
            partition(2, start, size - start)
            disk += zfs(size - start)
        case "ext":
            superblock = bytearray(1024)
            struct.pack_into("<I", superblock, 0, 1000)
            struct.pack_into("<I", superblock, 16, 1000 - 11 - len(tree.entries))
            struct.pack_into("<H", superblock, 56, 0xEF53)
            length = (size - start) // MIB * MIB
            partition(2, start, length)
            disk += bytes(1024) + superblock
        case _:
            partition(2, start, 0)
            size = start
    return disk, max(size, len(disk))


if __name__ == "__main__":
    assert isinstance(sys.stdout, io.TextIOWrapper)
    sys.stdout.reconfigure(line_buffering=True)
    main()
