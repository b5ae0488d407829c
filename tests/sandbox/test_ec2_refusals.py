"""What EC2 refuses, the sandbox refuses with the same code, and nothing is changed by it.

Sources: "codes" is the EC2 API reference, "Error codes for the Amazon EC2 API"; an operation's name is its page there;
"seen" is what the service answers without the reference saying so.
"""

# A row of the table is a line of the file.
# ruff: noqa: E501

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from osvdeploy.sandbox.errors import ApiError, NotSimulated
from osvdeploy.sandbox.services import ec2
from osvdeploy.sandbox.services.ec2 import resources
from tests.sandbox.ec2_world import Ec2World, image_params

NOWHERE = "0" * 16 + "f"


@dataclass(frozen=True, slots=True)
class Scene:
    """An account that holds one of everything; never changed by what is refused."""

    world: Ec2World
    names: Mapping[str, str]


@pytest.fixture(scope="module")
def scene() -> Scene:
    world = Ec2World()
    vpc, subnet = world.network()
    other_vpc, other_subnet = world.network()
    snapshot = world.snapshot()
    pending = world.snapshot(finish=False)
    image = world.image(snapshot)
    no_ena = world.image(snapshot, Name="no ena", EnaSupport=False)
    uefi = world.image(snapshot, Name="uefi", BootMode="uefi")
    fresh = world.call("RegisterImage", **image_params(snapshot) | {"Name": "fresh"})["ImageId"]
    group = world.call("CreateSecurityGroup", GroupName="web", Description="web", VpcId=vpc)["GroupId"]
    world.call("AuthorizeSecurityGroupIngress", GroupId=group, IpPermissions=[tcp(80)])
    gateway = world.call("CreateInternetGateway")["InternetGateway"]["InternetGatewayId"]
    world.call("AttachInternetGateway", InternetGatewayId=gateway, VpcId=vpc)
    free = world.call("CreateInternetGateway")["InternetGateway"]["InternetGatewayId"]
    table = world.call("DescribeRouteTables", Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"][0]
    public = world.call("CreateRouteTable", VpcId=vpc, ClientToken="used")["RouteTable"]["RouteTableId"]
    world.call("AssociateRouteTable", RouteTableId=public, SubnetId=subnet)
    template = world.call(
        "CreateLaunchTemplate",
        LaunchTemplateName="hello",
        LaunchTemplateData={"ImageId": image, "InstanceType": "t3.small"},
        ClientToken="used",
    )["LaunchTemplate"]["LaunchTemplateId"]
    instance = world.run(image, SubnetId=subnet, SecurityGroupIds=[group], ClientToken="used")
    ended = world.run(image, SubnetId=other_subnet, ClientToken="ended")
    world.call("TerminateInstances", InstanceIds=[ended])
    world.ec2.terminate(ended)
    names = {
        "vpc": vpc,
        "other_vpc": other_vpc,
        "subnet": subnet,
        "other_subnet": other_subnet,
        "snapshot": snapshot,
        "pending": pending,
        "image": image,
        "no_ena": no_ena,
        "uefi": uefi,
        "fresh": fresh,
        "group": group,
        "default": world.ec2.default_security_group(vpc),
        "other_group": world.ec2.default_security_group(other_vpc),
        "gateway": gateway,
        "free": free,
        "table": table["RouteTableId"],
        "main": table["Associations"][0]["RouteTableAssociationId"],
        "public": public,
        "template": template,
        "instance": instance,
        "ended": ended,
    }
    return Scene(world, names)


def tcp(port: int, low: int | None = None, cidr: str = "0.0.0.0/0") -> dict[str, Any]:
    low = port if low is None else low
    return {"IpProtocol": "tcp", "FromPort": low, "ToPort": port, "IpRanges": [{"CidrIp": cidr}]}


ANYWHERE = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}

Names = Mapping[str, str]
Params = Callable[[Names], dict[str, Any]]


def fixed(**params: Any) -> Params:
    return lambda names: params


def named(**params: str) -> Params:
    """Parameters whose values are the scene's names."""
    return lambda names: {key: names[value] for key, value in params.items()}


