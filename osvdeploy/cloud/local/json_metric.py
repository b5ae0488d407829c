"""The number at one place of a JSON document. Source: RFC 6901, JSON Pointer."""

from __future__ import annotations

import math
from typing import Any

from osvdeploy.cloud.interfaces import Grid, JsonMetric, Measured, Sample
from osvdeploy.cloud.local.http_json import get_json
from osvdeploy.cloud.local.prober import HttpProber
from osvdeploy.context import Context
from osvdeploy.errors import Refused


def read(ctx: Context, http: HttpProber, metric: JsonMetric, measured: Measured, grid: Grid) -> tuple[Sample, ...]:
    """One sample, of the grid's last interval: the document tells what is now."""
    url = measured.filled(metric.url, grid.interval)
    document = get_json(ctx, http, url, url, metric.token_variable)
    value = _at(document, metric.pointer, url)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        shown = "a table or list" if isinstance(value, dict | list) else str(value)[:80]
        raise Refused(f"{url}: at {metric.pointer or 'its top'} stands no number, but {shown}")
    return (Sample(grid.start(grid.count - 1), float(value)),)


def _at(document: Any, pointer: str, url: str) -> Any:
    found = document
    for written in pointer.split("/")[1:]:
        token = written.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and token in found:
            found = found[token]
        elif isinstance(found, list) and token.isascii() and token.isdigit() and int(token) < len(found):
            found = found[int(token)]
        else:
            known = f"; there is {', '.join(list(found)[:10])}" if isinstance(found, dict) else ""
            raise Refused(f"{url}: has nothing at {pointer}{known}", hint="mend `pointer` in the spec")
    return found
