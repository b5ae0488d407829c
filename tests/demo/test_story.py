"""The demo, as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from osvdeploy.demo.hello import EXAMPLE
from osvdeploy.demo.story import STAGES, make_folder
from osvdeploy.errors import UsageError
from osvdeploy.spec import load


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("cloud", "switch"), [("aws", 2), ("gcp", 3)])
def test_the_story_ends_as_it_is_told(tmp_path: Path, cloud: str, switch: int) -> None:
    """`osvdeploy demo` goes through every step, and ends with a table read from the run."""
    environ = {name: value for name, value in os.environ.items() if name != "OSV_KERNEL"}
    ran = subprocess.run(
        [sys.executable, "-m", "osvdeploy", "demo", "--cloud", cloud, "--dir", str(tmp_path / "demo"), "--json"],
        capture_output=True,
        text=True,
        env=environ,
        cwd=tmp_path,
        timeout=550,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    steps = {step["step"]: step for step in json.loads(ran.stdout)["steps"]}
    assert steps["deploy 1.2.0 (bad)"]["outcome"] == "rolled back"
    assert steps["rollback (warm)"]["mutating"] == switch, "the switch, and what was left taken away"
    assert "gate failed: boot log" in ran.stderr, "1.3.0 is given up for what it said"
    assert "and 0 failures" in ran.stderr and "Traceback" not in ran.stderr


def test_the_example_is_the_same_on_each_cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is built, when it is well and how it is rolled out; the place and what is there already are the cloud's."""
    for name in ("GOOGLE_CLOUD_PROJECT", "HELLO_BUCKET", "HELLO_URL_MAP", "HELLO_NETWORK_TAG", "HELLO_SECURITY_GROUP"):
        monkeypatch.setenv(name, "a-name")
    for name in ("HELLO_SUBNET_A", "HELLO_SUBNET_B", "HELLO_LISTENER", "HELLO_LEDGER"):
        monkeypatch.setenv(name, f"/{name}")
    aws, gcp = (load(EXAMPLE / STAGES[cloud].spec, environ=os.environ).spec for cloud in ("aws", "gcp"))
    for part in ("name", "version", "kernel", "files"):
        assert getattr(aws, part) == getattr(gcp, part), part
    assert aws.image.command == gcp.image.command
    there, here = aws.deploy["sandbox"], gcp.deploy["sandbox"]
    assert (there.cloud, here.cloud) == ("aws", "gcp")
    assert (there.strategy, there.capacity, there.port) == (here.strategy, here.capacity, here.port)
    assert set(STAGES) == {there.cloud, here.cloud}


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    """The demo empties only what an earlier demo made."""
    (tmp_path / "precious").touch()
    with pytest.raises(UsageError, match="is not empty"):
        make_folder(tmp_path)
    assert (tmp_path / "precious").exists()
    make_folder(tmp_path / "demo")
    (tmp_path / "demo" / "left over").touch()
    make_folder(tmp_path / "demo")
    assert not (tmp_path / "demo" / "left over").exists()