def run(**changes: Any) -> Params:
    """RunInstances as it should be, but for ``changes``; ``$name`` stands for the scene's name, None leaves out."""

    def params(names: Names) -> dict[str, Any]:
        good = {"ImageId": "$image", "InstanceType": "t3.small", "MinCount": 1, "MaxCount": 1, "SubnetId": "$subnet"}
        filled = {key: _filled(value, names) for key, value in {**good, **changes}.items()}
        return {key: value for key, value in filled.items() if value is not None}

    return params


def _filled(value: Any, names: Names) -> Any:
    if isinstance(value, str) and value[:1] == "$" and value[1:] in names:
        return names[value[1:]]
    if isinstance(value, list):
        return [_filled(part, names) for part in value]
    if isinstance(value, dict):
        return {key: _filled(part, names) for key, part in value.items()}
    return value


def register(**changes: Any) -> Params:
    def params(names: Names) -> dict[str, Any]:
        good = image_params(names["snapshot"]) | {"Name": "another"}
        return {key: _filled(value, names) for key, value in {**good, **changes}.items() if value is not None}

    return params


def disk(**ebs: Any) -> list[dict[str, Any]]:
    return [{"DeviceName": "xvda", "Ebs": {"SnapshotId": "$snapshot", **ebs}}]


def wanted(**params: Any) -> Params:
    return lambda names: _filled(params, names)


def tags(key: str, value: str = "", count: int = 1) -> list[dict[str, str]]:
    return [{"Key": key + (str(number) if number else ""), "Value": value} for number in range(count)]


def spec(kind: str, *given: dict[str, str]) -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": list(given)}]


DATA = {"ImageId": "$image", "InstanceType": "t3.small"}

