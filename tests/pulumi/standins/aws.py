"""The stand-in of `pulumi-resource-aws`: the types of pulumi_aws that `stacks/aws` has, made by boto3's calls.

Properties as pulumi_aws 7 has them. Whoever starts it says where AWS is (`AWS_ENDPOINT_URL`).
"""

from __future__ import annotations

import functools
import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, ClassVar

from tests.pulumi.standins.cloud import Call, Document, Function, Refused, Resource, StandIn, empty, serve


class Account:
    """The account in one region. Clients are made when they are asked for first, which takes a while."""

    def __init__(self, session: Any) -> None:
        self._session = session

    @property
    def region(self) -> str:
        return str(self._session.region_name)

    def arn(self, found: Mapping[str, Any], kind: str, id: str) -> str:
        """The ARN of something of EC2's, whose answers have none."""
        return f"arn:aws:ec2:{self.region}:{found['OwnerId']}:{kind}/{id}"

    @functools.cached_property
    def ec2(self) -> Any:
        return self._session.client("ec2")

    @functools.cached_property
    def elb(self) -> Any:
        return self._session.client("elbv2")

    @functools.cached_property
    def iam(self) -> Any:
        return self._session.client("iam")

    @functools.cached_property
    def sts(self) -> Any:
        return self._session.client("sts")


def connect(configured: Mapping[str, str]) -> Account:
    import boto3

    session = boto3.Session(region_name=configured.get("region"))
    if session.region_name is None:
        raise Refused("no region: `pulumi config set aws:region`")
    return Account(session)


@contextmanager
def if_there(*codes: str) -> Iterator[None]:
    """Let AWS say with one of these codes that what is asked for is not there: the block ends then."""
    try:
        yield
    except sdk_refusals() as error:
        if getattr(error, "response", {}).get("Error", {}).get("Code") not in codes:
            raise


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

    follows: ClassVar[Mapping[str, str]] = {"tagsAll": "tags"}
    noun: ClassVar[str]
    plural: ClassVar[str]
    key: ClassVar[str]
    gone: ClassVar[str]
    """The code by which EC2 says that there is none."""

    def read(self, call: Call[Account], id: str) -> Document | None:
        describe = getattr(call.cloud.ec2, f"describe_{self.plural}")
        with if_there(self.gone):
            (found,) = describe(**{f"{self.key}s": [id]})[_camel(self.plural)]
            return {"region": call.cloud.region, **tags_of(found), **self.properties(call, found)}
        return None

    @abstractmethod
    def properties(self, call: Call[Account], found: Mapping[str, Any]) -> Document:
        """Of what EC2 describes, all but the tags."""

    def update(self, call: Call[Account], id: str, given: Document, state: Document) -> None:
        wanted, there = given.get("tags") or {}, state.get("tags") or {}
        if over := [{"Key": key} for key in there if key not in wanted]:
            call.cloud.ec2.delete_tags(Resources=[id], Tags=over)
        if wanted and wanted != there:
            call.cloud.ec2.create_tags(Resources=[id], Tags=tag_list(wanted))

    def delete(self, call: Call[Account], id: str, state: Document) -> None:
        with if_there(self.gone):
            getattr(call.cloud.ec2, f"delete_{self.noun}")(**{self.key: id})


def _camel(words: str) -> str:
    return "".join(word.title() for word in words.split("_"))


class Vpc(Ec2Resource):
    token = "aws:ec2/vpc:Vpc"
    noun, plural, key, gone = "vpc", "vpcs", "VpcId", "InvalidVpcID.NotFound"
    required = ("cidrBlock",)
    optional = ("tags",)
    replaces = ("cidrBlock",)
    in_place = ("tags",)
    outputs = ("arn", "defaultSecurityGroupId", "mainRouteTableId", "ownerId", "region", "tagsAll")

    def create(self, call: Call[Account], given: Document) -> str:
        tags = tag_specifications("vpc", given)
        made = call.cloud.ec2.create_vpc(CidrBlock=given["cidrBlock"], TagSpecifications=tags)
        return str(made["Vpc"]["VpcId"])

    def properties(self, call: Call[Account], found: Mapping[str, Any]) -> Document:
        id = found["VpcId"]
        inside = [{"Name": "vpc-id", "Values": [id]}]
        main = [*inside, {"Name": "association.main", "Values": ["true"]}]
        default = [*inside, {"Name": "group-name", "Values": ["default"]}]
        (table,) = call.cloud.ec2.describe_route_tables(Filters=main)["RouteTables"]
        (group,) = call.cloud.ec2.describe_security_groups(Filters=default)["SecurityGroups"]
        return {
            "arn": call.cloud.arn(found, "vpc", id),
            "cidrBlock": found["CidrBlock"],
            "defaultSecurityGroupId": group["GroupId"],
            "mainRouteTableId": table["RouteTableId"],
            "ownerId": found["OwnerId"],
        }


