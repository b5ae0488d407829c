"""Carries the actions of a rollout out, on one place, under the ledger's lease."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import assert_never

from osvdeploy.cloud import tags
from osvdeploy.cloud.interfaces import (
    AttachRequest,
    CloudImage,
    Ground,
    GroupRequest,
    Metrics,
    Prober,
    Route,
    RouteState,
    Slot,
)
from osvdeploy.context import Context
from osvdeploy.errors import CloudError, LedgerBehind, NotFound, Outranked, Refused, Unavailable, UsageError
from osvdeploy.events import Warned
from osvdeploy.retry import insisting, retrying
from osvdeploy.rollout.ledger import Head, HeldLedger, Ledger, Lent, Place
from osvdeploy.rollout.model import (
    Action,
    CallHook,
    GiveRouteBack,
    HandScalingOver,
    Kind,
    Limits,
    PauseScaling,
    RemoveGroup,
    ResumeScaling,
    Run,
    SetWeights,
    StartCandidate,
    UnmakeRoute,
    WireSlots,
)
from osvdeploy.rollout.observe import Observer
from osvdeploy.rollout.releases import Adopted, Release
from osvdeploy.rollout.scaling import let_go, take_away

NOTED_FOR = 10.0
"""Seconds for which it is tried to note what is left: traffic waits so long for it, and no longer."""

BEHIND = "name the service's own ledger; or, where no other is in use, run the same command with --take-over"


class Executor:
    """What changes a place for a service: each change is made while the lease holds, and by nobody who has lost it."""

    def __init__(
        self,
        ledger: Ledger,
        cloud: Ground,
        prober: Prober,
        limits: Limits,
        *,
        take_over: bool = False,
        metrics: Metrics | None = None,
        noting: bool = False,
    ) -> None:
        self.ledger = ledger
        self.cloud = cloud
        self.prober = prober
        self.limits = limits
        self.take_over = take_over
        self.metrics = metrics
        self.noting = noting
        """The ledger is none that lasts: what traffic is taken from is noted in the cloud."""

    def observer(self, route: Route) -> Observer:
        return Observer(self.cloud, self.prober, route, self.limits, self.metrics)

    def image(self, ctx: Context, release: Release) -> CloudImage:
        image = self.cloud.images.find(ctx, release.id)
        if image is None:
            raise UsageError(
                f"{release.id}: its image is not in {self.cloud.kind} {self.cloud.region} (any more)",
                hint="`osvdeploy history` lists the releases; deploy this version again from its spec",
            )
        if image.digest != release.digest:
            raise UsageError(
                f"{release.id}: image {image.id} has digest {image.digest[:12]}, the release {release.digest[:12]}",
                hint="somebody registered other bytes under this name; remove that image",
            )
        return image

    def place(self, route: Route, state: RouteState) -> Place:
        return Place(
            cloud=self.cloud.kind,
            account=self.cloud.account,
            region=self.cloud.region,
            route=route,
            base_url=state.base_url,
            rules=state.rules,
            backends=state.backends,
            endpoint=self.cloud.endpoint,
        )

    def perform(self, ctx: Context, held: HeldLedger, route: Route, run: Run, action: Action) -> None:
        """Make one change. Raises what the place refuses it with."""
        match action:
            case WireSlots():
                self.wire(ctx, held, route)
            case GiveRouteBack():
                self.outranking(ctx, held, route, lambda acting: self.cloud.router.give_back(acting, route))
            case UnmakeRoute():
                self.outranking(ctx, held, route, lambda acting: self.cloud.router.remove(acting, route))
            case StartCandidate():
                self.start(ctx, held, route, replace(run, capacity=max(run.capacity, run.grows)))
            case RemoveGroup(name):
                with held.acting(ctx) as acting:
                    take_away(acting, self.cloud.groups, held.head, name)
                let_go(ctx, held, name)
            case SetWeights(weights):
                if self.noting:
                    self._note_left(ctx, held, route, run, weights)
                self.set_weights(ctx, held, route, weights)
            case PauseScaling():
                assert run.stable_group is not None
                with held.acting(ctx) as acting:
                    self.cloud.groups.pause(acting, run.stable_group)
            case ResumeScaling():
                assert run.stable_group is not None and run.scaling is not None
                with held.acting(ctx) as acting:
                    self.cloud.groups.resume(acting, run.stable_group, run.scaling)
            case HandScalingOver():
                assert run.scaling is not None
                with held.acting(ctx) as acting:
                    self.cloud.groups.apply(acting, run.group, run.scaling)
            case CallHook():
                raise AssertionError("hooks are not asked by what changes the place")
            case _:
                assert_never(action)

    def wire(self, ctx: Context, held: HeldLedger, route: Route) -> None:
        """Make both backends and preview rules, where they are missing."""
        self.outranking(ctx, held, route, lambda acting: self.cloud.router.ensure_slots(acting, route))

    def set_weights(self, ctx: Context, held: HeldLedger, route: Route, weights: Mapping[Slot, int]) -> None:
        self.outranking(ctx, held, route, lambda acting: self.cloud.router.set_weights(acting, route, weights))

    def _note_left(self, ctx: Context, held: HeldLedger, route: Route, run: Run, weights: Mapping[Slot, int]) -> None:
        """Before the switch, so that whoever dies after it is not taken for somebody who has not gone back yet. Traffic
        does not wait for it: where it is refused, that is said."""
        back = run.stable if run.kind is Kind.ROLLBACK else None
        left = back if weights.get(run.slot, 0) > 0 else (None if run.kind is Kind.ROLLBACK else run.candidate)

        def note() -> None:
            self.outranking(ctx, held, route, lambda acting: self.cloud.router.note_left(acting, route, left))

        try:
            retrying(ctx, note, when=lambda error: isinstance(error, Unavailable), seconds=NOTED_FOR, first_wait=0.5)
        except CloudError as error:
            ctx.report(
                Warned(
                    f"{self.ledger.service}: that {left} is left cannot be noted in the cloud: {error}",
                    hint="run nothing of osvdeploy on this service before `osvdeploy adopt --from-cloud`, once its "
                    "ledger can be reached",
                )
            )

    def start(self, ctx: Context, held: HeldLedger, route: Route, run: Run) -> None:
        release = self.ledger.release(ctx, run.candidate)
        if release is None:
            raise Refused(f"{run.candidate}: its document is not in the ledger", hint="deploy it again from its spec")
        try:
            image = self.image(ctx, release) if release.adopted is None else None
        except UsageError as gone:
            # It was there when the rollout began. Said again by each command, it would leave a run that nothing ends.
            raise Refused(str(gone), hint=gone.hint) from gone
        state = self.cloud.router.observe(ctx, route)
        backend = state.backends.get(run.slot)
        if backend is None:
            raise NotFound(f"slot {run.slot} of {run.settings.environment} is not wired up")
        service = tags.service_tags(release.app, release.service, run.settings.ledger)
        labels = tags.release_tags(
            tags.slot_tags(service, run.slot),
            release=release.id,
            version=release.version,
            image=release.image,
            configuration=release.configuration,
            digest=release.digest,
        )
        if release.adopted is not None:
            self._attach(ctx, held, run, release.adopted, backend, labels)
            return
        assert image is not None
        wanted = GroupRequest(
            name=run.group,
            release=release.id,
            image=image.id,
            capacity=run.capacity,
            machine_type=run.settings.machine_type,
            networks=run.settings.networks,
            firewalls=run.settings.firewalls,
            backend=backend,
            tags=labels,
        )
        with held.acting(ctx) as acting:
            self.cloud.groups.ensure(acting, wanted)

    def _attach(
        self, ctx: Context, held: HeldLedger, run: Run, adopted: Adopted, backend: str, labels: Mapping[str, str]
    ) -> None:
        """Put somebody's group behind a slot's backend. Gone back to, it gets the capacity of today."""
        request = AttachRequest(
            name=adopted.group,
            release=run.candidate,
            backend=backend,
            tags=tags.adopted_tags(labels, backend, own=adopted.own),
            capacity=run.capacity if run.kind is Kind.ROLLBACK else 0,
        )
        self._note_scaling(ctx, held, request)
        with held.acting(ctx) as acting:
            self.cloud.groups.attach(acting, request)

    def _note_scaling(self, ctx: Context, held: HeldLedger, request: AttachRequest) -> None:
        """Before somebody's group is made larger: what scales it, which that may turn off. A rollback does not depend
        on it."""
        name, lent = request.name, held.head.lent.get(request.name)
        if request.capacity == 0 or (lent is not None and lent.grown):
            return
        try:
            there = self.cloud.groups.scaling(ctx, name)
        except Refused as error:
            told = f"cannot see what scales {name}, so it may stay turned off once the group is let go: {error}"
            ctx.report(Warned(told, hint=error.hint))
            return
        if there is None or there.fixed or there.desired >= request.capacity:
            return
        grown = Lent(there, grown=True) if lent is None else replace(lent, grown=True)
        held.save(ctx, f"{name} is made larger", lent={**held.head.lent, name: grown})

    def require(self, ctx: Context, release: Release) -> None:
        """Raise :class:`~osvdeploy.errors.UsageError` for a release that could not be brought into service: its image
        is gone, or the group that it was adopted as."""
        if release.adopted is None:
            self.image(ctx, release)
        elif self.cloud.groups.shape(ctx, release.adopted.group) is None:
            raise UsageError(
                f"{release.id}: was adopted as the group {release.adopted.group}, which is gone",
                hint="there is no image of ours to start it from: name another release with --to",
            )

    def fence(self, ctx: Context, held: HeldLedger, route: Route) -> None:
        """Let nobody who held the lease before change the route any more, where the place can tell."""
        fence = self.cloud.fence
        if fence is None:
            return
        if held.taken_over:
            # Whoever held it may be changing the route this very moment: then what is there is read once more.
            def take_over() -> None:
                self.outranking(ctx, held, route, lambda acting: fence.take_over(acting, route, held.head.epoch))

            insisting(ctx, take_over)
            held.taken_over = False
        else:
            fence.hold(route, held.head.epoch)

    def outranking(self, ctx: Context, held: HeldLedger, route: Route, change: Callable[[Context], None]) -> None:
        """Change a route, where the mark of a later lease on it may be one that nobody holds any more.

        A ledger gives out epochs in order, and ours is the newest lease in it. So a later one is another ledger's, or
        was given before this one was lost or put back. Where it is of this very ledger, whoever held it finds our head
        before its next step, and its mark is outranked. Raises :class:`~osvdeploy.errors.LedgerBehind` where that
        cannot be known, :class:`~osvdeploy.errors.LeaseLost` where another process has the lease now.
        """
        try:
            with held.acting(ctx) as acting:
                change(acting)
        except Outranked as outranked:
            held.confirm(ctx)
            fence, ours = self.cloud.fence, self.ledger.store.address
            same = outranked.ledger == ours == route.tags.get(tags.LEDGER)
            if fence is None or not (same or self.take_over):
                raise _behind(self.ledger, held.head, route, outranked) from outranked
            ctx.report(
                Warned(
                    f"{self.ledger.service}: {route.listener} bears the mark of lease {outranked.epoch}, and the "
                    f"ledger {ours} has come to {held.head.epoch} only: it was lost or put back",
                    hint=f"leases go on from {outranked.epoch + 1}",
                )
            )
            held.save(ctx, f"outrank lease {outranked.epoch}", epoch=outranked.epoch + 1)
            fence.hold(route, held.head.epoch)
            with held.acting(ctx) as acting:
                change(acting)


def _behind(ledger: Ledger, head: Head, route: Route, outranked: Outranked) -> LedgerBehind:
    theirs = f" of the ledger {outranked.ledger}" if outranked.ledger is not None else ""
    return LedgerBehind(
        f"{ledger.service}: {route.listener} was changed under lease {outranked.epoch}{theirs}, and this ledger, "
        f"{ledger.store.address}, has come to {head.epoch} only: it is not the one that the service is deployed with, "
        "or it was lost or put back",
        hint=BEHIND,
    )
