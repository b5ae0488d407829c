"""Instances: how they are started, what becomes of them, what their consoles said.

An instance is ``pending`` for :data:`BOOT`, then its guest is powered on (:mod:`osvdeploy.sandbox.runners`) and it is
``running``; a guest that powers itself off ends or stops its instance, as InstanceInitiatedShutdownBehavior says. How
long AWS takes between the states is documented nowhere; these are the sandbox's own, of the order that is seen.

Sources: EC2 API reference (RunInstances, GetConsoleOutput, StateReason), user guide "Instance lifecycle" and "Instance
boot modes".

The sandbox's own limits, each refused as not simulated: no public addresses, one network interface, guests that boot
by UEFI, an instance started again whose volume's snapshot is deleted.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from osvdeploy.sandbox.errors import ApiError, NotSimulated
from osvdeploy.sandbox.loopback import own_address
from osvdeploy.sandbox.runners import Guest, GuestStatus, Power
from osvdeploy.sandbox.services import ebs
from osvdeploy.sandbox.services.ec2 import machine_types, network, templates
from osvdeploy.sandbox.services.ec2.images import check_volume_type
from osvdeploy.sandbox.services.ec2.machine_types import MachineType
from osvdeploy.sandbox.services.ec2.resources import (
    IMAGE,
    INSTANCE,
    SECURITY_GROUP,
    SNAPSHOT,
    SUBNET,
    VOLUME,
    Query,
    Wire,
    chosen,
    invalid,
    only,
    remember,
    repeated,
    required,
    shown,
    specified_tags,
)
from osvdeploy.sandbox.services.scope import Doc, Instance, Scope, Template
from osvdeploy.sizes import GIB

BOOT = 4.0
"""Seconds from the launch until the guest is powered on."""

ENDING = 5.0
"""Seconds from when the guest is off until its instance is stopped or terminated."""

POSTED = 30.0
"""Seconds after power-on when the console is posted for GetConsoleOutput without Latest."""

GONE = 3600.0
"""Seconds for which a terminated instance is still shown, and its console."""

CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}

_LAUNCH_TAGS = ("instance", "volume", "network-interface")
_BY_USER = ("Client.UserInitiatedShutdown", "User initiated shutdown")
_BY_GUEST = ("Client.InstanceInitiatedShutdown", "Instance initiated shutdown")
_NO_SNAPSHOT = ("Client.InvalidSnapshot.NotFound", "The specified snapshot was not found")


# --------------------------------------------------------------------------------------------------------- launch


@dataclass(frozen=True, slots=True)
class Launch:
    """A checked request for instances that are all alike."""

    image: Doc
    type: MachineType
    subnet: Doc
    groups: Sequence[Doc]
    tags: Mapping[str, str]
    volume_tags: Mapping[str, str]
    mappings: Sequence[Doc]
    metadata: Doc
    shutdown: str
    token: str = ""
    address: str | None = None


def run_instances(scope: Scope, params: Wire) -> Doc:
    if (earlier := repeated(scope, "RunInstances", params)) is not None:
        return _again(scope, earlier["instances"])
    low, high = required(params, "MinCount"), required(params, "MaxCount")
    if low < 1 or high < low:
        raise invalid(f"Value ({low}) for parameter minCount or ({high}) for parameter maxCount is invalid.")
    given = {key: value for key, value in params.items() if key not in ("MinCount", "MaxCount", "LaunchTemplate")}
    launch = _checked(scope, given, params.get("LaunchTemplate"))
    if launch.address is not None and high > 1:
        raise ApiError("InvalidParameterCombination", "A private address cannot be specified for several instances")
    started = _start(scope, launch, low, high)
    remember(scope, "RunInstances", params, {"instances": [instance["InstanceId"] for instance in started]})
    return {**started[0]["reservation"], "Groups": [], "Instances": [shown(each) for each in started]}


def _again(scope: Scope, names: Sequence[str]) -> Doc:
    """The answer to a repeated request: its instances as they are now."""
    there = [instance for name in names if (instance := scope.get(INSTANCE.name, name)) is not None]
    if len(there) < len(names) or any(_state(instance) == "terminated" for instance in there):
        raise ApiError(
            "IdempotentInstanceTerminated",
            "The request can't be completed because the client token was used for an instance that is terminated.",
        )
    return {**there[0]["reservation"], "Groups": [], "Instances": [shown(each) for each in there]}


def _checked(scope: Scope, given: Wire, template: Wire | None) -> Launch:
    """What to start, from a request and its template. Raises ApiError as RunInstances does."""
    tags: dict[str, dict[str, str]] = {kind: {} for kind in _LAUNCH_TAGS}
    if template is not None:
        only(template, "LaunchTemplateId LaunchTemplateName Version", "LaunchTemplate")
        found = templates.find(scope, template.get("LaunchTemplateId"), template.get("LaunchTemplateName"))
        version = templates.version_of(found, template.get("Version") or "$Default")
        data = version["LaunchTemplateData"]
        tags = specified_tags(data.get("TagSpecifications"), *_LAUNCH_TAGS)
        tags["instance"] |= {
            "aws:ec2launchtemplate:id": found["LaunchTemplateId"],
            "aws:ec2launchtemplate:version": str(version["VersionNumber"]),
        }
        given = {**data, **given, "TagSpecifications": given.get("TagSpecifications")}
    for kind, more in specified_tags(given.get("TagSpecifications"), *_LAUNCH_TAGS).items():
        tags[kind] |= more
    image = available_image(scope, required(given, "ImageId"))
    if not given.get("InstanceType"):
        raise NotSimulated("instances without an instance type (AWS takes m1.small)")
    machine = machine_types.find(given["InstanceType"])
    check_boots(image, machine)
    if not given.get("SubnetId"):
        raise ApiError(
            "VPCIdNotSpecified",
            "No default VPC for this user. GroupName is only supported for EC2-Classic and default VPC.",
        )
    subnet = SUBNET.find(scope, given["SubnetId"])
    shutdown = given.get("InstanceInitiatedShutdownBehavior") or "stop"
    if shutdown not in ("stop", "terminate"):
        raise invalid(f"Value ({shutdown}) for parameter instanceInitiatedShutdownBehavior is invalid.")
    return Launch(
        image,
        machine,
        subnet,
        _groups(scope, subnet, given.get("SecurityGroupIds") or []),
        tags["instance"],
        tags["volume"],
        _mappings(image, given.get("BlockDeviceMappings") or []),
        _metadata(given.get("MetadataOptions") or {}),
        shutdown,
        given.get("ClientToken") or "",
        given.get("PrivateIpAddress"),
    )


def available_image(scope: Scope, given: str) -> Doc:
    image = IMAGE.find(scope, given)
    if image["State"] != "available":
        raise ApiError("InvalidAMIID.Unavailable", f"The image ID '{given}' is not available")
    return image


def check_boots(image: Doc, machine: MachineType) -> None:
    """Raises ApiError, as RunInstances does, for an image that such a machine cannot boot."""
    if image["Architecture"] != machine.architecture:
        raise invalid(
            f"The architecture '{machine.architecture}' of the specified instance type does not match the architecture "
            f"'{image['Architecture']}' of the specified AMI. Specify an instance type and an AMI that have matching "
            "architectures, and try again."
        )
    if machine.needs_ena and not image["EnaSupport"]:
        raise ApiError(
            "InvalidParameterCombination",
            "Enhanced networking with the Elastic Network Adapter (ENA) is required for the "
            f"'{machine.name}' instance type. Ensure that you are using an AMI that is enabled for ENA.",
        )
    if image.get("BootMode") == "uefi" and "uefi" not in machine.boot_modes:
        raise invalid(
            f"The {machine.name} instance type does not support an AMI with a boot mode of UEFI. Only instance types "
            "built on the Nitro System support UEFI. Specify an instance type that supports UEFI, and try again."
        )
    if _boot_mode(image, machine) == "uefi":
        raise NotSimulated("guests that boot by UEFI")


def _boot_mode(image: Doc, machine: MachineType) -> str:
    mode = image.get("BootMode") or ("uefi" if machine.architecture == "arm64" else "legacy-bios")
    if mode == "uefi-preferred":
        return "uefi" if "uefi" in machine.boot_modes else "legacy-bios"
    return str(mode)


def _groups(scope: Scope, subnet: Doc, ids: Sequence[str]) -> list[Doc]:
    if not ids:
        return [network.default_group(scope, subnet["VpcId"])]
    groups = [SECURITY_GROUP.find(scope, each) for each in dict.fromkeys(ids)]
    for group in groups:
        if group["VpcId"] != subnet["VpcId"]:
            raise ApiError(
                "InvalidParameter",
                f"Security group {group['GroupId']} and subnet {subnet['SubnetId']} belong to different networks.",
            )
    return groups


def _mappings(image: Doc, given: Sequence[Wire]) -> list[Doc]:
    """The image's devices with what the request changes of them."""
    devices: dict[str, Doc] = {mapping["DeviceName"]: mapping["Ebs"] for mapping in image["BlockDeviceMappings"]}
    for each in given:
        only(each, "DeviceName Ebs", "BlockDeviceMappings")
        device, change = required(each, "DeviceName"), each.get("Ebs") or {}
        if device not in devices:
            raise NotSimulated(f"volumes that the image does not have ({device})")
        only(change, "VolumeSize VolumeType DeleteOnTermination Iops Throughput", "BlockDeviceMappings.Ebs")
        before = devices[device]["VolumeSize"]
        if change.get("VolumeSize") is not None and change["VolumeSize"] < before:
            raise ApiError(
                "InvalidBlockDeviceMapping",
                f"Volume of size {change['VolumeSize']}GB is smaller than snapshot "
                f"'{devices[device]['SnapshotId']}', expect size>= {before}GB",
            )
        if change.get("VolumeType") is not None:
            check_volume_type(change["VolumeType"])
        devices[device] = {**devices[device], **change}
    return [{"DeviceName": device, "Ebs": volume} for device, volume in devices.items()]


