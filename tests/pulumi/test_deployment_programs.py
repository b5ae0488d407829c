"""A program with a deployment, run whole: releases come and go, from the program and from the command line."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from osvdeploy.cloud.local.store import DirectoryStore
from osvdeploy.context import Context, ProcessIdentity
from osvdeploy.provider.values import Value
from osvdeploy.rollout import lease
from osvdeploy.rollout.gates import Bound
from osvdeploy.rollout.ledger import Ledger
from tests.alive import until
from tests.pulumi.engine import MiniStack, Report
from tests.pulumi.places import Place, move_traffic, needs_loopback, on_aws, on_google, on_google_by_a_rule
from tests.pulumi.process import SCRIPT, Logged
from tests.pulumi.projects import AGAINST_ONE, DEPLOYMENT_AWS, DEPLOYMENT_GOOGLE, EVERY_SECOND, NOTE, SMOKE

pytestmark = [pytest.mark.slow, needs_loopback]


@pytest.fixture(
    scope="module", params=[(on_aws, DEPLOYMENT_AWS), (on_google, DEPLOYMENT_GOOGLE)], ids=["aws", "google"]
)
def story(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    make, program = request.param
    with make(tmp_path_factory.mktemp("place")) as place:
        yield Story(place, tmp_path_factory.mktemp("program"), program)


class Story:
    """A stack whose program deploys what it is told to."""

    def __init__(self, place: Place, folder: Path, program: str) -> None:
        self.place = place
        (folder / "__main__.py").write_text(program)
        self.stack = MiniStack(folder, {"osvdeploy": [SCRIPT]}, environ=place.environ)
        self.stack.config["network"] = json.dumps(dict(place.inputs))

    def wants(self, version: str) -> None:
        self.stack.config["image"] = self.place.image(version)

    def up(self, version: str | None = None) -> Report:
        if version is not None:
            self.wants(version)
        return self.stack.up("__main__.py")

    def preview(self) -> Report:
        return self.stack.preview("__main__.py")

    def serves(self, version: str) -> bool:
        return (self.place.serving() or "").startswith(f"hello-{version}-")

    def lines(self) -> Sequence[Logged]:
        """What the run that is under way has shown so far."""
        run = self.stack.running
        return [] if run is None else list(run.report.lines)

    def finished(self, report: Report, version: str) -> None:
        """The run changed the deployment, and a client gets that version's answers."""
        assert report.ok, report.said()
        assert self.serves(version)
        assert str(report.outputs["release"]).startswith(f"hello-{version}-")
        assert report.outputs["status"] == "serving"

    def unchanged(self) -> Report:
        """Nothing is to be done, and nothing is."""
        done = self.up()
        assert (done.errors, done.changes) == ([], {})
        return done


