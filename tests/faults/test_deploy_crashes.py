"""A whole command on AWS, from bytes to traffic, dies at any of its calls; the next process runs the same command.

Each scenario runs once without trouble. Before and after each of its calls, and of its writes to the ledger, everything
is kept as a kill -9 would leave it: the account, the guests, the ledger and the journal on this machine, the time. From
each such moment another process then runs a command, with nothing but that to go by. What stands in the end must be
what the run without trouble left, and on the way no client may have seen an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from osvdeploy import api
from osvdeploy.cloud import aws
from osvdeploy.cloud.interfaces import ProbeAnswer, ProbeRequest
from osvdeploy.cloud.local.store import DirectoryStore
from osvdeploy.context import Context, ProcessIdentity, VirtualClock
from osvdeploy.errors import OsvDeployError, UsageError
from osvdeploy.events import StageEntered
from osvdeploy.osv.image import RawImage
from osvdeploy.rollout.ends import Rollout
from osvdeploy.rollout.model import Kind, Limits, Outcome
from osvdeploy.rollout.releases import Release
from osvdeploy.sandbox.core import Moment, Sandbox
from osvdeploy.sandbox.inprocess import Client
from osvdeploy.sandbox.runners import GuestAnswer
from osvdeploy.sandbox.wire import Call
from tests.aws_world import REGION, AwsWorld, Process
from tests.contract.aws_scene import scale_group
from tests.rollout.made import SETTINGS, UNHURRIED
from tests.world import ABORTING, BAD, GOOD, MIN_READY, SETTLED, Kept, SandboxProber, named_alike, unnumbered

pytestmark = pytest.mark.slow

BREAKING = {**GOOD, "phases": [{"after": 35, "answers": {"*": 500}}]}
"""Answers well until it has been in service for a while."""

BAKE = 60.0

TAKES_AWAY = (
    "DeleteAutoScalingGroup",
    "UpdateAutoScalingGroup",
    "TerminateInstances",
    "TerminateInstanceInAutoScalingGroup",
)


@dataclass
class Proof:
    """Which release the latest answers through the balancer came from, and how many in a row did."""

    release: str | None = None
    answers: int = 0

    def count(self, release: str | None) -> None:
        self.answers = self.answers + 1 if release == self.release else 1
        self.release = release


class WatchedProber(SandboxProber):
    """A prober whose answers from live traffic are counted, over all processes that ask."""

    def __init__(self, sandbox: Sandbox, clock: VirtualClock) -> None:
        super().__init__(sandbox, clock)
        self.proof = Proof()

    def probe(self, ctx: Context, request: ProbeRequest) -> ProbeAnswer:
        answer = super().probe(ctx, request)
        if "x-preview" not in request.headers:
            good = answer.status is not None and 200 <= answer.status < 300
            self.proof.count(answer.headers.get("x-release") if good else None)
        return answer


class Account(AwsWorld):
    """An account with a client that asks the service at every call of whoever works on it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, health=replace(SETTINGS.health, min_ready=MIN_READY))
        self.prober = self.watched = WatchedProber(self.sandbox, self.clock)
        self.customer = Client(self.sandbox, self.clock)
        self.releases: dict[str, Release] = {}
        self.raws: dict[str, RawImage] = {}

    # -------------------------------------------------------------------------------------------------- as a user

    def identity(self, number: int) -> ProcessIdentity:
        """On this machine, and dead as soon as anybody asks."""
        return replace(ProcessIdentity.current(), pid=number, started=f"before-{number}")

    def process(self, limits: Limits | None = None) -> Process:
        return super().process(limits or UNHURRIED)

    def made(self, version: str, program: Mapping[str, object] = GOOD) -> Release:
        release = self.build(version, program)
        if program is BREAKING:
            strategy = replace(release.settings.strategy, bake=BAKE)
            release = replace(release, settings=replace(release.settings, strategy=strategy))
        self.releases[version] = release
        self.raws[version] = self.raw
        return self.releases[version]

    def put_into_service(self, *versions: str) -> None:
        for version in versions:
            assert self.deploy(self.made(version)).outcome is Outcome.SUCCEEDED

    def again(self, version: str) -> Rollout:
        self.raw = self.raws[version]
        return self.deploy(self.releases[version])

    def go_back(self) -> Rollout:
        """`osvdeploy rollback`; names its release where the one that died was over, not to go back twice."""
        run = self.head.run
        assert run is not None
        return self.rollback(self.releases["1.0.0"] if run.kind is Kind.ROLLBACK and run.over else None)

    def destroy(self) -> None:
        """`osvdeploy destroy`, which says so when all is gone already."""
        here, gone = self.process(), self.head.destroyed
        try:
            here.manager.destroy(here.ctx)
        except UsageError as error:
            assert gone and "was destroyed" in str(error), error

    def gc(self, keep: int = 10) -> object:
        here = self.process()
        return api.gc(here.ctx, api.Service("hello", "production", str(self.folder / "ledger")), keep=keep)

    def abandoned(self) -> None:
        """Two hours pass: what was warm is cold, what was new is old."""
        self.wait(7200)

    # ------------------------------------------------------------------------------------------------- to look at it

    def holdings(self) -> dict[str, list[str]]:
        """What stands, by kind, each by its name."""
        found = {}
        for kind, keys in self.held().items():
            documents = {key: self.document(kind, key) for key in keys}
            found[kind] = named_alike(kind, [_name(key, document) for key, document in documents.items()])
        return found

    def document(self, kind: str, key: str) -> Mapping[str, object]:
        return self.sandbox.store.begin().get(REGION, kind, key) or {}

    def ask(self) -> GuestAnswer | None:
        """What a client gets at this moment; None for no answer at all."""
        balancer = self.sandbox.store.begin().all(REGION, "elbv2.balancer")[0]
        answer = self.customer.get(str(balancer["DNSName"]), 8080, "/")
        return answer if isinstance(answer, GuestAnswer) else None

    def weighed(self) -> set[str]:
        """Target groups that the route's rule sends to, as far as it is in force."""
        weighed: set[str] = set()
        for listener in self.sandbox.store.begin().all(REGION, "elbv2.in-force"):
            for rule in listener["rules"]:
                if rule["priority"] == self.settings.priority:
                    pairs = rule["action"]["ForwardConfig"]["TargetGroups"]
                    weighed |= {pair["TargetGroupArn"] for pair in pairs if pair.get("Weight", 1) > 0}
        return weighed

    def scaling(self) -> dict[str, object]:
        """Of each group, by its name: bounds, size, what is suspended, what is collected."""
        documents = [self.document("autoscaling.group", name) for name in self.held().get("autoscaling.group", ())]
        fields = ("MinSize", "MaxSize", "DesiredCapacity", "DefaultCooldown", "SuspendedProcesses", "EnabledMetrics")
        return {
            unnumbered(str(each["AutoScalingGroupName"])): [_undated(each[field]) for field in fields]
            for each in documents
        }

    def recorded(self) -> dict[str, object]:
        """What the ledger says, as far as it is not about when and by whom."""
        head = self.head
        return {
            "serving": head.serving,
            "slots": {slot: (record.release, unnumbered(record.group)) for slot, record in head.slots.items()},
            "served": [served.release for served in head.served],
            "holds": {hold.release for hold in head.holds},
            "destroyed": head.destroyed,
            "unfinished": head.unfinished,
            "lease": head.lease,
            "run": None if head.run is None else (head.run.kind, head.run.candidate, head.run.verdict, head.run.slot),
        }


