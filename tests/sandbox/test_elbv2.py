"""Load balancing: what is configured, what is in force, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from osvdeploy.sandbox.dataplane import Answer, Hangup, SendTo
from osvdeploy.sandbox.errors import ApiError
from osvdeploy.sandbox.services import elbv2
from osvdeploy.sandbox.services.scope import Doc
from tests.sandbox.volumes import declared, volume
from tests.sandbox.world import OTHER_VPC, VPC, World


@dataclass
class Site:
    """A balancer with one listener, and two target groups of which the blue one is forwarded to."""

    world: World
    balancer: str
    listener: str
    blue: str
    green: str

    def forward(self, blue: int, green: int) -> list[Doc]:
        return forward((self.blue, blue), (self.green, green))

    def states(self, group: str) -> list[tuple[str, str]]:
        """State and reason of each target of a group."""
        shown = self.world.elb("DescribeTargetHealth", TargetGroupArn=group)["TargetHealthDescriptions"]
        return [(each["TargetHealth"]["State"], each["TargetHealth"].get("Reason", "")) for each in shown]

    def served_by(self, path: str = "/", **headers: str) -> set[str]:
        """Who gets requests: target ids, or the balancer's own status codes."""
        decisions = [self.world.decide(self.listener, path, number / 20, **headers) for number in range(20)]
        told = set()
        for each in decisions:
            assert not isinstance(each, Hangup)
            told.add(each.target.id if isinstance(each, SendTo) else str(each.status))
        return told


def forward(*groups: tuple[str, int]) -> list[Doc]:
    pairs = [{"TargetGroupArn": arn, "Weight": weight} for arn, weight in groups]
    return [{"Type": "forward", "ForwardConfig": {"TargetGroups": pairs}}]


def fixed(status: str = "404", **config: str) -> list[Doc]:
    return [{"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": status, **config}}]


def path(*values: str) -> list[Doc]:
    return [{"Field": "path-pattern", "Values": list(values)}]


def header(name: str, *values: str) -> Doc:
    return {"Field": "http-header", "HttpHeaderConfig": {"HttpHeaderName": name, "Values": list(values)}}


def target_group(world: World, name: str, **changes: Any) -> str:
    settings: Doc = {"Name": name, "Protocol": "HTTP", "Port": 8080, "VpcId": VPC, "HealthCheckIntervalSeconds": 5}
    settings |= {"HealthCheckTimeoutSeconds": 2, "HealthyThresholdCount": 2, **changes}
    return str(world.elb("CreateTargetGroup", **settings)["TargetGroups"][0]["TargetGroupArn"])


def balancer(world: World, name: str = "main", **changes: Any) -> str:
    settings: Doc = {"Name": name, "Subnets": ["subnet-a", "subnet-b"], **changes}
    return str(world.elb("CreateLoadBalancer", **settings)["LoadBalancers"][0]["LoadBalancerArn"])


@pytest.fixture
def site() -> Site:
    world = World()
    main = balancer(world)
    blue, green = target_group(world, "blue"), target_group(world, "green")
    created = world.elb(
        "CreateListener", LoadBalancerArn=main, Protocol="HTTP", Port=8000, DefaultActions=forward((blue, 1))
    )
    world.wait(20)
    return Site(world, main, created["Listeners"][0]["ListenerArn"], blue, green)


# --------------------------------------------------------------------------------------------------- how it behaves


def slow_start(site: Site, group: str, seconds: int) -> None:
    site.world.elb(
        "ModifyTargetGroupAttributes",
        TargetGroupArn=group,
        Attributes=[{"Key": "slow_start.duration_seconds", "Value": str(seconds)}],
    )


def joined(site: Site, count: int = 1) -> list[str]:
    """Machines that have just become healthy behind the blue group."""
    names = [site.world.ec2.run() for _ in range(count)]
    site.world.elb("RegisterTargets", TargetGroupArn=site.blue, Targets=[{"Id": name} for name in names])
    site.world.wait(elbv2.REGISTRATION)
    return names


def share(site: Site, name: str) -> float:
    """How many of a thousand requests a target gets, in per cent."""
    draws = [site.world.decide(site.listener, "/", number / 1000) for number in range(1000)]
    return sum(isinstance(each, SendTo) and each.target.id == name for each in draws) / 10


def test_a_target_that_joins_healthy_ones_rises_to_its_full_share(site: Site) -> None:
    """Linearly: at half of the time it weighs half of one that is through, and at the end as much."""
    slow_start(site, site.blue, 100)
    [old] = joined(site)
    site.world.wait(10)
    [new] = joined(site)
    assert share(site, new) < 1
    site.world.wait(50)
    assert share(site, new) == pytest.approx(100 / 3, abs=0.5)
    site.world.wait(50)
    assert share(site, new) == share(site, old) == 50


