"""Google as a place under test: the adapters, the sandbox behind them, in process and in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from osvdeploy.cloud import gcp
from osvdeploy.cloud.gcp.backends import write
from osvdeploy.cloud.gcp.marks import written
from osvdeploy.cloud.gcp.scope import address_of, area_of
from osvdeploy.cloud.gcp.session import Gcp
from osvdeploy.cloud.interfaces import ImageRequest, MonitoringMetric, ReleaseId, Statistic, Tags, UploadedDisk
from osvdeploy.cloud.tags import image_tags
from osvdeploy.context import Context
from osvdeploy.digests import sha256
from osvdeploy.events import CloudCall, Recorder
from osvdeploy.osv.image import Extent
from osvdeploy.publish.archive import Archive, trailer
from osvdeploy.sandbox.core import Moment
from osvdeploy.sandbox.wire import Call
from osvdeploy.sizes import GIB
from tests.contract.aws_scene import PROGRAMS
from tests.contract.gcp_place import COMPUTE, PROJECT, GcpSandbox, insert
from tests.contract.scenes import APP, THEIRS, Guest, Scene
from tests.sandbox.volumes import Volume, volume
from tests.world import SandboxProber

ZONE, REGION = "europe-west1-b", "europe-west1"
URL_MAP = f"projects/{PROJECT}/global/urlMaps/web"


@dataclass(frozen=True, slots=True)
class _Padded:
    """A small disk as one of a whole GiB."""

    volume: Volume
    size: int = GIB

    def pread(self, offset: int, length: int) -> bytes:
        return self.volume.pread(offset, length).ljust(length, b"\0")


def archive_of(disk: Volume) -> bytes:
    made = Archive(_Padded(disk), [Extent(0, disk.size)])
    head, total = made.head()
    body = made.body(1)
    rest = b"".join(body)
    assert body.sum is not None
    return head + rest + trailer(total + body.sum)


class Project:
    """A user's project, asked as any client would."""

    def __init__(self, place: GcpSandbox) -> None:
        self._place = place
        self._session = place.session()

    def make(self, collection: str, **document: Any) -> None:
        self.ask("POST", collection, document)

    def ask(self, verb: str, path: str, document: Any = None) -> dict[str, Any]:
        """One call that must work; a change is through when it is answered."""
        answer = self._session.request(verb, f"{COMPUTE}/compute/v1/projects/{PROJECT}/{path}", json=document)
        assert answer.ok, answer.text
        self._place.ctx.sleep(0 if verb == "GET" else 60)
        found: dict[str, Any] = answer.json()
        return found


class Network(Project):
    """What a user has before the first deploy: a balancer that answers nothing yet."""

    def __init__(self, place: GcpSandbox, scheme: str = "EXTERNAL_MANAGED", scope: str = "global") -> None:
        super().__init__(place)
        made = f"projects/{PROJECT}/{scope}"
        self.scheme = scheme
        self.url_map = f"{made}/urlMaps/web"
        self.make(f"{scope}/healthChecks", name="nobody", type="HTTP", httpHealthCheck={"port": 80})
        self.make(
            f"{scope}/backendServices",
            name="nobody",
            loadBalancingScheme=scheme,
            protocol="HTTP",
            healthChecks=[f"{made}/healthChecks/nobody"],
        )
        self.make(f"{scope}/urlMaps", name="web", defaultService=f"{made}/backendServices/nobody")
        self.make(f"{scope}/targetHttpProxies", name="web", urlMap=self.url_map)
        self.make(
            f"{scope}/forwardingRules",
            name="web",
            target=f"{made}/targetHttpProxies/web",
            loadBalancingScheme=scheme,
            portRange="8000",
            IPProtocol="TCP",
        )


