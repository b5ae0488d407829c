"""The releases of a service as one document: what was deployed and how that went, and all that a ledger needs to know
them again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from osvdeploy.api import wiring
from osvdeploy.api.declared import Service
from osvdeploy.cloud.interfaces import ReleaseId
from osvdeploy.context import Context
from osvdeploy.errors import CloudError, CredentialsMissing, UsageError
from osvdeploy.events import Note

if TYPE_CHECKING:
    from osvdeploy.cloud.interfaces import Slot
    from osvdeploy.rollout.ledger import Head
    from osvdeploy.rollout.model import Run
    from osvdeploy.rollout.releases import Release

COMMAND = "releases export"
"""What a manifest says it is from."""


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """A release. ``revisions`` are its documents, oldest first: one for each of the settings that it was deployed with.
    ``run`` is the last rollout that brought it, or tried to; ``since`` is when it began to serve, None where it never
    did. ``slot`` is where it stands. ``image`` is the cloud's id of its image, None where there is none, or nobody
    asked."""

    revisions: tuple[Release, ...]
    run: Run | None
    since: datetime | None
    serving: bool
    slot: Slot | None
    warm_until: datetime | None
    pinned: bool
    held: bool
    image: str | None

    @property
    def release(self) -> Release:
        """With its latest settings."""
        return self.revisions[-1]


@dataclass(frozen=True, slots=True)
class Manifest:
    """The releases of a service, oldest first. ``asked``: the cloud told of images."""

    service: str
    entries: tuple[ManifestEntry, ...]
    asked: bool


def export_releases(ctx: Context, service: Service, *, look: bool = True) -> Manifest:
    """Every release that a ledger knows; with ``look``, the cloud's ids of their images. Changes nothing.

    Raises :class:`~osvdeploy.errors.UsageError` for a service that the ledger knows nothing of.
    """
    from osvdeploy.cloud import tags
    from osvdeploy.rollout.ledger import MANY

    ledger = wiring.open_ledger(service)
    head, known = ledger.head(ctx), ledger.releases(ctx)
    if head is None and not known:
        raise wiring.never_deployed(service)
    runs: dict[ReleaseId, Run] = {}
    for past in ledger.heads(ctx, width=MANY):
        if past.run is not None:
            # Newest first, so the first document of a run is its last word.
            runs.setdefault(past.run.candidate, past.run)
    images: dict[str, str] = {}
    asked = False
    if look and head is not None and head.place is not None:
        try:
            found = wiring.ground_of(ctx, head.place).images.owned(ctx, {tags.APP: service.app})
            images = {each.tags[tags.RELEASE]: each.id for each in found if tags.RELEASE in each.tags}
            asked = True
        except (CloudError, CredentialsMissing) as error:
            ctx.report(Note(f"the cloud could not be asked for images: {error}"))
    since = {each.release: each.since for each in head.served} if head is not None else {}
    entries = tuple(
        _entry(ledger.revisions(ctx, release.id), runs, since, head, images, ctx.now()) for release in known
    )
    return Manifest(service.name, entries, asked)


def _entry(
    revisions: Sequence[Release],
    runs: Mapping[ReleaseId, Run],
    since: Mapping[ReleaseId, datetime],
    head: Head | None,
    images: Mapping[str, str],
    now: datetime,
) -> ManifestEntry:
    release = revisions[-1].id
    slots = {} if head is None else {slot: record for slot, record in head.slots.items() if record.release == release}
    slot = next(iter(slots), None)
    until = slots[slot].warm_until if slot is not None else None
    return ManifestEntry(
        revisions=tuple(revisions),
        run=runs.get(release),
        since=since.get(release),
        serving=slot is not None and head is not None and head.serving is slot,
        slot=slot,
        warm_until=until if until is not None and until > now else None,
        pinned=head is not None and release in head.pins,
        held=head is not None and any(hold.release in (None, release) for hold in head.holds),
        image=images.get(release),
    )


def manifest_document(manifest: Manifest) -> dict[str, Any]:
    """A manifest for programs (docs/json.md), and for :func:`read_manifest`."""
    from osvdeploy.rollout.ledger import release_document
    from osvdeploy.rollout.releases import settings_digest

    def told(entry: ManifestEntry) -> dict[str, Any]:
        release, run = entry.release, entry.run
        return {
            "release": release.id,
            "version": release.version,
            "image": release.image,
            "configuration": release.configuration,
            "settings": settings_digest(release.settings),
            "created": entry.revisions[0].created.isoformat(),
            "by": entry.revisions[0].by,
            "deployed": run.started.isoformat() if run is not None else None,
            "outcome": run.verdict.value if run is not None and run.over and run.verdict is not None else None,
            "served_since": entry.since.isoformat() if entry.since is not None else None,
            "serving": entry.serving,
            "slot": entry.slot.value if entry.slot is not None else None,
            "warm_until": entry.warm_until.isoformat() if entry.warm_until is not None else None,
            "pinned": entry.pinned,
            "held": entry.held,
            "image_id": entry.image,
            "documents": [release_document(each) for each in entry.revisions],
        }

    return {
        "service": manifest.service,
        "images_asked": manifest.asked,
        "releases": [told(entry) for entry in manifest.entries],
    }


def read_manifest(document: object, source: str) -> list[list[Release]]:
    """The documents of each release of a manifest, oldest first. ``source`` is where it is from.

    Raises :class:`~osvdeploy.errors.UsageError` for what is no manifest.
    """
    from osvdeploy.rollout.ledger import read_release

    hint = "`osvdeploy releases export --format json` writes one"
    if not isinstance(document, dict) or document.get("command") != COMMAND:
        raise UsageError(f"{source}: is no list of releases", hint=hint)
    if document.get("schema") != 1:
        raise UsageError(f"{source}: was written by another version of osvdeploy", hint=hint)
    found = document.get("releases")
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise UsageError(f"{source}: is no list of releases", hint=hint)
    read: list[list[Release]] = []
    for each in found:
        documents = each.get("documents")
        if not isinstance(documents, list) or not documents:
            raise UsageError(f"{source}: {each.get('release')} has no documents in it", hint=hint)
        revisions = [read_release(one, source) for one in documents]
        if len({_identity(one) for one in revisions}) != 1:
            raise UsageError(f"{source}: the documents of {revisions[0].id} are of several releases", hint=hint)
        read.append(revisions)
    return read


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import put into a ledger, what was there already, and what was there with other settings and ``left``."""

    put: tuple[ReleaseId, ...]
    there: tuple[ReleaseId, ...]
    left: tuple[ReleaseId, ...] = ()


