"""A live run as the suites' fixtures use it: accounts when they are first asked for, a share of them for each test."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

from osvdeploy.cloud.gcp.scope import area_of
from osvdeploy.cloud.interfaces import ArchivePlace
from osvdeploy.cloud.local.prober import HttpProber
from osvdeploy.context import Context
from osvdeploy.events import CloudCall, Event, Note
from tests.contract import aws_place, aws_scene, gcp_place, gcp_scene
from tests.contract.disks import Place
from tests.contract.registries import OfArchives, archive
from tests.contract.scenes import THEIRS, Guest, Scene
from tests.live import guests, settings
from tests.live.aws import AwsAccount
from tests.live.gcp import GcpAccount
from tests.live.run import HurriedClock, Label, Run
from tests.live.scoped import ScopedImages, scoped
from tests.live.settings import Account
from tests.live.sweeping import sweep

PATIENCE = 2.0
"""Times as long as a suite waits in virtual time: what takes seconds in the simulation may take minutes."""

SOONEST = 2.0
"""Seconds from now, for what is to happen later: times are told in whole ones, and none that is over is taken."""

BETWEEN_LOOKS = 5.0
"""Seconds. Looking each second, as in virtual time, would meet the account's throttle."""


@dataclass(slots=True)
class Changes:
    """Counts calls that change something, by listening to events."""

    seen: int = 0

    def __call__(self, event: Event) -> None:
        self.seen += isinstance(event, CloudCall) and event.mutating
        told(event)


def told(event: Event) -> None:
    """What is made and taken away is told with the test that fails, and by ``pytest -s``."""
    if isinstance(event, Note):
        print(event.text)


