"""The files of an image as one value: guest path to directory, file or symbolic link.

Names are bytes, as they are for Linux and OSv. Nothing is read here but directories and their entries: a file of this
machine is remembered with a stamp, by which a later reader sees that it changed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from osvdeploy.errors import FileTreeInvalid, OsvDeployError, SourceChanged

NAME_LIMIT = 255
"""Bytes of a name. ROFS stores up to 65,535 and OSv finds them, but its readdir cuts at 255 (struct dirent)."""

PATH_LIMIT = 4095
"""Bytes of a guest path, and of a link's target: OSv's PATH_MAX of 4096 counts the NUL."""

_LINKS_FOLLOWED = 40
"""As many as Linux follows in one path."""


class Stamp(NamedTuple):
    """What stat(2) says of a file's identity and content: a change of content changes one of these.

    ``changed`` (ctime) is there because a tool may set mtime back after writing.
    """

    device: int
    inode: int
    size: int
    modified: int
    changed: int


def stamp_of(status: os.stat_result) -> Stamp:
    return Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@dataclass(slots=True, unsafe_hash=True)
class HostFile:
    """A regular file of this machine, as it was when it was found. Not frozen only because that makes 10,000 of them
    slow to make; nobody changes one."""

    path: bytes
    stamp: Stamp

    @property
    def size(self) -> int:
        return self.stamp.size


@dataclass(frozen=True, slots=True)
class Content:
    """A regular file given by its bytes."""

    content: bytes

    @property
    def size(self) -> int:
        return len(self.content)


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory. OSv keeps neither owner nor mode nor time, so there is nothing else to know."""


@dataclass(frozen=True, slots=True)
class Symlink:
    """A symbolic link with its target as the guest reads it."""

    target: bytes


Entry: TypeAlias = HostFile | Content | Directory | Symlink

DIRECTORY = Directory()


@dataclass(frozen=True, slots=True)
class FileTree:
    """Guest paths to what stands there, every parent before its children and names in byte order.

    The root is ``b"/"`` and always there; all other paths begin with a slash and end without one. Made by TreeBuilder,
    which sees to all this.
    """

    entries: Mapping[bytes, Entry]

    def files(self) -> Iterator[tuple[bytes, HostFile | Content]]:
        for path, entry in self.entries.items():
            if isinstance(entry, HostFile | Content):
                yield path, entry

    def file(self, path: bytes) -> HostFile | Content | None:
        """The regular file that ``path`` leads to, links followed; None where there is none."""
        resolved = resolve(path, lambda name: _seen(self.entries.get(name)))
        entry = self.entries.get(resolved) if resolved is not None else None
        return entry if isinstance(entry, HostFile | Content) else None


def _seen(entry: Entry | None) -> bytes | bool | None:
    return entry.target if isinstance(entry, Symlink) else None if entry is None else isinstance(entry, Directory)


def resolve(path: bytes, look: Callable[[bytes], bytes | bool | None]) -> bytes | None:
    """The path without links that ``path`` means in a guest; None where it leads nowhere, or in circles.

    ``look`` tells of a path: the target of a link, True for a directory, False for a file, None for nothing.
    """
    for _ in range(_LINKS_FOLLOWED):
        resolved: list[bytes] = []
        names = [name for name in path.split(b"/") if name not in (b"", b".")]
        for index, name in enumerate(names):
            if name == b"..":
                del resolved[-1:]
                continue
            seen = look(b"/" + b"/".join([*resolved, name]))
            if isinstance(seen, bytes):
                base = b"" if seen.startswith(b"/") else b"/" + b"/".join(resolved)
                path = b"/".join([base, seen, *names[index + 1 :]])
                break
            resolved.append(name)
            if seen is None or (not seen and index < len(names) - 1):
                return None
        else:
            return b"/" + b"/".join(resolved)
    return None


