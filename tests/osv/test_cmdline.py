from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.errors import CommandLineInvalid
from osvdeploy.osv.cmdline import (
    COMMAND_LINE_LIMIT,
    BootCommand,
    decode,
    encode,
    options_of,
    with_environment,
    with_options,
)
from tests.osv.images import boot_commands, text, variable_names

EMPTY = BootCommand((), (), ("/hello",))


@settings(max_examples=200, deadline=None)
@given(boot_commands())
def test_any_command_reads_back_as_written(boot: BootCommand) -> None:
    """What is encoded is read by OSv's two grammars as the same options, variables and words."""
    assert decode(encode(boot)) == boot


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.text(" -=\\\"a$;&!\n\t'é", max_size=30).map(str.encode)))
def test_any_bytes_are_read_or_refused(line: bytes) -> None:
    """Any bytes are a command that encodes to an equal one, or are refused by name; nothing else happens."""
    try:
        boot = decode(line)
    except CommandLineInvalid:
        return
    try:
        assert decode(encode(boot)) == boot
    except CommandLineInvalid as refusal:
        assert "$" in str(refusal)


@settings(max_examples=100, deadline=None)
@given(boot_commands(), st.binary(max_size=20))
def test_the_options_of_any_line_are_known(boot: BootCommand, rest: bytes) -> None:
    """Those before the program, whatever follows it and whoever can read that; variables are none."""
    line = encode(BootCommand(boot.options, boot.environment, ()))
    assert options_of(line) == boot.options
    assert options_of(line + b" /a --no-option;" + rest) == boot.options
    assert options_of(b"--a --b\\") == ()


def test_the_line_is_what_osv_documents() -> None:
    """Options first, then variables, then the program; a space is escaped in front and quoted behind."""
    boot = BootCommand(
        (("verbose", None), ("rootfs", "rofs")), (("NAME", "two words"),), ("/hello", "--as", "you & me")
    )
    assert encode(boot) == rb'--verbose --rootfs=rofs --env=NAME=two\ words /hello --as "you & me"'


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"/prog a  b\tc ", ("/prog", "a", "b\tc")),
        (b'/prog "a b"c', ("/prog", "a b", "c")),
        (b'/prog a"b', ("/prog", 'a"b')),
        (rb'/prog "\t\"\\" \x', ("/prog", '\t"\\', r"\x")),
        (b'/prog ""', ("/prog", "")),
        (b'"-prog"', ("-prog",)),
        (b"", ()),
    ],
)
def test_words_are_split_as_osv_splits_them(line: bytes, words: tuple[str, ...]) -> None:
    """Each of these is what core/commands.cc makes of the line."""
    assert decode(line).words == words


@pytest.mark.parametrize(
    ("boot", "names"),
    [
        (BootCommand((), (), ("/hello", "a\0b")), "'a\\x00b'"),
        (BootCommand((), (), ("/hello", "grüße")), "'grüße'"),
        (BootCommand((), (), ("/hello", "cost: $5")), "'cost: $5'"),
        (BootCommand((), (("A", "1"),), ("/hello", "$A/b")), "'$A/b'"),
        (BootCommand((), (), ("/hello", "${OSV_IP}")), "'${OSV_IP}'"),
        (BootCommand((("verbose", ""),), (), ("/hello",)), "'verbose'"),
        (BootCommand((("no name", None),), (), ("/hello",)), "'no name'"),
        (BootCommand((("env", "A=1"),), (), ("/hello",)), "'env'"),
        (BootCommand((("cwd", None), ("cwd", "/a")), (), ("/hello",)), "'cwd'"),
        (BootCommand((("cwd", "a\0"),), (), ("/hello",)), "'cwd'"),
        (BootCommand((), (("", "1"),), ("/hello",)), "''"),
        (BootCommand((), (("A=B", "1"),), ("/hello",)), "'A=B'"),
        (BootCommand((), (("A", "\udc80"),), ("/hello",)), "\\udc80"),
    ],
)
def test_what_osv_cannot_read_is_refused_by_name(boot: BootCommand, names: str) -> None:
    """A line that OSv would read as something else is never written, and the error names the part at fault."""
    with pytest.raises(CommandLineInvalid) as refused:
        encode(boot)
    assert names in str(refused.value)


