"""A release whose image is in the cloud, brought into service: the end of every deploy, and all of one that builds
nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from osvdeploy.api import wiring
from osvdeploy.api.declared import Service
from osvdeploy.context import Context
from osvdeploy.errors import UsageError

if TYPE_CHECKING:
    from osvdeploy.cloud.interfaces import Ground
    from osvdeploy.rollout.ends import Rollout
    from osvdeploy.rollout.model import Until
    from osvdeploy.rollout.releases import Release, Settings


@dataclass(frozen=True, slots=True)
class RolledOut:
    """The release that was rolled out, and how that ended."""

    release: Release
    rollout: Rollout


def roll_out(
    ctx: Context,
    settings: Settings,
    image_id: str,
    *,
    account: str = "",
    forced: bool = False,
    ground: Ground | None = None,
    take_over: bool = False,
    until: Until | None = None,
    exactly: bool = False,
) -> RolledOut:
    """Bring the release of an image that is registered into service, under these settings. ``account`` is asked for on
    Google alone: the project. ``forced``: also where a hold refuses that very release. ``ground`` is the place, where
    it is connected already. ``take_over``: outrank what a later lease than the ledger knows of has left in the cloud.
    Returns when the rollout has ended, well or not, or waits for a person: look at ``rollout.outcome``. ``until`` says
    otherwise. ``exactly``: where the release serves already, machines that somebody has added are taken away.

    Raises :class:`~osvdeploy.errors.UsageError` for an image that is not there or no release's, and what
    :meth:`~osvdeploy.rollout.manager.RolloutManager.deploy` does, before anything is changed.

    Promise: as for :func:`~osvdeploy.api.deploy`.
    """
    if settings.cloud == "gcp" and ground is None and not account:
        raise UsageError(f"{image_id}: Google's images are a project's, and none is named", hint="give `account`")
    ground = ground or wiring.ground(ctx, settings.cloud, account, settings.region)
    release = release_in(ctx, ground, settings, image_id)
    ledger = wiring.open_ledger(Service(release.app, settings.environment, settings.ledger))
    manager = wiring.rollouts(ledger, ground, take_over=take_over, until=until, exactly=exactly)
    ledger.store.refuse_unwritable(ctx, ledger.service)
    manager.preflight(ctx, release, forced=forced)
    return RolledOut(release, manager.deploy(ctx, release, forced=forced))


def release_in(ctx: Context, ground: Ground, settings: Settings, image_id: str) -> Release:
    """The release that :func:`roll_out` would bring into service. Raises UsageError as it does; changes nothing."""
    from osvdeploy.rollout.releases import release_of

    image = ground.images.get(ctx, image_id)
    if image is None:
        raise UsageError(
            f"{image_id}: there is no such image in {ground.kind} {ground.region}", hint="publish it there first"
        )
    by = f"{ctx.process.user}@{ctx.process.host}"
    return release_of(image, settings, created=image.created or ctx.now(), by=by)
