"""The stand-in of `pulumi-resource-aws`: the types of pulumi_aws that `stacks/aws` has, made by boto3's calls.

Properties as pulumi_aws 7 has them. Whoever starts it says where AWS is (`AWS_ENDPOINT_URL`).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from tests.pulumi.standins.cloud import Call, Document, Function, Refused, Resource, StandIn, serve


class Account:
    """The account in one region. Clients are made when they are asked for first, which takes a while."""

    def __init__(self, configured: Mapping[str, str]) -> None:
        import boto3

        self._session = boto3.Session(region_name=configured.get("region"))
        if self._session.region_name is None:
            raise Refused("no region: `pulumi config set aws:region`")

    @property
    def region(self) -> str:
        return str(self._session.region_name)

    @functools.cached_property
    def ec2(self) -> Any:
        return self._session.client("ec2")

    def refused(self, error: Exception, *codes: str) -> bool:
        """Whether AWS said no with one of these codes."""
        return getattr(error, "response", {}).get("Error", {}).get("Code") in codes


def sdk_refusals() -> tuple[type[Exception], ...]:
    from botocore.exceptions import BotoCoreError, ClientError

    return (ClientError, BotoCoreError)


def tag_specifications(kind: str, given: Document) -> list[Document]:
    tags = given.get("tags") or {}
    return [{"ResourceType": kind, "Tags": tag_list(tags)}] if tags else []


def tag_list(tags: Mapping[str, str]) -> list[Document]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def tags_of(described: Mapping[str, Any]) -> Document:
    tags = {each["Key"]: each["Value"] for each in described.get("Tags", ())}
    return {"tags": tags, "tagsAll": tags}


class Ec2Resource(Resource[Account]):
    """Something of EC2: described by its id, tagged by its id. ``noun`` and ``plural`` are the API's words."""

    noun: str
    plural: str
    key: str
    gone: str
    """The code by which EC2 says that there is none."""

    def described(self, call: Call[Account], id: str) -> Mapping[str, Any] | None:
        describe = getattr(call.cloud.ec2, f"describe_{self.plural}")
        try:
            (found,) = describe(**{f"{self.key}s": [id]})[_camel(self.plural)]
        except sdk_refusals() as error:
            if call.cloud.refused(error, self.gone):
                return None
            raise
        return dict(found)

    def read(self, call: Call[Account], id: str) -> Document | None:
        found = self.described(call, id)
        if found is None:
            return None
        return {"region": call.cloud.region, **tags_of(found), **self.properties(call, found)}

    def properties(self, call: Call[Account], found: Mapping[str, Any]) -> Document:
        raise NotImplementedError

    def update(self, call: Call[Account], id: str, given: Document, state: Document) -> None:
        wanted, there = given.get("tags") or {}, state.get("tags") or {}
        if over := [{"Key": key} for key in there if key not in wanted]:
            call.cloud.ec2.delete_tags(Resources=[id], Tags=over)
        if wanted != there and wanted:
            call.cloud.ec2.create_tags(Resources=[id], Tags=tag_list(wanted))

    def delete(self, call: Call[Account], id: str, state: Document) -> None:
        try:
            getattr(call.cloud.ec2, f"delete_{self.noun}")(**{self.key: id})
        except sdk_refusals() as error:
            if not call.cloud.refused(error, self.gone):
                raise


def _camel(words: str) -> str:
    return "".join(word.title() for word in words.split("_"))


class Vpc(Ec2Resource):
    token = "aws:ec2/vpc:Vpc"
    noun, plural, key, gone = "vpc", "vpcs", "VpcId", "InvalidVpcID.NotFound"
    required = ("cidrBlock",)
    optional = ("tags",)
    replaces = ("cidrBlock",)
    outputs = ("arn", "defaultSecurityGroupId", "mainRouteTableId", "ownerId", "region", "tagsAll")

    def create(self, call: Call[Account], given: Document) -> str:
        tags = tag_specifications("vpc", given)
        made = call.cloud.ec2.create_vpc(CidrBlock=given["cidrBlock"], TagSpecifications=tags)
        return str(made["Vpc"]["VpcId"])

    def properties(self, call: Call[Account], found: Mapping[str, Any]) -> Document:
        id, owner = found["VpcId"], found["OwnerId"]
        inside = [{"Name": "vpc-id", "Values": [id]}]
        main = [*inside, {"Name": "association.main", "Values": ["true"]}]
        default = [*inside, {"Name": "group-name", "Values": ["default"]}]
        (table,) = call.cloud.ec2.describe_route_tables(Filters=main)["RouteTables"]
        (group,) = call.cloud.ec2.describe_security_groups(Filters=default)["SecurityGroups"]
        return {
            "arn": f"arn:aws:ec2:{call.cloud.region}:{owner}:vpc/{id}",
            "cidrBlock": found["CidrBlock"],
            "defaultSecurityGroupId": group["GroupId"],
            "mainRouteTableId": table["RouteTableId"],
            "ownerId": owner,
        }


class Subnet(Ec2Resource):
    token = "aws:ec2/subnet:Subnet"
    noun, plural, key, gone = "subnet", "subnets", "SubnetId", "InvalidSubnetID.NotFound"
    required = ("vpcId",)
    optional = ("availabilityZone", "cidrBlock", "tags")
    replaces = ("availabilityZone", "cidrBlock", "vpcId")
    outputs = ("arn", "availabilityZone", "availabilityZoneId", "ownerId", "region", "tagsAll")

    def create(self, call: Call[Account], given: Document) -> str:
        where = {"AvailabilityZone": given["availabilityZone"]} if "availabilityZone" in given else {}
        made = call.cloud.ec2.create_subnet(
            VpcId=given["vpcId"],
            CidrBlock=given["cidrBlock"],
            TagSpecifications=tag_specifications("subnet", given),
            **where,
        )
        return str(made["Subnet"]["SubnetId"])

    def properties(self, call: Call[Account], found: Mapping[str, Any]) -> Document:
        return {
            "arn": found["SubnetArn"],
            "availabilityZone": found["AvailabilityZone"],
            "availabilityZoneId": found["AvailabilityZoneId"],
            "cidrBlock": found["CidrBlock"],
            "ownerId": found["OwnerId"],
            "vpcId": found["VpcId"],
        }


class AvailabilityZones(Function[Account]):
    token = "aws:index/getAvailabilityZones:getAvailabilityZones"
    arguments = ("state",)

    def invoke(self, call: Call[Account], given: Document) -> Document:
        wanted = [{"Name": "state", "Values": [given["state"]]}] if "state" in given else []
        zones = call.cloud.ec2.describe_availability_zones(Filters=wanted)["AvailabilityZones"]
        return {
            **given,
            "groupNames": sorted({each["GroupName"] for each in zones}),
            "id": call.cloud.region,
            "names": [each["ZoneName"] for each in zones],
            "region": call.cloud.region,
            "zoneIds": [each["ZoneId"] for each in zones],
        }


def stand_in() -> StandIn[Account]:
    return StandIn(
        "aws",
        version("pulumi_aws"),
        Account,
        [Vpc(), Subnet()],
        [AvailabilityZones()],
        configuration=["region"],
        refusals=sdk_refusals,
    )


if __name__ == "__main__":
    serve(stand_in())
