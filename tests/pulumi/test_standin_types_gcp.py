"""The types of pulumi_gcp that the stand-in serves, one by one, against the sandbox in this process."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from threading import Event
from typing import Any, NoReturn

import pytest
from pulumi.runtime.proto import provider_pb2

from osvdeploy.context import SystemClock
from osvdeploy.provider.codec import encode
from osvdeploy.sandbox.core import Sandbox
from osvdeploy.sandbox.google.inprocess import connect
from osvdeploy.sandbox.runners.inline import InlineRunner
from tests.pulumi.standins import gcp
from tests.pulumi.standins.cloud import Call, Document, Refused, StandIn
from tests.pulumi.standins.judging import lives_as_told

HOST = "https://google.example"


@pytest.fixture(scope="module")
def scene() -> Iterator[tuple[Sandbox, Call[gcp.Project]]]:
    """A project with one of everything that others are put on, each called `there`."""
    sandbox = Sandbox(runner=InlineRunner(), speed=1000)
    project = gcp.Project(
        "acme-prod", "europe-west1", f"{HOST}/compute/v1/", f"{HOST}/storage/v1/", connect(sandbox, SystemClock())
    )
    call = Call(lambda: project, Event())
    gcp.Network().create(call, {"name": "there", "autoCreateSubnetworks": False})
    for name in ("there", "other"):
        gcp.BackendService().create(call, {"name": name, "loadBalancingScheme": "EXTERNAL_MANAGED"})
        gcp.UrlMap().create(call, {"name": name, "defaultService": f"{GLOBAL}/backendServices/{name}"})
        gcp.TargetHttpProxy().create(call, {"name": name, "urlMap": f"{GLOBAL}/urlMaps/{name}"})
    yield sandbox, call


GLOBAL = "projects/acme-prod/global"
NETWORK = f"{GLOBAL}/networks/there"
TCP = {"protocol": "tcp", "ports": ["8080"]}
RULES: Document = {
    "hostRules": [{"hosts": ["*"], "pathMatcher": "all"}],
    "pathMatchers": [
        {
            "name": "all",
            "defaultService": f"{GLOBAL}/backendServices/there",
            "routeRules": [
                {
                    "priority": 1.0,
                    "service": f"{GLOBAL}/backendServices/other",
                    "matchRules": [{"prefixMatch": "/a"}],
                }
            ],
        }
    ],
}


@pytest.mark.sandbox
@pytest.mark.parametrize(
    ("type", "given", "changed"),
    [
        (gcp.Network(), {"name": "n", "autoCreateSubnetworks": False, "description": "x"}, {}),
        (
            gcp.Subnetwork(),
            {"name": "s", "network": NETWORK, "ipCidrRange": "10.3.0.0/20", "region": "europe-west4"},
            {},
        ),
        (gcp.Subnetwork(), {"name": "s", "network": NETWORK, "ipCidrRange": "10.3.0.0/20"}, {}),
        (
            gcp.Firewall(),
            {"name": "f", "network": NETWORK, "allows": [TCP], "sourceRanges": ["10.0.0.0/8"], "targetTags": ["a"]},
            {"allows": [{"protocol": "tcp", "ports": ["80", "81"]}], "sourceRanges": ["192.0.2.0/24"]},
        ),
        (gcp.GlobalAddress(), {"name": "a", "description": "x"}, {}),
        (
            gcp.BackendService(),
            {"name": "b", "loadBalancingScheme": "EXTERNAL_MANAGED", "protocol": "HTTP"},
            {"description": "x"},
        ),
        (gcp.UrlMap(), {"name": "m", "defaultService": f"{GLOBAL}/backendServices/there"}, RULES),
        (
            gcp.UrlMap(),
            {"name": "m", "defaultService": f"{GLOBAL}/backendServices/there", **RULES},
            {"hostRules": [], "pathMatchers": [], "description": "x"},
        ),
        (
            gcp.TargetHttpProxy(),
            {"name": "p", "urlMap": f"{GLOBAL}/urlMaps/there"},
            {"urlMap": f"{GLOBAL}/urlMaps/other"},
        ),
        (
            gcp.GlobalForwardingRule(),
            {
                "name": "r",
                "target": f"{GLOBAL}/targetHttpProxies/there",
                "portRange": "8080",
                "loadBalancingScheme": "EXTERNAL_MANAGED",
            },
            {"target": f"{GLOBAL}/targetHttpProxies/other"},
        ),
        (
            gcp.Bucket(),
            {
                "name": "acme-archives",
                "location": "europe-west1",
                "uniformBucketLevelAccess": True,
                "softDeletePolicy": {"retentionDurationSeconds": 0.0},
            },
            {},
        ),
    ],
    ids=lambda value: value.token.rpartition(":")[2] if hasattr(value, "token") else "",
)
def test_lives_as_it_is_told(
    scene: tuple[Sandbox, Call[gcp.Project]], type: Any, given: Document, changed: Document
) -> None:
    """From its making on, through a change, until it is gone."""
    lives_as_told(*scene, type, given, changed)


URN = "urn:pulumi:dev::project::gcp:compute/uRLMap:URLMap::ways"
OWN = {"name": "ways", "defaultService": f"{GLOBAL}/backendServices/there"}


class Asked:
    """A URL map of a program, about which the engine asks."""

    def __init__(self, call: Call[gcp.Project]) -> None:
        self.call = call
        self.provider = StandIn("gcp", "9", lambda configured: call.cloud, [gcp.UrlMap()])
        self.id = gcp.UrlMap().create(call, OWN)
        self.state: Document = {}
        self.refresh()

    def refresh(self) -> None:
        self.state = {**OWN, **(gcp.UrlMap().read(self.call, self.id) or {})}

    def differs(self, *ignored: str, **given: str) -> list[str]:
        request = provider_pb2.DiffRequest(
            urn=URN, id=self.id, olds=encode(self.state), old_inputs=encode(OWN), news=encode({**OWN, **given}),
            ignoreChanges=ignored,
        )  # fmt: skip
        return list(self.provider.Diff(request, NOWHERE).diffs)

    def update(self, *ignored: str, **given: str) -> None:
        request = provider_pb2.UpdateRequest(
            urn=URN, id=self.id, olds=encode(self.state), old_inputs=encode(OWN), news=encode({**OWN, **given}),
            ignoreChanges=ignored,
        )  # fmt: skip
        self.provider.Update(request, NOWHERE)

    def rules(self) -> list[Document]:
        """The rules as Google has them."""
        found = self.call.cloud.ask("GET", self.call.cloud.compute + self.id) or {}
        return [rule for matcher in found.get("pathMatchers", []) for rule in matcher["routeRules"]]

    def put(self) -> None:
        """Let somebody else put a rule of theirs into the map."""
        url = self.call.cloud.compute + self.id
        matchers = deepcopy(RULES["pathMatchers"])
        matchers[0]["routeRules"][0]["description"] = "theirs"
        there = self.call.cloud.ask("GET", url) or {}
        rules = {"hostRules": RULES["hostRules"], "pathMatchers": matchers, "fingerprint": there["fingerprint"]}
        self.call.cloud.changed(self.call, "PATCH", url, rules)


class Nowhere:
    """The context of a call that comes from no engine."""

    def abort(self, code: object, details: str) -> NoReturn:
        raise Refused(details)


NOWHERE: Any = Nowhere()


@pytest.mark.sandbox
def test_rules_of_others(scene: tuple[Sandbox, Call[gcp.Project]]) -> None:
    """Rules that somebody else puts into a URL map are drift, unless the program ignores them. Written together with
    another property, they lose what the provider knows no property for, and are refused where they were not seen: so a
    program has to ignore all of a map that it may write."""
    ways = Asked(scene[1])
    assert ways.differs() == []
    ways.put()
    assert ways.differs() == [], "nobody has looked"
    ways.refresh()
    assert ways.differs() == ["hostRules", "pathMatchers"]
    assert ways.differs("hostRules", "pathMatchers") == []

    assert ways.differs("hostRules", "pathMatchers", description="x") == ["description"]
    ways.update("hostRules", "pathMatchers", description="x")
    assert [rule.get("description") for rule in ways.rules()] == [None]
    ways.put()
    with pytest.raises(Refused, match="Invalid fingerprint"):
        ways.update("hostRules", "pathMatchers", description="y")

    ways.refresh()
    assert ways.differs("defaultService", "description", "hostRules", "pathMatchers") == []
    assert [rule["description"] for rule in ways.rules()] == ["theirs"]
    ways.update()
    assert ways.rules() == []
    gcp.UrlMap().delete(ways.call, ways.id, {})


@pytest.mark.sandbox
def test_what_google_refuses(scene: tuple[Sandbox, Call[gcp.Project]]) -> None:
    """It is told in Google's words, whether it is said at once or by the operation."""
    with pytest.raises(Refused, match="networks of another mode than custom"):
        gcp.Network().create(scene[1], {"name": "n"})
    with pytest.raises(Refused, match="already being used by"):
        gcp.UrlMap().delete(scene[1], f"{GLOBAL}/urlMaps/there", {})
