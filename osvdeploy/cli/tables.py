"""Plain tables for people: aligned, no colour, cut or folded at the last column alone."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence

_WIDE, _NARROW = 100, 24

_PROSE = 50
"""Two columns of prose share at least so much, or are none: narrower ones have a word or two on each line."""


def width() -> int:
    """How wide text for people is: the terminal's width, and 100 at most; 100 where stdout is none."""
    return min(_WIDE, shutil.get_terminal_size().columns) if sys.stdout.isatty() else _WIDE


def folded(text: str, indent: int, width: int) -> str:
    """``text``, which begins ``indent`` characters from the left, on lines no longer than ``width``, one below the
    other. Folded at spaces alone: a path, an address or a digest is never broken."""
    if indent + len(text) <= width:
        return text
    lines = textwrap.wrap(text, max(_NARROW, width - indent), break_long_words=False, break_on_hyphens=False)
    return ("\n" + " " * indent).join(lines)


def table(
    heading: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    last_width: int | None = None,
    fold: int | None = None,
    within: int | None = None,
) -> str:
    """The rows under their heading, two spaces apart. The last column is cut at ``last_width`` characters, or folded so
    that the whole is ``fold`` wide. With ``within`` it is cut to that width of the whole too; where it would be narrow,
    it stands below its row, by its heading's name, and so do those before it until the others fit."""
    cells = [tuple(heading), *(tuple(str(cell) for cell in row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heading) - 1)]
    if within is not None:
        room = within - sum(widths) - 2 * len(widths)
        if room < min(_NARROW, max(len(row[-1]) for row in cells)):
            return _cut_below(heading, rows, within)
        last_width = min(last_width or room, room)
    lines = []
    for row in cells:
        last = row[-1].splitlines()[0] if row[-1] else ""
        if last_width is not None:
            last = _cut(last, last_width)
        if fold is not None:
            last = folded(last, sum(widths) + 2 * len(widths), fold)
        lines.append("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), last]).rstrip())
    return "\n".join(lines)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _cut_below(heading: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> str:
    beside = len(heading) - 1
    while True:
        first, *fronts = table(heading[:beside], [row[:beside] for row in rows]).splitlines()
        if beside == 1 or max(map(len, (first, *fronts))) <= width:
            break
        beside -= 1
    lines = [first]
    for front, row in zip(fronts, rows, strict=True):
        lines.append(front)
        for name, cell in zip(heading[beside:], row[beside:], strict=True):
            if cell:
                lines.append(_cut(f"  {name.lower()}: {cell.splitlines()[0]}", width))
    return "\n".join(lines)


def wrapped_table(heading: Sequence[str], rows: Sequence[Sequence[str]], *, width: int) -> str:
    """The rows under their heading, in ``width`` characters: the last two columns are prose and share what the others
    leave, wrapped; of the others none takes more than 40. A blank line parts rows of several lines. Where too little is
    left for prose, it stands below the others, and the heading is left out."""
    prose = len(heading) - 2
    fixed = [min(max(len(row[column]) for row in (heading, *rows)), 40) for column in range(prose)]
    left = width - sum(fixed) - 2 * (len(heading) - 1)
    if left < _PROSE:
        return "\n\n".join(_stacked(heading, row, width) for row in rows)
    widths = [*fixed, left * 3 // 5, left - left * 3 // 5]
    told = []
    for row in (heading, *rows):
        cells = [textwrap.wrap(cell, size) or [""] for cell, size in zip(row, widths, strict=True)]
        height = max(map(len, cells))
        lines = [
            "  ".join(
                (cell[line] if line < len(cell) else "").ljust(size) for cell, size in zip(cells, widths, strict=True)
            )
            for line in range(height)
        ]
        told.append("\n".join(line.rstrip() for line in lines))
    # Rows that all fit on a line need no space between them.
    return ("\n\n" if any("\n" in row for row in told[1:]) else "\n").join(told)


def _stacked(heading: Sequence[str], row: Sequence[str], width: int) -> str:
    """One row of a table that has no room for its prose: that below the rest, the last of it by its heading's name."""
    *fixed, what, last = row
    prose = (what, f"{heading[-1].lower()}: {last}")
    return "\n".join(["  ".join(fixed).rstrip(), *("  " + folded(text, 2, width) for text in prose)])