def _undated(value: object) -> object:
    """Without when and why a process was suspended."""
    return [each.get("ProcessName", each) for each in value] if isinstance(value, list) else value


def _name(key: str, document: Mapping[str, object]) -> str:
    """What a thing is called where it has a name: ids differ from run to run."""
    tags = document.get("tags", document.get("Tags", {}))
    if isinstance(tags, list):
        tags = {tag["Key"]: tag["Value"] for tag in tags}
    name = tags.get("Name") if isinstance(tags, Mapping) else None
    name = name.get("Value") if isinstance(name, Mapping) else name
    rules = [str(document[field]) for field in _RULES if field in document]
    if rules:
        return unnumbered(f"{document['AutoScalingGroupName']}/{rules[0]}")
    return str(name or document.get("LaunchTemplateName") or key)


_RULES = ("PolicyName", "ScheduledActionName", "LifecycleHookName")
"""What names what scales a group."""


# ----------------------------------------------------------------------------------------------------- scenarios


@dataclass(frozen=True)
class Scenario:
    """``answers`` are the versions that a client may get meanwhile; None where the service is taken away."""

    name: str
    before: Callable[[Account], object]
    command: Callable[[Account], object]
    answers: frozenset[str] | None
    serving: str | None
    fails: bool = False
    breaks: bool = False
    """The release is a good one until it has traffic: a client may see it fail."""


