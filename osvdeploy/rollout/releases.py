"""What a release is: an image, a configuration, and the settings it was deployed with."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from osvdeploy.cloud import tags
from osvdeploy.cloud.interfaces import CloudImage, HealthRule, ReleaseId, Route
from osvdeploy.cloud.tags import service_tags
from osvdeploy.digests import Digest, digest_of, sha256
from osvdeploy.errors import UsageError
from osvdeploy.osv.image import FirstBlock
from osvdeploy.rollout.gates import Gate
from osvdeploy.rollout.hooks import Hook, Notify


class StrategyKind(StrEnum):
    """How traffic moves to a new release; `all-at-once` is `blue-green` without baking, `linear` a `canary` of equal
    steps."""

    BLUE_GREEN = "blue-green"
    ALL_AT_ONCE = "all-at-once"
    CANARY = "canary"
    LINEAR = "linear"


class OnFailure(StrEnum):
    """What a failure under traffic leads to: the old release serves again, or a person is asked."""

    ROLLBACK = "rollback"
    PAUSE = "pause"


class Concurrent(StrEnum):
    """What a deploy does that finds another rollout of its service under way: it is refused, waits until that one is
    over, or ends it first, with traffic back on stable."""

    REFUSE = "refuse"
    QUEUE = "queue"
    SUPERSEDE = "supersede"


@dataclass(frozen=True, slots=True)
class TrafficStep:
    """The candidate gets ``weight`` percent, and keeps it for ``bake`` seconds before the next step; with ``approve``
    until a person lets it go on, too."""

    weight: int
    bake: float = 0.0
    approve: bool = False


class ProbePlace(StrEnum):
    """Where probes leave from: this process, a command; or none do, and requests that the place counts are the
    proof."""

    HERE = "here"
    COMMAND = "command"
    REQUESTS = "requests"


@dataclass(frozen=True, slots=True)
class Health:
    """When a release counts as well. Times in seconds.

    ``version_header`` names the answer header that carries the release id; without it the proof is weaker. ``kind``
    "tcp" asks for a connection alone. ``probe_command`` sends probes where they leave from a command. ``slow_start`` is
    how long a machine that joins healthy ones takes to its full share, 0 for none.
    """

    path: str
    version_header: str | None
    boot_timeout: float
    interval: float
    timeout: float
    min_ready: float
    slow_start: float = 0.0
    kind: Literal["http", "tcp"] = "http"
    probe_from: ProbePlace = ProbePlace.HERE
    probe_command: tuple[str, ...] = ()

    @property
    def counted(self) -> bool:
        """Nothing is asked: requests that are counted are the proof."""
        return self.probe_from is ProbePlace.REQUESTS


@dataclass(frozen=True, slots=True)
class Strategy:
    """How traffic moves. Times in seconds. ``steps`` rise and end at weight 100. ``approve``: a person lets the
    candidate go on before it gets any traffic."""

    kind: StrategyKind
    steps: tuple[TrafficStep, ...]
    bake: float
    keep_warm: float
    approve: bool = False
    on_failure: OnFailure = OnFailure.ROLLBACK
    concurrent: Concurrent = Concurrent.REFUSE


@dataclass(frozen=True, slots=True)
class Settings:
    """One environment of a spec, resolved: everything a deploy needs beside the image. No cloud ids of ours.

    ``family`` is the image family that is to lead to what serves.
    """

    environment: str
    cloud: str
    region: str
    ledger: str
    machine_type: str
    capacity: int
    networks: tuple[str, ...]
    firewalls: tuple[str, ...]
    listener: str
    host: str | None
    path: str | None
    priority: int
    preview_header: str
    port: int
    health: Health
    strategy: Strategy
    family: str | None = None
    gates: tuple[Gate, ...] = ()
    hooks: tuple[Hook, ...] = ()
    notify: tuple[Notify, ...] = ()


@dataclass(frozen=True, slots=True)
class Adopted:
    """A group that somebody else made. ``image`` is what its machines were started from then, ``led_by`` what sent it
    its traffic, in words; ``own``: it may be taken away by us once nothing needs it."""

    group: str
    image: str
    led_by: str
    own: bool = False


@dataclass(frozen=True, slots=True)
class Release:
    """An image and a configuration. ``digest`` is over both digests; ``settings`` are those of the latest deploy.

    ``first_block`` is how the image's disk begins, None where whoever deployed it had no disk to look at. ``origin`` is
    the service whose release it was, deployed here with another configuration; None where it was built for this one.
    ``adopted``: it is no image of ours but a group that was there; then the digests are over what is known of it.
    """

    id: ReleaseId
    app: str
    version: str
    image: Digest
    configuration: Digest
    digest: Digest
    created: datetime
    by: str
    settings: Settings
    first_block: FirstBlock | None = None
    origin: str | None = None
    adopted: Adopted | None = None

    @property
    def service(self) -> str:
        return service_name(self.app, self.settings.environment)


def release_of(image: CloudImage, settings: Settings, *, created: datetime, by: str) -> Release:
    """The release that an image in a cloud is, by its tags, deployed with these settings.

    Raises :class:`~osvdeploy.errors.UsageError` for an image that is no release's: every environment's own variables,
    and the name that the program answers with, are in its command line.
    """
    found = release_tags_of(image)
    return Release(
        id=ReleaseId(found[tags.RELEASE]),
        app=found[tags.APP],
        version=found[tags.VERSION],
        image=Digest(found[tags.IMAGE]),
        configuration=Digest(found[tags.CONFIGURATION]),
        digest=image.digest,
        created=created,
        by=by,
        settings=settings,
    )


_OF_RELEASES = (tags.APP, tags.VERSION, tags.RELEASE, tags.IMAGE, tags.CONFIGURATION)


def release_tags_of(image: CloudImage) -> dict[str, str]:
    """What an image's tags say of its release, and of no service. Raises as :func:`release_of` does."""
    missing = [key for key in _OF_RELEASES if key not in image.tags]
    if missing:
        raise UsageError(
            f"{image.id} ({image.name}) is no release's image: it has no tag {missing[0]}",
            hint="`osvdeploy deploy` makes one of a spec",
        )
    return {
        **tags.app_tags(image.tags[tags.APP]),
        **{key: image.tags[key] for key in _OF_RELEASES},
        tags.DIGEST: image.digest,
    }


