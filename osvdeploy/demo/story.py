"""The story: hello from source to live traffic, twice bad, and back, in the sandbox; every step a command to repeat.

Nothing here reaches into the product: each step runs the command that is shown, as a process of its own, and what the
story says of it is read from its exit code, from answers over HTTP and from the sandbox's log of calls.
"""

from __future__ import annotations

import http.client
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from osvdeploy.demo.guest import build_guest, read_report
from osvdeploy.demo.hello import EXAMPLE
from osvdeploy.errors import OsvDeployError, UsageError

_MARKER = ".osvdeploy-demo"
_CLIENT_EVERY = 0.02


@dataclass(frozen=True, slots=True)
class Stage:
    """Where the story is told: all that differs from cloud to cloud."""

    cloud: str
    spec: str
    """The example's file, which is the story's osv.toml."""
    script: Path
    """Makes what osvdeploy expects to find, as a user would."""
    made: str
    held: str
    command_line: bytes
    """As the guest reads it."""
    shorter: Mapping[str, str]
    """What an example of production waits for minutes takes seconds in a story, which is watched."""


STAGES = {
    "aws": Stage(
        cloud="AWS",
        spec="osv.toml",
        script=EXAMPLE.parent / "aws-network" / "network.py",
        made="A VPC, a balancer and a listener",
        held="the network",
        command_line=b"--power-off-on-abort /hello --port 8080",
        shorter={
            'boot-timeout = "120s"': 'boot-timeout = "6s"',
            'min-ready = "10s"': 'min-ready = "1s"',
            'bake = "30s"': 'bake = "1s"',
        },
    ),
    "gcp": Stage(
        cloud="Google Cloud",
        spec="google.toml",
        script=EXAMPLE.parent / "google-balancer" / "balancer.py",
        made="A bucket, a URL map and what leads to it",
        held="the bucket and the balancer",
        command_line=b"/hello --port 8080",
        shorter={
            'boot-timeout = "300s"': 'boot-timeout = "10s"',
            'min-ready = "10s"': 'min-ready = "1s"',
            'bake = "30s"': 'bake = "1s"',
        },
    ),
}
"""By what an environment's ``cloud`` is in a spec."""


class StoryBroken(OsvDeployError):
    """A step did not end as the story has it."""


@dataclass(frozen=True, slots=True)
class Told:
    """One step for the table: what was done, how it ended, seconds, API calls in all and those that change."""

    step: str
    outcome: str
    seconds: float
    calls: int
    mutating: int