class Subnet(Ec2Resource):
    token = "aws:ec2/subnet:Subnet"
    noun, plural, key, gone = "subnet", "subnets", "SubnetId", "InvalidSubnetID.NotFound"
    required = ("vpcId",)
    optional = ("availabilityZone", "cidrBlock", "tags")
    replaces = ("availabilityZone", "cidrBlock", "vpcId")
    in_place = ("tags",)
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


class InternetGateway(Ec2Resource):
    token = "aws:ec2/internetGateway:InternetGateway"
    noun, plural, key = "internet_gateway", "internet_gateways", "InternetGatewayId"
    gone = "InvalidInternetGatewayID.NotFound"
    optional = ("tags", "vpcId")
    in_place = ("tags",)
    outputs = ("arn", "ownerId", "region", "tagsAll")

    def create(self, call: Call[Account], given: Document) -> str:
        tags = tag_specifications("internet-gateway", given)
        made = call.cloud.ec2.create_internet_gateway(TagSpecifications=tags)["InternetGateway"]
        id = call.made(made["InternetGatewayId"])
        if "vpcId" in given:
            call.cloud.ec2.attach_internet_gateway(InternetGatewayId=id, VpcId=given["vpcId"])
        return id

    def properties(self, call: Call[Account], found: Mapping[str, Any]) -> Document:
        return {
            "arn": call.cloud.arn(found, "internet-gateway", found["InternetGatewayId"]),
            "ownerId": found["OwnerId"],
            "vpcId": found["Attachments"][0]["VpcId"] if found["Attachments"] else "",
        }

    def delete(self, call: Call[Account], id: str, state: Document) -> None:
        if state.get("vpcId"):
            with if_there(self.gone, "Gateway.NotAttached", "InvalidVpcID.NotFound"):
                call.cloud.ec2.detach_internet_gateway(InternetGatewayId=id, VpcId=state["vpcId"])
        super().delete(call, id, state)


class RouteTable(Ec2Resource):
    """With its routes, which lead to internet gateways here."""

    token = "aws:ec2/routeTable:RouteTable"
    noun, plural, key, gone = "route_table", "route_tables", "RouteTableId", "InvalidRouteTableID.NotFound"
    required = ("vpcId",)
    optional = ("routes", "tags")
    replaces = ("vpcId",)
    in_place = ("routes", "tags")
    outputs = ("arn", "ownerId", "propagatingVgws", "region", "tagsAll")

    def create(self, call: Call[Account], given: Document) -> str:
        tags = tag_specifications("route-table", given)
        made = call.cloud.ec2.create_route_table(VpcId=given["vpcId"], TagSpecifications=tags)
        id = call.made(made["RouteTable"]["RouteTableId"])
        self._route(call, id, given.get("routes") or [])
        return id

    def _route(self, call: Call[Account], id: str, routes: list[Document]) -> None:
        for route in routes:
            if unserved := {name for name, value in route.items() if not empty(value)} - {"cidrBlock", "gatewayId"}:
                raise Refused(f"the stand-in does not serve routes by {', '.join(sorted(unserved))}")
            call.cloud.ec2.create_route(
                RouteTableId=id, DestinationCidrBlock=route["cidrBlock"], GatewayId=route["gatewayId"]
            )

    def properties(self, call: Call[Account], found: Mapping[str, Any]) -> Document:
        return {
            "arn": call.cloud.arn(found, "route-table", found["RouteTableId"]),
            "ownerId": found["OwnerId"],
            "propagatingVgws": [],
            "routes": [
                {"cidrBlock": each["DestinationCidrBlock"], "gatewayId": each["GatewayId"]}
                for each in found["Routes"]
                if each["GatewayId"] != "local"
            ],
            "vpcId": found["VpcId"],
        }

    def update(self, call: Call[Account], id: str, given: Document, state: Document) -> None:
        wanted, there = given.get("routes") or [], state.get("routes") or []
        for route in there:
            if route not in wanted:
                call.cloud.ec2.delete_route(RouteTableId=id, DestinationCidrBlock=route["cidrBlock"])
        self._route(call, id, [route for route in wanted if route not in there])
        super().update(call, id, given, state)


