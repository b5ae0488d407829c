"""OSv's command line: a value, and the bytes that stand at byte 512 of a disk.

The line has two parts with two grammars. In front stand boot options, tokens that begin with ``-``; they are split by
``stresep`` (libc/string/stresep.c): white space separates, a backslash takes the next character as it is, quotes mean
nothing. Then comes the program's own line, read by the grammar of core/commands.cc: words between spaces, ``"..."``
around what needs it, C escapes in and outside of quotes, and ``;``, ``&``, ``!`` between programs. That grammar is
built of boost's *ascii* ``char_``, which matches no byte above 127, so words are ASCII; options and environment are not
bound by it. A ``$`` in a word is never literal: OSv replaces it and all that follows by the variable of that name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from osvdeploy.errors import CommandLineInvalid

COMMAND_LINE_LIMIT = 32_255
"""Longest line in bytes: the boot sector reads 63 sectors (arch/x64/boot16.S), one byte of which ends the line."""

ESCAPE_REACH = 1024
"""OSv removes a backslash from an option by moving the rest of the line, NUL included, over it (stresep); from this
length on its memmove takes a copy routine that loses bytes where the ranges overlap. Seen on v0.57.0-398."""

SET_BY_KERNEL = frozenset({"OSV_VERSION", "OSV_CPUS", "OSV_IP"})
"""Variables every program sees without ``--env`` (loader.cc); OSV_IP only with exactly one network interface."""

RELEASE_VARIABLE = "OSVDEPLOY_RELEASE"
"""The variable a release's command line adds; it names the release, and is in no digest."""

