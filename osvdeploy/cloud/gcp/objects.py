"""An object store in a Google Cloud Storage bucket.

What a key holds is decided by Google alone: every write is conditional (``ifGenerationMatch=0``: there is none yet),
and each object carries a label that tells whose it is: the nonce of the call that put it, or its source's digest.

A large object goes up in parts that are objects themselves, beside it under ``.parts/``, several at once, and is
composed of them. Nothing is remembered here of an upload that was begun: a later run, on any machine, lists the parts
and knows each by its number and CRC-32C. A resumable upload would be one ordered stream whose session is known to none
but its beginner.

Sources: Cloud Storage JSON API reference (objects: insert, get, list, compose, delete; buckets: testIamPermissions),
"Request preconditions", "Composite objects", "Data validation".
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from osvdeploy.cloud.gcp.errors import Stale
from osvdeploy.cloud.gcp.session import Document, Gcp
from osvdeploy.cloud.interfaces import ObjectSource, StoredObject, UnfinishedObject
from osvdeploy.cloud.keys import BucketPlace, check_key
from osvdeploy.cloud.parallel import beside, in_flight
from osvdeploy.cloud.parts import Ahead, agreed, cut, is_refusal
from osvdeploy.context import Context
from osvdeploy.digests import Digest
from osvdeploy.errors import (
    NotFound,
    ObjectTaken,
    OsvDeployError,
    Refused,
    Unavailable,
    Unready,
)
from osvdeploy.events import Progress
from osvdeploy.retry import retrying
from osvdeploy.sizes import MIB

if TYPE_CHECKING:
    from types import ModuleType

DIGEST = "osvdeploy-digest"
NONCE = "osvdeploy-nonce"
"""Names of objects' metadata."""

PARTS = ".parts/"
"""Under the store's prefix: parts of objects that are not whole yet. No key begins so."""

WIDTH = 16
"""Parts in flight, of 4 MiB for most disks."""

MOST_UPLOADS = 5
"""Times that one run sees parts taken away under its hands before it gives up."""

SOURCES = 32
"""Objects that one composition takes (Composite objects, "Restrictions")."""

PAGE = 1000
"""Objects in one answer: as many as Google gives."""


PART_SECONDS = 60.0
"""Seconds that one attempt of a part may take: 4 MiB up a slow line."""

PUT_PATIENCE = 4 * PART_SECONDS
"""Seconds for which one part is tried again."""


def part_size(number: int) -> int:
    """Bytes of a part, from 1 on: 4 MiB, so that most disks' archives fit into one composition, and twice as many for
    each 256 that follow."""
    return 4 * MIB << (number - 1) // 256


