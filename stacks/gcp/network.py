"""Where machines stand, and where clients come in: made here, or there already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_gcp as gcp

from settings import Settings

SCHEME = "EXTERNAL_MANAGED"

# osvdeploy puts its rules into the URL map, and nothing else may write it: pulumi_gcp writes a map whole, as it last
# saw it, without the rules' descriptions, by which osvdeploy knows its own.
OF_OSVDEPLOY = ["defaultService", "description", "hostRules", "pathMatchers"]


@dataclass(frozen=True)
class Machines:
    """``tags`` is what a firewall knows machines by; ``after`` is what has to be there before them: a way in."""

    subnetwork: pulumi.Input[str]
    tags: Sequence[str]
    after: Sequence[pulumi.Resource] = ()


@dataclass(frozen=True)
class Entrance:
    """The URL map that the service's rules are put into, and its address, None where it was there. ``after`` is what
    leads to it, without which nothing can be rolled out."""

    url_map: pulumi.Input[str]
    address: pulumi.Output[str] | None = None
    after: Sequence[pulumi.Resource] = ()


def machines(settings: Settings) -> Machines:
    """The subnetwork that is there, or one of a network that is made; its firewall lets the balancer in and no more."""
    there, name = settings.existing, settings.name
    if there is not None and there.network is None:
        return Machines(there.subnetwork, there.tags)
    if there is not None:
        network, subnetwork = there.network, there.subnetwork
    else:
        made = gcp.compute.Network(f"{name}-network", auto_create_subnetworks=False, description=_of(settings))
        network = made.id
        subnetwork = gcp.compute.Subnetwork(
            f"{name}-machines",
            network=network,
            region=settings.region,
            ip_cidr_range=settings.cidr,
            description=_of(settings),
        ).id
    wall = gcp.compute.Firewall(
        f"{name}-balancer",
        network=network,
        description=f"The balancer and health checks to machines of {_of(settings)}",
        source_ranges=settings.from_balancer,
        target_tags=[name],
        allows=[gcp.compute.FirewallAllowArgs(protocol="tcp", ports=[str(settings.port)])],
    )
    return Machines(subnetwork, [name], after=[wall])


def entrance(settings: Settings) -> Entrance:
    """The URL map that is there, or one behind an address of its own."""
    if settings.url_map:
        return Entrance(settings.url_map)
    name = settings.name
    # Nothing is behind it: whoever asks for what no rule takes gets a 503.
    nobody = gcp.compute.BackendService(
        f"{name}-nobody", load_balancing_scheme=SCHEME, protocol="HTTP", description=_of(settings)
    )
    url_map = gcp.compute.URLMap(
        f"{name}-ways",
        default_service=nobody.id,
        description=_of(settings),
        opts=pulumi.ResourceOptions(protect=settings.protect, ignore_changes=OF_OSVDEPLOY),
    )
    address = gcp.compute.GlobalAddress(
        f"{name}-address", description=_of(settings), opts=pulumi.ResourceOptions(protect=settings.protect)
    )
    if settings.certificates:
        proxy: pulumi.Output[str] = gcp.compute.TargetHttpsProxy(
            f"{name}-clients", url_map=url_map.id, ssl_certificates=settings.certificates
        ).id
        _to_https(settings, address.address)
    else:
        proxy = gcp.compute.TargetHttpProxy(f"{name}-clients", url_map=url_map.id).id
    clients = _listens(f"{name}-clients", settings.listener_port, address.address, proxy)
    return Entrance(url_map.id, address.address, after=[clients])


def _to_https(settings: Settings, address: pulumi.Output[str]) -> None:
    """What comes to port 80 is sent on."""
    on = gcp.compute.URLMap(
        f"{settings.name}-to-https",
        default_url_redirect=gcp.compute.URLMapDefaultUrlRedirectArgs(
            https_redirect=True, strip_query=False, redirect_response_code="MOVED_PERMANENTLY_DEFAULT"
        ),
    )
    proxy = gcp.compute.TargetHttpProxy(f"{settings.name}-to-https", url_map=on.id)
    _listens(f"{settings.name}-to-https", 80, address, proxy.id)


def _listens(
    name: str, port: int, address: pulumi.Output[str], proxy: pulumi.Output[str]
) -> gcp.compute.GlobalForwardingRule:
    return gcp.compute.GlobalForwardingRule(
        name, load_balancing_scheme=SCHEME, ip_address=address, port_range=str(port), target=proxy
    )


def _of(settings: Settings) -> str:
    return f"{settings.name}, made by Pulumi"
