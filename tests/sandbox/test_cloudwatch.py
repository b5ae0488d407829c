"""CloudWatch: what balancers counted, told late and strictly."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from osvdeploy.context import VirtualClock
from osvdeploy.sandbox import wire
from osvdeploy.sandbox.core import Sandbox
from osvdeploy.sandbox.errors import ApiError, NotSimulated
from osvdeploy.sandbox.inprocess import connect
from osvdeploy.sandbox.runners.inline import InlineRunner
from osvdeploy.sandbox.services import cloudwatch, elbv2
from osvdeploy.sandbox.services.scope import Doc
from tests.sandbox.test_elbv2 import Site, forward, site
from tests.sandbox.test_wire import form
from tests.sandbox.volumes import declared, volume

__all__ = ["site"]


def ends(arn: str) -> str:
    return arn.rpartition(":")[2].removeprefix("loadbalancer/")


def query(site: Site, name: str = "RequestCount", stat: str = "Sum", period: int = 60, **changes: Any) -> Doc:
    dimensions = {"LoadBalancer": ends(site.balancer), "TargetGroup": ends(site.blue)}
    named = changes.pop("dimensions", dimensions)
    metric = {
        "Namespace": "AWS/ApplicationELB",
        "MetricName": name,
        "Dimensions": [{"Name": key, "Value": value} for key, value in named.items()],
    }
    return {"Id": "m", "MetricStat": {"Metric": metric, "Period": period, "Stat": stat}, **changes}


def read(site: Site, *queries: Doc, minutes: int = 10, **changes: Any) -> list[Doc]:
    began = site.world.now.replace(second=0) - timedelta(minutes=minutes)
    params = {"MetricDataQueries": list(queries), "StartTime": began, "EndTime": site.world.now, **changes}
    found: list[Doc] = cloudwatch.get_metric_data(site.world, params)["MetricDataResults"]
    return found


def values(site: Site, *asked: Any, **changes: Any) -> list[float]:
    found: list[float] = read(site, query(site, *asked, **changes))[0]["Values"]
    return found


def busy(site: Site) -> datetime:
    """Two minutes of requests to blue, half of those of the second with errors, and time for them to be told."""
    site.world.wait(60 - site.world.now.second)
    began = site.world.now
    for number in range(20):
        site.world.traffic.answered(site.blue, 500 if number >= 15 else 200, number / 100, site.world.now)
        site.world.wait(6)
    site.world.wait(cloudwatch.PUBLISHED)
    return began


def test_counts_are_told_by_minute_newest_first(site: Site) -> None:
    """Or in the order of time, where that is asked for."""
    began = busy(site)
    minutes = [began, began + timedelta(minutes=1)]
    (found,) = read(site, query(site))
    assert (found["Timestamps"], found["Values"]) == (minutes[::-1], [10, 10])
    assert (found["Id"], found["Label"], found["StatusCode"]) == ("m", "RequestCount", "Complete")
    (found,) = read(site, query(site, "HTTPCode_Target_2XX_Count"), ScanBy="TimestampAscending")
    assert (found["Timestamps"], found["Values"]) == (minutes, [10, 5])


def test_a_count_of_none_is_not_told(site: Site) -> None:
    """ "There is a nonzero value": a minute without errors has no data, and so has one without requests."""
    began = busy(site)
    (found,) = read(site, query(site, "HTTPCode_Target_5XX_Count"))
    assert (found["Timestamps"], found["Values"]) == ([began + timedelta(minutes=1)], [5])
    assert values(site, "HTTPCode_Target_4XX_Count") == []


def test_a_minute_is_told_whole_a_minute_late(site: Site) -> None:
    site.world.wait(60 - site.world.now.second)
    site.world.traffic.answered(site.blue, 200, 0.1, site.world.now)
    site.world.wait(60 + cloudwatch.PUBLISHED - 1)
    assert values(site) == []
    site.world.wait(1)
    assert values(site) == [1]


def test_periods_are_summed_up(site: Site) -> None:
    began = busy(site)
    site.world.wait(600)
    start = datetime.fromtimestamp(began.timestamp() // 600 * 600, began.tzinfo)
    (found,) = read(site, query(site, period=600), StartTime=start)
    assert (found["Timestamps"], found["Values"]) == ([start], [20])
    with pytest.raises(NotSimulated, match="no multiple of the Period"):
        read(site, query(site, period=600), StartTime=start + timedelta(minutes=-1))


def test_response_times_have_every_statistic(site: Site) -> None:
    busy(site)
    found = {
        stat: values(site, "TargetResponseTime", stat)
        for stat in ("Average", "Minimum", "Maximum", "p50", "p99", "SampleCount")
    }
    assert found == {
        "Average": [pytest.approx(0.145), pytest.approx(0.045)],
        "Minimum": [0.10, 0.0],
        "Maximum": [0.19, 0.09],
        "p50": [0.14, 0.04],
        "p99": [0.19, 0.09],
        "SampleCount": [10, 10],
    }


def test_a_balancer_s_are_those_of_all_its_groups(site: Site) -> None:
    """By its dimension alone; others than those that are published by have no data, and are no error."""
    site.world.elb("ModifyListener", ListenerArn=site.listener, DefaultActions=site.forward(1, 1))
    busy(site)
    site.world.traffic.answered(site.green, 200, 0.1, site.world.now - timedelta(minutes=2))
    assert values(site, dimensions={"LoadBalancer": ends(site.balancer)}) == [11, 10]
    for nobody in (
        {"LoadBalancer": "app/other/1", "TargetGroup": ends(site.blue)},
        {"LoadBalancer": ends(site.balancer), "TargetGroup": "targetgroup/other/1"},
        {"TargetGroup": ends(site.blue)},
        {},
    ):
        assert values(site, dimensions=nobody) == []


def test_a_target_that_does_not_answer_is_a_request_and_no_answer_of_its_own(site: Site) -> None:
    site.world.wait(60 - site.world.now.second)
    site.world.traffic.failed(site.blue, 502, site.world.now, connected=False)
    site.world.traffic.failed(site.blue, 504, site.world.now, connected=True)
    site.world.wait(120)
    found = {
        name: values(site, name) for name in ("RequestCount", "HTTPCode_Target_5XX_Count", "TargetConnectionErrorCount")
    }
    assert found == {"RequestCount": [2], "HTTPCode_Target_5XX_Count": [], "TargetConnectionErrorCount": [1]}


def test_hosts_are_counted_as_their_health_goes(site: Site) -> None:
    """At each minute's end, with requests or without."""
    site.world.ec2.images["ami-bad"] = volume({"/app": declared(answers={"*": 500})})
    site.world.wait(60 - site.world.now.second)
    for image in ("ami-1", "ami-bad"):
        name = site.world.ec2.run(image)
        site.world.elb("RegisterTargets", TargetGroupArn=site.blue, Targets=[{"Id": name}])
    site.world.wait(180)
    assert values(site, "HealthyHostCount", "Minimum") == [1, 1, 0]
    assert values(site, "UnHealthyHostCount", "Maximum") == [1, 1, 0]
    site.world.elb("DeregisterTargets", TargetGroupArn=site.blue, Targets=[{"Id": name}])
    site.world.wait(180)
    assert values(site, "UnHealthyHostCount", "Average")[:2] == [0, 0]