@dataclass(slots=True)
class Story:
    """Tells itself into ``say``. ``folder`` is made, and used by every command."""

    folder: Path
    say: Callable[[str], None]
    stage: Stage = STAGES["aws"]
    speed: float = 10.0
    kernel: Path | None = None
    environ: dict[str, str] = field(default_factory=dict)
    table: list[Told] = field(default_factory=list)
    _seen_calls: int = 0

    def tell(self) -> list[Told]:
        """The whole story. Raises :class:`StoryBroken` where a step ends otherwise; the sandbox is stopped at the end,
        however that comes."""
        self._prepare()
        try:
            self._sandbox()
            before = self._inventory()
            self._first_release()
            self._blue_green()
            self._bad_answers()
            self._bad_start()
            self._there_and_back()
            self._clean_up(before)
        finally:
            self._run("osvdeploy sandbox stop", told=False, expected=None)
        return self.table

    # ---------------------------------------------------------------------------------------------------- chapters

    def _prepare(self) -> None:
        make_folder(self.folder)
        hello = self.folder / "hello"
        shutil.copytree(EXAMPLE, hello, ignore=shutil.ignore_patterns("build", "osv.lock"))
        shutil.copy(self.stage.script, self.folder)
        spec = hello / "osv.toml"
        text = (hello / self.stage.spec).read_text()
        for long, short in self.stage.shorter.items():
            if long not in text:
                raise StoryBroken(f"{self.stage.spec}: has no {long}")
            text = text.replace(long, short)
        spec.write_text(text)
        (hello / "build").mkdir()
        self.environ = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "OSVDEPLOY_SANDBOX": str(self.folder / "sandbox"),
            "OSVDEPLOY_STATE": str(self.folder / "state"),
            "OSVDEPLOY_CACHE": str(self.folder / "cache"),
            "HELLO_LEDGER": str(self.folder / "ledger"),
        }
        self.say(f"Everything below happens in {self.folder}. To repeat a step by hand:\n")
        self.say(f"    cd {self.folder}/hello")
        for name in ("OSVDEPLOY_SANDBOX", "OSVDEPLOY_STATE", "OSVDEPLOY_CACHE", "HELLO_LEDGER"):
            self.say(f"    export {name}={self.environ[name]}")
        if self.kernel is not None:
            shutil.copy(self.kernel, hello / "build" / "loader.img")
            self.say(f"\nThe kernel is OSv, {self.kernel} (OSV_KERNEL).")
        else:
            build_guest(hello / "build" / "loader.img")
            self.say(
                "\nOSV_KERNEL is not set, so the kernel is a boot guest of osvdeploy's own: it boots as OSv does,\n"
                "reads the disk as OSv does, and tells what it read. In the sandbox, programs run as processes\n"
                "of this machine."
            )

    def _sandbox(self) -> None:
        self._chapter(f"1. {self.stage.cloud} on loopback, {self.speed:g} times as fast as {self.stage.cloud}")
        self._run(f"osvdeploy sandbox start --speed {self.speed:g}")
        self._evaluate("osvdeploy sandbox env")
        self.say(f"\n{self.stage.made}, made by a script as a user would write it:")
        self._evaluate(f"python ../{self.stage.script.name} create --prefix HELLO")
        self._count("network", "made", 0.0)

    def _first_release(self) -> None:
        self._chapter("2. hello 1.0.0: check, build, publish, deploy")
        self._make("1.0.0")
        began = time.monotonic()
        self._run("osvdeploy check")
        self._run("osvdeploy build")
        self._boot()
        self._run("osvdeploy publish")
        self._run("osvdeploy deploy")
        self._count("deploy 1.0.0", "serves", time.monotonic() - began)
        self._answers("hello 1.0.0")

    def _blue_green(self) -> None:
        self._chapter("3. hello 1.1.0, blue-green, under a client that asks every 20 ms")
        self._make("1.1.0")
        began = time.monotonic()
        with Client(self.environ["HELLO_URL"]) as client:
            self._run("osvdeploy deploy --set version=1.1.0")
        self._count("deploy 1.1.0", "serves", time.monotonic() - began)
        self.say(f"\nThe client saw {client.told()}.")
        if client.failures or len(client.answers) < 2:
            raise StoryBroken(f"the client saw {client.told()}: {client.failures[:3]}")
        self._answers("hello 1.1.0")

    def _bad_answers(self) -> None:
        self._chapter("4. hello 1.2.0 answers 500: the gate fails, traffic never leaves 1.1.0")
        self._make("1.2.0")
        began = time.monotonic()
        with Client(self.environ["HELLO_URL"]) as client:
            self._run("osvdeploy deploy --set version=1.2.0", expected=3)
        self._count("deploy 1.2.0 (bad)", "rolled back", time.monotonic() - began)
        self._only("1.1.0", client)

    def _bad_start(self) -> None:
        self._chapter("5. hello 1.3.0 aborts while starting: seen at once in its boot log")
        self._make("1.3.0")
        began = time.monotonic()
        with Client(self.environ["HELLO_URL"]) as client:
            self._run("osvdeploy deploy --set version=1.3.0", expected=3)
        self._count("deploy 1.3.0 (bad)", "rolled back", time.monotonic() - began)
        self._only("1.1.0", client)

    def _there_and_back(self) -> None:
        self._chapter("6. hello 1.4.0 goes live; back to 1.1.0 warm, to 1.0.0 cold")
        self._make("1.4.0")
        began = time.monotonic()
        self._run("osvdeploy deploy --set version=1.4.0")
        self._count("deploy 1.4.0", "serves", time.monotonic() - began)
        self._answers("hello 1.4.0")
        began = time.monotonic()
        self._run("osvdeploy rollback")
        self._count("rollback (warm)", "1.1.0 serves", time.monotonic() - began)
        self._answers("hello 1.1.0")
        began = time.monotonic()
        self._run("osvdeploy rollback --to 1.0.0")
        self._count("rollback (cold)", "1.0.0 serves", time.monotonic() - began)
        self._answers("hello 1.0.0")
        self._run("osvdeploy status")
        self._run("osvdeploy history")

    def _clean_up(self, before: Mapping[str, list[str]]) -> None:
        self._chapter("7. Nothing is left")
        began = time.monotonic()
        self._run("osvdeploy destroy --yes")
        self._run("osvdeploy gc")
        self._count("destroy, gc", "all gone", time.monotonic() - began)
        after = self._inventory()
        if after != before:
            extra = {kind: sorted(set(after.get(kind, [])) ^ set(before.get(kind, []))) for kind in {*after, *before}}
            raise StoryBroken(f"the account does not hold what it held: { ({k: v for k, v in extra.items() if v}) }")
        self.say(f"\nThe account holds what it held after step 1: {self.stage.held}, and nothing else.")

    # ------------------------------------------------------------------------------------------------------- steps

    def _chapter(self, title: str) -> None:
        self.say(f"\n\n{title}\n{'─' * len(title)}")

    def _make(self, version: str) -> None:
        self._run(f"make -s VERSION={version}")

    def _run(self, command: str, *, expected: int | None = 0, told: bool = True) -> str:
        """Run a command as shown; its stdout is shown and returned. Any exit code will do if ``expected`` is None."""
        if told:
            self.say(f"\n$ {command}")
        done = subprocess.run(
            self._words(command),
            cwd=self.folder / "hello",
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=None if told else subprocess.DEVNULL,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        if told and done.stdout:
            self.say(done.stdout.rstrip("\n"))
        if expected is not None and done.returncode != expected:
            raise StoryBroken(f"`{command}` ended with {done.returncode}, not {expected}")
        if expected:
            self.say(f"(exit code {done.returncode})")
        return done.stdout

    def _words(self, command: str) -> list[str]:
        words = shlex.split(command)
        return {"osvdeploy": [sys.executable, "-m", "osvdeploy"], "python": [sys.executable]}.get(
            words[0], [words[0]]
        ) + words[1:]

    def _evaluate(self, command: str) -> None:
        """What ``eval "$(command)"`` does to a shell's environment: export and unset lines."""
        self.say(f'\n$ eval "$({command})"')
        for line in self._run(command, told=False).splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["export"]:
                name, _, value = words[1].partition("=")
                self.environ[name] = value
            elif words[:1] == ["unset"]:
                for name in words[1:]:
                    self.environ.pop(name, None)

    def _boot(self) -> None:
        """Boot the very disk under QEMU, where there is one, and show what the guest read of it."""
        qemu = shutil.which("qemu-system-x86_64")
        if qemu is None:
            self.say("\n(QEMU is not here, so the disk is not booted now; scripts/install-qemu says how to get it.)")
            return
        disk = self._run("osvdeploy build -q", told=False).strip()
        if self.kernel is not None:
            self.say("\n(`make test` boots this kernel with hello on it; the story goes on with the sandbox.)")
            return
        command = (
            f"qemu-system-x86_64 -machine pc -m 64 -display none -no-reboot -serial stdio -snapshot "
            f"-drive file={disk},format=raw"
        )
        self.say(f"\n$ {command.replace(disk, '$(osvdeploy build -q)')}")
        try:
            done = subprocess.run(shlex.split(command), capture_output=True, timeout=120, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            raise StoryBroken("the boot guest did not power off within 120 s") from None
        report = read_report(done.stdout)
        self.say(done.stdout.decode(errors="replace").rstrip())
        if report.command_line != self.stage.command_line:
            raise StoryBroken(f"the guest read another command line: {report.command_line!r}")

    def _answers(self, wanted: str) -> None:
        self.say(f"\n$ curl {self.environ['HELLO_URL']}/")
        status, body = _get(self.environ["HELLO_URL"], "/")
        self.say(body.rstrip())
        if status != 200 or wanted not in body:
            raise StoryBroken(f"the balancer answered {status} {body!r}, not {wanted!r}")

    def _only(self, version: str, client: Client) -> None:
        self.say(f"\nThe client saw {client.told()}.")
        if client.failures or set(client.answers) != {version}:
            raise StoryBroken(f"the client saw {client.told()}: {client.failures[:3]}")
        status = json.loads(self._run("osvdeploy status --json", told=False))
        idle = [slot for slot in status["slots"] if not slot["serving"]]
        if any(slot["capacity"] for slot in idle):
            raise StoryBroken("the candidate's machines are still there")

    def _inventory(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = json.loads(self._run("osvdeploy sandbox status --json", told=False))["inventory"]
        return found

    def _count(self, step: str, outcome: str, seconds: float) -> None:
        """One line of the table; the calls are those that the sandbox received since the last line."""
        calls = json.loads(self._run("osvdeploy sandbox status --calls --json", told=False))["calls"]
        new = calls[self._seen_calls :]
        self._seen_calls = len(calls)
        self.table.append(Told(step, outcome, seconds, len(new), sum(1 for call in new if call["mutating"])))


class Client:
    """Asks the service every 20 ms, for as long as the block runs, and remembers what came back."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def __enter__(self) -> Client:
        self._thread.start()
        return self

    def __exit__(self, *ended: object) -> None:
        # A little longer: what the switch left behind would show now.
        time.sleep(0.3)
        self._stop.set()
        self._thread.join()

    def told(self) -> str:
        versions = ", ".join(f"{count} from {version}" for version, count in sorted(self.answers.items()))
        return f"{sum(self.answers.values())} good answers ({versions}) and {len(self.failures)} failures"

    def _ask(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                status, body = _get(self.url, "/")
            except OSError as error:
                self.failures.append(str(error))
            else:
                words = body.split()
                if status == 200 and len(words) > 1:
                    self.answers[words[1].rstrip(":")] += 1
                else:
                    self.failures.append(f"{status} {body!r}")
            self._stop.wait(max(0.0, _CLIENT_EVERY - (time.monotonic() - began)))


def make_folder(folder: Path) -> None:
    """An empty folder for the story. One of an earlier story is emptied; any other is left alone."""
    if folder.exists() and not (folder / _MARKER).exists() and any(folder.iterdir()):
        raise UsageError(f"{folder}: is not empty, and no earlier demo's", hint="name another folder with --dir")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / _MARKER).touch()


def _get(url: str, path: str) -> tuple[int, str]:
    split = urlsplit(url)
    connection = http.client.HTTPConnection(split.hostname or "", split.port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    except http.client.HTTPException as error:
        raise ConnectionError(f"{type(error).__name__}: {error}") from None
    finally:
        connection.close()
