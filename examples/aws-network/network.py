#!/usr/bin/env python3
"""Make what osvdeploy expects to find on AWS: a VPC with two subnets, a security group, a balancer and a listener.

    eval "$(python network.py create --prefix HELLO)"   # makes them, and sets HELLO_LISTENER and so on for osv.toml
    python network.py delete                            # takes them away again

Everything is tagged `network = <name>` (--name, default "osv"); a network that is there already is found again. It uses
boto3 as it finds it configured, so it works on AWS as well as in `osvdeploy sandbox`. On AWS a balancer costs money
from the minute it is made.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import boto3


def find(name: str, port: int) -> dict[str, str] | None:
    """The variables of the network that is there, None where none is whole."""
    ec2, elb = boto3.client("ec2"), boto3.client("elbv2")
    balancers = [each for each in elb.describe_load_balancers()["LoadBalancers"] if each["LoadBalancerName"] == name]
    if not balancers:
        return None
    listeners = elb.describe_listeners(LoadBalancerArn=balancers[0]["LoadBalancerArn"])["Listeners"]
    found = [each["ListenerArn"] for each in listeners if each["Port"] == port]
    ours = [{"Name": "vpc-id", "Values": [balancers[0]["VpcId"]]}, {"Name": "tag:network", "Values": [name]}]
    subnets = sorted(ec2.describe_subnets(Filters=ours)["Subnets"], key=lambda each: each["CidrBlock"])
    groups = ec2.describe_security_groups(Filters=ours)["SecurityGroups"]
    if not found or len(subnets) < 2 or not groups:
        sys.exit(f"a balancer {name} is there, but not all of its network: `network.py delete`, or another --name")
    return {
        "SUBNET_A": subnets[0]["SubnetId"],
        "SUBNET_B": subnets[1]["SubnetId"],
        "SECURITY_GROUP": groups[0]["GroupId"],
        "LISTENER": found[0],
        "URL": f"http://{balancers[0]['DNSName']}:{port}",
    }


def create(name: str, port: int) -> dict[str, str]:
    """Make the network; returns the variables that an osv.toml needs."""
    if there := find(name, port):
        return there
    ec2, elb = boto3.client("ec2"), boto3.client("elbv2")

    def tags(kind: str) -> list[Any]:
        return [{"ResourceType": kind, "Tags": [{"Key": "network", "Value": name}, {"Key": "Name", "Value": name}]}]

    vpc = ec2.create_vpc(CidrBlock="10.20.0.0/16", TagSpecifications=tags("vpc"))["Vpc"]["VpcId"]
    gateway = ec2.create_internet_gateway(TagSpecifications=tags("internet-gateway"))
    gateway_id = gateway["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway_id, VpcId=vpc)
    routes = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"][0]["RouteTableId"]
    ec2.create_route(RouteTableId=routes, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway_id)

    zones = [zone["ZoneName"] for zone in ec2.describe_availability_zones()["AvailabilityZones"]][:2]
    subnets = [
        ec2.create_subnet(
            VpcId=vpc, AvailabilityZone=zone, CidrBlock=f"10.20.{number}.0/24", TagSpecifications=tags("subnet")
        )["Subnet"]["SubnetId"]
        for number, zone in enumerate(zones)
    ]
    group = ec2.create_security_group(
        GroupName=name, Description="HTTP to OSv guests", VpcId=vpc, TagSpecifications=tags("security-group")
    )["GroupId"]
    open_ports = [
        {"IpProtocol": "tcp", "FromPort": number, "ToPort": number, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
        for number in sorted({port, 8080})
    ]
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=open_ports)

    labels = [{"Key": "network", "Value": name}]
    balancer = elb.create_load_balancer(Name=name, Subnets=subnets, SecurityGroups=[group], Tags=labels)
    balancer_arn = balancer["LoadBalancers"][0]["LoadBalancerArn"]
    elb.get_waiter("load_balancer_available").wait(
        LoadBalancerArns=[balancer_arn], WaiterConfig={"Delay": 1, "MaxAttempts": 600}
    )
    nothing = {
        "Type": "fixed-response",
        "FixedResponseConfig": {"StatusCode": "404", "ContentType": "text/plain", "MessageBody": "no such service\n"},
    }
    listener = elb.create_listener(
        LoadBalancerArn=balancer_arn, Protocol="HTTP", Port=port, DefaultActions=[nothing], Tags=labels
    )["Listeners"][0]["ListenerArn"]
    address = balancer["LoadBalancers"][0]["DNSName"]
    return {
        "SUBNET_A": subnets[0],
        "SUBNET_B": subnets[1],
        "SECURITY_GROUP": group,
        "LISTENER": listener,
        "URL": f"http://{address}:{port}",
    }


def delete(name: str) -> None:
    """Take the network away, in the order that AWS asks for."""
    ec2, elb = boto3.client("ec2"), boto3.client("elbv2")
    ours = [{"Name": "tag:network", "Values": [name]}]
    for balancer in elb.describe_load_balancers()["LoadBalancers"]:
        if balancer["LoadBalancerName"] == name:
            elb.delete_load_balancer(LoadBalancerArn=balancer["LoadBalancerArn"])
            elb.get_waiter("load_balancers_deleted").wait(
                LoadBalancerArns=[balancer["LoadBalancerArn"]], WaiterConfig={"Delay": 1, "MaxAttempts": 600}
            )
    for group in ec2.describe_security_groups(Filters=ours)["SecurityGroups"]:
        ec2.delete_security_group(GroupId=group["GroupId"])
    for subnet in ec2.describe_subnets(Filters=ours)["Subnets"]:
        ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    for gateway in ec2.describe_internet_gateways(Filters=ours)["InternetGateways"]:
        for attachment in gateway["Attachments"]:
            ec2.detach_internet_gateway(InternetGatewayId=gateway["InternetGatewayId"], VpcId=attachment["VpcId"])
        ec2.delete_internet_gateway(InternetGatewayId=gateway["InternetGatewayId"])
    for vpc in ec2.describe_vpcs(Filters=ours)["Vpcs"]:
        ec2.delete_vpc(VpcId=vpc["VpcId"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["create", "delete"])
    parser.add_argument("--name", default="osv")
    parser.add_argument("--port", type=int, default=8080, help="the listener's port (default 8080)")
    parser.add_argument("--prefix", default="OSV", help="what the variables' names begin with (default OSV)")
    arguments = parser.parse_args()
    if arguments.action == "delete":
        delete(arguments.name)
        return 0
    for variable, value in create(arguments.name, arguments.port).items():
        print(f"export {arguments.prefix}_{variable}={value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