class GcsStore:
    """:class:`~osvdeploy.cloud.interfaces.ObjectStore` in a bucket, at ``gs://bucket/prefix``. Nothing is asked before
    it is used.

    Raises :class:`~osvdeploy.errors.UsageError` for an address that cannot be one.
    """

    def __init__(self, address: str, gcp: Gcp | None = None) -> None:
        """``gcp`` is a prepared client; without one the environment decides. No project is needed: buckets' names are
        everybody's."""
        self._place = BucketPlace(address, "gs", "a bucket")
        self._gcp = gcp or Gcp()

    @property
    def address(self) -> str:
        return self._place.address

    # ------------------------------------------------------------------------------------------------ small objects

    def put_if_absent(self, ctx: Context, key: str, content: bytes) -> bool:
        nonce = ctx.nonce()
        try:
            self._insert(ctx, self._place.of_key(key), content, {NONCE: nonce})
        except Stale:
            # What is there may be ours: the answer to an earlier attempt of this very call was lost.
            there = self._object(ctx, self._place.of_key(key))
            return there is not None and _labels(there).get(NONCE) == nonce
        return True

    def get(self, ctx: Context, key: str) -> bytes | None:
        name = self._place.of_key(key)
        try:
            answer = self._gcp.send(ctx, "GET", self._url(name), self._place.about(key), query={"alt": "media"})
        except NotFound as error:
            self._refuse_missing_bucket(error)
            return None
        _require_sum(answer.headers.get("x-goog-hash", ""), answer.body, self._place.about(key))
        return answer.body

    def keys(self, ctx: Context, prefix: str, limit: int | None = None) -> Iterator[str]:
        left = limit
        for each in self._listed(ctx, prefix, PAGE if limit is None else min(limit, PAGE)):
            key = self._place.key_of(each["name"])
            if key.startswith(PARTS):
                continue
            yield key
            left = None if left is None else left - 1
            if left == 0:
                return

    def folders(self, ctx: Context, prefix: str) -> Iterator[str]:
        query = {"prefix": self._place.beneath(prefix), "delimiter": "/", "maxResults": str(PAGE)}
        for listed in self._pages(ctx, prefix, query):
            for each in listed.get("prefixes", []):
                name = self._place.key_of(each)[len(prefix) :].rstrip("/")
                if not name.startswith("."):
                    yield name

    def delete(self, ctx: Context, key: str) -> None:
        self._delete(ctx, self._place.of_key(key))

    def find(self, ctx: Context, key: str) -> StoredObject | None:
        found = self._object(ctx, self._place.of_key(key))
        return None if found is None else _stored(key, found)

    def refuse_unwritable(self, ctx: Context, prefix: str) -> None:
        # Parts of large objects are taken away again.
        wanted = [f"storage.objects.{verb}" for verb in ("create", "delete", "get", "list")]
        query = "&".join(f"permissions={each}" for each in wanted)
        url = f"{self._gcp.storage}/storage/v1/b/{self._place.name}/iam/testPermissions?{query}"
        try:
            given = self._gcp.get(ctx, url, self._place.address).get("permissions", [])
        except NotFound as error:
            self._refuse_missing_bucket(error)
            raise
        missing = [each for each in wanted if each not in given]
        if missing:
            raise Refused(
                f"{self._place.address}: {', '.join(missing)} not allowed",
                operation="buckets.testIamPermissions",
                hint=f"grant the role roles/storage.objectUser on the bucket {self._place.name}",
            )

    # ------------------------------------------------------------------------------------------------ large objects

    def put_file(self, ctx: Context, key: str, source: ObjectSource) -> StoredObject:
        under = self._parts_of(key, source.digest)
        parts = Ahead(cut(source.pieces(), part_size))
        there, stored = self._look(ctx, key, under, parts)
        left = bool(stored)
        for _ in range(MOST_UPLOADS):
            if there is not None:
                break
            first, second = next(parts, b""), next(parts, None)
            try:
                if second is None:
                    there = self._put_whole(ctx, key, source, first)
                else:
                    there, all_gone = self._put_parts(ctx, key, source, chain((first, second), parts), stored)
                    left = left or not all_gone
            except (Stale, NotFound):
                # Another put it first, or took our parts away.
                left = True
                parts = Ahead(cut(source.pieces(), part_size))
                there, stored = self._look(ctx, key, under, parts)
        if left:
            # What an earlier run left, became a part of the object by way of another, or was made in vain.
            self._sweep(ctx, under)
        if there is None:
            told = "it, or a part of it, was deleted again and again while it was put"
            raise Unavailable(f"{self._place.about(key)}: {told}", hint="run the same command again")
        return agreed(self._place.address, there, source)

    def _look(
        self, ctx: Context, key: str, under: str, parts: Ahead
    ) -> tuple[StoredObject | None, dict[str, Document]]:
        """The object, and what there is of its parts by their names: both in the time of one answer, in which parts are
        made."""

        def ask(ctx: Context, what: str, stop: threading.Event) -> Any:
            if what == "object":
                return self.find(ctx, key)
            return {each["name"]: each for each in self._listed(ctx, under)}

        with beside(ctx, ("object", "parts"), ask, name="gcs-look") as looks:
            parts.make(until=lambda: looks.over)
        there, stored = looks.answers
        return there, stored

    def _put_whole(self, ctx: Context, key: str, source: ObjectSource, content: bytes) -> StoredObject:
        made = self._insert(ctx, self._place.of_key(key), content, {DIGEST: source.digest}, PART_SECONDS)
        ctx.report(Progress(f"upload {key}", len(content), len(content), "bytes"))
        return _stored(key, made)

    def _put_parts(
        self, ctx: Context, key: str, source: ObjectSource, parts: Iterator[bytes], stored: Mapping[str, Document]
    ) -> tuple[StoredObject, bool]:
        """The object, and whether all of its parts went when it was made."""
        under = self._parts_of(key, source.digest)
        upload = _Upload(self, key, under, stored)
        try:
            upload.send(ctx, parts, source.size)
            return upload.compose(ctx, source.digest), upload.in_one
        except (Stale, NotFound):
            raise
        except OsvDeployError as error:
            if is_refusal(error):
                self._sweep(ctx, under)
            raise

    def join(self, ctx: Context, key: str, parts: Sequence[str], digest: Digest) -> StoredObject:
        sources = [_Part(self._place.of_key(each)) for each in parts]
        try:
            return _stored(key, self._compose(ctx, self._place.of_key(key), sources, {DIGEST: digest}))
        except (Stale, NotFound) as error:
            # It is there: made before, by another, or by an attempt whose answer was lost. Or a part is missing.
            there = self.find(ctx, key)
            if there is None and isinstance(error, NotFound):
                missing = next((each for each in parts if self.find(ctx, each) is None), None)
                if missing is None:
                    raise
                raise NotFound(f"{self._place.about(missing)}: there is no such object") from None
        if there is None:
            told = "it was deleted while it was made"
            raise Unavailable(f"{self._place.about(key)}: {told}", hint="run the same command again")
        if there.digest != digest:
            raise ObjectTaken(self._place.about(key), held=there.digest, ours=digest)
        return there

    def unfinished(self, ctx: Context, prefix: str) -> list[UnfinishedObject]:
        found: dict[str, UnfinishedObject] = {}
        for each in self._listed(ctx, PARTS + prefix):
            under = self._place.key_of(each["name"]).rpartition("/")[0]
            key = under.removeprefix(PARTS).rpartition("/")[0]
            touched, size = _time(each["timeCreated"]), int(each["size"])
            known = found.get(under)
            if known is not None:
                touched, size = max(touched, known.begun), size + (known.size or 0)
            found[under] = UnfinishedObject(key, under, touched, size)
        return list(found.values())

    def abort(self, ctx: Context, upload: UnfinishedObject) -> None:
        if not upload.id.startswith(PARTS):
            raise ValueError(f"{upload.id}: no upload of this store")
        self._delete_all(ctx, upload.id + "/")

    def _parts_of(self, key: str, digest: Digest) -> str:
        return f"{PARTS}{check_key(key)}/{digest[:16]}/"

    def _sweep(self, ctx: Context, under: str) -> None:
        """Take parts away, as far as that can be done: what hinders it is not what has to be told."""
        try:
            self._delete_all(ctx, under)
        except OsvDeployError:
            pass  # gc finds them

    def _delete_all(self, ctx: Context, under: str) -> None:
        names = [each["name"] for each in self._listed(ctx, under)]
        in_flight(
            ctx, names, lambda own, name, _: self._delete(own, name), lambda _: None, width=WIDTH, name="gcs-delete"
        )

    # ---------------------------------------------------------------------------------------------------- the bucket

    def _insert(
        self, ctx: Context, name: str, content: bytes, labels: Mapping[str, str], seconds: float = 30.0, **sending: int
    ) -> Document:
        """Create an object, whole or not at all. Raises Stale where there is one."""
        about = f"gs://{self._place.name}/{name}"
        described = {"name": name, "metadata": dict(labels), "crc32c": checksum(content)}
        boundary = "osvdeploy-" + ctx.nonce()
        body = b"".join(
            (
                f"--{boundary}\r\ncontent-type: application/json; charset=utf-8\r\n\r\n".encode(),
                json.dumps(described).encode(),
                f"\r\n--{boundary}\r\ncontent-type: application/octet-stream\r\n\r\n".encode(),
                content,
                f"\r\n--{boundary}--\r\n".encode(),
            )
        )
        try:
            return self._gcp.send(
                ctx,
                "POST",
                f"{self._gcp.storage}/upload/storage/v1/b/{self._place.name}/o",
                about,
                query={"uploadType": "multipart", "ifGenerationMatch": "0"},
                body=body,
                headers={"content-type": f"multipart/related; boundary={boundary}"},
                seconds=seconds,
                **sending,
            ).json()
        except NotFound as error:
            self._refuse_missing_bucket(error)
            raise

    def _object(self, ctx: Context, name: str) -> Document | None:
        try:
            return self._gcp.get(ctx, self._url(name), f"gs://{self._place.name}/{name}")
        except NotFound as error:
            self._refuse_missing_bucket(error)
            return None

    def _listed(self, ctx: Context, prefix: str, page: int | None = None) -> Iterator[Document]:
        query = {"prefix": self._place.under(prefix), "maxResults": str(page or PAGE)}
        for listed in self._pages(ctx, prefix, query):
            yield from listed.get("items", [])

    def _pages(self, ctx: Context, prefix: str, query: Mapping[str, str]) -> Iterator[Document]:
        url = f"{self._gcp.storage}/storage/v1/b/{self._place.name}/o"
        try:
            yield from self._gcp.pages(ctx, url, self._place.about(prefix), query)
        except NotFound as error:
            self._refuse_missing_bucket(error)
            raise

    def _compose(
        self, ctx: Context, name: str, parts: Sequence[_Part], labels: Mapping[str, str], *, consume: bool = False
    ) -> Document:
        """Make an object of others, which go with that where it is to ``consume`` them. Raises Stale where there is
        one, NotFound without a part or the bucket."""
        document = {
            "sourceObjects": [part.as_source() for part in parts],
            "destination": {"contentType": "application/octet-stream", "metadata": dict(labels)},
            **({"deleteSourceObjects": True} if consume else {}),
        }
        try:
            return self._gcp.send(
                ctx,
                "POST",
                f"{self._url(name)}/compose",
                f"gs://{self._place.name}/{name}",
                query={"ifGenerationMatch": "0"},
                body=json.dumps(document).encode(),
                seconds=PART_SECONDS,
            ).json()
        except NotFound as error:
            self._refuse_missing_bucket(error)
            raise

    def _delete(self, ctx: Context, name: str) -> None:
        try:
            self._gcp.send(ctx, "DELETE", self._url(name), f"gs://{self._place.name}/{name}")
        except NotFound as error:
            self._refuse_missing_bucket(error)

    def _refuse_missing_bucket(self, error: NotFound) -> None:
        """Google answers 404 for both; only its words tell what is missing."""
        if "bucket does not exist" in error.message:
            raise Unready(
                f"{self._place.address}: there is no bucket {self._place.name}",
                operation=error.operation,
                code=error.code,
                hint=f"make it (gcloud storage buckets create gs://{self._place.name}), or name another",
            ) from error

    def _url(self, name: str) -> str:
        return f"{self._gcp.storage}/storage/v1/b/{self._place.name}/o/{quote(name, safe='')}"


