"""What the log of a build that failed means: which of the known failures it is, and what to do about it.

``scripts/build`` ends with status 0 on most failures: its ERR trap prints, and the shell then exits with the status of
that print. And the trap is not inherited by the shell functions that make disks, so a step in one of them may fail
without a word of scripts/build's. So the log is judged, then what was made; the status least.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from osvdeploy.errors import TreeBuildFailed

_TOLD = 12
"""Lines of the log in an error."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure that is understood: a word for programs, a sentence for people, and its cure."""

    reason: str
    message: str
    hint: str | None


@dataclass(frozen=True, slots=True)
class _Known:
    reason: str
    pattern: re.Pattern[str]
    message: str
    hint: str | None


def _known(reason: str, pattern: str, message: str, hint: str | None) -> _Known:
    return _Known(reason, re.compile(pattern), message, hint)


_SUBMODULES = "git submodule update --init --recursive, in the tree"
_TOOLS = "install it (scripts/setup.py in the tree lists what OSv needs), or put it on PATH"
_JOBS = "give it more memory, or fewer compilers at once: jobs = 1 under [kernel]"

# In the order of what explains most: one cause leaves several lines.
_FAILURES = (
    _known("disk-full", r"No space left on device|Disk quota exceeded", "the disk is full", "make room, then build"),
    _known(
        "memory",
        r"Killed signal terminated program|(fatal|internal compiler) error: Killed|virtual memory exhausted"
        r"|(cc1plus|cc1|ld|as): out of memory|Cannot allocate memory|g?cc: .*\bKilled",
        "the compiler ran out of memory and was killed",
        _JOBS,
    ),
    _known(
        "module",
        r"Module not found: (?P<name>[^ ]+?)\.? Please",
        "module {name}: the tree has none of this name",
        "modules are the directories of apps/ and modules/ in the tree",
    ),
    _known(
        "module",
        r"(There is more than one module included that provides: .*|Recursive loading of .*|Desired to run .*"
        r"|Undefined variable: .*|Attempt to disable module .*)",
        "the modules do not go together: {0}",
        None,
    ),
    _known(
        "submodule",
        r"Missing (?P<name>\S+?)/? directory\. Please run",
        "submodule {name} is not there",
        _SUBMODULES,
    ),
    _known(
        "submodule",
        r"((?:kbuild|musl|external/x64/acpica|modules/open_zfs/openzfs)\S*): No such file or directory",
        "{0} is not there, of a submodule",
        _SUBMODULES,
    ),
    _known(
        "profile",
        r"unsupported drivers profile (?P<name>[^ .]+)",
        "drivers profile {name}: the tree has none of this name",
        "conf/profiles/x64 in the tree lists them; set conf_drivers_profile under [kernel] options",
    ),
    _known(
        "config",
        r"(\.config:\d+:.*|Missing configuration file .*|Restart config.*|kconfig[^:\s]*:\d+: .*)",
        "its .config was rejected: {0}",
        "see [kernel] options, and conf/kconfig in the tree",
    ),
    _known(
        "compiler",
        r"(Could not find standard C\+\+ headers|lib[\w+]+\.a needs to be installed|cannot execute .?cc1\w*)",
        "the compiler is not whole: {0}",
        _TOOLS,
    ),
    _known("tool", r"'(?P<name>qemu-system-[\w-]+)' binary not found", "{name}: not found; it fills ZFS", _TOOLS),
    _known(
        "tool",
        r"(?:^|: )(?:line )?(?:\d+: )?(?P<name>[\w+./-]+): (?:command not found|not found|Command not found)$",
        "{name}: not found",
        _TOOLS,
    ),
    _known(
        "tool",
        r"^make(?:\[\d+\])?: (?P<name>[\w+.-]+): (?:No such file or directory|Permission denied)$",
        "{name}: not found",
        _TOOLS,
    ),
    _known(
        "tool",
        r"FileNotFoundError: .*: '(?P<name>qemu-[\w-]+|strip|objcopy|mvn|javac|cmake|go|cargo|wget|curl|git)'$",
        "{name}: not found",
        _TOOLS,
    ),
    _known(
        "network",
        r"(Could not resolve host|unable to access '[^']*'|Temporary failure in name resolution"
        r"|wget: unable to resolve|curl: \(\d+\) .*)",
        "a module could not fetch what it is made of: {0}",
        "let the build reach the network (http_proxy and https_proxy are passed on), or fetch it beforehand",
    ),
    _known(
        "builder-port",
        r"(Could not set up host forwarding rule.*|[Aa]ddress already in use.*)",
        "the VM that fills the file system found its port taken: {0}",
        "build again: it draws another port",
    ),
    _known(
        "builder-vm",
        r"(Could not access KVM.*|failed to initialize kvm.*|kvm_buf_set_msrs.*|qemu failed\.|Upload failed\."
        r"|Timed out waiting for cpiod.*|ERROR: file upload failed:?"
        r"|Connection(?:Reset|Aborted)Error.*|BrokenPipeError.*)",
        "the VM that fills ZFS failed: {0}",
        "its console is in the log; is there room for 512 MiB of memory?",
    ),
    _known(
        "root",
        r"((?:sudo|mkfs\.ext4|losetup|mount|modprobe): .*)",
        "ext is made with root's tools and a loop device: {0}",
        "build as root, or as a user whose sudo asks no password; fs = rofs, zfs and ramfs need neither",
    ),
    _known("compile", r"^(?P<where>[\w./+-]+:\d+)(?::\d+)?: (?:fatal )?error: (?P<told>.*)$", "{where}: {told}", None),
    _known(
        "link",
        r"(?P<told>undefined reference to .*|multiple definition of .*|ld(?:\.bfd|\.gold)?: error: .*)",
        "{told}",
        None,
    ),
    _known(
        "files",
        r"(?P<told>(?:FileNotFound|UnicodeDecode|Value|Key|Index|Permission)Error: .*)",
        "its scripts failed: {told}",
        None,
    ),
)

