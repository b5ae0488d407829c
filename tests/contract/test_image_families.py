"""What every implementation of ImageFamilies promises."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import pytest

from osvdeploy.cloud.interfaces import CloudImage, ImageFamilies
from osvdeploy.digests import sha256
from osvdeploy.errors import NotFound
from tests.contract.conftest import share
from tests.contract.disks import image_request
from tests.contract.registries import OfArchives, gcp_archives, memory_archives
from tests.live import marks
from tests.live.marks import live
from tests.live.settings import Account

FAMILY = "orders"


PLACES = {"memory": memory_archives, "gcp": gcp_archives}


@pytest.fixture(params=[*PLACES, live("gcp-live", marks.GCP_IMAGES)])
def place(request: pytest.FixtureRequest) -> Iterator[OfArchives]:
    """Images and a family that is empty; in virtual time, but on an account."""
    if request.param == "gcp-live":
        with share(request, Account.GCP) as (session, label):
            yield session.gcp_archives(label)
    else:
        yield PLACES[request.param]()


def families(place: OfArchives) -> ImageFamilies:
    return cast("ImageFamilies", place.images)


def image(place: OfArchives, version: str) -> CloudImage:
    name = f"orders-{version}"
    return place.images.register(place.ctx, image_request(place.disk(name, sha256(version.encode())), name))


def current(place: OfArchives) -> str | None:
    found = families(place).current(place.ctx, FAMILY)
    return None if found is None else found.name


def test_a_family_leads_to_what_was_offered_last(place: OfArchives) -> None:
    """An image that was not offered is no concern of it; twice is once."""
    assert current(place) is None
    first, second = image(place, "1.0.0"), image(place, "2.0.0")
    image(place, "3.0.0")
    assert current(place) is None
    for each in (first, second, second):
        families(place).offer(place.ctx, each, FAMILY)
    assert current(place) == "orders-2.0.0"


def test_an_image_leaves_its_family(place: OfArchives) -> None:
    """For another one, or for none; as often as asked."""
    first, second = image(place, "1.0.0"), image(place, "2.0.0")
    for each in (first, second):
        families(place).offer(place.ctx, each, FAMILY)
    for _ in range(2):
        families(place).offer(place.ctx, second, None)
        families(place).offer(place.ctx, second, None)
        assert current(place) == "orders-1.0.0"
        families(place).offer(place.ctx, second, FAMILY)
        assert current(place) == "orders-2.0.0"
    families(place).offer(place.ctx, second, "others")
    assert current(place) == "orders-1.0.0"


@pytest.mark.parametrize("obsolete", [False, True])
def test_what_is_withdrawn_leaves_the_lead_to_the_one_before(place: OfArchives, obsolete: bool) -> None:
    """To and fro as often as asked, and twice is once."""
    first, second = image(place, "1.0.0"), image(place, "2.0.0")
    for each in (first, second):
        families(place).offer(place.ctx, each, FAMILY)
    for _ in range(3):
        families(place).withdraw(place.ctx, second, first, obsolete=obsolete)
        families(place).withdraw(place.ctx, second, first, obsolete=obsolete)
        assert current(place) == "orders-1.0.0"
        families(place).restore(place.ctx, second)
        families(place).restore(place.ctx, second)
        assert current(place) == "orders-2.0.0"
    families(place).withdraw(place.ctx, second)
    families(place).withdraw(place.ctx, first)
    assert current(place) is None
    # It is still there, for whoever names it.
    assert place.images.find(place.ctx, "orders-2.0.0") is not None


def test_a_familys_members_are_what_may_lead(place: OfArchives) -> None:
    """The one that leads first, then the one before; what is withdrawn, or was not offered, is none."""
    assert families(place).members(place.ctx, FAMILY) == []
    first, second, third = (image(place, version) for version in ("1.0.0", "2.0.0", "3.0.0"))
    image(place, "4.0.0")
    for each in (third, first, second):
        families(place).offer(place.ctx, each, FAMILY)
    names = [each.name for each in families(place).members(place.ctx, FAMILY)]
    assert names == ["orders-3.0.0", "orders-2.0.0", "orders-1.0.0"]
    families(place).withdraw(place.ctx, second)
    names = [each.name for each in families(place).members(place.ctx, FAMILY)]
    assert names == ["orders-3.0.0", "orders-1.0.0"]
    assert current(place) == names[0]


def test_what_is_not_there_cannot_be_offered_or_withdrawn(place: OfArchives) -> None:
    """A deleted image leaves its family."""
    only = image(place, "1.0.0")
    families(place).offer(place.ctx, only, FAMILY)
    place.images.deregister(place.ctx, only.id)
    assert current(place) is None
    with pytest.raises(NotFound):
        families(place).offer(place.ctx, only, FAMILY)
    with pytest.raises(NotFound):
        families(place).withdraw(place.ctx, only)
    with pytest.raises(NotFound):
        families(place).restore(place.ctx, only)


def test_images_are_made_at_once(place: OfArchives) -> None:
    """Begun together, waited for one after the other: the same images as without; begun twice is once."""
    requests = [
        image_request(place.disk(f"orders-{version}", sha256(version.encode())), f"orders-{version}")
        for version in ("1.0.0", "2.0.0", "3.0.0")
    ]
    for request in [*requests, requests[0]]:
        place.images.begin(place.ctx, request)
    began = place.ctx.monotonic()
    made = [place.images.register(place.ctx, request) for request in requests]
    assert [each.name for each in made] == [request.name for request in requests]
    assert place.ctx.monotonic() - began < place.patience
    assert len(place.images.owned(place.ctx, {})) == 3
