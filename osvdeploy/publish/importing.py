"""The other way of a disk: through an object store, where the place makes a disk of an object.

Slower than blocks, and for those who may not write them. What was begun is found again at every step, by the object's
key, by the import, by the disk's name, so nothing is remembered here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from osvdeploy.cloud.interfaces import DiskImports, ImportRequest, ObjectStore, UploadedDisk
from osvdeploy.context import Context
from osvdeploy.digests import Digest
from osvdeploy.errors import UploadGone
from osvdeploy.events import Note
from osvdeploy.osv.image import RawImage
from osvdeploy.publish.undo import trying
from osvdeploy.publish.vmdk import VmdkSource

MOST_IMPORTS = 3
"""Imports of one disk that one run sees fail by no fault of the disk."""

FOLDER = "disks"


@dataclass(frozen=True, slots=True)
class ThroughStore:
    """An object store, and who makes disks of what is in it."""

    store: ObjectStore
    imports: DiskImports


def folder_of(app: str) -> str:
    """What the keys of an app's disks begin with."""
    return f"{FOLDER}/{app}/"


def passing(app: str, key: str) -> bool:
    """Whether a key is one that a disk of the app's has on its way: others may keep what is theirs beside them."""
    return re.fullmatch(rf"{re.escape(folder_of(app))}[0-9a-f]{{64}}(?:\.vmdk|\.[0-9]+/.+)", key) is not None


def key_of(app: str, image: Digest) -> str:
    """Where an image's disk stands in a store while it is imported."""
    return f"{folder_of(app)}{image}.vmdk"


def import_disk(
    ctx: Context,
    through: ThroughStore,
    raw: RawImage,
    request: ImportRequest,
    key: str,
    on_refusal: Callable[[str, Callable[[], None]], None],
) -> UploadedDisk:
    """Make a disk of a raw image by way of the store; ``on_refusal`` is told what takes back what this made.

    Raises :class:`~osvdeploy.errors.Refused` where the place is not set up for it, or makes no disk of the object.
    """
    store, imports = through.store, through.imports
    imports.refuse_unready(ctx, request.location)
    on_refusal("object", lambda: forget_object(ctx, through, request.location, key))
    for number in range(1, MOST_IMPORTS + 1):
        running = imports.find(ctx, request)
        if running is None:
            stored = store.put_file(ctx, key, VmdkSource(raw))
            ctx.report(Note(f"disk {request.name} is in {request.location}: {stored.size} bytes"))
            running = imports.start(ctx, request)
        ctx.report(Note(f"disk {request.name} is imported by {running}"))
        try:
            disk = imports.finish(ctx, request, running)
        except UploadGone as error:
            if number == MOST_IMPORTS:
                raise
            ctx.report(Note(f"{error}; starting again"))
            continue
        ctx.report(Note(f"disk {disk.name} is imported: {disk.id}"))
        trying(ctx, request.location, lambda: store.delete(ctx, key))
        return disk
    raise AssertionError("the last one has raised")


def forget_object(ctx: Context, through: ThroughStore, location: str, key: str) -> None:
    """Delete an object, unless an import is reading it."""
    if location not in through.imports.reading(ctx):
        through.store.delete(ctx, key)