def _metadata(given: Wire) -> Doc:
    only(
        given,
        "HttpEndpoint HttpTokens HttpPutResponseHopLimit HttpProtocolIpv6 InstanceMetadataTags",
        "MetadataOptions",
    )
    for name, values in (
        ("HttpEndpoint", ("enabled", "disabled")),
        ("HttpTokens", ("optional", "required")),
        ("HttpProtocolIpv6", ("enabled", "disabled")),
        ("InstanceMetadataTags", ("enabled", "disabled")),
    ):
        if given.get(name) not in (None, *values):
            raise invalid(f"Value ({given[name]}) for parameter {name} is invalid.")
    hops = given.get("HttpPutResponseHopLimit", 1)
    if not 1 <= hops <= 64:
        raise invalid(f"Value ({hops}) for parameter HttpPutResponseHopLimit is invalid. It must be between 1 and 64.")
    return {
        "State": "applied",
        "HttpEndpoint": "enabled",
        "HttpTokens": "optional",
        "HttpPutResponseHopLimit": 1,
        "HttpProtocolIpv6": "disabled",
        "InstanceMetadataTags": "disabled",
        **given,
    }


def _start(scope: Scope, launch: Launch, low: int, high: int) -> list[Doc]:
    addresses = _free_addresses(scope, launch, low, high)
    reservation = {"ReservationId": f"r-{scope.new_id(17)}", "OwnerId": scope.account}
    started = []
    for index, address in enumerate(addresses):
        instance = _new_instance(scope, launch, address, index, reservation)
        started.append(instance)
        scope.later(BOOT, "ec2.boot", _payload(instance))
        _told(scope, instance)
    return started