def test_targets_of_an_empty_group_do_not_start_slowly(site: Site) -> None:
    """Those that come together into a group without a healthy target have their full share at once."""
    slow_start(site, site.blue, 100)
    first, second = joined(site, 2)
    assert share(site, first) == share(site, second) == 50


def test_slow_start_that_is_set_leaves_healthy_targets_alone(site: Site) -> None:
    """And one that is taken away ends that of all."""
    first, second = joined(site, 2)
    site.world.wait(10)
    slow_start(site, site.blue, 900)
    assert share(site, first) == share(site, second) == 50
    [third] = joined(site)
    assert share(site, third) < 1
    slow_start(site, site.blue, 0)
    assert share(site, third) == pytest.approx(100 / 3, abs=0.5)


def test_a_target_is_registered_then_checked_then_healthy(site: Site) -> None:
    """initial with its two reasons, then healthy after a single passing check."""
    name = site.world.ec2.run()
    site.world.elb("RegisterTargets", TargetGroupArn=site.blue, Targets=[{"Id": name}])
    assert site.states(site.blue) == [("initial", "Elb.RegistrationInProgress")]
    assert site.served_by() == {"503"}
    site.world.wait(elbv2.REGISTRATION)
    assert site.states(site.blue) == [("healthy", "")]
    assert site.served_by() == {name}


def test_a_failing_target_turns_unhealthy_and_says_why(site: Site) -> None:
    """The checks of a guest whose bytes are bad fail with its own answer; with no other target all get it anyway."""
    site.world.ec2.images["ami-bad"] = volume({"/app": declared(answers={"*": 500})})
    name = site.world.ec2.run("ami-bad")
    site.world.elb("RegisterTargets", TargetGroupArn=site.blue, Targets=[{"Id": name}])
    site.world.wait(elbv2.REGISTRATION + 1)
    assert site.states(site.blue) == [("initial", "Elb.InitialHealthChecking")]
    site.world.wait(5)
    described = site.world.elb("DescribeTargetHealth", TargetGroupArn=site.blue)["TargetHealthDescriptions"][0]
    assert described == {
        "Target": {"Id": name, "Port": 8080},
        "HealthCheckPort": "8080",
        "TargetHealth": {
            "State": "unhealthy",
            "Reason": "Target.ResponseCodeMismatch",
            "Description": "Health checks failed with these codes: [500]",
        },
    }
    assert site.served_by() == {name}
    well = site.world.ec2.run()
    site.world.elb("RegisterTargets", TargetGroupArn=site.blue, Targets=[{"Id": well}])
    site.world.wait(10)
    assert site.served_by() == {well}


def test_a_group_that_nobody_forwards_to_is_unused_and_unchecked(site: Site) -> None:
    """Until a rule forwards to it, be it by weight 0; and again when the rule is gone."""
    name = site.world.ec2.run()
    site.world.elb("RegisterTargets", TargetGroupArn=site.green, Targets=[{"Id": name}])
    site.world.wait(60)
    assert site.states(site.green) == [("unused", "Target.NotInUse")]
    actions = site.forward(1, 0)
    rule = site.world.elb("CreateRule", ListenerArn=site.listener, Priority=10, Conditions=path("/x"), Actions=actions)[
        "Rules"
    ][0]["RuleArn"]
    assert site.states(site.green) == [("initial", "Elb.RegistrationInProgress")]
    site.world.wait(10)
    assert site.states(site.green) == [("healthy", "")]
    site.world.elb("DeleteRule", RuleArn=rule)
    assert site.states(site.green) == [("healthy", "")]
    site.world.wait(elbv2.RULES_REACH_DATA_PLANE)
    assert site.states(site.green) == [("unused", "Target.NotInUse")]


def test_a_switch_takes_effect_after_the_propagation_delay(site: Site) -> None:
    """The old weights serve until then; each of two quick changes arrives in its own time."""
    old, new = site.world.ec2.run(), site.world.ec2.run()
    site.world.elb("ModifyListener", ListenerArn=site.listener, DefaultActions=site.forward(1, 0))
    site.world.elb("RegisterTargets", TargetGroupArn=site.blue, Targets=[{"Id": old}])
    site.world.elb("RegisterTargets", TargetGroupArn=site.green, Targets=[{"Id": new}])
    site.world.wait(30)
    assert site.served_by() == {old}
    site.world.elb("ModifyListener", ListenerArn=site.listener, DefaultActions=site.forward(0, 1))
    site.world.wait(elbv2.RULES_REACH_DATA_PLANE / 2)
    site.world.elb("ModifyListener", ListenerArn=site.listener, DefaultActions=fixed("503"))
    assert site.served_by() == {old}
    site.world.wait(elbv2.RULES_REACH_DATA_PLANE / 2)
    assert site.served_by() == {new}
    site.world.wait(elbv2.RULES_REACH_DATA_PLANE / 2)
    assert site.served_by() == {"503"}


