"""Properties are tried less often where an answer is wanted soon."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.properties import try_fewer


@pytest.mark.parametrize(("asked", "tried"), [(200, 50), (41, 10), (15, 10), (10, 10), (3, 3)])
def test_a_quarter_of_the_examples_is_tried(asked: int, tried: int) -> None:
    """Ten at least, and never more than a property asks for."""
    seen: list[int] = []

    @settings(max_examples=asked, deadline=None, database=None)
    @given(st.integers())
    def holds(number: int) -> None:
        seen.append(number)

    try_fewer(holds)
    holds()
    assert len(seen) == tried
