"""`osvdeploy:gcp:Image`: the image of a release on Google Cloud."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, asdict, replace
from typing import TYPE_CHECKING

from osvdeploy.cloud.tags import RELEASE, STORE
from osvdeploy.errors import UsageError
from osvdeploy.provider.base import Call, all_unknown
from osvdeploy.provider.declare import declared, prop
from osvdeploy.provider.disks import Disk
from osvdeploy.provider.parsing import Failure
from osvdeploy.provider.release_images import ReleaseImage, ReleaseInputs, ReleaseOutputs, Site
from osvdeploy.provider.values import is_known

if TYPE_CHECKING:
    from pydantic import BaseModel

    from osvdeploy.api.release_images import AppImage, ReleaseOn
    from osvdeploy.checks.places import Place
    from osvdeploy.cloud.interfaces import CloudImage
    from osvdeploy.context import Context
    from osvdeploy.osv.image import RawImage
    from osvdeploy.spec.model import PublishGcp

_LINK = re.compile(r"(?:https?://[^/]+/compute/v1/)?projects/(?P<project>[^/]+)/global/images/[^/]+")


@declared
class GcpImageInputs(ReleaseInputs):
    """What an image on Google is made of."""

    _: KW_ONLY

    bucket: str = prop("The bucket that the disk passes through. Changed, it is for images that are made from then on.")
    project: str | None = prop("The project; left out, the provider's.", default=None, replaces=True)
    family: str | None = prop("The image family that the image joins.", default=None)
    labels: Mapping[str, str] = prop("Your own labels on the image.", default_factory=dict)
    storage_location: str | None = prop(
        "The region, or `us`, `eu`, `asia`, that the image is kept in; left out, what is nearest to the bucket. "
        "Changed, it is for images that are made from then on.",
        default=None,
    )
    machine_types: tuple[str, ...] = prop(
        "Machine types that the image is to boot on: what is known to fail there is refused before anything is sent.",
        default_factory=tuple,
    )
    zone: str | None = prop(
        "With `machineTypes`: the zone or region where Google is asked about them; left out, their names tell.",
        default=None,
    )


@declared
class GcpImageOutputs(ReleaseOutputs):
    """What was made."""

    self_link: str = prop("The image's address.")


class GoogleSite(Site):
    """One project."""

    def __init__(self, settings: PublishGcp, zone: str | None) -> None:
        from osvdeploy.api import wiring

        self._place = wiring.google_images(settings)
        self.images = self._place.images
        self._families = self._place.families
        self._settings = settings
        self._zone = zone

    def publish(self, ctx: Context, raw: RawImage, image: AppImage, release: ReleaseOn) -> CloudImage:
        from osvdeploy.api.release_images import of_archives

        _, made = of_archives(ctx, raw, image, release, self._place, family=None, release_family=None)
        assert made is not None, "a release was asked for"
        return made.image

    def join(self, ctx: Context, image: CloudImage, family: str | None) -> None:
        self._families.offer(ctx, image, family)

    def place_of(self, ctx: Context, machine: str) -> Place:
        from osvdeploy.api import wiring
        from osvdeploy.api.looking import place_on_google
        from osvdeploy.checks.places import gce

        if self._zone is None:
            return gce(machine)
        return place_on_google(ctx, wiring.google_machines(self._settings, self._zone), machine)

    def users(self, ctx: Context, image: CloudImage) -> Sequence[str]:
        from osvdeploy.api import wiring

        # Templates are the project's, wherever their groups are.
        groups = wiring.ground(ctx, "gcp", self._settings.project, self._zone or "global").groups
        kept = groups.templates(ctx, {RELEASE: image.tags[RELEASE]})
        used = self._place.images.users(ctx, [image]).get(image.id, ())
        return [*(user.has("it") for user in used), *(f"instance template {name} has it" for name in kept)]

    def remove(self, ctx: Context, image: CloudImage) -> None:
        self.images.deregister(ctx, image.id)


class GcpImage(ReleaseImage[GcpImageInputs, GcpImageOutputs]):
    """The image of a release on Google Cloud: a disk with the release's own variables. Machines are started from it by
    its id or its family, and a BlueGreenDeployment brings it into service."""

    TOKEN = "osvdeploy:gcp:Image"
    INPUTS = GcpImageInputs
    OUTPUTS = GcpImageOutputs
    CLOUD = "gcp"
    TAGS = "labels"
    MACHINES = "machine_types"

    def placed(
        self, call: Call, wanted: GcpImageInputs, before: GcpImageInputs | None
    ) -> tuple[GcpImageInputs, Sequence[Failure]]:
        project = wanted.project or call.settings.project
        if project is None:
            # An image stays where it is, wherever the next `up` is run.
            project = (before.project if before is not None else None) or os.environ.get("GOOGLE_CLOUD_PROJECT")
        if project is None:
            reason = "is needed: here, in the provider's configuration, or as GOOGLE_CLOUD_PROJECT"
            return wanted, [Failure("project", reason)]
        return replace(wanted, project=project), ()

    def model(self, wanted: GcpImageInputs) -> tuple[type[BaseModel], Mapping[str, object]]:
        from osvdeploy.spec.model import PublishGcp

        # What a preview does not know yet is judged when it is known.
        return PublishGcp, {
            "project": wanted.project if is_known(wanted.project) else "unknown",
            "bucket": wanted.bucket if is_known(wanted.bucket) else "unknown",
            "family": wanted.family,
            "labels": wanted.labels,
            "storage-location": wanted.storage_location,
        }

    def site(self, call: Call, inputs: GcpImageInputs) -> GoogleSite:
        from osvdeploy.spec.model import PublishGcp

        assert inputs.project is not None, "the check has filled it in"
        settings = PublishGcp(project=inputs.project, bucket=inputs.bucket, storage_location=inputs.storage_location)
        return GoogleSite(settings, inputs.zone)

    def told(self, image: CloudImage, common: ReleaseOutputs) -> GcpImageOutputs:
        named = replace(common, name=image.id.rpartition("/")[2])
        return GcpImageOutputs(**asdict(named), self_link=f"https://www.googleapis.com/compute/v1/{image.id}")

    def foreseen(self, common: ReleaseOutputs) -> GcpImageOutputs:
        unknown = all_unknown(GcpImageOutputs)
        return GcpImageOutputs(**asdict(replace(common, name=unknown.name)), self_link=unknown.self_link)

    def imported(self, call: Call, id: str) -> GcpImageInputs:
        found = _LINK.fullmatch(id)
        if found is None:
            raise UsageError(f"{id!r} is no image on Google", hint="projects/PROJECT/global/images/NAME")
        return GcpImageInputs(disk=Disk("", "", "", "", ""), bucket="unknown", project=found["project"])

    def complete(self, ctx: Context, site: Site, inputs: GcpImageInputs, image: CloudImage) -> GcpImageInputs:
        return replace(inputs, bucket=image.tags.get(STORE, "").removeprefix("gs://").partition("/")[0])

    def settle(self, ctx: Context, site: Site, image: CloudImage, wanted: GcpImageInputs) -> None:
        assert isinstance(site, GoogleSite), "it is ours"
        site.join(ctx, image, wanted.family)
