"""A release, told by what an image carries."""

from __future__ import annotations

from dataclasses import replace

import pytest

from osvdeploy.cloud import tags
from osvdeploy.cloud.interfaces import CloudImage
from osvdeploy.errors import UsageError
from osvdeploy.rollout.releases import release_of
from tests.rollout.made import NOW, SETTINGS, release

MADE = release("1.4.0")
IMAGE = CloudImage(
    "image-1",
    MADE.id,
    MADE.digest,
    "disk-1",
    tags.release_tags(
        tags.service_tags("hello", "hello/staging", "elsewhere"),
        release=MADE.id,
        version="1.4.0",
        image=MADE.image,
        configuration=MADE.configuration,
        digest=MADE.digest,
    ),
)


def test_an_image_tells_its_release() -> None:
    """All but the settings is read off its tags; the environment it was made for is not asked."""
    found = release_of(IMAGE, SETTINGS, created=NOW, by="somebody")
    assert found == replace(MADE, created=NOW, by="somebody", settings=SETTINGS)
    assert found.service == "hello/production"


@pytest.mark.parametrize("missing", [tags.APP, tags.VERSION, tags.RELEASE, tags.IMAGE, tags.CONFIGURATION])
def test_an_image_of_no_release_is_refused(missing: str) -> None:
    """It says which tag is not there."""
    image = replace(IMAGE, tags={key: value for key, value in IMAGE.tags.items() if key != missing})
    with pytest.raises(UsageError, match=f"has no tag {missing}"):
        release_of(image, SETTINGS, created=NOW, by="somebody")
