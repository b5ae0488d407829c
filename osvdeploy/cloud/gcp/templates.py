"""Instance templates: what a release's machines are. One for each release, by name; Google never changes one.

Sources: Compute Engine API reference (instanceTemplates); guide, "Create instance templates", "Choose a network
interface": OSv drives virtio-net and no gVNIC, so the card is named.
"""

from __future__ import annotations

import re

from osvdeploy.cloud.gcp.backends import LONGEST_CHANGE, in_use
from osvdeploy.cloud.gcp.errors import AlreadyThere
from osvdeploy.cloud.gcp.labels import labels_of
from osvdeploy.cloud.gcp.marks import marks_of, require_ours, written
from osvdeploy.cloud.gcp.scope import address_of, link_of
from osvdeploy.cloud.gcp.session import Document, Gcp, request_id
from osvdeploy.cloud.interfaces import GroupRequest, GroupShape, Tags
from osvdeploy.cloud.tags import LEDGER, RELEASE, is_ours
from osvdeploy.context import Context
from osvdeploy.errors import NotFound, Refused, Unavailable
from osvdeploy.retry import retrying

LONGEST_LEAVE = 300.0
"""Seconds for which a group that is being deleted may need its template."""

_IMAGE = re.compile(r"projects/[^/]+/global/images/[^/]+")


class Templates:
    """Instance templates of one project. Not a port: the groups' half that stays when a group goes."""

    def __init__(self, gcp: Gcp) -> None:
        self._gcp = gcp

    def find(self, ctx: Context, name: str) -> Document | None:
        try:
            return self._gcp.get(ctx, self._url(name), f"instance template {name}")
        except NotFound:
            return None

    def ensure(self, ctx: Context, request: GroupRequest) -> str:
        """The request's template, made if need be; its link.

        One that stayed from an earlier deploy of the release, and says otherwise (another machine type; the image was
        made anew), is replaced: no group uses it.
        """
        what, wanted = f"instance template {request.name}", _properties(request, self._gcp)
        there = self.find(ctx, request.name)
        if there is not None:
            tags = require_ours(there, what, hint="rename or remove that template")
            if tags.get(RELEASE) != request.release:
                raise Refused(
                    f"{what}: is {tags.get(RELEASE)}'s, not {request.release}'s",
                    hint="somebody changed it; delete that template",
                )
            if _told(there["properties"]) == _told(wanted):
                return link_of(there["selfLink"])
            self.delete(ctx, request.name)
        self._require_image(ctx, request)
        document = {"name": request.name, "description": written(request.tags), "properties": wanted}
        # The name makes it once; the id is this call's alone, so that one deleted since is not taken for the answer.
        token = request_id("instanceTemplates.insert", request.name, ctx.nonce())
        try:
            self._gcp.perform(ctx, "POST", self._templates, what, document, request_id=token, seconds=LONGEST_CHANGE)
        except AlreadyThere as error:
            raise Unavailable(
                f"{what}: was made by another process just now", hint="run the same command again"
            ) from error
        return f"projects/{self._gcp.project}/global/instanceTemplates/{request.name}"

    def fits(self, ctx: Context, request: GroupRequest) -> bool | None:
        """Whether the request's template is there as it is wanted; None where there is none."""
        there = self.find(ctx, request.name)
        return None if there is None else _told(there["properties"]) == _told(_properties(request, self._gcp))

    def image(self, ctx: Context, link: str) -> str | None:
        """The image that machines of a template start from."""
        try:
            found = self._gcp.get(ctx, address_of(self._gcp, link), f"instance template {link}")
        except NotFound:
            return None
        return _image(found["properties"])

    def shape(self, ctx: Context, link: str) -> GroupShape | None:
        """What machines of a template are, whoever made it."""
        try:
            found = self._gcp.get(ctx, address_of(self._gcp, link), f"instance template {link}")
        except NotFound:
            return None
        properties = found["properties"]
        image = _image(properties)
        if image is None:
            return None
        card = (properties.get("networkInterfaces") or [{}])[0]
        subnetwork = link_of(card.get("subnetwork", ""))
        return GroupShape(
            image,
            str(properties.get("machineType", "")).rpartition("/")[2],
            (subnetwork,) if subnetwork else (),
            tuple(properties.get("tags", {}).get("items", [])),
        )

    def owned(self, ctx: Context, tags: Tags) -> list[str]:
        """Names of ours that carry these tags."""
        pages = self._gcp.pages(ctx, self._templates, "instance templates")
        found = [each for page in pages for each in page.get("items", [])]
        return [each["name"] for each in found if is_ours(held := marks_of(each)) and tags.items() <= held.items()]

    def delete(self, ctx: Context, name: str) -> None:
        what = f"instance template {name}"
        there = self.find(ctx, name)
        if there is None:
            return
        require_ours(there, what, hint="it is left as it is")

        def delete() -> None:
            # Another attempt is another request: Google would repeat the refusal of the first.
            token = request_id("instanceTemplates.delete", str(there["id"]), ctx.nonce())
            self._gcp.perform(ctx, "DELETE", self._url(name), what, request_id=token, seconds=LONGEST_CHANGE)

        try:
            retrying(ctx, delete, when=in_use, seconds=LONGEST_LEAVE, first_wait=1.0)
        except NotFound:
            pass

    @property
    def _templates(self) -> str:
        return f"{self._gcp.project_path}/global/instanceTemplates"

    def _url(self, name: str) -> str:
        return f"{self._templates}/{name}"

    def _require_image(self, ctx: Context, request: GroupRequest) -> None:
        """Raise Refused without the image: a template may name what is not there, and its machines never come."""
        if _IMAGE.fullmatch(request.image) is None:
            raise Refused(f"{request.name}: {request.image!r} is no image on Google")
        try:
            self._gcp.get(ctx, address_of(self._gcp, request.image), f"image {request.image}")
        except NotFound as error:
            raise Refused(
                f"{request.name}: its image {request.image} is not there",
                operation=error.operation,
                code=error.code,
                hint="deploy this version again from its spec",
            ) from error


def _properties(request: GroupRequest, gcp: Gcp) -> Document:
    card: Document = {"nicType": "VIRTIO_NET"}
    if request.networks:
        card["subnetwork"] = address_of(gcp, request.networks[0])
    else:
        card["network"] = f"{gcp.project_path}/global/networks/default"
    # A ledger's address is no label's length; whose the machines are is told without it.
    labels = labels_of({key: value for key, value in request.tags.items() if key != LEDGER})
    properties: Document = {
        "machineType": request.machine_type,
        "labels": labels,
        "disks": [
            {
                "boot": True,
                "autoDelete": True,
                "initializeParams": {"sourceImage": address_of(gcp, request.image)},
            }
        ],
        # Without an external address: the balancer reaches them by the network that they are in.
        "networkInterfaces": [card],
    }
    if request.firewalls:
        properties["tags"] = {"items": sorted(request.firewalls)}
    return properties


def _image(properties: Document) -> str | None:
    disks = properties.get("disks", [])
    source = disks[0].get("initializeParams", {}).get("sourceImage") if disks else None
    return None if source is None else link_of(source)


def _told(properties: Document) -> tuple[object, ...]:
    """What of a template a release's settings can make differ."""
    card = properties.get("networkInterfaces", [{}])[0]
    return (
        properties.get("machineType", "").rpartition("/")[2],
        _image(properties),
        link_of(card.get("subnetwork", "")) or link_of(card.get("network", "")),
        sorted(properties.get("tags", {}).get("items", [])),
    )
