"""Starting, finding and stopping the sandbox that runs in a process of its own.

A sandbox has a directory: its store, ``sandbox.json`` (which process, which address) while it runs, ``port`` (the one
it had last, taken again where it is free) and ``log``. This module loads none of the sandbox itself, so that asking for
it costs nothing.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from osvdeploy.errors import OsvDeployError, UsageError

ADMIN_PATH = "/_sandbox/"
ADMIN_HEADER = "x-osvdeploy-sandbox"

REGION = "eu-west-1"
ACCESS_KEY, SECRET_KEY = "AKIASANDBOXSANDBOX00", "sandbox"
PROJECT = "sandbox"
"""Any others work as well."""

START_TIMEOUT = 20.0
STOP_TIMEOUT = 15.0

_PROPAGATION = 60.0
"""Seconds, at the cloud's own speed: more than a change of rules takes here to be in force."""

_DRAIN = 20.0
"""Likewise what requests under way have to end, as elsewhere."""

_BALANCERS_NAMED = 8
"""Python's clients read no networks in NO_PROXY, so the first balancers' addresses are listed one by one."""

_ENDPOINTS = ("EC2", "EBS", "STS", "S3", "IAM", "AUTO_SCALING", "CLOUDWATCH", "ELASTIC_LOAD_BALANCING_V2")


class SandboxFailed(OsvDeployError):
    """The sandbox's process did not start, or ended by itself."""


@dataclass(frozen=True, slots=True)
class Running:
    """A sandbox that runs: its process, endpoint and speed."""

    directory: Path
    pid: int
    url: str
    speed: float
    balancers: str = "127.0.7"
    """What its balancers' addresses begin with."""

    def ask(self, method: str, path: str, document: object = None, timeout: float = 30.0) -> Any:
        """What the shell answers below ``/_sandbox/``, as JSON. Raises OSError where nothing answers."""
        address = self.url.removeprefix("http://")
        connection = http.client.HTTPConnection(address, timeout=timeout)
        try:
            body = None if document is None else json.dumps(document)
            connection.request(method, ADMIN_PATH + path, body, {ADMIN_HEADER: "1"})
            response = connection.getresponse()
            answer = json.loads(response.read() or b"{}")
        except (http.client.HTTPException, ValueError) as error:
            raise ConnectionError(f"{self.url} does not answer as a sandbox does: {error}") from None
        finally:
            connection.close()
        if response.status != 200:
            raise UsageError(f"the sandbox refuses: {answer.get('error', response.status)}")
        return answer


def default_directory() -> Path:
    """``OSVDEPLOY_SANDBOX``, else a folder of the user's state directory."""
    named = os.environ.get("OSVDEPLOY_SANDBOX")
    return Path(named).absolute() if named else platformdirs.user_state_path("osvdeploy") / "sandbox"


def find(directory: Path) -> Running | None:
    """The sandbox that runs on a directory, None where none does."""
    try:
        kept = json.loads((directory / "sandbox.json").read_text())
        running = Running(directory, int(kept["pid"]), str(kept["url"]), float(kept["speed"]), str(kept["balancers"]))
    except (OSError, ValueError, KeyError):
        return None
    try:
        # Its address may be another program's by now.
        return running if running.ask("GET", "ping", timeout=10.0).get("pid") == running.pid else None
    except (OSError, UsageError):
        return None


def required(directory: Path) -> Running:
    """The sandbox that runs on a directory. Raises UsageError where none does."""
    running = find(directory)
    if running is None:
        raise UsageError("no sandbox is running", hint="start one: `osvdeploy sandbox start`")
    return running


def announce(directory: Path, pid: int, url: str, speed: float, balancers: str) -> None:
    """Say that this process serves the directory, for :func:`find`."""
    fresh = directory / "sandbox.json.new"
    fresh.write_text(json.dumps({"pid": pid, "url": url, "speed": speed, "balancers": balancers}))
    fresh.rename(directory / "sandbox.json")
    (directory / "port").write_text(url.rpartition(":")[2])


def withdraw(directory: Path) -> None:
    (directory / "sandbox.json").unlink(missing_ok=True)


