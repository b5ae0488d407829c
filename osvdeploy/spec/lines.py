"""Where in a TOML text each key stands. Only errors ask for it, so nothing here is imported when all is well."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tree_sitter import Node

Path = tuple[str | int, ...]


def lines_of(text: str) -> dict[Path, int]:
    """Line (from 1) of every table, key and array element, by its path; of a broken text, what can be told."""
    import tree_sitter
    import tree_sitter_toml

    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_toml.language()))
    found: dict[Path, int] = {}
    elements: dict[Path, int] = {}
    for node in parser.parse(text.encode(errors="replace")).root_node.children:
        try:
            _top(node, found, elements)
        except RecursionError:
            # Nested so deeply that only a machine wrote it: its line stays unknown, the problem is told all the same.
            continue
    return found


def line_of(path: Path, lines: dict[Path, int]) -> int | None:
    """The line of a path, or of the nearest table around it."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return None


def syntax_error(error: tomllib.TOMLDecodeError, text: str) -> tuple[int, str]:
    """tomllib's message taken apart: line, and what is wrong."""
    told = " ".join(str(error).split())
    match = re.search(r" \(at line (\d+), column (\d+)\)$", told)
    if match is None:
        return text.rstrip().count("\n") + 1, f"{told.removesuffix(' (at end of document)')} (at the end)"
    return int(match[1]), f"{told[: match.start()]} (column {match[2]})"


def _top(node: Node, found: dict[Path, int], elements: dict[Path, int]) -> None:
    match node.type:
        case "pair":
            _pair(node, (), found)
        case "table":
            path = _resolved(_key(node), elements)
            _note(path, node, found)
            _pairs(node, path, found)
        case "table_array_element":
            path = _resolved(_key(node), elements)
            elements[path] = elements.get(path, -1) + 1
            _note(path, node, found)
            path = (*path, elements[path])
            _note(path, node, found)
            _pairs(node, path, found)


def _pairs(table: Node, path: Path, found: dict[Path, int]) -> None:
    for child in table.children:
        if child.type == "pair":
            _pair(child, path, found)


def _pair(node: Node, above: Path, found: dict[Path, int]) -> None:
    path = (*above, *_key(node))
    _note(path, node, found)
    if node.named_children:
        _value(node.named_children[-1], path, found)


def _value(node: Node, path: Path, found: dict[Path, int]) -> None:
    if node.type == "inline_table":
        _pairs(node, path, found)
    elif node.type == "array":
        values = [child for child in node.named_children if child.type != "comment"]
        for number, child in enumerate(values):
            _note((*path, number), child, found)
            _value(child, (*path, number), found)


def _key(node: Node) -> tuple[str, ...]:
    """The key that begins a pair or a table's header."""
    for child in node.named_children:
        if child.type in ("bare_key", "quoted_key", "dotted_key"):
            return _parts(child)
    return ()


def _parts(key: Node) -> tuple[str, ...]:
    if key.type == "dotted_key":
        return tuple(part for child in key.named_children for part in _parts(child))
    text = (key.text or b"").decode(errors="replace")
    if key.type == "bare_key":
        return (text,)
    try:
        return (next(iter(tomllib.loads(f"{text} = 0"))),)
    except tomllib.TOMLDecodeError:
        return (text,)


def _resolved(key: tuple[str, ...], elements: dict[Path, int]) -> Path:
    """A header's path with the running number of each array of tables that it goes through."""
    path: Path = ()
    for number, part in enumerate(key):
        path = (*path, part)
        if path in elements and number < len(key) - 1:
            path = (*path, elements[path])
    return path


def _note(path: Path, node: Node, found: dict[Path, int]) -> None:
    """The first place of a path; of the tables around it too, which ``[deploy.production.health]`` alone may name."""
    for length in range(1, len(path)):
        found.setdefault(path[:length], node.start_point.row + 1)
    found.setdefault(path, node.start_point.row + 1)
