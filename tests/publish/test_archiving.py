"""Publishing where images are made of archives: what is sent, shared and left, in memory and on Google."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from osvdeploy.cloud.gcp.images import GceImages
from osvdeploy.cloud.interfaces import ArchivePlace, ReleaseId, StoredObject
from osvdeploy.cloud.memory import MemoryArchiveImages, MemoryStore
from osvdeploy.cloud.tags import IMAGE, RELEASE, release_tags, service_tags
from osvdeploy.context import Context, VirtualClock
from osvdeploy.digests import Digest, sha256
from osvdeploy.errors import DiskInvalid, ImageDiffers, ImageNameTaken, NotOurs, Refused
from osvdeploy.events import CloudCall, Recorder
from osvdeploy.osv.cmdline import BootCommand, encode
from osvdeploy.osv.disk import FIRST_BLOCK, FileAccess, first_block, with_line
from osvdeploy.osv.image import FirstBlock, RawImage
from osvdeploy.publish.archive import head_of, opened_head
from osvdeploy.publish.archiving import ReleaseOrder, kept_folder, publish_archived, publish_kept
from osvdeploy.publish.publisher import Published
from osvdeploy.sandbox.faults import Fault, FaultKind
from osvdeploy.sandbox.google.compute.archive import BLOCK, opened
from osvdeploy.sizes import KIB
from tests.contract.gcp_place import PROJECT, GcpSandbox
from tests.contract.registries import archive
from tests.publish.disk import BOOT, raw_disk
from tests.sandbox.google.place import disk_of

DIGEST = sha256(b"release")
RELEASED = BootCommand(BOOT.options, (*BOOT.environment, ("LEVEL", "debug")), BOOT.words)


@dataclass
class Site:
    """A place, empty. ``disk(name)`` has the blocks of an image's disk, ``put_foreign(name)`` makes somebody else's."""

    ctx: Context
    place: ArchivePlace
    disk: Callable[[str], list[bytes]]
    put_foreign: Callable[[str], object]
    account: GcpSandbox | None = None

    def left(self) -> list[str]:
        store = self.place.store
        return [*store.keys(self.ctx, ""), *(each.key for each in store.unfinished(self.ctx, ""))]

    def images(self) -> list[str]:
        return sorted(each.name for each in self.place.images.owned(self.ctx, {}))


def memory_site() -> Site:
    ctx, store = Context(clock=VirtualClock()), MemoryStore()
    images = MemoryArchiveImages(store)

    def disk(name: str) -> list[bytes]:
        blocks = dict(opened([images.archive(name)]).blocks)
        return [blocks.get(index, bytes(BLOCK)) for index in range(max(blocks) + 1)]

    return Site(ctx, images.place, disk, lambda name: images.put_foreign(ctx, name))


def gcp_place(account: GcpSandbox) -> ArchivePlace:
    images = GceImages(account.gcp())
    return ArchivePlace("gcp", PROJECT, "eu", images, images, account.store("gs://acme/osvdeploy"))


def gcp_site() -> Site:
    account = GcpSandbox()

    def disk(name: str) -> list[bytes]:
        return disk_of(account.sandbox, f"{PROJECT}/{name.replace('.', '-')}")

    def put_foreign(name: str) -> None:
        account.put_foreign(name.replace(".", "-"), archive())
        account.store().delete(account.ctx, f"theirs/{name.replace('.', '-')}.tar.gz")

    return Site(account.ctx, gcp_place(account), disk, put_foreign, account)


@pytest.fixture(params=[memory_site, gcp_site])
def site(request: pytest.FixtureRequest) -> Site:
    made: Site = request.param()
    return made


@pytest.fixture
def raw(tmp_path: Path) -> RawImage:
    return raw_disk(tmp_path / "disk.raw", blocks=3, block=512 * KIB)


def order(raw: RawImage, name: str = "orders-1.0.0-1a2b3c4d", family: str | None = None) -> ReleaseOrder:
    digest = sha256(name.encode())
    labels = release_tags(
        service_tags("orders", "orders/production", "/ledger"),
        release=ReleaseId(name),
        version="1.0.0",
        image=raw.digest,
        configuration=sha256(b"configuration"),
        digest=digest,
    )
    return ReleaseOrder(ReleaseId(name), digest, RELEASED, labels, family)


def publish(site: Site, raw: RawImage, release: ReleaseOrder | None = None, **changes: object) -> list[bool]:
    """Whether each image was there already."""
    made = publish_archived(
        site.ctx,
        raw,
        app="orders",
        version="1.0.0",
        tags={"team": "payments"},
        place=site.place,
        release=release,
        **changes,  # type: ignore[arg-type]
    )
    return [each.reused for each in made if each is not None]


def content(raw: RawImage) -> list[bytes]:
    disk = FileAccess(raw.path)
    return [disk.pread(index * BLOCK, BLOCK) for index in range(3)]


def test_a_disk_becomes_an_image(site: Site, raw: RawImage) -> None:
    """Byte for byte, with our tags and the user's; and nothing is left in the store."""
    assert publish(site, raw) == [False]
    assert site.images() == ["orders-1.0.0"]
    [image] = site.place.images.owned(site.ctx, {})
    assert (image.digest, image.tags[IMAGE], image.tags["team"]) == (raw.digest, raw.digest, "payments")
    blocks, disk = site.disk("orders-1.0.0"), content(raw)
    for index, extent in ((0, raw.read[0]), (2, raw.read[2])):
        begin = extent.start - index * BLOCK
        assert (
            blocks[index][begin : begin + extent.end - extent.start]
            == disk[index][begin : begin + extent.end - extent.start]
        )
    assert site.left() == []


