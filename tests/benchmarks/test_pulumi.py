"""The Pulumi provider: to its port, to its first answer, fifty Images at once, and a run with nothing to do."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pulumi.runtime.proto import provider_pb2

from osvdeploy.provider.values import Value
from tests.pulumi.cli import PULUMI, Cli
from tests.pulumi.engine import MODULES, MiniStack
from tests.pulumi.process import SCRIPT, running, start
from tests.pulumi.projects import PROGRAM, app_folder

ROUNDS = 9
IMAGE = "osvdeploy:index:Image"


def test_start(tmp_path: Path) -> None:
    """From the start to the port line (goal: 350 ms), and to the answered Handshake (the engine waits for 10 s)."""
    ports, hands = [], []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        provider = start(tmp_path, {}, command=(SCRIPT,))
        ports.append(time.perf_counter() - began)
        provider.ask("Handshake", provider_pb2.ProviderHandshakeRequest())
        hands.append(time.perf_counter() - began)
        provider.end()
        assert provider.process.stdout is not None
        provider.process.stdout.close()
    print()
    print(f"provider: port line     {min(ports) * 1000:6.0f} ms")
    print(f"provider: handshake     {min(hands) * 1000:6.0f} ms")


def test_images(tmp_path: Path) -> None:
    """Fifty Images checked and built at once; then checked again with nothing changed, one after the other."""
    folder = app_folder(tmp_path)
    base: dict[str, Value] = {"file": "app"}
    with running(folder, {"OSVDEPLOY_CACHE": str(tmp_path / "cache")}) as provider:
        given: list[dict[str, Value]] = [{**base, "set": {"image.env.N": str(number)}} for number in range(50)]
        began = time.perf_counter()
        with ThreadPoolExecutor(50) as threads:
            list(threads.map(lambda each: provider.create(IMAGE, provider.check(IMAGE, each)[0]), given))
        built = time.perf_counter() - began
        began = time.perf_counter()
        for each in given:
            provider.check(IMAGE, each)
        checked = time.perf_counter() - began
    print()
    print(f"provider: 50 Images     {built * 1000:6.0f} ms")
    print(f"provider: a Check       {checked / 50 * 1000:6.1f} ms")


NOTHING_TO_DO = """
import pulumi

pulumi.CustomResource("nothing:index:Nothing", "it", {})
"""


def test_nothing_to_do(tmp_path: Path) -> None:
    """`pulumi up` of an Image that has not changed, against that of one that does nothing (goal: 500 ms over it),
    by Pulumi's own command where it is on PATH, else by the small engine."""
    ours, nothing = app_folder(tmp_path / "ours"), tmp_path / "nothing"
    nothing.mkdir()
    (ours / "__main__.py").write_text(PROGRAM)
    (nothing / "__main__.py").write_text(NOTHING_TO_DO)
    script = nothing / "pulumi-resource-nothing"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("nothing.py")} "$@"\n')
    script.chmod(0o755)
    environ = {"OSVDEPLOY_CACHE": str(tmp_path / "cache"), "PYTHONPATH": MODULES}
    ups = [
        up_by(ours, "osvdeploy", SCRIPT, tmp_path / "one", environ),
        up_by(nothing, "nothing", script, tmp_path / "two", environ),
    ]
    times: list[list[tuple[float, float]]] = [[], []]
    for _ in range(1 + ROUNDS // 2):
        for up, taken in zip(ups, times, strict=True):
            began, worked = time.perf_counter(), processor()
            up()
            taken.append((time.perf_counter() - began, processor() - worked))
    own, other = (tuple(map(min, zip(*taken[1:], strict=True))) for taken in times)
    print()
    engine = "the small engine" if PULUMI is None else "pulumi"
    for what, mine, least in zip(("wall", "processor"), own, other, strict=True):
        more = f"{(mine - least) * 1000:5.0f} ms over a provider of nothing"
        print(f"provider: nothing to do {mine * 1000:6.0f} ms {what} time by {engine}, {more}")


def processor() -> float:
    """Seconds of processor time of all processes that this one has waited for; other work on the machine is in none."""
    used = os.times()
    return used.children_user + used.children_system


def up_by(folder: Path, package: str, script: Path, home: Path, environ: Mapping[str, str]) -> Callable[[], object]:
    """What brings a program up; the first call makes what it has."""
    if PULUMI is None:
        stack = MiniStack(folder, {package: [script]}, environ=environ)

        def small() -> None:
            report = stack.up("__main__.py")
            assert report.ok, report.said()

        return small
    cli = Cli(folder, home, environ=environ)
    (folder / "Pulumi.yaml").write_text(
        f"name: project\nruntime: python\nplugins:\n  providers:\n    - name: {package}\n      path: {script.parent}\n"
    )
    assert cli.run("stack", "init", "dev").code == 0

    def whole() -> None:
        ran = cli.up()
        assert ran.code == 0, ran.text

    return whole