def test_what_happened_in_another_group_s_life_is_forgotten_with_it(site: Site) -> None:
    name = site.world.ec2.run()
    site.world.elb("RegisterTargets", TargetGroupArn=site.green, Targets=[{"Id": name}])
    site.world.elb("DeleteTargetGroup", TargetGroupArn=site.green)
    assert elbv2.HOSTS_SEEN not in {kind for kind, kept in site.world.documents().items() if kept}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"EndTime": datetime.fromisoformat("2000-01-01T00:00:00Z")}, "StartTime must be less than the parameter"),
        ({"MetricDataQueries": []}, "MetricDataQueries is required"),
        ({"NextToken": "x"}, "The next token specified is invalid"),
    ],
)
def test_what_cloudwatch_refuses_of_a_call_is_refused(site: Site, changes: Doc, told: str) -> None:
    with pytest.raises(ApiError, match=told):
        read(site, query(site), **changes)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"Id": "M"}, "is not matching the expected pattern"),
        ({"MetricStat": None}, "Either MetricStat or Expression must be specified"),
        ({"period": 90}, "must be 1, 5, 10, 20, 30, or a multiple of 60"),
        ({"period": 7}, "must be 1, 5, 10, 20, 30, or a multiple of 60"),
        ({"name": "TargetResponseTime", "stat": "mean"}, "is not supported"),
    ],
)
def test_what_cloudwatch_refuses_of_a_query_is_refused(site: Site, asked: Doc, told: str) -> None:
    busy(site)
    with pytest.raises(ApiError, match=told):
        read(site, query(site, **asked))