def test_a_release_is_one_block_on_its_image(site: Site, raw: RawImage) -> None:
    """The body is sent once for both."""
    sent: list[str] = []
    put = site.place.store.put_file

    def counted(ctx: Context, key: str, source: object) -> object:
        if site.place.store.find(ctx, key) is None:
            sent.append(key)
        return put(ctx, key, source)  # type: ignore[arg-type]

    site.place.store.put_file = counted  # type: ignore[method-assign, assignment]
    release = order(raw)
    assert publish(site, raw, release) == [False, False]
    below, above = site.disk("orders-1.0.0"), site.disk(release.id)
    assert [index for index in range(3) if below[index] != above[index]] == [0]
    assert encode(RELEASED) in above[0]
    assert len(sent) == 1
    assert site.left() == []
    [image] = site.place.images.owned(site.ctx, {RELEASE: release.id})
    assert image.digest == release.digest


def test_twice_is_once(site: Site, raw: RawImage) -> None:
    """And a further release sends its head, and the body again."""
    assert publish(site, raw, order(raw)) == [False, False]
    assert publish(site, raw, order(raw)) == [True, True]
    assert publish(site, raw, order(raw, "orders-1.0.0-5e6f7a8b")) == [True, False]
    assert len(site.images()) == 3
    assert site.left() == []


def with_line_of(raw: RawImage) -> FirstBlock:
    """What a ledger has of the disk's beginning; the disk has a command line from now on."""
    with raw.path.open("r+b") as file:
        block = with_line(file.read(FIRST_BLOCK), encode(BOOT))
        file.seek(0)
        file.write(block)
    return first_block(block)


def publish_of_kept(site: Site, raw: RawImage, first: FirstBlock | None, name: str) -> Published | None:
    def ordered(boot: BootCommand) -> ReleaseOrder:
        assert boot == BOOT
        return order(raw, name)

    return publish_kept(site.ctx, raw.digest, ordered, app="orders", tags={}, place=site.place, first=first)


def test_a_disk_that_is_kept_makes_releases_without_it(site: Site, raw: RawImage) -> None:
    """Byte for byte what the disk itself would make; what is kept stays as it is, and is put once."""
    first, later = with_line_of(raw), "orders-1.0.0-5e6f7a8b"
    assert publish_of_kept(site, raw, first, later) is None
    assert publish(site, raw, order(raw), keep=True) == [False, False]
    kept = [f"{kept_folder('orders', raw.digest)}{name}" for name in ("body", "head", "sum")]
    assert site.left() == kept
    raw.path.rename(raw.path.with_suffix(".gone"))
    made = publish_of_kept(site, raw, first, later)
    assert made is not None and not made.reused and made.blocks == 1
    assert site.disk(later) == site.disk("orders-1.0.0-1a2b3c4d")
    again = publish_of_kept(site, raw, first, later)
    assert again is not None and again.reused
    assert site.left() == kept


def test_what_was_published_before_can_be_kept_later(site: Site, raw: RawImage) -> None:
    """By publishing it again, which makes nothing else."""
    first = with_line_of(raw)
    publish(site, raw)
    assert publish(site, raw, keep=True) == [True]
    assert publish(site, raw, keep=True) == [True]
    assert publish_of_kept(site, raw, first, "orders-1.0.0-5e6f7a8b") is not None


@pytest.mark.parametrize("offset", [3, 0x1CE, 70_000])
def test_a_kept_disk_that_begins_otherwise_is_refused(site: Site, raw: RawImage, offset: int) -> None:
    """Whoever wrote it there: nothing is made of it."""
    first = with_line_of(raw)
    publish(site, raw, keep=True)
    folder, store = kept_folder("orders", raw.digest), site.place.store
    head = store.get(site.ctx, f"{folder}head")
    assert head is not None
    header, block, size = opened_head(head)
    assert size == raw.size
    changed = block[:offset] + bytes([block[offset] ^ 1]) + block[offset + 1 :]
    for content in (head_of(header, changed)[0], b"", head[:100]):
        store.delete(site.ctx, f"{folder}head")
        store.put_if_absent(site.ctx, f"{folder}head", content)
        with pytest.raises(ImageDiffers, match="the disk that is kept there"):
            publish_of_kept(site, raw, first, "orders-1.0.0-5e6f7a8b")
    assert site.images() == ["orders-1.0.0"]


