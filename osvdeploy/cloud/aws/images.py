"""Images on AWS: AMIs registered from EBS snapshots.

Source: EC2 API reference, RegisterImage, DescribeImages, DeregisterImage, CreateTags, DeleteTags and their errors.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from osvdeploy.cloud.aws.image_users import users_of
from osvdeploy.cloud.aws.session import Aws
from osvdeploy.cloud.aws.snapshots import tag_dict, tag_filters, tag_list
from osvdeploy.cloud.interfaces import CloudImage, ImageRequest, ImageUser, Tags
from osvdeploy.cloud.tags import DIGEST, NAME, is_ours
from osvdeploy.context import Context
from osvdeploy.digests import Digest
from osvdeploy.errors import CloudError, ImageNameTaken, NotFound, NotOurs, Refused, Unavailable
from osvdeploy.events import Waiting
from osvdeploy.retry import retrying, until_next_look

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import FilterTypeDef, ImageTypeDef

ROOT_DEVICE = "xvda"
"""OSv takes the first disk it finds; the name only has to be the same in mapping and image."""

NOT_YET = 120.0
"""Seconds after its registration for which an image that is not found may just not be visible yet."""

LONGEST_WAIT = 900.0
"""Seconds for an image to become available; usually a few, after which another run may wait again."""

_NAME = re.compile(r"[A-Za-z0-9()\[\] ./'@_-]{3,128}")
_DEAD = ("failed", "invalid", "error")


class AmiRegistry:
    """:class:`~osvdeploy.cloud.interfaces.ImageRegistry` of AMIs."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws

    def find(self, ctx: Context, name: str) -> CloudImage | None:
        """As the port says; an image that is just being registered is waited for.

        Raises :class:`~osvdeploy.errors.Refused` for a name that no AMI can have, and for one whose image is broken.
        """
        _check_name(name)
        found = self._describe(ctx, name, filters=[{"Name": "name", "Values": [name]}])
        for image in found:
            if not is_ours(tag_dict(image.get("Tags", []))):
                raise NotOurs(
                    f"{name}: {image['ImageId']} has that name, and something else made it",
                    hint="choose another name or version, or deregister that image",
                )
            return self._available(ctx, name, image["ImageId"], image)
        return None

    def get(self, ctx: Context, image_id: str) -> CloudImage | None:
        found = self._by_id(ctx, image_id, image_id)
        if found is None:
            return None
        if not is_ours(tag_dict(found.get("Tags", []))):
            raise NotOurs(f"{image_id} is {found.get('Name', 'without a name')}, and something else made it")
        return self._available(ctx, found.get("Name", image_id), image_id, found)

    def register(self, ctx: Context, request: ImageRequest) -> CloudImage:
        _check_name(request.name)
        try:
            with self._aws.calling(ctx, f"image {request.name}"):
                image_id = self._aws.ec2.register_image(
                    Name=request.name,
                    Description=request.description,
                    Architecture=request.architecture,  # type: ignore[arg-type]  # the stubs want a literal
                    VirtualizationType="hvm",
                    BootMode="legacy-bios",
                    EnaSupport=True,
                    RootDeviceName=ROOT_DEVICE,
                    BlockDeviceMappings=[
                        {
                            "DeviceName": ROOT_DEVICE,
                            "Ebs": {"SnapshotId": request.disk.id, "VolumeType": "gp3", "DeleteOnTermination": True},
                        }
                    ],
                    TagSpecifications=[
                        {
                            "ResourceType": "image",
                            "Tags": tag_list({**request.tags, NAME: request.name, DIGEST: request.digest}),
                        }
                    ],
                )["ImageId"]
        except Refused as error:
            if error.code != "InvalidAMIName.Duplicate":
                raise
            return self._there(ctx, request)
        try:
            return self._available(ctx, request.name, image_id)
        except Refused:
            # It can never be used, or never be looked at; either way nobody else would take it away.
            try:
                self.deregister(ctx, image_id)
            except CloudError:
                pass  # the refusal is what has to be told; gc finds the image by its tags
            raise

    def deregister(self, ctx: Context, image_id: str) -> None:
        try:
            with self._aws.calling(ctx, f"image {image_id}"):
                self._aws.ec2.deregister_image(ImageId=image_id)
        except NotFound:
            pass

    def owned(self, ctx: Context, tags: Tags) -> list[CloudImage]:
        return [_image(image) for image in self._describe(ctx, "images", filters=tag_filters(tags))]

    def retag(self, ctx: Context, image_id: str, tags: Tags, without: Collection[str] = ()) -> None:
        found = self._by_id(ctx, image_id, image_id)
        if found is None:
            raise NotFound(f"image {image_id}: is not there")
        image = _image(found)
        if not is_ours(image.tags):
            raise NotOurs(f"{image_id} is {image.name}, and something else made it", hint="it is left as it is")
        things = [image_id, *filter(None, [image.disk])]
        with self._aws.calling(ctx, f"image {image.name}"):
            if tags:
                self._aws.ec2.create_tags(Resources=things, Tags=tag_list(tags))
            if without:
                self._aws.ec2.delete_tags(Resources=things, Tags=[{"Key": name} for name in sorted(without)])

    def users(self, ctx: Context, images: Sequence[CloudImage]) -> Mapping[str, Sequence[ImageUser]]:
        return users_of(self._aws, ctx, images)

    # ------------------------------------------------------------------------------------------------------------

    def _there(self, ctx: Context, request: ImageRequest) -> CloudImage:
        """The image that holds the name: ours when the answer to our own registration was lost."""

        def look() -> CloudImage:
            image = self.find(ctx, request.name)
            if image is None:
                raise NotFound(f"image {request.name}: the name is taken, but no image of that name is visible")
            return image

        image = retrying(ctx, look, when=lambda error: isinstance(error, NotFound), seconds=NOT_YET)
        if image.digest != request.digest:
            raise ImageNameTaken(request.name, held=image.digest, ours=request.digest)
        return image

    def _available(self, ctx: Context, name: str, image_id: str, image: ImageTypeDef | None = None) -> CloudImage:
        """Wait until machines can be started from it: its end is seen within a second."""
        began = ctx.monotonic()
        while True:
            image = image or self._by_id(ctx, name, image_id)
            state = image["State"] if image is not None else "not visible yet"
            if image is not None and state == "available":
                return _image(image)
            waited = ctx.monotonic() - began
            if state in _DEAD:
                reason = (image or {}).get("StateReason", {}).get("Message") or state
                raise Refused(
                    f"image {name}: {image_id} can never be used: {reason}",
                    hint=f"deregister {image_id} and publish again",
                )
            if waited > (LONGEST_WAIT if image is not None else NOT_YET):
                raise Unavailable(
                    f"image {name}: {image_id} is still {state}", hint="run the same command again: it goes on"
                )
            ctx.report(Waiting(f"image {name}", f"{image_id} is {state}"))
            ctx.sleep(until_next_look(waited))
            image = None

    def _by_id(self, ctx: Context, name: str, image_id: str) -> ImageTypeDef | None:
        try:
            with self._aws.calling(ctx, f"image {name}"):
                found = self._aws.ec2.describe_images(ImageIds=[image_id])["Images"]
        except NotFound:
            return None
        return found[0] if found else None

    def _describe(self, ctx: Context, what: str, filters: list[FilterTypeDef]) -> list[ImageTypeDef]:
        with self._aws.calling(ctx, f"image {what}" if what != "images" else what):
            pages = self._aws.ec2.get_paginator("describe_images").paginate(Owners=["self"], Filters=filters)
            return [image for page in pages for image in page["Images"]]


def _check_name(name: str) -> None:
    if _NAME.fullmatch(name) is None:
        raise Refused(
            f"{name!r} cannot be the name of an AMI",
            hint="3 to 128 characters: letters, digits, spaces and ( ) [ ] . / - ' @ _; change `name` or `version`",
        )


def _image(image: ImageTypeDef) -> CloudImage:
    tags = tag_dict(image.get("Tags", []))
    under = [
        mapping["Ebs"].get("SnapshotId")
        for mapping in image.get("BlockDeviceMappings", [])
        if mapping.get("DeviceName") == image.get("RootDeviceName") and "Ebs" in mapping
    ]
    created = image.get("CreationDate")
    return CloudImage(
        id=image["ImageId"],
        name=image.get("Name", ""),
        digest=Digest(tags.get(DIGEST, "")),
        disk=under[0] if under else None,
        tags=tags,
        created=datetime.fromisoformat(created) if created else None,
    )
