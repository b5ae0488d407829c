"""Google's proxies of TCP in the sandbox: what they are made of, what of that is refused, and where connections go."""

from __future__ import annotations

from typing import Any

import pytest

from osvdeploy.sandbox.dataplane import Hangup, HttpRequest, SendTo, Target, TargetState
from osvdeploy.sandbox.google.compute.routing import TcpFront
from osvdeploy.sandbox.runners import GuestAnswer, NoAnswer
from tests.sandbox.google.fleet import PORT, REGION, ZONE, Fleet, Service
from tests.sandbox.google.place import refused

pytestmark = pytest.mark.sandbox

COLORS = ("blue", "green")


class Proxied(Service):
    """Blue and green, each behind a proxy of its own; one forwarding rule leads to blue's."""

    def __init__(self, place: str = REGION, scheme: str = "EXTERNAL_MANAGED") -> None:
        super().__init__(place, scheme)
        for color in COLORS:
            self.done("POST", f"{place}/backendServices", self.tcp(color, scheme))
            proxy = {"name": color, "service": f"{place}/backendServices/tcp-{color}"}
            self.done("POST", f"{place}/targetTcpProxies", proxy)
        self.address = self.rule("tcp", "blue", scheme)

    def tcp(self, color: str, scheme: str = "EXTERNAL_MANAGED") -> dict[str, Any]:
        return {**self.backend(f"tcp-{color}", scheme, color), "protocol": "TCP"}

    def rule(self, name: str, color: str, scheme: str = "EXTERNAL_MANAGED") -> str:
        """A forwarding rule to a color. Its address."""
        document = {"name": name, "portRange": str(PORT), "loadBalancingScheme": scheme, "target": self.proxy(color)}
        self.done("POST", f"{self.place}/forwardingRules", document)
        return str(self.get(f"{self.place}/forwardingRules/{name}")["IPAddress"])

    def proxy(self, color: str) -> str:
        return f"{self.place}/targetTcpProxies/{color}"

    def health(self, color: str, group: str = "") -> list[str]:
        return super().health(color, group or color.removeprefix("tcp-"))

    def point(self, color: str) -> None:
        self.done("POST", f"{self.place}/forwardingRules/tcp/setTarget", {"target": self.proxy(color)})


@pytest.mark.parametrize("place", ["global", REGION])
def test_a_pointer_moves_all_connections_with_a_delay(place: str) -> None:
    """And nothing of what passes is changed: no header is added on either way."""
    service = Proxied(place)
    service.rule("beside", "green")
    service.ready("tcp-blue", "tcp-green")
    assert service.seen() == {"blue": 100}
    assert "Via" not in service.answer().headers
    service.point("green")
    assert service.seen() == {"blue": 100}
    service.wait(25)
    assert service.seen() == {"green": 100}


def test_who_is_switched_to_unchecked_gets_no_connection() -> None:
    """A service that no rule led to has no healthy machine yet: connections are closed until it has."""
    service = Proxied()
    service.ready("tcp-blue")
    assert service.health("tcp-green") == []
    service.done("PATCH", "regions/europe-west1/healthChecks/up", {"checkIntervalSec": 60})
    service.wait(60)
    service.point("green")
    service.wait(25)
    assert service.http.get(service.address, PORT, "/") is NoAnswer.BROKEN
    service.wait(180)
    assert isinstance(service.http.get(service.address, PORT, "/"), GuestAnswer)


def test_a_connection_goes_to_a_healthy_machine_or_ends() -> None:
    """And where that machine does not answer, it ends too: no page is made up."""
    front = TcpFront(8000, "service", "rule")
    sick, well = Target("a", "10.0.0.1", 80, TargetState.UNHEALTHY), Target("b", "10.0.0.2", 80, TargetState.HEALTHY)
    request = HttpRequest("GET", "/", (("Host", "x"),))
    sent = front.decide(request, {"rule service": (sick, well)}, 0.2)
    assert isinstance(sent, SendTo)
    assert (sent.target, sent.plain, sent.failed(in_time=True), sent.failed(in_time=False)) == (
        well,
        True,
        Hangup(),
        Hangup(),
    )
    assert front.decide(request, {"rule service": (sick,)}, 0.2) == Hangup()
    assert front.decide(request, {}, 0.2) == Hangup()