def test_other_bytes_by_the_same_name_are_refused_before_anything_is_sent(
    site: Site, raw: RawImage, tmp_path: Path
) -> None:
    """Of the image as of the release; what is there stays."""
    publish(site, raw, order(raw))
    other = raw_disk(tmp_path / "other.raw", seed=b"2", blocks=3, block=512 * KIB)
    with pytest.raises(ImageNameTaken):
        publish(site, other)
    with pytest.raises(ImageNameTaken):
        publish(site, raw, replace(order(raw), digest=DIGEST))
    assert len(site.images()) == 2
    assert site.left() == []


def test_what_others_made_is_not_touched(site: Site, raw: RawImage) -> None:
    """Nothing is sent either."""
    site.put_foreign("orders-1.0.0")
    with pytest.raises(NotOurs):
        publish(site, raw)
    assert site.left() == []


def test_a_family_leads_to_what_is_ready(site: Site, raw: RawImage) -> None:
    """The image's and the release's, each its own; one that is told of later takes in what is there."""
    publish(site, raw)
    assert site.place.families.current(site.ctx, "orders") is None
    publish(site, raw, order(raw, family="orders-production"), family="orders")
    image = site.place.families.current(site.ctx, "orders")
    release = site.place.families.current(site.ctx, "orders-production")
    assert image is not None and image.name == "orders-1.0.0"
    assert release is not None and release.name == "orders-1.0.0-1a2b3c4d"


def test_another_image_that_is_on_its_way_keeps_the_body(site: Site, raw: RawImage) -> None:
    """Whoever is last takes it away; what lies there for a day is nobody's."""
    store = site.place.store
    folder = f"disks/orders/{raw.digest}.1/"
    store.put_if_absent(site.ctx, f"{folder}orders-1.0.1.head", b"another process's, of the same bytes")
    publish(site, raw)
    assert site.left() == [f"{folder}body", f"{folder}orders-1.0.1.head"]
    site.ctx.sleep(timedelta(hours=25).total_seconds())
    publish(site, raw)
    assert site.left() == []


def test_a_body_that_is_taken_away_is_sent_again(site: Site, raw: RawImage) -> None:
    """As by another process that clears up behind its own image, when this one was about to join."""
    store, taken = site.place.store, list[str]()
    join = store.join

    def late(ctx: Context, key: str, parts: Sequence[str], digest: Digest) -> StoredObject:
        if len(taken) < 2:
            taken.append(key)
            store.delete(ctx, parts[1])
        return join(ctx, key, parts, digest)

    store.join = late  # type: ignore[method-assign]
    assert publish(site, raw, order(raw)) == [False, False]
    assert len(taken) == 2
    assert encode(RELEASED) in site.disk(order(raw).id)[0]
    assert site.left() == []


def test_a_disk_that_is_not_whole_gib_is_refused(site: Site, raw: RawImage) -> None:
    """Before anything is asked."""
    with pytest.raises(DiskInvalid, match="whole GiB"):
        publish(site, replace(raw, size=raw.size - 512))


# -------------------------------------------------------------------------------------------------------- on Google


def test_an_archive_that_google_does_not_take_leaves_nothing(raw: RawImage) -> None:
    """Its words are told, image and objects are gone, and the same command works when the cause is."""
    site = gcp_site()
    assert site.account is not None
    key = f"disks/orders/{raw.digest}.1/orders-1.0.0.head"
    site.place.store.put_if_absent(site.ctx, key, b"damaged")
    with pytest.raises(Refused, match="not a valid image"):
        publish(site, raw)
    assert (site.left(), site.images()) == ([], [])
    assert publish(site, raw) == [False]


@pytest.mark.parametrize(
    "operation", ["buckets.testIamPermissions", "objects.insert", "objects.compose", "images.insert", "images.patch"]
)
def test_what_is_not_allowed_is_told_and_leaves_nothing(raw: RawImage, operation: str) -> None:
    """Whichever permission is missing."""
    site = gcp_site()
    assert site.account is not None
    site.account.sandbox.faults.add(Fault(operation, FaultKind.DENIED))
    with pytest.raises(Refused):
        publish(site, raw, family="orders")
    assert (site.left(), site.images()) == ([], [])
    assert publish(site, raw, family="orders") == [False]


def test_a_publication_makes_few_calls(raw: RawImage) -> None:
    """Those that change something: the parts of an archive, the image, its family, and what is taken away."""
    site = gcp_site()
    events = Recorder()
    site.ctx = site.ctx.reporting_to(events)
    publish(site, raw, family="orders")
    changes = [each.operation for each in events.events if isinstance(each, CloudCall) and each.mutating]
    assert changes == [
        *["objects.insert"] * 3,
        "objects.compose",
        "images.insert",
        "images.patch",
        *["objects.delete"] * 4,
    ]
    events.events.clear()
    publish(site, raw, family="orders")
    again = [each for each in events.events if isinstance(each, CloudCall)]
    assert len(again) <= 5 and not any(each.mutating for each in again)
