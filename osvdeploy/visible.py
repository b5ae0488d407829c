"""Text of strangers, for people: a guest's console and answers may hold any bytes."""

from __future__ import annotations

import html
import re

_HIDDEN = re.compile(
    # Controls, what turns the direction of text around or takes no room, and halves of characters.
    r"[\x00-\x08\x0b\x0c\x0d\x0e-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff\ud800-\udfff]"
)


_PAGE = re.compile(r"\s*(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
_HEADING = re.compile(r"<(title|h[1-6])\b[^>]*>(.*?)</\1\s*>", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<[^>]*>")


def in_a_line(body: bytes, most: int = 120) -> str:
    """What an answer says, on one line of at most so many characters; of an HTML page its title or first heading, ""
    where it has none."""
    text = body.decode(errors="replace")
    if _PAGE.match(text):
        headings = (" ".join(html.unescape(_TAG.sub(" ", found[2])).split()) for found in _HEADING.finditer(text))
        text = next(filter(None, headings), "")
    return " ".join(text.split())[:most].rstrip()


def visible(text: str) -> str:
    """The same text with what cannot be seen spelled out: a guest's console may hold any bytes."""
    return _HIDDEN.sub(_spelled, text.replace("\r\n", "\n"))


def _spelled(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\N{SYMBOL FOR DELETE}" if code == 0x7F else f"\\u{code:04x}"