def test_a_preview_rule_reaches_an_idle_slot(site: Site) -> None:
    """A header rule stands before the default and sends to the group whose weight is 0."""
    old, new = site.world.ec2.run(), site.world.ec2.run()
    site.world.elb("ModifyListener", ListenerArn=site.listener, DefaultActions=site.forward(1, 0))
    site.world.elb(
        "CreateRule",
        ListenerArn=site.listener,
        Priority=9,
        Conditions=[header("x-preview", "green")],
        Actions=forward((site.green, 1)),
    )
    site.world.elb("RegisterTargets", TargetGroupArn=site.blue, Targets=[{"Id": old}])
    site.world.elb("RegisterTargets", TargetGroupArn=site.green, Targets=[{"Id": new}])
    site.world.wait(20)
    assert site.served_by() == {old}
    assert site.served_by(x_preview="green") == {new}


def test_a_deregistered_target_drains_for_its_delay(site: Site) -> None:
    """It gets no new request at once, is draining for the delay, and then gone. Registering it again brings it back."""
    site.world.elb(
        "ModifyTargetGroupAttributes",
        TargetGroupArn=site.blue,
        Attributes=[{"Key": "deregistration_delay.timeout_seconds", "Value": "30"}],
    )
    first, second = site.world.ec2.run(), site.world.ec2.run()
    both = [{"Id": first}, {"Id": second}]
    site.world.elb("RegisterTargets", TargetGroupArn=site.blue, Targets=both)
    site.world.wait(10)
    assert site.served_by() == {first, second}
    site.world.elb("DeregisterTargets", TargetGroupArn=site.blue, Targets=both)
    assert site.served_by() == {"503"}
    site.world.elb("RegisterTargets", TargetGroupArn=site.blue, Targets=[{"Id": second}])
    site.world.wait(29)
    assert site.states(site.blue) == [("draining", "Target.DeregistrationInProgress"), ("healthy", "")]
    site.world.wait(1)
    assert site.states(site.blue) == [("healthy", "")]
    site.world.elb("DeregisterTargets", TargetGroupArn=site.blue, Targets=[{"Id": first}])
    absent = site.world.elb("DescribeTargetHealth", TargetGroupArn=site.blue, Targets=[{"Id": first}])
    assert absent["TargetHealthDescriptions"][0]["TargetHealth"]["Reason"] == "Target.NotRegistered"


def test_a_stopped_instance_is_an_unused_target(site: Site) -> None:
    """Target.InvalidState, no requests; a terminated one is no target any more."""
    name = site.world.ec2.run()
    site.world.elb("RegisterTargets", TargetGroupArn=site.blue, Targets=[{"Id": name}])
    site.world.wait(10)
    site.world.ec2.stop(name)
    assert site.states(site.blue) == [("unused", "Target.InvalidState")]
    assert site.served_by() == {"503"}
    site.world.ec2.terminate(name)
    site.world.wait(60)
    assert site.states(site.blue) == []


def test_the_same_create_twice_is_one_thing(site: Site) -> None:
    """Balancers, listeners and target groups with identical settings are answered with what is there."""
    assert balancer(site.world) == site.balancer
    assert target_group(site.world, "blue") == site.blue
    again = site.world.elb(
        "CreateListener",
        LoadBalancerArn=site.balancer,
        Protocol="HTTP",
        Port=8000,
        DefaultActions=forward((site.blue, 1)),
    )
    assert again["Listeners"][0]["ListenerArn"] == site.listener


def test_what_a_balancer_shows(site: Site) -> None:
    """Active after a while, with a loopback address of its own in digits; nothing of the sandbox's own fields."""
    balancer(site.world, "second")
    shown = site.world.elb("DescribeLoadBalancers")["LoadBalancers"]
    assert [(each["DNSName"], each["State"]["Code"]) for each in shown] == [
        ("127.0.7.1", "active"),
        ("127.0.7.2", "provisioning"),
    ]
    assert all(key[0].isupper() for each in shown for key in each)
    groups = site.world.elb("DescribeTargetGroups", LoadBalancerArn=site.balancer)["TargetGroups"]
    assert [(group["TargetGroupArn"], group["LoadBalancerArns"]) for group in groups] == [(site.blue, [site.balancer])]


