"""Stands in for qemu-system-x86_64 where OSv's scripts start the machine that fills ZFS.

    python vm.py QEMU kvm|tcg ARGUMENTS...

Three things of theirs fail by chance, or always, on machines that are slow, shared or without KVM:

- run.py asks for KVM wherever /dev/kvm exists, usable or not: with ``tcg`` the request is taken out;
- it has a debugger's server listen on port 1234, which another machine may have: taken out too;
- upload_manifest.py connects as soon as QEMU listens, and loses its connection for good when the guest's network is up
  before its program listens, which makes a file system first: the port is opened when the guest says that it waits.

A program of its own; it imports nothing of osvdeploy.
"""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator

READY = b"Waiting for connection from host"
_FORWARD = re.compile(r",hostfwd=(tcp:[^,]+)")


def changed(arguments: list[str], *, kvm: bool) -> tuple[list[str], str | None]:
    """The arguments for this machine, and the rule of the port that is to be opened later."""
    kept: list[str] = []
    rule = None
    given = iter(arguments)
    for argument in given:
        if argument == "-gdb":
            next(given, None)
        elif argument == "-enable-kvm" and not kvm:
            pass
        elif argument.split(",")[0] == "host" and kept[-1:] == ["-cpu"] and not kvm:
            kept.append("max")
        elif found := _FORWARD.search(argument):
            rule = found[1]
            kept.append(_FORWARD.sub("", argument))
        else:
            kept.append(argument)
    return kept, rule


def network(arguments: list[str]) -> str:
    """The id of the network that the port is to be opened on."""
    for argument in arguments:
        if argument.startswith("user,") and (found := re.search(r"\bid=([^,]+)", argument)):
            return found[1]
    return "un0"


def open_port(monitor: socket.socket, command: str) -> None:
    """Give QEMU's monitor one command, and wait for its next prompt."""
    monitor.settimeout(10)
    for said in (b"", command.encode() + b"\n"):
        monitor.sendall(said)
        answer = b""
        while not answer.rstrip().endswith(b"(qemu)"):
            if not (piece := monitor.recv(4096)):
                return
            answer += piece


def pieces(source: int) -> Iterator[bytes]:
    while piece := os.read(source, 65_536):
        yield piece


def main() -> int:
    qemu, accelerator, *arguments = sys.argv[1:]
    kept, rule = changed(arguments, kvm=accelerator == "kvm")
    if rule is None:
        os.execv(qemu, [qemu, *kept])
    # A socket without a name: a path may have 107 bytes, and would be left behind when this is killed.
    monitor, theirs = socket.socketpair()
    extra = ["-chardev", f"socket,id=osvd,fd={theirs.fileno()}", "-mon", "chardev=osvd,mode=readline"]
    machine = subprocess.Popen([qemu, *kept, *extra], stdout=subprocess.PIPE, pass_fds=[theirs.fileno()])
    theirs.close()
    assert machine.stdout is not None
    seen = b""
    for piece in pieces(machine.stdout.fileno()):
        os.write(1, piece)
        if rule is not None:
            seen = seen[-len(READY) :] + piece
            if READY in seen:
                open_port(monitor, f"hostfwd_add {network(kept)} {rule}")
                rule = None
    status = machine.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