def test_a_global_proxy_takes_another_service() -> None:
    """One of a region has no such method."""
    service = Proxied("global")
    service.ready("tcp-blue")
    other = {"service": "global/backendServices/tcp-green"}
    service.done("POST", "global/targetTcpProxies/blue/setBackendService", other)
    service.ready("tcp-green")
    assert service.seen() == {"green": 100}


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("targetTcpProxies", {"name": "x"}, "service"),
        ("targetTcpProxies", {"name": "x", "service": "PLACE/backendServices/blue"}, "must be TCP"),
        ("targetTcpProxies", {"name": "x", "service": "PLACE/backendServices/none"}, "cannot be found"),
        ("urlMaps", {"name": "x", "defaultService": "PLACE/backendServices/tcp-blue"}, "protocol TCP"),
        ("forwardingRules/tcp/setTarget", {"target": "PLACE/targetHttpProxies/proxy"}, "same type as the old target"),
        ("forwardingRules", {"name": "x", "portRange": "8001", "target": "PLACE/targetTcpProxies/blue"}, "scheme EXTE"),
        (
            "backendServices",
            {"name": "x", "protocol": "TCP", "loadBalancingScheme": "EXTERNAL_MANAGED", "customResponseHeaders": ["A"]},
            "not supported for protocol TCP",
        ),
        (
            "backendServices",
            {
                "name": "x",
                "protocol": "TCP",
                "loadBalancingScheme": "INTERNAL_MANAGED",
                "healthChecks": ["PLACE/healthChecks/up"],
                "backends": [{"group": f"{ZONE}/instanceGroups/blue", "balancingMode": "RATE", "maxRate": 1}],
            },
            "balancingMode",
        ),
    ],
)  # fmt: skip
def test_what_google_refuses_is_refused(path: str, body: dict[str, Any], named: str) -> None:
    """By the name of what is wrong."""
    service = Proxied()
    answer = service.call("POST", f"{REGION}/{path}", placed(body))
    assert answer.status_code == 400 and named in answer.json()["error"]["message"], answer.text


def placed(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("PLACE", REGION)
    if isinstance(value, list):
        return [placed(each) for each in value]
    return {name: placed(each) for name, each in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("targetTcpProxies", {"name": "x", "service": f"{REGION}/backendServices/s", "proxyHeader": "PROXY_V1"}),
        ("targetTcpProxies/x/setBackendService", {"service": f"{REGION}/backendServices/s"}),
        ("forwardingRules", {"name": "x", "portRange": "8000", "backendService": f"{REGION}/backendServices/s"}),
        ("forwardingRules", {"name": "x", "portRange": "8000", "target": f"{REGION}/targetSslProxies/s"}),
        ("backendServices", {"name": "x", "protocol": "TCP", "loadBalancingScheme": "EXTERNAL"}),
        ("backendServices", {"name": "x", "protocol": "SSL", "loadBalancingScheme": "EXTERNAL_MANAGED"}),
    ],
)
def test_what_is_not_simulated_says_so(path: str, body: dict[str, Any]) -> None:
    """In place of a guess; what does not exist at Google is not found."""
    answer = Fleet().call("POST", f"{REGION}/{path}", body)
    if path.endswith("setBackendService"):
        assert answer.status_code == 404
    else:
        refused(answer, 400, "notSimulated")


def test_nothing_goes_that_something_else_needs() -> None:
    """From the rule down to the service."""
    service = Proxied()
    for path in (service.proxy("blue"), f"{REGION}/backendServices/tcp-blue"):
        refused(service.call("DELETE", path), 400, "resourceInUseByAnotherResource")
    service.done("DELETE", f"{REGION}/forwardingRules/tcp")
    assert service.http.get(service.address, PORT, "/") is NoAnswer.REFUSED
    service.done("DELETE", service.proxy("blue"))
    service.done("DELETE", f"{REGION}/backendServices/tcp-blue")
