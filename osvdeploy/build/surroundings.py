"""What a program takes for granted around it, in every image that is composed: devices, /proc, /sys, a /tmp.

OSv mounts what /etc/fstab names, where directories are: ROFS is read-only, so that none is made for it. A source tree's
own skeleton brings the same (usr_rofs.manifest.skel, static/etc/fstab_rofs), and its fstab may say more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from osvdeploy.osv.filetree import DIRECTORY, Content, Directory, FileTree, TreeBuilder

FSTAB: Final = b"".join(
    b"none %s %s defaults 0 0\n" % (place, kind)
    for place, kind in ((b"/dev", b"devfs"), (b"/proc", b"procfs"), (b"/sys", b"sysfs"), (b"/tmp", b"ramfs"))
)

SURROUNDINGS: Final[Mapping[bytes, Content | Directory]] = {
    b"/dev": DIRECTORY,
    b"/etc/fstab": Content(FSTAB),
    b"/etc/hosts": Content(b"127.0.0.1 localhost\n"),
    b"/proc": DIRECTORY,
    b"/sys": DIRECTORY,
    b"/tmp": DIRECTORY,
}

_ORIGIN = "osvdeploy"


def surround(builder: TreeBuilder, options: Iterable[tuple[str, str | None]]) -> None:
    """Add what an image lacks of its surroundings, and the directories that its boot ``options`` mount something on.
    What stands there stays, whatever it is, and so does what stands in the way of a path."""
    for path, entry in SURROUNDINGS.items():
        if not builder.admits(path):
            continue
        if isinstance(entry, Content):
            builder.add_content(path, entry.content, origin=_ORIGIN)
        else:
            builder.add_directory(path, origin=_ORIGIN)
    for path in _mounted(options):
        if builder.admits(path) and not any(path.startswith(other + b"/") for other in SURROUNDINGS):
            builder.add_directory(path, origin="mount-fs")


def with_skeleton(tree: FileTree) -> FileTree:
    """The files of an image that a source tree builds, with those of its surroundings that the tree's own skeleton
    brings. For looking things up: its order is no tree's."""
    return FileTree({b"/etc": DIRECTORY, b"/data": DIRECTORY, **SURROUNDINGS, **tree.entries})


def _mounted(options: Iterable[tuple[str, str | None]]) -> Iterable[bytes]:
    """Where ``--mount-fs=TYPE,DEVICE,DIRECTORY`` mounts (loader.cc, parse_options); what is no path of the guest is
    left out."""
    for name, value in options:
        place = (value or "").split(",")[2:]
        if name == "mount-fs" and len(place) == 1 and place[0].startswith("/"):
            path = place[0].rstrip("/").encode("utf-8", "surrogateescape")
            if path and not {b"", b".", b".."} & set(path.split(b"/")[1:]):
                yield path
