"""AWS's wire: which call a request means, what AWS refuses before it looks further, and how answers are written."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import urlencode
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.sandbox import wire
from osvdeploy.sandbox.errors import ApiError, NotSimulated
from osvdeploy.sandbox.wire import ApiRequest, Call, Unreadable

EC2, ELB, STS = "2016-11-15", "2015-12-01", "2011-06-15"


def signed(service: str, region: str = "eu-west-1") -> dict[str, str]:
    scope = f"AKIAEXAMPLE/20300101/{region}/{service}/aws4_request"
    return {"authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=00"}


def form(service: str, version: str, /, **values: str) -> ApiRequest:
    """A request of the query protocol, signed for a service (by its signing name), or not for ""."""
    headers = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
    headers |= signed(service) if service else {"host": "127.0.0.1:1"}
    return ApiRequest("POST", "/", headers, urlencode({"Version": version, **values}).encode())


def rest(method: str, path: str, document: object = None, **headers: str) -> ApiRequest:
    body = b"" if document is None else json.dumps(document).encode()
    return ApiRequest(method, path, {**signed("ebs"), **headers}, body)


def test_a_signature_tells_service_region_and_key() -> None:
    """The credential scope decides, whatever the host is called."""
    call = wire.parse(form("sts", STS, Action="GetCallerIdentity"))
    assert call == Call("sts", "eu-west-1", "GetCallerIdentity", {}, "AKIAEXAMPLE")
    assert not call.mutating


def test_a_presigned_request_is_signed_in_its_query() -> None:
    """X-Amz-Credential, as presigned URLs have it."""
    scope = "AKIAEXAMPLE%2F20300101%2Fus-east-2%2Fsts%2Faws4_request"
    request = ApiRequest("GET", f"/?Action=GetCallerIdentity&Version={STS}&X-Amz-Credential={scope}", {})
    assert wire.parse(request).region == "us-east-2"


@pytest.mark.parametrize(
    ("request_", "service"),
    [
        (form("", EC2, Action="DescribeVpcs"), "ec2"),
        (ApiRequest("GET", "/snapshots/snap-1/blocks", {"host": "127.0.0.1"}), "ebs"),
        (
            ApiRequest("GET", f"/?Action=GetCallerIdentity&Version={STS}", {"host": "sts.eu-west-1.amazonaws.com"}),
            "sts",
        ),
    ],
)
def test_without_a_signature_the_service_is_told_otherwise(request_: ApiRequest, service: str) -> None:
    """By Version, path or host, so that the refusal has the service's own form; there is no access key."""
    call = wire.parse(request_)
    assert (call.service, call.access_key) == (service, "")


def test_lists_and_structures_of_the_ec2_protocol() -> None:
    """Numbered names become lists of structures in the model's names."""
    values = {"Action": "DescribeImages", "Owner.1": "self", "Filter.1.Name": "name"}
    values |= {"Filter.1.Value.1": "a", "Filter.1.Value.2": "b"}
    call = wire.parse(form("ec2", EC2, **values))
    assert call.params == {"Owners": ["self"], "Filters": [{"Name": "name", "Values": ["a", "b"]}]}


def test_a_block_comes_with_path_headers_and_body() -> None:
    """PutSnapshotBlock: index and id from the path, length and checksum from headers, the body as it is."""
    headers = {"x-amz-data-length": "3", "x-amz-checksum": "abc=", "x-amz-checksum-algorithm": "SHA256"}
    request = ApiRequest("PUT", "/snapshots/snap-0a/blocks/7", {**signed("ebs"), **headers}, b"\0\xffx")
    call = wire.parse(request)
    assert call.operation == "PutSnapshotBlock"
    assert call.mutating
    assert call.params == {
        "SnapshotId": "snap-0a",
        "BlockIndex": 7,
        "BlockData": b"\0\xffx",
        "DataLength": 3,
        "Checksum": "abc=",
        "ChecksumAlgorithm": "SHA256",
    }


