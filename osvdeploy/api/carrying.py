"""The release of one environment, deployed in another: the same image, this environment's configuration, nothing built.

What has to be there is the spec, the ledger that knows the release, and in the cloud any image of it: no sources, no
kernel, no build.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from osvdeploy.api import wiring
from osvdeploy.api.declared import Service, environment_of, labels_of, settings_of
from osvdeploy.api.looking import judge, place_of, place_on_google, require_rules
from osvdeploy.api.planning import (
    Plan,
    Publishing,
    Wanted,
    basis_now,
    plan_of,
    publishing_calls,
    require_unchanged,
)
from osvdeploy.api.releasing import Deployed
from osvdeploy.api.services import refuse_in_use
from osvdeploy.cloud.interfaces import ReleaseId
from osvdeploy.context import Context
from osvdeploy.digests import Digest
from osvdeploy.errors import CloudError, ImageNameTaken, LedgerError, UsageError
from osvdeploy.events import Note, Warned

if TYPE_CHECKING:
    from osvdeploy.cloud.interfaces import ArchivePlace, Cloud, CloudImage, Ground, Tags
    from osvdeploy.publish.parents import Parent
    from osvdeploy.publish.publisher import Published
    from osvdeploy.rollout.ledger import Head
    from osvdeploy.rollout.model import Until
    from osvdeploy.rollout.planning import Basis, Prices
    from osvdeploy.rollout.releases import Release
    from osvdeploy.spec import LoadedSpec
    from osvdeploy.spec.model import PublishGcp


@dataclass(frozen=True, slots=True)
class Found:
    """A release that was looked for, the service that has deployed it, and that one's newest head. ``succeeded``: it
    came to serve there by a rollout that ended well, however long ago."""

    service: Service
    head: Head
    release: Release
    succeeded: bool

    @property
    def held(self) -> str:
        """Why it is refused there, "" where it is not."""
        return next((hold.why for hold in self.head.holds if hold.release == self.release.id), "")


def deploy_release(
    ctx: Context,
    loaded: LoadedSpec,
    environment: str | None,
    wanted: str,
    *,
    origin: str | None = None,
    forced: Collection[str] = (),
    take_over: bool = False,
    displace: bool = False,
    until: Until | None = None,
    planned: Basis | None = None,
) -> Deployed:
    """Roll out in one environment what another one of the spec has deployed. ``wanted`` is a release id or a version
    there, ``origin`` the environment, None for whichever knows it. Image and version are its, settings and variables
    this environment's. ``planned`` is what a plan was made on (:func:`plan_release`): only where all is as it was.
    Returns as :func:`~osvdeploy.api.deploy` does, and may be called again after any failure.

    Nothing is built. Where this environment's image of it is not there, one is made of any that is: on AWS by a disk of
    one block on top. Raises :class:`~osvdeploy.errors.UsageError` where no ledger knows it or no image of it is in this
    environment's place, :class:`~osvdeploy.errors.CheckFailed` for one that did not succeed there,
    :class:`~osvdeploy.errors.ImageDiffers` for an image that is not what was deployed, before anything is made.

    Promise: as that of :func:`~osvdeploy.api.deploy`; and what serves here is byte for byte the image that was proved
    there.
    """
    ground, found, release, labels, image = _sought(ctx, loaded, environment, wanted, origin, forced)
    ledger = wiring.open_ledger(Service(release.app, release.settings.environment, release.settings.ledger))
    manager = wiring.rollouts(ledger, ground, take_over=take_over, until=until)
    ledger.store.refuse_unwritable(ctx, ledger.service)
    if planned is not None:
        require_unchanged(planned, basis_now(ctx, ledger, ground, release, release.image, release.image))
    manager.preflight(ctx, release)
    if not displace:
        refuse_in_use(ctx, ledger, ground, release)
    published = _published(ctx, loaded, ground, found, release, labels, image)
    since = planned.head if planned is not None else None
    return Deployed(release, published, manager.deploy(ctx, release, since=since))


def plan_release(
    ctx: Context,
    loaded: LoadedSpec,
    environment: str | None,
    wanted: str,
    *,
    origin: str | None = None,
    forced: Collection[str] = (),
    prices: Prices | None = None,
    people: bool = True,
    take_over: bool = False,
    displace: bool = False,
) -> Plan:
    """What :func:`deploy_release` would do now. Arguments and errors are its, and those of
    :func:`~osvdeploy.api.planning.plan`. Changes nothing."""
    from osvdeploy.cloud.interfaces import Cloud

    ground, found, release, _, image = _sought(ctx, loaded, environment, wanted, origin, forced)
    google = loaded.spec.publish.gcp if ground.kind == "gcp" else None
    if image is not None:
        publishing = Publishing(None, image.id, 0, 0)
    elif isinstance(ground, Cloud):
        parent = _parent(ctx, loaded, ground, found, release)
        calls = publishing_calls(ctx, ground, None, release.id, 0, through=False)
        publishing = Publishing(parent.image.id, None, 1, ground.snapshots.block_size, calls=calls)
    else:
        publishing = _of_what_is_kept(ctx, loaded, found, release)
    return plan_of(
        ctx,
        ground,
        wiring.google_machines(google, release.settings.region) if google is not None else None,
        Wanted(release, release.image, release.image, publishing),
        prices=prices,
        people=people,
        take_over=take_over,
        displace=displace,
    )


def _sought(
    ctx: Context,
    loaded: LoadedSpec,
    environment: str | None,
    wanted: str,
    origin: str | None,
    forced: Collection[str],
) -> tuple[Ground, Found, Release, Tags, CloudImage | None]:
    """Where it is to go; what was found elsewhere, and what that is here, with its tags, and its image where it is
    there already."""
    require_rules(loaded, forced)
    name = environment_of(loaded, environment)
    found = find_elsewhere(ctx, loaded, name, wanted, origin)
    release, labels = _named(ctx, loaded, name, found)
    _tell(ctx, found, release, sorted(loaded.spec.deploy[name].env))
    ground = _ground(ctx, loaded, name)
    image = ground.images.find(ctx, release.id)
    if image is not None and image.digest != release.digest:
        raise ImageNameTaken(release.id, held=image.digest, ours=release.digest)
    _require(ctx, loaded, found, forced, reads=image is None)
    return ground, found, release, labels, image


def _named(ctx: Context, loaded: LoadedSpec, name: str, found: Found) -> tuple[Release, Tags]:
    """What a release of another environment is in this one, and the tags of its image."""
    from osvdeploy.cloud import tags
    from osvdeploy.rollout.releases import Release

    there, here, settings = found.release, loaded.spec.deploy[name], settings_of(loaded, name)
    if there.adopted is not None:
        raise UsageError(
            f"{there.id}: is a group that {found.service.name} has adopted, and has no image of ours",
            hint="deploy a version that was built",
        )
    service = Service(loaded.spec.name, name, settings.ledger)
    labels = labels_of(
        service.app,
        there.version,
        there.image,
        here.env,
        service=tags.service_tags(service.app, service.name, service.ledger),
    )
    release = Release(
        id=ReleaseId(labels[tags.RELEASE]),
        app=service.app,
        version=there.version,
        image=there.image,
        configuration=Digest(labels[tags.CONFIGURATION]),
        digest=Digest(labels[tags.DIGEST]),
        created=ctx.now(),
        by=f"{ctx.process.user}@{ctx.process.host}",
        settings=settings,
        first_block=there.first_block,
        origin=found.service.name,
    )
    return release, labels


def find_elsewhere(ctx: Context, loaded: LoadedSpec, name: str, wanted: str, origin: str | None = None) -> Found:
    """The release with that id or version in another environment of the spec; of several that have it, one where it
    succeeded. Raises UsageError for none, and for a version that is not one image."""
    services = _services(loaded, name, origin)
    known: list[Found] = []
    untold: list[str] = []
    for service in services:
        ledger = wiring.open_ledger(service)
        try:
            head = ledger.head(ctx)
            releases = ledger.releases(ctx) if head is not None else []
            # The newest first: a version that was deployed with several configurations is one image all the same.
            found = [
                Found(service, head, each, ledger.has_served(ctx, head, each.id))
                for each in reversed(releases)
                if head is not None and wanted in (each.id, each.version)
            ]
        except (CloudError, LedgerError) as error:
            if len(services) == 1:
                raise
            ctx.report(Warned(f"{service.name}: its ledger cannot be read: {error.message}", hint=error.hint))
            untold.append(service.name)
            continue
        known += found
    if not known:
        places = ", ".join(f"{each.name} (ledger {each.ledger})" for each in services)
        raise UsageError(
            f"{loaded.spec.name}: no release {wanted!r} was ever deployed in {places}",
            hint=f"`osvdeploy history {services[0].name} --ledger {services[0].ledger}` lists those that were"
            + (f"; {', '.join(untold)} could not be asked" if untold else ""),
        )
    if len({each.release.image for each in known}) > 1:
        told = ", ".join(f"{each.release.id} in {each.service.name}" for each in known)
        raise UsageError(f"{wanted} is not one image everywhere: {told}", hint="name one with --release ID")
    return next((each for each in known if each.succeeded and not each.held), known[0])


def _services(loaded: LoadedSpec, name: str, origin: str | None) -> list[Service]:
    """The other environments of a spec that have a ledger, or the one that is named."""
    if origin is not None:
        environment_of(loaded, origin)
        if origin == name:
            raise UsageError(
                f"--from {origin} is the environment that is deployed to",
                hint="what it has deployed before is brought back by `osvdeploy rollback --to`",
            )
    services = [
        Service(loaded.spec.name, each, _ledger_at(loaded, declared.ledger))
        for each, declared in loaded.spec.deploy.items()
        if each != name and origin in (None, each) and declared.ledger is not None
    ]
    if not services:
        raise UsageError(
            f"{loaded.path}: no other environment than {name} has a ledger that could know a release"
            if origin is None
            else f"[deploy.{origin}] has no ledger, so that nothing was deployed there",
            hint="the release has to be deployed in another [deploy.NAME] of the spec first, such as staging",
        )
    return services


def _ledger_at(loaded: LoadedSpec, ledger: str) -> str:
    return ledger if "://" in ledger else str((loaded.base / Path(ledger).expanduser()).resolve())


def _tell(ctx: Context, found: Found, release: Release, variables: Collection[str]) -> None:
    own = f"its variables are {', '.join(variables)}" if variables else "it has no variables of its own"
    ctx.report(
        Note(
            f"{release.id} is the image of {found.release.id} in {found.service.name}, {release.image[:12]}; settings "
            f"are those of [deploy.{release.settings.environment}] here, {own}"
        )
    )


def _ground(ctx: Context, loaded: LoadedSpec, name: str) -> Ground:
    """The environment's place, once its machine type is known to be there."""
    wanted, google = loaded.spec.deploy[name], loaded.spec.publish.gcp
    settings = settings_of(loaded, name)
    if wanted.cloud != "gcp":
        cloud = wiring.connect(ctx, settings.cloud, settings.region)
        place_of(ctx, cloud, settings.machine_type)
        return cloud
    assert google is not None, "the model asks for it"
    place_on_google(ctx, wiring.google_machines(google, wanted.place), wanted.machine_type)
    return wiring.ground(ctx, wanted.cloud, google.project, settings.region, google.compute_endpoint)