class Pointer(Project):
    """Likewise a proxy network load balancer, whose rule leads to nobody."""

    def __init__(self, place: GcpSandbox, scheme: str = "EXTERNAL_MANAGED", scope: str = f"regions/{REGION}") -> None:
        super().__init__(place)
        self.scope = scope
        made = f"projects/{PROJECT}/{scope}"
        self.rule = f"{made}/forwardingRules/web"
        self.make(f"{scope}/healthChecks", name="nobody", type="TCP", tcpHealthCheck={"port": 80})
        self.lead_to("nobody", scheme)
        self.make(
            f"{scope}/forwardingRules",
            name="web",
            target=f"{made}/targetTcpProxies/nobody",
            loadBalancingScheme=scheme,
            portRange="8000",
            IPProtocol="TCP",
            labels={"team": "payments"},
        )

    def lead_to(self, name: str, scheme: str = "EXTERNAL_MANAGED", *groups: str) -> None:
        """A proxy of that name, and what stands behind it."""
        made = f"projects/{PROJECT}/{self.scope}"
        self.make(
            f"{self.scope}/backendServices",
            name=name,
            loadBalancingScheme=scheme,
            protocol="TCP",
            healthChecks=[f"{made}/healthChecks/nobody"],
            backends=[{"group": f"projects/{PROJECT}/{group}"} for group in groups],
        )
        self.make(f"{self.scope}/targetTcpProxies", name=name, service=f"{made}/backendServices/{name}")

    def shown(self) -> dict[str, Any]:
        """The user's forwarding rule."""
        return self.ask("GET", f"{self.scope}/forwardingRules/web")


def scale_group(
    ctx: Context,
    gcp: Gcp,
    area: str,
    name: str,
    minimum: int,
    maximum: int,
    marks: Tags = MappingProxyType({}),
) -> None:
    """What a user may attach to a group: an autoscaler, an update policy. ``marks`` are not ours."""
    policy = {
        "minNumReplicas": minimum,
        "maxNumReplicas": maximum,
        "coolDownPeriodSec": 30,
        "cpuUtilization": {"utilizationTarget": 0.6},
        "customMetricUtilizations": [
            {
                "metric": "custom.googleapis.com/queue",
                "filter": f'resource.labels.instance_group_name = "{name}"',
                "utilizationTarget": 12.5,
                "utilizationTargetType": "GAUGE",
            }
        ],
        "scaleInControl": {"maxScaledInReplicas": {"fixed": 1}, "timeWindowSec": 600},
    }
    group = f"projects/{gcp.project}/{area}/instanceGroupManagers/{name}"
    described = {"description": written(marks)} if marks else {}
    autoscaler = {"name": f"scales-{name}", **described, "target": group, "autoscalingPolicy": policy}
    insert(ctx, gcp, f"{area}/autoscalers", autoscaler)
    update = {"type": "PROACTIVE", "minimalAction": "REPLACE", "maxSurge": {"fixed": 3}}
    write(gcp, ctx, group, {"updatePolicy": update}, group)


def unload_group(ctx: Context, gcp: Gcp, area: str, name: str) -> None:
    """Let a group's load go: its autoscaler may then make it no larger than it must be."""
    scalers = f"projects/{gcp.project}/{area}/autoscalers"
    found = gcp.get(ctx, address_of(gcp, f"{scalers}/scales-{name}"), scalers)
    fewest = {"maxNumReplicas": found["autoscalingPolicy"]["minNumReplicas"]}
    write(gcp, ctx, f"{scalers}?autoscaler=scales-{name}", {"autoscalingPolicy": fewest}, scalers)


@dataclass(frozen=True, slots=True, kw_only=True)
class GcpScene(Scene):
    """The scene, with the project behind it."""

    place: GcpSandbox
    network: Project


def plant_rule(ctx: Context, gcp: Gcp, url_map: str, priority: int) -> None:
    """Somebody else's rule, in a URL map that has none."""
    found = gcp.get(ctx, address_of(gcp, url_map), url_map)
    service = found["defaultService"]
    rule = {"priority": priority, "matchRules": [{"prefixMatch": "/theirs/"}], "service": service}
    document = {
        "fingerprint": found["fingerprint"],
        "hostRules": [{"hosts": ["*"], "pathMatcher": "theirs"}],
        "pathMatchers": [{"name": "theirs", "defaultService": service, "routeRules": [rule]}],
    }
    write(gcp, ctx, url_map, document, url_map)


