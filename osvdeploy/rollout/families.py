"""Image families follow what serves: whoever starts machines by a family gets the release that has the traffic.

What is to be done is in the head, written in the same document as the end of the rollout that made it necessary. So it
is done once traffic is where it belongs, ends no rollout, and is gone on with by the next command where it failed.
"""

from __future__ import annotations

from osvdeploy.cloud import tags
from osvdeploy.cloud.interfaces import CloudImage, Ground, ImageFamilies
from osvdeploy.context import Context
from osvdeploy.errors import CloudError, NotFound
from osvdeploy.events import Note, Warned
from osvdeploy.rollout.ledger import HeldLedger


def follow(ctx: Context, cloud: Ground, held: HeldLedger) -> None:
    """Do what the head says is due. What the cloud refuses is a warning: traffic does not go by families."""
    head = held.head
    if cloud.families is None or not (head.family_due or head.given_up):
        return
    try:
        _follow(ctx, cloud, cloud.families, held)
    except CloudError as error:
        ctx.report(
            Warned(
                f"{head.service}: image families could not follow the traffic: {error}",
                hint="`osvdeploy gc`, or the next deploy or rollback, does it again",
            )
        )
        return
    held.save(ctx, "image families follow what serves", family_due=False, given_up=())


def _follow(ctx: Context, cloud: Ground, families: ImageFamilies, held: HeldLedger) -> None:
    head, ledger = held.head, held.ledger
    serving = cloud.images.find(ctx, head.stable.release) if head.stable is not None else None
    release = ledger.release(ctx, head.stable.release) if head.stable is not None else None
    withdrawn: set[str] = set()
    if serving is not None and head.family_due and release is not None and release.settings.family is not None:
        # First: a family that leads to nothing starts no machine.
        with held.acting(ctx) as acting:
            families.restore(acting, serving)
        with held.acting(ctx) as acting:
            families.offer(acting, serving, release.settings.family)
        for ahead in families.members(ctx, release.settings.family):
            if ahead.id == serving.id:
                break
            if ahead.tags.get(tags.APP) == ledger.app:
                _withdraw(ctx, families, ahead, serving, held)
                withdrawn.add(ahead.name)
    for name in head.given_up:
        if name in withdrawn:
            continue  # what a rollback leaves is ahead in the family too
        image = cloud.images.find(ctx, name)
        if image is not None and (serving is None or image.id != serving.id):
            _withdraw(ctx, families, image, serving, held)


def _withdraw(
    ctx: Context, families: ImageFamilies, image: CloudImage, instead: CloudImage | None, held: HeldLedger
) -> None:
    ctx.report(Note(f"no image family leads to {image.name} any more"))
    try:
        with held.acting(ctx) as acting:
            families.withdraw(acting, image, instead)
    except NotFound:
        pass  # it has gone since
