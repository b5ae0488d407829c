"""What starts instances from an AMI: launch templates, by any of their versions, and instances that others started.

EC2 lists the versions that name an image over all templates only as far as they are a template's newest or its default
one; of a template that has others it has to be asked by itself. DescribeImageReferences would tell of all at once, but
not of the versions, needs a permission of its own, which no policy from before has, and an SDK newer than ours has to
be. What is asked here whoever deploys may ask: each deploy does.

Not seen: other accounts that an image is shared with, parameters of Systems Manager that hold its id, and launch
configurations from which no instance runs.

Sources: EC2 API reference (DescribeLaunchTemplates, DescribeLaunchTemplateVersions, DescribeInstances; their filters
and pages), EC2 user guide, "Deregister an Amazon EC2 AMI": what runs is not affected, nothing more is started.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from osvdeploy.cloud.aws.session import Aws
from osvdeploy.cloud.aws.snapshots import tag_dict
from osvdeploy.cloud.interfaces import CloudImage, ImageUser
from osvdeploy.cloud.tags import NAME, is_ours
from osvdeploy.context import Context
from osvdeploy.errors import NotFound

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import FilterTypeDef, InstanceTypeDef, LaunchTemplateVersionTypeDef

FILTER_VALUES = 200
"""Values that one filter takes."""

TEMPLATES_PAGE = 200
INSTANCES_PAGE = 1000
"""The most of each that one answer has."""

TOLD = 3
"""Versions and instances that are named; the rest is counted."""

_GROUP = "aws:autoscaling:groupName"
"""Auto Scaling's own tag, which nobody else can give."""

_NOT_GONE = ["pending", "running", "stopping", "stopped"]


@dataclass(slots=True)
class _Template:
    """A launch template that is not ours. ``alone``: it has no version but its newest and its default one."""

    id: str
    name: str
    alone: bool
    versions: dict[str, set[int]] = field(default_factory=dict)
    """Those that name an image, by its id."""

    def told(self, image: str) -> str:
        numbers = [str(each) for each in sorted(self.versions[image], reverse=True)]
        return f"launch template {self.name} ({self.id}), version{'' if len(numbers) == 1 else 's'} {few(numbers)}"


def users_of(aws: Aws, ctx: Context, images: Sequence[CloudImage]) -> dict[str, list[ImageUser]]:
    """As :meth:`~osvdeploy.cloud.interfaces.ImageRegistry.users`. As many calls as there are pages of templates, of the
    versions that name one of the images, and of instances; and one for each template of others that has other versions
    than its newest and its default one."""
    found: dict[str, list[ImageUser]] = {}
    if not images:
        return found
    ids = [image.id for image in images]
    templates = _templates(aws, ctx)
    for start in range(0, len(ids), FILTER_VALUES):
        some = ids[start : start + FILTER_VALUES]
        if templates:
            for version in _versions(aws, ctx, some, Versions=["$Latest", "$Default"]):
                _note(templates, version)
        for template in [each for each in templates.values() if not each.alone]:
            for version in _versions(aws, ctx, some, LaunchTemplateId=template.id):
                _note(templates, version)
        for image, user in _instances(aws, ctx, some):
            found.setdefault(image, []).append(user)
    for template in sorted(templates.values(), key=lambda each: each.name, reverse=True):
        for image in template.versions:
            # Before the machines: what starts them misses the image first.
            found.setdefault(image, []).insert(0, ImageUser(template.told(image), ours=False))
    return found


def few(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    more = len(names) - TOLD
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:TOLD])} and {more} more"


def _templates(aws: Aws, ctx: Context) -> dict[str, _Template]:
    """Every template of the region that others made, by its id."""
    found: dict[str, _Template] = {}
    with aws.calling(ctx, "launch templates"):
        pages = aws.ec2.get_paginator("describe_launch_templates").paginate(
            PaginationConfig={"PageSize": TEMPLATES_PAGE}
        )
        for each in (template for page in pages for template in page["LaunchTemplates"]):
            if not is_ours(tag_dict(each.get("Tags", []))):
                latest, default = each["LatestVersionNumber"], each["DefaultVersionNumber"]
                name, alone = each["LaunchTemplateName"], latest <= len({latest, default})
                found[each["LaunchTemplateId"]] = _Template(each["LaunchTemplateId"], name, alone)
    return found


def _versions(aws: Aws, ctx: Context, images: list[str], **which: Any) -> list[LaunchTemplateVersionTypeDef]:
    """The versions of templates that name one of these images; none of a template that was deleted meanwhile."""
    try:
        with aws.calling(ctx, "versions of launch templates"):
            pages = aws.ec2.get_paginator("describe_launch_template_versions").paginate(
                Filters=_of(images), PaginationConfig={"PageSize": TEMPLATES_PAGE}, **which
            )
            return [version for page in pages for version in page["LaunchTemplateVersions"]]
    except NotFound:
        return []


def _note(templates: dict[str, _Template], version: LaunchTemplateVersionTypeDef) -> None:
    # One of ours, or one that was made since the templates were listed: images that go are older than that.
    template = templates.get(version["LaunchTemplateId"])
    if template is not None:
        image = version["LaunchTemplateData"]["ImageId"]
        template.versions.setdefault(image, set()).add(version["VersionNumber"])


def _instances(aws: Aws, ctx: Context, images: list[str]) -> Iterator[tuple[str, ImageUser]]:
    """Instances that are not gone, those of one Auto Scaling group together, with their images."""
    filters: list[FilterTypeDef] = [*_of(images), {"Name": "instance-state-name", "Values": _NOT_GONE}]
    groups: dict[tuple[str, str, bool], list[str]] = {}
    alone: list[InstanceTypeDef] = []
    with aws.calling(ctx, "instances"):
        pages = aws.ec2.get_paginator("describe_instances").paginate(
            Filters=filters, PaginationConfig={"PageSize": INSTANCES_PAGE}
        )
        for page in pages:
            for each in (instance for held in page["Reservations"] for instance in held["Instances"]):
                tags = tag_dict(each.get("Tags", []))
                if _GROUP in tags:
                    key = each["ImageId"], tags[_GROUP], is_ours(tags)
                    groups.setdefault(key, []).append(each["InstanceId"])
                else:
                    alone.append(each)
    for (image, group, ours), instances in sorted(groups.items()):
        told = f"Auto Scaling group {group} (instance{'' if len(instances) == 1 else 's'} {few(sorted(instances))})"
        yield image, ImageUser(told, ours)
    for each in sorted(alone, key=lambda instance: instance["InstanceId"]):
        tags = tag_dict(each.get("Tags", []))
        called = f" ({tags[NAME]})" if tags.get(NAME) else ""
        yield each["ImageId"], ImageUser(f"instance {each['InstanceId']}{called}", is_ours(tags))


def _of(images: list[str]) -> list[FilterTypeDef]:
    return [{"Name": "image-id", "Values": images}]
