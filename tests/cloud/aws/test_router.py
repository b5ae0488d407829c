"""Listeners that cannot have our rules, balancers behind names, and how few calls a look takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from osvdeploy.cloud.aws.router import AlbRouter
from osvdeploy.cloud.interfaces import HealthRule, Route, Slot
from osvdeploy.cloud.tags import SCHEMA, SERVICE
from osvdeploy.context import Context, VirtualClock
from osvdeploy.errors import NotFound, NotOurs, Unavailable, UsageError
from tests.cloud.aws.script import No, Script
from tests.contract.aws_scene import aws_scene, elb_of

ACCOUNT = "arn:aws:elasticloadbalancing:eu-west-1:123456789012"
LISTENER = f"{ACCOUNT}:listener/app/lb/0123456789abcdef/0123456789abcdef"
BALANCER = f"{ACCOUNT}:loadbalancer/app/lb/0123456789abcdef"
OURS = {SCHEMA: "1", SERVICE: "hello/production"}
ROUTE = Route(
    key="k",
    service="hello/production",
    listener=LISTENER,
    priority=100,
    port=8080,
    health=HealthRule("/healthz", 5.0, 2.0),
    preview_header="X-Preview",
    tags=OURS,
)
NO_GROUP = No("TargetGroupNotFound")


@pytest.fixture
def ctx() -> Context:
    return Context(clock=VirtualClock())


def backend(slot: Slot, key: str = "k") -> str:
    return f"{ACCOUNT}:targetgroup/osvd-{key}-{slot}/{slot}"


def forwards(**weights: int) -> list[dict[str, Any]]:
    pairs = [{"TargetGroupArn": backend(Slot(slot)), "Weight": weight} for slot, weight in weights.items()]
    return [{"Type": "forward", "ForwardConfig": {"TargetGroups": pairs}}]


def rule(priority: int | str, actions: Sequence[dict[str, Any]], header: str = "", *fields: Any) -> dict[str, Any]:
    conditions: list[dict[str, Any]] = list(fields)
    if header:
        config = {"HttpHeaderName": "x-preview", "Values": [header]}
        conditions.append({"Field": "http-header", "HttpHeaderConfig": config})
    return {"RuleArn": f"rule-{priority}", "Priority": str(priority), "Conditions": conditions, "Actions": actions}


PREVIEWS = [rule(98, forwards(blue=1), "blue"), rule(99, forwards(green=1), "green")]
DEFAULT = rule("default", [{"Type": "fixed-response"}])


def script(rules: Sequence[dict[str, Any]], labels: dict[str, str] = OURS, **more: Any) -> Script:
    tags = [{"Key": key, "Value": value} for key, value in labels.items()]
    described = [each["RuleArn"] for each in rules] + [backend(slot) for slot in Slot]
    answers: dict[str, Sequence[dict[str, Any] | No]] = {
        "DescribeListeners": [
            {"Listeners": [{"ListenerArn": LISTENER, "LoadBalancerArn": BALANCER, "Protocol": "HTTPS", "Port": 443}]}
        ],
        "DescribeLoadBalancers": [{"LoadBalancers": [{"DNSName": "lb.elb.amazonaws.com", "VpcId": "vpc-1"}]}],
        "DescribeRules": [{"Rules": [*rules, DEFAULT]}],
        "DescribeTags": [{"TagDescriptions": [{"ResourceArn": arn, "Tags": tags} for arn in described]}],
        "DescribeTargetGroups": [NO_GROUP],
    }
    return Script({**answers, **more})


def nowhere(name: str) -> Sequence[str]:
    return ()


def test_a_look_costs_one_call(ctx: Context) -> None:
    """Once a route stands and was seen, looking reads the rules and nothing else; so does changing the weights."""
    asked = script([*PREVIEWS, rule(100, forwards(blue=100, green=0))], ModifyRule=[{}])
    router = AlbRouter(asked.aws(), nowhere)
    state = router.observe(ctx, ROUTE)
    assert state.backends == {slot: backend(slot) for slot in Slot}
    assert state.weights == {Slot.BLUE: 100, Slot.GREEN: 0}
    asked.asked.clear()
    router.observe(ctx, ROUTE)
    assert asked.asked == ["DescribeRules"]
    router.set_weights(ctx, ROUTE, {Slot.BLUE: 0, Slot.GREEN: 100})
    assert asked.asked == ["DescribeRules", "DescribeRules", "ModifyRule"]


def test_https_is_entered_by_https(ctx: Context) -> None:
    """The scheme is the listener's."""
    assert AlbRouter(script([]).aws(), nowhere).observe(ctx, ROUTE).base_url == "https://lb.elb.amazonaws.com:443"


