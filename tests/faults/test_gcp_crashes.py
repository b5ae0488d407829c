"""A rollout on Google dies before or after any of its changes, or writes to the ledger; the next process runs the same.

As in test_deploy_crashes.py: from each such moment, kept as a kill -9 would leave it, another process goes on with
nothing but the cloud and the ledger to go by. It has to wait the dead one's lease out, and shuts it out. What stands in
the end is what the run without trouble left, and on the way no client has seen an error.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from osvdeploy.cloud.local.store import DirectoryStore
from osvdeploy.context import Context
from osvdeploy.digests import sha256
from osvdeploy.osv.image import RawImage
from osvdeploy.rollout.model import Kind, Limits
from osvdeploy.rollout.releases import Release
from osvdeploy.sandbox.core import Moment
from osvdeploy.sandbox.inprocess import Client
from osvdeploy.sandbox.runners import GuestAnswer
from osvdeploy.sandbox.wire import Call
from tests.contract.gcp_scene import REGION, ZONE, scale_group
from tests.gcp_world import GcpWorld, Process
from tests.rollout.made import UNHURRIED
from tests.world import BAD, GOOD, MIN_READY, SETTLED, Kept, named_alike, unnumbered

pytestmark = [pytest.mark.slow, pytest.mark.sandbox]

EVERY = int(os.environ.get("OSVDEPLOY_DEATHS_EVERY", "3"))
"""Of the moments before and after writes to the ledger, one in so many is died at; `make soak` dies at all."""

STANDING = (
    "compute.backendService",
    "compute.forwardingRule",
    "compute.targetTcpProxy",
    "compute.healthCheck",
    "compute.instanceGroupManager",
    "compute.autoscaler",
    "compute.instanceTemplate",
    "compute.image",
)
"""Kinds of what a service has, each told by its path."""


class Project(GcpWorld):
    """A project with a client that asks the service before every call of whoever works on it."""

    def __init__(self, folder: Path, *, pointer: bool = False) -> None:
        super().__init__(folder, pointer=pointer)
        # The stories wait longer for what never comes up; here each death waits for it anew.
        health = replace(self.settings.health, min_ready=MIN_READY, boot_timeout=90.0)
        self.settings = replace(self.settings, family="hello-production", health=health)
        self.customer = Client(self.sandbox, self.clock)
        self.releases: dict[str, Release] = {}
        self.raws: dict[str, RawImage] = {}
        self.wrong: list[str] = []
        self.points: list[tuple[str, Kept]] = []
        self.writes: list[tuple[str, Kept]] = []
        """The same around writes to the ledger, but for moments that nobody could tell from one that is kept."""
        self.pointer = pointer
        self.entry = self.shown()

    def process(self, limits: Limits | None = None) -> Process:
        return super().process(limits or UNHURRIED)

    def made(self, version: str, program: dict[str, object] | None = None) -> None:
        self.releases[version] = self.build(version, program or dict(GOOD))
        self.raws[version] = self.raw

    def again(self, version: str) -> int:
        self.raw = self.raws[version]
        return self.deploy(self.releases[version]).exit_code

    def go_back(self) -> int:
        """Names its release where the one that died was over, not to go back twice."""
        run = self.head.run
        over = run is not None and run.kind is Kind.ROLLBACK and run.over
        return self.rollback(self.releases["1.0.0"] if over else None).exit_code

    def abandoned(self) -> None:
        """What was warm is cold, what was new is old, and a publishing that was killed has left objects and parts."""
        store, ctx = self.account.store("gs://acme/osvdeploy"), self.process().ctx
        under = f"disks/hello/{sha256(b'killed')}.1"
        for name in (f"{under}/body", f"{under}/hello.head", f".parts/{under}/other/0123456789abcdef/000001"):
            self.account.session().post(
                "https://storage.googleapis.com/upload/storage/v1/b/acme/o",
                params={"uploadType": "media", "name": f"osvdeploy/{name}"},
                data=b"left",
            ).raise_for_status()
        assert len(list(store.keys(ctx, under))) == 2
        here = self.process()
        here.manager.destroy(here.ctx)
        self.wait(25 * 3600)

    def sweep(self) -> int:
        self.gc(keep=1)
        return 0

    def destroy(self) -> int:
        if not self.head.destroyed:
            here = self.process()
            here.manager.destroy(here.ctx)
        return 0

    def watch(self, *, answers: bool, keep: bool) -> None:
        """Ask as a client around each call; ``keep`` what is there around each change."""

        def asked(moment: Moment, call: Call) -> None:
            if answers and moment is Moment.BEFORE:
                answer = self.customer.get(str(self.entry["IPAddress"]), 8000, "/")
                if not isinstance(answer, GuestAnswer) or answer.status != 200:
                    self.wrong.append(f"{call.operation}: {answer}")
            if keep and ("requestId" in call.params or call.operation == "objects.delete"):
                self.points.append((f"{moment} {call.operation}", self.kept()))

        self.sandbox.hook = asked

    @contextmanager
    def keeping_writes(self) -> Iterator[None]:
        """Keep what is there around each write to the ledger, too."""
        put, seen = DirectoryStore.put_if_absent, set[object]()

        def keep(moment: Moment, key: str) -> None:
            kept = self.kept()
            seen.update(each.mark for _, each in self.points[-1:])
            if kept.mark not in seen:
                self.writes.append((f"{moment} writing {key}", kept))
            seen.add(kept.mark)

        def writing(store: DirectoryStore, ctx: Context, key: str, content: bytes) -> bool:
            keep(Moment.BEFORE, key)
            done = put(store, ctx, key, content)
            keep(Moment.AFTER, key)
            return done

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(DirectoryStore, "put_if_absent", writing)
            yield

    def scale(self) -> None:
        """Attach to the group that serves what scales it, as a user would."""
        stable = self.head.stable
        assert stable is not None
        scale_group(self.account.ctx, self.account.gcp(), f"zones/{ZONE}", stable.group, 1, 6)

    def scaling(self) -> dict[str, object]:
        """Of each group, by its name: its size, how it replaces machines, and the policy of its autoscaler, which may
        name the group itself."""
        groups = self.network.ask("GET", f"zones/{ZONE}/instanceGroupManagers").get("items", [])
        scalers = self.network.ask("GET", f"zones/{ZONE}/autoscalers").get("items", [])
        policies = {each["target"]: json.dumps(each["autoscalingPolicy"], sort_keys=True) for each in scalers}
        found: dict[str, object] = {}
        for each in groups:
            name, policy = unnumbered(each["name"]), policies.get(each["selfLink"], "")
            found[name] = each["targetSize"], each["updatePolicy"], policy.replace(each["name"], name)
        return found

    def shown(self) -> dict[str, Any]:
        """The user's forwarding rule."""
        where = f"regions/{REGION}" if self.pointer else "global"
        return self.network.ask("GET", f"{where}/forwardingRules/web")

    def leading(self) -> object:
        """Where traffic is led, by a URL map's rules or by the forwarding rule itself. Epochs differ with each run."""
        if self.pointer:
            rule = self.shown()
            return rule["target"], {name: rule["labels"][name] for name in rule["labels"] if "epoch" not in name}
        matchers = self.network.ask("GET", "global/urlMaps/web").get("pathMatchers", [])
        return [(rule["priority"], rule["routeAction"]) for matcher in matchers for rule in matcher["routeRules"]]

    def standing(self) -> dict[str, object]:
        """What there is, and what the ledger says of it, as far as it is not about when and by whom."""
        self.sandbox.hook = None
        self.wait(SETTLED)
        found: dict[str, object] = {kind: named_alike(kind, self.held().get(kind, [])) for kind in STANDING}
        head = self.head
        families = [
            (each["name"], each.get("family"), each.get("deprecated", {}).get("state"))
            for each in self.network.ask("GET", "global/images").get("items", [])
        ]
        return {
            **found,
            "scaling": self.scaling(),
            "leading": self.leading(),
            "families": families,
            "bucket": self.held().get("storage.object/acme", []),
            "serving": head.serving,
            "slots": {slot: (record.release, unnumbered(record.group)) for slot, record in head.slots.items()},
            "served": [served.release for served in head.served],
            "holds": {hold.release for hold in head.holds},
            "unfinished": head.unfinished,
            "due": (head.family_due, head.given_up),
        }