_TRAPPED = re.compile(r"(?:^|/)scripts/build failed: (?P<command>.*)$")
_MAKE = re.compile(r"^make(?:\[\d+\])?: \*\*\* (?P<told>.*)$")
_GAVE_UP = re.compile(r"Exiting from build script$|did not leave expected results$|^Unknown filesystem ")

_SILENT = re.compile(
    r"^(?:Upload failed\.|ERROR: file upload failed.*|qemu failed\.|Timed out waiting for cpiod.*"
    r"|Traceback \(most recent call last\):|\[ERR\] unable to export .*|sudo: .*|mkfs\.ext4: .*|losetup: .*"
    r"|mount: .*|dd: .*|cp: .*|qemu-img: .*|qemu-system-\S+: (?!warning|terminating).*|.*command not found)$"
)
"""Lines that scripts/build passes over, and after which no image can be believed."""


def ended_badly(lines: Iterable[str], status: int) -> str | None:
    """What says that a build failed; None where nothing does (which does not mean that it made anything)."""
    for line in lines:
        if trapped := _TRAPPED.search(line):
            return f"scripts/build stopped at: {trapped['command']}"
        if made := _MAKE.search(line):
            return f"make stopped: {made['told']}"
        if _GAVE_UP.search(line) or _SILENT.search(line):
            return line.strip()
    return f"scripts/build ended with status {status}" if status else None


def explain(lines: Sequence[str]) -> Failure | None:
    """The known failure that a log tells of."""
    for known in _FAILURES:
        for line in lines:
            if found := known.pattern.search(line):
                groups = {name: value for name, value in found.groupdict().items() if value is not None}
                first = found[1] if found.re.groups else found[0]
                return Failure(known.reason, known.message.format(first, **groups), known.hint)
    return None


def failed(log: Path, lines: Sequence[str], *, what: str, because: str) -> TreeBuildFailed:
    """The error for a build that failed: ``because`` is what says so, ``what`` names the tree."""
    failure = explain(lines)
    message = f"{what}: {failure.message}" if failure else f"{what}: {because}"
    if told := _last_words(lines):
        message += "\n" + "\n".join(f"  | {line}" for line in told)
    message += f"\nthe whole log: {log}"
    reason = failure.reason if failure else "unknown"
    return TreeBuildFailed(message, reason=reason, log=str(log), hint=failure.hint if failure else None)


def _last_words(lines: Sequence[str]) -> list[str]:
    """The lines that tell what went wrong: from the first that any pattern knows, else the last ones."""
    bad: Callable[[str], object] = lambda line: (  # noqa: E731 (short, and used in one place)
        any(known.pattern.search(line) for known in _FAILURES) or _TRAPPED.search(line) or _SILENT.search(line)
    )
    kept = [line for line in lines if line.strip()]
    first = next((at for at, line in enumerate(kept) if bad(line)), max(0, len(kept) - _TOLD))
    # A traceback's or compiler's lines around it belong to it.
    return [line[:300] for line in kept[max(0, first - 2) : first - 2 + _TOLD if first >= 2 else _TOLD]]
