"""Runs one command, and ends it with all that it started when whoever asked for it is gone.

    python guard.py COMMAND...          exits with the command's status, or 128 + signal

Standard input is a pipe that the asking process holds open and never writes to: its end means that the process died,
however it died, or wants the command ended. This runs as a program of its own, at the head of a process group; make and
what make starts stay in that group. It imports nothing of osvdeploy.
"""

import os
import signal
import subprocess
import sys
import threading
import time

GRACE = 3.0
"""Seconds between SIGTERM, on which make removes half-made targets, and SIGKILL."""


def end_group() -> None:
    os.killpg(0, signal.SIGTERM)
    # A stopped process acts on SIGTERM only when it goes on.
    os.killpg(0, signal.SIGCONT)
    time.sleep(GRACE)
    os.killpg(0, signal.SIGKILL)


def watch() -> None:
    while os.read(0, 1):
        pass
    end_group()


def main() -> int:
    # A handler, not SIG_IGN, which the command would inherit.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    # The lock on the tree is open in every process of the group, so that it is free when the last of them has ended.
    held = [int(fd) for fd in os.environ.pop("OSVDEPLOY_GUARD_FDS", "").split()]
    threading.Thread(target=watch, daemon=True).start()
    try:
        command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, pass_fds=held)
    except OSError as error:
        print(f"{sys.argv[1]}: {error.strerror}", file=sys.stderr)
        return 127
    status = command.wait()
    # What the command left in the background is no part of what was asked for.
    os.killpg(0, signal.SIGTERM)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