def _require(ctx: Context, loaded: LoadedSpec, found: Found, forced: Collection[str], *, reads: bool) -> None:
    """Refuse what its own environment does not vouch for. Raises CheckFailed."""
    from osvdeploy.checks.origin import Origin, check_origin

    origin = Origin(
        service=found.service.name,
        release=found.release.id,
        succeeded=found.succeeded,
        held=found.held,
        recorded=found.release.first_block is not None,
    )
    judged = judge(loaded, list(check_origin(origin, reads=reads)), forced)
    judged.require()
    for finding, reason in judged.allowed:
        ctx.report(Note(f"allowed: {finding} ({reason})"))


def _published(
    ctx: Context,
    loaded: LoadedSpec,
    ground: Ground,
    found: Found,
    release: Release,
    labels: Tags,
    image: CloudImage | None,
) -> Published:
    from osvdeploy.cloud.interfaces import Cloud
    from osvdeploy.publish.publisher import Published

    if image is not None:
        ctx.report(Note(f"image {image.name} is there already: {image.id}"))
        return Published(image, image.disk, blocks=0, blocks_sent=0, reused=True)
    if isinstance(ground, Cloud):
        return _on_disk(ctx, loaded, ground, found, release, labels)
    return _of_archive(ctx, loaded, found, release, labels)


