"""What every implementation of ImageRegistry promises."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from osvdeploy.cloud.tags import APP as APP_TAG
from osvdeploy.cloud.tags import DIGEST as DIGEST_TAG
from osvdeploy.cloud.tags import RETIRED
from osvdeploy.digests import sha256
from osvdeploy.errors import CloudError, ImageNameTaken, NotFound, NotOurs
from tests.contract.aws_place import aws_place
from tests.contract.conftest import memory_place, share
from tests.contract.disks import DIGEST, image_request
from tests.contract.registries import OfDisks, Registry, gcp_archives, memory_archives
from tests.live import marks
from tests.live.marks import live
from tests.live.settings import Account

PLACES: dict[str, Callable[[], Registry]] = {
    "memory": lambda: OfDisks(memory_place()),
    "aws": lambda: OfDisks(aws_place()),
    "memory archives": memory_archives,
    "gcp": gcp_archives,
}


@pytest.fixture(params=[*PLACES, live("aws-live", marks.AWS_DISKS), live("gcp-live", marks.GCP_IMAGES)])
def place(request: pytest.FixtureRequest) -> Iterator[Registry]:
    """A registry and what images are made of, empty; in virtual time, but on accounts."""
    if request.param == "aws-live":
        with share(request, Account.AWS) as (session, label):
            yield OfDisks(session.aws_place(label))
    elif request.param == "gcp-live":
        with share(request, Account.GCP) as (session, label):
            yield session.gcp_archives(label)
    else:
        yield PLACES[request.param]()


def test_a_registered_image_is_found(place: Registry) -> None:
    """An image is found by its name, with its digest, its disk and our tags; before, there is none."""
    under = place.disk()
    assert place.images.find(place.ctx, "orders-1.0.0") is None

    made = place.images.register(place.ctx, image_request(under))

    found = place.images.find(place.ctx, "orders-1.0.0")
    assert found is not None
    assert (found.id, found.name, found.digest) == (made.id, "orders-1.0.0", DIGEST)
    assert found.disk == made.disk == (under.id if place.stands else None)
    assert found.tags[DIGEST_TAG] == DIGEST
    assert made.digest == DIGEST


def test_the_same_image_twice_is_once(place: Registry) -> None:
    """Same name, same digest: the image that is there."""
    under = place.disk()
    first = place.images.register(place.ctx, image_request(under))
    second = place.images.register(place.ctx, image_request(under))
    assert second.id == first.id
    assert len(place.images.owned(place.ctx, {})) == 1


def test_a_name_never_stands_for_other_bytes(place: Registry) -> None:
    """Same name, other digest: refused with both digests, and the first image stays."""
    first = place.images.register(place.ctx, image_request(place.disk()))
    other = place.disk("orders-other", sha256(b"other"))
    with pytest.raises(ImageNameTaken) as caught:
        place.images.register(place.ctx, image_request(other, "orders-1.0.0"))
    assert (caught.value.held, caught.value.ours) == (DIGEST, sha256(b"other"))
    found = place.images.find(place.ctx, "orders-1.0.0")
    assert found is not None
    assert found.id == first.id


def test_what_others_made_is_not_ours(place: Registry) -> None:
    """An image of that name without our tags is neither found nor replaced."""
    under = place.disk()
    place.put_foreign("orders-1.0.0")
    with pytest.raises(NotOurs):
        place.images.find(place.ctx, "orders-1.0.0")
    with pytest.raises(NotOurs):
        place.images.register(place.ctx, image_request(under))
    assert place.images.owned(place.ctx, {}) == []


def test_an_image_needs_its_disk(place: Registry) -> None:
    """An image of a disk that is gone cannot be registered, and takes no name."""
    under = place.disk()
    place.drop(under)
    with pytest.raises(CloudError):
        place.images.register(place.ctx, image_request(under))
    assert place.images.find(place.ctx, "orders-1.0.0") is None


def test_deregistering_leaves_the_disk(place: Registry) -> None:
    """The image goes, its disk stays and can be deleted from then on; deregistering again succeeds."""
    under = place.disk()
    image = place.images.register(place.ctx, image_request(under))
    place.images.deregister(place.ctx, image.id)
    place.images.deregister(place.ctx, image.id)
    assert place.images.find(place.ctx, "orders-1.0.0") is None
    assert place.holds(under)
    place.drop(under)
    assert not place.holds(under)


def test_owned_lists_what_carries_the_tags(place: Registry) -> None:
    """Everything of ours with these tags, and nothing else."""
    image = place.images.register(place.ctx, image_request(place.disk()))
    place.put_foreign("somebody-elses")
    assert [owned.id for owned in place.images.owned(place.ctx, {APP_TAG: "orders"})] == [image.id]
    assert place.images.owned(place.ctx, {APP_TAG: "other"}) == []


def test_an_image_is_found_by_its_id(place: Registry) -> None:
    """The same image as by its name; once it is gone there is none."""
    made = place.images.register(place.ctx, image_request(place.disk()))
    assert place.images.get(place.ctx, made.id) == place.images.find(place.ctx, "orders-1.0.0")
    place.images.deregister(place.ctx, made.id)
    assert place.images.get(place.ctx, made.id) is None


def test_tags_come_and_go(place: Registry) -> None:
    """Beside those that an image has, and twice is once; its disk has them too, and what it is stays."""
    made = place.images.register(place.ctx, image_request(place.disk()))
    for _ in range(2):
        place.images.retag(place.ctx, made.id, {RETIRED: "2026-05-01T10:00:00+00:00", "team": "a"})
        place.images.retag(place.ctx, made.id, {"team": "b"}, without=[RETIRED, "unheard-of"])
        place.images.retag(place.ctx, made.id, {"cost": "7"})
        found = place.images.get(place.ctx, made.id)
        assert found is not None
        assert found.tags == {**made.tags, "team": "b", "cost": "7"}
        assert place.tags_of_disk() in (None, found.tags)
    assert place.images.owned(place.ctx, {"team": "b"}) == [found]


def test_tags_of_what_is_not_ours_stay(place: Registry) -> None:
    """Another's image is left as it is; without the image there is nothing to give tags to."""
    made = place.images.register(place.ctx, image_request(place.disk()))
    place.images.deregister(place.ctx, made.id)
    with pytest.raises(NotFound):
        place.images.retag(place.ctx, made.id, {"team": "a"})
    with pytest.raises(NotOurs):
        place.images.retag(place.ctx, place.put_foreign("somebody-elses"), {"team": "a"})