def _prepared(*live: str, new: str | None = None, program: Mapping[str, object] = GOOD) -> Callable[[Account], None]:
    def prepare(account: Account) -> None:
        account.put_into_service(*live)
        if new is not None:
            account.made(new, program)

    return prepare


def _scaled(new: str, program: Mapping[str, object] = GOOD) -> Callable[[Account], None]:
    """1.0.0 serves, and is scaled by itself with all that there is."""

    def prepare(account: Account) -> None:
        account.put_into_service("1.0.0")
        stable = account.head.stable
        assert stable is not None
        scale_group(account.session.client("autoscaling"), stable.group, 1, 6, account.network.listener)
        account.wait(30)
        account.made(new, program)

    return prepare


def _destroyed(account: Account) -> None:
    account.put_into_service("1.0.0", "1.1.0")
    account.destroy()


def _aged(account: Account) -> None:
    account.put_into_service("1.0.0", "1.1.0", "1.2.0")
    account.abandoned()


def _one(version: str) -> frozenset[str]:
    return frozenset({version})


_BOTH = frozenset({"1.0.0", "1.1.0"})

BLUE_GREEN = Scenario("blue-green", _prepared("1.0.0", new="1.1.0"), lambda each: each.again("1.1.0"), _BOTH, "1.1.0")

SCENARIOS = [
    Scenario("first deploy", _prepared(new="1.0.0"), lambda each: each.again("1.0.0"), _one("1.0.0"), "1.0.0"),
    BLUE_GREEN,
    Scenario(
        "release that answers 500",
        _prepared("1.0.0", new="1.1.0", program=BAD),
        lambda each: each.again("1.1.0"),
        _one("1.0.0"),
        "1.0.0",
        fails=True,
    ),
    Scenario(
        "release that aborts",
        _prepared("1.0.0", new="1.1.0", program=ABORTING),
        lambda each: each.again("1.1.0"),
        _one("1.0.0"),
        "1.0.0",
        fails=True,
    ),
    Scenario(
        "release that breaks",
        _prepared("1.0.0", new="1.1.0", program=BREAKING),
        lambda each: each.again("1.1.0"),
        _BOTH,
        "1.0.0",
        fails=True,
        breaks=True,
    ),
    Scenario("blue-green, scaled", _scaled("1.1.0"), lambda each: each.again("1.1.0"), _BOTH, "1.1.0"),
    Scenario(
        "release that breaks, scaled",
        _scaled("1.1.0", BREAKING),
        lambda each: each.again("1.1.0"),
        _BOTH,
        "1.0.0",
        fails=True,
        breaks=True,
    ),
    Scenario("warm rollback", _prepared("1.0.0", "1.1.0"), lambda each: each.go_back(), _BOTH, "1.0.0"),
    Scenario(
        "cold rollback",
        _prepared("1.0.0", "1.1.0", "1.2.0"),
        lambda each: each.rollback(each.releases["1.0.0"]),
        frozenset({"1.0.0", "1.2.0"}),
        "1.0.0",
    ),
    Scenario("destroy", _prepared("1.0.0", "1.1.0"), lambda each: each.destroy(), None, None),
    Scenario("gc of what was destroyed", _destroyed, lambda each: each.gc(), None, None),
    Scenario("gc of what serves", _aged, lambda each: each.gc(keep=1), _one("1.2.0"), "1.2.0"),
]


# ------------------------------------------------------------------------------------------------------- watching


@dataclass(frozen=True)
class Point:
    """A moment to die at: everything as it was, and what had been proved."""

    told: str
    kept: Kept
    proof: Proof
    began: bool


@dataclass
class Watch:
    """Is called around every call to the account, whoever makes it: asks as a client, and looks at what is taken away.

    ``began``: the service has answered once, and so has to from then on.
    """

    account: Account
    scenario: Scenario
    began: bool
    wrong: list[str] = field(default_factory=list)
    calls: int = 0

    def __call__(self, moment: Moment, call: Call) -> None:
        if moment is Moment.BEFORE:
            self.calls += 1
            if self.scenario.answers is not None:
                self._ask(self.scenario.answers, call)
                if call.operation in TAKES_AWAY:
                    self._look(call)

    def _ask(self, allowed: frozenset[str], call: Call) -> None:
        answer = self.account.ask()
        well = answer is not None and (answer.status == 200 or self.scenario.breaks)
        release = answer.headers.get("x-release") if answer is not None and well else None
        self.began = self.began or release is not None
        if self.began and release not in {self.account.releases[version].id for version in allowed}:
            self.wrong.append(f"at call {self.calls} ({call.operation}) a client got {answer}")

    def _look(self, call: Call) -> None:
        name = str(call.params.get("AutoScalingGroupName"))
        group = self.account.document("autoscaling.group", name)
        if _leaves_as_many(group, call):
            return
        backends = group.get("TargetGroupARNs", [])
        assert isinstance(backends, list)
        release = _name(name, group)
        if self.account.weighed() & set(backends):
            self.wrong.append(f"{call.operation} of {release}, which has weight")
        proof = self.account.watched.proof
        served = {entry.release for entry in self.account.head.served}
        if release in served and (proof.release == release or proof.answers < UNHURRIED.proof_answers):
            self.wrong.append(f"{call.operation} of {release} after {proof.answers} answers of {proof.release}")


