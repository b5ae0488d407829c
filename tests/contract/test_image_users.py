"""What every ImageRegistry promises of who starts machines from an image, where groups stand."""

from __future__ import annotations

from osvdeploy.cloud.interfaces import CloudImage, ImageUser, Slot
from osvdeploy.digests import sha256
from tests.contract.scenes import Scene

THEIR_NAME = "osvd-theirs"


def users(scene: Scene, *images: str) -> dict[str, list[ImageUser]]:
    """Who has images of these ids, by them."""
    asked = [CloudImage(image, f"image {number}", sha256(image.encode()), None) for number, image in enumerate(images)]
    return {image: list(found) for image, found in scene.cloud.images.users(scene.ctx, asked).items()}


def test_who_else_has_an_image_is_told(scene: Scene) -> None:
    """By the name of the group or template, of an image that it names; of others it is not told."""
    image = scene.plant_group(THEIR_NAME)
    other = scene.stand(Slot.BLUE, "hello-1", capacity=1).image
    found = users(scene, image, other)
    assert [user.ours for user in found[image] if THEIR_NAME in user.told] == [False]
    assert not any(THEIR_NAME in user.told for user in found.get(other, ()))
    assert THEIR_NAME not in str(users(scene, other))


def test_what_is_ours_is_told_apart(scene: Scene) -> None:
    """Of a group of ours, its machines and its template none is somebody else's; a template that stays when its group
    is gone has the image for nobody."""
    made = scene.stand(Slot.BLUE, "hello-1", capacity=1)
    scene.until(lambda: scene.healthy(Slot.BLUE) == 1)
    assert all(user.ours for user in users(scene, made.image).get(made.image, ()))
    groups = scene.cloud.groups
    groups.delete(scene.ctx, made.name)
    scene.until(lambda: groups.observe(scene.ctx, made.name) is None)
    assert groups.templates(scene.ctx, {}) == [made.name]
    assert all(user.ours for user in users(scene, made.image).get(made.image, ()))