@dataclass(slots=True)
class TreeBuilder:
    """Puts a FileTree together from several sources and refuses what cannot be one file system.

    Every error names both sides: the guest path and the source, or the two sources that claim one path.
    """

    _entries: dict[bytes, Entry] = field(default_factory=lambda: {b"/": DIRECTORY})
    _origins: dict[bytes, str] = field(default_factory=dict)

    def add_content(self, guest: bytes, content: bytes, *, origin: str) -> None:
        """A file of given bytes. ``origin`` says in an error where it came from."""
        self._put(guest, Content(content), origin)

    def add_directory(self, guest: bytes, *, origin: str) -> None:
        """A directory, empty unless something is put into it."""
        self._put(guest, DIRECTORY, origin)

    def add_symlink(self, guest: bytes, target: bytes, *, origin: str) -> None:
        """A symbolic link, its target taken as it is."""
        if not target or b"\0" in target or len(target) > PATH_LIMIT:
            raise FileTreeInvalid(
                f"{show(guest)}: link target of {len(target)} bytes, from {origin}: 1 to {PATH_LIMIT} without NUL"
            )
        self._put(guest, Symlink(target), origin)

    def add_file(self, guest: bytes, host: bytes) -> None:
        """A regular file of this machine; a link to one is followed, since the caller named it."""
        try:
            status = os.stat(host)  # noqa: PTH116 (names are bytes, and a Path is text)
        except OSError as error:
            raise FileTreeInvalid(f"{show(host)}: cannot be read: {error.strerror}") from None
        if not stat.S_ISREG(status.st_mode):
            raise FileTreeInvalid(f"{show(host)}: {_kind(status.st_mode)}, not a regular file (for {show(guest)})")
        self._put(guest, HostFile(host, stamp_of(status)), show(host))

    def add_known(self, guest: bytes, file: HostFile) -> None:
        """A regular file that was found earlier, as it was then: a later reader sees by its stamp if it changed."""
        self._put(guest, file, show(file.path))

    def add_found(
        self, guest: bytes, host: bytes, *, root: bytes, excluded: Callable[[bytes], bool] | None = None
    ) -> None:
        """What a pattern found within ``root``: a link stays a link, a directory brings all it has."""
        try:
            mode = os.lstat(host).st_mode
        except OSError as error:
            raise FileTreeInvalid(f"{show(host)}: cannot be read: {error.strerror}") from None
        if stat.S_ISDIR(mode):
            self.add_tree(guest, host, excluded=excluded, root=root)
        elif stat.S_ISLNK(mode):
            depth = host[len(root) :].strip(b"/").count(b"/")
            link = _read_link(host)
            _check_link(link, host, depth, root, whole=guest.count(b"/") == depth + 1)
            self.add_symlink(guest, link, origin=show(host))
        else:
            self.add_file(guest, host)

    def add_tree(
        self, guest: bytes, host: bytes, *, excluded: Callable[[bytes], bool] | None = None, root: bytes | None = None
    ) -> None:
        """All that is under the directory ``host``, as it stands, under ``guest``; empty directories and links too.

        ``excluded`` is asked with each path relative to ``root`` (left out: ``host``) and, where it says yes, the entry
        and all below it stay out. A link must not lead out of ``root``; an absolute one is allowed only in a tree that
        becomes the guest's root, where it means what it says.
        """
        root = host if root is None else root
        prefix = b"" if host == root else host[len(root) :].strip(b"/") + b"/"
        guest_top = guest.rstrip(b"/")
        self._put(guest_top or b"/", DIRECTORY, show(host))
        # guest path of `root`: what links are measured against
        depth = prefix.count(b"/")
        guest_root = guest_top.rsplit(b"/", depth)[0] if depth else guest_top
        entries = self._entries
        pending = [(host, guest_top, prefix)]
        while pending:
            directory, guest_directory, relative = pending.pop()
            for name, path, status in _scan(directory):
                inner = relative + name
                if excluded is not None and excluded(inner):
                    continue
                target = guest_directory + b"/" + name
                mode = status.st_mode
                if stat.S_ISREG(mode):
                    file = HostFile(path, stamp_of(status))
                    if target not in entries and len(target) <= PATH_LIMIT:
                        # Its directory is there, and no Linux name is one that _put would refuse.
                        entries[target] = file
                    else:
                        self._put(target, file, None)
                elif stat.S_ISDIR(mode):
                    self._put(target, DIRECTORY, show(path))
                    pending.append((path, target, inner + b"/"))
                elif stat.S_ISLNK(mode):
                    link = _read_link(path)
                    _check_link(link, path, relative.count(b"/"), root, whole=not guest_root)
                    self.add_symlink(target, link, origin=show(path))
                else:
                    raise FileTreeInvalid(
                        f"{show(path)}: {_kind(mode)}; ROFS holds files, directories and links",
                        hint="leave it out with `exclude`",
                    )

    def holds(self, guest: bytes) -> bool:
        """Whether something stands there already."""
        return guest in self._entries

    def tree(self) -> FileTree:
        """The tree so far, in its one order: same entries, same order, however they were added."""
        return FileTree({path: self._entries[path] for path in sorted(self._entries, key=_by_components)})

    def _put(self, guest: bytes, entry: Entry, origin: str | None) -> None:
        """``origin`` None: a host file names itself."""
        known = self._entries.get(guest)
        if known is not None:
            # The same thing found twice, as overlapping patterns do, is no conflict.
            if known == entry and (type(entry) is Directory or self._origin_of(guest) == _origin(entry, origin)):
                return
            raise self._conflict(guest, entry, origin)
        self._check_path(guest, entry, origin)
        parent = guest[: guest.rfind(b"/")] or b"/"
        if type(self._entries.get(parent)) is not Directory:
            self._make_parents(guest, parent, entry, origin)
        self._entries[guest] = entry
        if origin is not None:
            self._origins[guest] = origin

    def _make_parents(self, guest: bytes, parent: bytes, entry: Entry, origin: str | None) -> None:
        missing = []
        while parent not in self._entries:
            missing.append(parent)
            parent = parent[: parent.rfind(b"/")] or b"/"
        if type(self._entries[parent]) is not Directory:
            raise FileTreeInvalid(
                f"{show(guest)}: from {_origin(entry, origin)}, but {show(parent)} above it is "
                f"{_noun(self._entries[parent])}, from {self._origin_of(parent)}",
                hint="give one of the two another `to`",
            )
        for path in reversed(missing):
            self._entries[path] = DIRECTORY
            self._origins[path] = _origin(entry, origin)

    def _check_path(self, guest: bytes, entry: Entry, origin: str | None) -> None:
        source = _origin(entry, origin)
        if not guest.startswith(b"/"):
            raise FileTreeInvalid(
                f"{show(guest)}: not an absolute path, from {source}", hint=f"write {show(b'/' + guest)}"
            )
        if b"\0" in guest:
            raise FileTreeInvalid(f"{show(guest)}: holds a NUL, from {source}")
        if len(guest) > PATH_LIMIT:
            raise FileTreeInvalid(f"{show(guest)}: {len(guest)} bytes, and OSv's limit is {PATH_LIMIT}, from {source}")
        names = guest[1:].split(b"/")
        for name in names:
            if name in (b"", b".", b".."):
                raise FileTreeInvalid(
                    f"{show(guest)}: holds the name {show(name)!r}, from {source}",
                    hint="write the path without empty names, '.' and '..'",
                )
            if len(name) > NAME_LIMIT:
                raise FileTreeInvalid(
                    f"{show(guest)}: a name of {len(name)} bytes, and OSv lists at most {NAME_LIMIT}, from {source}"
                )

    def _conflict(self, guest: bytes, entry: Entry, origin: str | None) -> FileTreeInvalid:
        return FileTreeInvalid(
            f"{show(guest)}: given twice: {_noun(self._entries[guest])}, from {self._origin_of(guest)}, and "
            f"{_noun(entry)}, from {_origin(entry, origin)}",
            hint="give one of the two another `to`, or leave it out with `exclude`",
        )

    def _origin_of(self, guest: bytes) -> str:
        return _origin(self._entries[guest], self._origins.get(guest))


