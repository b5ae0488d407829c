"""Text of strangers, for people: a guest's console and answers may hold any bytes."""

from __future__ import annotations

import re

_HIDDEN = re.compile(
    # Controls, what turns the direction of text around or takes no room, and halves of characters.
    r"[\x00-\x08\x0b\x0c\x0d\x0e-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff\ud800-\udfff]"
)


def visible(text: str) -> str:
    """The same text with what cannot be seen spelled out: a guest's console may hold any bytes."""
    return _HIDDEN.sub(_spelled, text.replace("\r\n", "\n"))


def _spelled(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\N{SYMBOL FOR DELETE}" if code == 0x7F else f"\\u{code:04x}"
