"""A stack as a team has it: a copy of its folder, with a program in it, in a sandbox whose machines run."""

from __future__ import annotations

import contextvars
import importlib
import json
import re
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pytest
import requests
import yaml
from pulumi.runtime.config import set_all_config
from pulumi.runtime.settings import reset_options

from osvdeploy.demo.toolchain import compile_program
from tests.alive import until
from tests.cli.running import Ran, osvdeploy
from tests.pulumi.engine import MiniStack, Report
from tests.pulumi.places import Place, on_google
from tests.pulumi.process import SCRIPT
from tests.pulumi.standins import command

STACKS = Path(__file__).parents[2] / "stacks"

_LEFT = ("s3.object", "storage.object/acme-releases", "token")
"""Kinds of what stays when a stack goes."""

BROKEN = """\
#include <stdio.h>
#include <stdlib.h>

int main(void)
{
    puts("app: no database");
    fflush(stdout);
    abort();
}
"""


def texts(config: Mapping[str, Any]) -> dict[str, str]:
    """A configuration as a program is given it: texts, what is more than that as JSON."""
    return {key: each if isinstance(each, str) else json.dumps(each) for key, each in config.items()}


@contextmanager
def settings_of(stack: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A stack's module of that name, which each stack has one of."""
    monkeypatch.syspath_prepend(str(stack))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield importlib.import_module("settings")
    del sys.modules["settings"]


def loaded(
    settings: ModuleType, monkeypatch: pytest.MonkeyPatch, config: Mapping[str, Any], *, stack: str = "dev"
) -> Any:
    """The settings of a configuration; raises pulumi.RunError."""
    said = {key if ":" in key else f"service:{key}": text for key, text in texts(config).items()}
    monkeypatch.setenv("PULUMI_CONFIG", json.dumps(said))

    def load() -> Any:
        reset_options(project="service", stack=stack)
        set_all_config(said)
        return settings.Settings.load()

    return contextvars.copy_context().run(load)


def listed(stack: Path) -> set[str]:
    """The settings that a stack's README has in its table."""
    table = (stack / "README.md").read_text().partition("## Settings")[2].partition("\n## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("| `")]
    return {each.strip(" `") for line in lines for each in line.split("|")[1].split(",")}


@contextmanager
def on_google_with_ledger(folder: Path) -> Iterator[Place]:
    """A project with a balancer of somebody's and the bucket of the ledger, as pulumi_gcp's provider is told of it."""
    with on_google(folder) as place:
        bucket = {"name": "acme-releases", "location": "EU"}
        assert requests.post(f"{place.shell.url}/storage/v1/b?project=acme-prod", json=bucket, timeout=10).ok
        endpoints = {
            "GOOGLE_COMPUTE_CUSTOM_ENDPOINT": f"{place.shell.url}/compute/v1/",
            "GOOGLE_STORAGE_CUSTOM_ENDPOINT": f"{place.shell.url}/storage/v1/",
        }
        yield replace(place, environ={**place.environ, **endpoints})


@dataclass
class Copied:
    """A copy of a stack, and the account that it is run in."""

    place: Place
    folder: Path
    stack: str = "dev"

    @classmethod
    def of(cls, cloud: str, home: Path, place: Place) -> Copied:
        """Copy a stack, and put the kernel of the place's guests where it looks for one."""
        folder = home / "copy"
        shutil.copytree(STACKS / cloud, folder, ignore=shutil.ignore_patterns("__pycache__", "build"))
        build = folder / "app" / "build"
        build.mkdir()
        shutil.copy(place.folder / "loader.img", build)
        return cls(place, folder)

    def config(self, **changed: str) -> dict[str, str]:
        """What the stack's Pulumi.<stack>.yaml says, and what is said in its place, as the engine hands it on."""
        said = yaml.safe_load((self.folder / f"Pulumi.{self.stack}.yaml").read_text())["config"]
        return {**texts(said), **{key if ":" in key else f"service:{key}": text for key, text in changed.items()}}

    def release(self, version: str, *, broken: bool = False) -> None:
        """Make the app's program and spec those of a version."""
        source = self.folder / "app" / "app.c"
        if broken:
            source = self.folder / "broken.c"
            source.write_text(BROKEN)
        compile_program([source], self.folder / "app" / "build" / "app")
        spec = self.folder / "app" / "osv.toml"
        spec.write_text(re.sub('(?m)^version = "[0-9.]+"', f'version = "{version}"', spec.read_text()))

    def serves(self, url: str, version: str) -> bool:
        """Whether a client gets that version's answer."""
        return requests.get(url, timeout=10).headers.get("x-release", "").startswith(f"service-{version}-")

    def osvdeploy(self, command: str, *words: str, ledger: str) -> Ran:
        """A command about the service, as a person runs it."""
        with mock.patch.dict("os.environ", self.place.environ):
            return osvdeploy(command, f"service/{self.stack}", "--ledger", ledger, *words)

    def bakes(self, ledger: str) -> bool:
        """Whether a rollout is under way that watches its release."""
        run = self.osvdeploy("status", "--json", ledger=ledger).document["run"]
        return (run["stage"], run["outcome"]) == ("bake", None)

    def held(self) -> Mapping[str, Sequence[str]]:
        """All that the account has, but for the ledger's objects, and the tokens of calls, which nobody takes away."""
        found = self.place.shell.sandbox.inventory()
        return {kind: keys for kind, keys in found.items() if not kind.startswith(_LEFT)}


class Story:
    """A stack of a copy, run by the small engine: our provider, and the stand-in for the cloud's own."""

    def __init__(self, copied: Copied, cloud: str, **config: str) -> None:
        self.copied = copied
        self.stack = MiniStack(
            copied.folder,
            {"osvdeploy": [SCRIPT], cloud: command(cloud)},
            environ=copied.place.environ,
            config=copied.config(**config),
            project="service",
            name=copied.stack,
        )

    def preview(self) -> Report:
        return self.stack.preview("__main__.py")

    def up(self) -> Report:
        return self.stack.up("__main__.py")

    def brought(self, version: str) -> Report:
        """After the next `up` that version serves."""
        done = self.up()
        assert done.ok, done.said()
        assert done.outputs["status"] == "serving"
        assert str(done.outputs["release"]).startswith(f"service-{version}-")
        assert self.copied.serves(str(done.outputs["url"]), version)
        return done

    def unchanged(self) -> None:
        """The next `up` has nothing to do."""
        again = self.up()
        assert (again.errors, again.changes) == ([], {})

    def begins(self, resources: int) -> Report:
        """A preview makes nothing, the `up` after it what it said, and the next one nothing more."""
        before = self.copied.held()
        self.copied.release("1.0.0")
        planned = self.preview()
        assert (planned.errors, planned.changes) == ([], {"create": resources})
        assert self.copied.held() == before
        first = self.brought("1.0.0")
        assert first.changes == planned.changes
        self.unchanged()
        return first

    def releases(self, ledger: str) -> None:
        """A second release, a bad one, back from the command line, a hold, a fourth."""
        self.copied.release("1.1.0")
        planned = self.preview()
        assert (planned.errors, planned.changes) == ([], {"update": 2, "replace": 1, "delete": 1})
        second = self.brought("1.1.0")
        assert second.changes == planned.changes

        self.copied.release("1.2.0", broken=True)
        failed = self.up()
        assert not failed.ok
        assert "no database" in failed.said(), "what the guest said is told"
        assert self.copied.serves(str(second.outputs["url"]), "1.1.0")

        self.copied.release("1.1.0")
        ran = self.copied.osvdeploy("rollback", ledger=ledger)
        assert ran.code == 0, ran.stderr
        held = self.brought("1.0.0")
        assert held.said().count("is held since") == 1
        assert f"osvdeploy unhold service/{self.copied.stack}" in held.said()
        self.unchanged()
        self.copied.release("1.3.0")
        self.brought("1.3.0")

    def ends(self) -> None:
        """An `up` that is interrupted while a release is watched is gone on with; then all of it goes."""
        self.copied.release("1.4.0")
        self.stack.config["service:bake"] = "3s"
        reports: list[Report] = []
        running = threading.Thread(target=lambda: reports.append(self.up()))
        running.start()
        until(lambda: any("end of" in each for each in self._shown()), 60)
        self.stack.interrupt()
        running.join()
        (interrupted,) = reports
        assert not interrupted.ok
        assert "left in stage bake" in interrupted.said()
        self.brought("1.4.0")
        self.unchanged()
        gone = self.stack.destroy()
        assert gone.ok, gone.said()
        assert self.stack.records == []

    def _shown(self) -> list[str]:
        run = self.stack.running
        return [] if run is None else [each.text for each in run.report.lines]
