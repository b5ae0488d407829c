"""Where machines stand, and where clients come in: made here, or there already."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from settings import Settings

TLS_POLICY = "ELBSecurityPolicy-TLS13-1-2-2021-06"
NO_SERVICE = {
    "type": "fixed-response",
    "fixed_response": {"status_code": "404", "content_type": "text/plain", "message_body": "no such service\n"},
}
"""What a listener answers to requests that no rule of a service takes."""
TAGS = {"service": pulumi.get_project(), "environment": pulumi.get_stack()}


@dataclass(frozen=True)
class Network:
    """``after`` is what has to be there before a balancer: a way to the internet."""

    vpc_id: pulumi.Input[str]
    subnet_ids: Sequence[pulumi.Input[str]]
    balancer_subnet_ids: Sequence[pulumi.Input[str]]
    after: Sequence[pulumi.Resource] = ()


@dataclass(frozen=True)
class Entrance:
    """The listener that the service's rules are put on. ``group_ids`` are its balancer's security groups."""

    listener_arn: pulumi.Input[str]
    dns_name: pulumi.Input[str]
    zone_id: pulumi.Input[str]
    url: pulumi.Input[str]
    group_ids: pulumi.Input[Sequence[str]]


def network(settings: Settings) -> Network:
    """The VPC that is there, or one with two zones: public subnets for the balancer, others for machines."""
    if there := settings.existing:
        return Network(there.vpc_id, there.subnet_ids, there.balancer_subnet_ids)
    vpc = aws.ec2.Vpc("vpc", cidr_block=settings.cidr, tags=_named("vpc"))
    gateway = aws.ec2.InternetGateway("gateway", vpc_id=vpc.id, tags=_named("gateway"))
    way_out = aws.ec2.RouteTable(
        "public",
        vpc_id=vpc.id,
        routes=[{"cidr_block": "0.0.0.0/0", "gateway_id": gateway.id}],
        tags=_named("public"),
    )
    blocks = ipaddress.ip_network(settings.cidr).subnets(prefixlen_diff=4)
    zones = aws.get_availability_zones(state="available").names[:2]

    def subnets(kind: str) -> list[aws.ec2.Subnet]:
        return [
            aws.ec2.Subnet(
                f"{kind}-{zone[-1]}",
                vpc_id=vpc.id,
                availability_zone=zone,
                cidr_block=str(next(blocks)),
                tags=_named(f"{kind}-{zone[-1]}"),
            )
            for zone in zones
        ]

    public, machines = subnets("public"), subnets("machines")
    routed = [
        aws.ec2.RouteTableAssociation(f"public-{zone[-1]}", route_table_id=way_out.id, subnet_id=subnet.id)
        for zone, subnet in zip(zones, public, strict=True)
    ]
    return Network(vpc.id, [each.id for each in machines], [each.id for each in public], after=routed)


def entrance(settings: Settings, network: Network) -> Entrance:
    """The listener that is there, or one of a balancer that is made."""
    if settings.existing and settings.existing.listener_arn:
        return _entrance_there(settings, settings.existing.listener_arn, settings.existing.vpc_id)
    secure = settings.certificate_arn is not None
    ports = [settings.listener_port, *([80] if secure else [])]
    group = aws.ec2.SecurityGroup(
        "balancer",
        vpc_id=network.vpc_id,
        description="Clients to the balancer, and the balancer to machines",
        ingress=[_tcp(port, cidr_blocks=settings.clients) for port in ports],
        egress=[_tcp(settings.port, cidr_blocks=["0.0.0.0/0"])],
        tags=_named("balancer"),
    )
    balancer = aws.lb.LoadBalancer(
        f"{TAGS['service']}-{TAGS['environment']}",
        security_groups=[group.id],
        subnets=network.balancer_subnet_ids,
        tags=_named("balancer"),
        opts=pulumi.ResourceOptions(depends_on=network.after, protect=settings.protect),
    )
    listener = aws.lb.Listener(
        "clients",
        load_balancer_arn=balancer.arn,
        port=settings.listener_port,
        protocol="HTTPS" if secure else "HTTP",
        certificate_arn=settings.certificate_arn,
        ssl_policy=TLS_POLICY if secure else None,
        default_actions=[NO_SERVICE],
        tags=_named("clients"),
    )
    if secure:
        to_https = {"protocol": "HTTPS", "port": str(settings.listener_port), "status_code": "HTTP_301"}
        aws.lb.Listener(
            "to-https",
            load_balancer_arn=balancer.arn,
            port=80,
            protocol="HTTP",
            default_actions=[{"type": "redirect", "redirect": to_https}],
            tags=_named("to-https"),
        )
    scheme = "https" if secure else "http"
    url = balancer.dns_name.apply(lambda name: _url(settings, scheme, name, settings.listener_port))
    return Entrance(listener.arn, balancer.dns_name, balancer.zone_id, url, [group.id])


def _entrance_there(settings: Settings, listener_arn: str, vpc_id: str) -> Entrance:
    listener = aws.lb.get_listener(arn=listener_arn)
    balancer = aws.lb.get_load_balancer(arn=listener.load_balancer_arn)
    if balancer.vpc_id != vpc_id:
        raise pulumi.RunError(f"listenerArn: its balancer is in {balancer.vpc_id}, and vpcId is {vpc_id}")
    url = _url(settings, listener.protocol.lower(), balancer.dns_name, listener.port)
    return Entrance(listener.arn, balancer.dns_name, balancer.zone_id, url, balancer.security_groups)


def machines_group(settings: Settings, network: Network, entrance: Entrance) -> aws.ec2.SecurityGroup:
    """Machines are reached from the balancer alone."""
    return aws.ec2.SecurityGroup(
        "machines",
        vpc_id=network.vpc_id,
        description="The balancer to machines",
        ingress=[_tcp(settings.port, security_groups=entrance.group_ids)],
        egress=[{"protocol": "-1", "from_port": 0, "to_port": 0, "cidr_blocks": ["0.0.0.0/0"]}],
        tags=_named("machines"),
    )


def _tcp(port: int, **peer: pulumi.Input[Sequence[str]]) -> aws.ec2.SecurityGroupIngressArgsDict:
    return {"protocol": "tcp", "from_port": port, "to_port": port, **peer}


def _url(settings: Settings, scheme: str, name: str, port: int) -> str:
    usual = {"http": 80, "https": 443}[scheme]
    return f"{scheme}://{settings.host or name}{'' if port == usual else f':{port}'}"


def _named(what: str) -> dict[str, str]:
    return {**TAGS, "Name": f"{TAGS['service']}-{TAGS['environment']}-{what}"}