@dataclass(frozen=True, slots=True)
class _Part:
    """A part as it stands in the bucket: any one of that name, where no ``generation`` is given."""

    name: str
    size: int = 0
    generation: str | None = None

    def as_source(self) -> Document:
        """As a composition is told of it."""
        if self.generation is None:
            return {"name": self.name}
        held = {"ifGenerationMatch": self.generation}
        return {"name": self.name, "generation": self.generation, "objectPreconditions": held}


class _Upload:
    """One object on its way up, in parts."""

    def __init__(self, store: GcsStore, key: str, under: str, stored: Mapping[str, Document]) -> None:
        self._store = store
        self._key = key
        self._under = under
        self._stored = stored
        self._parts: dict[int, _Part] = {}
        self._sum = 0

    def send(self, ctx: Context, parts: Iterator[bytes], size: int | None) -> None:
        """Put each part that is not there already. ``size`` is for the report."""
        done = 0

        def numbered() -> Iterator[tuple[int, bytes]]:
            for number, content in enumerate(parts, 1):
                self._sum = _crc32c().extend(self._sum, content)
                yield number, content

        def keep(found: tuple[int, _Part]) -> None:
            nonlocal done
            number, part = found
            self._parts[number] = part
            done += part.size
            ctx.report(Progress(f"upload {self._key}", done, size, "bytes"))

        in_flight(ctx, numbered(), self._send_part, keep, width=WIDTH, name="gcs-put")

    def _send_part(self, ctx: Context, item: tuple[int, bytes], stop: threading.Event) -> tuple[int, _Part]:
        number, content = item
        name = self._store._place.under(f"{self._under}{number:06}")
        there = self._stored.get(name)
        if there is not None and there.get("crc32c") != checksum(content):
            # Another deflater's, or a part that was cut otherwise: of one upload all parts must be of one making.
            self._store._delete(ctx, name)
            there = None
        if there is None:
            there = retrying(
                ctx,
                lambda: self._put(ctx, name, content),
                when=lambda error: isinstance(error, Unavailable) and not stop.is_set(),
                seconds=PUT_PATIENCE,
            )
        return number, _Part(name, len(content), str(there["generation"]))

    def _put(self, ctx: Context, name: str, content: bytes) -> Document:
        try:
            return self._store._insert(ctx, name, content, {}, PART_SECONDS, attempts=1)
        except Stale:
            # Ours, of an attempt whose answer was lost, or another process's of the same upload.
            found = self._store._object(ctx, name)
            if found is None or found.get("crc32c") != checksum(content):
                raise Unavailable(
                    f"gs://{self._store._place.name}/{name}: another upload of the same object is under way",
                    hint="run the same command again",
                ) from None
            return found

    @property
    def in_one(self) -> bool:
        """Whether all parts go into one composition."""
        return len(self._parts) <= SOURCES

    def compose(self, ctx: Context, digest: Digest) -> StoredObject:
        """Make the object of the parts; of more than 32 by way of others. Raises Stale where it is there.

        What it is made of goes with that, in one call for all and for good: to delete it afterwards would be a call for
        each, and a bucket keeps, and bills, for a week what is deleted ("Compose objects", deleteSourceObjects). Parts
        that only became part of another stay until the object is there: a run that is killed between goes on with them.
        """
        level, made = [self._parts[number] for number in sorted(self._parts)], 0
        while len(level) > SOURCES:
            level = self._joined(ctx, level, made)
            made += len(level)
        store = self._store
        found = store._compose(ctx, store._place.of_key(self._key), level, {DIGEST: digest}, consume=True)
        if found.get("crc32c") != (expected := _text(self._sum)):
            raise Refused(
                f"{store._place.about(self._key)}: Google holds {found.get('crc32c')}, but {expected} was sent",
                hint="delete this object, and run the same command again",
            )
        return _stored(self._key, found)

    def _joined(self, ctx: Context, parts: Sequence[_Part], made: int) -> list[_Part]:
        """Each 32 of these as one; ``made`` were made so before."""
        groups = [parts[first : first + SOURCES] for first in range(0, len(parts), SOURCES)]
        found: dict[int, _Part] = {}

        def keep(joined: tuple[int, _Part]) -> None:
            found.update([joined])

        in_flight(ctx, enumerate(groups, made + 1), self._join, keep, width=WIDTH, name="gcs-join")
        return [found[number] for number in sorted(found)]

    def _join(self, ctx: Context, group: tuple[int, Sequence[_Part]], stop: threading.Event) -> tuple[int, _Part]:
        number, parts = group
        name = self._store._place.under(f"{self._under}joined-{number:06}")
        if name in self._stored:
            self._store._delete(ctx, name)  # an earlier run's, of parts that may have been others
        found = self._store._compose(ctx, name, parts, {})
        return number, _Part(name, int(found["size"]), str(found["generation"]))


def checksum(content: bytes) -> str:
    """CRC-32C as Google writes it: big-endian, in base64."""
    return _text(_crc32c().value(content))


def _text(crc: int) -> str:
    return base64.b64encode(crc.to_bytes(4, "big")).decode()


def _require_sum(header: str, content: bytes, about: str) -> None:
    """Hold a body to the ``x-goog-hash`` that came with it."""
    told = dict(each.strip().split("=", 1) for each in header.split(",") if "=" in each)
    if "crc32c" in told and told["crc32c"] != checksum(content):
        raise Unavailable(f"{about}: damaged on its way here", hint="run the same command again")


def _stored(key: str, document: Document) -> StoredObject:
    digest = _labels(document).get(DIGEST)
    return StoredObject(key, int(document["size"]), Digest(digest) if digest else None, _time(document["timeCreated"]))


def _labels(document: Document) -> dict[str, Any]:
    found = document.get("metadata")
    return found if isinstance(found, dict) else {}


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _crc32c() -> ModuleType:
    import google_crc32c

    return google_crc32c