class RouteTableAssociation(Resource[Account]):
    token = "aws:ec2/routeTableAssociation:RouteTableAssociation"
    required = ("routeTableId", "subnetId")
    replaces = ("routeTableId", "subnetId")
    outputs = ("region",)

    def create(self, call: Call[Account], given: Document) -> str:
        made = call.cloud.ec2.associate_route_table(RouteTableId=given["routeTableId"], SubnetId=given["subnetId"])
        return str(made["AssociationId"])

    def read(self, call: Call[Account], id: str) -> Document | None:
        of_it = [{"Name": "association.route-table-association-id", "Values": [id]}]
        for table in call.cloud.ec2.describe_route_tables(Filters=of_it)["RouteTables"]:
            for each in table["Associations"]:
                if each["RouteTableAssociationId"] == id:
                    where = {"routeTableId": table["RouteTableId"], "subnetId": each["SubnetId"]}
                    return {**where, "region": call.cloud.region}
        return None

    def delete(self, call: Call[Account], id: str, state: Document) -> None:
        with if_there("InvalidAssociationID.NotFound"):
            call.cloud.ec2.disassociate_route_table(AssociationId=id)


class SecurityGroup(Ec2Resource):
    """With all of its rules: one that is in no list is taken away, also EC2's own that lets everything out."""

    token = "aws:ec2/securityGroup:SecurityGroup"
    noun, plural, key, gone = "security_group", "security_groups", "GroupId", "InvalidGroup.NotFound"
    required = ("vpcId",)
    optional = ("description", "egress", "ingress", "name", "tags")
    replaces = ("description", "name", "vpcId")
    in_place = ("egress", "ingress", "tags")
    outputs = ("arn", "ownerId", "region", "tagsAll")
    longest_name = 255

    def create(self, call: Call[Account], given: Document) -> str:
        made = call.cloud.ec2.create_security_group(
            GroupName=given["name"],
            Description=given.get("description") or "Managed by Pulumi",
            VpcId=given["vpcId"],
            TagSpecifications=tag_specifications("security-group", given),
        )
        id = call.made(made["GroupId"])
        (found,) = call.cloud.ec2.describe_security_groups(GroupIds=[id])["SecurityGroups"]
        self.update(call, id, given, {**tags_of(found), **self.properties(call, found)})
        return id

    def properties(self, call: Call[Account], found: Mapping[str, Any]) -> Document:
        return {
            "arn": found["SecurityGroupArn"],
            "description": found["Description"],
            "egress": [_rule(found, each) for each in found["IpPermissionsEgress"]],
            "ingress": [_rule(found, each) for each in found["IpPermissions"]],
            "name": found["GroupName"],
            "ownerId": found["OwnerId"],
            "vpcId": found["VpcId"],
        }

    def update(self, call: Call[Account], id: str, given: Document, state: Document) -> None:
        for direction in ("egress", "ingress"):
            wanted = [_permission(id, each) for each in given.get(direction) or []]
            there = [_permission(id, each) for each in state.get(direction) or []]
            revoke = getattr(call.cloud.ec2, f"revoke_security_group_{direction}")
            authorize = getattr(call.cloud.ec2, f"authorize_security_group_{direction}")
            if over := [each for each in there if each not in wanted]:
                revoke(GroupId=id, IpPermissions=over)
            if new := [each for each in wanted if each not in there]:
                authorize(GroupId=id, IpPermissions=new)
        super().update(call, id, given, state)


