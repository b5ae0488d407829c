"""The rollouts that trouble befalls, and the places that they happen in: for test_matrix.py and test_slow_cloud.py.

A rollout that the product learns is added to :data:`SCENARIOS`: whatever befalls any of its calls is tried then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from osvdeploy.api import from_cloud, services, wiring
from osvdeploy.api.declared import Service
from osvdeploy.api.from_cloud import Whereabouts
from osvdeploy.cloud import aws
from osvdeploy.cloud.gcp.labels import tags_of
from osvdeploy.cloud.gcp.urlmap import RELEASE_HEADER
from osvdeploy.cloud.interfaces import (
    CloudWatchMetric,
    CommandHook,
    HookAnswer,
    HttpHook,
    Message,
    MonitoringMetric,
    Statistic,
    WebhookTarget,
)
from osvdeploy.cloud.memory.hooks import MemoryHooks
from osvdeploy.cloud.memory.notifier import MemoryNotifier
from osvdeploy.cloud.tags import LEFT
from osvdeploy.errors import Refused
from osvdeploy.events import Event, Waiting
from osvdeploy.rollout.ends import Rollout
from osvdeploy.rollout.gates import Bound, Gate, GateStage
from osvdeploy.rollout.hooks import Hook, Notify
from osvdeploy.rollout.model import Outcome, Request, RequestKind
from osvdeploy.rollout.news import NewsKind
from osvdeploy.rollout.releases import (
    Adopted,
    Concurrent,
    OnFailure,
    Release,
    Settings,
    Strategy,
    StrategyKind,
    TrafficStep,
    adopted_release,
)
from osvdeploy.sandbox.wire import Call
from tests.aws_world import REGION, AwsWorld
from tests.contract import aws_scene, gcp_scene
from tests.contract.gcp_scene import ZONE, Network
from tests.faults.matrix import Scenario, Site
from tests.faults.test_deploy_crashes import _name
from tests.gcp_world import GcpWorld
from tests.rollout.made import NOW, UNHURRIED
from tests.world import BAD, SETTLED, named_alike, unnumbered

CANARY = Strategy(StrategyKind.CANARY, (TrafficStep(20, 5.0), TrafficStep(100)), 5.0, 3600.0)
ASKING = replace(CANARY, steps=(TrafficStep(20, 5.0, approve=True), TrafficStep(100)))
AT_ONCE = Strategy(StrategyKind.ALL_AT_ONCE, (TrafficStep(100),), 0.0, 0.0)
LINEAR = Strategy(StrategyKind.LINEAR, (TrafficStep(50, 5.0), TrafficStep(100)), 5.0, 3600.0)
BAKED = replace(AT_ONCE, kind=StrategyKind.BLUE_GREEN, bake=60.0, keep_warm=3600.0)
MEASURED = replace(CANARY, steps=(TrafficStep(20, 60.0), TrafficStep(100)))
ASKS = replace(MEASURED, on_failure=OnFailure.PAUSE)

NONE_AT_ALL = (Bound(0.0),)
"""No request may be answered: what a gate fails that has any traffic."""

THEIRS = "legacy"
"""The group that somebody else made."""

FEW_LOOKS = replace(UNHURRIED, bake_poll=30.0)
"""Of a bake that is measured for minutes."""


class AwsSite(Site):
    """A service on AWS."""

    version_header = "x-release"
    metric = CloudWatchMetric("RequestCount", None, Statistic.SUM)
    told_after = 60.0
    comes_apart = 30.0

    def __init__(self, folder: Path) -> None:
        super().__init__(AwsWorld(folder), 8080)

    @property
    def address(self) -> str:
        return str(self.world.sandbox.store.begin().all(REGION, "elbv2.balancer")[0]["DNSName"])

    def groups(self) -> Mapping[str, frozenset[str]]:
        store = self.world.sandbox.store.begin()
        return self.but_theirs(
            {
                each["AutoScalingGroupName"]: frozenset(each.get("TargetGroupARNs", []))
                for each in store.all(REGION, "autoscaling.group")
            }
        )

    def plant(self) -> None:
        """Their listener's rule sends every request to their group."""
        self.made("0.9.0")
        self.theirs = THEIRS
        session, network = self.place.session, self.place.network
        image = self.place.process().cloud.images.find(self.place.next_context(), self.releases["0.9.0"].id)
        clients: Any = Clients(session.client("ec2"), session.client("elbv2"), session.client("autoscaling"))
        aws_scene.plant_service(clients, network.listener, THEIRS, image.id, network.subnets, 200)
        self.world.wait(120)

    def adopted(self) -> Release:
        return _adopted(self.world.settings, None)

    def taken_from(self, call: Call) -> str | None:
        if call.operation == "UpdateAutoScalingGroup":
            group = self.world.sandbox.store.begin().get(
                REGION, "autoscaling.group", call.params["AutoScalingGroupName"]
            )
            now = int(group["DesiredCapacity"]) if group is not None else 0
            wanted = call.params.get("DesiredCapacity", min(now, int(call.params.get("MaxSize", now))))
            return str(call.params["AutoScalingGroupName"]) if int(wanted) < now else None
        return str(call.params["AutoScalingGroupName"]) if call.operation == "DeleteAutoScalingGroup" else None

    def leads_to(self, call: Call) -> frozenset[str]:
        return _forwarded(call.params) if call.operation in ("CreateRule", "ModifyRule") else frozenset()

    def led_to(self) -> frozenset[str]:
        rules = self.world.sandbox.store.begin().all(REGION, "elbv2.rule")
        return frozenset().union(*map(_forwarded, rules))

    def gc(self) -> object:
        here = self.place.process(self.limits)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(wiring, "connect", lambda ctx, cloud, region: aws.ports(ctx, self.place.aws))
            return services.gc(here.ctx, Service("hello", "production", str(self.world.folder / "ledger")), keep=1)

    def standing(self) -> Mapping[str, object]:
        self.world.sandbox.hook = None
        self.world.wait(SETTLED)
        store = self.world.sandbox.store.begin()
        held = {
            kind: named_alike(kind, [_name(key, store.get(REGION, kind, key) or {}) for key in keys])
            for kind, keys in self.world.held().items()
        }
        carrying = [] if self.world.head.destroyed else sorted(arn.split("/")[1] for arn in self.carrying())
        found = {**held, **self.ledger(), "carrying": carrying}
        if not self.theirs:
            return found
        # What their group stands behind, and our tags on it.
        asg: Any = self.place.session.client("autoscaling")
        groups = asg.describe_auto_scaling_groups(AutoScalingGroupNames=[self.theirs])["AutoScalingGroups"]
        behind = [sorted(arn.split("/")[1] for arn in group["TargetGroupARNs"]) for group in groups]
        labelled = [sorted((tag["Key"], tag["Value"].rpartition("/")[0]) for tag in group["Tags"]) for group in groups]
        return {**found, "behind": behind, "labelled": labelled, "suspended": self.suspended()}

    def suspended(self) -> list[str]:
        """Processes of their group that stand still."""
        asg: Any = self.place.session.client("autoscaling")
        [group] = asg.describe_auto_scaling_groups(AutoScalingGroupNames=[self.theirs])["AutoScalingGroups"]
        return sorted(each["ProcessName"] for each in group["SuspendedProcesses"])