def plant_group(ctx: Context, gcp: Gcp, zone: str, name: str, image: str, marks: Tags = MappingProxyType({})) -> str:
    """Somebody else's group, of no machines, and its template; its image. ``marks`` are not ours."""
    properties = {
        "machineType": "e2-small",
        "disks": [{"boot": True, "initializeParams": {"sourceImage": image}}],
        "networkInterfaces": [{"network": "global/networks/default"}],
    }
    named = {"name": name, "description": written(marks)}
    insert(ctx, gcp, "global/instanceTemplates", {**named, "properties": properties})
    group = {
        **named,
        "baseInstanceName": name,
        "instanceTemplate": f"projects/{gcp.project}/global/instanceTemplates/{name}",
        "targetSize": 0,
    }
    insert(ctx, gcp, f"zones/{zone}/instanceGroupManagers", group)
    return image


def plant_service(
    ctx: Context, gcp: Gcp, network: Network, zone: str, name: str, image: str, priority: int | None, scope: str
) -> None:
    """Somebody else's group of two machines, and what sends it the requests of a URL map: a rule, or its default."""
    plant_group(ctx, gcp, zone, name, image)
    group = f"zones/{zone}/instanceGroups/{name}"
    network.ask("POST", f"zones/{zone}/instanceGroupManagers/{name}/resize?size=2")
    shown = network.ask("GET", group)
    ports = {"namedPorts": [{"name": "web", "port": 8080}], "fingerprint": shown["fingerprint"]}
    network.ask("POST", f"{group}/setNamedPorts", ports)
    made = f"projects/{gcp.project}/{scope}"
    check = {"port": 8080, "requestPath": "/healthz"}
    network.make(f"{scope}/healthChecks", name=name, type="HTTP", httpHealthCheck=check, checkIntervalSec=5)
    behind = {"group": f"projects/{gcp.project}/{group}", "balancingMode": "RATE", "maxRatePerInstance": 100}
    network.make(
        f"{scope}/backendServices",
        name=name,
        loadBalancingScheme=network.scheme,
        protocol="HTTP",
        portName="web",
        healthChecks=[f"{made}/healthChecks/{name}"],
        backends=[behind],
    )
    found = network.ask("GET", network.url_map.partition(f"projects/{gcp.project}/")[2])
    service = f"{made}/backendServices/{name}"
    document: dict[str, Any] = {"fingerprint": found["fingerprint"], "defaultService": service}
    if priority is not None:
        rule = {"priority": priority, "matchRules": [{"prefixMatch": "/"}], "service": service}
        document = {
            "fingerprint": found["fingerprint"],
            "hostRules": [{"hosts": ["*"], "pathMatcher": "theirs"}],
            "pathMatchers": [{"name": "theirs", "defaultService": found["defaultService"], "routeRules": [rule]}],
        }
    write(gcp, ctx, network.url_map, document, network.url_map)


def change_own_rule(network: Network, change: Callable[[dict[str, Any]], None], priority: int = 100) -> None:
    """Change the rule at a priority of the URL map, as somebody does by hand."""
    path = network.url_map.partition(f"projects/{PROJECT}/")[2]
    found = network.ask("GET", path)
    rules = (rule for matcher in found["pathMatchers"] for rule in matcher["routeRules"])
    change(next(rule for rule in rules if rule["priority"] == priority))
    document = {"fingerprint": found["fingerprint"], "pathMatchers": found["pathMatchers"]}
    network.ask("PATCH", path, document)


def share_out(network: Network, weight: int) -> None:
    """The user's own backend service, of no machines, with weight in the route's own rule."""
    nobody = network.url_map.replace("/urlMaps/web", "/backendServices/nobody")

    def shared(rule: dict[str, Any]) -> None:
        rule["routeAction"]["weightedBackendServices"].append({"backendService": nobody, "weight": weight})

    change_own_rule(network, shared)