def _of_archive(ctx: Context, loaded: LoadedSpec, found: Found, release: Release, labels: Tags) -> Published:
    from osvdeploy.osv.cmdline import RELEASE_VARIABLE, BootCommand, with_environment
    from osvdeploy.publish.archiving import ReleaseOrder, publish_kept

    google = loaded.spec.publish.gcp
    assert google is not None, "the model asks for it"
    place, own = wiring.google_images(google), loaded.spec.deploy[release.settings.environment].env

    def order(boot: BootCommand) -> ReleaseOrder:
        # The rollout lets the family lead to what serves.
        return ReleaseOrder(
            release.id, release.digest, with_environment(boot, {**own, RELEASE_VARIABLE: release.id}), labels
        )

    made = publish_kept(
        ctx, release.image, order, app=release.app, tags=google.labels, place=place, first=release.first_block
    )
    if made is None:
        raise _not_kept(loaded, found, release, google, place)
    return made


def _of_what_is_kept(ctx: Context, loaded: LoadedSpec, found: Found, release: Release) -> Publishing:
    """What :func:`_of_archive` would have to do; raises what it would."""
    from osvdeploy.publish.archiving import is_kept

    google = loaded.spec.publish.gcp
    assert google is not None, "the model asks for it"
    place = wiring.google_images(google)
    if not is_kept(ctx, release.image, app=release.app, place=place, first=release.first_block):
        raise _not_kept(loaded, found, release, google, place)
    told = f"of the disk that is kept in {place.store.address}"
    return Publishing(None, None, None, None, told, {"images.insert": 1})