class GcpSite(Site):
    """A service on Google, behind a URL map."""

    metric = MonitoringMetric("loadbalancing.googleapis.com/https/request_count", None, Statistic.SUM)
    told_after = 120.0
    comes_apart = 75.0

    def __init__(self, folder: Path) -> None:
        super().__init__(GcpWorld(folder), 8000)
        self.entry = self.place.network.ask("GET", "global/forwardingRules/web")

    @property
    def address(self) -> str:
        return str(self.entry["IPAddress"])

    @property
    def version_header(self) -> str:
        """What the balancer says; of what is to be adopted nobody does but the program itself."""
        return "x-release" if self.theirs else RELEASE_HEADER.lower()

    def groups(self) -> Mapping[str, frozenset[str]]:
        store = self.world.sandbox.store.begin()
        behind: dict[str, set[str]] = {}
        for service in store.all("", "compute.backendService"):
            for backend in service["resource"].get("backends", []):
                behind.setdefault(backend["group"].rpartition("/")[2], set()).add(service["resource"]["name"])
        managers = (each["resource"]["name"] for each in store.all("", "compute.instanceGroupManager"))
        return self.but_theirs({name: frozenset(behind.get(name, ())) for name in managers})

    def plant(self) -> None:
        """The default of a path matcher leads to it, too."""
        self.made("0.9.0")
        self.theirs = THEIRS
        network = self.place.network
        assert isinstance(network, Network)
        here = self.place.process()
        image = here.ground.images.find(here.ctx, self.releases["0.9.0"].id)
        gcp_scene.plant_service(here.ctx, self.place.account.gcp(), network, ZONE, THEIRS, image.id, 200, "global")
        self.world.wait(300)

    def adopted(self) -> Release:
        return _adopted(self.world.settings, RELEASE_HEADER)

    def taken_from(self, call: Call) -> str | None:
        if call.operation == "instanceGroupManagers.delete":
            return str(call.params["instanceGroupManager"])
        stay = call.params.get("body", {}).get("backends") if call.operation == "backendServices.patch" else None
        if stay is None:
            return None
        # A group leaves its backend first: from then on no request gets to its machines.
        staying = {each["group"].rpartition("/")[2] for each in stay}
        name = call.params["backendService"]
        behind = [group for group, backends in self.groups().items() if name in backends]
        return next((group for group in behind if group not in staying), None)

    def leads_to(self, call: Call) -> frozenset[str]:
        return _routed(call.params["body"]) if call.operation in ("urlMaps.patch", "urlMaps.update") else frozenset()

    def led_to(self) -> frozenset[str]:
        maps = self.world.sandbox.store.begin().all("", "compute.urlMap")
        return frozenset().union(*(_routed(each["resource"]) for each in maps))

    def gc(self) -> object:
        return self.place.gc(keep=1)

    def standing(self) -> Mapping[str, object]:
        self.world.sandbox.hook = None
        self.world.wait(SETTLED)
        matchers = self.place.network.ask("GET", "global/urlMaps/web").get("pathMatchers", [])
        leading = [(rule["priority"], _sent(rule)) for matcher in matchers for rule in matcher["routeRules"]]
        found = {**self._held(), **self.ledger(), "leading": leading}
        if not self.theirs:
            return found
        # Whole: a rule of theirs names one service, and no weights.
        rules = [rule for matcher in matchers for rule in matcher["routeRules"]]
        whole = [(rule["priority"], rule.get("routeAction"), rule.get("service")) for rule in rules]
        groups = self.place.network.ask("GET", f"zones/{ZONE}/instanceGroupManagers").get("items", [])
        ports = {unnumbered(each["name"]): each.get("namedPorts") for each in groups}
        return {**found, "leading": whole, "ports": ports, "suspended": self.suspended()}

    def suspended(self) -> list[str]:
        """The mode of their group's autoscaler, where it is not at work."""
        scalers = self.place.network.ask("GET", f"zones/{ZONE}/autoscalers").get("items", [])
        theirs = (each for each in scalers if each["target"].rpartition("/")[2] == self.theirs)
        return [mode for each in theirs if (mode := each["autoscalingPolicy"].get("mode", "ON")) != "ON"]

    def _held(self) -> dict[str, list[str]]:
        """What stands of Compute Engine, but for what comes and goes."""
        passing = ("compute.operation", "compute.instance", "compute.disk", "compute.urlMap")
        held = {kind: keys for kind, keys in self.world.held().items() if kind.startswith("compute.")}
        return {kind: named_alike(kind, keys) for kind, keys in held.items() if kind not in passing}