@dataclass(frozen=True)
class Wrong:
    """A request that AWS refuses at once; ``source`` is the API reference's page."""

    request: ApiRequest
    code: str
    says: str
    source: str
    status: int = 400


COMMON = "EC2 API reference, Error codes: Common client error codes"
QUERY = "Common Errors of the query APIs"
REFUSED = {
    "no action": Wrong(form("ec2", EC2), "MissingAction", "Action", COMMON),
    "unknown action": Wrong(form("sts", STS, Action="GetLost"), "InvalidAction", "GetLost", QUERY),
    "unknown parameter": Wrong(form("ec2", EC2, Action="DescribeVpcs", Foo="1"), "UnknownParameter", "Foo", COMMON),
    "no required parameter": Wrong(form("ec2", EC2, Action="DeleteVpc"), "MissingParameter", "VpcId", COMMON),
    "no required member": Wrong(
        form("elasticloadbalancing", ELB, Action="DeleteRule"), "ValidationError", "Value null at 'ruleArn'", QUERY
    ),
    "not in the enum": Wrong(
        form("elasticloadbalancing", ELB, Action="CreateTargetGroup", Name="x", Protocol="FTP"),
        "ValidationError",
        "Value 'FTP' at 'protocol' failed to satisfy constraint: Member must satisfy enum value set",
        "Elastic Load Balancing API reference, CreateTargetGroup",
    ),
    "out of its range": Wrong(
        form("elasticloadbalancing", ELB, Action="DescribeRules", PageSize="401"),
        "ValidationError",
        "less than or equal to 400",
        "Elastic Load Balancing API reference, DescribeRules",
    ),
    "no number": Wrong(
        form("elasticloadbalancing", ELB, Action="DescribeRules", PageSize="x"), "MalformedQueryString", "x", QUERY, 404
    ),
    "a volume of no size": Wrong(
        rest("POST", "/snapshots", {"VolumeSize": 0}),
        "ValidationException",
        "greater than or equal to 1",
        "EBS direct APIs reference, StartSnapshot",
    ),
    "no such route": Wrong(
        rest("PATCH", "/snapshots"), "UnknownOperationException", "PATCH", "AWS REST protocols", status=404
    ),
    "nobody": Wrong(
        ApiRequest("GET", "/", {"host": "127.0.0.1"}), "MissingAuthenticationToken", "Authentication", COMMON, 403
    ),
    "another service": Wrong(
        ApiRequest("GET", "/queue", signed("sqs")), "NotSimulated", "'sqs'", "the sandbox's own limit"
    ),
    "the classic balancers": Wrong(
        form("elasticloadbalancing", "2012-06-01", Action="DescribeLoadBalancers"),
        "NotSimulated",
        "2012-06-01",
        "the sandbox's own limit",
    ),
}


@pytest.mark.parametrize("wrong", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_meant_is_refused(wrong: Wrong) -> None:
    """With AWS's code, naming the thing, and never by a traceback."""
    with pytest.raises(Unreadable) as refused:
        wire.parse(wrong.request)
    assert (refused.value.refusal.code, refused.value.refusal.status) == (wrong.code, wrong.status)
    assert wrong.says in refused.value.refusal.message


SOME_ACTIONS = [
    ("ec2", EC2, "RunInstances"),
    ("ec2", EC2, "DescribeImages"),
    ("elasticloadbalancing", ELB, "CreateRule"),
    ("autoscaling", "2011-01-01", "CreateAutoScalingGroup"),
]
NAMES = [
    "Filter.1.Name",
    "Owner.1",
    "MinCount",
    "EbsOptimized",
    "Conditions.member.1.Values.member.1",
    "MaxSize",
    "Tags",
]
NAMES += ["Actions.member.1.Order", "BlockDeviceMapping.1.Ebs.VolumeSize", "TagSpecification.1.Tag.1.Key", "Tags", "."]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(SOME_ACTIONS),
    st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=8), st.text(max_size=8), max_size=6),
)
def test_whatever_a_form_holds_it_is_a_call_or_refused(action: tuple[str, str, str], values: dict[str, str]) -> None:
    """No parameter, however named and whatever it says, ends otherwise than in a call or a refusal that can be sent."""
    service, version, name = action
    _call_or_refusal(form(service, version, **{"Action": name, **values}))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["GET", "POST", "PUT"]),
    st.sampled_from(["/snapshots", "/snapshots/snap-1/blocks/0", "/snapshots/completion/snap-1", "/"])
    | st.text(max_size=10).map(lambda text: f"/{text}"),
    st.dictionaries(
        st.sampled_from(["content-type", "authorization", "x-amz-data-length", "host", "x-amz-checksum"]),
        st.text(max_size=20) | st.just("application/x-www-form-urlencoded"),
        max_size=3,
    ),
    st.binary(max_size=30) | st.sampled_from([b"{}", b"[]", b"null", b'{"VolumeSize": "x"}', b'{"Tags": {"Key": 1}}']),
)
def test_whatever_arrives_it_is_a_call_or_refused(method: str, path: str, headers: dict[str, str], body: bytes) -> None:
    """Nor does any request over REST, signed or not."""
    _call_or_refusal(ApiRequest(method, path, {**signed("ebs"), **headers}, body))
    _call_or_refusal(ApiRequest(method, path, headers, body))


