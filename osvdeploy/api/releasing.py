"""The way of an image to live traffic: publish, deploy."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from osvdeploy.api import wiring
from osvdeploy.api.building import sound_build
from osvdeploy.api.declared import Service, environment_of, family_of, release_named, release_tags, settings_of
from osvdeploy.api.looking import place_of, place_on_google, require_rules
from osvdeploy.api.planning import basis_now, require_unchanged
from osvdeploy.api.release_images import AppImage, ReleaseOn, keep_published, of_archives, on_disk, on_disks
from osvdeploy.api.services import refuse_in_use
from osvdeploy.build.uses import in_use
from osvdeploy.context import Context
from osvdeploy.errors import UsageError

if TYPE_CHECKING:
    from osvdeploy.build.builder import BuildResult
    from osvdeploy.cloud.interfaces import Cloud
    from osvdeploy.publish.publisher import Published
    from osvdeploy.rollout.ends import Rollout
    from osvdeploy.rollout.model import Until
    from osvdeploy.rollout.planning import Basis
    from osvdeploy.rollout.releases import Release
    from osvdeploy.spec import LoadedSpec
    from osvdeploy.spec.model import DeployGcp


@dataclass(frozen=True, slots=True)
class PublishedImage:
    """A build and the image that was made of it. ``release`` is the image of an environment's own, on Google, where it
    has variables of its own."""

    build: BuildResult
    published: Published
    cloud: str
    region: str
    account: str
    release: Published | None = None


@in_use()
def publish(
    ctx: Context, loaded: LoadedSpec, environment: str | None = None, *, forced: Collection[str] = ()
) -> PublishedImage:
    """Build if needed, and make the image ``app-version`` in the cloud and region of an environment; on Google, also
    that of the environment's own variables.

    First the cloud is asked what the environment's machine type is, and the rules what would fail there; ``forced`` are
    rules to override. Raises :class:`~osvdeploy.errors.CheckFailed`.

    Promise: an image is there whole, under its name, or not at all. Ended early, the same call sends only what is
    missing.
    """
    require_rules(loaded, forced)
    _refuse_unpublishable(loaded)
    name = environment_of(loaded, environment)
    wanted = loaded.spec.deploy[name]
    if wanted.cloud == "gcp":
        loaded.require(name)
        return _publish_on_google(ctx, loaded, name, wanted, forced)
    settings = settings_of(loaded, name)
    cloud = wiring.connect(ctx, settings.cloud, settings.region)
    built = sound_build(ctx, loaded, place_of(ctx, cloud, settings.machine_type), forced)
    image, bucket = _on_aws(loaded)
    published = on_disk(ctx, built.image, image, cloud, bucket)
    keep_published(ctx, published, cloud.images)
    return PublishedImage(built, published, cloud.kind, cloud.region, cloud.account)


def _refuse_unpublishable(loaded: LoadedSpec) -> None:
    if loaded.spec.image.fs == "virtiofs":
        raise UsageError(
            f"{loaded.path}: image.fs = virtiofs: its files are on the machine's host, and no cloud gives that",
            hint='publish another file system: fs = "rofs"',
        )


def _app_image(loaded: LoadedSpec, tags: Mapping[str, str]) -> AppImage:
    return AppImage(loaded.spec.name, loaded.spec.version, dict(tags))


def _on_aws(loaded: LoadedSpec) -> tuple[AppImage, str | None]:
    """The image, and the bucket that its disk passes through."""
    aws = loaded.spec.publish.aws
    return _app_image(loaded, aws.tags if aws else {}), aws.bucket if aws else None


def _publish_on_google(
    ctx: Context, loaded: LoadedSpec, name: str, wanted: DeployGcp, forced: Collection[str]
) -> PublishedImage:
    built = _build_for_google(ctx, loaded, wanted, forced)
    release = release_tags(loaded, name, built.image.digest, "") if wanted.env else None
    image, published = _archived(ctx, loaded, name, built, release)
    settings = loaded.spec.publish.gcp
    assert settings is not None, "the model asks for it"
    keep_published(ctx, image, wiring.google_images(settings).images)
    region = settings.storage_location or "global"
    return PublishedImage(built, image, wanted.cloud, region, settings.project, published)


def _build_for_google(ctx: Context, loaded: LoadedSpec, wanted: DeployGcp, forced: Collection[str]) -> BuildResult:
    settings = loaded.spec.publish.gcp
    assert settings is not None, "the model asks for it"
    machines = wiring.google_machines(settings, wanted.place)
    return sound_build(ctx, loaded, place_on_google(ctx, machines, wanted.machine_type), forced)


def _archived(
    ctx: Context, loaded: LoadedSpec, name: str, built: BuildResult, labels: Mapping[str, str] | None
) -> tuple[Published, Published | None]:
    """The image, and that of a release told by its tags, made of archives."""
    spec, settings = loaded.spec, loaded.spec.publish.gcp
    assert settings is not None, "the model asks for it"
    wanted = spec.deploy[name]
    return of_archives(
        ctx,
        built.image,
        _app_image(loaded, settings.labels),
        None if labels is None else ReleaseOn(wanted.env, labels),
        wiring.google_images(settings),
        family=settings.family,
        keep=settings.keep_disk,
        # Of what is rolled out, the rollout lets the family lead to what serves.
        release_family=None if wanted.cloud == "gcp" and wanted.rolled_out else family_of(loaded, name),
    )


@dataclass(frozen=True, slots=True)
class Deployed:
    """A deploy from spec to traffic: the image published, the release made of it, and how it was rolled out."""

    release: Release
    published: Published
    rollout: Rollout


@in_use()
def deploy(
    ctx: Context,
    loaded: LoadedSpec,
    environment: str | None = None,
    *,
    forced: Collection[str] = (),
    take_over: bool = False,
    displace: bool = False,
    until: Until | None = None,
    planned: Basis | None = None,
) -> Deployed:
    """Build and publish if needed, then roll out. Returns when the rollout has ended, well or not, or waits for a
    person: look at ``rollout.outcome``. ``until`` says otherwise.

    What would be refused later is looked for first: a machine type that the cloud does not have, an image that would
    not boot on it, a ledger that cannot be written, a lease that is held, a rule that is not ours, a held release.
    A first deploy is refused where machines of somebody else's have just the requests that it would take;
    ``displace``: they are to lose them. ``forced`` are rules of the checks to override. ``take_over``: outrank what a
    later lease than the ledger knows of has left in the cloud. ``planned`` is what a plan was made on
    (:func:`~osvdeploy.api.planning.load_plan`): only where all of it is as it was. Raises
    :class:`~osvdeploy.errors.CheckFailed`, :class:`~osvdeploy.errors.PlanOutdated`.

    Promise: traffic is on the new release, proved, or on what served before. Whatever ends the call early, a cancel, a
    deadline, the process's death, leaves a run in the ledger that the same call, or :func:`recover`, goes on with.
    """
    from osvdeploy.osv.disk import FIRST_BLOCK, first_block

    require_rules(loaded, forced)
    _refuse_unpublishable(loaded)
    name = environment_of(loaded, environment)
    settings = settings_of(loaded, name)
    spec, wanted = loaded.spec, loaded.spec.deploy[name]
    service = Service(spec.name, name, settings.ledger)
    cloud: Cloud | None = None
    if wanted.cloud == "gcp":
        assert spec.publish.gcp is not None, "the model asks for it"
        google = spec.publish.gcp
        ground = wiring.ground(ctx, wanted.cloud, google.project, settings.region, google.compute_endpoint)
        built = _build_for_google(ctx, loaded, wanted, forced)
    else:
        ground = cloud = wiring.connect(ctx, settings.cloud, settings.region)
        built = sound_build(ctx, loaded, place_of(ctx, cloud, settings.machine_type), forced)
    release, labels = release_named(ctx, loaded, settings, built.image.digest)
    with built.image.path.open("rb") as disk:
        release = replace(release, first_block=first_block(disk.read(FIRST_BLOCK)))
    ledger = wiring.open_ledger(service)
    manager = wiring.rollouts(ledger, ground, take_over=take_over, until=until)
    ledger.store.refuse_unwritable(ctx, ledger.service)
    if planned is not None:
        now = basis_now(ctx, ledger, ground, release, built.plan, built.image.digest)
        require_unchanged(planned, now)
    manager.preflight(ctx, release)
    if not displace:
        refuse_in_use(ctx, ledger, ground, release)
    if cloud is None:
        published, _ = _archived(ctx, loaded, name, built, labels)
    else:
        published = _on_disks(ctx, loaded, name, built, cloud, labels)
    since = planned.head if planned is not None else None
    return Deployed(release, published, manager.deploy(ctx, release, since=since))


def _on_disks(
    ctx: Context, loaded: LoadedSpec, name: str, built: BuildResult, cloud: Cloud, labels: Mapping[str, str]
) -> Published:
    """The image, and that of a release told by its tags, each on a disk of its own; the image is answered."""
    image, bucket = _on_aws(loaded)
    published, _ = on_disks(ctx, built.image, image, ReleaseOn(loaded.spec.deploy[name].env, labels), cloud, bucket)
    return published
