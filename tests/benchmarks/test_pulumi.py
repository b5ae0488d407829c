"""The Pulumi provider: to its port, to its first answer, and fifty Images at once."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pulumi.runtime.proto import provider_pb2

from osvdeploy.provider.values import Value
from tests.pulumi.process import SCRIPT, running, start
from tests.pulumi.projects import app_folder

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