def _call_or_refusal(request: ApiRequest) -> None:
    try:
        call = wire.parse(request)
    except Unreadable as refused:
        answer = wire.refusal(refused.call, refused.refusal, "id-1")
        assert 400 <= answer.status < 500
        if answer.headers["content-type"] == "text/xml":
            ElementTree.fromstring(answer.body)
        else:
            json.loads(answer.body)
    else:
        assert call.service in wire.SERVICES


@dataclass(frozen=True)
class Parameters:
    """Parameters, what is declared, and the first that is not."""

    given: Mapping[str, object]
    declared: str
    unsupported: str | None = field(default=None)


@pytest.mark.parametrize(
    "case",
    [
        Parameters({}, ""),
        Parameters({"A": "1", "B": []}, "A"),
        Parameters({"A": "1", "B": "2"}, "A", "B"),
        Parameters({"A": [{"B": {"C": 1}}]}, "A.B.C"),
        Parameters({"A": [{"B": {"C": 1}}]}, "A.B"),
        Parameters({"A": [{"B": 1}, {"B": 1, "D": False}]}, "A.B", "A.D"),
        Parameters({"AB": 1}, "A", "AB"),
    ],
)
def test_a_parameter_that_would_be_ignored_is_refused(case: Parameters) -> None:
    """However deep it lies; what was given empty says nothing."""
    call = Call("ec2", "eu-west-1", "RunInstances", case.given)
    declared = frozenset(case.declared.split())
    if case.unsupported is None:
        wire.refuse_unsupported(call, declared)
    else:
        with pytest.raises(NotSimulated, match=rf"parameter {case.unsupported} of ec2 RunInstances"):
            wire.refuse_unsupported(call, declared)


KEPT: Mapping[str, tuple[Call, list[dict[str, object]]]] = {
    "ec2": (
        Call("ec2", "eu-west-1", "DescribeSnapshots", {}),
        [
            {"Snapshots": []},
            {"Snapshots": [{"SnapshotId": "snap-1", "VolumeSize": 1, "Encrypted": False}]},
            {"Snapshots": [{"SnapshotId": "snap-1", "VolumeSize": 1, "Encrypted": True}]},
            {"Snapshots": [{"SnapshotId": "snap-1", "VolumeSize": True, "Encrypted": 1}]},
            {"Snapshots": [{"SnapshotId": 1.0, "StartTime": datetime(2030, 1, 1, tzinfo=UTC)}]},
            {"Snapshots": [{"SnapshotId": "1.0", "StartTime": datetime(2030, 1, 1, 0, 0, 0, 1, tzinfo=UTC)}]},
            {"Snapshots": [{"Tags": [{"Key": "a & b", "Value": "é\x00<c>"}]}], "NextToken": "snap-2"},
            {"NextToken": "snap-2", "Snapshots": [{"Tags": [{"Value": "é\x00<c>", "Key": "a & b"}]}]},
            {"Snapshots": [{"Description": f"made by {'0' * 8}-0000-0000-0000-{'0' * 12}"}]},
            {"Snapshots": [{"Description": "x" * 100_000}]},
        ],
    ),
    "elbv2": (
        Call("elbv2", "eu-west-1", "DescribeTargetHealth", {}),
        [
            {
                "TargetHealthDescriptions": [
                    {"Target": {"Id": "i-1", "Port": 8000}, "TargetHealth": {"State": "initial"}}
                ]
            },
            {"TargetHealthDescriptions": [{"Target": {"Id": "i-1", "Port": "8000"}, "TargetHealth": {}}]},
            {wire.STATUS: 418, "TargetHealthDescriptions": []},
        ],
    ),
}