@dataclass(frozen=True)
class Scenario:
    name: str
    live: tuple[str, ...]
    command: Callable[[Project], int]
    exit_code: int = 0
    program: object = None
    answers: bool = True
    scaled: bool = False
    pointer: bool = False
    before: Callable[[Project], None] | None = None


SCENARIOS = [
    Scenario("first deploy", (), lambda each: each.again("new"), answers=False),
    Scenario("blue-green", ("1.0.0",), lambda each: each.again("new")),
    Scenario("blue-green, scaled", ("1.0.0",), lambda each: each.again("new"), scaled=True),
    Scenario("release that answers 500", ("1.0.0",), lambda each: each.again("new"), 3, BAD),
    Scenario("warm rollback", ("1.0.0", "1.1.0"), lambda each: each.go_back()),
    Scenario("gc", ("1.0.0", "1.1.0"), lambda each: each.sweep(), answers=False, before=Project.abandoned),
    Scenario("destroy", ("1.0.0", "1.1.0"), lambda each: each.destroy(), answers=False),
    Scenario("pointer: first deploy", (), lambda each: each.again("new"), answers=False, pointer=True),
    Scenario("pointer: blue-green", ("1.0.0",), lambda each: each.again("new"), pointer=True),
    Scenario("pointer: warm rollback", ("1.0.0", "1.1.0"), lambda each: each.go_back(), pointer=True),
    Scenario("pointer: destroy", ("1.0.0", "1.1.0"), lambda each: each.destroy(), answers=False, pointer=True),
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.name)
def test_whoever_comes_next_ends_it_well(scenario: Scenario, tmp_path: Path) -> None:
    """Wherever the first process died: the same end, and no client noticed."""
    project = Project(tmp_path, pointer=scenario.pointer)
    for version in scenario.live:
        project.made(version)
        assert project.again(version) == 0
    if scenario.scaled:
        project.scale()
    if scenario.before is not None:
        scenario.before(project)
    project.made("new", scenario.program if isinstance(scenario.program, dict) else None)
    project.watch(answers=scenario.answers, keep=True)
    with project.keeping_writes():
        assert scenario.command(project) == scenario.exit_code
    expected = project.standing()
    assert len(project.points) >= 2 and len(project.writes) >= 2 and project.wrong == []

    # Each begins elsewhere: what they write first, and in what order, is much the same in all of them.
    tried = project.writes[SCENARIOS.index(scenario) % EVERY :: EVERY]
    for told, kept in (*project.points, *tried):
        project.put_back(kept)
        project.watch(answers=scenario.answers, keep=False)
        code = scenario.command(project)
        assert (code, project.wrong) == (scenario.exit_code, []), told
        assert project.standing() == expected, told
