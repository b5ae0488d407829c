"""What is Google's own about moving a forwarding rule: which rules will do, whose they are, where they lead after."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from osvdeploy.cloud.gcp.pointer import PointerRouter
from osvdeploy.cloud.interfaces import Route, Slot
from osvdeploy.cloud.tags import service_tags
from osvdeploy.context import Context, VirtualClock
from osvdeploy.errors import LeaseLost, NotOurs, Refused, Unavailable, UsageError
from osvdeploy.sandbox.faults import Fault, FaultKind
from tests.cloud.gcp.script import Script
from tests.contract.gcp_place import PROJECT
from tests.contract.gcp_scene import REGION, GcpScene, Pointer, pointer_scene
from tests.contract.scenes import SERVICE

pytestmark = pytest.mark.sandbox

BLUE, GREEN = {Slot.BLUE: 100, Slot.GREEN: 0}, {Slot.BLUE: 0, Slot.GREEN: 100}
HERE = f"regions/{REGION}"


@pytest.fixture
def scene() -> GcpScene:
    return pointer_scene()


def another(scene: GcpScene) -> PointerRouter:
    """The router of another process."""
    return PointerRouter(scene.place.gcp())


def shown(scene: GcpScene) -> dict[str, Any]:
    assert isinstance(scene.network, Pointer)
    return scene.network.shown()


def leads_to(scene: GcpScene) -> str:
    return str(shown(scene)["target"]).rpartition("/")[2]


def move(scene: GcpScene, name: str) -> None:
    """Let the user's rule lead to a new proxy, as a person would."""
    assert isinstance(scene.network, Pointer)
    scene.network.lead_to(name)
    target = {"target": f"projects/{PROJECT}/{HERE}/targetTcpProxies/{name}"}
    scene.network.ask("POST", f"{HERE}/forwardingRules/web/setTarget", target)


def scripted(scene: GcpScene, **rule: Any) -> PointerRouter:
    """The router of a project whose forwarding rule is this one: of kinds that are not simulated."""
    made = {"IPAddress": "203.0.113.7", "portRange": "80-80", "loadBalancingScheme": "EXTERNAL_MANAGED", **rule}
    return PointerRouter(Script([(200, json.dumps(made).encode())]).gcp())


@pytest.mark.parametrize(
    ("rule", "told", "hint"),
    [
        (
            {"backendService": "regions/r/backendServices/s", "loadBalancingScheme": "INTERNAL"},
            "OSv drops",
            "TCP proxy",
        ),
        ({"target": "https://x/projects/p/regions/r/targetHttpProxies/web"}, "no target TCP proxy", "`url-map`"),
        ({"target": "https://x/projects/p/global/targetSslProxies/web"}, "no target TCP proxy", "target TCP proxy"),
        ({"target": "https://x/projects/p/regions/r/targetPools/old"}, "no target TCP proxy", "target TCP proxy"),
        (
            {"target": "https://x/projects/p/global/targetTcpProxies/web", "loadBalancingScheme": "EXTERNAL"},
            "of the kind EXTERNAL",
            "EXTERNAL_MANAGED or INTERNAL_MANAGED",
        ),
    ],
)
def test_a_rule_of_another_kind_is_refused(scene: GcpScene, rule: dict[str, Any], told: str, hint: str) -> None:
    """One that passes packets through above all: OSv would drop them. What will do, is said."""
    ctx = Context(clock=VirtualClock())
    with pytest.raises(UsageError, match=told) as raised:
        scripted(scene, **rule).observe(ctx, scene.route())
    assert hint in (raised.value.hint or "")


@pytest.mark.parametrize(
    ("scheme", "scope"),
    [
        ("INTERNAL_MANAGED", HERE),
        ("EXTERNAL_MANAGED", "global"),
        ("INTERNAL_MANAGED", "global"),
    ],
)
def test_each_balancer_with_proxies_will_do(scheme: str, scope: str) -> None:
    """Of a region or of all of them, from within or without: what is made is of its kind, in its place."""
    scene = pointer_scene(scheme, scope)
    scene.stand(Slot.BLUE, "hello-1", capacity=1)
    scene.until(lambda: scene.healthy(Slot.BLUE) == 1)
    scene.weights(100, 0)
    scene.until(lambda: scene.answering() == {"hello-1"})
    assert {each["loadBalancingScheme"] for each in scene.network.ask("GET", f"{scope}/forwardingRules")["items"]} == {
        scheme
    }


