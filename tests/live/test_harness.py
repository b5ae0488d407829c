"""Live tests against the sandbox, over sockets, as if it were the account: all of the harness but the account."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from osvdeploy.cloud.aws import bucket
from osvdeploy.sandbox import control
from osvdeploy.sandbox.control import Running
from tests.contract.aws_place import TRUST, permissions
from tests.live import settings

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

SPEED = 30.0

KEPT = ("iam.role",)
"""What the account's owner has in it."""


@dataclass
class Stand:
    """An account on AWS and a project on Google, and somebody who runs live tests in them."""

    running: Running
    folder: Path
    environ: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ours = {name: value for name, value in os.environ.items() if name not in settings.VARIABLES}
        found = control.environment(self.running, ours)
        self.environ = {
            **{name: value for name, value in ours.items() if name not in found.unset and "PYTEST" not in name},
            **found.variables,
            "PYTHONPATH": str(ROOT),
            settings.BUDGET: "5",
            settings.AWS_REGION: control.REGION,
            settings.GCP_PROJECT: control.PROJECT,
            settings.GCP_ZONE: "europe-west1-b",
            settings.SPEED: f"{SPEED:g}",
        }

    def without(self, *names: str) -> Stand:
        """The same accounts, of whom has not set these variables."""
        made = Stand(self.running, self.folder)
        made.environ = {name: value for name, value in self.environ.items() if name not in names}
        return made

    def begin(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self._pytest(*words),
            cwd=ROOT,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def pytest(self, *words: str) -> tuple[int, str]:
        """Exit code, and all that was said."""
        process = self.begin(*words)
        said, _ = process.communicate(timeout=500)
        return process.returncode, said

    def sweep(self, *words: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "tests.live.sweep", *words]
        done = subprocess.run(command, cwd=ROOT, env=self.environ, capture_output=True, text=True, timeout=300)
        return done.returncode, done.stdout + done.stderr

    def held(self) -> dict[str, list[str]]:
        """What the accounts hold."""
        found: dict[str, list[str]] = self.running.ask("GET", "status")["inventory"]
        return {kind: keys for kind, keys in found.items() if kind not in KEPT}

    def calls(self) -> list[dict[str, Any]]:
        """Every call so far."""
        found: list[dict[str, Any]] = self.running.ask("GET", "calls?after=0")["calls"]
        return found

    def changes(self) -> list[str]:
        """Every call so far that changed something."""
        return [call["operation"] for call in self.calls() if call["mutating"]]

    def own(self, body: str) -> list[str]:
        """A live test, which has made some of everything when its ``body`` runs, as words for pytest."""
        path = self.folder / "test_own.py"
        path.write_text(f"{_OWN}    {body}\n")
        # A plugin that is named comes before xdist, so its wish to be one process is not heard.
        return ["-n", "0", "-p", "tests.conftest", "-c", str(ROOT / "pyproject.toml"), str(path)]

    def _pytest(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "pytest", "-q", "-rs", "-m", "live", "-p", "no:cacheprovider", *words]


_OWN = """
import os, signal
from pathlib import Path

import pytest

from osvdeploy.cloud.interfaces import Slot
from tests.contract.conftest import run, share
from tests.contract.registries import OfDisks
from tests.live import marks
from tests.live.marks import live
from tests.live.settings import Account


@pytest.fixture(params=[live("aws", marks.AWS_SCENE), live("gcp", marks.GCP_SCENE)])
def all_of_it(request):
    "Some of each kind of things that the suites make, ours and somebody else's."
    account = Account(request.param)
    with share(request, account) as (session, label):
        aws = account is Account.AWS
        scene = session.aws_scene(label) if aws else session.gcp_scene(label)
        registry = OfDisks(session.aws_place(label)) if aws else session.gcp_archives(label)
        made = scene.stand(Slot.BLUE, "hello-1", capacity=1)
        scene.scale(made.name, 1, 3)
        scene.weights(100, 0)
        scene.plant_group("osvd-theirs")
        registry.disk()
        registry.put_foreign("theirs-1.0.0")
        store = (session.aws if aws else session.gcp).store(label)
        assert store.put_if_absent(session.ctx, "a/1", b"one")
        yield scene


def test_goes_wrong(all_of_it):
    "However it ends, nothing is left."
"""


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    folder = tmp_path / "sandbox"
    words = ["sandbox", "start", "--speed", f"{SPEED:g}", "--dir", str(folder)]
    subprocess.run([sys.executable, "-m", "osvdeploy", *words], check=True, capture_output=True)
    made = Stand(control.required(folder), tmp_path)
    iam = _iam(made)
    iam.create_role(RoleName="vmimport", AssumeRolePolicyDocument=json.dumps(TRUST))
    policy = json.dumps(permissions("osvd-live-*"))
    iam.put_role_policy(RoleName="vmimport", PolicyName="vmimport", PolicyDocument=policy)
    yield made
    control.stop(folder)


def _iam(stand: Stand) -> Any:
    import boto3

    key, secret = stand.environ["AWS_ACCESS_KEY_ID"], stand.environ["AWS_SECRET_ACCESS_KEY"]
    return boto3.Session(key, secret).client("iam", region_name=control.REGION, endpoint_url=stand.running.url)


def test_nobody_runs_them_by_accident(stand: Stand) -> None:
    """With every variable set, only -m live selects them: not a run of everything, nor of another marker, nor one of
    them by its name."""
    for words in ([], ["-m", "sandbox"], ["-k", "live"]):
        suite = "tests/contract/test_console.py"
        command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-n", "0", *words, suite]
        done = subprocess.run(command, cwd=ROOT, env=stand.environ, capture_output=True, text=True, timeout=120)
        assert "-live" not in done.stdout, words
        assert "deselected" in done.stdout
    assert stand.held() == {}


def test_the_pages_say_what_a_run_costs(stand: Stand) -> None:
    """README and docs/live.md have the estimate of a run of everything."""
    code, said = stand.pytest("--collect-only", "tests/contract")
    assert code == 0, said
    told = re.search(r"live tests: at most ([0-9.]+ USD)", said)
    assert told is not None, said
    for page in ("README.md", "docs/live.md"):
        assert told[1] in (ROOT / page).read_text(), page


def test_what_is_missing_is_named(stand: Stand) -> None:
    """Without a variable those that need it are skipped, and say which; no account is asked for anything."""
    for names in ((settings.BUDGET,), (settings.AWS_REGION, settings.GCP_ZONE)):
        before = stand.changes()
        code, said = stand.without(*names).pytest("tests/contract/test_console.py")
        assert (code, "8 skipped" in said) == (0, True), said
        assert all(f"{name} is not set" in said for name in names), said
        assert stand.changes() == before


def test_a_run_above_its_budget_is_refused(stand: Stand) -> None:
    """Before anything is made; it says what would fit, and what is left out."""
    before = stand.changes()
    stand.environ[settings.BUDGET] = "0.05"
    code, said = stand.pytest("tests/contract/test_traffic_router.py", "tests/contract/test_snapshots.py")
    assert code == pytest.ExitCode.USAGE_ERROR
    assert "OSVDEPLOY_LIVE_BUDGET is 0.05: nothing was made" in said
    assert "leaves out test_traffic_router on aws" in said
    assert "enough for test_snapshots on aws" in said
    assert stand.changes() == before


def test_the_suites_run_and_leave_nothing(stand: Stand) -> None:
    """One test of each suite, on both accounts where there are two: they pass, nothing is left, and nothing was asked
    of AWS that the policy in docs/live.md does not allow."""
    before = len(stand.calls())
    chosen = (
        "test_a_file_reads_back and 5242880 or test_parts_become or test_a_number_is_one or test_a_child_holds or "
        "test_a_registered_image or test_what_is_withdrawn and True or test_an_object_becomes or "
        "test_a_type_is_described or test_a_group_starts or test_the_preview_reaches or test_an_abort_can or "
        "test_a_rule_of_somebody and 99 or test_another_group_is_scaled"
    )
    code, said = stand.pytest("tests/contract", "-k", chosen)
    assert (code, "21 passed" in said) == (0, True), said
    assert "bringing up nodes" not in said, "one process runs them all"
    assert stand.held() == {}
    asked = {action_of(call) for call in stand.calls()[before:] if call["service"] in SERVICES}
    assert len(asked) > 40
    assert {action for action in asked if not any(fnmatch(action, allowed) for allowed in policy())} == set()


SERVICES = {
    **{name: name for name in ("ec2", "ebs", "s3", "iam", "sts", "autoscaling")},
    "elbv2": "elasticloadbalancing",
}
"""What policies call AWS's services."""

ACTIONS = {
    **bucket._ACTIONS,
    "ListBuckets": "s3:ListAllMyBuckets",
    "DeleteObjects": "s3:DeleteObject",
}
"""Of operations that policies call otherwise."""


def action_of(call: dict[str, Any]) -> str:
    return ACTIONS.get(call["operation"], f"{SERVICES[call['service']]}:{call['operation']}")


def policy() -> list[str]:
    """The actions that docs/live.md allows."""
    written = re.search(r"```json\n(.*?)```", (ROOT / "docs" / "live.md").read_text(), re.DOTALL)
    assert written is not None
    return [action for statement in json.loads(written[1])["Statement"] for action in statement["Action"]]


def test_a_failing_test_leaves_nothing(stand: Stand) -> None:
    """Nor does its run."""
    code, said = stand.pytest(*stand.own("raise AssertionError('on purpose')"))
    assert (code, said.count("on purpose")) == (1, 4), said
    assert "2 failed" in said and "error" not in said.lower().replace("assertionerror", ""), said
    assert stand.held() == {}


def test_ctrl_c_leaves_nothing(stand: Stand) -> None:
    """In the middle of a test, with things of it and of its run there."""
    process = stand.begin(*stand.own(f"Path({str(stand.folder / 'ready')!r}).touch(); all_of_it.ctx.sleep(36000)"))
    _wait_for(stand.folder / "ready", process)
    assert stand.held() != {}
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == pytest.ExitCode.INTERRUPTED, said
    assert stand.held() == {}


def test_what_a_killed_run_left_is_swept(stand: Stand) -> None:
    """By whoever looks later, by tags and names alone; not by another run's end, nor before a day has passed, unless
    that is said."""
    for cloud in ("aws", "gcp"):
        code, said = stand.pytest(*stand.own("os.kill(os.getpid(), signal.SIGKILL)"), "-k", cloud)
        assert code == -signal.SIGKILL, said
    left = stand.held()
    assert len(left) > 10

    code, said = stand.pytest("tests/contract/test_snapshots.py", "-k", "deleting")
    assert (code, stand.held()) == (0, left), said
    for words in (["--older-than", "0", "--dry-run"], []):
        code, said = stand.sweep(*words)
        assert (code, stand.held()) == (0, left), said
    assert "aws: image" in said and "gcp: global/urlMaps" in said

    code, said = stand.sweep("--older-than", "0")
    assert (code, stand.held()) == (0, {}), said
    code, said = stand.sweep("--older-than", "0")
    assert code == 0 and said.count("nothing of live runs is there") == 2


def _wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 200
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.1)  # polled: another process makes it
