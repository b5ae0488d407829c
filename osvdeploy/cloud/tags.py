"""The labels that everything we make in a cloud carries, from the moment it is made.

They let a second run find the first one's work, ``gc`` find what nobody needs, and a lost ledger be rebuilt; so they
are versioned like any other format.
"""

from __future__ import annotations

from collections.abc import Mapping

from osvdeploy.cloud.interfaces import ReleaseId, Slot
from osvdeploy.digests import Digest

SCHEMA = "osvdeploy"
"""Its value is the version of this scheme; its presence says that a resource is ours."""

SCHEMA_VERSION = "1"
APP = "osvdeploy:app"
VERSION = "osvdeploy:version"
IMAGE = "osvdeploy:image"
"""The image digest."""
DIGEST = "osvdeploy:digest"
"""The digest of this very disk or image: the image digest, or for a release the one over both digests."""
SERVICE = "osvdeploy:service"
"""``APP/ENV``."""
RELEASE = "osvdeploy:release"
CONFIGURATION = "osvdeploy:configuration"
"""The configuration digest."""
SLOT = "osvdeploy:slot"
LEDGER = "osvdeploy:ledger"
STORE = "osvdeploy:store"
"""Address of the object store that a disk came through: ``gc`` looks there for what was left."""
NAME = "Name"
"""What consoles show."""
PROGRAMS = "osvdeploy:programs"
"""The resources of Pulumi programs that an image is there for, each by a word of its own. As long as there is one,
``gc`` leaves the image alone."""
BELOW = "osvdeploy:below"
"""On an image that nobody published for itself: it was made for releases of programs to stand on, and goes with the
last of them."""
RETIRED = "osvdeploy:retired"
"""Since when no program has an image any more that a group, a template or a ledger's release still needed then: once
nothing needs it, it is garbage."""

ADOPTED = "osvdeploy:adopted"
"""On a group that somebody else made. It is let go where one of ours would be deleted, unless it says :data:`OWN`."""
OWN = "own"
BACKEND = "osvdeploy:backend"
"""On a group: the backend that it is put behind."""
LEFT = "osvdeploy:left"
"""On what sends a service's traffic: the release that it was taken from by whoever could not reach the ledger. The next
command that holds the ledger's lease learns it from there, and takes it away."""


def image_tags(app: str, version: str, image: Digest) -> dict[str, str]:
    """Tags of a published image and of its disk."""
    return {SCHEMA: SCHEMA_VERSION, APP: app, VERSION: version, IMAGE: image, DIGEST: image}


def app_tags(app: str) -> dict[str, str]:
    """Tags of what is no one service's: a release that any environment may roll out."""
    return {SCHEMA: SCHEMA_VERSION, APP: app}


def service_tags(app: str, service: str, ledger: str) -> dict[str, str]:
    """Tags of what a service has, whichever release serves: backends and rules."""
    return {**app_tags(app), SERVICE: service, LEDGER: ledger}


def slot_tags(service: dict[str, str], slot: Slot) -> dict[str, str]:
    return {**service, SLOT: slot.value}


def release_tags(
    whose: dict[str, str], *, release: ReleaseId, version: str, image: Digest, configuration: Digest, digest: Digest
) -> dict[str, str]:
    """Tags of a release's own disk, image, template, group and machines. ``whose`` are those of its service, or of its
    app where it is no service's alone."""
    return {
        **whose,
        VERSION: version,
        RELEASE: release,
        IMAGE: image,
        CONFIGURATION: configuration,
        DIGEST: digest,
    }


def adopted_tags(tags: Mapping[str, str], backend: str, *, own: bool) -> dict[str, str]:
    """Tags of somebody else's group that stands behind a backend of ours; ``own``: it may be taken away by us."""
    return {**tags, BACKEND: backend, ADOPTED: OWN if own else "kept"}


def is_kept(tags: Mapping[str, str]) -> bool:
    """Whether a group stays when we let it go: somebody else made it, and has not given it to us."""
    return tags.get(ADOPTED, OWN) != OWN


def users_own(tags: Mapping[str, str]) -> dict[str, str]:
    """The user's own tags among all that an image has: neither ours nor the cloud's."""
    return {key: value for key, value in tags.items() if key != NAME and not key.startswith((SCHEMA, "aws:", "goog-"))}


def is_ours(tags: Mapping[str, str]) -> bool:
    return SCHEMA in tags