REFUSED: list[tuple[str, Params, str, str, str]] = [
    # operation, parameters, what is wrong, AWS's code, source
    ("DescribeInstances", fixed(InstanceIds=[f"i-{NOWHERE}"]), "unknown id", "InvalidInstanceID.NotFound", "codes"),
    ("DescribeInstances", fixed(InstanceIds=["i-no"]), "no id", "InvalidInstanceID.Malformed", "codes"),
    ("DescribeInstances", fixed(Filters=[{"Name": "colour", "Values": ["red"]}]), "filter", "InvalidParameterValue", "codes"),
    ("DescribeInstances", fixed(Filters=[{"Name": "vpc-id", "Values": []}]), "no value", "InvalidParameterValue", "codes"),
    ("DescribeInstances", fixed(Filters=[{"Name": "vpc-id", "Values": ["x"] * 201}]), "values", "FilterLimitExceeded", "codes"),
    ("DescribeInstances", fixed(MaxResults=4), "small page", "InvalidParameterValue", "DescribeInstances"),
    ("DescribeInstances", fixed(MaxResults=1001), "large page", "InvalidParameterValue", "DescribeInstances"),
    ("DescribeInstances", wanted(MaxResults=5, InstanceIds=["$instance"]), "page of ids", "InvalidParameterCombination", "DescribeInstances"),
    ("DescribeInstances", fixed(NextToken="no token"), "token", "InvalidParameterValue", "seen"),
    ("DescribeInstanceStatus", fixed(InstanceIds=[f"i-{NOWHERE}"]), "unknown id", "InvalidInstanceID.NotFound", "codes"),
    ("GetConsoleOutput", fixed(InstanceId=f"i-{NOWHERE}"), "unknown id", "InvalidInstanceID.NotFound", "codes"),
    ("GetConsoleOutput", fixed(), "no id", "MissingParameter", "codes"),
    ("TerminateInstances", fixed(InstanceIds=[f"i-{NOWHERE}"]), "unknown id", "InvalidInstanceID.NotFound", "codes"),
    ("TerminateInstances", wanted(InstanceIds=["$instance", f"i-{NOWHERE}"]), "one unknown", "InvalidInstanceID.NotFound", "TerminateInstances"),
    ("StopInstances", wanted(InstanceIds=["$ended"]), "terminated", "IncorrectInstanceState", "codes"),
    ("StartInstances", wanted(InstanceIds=["$ended"]), "terminated", "IncorrectInstanceState", "codes"),
    ("RunInstances", run(ImageId=f"ami-{NOWHERE}"), "unknown image", "InvalidAMIID.NotFound", "codes"),
    ("RunInstances", run(ImageId="ami-x"), "no image id", "InvalidAMIID.Malformed", "codes"),
    ("RunInstances", run(ImageId="$fresh"), "image still pending", "InvalidAMIID.Unavailable", "codes"),
    ("RunInstances", run(ImageId=None), "no image", "MissingParameter", "codes"),
    ("RunInstances", run(InstanceType="t3.huge"), "unknown type", "InvalidParameterValue", "seen"),
    ("RunInstances", run(InstanceType="t4g.small"), "x86_64 image, arm64 type", "InvalidParameterValue", "seen"),
    ("RunInstances", run(ImageId="$uefi", InstanceType="t2.micro"), "UEFI image on Xen", "InvalidParameterValue", "seen"),
    ("RunInstances", run(ImageId="$no_ena"), "Nitro needs ENA", "InvalidParameterCombination", "seen"),
    ("RunInstances", run(SubnetId=f"subnet-{NOWHERE}"), "unknown subnet", "InvalidSubnetID.NotFound", "codes"),
    ("RunInstances", run(SubnetId=None), "no subnet, no default VPC", "VPCIdNotSpecified", "codes"),
    ("RunInstances", run(SecurityGroupIds=[f"sg-{NOWHERE}"]), "unknown group", "InvalidGroup.NotFound", "codes"),
    ("RunInstances", run(SecurityGroupIds=["$other_group"]), "group of another VPC", "InvalidParameter", "seen"),
    ("RunInstances", run(MinCount=0), "none", "InvalidParameterValue", "RunInstances"),
    ("RunInstances", run(MinCount=3, MaxCount=2), "least above most", "InvalidParameterValue", "RunInstances"),
    ("RunInstances", run(MinCount=252, MaxCount=252), "more than addresses", "InsufficientFreeAddressesInSubnet", "codes"),
    ("RunInstances", run(PrivateIpAddress="10.0.1.4"), "address in use", "InvalidIPAddress.InUse", "codes"),
    ("RunInstances", run(PrivateIpAddress="10.0.1.3"), "AWS's own address", "InvalidParameterValue", "seen"),
    ("RunInstances", run(PrivateIpAddress="here"), "no address", "InvalidParameterValue", "seen"),
    ("RunInstances", run(PrivateIpAddress="10.0.1.9", MaxCount=2), "one address, two", "InvalidParameterCombination", "RunInstances"),
    ("RunInstances", run(InstanceInitiatedShutdownBehavior="burn"), "behaviour", "InvalidParameterValue", "RunInstances"),
    ("RunInstances", run(MetadataOptions={"HttpTokens": "maybe"}), "tokens", "InvalidParameterValue", "RunInstances"),
    ("RunInstances", run(MetadataOptions={"HttpPutResponseHopLimit": 65}), "hops", "InvalidParameterValue", "RunInstances"),
    ("RunInstances", run(ClientToken="used", MaxCount=2), "token, other request", "IdempotentParameterMismatch", "codes"),
    ("RunInstances", run(ClientToken="x" * 65), "long token", "InvalidParameterValue", "RunInstances"),
    ("RunInstances", run(TagSpecifications=spec("vpc", *tags("a"))), "tags of a VPC", "InvalidParameterValue", "seen"),
    ("RunInstances", run(TagSpecifications=spec("instance", *tags("aws:a"))), "AWS's tag", "InvalidParameterValue", "codes"),
    ("RunInstances", run(TagSpecifications=spec("instance", *tags("a"), *tags("a"))), "tag twice", "InvalidParameterValue", "seen"),
    ("RunInstances", run(BlockDeviceMappings=[{"DeviceName": "xvda", "Ebs": {"VolumeSize": 0}}]), "small disk", "InvalidBlockDeviceMapping", "codes"),
    ("RunInstances", run(BlockDeviceMappings=[{"DeviceName": "xvda", "Ebs": {"VolumeType": "gp9"}}]), "volume type", "InvalidParameterValue", "seen"),
    ("RunInstances", run(ImageId=None, LaunchTemplate={"LaunchTemplateId": f"lt-{NOWHERE}"}), "unknown template", "InvalidLaunchTemplateId.NotFound", "codes"),
    ("RunInstances", run(ImageId=None, LaunchTemplate={"LaunchTemplateName": "bye"}), "unknown name", "InvalidLaunchTemplateName.NotFoundException", "codes"),
    ("RunInstances", run(ImageId=None, LaunchTemplate={"LaunchTemplateId": "$template", "Version": "2"}), "unknown version", "InvalidLaunchTemplateId.VersionNotFound", "codes"),
    ("RunInstances", run(LaunchTemplate={}), "no template", "MissingParameter", "codes"),
    ("RunInstances", run(LaunchTemplate={"LaunchTemplateId": "$template", "LaunchTemplateName": "hello"}), "id and name", "InvalidParameterCombination", "codes"),
    ("CreateLaunchTemplate", wanted(LaunchTemplateName="hello", LaunchTemplateData=DATA), "taken name", "InvalidLaunchTemplateName.AlreadyExistsException", "codes"),
    ("CreateLaunchTemplate", wanted(LaunchTemplateName="a b", LaunchTemplateData=DATA), "bad name", "InvalidLaunchTemplateName.MalformedException", "codes"),
    ("CreateLaunchTemplate", fixed(LaunchTemplateName="empty", LaunchTemplateData={}), "no data", "MissingParameter", "codes"),
    ("CreateLaunchTemplate", fixed(LaunchTemplateName="image", LaunchTemplateData={"ImageId": "x"}), "no image id", "InvalidAMIID.Malformed", "codes"),
    ("CreateLaunchTemplate", wanted(LaunchTemplateName="bye", LaunchTemplateData=DATA, ClientToken="used"), "token, other request", "IdempotentParameterMismatch", "codes"),
    ("CreateLaunchTemplateVersion", wanted(LaunchTemplateName="bye", LaunchTemplateData=DATA), "unknown name", "InvalidLaunchTemplateName.NotFoundException", "codes"),
    ("CreateLaunchTemplateVersion", wanted(LaunchTemplateName="hello", LaunchTemplateData=DATA, SourceVersion="7"), "unknown source", "InvalidLaunchTemplateId.VersionNotFound", "codes"),
    ("DescribeLaunchTemplates", fixed(LaunchTemplateNames=["bye"]), "unknown name", "InvalidLaunchTemplateName.NotFoundException", "codes"),
    ("DescribeLaunchTemplates", fixed(LaunchTemplateIds=[f"lt-{NOWHERE}"]), "unknown id", "InvalidLaunchTemplateId.NotFound", "codes"),
    ("DescribeLaunchTemplates", fixed(LaunchTemplateIds=["hello"]), "no id", "InvalidLaunchTemplateId.Malformed", "codes"),
    ("DescribeLaunchTemplates", fixed(MaxResults=201), "large page", "InvalidParameterValue", "DescribeLaunchTemplates"),
    ("DescribeLaunchTemplateVersions", wanted(LaunchTemplateId="$template", Versions=["2"]), "unknown version", "InvalidLaunchTemplateId.VersionNotFound", "codes"),
    ("DescribeLaunchTemplateVersions", fixed(Versions=["1"]), "number of no template", "MissingParameter", "DescribeLaunchTemplateVersions"),
    ("DeleteLaunchTemplate", fixed(LaunchTemplateName="bye"), "unknown name", "InvalidLaunchTemplateName.NotFoundException", "codes"),
    ("RegisterImage", register(Name="hello 1.0"), "taken name", "InvalidAMIName.Duplicate", "codes"),
    ("RegisterImage", register(Name="hello!"), "bad name", "InvalidAMIName.Malformed", "codes"),
    ("RegisterImage", register(Name="he"), "short name", "InvalidAMIName.Malformed", "codes"),
    ("RegisterImage", register(Name=None), "no name", "MissingParameter", "codes"),
    ("RegisterImage", register(BlockDeviceMappings=disk(SnapshotId=f"snap-{NOWHERE}")), "unknown snapshot", "InvalidSnapshot.NotFound", "codes"),
    ("RegisterImage", register(BlockDeviceMappings=disk(SnapshotId="snap")), "no snapshot id", "InvalidSnapshotID.Malformed", "codes"),
    ("RegisterImage", register(BlockDeviceMappings=disk(SnapshotId="$pending")), "unfinished snapshot", "IncorrectState", "codes"),
    ("RegisterImage", register(BlockDeviceMappings=disk(VolumeType="fast")), "volume type", "InvalidParameterValue", "RegisterImage"),
    ("RegisterImage", register(BlockDeviceMappings=disk(Encrypted=True)), "encrypted from a snapshot", "InvalidBlockDeviceMapping", "RegisterImage"),
    ("RegisterImage", register(BlockDeviceMappings=[]), "no root", "InvalidBlockDeviceMapping", "codes"),
    ("RegisterImage", register(BlockDeviceMappings=disk() + disk()), "device twice", "InvalidBlockDeviceMapping", "codes"),
    ("RegisterImage", register(RootDeviceName="xvdb"), "another root", "InvalidBlockDeviceMapping", "codes"),
    ("RegisterImage", register(Architecture="vax"), "architecture", "InvalidParameterValue", "RegisterImage"),
    ("RegisterImage", register(Architecture="arm64"), "arm64 from a BIOS", "InvalidParameterValue", "RegisterImage"),
    ("RegisterImage", register(BootMode="coreboot"), "boot mode", "InvalidParameterValue", "RegisterImage"),
    ("RegisterImage", register(VirtualizationType="full"), "virtualization", "InvalidParameterValue", "RegisterImage"),
    ("RegisterImage", register(ImdsSupport="v3"), "IMDS", "InvalidParameterValue", "RegisterImage"),
    ("RegisterImage", register(TagSpecifications=spec("image", *tags("k", count=51))), "51 tags", "TagLimitExceeded", "codes"),
    ("RegisterImage", register(TagSpecifications=spec("image", *tags("k" * 129))), "long key", "InvalidParameterValue", "Tag restrictions"),
    ("RegisterImage", register(TagSpecifications=spec("image", *tags("k", "v" * 257))), "long value", "InvalidParameterValue", "Tag restrictions"),
    ("DescribeImages", fixed(ImageIds=[f"ami-{NOWHERE}"]), "unknown image", "InvalidAMIID.NotFound", "codes"),
    ("DescribeImages", fixed(Owners=["me"]), "no owner", "InvalidUserID.Malformed", "codes"),
    ("DeregisterImage", fixed(ImageId=f"ami-{NOWHERE}"), "unknown image", "InvalidAMIID.NotFound", "codes"),
    ("DescribeSnapshots", fixed(SnapshotIds=[f"snap-{NOWHERE}"]), "unknown snapshot", "InvalidSnapshot.NotFound", "codes"),
    ("DeleteSnapshot", fixed(SnapshotId=f"snap-{NOWHERE}"), "unknown snapshot", "InvalidSnapshot.NotFound", "codes"),
    ("DeleteSnapshot", named(SnapshotId="snapshot"), "under an image", "InvalidSnapshot.InUse", "codes"),
    ("CreateTags", fixed(Resources=[f"ami-{NOWHERE}"], Tags=tags("a")), "unknown image", "InvalidAMIID.NotFound", "codes"),
    ("CreateTags", fixed(Resources=["thing-1"], Tags=tags("a")), "no resource", "InvalidID", "codes"),
    ("CreateTags", wanted(Resources=["$image"], Tags=tags("aws:a")), "AWS's tag", "InvalidParameterValue", "Tag restrictions"),
    ("CreateTags", wanted(Resources=["$image"], Tags=[]), "no tags", "MissingParameter", "codes"),
    ("CreateTags", wanted(Resources=["$image", f"vpc-{NOWHERE}"], Tags=tags("a")), "one unknown", "InvalidVpcID.NotFound", "codes"),
    ("DeleteTags", fixed(Resources=[f"i-{NOWHERE}"]), "unknown instance", "InvalidInstanceID.NotFound", "codes"),
    ("CreateVpc", fixed(CidrBlock="10.0.0.0/8"), "large network", "InvalidVpc.Range", "codes"),
    ("CreateVpc", fixed(CidrBlock="10.0.0.0/29"), "small network", "InvalidVpc.Range", "codes"),
    ("CreateVpc", fixed(CidrBlock="home"), "no network", "InvalidParameterValue", "codes"),
    ("DescribeVpcs", fixed(VpcIds=[f"vpc-{NOWHERE}"]), "unknown VPC", "InvalidVpcID.NotFound", "codes"),
    ("DeleteVpc", named(VpcId="vpc"), "with subnets", "DependencyViolation", "DeleteVpc"),
    ("DeleteVpc", fixed(VpcId=f"vpc-{NOWHERE}"), "unknown VPC", "InvalidVpcID.NotFound", "codes"),
    ("CreateSubnet", wanted(VpcId="$vpc", CidrBlock="10.1.0.0/24"), "outside", "InvalidSubnet.Range", "codes"),
    ("CreateSubnet", wanted(VpcId="$vpc", CidrBlock="10.0.2.0/29"), "too small", "InvalidSubnet.Range", "codes"),
    ("CreateSubnet", wanted(VpcId="$vpc", CidrBlock="10.0.1.128/25"), "overlaps", "InvalidSubnet.Conflict", "codes"),
    ("CreateSubnet", wanted(VpcId="$vpc", CidrBlock="10.0.2.0/24", AvailabilityZone="eu-west-1z"), "zone", "InvalidParameterValue", "seen"),
    ("CreateSubnet", fixed(VpcId=f"vpc-{NOWHERE}", CidrBlock="10.0.2.0/24"), "unknown VPC", "InvalidVpcID.NotFound", "codes"),
    ("DescribeSubnets", fixed(SubnetIds=[f"subnet-{NOWHERE}"]), "unknown subnet", "InvalidSubnetID.NotFound", "codes"),
    ("DeleteSubnet", named(SubnetId="subnet"), "with an instance", "DependencyViolation", "codes"),
    ("CreateSecurityGroup", wanted(GroupName="web", Description="x", VpcId="$vpc"), "taken name", "InvalidGroup.Duplicate", "codes"),
    ("CreateSecurityGroup", wanted(GroupName="default", Description="x", VpcId="$vpc"), "reserved name", "InvalidGroup.Reserved", "codes"),
    ("CreateSecurityGroup", wanted(GroupName="sg-1", Description="x", VpcId="$vpc"), "name like an id", "InvalidParameterValue", "CreateSecurityGroup"),
    ("CreateSecurityGroup", wanted(GroupName="more", VpcId="$vpc"), "no description", "MissingParameter", "codes"),
    ("CreateSecurityGroup", fixed(GroupName="more", Description="x"), "no VPC", "VPCIdNotSpecified", "codes"),
    ("AuthorizeSecurityGroupIngress", wanted(GroupId="$group", IpPermissions=[tcp(80)]), "rule is there", "InvalidPermission.Duplicate", "codes"),
    ("AuthorizeSecurityGroupIngress", wanted(GroupId="$group", IpPermissions=[tcp(81), tcp(80)]), "one is there", "InvalidPermission.Duplicate", "codes"),
    ("AuthorizeSecurityGroupIngress", wanted(GroupId="$group", IpPermissions=[tcp(70000)]), "port", "InvalidParameterValue", "seen"),
    ("AuthorizeSecurityGroupIngress", wanted(GroupId="$group", IpPermissions=[tcp(1, 9)]), "ports backwards", "InvalidParameterValue", "seen"),
    ("AuthorizeSecurityGroupIngress", wanted(GroupId="$group", IpPermissions=[tcp(9, cidr="all")]), "block", "InvalidParameterValue", "seen"),
    ("AuthorizeSecurityGroupIngress", wanted(GroupId="$group", IpPermissions=[{"IpProtocol": "carrier"}]), "protocol", "InvalidParameterValue", "seen"),
    ("AuthorizeSecurityGroupIngress", fixed(GroupId=f"sg-{NOWHERE}", IpPermissions=[tcp(9)]), "unknown group", "InvalidGroup.NotFound", "codes"),
    ("AuthorizeSecurityGroupEgress", wanted(GroupId="$group", IpPermissions=[ANYWHERE]), "rule is there", "InvalidPermission.Duplicate", "codes"),
    ("RevokeSecurityGroupIngress", wanted(GroupId="$group", IpPermissions=[tcp(81)]), "no such ports", "InvalidPermission.NotFound", "codes"),
    ("RevokeSecurityGroupIngress", wanted(GroupId="$group", IpPermissions=[tcp(80, cidr="10.0.0.0/8")]), "no such peer", "InvalidPermission.NotFound", "RevokeSecurityGroupIngress"),
    ("RevokeSecurityGroupIngress", wanted(GroupId="$group", IpPermissions=[tcp(80), tcp(81)]), "one is not there", "InvalidPermission.NotFound", "codes"),
    ("RevokeSecurityGroupEgress", wanted(GroupId="$group", IpPermissions=[tcp(80)]), "no such rule", "InvalidPermission.NotFound", "RevokeSecurityGroupEgress"),
    ("DescribeSecurityGroups", fixed(GroupIds=["web"]), "no id", "InvalidGroupId.Malformed", "codes"),
    ("DeleteSecurityGroup", named(GroupId="default"), "the default one", "CannotDelete", "codes"),
    ("DeleteSecurityGroup", named(GroupId="group"), "in use", "DependencyViolation", "codes"),
    ("AttachInternetGateway", wanted(InternetGatewayId="$gateway", VpcId="$other_vpc"), "attached", "Resource.AlreadyAssociated", "codes"),
    ("AttachInternetGateway", wanted(InternetGatewayId="$free", VpcId="$vpc"), "VPC has one", "InvalidParameterValue", "seen"),
    ("DetachInternetGateway", wanted(InternetGatewayId="$gateway", VpcId="$other_vpc"), "not attached", "Gateway.NotAttached", "codes"),
    ("DeleteInternetGateway", named(InternetGatewayId="gateway"), "attached", "DependencyViolation", "codes"),
    ("DeleteInternetGateway", fixed(InternetGatewayId=f"igw-{NOWHERE}"), "unknown gateway", "InvalidInternetGatewayID.NotFound", "codes"),
    ("CreateRoute", wanted(RouteTableId=f"rtb-{NOWHERE}", DestinationCidrBlock="0.0.0.0/0", GatewayId="$gateway"), "unknown table", "InvalidRouteTableID.NotFound", "codes"),
    ("CreateRoute", wanted(RouteTableId="$table", DestinationCidrBlock="0.0.0.0/0", GatewayId="$free"), "gateway elsewhere", "InvalidParameterValue", "seen"),
    ("CreateRoute", wanted(RouteTableId="$table", DestinationCidrBlock="10.0.0.0/16", GatewayId="$gateway"), "route is there", "RouteAlreadyExists", "codes"),
    ("DeleteRoute", wanted(RouteTableId="$table", DestinationCidrBlock="10.0.0.0/16"), "local route", "InvalidParameterValue", "seen"),
    ("DeleteRoute", wanted(RouteTableId="$table", DestinationCidrBlock="10.77.0.0/16"), "unknown route", "InvalidRoute.NotFound", "codes"),
    ("CreateRouteTable", fixed(VpcId=f"vpc-{NOWHERE}"), "unknown VPC", "InvalidVpcID.NotFound", "codes"),
    ("CreateRouteTable", wanted(VpcId="$other_vpc", ClientToken="used"), "token, other request", "IdempotentParameterMismatch", "codes"),
    ("DeleteRouteTable", named(RouteTableId="table"), "main", "DependencyViolation", "codes"),
    ("DeleteRouteTable", named(RouteTableId="public"), "a subnet has it", "DependencyViolation", "codes"),
    ("AssociateRouteTable", named(RouteTableId="table", SubnetId="subnet"), "has another", "Resource.AlreadyAssociated", "codes"),
    ("AssociateRouteTable", named(RouteTableId="table", SubnetId="other_subnet"), "subnet of another VPC", "InvalidParameterValue", "seen"),
    ("AssociateRouteTable", wanted(RouteTableId=f"rtb-{NOWHERE}", SubnetId="$subnet"), "unknown table", "InvalidRouteTableID.NotFound", "codes"),
    ("AssociateRouteTable", wanted(RouteTableId="$table", SubnetId=f"subnet-{NOWHERE}"), "unknown subnet", "InvalidSubnetID.NotFound", "codes"),
    ("DisassociateRouteTable", named(AssociationId="main"), "main", "InvalidParameterValue", "seen"),
    ("DisassociateRouteTable", fixed(AssociationId=f"rtbassoc-{NOWHERE}"), "unknown association", "InvalidAssociationID.NotFound", "codes"),
    ("DescribeAvailabilityZones", fixed(ZoneNames=["mars-1a"]), "unknown zone", "InvalidParameterValue", "seen"),
    ("DescribeRegions", fixed(RegionNames=["mars-1"]), "unknown region", "InvalidParameterValue", "seen"),
    ("DescribeInstanceTypes", fixed(InstanceTypes=["t3.huge"]), "unknown type", "InvalidInstanceType", "codes"),
    ("DescribeVolumes", fixed(VolumeIds=[f"vol-{NOWHERE}"]), "unknown volume", "InvalidVolume.NotFound", "codes"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("operation", "params", "code"),
    [pytest.param(row[0], row[1], row[3], id=f"{row[0]}: {row[2]}") for row in REFUSED],
)
def test_what_aws_refuses_is_refused_with_its_code(scene: Scene, operation: str, params: Params, code: str) -> None:
    """The code is AWS's, the message says something, and nothing that is kept has changed."""
    before = scene.world.documents()
    with pytest.raises(ApiError) as refused:
        scene.world.call(operation, **params(scene.names))
    assert refused.value.code == code
    assert refused.value.message
    assert scene.world.documents() == before


UNSIMULATED: list[tuple[str, Params, str]] = [
    ("DescribeInstances", fixed(Filters=[{"Name": "kernel-id", "Values": ["x"]}]), "a filter that AWS has"),
    ("RunInstances", run(ImageId="$uefi"), "a guest that boots by UEFI"),
    ("RunInstances", run(InstanceType=None), "no type"),
    ("RunInstances", run(BlockDeviceMappings=[{"DeviceName": "xvdz", "Ebs": {"VolumeSize": 1}}]), "a second disk"),
    ("RunInstances", run(BlockDeviceMappings=[{"DeviceName": "xvda", "NoDevice": ""}]), "a disk taken away"),
    ("RegisterImage", register(VirtualizationType=None), "a paravirtual image"),
    ("RegisterImage", register(BlockDeviceMappings=[{"DeviceName": "xvda", "VirtualName": "ephemeral0"}]), "a store"),
    ("CreateVpc", fixed(CidrBlock="10.0.0.0/16", InstanceTenancy="dedicated"), "a tenancy"),
    ("CreateLaunchTemplate", fixed(LaunchTemplateName="new", LaunchTemplateData={"UserData": "x"}), "user data"),
]


@pytest.mark.parametrize(
    ("operation", "params"), [pytest.param(row[0], row[1], id=f"{row[0]}: {row[2]}") for row in UNSIMULATED]
)
def test_what_aws_does_and_the_sandbox_does_not_is_said(scene: Scene, operation: str, params: Params) -> None:
    """Nothing is guessed and nothing is ignored, also inside structures."""
    before = scene.world.documents()
    with pytest.raises(NotSimulated):
        scene.world.call(operation, **params(scene.names))
    assert scene.world.documents() == before


@pytest.mark.slow
def test_every_filter_is_one_that_the_api_documents() -> None:
    """A filter that works here works on AWS."""
    from osvdeploy.sandbox.services.ec2 import images, instances, machine_types, network, templates

    modules = (images, instances, machine_types, network, resources, templates)
    queries = [each for module in modules for each in vars(module).values() if isinstance(each, resources.Query)]
    assert {query.name for query in queries} <= set(ec2.OPERATIONS)
    for query in queries:
        assert set(query.filters) <= resources.documented_filters(query.name), query.name


def test_every_parameter_is_one_that_the_api_has() -> None:
    """An operation understands parameters of AWS's and no others."""
    from tests.sandbox.world import service_model

    assert set(ec2.PARAMETERS) == set(ec2.OPERATIONS)
    for operation, parameters in ec2.PARAMETERS.items():
        members = service_model("ec2").operation_model(operation).input_shape.members
        assert parameters <= set(members), operation
        assert "DryRun" not in parameters
