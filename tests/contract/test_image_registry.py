"""What every implementation of ImageRegistry promises."""

from __future__ import annotations

import pytest

from osvdeploy.cloud.interfaces import UploadedDisk
from osvdeploy.cloud.tags import APP as APP_TAG
from osvdeploy.cloud.tags import DIGEST as DIGEST_TAG
from osvdeploy.digests import Digest, sha256
from osvdeploy.errors import CloudError, ImageNameTaken, NotOurs
from tests.contract.disks import DIGEST, Place, content, image_request, request


def disk(place: Place, name: str = "orders-1.0.0", digest: Digest = DIGEST) -> UploadedDisk:
    return place.upload(request(name, digest), {0: content(place.snapshots.block_size, 0)})


def test_a_registered_image_is_found(place: Place) -> None:
    """An image is found by its name, with its digest, its disk and our tags; before, there is none."""
    under = disk(place)
    assert place.images.find(place.ctx, "orders-1.0.0") is None

    made = place.images.register(place.ctx, image_request(under))

    found = place.images.find(place.ctx, "orders-1.0.0")
    assert found is not None
    assert (found.id, found.name, found.digest, found.disk) == (made.id, "orders-1.0.0", DIGEST, under.id)
    assert found.tags[DIGEST_TAG] == DIGEST
    assert (made.digest, made.disk) == (DIGEST, under.id)


def test_the_same_image_twice_is_once(place: Place) -> None:
    """Same name, same digest: the image that is there."""
    under = disk(place)
    first = place.images.register(place.ctx, image_request(under))
    second = place.images.register(place.ctx, image_request(under))
    assert second.id == first.id
    assert len(place.images.owned(place.ctx, {})) == 1


def test_a_name_never_stands_for_other_bytes(place: Place) -> None:
    """Same name, other digest: refused with both digests, and the first image stays."""
    first = place.images.register(place.ctx, image_request(disk(place)))
    other = disk(place, "orders-other", sha256(b"other"))
    with pytest.raises(ImageNameTaken) as caught:
        place.images.register(place.ctx, image_request(other, "orders-1.0.0"))
    assert (caught.value.held, caught.value.ours) == (DIGEST, sha256(b"other"))
    found = place.images.find(place.ctx, "orders-1.0.0")
    assert found is not None
    assert found.id == first.id


def test_what_others_made_is_not_ours(place: Place) -> None:
    """An image of that name without our tags is neither found nor replaced."""
    under = disk(place)
    place.put_foreign("orders-1.0.0")
    with pytest.raises(NotOurs):
        place.images.find(place.ctx, "orders-1.0.0")
    with pytest.raises(NotOurs):
        place.images.register(place.ctx, image_request(under))
    assert place.images.owned(place.ctx, {}) == []


def test_an_image_needs_its_disk(place: Place) -> None:
    """An image of a disk that is gone cannot be registered, and takes no name."""
    under = disk(place)
    place.snapshots.delete(place.ctx, under.id)
    with pytest.raises(CloudError):
        place.images.register(place.ctx, image_request(under))
    assert place.images.find(place.ctx, "orders-1.0.0") is None


def test_deregistering_leaves_the_disk(place: Place) -> None:
    """The image goes, its disk stays and can be deleted from then on; deregistering again succeeds."""
    under = disk(place)
    image = place.images.register(place.ctx, image_request(under))
    place.images.deregister(place.ctx, image.id)
    place.images.deregister(place.ctx, image.id)
    assert place.images.find(place.ctx, "orders-1.0.0") is None
    assert place.snapshots.find(place.ctx, "orders-1.0.0") is not None
    place.snapshots.delete(place.ctx, under.id)
    assert place.snapshots.find(place.ctx, "orders-1.0.0") is None


def test_owned_lists_what_carries_the_tags(place: Place) -> None:
    """Everything of ours with these tags, and nothing else."""
    image = place.images.register(place.ctx, image_request(disk(place)))
    place.put_foreign("somebody-elses")
    assert [owned.id for owned in place.images.owned(place.ctx, {APP_TAG: "orders"})] == [image.id]
    assert place.images.owned(place.ctx, {APP_TAG: "other"}) == []
