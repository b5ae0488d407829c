"""Our tags as Elastic Load Balancing takes them, and back: nothing of a tag is lost on the way.

A value there has letters, digits, separators and ``_.:/=+-@``, 256 at most; EC2 and Auto Scaling take nearly anything,
and EBS direct 255 characters of it (TagValue in each service's model). Of ours the ledger's address alone may have
others: a directory is called as its owner likes. Such a value is told by what it begins with, and in it each byte of a
character that is not taken is ``=`` and two hex digits, as is each ``=``. All others are as they are.
"""

from __future__ import annotations

import re
import unicodedata

from osvdeploy.errors import UsageError

LONGEST = 255
"""Characters of a tag's value that every service takes."""

_BEGIN = "=:"
_SIGNS = "_.:/+-@"
_ESCAPED = re.compile(rb"=([0-9A-F]{2})")
_NOWHERE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML cannot hold."""


def value_of(text: str) -> str:
    """A tag's text as a value that is taken."""
    if all(_is_taken(each) or each == "=" for each in text) and not text.startswith(_BEGIN):
        return text
    return _BEGIN + "".join(each if _is_taken(each) else _bytes_of(each) for each in text)


def text_of(value: str) -> str:
    """The text that a value stands for, whoever wrote it."""
    if not value.startswith(_BEGIN):
        return value
    raw = value.removeprefix(_BEGIN).encode("utf-8", "surrogateescape")
    return _ESCAPED.sub(lambda match: bytes.fromhex(match[1].decode()), raw).decode("utf-8", "surrogateescape")


def refuse_untaggable(ledger: str, key: str) -> None:
    """Raise UsageError for a ledger's address that no tag can carry: the setting at ``key`` names it."""
    if found := _NOWHERE.search(ledger):
        raise UsageError(
            f"{key}: {ledger!r} has the character {found[0]!r}, which no tag on AWS can have",
            hint="all that is made for a service names its ledger in a tag: choose another directory",
        )
    if (length := max(len(ledger), len(value_of(ledger)))) > LONGEST:
        spelt = "" if length == len(ledger) else ", as it has to be written there,"
        raise UsageError(
            f"{key}: {ledger} is {length} characters long{spelt} and a tag on AWS has {LONGEST} at most",
            hint="all that is made for a service names its ledger in a tag: choose a shorter prefix or directory",
        )


def _is_taken(character: str) -> bool:
    return character in _SIGNS or unicodedata.category(character)[0] in "LNZ"


def _bytes_of(character: str) -> str:
    return "".join(f"={byte:02X}" for byte in character.encode("utf-8", "surrogateescape"))
