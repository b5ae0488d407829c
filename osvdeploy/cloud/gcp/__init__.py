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
from osvdeploy.cloud.gcp.metrics import CloudMonitoring
from osvdeploy.cloud.gcp.quotas import RegionQuotas
from osvdeploy.cloud.gcp.session import Gcp
from osvdeploy.cloud.gcp.ways import GceRouter
from osvdeploy.cloud.interfaces import Ground

SPREAD = 120.0
"""Seconds: Google names no figure; users see from seconds to minutes."""

__all__ = ["Gcp", "ground"]


def ground(gcp: Gcp, place: str) -> Ground:
    """What a rollout stands on in a zone or region of a project. Nothing is asked before it is used."""
    router, images, groups = GceRouter(gcp), GceImages(gcp), ManagedGroups(gcp, place)
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
        foresee=lambda: GcpForesight(Backends(gcp), groups, images, router.url_maps, router.pointers),
        quotas=RegionQuotas(gcp, place),
    )
