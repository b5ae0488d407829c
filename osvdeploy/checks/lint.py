"""Is it fit for production: what boots and runs, and still should not be served like that.

Pure. Warnings all, but for private keys and a cloud's credentials: those are known to be wrong in any image, which
others can copy from the moment it is made.

Sources are OSv's own files; each finding names its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from osvdeploy.checks.finding import Finding, Severity
from osvdeploy.osv.cmdline import BootCommand
from osvdeploy.osv.filetree import Directory, Entry, FileTree, show
from osvdeploy.osv.kernel_facts import Driver, KernelFacts

RULES: Final[Mapping[str, str]] = {
    "bare-root": "Directories that OSv mounts something on are not in the image, or no /etc/fstab says to.",
    "command-line-shell": "A command-line shell is in the image.",
    "debug-kernel": "The kernel is a debug build.",
    "gate-source": "What a gate is read from cannot be asked from this machine.",
    "hook-program": "The program of a hook cannot be run on this machine.",
    "mount-point": "Something is to be mounted on a directory that the image does not have.",
    "no-power-off-on-abort": "After a crash the machine stays up and does nothing.",
    "read-only-path": "A directory that programs write to is in the image, where nothing can be written.",
    "rest-api": "OSv's REST API is in the image, which asks nobody who they are",
    "secret-file-name": "A file whose name is that of secrets.",
    "secret-in-env": "A variable of the spec holds a secret.",
    "secret-in-file": "A file holds a secret, by its content.",
    "vga-console": "The console goes to a screen that nobody sees, which costs time at each boot.",
}
"""Each rule's name and what it says, in a line."""

CERTAIN: Final = frozenset({"Private Key", "AWS Access Key", "Azure Storage Account access key"})
"""Kinds of secrets, in detect-secrets' words, that refuse."""

_SHOWN: Final = 5
"""Files named in one finding."""

_SHELLS = {b"/cli": b"/cli", b"/tools/uush.so": b"/tools/uush.so", b"/cli-app": b"/cli"}
_REST = (b"/libhttpserver-api.so", b"/usr/lib/libhttpserver-api.so", b"/usr/mgmt/api")
_WRITTEN = (b"/run", b"/var/cache", b"/var/lib", b"/var/log", b"/var/run", b"/var/spool", b"/var/tmp")
_MOUNTED = (b"/dev", b"/proc", b"/sys", b"/tmp")
_SECRET_NAMES = re.compile(
    rb"""
    \.env(\.(?!example$|sample$|template$|dist$)[^/]+)?
    | id_(rsa|dsa|ecdsa|ed25519)
    | \.npmrc | \.netrc | _netrc | \.pgpass | \.pypirc | \.git-credentials | \.htpasswd | \.dockercfg | \.vault-token
    | .*\.(kdbx|keystore|jks|p12|pfx|ppk|tfstate|tfvars)
    | terraform\.tfstate(\.backup)?
    | credentials\.json | service[-_]?account[^/]*\.json
    """,
    re.VERBOSE,
)
_SECRET_PATHS = re.compile(
    rb".*/(\.aws/credentials|\.docker/config\.json|\.kube/config|\.ssh/[^/]+(?<!\.pub)|\.git/config)"
)
_SECRET_VARIABLE = re.compile(
    r"(?i)(^|_)(password|passwd|pwd|secret|token|api_?key|private_?key|access_?key|credentials?)$"
)


@dataclass(frozen=True, slots=True)
class LintFacts:
    """What the rules look at. ``kernel`` is None where the payload is no OSv: rules about OSv are silent then.

    ``secrets`` are kinds and lines by guest path, ``variables`` the spec's own, by where they stand
    (``[image] env``), name and value; ``variable_secrets`` the kinds of secrets in their values, by the same two keys.
    ``fstab`` is the content of /etc/fstab, None where there is none.
    """

    kernel: KernelFacts | None
    boot: BootCommand
    tree: FileTree
    fs: str = "rofs"
    fstab: bytes | None = None
    secrets: Mapping[bytes, Sequence[tuple[str, int]]] = field(default_factory=dict)
    variables: Mapping[tuple[str, str], str] = field(default_factory=dict)
    variable_secrets: Mapping[tuple[str, str], Sequence[str]] = field(default_factory=dict)
    hooks: Sequence[tuple[str, str, str]] = ()
    """Those whose programs cannot be run here: where they stand, what is wrong, what to do."""
    gates: Sequence[tuple[str, str, str]] = ()
    """Those that cannot be read from here, told likewise."""


