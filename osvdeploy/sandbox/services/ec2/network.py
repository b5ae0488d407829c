"""Networks: VPCs, subnets, security groups, internet gateways, route tables, zones.

They have the rules that a caller can break and carry no traffic: guests and listeners are on loopback.
Sources: EC2 API reference (CreateVpc, CreateSubnet, CreateSecurityGroup, AuthorizeSecurityGroupIngress and -Egress,
CreateRoute, CreateRouteTable, AssociateRouteTable, and the calls that undo them), VPC user guide (subnet sizing: the
first four addresses and the last are AWS's).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from osvdeploy.sandbox.errors import ApiError, NotSimulated
from osvdeploy.sandbox.services.ec2.resources import (
    GATEWAY,
    INSTANCE,
    ROUTES,
    SECURITY_GROUP,
    SUBNET,
    VPC,
    Query,
    Wire,
    chosen,
    invalid,
    missing,
    only,
    remember,
    repeated,
    required,
    shown,
    specified_tags,
)
from osvdeploy.sandbox.services.scope import Doc, Scope

ZONES = ("a", "b", "c")
RESERVED = 5
"""Addresses of a subnet that no machine gets: the first four and the last."""

_GONE = ("terminated",)
_LARGEST, _SMALLEST = 16, 28


def zones(scope: Scope) -> list[Doc]:
    short = "".join(part[0] for part in scope.region.split("-")[1:]) or "1"
    region = scope.region.split("-")[0] + short[0] + scope.region.rsplit("-", 1)[-1]
    return [
        {
            "ZoneName": scope.region + letter,
            "ZoneId": f"{region}-az{number}",
            "RegionName": scope.region,
            "State": "available",
            "OptInStatus": "opt-in-not-required",
            "ZoneType": "availability-zone",
            "GroupName": scope.region,
            "NetworkBorderGroup": scope.region,
            "Messages": [],
        }
        for number, letter in enumerate(ZONES, 1)
    ]


_DESCRIBE_ZONES = Query(
    "DescribeAvailabilityZones",
    {
        "zone-name": "ZoneName",
        "zone-id": "ZoneId",
        "region-name": "RegionName",
        "state": "State",
        "zone-type": "ZoneType",
        "opt-in-status": "OptInStatus",
        "group-name": "GroupName",
    },
    "ZoneName",
    tagged=False,
)


def describe_availability_zones(scope: Scope, params: Wire) -> Doc:
    found = zones(scope)
    for parameter, key in (("ZoneNames", "ZoneName"), ("ZoneIds", "ZoneId")):
        wanted = params.get(parameter) or []
        if unknown := sorted(set(wanted) - {zone[key] for zone in zones(scope)}):
            raise invalid(f"Invalid availability zone: [{', '.join(unknown)}]")
        found = [zone for zone in found if not wanted or zone[key] in wanted]
    return {"AvailabilityZones": _DESCRIBE_ZONES.select(params, found)}


def describe_regions(scope: Scope, params: Wire) -> Doc:
    wanted = params.get("RegionNames") or [scope.region]
    if unknown := sorted(set(wanted) - {scope.region}):
        raise invalid(f"Invalid region provided: [{', '.join(unknown)}]")
    endpoint = f"ec2.{scope.region}.amazonaws.com"
    return {"Regions": [{"RegionName": scope.region, "Endpoint": endpoint, "OptInStatus": "opt-in-not-required"}]}


# ----------------------------------------------------------------------------------------------------------- VPCs


def _network(given: str) -> ipaddress.IPv4Network:
    try:
        return ipaddress.IPv4Network(given, strict=False)
    except ValueError:
        raise invalid(f"Value ({given}) for parameter cidrBlock is invalid. This is not a valid CIDR block.") from None


def create_vpc(scope: Scope, params: Wire) -> Doc:
    """With its main route table and its default security group."""
    network = _network(required(params, "CidrBlock"))
    if not _LARGEST <= network.prefixlen <= _SMALLEST:
        raise ApiError("InvalidVpc.Range", f"The CIDR '{params['CidrBlock']}' is invalid.")
    if params.get("InstanceTenancy") not in (None, "default"):
        raise NotSimulated(f"instance tenancy {params['InstanceTenancy']}")
    tags = specified_tags(params.get("TagSpecifications"), "vpc")["vpc"]
    vpc: Doc = {
        "VpcId": VPC.new_id(scope),
        "CidrBlock": str(network),
        "CidrBlockAssociationSet": [
            {
                "AssociationId": f"vpc-cidr-assoc-{scope.new_id(17)}",
                "CidrBlock": str(network),
                "CidrBlockState": {"State": "associated"},
            }
        ],
        "DhcpOptionsId": "default",
        "InstanceTenancy": "default",
        "Ipv6CidrBlockAssociationSet": [],
        "IsDefault": False,
        "OwnerId": scope.account,
        "State": "available",
        "tags": tags,
    }
    VPC.keep(scope, vpc)
    table = _new_table(scope, vpc, {})
    _associate(scope, table, {"Main": True})
    _new_group(scope, "default", "default VPC security group", vpc["VpcId"], {}, default=True)
    return {"Vpc": {**shown(vpc), "State": "pending"}}


_DESCRIBE_VPCS = Query(
    "DescribeVpcs",
    {
        "vpc-id": "VpcId",
        "cidr": "CidrBlock",
        "cidr-block-association.cidr-block": "CidrBlockAssociationSet.CidrBlock",
        "is-default": "IsDefault",
        "owner-id": "OwnerId",
        "state": "State",
    },
    "VpcId",
)


def describe_vpcs(scope: Scope, params: Wire) -> Doc:
    found = [shown(vpc) for vpc in chosen(scope, VPC, params.get("VpcIds"))]
    return _DESCRIBE_VPCS.page(params, "Vpcs", _DESCRIBE_VPCS.select(params, found), ids="VpcIds")


def delete_vpc(scope: Scope, params: Wire) -> Doc:
    """Refused while anything is in it that was made later; its route table and default group go with it."""
    vpc = VPC.find(scope, required(params, "VpcId"))
    name = vpc["VpcId"]
    groups = [group for group in scope.all(SECURITY_GROUP.name) if group["VpcId"] == name]
    tables = [table for table in scope.all(ROUTES.name) if table["VpcId"] == name]
    attached = any(_attached_to(gateway) == name for gateway in scope.all(GATEWAY.name))
    subnets = any(subnet["VpcId"] == name for subnet in scope.all(SUBNET.name))
    made = [group for group in groups if not group["default"]] + [table for table in tables if not _is_main(table)]
    if attached or subnets or made or _balancers(scope, name):
        raise ApiError("DependencyViolation", f"The vpc '{name}' has dependencies and cannot be deleted.")
    for group in groups:
        SECURITY_GROUP.drop(scope, group)
    for table in tables:
        ROUTES.drop(scope, table)
    VPC.drop(scope, vpc)
    return {}


def _balancers(scope: Scope, vpc: str) -> list[Doc]:
    from osvdeploy.sandbox.services import elbv2  # that module asks this service: not at import time

    return [balancer for balancer in scope.all(elbv2.BALANCER) if balancer["VpcId"] == vpc]


def _instances(scope: Scope) -> Iterable[Doc]:
    return (instance for instance in scope.all(INSTANCE.name) if instance["State"]["Name"] not in _GONE)


# -------------------------------------------------------------------------------------------------------- subnets


def create_subnet(scope: Scope, params: Wire) -> Doc:
    vpc = VPC.find(scope, required(params, "VpcId"))
    given = required(params, "CidrBlock")
    network = _network(given)
    inside = ipaddress.IPv4Network(vpc["CidrBlock"])
    if not _LARGEST <= network.prefixlen <= _SMALLEST or not network.subnet_of(inside):
        raise ApiError("InvalidSubnet.Range", f"The CIDR '{given}' is invalid.")
    siblings = [subnet for subnet in scope.all(SUBNET.name) if subnet["VpcId"] == vpc["VpcId"]]
    if any(network.overlaps(ipaddress.IPv4Network(subnet["CidrBlock"])) for subnet in siblings):
        raise ApiError("InvalidSubnet.Conflict", f"The CIDR '{given}' conflicts with another subnet")
    zone = _zone(scope, params)
    tags = specified_tags(params.get("TagSpecifications"), "subnet")["subnet"]
    name = SUBNET.new_id(scope)
    subnet: Doc = {
        "SubnetId": name,
        "SubnetArn": f"arn:aws:ec2:{scope.region}:{scope.account}:subnet/{name}",
        "VpcId": vpc["VpcId"],
        "CidrBlock": str(network),
        "AvailabilityZone": zone["ZoneName"],
        "AvailabilityZoneId": zone["ZoneId"],
        "AssignIpv6AddressOnCreation": False,
        "DefaultForAz": False,
        "Ipv6CidrBlockAssociationSet": [],
        "MapPublicIpOnLaunch": False,
        "OwnerId": scope.account,
        "State": "available",
        "tags": tags,
    }
    SUBNET.keep(scope, subnet)
    return {"Subnet": _shown_subnet(scope, subnet)}


def _zone(scope: Scope, params: Wire) -> Doc:
    for parameter, key in (("AvailabilityZone", "ZoneName"), ("AvailabilityZoneId", "ZoneId")):
        if given := params.get(parameter):
            for zone in zones(scope):
                if zone[key] == given:
                    return zone
            names = ", ".join(zone[key] for zone in zones(scope))
            raise invalid(
                f"Value ({given}) for parameter availabilityZone is invalid. Subnets can currently only be created "
                f"in the following availability zones: {names}."
            )
    return zones(scope)[0]


def taken_addresses(scope: Scope, subnet: str) -> set[str]:
    return {
        instance["PrivateIpAddress"]
        for instance in scope.all(INSTANCE.name)
        if instance["SubnetId"] == subnet and "PrivateIpAddress" in instance
    }


def _shown_subnet(scope: Scope, subnet: Doc) -> Doc:
    size = ipaddress.IPv4Network(subnet["CidrBlock"]).num_addresses
    free = size - RESERVED - len(taken_addresses(scope, subnet["SubnetId"]))
    return {**shown(subnet), "AvailableIpAddressCount": free}


_DESCRIBE_SUBNETS = Query(
    "DescribeSubnets",
    {
        "subnet-id": "SubnetId",
        "vpc-id": "VpcId",
        "cidr-block": "CidrBlock",
        "availability-zone": "AvailabilityZone",
        "availability-zone-id": "AvailabilityZoneId",
        "available-ip-address-count": "AvailableIpAddressCount",
        "default-for-az": "DefaultForAz",
        "map-public-ip-on-launch": "MapPublicIpOnLaunch",
        "owner-id": "OwnerId",
        "state": "State",
        "subnet-arn": "SubnetArn",
    },
    "SubnetId",
)


def describe_subnets(scope: Scope, params: Wire) -> Doc:
    found = [_shown_subnet(scope, subnet) for subnet in chosen(scope, SUBNET, params.get("SubnetIds"))]
    return _DESCRIBE_SUBNETS.page(params, "Subnets", _DESCRIBE_SUBNETS.select(params, found), ids="SubnetIds")


def delete_subnet(scope: Scope, params: Wire) -> Doc:
    subnet = SUBNET.find(scope, required(params, "SubnetId"))
    name = subnet["SubnetId"]
    balancers = any(
        zone["SubnetId"] == name
        for balancer in _balancers(scope, subnet["VpcId"])
        for zone in balancer["AvailabilityZones"]
    )
    if balancers or any(instance["SubnetId"] == name for instance in _instances(scope)):
        raise ApiError("DependencyViolation", f"The subnet '{name}' has dependencies and cannot be deleted.")
    for table in scope.all(ROUTES.name):
        kept = [each for each in table["Associations"] if each.get("SubnetId") != name]
        if kept != table["Associations"]:
            ROUTES.keep(scope, {**table, "Associations": kept})
    SUBNET.drop(scope, subnet)
    return {}


# ------------------------------------------------------------------------------------------------ security groups

INGRESS, EGRESS = "IpPermissions", "IpPermissionsEgress"
_PEERS = {"IpRanges": "CidrIp", "Ipv6Ranges": "CidrIpv6", "UserIdGroupPairs": "GroupId"}
"""The kinds of peers of a rule, and by what each is told from others."""

_ANYWHERE: Doc = {
    "IpProtocol": "-1",
    "IpRanges": [{"CidrIp": "0.0.0.0/0"}],
    "Ipv6Ranges": [],
    "PrefixListIds": [],
    "UserIdGroupPairs": [],
}


def _new_group(
    scope: Scope, name: str, description: str, vpc: str, tags: dict[str, str], *, default: bool = False
) -> Doc:
    number = SECURITY_GROUP.new_id(scope)
    group: Doc = {
        "GroupId": number,
        "GroupName": name,
        "Description": description,
        "VpcId": vpc,
        "OwnerId": scope.account,
        "SecurityGroupArn": f"arn:aws:ec2:{scope.region}:{scope.account}:security-group/{number}",
        "IpPermissions": [],
        "IpPermissionsEgress": [{**_ANYWHERE}],
        "default": default,
        "tags": tags,
    }
    if default:
        itself = {"GroupId": number, "UserId": scope.account}
        group["IpPermissions"] = [{**_ANYWHERE, "IpRanges": [], "UserIdGroupPairs": [itself]}]
    SECURITY_GROUP.keep(scope, group)
    return group


def create_security_group(scope: Scope, params: Wire) -> Doc:
    name, description = required(params, "GroupName"), params.get("Description") or ""
    if not description:
        raise missing("GroupDescription")
    if not params.get("VpcId"):
        raise ApiError("VPCIdNotSpecified", "No default VPC for this user")
    if name.lower().startswith("sg-") or len(name) > 255:
        raise invalid(f"Value ({name}) for parameter GroupName is invalid. Group names may not be in the format sg-*.")
    vpc = VPC.find(scope, params["VpcId"])["VpcId"]
    if name == "default":
        raise ApiError("InvalidGroup.Reserved", "Cannot use reserved security group name: default")
    if any(group["GroupName"] == name and group["VpcId"] == vpc for group in scope.all(SECURITY_GROUP.name)):
        raise ApiError("InvalidGroup.Duplicate", f"The security group '{name}' already exists for VPC '{vpc}'")
    tags = specified_tags(params.get("TagSpecifications"), "security-group")["security-group"]
    group = _new_group(scope, name, description, vpc, tags)
    answer = {"GroupId": group["GroupId"], "SecurityGroupArn": group["SecurityGroupArn"]}
    return {**answer, "Tags": shown(group)["Tags"]} if tags else answer


def authorize_security_group_ingress(scope: Scope, params: Wire) -> Doc:
    return _authorized(scope, params, INGRESS)


def authorize_security_group_egress(scope: Scope, params: Wire) -> Doc:
    return _authorized(scope, params, EGRESS)


def _authorized(scope: Scope, params: Wire, direction: str) -> Doc:
    group = SECURITY_GROUP.find(scope, required(params, "GroupId"))
    rules = [
        _authorize(scope, group, direction, permission, key, peer)
        for permission, key, peer in _rules(scope, group, params)
    ]
    SECURITY_GROUP.keep(scope, group)
    return {"Return": True, "SecurityGroupRules": rules}


def _rules(scope: Scope, group: Doc, params: Wire) -> list[tuple[Doc, str, Doc]]:
    """The rules that permissions say: each with its permission, the kind of its peer and the peer."""
    permissions = [_permission(scope, group, given) for given in required(params, "IpPermissions")]
    rules = [(permission, key, peer) for permission in permissions for key in _PEERS for peer in permission[key]]
    if not rules:
        raise missing("groups or ipRanges")
    return rules


def revoke_security_group_ingress(scope: Scope, params: Wire) -> Doc:
    return _revoked(scope, params, INGRESS)


def revoke_security_group_egress(scope: Scope, params: Wire) -> Doc:
    return _revoked(scope, params, EGRESS)


def _revoked(scope: Scope, params: Wire, direction: str) -> Doc:
    """Take rules away. Of a VPC that is not the default one, AWS refuses a rule that is not there."""
    group = SECURITY_GROUP.find(scope, required(params, "GroupId"))
    for permission, key, peer in _rules(scope, group, params):
        there = _same_span(group[direction], _span(permission))
        name = _PEERS[key]
        if there is None or peer[name] not in [each[name] for each in there[key]]:
            raise ApiError("InvalidPermission.NotFound", "The specified rule does not exist in this security group.")
        there[key] = [each for each in there[key] if each[name] != peer[name]]
        if not any(there[each] for each in _PEERS):
            group[direction].remove(there)
    SECURITY_GROUP.keep(scope, group)
    return {"Return": True}


def _permission(scope: Scope, group: Doc, given: Wire) -> Doc:
    only(given, "IpProtocol FromPort ToPort IpRanges Ipv6Ranges UserIdGroupPairs PrefixListIds", "IpPermissions")
    if given.get("PrefixListIds"):
        raise NotSimulated("prefix lists")
    protocol = {"6": "tcp", "17": "udp", "1": "icmp"}.get(given.get("IpProtocol", ""), given.get("IpProtocol"))
    if not protocol:
        raise missing("ipProtocol")
    if protocol not in ("tcp", "udp", "icmp", "-1"):
        raise invalid(f"Invalid value '{protocol}' for IP protocol. Unknown protocol.")
    permission: Doc = {"IpProtocol": protocol}
    if protocol != "-1":
        low, high = given.get("FromPort"), given.get("ToPort")
        if low is None or high is None:
            raise invalid("Invalid value 'Must specify both from and to ports with TCP/UDP.' for portRange.")
        if protocol != "icmp":
            if not (0 <= low <= 65535 and 0 <= high <= 65535):
                raise invalid(f"Invalid value '{low}-{high}' for portRange. Must be in the range 0-65535.")
            if low > high:
                raise invalid(f"Invalid TCP/UDP port range ({low}:{high})")
        permission |= {"FromPort": low, "ToPort": high}
    permission["IpRanges"] = [_range(each, "CidrIp", ipaddress.IPv4Network) for each in given.get("IpRanges") or []]
    permission["Ipv6Ranges"] = [
        _range(each, "CidrIpv6", ipaddress.IPv6Network) for each in given.get("Ipv6Ranges") or []
    ]
    permission["UserIdGroupPairs"] = [_pair(scope, group, each) for each in given.get("UserIdGroupPairs") or []]
    permission["PrefixListIds"] = []
    return permission


def _range(given: Wire, key: str, network: type[ipaddress.IPv4Network] | type[ipaddress.IPv6Network]) -> Doc:
    only(given, f"{key} Description", "IpRanges")
    try:
        block = str(network(given.get(key, ""), strict=False))
    except ValueError:
        raise invalid(f"CIDR block {given.get(key, '')} is malformed") from None
    return {**given, key: block}


def _pair(scope: Scope, group: Doc, given: Wire) -> Doc:
    only(given, "GroupId UserId Description", "UserIdGroupPairs")
    other = SECURITY_GROUP.find(scope, required(given, "GroupId"))
    if other["VpcId"] != group["VpcId"]:
        raise ApiError(
            "InvalidGroup.NotFound",
            f"You have specified two resources that belong to different networks: {other['GroupId']}",
        )
    return {"UserId": scope.account, **given}


def _span(permission: Doc) -> Doc:
    return {name: permission[name] for name in ("IpProtocol", "FromPort", "ToPort") if name in permission}


def _same_span(permissions: Sequence[Doc], span: Doc) -> Doc | None:
    """What a group permits of exactly that protocol and those ports."""
    return next((each for each in permissions if _span(each) == span), None)


def _authorize(scope: Scope, group: Doc, direction: str, permission: Doc, key: str, peer: Doc) -> Doc:
    """Add one rule to a group. Raises ApiError where it is there."""
    ports = _span(permission)
    there = _same_span(group[direction], ports)
    if there is None:
        there = {**ports, "IpRanges": [], "Ipv6Ranges": [], "PrefixListIds": [], "UserIdGroupPairs": []}
        group[direction].append(there)
    name = _PEERS[key]
    if any(each[name] == peer[name] for each in there[key]):
        span = f"from port: {ports['FromPort']}, to port: {ports['ToPort']}, " if "FromPort" in ports else ""
        raise ApiError(
            "InvalidPermission.Duplicate",
            f'the specified rule "peer: {peer[name]}, {ports["IpProtocol"].upper()}, {span}ALLOW" already exists',
        )
    there[key] = [*there[key], peer]
    rule: Doc = {
        "SecurityGroupRuleId": f"sgr-{scope.new_id(17)}",
        "GroupId": group["GroupId"],
        "GroupOwnerId": scope.account,
        "IsEgress": direction == EGRESS,
        "FromPort": -1,
        "ToPort": -1,
        **ports,
    }
    if key == "UserIdGroupPairs":
        rule["ReferencedGroupInfo"] = {"GroupId": peer["GroupId"], "UserId": peer["UserId"]}
    else:
        rule["CidrIpv4" if key == "IpRanges" else "CidrIpv6"] = peer[name]
    if "Description" in peer:
        rule["Description"] = peer["Description"]
    return rule


_DESCRIBE_GROUPS = Query(
    "DescribeSecurityGroups",
    {
        "description": "Description",
        "group-id": "GroupId",
        "group-name": "GroupName",
        "ip-permission.cidr": "IpPermissions.IpRanges.CidrIp",
        "ip-permission.from-port": "IpPermissions.FromPort",
        "ip-permission.group-id": "IpPermissions.UserIdGroupPairs.GroupId",
        "ip-permission.protocol": "IpPermissions.IpProtocol",
        "ip-permission.to-port": "IpPermissions.ToPort",
        "owner-id": "OwnerId",
        "vpc-id": "VpcId",
    },
    "GroupId",
)


def describe_security_groups(scope: Scope, params: Wire) -> Doc:
    found = [shown(group) for group in chosen(scope, SECURITY_GROUP, params.get("GroupIds"))]
    return _DESCRIBE_GROUPS.page(params, "SecurityGroups", _DESCRIBE_GROUPS.select(params, found), ids="GroupIds")


def delete_security_group(scope: Scope, params: Wire) -> Doc:
    group = SECURITY_GROUP.find(scope, required(params, "GroupId"))
    name = group["GroupId"]
    if group["default"]:
        raise ApiError("CannotDelete", f'the specified group: "{name}" name: "default" cannot be deleted by a user')
    referring = any(
        pair["GroupId"] == name
        for other in scope.all(SECURITY_GROUP.name)
        if other["GroupId"] != name
        for permission in (*other[INGRESS], *other[EGRESS])
        for pair in permission["UserIdGroupPairs"]
    )
    machines = any(each["GroupId"] == name for machine in _instances(scope) for each in machine["SecurityGroups"])
    balancers = any(name in balancer["SecurityGroups"] for balancer in _balancers(scope, group["VpcId"]))
    if referring or machines or balancers:
        raise ApiError("DependencyViolation", f"resource {name} has a dependent object")
    SECURITY_GROUP.drop(scope, group)
    return {"Return": True, "GroupId": name}


def default_group(scope: Scope, vpc: str) -> Doc:
    for group in scope.all(SECURITY_GROUP.name):
        if group["VpcId"] == vpc and group["default"]:
            return group
    raise VPC.absent(vpc)


# -------------------------------------------------------------------------------------- internet gateways, routes


def create_internet_gateway(scope: Scope, params: Wire) -> Doc:
    tags = specified_tags(params.get("TagSpecifications"), "internet-gateway")["internet-gateway"]
    gateway: Doc = {
        "InternetGatewayId": GATEWAY.new_id(scope),
        "Attachments": [],
        "OwnerId": scope.account,
        "tags": tags,
    }
    GATEWAY.keep(scope, gateway)
    return {"InternetGateway": shown(gateway)}


def _attached_to(gateway: Doc) -> str | None:
    attachments: Sequence[Doc] = gateway["Attachments"]
    return attachments[0]["VpcId"] if attachments else None


def attach_internet_gateway(scope: Scope, params: Wire) -> Doc:
    gateway = GATEWAY.find(scope, required(params, "InternetGatewayId"))
    vpc = VPC.find(scope, required(params, "VpcId"))["VpcId"]
    if (there := _attached_to(gateway)) is not None:
        raise ApiError(
            "Resource.AlreadyAssociated",
            f"resource {gateway['InternetGatewayId']} is already attached to network {there}",
        )
    if any(_attached_to(other) == vpc for other in scope.all(GATEWAY.name)):
        raise invalid(f"Network {vpc} already has an internet gateway attached")
    gateway["Attachments"] = [{"State": "available", "VpcId": vpc}]
    GATEWAY.keep(scope, gateway)
    return {}


def detach_internet_gateway(scope: Scope, params: Wire) -> Doc:
    gateway = GATEWAY.find(scope, required(params, "InternetGatewayId"))
    vpc = VPC.find(scope, required(params, "VpcId"))["VpcId"]
    if _attached_to(gateway) != vpc:
        raise ApiError(
            "Gateway.NotAttached", f"resource {gateway['InternetGatewayId']} is not attached to network {vpc}"
        )
    if any(balancer["Scheme"] == "internet-facing" for balancer in _balancers(scope, vpc)):
        raise ApiError(
            "DependencyViolation",
            f"Network {vpc} has some mapped public address(es). Please unmap those public address(es) before "
            "detaching the gateway.",
        )
    gateway["Attachments"] = []
    GATEWAY.keep(scope, gateway)
    for table in scope.all(ROUTES.name):
        for route in table["Routes"]:
            if route.get("GatewayId") == gateway["InternetGatewayId"]:
                route["State"] = "blackhole"
        ROUTES.keep(scope, table)
    return {}


def delete_internet_gateway(scope: Scope, params: Wire) -> Doc:
    gateway = GATEWAY.find(scope, required(params, "InternetGatewayId"))
    if _attached_to(gateway) is not None:
        raise ApiError(
            "DependencyViolation",
            f"The internetGateway '{gateway['InternetGatewayId']}' has dependencies and cannot be deleted.",
        )
    GATEWAY.drop(scope, gateway)
    return {}


_DESCRIBE_GATEWAYS = Query(
    "DescribeInternetGateways",
    {
        "internet-gateway-id": "InternetGatewayId",
        "attachment.vpc-id": "Attachments.VpcId",
        "attachment.state": "Attachments.State",
        "owner-id": "OwnerId",
    },
    "InternetGatewayId",
)


def describe_internet_gateways(scope: Scope, params: Wire) -> Doc:
    found = [shown(gateway) for gateway in chosen(scope, GATEWAY, params.get("InternetGatewayIds"))]
    found = _DESCRIBE_GATEWAYS.select(params, found)
    return _DESCRIBE_GATEWAYS.page(params, "InternetGateways", found, ids="InternetGatewayIds")


_DESCRIBE_ROUTES = Query(
    "DescribeRouteTables",
    {
        "route-table-id": "RouteTableId",
        "vpc-id": "VpcId",
        "owner-id": "OwnerId",
        "association.main": "Associations.Main",
        "association.subnet-id": "Associations.SubnetId",
        "association.route-table-association-id": "Associations.RouteTableAssociationId",
        "route.destination-cidr-block": "Routes.DestinationCidrBlock",
        "route.gateway-id": "Routes.GatewayId",
        "route.state": "Routes.State",
    },
    "RouteTableId",
    (5, 100),
)


def describe_route_tables(scope: Scope, params: Wire) -> Doc:
    found = [shown(table) for table in chosen(scope, ROUTES, params.get("RouteTableIds"))]
    found = _DESCRIBE_ROUTES.select(params, found)
    return _DESCRIBE_ROUTES.page(params, "RouteTables", found, ids="RouteTableIds")


def create_route(scope: Scope, params: Wire) -> Doc:
    table = ROUTES.find(scope, required(params, "RouteTableId"))
    destination = str(_network(required(params, "DestinationCidrBlock")))
    gateway = GATEWAY.find(scope, required(params, "GatewayId"))
    name = gateway["InternetGatewayId"]
    if _attached_to(gateway) != table["VpcId"]:
        raise invalid(f"route table {table['RouteTableId']} and network gateway {name} belong to different networks")
    for route in table["Routes"]:
        if route["DestinationCidrBlock"] == destination:
            if route["GatewayId"] == name and route["State"] == "active":
                return {"Return": True}
            raise ApiError("RouteAlreadyExists", f"The route identified by {destination} already exists.")
    table["Routes"].append(
        {"DestinationCidrBlock": destination, "GatewayId": name, "Origin": "CreateRoute", "State": "active"}
    )
    ROUTES.keep(scope, table)
    return {"Return": True}


def delete_route(scope: Scope, params: Wire) -> Doc:
    table = ROUTES.find(scope, required(params, "RouteTableId"))
    destination = str(_network(required(params, "DestinationCidrBlock")))
    for route in table["Routes"]:
        if route["DestinationCidrBlock"] == destination:
            break
    else:
        raise ApiError(
            "InvalidRoute.NotFound",
            f"no route with destination-cidr-block {destination} in route table {table['RouteTableId']}",
        )
    if route["GatewayId"] == "local":
        raise invalid(f"cannot remove local route {destination} in route table {table['RouteTableId']}")
    table["Routes"].remove(route)
    ROUTES.keep(scope, table)
    return {}


def _new_table(scope: Scope, vpc: Doc, tags: dict[str, str]) -> Doc:
    local = {
        "DestinationCidrBlock": vpc["CidrBlock"],
        "GatewayId": "local",
        "Origin": "CreateRouteTable",
        "State": "active",
    }
    table: Doc = {
        "RouteTableId": ROUTES.new_id(scope),
        "VpcId": vpc["VpcId"],
        "OwnerId": scope.account,
        "Associations": [],
        "Routes": [local],
        "PropagatingVgws": [],
        "tags": tags,
    }
    ROUTES.keep(scope, table)
    return table


def _associate(scope: Scope, table: Doc, subject: Doc) -> Doc:
    association: Doc = {
        "Main": False,
        "RouteTableAssociationId": f"rtbassoc-{scope.new_id(17)}",
        "RouteTableId": table["RouteTableId"],
        "AssociationState": {"State": "associated"},
        **subject,
    }
    table["Associations"].append(association)
    ROUTES.keep(scope, table)
    return association


def _is_main(table: Doc) -> bool:
    return any(association["Main"] for association in table["Associations"])


def create_route_table(scope: Scope, params: Wire) -> Doc:
    table = repeated(scope, "CreateRouteTable", params)
    if table is None:
        vpc = VPC.find(scope, required(params, "VpcId"))
        tags = specified_tags(params.get("TagSpecifications"), "route-table")["route-table"]
        table = _new_table(scope, vpc, tags)
        remember(scope, "CreateRouteTable", params, table)
    return {"RouteTable": shown(table)}


def delete_route_table(scope: Scope, params: Wire) -> Doc:
    """Refused while a subnet has it, and for a VPC's main one; its routes go with it."""
    table = ROUTES.find(scope, required(params, "RouteTableId"))
    if table["Associations"]:
        raise ApiError(
            "DependencyViolation", f"The routeTable '{table['RouteTableId']}' has dependencies and cannot be deleted."
        )
    ROUTES.drop(scope, table)
    return {}


