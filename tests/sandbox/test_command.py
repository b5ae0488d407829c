"""`osvdeploy sandbox`, as a user runs it: processes, exit codes, and an account that outlives them."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import boto3
import pytest

from osvdeploy.errors import UsageError
from osvdeploy.sandbox import control
from osvdeploy.sandbox.control import Running

pytestmark = pytest.mark.slow


@dataclass
class Shell:
    """A user's shell whose sandbox lies in a folder of its own."""

    folder: Path
    environ: dict[str, str] = field(default_factory=lambda: dict(os.environ))

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        environ = {**self.environ, "OSVDEPLOY_SANDBOX": str(self.folder)}
        command = [sys.executable, "-m", "osvdeploy", "sandbox", *words]
        return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)

    def json(self, *words: str) -> Any:
        done = self.run(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def client(self, service: str) -> Any:
        """A client of the user's, from the environment that `sandbox env` gives."""
        variables = self.json("env")["variables"]
        return boto3.Session(variables["AWS_ACCESS_KEY_ID"], variables["AWS_SECRET_ACCESS_KEY"]).client(
            service, region_name=variables["AWS_REGION"], endpoint_url=variables["AWS_ENDPOINT_URL"]
        )


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path / "sandbox")
    yield shell
    shell.run("stop")


@pytest.mark.slow
def test_a_sandbox_is_started_once_used_and_stopped(shell: Shell) -> None:
    """Starting it again finds it; another speed or port is refused; after a stop nothing answers, and env says so."""
    first = shell.run("start", "--speed", "20")
    assert first.returncode == 0
    assert "20 times as fast as the cloud" in first.stdout
    again = shell.json("start", "--speed", "20")
    assert not again["started"]
    for other in (["--speed", "5"], ["--speed", "20", "--port", "1"]):
        refused = shell.run("start", *other)
        assert (refused.returncode, "sandbox stop" in refused.stderr) == (2, True)
    assert shell.client("sts").get_caller_identity()["Account"] == "123456789012"
    told = shell.json("status", "--calls")
    assert (told["running"], told["speed"], told["pid"]) == (True, 20.0, again["pid"])
    assert [(call["operation"], call["mutating"]) for call in told["calls"]] == [("GetCallerIdentity", False)]
    assert shell.json("stop")["stopped"]
    assert not shell.json("stop")["stopped"]
    assert not shell.json("status")["running"]
    refused = shell.run("env")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "osvdeploy sandbox start" in refused.stderr


@pytest.mark.slow
def test_an_account_outlives_a_stop_and_a_kill(shell: Shell) -> None:
    """At the same address, until it is reset."""
    url = shell.json("start")["url"]
    kept = shell.client("ebs").start_snapshot(VolumeSize=1)["SnapshotId"]
    shell.run("stop")
    started = shell.json("start")
    assert started["url"] == url
    assert shell.json("status")["inventory"] == {"snapshot": [kept]}
    os.kill(started["pid"], signal.SIGKILL)
    while not shell.json("start")["started"]:
        pass  # the kernel is still taking the process away
    assert shell.json("status")["inventory"] == {"snapshot": [kept]}
    assert shell.json("reset")["forgotten"]
    assert not shell.json("status")["running"]
    shell.run("start")
    assert shell.json("status")["inventory"] == {}


@pytest.mark.slow
def test_faults_are_planted_by_command(shell: Shell) -> None:
    """For other programs to meet; an unknown kind is refused by the command line."""
    shell.run("start")
    assert shell.run("fault", "sts:*", "nonsense").returncode == 2
    assert shell.run("fault", "sts:*").returncode == 2
    planted = shell.json("fault", "sts:*", "denied", "--always")
    assert planted["faults"] == [{"operation": "sts:*", "kind": "denied", "skip": 0, "times": None}]
    with pytest.raises(Exception, match="AccessDenied"):
        shell.client("sts").get_caller_identity()
    assert shell.json("fault", "--clear")["faults"] == []
    shell.client("sts").get_caller_identity()