def test_names_are_looked_up_now_and_then(ctx: Context) -> None:
    """A balancer's addresses change; what was found last is better than nothing."""
    answers = [["192.0.2.1", "192.0.2.2"], ["192.0.2.3"], []]
    router = AlbRouter(script(PREVIEWS).aws(), lambda name: answers.pop(0))
    assert router.observe(ctx, ROUTE).addresses == ("192.0.2.1", "192.0.2.2")
    assert router.observe(ctx, ROUTE).addresses == ("192.0.2.1", "192.0.2.2")
    ctx.sleep(60)
    assert router.observe(ctx, ROUTE).addresses == ("192.0.2.3",)
    ctx.sleep(60)
    assert router.observe(ctx, ROUTE).addresses == ("192.0.2.3",)


def test_a_whole_answer_of_addresses_may_not_be_all(ctx: Context) -> None:
    """DNS tells of eight at most: a balancer of eight or more nodes has others that nobody can ask."""
    there = [f"192.0.2.{number}" for number in range(7)]
    router = AlbRouter(script(PREVIEWS).aws(), lambda name: there)
    assert not router.observe(ctx, ROUTE).partial
    there.append("192.0.2.7")
    ctx.sleep(60)
    assert router.observe(ctx, ROUTE).partial


@pytest.mark.parametrize(
    ("listener", "said"),
    [
        ("my-listener", "is no listener's ARN"),
        (BALANCER, "is no listener's ARN"),
        (LISTENER.replace("/app/", "/net/"), "network load balancer"),
        (LISTENER.replace("/app/", "/gwy/"), "gateway load balancer"),
        (LISTENER.replace("eu-west-1", "us-east-1"), "us-east-1"),
    ],
)
def test_a_listener_that_cannot_have_rules_is_refused_unasked(ctx: Context, listener: str, said: str) -> None:
    """No call is made for what its ARN already says."""
    asked = script([])
    route = replace(ROUTE, listener=listener)
    router = AlbRouter(asked.aws(), nowhere)
    uses: list[Callable[[Context, Route], object]] = [router.observe, router.ensure_slots, router.remove]
    for use in uses:
        with pytest.raises(UsageError, match=said) as raised:
            use(ctx, route)
        assert raised.value.hint
    assert asked.asked == []


def test_a_foreign_rule_is_named_with_what_it_takes(ctx: Context) -> None:
    """ARN, priority and conditions: enough to find it in the console."""
    host = {"Field": "host-header", "HostHeaderConfig": {"Values": ["a.example", "b.example"]}}
    foreign = rule(99, [{"Type": "fixed-response"}], "", host, {"Field": "path-pattern", "Values": ["/x"]})
    with pytest.raises(NotOurs) as raised:
        AlbRouter(script([foreign], {}).aws(), nowhere).observe(ctx, ROUTE)
    assert "rule-99 at priority 99" in raised.value.message
    assert "host-header a.example b.example, path-pattern /x" in raised.value.message


def test_a_rule_handed_over_is_taken_without_a_new_start(ctx: Context) -> None:
    """What was not ours is asked for again: somebody may have given it our tags."""
    asked = script(PREVIEWS, {})
    router = AlbRouter(asked.aws(), nowhere)
    for _ in range(2):
        with pytest.raises(NotOurs):
            router.observe(ctx, ROUTE)
    assert asked.asked.count("DescribeTags") == 2


@pytest.mark.parametrize(
    "changed",
    [
        rule(98, forwards(green=1), "blue"),
        rule(98, forwards(blue=1, green=1), "blue"),
        rule(98, [{"Type": "fixed-response"}], "blue"),
        rule(98, forwards(blue=1), "green"),
        rule(98, forwards(blue=1), "blue", {"Field": "path-pattern", "Values": ["/nowhere"]}),
    ],
)
def test_a_preview_that_leads_elsewhere_is_not_wired(ctx: Context, changed: dict[str, Any]) -> None:
    """Somebody changed our preview rule: the slot counts as missing, and is wired up again in place."""
    group = {"TargetGroupArn": backend(Slot.BLUE), "TargetGroupName": "osvd-k-blue", "Port": 8080, "VpcId": "vpc-1"}
    asked = script(
        [changed, PREVIEWS[1]],
        DescribeTargetGroups=[{"TargetGroups": [group]}],
        ModifyTargetGroup=[{}],
        ModifyTargetGroupAttributes=[{}],
        ModifyRule=[{}],
    )
    router = AlbRouter(asked.aws(), nowhere)
    assert set(router.observe(ctx, ROUTE).backends) == {Slot.GREEN}
    asked.asked.clear()
    router.ensure_slots(ctx, ROUTE)
    assert asked.asked[-3:] == ["ModifyTargetGroup", "ModifyTargetGroupAttributes", "ModifyRule"]


