"""An OSv source tree as it stands on this machine: what it is, what it can build, and whether it changed.

Looked at with git and by reading a few files; nothing of the tree is run here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from osvdeploy.build.statcache import StatCache
from osvdeploy.context import Context
from osvdeploy.digests import Digest, digest_of
from osvdeploy.errors import TreeInvalid
from osvdeploy.osv.filetree import HostFile, show, stamp_of

ARCH = "x64"
"""scripts/build's word for x86_64, the one architecture of which it makes disks that boot by themselves."""

_GIT_TIMEOUT = 60.0
"""Seconds for one look by git. A tree of OSv takes 0.03 when it was looked at before, 0.5 when it was not."""

_OUTPUT = frozenset({b"build", b"build.out", b".git"})
"""What a build writes beside the sources, at the top of a tree."""

_CONFIG = re.compile(r"^\s*config\s+(\S+)\s*$(.*?)(?=^\s*config\s|\Z)", re.M | re.S)
_TYPE = re.compile(r"^\s*(?:def_)?(bool|string|int|hex)\b", re.M)


class KconfigType:
    """The types of OSv's Kconfig, as they are spelled there."""

    BOOL, STRING, INT, HEX = "bool", "string", "int", "hex"


@dataclass(frozen=True, slots=True)
class TreeState:
    """What a tree's sources are: a commit, and what differs from it.

    ``changed`` are tracked paths, ``untracked`` others that git does not ignore; each with a digest of what is there.
    A tree that is no git checkout has no commit, and each of its files is in ``untracked``, by its stamp.
    """

    commit: str | None
    changed: Mapping[bytes, str] = field(default_factory=dict)
    untracked: Mapping[bytes, str] = field(default_factory=dict)

    @property
    def digest(self) -> Digest:
        return digest_of(
            {
                "changed": {show(path): what for path, what in self.changed.items()},
                "commit": self.commit or "",
                "untracked": {show(path): what for path, what in self.untracked.items()},
            }
        )


