"""The adapters, each imported when it is first needed."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from osvdeploy.api.declared import Service
from osvdeploy.context import Context
from osvdeploy.errors import UsageError
from osvdeploy.events import CloudCall, Event
from osvdeploy.sizes import parse_duration

if TYPE_CHECKING:
    from osvdeploy.cloud.gcp.machines import GceMachineTypes
    from osvdeploy.cloud.interfaces import ArchivePlace, Cloud, Ground, Hooks, Metrics, Notifier, ObjectStore, Prober
    from osvdeploy.publish.importing import ThroughStore
    from osvdeploy.rollout.ledger import Head, Ledger, Place
    from osvdeploy.rollout.manager import RolloutManager
    from osvdeploy.rollout.model import Until
    from osvdeploy.rollout.releases import ProbePlace
    from osvdeploy.spec.model import PublishGcp


PROPAGATION_VARIABLE = "OSVDEPLOY_PROPAGATION"
"""How long a change of a route takes at most to be in force at every entry point, as ``90s``: where that is known
better than it is by what each cloud is known for."""

DRAIN_VARIABLE = "OSVDEPLOY_DRAIN"
"""How long requests under way have to end at machines that have lost their traffic, as ``60s``."""

_Place = TypeVar("_Place", bound="Ground")


@dataclass(slots=True)
class Calls:
    """Counts API calls by listening to events."""

    total: int = 0
    mutating: int = 0

    def listening(self, ctx: Context) -> Context:
        """The context with its reporter kept, and counted."""
        heard = ctx.reporter

        def count(event: Event) -> None:
            if isinstance(event, CloudCall):
                self.total += 1
                self.mutating += event.mutating
            heard(event)

        return ctx.reporting_to(count)


def connect(ctx: Context, cloud: str, region: str) -> Cloud:
    """The adapters of a place. Raises :class:`~osvdeploy.errors.CredentialsMissing` where none are found, and
    :class:`~osvdeploy.errors.UsageError` where :data:`PROPAGATION_VARIABLE` or :data:`DRAIN_VARIABLE` is no time."""
    if cloud == "aws":
        try:
            from osvdeploy.cloud import aws
        except ModuleNotFoundError as error:
            raise UsageError(f"AWS needs {error.name}", hint="pip install 'osvdeploy[aws]'") from None
        return _as_known(aws.connect(ctx, region))
    raise UsageError(f"cloud {cloud!r} is not supported by this version", hint='use cloud = "aws" or "gcp"')


def usual_region() -> str | None:
    """The region of AWS that the environment or AWS's own configuration names, None for none."""
    from osvdeploy.cloud.aws.session import usual_region

    return usual_region()


def ground(ctx: Context, cloud: str, account: str, region: str, endpoint: str | None = None) -> Ground:
    """What a rollout stands on in a place. ``account`` is asked for on Google alone: the project; so is ``endpoint``,
    the address of Compute Engine that a spec names.

    Raises as :func:`connect` does.
    """
    if cloud != "gcp":
        return connect(ctx, cloud, region)
    from osvdeploy.cloud import gcp

    return _as_known(gcp.ground(gcp.Gcp(account, declared=endpoint), region))


def _as_known(place: _Place) -> _Place:
    """The place, with the times that the environment tells of it."""
    if (seconds := _seconds(PROPAGATION_VARIABLE)) is not None:
        place = replace(place, spread=seconds if place.spread else 0.0, late=seconds if place.late else 0.0)
    if (seconds := _seconds(DRAIN_VARIABLE)) is not None:
        place = replace(place, drain=seconds)
    return place


def _seconds(variable: str) -> float | None:
    told = os.environ.get(variable)
    if not told:
        return None
    try:
        return parse_duration(told)
    except ValueError as error:
        raise UsageError(f"{variable}: {error}") from None


def ground_of(ctx: Context, place: Place) -> Ground:
    """That of a place which a ledger tells of. Raises as :func:`ground` does, and
    :class:`~osvdeploy.errors.UsageError` where the credentials are another account's: it has nothing of the service,
    which says nothing of the one that has.
    """
    found = ground(ctx, place.cloud, place.account, place.region, place.endpoint)
    if place.account and found.account != place.account:
        raise UsageError(
            f"{place.route.service}: is in {place.cloud} account {place.account}, and these credentials are of "
            f"{found.account}",
            hint=f"take credentials of {place.account}; nothing was changed",
        )
    return found


def ground_again(ctx: Context, known: Ground | None, place: Place) -> Ground:
    """The same, or the one that is ``known`` already where it is that place: its clients need not be made anew."""
    if known is not None:
        there = (known.kind, known.account, known.region, known.endpoint)
        if there == (place.cloud, place.account, place.region, place.endpoint):
            return known
    return ground_of(ctx, place)


def google_images(publish: PublishGcp) -> ArchivePlace:
    """Where images are made on Google. Nothing is asked before it is used."""
    from osvdeploy.cloud.gcp.images import GceImages
    from osvdeploy.cloud.gcp.objects import GcsStore
    from osvdeploy.cloud.gcp.session import Gcp
    from osvdeploy.cloud.interfaces import ArchivePlace

    gcp = Gcp(publish.project, declared=publish.compute_endpoint)
    images = GceImages(gcp, storage_location=publish.storage_location)
    store = GcsStore(image_store("gcp", publish.bucket), gcp)
    return ArchivePlace("gcp", publish.project, publish.storage_location or "global", images, images, store)