def test_a_rule_that_forwards_nowhere_has_no_weights(ctx: Context) -> None:
    """Somebody turned the route's rule into a fixed answer: it exists, and nobody of ours gets anything."""
    state = AlbRouter(script([*PREVIEWS, rule(100, [{"Type": "fixed-response"}])]).aws(), nowhere).observe(ctx, ROUTE)
    assert state.weights == {Slot.BLUE: 0, Slot.GREEN: 0}


def sticky(**weights: int) -> list[dict[str, Any]]:
    actions = forwards(**weights)
    actions[0]["ForwardConfig"]["TargetGroupStickinessConfig"] = {"Enabled": True, "DurationSeconds": 600}
    return actions


def to_strangers(weight: int) -> list[dict[str, Any]]:
    actions = forwards(blue=100, green=0)
    theirs = {"TargetGroupArn": f"{ACCOUNT}:targetgroup/theirs/1", "Weight": weight}
    actions[0]["ForwardConfig"]["TargetGroups"].append(theirs)
    return actions


RIGHT = forwards(blue=100, green=0)
LOGIN = {"Type": "authenticate-oidc", "Order": 1}
HOST = {"Field": "host-header", "Values": ["A.example"], "HostHeaderConfig": {"Values": ["A.example"]}}
PATH = {"Field": "path-pattern", "Values": ["/api/*"], "PathPatternConfig": {"Values": ["/api/*"]}}


@pytest.mark.parametrize(
    ("actions", "fields", "told"),
    [
        (RIGHT, [HOST, PATH], ""),
        (to_strangers(0), [HOST, PATH], ""),
        (to_strangers(900), [HOST, PATH], "sends 900 of 1000 to theirs"),
        (sticky(blue=100), [HOST, PATH], "keeps clients where they were sent before (target group stickiness)"),
        ([{"Type": "fixed-response"}], [HOST, PATH], "does fixed-response, and not forward alone"),
        ([LOGIN, *RIGHT], [HOST, PATH], "does authenticate-oidc, forward, and not forward alone"),
        (RIGHT, [HOST], "takes host-header A.example, and not host-header a.example, path-pattern /api/*"),
        (
            RIGHT,
            [HOST, {"Field": "path-pattern", "Values": ["/nowhere"]}],
            "takes host-header A.example, path-pattern /nowhere, and not host-header a.example, path-pattern /api/*",
        ),
        (
            RIGHT,
            [HOST, PATH, {"Field": "source-ip", "SourceIpConfig": {"Values": ["10.0.0.0/8"]}}],
            "takes host-header A.example, path-pattern /api/*, source-ip 10.0.0.0/8, and not host-header a.example, "
            "path-pattern /api/*",
        ),
        (RIGHT, [{"Field": "host-header", "Values": ["www.a.example", "a.example"]}, PATH], ""),
        (
            RIGHT,
            [HOST, {"Field": "path-pattern", "PathPatternConfig": {"RegexValues": ["^/api/v2/"]}}],
            "takes host-header A.example, path-pattern regex ^/api/v2/, and not host-header a.example, path-pattern "
            "/api/*",
        ),
    ],
)
def test_a_rule_is_told_where_clients_notice_what_somebody_changed(
    ctx: Context, actions: list[dict[str, Any]], fields: list[dict[str, Any]], told: str
) -> None:
    """In whatever form its conditions are answered. A host or a path beside the route's own keeps nobody away."""
    asked = script([*PREVIEWS, rule(100, actions, "", *fields)])
    route = replace(ROUTE, host="a.example", path="/api/*")
    assert AlbRouter(asked.aws(), nowhere).observe(ctx, route).changed == told


def test_a_rule_that_rewrites_requests_is_told(ctx: Context) -> None:
    """What machines get is not what clients asked for."""
    rewriting = {**rule(100, RIGHT), "Transforms": [{"Type": "url-rewrite"}]}
    state = AlbRouter(script([*PREVIEWS, rewriting]).aws(), nowhere).observe(ctx, ROUTE)
    assert state.changed == "rewrites requests"


