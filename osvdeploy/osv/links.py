"""Where OSv ends up when it follows symbolic links, which is not always where Linux does.

As fs/vfs/vfs_lookup.cc (namei, namei_follow_link) and fs/vfs/vfs_task.cc (path_conv) have it, up to v0.57.0-398:

- a relative target of a link in ``/`` itself is taken without the slash in front, and such a path is ENOTDIR;
- a relative target that begins with a dot is put behind the link's directory without a slash, unless the dot is all of
  the first name, or two dots are: ``.libs`` beside ``/usr`` becomes ``/usr.libs``;
- ``..`` takes the last name off the text, whatever link that name may be;
- in an absolute target nothing is taken off: ``.`` and ``..`` are looked for as names;
- two slashes in a row, as a target that ends in one leaves them, put the rest of the path out of step at the next link;
- 19 links are followed in one path, where Linux follows 40.

realpath(3), and so the loader of programs and libraries, has its own way (libc/misc/realpath.c) and does as Linux does.
"""

from __future__ import annotations

import posixpath
from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from osvdeploy.osv.filetree import FileTree, Symlink, resolve

LINKS_FOLLOWED = 19
"""In one path: MAXSYMLINKS is 20, and the twentieth is ELOOP."""

Look = Callable[[bytes], bytes | bool | None]
"""As :func:`osvdeploy.osv.filetree.resolve` takes it: a link's target, whether it is a directory, None for nothing."""


@dataclass(frozen=True, slots=True)
class Unfollowed:
    """A link by which OSv does not come where Linux does. ``cure`` is a target that leads there on both."""

    path: bytes
    target: bytes
    cure: bytes


def followed(path: bytes, look: Look) -> bytes | None:
    """The path without links to which OSv comes by an absolute ``path``; None where it fails.

    Of one file system, mounted on ``/``: below another mount the first rule does not hold.
    """
    for _ in range(LINKS_FOLLOWED + 1):
        if not path.startswith(b"/"):
            return None
        # vfs_findroot leaves out the slash of the mount point and one more; all is counted from there.
        start = 1 + path.startswith(b"//")
        offset, at, node = start - 1, start, b""
        while True:
            while path[at : at + 1] == b"/":
                at += 1
            if at >= len(path):
                return node or b"/"
            end = path.find(b"/", at)
            end = len(path) if end < 0 else end
            parent, node = node, node + b"/" + path[at:end]
            at, seen = end, look(node)
            if seen is None or (seen is False and at < len(path)):
                return None
            if isinstance(seen, bytes):
                rest = path[offset + len(node) :]
                within = seen if seen.startswith(b"/") else _joined(path[: offset + len(parent)], seen)
                if within is None:
                    return None
                path = within + rest
                break
    return None


def spelled(path: bytes, leads_to: bytes) -> bytes:
    """A target for the link at ``path`` that leads to ``leads_to``, a path without links, on OSv as on Linux."""
    directory = posixpath.dirname(path)
    if directory == b"/":
        return leads_to
    target = posixpath.relpath(leads_to, directory)
    return b"./" + target if target.startswith(b".") and target.split(b"/")[0] not in (b".", b"..") else target


def unfollowed(tree: FileTree) -> list[Unfollowed]:
    """The links of a tree, mounted on ``/``, that OSv does not follow as Linux does.

    A link that only leads over such a one is not told. What is not in the tree may be there in the guest, on a file
    system that is mounted; what leads in a circle does so on both.
    """
    links = {path: entry.target for path, entry in tree.entries.items() if isinstance(entry, Symlink)}
    ends = {path: end for path in links if (end := resolve(path, _looking(links))) is not None}
    sound = links | {path: spelled(path, end) for path, end in ends.items()}
    wrong = [path for path in ends if not _comes_there(path, ends, ChainMap({path: links[path]}, sound))]
    # What is left is too long a chain of links that are each sound.
    mended = links | {path: sound[path] for path in wrong}
    wrong += [path for path in ends if not _comes_there(path, ends, mended)]
    return [Unfollowed(path, links[path], sound[path]) for path in sorted(wrong)]


def _comes_there(link: bytes, ends: Mapping[bytes, bytes], targets: Mapping[bytes, bytes]) -> bool:
    """Whether OSv comes by ``link`` to its end, and by a path over it to the ends of the links behind it."""
    look, end, target = _looking(targets), ends[link], targets[link]
    if followed(link, look) != end:
        return False
    if b"//" not in target and not target.endswith(b"/"):
        return True
    behind = ((path, path[len(end) :]) for path in ends if path.startswith(end.rstrip(b"/") + b"/") and end != b"/")
    return all(followed(link + inner, look) == ends[path] for path, inner in behind)


def _looking(targets: Mapping[bytes, bytes]) -> Look:
    """Everything is there but what has a dot's name, which is what this file system does not have."""

    def look(path: bytes) -> bytes | bool | None:
        return targets.get(path) or (None if path.rpartition(b"/")[2] in (b".", b"..") else True)

    return look


def _joined(directory: bytes, target: bytes) -> bytes | None:
    """path_conv: a relative ``target`` of a link in ``directory``, which has no slash at its end and is b"" for ``/``.
    None where it would be made of what stands in memory before it."""
    full = directory
    if len(full) > 1 and not target.startswith(b"."):
        full += b"/"
    names = target.split(b"/")
    for index, name in enumerate(names):
        if name == b"..":
            if len(full) >= 2:
                # It steps over a slash that is not there at first; the name before it is never empty.
                cut = full.rfind(b"/", 0, len(full) - 1)
                if cut < 0:
                    return None
                full = full[: cut or 1]
        elif name != b".":
            full += name
        if index < len(names) - 1 and full and not full.endswith(b"/"):
            full += b"/"
    return full