class PointerSite(GcpSite):
    """A service on Google, behind a forwarding rule, which sends all traffic to one slot."""

    version_header = "x-release"

    def __init__(self, folder: Path) -> None:
        Site.__init__(self, GcpWorld(folder, pointer=True), 8000)
        self.entry = self.place.network.shown()

    def is_for_clients(self, front: str) -> bool:
        return front.endswith("forwardingRules/web")

    def leads_to(self, call: Call) -> frozenset[str]:
        if call.operation != "forwardingRules.setTarget" or call.params["forwardingRule"] != "web":
            return frozenset()
        return self._behind(call.params["body"]["target"])

    def led_to(self) -> frozenset[str]:
        rules = self.world.sandbox.store.begin().all("", "compute.forwardingRule")
        [target] = [each["resource"]["target"] for each in rules if each["resource"]["name"] == "web"]
        return self._behind(target)

    def _behind(self, target: str) -> frozenset[str]:
        """The service's backend behind a proxy: none where it led before the first deploy."""
        name = target.rpartition("/")[2]
        proxies = self.world.sandbox.store.begin().all("", "compute.targetTcpProxy")
        found = [each["resource"]["service"] for each in proxies if each["resource"]["name"] == name != "nobody"]
        return frozenset(to[to.index("projects/") :] for to in found)

    def standing(self) -> Mapping[str, object]:
        self.world.sandbox.hook = None
        self.world.wait(SETTLED)
        rule = self.place.network.shown()
        labels = dict(rule.get("labels", {}))
        # Whose lease it was moved under differs with how often a command ran.
        labels.pop("osvdeploy-epoch", None)
        # The note of what was left without the ledger stays where it could not be taken away; that very one is
        # remembered then, for `drift` to tell and the next command to try again.
        if self.world.head.note is not None and tags_of(labels).get(LEFT) == self.world.head.note:
            del labels["osvdeploy-left"]
        return {**self._held(), **self.ledger(), "leading": (rule["target"], labels)}


