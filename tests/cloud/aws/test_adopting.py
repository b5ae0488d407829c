"""Which rules of somebody else's a route can take the requests of, on AWS."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osvdeploy.cloud.aws.adopting import Asked, asked, displaced, leading, refuse_other_checks
from osvdeploy.cloud.interfaces import HealthRule, Route
from osvdeploy.errors import UsageError

LISTENER = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:listener/app/web/1/2"
THEIRS = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/theirs/1"
OTHER = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/other/2"
EVERY: Asked = frozenset()


def route(priority: int = 100) -> Route:
    health = HealthRule("/healthz", 5.0, 2.0)
    return Route("0123456789", "hello/production", LISTENER, priority, 8080, health, "x-preview")


def rule(priority: int | str, target: str = THEIRS, path: str = "/*", **changes: Any) -> Any:
    conditions = [] if priority == "default" else [{"Field": "path-pattern", "Values": [path]}]
    made = {
        "RuleArn": f"rule-{priority}",
        "Priority": str(priority),
        "Conditions": conditions,
        "Actions": [{"Type": "forward", "TargetGroupArn": target}],
    }
    return {**made, **changes}


def led(rules: list[Any], wanted: Asked = EVERY, priority: int = 100) -> int:
    return leading(rules, {THEIRS}, set(), route(priority), wanted, "legacy").priority


def test_the_rule_with_just_these_requests_leads() -> None:
    """Every request, by a rule of every path or by the default action; one host, however it is written."""
    assert led([rule(200), rule("default", OTHER)]) == 200
    assert led([rule("default")]) > 50_000
    host = [{"Field": "host-header", "HostHeaderConfig": {"Values": ["a.example"]}}]
    wanted = asked([{"Field": "host-header", "Values": ["a.example"]}])
    assert led([rule(200, Conditions=host), rule("default", OTHER)], wanted) == 200


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ([rule("default", OTHER)], "no rule of listener"),
        ([rule(200, path="/api/*"), rule("default", OTHER)], "is sent other requests"),
        ([rule(50), rule("default", OTHER)], "the rule at priority 50 would come before"),
        ([rule(150, OTHER, "/api/*"), rule(200)], "the rule at priority 150, which takes path-pattern /api/\\*"),
        (
            [rule(200, Actions=[{"Type": "authenticate-oidc"}, {"Type": "forward", "TargetGroupArn": THEIRS}])],
            "does more than forward",
        ),
        ([rule(200, Transforms=[{"Type": "url-rewrite"}])], "rewrites requests"),
        (
            [
                rule(
                    200,
                    Actions=[
                        {
                            "Type": "forward",
                            "ForwardConfig": {
                                "TargetGroups": [
                                    {"TargetGroupArn": THEIRS, "Weight": 1},
                                    {"TargetGroupArn": OTHER, "Weight": 1},
                                ]
                            },
                        }
                    ],
                )
            ],
            "shares its traffic",
        ),
    ],
)
def test_what_a_rule_of_ours_could_not_do_just_the_same_is_refused(rules: list[Any], told: str) -> None:
    """Each by its name."""
    with pytest.raises(UsageError, match=told):
        led(rules)


@given(st.sets(st.integers(1, 50_000), max_size=8), st.integers(1, 50_000) | st.just("default"), st.integers(3, 50_000))
def test_the_number_that_is_named_is_one_that_would_do(others: set[int], theirs: int | str, ours: int) -> None:
    """Whatever rules there are: what the refusal says to choose is taken then, with two free ones below."""
    rules = [rule(each, OTHER, f"/{each}/*") for each in others if each != theirs] + [rule(theirs)]
    if theirs != "default":
        rules.append(rule("default", OTHER))
    try:
        led(rules, priority=ours)
    except UsageError as refused:
        hint = refused.hint or ""
        if "choose" not in hint:
            assert "no room" in hint
            return
        chosen = int(hint.partition("= ")[2].partition("`")[0])
        assert led(rules, priority=chosen)
        assert not {chosen, chosen - 1, chosen - 2} & (others | {theirs}) and chosen >= 3


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"VpcId": "vpc-2"}, "in vpc-2"),
        ({"Protocol": "HTTPS"}, "speaks HTTPS"),
        ({"ProtocolVersion": "GRPC"}, "GRPC"),
        ({"Port": 80}, "answer at port 80"),
        ({"HealthCheckPath": "/"}, "what does not answer there would be ended"),
    ],
)
def test_machines_that_could_not_stand_behind_ours_are_refused(changes: dict[str, Any], told: str) -> None:
    """Or would be ended for it: a group that heeds its balancers heeds ours, too."""
    behind: Any = {
        "TargetGroupName": "theirs",
        "VpcId": "vpc-1",
        "Protocol": "HTTP",
        "ProtocolVersion": "HTTP1",
        "Port": 8080,
        "HealthCheckPath": "/healthz",
    }
    refuse_other_checks("ELB", route(), "vpc-1", behind, "legacy")
    behind.update(changes)
    with pytest.raises(UsageError, match=told):
        refuse_other_checks("ELB", route(), "vpc-1", behind, "legacy")
    if "HealthCheckPath" in changes:
        refuse_other_checks("EC2", route(), "vpc-1", behind, "legacy")


def test_only_what_has_just_these_requests_would_lose_them() -> None:
    """After the route's own place, and forwarding somewhere."""
    nothing = rule("default", Actions=[{"Type": "fixed-response"}])
    assert displaced([nothing], set(), route(), EVERY) == ""
    assert "theirs" in displaced([rule(200), nothing], set(), route(), EVERY)
    assert displaced([rule(200, path="/api/*"), nothing], set(), route(), EVERY) == ""
    assert displaced([rule(50), nothing], set(), route(), EVERY) == ""
    assert displaced([rule(200), nothing], {"rule-200"}, route(), EVERY) == ""
