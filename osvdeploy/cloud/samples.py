"""Numbers by the time of their interval, as a source tells them, made samples of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime

from osvdeploy.cloud.interfaces import Grid, Sample


def samples_of(
    grid: Grid, values: Mapping[datetime, float], per: Mapping[datetime, float] | None
) -> tuple[Sample, ...]:
    """A grid's samples. ``per`` is what the values are counted of: where it is there, a count that is missing is 0, and
    where it is missing or 0, nothing was counted."""
    if per is None:
        found = (Sample(at, value) for at, value in values.items() if math.isfinite(value))
    else:
        counted = ((at, values.get(at, 0.0), of) for at, of in per.items() if of > 0)
        found = (Sample(at, value, of) for at, value, of in counted if math.isfinite(value) and math.isfinite(of))
    return tuple(sorted((each for each in found if grid.holds(each.at)), key=lambda each: each.at))