@dataclass(frozen=True)
class OsvTree:
    """A directory with OSv's sources. What it says of itself is read when it is asked for."""

    path: Path

    @property
    def output(self) -> Path:
        return self.path / "build"

    @cached_property
    def has_kconfig(self) -> bool:
        """Whether kernel options are Kconfig's (OSv since 2024-11). Before, they were variables of make."""
        return (self.path / "conf" / "kconfig").is_dir()

    @cached_property
    def kconfig(self) -> Mapping[str, str]:
        """The options of Kconfig without their ``conf_``, and the type of each."""
        found: dict[str, str] = {}
        files = sorted((self.path / "conf" / "kconfig").glob("*"))
        for file in [*files, self.path / "conf" / "profiles" / ARCH / "kconfig"]:
            for name, body in _CONFIG.findall(text_of(file)):
                kind = _TYPE.search(body)
                found[name] = kind[1] if kind else KconfigType.BOOL
        return found

    @cached_property
    def makefiles(self) -> str:
        """The text of everything that reads make variables for the kernel."""
        files = [self.path / "Makefile", *sorted((self.path / "conf").glob("*.mk"))]
        files += sorted((self.path / "conf" / "profiles" / ARCH).glob("*.mk"))
        return "\n".join(text_of(file) for file in files)

    @cached_property
    def profiles(self) -> tuple[str, ...]:
        """The drivers profiles that can be chosen."""
        return tuple(sorted(file.stem for file in (self.path / "conf" / "profiles" / ARCH).glob("*.mk")))

    @cached_property
    def modules(self) -> Mapping[str, Path]:
        """Modules and apps by name, found where scripts/osv/modules/resolve.py looks: config.json names the places."""
        found: dict[str, Path] = {}
        try:
            table = json.loads(text_of(self.path / "config.json"))["modules"]
            places = [self._expanded(place) for place in table.get("repositories", ())]
            named = {name: self._expanded(each["path"]) for name, each in table.items() if isinstance(each, dict)}
        except (ValueError, KeyError, TypeError, AttributeError):
            places, named = [self.path / "apps", self.path / "modules"], {}
        for place in places:
            if place.is_dir():
                for entry in place.iterdir():
                    if entry.is_dir():
                        found.setdefault(entry.name, entry)
        return found | named

    @cached_property
    def images(self) -> tuple[str, ...]:
        """Names that mean a whole configuration, images/NAME.py."""
        return tuple(sorted(file.stem for file in (self.path / "images").glob("*.py")))

    def missing_submodules(self) -> list[str]:
        """Submodules that every kernel is built of and that are not there."""
        needed = ["kbuild"] if self.has_kconfig else []
        needed.append(f"external/{ARCH}/acpica")
        try:
            needed.append(str((self.path / "musl").readlink()))
        except OSError:
            needed.append("musl")
        declared = text_of(self.path / ".gitmodules")
        return [
            name
            for name in needed
            if re.search(rf"^\s*path\s*=\s*{re.escape(name)}\s*$", declared, re.M)
            and not any((self.path / name).glob("*"))
        ]

    def state(self, ctx: Context, stats: StatCache) -> TreeState:
        """What the sources are now. Raises TreeInvalid where git refuses to look."""
        top = os.fsencode(self.path)
        if not (self.path / ".git").exists():
            return TreeState(None, {}, dict(_stamps(top)))
        changed: dict[bytes, str] = {}
        untracked: dict[bytes, str] = {}
        _look(ctx, stats, top, b"", changed, untracked)
        return TreeState(_git(self.path, "rev-parse", "HEAD").decode().strip(), changed, untracked)

    def moved(self, pinned: str, commit: str) -> str:
        """How ``commit`` stands to ``pinned``, for people."""
        if self._is_ancestor(pinned, commit):
            count = _git(self.path, "rev-list", "--count", f"{pinned}..{commit}").decode().strip()
            return f"the tree moved on by {count} commit{'' if count == '1' else 's'}"
        if self._is_ancestor(commit, pinned):
            return "the tree is behind: the lock names a later commit"
        return "the two are on different branches, or the tree has not fetched the pinned one"

    def describe(self) -> str:
        """The version that its kernels will tell (git describe); empty where there is none."""
        try:
            return _git(self.path, "describe", "--tags", "--match", "v[0-9]*").decode().strip()
        except TreeInvalid:
            return ""

    def _is_ancestor(self, one: str, other: str) -> bool:
        try:
            _git(self.path, "merge-base", "--is-ancestor", one, other)
        except TreeInvalid:
            return False
        return True

    def _expanded(self, path: str) -> Path:
        return self.path / path.replace("${OSV_BASE}", str(self.path)).replace("$OSV_BASE", str(self.path))


def open_tree(path: Path, *, named: str) -> OsvTree:
    """The tree at ``path``, which the spec names ``named``. Raises TreeInvalid for a directory that is none."""
    if not path.is_dir():
        what = "not a directory" if path.exists() else "no such directory"
        raise TreeInvalid(f"kernel.tree: {named}: {what}", hint="the path is relative to the spec")
    path = path.resolve()
    for needed in ("scripts/build", "scripts/module.py", "Makefile", "conf/base.mk"):
        if not (path / needed).is_file():
            raise TreeInvalid(
                f"kernel.tree: {named}: not an OSv source tree: it has no {needed}",
                hint="name the top of a checkout of cloudius-systems/osv",
            )
    if re.search(r"\s", str(path)):
        # conf/Makefile and scripts/build split every path at white space.
        raise TreeInvalid(f"kernel.tree: {path}: OSv's build does not work in a path with spaces")
    tree = OsvTree(path)
    if missing := tree.missing_submodules():
        raise TreeInvalid(
            f"kernel.tree: {named}: submodule {missing[0]} is not there",
            hint=f"git -C {named} submodule update --init --recursive",
        )
    return tree


def clean_environment() -> dict[str, str]:
    """What a build may know of its caller: where programs, home, scratch space and the network's proxies are.

    Anything else could change what is built (MAKEFLAGS, CFLAGS, GIT_DIR, ARCH), or how it is told (LC_ALL).
    """
    kept = {"PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "SSL_CERT_FILE", "JAVA_HOME", "CCACHE_DIR"}
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in kept or name.lower() in {"http_proxy", "https_proxy", "no_proxy", "ftp_proxy", "all_proxy"}
    }
    return environment | {"LC_ALL": "C.UTF-8", "TZ": "UTC", "TERM": "dumb"}