def test_a_slot_is_checked_before_it_has_traffic(scene: GcpScene) -> None:
    """And a switch is one call, after which no client meets a machine of which the balancer knows nothing."""
    scene.stand(Slot.BLUE, "hello-1", capacity=1)
    assert leads_to(scene) == "nobody"
    scene.until(lambda: scene.healthy(Slot.BLUE) == 1)
    changes: list[str] = []
    scene.on_change(lambda operation, after: changes.append(operation) if after else None)
    scene.weights(100, 0)
    scene.on_change(None)
    assert changes == ["forwardingRules.setTarget"]
    assert leads_to(scene) == "osvd-0123456789-blue"


def test_the_user_s_labels_stay(scene: GcpScene) -> None:
    """Ours come and go beside them."""
    router, route = scene.cloud.router, scene.route()
    router.ensure_slots(scene.ctx, route)
    labels = shown(scene)["labels"]
    assert labels["team"] == "payments"
    assert (labels["osvdeploy-service"], labels["osvdeploy-before"]) == ("hello_2fproduction", "nobody")
    router.remove(scene.ctx, route)
    assert shown(scene)["labels"] == {"team": "payments"}


def test_a_rule_leads_in_the_end_where_it_led_before(scene: GcpScene) -> None:
    """What was made beside it is gone."""
    router, route = scene.cloud.router, scene.route()
    router.ensure_slots(scene.ctx, route)
    router.set_weights(scene.ctx, route, GREEN)
    assert leads_to(scene) == "osvd-0123456789-green"
    router.remove(scene.ctx, route)
    assert leads_to(scene) == "nobody"
    for collection in ("forwardingRules", "targetTcpProxies", "backendServices"):
        [left] = scene.network.ask("GET", f"{HERE}/{collection}")["items"]
        assert left["name"] in ("web", "nobody")


@pytest.mark.parametrize("cure", ["delete", "move"])
def test_a_rule_whose_old_proxy_is_gone_is_not_guessed_at(scene: GcpScene, cure: str) -> None:
    """Whoever removes the service says where it leads then; nothing is taken away before."""
    router, route = scene.cloud.router, scene.route()
    router.ensure_slots(scene.ctx, route)
    router.set_weights(scene.ctx, route, BLUE)
    scene.network.ask("DELETE", f"{HERE}/targetTcpProxies/nobody")
    with pytest.raises(Refused, match="the proxy nobody, where it led before, is gone") as raised:
        router.remove(scene.ctx, route)
    assert "set-target" in (raised.value.hint or "")
    assert set(router.observe(scene.ctx, route).backends) == set(Slot)
    if cure == "delete":
        scene.network.ask("DELETE", f"{HERE}/forwardingRules/web")
    else:
        move(scene, "elsewhere")
    router.remove(scene.ctx, route)
    left = scene.network.ask("GET", f"{HERE}/targetTcpProxies").get("items", [])
    assert [each["name"] for each in left] == ([] if cure == "delete" else ["elsewhere"])


def test_machines_behind_a_rule_are_declared_by_a_label(scene: GcpScene) -> None:
    """The refusal says how; with the label the rule is taken, and given back in the end."""
    scene.plant_rule(0)
    router, route = scene.cloud.router, scene.route()
    with pytest.raises(NotOurs, match=r"machines of .*/theirs are behind it") as raised:
        router.observe(scene.ctx, route)
    assert "--update-labels osvdeploy-service=hello_2fproduction" in (raised.value.hint or "")
    label = {
        "labels": {"osvdeploy-service": "hello_2fproduction"},
        "labelFingerprint": shown(scene)["labelFingerprint"],
    }
    scene.network.ask("POST", f"{HERE}/forwardingRules/web/setLabels", label)
    assert router.observe(scene.ctx, route).weights is None
    router.ensure_slots(scene.ctx, route)
    router.set_weights(scene.ctx, route, BLUE)
    for _ in range(2):
        router.remove(scene.ctx, route)
        assert leads_to(scene) == "theirs" and not shown(scene)["labels"]


def test_a_rule_that_somebody_moved_is_left_alone(scene: GcpScene) -> None:
    """Where it leads by now is told, and where it should; whoever removes the service takes away the rest."""
    router, route = scene.cloud.router, scene.route()
    router.ensure_slots(scene.ctx, route)
    router.set_weights(scene.ctx, route, BLUE)
    move(scene, "elsewhere")
    calls: list[Callable[[Context, Route], object]] = [router.observe, router.ensure_slots]
    for call in calls:
        with pytest.raises(NotOurs, match="elsewhere by now, which is none of ours"):
            call(scene.ctx, route)
    with pytest.raises(NotOurs):
        router.set_weights(scene.ctx, route, GREEN)
    another(scene).take_over(scene.ctx, route, 7)
    assert shown(scene)["labels"]["osvdeploy-epoch"] == "7"
    router.remove(scene.ctx, route)
    assert leads_to(scene) == "elsewhere" and shown(scene)["labels"] == {"team": "payments"}