def lint(facts: LintFacts) -> list[Finding]:
    """All that the rules find."""
    found = [*_doors(facts), *_secret_files(facts), *_secret_variables(facts), *_elsewhere(facts)]
    if facts.kernel is not None and facts.kernel.version is not None:
        found += [*_kernel(facts.kernel, facts), *_mounts(facts), *_written(facts)]
    return found


def _elsewhere(facts: LintFacts) -> Iterator[Finding]:
    for subject, what, cure in facts.gates:
        why = "`osvdeploy deploy` refuses where a gate cannot be read, and this machine may not be the one"
        yield _warn("gate-source", subject, what, why, cure, "docs/gates.md")
    for subject, what, cure in facts.hooks:
        why = "`osvdeploy deploy` refuses where a hook's program cannot be run, and this machine may not be the one"
        yield _warn("hook-program", subject, what, why, cure, "docs/hooks.md")


def _warn(rule: str, subject: str, what: str, why: str, cure: str, source: str) -> Finding:
    return Finding(rule, Severity.WARNING, subject, what, why, cure, source)


# ------------------------------------------------------------------------------------------------------ doors


def _doors(facts: LintFacts) -> Iterator[Finding]:
    entries = facts.tree.entries
    program = facts.boot.words[0].lstrip("/").encode("utf-8", "surrogateescape") if facts.boot.words else b""
    shells = {shell for path, shell in _SHELLS.items() if path in entries or path.lstrip(b"/") == program}
    for shell in sorted(shells):
        yield _warn(
            "command-line-shell",
            show(shell),
            "OSv's command-line shell",
            "whoever reaches it can do everything that the guest can",
            "leave the modules cli and uush out of the image",
            "OSv: modules/cli, modules/uush",
        )
    rest = next((path for path in _REST if path in entries), None)
    started = next((word for word in facts.boot.words if "libhttpserver-api" in word), None)
    if rest is None and started is None:
        return
    words = facts.boot.words
    tls = "--ssl" in words
    everyone = any(word.startswith("--access-allow") and not word.endswith("=false") for word in words)
    if started is not None and tls and not everyone:
        return
    yield _warn(
        "rest-api",
        started or show(rest or b""),
        "OSv's REST API, which listens on port 8000 of every address without asking who is there"
        + (", and lets every web page call it" if everyone else ""),
        "in its full form it reads and writes files, starts programs and powers the machine off",
        "leave the module out, or let no security group reach port 8000; the full API takes --ssl, with certificates "
        "on both sides",
        "OSv: modules/httpserver-api, modules/httpserver-monitoring-api",
    )


# ----------------------------------------------------------------------------------------------------- secrets


def _secret_files(facts: LintFacts) -> Iterator[Finding]:
    where: dict[str, list[tuple[bytes, int]]] = {}
    for path, secrets in facts.secrets.items():
        for kind, line in secrets:
            where.setdefault(kind, []).append((path, line))
    for kind, places in where.items():
        path, line = places[0]
        others = [show(each) for each in dict.fromkeys(each for each, _ in places) if each != path]
        more = f"; so do {', '.join(others[:_SHOWN])}" if others else ""
        more += f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
        yield Finding(
            "secret-in-file",
            Severity.ERROR if kind in CERTAIN else Severity.WARNING,
            show(path),
            f"holds a secret ({kind}) in line {line}{more}",
            "an image is copied, shared and kept: who has it, has the secret",
            "leave it out with `exclude`, hand the secret over when the program starts, and make a new one where this "
            "one has left the house",
            "detect-secrets",
        )
    repositories: list[bytes] = []
    for path, entry in facts.tree.entries.items():
        name = path.rpartition(b"/")[2]
        if name == b".git":
            repositories.append(path + b"/")
        elif path.startswith(tuple(repositories)) or path in facts.secrets or not _is_secret_s(path, name, entry):
            continue
        yield _warn(
            "secret-file-name",
            show(path),
            "a repository with all its history" if name == b".git" else "its name is that of a file with secrets",
            "an image is copied, shared and kept, with everything in it",
            "leave it out with `exclude`, or waive this where it holds none",
            "the files' own conventions",
        )


def _is_secret_s(path: bytes, name: bytes, entry: Entry) -> bool:
    if isinstance(entry, Directory):
        return False
    return bool(_SECRET_NAMES.fullmatch(name) or _SECRET_PATHS.fullmatch(path))