def _free_addresses(scope: Scope, launch: Launch, low: int, high: int) -> list[str]:
    block = ipaddress.IPv4Network(launch.subnet["CidrBlock"])
    taken = network.taken_addresses(scope, launch.subnet["SubnetId"])
    first, last = int(block.network_address) + 4, int(block.broadcast_address)
    if launch.address is not None:
        if not _inside(launch.address, first, last):
            raise ApiError(
                "InvalidParameterValue", f"Address does not fall within the subnet's address range: {launch.address}"
            )
        if launch.address in taken:
            raise ApiError("InvalidIPAddress.InUse", f"Address {launch.address} is in use.")
        return [launch.address]
    free: list[str] = []
    for number in range(first, last):
        address = str(ipaddress.IPv4Address(number))
        if address not in taken:
            free.append(address)
        if len(free) == high:
            break
    if len(free) < low:
        raise ApiError(
            "InsufficientFreeAddressesInSubnet",
            f"There are not enough free addresses in subnet '{launch.subnet['SubnetId']}' to satisfy the requested "
            "number of instances.",
        )
    return free


def _inside(address: str, first: int, last: int) -> bool:
    try:
        return first <= int(ipaddress.IPv4Address(address)) < last
    except ValueError:
        raise invalid(f"Invalid IPv4 address: {address}") from None


