"""Where the simulated clouds make their refusals, and which of those a test has met."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import pytest

from osvdeploy import sandbox
from osvdeploy.sandbox.errors import ApiError

HOME = Path(sandbox.__file__).parent
"""What files are named from."""

_WORDS = {
    "ApiError", "_invalid", "condition_not_met", "failed", "in_use", "invalid", "missing", "no_bucket", "no_group",
    "no_object",    "not_found", "not_modified", "not_ready",
}  # fmt: skip
"""What a refusal is made by: the error, and functions that give it its words."""


@dataclass(frozen=True, order=True)
class Site:
    """A refusal in the source."""

    file: str
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.file}:{self.first}"


def sites(*files: str) -> Iterator[Site]:
    """Every refusal that is made in these files, but for the functions that give it its words."""
    for file in files:
        tree = ast.parse((HOME / file).read_text())
        inside = {id(each) for node in ast.walk(tree) if _gives_words(node) for each in ast.walk(node)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _name(node.func) in _WORDS and id(node) not in inside:
                yield Site(file, node.lineno, node.end_lineno or node.lineno)


def _gives_words(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name in _WORDS


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


@contextmanager
def met() -> Iterator[set[tuple[str, int]]]:
    """Files and lines of the refusals that are made meanwhile."""
    found: set[tuple[str, int]] = set()
    plain = ApiError.__init__

    def noted(self: ApiError, *words: object, **more: object) -> None:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code.co_name in _WORDS:
            frame = frame.f_back
        if frame is not None and (file := Path(frame.f_code.co_filename)).is_relative_to(HOME):
            found.add((file.relative_to(HOME).as_posix(), frame.f_lineno))
        plain(self, *words, **more)  # type: ignore[arg-type]  # as it was called

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ApiError, "__init__", noted)
        yield found


def missed(found: set[tuple[str, int]], *files: str) -> list[str]:
    """The refusals of these files that were not met."""
    return [
        str(site)
        for site in sorted(sites(*files))
        if not any((site.file, line) in found for line in range(site.first, site.last + 1))
    ]
