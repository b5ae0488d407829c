"""Will each symbolic link lead where it does on Linux? Pure: a file tree in, findings out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from osvdeploy.checks.finding import Finding, Severity
from osvdeploy.osv.filetree import FileTree, show
from osvdeploy.osv.links import LINKS_FOLLOWED, Unfollowed, unfollowed

RULES: Final[Mapping[str, str]] = {
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


def _cure(link: Unfollowed) -> str:
    return f"{show(link.path)} -> {show(link.cure)}"