def _permission(group: str, rule: Document) -> Document:
    """A rule of the SDK's as EC2 has it."""
    protocol = str(rule["protocol"])
    ports = {} if protocol == "-1" else {"FromPort": int(rule["fromPort"]), "ToPort": int(rule["toPort"])}
    groups = [*(rule.get("securityGroups") or []), *([group] if rule.get("self") else [])]
    return {
        "IpProtocol": protocol,
        **ports,
        "IpRanges": [{"CidrIp": each} for each in rule.get("cidrBlocks") or []],
        "Ipv6Ranges": [{"CidrIpv6": each} for each in rule.get("ipv6CidrBlocks") or []],
        "UserIdGroupPairs": [{"GroupId": each} for each in groups],
    }


def _rule(group: Mapping[str, Any], permission: Mapping[str, Any]) -> Document:
    """What EC2 permits as the SDK has it: what is of the same ports is one rule."""
    groups = [each["GroupId"] for each in permission["UserIdGroupPairs"]]
    return {
        "cidrBlocks": [each["CidrIp"] for each in permission["IpRanges"]],
        "description": "",
        "fromPort": permission.get("FromPort", 0),
        "ipv6CidrBlocks": [each["CidrIpv6"] for each in permission["Ipv6Ranges"]],
        "prefixListIds": [],
        "protocol": permission["IpProtocol"],
        "securityGroups": [each for each in groups if each != group["GroupId"]],
        "self": group["GroupId"] in groups,
        "toPort": permission.get("ToPort", 0),
    }


# ----------------------------------------------------------------------------------------------------- load balancing


class ElbResource(Resource[Account]):
    """Something of Elastic Load Balancing: its id is its ARN, and it has tags by it."""

    follows: ClassVar[Mapping[str, str]] = {"tagsAll": "tags"}

    def tags(self, call: Call[Account], arn: str) -> Document:
        (described,) = call.cloud.elb.describe_tags(ResourceArns=[arn])["TagDescriptions"]
        return {"arn": arn, "region": call.cloud.region, **tags_of(described)}

    def update(self, call: Call[Account], id: str, given: Document, state: Document) -> None:
        wanted, there = given.get("tags") or {}, state.get("tags") or {}
        if over := [key for key in there if key not in wanted]:
            call.cloud.elb.remove_tags(ResourceArns=[id], TagKeys=over)
        if wanted and wanted != there:
            call.cloud.elb.add_tags(ResourceArns=[id], Tags=tag_list(wanted))


class LoadBalancer(ElbResource):
    token = "aws:lb/loadBalancer:LoadBalancer"
    optional = ("internal", "loadBalancerType", "name", "securityGroups", "subnets", "tags")
    replaces = ("internal", "loadBalancerType", "name")
    in_place = ("tags",)
    outputs = ("arn", "arnSuffix", "dnsName", "ipAddressType", "region", "tagsAll", "vpcId", "zoneId")
    longest_name = 32

    def create(self, call: Call[Account], given: Document) -> str:
        made = call.cloud.elb.create_load_balancer(
            Name=given["name"],
            Type=given.get("loadBalancerType") or "application",
            Scheme="internal" if given.get("internal") else "internet-facing",
            Subnets=given["subnets"],
            SecurityGroups=given.get("securityGroups") or [],
            **_tagged(given),
        )
        arn = call.made(made["LoadBalancers"][0]["LoadBalancerArn"])
        call.until(lambda: _balancer(call, arn)["State"]["Code"] == "active", f"{given['name']} to be active")
        return arn

    def read(self, call: Call[Account], id: str) -> Document | None:
        with if_there("LoadBalancerNotFound"):
            return {**_balancer_properties(_balancer(call, id)), **self.tags(call, id)}
        return None

    def delete(self, call: Call[Account], id: str, state: Document) -> None:
        call.cloud.elb.delete_load_balancer(LoadBalancerArn=id)


def _tagged(given: Document) -> Document:
    return {"Tags": tag_list(given["tags"])} if given.get("tags") else {}


def _balancer(call: Call[Account], arn: str) -> Mapping[str, Any]:
    (found,) = call.cloud.elb.describe_load_balancers(LoadBalancerArns=[arn])["LoadBalancers"]
    return dict(found)


