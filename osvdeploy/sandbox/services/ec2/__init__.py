"""EC2: networks, images, launch templates and instances.

Sources and limits stand in each module. DryRun is not simulated anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from osvdeploy.sandbox.services.ec2 import images, imports, instances, machine_types, network, resources, templates
from osvdeploy.sandbox.services.ec2.instances import look, resume
from osvdeploy.sandbox.services.ec2.resources import INSTANCE, SECURITY_GROUP, SUBNET, VPC
from osvdeploy.sandbox.services.scope import EventHandler, Instance, Operation, Scope, Template

__all__ = ["EVENTS", "OPERATIONS", "PARAMETERS", "Ec2Service", "look", "resume"]


class Ec2Service:
    """:class:`osvdeploy.sandbox.services.scope.Ec2`: what EC2 does for the other services, in the same transaction."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def vpc(self, vpc_id: str) -> Mapping[str, Any] | None:
        return self._scope.get(VPC.name, vpc_id)

    def subnet(self, subnet_id: str) -> Mapping[str, Any] | None:
        return self._scope.get(SUBNET.name, subnet_id)

    def security_group(self, group_id: str) -> Mapping[str, Any] | None:
        return self._scope.get(SECURITY_GROUP.name, group_id)

    def default_security_group(self, vpc_id: str) -> str:
        return str(network.default_group(self._scope, vpc_id)["GroupId"])

    def instance(self, instance_id: str) -> Instance | None:
        instance = self._scope.get(INSTANCE.name, instance_id)
        return None if instance is None else instances.seen_by_others(instance)

    def template(self, *, template_id: str | None, name: str | None, version: str) -> Template:
        found = templates.find(self._scope, template_id, name)
        chosen = templates.version_of(found, version)
        data = chosen["LaunchTemplateData"]
        image = instances.available_image(self._scope, resources.required(data, "ImageId"))
        machine = machine_types.find(resources.required(data, "InstanceType"))
        instances.check_boots(image, machine)
        return Template(
            found["LaunchTemplateId"],
            found["LaunchTemplateName"],
            str(chosen["VersionNumber"]),
            image["ImageId"],
            machine.name,
        )

    def launch(self, template: Template, subnet: str, tags: Mapping[str, str]) -> Instance:
        return instances.launch_from(self._scope, template, subnet, tags)

    def terminate(self, instance_id: str) -> None:
        instance = self._scope.get(INSTANCE.name, instance_id)
        if instance is not None:
            instances.terminate(self._scope, instance)


_PAGED = "Filters NextToken MaxResults"

