"""Our tags as Google's labels, and back: nothing of a tag is lost on the way.

A label's name and value take lower-case letters, digits, dashes and underlines, 63 of them at most, and a resource has
64 labels ("Organize resources using labels"). So ``osvdeploy:app`` is ``osvdeploy-app``; in a value each byte of
another character, and the underline, is ``_`` and two hex digits; and what is longer goes on in ``osvdeploy-digest-2``.
Labels of the user's own are as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from osvdeploy.cloud.interfaces import Tags
from osvdeploy.cloud.tags import NAME, SCHEMA

LONGEST = 63

_NAME_LABEL = f"{SCHEMA}-name"
_OURS = re.compile(rf"(?P<name>{SCHEMA}(?:-[a-z]+)?)(?:-(?P<number>[0-9]+))?")
_PLAIN = re.compile(rb"[a-z0-9-]")
_ESCAPED = re.compile(rb"_([0-9a-f]{2})")


def labels_of(tags: Tags) -> dict[str, str]:
    """The labels that carry these tags."""
    labels: dict[str, str] = {}
    for tag, value in tags.items():
        name = _label(tag)
        if name is None:
            labels[tag] = value
            continue
        text = _escaped(value)
        for number, at in enumerate(range(0, max(1, len(text)), LONGEST), 1):
            labels[name if number == 1 else f"{name}-{number}"] = text[at : at + LONGEST]
    return labels


def tags_of(labels: Mapping[str, str]) -> dict[str, str]:
    """The tags that labels carry."""
    tags: dict[str, str] = {}
    pieces: dict[str, dict[int, str]] = {}
    for label, value in labels.items():
        ours = _OURS.fullmatch(label)
        if ours is None:
            tags[label] = value
        else:
            pieces.setdefault(ours["name"], {})[int(ours["number"] or 1)] = value
    for name, parts in pieces.items():
        text = "".join(parts[number] for number in sorted(parts))
        tags[NAME if name == _NAME_LABEL else name.replace("-", ":", 1)] = _unescaped(text)
    return tags


def matching(tags: Tags) -> str:
    """A filter for lists of what is ours and carries these tags."""
    wanted = [f'labels.{name}="{value}"' for name, value in labels_of(tags).items() if value]
    return " ".join(f"({each})" for each in (f"labels.{SCHEMA}:*", *wanted))


def _label(tag: str) -> str | None:
    """What a tag of ours is called, None for one of the user's."""
    if tag == NAME:
        return _NAME_LABEL
    return tag.replace(":", "-") if tag.startswith(SCHEMA) else None


def _escaped(value: str) -> str:
    raw = value.encode("utf-8", "surrogateescape")
    return "".join(chr(byte) if _PLAIN.match(bytes([byte])) else f"_{byte:02x}" for byte in raw)


def _unescaped(text: str) -> str:
    raw = _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), text.encode("utf-8", "surrogateescape"))
    return raw.decode("utf-8", "surrogateescape")