def show(path: bytes) -> str:
    """A path for people: text where it is text, escapes where it is not."""
    return path.decode("utf-8", "backslashreplace").replace("\0", "\\x00").replace("\n", "\\n")


def unreadable(path: bytes, error: OSError) -> OsvDeployError:
    """What to raise for a file of an image that the system does not let us read: it may not be read by us, or is not
    there any more, or the disk that it is on failed."""
    told = f"{show(path)}: cannot be read: {error.strerror}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return FileTreeInvalid(told, hint="every file of the image must be readable: change its mode, or `exclude` it")
    return SourceChanged(told, hint="no file of the image may go while it is looked at or built")


def _scan(directory: bytes) -> list[tuple[bytes, bytes, os.stat_result]]:
    try:
        with os.scandir(directory) as entries:
            found = [(entry.name, entry.path, entry.stat(follow_symlinks=False)) for entry in entries]
    except OSError as error:
        raise FileTreeInvalid(f"{show(error.filename or directory)}: cannot be read: {error.strerror}") from None
    found.sort()
    return found


def _read_link(path: bytes) -> bytes:
    try:
        return os.readlink(path)  # noqa: PTH115 (names are bytes, and a Path is text)
    except OSError as error:
        raise FileTreeInvalid(f"{show(path)}: cannot be read: {error.strerror}") from None


def _check_link(target: bytes, link: bytes, depth: int, root: bytes, *, whole: bool) -> None:
    """``depth``: directories between ``root`` and the link. Only the text is judged: what a link says is what the guest
    will follow, whatever stands behind it on this machine."""
    if target.startswith(b"/"):
        if whole:
            return
        depth = -1
    for name in target.split(b"/"):
        if depth < 0:
            break
        depth += -1 if name == b".." else name not in (b"", b".")
    if depth < 0:
        raise FileTreeInvalid(
            f"{show(link)}: a link to {show(target)}, which leaves {show(root)}, the tree it was found in",
            hint="make it a relative link within the tree, copy what it points to, or leave it out with `exclude`",
        )


def _by_components(path: bytes) -> bytes:
    # A separator that sorts before every byte of a name: "/a/b" stands before "/a-b", right behind "/a".
    return path.replace(b"/", b"\0")


def _origin(entry: Entry, origin: str | None) -> str:
    if origin is None:
        return show(entry.path) if isinstance(entry, HostFile) else "this spec"
    return origin


def _noun(entry: Entry) -> str:
    match entry:
        case HostFile() | Content():
            return "a file"
        case Directory():
            return "a directory"
        case Symlink():
            return "a link"


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
    }
    return kinds.get(stat.S_IFMT(mode), "of unknown kind")