def google_machines(publish: PublishGcp, place: str) -> GceMachineTypes:
    """The machine types of a zone or region on Google. Nothing is asked before it is used."""
    from osvdeploy.cloud.gcp.machines import GceMachineTypes
    from osvdeploy.cloud.gcp.session import Gcp

    return GceMachineTypes(Gcp(publish.project, declared=publish.compute_endpoint), place)


def open_store(address: str) -> ObjectStore:
    """The object store at an address: a directory, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX. Nothing is looked at
    before it is used.

    Raises UsageError for a scheme this version does not know.
    """
    scheme, separator, _ = address.partition("://")
    if scheme == "s3" and separator:
        from osvdeploy.cloud.aws.objects import S3Store

        return S3Store(address)
    if scheme == "gs" and separator:
        from osvdeploy.cloud.gcp.objects import GcsStore

        return GcsStore(address)
    if separator:
        raise UsageError(
            f"ledger {address!r}: {scheme}:// is not supported by this version",
            hint="use a directory, s3://BUCKET or gs://BUCKET",
        )
    from osvdeploy.cloud.local.store import DirectoryStore

    return DirectoryStore(Path(address).expanduser())


IMAGES = "osvdeploy"
"""What the keys of disks on their way begin with, in the bucket that they pass through."""


def image_store(cloud: str, bucket: str) -> str:
    """The address in a bucket of a cloud's that disks on their way have."""
    return f"{'gs' if cloud == 'gcp' else 's3'}://{bucket}/{IMAGES}"


def through_store(cloud: Cloud, bucket: str | None) -> ThroughStore | None:
    """The way of disks through a bucket of the cloud's, None where none is named."""
    if bucket is None:
        return None
    from osvdeploy.publish.importing import ThroughStore

    if cloud.imports is None:
        raise UsageError(f"{cloud.kind} makes no disks of objects", hint="leave `via` and `bucket` out")
    return ThroughStore(open_store(image_store(cloud.kind, bucket)), cloud.imports)


def open_ledger(service: Service) -> Ledger:
    from osvdeploy.rollout.ledger import Ledger

    return Ledger(open_store(service.ledger), service.app, service.environment)


def prober() -> Prober:
    from osvdeploy.cloud.local.probing import LocalProber

    return LocalProber()


def metrics(place: Ground) -> Metrics:
    """Every source that a gate may have: what the place counts, and those that are none of a cloud's."""
    from osvdeploy.cloud.local.metrics import MetricSources

    return MetricSources(place.metrics)


def hooks() -> Hooks:
    """What asks the programs of this host, and addresses."""
    from osvdeploy.cloud.local.hooks import LocalHooks

    return LocalHooks()


def notifier(place: Ground) -> Notifier:
    """What tells webhooks, and others by what the place has for that."""
    from osvdeploy.cloud.local.notifier import Notifiers

    return Notifiers(place.notifier)


def rollouts(
    ledger: Ledger,
    place: Ground,
    *,
    take_over: bool = False,
    until: Until | None = None,
    exactly: bool = False,
    probe_from: ProbePlace | None = None,
) -> RolloutManager:
    """What rolls a service out from here: with probes, every source of metrics, hooks, and whoever is to be told."""
    from osvdeploy.rollout.manager import RolloutManager
    from osvdeploy.rollout.model import Until

    return RolloutManager(
        ledger,
        place,
        prober(),
        take_over=take_over,
        until=until or Until.ASKED,
        metrics=metrics(place),
        hooks=hooks(),
        notifier=notifier(place),
        exactly=exactly,
        probe_from=probe_from,
    )


def head(ctx: Context, service: Service) -> Head:
    head = open_ledger(service).head(ctx)
    if head is None:
        raise never_deployed(service)
    return head


def never_deployed(service: Service) -> UsageError:
    """What is said of a service that its ledger has nothing of; of a directory that is not there, that too."""
    if is_missing(open_store(service.ledger)):
        return UsageError(
            f"{service.name}: was never deployed, or its ledger is away: there is no directory {service.ledger}",
            hint=f"{IF_MISSING}; `osvdeploy rollback {service.name} --from-cloud` goes back without it",
        )
    return UsageError(
        f"{service.name}: was never deployed, as far as the ledger {service.ledger} knows",
        hint="name the right ledger with --ledger, or deploy the service first",
    )


IF_MISSING = "mount it or move it back, or name the right ledger with --ledger or OSVDEPLOY_LEDGER"


def is_missing(store: ObjectStore) -> bool:
    """Whether a store is a directory that does not exist: it is yet to be made, or was moved or unmounted."""
    from osvdeploy.cloud.local.store import DirectoryStore

    return isinstance(store, DirectoryStore) and store.missing


def manager(
    ctx: Context,
    service: Service,
    head: Head,
    *,
    take_over: bool = False,
    known: Ground | None = None,
    until: Until | None = None,
    probe_from: ProbePlace | None = None,
) -> RolloutManager:
    if head.place is None:
        raise UsageError(f"{service.name}: was never deployed")
    place = head.place
    here = ground_again(ctx, known, place)
    return rollouts(open_ledger(service), here, take_over=take_over, until=until, probe_from=probe_from)
