"""Plain tables for people: aligned, no colour, cut at the last column alone."""

from __future__ import annotations

from collections.abc import Sequence


def table(heading: Sequence[str], rows: Sequence[Sequence[str]], *, last_width: int | None = None) -> str:
    """The rows under their heading, two spaces apart; the last column is cut at ``last_width`` characters."""
    cells = [tuple(heading), *(tuple(str(cell) for cell in row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heading) - 1)]
    lines = []
    for row in cells:
        last = row[-1].splitlines()[0] if row[-1] else ""
        if last_width is not None and len(last) > last_width:
            last = last[: last_width - 1] + "…"
        lines.append("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), last]).rstrip())
    return "\n".join(lines)
