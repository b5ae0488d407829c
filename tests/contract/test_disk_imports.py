"""What every implementation of DiskImports promises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from osvdeploy.cloud import aws
from osvdeploy.cloud.aws.objects import S3Store
from osvdeploy.cloud.interfaces import Cloud, DiskImports, ImportRequest, ObjectStore
from osvdeploy.cloud.memory import MemoryCloud
from osvdeploy.cloud.tags import image_tags
from osvdeploy.context import CancelToken, Context, VirtualClock
from osvdeploy.digests import sha256
from osvdeploy.errors import Interrupted, Refused, Unready, UploadGone
from osvdeploy.osv.image import RawImage
from osvdeploy.publish.vmdk import VmdkSource
from tests.contract.aws_place import AwsSandbox, read
from tests.contract.conftest import share
from tests.live import marks
from tests.live.marks import live
from tests.live.scoped import scoped
from tests.live.settings import Account
from tests.publish.disk import bytes_of, raw_disk
from tests.sources import Made

if TYPE_CHECKING:
    from tests.live.run import Label
    from tests.live.session import Session


@dataclass
class Imports:
    """A place that is set up for imports, empty, in virtual time. ``unready`` makes it one that is not."""

    ctx: Context
    cloud: Cloud
    store: ObjectStore
    unready: Callable[[], None]
    read: Callable[[str], dict[int, bytes]]

    @property
    def imports(self) -> DiskImports:
        assert self.cloud.imports is not None
        return self.cloud.imports

    def put(self, raw: RawImage, key: str = "disks/a.vmdk") -> ImportRequest:
        self.store.put_file(self.ctx, key, VmdkSource(raw))
        return self.request(raw, key)

    def request(self, raw: RawImage, key: str = "disks/a.vmdk") -> ImportRequest:
        tags = image_tags("orders", "1.0.0", raw.digest)
        return ImportRequest("orders-1.0.0", raw.digest, tags, f"{self.store.address}/{key}")


def memory_imports() -> Imports:
    clock = VirtualClock()
    memory = MemoryCloud(clock)

    def unready() -> None:
        memory.imports.ready = False

    return Imports(Context(clock=clock), memory.cloud, memory.store, unready, memory.snapshots.blocks)


def aws_imports() -> Imports:
    account = AwsSandbox()
    account.set_up_imports("acme-images")
    cloud = aws.ports(account.ctx, account.aws())

    def unready() -> None:
        iam = account.client("iam")
        iam.delete_role_policy(RoleName="vmimport", PolicyName="vmimport")
        iam.delete_role(RoleName="vmimport")

    store = S3Store("s3://acme-images/osvdeploy", account.aws())
    return Imports(account.ctx, cloud, store, unready, account.read)


@pytest.fixture(params=["memory", pytest.param("aws", marks=pytest.mark.sandbox), live("aws-live", marks.AWS_IMPORTS)])
def place(request: pytest.FixtureRequest) -> Iterator[Imports]:
    if request.param == "aws-live":
        with share(request, Account.AWS) as (session, label):
            yield live_imports(session, label)
    else:
        yield memory_imports() if request.param == "memory" else aws_imports()


def live_imports(session: Session, label: Label) -> Imports:
    account = session.aws
    if (missing := account.unready()) is not None:
        pytest.skip(missing)

    def unready() -> None:
        raise AssertionError("the role is the account's")

    cloud = scoped(account.cloud, label)
    return Imports(session.ctx, cloud, account.store(label), unready, partial(read, session.ctx, account.aws))


@pytest.fixture
def raw(tmp_path: Path) -> RawImage:
    return raw_disk(tmp_path / "disk.raw", blocks=3, block=512 * 1024)


def test_an_object_becomes_a_disk(place: Imports, raw: RawImage) -> None:
    """With its name, digest and tags, of its size, and every byte that is read where it was."""
    request = place.put(raw)
    place.imports.refuse_unready(place.ctx, request.location)
    assert place.imports.find(place.ctx, request) is None
    disk = place.imports.finish(place.ctx, request, place.imports.start(place.ctx, request))
    assert (disk.name, disk.digest, disk.size_gib) == ("orders-1.0.0", raw.digest, 1)
    found = place.cloud.snapshots.find(place.ctx, "orders-1.0.0")
    assert found is not None
    assert (found.id, found.digest) == (disk.id, raw.digest)
    assert request.tags.items() <= found.tags.items()
    assert [each.id for each in place.cloud.snapshots.owned(place.ctx, request.tags)] == [disk.id]
    blocks = place.read(disk.id)
    size = place.cloud.snapshots.block_size
    whole = b"".join(blocks.get(index, bytes(size)) for index in range(3))
    for extent in raw.read:
        assert whole[extent.start : extent.end] == bytes_of(raw, extent)


def test_the_same_import_is_one(place: Imports, raw: RawImage) -> None:
    """Asked again, by whomever: while it is under way, and when it is done."""
    request = place.put(raw)
    first = place.imports.start(place.ctx, request)
    assert place.imports.start(place.ctx, request) == first
    assert place.imports.find(place.ctx, request) == first
    disk = place.imports.finish(place.ctx, request, first)
    assert place.imports.find(place.ctx, request) == first
    assert place.imports.finish(place.ctx, request, first).id == disk.id
    other = replace(request, digest=sha256(b"other"))
    assert place.imports.find(place.ctx, other) is None


def test_what_is_being_read_is_told(place: Imports, raw: RawImage) -> None:
    """By location, until it is over."""
    request = place.put(raw)
    assert place.imports.reading(place.ctx) == set()
    running = place.imports.start(place.ctx, request)
    assert place.imports.reading(place.ctx) == {request.location}
    place.imports.finish(place.ctx, request, running)
    assert place.imports.reading(place.ctx) == set()


def test_a_disk_that_was_deleted_is_imported_anew(place: Imports, raw: RawImage) -> None:
    """An import whose disk is gone counts as dead."""
    request = place.put(raw)
    first = place.imports.start(place.ctx, request)
    place.cloud.snapshots.delete(place.ctx, place.imports.finish(place.ctx, request, first).id)
    assert place.imports.find(place.ctx, request) is None
    with pytest.raises(UploadGone):
        place.imports.finish(place.ctx, request, first)
    second = place.imports.start(place.ctx, request)
    assert second != first
    assert place.imports.finish(place.ctx, request, second).digest == raw.digest


def test_an_object_that_is_no_disk_is_refused(place: Imports, raw: RawImage) -> None:
    """With the place's own words; the next one is another import."""
    request = place.request(raw)
    place.store.put_file(place.ctx, "disks/a.vmdk", Made("noise", 100_000))
    first = place.imports.start(place.ctx, request)
    with pytest.raises(Refused, match=r"(?i)vmdk"):
        place.imports.finish(place.ctx, request, first)
    assert place.imports.find(place.ctx, request) is None
    place.store.delete(place.ctx, "disks/a.vmdk")
    assert place.imports.start(place.ctx, place.put(raw)) != first


