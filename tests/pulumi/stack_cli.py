"""A copy of a stack under Pulumi's own command, with its own Pulumi.yaml, and what happens to it on every cloud."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.alive import until
from tests.pulumi import standins
from tests.pulumi.cli import Cli, Ran
from tests.pulumi.engine import MODULES
from tests.pulumi.stacks import Copied


class StackCli(Cli):
    """The stack `dev`, with the stand-ins on PATH."""

    def __init__(self, copied: Copied, home: Path, config: Mapping[str, object]) -> None:
        path = os.pathsep.join([str(standins.all_in(home / "plugins")), os.environ["PATH"]])
        environ = {**copied.place.environ, "PYTHONPATH": MODULES, "PATH": path}
        super().__init__(copied.folder, home / "pulumi", environ=environ)
        self.copied = copied
        # What `pip install -r requirements.txt` makes.
        (copied.folder / ".venv").symlink_to(sys.prefix)
        assert self.run("stack", "init", "dev").code == 0
        for key, value in config.items():
            assert self.run("config", "set", key, str(value)).code == 0

    def brought(self, done: Ran, version: str) -> None:
        """A client gets that version's answers, the stack says so, and there is nothing more to do."""
        assert done.code == 0, done.text
        assert self.copied.serves(self.output("url"), version)
        assert self.output("release").startswith(f"service-{version}-")
        same = self.up("--expect-no-changes")
        assert same.code == 0, same.text

    def interrupted(self, when: Callable[[], object]) -> Ran:
        """An `up` that gets a ^C."""
        command = subprocess.Popen(
            ["pulumi", "up", "--yes", "--skip-preview", "--non-interactive"], cwd=self.folder, env=self.environ,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        until(when, 60)
        command.send_signal(signal.SIGINT)
        told, _ = command.communicate(timeout=60)
        assert command.returncode == 1, told
        return Ran(command.returncode, told)

    def begins(self, resources: int, when: Callable[[], object]) -> None:
        """A preview makes nothing; an `up` that is interrupted while the network is made is gone on with."""
        before = self.copied.held()
        self.copied.release("1.0.0")
        planned = self.run("preview")
        assert planned.code == 0, planned.text
        assert f"+ {resources} to create" in planned.text
        assert self.run("preview", "--expect-no-changes").code == 7
        assert self.copied.held() == before
        self.interrupted(when)
        self.brought(self.up(), "1.0.0")

    def releases(self, ledger: str) -> None:
        """A second release, a bad one, back from the command line, a hold, a fourth."""
        self.copied.release("1.1.0")
        planned = self.run("preview", "--expect-no-changes")
        assert planned.code == 7, planned.text
        self.brought(self.up(), "1.1.0")

        self.copied.release("1.2.0", broken=True)
        failed = self.up()
        assert failed.code == 1
        assert "no database" in failed.text and "corrupt" not in failed.text
        assert self.copied.serves(self.output("url"), "1.1.0")

        self.copied.release("1.1.0")
        ran = self.copied.osvdeploy("rollback", ledger=ledger)
        assert ran.code == 0, ran.stderr
        held = self.up()
        assert held.text.partition("Diagnostics:")[2].count("is held since") == 1, held.text
        self.brought(held, "1.0.0")
        self.copied.release("1.3.0")
        self.brought(self.up(), "1.3.0")

    def mends(self) -> Ran:
        """What was changed by hand is seen by a refresh, and put right by the next `up`; the plan for that."""
        drifted = self.run("refresh", "--yes", "--skip-preview")
        assert drifted.code == 0, drifted.text
        planned = self.run("preview", "--expect-no-changes")
        assert planned.code == 7, planned.text
        assert "put traffic right" in planned.text
        self.brought(self.up(), "1.3.0")
        return planned

    def ends(self, ledger: str) -> None:
        """An `up` that is interrupted while a release is watched is gone on with; then all of it goes."""
        assert self.run("config", "set", "bake", "3s").code == 0
        self.copied.release("1.4.0")
        stopped = self.interrupted(lambda: self.copied.bakes(ledger))
        assert "left in stage bake" in stopped.text
        self.brought(self.up(), "1.4.0")
        gone = self.run("destroy", "--yes", "--skip-preview")
        assert gone.code == 0, gone.text
