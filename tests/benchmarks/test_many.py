"""All services of a ledger at once: `osvdeploy status --all` of a thousand (goal: a second of its own)."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from osvdeploy.api import wiring
from osvdeploy.api.surveying import survey
from osvdeploy.cloud.local.store import DirectoryStore
from osvdeploy.context import Context
from tests.rollout.many import spread
from tests.rollout.service import Service

SERVICES = 1000
GOAL = 1.0


def test_the_status_of_a_thousand_services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a directory and a cloud in memory, so that all of the time is ours; the calls are those of any cloud."""
    service = Service()
    service.deploy("1.0.0")
    service.deploy("1.1.0")
    service.clock.advance(60)
    spread(service, SERVICES, DirectoryStore(tmp_path))
    monkeypatch.setattr(wiring, "ground_of", lambda ctx, place: service.cloud.cloud)
    took = []
    for _ in range(3):
        before, began, used = len(service.cloud.calls), time.monotonic(), time.process_time()
        found = survey(Context(), str(tmp_path))
        took.append((time.monotonic() - began, time.process_time() - used))
        assert len(found.services) == SERVICES and not found.cloud_errors
    wall, cpu = min(took)
    calls = Counter(call.operation for call in service.cloud.calls[before:])
    print(f"\n{SERVICES} services: {wall:.2f} s, {cpu:.2f} s of them computing: {wall / GOAL:.2f} x the goal")
    print(f"cloud calls: {', '.join(f'{count} x {operation}' for operation, count in sorted(calls.items()))}")
    began, before_it = time.monotonic(), os.times()
    command = [sys.executable, "-m", "osvdeploy", "status", "--all", "--offline", "--ledger", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    took_whole = time.monotonic() - began
    assert len(ran.stdout.splitlines()) == SERVICES + 1
    after = os.times()
    computing = after.children_user + after.children_system - before_it.children_user - before_it.children_system
    print(f"the command, offline, as a process: {took_whole:.2f} s, {computing:.2f} s of them computing")