def _leaves_as_many(group: Mapping[str, object], call: Call) -> bool:
    """Whether an update of a group keeps its machines: other bounds, and the size within them."""
    if call.operation != "UpdateAutoScalingGroup":
        return False
    now = int(str(group["DesiredCapacity"]))
    return int(call.params.get("DesiredCapacity", min(now, int(call.params.get("MaxSize", now))))) >= now


@dataclass
class Tape(Watch):
    """A watch that also keeps the moments worth dying at: around every change, every write to the ledger, and the first
    read of each kind since the stage began and since the last change (those after it are polls)."""

    points: list[Point] = field(default_factory=list)
    moments: int = 0
    changes: int = 0
    writes: int = 0
    events: int = 0
    stage: str = ""
    chosen: bool = False
    seen: set[tuple[str, int, str]] = field(default_factory=set)
    marks: set[object] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.events = len(self.account.recorder.events)

    def __call__(self, moment: Moment, call: Call) -> None:
        super().__call__(moment, call)
        self.moments += 1
        if moment is Moment.BEFORE:
            self.stage = self._stage()
            self.chosen = call.mutating or (self.stage, self.changes, call.operation) not in self.seen
            self.seen.add((self.stage, self.changes, call.operation))
            self.changes += call.mutating
        if self.chosen:
            self._keep(f"{moment} call {self.calls} in {self.stage}, {call.service}.{call.operation}")

    def writing(self, moment: Moment) -> None:
        """Is called around every write to the ledger."""
        self.moments += 1
        self.writes += moment is Moment.BEFORE
        self._keep(f"{moment} write {self.writes} after call {self.calls} in {self._stage()}")

    def _keep(self, told: str) -> None:
        kept = self.account.kept()
        # Between the end of one call and the begin of the next there is often nothing that anybody could see.
        if kept.mark not in self.marks:
            self.marks.add(kept.mark)
            self.points.append(Point(told, kept, replace(self.account.watched.proof), self.began))

    def _stage(self) -> str:
        for event in reversed(self.account.recorder.events[self.events :]):
            if isinstance(event, StageEntered):
                return str(event.stage)
        return "begin"


