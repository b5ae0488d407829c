"""What a project may have: by which of Google's names, and of which region."""

from __future__ import annotations

import json

import pytest

from osvdeploy.cloud.gcp.quotas import RegionQuotas
from osvdeploy.cloud.interfaces import Quota
from osvdeploy.context import Context
from tests.cloud.gcp.script import Script

TOLD = {
    "quotas": [
        {"metric": "CPUS", "limit": 24.0, "usage": 3.0},
        {"metric": "N2_CPUS", "limit": 8.0, "usage": 0.0},
        {"metric": "INSTANCES", "limit": 100.0, "usage": 2.0},
        {"metric": "STATIC_ADDRESSES", "limit": 8.0, "usage": 1.0},
    ]
}


@pytest.mark.parametrize(
    ("machine", "name"),
    [("e2-small", "CPUS"), ("n1-standard-1", "CPUS"), ("g1-small", "CPUS"), ("n2-highcpu-2", "N2_CPUS")],
)
@pytest.mark.parametrize("place", ["europe-west1", "europe-west1-b"])
def test_a_machine_counts_against_its_series(machine: str, name: str, place: str) -> None:
    """Of a zone it is its region that is asked; machines count by their number, too."""
    script = Script([(200, json.dumps(TOLD).encode())])
    limit, used = (8.0, 0.0) if name == "N2_CPUS" else (24.0, 3.0)
    found = RegionQuotas(script.gcp(), place).of(Context(), machine)
    assert found == (Quota(name, limit, used), Quota("INSTANCES", 100.0, 2.0))
    assert str(script.asked[0].url).endswith("/projects/p/regions/europe-west1")


def test_a_quota_that_the_region_does_not_tell_of_is_left_out() -> None:
    """Nothing is guessed in its place."""
    script = Script([(200, json.dumps(TOLD).encode())])
    assert [each.name for each in RegionQuotas(script.gcp(), "europe-west1").of(Context(), "c3-standard-4")] == [
        "INSTANCES"
    ]
