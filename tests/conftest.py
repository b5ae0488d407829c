"""Options of the whole suite."""

from __future__ import annotations

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent / "benchmarks"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--benchmarks", action="store_true", help="measure; prints ratios, asserts no time")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Measuring takes a while and says nothing on a busy machine: only when asked for."""
    asked: bool = config.getoption("--benchmarks")
    return True if not asked and BENCHMARKS in (collection_path, *collection_path.parents) else None