def _new_instance(scope: Scope, launch: Launch, address: str, index: int, reservation: Doc) -> Doc:
    name, now = INSTANCE.new_id(scope), scope.now.isoformat(timespec="seconds")
    subnet, machine, image = launch.subnet, launch.type, launch.image
    host = f"ip-{address.replace('.', '-')}.{scope.region}.compute.internal"
    groups = [{"GroupId": group["GroupId"], "GroupName": group["GroupName"]} for group in launch.groups]
    interface = f"eni-{scope.new_id(17)}"
    mode = _boot_mode(image, machine)
    instance: Doc = {
        "InstanceId": name,
        "ImageId": image["ImageId"],
        "InstanceType": machine.name,
        "State": {"Code": CODES["pending"], "Name": "pending"},
        "StateTransitionReason": "",
        "LaunchTime": now,
        "AmiLaunchIndex": index,
        "ClientToken": launch.token,
        "Architecture": image["Architecture"],
        "VirtualizationType": "hvm",
        "Hypervisor": "xen",
        "EnaSupport": image["EnaSupport"],
        "EbsOptimized": False,
        "Monitoring": {"State": "disabled"},
        "Placement": {"AvailabilityZone": subnet["AvailabilityZone"], "GroupName": "", "Tenancy": "default"},
        "PrivateDnsName": host,
        "PrivateIpAddress": address,
        "PublicDnsName": "",
        "ProductCodes": [],
        "SubnetId": subnet["SubnetId"],
        "VpcId": subnet["VpcId"],
        "SecurityGroups": groups,
        "SourceDestCheck": True,
        "RootDeviceName": image["RootDeviceName"],
        "RootDeviceType": "ebs",
        "BlockDeviceMappings": [_volume(scope, launch, name, mapping, now) for mapping in launch.mappings],
        "NetworkInterfaces": [
            {
                "NetworkInterfaceId": interface,
                "Description": "",
                "Groups": groups,
                "OwnerId": scope.account,
                "PrivateDnsName": host,
                "PrivateIpAddress": address,
                "PrivateIpAddresses": [{"Primary": True, "PrivateDnsName": host, "PrivateIpAddress": address}],
                "SourceDestCheck": True,
                "Status": "in-use",
                "SubnetId": subnet["SubnetId"],
                "VpcId": subnet["VpcId"],
                "InterfaceType": "interface",
                "Ipv6Addresses": [],
            }
        ],
        "CpuOptions": {"CoreCount": max(1, machine.cpus // 2), "ThreadsPerCore": min(2, machine.cpus)},
        "MetadataOptions": launch.metadata,
        "CurrentInstanceBootMode": mode,
        "PlatformDetails": "Linux/UNIX",
        "UsageOperation": "RunInstances",
        "tags": dict(launch.tags),
        "reservation": reservation,
        "address": own_address(name, {instance["address"] for instance in scope.all(INSTANCE.name)}),
        "shutdown": launch.shutdown,
        "epoch": 1,
    }
    if "BootMode" in image:
        instance["BootMode"] = image["BootMode"]
    INSTANCE.keep(scope, instance)
    return instance


def _volume(scope: Scope, launch: Launch, instance: str, mapping: Doc, now: str) -> Doc:
    """Make a device's volume; the device as an instance shows it."""
    given = mapping["Ebs"]
    volume: Doc = {
        "VolumeId": VOLUME.new_id(scope),
        "AvailabilityZone": launch.subnet["AvailabilityZone"],
        "CreateTime": now,
        "Encrypted": given["Encrypted"],
        "Size": given["VolumeSize"],
        "SnapshotId": given["SnapshotId"],
        "State": "in-use",
        "VolumeType": given["VolumeType"],
        "MultiAttachEnabled": False,
        **{name: given[name] for name in ("Iops", "Throughput") if name in given},
        "Attachments": [],
        "tags": dict(launch.volume_tags),
    }
    volume["Attachments"] = [
        {
            "AttachTime": now,
            "DeleteOnTermination": given["DeleteOnTermination"],
            "Device": mapping["DeviceName"],
            "InstanceId": instance,
            "State": "attached",
            "VolumeId": volume["VolumeId"],
        }
    ]
    VOLUME.keep(scope, volume)
    return {
        "DeviceName": mapping["DeviceName"],
        "Ebs": {
            "AttachTime": now,
            "DeleteOnTermination": given["DeleteOnTermination"],
            "Status": "attached",
            "VolumeId": volume["VolumeId"],
        },
    }


# --------------------------------------------------------------------------------------------------------- states


def _state(instance: Doc) -> str:
    return str(instance["State"]["Name"])


def _payload(instance: Doc) -> Doc:
    return {"instance": instance["InstanceId"], "epoch": instance["epoch"]}


def _current(scope: Scope, payload: Wire, *states: str) -> Doc | None:
    """The instance, where it still has that run and one of these states."""
    instance = scope.get(INSTANCE.name, payload["instance"])
    if instance is None or instance["epoch"] != payload["epoch"] or _state(instance) not in states:
        return None
    return instance


def _told(scope: Scope, instance: Doc) -> None:
    from osvdeploy.sandbox.services import elbv2  # that module asks this service: not at import time

    elbv2.instance_changed(scope, instance["InstanceId"], _state(instance))


def _become(scope: Scope, instance: Doc, state: str, reason: tuple[str, str] | None = None) -> None:
    instance["State"] = {"Code": CODES[state], "Name": state}
    if reason is not None:
        code, message = reason
        instance["StateReason"] = {"Code": code, "Message": f"{code}: {message}"}
        said = "User initiated" if reason == _BY_USER else ""
        instance["StateTransitionReason"] = f"{said} ({scope.now:%Y-%m-%d %H:%M:%S} GMT)" if said else ""
    INSTANCE.keep(scope, instance)
    _told(scope, instance)


def boot_due(scope: Scope, payload: Wire) -> None:
    instance = _current(scope, payload, "pending")
    if instance is not None and not _power_on(scope, instance):
        _become(scope, instance, "shutting-down", _NO_SNAPSHOT)
        scope.later(0, "ec2.ended", dict(payload))


def _power_on(scope: Scope, instance: Doc) -> bool:
    """Start the guest from its own root volume. False where nothing is left of that."""
    volume, payload = _root_volume(scope, instance), _payload(instance)
    size = volume["Size"] * GIB
    try:
        disk = ebs.disk_reader(scope, volume["SnapshotId"], size)
    except KeyError:
        return False
    cpus = machine_types.find(instance["InstanceType"]).cpus
    guest = Guest(instance["InstanceId"], instance["address"], disk, size, cpus)
    runner, now = scope.runner, scope.now
    scope.outside(lambda: runner.start(guest, now), then=partial(_powered_on, payload))
    return True


def _root_volume(scope: Scope, instance: Doc) -> Doc:
    for mapping in instance["BlockDeviceMappings"]:
        if mapping["DeviceName"] == instance["RootDeviceName"]:
            return VOLUME.find(scope, mapping["Ebs"]["VolumeId"])
    raise AssertionError("an instance without its root volume")


def _powered_on(payload: Doc, scope: Scope, status: GuestStatus) -> None:
    instance = _current(scope, payload, "pending", "running")
    if instance is None:  # ended meanwhile
        runner, now = scope.runner, scope.now
        scope.outside(lambda: runner.stop(payload["instance"], now), then=partial(_console_of, payload["instance"]))
        return
    if _state(instance) == "pending":
        _become(scope, instance, "running")
        scope.later(POSTED, "ec2.post", payload)
    _seen(scope, payload, status)


def look_due(scope: Scope, payload: Wire) -> None:
    if _current(scope, payload, "running") is not None:
        _seen(scope, payload, scope.runner.status(payload["instance"], scope.now))


def _seen(scope: Scope, payload: Wire, status: GuestStatus | None) -> None:
    """What a look at the guest leads to. One that its runner lost went the way of a power failure."""
    if status is None or status.power is Power.OFF:
        instance = _current(scope, payload, "running")
        if instance is not None:
            _end_by_itself(scope, instance)
    elif status.next_change is not None:
        scope.later(0, "ec2.look", dict(payload), after=status.next_change)


def _end_by_itself(scope: Scope, instance: Doc) -> None:
    _end(scope, instance, "stopping" if instance["shutdown"] == "stop" else "shutting-down", _BY_GUEST)


def look(scope: Scope) -> None:
    """See what guests did by themselves, for a runner that cannot say when a look is worth while."""
    for instance in scope.all(INSTANCE.name):
        if _state(instance) == "running":
            status = scope.runner.status(instance["InstanceId"], scope.now)
            if status is None or status.power is Power.OFF:
                _end_by_itself(scope, instance)


def resume(scope: Scope) -> None:
    """Go on with instances that another process left: guests that ran are powered on again, what was to end ends."""
    for instance in scope.all(INSTANCE.name):
        state = _state(instance)
        if state == "running" and not _power_on(scope, instance):
            _end_by_itself(scope, instance)
        elif state in ("stopping", "shutting-down"):
            scope.later(ENDING, "ec2.ended", _payload(instance))


def post_due(scope: Scope, payload: Wire) -> None:
    """Post the console as it is now, for those who cannot ask for the latest."""
    if _current(scope, payload, "running") is not None:
        status = scope.runner.status(payload["instance"], scope.now)
        if status is not None:
            _console_of(payload["instance"], scope, status.console)


def _end(scope: Scope, instance: Doc, state: str, reason: tuple[str, str]) -> None:
    """Power off and go on to stopped or terminated."""
    _become(scope, instance, state, reason)
    runner, now, payload = scope.runner, scope.now, _payload(instance)
    scope.outside(lambda: runner.stop(payload["instance"], now), then=partial(_powered_off, payload))


def _powered_off(payload: Doc, scope: Scope, console: bytes) -> None:
    _console_of(payload["instance"], scope, console)
    scope.later(ENDING, "ec2.ended", payload)


def _console_of(name: str, scope: Scope, console: bytes) -> None:
    instance = scope.get(INSTANCE.name, name)
    if console and instance is not None:
        INSTANCE.keep(scope, {**instance, "console": scope.blobs.put(console), "posted": scope.now.isoformat()})


def ended(scope: Scope, payload: Wire) -> None:
    instance = _current(scope, payload, "stopping", "shutting-down")
    if instance is None:
        return
    if _state(instance) == "stopping":
        _become(scope, instance, "stopped")
        return
    for mapping in instance["BlockDeviceMappings"]:
        volume = scope.get(VOLUME.name, mapping["Ebs"]["VolumeId"])
        if volume is None:
            continue
        if mapping["Ebs"]["DeleteOnTermination"]:
            VOLUME.drop(scope, volume)
        else:
            VOLUME.keep(scope, {**volume, "State": "available", "Attachments": []})
    instance |= {"BlockDeviceMappings": [], "NetworkInterfaces": [], "SecurityGroups": [], "PrivateDnsName": ""}
    instance.pop("PrivateIpAddress", None)
    _become(scope, instance, "terminated")
    scope.later(GONE, "ec2.gone", dict(payload))


def gone(scope: Scope, payload: Wire) -> None:
    if _current(scope, payload, "terminated") is not None:
        scope.delete(INSTANCE.name, payload["instance"])


def terminate(scope: Scope, instance: Doc) -> None:
    """Begin to end an instance, whatever it does; nothing happens to one that ends already."""
    if _state(instance) not in ("shutting-down", "terminated"):
        _end(scope, instance, "shutting-down", _BY_USER)


def terminate_instances(scope: Scope, params: Wire) -> Doc:
    return {"TerminatingInstances": _changes(scope, params, terminate)}


def stop_instances(scope: Scope, params: Wire) -> Doc:
    return {"StoppingInstances": _changes(scope, params, _stop, "stopped", ("running", "stopping", "stopped"))}


def start_instances(scope: Scope, params: Wire) -> Doc:
    return {"StartingInstances": _changes(scope, params, _start_again, "started", ("pending", "running", "stopped"))}


def _stop(scope: Scope, instance: Doc) -> None:
    if _state(instance) == "running":
        _end(scope, instance, "stopping", _BY_USER)


def _start_again(scope: Scope, instance: Doc) -> None:
    if _state(instance) != "stopped":
        return
    if scope.get(SNAPSHOT.name, _root_volume(scope, instance)["SnapshotId"]) is None:
        raise NotSimulated("starting an instance again whose volume's snapshot is deleted")
    instance["epoch"] += 1
    instance["LaunchTime"] = scope.now.isoformat(timespec="seconds")
    instance.pop("StateReason", None)
    instance["StateTransitionReason"] = ""
    _become(scope, instance, "pending")
    scope.later(BOOT, "ec2.boot", _payload(instance))


def _changes(
    scope: Scope, params: Wire, change: Callable[[Scope, Doc], None], verb: str = "", states: Sequence[str] = ()
) -> list[Doc]:
    """Change all of the named instances, or refuse all."""
    found = chosen(scope, INSTANCE, required(params, "InstanceIds"))
    for instance in found:
        if states and _state(instance) not in states:
            raise ApiError(
                "IncorrectInstanceState",
                f"The instance '{instance['InstanceId']}' is not in a state from which it can be {verb}.",
            )
    answers = []
    for instance in found:
        name, before = instance["InstanceId"], instance["State"]
        change(scope, instance)
        after = INSTANCE.find(scope, name)["State"]
        answers.append({"InstanceId": name, "PreviousState": before, "CurrentState": after})
    return answers


# --------------------------------------------------------------------------------------------------------- queries


_DESCRIBE = Query(
    "DescribeInstances",
    {
        "architecture": "Architecture",
        "availability-zone": "Placement.AvailabilityZone",
        "block-device-mapping.device-name": "BlockDeviceMappings.DeviceName",
        "block-device-mapping.volume-id": "BlockDeviceMappings.Ebs.VolumeId",
        "client-token": "ClientToken",
        "image-id": "ImageId",
        "instance-id": "InstanceId",
        "instance-state-code": "State.Code",
        "instance-state-name": "State.Name",
        "instance-type": "InstanceType",
        "instance.group-id": "SecurityGroups.GroupId",
        "instance.group-name": "SecurityGroups.GroupName",
        "launch-time": "LaunchTime",
        "owner-id": "reservation.OwnerId",
        "private-dns-name": "PrivateDnsName",
        "private-ip-address": "PrivateIpAddress",
        "reservation-id": "reservation.ReservationId",
        "root-device-name": "RootDeviceName",
        "root-device-type": "RootDeviceType",
        "state-reason-code": "StateReason.Code",
        "subnet-id": "SubnetId",
        "virtualization-type": "VirtualizationType",
        "vpc-id": "VpcId",
    },
    "InstanceId",
)


def describe_instances(scope: Scope, params: Wire) -> Doc:
    found = [
        {**shown(instance), "reservation": instance["reservation"]}
        for instance in chosen(scope, INSTANCE, params.get("InstanceIds"))
    ]
    answer = _DESCRIBE.page(params, "Instances", _DESCRIBE.select(params, found), ids="InstanceIds")
    reservations: dict[str, Doc] = {}
    for instance in answer.pop("Instances"):
        of = instance.pop("reservation")
        reservation = reservations.setdefault(of["ReservationId"], {**of, "Groups": [], "Instances": []})
        reservation["Instances"].append(instance)
    return {"Reservations": list(reservations.values()), **answer}


_DESCRIBE_STATUS = Query(
    "DescribeInstanceStatus",
    {
        "availability-zone": "AvailabilityZone",
        "instance-state-code": "InstanceState.Code",
        "instance-state-name": "InstanceState.Name",
        "instance-status.status": "InstanceStatus.Status",
        "instance-status.reachability": "InstanceStatus.Details.Status",
        "system-status.status": "SystemStatus.Status",
        "system-status.reachability": "SystemStatus.Details.Status",
    },
    "InstanceId",
    tagged=False,
)


def describe_instance_status(scope: Scope, params: Wire) -> Doc:
    """Running instances alone, unless all are asked for. Checks of running ones pass: the sandbox's host has no
    trouble, and what the guest does is the balancer's to find out."""
    found = []
    for instance in chosen(scope, INSTANCE, params.get("InstanceIds")):
        running = _state(instance) == "running"
        if not running and not params.get("IncludeAllInstances"):
            continue
        check: Doc = {"Status": "not-applicable"}
        if running:
            check = {"Status": "ok", "Details": [{"Name": "reachability", "Status": "passed"}]}
        found.append(
            {
                "InstanceId": instance["InstanceId"],
                "AvailabilityZone": instance["Placement"]["AvailabilityZone"],
                "InstanceState": instance["State"],
                "InstanceStatus": check,
                "SystemStatus": check,
            }
        )
    found = _DESCRIBE_STATUS.select(params, found)
    return _DESCRIBE_STATUS.page(params, "InstanceStatuses", found, ids="InstanceIds")


_DESCRIBE_VOLUMES = Query(
    "DescribeVolumes",
    {
        "attachment.device": "Attachments.Device",
        "attachment.instance-id": "Attachments.InstanceId",
        "attachment.delete-on-termination": "Attachments.DeleteOnTermination",
        "availability-zone": "AvailabilityZone",
        "encrypted": "Encrypted",
        "size": "Size",
        "snapshot-id": "SnapshotId",
        "status": "State",
        "volume-id": "VolumeId",
        "volume-type": "VolumeType",
    },
    "VolumeId",
)


def describe_volumes(scope: Scope, params: Wire) -> Doc:
    found = [shown(volume) for volume in chosen(scope, VOLUME, params.get("VolumeIds"))]
    return _DESCRIBE_VOLUMES.page(params, "Volumes", _DESCRIBE_VOLUMES.select(params, found), ids="VolumeIds")


def get_console_output(scope: Scope, params: Wire) -> Doc:
    """Base64, as the API gives it. With Latest what is there now, without what was posted last."""
    instance = INSTANCE.find(scope, required(params, "InstanceId"))
    name = instance["InstanceId"]
    if params.get("Latest"):
        if not machine_types.find(instance["InstanceType"]).nitro:
            raise ApiError(
                "UnsupportedOperation",
                "The latest console output is only supported for instances built on the Nitro System.",
            )
        status = scope.runner.status(name, scope.now) if _state(instance) == "running" else None
        if status is not None:
            output = {"Output": base64.b64encode(status.console).decode()} if status.console else {}
            return {"InstanceId": name, "Timestamp": scope.now, **output}
    if "console" not in instance:
        return {"InstanceId": name, "Timestamp": scope.now}
    console = base64.b64encode(scope.blobs.get(instance["console"])).decode()
    return {"InstanceId": name, "Timestamp": datetime.fromisoformat(instance["posted"]), "Output": console}


# ------------------------------------------------------------------------------------------- for the other services


def seen_by_others(instance: Doc) -> Instance:
    return Instance(
        instance["InstanceId"],
        _state(instance),
        instance["address"],
        instance["VpcId"],
        instance["SubnetId"],
        instance["Placement"]["AvailabilityZone"],
        instance["InstanceType"],
        instance["ImageId"],
    )


def launch_from(scope: Scope, template: Template, subnet: str, tags: Mapping[str, str]) -> Instance:
    """One instance from that very version; ``tags`` may be AWS's own. Raises ApiError as RunInstances does."""
    source = {"LaunchTemplateId": template.id, "Version": template.version}
    launch = _checked(scope, {"SubnetId": subnet}, source)
    [instance] = _start(scope, _with_tags(launch, tags), 1, 1)
    return seen_by_others(instance)


def _with_tags(launch: Launch, tags: Mapping[str, str]) -> Launch:
    return replace(launch, tags={**launch.tags, **tags})