def test_without_labels_traffic_can_still_be_moved(scene: GcpScene) -> None:
    """A tool that knows of no labels of ours takes them away, in the middle of a rollout: the way back is open."""
    router, route = scene.cloud.router, scene.route()
    router.ensure_slots(scene.ctx, route)
    router.set_weights(scene.ctx, route, GREEN)
    bare = {"labels": {}, "labelFingerprint": shown(scene)["labelFingerprint"]}
    scene.network.ask("POST", f"{HERE}/forwardingRules/web/setLabels", bare)
    router.set_weights(scene.ctx, route, BLUE)
    assert leads_to(scene) == "osvd-0123456789-blue"


def test_a_part_that_leads_elsewhere_is_told(scene: GcpScene) -> None:
    """A proxy of a region leads to one service for good: it cannot be mended."""
    router, route = scene.cloud.router, scene.route()
    router.ensure_slots(scene.ctx, route)
    marks = scene.network.ask("GET", f"{HERE}/targetTcpProxies/osvd-0123456789-blue")["description"]
    scene.network.ask("DELETE", f"{HERE}/forwardingRules/osvd-0123456789-blue")
    scene.network.ask("DELETE", f"{HERE}/targetTcpProxies/osvd-0123456789-blue")
    assert set(router.observe(scene.ctx, route).backends) == {Slot.GREEN}
    service = f"projects/{PROJECT}/{HERE}/backendServices/osvd-0123456789-green"
    scene.network.make(f"{HERE}/targetTcpProxies", name="osvd-0123456789-blue", description=marks, service=service)
    with pytest.raises(NotOurs, match=r"-blue: leads to .*-green, not to .*-blue"):
        router.ensure_slots(scene.ctx, route)


def test_who_lost_the_lease_stops(scene: GcpScene) -> None:
    """Once the new holder has taken over; what it does stands, and taking over what is not there makes nothing."""
    late, new, route = another(scene), another(scene), scene.route()
    new.take_over(scene.ctx, route, 2)
    assert shown(scene)["labels"] == {"team": "payments"}
    late.hold(route, 4)
    late.ensure_slots(scene.ctx, route)
    late.set_weights(scene.ctx, route, BLUE)
    new.take_over(scene.ctx, route, 5)
    with pytest.raises(LeaseLost, match="another process took the lease over"):
        late.set_weights(scene.ctx, route, GREEN)
    for call in (late.ensure_slots, late.remove):
        with pytest.raises(LeaseLost):
            call(scene.ctx, route)
    new.set_weights(scene.ctx, route, GREEN)
    assert leads_to(scene) == "osvd-0123456789-green"


def test_two_services_do_not_take_one_rule(scene: GcpScene) -> None:
    """Who labels it second is told to look again, and finds whose it is."""
    labels = service_tags("other", "other/production", "ledger")
    route, other = scene.route(), scene.route(service="other/production", key="9876543210", tags=labels)
    mine, theirs = another(scene), another(scene)

    def asked(operation: str, after: bool) -> None:
        if operation == "forwardingRules.setLabels" and not after:
            scene.on_change(None)
            mine.ensure_slots(scene.ctx, route)

    scene.on_change(asked)
    with pytest.raises(Unavailable) as raised:
        theirs.ensure_slots(scene.ctx, other)
    assert raised.value.code == "conditionNotMet"
    with pytest.raises(NotOurs, match=f"belongs to {SERVICE}"):
        theirs.ensure_slots(scene.ctx, other)


@pytest.mark.parametrize("scope", [HERE, "global"])
@pytest.mark.parametrize("kind", [FaultKind.AFTER, FaultKind.HANG_AFTER, FaultKind.BEFORE, FaultKind.THROTTLED])
def test_a_lost_answer_changes_nothing_twice(kind: FaultKind, scope: str) -> None:
    """Whichever change it is: the same request is sent again, and is one change; also where it knows no request id."""
    scene = pointer_scene(scope=scope)
    for operation in ("*.insert", "*.setLabels", "*.setTarget", "*.patch"):
        scene.place.sandbox.faults.add(Fault(operation, kind))
    made = scene.stand(Slot.BLUE, "hello-1", capacity=1)
    scene.weights(100, 0)
    assert another(scene).observe(scene.ctx, scene.route()).weights == BLUE
    scene.until(lambda: scene.healthy(Slot.BLUE) == 1)
    assert len(scene.cloud.groups.machines(scene.ctx, made.name)) == 1