def narrow(network: Network, path: str) -> None:
    """Let the route's own rule take this path alone."""
    change_own_rule(network, lambda rule: rule.update(matchRules=[{"fullPathMatch": path}]))


def gcp_scene(scheme: str = "EXTERNAL_MANAGED", scope: str = "global") -> GcpScene:
    place = GcpSandbox()
    network = Network(place, scheme, scope)

    def plant(priority: int) -> None:
        plant_rule(place.ctx, place.gcp(), network.url_map, priority)

    def service(name: str, priority: int | None) -> None:
        image = scene.image(THEIRS, Guest.SERVES)
        plant_service(place.ctx, place.gcp(), network, ZONE, name, image, priority, scope)

    scene = replace(
        _scene(place, network, network.url_map, plant, service),
        share_out=lambda weight: share_out(network, weight),
        narrow=lambda path: narrow(network, path),
    )
    return scene


def pointer_scene(scheme: str = "EXTERNAL_MANAGED", scope: str = f"regions/{REGION}") -> GcpScene:
    place = GcpSandbox()
    network = Pointer(place, scheme, scope)

    def plant(priority: int) -> None:
        scene.plant_group("theirs")
        network.lead_to("theirs", scheme, f"zones/{ZONE}/instanceGroups/theirs")
        target = {"target": f"projects/{PROJECT}/{scope}/targetTcpProxies/theirs"}
        network.ask("POST", f"{scope}/forwardingRules/web/setTarget", target)

    scene = _scene(place, network, network.rule, plant, lambda name, priority: plant(0), pointer=True)
    return scene


def _scene(
    place: GcpSandbox,
    network: Project,
    listener: str,
    plant: Callable[[int], None],
    service: Callable[[str, int | None], None],
    *,
    pointer: bool = False,
) -> GcpScene:
    requests = "loadbalancing.googleapis.com/https/request_count"
    events = Recorder()
    ctx = Context(clock=place.clock, reporter=events)
    project = place.gcp()
    ground = gcp.ground(project, ZONE)
    store = place.store()

    def image(release: ReleaseId, guest: Guest) -> str:
        digest = sha256(release.encode())
        labels = image_tags(APP, "1.0.0", digest)
        disk = volume({"/app": PROGRAMS[guest]}, environment=(("OSVDEPLOY_RELEASE", release),))
        key = f"{release}.tar.gz"
        store.put_if_absent(ctx, key, archive_of(disk))
        source = UploadedDisk(f"{store.address}/{key}", release, digest, 1, labels)
        return ground.images.register(ctx, ImageRequest(release, digest, source, labels)).id

    def on_change(hook: Callable[[str, bool], None] | None) -> None:
        def asked(moment: Moment, call: Call) -> None:
            if hook is not None and call.service == "compute" and "requestId" in call.params:
                hook(call.operation, moment is Moment.AFTER)

        place.sandbox.hook = asked

    return GcpScene(
        ctx=ctx,
        cloud=ground,
        prober=SandboxProber(place.sandbox, place.clock),
        listener=listener,
        networks=(),
        firewalls=("guests",),
        machine_type="e2-small",
        image=image,
        plant_rule=plant,
        plant_group=lambda name: plant_group(ctx, project, ZONE, name, image(THEIRS, Guest.SERVES)),
        plant_service=service,
        scale=lambda name, minimum, maximum: scale_group(ctx, project, area_of(ZONE), name, minimum, maximum),
        unload=lambda name: unload_group(ctx, project, area_of(ZONE), name),
        mutations=lambda: sum(isinstance(event, CloudCall) and event.mutating for event in events.events),
        on_change=on_change,
        errors=MonitoringMetric(requests, requests, Statistic.SUM, {"response_code_class": "500"}),
        published=120.0,
        keeps_dead=False,
        unchecked="unhealthy",
        pointer=pointer,
        place=place,
        network=network,
    )
