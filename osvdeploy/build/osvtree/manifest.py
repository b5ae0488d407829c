"""A FileTree as lines of ``usr.manifest``, the list from which OSv's scripts fill every kind of file system.

Its readers (scripts/manifest_common.py, gen-rofs-img.py, mkbootfs.py, upload_manifest.py, export_manifest.py) have a
grammar without escapes, so some names cannot be said, and are refused here by name:

- a line is ``guest: host``, split at the first ``": "`` and stripped of white space at both ends;
- the host side goes through Python's ``%``; a ``%`` is written twice;
- a host side that begins with ``->`` is a link, one that is a directory means an empty one;
- a host file that ends in ``-stripped.so`` is left out, an ``.so`` below the tree is replaced by a stripped copy, and a
  link is followed in a way that can end at another file than Linux's. Such files are staged under names of ours.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from osvdeploy.errors import FileTreeInvalid, SourceChanged
from osvdeploy.osv.filetree import Content, Directory, Entry, FileTree, HostFile, Symlink, show, stamp_of

BOOTFS_NAME_LIMIT = 110
"""Bytes of a path in a ramfs: scripts/mkbootfs.py packs it into 111, one of them NUL, and cuts without a word."""

_PLAIN = re.compile(rb"/[A-Za-z0-9_./+@=,~-]+")
_ROFS = frozenset({"rofs", "rofs_with_zfs"})


@dataclass(frozen=True, slots=True)
class Manifest:
    """The lines, in the tree's order, and how many entries they stand for."""

    text: str
    entries: int


def check_names(tree: FileTree, fs: str) -> None:
    """Raise FileTreeInvalid for the first entry that a manifest cannot say, or the file system not hold."""
    for path, entry in tree.entries.items():
        if wrong := _unsayable(path, entry, fs):
            raise FileTreeInvalid(
                f"{show(path)}: {wrong}",
                hint="give it another name by `to`, or leave it out with `exclude`; "
                "fs = rofs with a prebuilt kernel takes any name",
            )


def write_manifest(tree: FileTree, stage: Path, *, fs: str, sources: Path) -> Manifest:
    """Lines for all of ``tree``; what cannot be named by its own path is staged in ``stage``, an empty directory.
    ``sources`` is the source tree whose scripts read them.

    Raises FileTreeInvalid as :func:`check_names` does, SourceChanged for a file that is gone; OSError.
    """
    check_names(tree, fs)
    place, below = os.fsencode(stage.resolve()), os.fsencode(sources) + b"/"
    empty = stage / "empty"
    empty.mkdir()
    filled = {path[: path.rfind(b"/")] or b"/" for path in tree.entries if path != b"/"}
    lines = []
    for number, (path, entry) in enumerate(tree.entries.items()):
        match entry:
            case Symlink(target=target):
                host = b"->" + target
            case Directory():
                if path in filled or path == b"/":
                    continue
                host = place + b"/empty"
            case Content(content=content):
                host = place + b"/%d" % number
                Path(os.fsdecode(host)).write_bytes(content)
            case HostFile():
                host = _host(entry, place + b"/%d" % number, below)
        lines.append(path + b": " + host.replace(b"%", b"%%") + b"\n")
    return Manifest(b"".join(lines).decode(), len(lines))


def check_unchanged(tree: FileTree) -> None:
    """Raise SourceChanged for a file that is no longer what it was when it was found."""
    for _, entry in tree.files():
        if isinstance(entry, HostFile):
            try:
                same = stamp_of(os.stat(entry.path)) == entry.stamp  # noqa: PTH116 (names are bytes)
            except OSError:
                same = False
            if not same:
                raise SourceChanged(
                    f"{show(entry.path)}: changed while the image was built",
                    hint="let nothing write to the sources while they are built",
                )


def _host(file: HostFile, staged: bytes, below: bytes) -> bytes:
    """The path by which the scripts read just this file."""
    path = file.path
    replaced = path.endswith(b"-stripped.so") or (path.endswith(b".so") and path.startswith(below))
    if _PLAIN.fullmatch(path) and not replaced and os.path.realpath(path) == path:
        return path
    # A copy, not a hard link: that would change the file's ctime, and it would look changed.
    try:
        shutil.copyfile(file.path, staged)
    except FileNotFoundError:
        raise SourceChanged(f"{show(file.path)}: is gone, though it was there a moment ago") from None
    return staged


def _unsayable(path: bytes, entry: Entry, fs: str) -> str | None:
    return next(_reasons(path, entry, fs), None)


def _reasons(path: bytes, entry: Entry, fs: str) -> Iterator[str]:
    yield from _text_reasons(path, "its path", fs)
    if path.endswith(b"/**"):
        yield "a manifest takes ** at the end of a path for a pattern"
    if fs == "ramfs":
        if path.endswith(b"-stripped.so"):
            yield "OSv's scripts leave out what ends in -stripped.so"
        if len(path) > BOOTFS_NAME_LIMIT - isinstance(entry, Directory):
            yield f"its path has {len(path)} bytes, and a ramfs holds {BOOTFS_NAME_LIMIT}"
    if isinstance(entry, Symlink):
        yield from _text_reasons(entry.target, "its target", fs)
        if b"/&/" in path and entry.target.endswith(b"/&"):
            yield "a manifest takes & in a path for a pattern"


def _text_reasons(text: bytes, what: str, fs: str) -> Iterator[str]:
    try:
        decoded = text.decode()
    except UnicodeDecodeError:
        yield f"{what} is not UTF-8, and a manifest is text"
        return
    if b": " in text:
        yield f'{what} holds ": ", at which a manifest splits its lines'
    elif any(char in decoded for char in "\n\r"):
        yield f"{what} holds a line break, and a manifest has one line for each file"
    elif decoded != decoded.strip():
        yield f"{what} begins or ends with white space, which a manifest loses"
    elif fs in _ROFS and not decoded.isascii():
        # scripts/gen-rofs-img.py writes the length in characters and the name in bytes: every later entry is misread,
        # and the kernel refuses the whole file system ("symlink path out of bounds").
        yield f"{what} is not ASCII, and OSv's own ROFS writer damages the file system by such a name"
