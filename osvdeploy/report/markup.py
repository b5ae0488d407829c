"""Elements, and text that is only ever text."""

from __future__ import annotations

from xml.etree.ElementTree import Element, tostring

from osvdeploy.visible import visible

Child = Element | str | None


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


def written(page: Element) -> str:
    """The page as HTML."""
    return "<!doctype html>\n" + tostring(page, encoding="unicode", method="html") + "\n"
