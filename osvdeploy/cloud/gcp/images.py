"""Images on Google: made of archives in Cloud Storage, labelled, and led to by a family.

Every change carries a request id. That of an insertion follows from all that is asked for, and from how many such
insertions have come to nothing: so a lost answer, or another process that wants the same, begins nothing twice. A
request id repeats its first operation, whatever has become of that since.

An image goes into its family when it is ready, and not when it is asked for: whoever starts machines by the family gets
one that can be started. No feature of a guest is claimed: no OSv drives gVNIC or IDPF, its virtio-scsi driver uses one
queue, and it boots by BIOS; what an image claims and does not drive leaves a machine without disk or network.

Sources: Compute Engine API reference (images, globalOperations, ``requestId``), "Manually import boot disks", "Image
families best practices", "Resource naming convention".
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from osvdeploy.cloud.gcp.errors import AlreadyThere, Stale
from osvdeploy.cloud.gcp.labels import labels_of, matching, tags_of
from osvdeploy.cloud.gcp.marks import marks_of
from osvdeploy.cloud.gcp.scope import area_of, last, link_of
from osvdeploy.cloud.gcp.session import Document, Gcp, request_id
from osvdeploy.cloud.interfaces import CloudImage, ImageRequest, ImageUser, Tags
from osvdeploy.cloud.tags import DIGEST, NAME, is_ours
from osvdeploy.context import Context
from osvdeploy.digests import Digest, digest_of, sha256
from osvdeploy.errors import CloudError, ImageNameTaken, NotFound, NotOurs, Refused, Unavailable
from osvdeploy.events import Waiting
from osvdeploy.retry import retrying, until_next_look

ARCHITECTURES = {"x86_64": "X86_64"}

LONGEST_NAME = 63
LONGEST_WAIT = 1800.0
"""Seconds for one image. Most take half a minute; Google goes on by itself, and the next run waits on."""

MOST_ATTEMPTS = 20
"""Insertions that came to nothing which one run walks past."""

_LOCATION = re.compile(r"gs://(?P<bucket>[^/]+)/(?P<object>.+)")


def image_name(name: str) -> str:
    """What an image of ours is called at Google: lower-case letters, digits and dashes, 63 of them at most.

    ``orders-1.4.0`` is ``orders-1-4-0``; a longer one is cut, and told by the first digits of its digest.
    """
    plain = re.sub(r"[^a-z0-9-]", "-", name.lower()).strip("-")
    if len(plain) <= LONGEST_NAME:
        return plain
    return f"{plain[: LONGEST_NAME - 9].rstrip('-')}-{sha256(name.encode())[:8]}"


class GceImages:
    """:class:`~osvdeploy.cloud.interfaces.ArchiveImages` of one project. An image is a copy of what it is made of: it
    stands on no disk, and the ``disk`` of a request is the archive, its id the address in Cloud Storage.

    ``storage_location`` is a region or multi-region to keep images in; left out, Google takes what is nearest to the
    bucket.
    """

    def __init__(self, gcp: Gcp, *, storage_location: str | None = None) -> None:
        self._gcp = gcp
        self._storage_location = storage_location
        self._begun: dict[str, Document] = {}
        """Operations that :meth:`begin` began, by request id."""

    def find(self, ctx: Context, name: str) -> CloudImage | None:
        """As the port says; an image that is just being made is waited for."""
        found = self._settled(ctx, name)
        return None if found is None else _image(found)

    def get(self, ctx: Context, image_id: str) -> CloudImage | None:
        """As the port says; an image that is just being made is waited for, one that came to nothing is none."""
        link = link_of(image_id)
        if not link.startswith(f"projects/{self._gcp.project}/global/images/") or link.count("/") != 4:
            raise Refused(
                f"{image_id!r} is no image of the project {self._gcp.project}",
                hint=f"projects/{self._gcp.project}/global/images/NAME, or its selfLink",
            )
        found = self._wait(ctx, link.rpartition("/")[2], f"image {image_id}")
        if found is None or found["status"] != "READY":
            return None
        if not is_ours(tags_of(found.get("labels", {}))):
            raise NotOurs(f"{image_id}: something else made it")
        return _image(found)

    def begin(self, ctx: Context, request: ImageRequest) -> None:
        document, what = self._document(request), f"image {request.name}"
        token = self._token(document, 0)
        try:
            operation = self._gcp.change(ctx, "POST", self._images, what, document, request_id=token)
        except AlreadyThere:
            return
        if operation.get("status") != "DONE":
            self._begun[token] = operation

    def register(self, ctx: Context, request: ImageRequest) -> CloudImage:
        document, what = self._document(request), f"image {request.name}"
        for attempt in range(MOST_ATTEMPTS):
            token = self._token(document, attempt)
            operation = self._begun.pop(token, None)
            there = self._settled(ctx, request.name) if operation is None else None
            if there is not None:
                return _same(there, request)
            try:
                if operation is None:
                    operation = self._gcp.change(ctx, "POST", self._images, what, document, request_id=token)
            except AlreadyThere:
                # Another process was quicker, or what came to nothing holds the name.
                self._clear(ctx, image_name(request.name), what)
                continue
            # One that has ended is an earlier run's; where it came to nothing, or its image is gone, the next is asked.
            ended = operation.get("status") == "DONE"
            ctx.report(Waiting(what, f"Google makes it of {request.disk.id}"))
            try:
                self._gcp.finish(ctx, operation, what, LONGEST_WAIT)
            except CloudError:
                if not ended:
                    raise
        raise Unavailable(
            f"{what}: {MOST_ATTEMPTS} times Google began to make it, and it is not there",
            hint="run the same command again",
        )

    def deregister(self, ctx: Context, image_id: str) -> None:
        name = image_id.rpartition("/")[2]
        found = self._wait(ctx, name, f"image {name}")
        if found is None:
            return
        if not is_ours(tags_of(found.get("labels", {}))):
            raise NotOurs(f"image {name}: something else made it", hint="it is left as it is")
        self._delete(ctx, found)

    def owned(self, ctx: Context, tags: Tags) -> list[CloudImage]:
        query = {"filter": matching(tags)}
        found = [each for page in self._gcp.pages(ctx, self._images, "images", query) for each in page.get("items", [])]
        # A filter may find more than it should; it is not held to be the last word.
        return [image for each in found if tags.items() <= (image := _image(each)).tags.items()]

    def retag(self, ctx: Context, image_id: str, tags: Tags, without: Collection[str] = ()) -> None:
        name = image_id.rpartition("/")[2]
        what = f"image {name}"

        def change() -> None:
            found = self._wait(ctx, name, what)
            if found is None:
                raise NotFound(f"{what}: {image_id} is not there")
            there = tags_of(found.get("labels", {}))
            if not is_ours(there):
                raise NotOurs(f"{what}: something else made it", hint="it is left as it is")
            wanted = {key: value for key, value in {**there, **tags}.items() if key not in without}
            if wanted != there:
                document = {"labels": labels_of(wanted), "labelFingerprint": found["labelFingerprint"]}
                url = f"{self._url(name)}/setLabels"
                self._gcp.perform(ctx, "POST", url, what, document, request_id=None, seconds=LONGEST_WAIT)

        # The method knows no request ids: a lost answer's repetition is refused as stale, and so is who was slower.
        retrying(ctx, change, when=lambda error: isinstance(error, Stale), attempts=MOST_ATTEMPTS)

    def users(self, ctx: Context, images: Sequence[CloudImage]) -> Mapping[str, Sequence[ImageUser]]:
        """As the port says, of all zones and regions of the project; other projects are not looked into. A machine has
        a disk of its own once it is made, and misses no image: what makes it anew is its group, of its template."""
        found: dict[str, list[ImageUser]] = {}
        if not images:
            return found
        templates = {link_of(each["selfLink"]): each for each in self._everywhere(ctx, "instanceTemplates")}
        made_of = {link: used for link, used in self._made_of(ctx, images, templates).items() if used}
        standing = set[str]()
        for group in self._everywhere(ctx, "instanceGroupManagers") if made_of else ():
            links = {link_of(each) for each in _templates_of(group)} & made_of.keys()
            standing |= links
            place, size = area_of(last(group.get("zone") or group["region"])), group.get("targetSize", 0)
            told = f"instance group {group['name']} in {place} ({size} machines)"
            for image in sorted({image for link in links for image in made_of[link]}):
                found.setdefault(image, []).append(ImageUser(told, is_ours(marks_of(group))))
        for link, used in made_of.items():
            if link not in standing and not is_ours(marks_of(templates[link])):
                for image in sorted(used):
                    found.setdefault(image, []).append(ImageUser(f"instance template {last(link)}", ours=False))
        return found

    def _made_of(
        self, ctx: Context, images: Sequence[CloudImage], templates: Mapping[str, Document]
    ) -> dict[str, set[str]]:
        """By the links of templates, which of the images the disks of their machines are made of: named, or led to by a
        family that would lead to nothing without them."""
        ids = {image.id for image in images}
        sources = {
            link: {
                link_of(disk.get("initializeParams", {}).get("sourceImage", ""))
                for disk in template.get("properties", {}).get("disks", [])
            }
            for link, template in templates.items()
        }
        led = dict[str, str]()
        of_families = link_of(f"{self._images}/family/")
        for source in {each for several in sources.values() for each in several if each.startswith(of_families)}:
            members = [image.id for image in self.members(ctx, source.removeprefix(of_families))]
            if members and ids.issuperset(members):
                led[source] = members[0]
        return {
            link: several & ids | {led[source] for source in several if source in led}
            for link, several in sources.items()
        }

    def _everywhere(self, ctx: Context, plural: str) -> Iterator[Document]:
        """Resources of one kind in every zone and region of the project."""
        for page in self._gcp.pages(ctx, f"{self._gcp.project_path}/aggregated/{plural}", plural):
            for place in page.get("items", {}).values():
                yield from place.get(plural, [])

    # ----------------------------------------------------------------------------------------------------- a family

    def current(self, ctx: Context, family: str) -> CloudImage | None:
        """What a family leads to: its newest image that is not deprecated."""
        try:
            found = self._gcp.get(ctx, f"{self._images}/family/{family}", f"image family {family}")
        except NotFound:
            return None
        return _image(found)

    def members(self, ctx: Context, family: str) -> list[CloudImage]:
        query = {"filter": f'family="{family}"'}
        found = [each for page in self._gcp.pages(ctx, self._images, "images", query) for each in page.get("items", [])]
        usable = [each for each in found if each.get("deprecated", {}).get("state", "ACTIVE") == "ACTIVE"]
        newest = sorted(usable, key=lambda each: datetime.fromisoformat(each["creationTimestamp"]), reverse=True)
        return [_image(each) for each in newest if each.get("status") == "READY"]

    def offer(self, ctx: Context, image: CloudImage, family: str | None) -> None:
        """Put an image that is ready into a family, or into none. Nothing happens to one that is in it."""
        found = self._named(ctx, image)
        if (found.get("family") or None) != family:
            self._alter(ctx, image, "PATCH", self._url(found["name"]), {"family": family or ""})

    def withdraw(
        self, ctx: Context, image: CloudImage, replacement: CloudImage | None = None, *, obsolete: bool = False
    ) -> None:
        """Let no family lead to an image any more: deprecated, machines may still be started from it by its name, with
        a warning; ``obsolete``, none may. ``replacement`` is what the warning names."""
        state = "OBSOLETE" if obsolete else "DEPRECATED"
        found = self._named(ctx, image)
        link = {"replacement": f"{self._gcp.compute}/compute/v1/{replacement.id}"} if replacement else {}
        if found.get("deprecated", {}).get("state") != state:
            self._alter(ctx, image, "POST", f"{self._url(found['name'])}/deprecate", {"state": state, **link})

    def restore(self, ctx: Context, image: CloudImage) -> None:
        """Take a withdrawal back."""
        found = self._named(ctx, image)
        if found.get("deprecated", {}).get("state", "ACTIVE") != "ACTIVE":
            self._alter(ctx, image, "POST", f"{self._url(found['name'])}/deprecate", {})

    def offered(self, ctx: Context, image: CloudImage) -> tuple[str | None, str | None]:
        """The state to which an image was withdrawn, None for not at all; and the family that it is in."""
        found = self._named(ctx, image)
        state = found.get("deprecated", {}).get("state", "ACTIVE")
        return (None if state == "ACTIVE" else state), found.get("family") or None

    def _named(self, ctx: Context, image: CloudImage) -> Document:
        """An image that must be there."""
        found = self._wait(ctx, image.id.rpartition("/")[2], f"image {image.name}")
        if found is None:
            raise NotFound(f"image {image.name}: {image.id} is not there")
        return found

    def _alter(self, ctx: Context, image: CloudImage, method: str, url: str, document: Document) -> None:
        # Each time anew: to and fro within the time that Google knows a request id must not be taken for once.
        token = request_id(url, str(document), ctx.nonce())
        self._change(ctx, method, url, f"image {image.name}", document, token)

    # -------------------------------------------------------------------------------------------------------- details

    @property
    def _images(self) -> str:
        return f"{self._gcp.project_path}/global/images"

    def _url(self, name: str) -> str:
        return f"{self._images}/{name}"

    def _clear(self, ctx: Context, called: str, what: str) -> None:
        """Take an image of ours away that is of no use to anybody."""
        found = self._wait(ctx, called, what)
        if found is not None and found["status"] == "FAILED" and is_ours(tags_of(found.get("labels", {}))):
            self._delete(ctx, found)

    def _delete(self, ctx: Context, found: Document) -> None:
        token = request_id("images.delete", self._gcp.project, str(found["id"]))
        try:
            self._change(ctx, "DELETE", self._url(found["name"]), f"image {found['name']}", None, token)
        except NotFound:
            pass

    def _change(self, ctx: Context, method: str, url: str, what: str, document: Document | None, token: str) -> None:
        self._gcp.perform(ctx, method, url, what, document, request_id=token, seconds=LONGEST_WAIT)

    def _token(self, document: Document, attempt: int) -> str:
        return request_id("images.insert", self._gcp.project, digest_of(document), str(attempt))

    def _document(self, request: ImageRequest) -> Document:
        source = _LOCATION.fullmatch(request.disk.id)
        if source is None:
            raise Refused(f"image {request.name}: {request.disk.id!r} is no object in Cloud Storage")
        document: Document = {
            "name": image_name(request.name),
            "description": request.description,
            "architecture": ARCHITECTURES[request.architecture],
            "labels": labels_of({**request.tags, NAME: request.name, DIGEST: request.digest}),
            "rawDisk": {
                "source": f"https://storage.googleapis.com/{source['bucket']}/{source['object']}",
                "containerType": "TAR",
            },
        }
        if self._storage_location is not None:
            document["storageLocations"] = [self._storage_location]
        return document

    def _settled(self, ctx: Context, name: str) -> Document | None:
        """The image of ours that has this name, and is ready; None where there is none, or it came to nothing."""
        called = image_name(name)
        found = self._wait(ctx, called, f"image {name}")
        if found is None:
            return None
        tags = tags_of(found.get("labels", {}))
        if not is_ours(tags):
            raise NotOurs(
                f"{name}: the project {self._gcp.project} has an image {called} that something else made",
                hint="choose another name or version, or delete that image",
            )
        if tags.get(NAME, name) != name:
            raise Refused(
                f"{name}: at Google it is called {called}, and so is {tags[NAME]}, which is there",
                hint="raise `version`; versions that differ in dots, dashes and capitals alone are one name to Google",
            )
        return found if found["status"] == "READY" else None

    def _wait(self, ctx: Context, called: str, what: str) -> Document | None:
        """The image, when nothing happens to it any more: it is READY, or FAILED. None where there is none."""
        began = ctx.monotonic()
        while True:
            try:
                found = self._gcp.get(ctx, self._url(called), what)
            except NotFound:
                return None
            status = found.get("status")
            if status in ("READY", "FAILED"):
                return found
            if ctx.monotonic() - began > LONGEST_WAIT:
                raise Unavailable(
                    f"{what}: it is still {status}", hint="it goes on by itself; run the same command again"
                )
            ctx.report(Waiting(what, f"it is {status}"))
            ctx.sleep(until_next_look(ctx.monotonic() - began))


def _templates_of(group: Document) -> list[str]:
    """The templates that a group makes machines by."""
    versions = [each.get("instanceTemplate", "") for each in group.get("versions", [])]
    return [each for each in (group.get("instanceTemplate", ""), *versions) if each]


def _same(found: Document, request: ImageRequest) -> CloudImage:
    image = _image(found)
    if image.digest != request.digest:
        raise ImageNameTaken(request.name, held=image.digest, ours=request.digest)
    return image


def _image(found: dict[str, Any]) -> CloudImage:
    tags = tags_of(found.get("labels", {}))
    created, size = found.get("creationTimestamp"), found.get("archiveSizeBytes")
    return CloudImage(
        id=found["selfLink"].partition("/compute/v1/")[2],
        name=tags.get(NAME, found["name"]),
        digest=Digest(tags.get(DIGEST, "")),
        disk=None,
        tags=tags,
        created=datetime.fromisoformat(created) if created else None,
        ready=found.get("status") == "READY",
        size=None if size is None else int(size),
    )
