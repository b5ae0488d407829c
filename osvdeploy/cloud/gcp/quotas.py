"""What a project may have in a region.

Source: Compute Engine API reference (regions.get: quotas); guide, "Allocation quotas": machines of the series E2 and
N1, and the small ones that share a core, count against CPUS; those of most other series against a quota of their own.
"""

from __future__ import annotations

import re

from osvdeploy.cloud.gcp.scope import ZONE
from osvdeploy.cloud.gcp.session import Gcp
from osvdeploy.cloud.interfaces import Quota
from osvdeploy.context import Context

_COMMON = ("e2", "n1", "f1", "g1")
"""Series whose processors count against CPUS."""


class RegionQuotas:
    """:class:`~osvdeploy.cloud.interfaces.Quotas` of the region that a place is, or is in."""

    def __init__(self, gcp: Gcp, place: str) -> None:
        self._gcp = gcp
        self._region = place.rpartition("-")[0] if re.fullmatch(ZONE, place) else place

    def of(self, ctx: Context, machine_type: str) -> tuple[Quota, ...]:
        """Of processors, by the name that the series has for them, and of machines; those that the region tells of."""
        series = machine_type.partition("-")[0]
        processors = "CPUS" if series in _COMMON else f"{series.upper()}_CPUS"
        found = self._gcp.get(ctx, f"{self._gcp.project_path}/regions/{self._region}", f"region {self._region}")
        told = {str(each["metric"]): each for each in found.get("quotas", [])}
        return tuple(
            Quota(name, float(told[name]["limit"]), float(told[name]["usage"]))
            for name in (processors, "INSTANCES")
            if name in told
        )
