"""What a stack says in its Pulumi.<stack>.yaml, read and checked. README.md has the list."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi

KEYS = {
    *("bake", "bootTimeout", "balancerSubnetIds", "capacity", "certificateArn", "cidr", "clients", "env"),
    *("forceRollout", "gates", "hooks", "host", "instanceType", "keepWarm", "listenerArn", "listenerPort"),
    *("minReady", "notify", "path", "port", "priority", "protect", "releaser", "subnetIds", "version", "vpcId"),
}


@dataclass(frozen=True)
class Existing:
    """A network that is there: a balancer of ours is put into ``balancer_subnet_ids``, or ``listener_arn`` is used."""

    vpc_id: str
    subnet_ids: Sequence[str]
    balancer_subnet_ids: Sequence[str]
    listener_arn: str | None


@dataclass(frozen=True)
class Settings:
    region: str
    version: str | None
    env: pulumi.Output[Mapping[str, str]] | None
    capacity: int
    instance_type: str
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
    clients: Sequence[str]
    certificate_arn: str | None
    listener_port: int
    protect: bool
    releaser: str | None

    @classmethod
    def load(cls) -> Settings:
        """Raises pulumi.RunError, which `pulumi` shows without a traceback."""
        config = pulumi.Config()
        if unknown := sorted(set(_given(config.name)) - KEYS):
            raise pulumi.RunError(f"no such setting: {', '.join(unknown)}; there are {', '.join(sorted(KEYS))}")
        certificate = config.get("certificateArn")
        env = config.get_secret_object("env")
        listener_port = config.get_int("listenerPort", 443 if certificate else 80)
        if certificate and listener_port == 80:
            raise pulumi.RunError("listenerPort 80 and certificateArn: 80 is where clients are sent on from to HTTPS")
        return cls(
            region=pulumi.Config("aws").require("region"),
            version=config.get("version"),
            env=env.apply(texts) if env is not None else None,
            capacity=config.get_int("capacity", 2),
            instance_type=config.get("instanceType", "t3.nano"),
            port=config.get_int("port", 8080),
            host=config.get("host"),
            path=config.get("path", "/*"),
            priority=config.get_int("priority", 100),
            boot_timeout=config.get("bootTimeout", "120s"),
            min_ready=config.get("minReady", "10s"),
            bake=config.get("bake", "10m"),
            keep_warm=config.get("keepWarm", "1h"),
            gates=config.get_object("gates", []),
            hooks=config.get_object("hooks", []),
            notify=config.get_object("notify", []),
            force_rollout=config.get("forceRollout"),
            existing=_existing(config),
            cidr=_cidr(config),
            clients=config.get_object("clients", ["0.0.0.0/0"]),
            certificate_arn=certificate,
            listener_port=listener_port,
            protect=config.get_bool("protect", False),
            releaser=config.get("releaser"),
        )


def texts(env: Mapping[str, Any]) -> Mapping[str, str]:
    """Variables as they were typed: `pulumi config set --path env.WORKERS 4` writes a number."""
    for name, value in env.items():
        if not isinstance(value, str | int | float):
            raise pulumi.RunError(f"env.{name}: is no text")
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in env.items()}


def _cidr(config: pulumi.Config) -> str:
    """Each subnet is a sixteenth of it; AWS wants a /27 for a balancer, and has no VPC larger than a /16."""
    cidr = config.get("cidr", "10.20.0.0/16")
    try:
        length = ipaddress.IPv4Network(cidr).prefixlen
    except ValueError as error:
        raise pulumi.RunError(f"cidr: {error}") from None
    if not 16 <= length <= 23:
        size = "small" if length > 23 else "large"
        raise pulumi.RunError(f"cidr: {cidr} is too {size}: a /23 or larger, up to a /16")
    return cidr


def _given(namespace: str) -> list[str]:
    """The settings that the stack has, also those that nothing asks for: a slip of the pen, mostly."""
    prefix = f"{namespace}:"
    return [key.removeprefix(prefix) for key in pulumi.runtime.get_config_env() if key.startswith(prefix)]


def _existing(config: pulumi.Config) -> Existing | None:
    """The network that is there, None where the stack makes its own. Half of one is refused."""
    vpc, listener = config.get("vpcId"), config.get("listenerArn")
    subnets, balancer_subnets = config.get_object("subnetIds", []), config.get_object("balancerSubnetIds", [])
    if not (vpc or listener or subnets or balancer_subnets):
        return None
    if not (vpc and subnets):
        lacking = " and ".join(name for name, value in (("vpcId", vpc), ("subnetIds", subnets)) if not value)
        raise pulumi.RunError(
            f"half a network: {lacking} is missing. One that is there is vpcId and subnetIds, with listenerArn or "
            "balancerSubnetIds; without all four the stack makes its own"
        )
    if listener and balancer_subnets:
        raise pulumi.RunError("listenerArn and balancerSubnetIds: give one, the balancer is there or it is made")
    if config.get("cidr"):
        raise pulumi.RunError("cidr: is of a VPC that the stack makes, and vpcId names one")
    idle = [name for name in ("clients", "listenerPort") if config.get(name)]
    if listener and idle:
        raise pulumi.RunError(f"{', '.join(idle)}: of a balancer that the stack makes, and listenerArn names one")
    if listener and config.get("certificateArn"):
        raise pulumi.RunError("listenerArn and certificateArn: give one, a listener that is there has its own")
    if not listener and len(balancer_subnets) < 2:
        raise pulumi.RunError(
            "no way in: vpcId and subnetIds say where machines stand. Give listenerArn, of a balancer that is there, "
            "or balancerSubnetIds, two or more in different zones, for one that is made"
        )
    return Existing(vpc, subnets, balancer_subnets, listener)