@pytest.mark.slow
def test_what_keeps_a_sandbox_from_starting_is_told(shell: Shell) -> None:
    """A port in use, a store of something else, no folder: exit code 2, the reason, no traceback, nothing running."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = shell.run("start", "--port", str(port))
    assert refused.returncode == 2
    assert f"port {port} of 127.0.0.1 is in use" in refused.stderr
    (shell.folder / "account.db").write_bytes(b"no database, and long enough to be seen as none" * 50)
    failed = shell.run("start")
    assert failed.returncode == 2
    assert "no store" in failed.stderr
    assert "osvdeploy sandbox reset" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not shell.json("status")["running"]
    file = shell.folder.parent / "file"
    file.write_text("")
    refused = shell.run("start", "--dir", str(file / "below"))
    assert refused.returncode == 2
    assert "--dir" in refused.stderr


RUNNING = Running(Path("/nowhere"), 1, "http://127.0.0.1:4000", 1.0)


def exported(lines: str) -> dict[str, str]:
    """What a shell makes of export lines."""
    words = [shlex.split(line) for line in lines.splitlines()]
    return dict(pair.partition("=")[::2] for word, *rest in words if word == "export" for pair in rest)


def test_the_environment_tells_how_fast_balancers_are() -> None:
    """Whoever waits for a change to be in force everywhere waits by the sandbox's speed; what another one said goes."""
    for speed, told, drain in ((1.0, None, None), (20.0, "3.0s", "1.0s"), (1000.0, "1.0s", "1.0s")):
        environment = control.environment(replace(RUNNING, speed=speed), {})
        assert environment.variables.get("OSVDEPLOY_PROPAGATION") == told
        assert environment.variables.get("OSVDEPLOY_DRAIN") == drain
        assert {"OSVDEPLOY_PROPAGATION", "OSVDEPLOY_DRAIN"} <= set(environment.unset)


@pytest.mark.parametrize("before", [{}, {"NO_PROXY": "corp.example,127.0.0.1"}, {"no_proxy": "corp.example"}])
def test_the_environment_leads_to_the_sandbox_alone(before: Mapping[str, str]) -> None:
    """Profiles and single endpoints would lead elsewhere; loopback goes past any proxy, and what did before still."""
    environment = control.environment(RUNNING, before)
    variables = exported(environment.lines())
    assert variables == environment.variables
    assert variables["AWS_ENDPOINT_URL"] == variables["STORAGE_EMULATOR_HOST"] == RUNNING.url
    assert {"AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_EBS"} <= set(environment.unset)
    passed_by = variables["NO_PROXY"].split(",")
    assert variables["no_proxy"] == variables["NO_PROXY"]
    assert {"127.0.0.1", "127.0.7.1", "127.0.0.0/8", *(["corp.example"] if before else [])} <= set(passed_by)
    assert len(passed_by) == len(set(passed_by))


def test_another_programs_address_is_no_sandbox(tmp_path: Path) -> None:
    """What was left of one that was killed names a process and a port; neither is believed unasked."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        control.announce(tmp_path, os.getpid(), f"http://127.0.0.1:{other.getsockname()[1]}", 1.0, "127.0.7")
        assert control.find(tmp_path) is None
    with pytest.raises(UsageError, match="no sandbox is running"):
        control.required(tmp_path)
    (tmp_path / "sandbox.json").write_text("{")
    assert control.find(tmp_path) is None


def test_the_last_port_is_taken_again_where_it_is_free(tmp_path: Path) -> None:
    """So that a shell's environment still fits; else any that is free."""
    assert control.chosen_port(tmp_path, None) == 0
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (tmp_path / "port").write_text(str(port))
        assert control.chosen_port(tmp_path, None) == 0
        with pytest.raises(UsageError, match="in use"):
            control.chosen_port(tmp_path, port)
    assert control.chosen_port(tmp_path, None) == port