def import_releases(
    ctx: Context,
    service: Service,
    releases: Sequence[Sequence[Release]],
    *,
    missing_only: bool = False,
    dry_run: bool = False,
) -> Imported:
    """Put the documents of releases into a ledger that lacks them. Heads are never touched: what serves, holds and
    pins stay as that ledger has them. In settings the ledger's own address takes the place of the one they had. With
    ``missing_only`` a release that the ledger has with other settings is left as it is there, as after a ledger was
    written anew by the cloud's tags. May be repeated, also after it was interrupted.

    Raises :class:`~osvdeploy.errors.UsageError`, before anything is put, for a release of another service, and for one
    that the ledger has otherwise.

    Promise: it only ever adds: whatever comes in between, no document of the ledger is changed or gone.
    """
    ledger = wiring.open_ledger(service)
    address = service.ledger
    if "://" not in address:
        address = str(Path(address).expanduser().resolve())
    wanted = [_at(revisions, address) for revisions in releases]
    wrong: list[str] = []
    missing: list[tuple[ReleaseId, list[Release]]] = []
    there: list[ReleaseId] = []
    left: list[ReleaseId] = []
    for revisions in wanted:
        release = revisions[0]
        if release.service != service.name:
            wrong.append(f"{release.id} is of {release.service}")
            continue
        known = ledger.revisions(ctx, release.id)
        settings, own = [each.settings for each in revisions], [each.settings for each in _at(known, address)]
        if known and _identity(known[0]) != _identity(release):
            wrong.append(f"{release.id} has other digests there")
        elif settings == own[: len(settings)]:
            there.append(release.id)
        elif own == settings[: len(own)]:
            missing.append((release.id, revisions[len(own) :]))
        else:
            left.append(release.id)
    if not missing_only:
        wrong += [f"{release} has other settings there" for release in left]
    if wrong:
        hint = "a ledger's documents are never overwritten; export from the service that these are of"
        if len(wrong) == len(left) and not missing_only:
            hint = "a ledger's documents are never overwritten; --missing puts the others, and leaves these as they are"
        raise UsageError(f"{service.name}: nothing was imported: {'; '.join(wrong)}", hint=hint)
    if not dry_run and missing:
        ledger.store.refuse_unwritable(ctx, ledger.service)
        for _, revisions in missing:
            for each in revisions:
                ledger.put_release(ctx, each)
    return Imported(tuple(name for name, _ in missing), tuple(there), tuple(left))


def _identity(release: Release) -> tuple[object, ...]:
    return (
        release.id, release.app, release.version, release.image, release.configuration, release.digest,
        release.settings.environment,
    )  # fmt: skip


def _at(revisions: Sequence[Release], address: str) -> list[Release]:
    """The same in a ledger of that address; those that differed in it alone are one."""
    found: list[Release] = []
    for each in revisions:
        moved = replace(each, settings=replace(each.settings, ledger=address))
        if not found or found[-1].settings != moved.settings:
            found.append(moved)
    return found
