"""A real OSv starts what osvdeploy.osv.starts reads, and what it tells as misread is read so.

Needs OSV_KERNEL, the path of a loader.img that OSv's own build made, and a C compiler.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from osvdeploy.osv.cmdline import BootCommand
from osvdeploy.osv.filetree import TreeBuilder
from osvdeploy.osv.starts import COMMAND_LINE, Starts, starts_of
from tests.boot.qemu import needs_qemu
from tests.boot.real import POWER_OFF, compiled, console_of, content_of

pytestmark = [pytest.mark.osv, needs_qemu]

SHOW_WORDS = r"""
#include <stdio.h>
int main(int argc, char **argv)
{
    printf("ran");
    for (int index = 0; index < argc; index++) {
        printf(" [");
        for (const char *at = argv[index]; *at; at++)
            printf(*at < 33 ? "\\%03o" : "%c", *at);
        printf("]");
    }
    printf("\n");
    fflush(stdout);
    return 0;
}
"""


def shown(words: tuple[str, ...]) -> str:
    """A program's words as it prints them."""
    return "ran" + "".join(
        " [" + "".join(f"\\{ord(char):03o}" if ord(char) < 33 else char for char in word) + "]" for word in words
    )


def booted(files: Mapping[str, str], words: tuple[str, ...], folder: Path) -> tuple[Starts, bytes]:
    """What is read of an image, and its console. Every program is the one that shows its words; /gone is none."""
    program = compiled(SHOW_WORDS, folder)
    builder = TreeBuilder()
    for name in (b"/app", b"/a", b"/b"):
        builder.add_file(name, os.fsencode(program))
    for guest, text in files.items():
        builder.add_content(guest.encode(), text.encode(), origin="test")
    tree, command = builder.tree(), BootCommand(POWER_OFF, (), words)
    return starts_of(command, tree, lambda path: content_of(tree, path)), console_of(tree, command, folder)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"/init/20": "/b two", "/init/10": ' /a "one two";\n\n"/b" x\\ty ;/a $OSV_CPUS&!', "/init/9": ""}, ("/app",)),
        ({"/s": "/a one \n\n;\n\t/b $OSV_CPUS;/a two", "/init/1": "b bare"}, ("runscript", "/s")),
        ({"/s": "/b $OSV_CPUS; /gone; /a\n/a\n"}, ("runscript", "/s")),
        ({"/init/1": "runscript /s;/a", "/s": "/b x\n"}, ("app", "y")),
    ],
)
def test_what_is_read_is_started(files: Mapping[str, str], words: tuple[str, ...], tmp_path: Path) -> None:
    """Those of /init first, each with its words; at a program that is missing OSv powers off."""
    found, console = booted(files, words, tmp_path)
    assert found.misread == []
    order = sorted(found.starts, key=lambda start: start.by in (COMMAND_LINE, words[-1]))
    until = next((index for index, start in enumerate(order) if start.words[0] == "/gone"), len(order))
    expected = [shown(tuple("1" if word == "$OSV_CPUS" else word for word in start.words)) for start in order[:until]]
    ran = [line for line in console.decode().replace("\r", "").splitlines() if line.startswith("ran ")]
    # What runs in the background may be overtaken.
    assert sorted(ran) == sorted(expected)
    assert (b"Failed to load object: /gone" in console) == (until < len(order))


@pytest.mark.parametrize(
    ("files", "words", "says"),
    [
        ({"/init/1": "/a\n"}, ("/app",), b"Failed to load object: /a\r\n."),
        ({"/init/1": "/a one\n"}, ("/app",), rb"ran [/a] [one\012]"),
        ({"/init/1": "/a one \n/b two"}, ("/app",), b"ran [/a] [one] [/b] [two]"),
        ({"/init/1": "# comment"}, ("/app",), b"Failed to load object: #."),
        ({"/init/1": "--env=A=b /a"}, ("/app",), b"Failed to load object: --env=A=b."),
        ({"/init/1": "runscript /gone"}, ("/app",), b"Failed to open runscript file"),
        ({"/s": "/a\r\n"}, ("runscript", "/s"), b"Failed to load object: /a"),
        ({"/s": "--verbose /a\n"}, ("runscript", "/s"), b"unrecognised option '--verbose'"),
        ({"/s": "--env=A=b\n/a\n"}, ("runscript", "/s"), b"Aborted"),
        ({"/s": "\n"}, ("runscript", "/s"), b"Nothing to run"),
    ],
)
def test_what_is_told_as_misread_is_read_so(
    files: Mapping[str, str], words: tuple[str, ...], says: bytes, tmp_path: Path
) -> None:
    """In OSv's own words."""
    found, console = booted(files, words, tmp_path)
    assert found.misread
    assert says in console


@pytest.mark.parametrize("rest", ["/a; ; /b", "/a; /é; /b"])
def test_what_is_not_read_is_passed_over(rest: str, tmp_path: Path) -> None:
    """In silence; what stood before it has run, and the command line's program does."""
    found, console = booted({"/init/1": rest}, ("/app",), tmp_path)
    assert found.misread
    assert b"ran [/a]" in console and b"ran [/app]" in console
    assert b"/b" not in console