def associate_route_table(scope: Scope, params: Wire) -> Doc:
    table = ROUTES.find(scope, required(params, "RouteTableId"))
    if params.get("GatewayId"):
        raise NotSimulated("route tables of gateways")
    subnet = SUBNET.find(scope, required(params, "SubnetId"))
    name, number = subnet["SubnetId"], table["RouteTableId"]
    if subnet["VpcId"] != table["VpcId"]:
        raise invalid(f"route table {number} and subnet {name} belong to different networks")
    if any(each.get("SubnetId") == name for other in scope.all(ROUTES.name) for each in other["Associations"]):
        raise ApiError(
            "Resource.AlreadyAssociated",
            f"the specified association for route table {number} conflicts with an existing association",
        )
    made = _associate(scope, table, {"SubnetId": name})
    return {"AssociationId": made["RouteTableAssociationId"], "AssociationState": made["AssociationState"]}


def disassociate_route_table(scope: Scope, params: Wire) -> Doc:
    name = required(params, "AssociationId")
    for table in scope.all(ROUTES.name):
        for association in table["Associations"]:
            if association["RouteTableAssociationId"] != name:
                continue
            if association["Main"]:
                raise invalid(f"cannot disassociate the main route table association {name}")
            table["Associations"].remove(association)
            ROUTES.keep(scope, table)
            return {}
    raise ApiError("InvalidAssociationID.NotFound", f"The association ID '{name}' does not exist")