def _secret_variables(facts: LintFacts) -> Iterator[Finding]:
    for key, value in facts.variables.items():
        place, name = key
        kinds = facts.variable_secrets.get(key, ())
        if not kinds and not (value and _SECRET_VARIABLE.search(name)):
            continue
        yield Finding(
            "secret-in-env",
            Severity.ERROR if CERTAIN & set(kinds) else Severity.WARNING,
            f"{place} {name}",
            f"its value is a secret ({', '.join(kinds)})" if kinds else "its name is that of a secret",
            "variables stand in clear on the image's disk and in its console, and the spec in its repository",
            "let the program fetch it when it starts, from a store of secrets",
            "OSv prints its command line at boot (loader.cc)" if not kinds else "detect-secrets",
        )


# ------------------------------------------------------------------------------------------------------- kernel


def _kernel(kernel: KernelFacts, facts: LintFacts) -> Iterator[Finding]:
    options = dict(facts.boot.options)
    if kernel.debug:
        yield _warn(
            "debug-kernel",
            f"kernel {kernel.version}",
            "is a debug build",
            "it is several times slower, and larger",
            "build it with mode=release",
            "OSv: scripts/build",
        )
    if "power-off-on-abort" not in options and "power-off-on-abort" in (kernel.boot_options or ()):
        yield _warn(
            "no-power-off-on-abort",
            "[image.boot]",
            "does not set power-off-on-abort",
            "after a crash OSv halts: the machine stays `running` with a dead program, and nothing starts another",
            "set power-off-on-abort = true under [image.boot]",
            "OSv: runtime.cc, loader.cc",
        )
    if Driver.VGA in (kernel.drivers or ()) and options.get("console") != "serial":
        yield _warn(
            "vga-console",
            "[image.boot]",
            f"console is {options.get('console') or 'all, as it is when left out'}, and this kernel drives a screen",
            "setting the screen up takes 60 to 70 ms of each boot, and nobody sees it",
            'set console = "serial" under [image.boot]',
            "OSv issue 987",
        )


# ------------------------------------------------------------------------------------------------------- mounts


def _targets(facts: LintFacts) -> Iterator[tuple[str, bytes]]:
    """What is mounted after the root: where it is said, and on what."""
    for name, value in facts.boot.options:
        if name == "mount-fs" and value is not None and value.count(",") >= 2:
            yield "mount-fs", value.split(",", 2)[2].encode("utf-8", "surrogateescape")
    for line in (facts.fstab or b"").splitlines():
        fields = line.split()
        if len(fields) >= 3 and not fields[0].startswith(b"#") and fields[1] != b"/":
            yield "/etc/fstab", fields[1]


def _mounts(facts: LintFacts) -> Iterator[Finding]:
    if not facts.fs.startswith("rofs"):
        return
    entries = facts.tree.entries
    for where, target in _targets(facts):
        if not isinstance(entries.get(b"/" + target.strip(b"/")), Directory):
            yield _warn(
                "mount-point",
                f"{where} {show(target)}",
                "is no directory of the image",
                "ROFS is read-only, so OSv cannot make it, and goes on without the mount",
                "put an empty directory there with [[files]]",
                "OSv: fs/vfs/main.cc",
            )
    lacking = [path for path in _MOUNTED if not isinstance(entries.get(path), Directory)]
    if facts.fstab is None or lacking:
        what = [show(path) for path in lacking] + (["/etc/fstab"] if facts.fstab is None else [])
        yield _warn(
            "bare-root",
            "image",
            f"has no {', '.join(what)}",
            "the program finds no devices, no /proc and no /tmp to write to; one that needs none of them does without",
            "leave these paths to osvdeploy, which brings what no [[files]] do; or put directories there, and an "
            "/etc/fstab as OSv's static/etc/fstab_rofs",
            "OSv: usr_rofs.manifest.skel, fs/vfs/main.cc",
        )


def _written(facts: LintFacts) -> Iterator[Finding]:
    if not facts.fs.startswith("rofs"):
        return
    mounted = [target.rstrip(b"/") for _, target in _targets(facts)]
    for path in _WRITTEN:
        if path in facts.tree.entries and not any(path == each or path.startswith(each + b"/") for each in mounted):
            yield _warn(
                "read-only-path",
                show(path),
                "is in the image, where nothing can be written, and nothing is mounted on it",
                "a program that logs or keeps its state there fails when it first writes",
                f'mount memory on it: mount-fs = "ramfs,none,{show(path)}" under [image.boot]',
                "OSv: fs/rofs/rofs_vnops.cc",
            )