class RegionSite(GcpSite):
    """A service on Google whose groups are a region's."""

    def __init__(self, folder: Path) -> None:
        Site.__init__(self, GcpWorld(folder, gcp_scene.REGION), 8000)
        self.entry = self.place.network.ask("GET", "global/forwardingRules/web")


@dataclass(frozen=True)
class Clients:
    """What somebody else works with on AWS."""

    ec2: Any
    elbv2: Any
    autoscaling: Any


def _adopted(settings: Settings, version_header: str | None) -> Release:
    settings = replace(settings, health=replace(settings.health, version_header=version_header))
    group = Adopted(THEIRS, "their image", "the rule at priority 200")
    return adopted_release("hello", "adopted", group, settings, created=NOW, by="somebody")


def _sent(rule: Mapping[str, Any]) -> object:
    """What a rule sends where. What gets nothing has the name that it had when weights were last written."""
    if "routeAction" not in rule:
        return rule["service"]
    to = rule["routeAction"]["weightedBackendServices"]
    return [each if each["weight"] else (each["backendService"], 0) for each in to]


def _forwarded(rule: Mapping[str, Any]) -> frozenset[str]:
    """The target groups that a rule on AWS sends clients' requests to; none for one that previews a slot."""
    if any(each["Field"] == "http-header" for each in rule.get("Conditions", [])):
        return frozenset()
    shared = [each["ForwardConfig"]["TargetGroups"] for each in rule["Actions"] if "ForwardConfig" in each]
    return frozenset(each["TargetGroupArn"] for groups in shared for each in groups if int(each["Weight"]) > 0)


def _routed(url_map: Mapping[str, Any]) -> frozenset[str]:
    """The backend services that a URL map's rules send clients' requests to; those that preview a slot left out."""
    rules = [rule for matcher in url_map.get("pathMatchers", []) for rule in matcher.get("routeRules", [])]
    clients = [rule for rule in rules if not any("headerMatches" in each for each in rule["matchRules"])]
    shared = [each for rule in clients for each in rule.get("routeAction", {}).get("weightedBackendServices", [])]
    whole = [{"backendService": rule["service"], "weight": 1} for rule in clients if "service" in rule]
    sent = [each["backendService"] for each in (*shared, *whole) if each["weight"]]
    return frozenset(each[each.index("projects/") :] for each in sent)


def _one(*versions: str) -> frozenset[str]:
    return frozenset(versions)


def _asked(site: Site) -> None:
    """A canary that waits for approval at its first share."""
    site.new("1.0.0", strategy=ASKING)
    assert site.deploy("new").exit_code == 5


def _superseding(site: Site) -> None:
    _asked(site)
    site.made("newest", strategy=replace(AT_ONCE, concurrent=Concurrent.SUPERSEDE))


def _measured(site: Site, strategy: Strategy, bounds: tuple[Bound, ...]) -> None:
    """1.0.0 serves, and what comes is held to how many requests it gets."""
    site.limits = FEW_LOOKS
    site.put_into_service("1.0.0")
    on = (GateStage.STEP, GateStage.BAKE)
    gate = Gate("requests", site.metric, bounds, on, interval=60.0, delay=site.told_after, min_samples=1)
    site.world.settings = replace(site.world.settings, gates=(gate,))
    site.made("new", strategy=strategy)


def _paused_then_aborted(site: Site) -> object:
    """A gate fails, a person is asked, and says no."""
    run = site.world.head.unfinished
    if run is None or not run.awaits(site.world.clock.now()):
        ended = site.deploy("new")
        if ended.outcome is not Outcome.WAITING:
            return ended
    asked = site.say(RequestKind.ABORT)
    assert asked is None or isinstance(asked, Rollout)
    return asked


def _aborted_at_the_switch(site: Site) -> Rollout:
    """Somebody says no as soon as all traffic was sent to what is new: nowhere is that in force yet."""
    here, said = site.place.process(site.limits), list[int]()

    def tell(event: Event) -> None:
        site.world.recorder(event)
        run = site.world.head.unfinished if isinstance(event, Waiting) and not said else None
        if run is not None and run.shifted is not None:
            now = site.world.clock.now()
            said.append(site.world.ledger.ask(here.ctx, run.id, Request(RequestKind.ABORT, "ann@desk", now, run.step)))

    ended: Rollout = here.manager.deploy(here.ctx.reporting_to(tell), site.releases["new"])
    return ended


