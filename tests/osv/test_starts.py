"""What OSv starts, read off its files. tests/boot/test_osv_starts.py holds it against a real one."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.osv.cmdline import BootCommand
from osvdeploy.osv.filetree import Content, FileTree, TreeBuilder
from osvdeploy.osv.starts import Misread, Start, Starts, starts_of


def tree_of(files: Mapping[str, str]) -> FileTree:
    builder = TreeBuilder()
    for path, content in files.items():
        if content.startswith("->"):
            builder.add_symlink(path.encode(), content[2:].encode(), origin="test")
        else:
            builder.add_content(path.encode(), content.encode(), origin="test")
    return builder.tree()


def read(files: Mapping[str, str], *words: str, options: tuple[tuple[str, str | None], ...] = ()) -> Starts:
    tree = tree_of(files)

    def content(path: bytes) -> bytes | None:
        entry = tree.file(path)
        return entry.content if isinstance(entry, Content) else None

    return starts_of(BootCommand(options, (), words or ("/app",)), tree, content)


def named(found: Starts) -> list[tuple[str, str]]:
    return [(start.by, " ".join(start.words)) for start in found.starts]


def test_files_of_init_are_started_too() -> None:
    """By name, with several commands each, links followed; what stands below a directory is not looked at."""
    found = read(
        {
            "/init/20-b": "/b one; /c & /d &! ",
            "/init/10-a": '/a "two words" \\tx',
            "/init/30": "->/elsewhere",
            "/elsewhere": "/e;\n/f;\n",
            "/init/below/40": "/g",
        }
    )
    assert named(found) == [
        ("command", "/app"),
        ("/init/10-a", "/a two words \tx"),
        ("/init/20-b", "/b one"),
        ("/init/20-b", "/c"),
        ("/init/20-b", "/d"),
        ("/init/30", "/e"),
        ("/init/30", "/f"),
    ]
    assert found.misread == []


def test_noinit_leaves_them_out() -> None:
    """The boot option says so."""
    assert named(read({"/init/1": "/a"}, options=(("noinit", None),))) == [("command", "/app")]


def test_a_runscript_is_read_line_by_line() -> None:
    """Variables in front are no words; blank lines and lone semicolons are nothing; /init may name one too."""
    files = {"/s": "--env=A=b --env=C?=d /a $A; /b\n\n;\n /c &\n", "/init/1": "runscript /s"}
    assert named(read(files, "runscript", "/s")) == [
        ("/s", "/a $A"), ("/s", "/b"), ("/s", "/c"),
        ("/s", "/a $A"), ("/s", "/b"), ("/s", "/c"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "says", "fatal", "started"),
    [
        ("/a\n", "'/a\\n': OSv takes the white space", True, []),
        ("/a one\n", "'one\\n': OSv takes the white space", False, ["/a one\n"]),
        ("/a\tone", "'/a\\tone': OSv takes the white space", True, []),
        ("/a one\n/b\n", "'one\\n/b\\n': OSv takes", False, ["/a one\n/b\n"]),
        ("/a one \n/b", "/a: OSv does not end a command with its line", True, ["/a one /b"]),
        ('"/a"\n"/b"\n', "/a: OSv does not end a command with its line", True, ["/a /b"]),
        ("# what it does;\n/a;", "#: OSv knows no comments", True, ["/a"]),
        ("--env=A=b /a", "--env=A=b: OSv reads no options here", True, []),
        ("/a;; /b", "no program stands before ';", True, ["/a"]),
        ("; /b", "no program stands before ';", True, []),
        ("/a; /é; /b", "OSv reads only ASCII", True, ["/a"]),
        ('/a; /b "one', "the quote at '\"one' is not closed", True, ["/a"]),
        ("runscript /s /t", "OSv takes one file", True, []),
        ("runscript /s", "there is no file /s", True, []),
    ],
)
def test_what_osv_reads_otherwise_is_told(content: str, says: str, fatal: bool, started: list[str]) -> None:
    """With what is started all the same."""
    found = read({"/init/1": content})
    (told,) = found.misread
    assert says in told.what
    assert (told.by, told.fatal) == ("/init/1", fatal)
    assert [words for _, words in named(found)] == ["/app", *started]


@pytest.mark.parametrize(
    ("content", "says", "started"),
    [
        ("--verbose /a\n/b\n", "--verbose: OSv takes no such option here", ["/b"]),
        ("--env=A /a\n", "--env=A: OSv takes no such option here", []),
        ("--env=A=b\n/a $A\n", "--env=A=b: no program stands behind it", ["/a $A"]),
        ("/a\r\n", "'/a\\r': OSv takes the white space", []),
        ("\n", "OSv finds no command in it", []),
    ],
)
def test_a_runscript_at_which_osv_ends_is_told(content: str, says: str, started: list[str]) -> None:
    """By its own name."""
    found = read({"/s": content}, "runscript", "/s")
    (told,) = found.misread
    assert says in told.what
    assert (told.by, told.fatal) == ("/s", True)
    assert [words for _, words in named(found)] == started


@pytest.mark.parametrize(
    ("command", "options", "missing"),
    [
        (("/hello",), (), None),
        (("hello",), (), None),
        (("./hello",), (), None),
        (("/bin/app",), (), None),
        (("tool",), (), None),
        (("/usr/lib/tool",), (), None),
        (("/nothing", "x"), (), "/nothing"),
        (("nothing",), (), "nothing"),
        (("/bin",), (), "/bin"),
        (("$PROGRAM",), (), None),
        (("runscript", "/s"), (), "/gone"),
        (("runscript", "$SCRIPT"), (), None),
        (("/data/app",), (("mount-fs", "zfs,/dev/vblk1.1,/data"),), None),
    ],
)
def test_a_program_that_is_not_in_the_image_is_seen(
    command: tuple[str, ...], options: tuple[tuple[str, str | None], ...], missing: str | None
) -> None:
    """OSv would say `Failed to load object` and power off; where a mount may bring the program, nothing is said."""
    files = {"/hello": "", "/usr/lib/tool": "", "/bin/app": "->../hello", "/s": "/hello\n/gone\n"}
    found = read(files, *command, options=options)
    told = found.missing(tree_of(files), BootCommand(options, (), command))
    assert [start.words[0] for start in told] == ([] if missing is None else [missing])


@settings(deadline=None)
@given(st.text(st.sampled_from(list('/ab "\\;&!\n\t\r -#é$')), max_size=30))
def test_any_text_is_read(text: str) -> None:
    """Each command has a program; what is not read is told."""
    found = read({"/init/1": text, "/s": text}, "runscript", "/s")
    assert all(start.words and isinstance(start, Start) for start in found.starts)
    assert all(isinstance(told, Misread) and told.what and told.cure for told in found.misread)
