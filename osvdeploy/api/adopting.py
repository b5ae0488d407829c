"""A group that somebody else made, and that has the traffic already, becomes a release of a service."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from osvdeploy.api import wiring
from osvdeploy.api.declared import Service, environment_of, settings_of
from osvdeploy.context import Context
from osvdeploy.errors import UsageError
from osvdeploy.events import Note

if TYPE_CHECKING:
    from osvdeploy.cloud.interfaces import Ground
    from osvdeploy.rollout.ends import Rollout
    from osvdeploy.rollout.model import Until
    from osvdeploy.rollout.releases import Release, Settings
    from osvdeploy.spec import LoadedSpec

VERSION = "adopted"
"""What an adopted release's version is, where nobody says another one."""


@dataclass(frozen=True, slots=True)
class Adoption:
    """The release that a group has become, what sent it its traffic before (and would again), and how it went.
    ``rollout`` is None where it was only looked."""

    release: Release
    led_by: str
    rollout: Rollout | None


def adopt(
    ctx: Context,
    loaded: LoadedSpec,
    environment: str | None,
    group: str,
    *,
    own: bool = False,
    version: str = VERSION,
    dry_run: bool = False,
    until: Until | None = None,
) -> Adoption:
    """Make an Auto Scaling group, or a managed instance group on Google, a release of an environment's service.

    It is put behind the slot's backend beside those of theirs, proved there, and has the same traffic by the service's
    own rule from then on: no request is lost. It is never deleted by us, unless it is our ``own`` from now on. Raises
    :class:`~osvdeploy.errors.UsageError` for what cannot be adopted, before anything is changed; with ``dry_run``
    nothing is.

    Promise: their traffic is never without them: until the new rule is proved their own stays, and whatever ends the
    call early leaves a run that the same call goes on with, or :func:`ask` to abort gives back.
    """
    name = environment_of(loaded, environment)
    settings, wanted = settings_of(loaded, name), loaded.spec.deploy[name]
    if wanted.cloud == "gcp":
        assert loaded.spec.publish.gcp is not None, "the model asks for it"
        google = loaded.spec.publish.gcp
        ground = wiring.ground(ctx, wanted.cloud, google.project, settings.region, google.compute_endpoint)
        if own:
            raise UsageError(
                f"{group}: on Google a group is not deleted while a backend service of theirs has it",
                hint="leave --own out, and delete it by hand once nothing needs it",
            )
    else:
        ground = wiring.connect(ctx, settings.cloud, settings.region)
    service = Service(loaded.spec.name, name, settings.ledger)
    ledger = wiring.open_ledger(service)
    manager = wiring.rollouts(ledger, ground, until=until)
    release = release_of_group(ctx, ground, service, settings, group, own=own, version=version)
    assert release.adopted is not None
    head = ledger.head(ctx)
    if head is not None and head.stable is not None and head.stable.group == group:
        known = ledger.release(ctx, head.stable.release)
        release = known if known is not None and known.adopted is not None else release
        led_by = release.adopted.led_by if release.adopted is not None else ""
    elif head is not None and head.unfinished is not None and head.unfinished.group == group:
        # Gone on with as it was begun, whatever the group's template says by now.
        release = ledger.release(ctx, head.unfinished.candidate) or release
        led_by = release.adopted.led_by if release.adopted is not None else ""
    else:
        led_by = manager.refuse_unadoptable(ctx, release)
        ctx.report(Note(f"{group} is sent its traffic by {led_by}, which stays as it is"))
    assert release.adopted is not None
    release = replace(release, adopted=replace(release.adopted, led_by=led_by))
    if dry_run:
        return Adoption(release, led_by, None)
    ledger.store.refuse_unwritable(ctx, ledger.service)
    return Adoption(release, led_by, manager.adopt(ctx, release))


def release_of_group(
    ctx: Context,
    ground: Ground,
    service: Service,
    settings: Settings,
    group: str,
    *,
    own: bool = False,
    version: str = VERSION,
) -> Release:
    """The release that a group would become. Raises UsageError where there is no such group, or nothing tells what its
    machines are started from."""
    from osvdeploy.rollout.releases import Adopted, adopted_release

    shape = ground.groups.shape(ctx, group)
    if shape is None:
        raise UsageError(
            f"{group}: {ground.kind} {ground.region} has no group of that name that starts machines by a template",
            hint="name an Auto Scaling group with a launch template, or a managed instance group",
        )
    # Its program knows nothing of our releases; a balancer that names them does so for it, too.
    header = None
    if ground.kind == "gcp":
        from osvdeploy.cloud.gcp.urlmap import RELEASE_HEADER

        header = RELEASE_HEADER
    return adopted_release(
        service.app,
        version,
        Adopted(group, shape.image, "", own),
        replace(settings, machine_type=shape.machine_type, health=replace(settings.health, version_header=header)),
        created=ctx.now(),
        by=f"{ctx.process.user}@{ctx.process.host}",
    )