def _balancer_properties(found: Mapping[str, Any]) -> Document:
    return {
        "arnSuffix": found["LoadBalancerArn"].partition(":loadbalancer/")[2],
        "dnsName": found["DNSName"],
        "internal": found["Scheme"] == "internal",
        "ipAddressType": found["IpAddressType"],
        "loadBalancerType": found["Type"],
        "name": found["LoadBalancerName"],
        "securityGroups": found["SecurityGroups"],
        "subnets": [each["SubnetId"] for each in found["AvailabilityZones"]],
        "vpcId": found["VpcId"],
        "zoneId": found["CanonicalHostedZoneId"],
    }


class Listener(ElbResource):
    token = "aws:lb/listener:Listener"
    required = ("defaultActions", "loadBalancerArn")
    optional = ("certificateArn", "port", "protocol", "sslPolicy", "tags")
    replaces = ("loadBalancerArn",)
    in_place = ("certificateArn", "defaultActions", "port", "protocol", "sslPolicy", "tags")
    outputs = ("arn", "region", "tagsAll")

    def create(self, call: Call[Account], given: Document) -> str:
        made = call.cloud.elb.create_listener(
            LoadBalancerArn=given["loadBalancerArn"], **_listening(given), **_tagged(given)
        )
        return str(made["Listeners"][0]["ListenerArn"])

    def read(self, call: Call[Account], id: str) -> Document | None:
        with if_there("ListenerNotFound"):
            (found,) = call.cloud.elb.describe_listeners(ListenerArns=[id])["Listeners"]
            return {**_listener_properties(found), **self.tags(call, id)}
        return None

    def update(self, call: Call[Account], id: str, given: Document, state: Document) -> None:
        if _listening(given) != _listening(state):
            call.cloud.elb.modify_listener(ListenerArn=id, **_listening(given))
        super().update(call, id, given, state)

    def delete(self, call: Call[Account], id: str, state: Document) -> None:
        with if_there("ListenerNotFound"):
            call.cloud.elb.delete_listener(ListenerArn=id)


def _listening(given: Document) -> Document:
    """What a listener does, as the API has it."""
    secure = {"Certificates": [{"CertificateArn": given["certificateArn"]}]} if given.get("certificateArn") else {}
    policy = {"SslPolicy": given["sslPolicy"]} if given.get("sslPolicy") else {}
    return {
        "Port": int(given["port"]),
        "Protocol": given["protocol"],
        "DefaultActions": [_action(each) for each in given["defaultActions"]],
        **secure,
        **policy,
    }


def _action(action: Document) -> Document:
    done: Document = {"Type": action["type"]}
    if fixed := action.get("fixedResponse"):
        done["FixedResponseConfig"] = _capital(fixed)
    if redirect := action.get("redirect"):
        done["RedirectConfig"] = _capital(redirect)
    return done


def _capital(config: Document) -> Document:
    return {name[0].upper() + name[1:]: value for name, value in config.items() if not empty(value)}


def _listener_properties(found: Mapping[str, Any]) -> Document:
    actions = []
    for action in found["DefaultActions"]:
        shown: Document = {"type": action["Type"]}
        for name, config in (("fixedResponse", "FixedResponseConfig"), ("redirect", "RedirectConfig")):
            if config in action:
                shown[name] = {part[0].lower() + part[1:]: each for part, each in action[config].items()}
        actions.append(shown)
    certificates = [each["CertificateArn"] for each in found.get("Certificates", ())]
    return {
        "certificateArn": next(iter(certificates), ""),
        "defaultActions": actions,
        "loadBalancerArn": found["LoadBalancerArn"],
        "port": found["Port"],
        "protocol": found["Protocol"],
        "sslPolicy": found.get("SslPolicy", ""),
    }


# ----------------------------------------------------------------------------------------------------------------- IAM