def test_rules_are_shown_in_order_and_in_full(site: Site) -> None:
    """By priority, the default last, both spellings of values and weights filled in."""
    for priority in (20, 10):
        site.world.elb(
            "CreateRule",
            ListenerArn=site.listener,
            Priority=priority,
            Conditions=path(f"/{priority}"),
            Actions=[{"Type": "forward", "TargetGroupArn": site.blue}],
        )
    rules = site.world.elb("DescribeRules", ListenerArn=site.listener)["Rules"]
    assert [rule["Priority"] for rule in rules] == ["10", "20", "default"]
    assert rules[0]["Conditions"] == [
        {"Field": "path-pattern", "Values": ["/10"], "PathPatternConfig": {"Values": ["/10"]}}
    ]
    assert rules[0]["Actions"] == [
        {
            "Type": "forward",
            "TargetGroupArn": site.blue,
            "ForwardConfig": {
                "TargetGroups": [{"TargetGroupArn": site.blue, "Weight": 1}],
                "TargetGroupStickinessConfig": {"Enabled": False},
            },
        }
    ]
    arns = [rule["RuleArn"] for rule in rules]
    assert site.world.elb("DescribeRules", RuleArns=arns)["Rules"] == rules
    first = site.world.elb("DescribeRules", ListenerArn=site.listener, PageSize=2)
    second = site.world.elb("DescribeRules", ListenerArn=site.listener, PageSize=2, Marker=first["NextMarker"])
    assert first["Rules"] + second["Rules"] == rules


def test_priorities_can_be_swapped_in_one_call(site: Site) -> None:
    """Two rules change places although each wants the other's priority."""
    arns = []
    for priority in (1, 2):
        created = site.world.elb(
            "CreateRule",
            ListenerArn=site.listener,
            Priority=priority,
            Conditions=path("/"),
            Actions=fixed(f"20{priority}"),
        )
        arns.append(created["Rules"][0]["RuleArn"])
    site.world.wait(10)
    assert site.served_by() == {"201"}
    swapped = [{"RuleArn": arns[0], "Priority": 2}, {"RuleArn": arns[1], "Priority": 1}]
    site.world.elb("SetRulePriorities", RulePriorities=swapped)
    site.world.wait(10)
    assert site.served_by() == {"202"}


def test_deleting_a_balancer_takes_its_listeners_and_rules(site: Site) -> None:
    """Its groups stay and are unused; deleting it again succeeds."""
    name = site.world.ec2.run()
    site.world.elb("RegisterTargets", TargetGroupArn=site.blue, Targets=[{"Id": name}])
    site.world.wait(10)
    site.world.elb("DeleteLoadBalancer", LoadBalancerArn=site.balancer)
    site.world.elb("DeleteLoadBalancer", LoadBalancerArn=site.balancer)
    assert elbv2.view(site.world).endpoints == {}
    assert site.states(site.blue) == [("unused", "Target.NotInUse")]
    site.world.elb("DeleteTargetGroup", TargetGroupArn=site.blue)
    site.world.elb("DeleteTargetGroup", TargetGroupArn=site.blue)


def test_tags_on_everything(site: Site) -> None:
    """Given on create or later, changed and removed, on balancers, listeners, rules and groups alike."""
    rule = site.world.elb(
        "CreateRule",
        ListenerArn=site.listener,
        Priority=5,
        Conditions=path("/"),
        Actions=fixed(),
        Tags=[{"Key": "a", "Value": "1"}],
    )["Rules"][0]["RuleArn"]
    everything = [site.balancer, site.listener, rule, site.blue]
    site.world.elb("AddTags", ResourceArns=everything, Tags=[{"Key": "b", "Value": "2"}, {"Key": "c"}])
    site.world.elb("RemoveTags", ResourceArns=everything, TagKeys=["c", "unknown"])
    described = site.world.elb("DescribeTags", ResourceArns=everything)["TagDescriptions"]
    tags = [{tag["Key"]: tag["Value"] for tag in each["Tags"]} for each in described]
    assert tags == [{"b": "2"}, {"b": "2"}, {"a": "1", "b": "2"}, {"b": "2"}]


def test_a_fixed_response_is_the_balancers_own(site: Site) -> None:
    """Status, type and body as declared."""
    actions = fixed("418", ContentType="application/json", MessageBody="{}")
    site.world.elb("CreateRule", ListenerArn=site.listener, Priority=5, Conditions=path("/tea*"), Actions=actions)
    site.world.wait(10)
    assert site.world.decide(site.listener, "/teapot") == Answer(418, "application/json", "{}")


# --------------------------------------------------------------------------------------------------- what is refused

NAMES = "API reference, CreateTargetGroup: Name"
QUOTAS = "Quotas for your Application Load Balancers"
ACTION = "API reference, Action"
CONDITION = "API reference, RuleCondition; Listener rules"
OURS = "the sandbox's own limit"
GONE = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:"
NO_GROUP, NO_LISTENER = GONE + "targetgroup/gone/0", GONE + "listener/app/gone/0/0"
NO_RULE, NO_BALANCER = GONE + "listener-rule/app/gone/0/0/0", GONE + "loadbalancer/app/gone/0"


