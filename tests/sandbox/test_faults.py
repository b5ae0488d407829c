"""Faults: which calls they strike, and what each service then says."""

from __future__ import annotations

import pytest

from osvdeploy.sandbox import faults
from osvdeploy.sandbox.faults import Fault, FaultKind, Faults
from osvdeploy.sandbox.wire import Call

RUN = Call("ec2", "eu-west-1", "RunInstances", {})
LOOK = Call("ec2", "eu-west-1", "DescribeInstances", {})


@pytest.mark.parametrize(
    ("pattern", "strikes"),
    [
        ("RunInstances", True),
        ("ec2:RunInstances", True),
        ("ec2:*", True),
        ("Run*", True),
        ("*", True),
        ("runinstances", False),
        ("ebs:*", False),
        ("Describe*", False),
    ],
)
def test_a_fault_strikes_the_operations_it_names(pattern: str, strikes: bool) -> None:
    """By name or pattern, with the service or without."""
    assert Fault(pattern, FaultKind.BEFORE).matches(RUN) is strikes


def test_a_fault_lets_calls_pass_and_is_used_up() -> None:
    """The third and fourth matching call are struck, other calls do not count."""
    waiting = Faults()
    waiting.add(Fault("RunInstances", FaultKind.AFTER, skip=2, times=2))
    assert [waiting.take(call) for call in (RUN, LOOK, RUN, RUN, LOOK, RUN, RUN)] == [
        None,
        None,
        None,
        FaultKind.AFTER,
        None,
        FaultKind.AFTER,
        None,
    ]
    assert waiting.waiting() == []


def test_one_fault_strikes_at_a_time() -> None:
    """The one added first; the other stays for the next call, and one without an end for ever."""
    waiting = Faults()
    waiting.add(Fault("*", FaultKind.BEFORE))
    waiting.add(Fault("*", FaultKind.DENIED, times=None))
    assert [waiting.take(RUN) for _ in range(3)] == [FaultKind.BEFORE, FaultKind.DENIED, FaultKind.DENIED]
    waiting.clear()
    assert waiting.take(RUN) is None


REFUSALS = [
    (FaultKind.THROTTLED, "ec2", "RequestLimitExceeded", 503, "EC2 API reference, Error codes"),
    (FaultKind.THROTTLED, "ebs", "RequestThrottledException", 400, "EBS direct APIs reference, PutSnapshotBlock"),
    (FaultKind.THROTTLED, "autoscaling", "Throttling", 400, "Auto Scaling API reference, Common errors"),
    (FaultKind.DENIED, "ec2", "UnauthorizedOperation", 403, "EC2 API reference, Error codes"),
    (FaultKind.DENIED, "ebs", "AccessDeniedException", 403, "EBS direct APIs reference, StartSnapshot"),
    (FaultKind.DENIED, "elbv2", "AccessDenied", 403, "Elastic Load Balancing API reference, Common errors"),
    (FaultKind.BROKEN, "ec2", "InternalError", 500, "EC2 API reference, Error codes"),
    (FaultKind.BROKEN, "ebs", "InternalServerException", 500, "EBS direct APIs reference, StartSnapshot"),
    (FaultKind.EXHAUSTED, "ec2", "InsufficientInstanceCapacity", 500, "EC2 API reference, Error codes"),
    (FaultKind.EXHAUSTED, "compute", "resourcePoolExhausted", 503, "Troubleshoot resource availability errors"),
    (FaultKind.QUOTA, "ec2", "VcpuLimitExceeded", 400, "EC2 API reference, Error codes"),
    (FaultKind.QUOTA, "compute", "quotaExceeded", 403, "Compute Engine, Handling API errors"),
    (FaultKind.BROKEN, "sts", "InternalFailure", 500, "STS API reference, Common errors"),
]


@pytest.mark.parametrize(("kind", "service", "code", "status", "source"), REFUSALS)
def test_each_service_refuses_in_its_own_words(
    kind: FaultKind, service: str, code: str, status: int, source: str
) -> None:
    """Throttled, denied and broken have another code in each service."""
    refused = faults.refusal(kind, Call(service, "eu-west-1", "Any", {}))
    assert refused is not None
    assert (refused.code, refused.status) == (code, status)


def test_what_is_done_by_itself_is_struck_by_shortages_alone() -> None:
    """Other kinds wait for a call."""
    waiting = Faults()
    waiting.add(Fault("*", FaultKind.BEFORE))
    waiting.add(Fault("*", FaultKind.QUOTA))
    assert waiting.take(RUN, faults.SHORTAGES) is FaultKind.QUOTA
    assert waiting.take(RUN, faults.SHORTAGES) is None
    assert waiting.take(RUN) is FaultKind.BEFORE


def test_a_kind_refuses_or_loses() -> None:
    """Never both, and only an answer that is lost belongs to a call that took effect; a stale one comes."""
    for kind in set(FaultKind) - {FaultKind.STALE}:
        refused, lost = faults.refusal(kind, RUN), faults.lost(kind)
        assert (refused is None) != (lost is None)
        assert not faults.takes_effect(kind) or lost is not None