class Role(Resource[Account]):
    token = "aws:iam/role:Role"
    required = ("assumeRolePolicy",)
    optional = ("description", "name", "path")
    replaces = ("name", "path")
    in_place = ("assumeRolePolicy",)
    outputs = ("arn", "createDate", "uniqueId")
    longest_name = 64

    def create(self, call: Call[Account], given: Document) -> str:
        described = {"Description": given["description"]} if given.get("description") else {}
        call.cloud.iam.create_role(
            RoleName=given["name"],
            Path=given.get("path") or "/",
            AssumeRolePolicyDocument=given["assumeRolePolicy"],
            **described,
        )
        return str(given["name"])

    def read(self, call: Call[Account], id: str) -> Document | None:
        with if_there("NoSuchEntity"):
            found = call.cloud.iam.get_role(RoleName=id)["Role"]
            return {
                "arn": found["Arn"],
                "assumeRolePolicy": json.dumps(found["AssumeRolePolicyDocument"]),
                "createDate": found["CreateDate"].isoformat(),
                "description": found.get("Description", ""),
                "name": found["RoleName"],
                "path": found["Path"],
                "uniqueId": found["RoleId"],
            }
        return None

    def update(self, call: Call[Account], id: str, given: Document, state: Document) -> None:
        call.cloud.iam.update_assume_role_policy(RoleName=id, PolicyDocument=given["assumeRolePolicy"])

    def delete(self, call: Call[Account], id: str, state: Document) -> None:
        with if_there("NoSuchEntity"):
            call.cloud.iam.delete_role(RoleName=id)


class RolePolicy(Resource[Account]):
    """A policy that is written into a role; its id is `ROLE:NAME`."""

    token = "aws:iam/rolePolicy:RolePolicy"
    required = ("policy", "role")
    optional = ("name",)
    replaces = ("name", "role")
    in_place = ("policy",)
    longest_name = 128

    def create(self, call: Call[Account], given: Document) -> str:
        id = f"{given['role']}:{given['name']}"
        self.update(call, id, given, {})
        return id

    def read(self, call: Call[Account], id: str) -> Document | None:
        role, _, name = id.partition(":")
        with if_there("NoSuchEntity"):
            found = call.cloud.iam.get_role_policy(RoleName=role, PolicyName=name)
            return {"name": name, "policy": json.dumps(found["PolicyDocument"]), "role": role}
        return None

    def update(self, call: Call[Account], id: str, given: Document, state: Document) -> None:
        role, _, name = id.partition(":")
        call.cloud.iam.put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=given["policy"])

    def delete(self, call: Call[Account], id: str, state: Document) -> None:
        role, _, name = id.partition(":")
        with if_there("NoSuchEntity"):
            call.cloud.iam.delete_role_policy(RoleName=role, PolicyName=name)


# ----------------------------------------------------------------------------------------------------------- functions


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


class CallerIdentity(Function[Account]):
    token = "aws:index/getCallerIdentity:getCallerIdentity"

    def invoke(self, call: Call[Account], given: Document) -> Document:
        found = call.cloud.sts.get_caller_identity()
        account, user = found["Account"], found["UserId"]
        return {"accountId": account, "arn": found["Arn"], "id": account, "userId": user}


class FoundListener(Function[Account]):
    token = "aws:lb/getListener:getListener"
    arguments = ("arn",)

    def invoke(self, call: Call[Account], given: Document) -> Document:
        (found,) = call.cloud.elb.describe_listeners(ListenerArns=[given["arn"]])["Listeners"]
        return {**given, "id": given["arn"], "region": call.cloud.region, **_listener_properties(found)}


class FoundLoadBalancer(Function[Account]):
    token = "aws:lb/getLoadBalancer:getLoadBalancer"
    arguments = ("arn",)

    def invoke(self, call: Call[Account], given: Document) -> Document:
        found = _balancer_properties(_balancer(call, given["arn"]))
        return {**given, "id": given["arn"], "region": call.cloud.region, **found}


def stand_in() -> StandIn[Account]:
    return StandIn(
        "aws",
        version("pulumi_aws"),
        connect,
        [
            InternetGateway(),
            Listener(),
            LoadBalancer(),
            Role(),
            RolePolicy(),
            RouteTable(),
            RouteTableAssociation(),
            SecurityGroup(),
            Subnet(),
            Vpc(),
        ],
        [AvailabilityZones(), CallerIdentity(), FoundListener(), FoundLoadBalancer()],
        configuration=["region"],
        refusals=sdk_refusals,
    )


if __name__ == "__main__":
    serve(stand_in())