def make_group(**changes: Any) -> tuple[str, Doc]:
    return "CreateTargetGroup", {"Name": "new", "Protocol": "HTTP", "Port": 80, "VpcId": VPC, **changes}


def make_balancer(**changes: Any) -> tuple[str, Doc]:
    return "CreateLoadBalancer", {"Name": "new", "Subnets": ["subnet-a", "subnet-b"], **changes}


def make_listener(**changes: Any) -> tuple[str, Doc]:
    settings: Doc = {"LoadBalancerArn": "BALANCER", "Protocol": "HTTP", "Port": 9000, "DefaultActions": fixed()}
    return "CreateListener", {**settings, **changes}


def make_rule(**changes: Any) -> tuple[str, Doc]:
    return "CreateRule", {
        "ListenerArn": "LISTENER",
        "Priority": 7,
        "Conditions": path("/"),
        "Actions": fixed(),
        **changes,
    }


def to_groups(*weights: int) -> list[Doc]:
    return forward(*((f"GROUP{number}", weight) for number, weight in enumerate(weights)))


STICKY = [
    {
        "Type": "forward",
        "ForwardConfig": {
            "TargetGroups": [{"TargetGroupArn": "BLUE", "Weight": 1}],
            "TargetGroupStickinessConfig": {"Enabled": True, "DurationSeconds": 60},
        },
    }
]

