"""Will each path lead where it does on Linux? Pure: a file tree and a command line in, findings out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from osvdeploy.checks.finding import Finding, Severity
from osvdeploy.osv.cmdline import BootCommand
from osvdeploy.osv.filetree import FileTree, show
from osvdeploy.osv.links import LINKS_FOLLOWED, Unfollowed, unfollowed

RULES: Final[Mapping[str, str]] = {
    "dot-name": "A file whose name begins with a dot, which OSv does not find by it in the directory of `cwd`.",
    "link-not-followed": "A symbolic link by which OSv does not come where Linux does.",
}
"""Every rule of this module, and what it says."""

_SHOWN: Final = 6
"""Links told with their cures."""


def check_links(tree: FileTree) -> list[Finding]:
    """One finding for all links that OSv does not follow. A warning: nobody but the program knows whether it goes
    there, and OSv finds what it loads itself, programs and libraries, by such links too."""
    wrong = unfollowed(tree)
    if not wrong:
        return []
    first, *others = wrong
    more = f"; so are {', '.join(show(each.path) for each in others[:_SHOWN])}" if others else ""
    more += f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
    return [
        Finding(
            "link-not-followed",
            Severity.WARNING,
            show(first.path),
            f"is a link to {show(first.target)}, which OSv does not follow as Linux does{more}",
            "what is opened by it is not found. OSv puts no slash between `/` and a relative target, nor before one "
            "that begins with a dot; `.` and `..` are names in an absolute target, and go by the text in another; and "
            f"it follows {LINKS_FOLLOWED} links at most",
            f"make {'them links' if others else 'it a link'}: {'; '.join(map(_cure, wrong[:_SHOWN]))}",
            "fs/vfs/vfs_lookup.cc namei_follow_link, fs/vfs/vfs_task.cc path_conv; seen on v0.57.0-398",
        )
    ]


def check_dot_names(tree: FileTree, boot: BootCommand) -> list[Finding]:
    """One finding for the files of the working directory that begin with a dot. ``cwd`` is the boot option."""
    directory = next((value for name, value in boot.options if name == "cwd" and value), "/").rstrip("/")
    top = directory.encode("utf-8", "surrogateescape") + b"/."
    names = [path[len(top) - 1 :] for path in tree.entries if path.startswith(top) and b"/" not in path[len(top) :]]
    if directory == "" or not names:
        return []
    return [
        Finding(
            "dot-name",
            Severity.WARNING,
            show(top[:-1] + names[0]),
            f"is in the directory of cwd{f', as are {len(names) - 1} more of its kind' if len(names) > 1 else ''}",
            f"OSv puts no slash between a working directory and a name that begins with a dot: it looks for "
            f"{directory}{show(names[0])}",
            f"open it by its whole path, or as ./{show(names[0])}",
            "fs/vfs/vfs_task.cc path_conv; seen on v0.57.0-398",
        )
    ]


def _cure(link: Unfollowed) -> str:
    return f"{show(link.path)} -> {show(link.cure)}"