@pytest.mark.parametrize("service", KEPT)
def test_an_answer_that_is_kept_is_as_one_just_written(service: str) -> None:
    """Byte for byte, headers and status too, whoever asks again; values that are equal only to Python stay apart."""
    call, results = KEPT[service]
    for identifier in ("id-1", "id-2"):
        for result in results:
            told = copy.deepcopy(result)
            protocol = str(wire.model(call.service).protocol)
            assert wire.answer(call, result, identifier) == wire._serialized(
                call.service, protocol, call.operation, result, identifier
            )
            assert result == told
    assert wire._remembered.cache_info().hits


def test_each_call_has_its_own_parameters() -> None:
    """An operation may change what it was given; who asks the same later is not told of it."""
    asked = form("ec2", EC2, Action="DescribeImages", **{"Owner.1": "self"})
    first = wire.parse(asked)
    first.params["Owners"].append("amazon")
    assert wire.parse(asked).params == {"Owners": ["self"]}


@given(st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=3))
@settings(max_examples=25)
def test_a_form_that_was_read_before_means_the_same(values: dict[str, str]) -> None:
    """What is refused is refused again, by the same words."""
    asked = form("elbv2", ELB, **{"Action": "DescribeRules", "ListenerArn": "arn", **values})

    def meaning() -> object:
        try:
            return wire.parse(asked)
        except Unreadable as unreadable:
            return unreadable.call, str(unreadable)

    wire._read_form.cache_clear()
    assert meaning() == meaning()


def test_what_xml_cannot_hold_is_replaced() -> None:
    """In answers as in refusals: a client must be able to read both."""
    call = Call("ec2", "eu-west-1", "DescribeTags", {})
    tags = {"Tags": [{"Key": "k", "Value": "a\x00\ud800\U0001f600<b"}]}
    answered = ElementTree.fromstring(wire.answer(call, tags, "id-1").body)
    assert "a\ufffd\ufffd\U0001f600<b" in [element.text for element in answered.iter()]
    refused = ElementTree.fromstring(wire.refusal(Call("sts", "", "", {}), ApiError("Bad", "\x1b[31m"), "id-1").body)
    assert "\ufffd[31m" in [element.text for element in refused.iter()]


def test_refusals_have_each_protocols_form() -> None:
    """Escaped, with the status that the service's model gives the code."""
    told = ApiError("Bad", "<no> & never")
    ec2 = wire.refusal(Call("ec2", "", "", {}), told, "id-1")
    assert b"<Errors><Error><Code>Bad</Code><Message>&lt;no&gt; &amp; never</Message>" in ec2.body
    elb = wire.refusal(Call("elbv2", "", "", {}), told, "id-1")
    assert b"<Type>Sender</Type><Code>Bad</Code>" in elb.body
    assert elb.headers["x-amzn-requestid"] == "id-1"
    gone = wire.refusal(
        Call("ebs", "", "", {}), ApiError("ResourceNotFoundException", "gone", fields={"Reason": "R"}), "id-1"
    )
    assert gone.status == 404
    assert gone.headers["x-amzn-errortype"] == "ResourceNotFoundException"
    assert json.loads(gone.body) == {"Message": "gone", "Reason": "R"}
    assert wire.refusal(Call("", "", "", {}), told, "id-1").status == 400
