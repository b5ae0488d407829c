r"""Names of an image as people see and write them: text that says every byte and moves no cursor.

A name is bytes, and an image is a stranger's. What is printable UTF-8 stands as it is; every other byte is ``\xNN``,
but for ``\n``, ``\r`` and ``\t``; a backslash is ``\\``. So no two names look alike, and what is shown can be given
back.
"""

from __future__ import annotations

import re

_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t", "\\": r"\\"}
_BYTES = {b"\\n": b"\n", b"\\r": b"\r", b"\\t": b"\t", b"\\\\": b"\\"}
_ESCAPE = re.compile(rb"\\(?:x[0-9A-Fa-f]{2}|[nrt\\])")


def escaped(name: bytes, *, plain: bool = False) -> str:
    """The name as text. ``plain``: of ASCII alone, for a terminal or a file that has no other characters."""
    text = name.decode("utf-8", "surrogateescape")
    if text.isprintable() and "\\" not in text and (text.isascii() or not plain):
        return text
    return "".join(each if _stands(each, plain) else _escape(each) for each in text)


def unescaped(text: str) -> bytes:
    """The name that :func:`escaped` shows so. A backslash that begins none of its escapes is one."""
    return _ESCAPE.sub(_byte, literal(text))


def literal(text: str) -> bytes:
    """The bytes of an argument as it was typed."""
    return text.encode("utf-8", "surrogateescape")


def _stands(character: str, plain: bool) -> bool:
    return character.isprintable() and character != "\\" and (character.isascii() or not plain)


def _escape(character: str) -> str:
    return _SHORT.get(character) or "".join(f"\\x{byte:02x}" for byte in literal(character))


def _byte(found: re.Match[bytes]) -> bytes:
    return _BYTES.get(found[0]) or bytes([int(found[0][2:], 16)])