class Session:
    """One live run. ``folder`` is for images on their way."""

    def __init__(self, folder: Path) -> None:
        self.run = Run.begin(datetime.now(UTC))
        self.ctx = Context(clock=HurriedClock(settings.speed()), reporter=told)
        self._folder = folder
        self._numbers = itertools.count(1)

    # ------------------------------------------------------------------------------------------------------ accounts

    @cached_property
    def aws(self) -> AwsAccount:
        return AwsAccount(self.ctx, self.run)

    @cached_property
    def gcp(self) -> GcpAccount:
        return GcpAccount(self.ctx, self.run)

    def account(self, account: Account) -> AwsAccount | GcpAccount:
        """Raises :class:`~osvdeploy.errors.CredentialsMissing`."""
        return self.aws if account is Account.AWS else self.gcp

    @contextmanager
    def test(self, account: Account) -> Iterator[Label]:
        """One test's label; what carries it is taken away at the end, however that comes."""
        used = self.account(account)
        label = self.run.label(next(self._numbers))
        try:
            yield label
        finally:
            try:
                if isinstance(used, GcpAccount):
                    used.clear(self.ctx)
            finally:
                sweep(self.ctx, used.kinds, lambda found: found == label.value)

    def close(self) -> None:
        """Take away what is left of the run: what all tests shared, and what a test's own end did not find."""
        faults: list[Exception] = []
        for account in Account:
            if account in self.__dict__:
                try:
                    sweep(self.ctx, self.account(account).kinds, lambda found: Run.of(found) == self.run)
                except Exception as error:
                    faults.append(error)
        if faults:
            raise ExceptionGroup(f"the live run {self.run.identity} left something behind", faults)

    # -------------------------------------------------------------------------------------------------------- places

    def aws_place(self, label: Label) -> Place:
        cloud = scoped(self.aws.cloud, label)

        def put_foreign(name: str) -> str:
            return aws_place.put_foreign(self.ctx, self.aws.aws, label.named(name), label.tags)

        def read(disk: str) -> dict[int, bytes]:
            return aws_place.read(self.ctx, self.aws.aws, disk)

        return Place(self.ctx, cloud.snapshots, cloud.images, read, put_foreign)

    def gcp_archives(self, label: Label) -> OfArchives:
        images, store = ScopedImages(self.gcp.images, label), self.gcp.store(label)

        def put_foreign(name: str) -> str:
            called = label.named(name.replace(".", "-"))
            gcp_place.put_foreign(self.ctx, self.gcp.gcp, store, called, archive(), label.tags)
            return f"projects/{self.gcp.gcp.project}/global/images/{called}"

        return OfArchives(self.ctx, images, store, put_foreign, patience=300.0)

    def aws_scene(self, label: Label) -> Scene:
        account, changes = self.aws, Changes()
        ctx = self.ctx.reporting_to(changes)
        cloud, network = scoped(account.cloud, label), account.network

        def plant_rule(priority: int) -> None:
            aws_scene.plant_rule(account.aws, network["LISTENER"], priority, label.tags)

        def plant_group(name: str) -> str:
            image = self._aws_guests.image(THEIRS, Guest.SERVES)
            subnet = network["SUBNET_A"]
            return aws_scene.plant_group(account.aws, label.named(name), image, subnet, label.tags)

        def scale(name: str, minimum: int, maximum: int) -> None:
            asg, listener = account.aws.autoscaling, network["LISTENER"]
            aws_scene.scale_group(asg, label.named(name), minimum, maximum, listener)

        def unload(name: str) -> None:
            # Scheduled actions go by the time of day, which the sandbox that stands in for an account does not hurry.
            at = ctx.now() + timedelta(seconds=max(60 / settings.speed(), SOONEST))
            aws_scene.unload_group(account.aws.autoscaling, label.named(name), at)

        return Scene(
            ctx=ctx,
            cloud=cloud,
            prober=HttpProber(),
            listener=network["LISTENER"],
            networks=(network["SUBNET_A"], network["SUBNET_B"]),
            firewalls=(network["SECURITY_GROUP"],),
            machine_type=account.machine_type,
            image=self._aws_guests.image,
            plant_rule=plant_rule,
            plant_group=plant_group,
            scale=scale,
            unload=unload,
            mutations=lambda: changes.seen,
            on_change=_nothing_is_struck,
            while_booting=frozenset({"unhealthy"}),
            patience=PATIENCE,
            pause=BETWEEN_LOOKS,
        )

    def gcp_scene(self, label: Label) -> Scene:
        account, changes = self.gcp, Changes()
        ctx = self.ctx.reporting_to(changes)
        ground, network = scoped(account.ground, label), account.network

        def plant_rule(priority: int) -> None:
            gcp_scene.plant_rule(ctx, account.gcp, account.url_map, priority)

        def plant_group(name: str) -> str:
            image = self._gcp_guests.image(THEIRS, Guest.SERVES)
            return gcp_scene.plant_group(ctx, account.gcp, account.zone, label.named(name), image, label.tags)

        area = area_of(account.zone)

        def scale(name: str, minimum: int, maximum: int) -> None:
            gcp_scene.scale_group(ctx, account.gcp, area, label.named(name), minimum, maximum, label.tags)

        def unload(name: str) -> None:
            gcp_scene.unload_group(ctx, account.gcp, area, label.named(name))

        return Scene(
            ctx=ctx,
            cloud=ground,
            prober=HttpProber(),
            listener=account.url_map,
            networks=(),
            firewalls=(network["NETWORK_TAG"],),
            machine_type=account.machine_type,
            image=self._gcp_guests.image,
            plant_rule=plant_rule,
            plant_group=plant_group,
            scale=scale,
            unload=unload,
            mutations=lambda: changes.seen,
            on_change=_nothing_is_struck,
            keeps_dead=False,
            unchecked="unhealthy",
            patience=PATIENCE,
            pause=BETWEEN_LOOKS,
        )

    @cached_property
    def _aws_guests(self) -> guests.Guests:
        cloud = scoped(self.aws.cloud, self.run.shared)
        publish = guests.by_blocks(self.ctx, cloud, self._folder / "state")
        return guests.Guests(self._folder / "aws", settings.kernel(), publish)

    @cached_property
    def _gcp_guests(self) -> guests.Guests:
        label, gcp = self.run.shared, self.gcp.gcp
        images = ScopedImages(self.gcp.images, label)
        place = ArchivePlace("gcp", gcp.project, "global", images, images, self.gcp.store(label))
        return guests.Guests(self._folder / "gcp", settings.kernel(), guests.by_archive(self.ctx, place))


def _nothing_is_struck(hook: Callable[[str, bool], None] | None) -> None:
    raise AssertionError("calls to an account cannot be struck")