REFUSALS: list[tuple[tuple[str, Doc], str, str, str]] = [
    # call, what is wrong, AWS's error code, source
    (
        make_balancer(Name="-a"),
        "a name that begins with a hyphen",
        "ValidationError",
        "API reference, CreateLoadBalancer",
    ),
    (make_balancer(Name="a" * 33), "a name of 33 characters", "ValidationError", "API reference, CreateLoadBalancer"),
    (make_balancer(Name="internal-a"), "a reserved name", "ValidationError", "API reference, CreateLoadBalancer"),
    (make_balancer(Name="main", Scheme="internal"), "a name in use", "DuplicateLoadBalancerName", "API reference"),
    (
        make_balancer(Subnets=["subnet-a"]),
        "one subnet",
        "ValidationError",
        "API reference, CreateLoadBalancer: Subnets",
    ),
    (make_balancer(Subnets=["subnet-a", "subnet-z"]), "unknown subnet", "SubnetNotFound", "API reference"),
    (
        make_balancer(Subnets=["subnet-a", "subnet-a2"]),
        "two subnets of one zone",
        "InvalidConfigurationRequest",
        "API reference, CreateLoadBalancer: Subnets",
    ),
    (make_balancer(Subnets=["subnet-a", "subnet-y"]), "two VPCs", "InvalidConfigurationRequest", "API reference"),
    (make_balancer(SecurityGroups=["sg-x"]), "a group of another VPC", "InvalidSecurityGroup", "API reference"),
    (make_balancer(Type="network"), "a network load balancer", "NotSimulated", OURS),
    (make_balancer(Scheme="secret"), "an unknown scheme", "ValidationError", "API reference"),
    (make_balancer(Tags=[{"Key": "a"}, {"Key": "a"}]), "a tag key twice", "DuplicateTagKeys", "API reference, AddTags"),
    (make_balancer(Tags=[{"Key": "a", "Value": "~"}]), "a tilde in a tag", "ValidationError", "TagValue's pattern"),
    (make_balancer(Tags=[{"Key": str(n)} for n in range(51)]), "51 tags", "TooManyTags", QUOTAS),
    (make_listener(LoadBalancerArn=NO_BALANCER), "unknown balancer", "LoadBalancerNotFound", "API reference"),
    (make_listener(LoadBalancerArn="main"), "no ARN", "ValidationError", "seen answer: '...' is not a valid ... ARN"),
    (make_listener(Port=8000), "a second listener on a port", "DuplicateListener", "API reference, CreateListener"),
    (make_listener(Port=80), "a privileged port", "NotSimulated", OURS),
    (make_listener(Port=70000), "no such port", "ValidationError", "API reference, CreateListener: Port"),
    (make_listener(Protocol="TCP"), "a protocol of network balancers", "ValidationError", "API reference"),
    (make_listener(Protocol="HTTPS"), "TLS", "NotSimulated", OURS),
    (make_listener(DefaultActions=[]), "no action", "ValidationError", ACTION),
    (make_listener(DefaultActions=fixed() + fixed()), "two actions", "TooManyActions", "API reference"),
    (make_listener(DefaultActions=forward((NO_GROUP, 1))), "unknown group", "TargetGroupNotFound", "API reference"),
    (
        make_listener(DefaultActions=forward(("FOREIGN", 1))),
        "a group of another VPC",
        "InvalidConfigurationRequest",
        "API reference, CreateListener",
    ),
    (
        make_listener(LoadBalancerArn="SECOND", DefaultActions=forward(("BLUE", 1))),
        "a group of another balancer",
        "TargetGroupAssociationLimit",
        "API reference, CreateListener; " + QUOTAS,
    ),
    (("ModifyListener", {"ListenerArn": NO_LISTENER}), "unknown listener", "ListenerNotFound", "API reference"),
    (("DeleteListener", {"ListenerArn": NO_LISTENER}), "unknown listener", "ListenerNotFound", "API reference"),
    (
        ("DescribeListeners", {}),
        "neither balancer nor listeners",
        "ValidationError",
        "API reference, DescribeListeners",
    ),
    (make_rule(Priority=5), "a priority in use", "PriorityInUse", "API reference, CreateRule"),
    (make_rule(Priority=0), "priority 0", "ValidationError", "service model: RulePriority 1-50000"),
    (make_rule(Priority=50001), "priority 50001", "ValidationError", "service model: RulePriority 1-50000"),
    (make_rule(ListenerArn=NO_LISTENER), "unknown listener", "ListenerNotFound", "API reference"),
    (
        make_rule(Actions=to_groups(1, 1, 1, 1, 1, 1)),
        "six groups",
        "ValidationError",
        QUOTAS + " (its code is not given)",
    ),
    (
        make_rule(Actions=to_groups(1000)),
        "weight 1000",
        "ValidationError",
        "answer seen in aws-cdk#24805: weight ... between 0 and 999, inclusive",
    ),
    (make_rule(Actions=to_groups(-1)), "weight -1", "ValidationError", "aws-cdk#24805"),
    (make_rule(Actions=forward(("BLUE", 1), ("BLUE", 1))), "one group twice", "ValidationError", ACTION),
    (make_rule(Actions=STICKY), "group stickiness", "NotSimulated", OURS),
    (make_rule(Actions=fixed("302")), "a fixed 302", "ValidationError", "API reference, FixedResponseActionConfig"),
    (make_rule(Actions=fixed("200", MessageBody="x" * 1025)), "a body of 1025 characters", "ValidationError", ACTION),
    (make_rule(Actions=fixed("200", ContentType="image/png")), "another content type", "ValidationError", ACTION),
    (
        make_rule(Actions=[{"Type": "redirect", "RedirectConfig": {"StatusCode": "HTTP_301"}}]),
        "a redirect to itself",
        "InvalidLoadBalancerAction",
        "API reference, RedirectActionConfig",
    ),
    (make_rule(Actions=[{"Type": "authenticate-oidc"}]), "authentication", "NotSimulated", OURS),
    (make_rule(Actions=[{"Type": "drop"}]), "an unknown action", "ValidationError", ACTION),
    (make_rule(Conditions=[]), "no condition", "ValidationError", CONDITION),
    (make_rule(Conditions=[{"Field": "cookie"}]), "an unknown field", "ValidationError", CONDITION),
    (make_rule(Conditions=path("/a") + path("/b")), "two path conditions", "ValidationError", CONDITION),
    (make_rule(Conditions=path(*"abcdef")), "six values", "ValidationError", QUOTAS),
    (make_rule(Conditions=path("/*?*?*?*")), "seven wildcards", "ValidationError", QUOTAS),
    (make_rule(Conditions=path("/ä")), "a path with other characters", "ValidationError", CONDITION),
    (make_rule(Conditions=path("/" + "a" * 128)), "a path of 129 characters", "ValidationError", CONDITION),
    (
        make_rule(Conditions=[{"Field": "host-header", "Values": ["api"]}]),
        "a host without a dot",
        "ValidationError",
        CONDITION,
    ),
    (make_rule(Conditions=[header("Host", "a.b")]), "the host as a header", "ValidationError", CONDITION),
    (make_rule(Conditions=[header("x" * 41, "a")]), "a header name of 41 characters", "ValidationError", CONDITION),
    (
        make_rule(Conditions=[{"Field": "http-request-method", "HttpRequestMethodConfig": {"Values": ["get"]}}]),
        "a method in lower case",
        "ValidationError",
        CONDITION,
    ),
    (
        make_rule(Conditions=[{"Field": "source-ip", "SourceIpConfig": {"Values": ["10.0.0.1"]}}]),
        "an address that is no CIDR block",
        "ValidationError",
        CONDITION,
    ),
    (
        make_rule(Conditions=[{"Field": "query-string", "QueryStringConfig": {"Values": [{"Key": "a"}]}}]),
        "a query without a value",
        "ValidationError",
        CONDITION,
    ),
    (
        ("ModifyRule", {"RuleArn": "DEFAULT", "Actions": fixed()}),
        "the default rule",
        "OperationNotPermitted",
        "API reference",
    ),
    (("DeleteRule", {"RuleArn": "DEFAULT"}), "the default rule", "OperationNotPermitted", "API reference, DeleteRule"),
    (("ModifyRule", {"RuleArn": "RULE"}), "nothing to modify", "ValidationError", "API reference, ModifyRule"),
    (("ModifyRule", {"RuleArn": NO_RULE, "Actions": fixed()}), "unknown rule", "RuleNotFound", "API reference"),
    (("DeleteRule", {"RuleArn": NO_RULE}), "unknown rule", "RuleNotFound", "API reference"),
    (("DescribeRules", {"RuleArns": [NO_RULE]}), "unknown rule", "RuleNotFound", "API reference"),
    (
        ("SetRulePriorities", {"RulePriorities": [{"RuleArn": "RULE", "Priority": 6}]}),
        "a priority of another rule",
        "PriorityInUse",
        "API reference, SetRulePriorities",
    ),
    (make_group(Name="a_b"), "an underscore in a name", "ValidationError", NAMES),
    (make_group(Name="a-"), "a hyphen at the end", "ValidationError", NAMES),
    (make_group(Name="a" * 33), "a name of 33 characters", "ValidationError", NAMES),
    (make_group(Name="blue", Port=81), "a name in use", "DuplicateTargetGroupName", "API reference, CreateTargetGroup"),
    (make_group(VpcId=None), "no VPC", "ValidationError", "API reference, CreateTargetGroup: VpcId"),
    (make_group(VpcId="vpc-9"), "unknown VPC", "ValidationError", "API reference, CreateTargetGroup: VpcId"),
    (make_group(Port=0), "port 0", "ValidationError", "service model: Port 1-65535"),
    (make_group(TargetType="ip"), "addresses as targets", "NotSimulated", OURS),
    (make_group(Protocol="TCP"), "another protocol", "NotSimulated", OURS),
    (make_group(HealthCheckIntervalSeconds=4), "interval 4", "ValidationError", "CreateTargetGroup: 5-300"),
    (make_group(HealthCheckIntervalSeconds=301), "interval 301", "ValidationError", "CreateTargetGroup: 5-300"),
    (make_group(HealthCheckTimeoutSeconds=1), "timeout 1", "ValidationError", "CreateTargetGroup: 2-120"),
    (
        make_group(HealthCheckIntervalSeconds=5),
        "interval 5 with the default timeout of 5",
        "ValidationError",
        "answer seen in tflint-ruleset-aws#404",
    ),
    (make_group(HealthyThresholdCount=1), "threshold 1", "ValidationError", "CreateTargetGroup: 2-10"),
    (make_group(UnhealthyThresholdCount=11), "threshold 11", "ValidationError", "CreateTargetGroup: 2-10"),
    (make_group(HealthCheckPath="x"), "a path without a slash", "ValidationError", "CreateTargetGroup"),
    (make_group(Matcher={"HttpCode": "600"}), "code 600", "ValidationError", "API reference, Matcher: 200-499"),
    (
        make_group(HealthCheckEnabled=False),
        "no health checks for instances",
        "InvalidConfigurationRequest",
        "CreateTargetGroup: HealthCheckEnabled",
    ),
    (("ModifyTargetGroup", {"TargetGroupArn": NO_GROUP}), "unknown group", "TargetGroupNotFound", "API reference"),
    (
        ("ModifyTargetGroup", {"TargetGroupArn": "BLUE", "HealthCheckTimeoutSeconds": 5}),
        "timeout not below the interval",
        "ValidationError",
        "tflint-ruleset-aws#404",
    ),
    (("DeleteTargetGroup", {"TargetGroupArn": "BLUE"}), "a group in use", "ResourceInUse", "API reference"),
    (("DescribeTargetGroups", {"Names": ["gone"]}), "unknown group", "TargetGroupNotFound", "API reference"),
    (("DescribeLoadBalancers", {"Names": ["gone"]}), "unknown balancer", "LoadBalancerNotFound", "API reference"),
    (
        (
            "ModifyTargetGroupAttributes",
            {
                "TargetGroupArn": "BLUE",
                "Attributes": [{"Key": "deregistration_delay.timeout_seconds", "Value": "3601"}],
            },
        ),
        "a deregistration delay of 3601 s",
        "ValidationError",
        "API reference, TargetGroupAttribute: 0-3600",
    ),
    (
        ("ModifyTargetGroupAttributes", {"TargetGroupArn": "BLUE", "Attributes": [{"Key": "delay", "Value": "1"}]}),
        "an unknown attribute",
        "ValidationError",
        "API reference, TargetGroupAttribute",
    ),
    *(
        (
            (
                "ModifyTargetGroupAttributes",
                {"TargetGroupArn": "BLUE", "Attributes": [{"Key": "slow_start.duration_seconds", "Value": seconds}]},
            ),
            f"a slow start of {seconds} s",
            "ValidationError",
            "API reference, TargetGroupAttribute: 30-900, or 0",
        )
        for seconds in ("29", "901", "-30", "a minute")
    ),
    (
        (
            "ModifyTargetGroupAttributes",
            {
                "TargetGroupArn": "BLUE",
                "Attributes": [
                    {"Key": "slow_start.duration_seconds", "Value": "30"},
                    {"Key": "load_balancing.algorithm.type", "Value": "least_outstanding_requests"},
                ],
            },
        ),
        "slow start by least outstanding requests",
        "InvalidConfigurationRequest",
        "Edit target group attributes: slow start mode",
    ),
    (
        (
            "ModifyTargetGroupAttributes",
            {"TargetGroupArn": "BLUE", "Attributes": [{"Key": "stickiness.enabled", "Value": "true"}]},
        ),
        "stickiness",
        "NotSimulated",
        OURS,
    ),
    (
        ("RegisterTargets", {"TargetGroupArn": "BLUE", "Targets": [{"Id": "i-none"}]}),
        "unknown instance",
        "InvalidTarget",
        "API reference, RegisterTargets",
    ),
    (
        ("RegisterTargets", {"TargetGroupArn": "BLUE", "Targets": [{"Id": "STOPPED"}]}),
        "a stopped instance",
        "InvalidTarget",
        "API reference, RegisterTargets: must be in the running state",
    ),
    (
        ("RegisterTargets", {"TargetGroupArn": "FOREIGN", "Targets": [{"Id": "RUNNING"}]}),
        "an instance of another VPC",
        "InvalidTarget",
        "API reference, RegisterTargets",
    ),
    (
        ("DescribeTargetHealth", {"TargetGroupArn": NO_GROUP}),
        "unknown group",
        "TargetGroupNotFound",
        "API reference",
    ),
    (("DescribeTags", {"ResourceArns": [NO_GROUP]}), "unknown group", "TargetGroupNotFound", "API reference"),
    (
        ("AddTags", {"ResourceArns": ["BLUE"], "Tags": [{"Key": "aws:x"}]}),
        "a reserved tag key",
        "ValidationError",
        "Tag restrictions",
    ),
]