@pytest.mark.parametrize(
    "line",
    [
        b"/a; /b",
        b"/a &",
        b"/a !",
        b'/a "b',
        b"-x /a",
        b"--env=A /a",
        b"--cwd= /a",
        b"--cwd=/a\\",
        b"a\0b",
        b"/\xff",
        b"\xc3\xa9",
    ],
)
def test_a_line_that_is_no_single_command_is_refused(line: bytes) -> None:
    """Several programs, open quotes, options OSv powers off on: each is an error, not a guess."""
    with pytest.raises(CommandLineInvalid):
        decode(line)


def test_the_limit_is_the_boot_sectors() -> None:
    """The longest line that the boot sector reads is accepted, one byte more is not."""
    longest = BootCommand((), (), ("/" + "a" * (COMMAND_LINE_LIMIT - 1),))
    assert len(encode(longest)) == 32_255
    with pytest.raises(CommandLineInvalid, match="32256 bytes"):
        encode(BootCommand((), (), (longest.words[0] + "a",)))


@settings(max_examples=50, deadline=None)
@given(boot_commands(), st.dictionaries(variable_names, text, max_size=3))
def test_a_release_adds_and_replaces_variables(boot: BootCommand, variables: dict[str, str]) -> None:
    """New variables win over old ones; old names keep their order, new ones follow; the rest stays as it was."""
    released = with_environment(boot, variables)
    assert dict(released.environment) == dict(boot.environment) | variables
    old = list(dict(boot.environment))
    assert [key for key, _ in released.environment] == old + [key for key in variables if key not in old]
    assert (released.options, released.words) == (boot.options, boot.words)


def test_setting_variables_twice_is_setting_them_once() -> None:
    """The command line of a release does not depend on how often its variables were set."""
    once = with_environment(EMPTY, {"B": "2", "A": "1"})
    assert with_environment(once, {"A": "1"}) == once == BootCommand((), (("B", "2"), ("A", "1")), ("/hello",))


def test_a_long_line_behind_a_backslash_is_refused() -> None:
    """OSv would lose bytes of it; the same length without a backslash is fine."""
    long = ("LONG", "x" * 1100)
    assert encode(BootCommand((), (long, ("B", "plain")), ("/app",)))
    assert encode(BootCommand((), (long, ("B", "a b")), ("/app",)))
    with pytest.raises(CommandLineInvalid, match="needs a backslash"):
        encode(BootCommand((), (("B", "a b"), long), ("/app",)))


@settings(max_examples=100, deadline=None)
@given(boot_commands(), boot_commands())
def test_other_options_leave_the_program_alone(boot: BootCommand, other: BootCommand) -> None:
    """Those named have the new values, the others stay, and so do variables and words."""
    wanted: dict[str, list[str | None]] = {}
    for name, value in other.options:
        wanted.setdefault(name, []).append(value)
    try:
        changed = decode(with_options(encode(boot), wanted))
    except CommandLineInvalid as error:
        assert "needs a backslash" in str(error)
        return
    kept = [option for option in boot.options if option[0] not in wanted]
    named = [(name, value) for name, values in wanted.items() for value in values]
    assert list(changed.options) == kept + named
    assert (changed.environment, changed.words) == (boot.environment, boot.words)


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        (b"", b"--verbose"),
        (b"/a & /b --x; runscript /c", b"--verbose /a & /b --x; runscript /c"),
        (b"--delay=1 --env=A=b\\ c /\xff", b"--env=A=b\\ c --verbose /\xff"),
        (b"--verbose\0rubbish", b"--verbose"),
    ],
)
def test_other_options_go_in_front_of_any_line(line: bytes, changed: bytes) -> None:
    """Also where several programs stand, or bytes that are no text; what is replaced by nothing is gone."""
    assert with_options(line, {"delay": [], "verbose": [None]}) == changed


def test_other_options_are_held_to_the_same_limits() -> None:
    """Too long for the boot sector, both flag and value, an empty value: OSv would power off on them, or lose them."""
    for options in ({"cwd": ["/" + "x" * COMMAND_LINE_LIMIT]}, {"cwd": ["/", None]}, {"cwd": [""]}, {"a b": ["c"]}):
        with pytest.raises(CommandLineInvalid):
            with_options(b"/a", options)
    with pytest.raises(CommandLineInvalid, match="needs a backslash"):
        with_options(b"/" + b"a" * 1100, {"cwd": ["/a b"]})
