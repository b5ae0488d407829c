"""The two kinds of patterns of ``[[files]]``: ``from``, which finds, and ``exclude``, which leaves out.

``*`` is any run of characters within a name, ``?`` one of them, ``[...]`` one of a set, and ``**`` as a whole component
any number of directories, none too. A leading dot is a character like any other: taking a directory takes its hidden
files, and so does a pattern. Links are never followed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator

from osvdeploy.errors import FileTreeInvalid

_MAGIC = re.compile(r"[*?\[]")


def is_pattern(text: str) -> bool:
    return _MAGIC.search(text) is not None


def split_pattern(pattern: str) -> tuple[str, list[str]]:
    """The directories in front of the first wildcard, and the components from there on."""
    components = pattern.split("/")
    first = next(index for index, component in enumerate(components) if is_pattern(component))
    return "/".join(components[:first]) or ("/" if pattern.startswith("/") else ""), [
        c for c in components[first:] if c
    ]


def find(root: bytes, components: list[str]) -> list[bytes]:
    """Paths relative to ``root`` that match, sorted, each once. A directory that cannot be read holds nothing."""
    steps = [None if component == "**" else re.compile(_name(component).encode()) for component in components]
    return sorted(set(_find(root, b"", steps)))


def excluder(patterns: Iterable[str]) -> Callable[[bytes], bool] | None:
    """Whether a relative path itself is left out; None without patterns. What lies below is the caller's to skip.

    A pattern without a slash means a name anywhere, one with a slash a path from the top.
    """
    expressions = [_path(pattern) for pattern in patterns]
    if not expressions:
        return None
    matches = re.compile("|".join(expressions).encode(), re.DOTALL).fullmatch
    return lambda path: matches(path) is not None


def _find(root: bytes, inner: bytes, steps: list[re.Pattern[bytes] | None]) -> Iterator[bytes]:
    step, rest = steps[0], steps[1:]
    if step is None and rest:
        yield from _find(root, inner, rest)
    try:
        with os.scandir(os.path.join(root, inner)) as entries:  # noqa: PTH118 (names are bytes)
            found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    except OSError:
        return
    for name, is_directory in found:
        path = inner + b"/" + name if inner else name
        if step is None:
            if not rest:
                yield path
            if is_directory:
                yield from _find(root, path, steps)
        elif step.fullmatch(name):
            if not rest:
                yield path
            elif is_directory:
                yield from _find(root, path, rest)


def _path(pattern: str) -> str:
    components = [component for component in pattern.split("/") if component]
    if "/" not in pattern.rstrip("/"):
        components = ["**", *components]
    expression = ""
    for index, component in enumerate(components):
        last = index == len(components) - 1
        if component == "**":
            expression += ".*" if last else "(?:[^/]+/)*"
        else:
            expression += _name(component) + ("" if last else "/")
    return f"(?:{expression})"


def _name(component: str) -> str:
    """One component as a regular expression for its UTF-8 bytes. An open bracket that is not closed is a bracket."""
    expression, at = "", 0
    while at < len(component):
        char = component[at]
        at += 1
        if char == "*":
            expression += "[^/]*"
        elif char == "?":
            # One character of UTF-8; a byte that is no text counts for one too.
            expression += r"(?:[\x00-\x2e\x30-\x7f]|[\xc0-\xf7][\x80-\xbf]+|[\x80-\xff])"
        elif char == "[" and (closing := component.find("]", at + 1 + component.startswith("!", at))) > 0:
            expression += _set(component[at:closing])
            at = closing + 1
        else:
            expression += re.escape(char)
    return expression


def _set(content: str) -> str:
    negated = content.startswith("!")
    members = content[negated:]
    choices, at = [], 0
    while at < len(members):
        if at + 2 < len(members) and members[at + 1] == "-":
            first, last = members[at], members[at + 2]
            if not (first.isascii() and last.isascii() and first <= last):
                raise FileTreeInvalid(f"[{content}]: the range {members[at : at + 3]} is not one of ASCII characters")
            choices.append(f"[{re.escape(first)}-{re.escape(last)}]")
            at += 3
        else:
            choices.append(re.escape(members[at]))
            at += 1
    any_of = f"(?:{'|'.join(choices)})" if choices else "(?!)"
    return f"(?!{any_of}){_name('?')}" if negated else any_of
