"""What OSv starts: the command line's program, and those of the files that it reads commands from.

loader.cc runs the commands of every file in /init, in the order of their names, before the command line's own;
core/commands.cc replaces the command ``runscript FILE`` by the commands in that file's lines. Both read less than a
shell does, each in its own way, and most of what they do not understand they pass over in silence. All that is said
here was seen on v0.57.0-398 (tests/boot/test_osv_starts.py).

Pure: contents come by a function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from osvdeploy.errors import CommandLineInvalid
from osvdeploy.osv.cmdline import BootCommand, read_commands
from osvdeploy.osv.filetree import FileTree, show

COMMAND_LINE: Final = "command"
"""Who names the program of the command line."""

RUNSCRIPT: Final = "runscript"

_INIT = b"/init"
_SET = "--env="

Read = Callable[[bytes], bytes | None]
"""The content of a guest's file by its path, links followed; None where there is none that could be read."""


@dataclass(frozen=True, slots=True)
class Start:
    """A program that OSv starts. ``words``: as it is named, and its arguments. ``by``: :data:`COMMAND_LINE`, or the
    path of the file that names it."""

    words: tuple[str, ...]
    by: str = COMMAND_LINE


@dataclass(frozen=True, slots=True)
class Misread:
    """A file of commands that OSv reads otherwise than it is written. ``fatal``: a program that stands there is not
    started, or OSv ends; else one gets an argument that is not as it stands there."""

    by: str
    what: str
    cure: str
    fatal: bool = True


@dataclass(slots=True)
class Starts:
    """The command line's program first, then those of /init."""

    starts: list[Start] = field(default_factory=list)
    misread: list[Misread] = field(default_factory=list)

    def missing(self, tree: FileTree, boot: BootCommand) -> list[Start]:
        """What OSv cannot find in the image, at which it powers off: a name without a slash is looked for in ``/`` and
        ``/usr/lib`` (core/app.cc). Nothing where a mount may bring it; none that only the guest can name."""
        if any(name == "mount-fs" for name, _ in boot.options):
            return []
        return [start for start in self.starts if "$" not in start.words[0] and not _is_there(tree, start.words[0])]


def starts_of(boot: BootCommand, tree: FileTree, read: Read) -> Starts:
    """All programs that an image starts by itself."""
    found = Starts()
    if boot.words:
        _add(found, boot.words, COMMAND_LINE, read)
        if not (found.starts or found.misread):
            found.misread.append(
                Misread(boot.words[-1], "OSv finds no command in it, and powers off", "name a program")
            )
    if any(name == "noinit" for name, _ in boot.options):
        return found
    for path in sorted(path for path in tree.entries if path.startswith(_INIT + b"/") and path.count(b"/") == 2):
        by = show(path)
        for words in _read(found, by, (read(path) or b"").decode("latin-1")):
            if words[0].startswith("-"):
                cure = "set the variable under [image] env, or put the command into a runscript"
                found.misread.append(Misread(by, f"{words[0]}: OSv reads no options here", cure))
            else:
                _add(found, words, by, read)
    return found


def _add(found: Starts, words: tuple[str, ...], by: str, read: Read) -> None:
    """The program of a command, or those of its runscript."""
    if words[0] != RUNSCRIPT:
        found.starts.append(Start(words, by))
        return
    if len(words) != 2:
        found.misread.append(Misread(by, f"{' '.join(words)}: OSv takes one file and powers off", "name one file"))
        return
    script = words[1]
    if "$" in script:
        found.starts.append(Start((script,), by))
        return
    content = read(b"/" + script.encode("utf-8", "surrogateescape").lstrip(b"/"))
    if content is None:
        found.misread.append(Misread(by, f"there is no file {script}: OSv powers off", "bring it with [[files]]"))
        return
    for line in content.decode("latin-1").split("\n"):
        for command in _read(found, script, line):
            if told := _without_options(found, command, script):
                found.starts.append(Start(told, script))


def _without_options(found: Starts, words: tuple[str, ...], script: str) -> tuple[str, ...]:
    """A command of a runscript without the variables that may be set in front; nothing where OSv ends at it."""
    left = list(words)
    while left and left[0].startswith("-"):
        option = left.pop(0)
        if not option.startswith(_SET) or "=" not in option[len(_SET) :]:
            cure = "set variables alone here, with --env=NAME=VALUE"
            found.misread.append(Misread(script, f"{option}: OSv takes no such option here, and powers off", cure))
            return ()
    if not left:
        cure = "set the variable in front of the command that needs it"
        found.misread.append(Misread(script, f"{words[-1]}: no program stands behind it, and OSv aborts", cure))
    return tuple(left)


def _read(found: Starts, by: str, text: str) -> Iterator[tuple[str, ...]]:
    """The commands that OSv reads from a text; what it leaves out, or takes for something else, goes to ``found``."""
    try:
        for command in read_commands(text):
            first = command.words[0]
            if first.startswith("#"):
                found.misread.append(Misread(by, f"{first}: OSv knows no comments, and starts this", "delete it"))
                continue
            if command.joined:
                what = f"{first}: OSv does not end a command with its line, and takes the next one for arguments"
                found.misread.append(Misread(by, what, "end each command with `;`"))
            elif command.white:
                what = f"{command.white[0]!r}: OSv takes the white space for a part of the word"
                cure = "put a space, or `;`, between word and white space; or leave the line's end out"
                found.misread.append(Misread(by, what, cure, fatal=first in command.white))
                if first in command.white:
                    continue
            yield command.words
    except CommandLineInvalid as error:
        what = f"OSv reads no command from here on: {error.message.removeprefix('command line: ')}"
        found.misread.append(Misread(by, what, "write it as OSv reads it"))


def _is_there(tree: FileTree, program: str) -> bool:
    path = program.encode("utf-8", "surrogateescape")
    places = [path if path.startswith(b"/") else b"/" + path] if b"/" in path else [b"/" + path, b"/usr/lib/" + path]
    return any(tree.file(place) for place in places)
