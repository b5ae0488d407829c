"""Google as a place under test: the adapters, the sandbox behind them, in process and in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from osvdeploy.cloud import gcp
from osvdeploy.cloud.gcp.backends import write
from osvdeploy.cloud.gcp.marks import written
from osvdeploy.cloud.gcp.scope import address_of
from osvdeploy.cloud.gcp.session import Gcp
from osvdeploy.cloud.interfaces import ImageRequest, ReleaseId, Tags, UploadedDisk
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


class Network:
    """What a user has before the first deploy: a balancer that answers nothing yet, made as any client would."""

    def __init__(self, place: GcpSandbox, scheme: str = "EXTERNAL_MANAGED", scope: str = "global") -> None:
        self._place = place
        self._session = place.session()
        made = f"projects/{PROJECT}/{scope}"
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

    def make(self, collection: str, **document: Any) -> None:
        self.ask("POST", collection, document)

    def ask(self, verb: str, path: str, document: Any = None) -> dict[str, Any]:
        """One call that must work; a change is through when it is answered."""
        answer = self._session.request(verb, f"{COMPUTE}/compute/v1/projects/{PROJECT}/{path}", json=document)
        assert answer.ok, answer.text
        self._place.ctx.sleep(0 if verb == "GET" else 60)
        found: dict[str, Any] = answer.json()
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class GcpScene(Scene):
    """The scene, with the project behind it."""

    place: GcpSandbox
    network: Network


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


def plant_group(ctx: Context, gcp: Gcp, zone: str, name: str, image: str, marks: Tags = MappingProxyType({})) -> None:
    """Somebody else's group, of no machines, and its template. ``marks`` are not ours."""
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


def gcp_scene(scheme: str = "EXTERNAL_MANAGED", scope: str = "global") -> GcpScene:
    place = GcpSandbox()
    network = Network(place, scheme, scope)
    events = Recorder()
    ctx = Context(clock=place.clock, reporter=events)
    ground = gcp.ground(place.gcp(), ZONE)
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
        listener=network.url_map,
        networks=(),
        firewalls=("guests",),
        machine_type="e2-small",
        image=image,
        plant_rule=lambda priority: plant_rule(ctx, place.gcp(), network.url_map, priority),
        plant_group=lambda name: plant_group(ctx, place.gcp(), ZONE, name, image(THEIRS, Guest.SERVES)),
        mutations=lambda: sum(isinstance(event, CloudCall) and event.mutating for event in events.events),
        on_change=on_change,
        keeps_dead=False,
        unchecked="unhealthy",
        place=place,
        network=network,
    )
