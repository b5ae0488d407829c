"""The way of an image to live traffic: publish, deploy."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from osvdeploy.api import wiring
from osvdeploy.api.building import sound_build
from osvdeploy.api.declared import Service, environment_of, settings_of
from osvdeploy.api.looking import place_of, place_on_google, require_rules
from osvdeploy.build.uses import in_use
from osvdeploy.context import Context
from osvdeploy.errors import UsageError

if TYPE_CHECKING:
    from osvdeploy.build.builder import BuildResult
    from osvdeploy.cloud.interfaces import Cloud
    from osvdeploy.publish.archiving import ReleaseOrder
    from osvdeploy.publish.publisher import Published
    from osvdeploy.rollout.manager import Rollout
    from osvdeploy.rollout.releases import Release
    from osvdeploy.spec import LoadedSpec
    from osvdeploy.spec.model import DeployGcp, PublishGcp


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
    return PublishedImage(built, _publish(ctx, loaded, built, cloud), cloud.kind, cloud.region, cloud.account)


def _refuse_unpublishable(loaded: LoadedSpec) -> None:
    if loaded.spec.image.fs == "virtiofs":
        raise UsageError(
            f"{loaded.path}: image.fs = virtiofs: its files are on the machine's host, and no cloud gives that",
            hint='publish another file system: fs = "rofs"',
        )


def _publish(ctx: Context, loaded: LoadedSpec, built: BuildResult, cloud: Cloud) -> Published:
    from osvdeploy.publish.journal import Journal
    from osvdeploy.publish.publisher import publish_image

    spec, aws = loaded.spec, loaded.spec.publish.aws
    return publish_image(
        ctx,
        built.image,
        app=spec.name,
        version=spec.version,
        tags=dict(aws.tags) if aws else {},
        cloud=cloud,
        journal=Journal.of_user(),
        through=wiring.through_store(cloud, aws.bucket if aws else None),
    )


def _publish_on_google(
    ctx: Context, loaded: LoadedSpec, name: str, wanted: DeployGcp, forced: Collection[str]
) -> PublishedImage:
    from osvdeploy.publish.archiving import publish_archived

    spec, settings = loaded.spec, loaded.spec.publish.gcp
    assert settings is not None, "the model asks for it"
    place, machines = wiring.google_images(settings), wiring.google_machines(settings, wanted.zone)
    built = sound_build(ctx, loaded, place_on_google(ctx, machines, wanted.machine_type), forced)
    image, release = publish_archived(
        ctx,
        built.image,
        app=spec.name,
        version=spec.version,
        tags=dict(settings.labels),
        place=place,
        family=settings.family,
        release=_order(loaded, name, wanted, settings, built) if wanted.env else None,
    )
    return PublishedImage(built, image, place.kind, place.region, place.account, release)


def _order(loaded: LoadedSpec, name: str, wanted: DeployGcp, settings: PublishGcp, built: BuildResult) -> ReleaseOrder:
    """The release that an environment's own variables make of an image."""
    from osvdeploy.cloud import tags
    from osvdeploy.osv.cmdline import RELEASE_VARIABLE, with_environment
    from osvdeploy.publish.archiving import ReleaseOrder
    from osvdeploy.rollout.releases import configuration_digest, release_digest, release_id

    spec = loaded.spec
    variables = tuple(wanted.env.items())
    configuration = configuration_digest(variables, ())
    digest = release_digest(built.image.digest, configuration)
    identity = release_id(spec.name, spec.version, digest)
    labels = tags.release_tags(
        # Without a ledger: nothing is rolled out there.
        tags.service_tags(spec.name, f"{spec.name}/{name}", ""),
        release=identity,
        version=spec.version,
        image=built.image.digest,
        configuration=configuration,
        digest=digest,
    )
    return ReleaseOrder(
        id=identity,
        digest=digest,
        boot=with_environment(built.image.boot, {**dict(variables), RELEASE_VARIABLE: identity}),
        tags={key: value for key, value in labels.items() if value},
        family=None if settings.family is None else f"{settings.family}-{name}",
    )


@dataclass(frozen=True, slots=True)
class Deployed:
    """A deploy from spec to traffic: the image published, the release made of it, and how it was rolled out."""

    release: Release
    published: Published
    rollout: Rollout


@in_use()
def deploy(
    ctx: Context, loaded: LoadedSpec, environment: str | None = None, *, forced: Collection[str] = ()
) -> Deployed:
    """Build and publish if needed, then roll out. Returns when the rollout has ended, well or not: look at
    ``rollout.outcome``.

    What would be refused later is looked for first: a machine type that the cloud does not have, an image that would
    not boot on it, a ledger that cannot be written, a lease that is held, a rule that is not ours, a held release.
    ``forced`` are rules of the checks to override. Raises :class:`~osvdeploy.errors.CheckFailed`.
    """
    from osvdeploy.cloud import tags
    from osvdeploy.osv.cmdline import RELEASE_VARIABLE, with_environment
    from osvdeploy.publish.blocks import first_block
    from osvdeploy.publish.journal import Journal
    from osvdeploy.publish.publisher import publish_release
    from osvdeploy.rollout.manager import RolloutManager
    from osvdeploy.rollout.releases import Release, configuration_digest, release_digest, release_id

    require_rules(loaded, forced)
    _refuse_unpublishable(loaded)
    name = environment_of(loaded, environment)
    settings = settings_of(loaded, name)
    spec = loaded.spec
    service = Service(spec.name, name, settings.ledger)
    cloud = wiring.connect(ctx, settings.cloud, settings.region)
    built = sound_build(ctx, loaded, place_of(ctx, cloud, settings.machine_type), forced)
    variables = tuple(spec.deploy[name].env.items())
    configuration = configuration_digest(variables, ())
    digest = release_digest(built.image.digest, configuration)
    release = Release(
        id=release_id(spec.name, spec.version, digest),
        app=spec.name,
        version=spec.version,
        image=built.image.digest,
        configuration=configuration,
        digest=digest,
        created=ctx.now(),
        by=f"{ctx.process.user}@{ctx.process.host}",
        settings=settings,
    )
    ledger = wiring.open_ledger(service)
    manager = RolloutManager(ledger, cloud, wiring.prober())
    ledger.store.refuse_unwritable(ctx, ledger.service)
    manager.preflight(ctx, release)
    published = _publish(ctx, loaded, built, cloud)
    boot = with_environment(built.image.boot, {**dict(variables), RELEASE_VARIABLE: release.id})
    labels = tags.release_tags(
        tags.service_tags(release.app, release.service, settings.ledger),
        release=release.id,
        version=release.version,
        image=release.image,
        configuration=release.configuration,
        digest=release.digest,
    )
    user_tags = dict(spec.publish.aws.tags) if spec.publish.aws else {}
    publish_release(
        ctx,
        published.image,
        block0=first_block(built.image, cloud.snapshots.block_size),
        boot=boot,
        release=release.id,
        digest=release.digest,
        tags={**user_tags, **labels},
        cloud=cloud,
        journal=Journal.of_user(),
    )
    return Deployed(release, published, manager.deploy(ctx, release))
