"""How long the fault suites take as a whole. The last of the benchmarks: it is minutes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LIMIT = 600.0
"""Seconds that all of tests/faults may take on two cores, sampled as by `make test`."""

CORES = 2


@pytest.mark.timeout(3600)
def test_the_whole_time_of_the_fault_suites() -> None:
    """tests/faults as `make test` runs it, on two cores: seconds, and the share of their limit."""
    mine = sorted(os.sched_getaffinity(0))
    wide = {name: value for name, value in os.environ.items() if not name.startswith(("OSVDEPLOY_", "PYTEST_"))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", str(CORES), "tests/faults"]
    os.sched_setaffinity(0, set(mine[:CORES]))  # it is handed down to whatever is started
    began = time.monotonic()
    try:
        ended = subprocess.run(command, cwd=ROOT, env=wide, capture_output=True, text=True)
    finally:
        os.sched_setaffinity(0, set(mine))
    took = time.monotonic() - began
    assert ended.returncode == 0, ended.stdout[-2000:]
    print(f"\ntests/faults: {took:.0f} s on {min(CORES, len(mine))} cores, {took / LIMIT:.0%} of {LIMIT:.0f} s")