_OPTION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_OPTION_SPECIAL = re.compile(r"([ \t\n\\])")
_BARE_WORD = re.compile(r"[A-Za-z0-9_./:=,+@%^~{}()\[\]<>|?*#$'-]+")
_ESCAPES = {"\a": "a", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t", "\v": "v", "\\": "\\", '"': '"'}
_UNESCAPES = {letter: char for char, letter in _ESCAPES.items()} | {"'": "'"}
_SPACE = " \t\n\v\f\r"
_OPTION_DELIMITERS = " \t\n"


@dataclass(frozen=True, slots=True)
class BootCommand:
    """One command line: boot ``options`` in order (name without dashes; None for a flag), ``environment`` in order,
    and the ``words`` of the program's own line. ``$NAME`` at the end of a word is OSv's own: the variable's value."""

    options: tuple[tuple[str, str | None], ...]
    environment: tuple[tuple[str, str], ...]
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a program's line: its ``words``, and what ends it (``""``, ``;``, ``&``, ``&!`` or ``!``).

    ``joined``: it goes over the end of a line. ``white``: words, not in quotes, that hold a line's end or a tab.
    """

    words: tuple[str, ...]
    ending: str
    joined: bool = False
    white: tuple[str, ...] = ()


def encode(boot: BootCommand) -> bytes:
    """The line as OSv reads it, without the NUL that ends it.

    Raises CommandLineInvalid, naming the option, variable or word, for what OSv would read as something else or not at
    all: it powers off on a line it cannot read, so a guess here is a machine that never starts.
    """
    _check_options(boot.options)
    tokens = [_option(name, value) for name, value in boot.options]
    tokens += [_variable(key, value) for key, value in boot.environment]
    options = " ".join(tokens)
    known = {key for key, _ in boot.environment} | SET_BY_KERNEL | {RELEASE_VARIABLE}
    tokens += [_word(word, position, known) for position, word in enumerate(boot.words)]
    line = " ".join(tokens)
    try:
        encoded = line.encode()
    except UnicodeEncodeError as error:
        raise CommandLineInvalid(
            f"command line: {line[max(0, error.start - 20) : error.end]!r} holds bytes that are no text"
        ) from None
    _check_length(encoded, options)
    return encoded


def decode(line: bytes) -> BootCommand:
    """What OSv makes of a line (without its NUL). ``decode(encode(boot)) == boot``.

    Raises CommandLineInvalid where OSv would refuse the line, and for a line that runs several programs, which a
    BootCommand does not hold.
    """
    if b"\0" in line:
        raise CommandLineInvalid(f"command line: a NUL at byte {line.index(0)} ends it early")
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise CommandLineInvalid(f"command line: byte {error.start} is not UTF-8") from None
    tokens, rest = _split_options(text)
    options: list[tuple[str, str | None]] = []
    environment: list[tuple[str, str]] = []
    for token in tokens:
        if not token.startswith("--"):
            raise CommandLineInvalid(f"command line: {token!r} is not an option: OSv's begin with two dashes")
        name, equals, value = token[2:].partition("=")
        if name == "env" and equals:
            key, assigned, setting = value.partition("=")
            if not assigned or not key:
                raise CommandLineInvalid(f"command line: {token!r} sets no variable; write --env=NAME=value")
            environment.append((key, setting))
        else:
            options.append((name, value if equals else None))
    _check_options(options)
    return BootCommand(tuple(options), tuple(environment), _only_words(rest))


def options_of(line: bytes) -> tuple[tuple[str, str | None], ...]:
    """The boot options that a line begins with, without variables; of a line that :func:`decode` does not read too, as
    far as OSv would read it."""
    try:
        tokens, _ = _split_options(line.partition(b"\0")[0].decode(errors="surrogateescape"))
    except CommandLineInvalid:
        return ()
    parts = [token.removeprefix("--").partition("=") for token in tokens]
    return tuple((name, value if equals else None) for name, equals, value in parts if name != "env")


def with_options(line: bytes, options: Mapping[str, Sequence[str | None]]) -> bytes:
    """A line with other boot options: for each name, ``options`` has all its values (None for a flag, none: left out).

    The program's own part stays as it is, byte for byte, also where it is none that :func:`decode` reads: several
    programs, a runscript. Raises CommandLineInvalid for options that OSv would refuse, or a line too long.
    """
    tokens, rest = _split_options(line.partition(b"\0")[0].decode(errors="surrogateescape"))
    kept = [token for token in tokens if token.removeprefix("--").partition("=")[0] not in options]
    wanted = [(name, value) for name, values in options.items() for value in values]
    _check_options(wanted)
    front = " ".join([_escape_option(token) for token in kept] + [_option(name, value) for name, value in wanted])
    encoded = (f"{front} {rest}" if front and rest else front or rest).encode(errors="surrogateescape")
    _check_length(encoded, front)
    return encoded


def with_environment(boot: BootCommand, variables: Mapping[str, str]) -> BootCommand:
    """``boot`` with ``variables`` set: one that it has already keeps its place, new ones follow in their own order."""
    merged = dict(boot.environment) | dict(variables)
    return BootCommand(boot.options, tuple(merged.items()), boot.words)


def _check_length(encoded: bytes, options: str) -> None:
    """``options`` is how the line begins."""
    if len(encoded) > COMMAND_LINE_LIMIT:
        raise CommandLineInvalid(
            f"command line: {len(encoded)} bytes, and the boot sector reads {COMMAND_LINE_LIMIT}",
            hint="put long values into a file of the image and let the program read it",
        )
    escape = encoded.find(b"\\", 0, len(options.encode(errors="surrogateescape")))
    if escape >= 0 and len(encoded) - escape >= ESCAPE_REACH:
        start = encoded.rfind(b" ", 0, escape) + 1
        raise CommandLineInvalid(
            f"command line: {encoded[start : escape + 20].decode(errors='replace')!r} needs a backslash, and "
            f"OSv loses bytes of a line with {ESCAPE_REACH} bytes or more behind one",
            hint="shorten the line, or take spaces, tabs, newlines and backslashes out of options and variables",
        )


def _check_options(options: tuple[tuple[str, str | None], ...] | list[tuple[str, str | None]]) -> None:
    flags: dict[str, bool] = {}
    for name, value in options:
        if _OPTION_NAME.fullmatch(name) is None:
            raise CommandLineInvalid(f"boot option {name!r}: a name is letters, digits, '-' and '_'")
        if name == "env":
            raise CommandLineInvalid("boot option 'env': variables are set as NAME=value", hint="use `env` in the spec")
        if value == "":
            raise CommandLineInvalid(
                f"boot option {name!r}: an empty value; OSv powers off on it", hint="leave the option out"
            )
        # core/options.cc keeps flags and valued options in one map and refuses one name as both.
        if flags.setdefault(name, value is None) != (value is None):
            raise CommandLineInvalid(f"boot option {name!r}: given with a value and without; OSv powers off on it")


def _option(name: str, value: str | None) -> str:
    if value is None:
        return f"--{name}"
    _refuse_nul(value, f"boot option {name!r}")
    return f"--{name}=" + _escape_option(value)


def _variable(key: str, value: str) -> str:
    if not key or "=" in key:
        raise CommandLineInvalid(f"environment variable {key!r}: a name is not empty and holds no '='")
    _refuse_nul(key + value, f"environment variable {key!r}")
    return "--env=" + _escape_option(f"{key}={value}")


def _escape_option(text: str) -> str:
    return _OPTION_SPECIAL.sub(r"\\\1", text)


def _word(word: str, position: int, known: set[str] | frozenset[str]) -> str:
    place = f"command word {position + 1}, {word!r}"
    _refuse_nul(word, place)
    if not word.isascii():
        raise CommandLineInvalid(
            f"{place}: OSv reads only ASCII in the program's line",
            hint="set a variable in `env`, which may hold any text, and write $NAME as the word",
        )
    _, dollar, name = word.partition("$")
    if dollar and name not in known:
        raise CommandLineInvalid(
            f"{place}: OSv takes all that follows the first '$' as a variable's name, and {name!r} is not set",
            hint="OSv has no way to write a literal '$' here: set a variable in `env` and end the word with $NAME",
        )
    # The first word must not look like a boot option; in quotes it does not.
    if _BARE_WORD.fullmatch(word) and not (position == 0 and word.startswith("-")):
        return word
    return '"' + "".join(f"\\{_ESCAPES[char]}" if char in _ESCAPES else char for char in word) + '"'


def _refuse_nul(text: str, place: str) -> None:
    if "\0" in text:
        raise CommandLineInvalid(f"{place}: holds a NUL, which ends the line")


def _split_options(text: str) -> tuple[list[str], str]:
    """The leading tokens that begin with a dash, unescaped, and the rest: loader_parse_cmdline in core/commands.cc."""
    tokens: list[str] = []
    at = 0
    while True:
        while at < len(text) and text[at] in _OPTION_DELIMITERS:
            at += 1
        if at == len(text) or text[at] != "-":
            return tokens, text[at:]
        token: list[str] = []
        while at < len(text) and text[at] not in _OPTION_DELIMITERS:
            if text[at] == "\\":
                at += 1
                if at == len(text):
                    raise CommandLineInvalid(f"command line: option {''.join(token)!r} ends in a lone backslash")
            token.append(text[at])
            at += 1
        tokens.append("".join(token))


def _only_words(line: str) -> tuple[str, ...]:
    commands = list(read_commands(line))
    for command in commands:
        if command.ending:
            raise CommandLineInvalid(
                f"command line: {command.ending!r} behind {command.words[-1]!r} starts another program"
            )
    return commands[0].words if commands else ()


def read_commands(line: str) -> Iterator[Command]:
    """The commands that OSv reads from a program's line, as far as it reads them: at what raises CommandLineInvalid it
    stops, and leaves out all that follows.

    core/commands.cc: a command is words up to ``;``, ``&``, ``&!``, ``!`` or the end. A word without quotes is ended by
    one of these or by a space, and by no other white space; between words, and in front, all white space is skipped.
    """
    at = end = 0
    if not line.strip(_SPACE + ";"):
        return
    while True:
        words: list[str] = []
        white: list[str] = []
        joined = False
        while (at := _past(line, at, _SPACE)) < len(line) and line[at] not in ";&!":
            joined = joined or (bool(words) and "\n" in line[end:at])
            start, (word, at) = at, _read_word(line, at)
            end = at
            words.append(word)
            if line[start] != '"' and any(space in _SPACE for space in line[start:end]):
                white.append(word)
        if not words:
            if at < len(line):
                raise CommandLineInvalid(f"command line: no program stands before {line[at : at + 20]!r}")
            return
        ending = line[at : at + 2] if line.startswith("&!", at) else line[at : at + 1]
        at += len(ending)
        yield Command(tuple(words), ending, joined, tuple(white))


def _read_word(line: str, start: int) -> tuple[str, int]:
    """The word at ``start``, and where it ends."""
    quoted = line[start] == '"'
    at = start + quoted
    word: list[str] = []
    while at < len(line) and line[at] not in ('"' if quoted else " ;&!"):
        if not line[at].isascii():
            raise CommandLineInvalid(f"command line: {line[start : at + 1]!r}: OSv reads only ASCII in a word")
        if line[at] == "\\" and line[at + 1 : at + 2] in _UNESCAPES:
            at += 1
            word.append(_UNESCAPES[line[at]])
        else:
            word.append(line[at])
        at += 1
    if quoted:
        if at == len(line):
            raise CommandLineInvalid(f"command line: the quote at {line[start : start + 40]!r} is not closed")
        at += 1
    return "".join(word), at


def _past(line: str, at: int, skipped: str) -> int:
    while at < len(line) and line[at] in skipped:
        at += 1
    return at
