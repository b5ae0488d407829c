"""Functions that OSv has in name only, or that do something else than they say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from osvdeploy.checks.fault import Fault
from osvdeploy.osv.filetree import show
from osvdeploy.osv.kernel_facts import KernelFacts

PROCESSES: Final[Mapping[bytes, str]] = {
    **dict.fromkeys((b"fork", b"vfork", b"daemon", b"system"), "failing with -1"),
    **dict.fromkeys((b"forkpty", b"execvp"), "failing with -1"),
    **dict.fromkeys((b"execve", b"execv", b"execl", b"execle"), "failing with ENOEXEC"),
    b"popen": "returning NULL",
    **dict.fromkeys(
        (b"posix_spawn", b"posix_spawnp", b"execvpe", b"execlp", b"fexecve"),
        "in no kernel up to v0.57.0-398: a call stops the guest",
    ),
}
"""How starting a process ends (runtime.cc, libc/process); where a kernel lacks the name, a call stops the guest."""

PRIVILEGES: Final[Mapping[bytes, str]] = {
    **dict.fromkeys(
        (b"setuid", b"setgid", b"seteuid", b"setegid", b"setfsuid", b"setfsgid"),
        "stopping the guest by an assertion for any id but 0",
    ),
    b"initgroups": "failing with -1",
    **dict.fromkeys(
        (b"setreuid", b"setregid", b"setresuid", b"setresgid"), "failing with EPERM for any id but 0 and -1"
    ),
}
"""How changing the user ends (libc/user.cc)."""

STUBS: Final[Mapping[bytes, str]] = {
    **dict.fromkeys((b"inotify_init", b"inotify_init1"), "failing with EMFILE: no file is watched"),
    **dict.fromkeys((b"inotify_add_watch", b"inotify_rm_watch"), "failing with EINVAL: no file is watched"),
    b"signalfd": "failing with ENOSYS",
    **dict.fromkeys((b"mkfifo", b"mkfifoat", b"fchmodat"), "failing with ENOSYS"),
    b"chroot": "failing with ENOSYS",
    b"sigsuspend": "stopping the guest",
    b"pthread_cancel": "failing with ESRCH: no thread is cancelled",
    b"openpty": "failing: there are no pseudo-terminals",
    b"sysctl": "failing with ENOTDIR",
    b"fpathconf": "failing with -1",
    **dict.fromkeys((b"mlock", b"mlockall"), "succeeding without doing anything"),
}
"""What links and does not do what it says (runtime.cc, libc/, fs/vfs/main.cc)."""


@dataclass(frozen=True, slots=True)
class Calls:
    """A family of functions that do not do what they say, and how each ends."""

    rule: str
    names: Mapping[bytes, str]
    why: str
    cure: str
    source: str

    def fault(self, kernel: KernelFacts | None, names: set[bytes]) -> Fault:
        ends: dict[str, list[bytes]] = {}
        for name in sorted(names):
            gone = kernel is not None and kernel.symbols and name not in kernel.symbols
            ends.setdefault("not in this kernel: a call stops the guest" if gone else self.names[name], []).append(name)
        told = "; ".join(f"{', '.join(map(show, group))} ({end})" for end, group in ends.items())
        return Fault(self.rule, f"imports {told}", self.why, self.cure, self.source)


CALLS: Final = (
    Calls(
        "starts-processes",
        PROCESSES,
        "OSv is one process: what a program leaves to another one (a shell, a worker, a helper) does not happen",
        "set the program to work in one process, with threads in place of workers; if it never starts one, waive this",
        "runtime.cc, libc/process; seen on v0.57.0-398",
    ),
    Calls(
        "drops-privileges",
        PRIVILEGES,
        "OSv has root alone; a server that changes to another user ends there",
        "set the program to stay root (no `user` or `group` in its configuration)",
        "libc/user.cc; seen on v0.57.0-398",
    ),
    Calls(
        "stubbed-calls",
        STUBS,
        "These link and do not do what they say; each prints `NAME() stubbed` or `not implemented` when first called",
        "turn off what needs them, or make sure that the program takes the failure",
        "runtime.cc, libc/, fs/vfs/main.cc",
    ),
)
"""Every family, in the order in which it is told."""
