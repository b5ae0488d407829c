"""Elements, and text that is only ever text."""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element, tostring

Child = Element | str | None

_HIDDEN = re.compile(
    # Controls, what turns the direction of text around or takes no room, and halves of characters.
    r"[\x00-\x08\x0b\x0c\x0d\x0e-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\uffff\ud800-\udfff]"
)


def element(tag: str, /, *children: Child, **attributes: str | float | None) -> Element:
    """An element. Of an attribute's name a last underscore is dropped, and others are dashes; None leaves one out. Text
    is made visible, and escaped when the page is written."""
    made = Element(tag)
    for key, value in attributes.items():
        if value is not None:
            shown = f"{value:.6g}" if isinstance(value, float) else visible(str(value))
            made.set(key if key in _AS_THEY_ARE else key.rstrip("_").replace("_", "-"), shown)
    last: Element | None = None
    for child in children:
        if isinstance(child, str):
            text = visible(child)
            if last is None:
                made.text = (made.text or "") + text
            else:
                last.tail = (last.tail or "") + text
        elif child is not None:
            made.append(child)
            last = child
    return made


_AS_THEY_ARE = frozenset({"viewBox", "preserveAspectRatio"})


def visible(text: str) -> str:
    """The same text with what cannot be seen spelled out: a guest's console may hold any bytes."""
    return _HIDDEN.sub(_spelled, text.replace("\r\n", "\n"))


def _spelled(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\N{SYMBOL FOR DELETE}" if code == 0x7F else f"\\u{code:04x}"


def written(page: Element) -> str:
    """The page as HTML."""
    return "<!doctype html>\n" + tostring(page, encoding="unicode", method="html") + "\n"