def chosen_port(directory: Path, wanted: int | None) -> int:
    """``wanted``, else the port of the last time where it is free, else any free one.

    Raises UsageError where ``wanted`` is taken.
    """
    if wanted is not None:
        if wanted and not _is_free(wanted):
            raise UsageError(
                f"port {wanted} of 127.0.0.1 is in use",
                hint="choose another with --port, or leave --port out: then a free one is taken",
            )
        return wanted
    try:
        last = int((directory / "port").read_text())
    except (OSError, ValueError):
        return 0
    return last if 0 < last < 65536 and _is_free(last) else 0


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def start(directory: Path, *, speed: float = 1.0, port: int | None = None) -> tuple[Running, bool]:
    """Start a sandbox in a process of its own and wait until it answers; or find the one that runs.

    Returns it, and whether it was started now. Raises UsageError where it runs at another speed or port, or the port
    is taken; :class:`SandboxFailed` with the end of its log where it does not come up.
    """
    running = find(directory)
    if running is not None:
        _check_same(running, speed, port)
        return running, False
    try:
        directory.mkdir(parents=True, exist_ok=True)
        log = (directory / "log").open("wb")
    except OSError as error:
        raise UsageError(
            f"{directory}: {error.strerror}", hint="choose another with --dir or OSVDEPLOY_SANDBOX"
        ) from None
    words = ["sandbox", "start", "--foreground", "--dir", str(directory), "--speed", repr(speed)]
    words += ["--port", str(chosen_port(directory, port))]
    with log:
        process = subprocess.Popen(
            [sys.executable, "-m", "osvdeploy", *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=directory,
            # Its own session: neither Ctrl-C nor a closed terminal reaches it.
            start_new_session=True,
        )
    until = time.monotonic() + START_TIMEOUT
    while time.monotonic() < until:
        running = find(directory)
        if running is not None:
            return running, True
        code = process.poll()
        if code is not None:
            raise _why(code, directory / "log")
        time.sleep(0.02)  # polled: a process that is starting or ending
    process.kill()
    process.wait()
    raise SandboxFailed(f"the sandbox did not answer within {START_TIMEOUT:g} s", hint=f"see {directory / 'log'}")


def _check_same(running: Running, speed: float, port: int | None) -> None:
    stop_first = "stop it first: `osvdeploy sandbox stop`; the account is kept"
    if running.speed != speed:
        raise UsageError(f"a sandbox is running at speed {running.speed:g}, not {speed:g}", hint=stop_first)
    if port and not running.url.endswith(f":{port}"):
        raise UsageError(f"a sandbox is running at {running.url}, not on port {port}", hint=stop_first)


def _why(code: int, log: Path) -> OsvDeployError:
    """Why the process ended: what it said as its error, or else the end of all it said."""
    lines = log.read_text(errors="replace").strip().splitlines()
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    hints = [line.removeprefix("hint: ") for line in lines if line.startswith("hint: ")]
    if said and code == UsageError.exit_code:
        return UsageError("\n".join(said), hint=hints[0] if hints else None)
    end = "\n".join(said or lines[-5:]) or "it said nothing"
    return SandboxFailed(f"the sandbox did not start (exit code {code}): {end}", hint=f"see {log}")


def stop(directory: Path) -> bool:
    """Stop the sandbox and its guests; the account stays in the directory. False where none ran."""
    running = find(directory)
    if running is None:
        return False
    running.ask("POST", "stop", {})
    # The last thing that it does is to withdraw; by then the store is closed and no guest runs.
    until = time.monotonic() + STOP_TIMEOUT
    while (directory / "sandbox.json").exists():
        if time.monotonic() > until:
            # It answered as ours a moment ago, so the number is no other process's.
            with contextlib.suppress(ProcessLookupError):
                os.kill(running.pid, signal.SIGKILL)
            withdraw(directory)
        time.sleep(0.02)  # polled: a process that is starting or ending
    return True


def reset(directory: Path) -> bool:
    """Stop the sandbox and forget its account. False where there was nothing to forget."""
    stop(directory)
    found = False
    for path in directory.glob("account.db*"):
        path.unlink()
        found = True
    for folder in (directory / "blobs", directory / "guests"):
        shutil.rmtree(folder, ignore_errors=True)
    return found


@dataclass(frozen=True, slots=True)
class Environment:
    """What points AWS's and Google's clients at a sandbox: variables to set, and ones that would lead elsewhere."""

    variables: Mapping[str, str]
    unset: tuple[str, ...]

    def lines(self) -> str:
        """For a shell's ``eval``."""
        exports = [f"export {name}={shlex.quote(value)}" for name, value in self.variables.items()]
        return "\n".join([f"unset {' '.join(self.unset)}", *exports])


def environment(running: Running, now: Mapping[str, str] = os.environ) -> Environment:
    """For a process whose environment is ``now``."""
    direct = [
        "localhost",
        "127.0.0.1",
        "127.0.0.0/8",
        *(f"{running.balancers}.{each}" for each in range(1, _BALANCERS_NAMED + 1)),
    ]
    before = [name for name in (now.get("NO_PROXY") or now.get("no_proxy") or "").split(",") if name]
    no_proxy = ",".join(dict.fromkeys([*before, *direct]))
    elsewhere = ["AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"]
    elsewhere += ["AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", *(f"AWS_ENDPOINT_URL_{service}" for service in _ENDPOINTS)]
    elsewhere += ["OSVDEPLOY_PROPAGATION", "OSVDEPLOY_DRAIN"]
    variables = {
        "AWS_ENDPOINT_URL": running.url,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "STORAGE_EMULATOR_HOST": running.url,
        "OSVDEPLOY_GCP_COMPUTE_ENDPOINT": running.url,
        "OSVDEPLOY_GCP_MONITORING_ENDPOINT": running.url,
        "PUBSUB_EMULATOR_HOST": running.url.partition("://")[2],
        "GOOGLE_CLOUD_PROJECT": PROJECT,
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
    }
    if running.speed > 1:
        variables["OSVDEPLOY_PROPAGATION"] = f"{max(_PROPAGATION / running.speed, 1.0):.1f}s"
        variables["OSVDEPLOY_DRAIN"] = f"{max(_DRAIN / running.speed, 1.0):.1f}s"
    return Environment(variables, tuple(elsewhere))
