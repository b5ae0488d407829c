"""The balancer script of the examples, over Google's wire."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from osvdeploy.context import VirtualClock
from osvdeploy.sandbox.core import Sandbox
from osvdeploy.sandbox.google.inprocess import connect
from osvdeploy.sandbox.inprocess import Client
from osvdeploy.sandbox.runners import GuestAnswer
from osvdeploy.sandbox.runners.inline import InlineRunner

pytestmark = pytest.mark.sandbox

SCRIPT = Path(__file__).parents[3] / "examples" / "google-balancer" / "balancer.py"


@pytest.fixture
def script() -> Any:
    found = importlib.util.spec_from_file_location("balancer", SCRIPT)
    assert found is not None
    assert found.loader is not None
    made = importlib.util.module_from_spec(found)
    found.loader.exec_module(made)
    return made


def test_the_example_makes_a_balancer_and_takes_it_away_again(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers that nothing is behind it; what is there is left; afterwards the project holds nothing."""
    clock = VirtualClock()
    sandbox = Sandbox(runner=InlineRunner())
    monkeypatch.setattr("time.sleep", clock.advance)
    compute = script.Compute("p", script.GOOGLE, connect(sandbox, clock))
    made = script.create(compute, "osv", 8080)
    assert (made["URL_MAP"], made["NETWORK_TAG"]) == ("osv", "osv")
    held = sandbox.inventory()
    assert all(names == [f"projects/p/global/{kind}/osv"] for kind, names in _by_collection(held).items())
    assert script.create(compute, "osv", 8080) == made, "what is there is found again"
    assert sandbox.inventory() == held
    clock.advance(60)
    host, _, port = made["URL"].removeprefix("http://").partition(":")
    answer = Client(sandbox, clock).get(host, int(port), "/")
    assert isinstance(answer, GuestAnswer)
    assert answer.status == 503
    script.delete(compute, "osv")
    script.delete(compute, "osv")
    assert sandbox.inventory() == {}


def _by_collection(held: dict[str, list[str]]) -> dict[str, list[str]]:
    return {names[0].split("/")[3]: names for names in held.values()}


def test_the_example_asks_where_it_is_told_to(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An emulator without credentials; no project is an error that says what to do."""
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT", raising=False)
    with pytest.raises(SystemExit, match="export GOOGLE_CLOUD_PROJECT"):
        script.connect()
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p")
    monkeypatch.setenv("OSVDEPLOY_GCP_COMPUTE_ENDPOINT", "http://127.0.0.1:1/")
    assert script.connect().root == "http://127.0.0.1:1/compute/v1/projects/p/global"
