"""A qemu-system-x86_64 of our own: it keeps QEMU's contract with who starts it, and its guest is a script.

Checks the arguments it is given (known options, descriptors that are open and hold what they should, ports that it
binds as QEMU does), answers QMP, prints a console and ends as QEMU ends.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROGRAM = r"""
import json, os, signal, socket, struct, sys, time
script = json.loads(open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "script.json")).read())
with open(script["calls"], "a") as calls:
    calls.write(json.dumps({"pid": os.getpid(), "words": sys.argv[1:]}) + "\n")
if sys.argv[1:] == ["--version"]:
    print("QEMU emulator version " + script["version"])
    sys.exit(0)
if "isa-debug-exit,iobase=0x501,iosize=1" in sys.argv:
    print("qemu-system-x86_64: KVM is not for a fake", file=sys.stderr)
    sys.exit(1)
VALUED = {"-name", "-machine", "-cpu", "-m", "-smp", "-chardev", "-mon", "-serial", "-add-fd", "-blockdev", "-device",
          "-netdev", "-kernel", "-append", "-gdb", "-action", "-display", "-drive"}
FLAGS = {"-no-user-config", "-nodefaults", "-no-reboot", "-S"}
words, options = iter(sys.argv[1:]), []
def fail(message):
    print("qemu-system-x86_64: " + message, file=sys.stderr)
    sys.exit(1)
for word in words:
    if word not in VALUED | FLAGS or word in script["unknown"]:
        fail(word + ": invalid option")
    options.append((word, next(words) if word in VALUED else None))
def of(name):
    return [value for word, value in options if word == name]
if script["fails"]:
    fail(script["fails"])
sets = {}
for value in of("-add-fd"):
    parts = dict(part.split("=") for part in value.split(","))
    sets[parts["set"]] = int(parts["fd"])
(node,) = [json.loads(value) for value in of("-blockdev")]
layer = sets[node["file"]["filename"].rpartition("/")[2]]
below = sets[node["backing"]["file"]["filename"].rpartition("/")[2]]
header = os.pread(layer, 104, 0)
assert header[:4] == b"QFI\xfb" and struct.unpack_from(">I", header, 4) == (3,)
os.pwrite(layer, b"written by the guest", os.fstat(layer).st_size)
try:
    os.write(below, b"x")
    fail("the disk may be written to")
except OSError:
    pass
listening = []
for netdev in of("-netdev"):
    for rule in netdev.split(","):
        if rule.startswith("hostfwd="):
            _, host, port_, guest = rule.split(":")
            port = int(port_.rstrip("-"))
            try:
                bound = socket.create_server((host, port))
            except OSError:
                fail("-netdev " + netdev + ": Could not set up host forwarding rule '" + rule[8:] + "'")
            listening.append(bound)
(channel,) = [value.split(",") for value in of("-chardev") if value.startswith("socket")]
qmp = int(dict(part.split("=") for part in channel[1:])["fd"])
monitor = socket.socket(fileno=qmp)
say = lambda told: monitor.sendall(json.dumps(told).encode() + b"\r\n")
say({"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}}, "capabilities": []}})
def off(reason):
    say({"timestamp": {}, "event": "SHUTDOWN", "data": {"guest": reason.startswith("guest"), "reason": reason}})
    sys.exit(0)
signal.signal(signal.SIGTERM, lambda *_: off("host-signal"))
asked = b""
while b"qmp_capabilities" not in asked:
    asked += monitor.recv(4096)
say({"return": {}})
for line in script["noise"]:
    print(line, file=sys.stderr, flush=True)
for step in script["console"]:
    if isinstance(step, str):
        os.write(1, step.encode())
    else:
        time.sleep(step)  # as the script has it
if script["ends"] == "abort":
    os.abort()
if script["ends"] != "never":
    off(script["ends"])
rest = b""
while not script["deaf"]:
    piece = monitor.recv(4096)
    rest += piece
    if b'"quit"' in rest:
        say({"return": {}})
        off("host-qmp-quit")
    if not piece:
        time.sleep(60)  # QEMU goes on without its monitor
while True:
    time.sleep(60)  # until it is ended
"""

BOOT = "SeaBIOS\r\nOSv v0.57.0-1-gabcdef\r\neth0: 10.0.2.15\r\nBooted up in 1.00 ms\r\nCmdline: /hello\r\n"


@dataclass
class FakeQemu:
    """A folder for PATH. ``ends`` is QMP's reason for the end, "abort" for a crash of QEMU's, "never" for a guest that
    stays on; ``console`` is what the guest prints, numbers being seconds of silence; ``deaf``: quit is not obeyed."""

    folder: Path
    console: list[str | float] = field(default_factory=lambda: [BOOT, "hello\r\n"])
    ends: str = "guest-shutdown"
    deaf: bool = False
    fails: str = ""
    unknown: list[str] = field(default_factory=list)
    noise: list[str] = field(default_factory=list)
    version: str = "7.2.0 (fake)"

    def install(self) -> FakeQemu:
        self.folder.mkdir(exist_ok=True)
        script = {name: value for name, value in vars(self).items() if name != "folder"}
        (self.folder / "script.json").write_text(json.dumps({**script, "calls": str(self.calls_file)}))
        program = self.folder / "qemu-system-x86_64"
        program.write_text(f"#!{sys.executable} -IS\n{PROGRAM}")
        program.chmod(0o755)
        return self

    @property
    def calls_file(self) -> Path:
        return self.folder / "calls"

    def calls(self) -> list[dict[str, Any]]:
        """Each machine that was asked for: its pid and words. Versions asked and tries of KVM are left out."""
        lines = self.calls_file.read_text().splitlines() if self.calls_file.exists() else []
        found = [json.loads(line) for line in lines]
        return [call for call in found if "-blockdev" in call["words"]]

    def path(self) -> str:
        """PATH with this QEMU first."""
        return f"{self.folder}{os.pathsep}{os.environ.get('PATH', '')}"


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"


def small_disk(path: Path, line: bytes = b"/hello") -> Path:
    """A raw disk as far as running it looks: boot sector, a partition, a command line."""
    content = bytearray(2 << 20)
    content[510:512] = b"\x55\xaa"
    content[0x1CE:0x1DE] = bytes.fromhex("00820300838 63e00002000003701 0000".replace(" ", ""))
    content[512 : 512 + len(line)] = line
    path.write_bytes(content)
    return path