def adopt(site: Site) -> Rollout:
    """Somebody's group becomes a release of the service."""
    here = site.place.process(site.limits)
    ended: Rollout = here.manager.adopt(here.ctx, site.adopted())
    return ended


def adopt_first(site: Site) -> None:
    """Somebody's group, which was adopted, serves."""
    site.plant()
    assert adopt(site).outcome is Outcome.SUCCEEDED


def scaled(site: Site) -> None:
    """Attach to the group that serves what scales it, as a user would."""
    stable = site.world.head.stable
    assert stable is not None
    place = site.place
    if isinstance(site, AwsSite):
        aws_scene.scale_group(place.session.client("autoscaling"), stable.group, 1, 6, place.network.listener)
    else:
        gcp_scene.scale_group(place.next_context(), place.account.gcp(), f"zones/{ZONE}", stable.group, 1, 6)


def _back_from_cloud(site: Site) -> Rollout:
    """While the ledger's store is out of reach."""
    here = site.place.process(site.limits)
    ground = getattr(here, "cloud", None) or here.ground
    # Named by another address, so that the service's own is not asked; it is read by whoever watches.
    where = Whereabouts("hello", "production", ground.kind, ground.region, ledger=str(site.world.folder / "gone"))
    # With --to: a second run of a command that ended as it should not does not go back further.
    return from_cloud.go_back(here.ctx, where, ground, site.world.prober, to="1.0.0", limits=site.limits).rollout


def _back_and_learnt(site: Site) -> object:
    """And then the ledger is there again: the next command learns it."""
    stable = site.world.head.stable
    ended = _back_from_cloud(site) if stable is not None and stable.release == site.names["1.1.0"] else None
    if ended is not None and ended.outcome is not Outcome.SUCCEEDED:
        return ended
    here = site.place.process(site.limits)
    try:
        here.manager.realign(here.ctx)
    except Refused:
        # The note could not be written, which was said, and what to do then.
        ground = getattr(here, "cloud", None) or here.ground
        ledger = str(site.world.folder / "ledger")
        where = Whereabouts(
            "hello", "production", ground.kind, ground.region, ledger=ledger, settings=site.world.settings
        )
        from_cloud.write_anew(here.ctx, where, ground, site.world.prober)
    return ended


def _attended(site: Site, strategy: Strategy, *refusing: str) -> None:
    """1.0.0 serves. Of what comes a program and an address are asked, which take three seconds each; the address says
    no at stages ``refusing``. A webhook is told of all, which answers 503 the first time that it is told something."""
    site.put_into_service("1.0.0")
    world = site.world
    hooks, notifier = MemoryHooks(world.clock), MemoryNotifier(world.clock)

    def asked(facts: dict[str, Any]) -> tuple[float, HookAnswer]:
        return 3.0, HookAnswer(facts["hook"] != "smoke" or facts["stage"] not in refusing, "looked")

    def told(target: str, message: Message) -> tuple[float, HookAnswer]:
        before = any(other.event == message.event for _, other, _ in notifier.sent)
        return 0.5, HookAnswer(before, f"answered {200 if before else 503}")

    hooks.behaves, notifier.behaves = asked, told
    world.hooks, world.notifier = hooks, notifier
    window = Hook("window", CommandHook(("./window",)), ("prepare", "shift"))
    smoke = Hook("smoke", HttpHook("https://checks.example/smoke"), ("verify", "bake", "revert"))
    everything = tuple(kind.value for kind in NewsKind)
    webhook = Notify(WebhookTarget("https://chat.example/rollouts"), everything)
    world.settings = replace(world.settings, hooks=(window, smoke), notify=(webhook,))
    site.made("new", strategy=strategy)


def _aged(site: Site) -> None:
    """What was warm is cold, and what was new is old."""
    site.put_into_service("1.0.0", "1.1.0", "1.2.0")
    site.world.wait(2 * 3600.0)