def _not_kept(
    loaded: LoadedSpec, found: Found, release: Release, google: PublishGcp, place: ArchivePlace
) -> UsageError:
    error = missing(loaded, found, release, f"gcp project {google.project}, nor its disk in {place.store.address}")
    error.hint = f"{error.hint}; with `keep-disk = true` under [publish.gcp] its disk stays there for later ones"
    return error


def _on_disk(ctx: Context, loaded: LoadedSpec, cloud: Cloud, found: Found, release: Release, labels: Tags) -> Published:
    from osvdeploy.cloud import tags
    from osvdeploy.osv.cmdline import RELEASE_VARIABLE, with_environment
    from osvdeploy.publish.journal import Journal
    from osvdeploy.publish.publisher import publish_release

    parent = _parent(ctx, loaded, cloud, found, release)
    own, aws = loaded.spec.deploy[release.settings.environment].env, loaded.spec.publish.aws
    return publish_release(
        ctx,
        parent.image,
        block0=parent.block0,
        boot=with_environment(parent.boot, {**own, RELEASE_VARIABLE: release.id}),
        release=release.id,
        digest=release.digest,
        tags={**(aws.tags if aws else tags.users_own(parent.image.tags)), **labels},
        cloud=cloud,
        journal=Journal.of_user(),
    )


def _parent(ctx: Context, loaded: LoadedSpec, cloud: Cloud, found: Found, release: Release) -> Parent:
    """The image that the release's is a block on top of."""
    from osvdeploy.publish.parents import parent_among

    parent = parent_among(ctx, _images(ctx, cloud, found.release), release.image, release.first_block, cloud.snapshots)
    if parent is None:
        raise missing(loaded, found, release, f"{cloud.kind} {cloud.region}, account {cloud.account}")
    return parent


def _images(ctx: Context, cloud: Cloud, release: Release) -> Iterator[CloudImage]:
    """Where to look for a release's image: the image app-version, then that of the release itself, then any of them."""
    from osvdeploy.cloud import tags

    seen: set[str] = set()
    for name in (f"{release.app}-{release.version}", release.id):
        found = cloud.images.find(ctx, name)
        if found is not None:
            seen.add(found.id)
            yield found
    for each in cloud.images.owned(ctx, {tags.APP: release.app, tags.IMAGE: release.image}):
        if each.ready and each.id not in seen:
            yield each


def missing(loaded: LoadedSpec, found: Found, release: Release, place: str) -> UsageError:
    """What is said where nothing in a place could be made into the release's image."""
    at = found.head.place
    serves = f"; {found.service.name} is in {at.cloud} {at.region}, account {at.account}" if at is not None else ""
    environment = release.settings.environment
    return UsageError(
        f"{release.id}: no image of {release.app} {release.version} ({release.image[:12]}) is in {place}{serves}",
        hint=f"`osvdeploy publish --env {environment}` where the sources of {release.version} are puts it there; then "
        "run this again: it needs no sources",
    )
