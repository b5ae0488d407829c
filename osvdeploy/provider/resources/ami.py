"""`osvdeploy:aws:Ami`: the image of a release on AWS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from osvdeploy.cloud.tags import RELEASE
from osvdeploy.errors import UsageError
from osvdeploy.provider.base import Call, all_unknown
from osvdeploy.provider.declare import declared, prop
from osvdeploy.provider.disks import Disk
from osvdeploy.provider.parsing import Failure
from osvdeploy.provider.release_images import ReleaseImage, ReleaseInputs, ReleaseOutputs, Site

if TYPE_CHECKING:
    from pydantic import BaseModel

    from osvdeploy.api.release_images import AppImage, ReleaseOn
    from osvdeploy.checks.places import Place
    from osvdeploy.cloud.interfaces import Cloud, CloudImage
    from osvdeploy.context import Context
    from osvdeploy.osv.image import RawImage


class AmiVia(StrEnum):
    """How a disk gets to AWS."""

    EBS = "ebs"
    S3 = "s3"


@declared
class AmiInputs(ReleaseInputs):
    """What an AMI is made of."""

    region: str | None = prop("The region; left out, the provider's.", default=None, replaces=True)
    via: AmiVia = prop(
        "How the disk gets there: block by block (`ebs`), or as an object that EC2 imports (`s3`), slower. Changed, it "
        "is for images that are made from then on.",
        default=AmiVia.EBS,
    )
    bucket: str | None = prop("For `s3`: the bucket that the disk passes through, in the image's region.", default=None)
    tags: Mapping[str, str] = prop("Your own tags on the image and its snapshot.", default_factory=dict)
    instance_types: tuple[str, ...] = prop(
        "Instance types that the image is to boot on: what is known to fail there is refused before anything is sent.",
        default_factory=tuple,
    )


@declared
class AmiOutputs(ReleaseOutputs):
    """What was made."""

    snapshot_id: str = prop("The snapshot under the image.")


class AwsSite(Site):
    """One region."""

    def __init__(self, cloud: Cloud, bucket: str | None) -> None:
        self.images = cloud.images
        self._cloud = cloud
        self._bucket = bucket

    def publish(self, ctx: Context, raw: RawImage, image: AppImage, release: ReleaseOn) -> CloudImage:
        from osvdeploy.api.release_images import on_disks

        return on_disks(ctx, raw, image, release, self._cloud, self._bucket)[1].image

    def place_of(self, ctx: Context, machine: str) -> Place:
        from osvdeploy.api.looking import place_of

        return place_of(ctx, self._cloud, machine)

    def users(self, ctx: Context, image: CloudImage) -> Sequence[str]:
        groups, release = self._cloud.groups, {RELEASE: image.tags[RELEASE]}
        told = [f"group {each.name} has it" for each in groups.owned(ctx, release)]
        return told + [f"launch template {name} has it" for name in groups.templates(ctx, release)]

    def variables(self, ctx: Context, image: CloudImage) -> Mapping[str, str]:
        """What its disk tells of the variables of a release."""
        from osvdeploy.api.release_images import variables_of

        return variables_of(ctx, image, self._cloud) or {}

    def remove(self, ctx: Context, image: CloudImage) -> None:
        self.images.deregister(ctx, image.id)
        if image.disk is not None:
            self._cloud.snapshots.delete(ctx, image.disk)


class Ami(ReleaseImage[AmiInputs, AmiOutputs]):
    """The image of a release on AWS: a disk with the release's own variables. Machines are started from it by its id,
    and a BlueGreenDeployment brings it into service."""

    TOKEN = "osvdeploy:aws:Ami"
    INPUTS = AmiInputs
    OUTPUTS = AmiOutputs
    CLOUD = "aws"
    TAGS = "tags"
    MACHINES = "instance_types"

    def placed(self, call: Call, wanted: AmiInputs, before: AmiInputs | None) -> tuple[AmiInputs, Sequence[Failure]]:
        region = wanted.region or call.settings.region
        if region is None:
            from osvdeploy.api import usual_region

            # An image stays where it is, wherever the next `up` is run.
            region = (before.region if before is not None else None) or usual_region()
        if region is None:
            return wanted, [Failure("region", "is needed: here, in the provider's configuration, or as AWS_REGION")]
        return replace(wanted, region=region), ()

    def model(self, wanted: AmiInputs) -> tuple[type[BaseModel], Mapping[str, object]]:
        from osvdeploy.spec.model import PublishAws

        return PublishAws, {"via": wanted.via, "bucket": wanted.bucket, "tags": wanted.tags}

    def site(self, call: Call, inputs: AmiInputs) -> AwsSite:
        from osvdeploy import api

        assert inputs.region is not None, "the check has filled it in"
        return AwsSite(api.connect(call.ctx, "aws", inputs.region), inputs.bucket)

    def told(self, image: CloudImage, common: ReleaseOutputs) -> AmiOutputs:
        return AmiOutputs(**asdict(common), snapshot_id=image.disk or "")

    def foreseen(self, common: ReleaseOutputs) -> AmiOutputs:
        return AmiOutputs(**asdict(common), snapshot_id=all_unknown(AmiOutputs).snapshot_id)

    def imported(self, call: Call, id: str) -> AmiInputs:
        placed, failures = self.placed(call, AmiInputs(disk=Disk("", "", "", "", "")), None)
        for each in failures:
            raise UsageError(f"{id}: {each.path} {each.reason}")
        return placed

    def complete(self, ctx: Context, site: Site, inputs: AmiInputs, image: CloudImage) -> AmiInputs:
        assert isinstance(site, AwsSite), "it is ours"
        return replace(inputs, env=site.variables(ctx, image))
