"""Pulumi's own command, where it is on PATH: a project in a folder, a backend in another, nothing of the network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.pulumi import standins
from tests.pulumi.process import SCRIPT

PULUMI = shutil.which("pulumi")
needs_pulumi = pytest.mark.skipif(PULUMI is None, reason="pulumi is not on PATH (it is in no package registry)")


def needs_language(name: str) -> pytest.MarkDecorator:
    """Of a program in that language Pulumi asks a host, which a release of Pulumi has beside its command."""
    host = f"pulumi-language-{name}"
    return pytest.mark.skipif(shutil.which(host) is None, reason=f"{host} is not on PATH beside pulumi")


@dataclass(frozen=True)
class Ran:
    """How a command ended, and all that it said."""

    code: int
    text: str

    @property
    def document(self) -> Any:
        return json.loads(self.text)


class Cli:
    """A project whose stack is `dev`. The provider is found in the environment that the tests run in."""

    def __init__(self, folder: Path, home: Path, *, environ: Mapping[str, str] | None = None) -> None:
        self.folder, self.home = folder, home
        backend = home / "backend"
        backend.mkdir(parents=True)
        self.environ = {
            **os.environ,
            "PULUMI_BACKEND_URL": backend.as_uri(),
            "PULUMI_CONFIG_PASSPHRASE": "",
            "PULUMI_HOME": str(home / "home"),
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            "PULUMI_DISABLE_REGISTRY_RESOLVE": "true",
            "VIRTUAL_ENV": str(Path(sys.executable).parents[1]),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            **(environ or {}),
        }

    def project(self, program: str, *, runtime: str = "python") -> None:
        """Write a project with a Python program, and make its stack."""
        # The command wants the plugin of each SDK that the program's Python has, also where the program has none of it.
        providers = {
            "osvdeploy": SCRIPT.parent,
            **dict.fromkeys(standins.PACKAGES, standins.all_in(self.home / "plugins")),
        }
        (self.folder / "Pulumi.yaml").write_text(
            f"name: project\nruntime: {runtime}\nplugins:\n  providers:\n"
            + "".join(f"    - name: {name}\n      path: {path}\n" for name, path in providers.items())
        )
        (self.folder / "__main__.py").write_text(program)
        made = self.run("stack", "init", "dev")
        assert made.code == 0, made.text

    def run(self, *words: str, timeout: float = 300) -> Ran:
        """``pulumi words...`` without a terminal."""
        ended = subprocess.run(
            ["pulumi", *words, "--non-interactive", "--color", "never"],
            cwd=self.folder,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
        return Ran(ended.returncode, ended.stdout)

    def up(self, *words: str) -> Ran:
        return self.run("up", "--yes", "--skip-preview", *words)

    def output(self, name: str) -> str:
        ran = self.run("stack", "output", name)
        assert ran.code == 0, ran.text
        return ran.text.strip()

    def export(self) -> list[dict[str, Any]]:
        """The resources in the state."""
        ran = self.run("stack", "export")
        assert ran.code == 0, ran.text
        resources: list[dict[str, Any]] = ran.document["deployment"]["resources"]
        return resources