def test_two_queries_have_two_ids(site: Site) -> None:
    with pytest.raises(ApiError, match="are not unique"):
        read(site, query(site), query(site, "TargetResponseTime", "Average"))
    assert [
        each["Id"] for each in read(site, query(site), query(site, Id="n"), query(site, Id="o", ReturnData=False))
    ] == [
        "m",
        "n",
    ]


@pytest.mark.parametrize(
    "asked",
    [
        {"Expression": "m1 / m2"},
        {"period": 10},
        {"name": "ActiveConnectionCount"},
        {"stat": "Average"},
        {"name": "TargetResponseTime", "stat": "tm90"},
        {"dimensions": {"LoadBalancer": "app/a/1", "AvailabilityZone": "eu-west-1a"}},
    ],
)
def test_what_is_not_simulated_says_so(site: Site, asked: Doc) -> None:
    busy(site)
    with pytest.raises(NotSimulated):
        read(site, query(site, **asked))


def test_a_namespace_that_nobody_publishes_to_has_no_data(site: Site) -> None:
    asked = query(site)
    asked["MetricStat"]["Metric"]["Namespace"] = "Acme"
    assert read(site, asked)[0]["Values"] == []


def test_boto3_is_answered_and_refused_in_its_own_words() -> None:
    """Whatever protocol it has chosen."""
    clock = VirtualClock()
    client: Any = connect(Sandbox(runner=InlineRunner()), clock).client("cloudwatch")
    asked: Any = {
        "Id": "m",
        "MetricStat": {
            "Metric": {"Namespace": "AWS/ApplicationELB", "MetricName": "RequestCount"},
            "Period": 60,
            "Stat": "Sum",
        },
    }
    before = clock.now() - timedelta(hours=1)
    found = client.get_metric_data(MetricDataQueries=[asked], StartTime=before, EndTime=clock.now())
    assert found["MetricDataResults"] == [
        {"Id": "m", "Label": "RequestCount", "Timestamps": [], "Values": [], "StatusCode": "Complete"}
    ]
    with pytest.raises(ClientError) as raised:
        client.get_metric_data(MetricDataQueries=[asked], StartTime=clock.now(), EndTime=before)
    assert raised.value.response["Error"]["Code"] == "ValidationError"
    assert "StartTime must be less" in raised.value.response["Error"]["Message"]
    with pytest.raises(ClientError, match="does not simulate"):
        client.put_metric_data(Namespace="A", MetricData=[{"MetricName": "m", "Value": 1.0}])


def test_earlier_clients_speak_the_query_protocol() -> None:
    values = {
        "MetricDataQueries.member.1.Id": "m",
        "StartTime": "2030-01-01T00:00:00Z",
        "EndTime": "2029-01-01T00:00:00Z",
    }
    call = wire.parse(form("monitoring", "2010-08-01", Action="GetMetricData", **values))
    assert (call.service, call.operation, call.params["MetricDataQueries"]) == (
        "cloudwatch",
        "GetMetricData",
        [{"Id": "m"}],
    )
    refused = wire.refusal(call, ApiError("ValidationError", "no"), "id")
    assert b"<Code>ValidationError</Code>" in refused.body
    answered = wire.answer(call, {"MetricDataResults": [{"Id": "m", "Values": [1.5]}]}, "id")
    assert b"<member>1.5</member>" in answered.body


def test_forwarding_is_counted_on_the_way(site: Site) -> None:
    """A green group that nobody sends to has had nothing."""
    site.world.elb("ModifyListener", ListenerArn=site.listener, DefaultActions=forward((site.blue, 1), (site.green, 0)))
    busy(site)
    green = {"LoadBalancer": ends(site.balancer), "TargetGroup": ends(site.green)}
    assert values(site, dimensions=green) == []
