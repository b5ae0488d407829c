"""Runs one command, and ends it with all that it started when whoever asked for it is gone.

    python guard.py WATCHED HELD COMMAND...     exits with the command's status, or 128 + signal

WATCHED is the descriptor of a socket whose other end the asking process holds and never writes to: its end means that
the process died, however it died, or wants the command ended. Where the command cannot be started, the reason's number
(errno) is sent through it. HELD are descriptors of locks, separated by commas: they stay open here and in the command,
so that a lock is free when all of it has ended.

This runs as a program of its own, as the leader of a session; what the command starts stays in it. It imports nothing
of osvdeploy.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

GRACE = 3.0
"""Seconds between SIGTERM, on which make removes half-made targets, and SIGKILL."""

_LOOK = 0.02


def others() -> list[int]:
    """Who runs in this session beside us."""
    found = []
    with os.scandir("/proc") as entries:
        for entry in entries:
            if not entry.name.isdecimal() or int(entry.name) == os.getpid():
                continue
            try:
                with open(f"{entry.path}/stat", "rb") as file:  # noqa: PTH123 (pathlib's import takes as long as all else)
                    state, _, _, session = file.read().rpartition(b")")[2].split()[:4]
            except (OSError, ValueError):
                continue  # it has ended
            if int(session) == os.getsid(0) and state != b"Z":
                found.append(int(entry.name))
    return found


def signal_all(pids: list[int], *numbers: int) -> None:
    for pid in pids:
        for number in numbers:
            try:
                os.kill(pid, number)
            except OSError:
                pass  # it has ended, or became another user's


def end_others() -> None:
    """End what runs in this session, politely first."""
    # A stopped process acts on SIGTERM only when it goes on.
    signal_all(others(), signal.SIGTERM, signal.SIGCONT)
    begun = time.monotonic()
    while (left := others()) and (passed := time.monotonic() - begun) < 2 * GRACE:
        if passed > GRACE:
            signal_all(left, signal.SIGKILL)
        time.sleep(_LOOK)  # polled: they are no children of ours, to be waited for


def main() -> int:
    # Whoever ends this instead of the command would leave the command alone. A handler, not SIG_IGN, which the command
    # would inherit.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    watched = socket.socket(fileno=int(sys.argv[1]))
    held = [int(fd) for fd in sys.argv[2].split(",") if fd]
    ending = threading.Lock()

    def watch() -> None:
        watched.recv(1)
        with ending:
            end_others()

    threading.Thread(target=watch, daemon=True).start()
    try:
        command = subprocess.Popen(sys.argv[3:], pass_fds=held)
    except OSError as error:
        watched.send(str(error.errno).encode())
        return 127
    status = command.wait()
    # What the command left in the background is no part of what was asked for.
    with ending:
        end_others()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