SCENARIOS = [
    Scenario("first deploy", lambda each: each.new(), lambda each: each.deploy("new"), None, first=True),
    Scenario("blue-green", lambda each: each.new("1.0.0"), lambda each: each.deploy("new"), _one("1.0.0", "new")),
    Scenario(
        "all at once",
        lambda each: each.one_by_one().new("1.0.0", strategy=AT_ONCE),
        lambda each: each.deploy("new"),
        _one("1.0.0", "new"),
    ),
    Scenario(
        "canary",
        lambda each: each.one_by_one().new("1.0.0", strategy=CANARY),
        lambda each: each.deploy("new"),
        _one("1.0.0", "new"),
    ),
    Scenario(
        "linear",
        lambda each: each.new("1.0.0", strategy=LINEAR),
        lambda each: each.deploy("new"),
        _one("1.0.0", "new"),
    ),
    Scenario(
        "gate that passes",
        lambda each: _measured(each, BAKED, (Bound(1e6),)),
        lambda each: each.deploy("new"),
        _one("1.0.0", "new"),
    ),
    Scenario(
        "gate that fails",
        lambda each: _measured(each, MEASURED, NONE_AT_ALL),
        lambda each: each.deploy("new"),
        _one("1.0.0", "new"),
    ),
    Scenario(
        "paused, then aborted",
        lambda each: _measured(each, ASKS, NONE_AT_ALL),
        _paused_then_aborted,
        _one("1.0.0", "new"),
    ),
    Scenario(
        "bad release",
        lambda each: each.new("1.0.0", program=BAD),
        lambda each: each.deploy("new"),
        _one("1.0.0"),
    ),
    Scenario("approval", _asked, lambda each: each.say(RequestKind.APPROVE), _one("1.0.0", "new")),
    Scenario("abort", _asked, lambda each: each.say(RequestKind.ABORT), _one("1.0.0", "new")),
    Scenario(
        "abort at the switch",
        lambda each: each.new("1.0.0"),
        _aborted_at_the_switch,
        _one("1.0.0", "new"),
    ),
    Scenario("supersede", _superseding, lambda each: each.deploy("newest"), _one("1.0.0", "new", "newest")),
    Scenario(
        "warm rollback",
        lambda each: each.put_into_service("1.0.0", "1.1.0"),
        lambda each: each.rollback(),
        _one("1.0.0", "1.1.0"),
    ),
    Scenario(
        "cold rollback",
        lambda each: each.one_by_one().put_into_service("1.0.0", "1.1.0", "1.2.0"),
        lambda each: each.rollback("1.0.0"),
        _one("1.0.0", "1.2.0"),
    ),
    Scenario("gc", _aged, lambda each: each.gc(), _one("1.2.0")),
    Scenario("destroy", lambda each: each.put_into_service("1.0.0", "1.1.0"), lambda each: each.destroy(), None),
    Scenario("adopt", lambda each: each.plant(), adopt, _one("0.9.0")),
    Scenario("destroy what was adopted", adopt_first, lambda each: each.destroy(), _one("0.9.0")),
    Scenario(
        "rollback from cloud",
        lambda each: each.put_into_service("1.0.0", "1.1.0"),
        _back_and_learnt,
        _one("1.0.0", "1.1.0"),
    ),
    Scenario(
        "hooks that pass",
        lambda each: _attended(each, CANARY),
        lambda each: each.deploy("new"),
        _one("1.0.0", "new"),
    ),
    Scenario(
        "hook that fails",
        lambda each: _attended(each, BAKED, "bake"),
        lambda each: each.deploy("new"),
        _one("1.0.0", "new"),
    ),
]

SITES: dict[str, Callable[[Path], Site]] = {"aws": AwsSite, "google": GcpSite}

OTHER_SITES: dict[str, Callable[[Path], Site]] = {"google by a rule": PointerSite, "google in a region": RegionSite}
"""Google's other ways, to get in and to place machines."""

_WHOLE = (
    "first deploy",
    "blue-green",
    "all at once",
    "bad release",
    "abort at the switch",
    "warm rollback",
    "cold rollback",
    "gc",
    "destroy",
    "rollback from cloud",
)

IN_OTHER_SITES: Mapping[str, Sequence[str]] = {
    "google by a rule": _WHOLE,
    "google in a region": (*_WHOLE, "canary", "abort", "supersede"),
}
"""The scenarios that are tried there: a forwarding rule has no weights."""

SAMPLED_THERE: Mapping[str, Sequence[str]] = {
    "google by a rule": ("blue-green", "destroy"),
    "google in a region": ("all at once",),
}
"""Those of them that `make test` tries."""


def scenario_of(name: str) -> Scenario:
    """The one of that name."""
    return next(each for each in SCENARIOS if each.name == name)