def test_without_an_object_nothing_begins(place: Imports, raw: RawImage) -> None:
    """And one that is taken away too early makes no disk."""
    with pytest.raises(Refused):
        place.imports.start(place.ctx, place.request(raw))
    request = place.put(raw)
    running = place.imports.start(place.ctx, request)
    place.store.delete(place.ctx, "disks/a.vmdk")
    with pytest.raises((Refused, UploadGone)):
        place.imports.finish(place.ctx, request, running)
    assert place.cloud.snapshots.find(place.ctx, "orders-1.0.0") is None


@pytest.mark.not_live("it takes the account's role away; the first test asks whether it is there")
def test_a_place_that_is_not_set_up_says_so(place: Imports, raw: RawImage) -> None:
    """With what to do, before anything is made: a refusal, until somebody does it."""
    request = place.put(raw)
    place.unready()
    with pytest.raises(Unready) as raised:
        place.imports.refuse_unready(place.ctx, request.location)
    assert raised.value.hint and raised.value.exit_code == 2


def test_waiting_ends_with_a_cancel(place: Imports, raw: RawImage) -> None:
    """And the import goes on without us."""
    request = place.put(raw)
    running = place.imports.start(place.ctx, request)
    cancel = CancelToken()
    cancel.cancel()
    with pytest.raises(Interrupted):
        place.imports.finish(replace(place.ctx, cancel=cancel), request, running)
    place.ctx.sleep(600)
    assert place.imports.finish(place.ctx, request, running).digest == raw.digest
