"""The ports on Google: Cloud Storage, images, managed instance groups, application and proxy network load
balancers.

google-auth and requests are imported when the first request is made.
"""

from __future__ import annotations

from osvdeploy.cloud.gcp.backends import Backends
from osvdeploy.cloud.gcp.console import SerialPort
from osvdeploy.cloud.gcp.foresight import GcpForesight
from osvdeploy.cloud.gcp.groups import ManagedGroups
from osvdeploy.cloud.gcp.images import GceImages
from osvdeploy.cloud.gcp.marks import marks_of
from osvdeploy.cloud.gcp.metrics import CloudMonitoring
from osvdeploy.cloud.gcp.notifier import PubSubNotifier
from osvdeploy.cloud.gcp.quotas import RegionQuotas
from osvdeploy.cloud.gcp.session import Gcp
from osvdeploy.cloud.gcp.ways import GceRouter
from osvdeploy.cloud.interfaces import Ground
from osvdeploy.cloud.tags import SERVICE
from osvdeploy.context import Context

SPREAD = 120.0
"""Seconds: Google names no figure; users see from seconds to minutes."""

__all__ = ["Gcp", "ground", "places_of"]


def places_of(ctx: Context, gcp: Gcp, service: str) -> list[str]:
    """The zones and regions of a project in which groups of a service are, by their marks (one call for each page)."""
    found: dict[str, None] = {}
    for page in gcp.pages(ctx, f"{gcp.project_path}/aggregated/instanceGroupManagers", "instance groups"):
        for scope, held in page.get("items", {}).items():
            if any(marks_of(each).get(SERVICE) == service for each in held.get("instanceGroupManagers", [])):
                found[scope.rpartition("/")[2]] = None
    return sorted(found)


def ground(gcp: Gcp, place: str) -> Ground:
    """What a rollout stands on in a zone or region of a project. Nothing is asked before it is used."""
    backends, images = Backends(gcp), GceImages(gcp)
    router, groups = GceRouter(gcp, place, backends), ManagedGroups(gcp, place, backends)
    return Ground(
        kind="gcp",
        account=gcp.project,
        region=place,
        images=images,
        families=images,
        groups=groups,
        router=router,
        console=SerialPort(gcp),
        fence=router,
        spread=SPREAD,
        endpoint=gcp.declared,
        metrics=CloudMonitoring(gcp),
        counted_late=240.0,
        notifier=PubSubNotifier(gcp),
        foresee=lambda: GcpForesight(Backends(gcp), groups, images, router.url_maps, router.pointers),
        quotas=RegionQuotas(gcp, place),
    )
