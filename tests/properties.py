"""How many examples a property is tried with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import is_hypothesis_test, settings

FEWEST = 10


def try_fewer(test: Callable[..., Any]) -> None:
    """Try a property with a quarter of the examples it asks for, but ten where it asks for that many.

    A test's own ``@settings`` count for more than any profile, so it is there that they have to be changed.
    """
    if is_hypothesis_test(test):
        wrapped: Any = getattr(test, "__func__", test)
        full: settings = wrapped._hypothesis_internal_use_settings
        fewer = min(full.max_examples, max(FEWEST, full.max_examples // 4))
        wrapped._hypothesis_internal_use_settings = settings(full, max_examples=fewer)
