"""What a stack says in its Pulumi.<stack>.yaml, read and checked. README.md has the list."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi

KEYS = {
    *("bake", "bootTimeout", "bucket", "capacity", "certificates", "cidr", "env", "forceRollout", "fromBalancer"),
    *("gates", "hooks", "host", "keepWarm", "listenerPort", "machineType", "minReady", "network", "networkTags"),
    *("notify", "path", "port", "priority", "protect", "subnetwork", "urlMap", "version", "zone"),
}

# Where a global balancer and Google's health checks come from ("Firewall rules", Cloud Load Balancing).
BALANCERS = ["130.211.0.0/22", "35.191.0.0/16"]


@dataclass(frozen=True)
class Existing:
    """A network that is there. With ``tags`` its own firewall lets the balancer in to machines of those."""

    network: str | None
    subnetwork: str
    tags: Sequence[str]


@dataclass(frozen=True)
class Settings:
    name: str
    project: str
    region: str
    zone: str | None
    version: str | None
    env: pulumi.Output[Mapping[str, str]] | None
    bucket: str | None
    capacity: int
    machine_type: str
    port: int
    host: str | None
    path: str
    priority: int
    boot_timeout: str
    min_ready: str
    bake: str
    keep_warm: str
    gates: Sequence[Any]
    hooks: Sequence[Any]
    notify: Sequence[Any]
    force_rollout: str | None
    existing: Existing | None
    cidr: str
    from_balancer: Sequence[str]
    url_map: str | None
    certificates: Sequence[str]
    listener_port: int
    protect: bool

    @classmethod
    def load(cls) -> Settings:
        """Raises pulumi.RunError, which `pulumi` shows without a traceback."""
        config, google = pulumi.Config(), pulumi.Config("gcp")
        if unknown := sorted(set(_given(config.name)) - KEYS):
            raise pulumi.RunError(f"no such setting: {', '.join(unknown)}; there are {', '.join(sorted(KEYS))}")
        certificates, url_map = config.get_object("certificates", []), config.get("urlMap")
        listener_port = config.get_int("listenerPort", 443 if certificates else 80)
        if certificates and listener_port == 80:
            raise pulumi.RunError("listenerPort 80 and certificates: 80 is where clients are sent on from to HTTPS")
        host = config.get("host")
        if certificates and not host:
            raise pulumi.RunError(
                "certificates without host: give the name that they are of, by which a rollout asks the service too"
            )
        if certificates and url_map:
            raise pulumi.RunError("urlMap and certificates: give one, a balancer that is there has its own")
        if url_map and config.get("listenerPort"):
            raise pulumi.RunError("listenerPort: of a balancer that the stack makes, and urlMap names one")
        env = config.get_secret_object("env")
        region, zone = google.require("region"), config.get("zone")
        if zone and not zone.startswith(f"{region}-"):
            raise pulumi.RunError(f"zone {zone} is none of gcp:region, which is {region}")
        return cls(
            name=_name(),
            project=google.require("project"),
            region=region,
            zone=zone,
            version=config.get("version"),
            env=env.apply(texts) if env is not None else None,
            bucket=config.get("bucket"),
            capacity=config.get_int("capacity", 2),
            machine_type=config.get("machineType", "e2-small"),
            port=config.get_int("port", 8080),
            host=host,
            path=config.get("path", "/*"),
            priority=config.get_int("priority", 100),
            boot_timeout=config.get("bootTimeout", "300s"),
            min_ready=config.get("minReady", "10s"),
            bake=config.get("bake", "10m"),
            keep_warm=config.get("keepWarm", "1h"),
            gates=config.get_object("gates", []),
            hooks=config.get_object("hooks", []),
            notify=config.get_object("notify", []),
            force_rollout=config.get("forceRollout"),
            existing=_existing(config),
            cidr=_cidr(config),
            from_balancer=config.get_object("fromBalancer", BALANCERS),
            url_map=url_map,
            certificates=certificates,
            listener_port=listener_port,
            protect=config.get_bool("protect", False),
        )


def texts(env: Mapping[str, Any]) -> Mapping[str, str]:
    """Variables as they were typed: `pulumi config set --path env.WORKERS 4` writes a number."""
    for name, value in env.items():
        if not isinstance(value, str | int | float):
            raise pulumi.RunError(f"env.{name}: is no text")
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in env.items()}


def _cidr(config: pulumi.Config) -> str:
    """Google takes a subnetwork of at least 8 addresses, and no larger one than a /8 ("Subnets", VPC)."""
    cidr = config.get("cidr", "10.20.0.0/20")
    try:
        length = ipaddress.IPv4Network(cidr).prefixlen
    except ValueError as error:
        raise pulumi.RunError(f"cidr: {error}") from None
    if not 8 <= length <= 29:
        raise pulumi.RunError(f"cidr: {cidr} is too {'small' if length > 29 else 'large'}: a /29 or larger, up to a /8")
    return cidr


def _given(namespace: str) -> list[str]:
    """The settings that the stack has, also those that nothing asks for: a slip of the pen, mostly."""
    prefix = f"{namespace}:"
    return [key.removeprefix(prefix) for key in pulumi.runtime.get_config_env() if key.startswith(prefix)]


def _name() -> str:
    """What the names of all that is made begin with, and machines' network tag."""
    name = f"{pulumi.get_project()}-{pulumi.get_stack()}"
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,40}[a-z0-9])?", name):
        raise pulumi.RunError(
            f"project and stack make the name {name!r}, which Google does not take: lower-case letters, digits and "
            "dashes, a letter first, at most 42 in all. Change `name` in Pulumi.yaml, or the stack's"
        )
    return name


def _existing(config: pulumi.Config) -> Existing | None:
    """The network that is there, None where the stack makes its own. Half of one is refused."""
    network, subnetwork = config.get("network"), config.get("subnetwork")
    tags = config.get_object("networkTags", [])
    if not (network or subnetwork or tags):
        return None
    if not subnetwork:
        raise pulumi.RunError("half a network: subnetwork is missing, the one that machines stand in")
    if not (network or tags):
        raise pulumi.RunError(
            "no way to machines: give network, of which a firewall rule is made that lets the balancer in, or "
            "networkTags, by which a rule that is there does"
        )
    if network and tags:
        raise pulumi.RunError("network and networkTags: give one, the rule of the firewall is made or it is there")
    if config.get("cidr"):
        raise pulumi.RunError("cidr: is of a subnetwork that the stack makes, and subnetwork names one")
    if tags and config.get("fromBalancer"):
        raise pulumi.RunError("fromBalancer: of a firewall rule that the stack makes, and networkTags have their own")
    return Existing(network, subnetwork, tags)