def test_story(story: Story) -> None:
    """The whole way of a service: a first release, a second, a bad one, back from the command line, a hold, a third,
    traffic that was moved by hand, an interruption, somebody else at work, and the end."""
    before = story.place.held()
    story.wants("1.0.0")
    planned = story.preview()
    assert (planned.errors, planned.changes) == ([], {"create": 1})
    assert "in blue, then send it all traffic" in planned.said()
    story.finished(story.up(), "1.0.0")
    story.unchanged()

    story.wants("1.1.0")
    planned = story.preview()
    assert planned.changes == {"update": 1}
    assert planned.step("hello").paths == {"image": "UPDATE"}
    assert "switch blue -> green (hello-1.0.0-" in planned.said()
    assert "then keep blue warm 1h" in planned.said()
    story.finished(story.up(), "1.1.0")

    failed = story.up("1.3.0")
    assert not failed.ok
    assert "hello-1.3.0-" in failed.said() and "hello-1.1.0-" in failed.said()
    assert "HELLO_GREETING is not set" in failed.said(), "what the guest said is told"
    assert story.serves("1.1.0")
    assert story.stack.record("hello").init_errors == []

    story.wants("1.1.0")
    ran = story.place.run("rollback")
    assert ran.code == 0, ran.stderr
    assert story.serves("1.0.0")
    for report in (story.preview(), story.unchanged()):
        assert (report.errors, report.changes) == ([], {})
        assert report.said().count("is held since") == 1
        assert "osvdeploy unhold hello/test" in report.said()
    assert report.outputs["release"] == story.place.serving()
    story.finished(story.up("1.4.0"), "1.4.0")
    # Another release that serves is no reason to trust the one that was left.
    assert story.stack.record("hello").outputs["hold"]["release"].startswith("hello-1.1.0-")

    move_traffic(story.place, 50, 50)
    refreshed = story.stack.refresh()
    assert refreshed.ok
    (problem,) = story.stack.record("hello").init_errors
    assert "serves, but the weights are blue 50, green 50" in problem
    planned = story.preview()
    assert planned.changes == {"update": 1}
    assert "put traffic right" in planned.said()
    story.finished(story.up(), "1.4.0")

    story.stack.config["bake"] = "3s"
    story.wants("1.0.0")
    reports: list[Report] = []
    running = threading.Thread(target=lambda: reports.append(story.up()))
    running.start()
    until(lambda: any("end of" in each.text for each in story.lines()), 60)
    story.stack.interrupt()
    running.join()
    (interrupted,) = reports
    assert not interrupted.ok
    assert "left in stage bake" in interrupted.said()
    assert story.stack.record("hello").init_errors
    story.finished(story.up(), "1.0.0")
    story.unchanged()

    ledger = Ledger(DirectoryStore(story.place.ledger), "hello", "test")
    ctx = Context(process=ProcessIdentity.current())
    with lease.held(ctx, ledger, "a test"):
        refused = story.up("1.4.0")
    assert not refused.ok
    assert f"process {ctx.process.pid} of {ctx.process.user}" in refused.said()
    assert story.serves("1.0.0")

    gone = story.stack.destroy()
    assert (gone.errors, gone.changes) == ([], {"delete": 1})
    assert story.stack.records == []
    assert story.place.held() == before


def test_by_a_forwarding_rule(tmp_path: Path) -> None:
    """All traffic moves with the rule, which is the user's, and leads where it led when the deployment is gone."""
    by_rule = DEPLOYMENT_GOOGLE.replace('path="/healthz"', 'path="/healthz", version_header="x-release"')
    for own, other in (
        ('url_map=network["urlMap"]', 'forwarding_rule=network["forwardingRule"]'),
        ('    route=osvdeploy.DeploymentRouteArgs(path="/*", priority=100),\n', ""),
    ):
        assert own in by_rule
        by_rule = by_rule.replace(own, other)
    with on_google_by_a_rule(tmp_path / "place") as place:
        (tmp_path / "program").mkdir()
        story, before = Story(place, tmp_path / "program", by_rule), place.held()
        for version in ("1.0.0", "1.1.0"):
            story.finished(story.up(version), version)
        gone = story.stack.destroy()
        assert gone.ok, gone.said()
        assert place.held() == before


def program_with(folder: Path, **scripts: str) -> Path:
    """A program's folder, with commands of gates and hooks in it."""
    folder.mkdir()
    for name, script in scripts.items():
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    return folder


def gate(most: float, **more: Value) -> str:
    """Gates of a program whose command prints at most so much."""
    metric = {"command": ["./counted", "{{release}}"], "max": most, "interval": "5s", **more}
    return json.dumps([{"name": "wrong", "metric": metric}])