def put_in(value: Any, known: dict[str, str]) -> Any:
    """``value`` with the names of ``known`` replaced by what they stand for."""
    if isinstance(value, dict):
        return {key: put_in(each, known) for key, each in value.items()}
    if isinstance(value, list):
        return [put_in(each, known) for each in value]
    return known.get(value, value) if isinstance(value, str) else value


@pytest.mark.parametrize(
    ("call", "code"),
    [pytest.param(call, code, id=f"{call[0]}: {wrong}") for call, wrong, code, _ in REFUSALS],
)
def test_refusals(site: Site, call: tuple[str, Doc], code: str) -> None:
    """What AWS refuses is refused with its code, and nothing is changed by it."""
    world = site.world
    second = balancer(world, "second")
    known = {"BALANCER": site.balancer, "SECOND": second, "LISTENER": site.listener, "BLUE": site.blue}
    known["FOREIGN"] = target_group(world, "foreign", VpcId=OTHER_VPC)
    known |= {f"GROUP{number}": target_group(world, f"group{number}") for number in range(6)}
    for number, name in ((5, "RULE"), (6, "OTHER")):
        rule = world.elb(
            "CreateRule", ListenerArn=site.listener, Priority=number, Conditions=path("/"), Actions=fixed()
        )
        known[name] = rule["Rules"][0]["RuleArn"]
    known["DEFAULT"] = world.elb("DescribeRules", ListenerArn=site.listener)["Rules"][-1]["RuleArn"]
    known["RUNNING"], known["STOPPED"] = world.ec2.run(), world.ec2.run()
    world.ec2.stop(known["STOPPED"])
    before = world.documents()
    operation, params = call
    with pytest.raises(ApiError) as refused:
        world.elb(operation, **put_in(params, known))
    assert refused.value.code == code
    assert world.documents() == before


def test_a_hundred_rules_and_no_more(site: Site) -> None:
    """The default rule does not count (quota "Rules per Application Load Balancer")."""
    for priority in range(1, 101):
        site.world.elb(
            "CreateRule", ListenerArn=site.listener, Priority=priority, Conditions=path("/"), Actions=fixed()
        )
    with pytest.raises(ApiError) as refused:
        site.world.elb("CreateRule", ListenerArn=site.listener, Priority=101, Conditions=path("/"), Actions=fixed())
    assert refused.value.code == "TooManyRules"