_SIMULATED: Mapping[str, tuple[Operation, str]] = {
    "AssociateRouteTable": (network.associate_route_table, "RouteTableId SubnetId GatewayId"),
    "AttachInternetGateway": (network.attach_internet_gateway, "InternetGatewayId VpcId"),
    "AuthorizeSecurityGroupEgress": (network.authorize_security_group_egress, "GroupId IpPermissions"),
    "AuthorizeSecurityGroupIngress": (network.authorize_security_group_ingress, "GroupId IpPermissions"),
    "CreateInternetGateway": (network.create_internet_gateway, "TagSpecifications"),
    "CreateLaunchTemplate": (
        templates.create_launch_template,
        "ClientToken LaunchTemplateName VersionDescription LaunchTemplateData TagSpecifications",
    ),
    "CreateLaunchTemplateVersion": (
        templates.create_launch_template_version,
        "ClientToken LaunchTemplateId LaunchTemplateName SourceVersion VersionDescription LaunchTemplateData",
    ),
    "CreateRoute": (network.create_route, "RouteTableId DestinationCidrBlock GatewayId"),
    "CreateRouteTable": (network.create_route_table, "ClientToken VpcId TagSpecifications"),
    "CreateSecurityGroup": (network.create_security_group, "Description GroupName VpcId TagSpecifications"),
    "CreateSubnet": (network.create_subnet, "TagSpecifications AvailabilityZone AvailabilityZoneId CidrBlock VpcId"),
    "CreateTags": (resources.create_tags, "Resources Tags"),
    "CreateVpc": (network.create_vpc, "CidrBlock InstanceTenancy TagSpecifications"),
    "DeleteInternetGateway": (network.delete_internet_gateway, "InternetGatewayId"),
    "DeleteLaunchTemplate": (templates.delete_launch_template, "LaunchTemplateId LaunchTemplateName"),
    "DeleteRoute": (network.delete_route, "RouteTableId DestinationCidrBlock"),
    "DeleteRouteTable": (network.delete_route_table, "RouteTableId"),
    "DeleteSecurityGroup": (network.delete_security_group, "GroupId"),
    "DeleteSnapshot": (images.delete_snapshot, "SnapshotId"),
    "DeleteSubnet": (network.delete_subnet, "SubnetId"),
    "DeleteTags": (resources.delete_tags, "Resources Tags"),
    "DeleteVpc": (network.delete_vpc, "VpcId"),
    "DeregisterImage": (images.deregister_image, "ImageId"),
    "DescribeAvailabilityZones": (network.describe_availability_zones, "ZoneNames ZoneIds Filters"),
    "DescribeImages": (images.describe_images, f"ImageIds Owners {_PAGED}"),
    "DescribeImportSnapshotTasks": (imports.describe_import_snapshot_tasks, f"ImportTaskIds {_PAGED}"),
    "DescribeInstanceStatus": (instances.describe_instance_status, f"InstanceIds IncludeAllInstances {_PAGED}"),
    "DescribeInstanceTypes": (machine_types.describe_instance_types, f"InstanceTypes {_PAGED}"),
    "DescribeInstances": (instances.describe_instances, f"InstanceIds {_PAGED}"),
    "DescribeInternetGateways": (network.describe_internet_gateways, f"InternetGatewayIds {_PAGED}"),
    "DescribeLaunchTemplateVersions": (
        templates.describe_launch_template_versions,
        f"LaunchTemplateId LaunchTemplateName Versions MinVersion MaxVersion {_PAGED}",
    ),
    "DescribeLaunchTemplates": (
        templates.describe_launch_templates,
        f"LaunchTemplateIds LaunchTemplateNames {_PAGED}",
    ),
    "DescribeRegions": (network.describe_regions, "RegionNames"),
    "DescribeRouteTables": (network.describe_route_tables, f"RouteTableIds {_PAGED}"),
    "DescribeSecurityGroups": (network.describe_security_groups, f"GroupIds {_PAGED}"),
    "DescribeSnapshots": (images.describe_snapshots, f"SnapshotIds OwnerIds {_PAGED}"),
    "DescribeSubnets": (network.describe_subnets, f"SubnetIds {_PAGED}"),
    "DescribeTags": (resources.describe_tags, _PAGED),
    "DescribeVolumes": (instances.describe_volumes, f"VolumeIds {_PAGED}"),
    "DescribeVpcs": (network.describe_vpcs, f"VpcIds {_PAGED}"),
    "DetachInternetGateway": (network.detach_internet_gateway, "InternetGatewayId VpcId"),
    "DisassociateRouteTable": (network.disassociate_route_table, "AssociationId"),
    "GetConsoleOutput": (instances.get_console_output, "InstanceId Latest"),
    "ImportSnapshot": (
        imports.import_snapshot,
        "ClientToken Description DiskContainer RoleName TagSpecifications",
    ),
    "RegisterImage": (
        images.register_image,
        "Name Description Architecture RootDeviceName BlockDeviceMappings VirtualizationType EnaSupport BootMode "
        "ImdsSupport TagSpecifications",
    ),
    "RevokeSecurityGroupEgress": (network.revoke_security_group_egress, "GroupId IpPermissions"),
    "RevokeSecurityGroupIngress": (network.revoke_security_group_ingress, "GroupId IpPermissions"),
    "RunInstances": (
        instances.run_instances,
        "ImageId InstanceType MinCount MaxCount SubnetId SecurityGroupIds LaunchTemplate TagSpecifications ClientToken "
        "InstanceInitiatedShutdownBehavior BlockDeviceMappings MetadataOptions PrivateIpAddress",
    ),
    "StartInstances": (instances.start_instances, "InstanceIds"),
    "StopInstances": (instances.stop_instances, "InstanceIds"),
    "TerminateInstances": (instances.terminate_instances, "InstanceIds"),
}

OPERATIONS: Mapping[str, Operation] = {name: operation for name, (operation, _) in _SIMULATED.items()}
"""By the API's name. Every other operation of the service is not simulated."""

PARAMETERS: Mapping[str, frozenset[str]] = {name: frozenset(known.split()) for name, (_, known) in _SIMULATED.items()}
"""The parameters that each operation understands; what structures hold the operations check themselves."""

EVENTS: Mapping[str, EventHandler] = {
    "ec2.boot": instances.boot_due,
    "ec2.ended": instances.ended,
    "ec2.gone": instances.gone,
    "ec2.import-converted": imports.converted,
    "ec2.import-validated": imports.validated,
    "ec2.look": instances.look_due,
    "ec2.post": instances.post_due,
    "ec2.registered": images.registered,
}