def adopted_release(
    app: str, version: str, adopted: Adopted, settings: Settings, *, created: datetime, by: str
) -> Release:
    """The release that somebody's group becomes. It names itself in no answer, is rolled out by no steps, and no image
    family follows it."""
    image = digest_of({"adopted": adopted.image})
    configuration = digest_of({"group": adopted.group})
    digest = release_digest(image, configuration)
    strategy = replace(
        settings.strategy, kind=StrategyKind.ALL_AT_ONCE, steps=(TrafficStep(100),), bake=0.0, approve=False
    )
    return Release(
        id=release_id(app, version, digest),
        app=app,
        version=version,
        image=image,
        configuration=configuration,
        digest=digest,
        created=created,
        by=by,
        settings=replace(settings, strategy=strategy, family=None, gates=()),
        adopted=adopted,
    )


def service_name(app: str, environment: str) -> str:
    """``APP/ENV``, which is also the ledger's folder."""
    return f"{app}/{environment}"


def service_key(service: str) -> str:
    """Ten hex digits that cloud names derive from: target group names take 32 characters in all."""
    return hashlib.sha256(service.encode()).hexdigest()[:10]


def group_stem(service: str, release: ReleaseId) -> str:
    """How the names of all groups and templates that are made for a release begin; up to a dash, or whole.

    From its id, not from its digest: two versions of the same bytes are two releases, which may stand side by side.
    """
    return f"osvd-{service_key(service)}-{sha256(release.encode())[:8]}"


def group_name(service: str, release: Release, epoch: int, mark: str = "") -> str:
    """Name of the group and template that a run makes for a release, begun under the lease ``epoch`` of a ledger that
    has this ``mark``.

    No two runs make groups of one name. So whoever lost the lease while it was about to take one away takes that one
    and no other, however late its call arrives. One that was adopted has the name that it had.
    """
    if release.adopted is not None:
        return release.adopted.group
    return f"{group_stem(service, release.id)}-{epoch}{mark and f'-{mark}'}"


def group_epoch(name: str) -> int:
    """The epoch in a group's name; 0 where it has none, being adopted or of a ledger that did not last."""
    made = re.fullmatch(r"osvd-[0-9a-f]{10}-[0-9a-f]{8}-([0-9]{1,18})", name)
    return int(made[1]) if made else 0


def configuration_digest(environment: Sequence[tuple[str, str]], boot: Sequence[tuple[str, str | None]]) -> Digest:
    """Digest of one environment's own variables and boot overrides."""
    return digest_of({"env": [list(pair) for pair in environment], "boot": [list(pair) for pair in boot]})


def release_digest(image: Digest, configuration: Digest) -> Digest:
    return digest_of({"image": image, "configuration": configuration})


def release_id(app: str, version: str, digest: Digest) -> ReleaseId:
    return ReleaseId(f"{app}-{version}-{digest[:8]}")


def settings_document(settings: Settings) -> dict[str, Any]:
    """Settings as the ledger writes them: JSON's own values, so that a field is listed once."""
    from pydantic import TypeAdapter

    found: dict[str, Any] = TypeAdapter(Settings).dump_python(settings, mode="json")
    return found


def settings_digest(settings: Settings) -> Digest:
    """Digest of settings: of what the ledger writes, numbers with a fraction as text."""
    return digest_of(_exact(settings_document(settings)))


def _exact(value: Any) -> Any:
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, dict):
        return {key: _exact(each) for key, each in value.items()}
    return [_exact(each) for each in value] if isinstance(value, list) else value


def route_of(release: Release) -> Route:
    """The way in that these settings declare."""
    settings = release.settings
    return Route(
        key=service_key(release.service),
        service=release.service,
        listener=settings.listener,
        priority=settings.priority,
        port=settings.port,
        health=HealthRule(
            path=settings.health.path,
            interval=settings.health.interval,
            timeout=settings.health.timeout,
            kind=settings.health.kind,
        ),
        preview_header=settings.preview_header,
        host=settings.host,
        path=settings.path,
        slow_start=settings.health.slow_start,
        tags=service_tags(release.app, release.service, settings.ledger),
    )


def about_pointer(listener: str, *, named: bool) -> str:
    """What whoever deploys over a pointer should know. ``named``: the program names its release in its answers."""
    told = (
        f"{listener} has no weights and no preview: all traffic moves in one step, and before it does, the idle slot "
        "is checked and asked at an address of its own"
    )
    if named:
        return told
    return f"{told}; without health.version-header, that it has moved is proved by time and good answers alone"