def taped(account: Account, scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> Tape:
    """Run a scenario without trouble, and keep its moments."""
    monkeypatch.setattr("osvdeploy.api.wiring.connect", lambda ctx, cloud, region: aws.ports(ctx, account.aws))
    scenario.before(account)
    tape = Tape(account, scenario, began=scenario.name != "first deploy")
    put = DirectoryStore.put_if_absent

    def writing(store: DirectoryStore, ctx: Context, key: str, content: bytes) -> bool:
        tape.writing(Moment.BEFORE)
        done = put(store, ctx, key, content)
        tape.writing(Moment.AFTER)
        return done

    with monkeypatch.context() as patched:
        patched.setattr(DirectoryStore, "put_if_absent", writing)
        account.sandbox.hook = tape
        ended = scenario.command(account)
        account.sandbox.hook = None
    assert not isinstance(ended, Rollout) or (ended.exit_code != 0) == scenario.fails
    assert not tape.wrong
    return tape


def revived(account: Account, tape: Tape, points: Sequence[Point], then: Callable[[Account], list[str]]) -> list[str]:
    """What is wrong when another process does ``then`` after a death at each of these points."""
    wrong = []
    for number, point in enumerate(points):
        account.put_back(point.kept)
        # By turns: it is there at once, or when a minute has passed.
        account.wait(60.0 * (number % 2))
        account.watched.proof = replace(point.proof)
        watch = Watch(account, tape.scenario, point.began)
        account.sandbox.hook = watch
        try:
            found = then(account)
        except (OsvDeployError, AssertionError) as error:
            found = [f"{type(error).__name__}: {error}"]
        account.sandbox.hook = None
        wrong += [f"{point.told}: {each}" for each in (*watch.wrong, *found)]
    return wrong


def listed(wrong: list[str]) -> str:
    return "\n".join([f"{len(wrong)} things are wrong:", *wrong[:20]])


def told(tape: Tape, died: int, then: str) -> str:
    """A line for the table at the end of the test run."""
    return (
        f"{tape.scenario.name:25} {tape.calls:4} calls  {tape.changes:3} changes  {tape.writes:3} ledger writes  "
        f"{tape.moments:4} moments to die at  died at {died:3}, then {then}"
    )


def finished(account: Account, scenario: Scenario) -> dict[str, object]:
    """What holds when the dust has settled; checks what has to be so whatever happened."""
    account.wait(SETTLED)
    head = account.head
    assert head.lease is None and head.unfinished is None
    if scenario.serving is None:
        assert head.destroyed and head.serving is None and not account.weighed()
    else:
        right = account.releases[scenario.serving].id
        answers = [account.ask() for _ in range(4)]
        assert {answer and answer.headers.get("x-release") for answer in answers} == {right}
        assert head.stable is not None and head.stable.release == right and head.serving is not None
        assert head.place is not None and account.weighed() == {_arn(account, str(head.serving))}
    groups = {record.group for record in head.slots.values()}
    held = account.held()
    assert set(held.get("autoscaling.group", ())) == groups, f"the ledger has {groups}"
    assert len(held.get("instance", ())) == account.settings.capacity * len(groups)
    return {**account.holdings(), **account.recorded(), "scaling": account.scaling()}


def _arn(account: Account, slot: str) -> str:
    [arn] = [key for key in account.held()["elbv2.group"] if f"-{slot}/" in key]
    return arn


# Hundreds of deploys each: a machine that does much else at once takes over five minutes for the longest.
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_dying_at_any_call_converges(
    scenario: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    """Dead before or after any call, the same command again leaves what a run without trouble leaves, unnoticed."""
    account = Account(tmp_path)
    tape = taped(account, scenario, monkeypatch)
    wanted = finished(account, scenario)

    def again(account: Account) -> list[str]:
        scenario.command(account)
        account.sandbox.hook = None
        found = finished(account, scenario)
        return [
            f"{what}: {found.get(what)}, not {wanted.get(what)}"
            for what in sorted({*found, *wanted})
            if found.get(what) != wanted.get(what)
        ]

    wrong = revived(account, tape, tape.points, again)
    record_property("told", told(tape, len(tape.points), "the same again"))
    assert not wrong, listed(wrong)


def test_a_dead_deploy_can_be_rolled_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    """However far it got, a rollback brings back what served, and takes what it made out of traffic and away."""
    account = Account(tmp_path)
    tape = taped(account, BLUE_GREEN, monkeypatch)
    [blue] = [name for name in account.holdings()["autoscaling.group"] if "1.0.0" in name]

    def go_back(account: Account) -> list[str]:
        try:
            account.rollback()
        except UsageError as error:
            # Nothing had moved yet.
            assert "no release served before" in str(error), error
        account.sandbox.hook = None
        found = finished(account, replace(BLUE_GREEN, serving="1.0.0"))
        groups = found["autoscaling.group"]
        return [] if groups == [blue] else [f"groups {groups}"]

    points = tape.points[::2]
    wrong = revived(account, tape, points, go_back)
    record_property("told", told(tape, len(points), "rollback"))
    assert not wrong, listed(wrong)


def test_a_dead_deploy_can_be_destroyed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    """However far it got: nothing of the service is left, and gc finds what was uploaded, a day later."""
    account = Account(tmp_path)
    scenario = replace(BLUE_GREEN, answers=None, serving=None)
    tape = taped(account, scenario, monkeypatch)

    def destroy(account: Account) -> list[str]:
        account.destroy()
        account.sandbox.hook = None
        account.wait(2 * 86_400)
        account.gc()
        finished(account, scenario)
        # An image that nothing here was ever deployed from is somebody's own; it was all that this deploy had made.
        return [
            f"{kind}: {names}"
            for kind, names in account.holdings().items()
            if kind not in ("image", "snapshot") or names != ["hello-1.1.0"]
        ]

    points = tape.points[1::2]
    wrong = revived(account, tape, points, destroy)
    record_property("told", told(tape, len(points), "destroy and gc"))
    assert not wrong, listed(wrong)
