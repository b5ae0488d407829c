"""Whole commands against bare Python, and what a rollout costs in calls and in time of our own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.aws_world import AwsWorld
from tests.rollout.service import Service
from tests.world import loader_image

ROUNDS = 9

SPEC = """
name = "hello"
version = "1.0.0"
[kernel]
file = "loader.img"
[image]
command = ["/hello"]
[[files]]
from = "hello"
to = "/hello"
"""


def best(command: list[str], folder: Path, environ: dict[str, str]) -> float:
    """The shortest wall time of a whole process, in seconds."""
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        subprocess.run(command, cwd=folder, env=environ, check=True, capture_output=True)
        times.append(time.perf_counter() - began)
    return min(times)


def test_commands_against_bare_python(tmp_path: Path) -> None:
    """`osvdeploy version` (goal: 80 ms more than python), `build` with nothing changed (goal: 200 ms)."""
    (tmp_path / "osv.toml").write_text(SPEC)
    (tmp_path / "loader.img").write_bytes(loader_image())
    shutil.copy(sys.executable, tmp_path / "hello")
    environ = {**os.environ, "OSVDEPLOY_CACHE": str(tmp_path / "cache"), "OSVDEPLOY_STATE": str(tmp_path / "state")}
    script = str(Path(sys.executable).parent / "osvdeploy")
    bare = best([sys.executable, "-c", ""], tmp_path, environ)
    version = best([script, "version"], tmp_path, environ)
    build = best([script, "build"], tmp_path, environ)
    print()
    print(f"python -c ''            {bare * 1000:6.0f} ms")
    more = 1000 * (version - bare)
    print(f"osvdeploy version       {version * 1000:6.0f} ms  {version / bare:5.1f} x, {more:.0f} ms more")
    print(f"osvdeploy build (again) {build * 1000:6.0f} ms  {build / bare:5.1f} x")


def test_calls_of_a_blue_green(tmp_path: Path) -> None:
    """API calls of a whole blue-green on AWS, from bytes to traffic, and of the rollbacks."""
    world = AwsWorld(tmp_path)
    print()
    first = world.build("1.0.0")
    acts: list[tuple[str, Callable[[], object]]] = [
        ("first deploy", lambda: world.deploy(first)),
        ("blue-green", lambda: world.deploy(world.build("1.1.0"))),
        ("warm rollback", lambda: world.rollback()),
    ]
    for what, act in acts:
        before, began = len(world.sandbox.calls()), world.clock.monotonic()
        act()
        calls = world.sandbox.calls()[before:]
        changes = sum(call.mutating for call in calls)
        took = world.clock.monotonic() - began
        print(f"{what:14} {len(calls):4} calls, {changes:3} of them change something, {took:5.0f} s of AWS's time")


def test_own_time_of_a_warm_rollback() -> None:
    """A warm rollback's own time, without API, probes and imports (goal: less than 100 ms).

    On the memory cloud every call returns at once and waiting costs no real time, so what is left is ours (and the
    fake's, which counts against us).
    """
    taken = []
    for _ in range(ROUNDS):
        service = Service()
        service.deploy("1.0.0")
        service.deploy("1.1.0")
        virtual, began = service.clock.monotonic(), time.perf_counter()
        service.rollback()
        taken.append(time.perf_counter() - began)
        waited = service.clock.monotonic() - virtual
    print()
    print(
        f"warm rollback: {min(taken) * 1000:.0f} ms of our own; {waited:.1f} s of waiting for the balancer to converge"
    )
