"""Commands that really die: processes of the command line, ended by SIGKILL at sampled moments of their rollout.

The clouds are the sandbox on loopback, fast, with guests that are processes and a client that asks them through the
balancer all the time. Whatever the dead command had come to, the same one again, or `osvdeploy recover` before it, ends
well. A failure tells its seed and point. `make soak` tries twenty on each cloud.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from osvdeploy.demo.guest import build_guest
from osvdeploy.demo.hello import build_hello
from osvdeploy.sandbox import control
from osvdeploy.sandbox.core import Moment, Sandbox
from osvdeploy.sandbox.http import Shell
from osvdeploy.sandbox.runners.process import ProcessRunner, loopback_addresses_work
from osvdeploy.sandbox.wire import Call
from tests.alive import until
from tests.cli.google import make_balancer
from tests.cli.test_bad_input import DEPLOYMENT, NETWORK, SPEC

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not loopback_addresses_work(), reason="needs all of 127.0.0.0/8"),
]

KILLS = int(os.environ.get("OSVDEPLOY_KILLS", "3"))
SEED = int(os.environ.get("OSVDEPLOY_KILLS_SEED", "7"))

GOOGLE = """
[publish.gcp]
project = "acme-prod"
bucket = "acme-images"

[deploy.test]
cloud = "gcp"
zone = "europe-west1-b"
url-map = "web"
capacity = 1
port = 8080
ledger = "../ledger"
route = { path = "/*", priority = 100 }
health = { path = "/healthz", min-ready = "0s", boot-timeout = "60s" }
strategy = { kind = "all-at-once", keep-warm = "1h" }
"""


@dataclass
class Killer:
    """Ends a process at the n-th call that it makes, before it is carried out or after it and before its answer, or so
    many seconds later."""

    process: subprocess.Popen[str] | None = None
    at: int = 0
    moment: Moment = Moment.BEFORE
    later: float = 0.0
    calls: int = 0
    told: str = "it was through before"

    def __call__(self, moment: Moment, call: Call) -> None:
        self.calls += moment is Moment.BEFORE
        if self.process is None or moment is not self.moment or self.calls != self.at:
            return
        self.told = f"{moment} call {self.at}, {call.operation}, and {self.later} s"
        if self.later:
            threading.Timer(self.later, self.process.kill).start()
        else:
            self.process.send_signal(signal.SIGKILL)
            # Whatever it would still send after this moment, it does not.
            self.process.wait()


@dataclass
class Client(threading.Thread):
    """Asks the service all the time."""

    url: str
    answers: int = 0
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)
        self.over = threading.Event()

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        while not self.over.wait(0.02):
            try:
                with urllib.request.urlopen(self.url, timeout=5) as answer:
                    answer.read()
                    self.answers += 1
            except (OSError, urllib.error.HTTPError) as error:
                self.wrong.append(str(error))


@dataclass
class Place:
    """A cloud on loopback, and somebody who has a project there."""

    folder: Path
    shell: Shell
    environ: dict[str, str]
    url: str
    killer: Killer = field(default_factory=Killer)
    empty: dict[str, list[str]] = field(default_factory=dict)

    def command(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "osvdeploy", *words],
            cwd=self.folder / "project",
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *words: str) -> tuple[int, str]:
        process = self.command(*words)
        said, _ = process.communicate(timeout=120)
        return process.returncode, said

    def count(self, *words: str) -> int:
        """How many calls a command makes that nobody kills."""
        self.killer.process, self.killer.calls = None, 0
        code, said = self.run(*words)
        assert code == 0, said
        return self.killer.calls

    def kill(self, at: int, moment: Moment, later: float, *words: str) -> tuple[int, str]:
        """Run a command until it dies there."""
        self.killer.calls, self.killer.at, self.killer.moment, self.killer.later = 0, at, moment, later
        self.killer.told = Killer.told
        self.killer.process = process = self.command(*words)
        said, _ = process.communicate(timeout=120)
        self.killer.process = None
        return process.returncode, said

    def left(self) -> dict[str, list[str]]:
        """What was not there at first, but for what was published."""
        found = self.shell.sandbox.inventory()
        published = ("image", "snapshot", "compute.image", "storage.")
        new = {kind: sorted(set(keys) - set(self.empty.get(kind, []))) for kind, keys in found.items()}
        return {kind: keys for kind, keys in new.items() if keys and not kind.startswith(published)}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def aws(place: Path, environ: dict[str, str], shell: Shell) -> tuple[str, str, dict[str, str]]:
    running = control.Running(place, os.getpid(), shell.url, shell.sandbox.speed, shell.sandbox.balancers)
    environ = {**environ, **control.environment(running).variables}
    words = ["create", "--prefix", "X", "--port", str(_free_port())]
    made = subprocess.run([sys.executable, NETWORK, *words], env=environ, capture_output=True, text=True, check=True)
    network = dict(line.removeprefix("export X_").split("=", 1) for line in made.stdout.splitlines())
    balancer = shell.sandbox.store.begin().all("eu-west-1", "elbv2.balancer")[0]
    port = shell.sandbox.store.begin().all("eu-west-1", "elbv2.listener")[0]["Port"]
    url = f"http://{balancer['DNSName']}:{port}/"
    return SPEC + DEPLOYMENT, url, {**environ, **network}


def google(place: Path, environ: dict[str, str], shell: Shell) -> tuple[str, str, dict[str, str]]:
    made = f"{shell.url}/storage/v1/b?project=acme-prod"
    request = urllib.request.Request(
        made, b'{"name": "acme-images", "location": "EU"}', {"content-type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=10).close()
    url = make_balancer(shell.url, port=_free_port())
    endpoints = {"OSVDEPLOY_GCP_COMPUTE_ENDPOINT": shell.url, "STORAGE_EMULATOR_HOST": shell.url}
    endpoints |= {"OSVDEPLOY_PROPAGATION": "5s", "OSVDEPLOY_DRAIN": "1s"}
    return SPEC + GOOGLE, url, {**environ, **endpoints, "NO_PROXY": "127.0.0.0/8"}


CLOUDS: dict[str, Callable[[Path, dict[str, str], Shell], tuple[str, str, dict[str, str]]]] = {
    "aws": aws,
    "google": google,
}


@pytest.fixture(params=CLOUDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    runner = ProcessRunner(tmp_path / "guests")
    shell = Shell(Sandbox(tmp_path / "account", runner=runner, speed=50.0))
    shell.start()
    try:
        project = tmp_path / "project"
        project.mkdir()
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "OSVDEPLOY_"))}
        for name in ("HOME", "OSVDEPLOY_STATE", "OSVDEPLOY_CACHE"):
            environ[name] = str(tmp_path / name.lower())
        (tmp_path / "home").mkdir()
        spec, url, environ = CLOUDS[request.param](tmp_path, environ, shell)
        (project / "osv.toml").write_text(spec)
        build_guest(project / "loader.img")
        build_hello("1.0.0", project / "hello")
        made = Place(tmp_path, shell, environ, url, empty=shell.sandbox.inventory())
        shell.sandbox.hook = made.killer
        yield made
    finally:
        shell.stop()
        runner.close()


@pytest.mark.timeout(900)
def test_whatever_dies_the_next_process_goes_on(place: Place, record_property: Callable[[str, object], None]) -> None:
    """Deploys and rollbacks, killed anywhere: the right release serves, somebody answers all the while, ledger and
    cloud agree, and nothing is left over."""
    rng = random.Random(SEED)
    code, said = place.run("deploy", "--set", "version=1.0.0")
    assert code == 0, said
    client = Client(place.url)
    client.start()
    deploys = place.count("deploy", "--set", "version=1.1.0")
    backs = place.count("rollback", "--to", "1.0.0")
    serves, number, died = "1.0.0", 1, 0
    for turn in range(KILLS):
        back = turn % 3 == 2
        before = serves
        number += 1
        wanted = f"1.{number}.0"
        words = ("deploy", "--set", f"version={wanted}")
        at, moment = 1 + rng.randrange(backs if back else deploys), rng.choice(list(Moment))
        later = rng.choice([0.0, 0.0, 0.01, 0.05])
        if back:
            assert place.run(*words)[0] == 0
            words, wanted = ("rollback", "--to", before), before
        code, said = place.kill(at, moment, later, *words)
        point = f"seed {SEED}, turn {turn}: {' '.join(words)} died {place.killer.told}"
        died += code == -signal.SIGKILL
        assert code in (0, -signal.SIGKILL), f"{point}\n{said}"
        if rng.random() < 0.5:
            code, said = place.run("recover", "hello/test", "--ledger", str(place.folder / "ledger"))
            assert code == 0, f"{point}, then recover\n{said}"
        code, said = place.run(*words)
        assert code == 0, f"{point}, then the same again\n{said}"
        serves = wanted
        code, said = place.run("drift")
        assert code == 0, f"{point}\n{said}"
        assert f"hello-{serves}-" in place.run("status")[1], point
        assert client.wrong == [], f"{point}: {client.wrong[:3]}"
    client.over.set()
    client.join()
    record_property("told", f"{died} of {KILLS} died of SIGKILL, {client.answers} answers meanwhile")
    assert died and client.answers > 50
    assert place.run("destroy", "--yes")[0] == 0
    until(lambda: place.left() == {}, 60)