@pytest.mark.sandbox
def test_a_host_that_somebody_gave_the_rule_beside_its_own_stays() -> None:
    """Weights are set without its conditions, which take all that the route's do. Others are put right with them."""
    scene = aws_scene()
    route, elb = scene.route(host="a.example"), elb_of(scene)
    scene.cloud.router.ensure_slots(scene.ctx, route)

    def hosts() -> list[str]:
        arn = scene.cloud.router.observe(scene.ctx, route).rules["route"]
        return elb.describe_rules(RuleArns=[arn])["Rules"][0]["Conditions"][0]["Values"]

    def give(*values: str) -> None:
        arn = scene.cloud.router.observe(scene.ctx, route).rules["route"]
        conditions: Any = [{"Field": "host-header", "HostHeaderConfig": {"Values": list(values)}}]
        elb.modify_rule(RuleArn=arn, Conditions=conditions)

    scene.cloud.router.set_weights(scene.ctx, route, {Slot.BLUE: 100, Slot.GREEN: 0})
    for given, left in ((("a.example", "b.example"), ["a.example", "b.example"]), (("b.example",), ["a.example"])):
        give(*given)
        scene.cloud.router.set_weights(scene.ctx, route, {Slot.BLUE: 0, Slot.GREEN: 100})
        assert hosts() == left


GONE = No("RuleNotFound")
NOT_OURS: dict[str, Any] = {"TagDescriptions": []}
THEIRS = [{"Type": "forward", "TargetGroupArn": f"{ACCOUNT}:targetgroup/theirs/1"}]


def described(*arns: str) -> dict[str, Any]:
    tags = [{"Key": key, "Value": value} for key, value in OURS.items()]
    return {"TagDescriptions": [{"ResourceArn": arn, "Tags": tags} for arn in arns]}


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ([GONE, NOT_OURS, GONE], "the rule at priority 900, which sends them to theirs"),
        ([GONE, GONE, NOT_OURS], ""),
        ([GONE, GONE, GONE], ""),
    ],
)
def test_a_rule_that_another_team_deletes_meanwhile_hides_no_other(
    ctx: Context, answers: list[dict[str, Any] | No], told: str
) -> None:
    """Tags of several are told of all or of none. What is gone has nobody's requests."""
    path = {"Field": "path-pattern", "Values": ["/other"]}
    asked = script([rule(900, THEIRS), rule(901, THEIRS, "", path)], DescribeTags=answers)
    assert AlbRouter(asked.aws(), nowhere).in_use(ctx, ROUTE) == told
    assert asked.asked.count("DescribeTags") == 3


def test_a_rule_of_ours_that_goes_meanwhile_is_seen_to_be_gone(ctx: Context) -> None:
    """And not for a listener that is: the others stand, with what they lead to."""
    own, blue, green = rule(100, forwards(blue=100, green=0)), *PREVIEWS
    standing = [described(each) for each in (green["RuleArn"], backend(Slot.BLUE), backend(Slot.GREEN))]
    answers = [GONE, described(own["RuleArn"]), GONE, *standing]
    state = AlbRouter(script([own, blue, green], DescribeTags=answers).aws(), nowhere).observe(ctx, ROUTE)
    assert state.rules == {"route": own["RuleArn"], "preview-green": green["RuleArn"]}
    assert set(state.backends) == {Slot.GREEN}
    assert state.weights == {Slot.BLUE: 100, Slot.GREEN: 0}


def test_health_forgets_a_group_that_was_deleted(ctx: Context) -> None:
    """A target group made anew has another ARN; the old one's is not asked for ever."""
    group = {"TargetGroupArn": backend(Slot.BLUE), "TargetGroupName": "osvd-k-blue"}
    targets = [{"Target": {"Id": "i-1"}, "TargetHealth": {"State": "unhealthy", "Reason": "Target.Timeout"}}]
    asked = script(
        [],
        DescribeTargetGroups=[{"TargetGroups": [group]}],
        DescribeTargetHealth=[NO_GROUP, {"TargetHealthDescriptions": targets}],
    )
    (seen,) = AlbRouter(asked.aws(), nowhere).health(ctx, ROUTE, Slot.BLUE)
    assert (seen.machine, seen.state, seen.reason) == ("i-1", "unhealthy", "Target.Timeout")


def test_a_machine_at_another_port_is_told_apart(ctx: Context) -> None:
    """Its group registers it at the route's port; somebody else at another, where another program answers."""
    group = {"TargetGroupArn": backend(Slot.BLUE), "TargetGroupName": "osvd-k-blue"}
    targets = [{"Target": {"Id": "i-1", "Port": port}, "TargetHealth": {"State": "healthy"}} for port in (8080, 9090)]
    asked = script(
        [],
        DescribeTargetGroups=[{"TargetGroups": [group]}],
        DescribeTargetHealth=[{"TargetHealthDescriptions": targets}],
    )
    found = AlbRouter(asked.aws(), nowhere).health(ctx, ROUTE, Slot.BLUE)
    assert [each.machine for each in found] == ["i-1", "i-1:9090"]