def test_gates(tmp_path: Path) -> None:
    """A canary that breaks its gate goes back, and the `up` fails with what was counted; one that holds it serves.
    Other gates alone move no traffic, and are recorded."""
    folder = program_with(tmp_path / "program", counted=AGAINST_ONE)
    with on_aws(tmp_path / "place") as place:
        story, before = Story(place, folder, DEPLOYMENT_AWS), place.held()
        story.stack.config["strategy"] = json.dumps({"kind": "canary", "steps": [{"weight": 10, "bake": "1s"}]})
        story.stack.config["gates"] = gate(1, minSamples=1)
        story.finished(story.up("1.0.0"), "1.0.0")
        story.unchanged()
        story.wants("1.1.0")
        assert story.preview().said().rstrip().endswith("then keep blue warm 1h; gates: wrong (step)")
        failed = story.up()
        assert not failed.ok
        assert "gate wrong: 1 of 1 samples beyond max 1; median 5" in failed.said(), failed.said()
        assert any(each.ephemeral and "wrong: failed (1 of 1" in each.text for each in failed.lines)
        assert story.serves("1.0.0") and story.stack.record("hello").init_errors == []
        # Without shares, of which half a minute has to prove that they are gone.
        del story.stack.config["strategy"]
        story.stack.config["bake"] = "1s"
        passed = story.up("1.4.0")
        story.finished(passed, "1.4.0")
        assert any(each.ephemeral and "wrong: passed (" in each.text for each in passed.lines)

        story.stack.config["gates"] = gate(10, minSamples=1)
        rollout = story.stack.record("hello").outputs["rolloutId"]
        planned = story.preview()
        assert planned.step("hello").paths == {"gates[0].metric.max": "UPDATE"}
        assert "goes on serving in green" in planned.said()
        story.finished(story.up(), "1.4.0")
        assert story.stack.record("hello").outputs["rolloutId"] == rollout
        ledger, ctx = Ledger(DirectoryStore(place.ledger), "hello", "test"), Context()
        head = ledger.head(ctx)
        assert head is not None and head.stable is not None
        recorded = ledger.release(ctx, head.stable.release)
        assert recorded is not None and [gate.bounds for gate in recorded.settings.gates] == [(Bound(10.0),)]
        story.unchanged()

        del story.stack.config["gates"]
        (warned,) = [line for line in story.preview().said().splitlines() if "metric gates" in line]
        assert "was deployed with metric gates (wrong), and the program has none" in warned
        story.finished(story.up(), "1.4.0")
        assert "metric gates" not in story.unchanged().said()
        assert story.stack.destroy().ok
        assert place.held() == before


def test_a_gate_that_is_not_sure_asks(tmp_path: Path) -> None:
    """The `up` fails with what to type; after that the next one finds the release in service."""
    folder = program_with(tmp_path / "program", counted=EVERY_SECOND)
    with on_google(tmp_path / "place") as place:
        story = Story(place, folder, DEPLOYMENT_GOOGLE)
        story.finished(story.up("1.0.0"), "1.0.0")
        story.stack.config.update(bake="1s", gates=gate(1, minSamples=2))
        waits = story.up("1.1.0")
        assert not waits.ok
        assert "inconclusive" in waits.said() and "`osvdeploy resume hello/test" in waits.said(), waits.said()
        assert place.run("promote").code == 0
        story.finished(story.up(), "1.1.0")
        assert story.stack.destroy().ok


def test_hooks(tmp_path: Path) -> None:
    """A release that a hook refuses gets no traffic, and the `up` fails with what the hook said. A hook that cannot be
    asked from here is told by the preview, and refuses the `up` before anything moves."""
    folder = program_with(tmp_path / "program", smoke=SMOKE, note=NOTE)
    smoke = {"name": "smoke", "on": ["verify"], "command": ["./smoke"]}
    note = {"name": "note", "on": ["done"], "command": ["./note"], "timeout": "30s", "onFailure": "warn"}
    with on_aws(tmp_path / "place") as place:
        story, before = Story(place, folder, DEPLOYMENT_AWS), place.held()
        story.stack.config["hooks"] = json.dumps([smoke, note])
        story.stack.config["notify"] = json.dumps([{"webhookVariable": "NO_SUCH_WEBHOOK", "on": ["succeeded"]}])
        story.finished(story.up("1.0.0"), "1.0.0")
        story.unchanged()
        noted = json.loads((folder / "noted").read_text())
        assert (noted["hook"], noted["stage"], noted["outcome"]) == ("note", "done", "succeeded")
        story.wants("1.1.0")
        planned = story.preview().said()
        assert planned.rstrip().endswith("; hooks: smoke (verify), note (done)")
        assert "webhook NO_SUCH_WEBHOOK will not be told" in planned
        failed = story.up()
        assert not failed.ok
        assert "it smokes" in failed.said(), failed.said()
        assert story.serves("1.0.0") and story.stack.record("hello").init_errors == []

        (folder / "smoke").unlink()
        story.wants("1.4.0")
        assert "hook smoke: " in story.preview().said()
        assert "an `up` from here would be refused" in story.preview().said()
        refused = story.up()
        assert not refused.ok and "hook smoke: " in refused.said()
        story.stack.config["hooks"] = json.dumps([note])
        story.finished(story.up("1.4.0"), "1.4.0")
        assert story.stack.destroy().ok
        assert place.held() == before
