"""What a requirements file asks for: itself, the files that it includes, and the wheels of this machine that it names.

Read as pip reads it (pip's _internal/req/req_file.py), and uv likewise: what a file includes (``-r``, ``-c``) is
relative to that file, a wheel to the directory that pip is called in, ``--find-links`` to either. That directory is the
one of the file that the spec names, wherever osvdeploy is called.

What is named by its place (a directory, an archive, an address, a repository) pip builds, though it is told to take
wheels alone: ``--only-binary`` is about what an index offers. So whatever is so named has to be a wheel. A
``--no-binary`` in a file takes precedence over what pip was told, so there is none of it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from osvdeploy.build.statcache import StatCache
from osvdeploy.context import Context
from osvdeploy.digests import Digest
from osvdeploy.errors import ProgramInvalid
from osvdeploy.osv.filetree import HostFile, show, stamp_of

_COMMENT = re.compile(r"(^|\s+)#.*$")
_VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")
_WHEEL = re.compile(r"(?:[^\s@]+\s*@\s*)?(?:file:(?://)?)?([^;#@:\[]+?\.whl)(?:\[[^\]]*\])?(?:[\s;#].*)?")
_NAMED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\s*(?:\[[^\]]*\])?\s*@\s*(.+)")
_ARCHIVE = re.compile(r"\.(zip|tar|tgz|tbz|txz|tlz|tar\.(gz|bz2|xz|lz|lzma))$", re.IGNORECASE)
_SCHEME = re.compile(r"(file|https?|ftp|[a-z]+\+[a-z]+):", re.IGNORECASE)
_EXTRAS = re.compile(r"\[[^\]]*\]$")
_OPTIONS = {
    "--requirem": ("--requirement", "-r"),
    "--cons": ("--constraint", "-r"),
    "--f": ("--find-links", "-f"),
    "--ed": ("--editable", "-e"),
    "--no-b": ("--no-binary", "--no-binary"),
}
"""By the least of its name by which pip knows each: the whole name, and what is done with it."""

_SHORT = {"-r": "-r", "-c": "-r", "-f": "-f", "-e": "-e"}
_NESTED = 20


@dataclass(frozen=True, slots=True)
class Asked:
    """``digest`` is over all of it; ``hashed``: whether the hash of any package stands in it, so that pip wants one of
    each."""

    digest: Digest
    hashed: bool


def asked_for(ctx: Context, path: Path, stats: StatCache) -> Asked:
    """What the file at ``path`` asks for. Raises ProgramInvalid for a file that is not there and for what would be
    built, SourceChanged."""
    reader = _Reader(ctx, path.parent, stats)
    reader.read(path, "check `requirements` under [[programs]]")
    return Asked(Digest(reader.digest.hexdigest()), reader.hashed)


@dataclass(slots=True)
class _Reader:
    """``directory`` is the one that pip is called in."""

    ctx: Context
    directory: Path
    stats: StatCache
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    hashed: bool = False
    seen: set[str] = field(default_factory=set)

    def read(self, path: Path, hint: str, depth: int = 0) -> None:
        if (known := os.path.abspath(path)) in self.seen or depth > _NESTED:  # noqa: PTH100 (links stay links)
            return
        self.seen.add(known)
        try:
            content = path.read_bytes()
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or "no name of a file"
            raise ProgramInvalid(f"{path}: cannot be read: {reason}", hint=hint) from None
        self.digest.update(len(content).to_bytes(8, "little") + content)
        for line in _lines(content.decode("utf-8-sig", "surrogateescape")):
            if _is_built(line):
                shown = show(os.fsencode(line))
                raise ProgramInvalid(
                    f"{path}: {shown}: would be built from its source, and osvdeploy takes wheels alone",
                    hint="make a wheel of it (pip wheel --no-deps -w . ...) and name that in its place",
                )
            self.hashed |= "--hash" in line
            if not line.startswith("-"):
                if match := _WHEEL.fullmatch(line):
                    self._take([self.directory / match[1].strip()])
                continue
            for option, value in _options(line):
                if "://" in value or option not in ("-r", "-f"):
                    continue
                if option == "-r":
                    self.read(path.parent / value, f"{path} names it, relative to itself", depth + 1)
                else:
                    places = [place / value for place in (path.parent, self.directory)]
                    self._take(next(filter(None, map(_wheels, places)), []))

    def _take(self, wheels: Sequence[Path]) -> None:
        for wheel in wheels:
            try:
                file = HostFile(os.fsencode(wheel), stamp_of(wheel.stat()))
            except (OSError, ValueError):
                continue  # pip says what is wrong with it
            self.digest.update(os.fsencode(wheel.name) + b"\0" + self.stats.digest(self.ctx, file).encode())


def _is_built(line: str) -> bool:
    """Whether a line names something by its place that is no wheel, or lets pip build what an index offers."""
    if any(option == "-e" or (option == "--no-binary" and value != ":none:") for option, value in _options(line)):
        return True
    if line.startswith("-"):
        return False
    named = re.split(r"\s*;\s|\s;|\s--", line)[0]
    if match := _NAMED.fullmatch(named):
        place = match[1]
    else:
        place = named if "://" in named else named.partition(";")[0]
        by_place = "/" in place or place.startswith(".") or _SCHEME.match(place)
        if not by_place and not _ARCHIVE.search(_EXTRAS.sub("", place.strip())):
            return False
    if "://" in place:
        place = place.partition("?")[0]
    return not _EXTRAS.sub("", place.partition("#")[0].strip()).endswith(".whl")


def _lines(text: str) -> Iterator[str]:
    """The lines as pip takes them: joined where one ends in a backslash, without comments, variables filled in."""
    pending = ""
    for line in [*text.splitlines(), ""]:
        if line.endswith("\\") and not _COMMENT.match(line):
            pending += line.rstrip("\\")
            continue
        whole = _COMMENT.sub("", pending + line).strip()
        pending = ""
        if whole:
            yield _VARIABLE.sub(lambda match: os.environ.get(match[1]) or match[0], whole)


def _options(line: str) -> Iterator[tuple[str, str]]:
    """Those options of a line that name files, or have something built, with what they name."""
    tokens = line.split(" ")
    first = next((number for number, token in enumerate(tokens) if token.startswith("-")), len(tokens))
    try:
        words = iter(shlex.split(" ".join(tokens[first:])))
    except ValueError:
        return  # pip refuses it
    for word in words:
        name, equals, value = word.partition("=")
        option = None
        if not word.startswith("--"):
            name, equals, value = word[:2], word[2:], word[2:]
            option = _SHORT.get(name)
        for least, (whole, meant) in _OPTIONS.items():
            if name.startswith(least) and whole.startswith(name):
                option = meant
        if option is not None:
            value = value if equals else next(words, "")
            if value:
                yield option, value


def _wheels(place: Path) -> list[Path]:
    """The wheels of a directory."""
    try:
        return sorted(path for path in place.iterdir() if path.suffix == ".whl")
    except (OSError, ValueError):
        return []