def test_removing_outlives_the_listener(ctx: Context) -> None:
    """A listener that was deleted took its rules along; the target groups are ours to remove."""
    found = [
        {"TargetGroups": [{"TargetGroupArn": backend(slot), "TargetGroupName": f"osvd-k-{slot}"}]} for slot in Slot
    ]
    asked = script(
        [],
        DescribeRules=[No("ListenerNotFound")],
        DescribeTargetGroups=found,
        DeleteTargetGroup=[No("ResourceInUse"), {}],
    )
    AlbRouter(asked.aws(), nowhere).remove(ctx, ROUTE)
    assert asked.asked.count("DeleteTargetGroup") == 3


def test_a_rule_that_is_there_but_not_seen_is_not_yet(ctx: Context) -> None:
    """Our own rule may not be visible for a while after its creation: that is no refusal, and the next look tells."""
    rules = [*PREVIEWS, rule(100, forwards(blue=100, green=0))]
    asked = script(
        rules,
        DescribeRules=[{"Rules": PREVIEWS}, {"Rules": rules}],
        CreateRule=[No("PriorityInUse")],
    )
    router = AlbRouter(asked.aws(), nowhere)
    with pytest.raises(Unavailable, match="100"):
        router.set_weights(ctx, ROUTE, {Slot.BLUE: 100, Slot.GREEN: 0})
    assert router.observe(ctx, ROUTE).weights == {Slot.BLUE: 100, Slot.GREEN: 0}


def test_what_we_made_is_ours_before_its_tags_are_seen(ctx: Context) -> None:
    """Tags may lag behind a creation; whoever made a rule need not ask whose it is."""
    rules = [*PREVIEWS, rule(100, forwards(blue=100, green=0))]
    tags = [{"Key": key, "Value": value} for key, value in OURS.items()]
    known = [rule["RuleArn"] for rule in PREVIEWS] + [backend(slot) for slot in Slot]
    asked = script(
        rules,
        DescribeTags=[{"TagDescriptions": [{"ResourceArn": arn, "Tags": tags} for arn in known]}],
        DescribeRules=[{"Rules": PREVIEWS}, {"Rules": rules}],
        CreateRule=[{"Rules": [rules[-1]]}],
    )
    router = AlbRouter(asked.aws(), nowhere)
    router.set_weights(ctx, ROUTE, {Slot.BLUE: 100, Slot.GREEN: 0})
    assert router.observe(ctx, ROUTE).rules["route"] == "rule-100"


def test_weights_need_both_target_groups(ctx: Context) -> None:
    """A group that is not there (yet) is not left out of the rule."""
    with pytest.raises(NotFound, match="osvd-k-blue"):
        AlbRouter(script([]).aws(), nowhere).set_weights(ctx, ROUTE, {Slot.BLUE: 100, Slot.GREEN: 0})


def attributes(**changed: str) -> dict[str, Any]:
    told = {"stickiness.enabled": "false", "stickiness.type": "lb_cookie", **changed}
    return {"Attributes": [{"Key": key, "Value": value} for key, value in told.items()]}


@pytest.mark.parametrize(
    ("by_rule", "by_group", "seconds"),
    [
        ({}, attributes(), None),
        ({"Enabled": True, "DurationSeconds": 600}, attributes(), 600),
        ({"Enabled": False, "DurationSeconds": 600}, attributes(), None),
        (
            {"Enabled": True, "DurationSeconds": 600},
            attributes(**{"stickiness.enabled": "true", "stickiness.lb_cookie.duration_seconds": "7200"}),
            7200,
        ),
        (
            {},
            attributes(
                **{
                    "stickiness.enabled": "true",
                    "stickiness.type": "app_cookie",
                    "stickiness.app_cookie.duration_seconds": "60",
                    "stickiness.lb_cookie.duration_seconds": "7200",
                }
            ),
            60,
        ),
    ],
)
def test_the_longest_that_a_client_is_bound_counts(
    ctx: Context, by_rule: dict[str, Any], by_group: dict[str, Any], seconds: float | None
) -> None:
    """By the rule or by a target group, whichever kind of cookie it has; what is turned off binds nobody."""
    actions = forwards(blue=100, green=0)
    if by_rule:
        actions[0]["ForwardConfig"]["TargetGroupStickinessConfig"] = by_rule
    asked = script([*PREVIEWS, rule(100, actions)], DescribeTargetGroupAttributes=[by_group])
    assert AlbRouter(asked.aws()).sticky(ctx, ROUTE) == seconds