def _look(
    ctx: Context,
    stats: StatCache,
    top: bytes,
    prefix: bytes,
    changed: dict[bytes, str],
    untracked: dict[bytes, str],
) -> None:
    """What git says of a checkout, and of the submodules in it that it says something of."""
    here = os.path.join(top, prefix)  # noqa: PTH118 (names are bytes)
    said = _git(
        Path(os.fsdecode(here)),
        "status", "--porcelain=v2", "-z", "--untracked-files=all", "--ignore-submodules=none", "--no-renames",
    )  # fmt: skip
    for line in said.split(b"\0"):
        kind, _, rest = line.partition(b" ")
        if kind == b"?":
            if not _is_output(prefix + rest):
                untracked[prefix + rest] = _content(ctx, stats, top, prefix + rest)
        elif kind in (b"1", b"u"):
            fields = rest.split(b" ", 7 if kind == b"1" else 9)
            path = prefix + fields[-1]
            if fields[1].startswith(b"S"):
                inside = Path(os.fsdecode(os.path.join(top, path)))  # noqa: PTH118 (names are bytes)
                try:
                    changed[path] = _git(inside, "rev-parse", "HEAD").decode().strip()
                    _look(ctx, stats, top, path + b"/", changed, untracked)
                except TreeInvalid:
                    changed[path] = "cannot be looked at"
            else:
                changed[path] = _content(ctx, stats, top, path)


def _content(ctx: Context, stats: StatCache, top: bytes, path: bytes) -> str:
    full = os.path.join(top, path)  # noqa: PTH118 (names are bytes)
    try:
        status = os.lstat(full)
    except OSError:
        return "deleted"
    if stat.S_ISLNK(status.st_mode):
        return "link to " + show(os.readlink(full))  # noqa: PTH115 (names are bytes)
    if not stat.S_ISREG(status.st_mode):
        return "special"  # an untracked checkout within the tree, a socket: nothing that a build reads
    executable = "x" if status.st_mode & 0o111 else "-"
    return f"{executable} {stats.digest(ctx, HostFile(full, stamp_of(status)))}"


def _stamps(top: bytes) -> Iterator[tuple[bytes, str]]:
    pending = [b""]
    while pending:
        prefix = pending.pop()
        try:
            entries = sorted(os.scandir(os.path.join(top, prefix)), key=lambda entry: entry.name)  # noqa: PTH118 (names are bytes)
        except OSError:
            continue
        for entry in entries:
            path = prefix + entry.name
            if _is_output(path):
                continue
            if entry.is_dir(follow_symlinks=False):
                pending.append(path + b"/")
            elif entry.is_symlink():
                yield path, "link to " + show(os.readlink(entry.path))  # noqa: PTH115 (names are bytes)
            else:
                stamp = stamp_of(entry.stat(follow_symlinks=False))
                yield path, f"{stamp.inode} {stamp.size} {stamp.modified} {stamp.changed}"


def _is_output(path: bytes) -> bool:
    return path.split(b"/", 1)[0] in _OUTPUT or path.endswith(b".pyc")


def _git(directory: Path, *arguments: str) -> bytes:
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-c", "core.quotePath=false", *arguments],
            cwd=directory,
            env=clean_environment() | {"GIT_TERMINAL_PROMPT": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_GIT_TIMEOUT,
        )
    except FileNotFoundError:
        raise TreeInvalid(
            "git: not found; it tells what state a source tree is in", hint="install git, or put it on PATH"
        ) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TreeInvalid(f"{directory}: git {arguments[0]} could not be run: {error}") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        hint = None
        if any("dubious ownership" in line for line in said):
            hint = f"the tree is another user's; if you trust it: git config --global --add safe.directory {directory}"
        raise TreeInvalid(f"{directory}: git {arguments[0]} refused: {said[0] if said else done.returncode}", hint=hint)
    return done.stdout


def text_of(file: Path) -> str:
    """What stands in a file of a tree; nothing where there is none."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def digest_of_file(path: Path) -> Digest:
    """sha256 of a file, read in pieces. Raises OSError."""
    with path.open("rb") as file:
        return Digest(hashlib.file_digest(file, "sha256").hexdigest())
