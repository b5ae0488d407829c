"""A service whose ledger can be taken away, as a user of the cloud's tags alone has it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from osvdeploy.api import from_cloud
from osvdeploy.api.from_cloud import WentBack, Whereabouts, WrittenAnew
from osvdeploy.cloud.interfaces import ProbeRequest, Slot
from osvdeploy.cloud.memory import Call, MemoryStore, Moment
from osvdeploy.context import Context
from osvdeploy.errors import Unavailable
from osvdeploy.rollout.model import Stage
from osvdeploy.rollout.releases import Settings
from tests.rollout.service import Service


class Died(BaseException):
    """The process is killed."""


class Unledgered(Service):
    """hello/production, whose ledger can be taken away."""

    lost: bool = False

    def where(self, settings: Settings | None = None) -> Whereabouts:
        return Whereabouts("hello", "production", "memory", "nowhere-1", settings=settings)

    def back(self, to: str | None = None, settings: Settings | None = None) -> WentBack:
        """``osvdeploy rollback hello/production --from-cloud``."""
        cloud = self.cloud.cloud
        return from_cloud.go_back(self.context(), self.where(settings), cloud, self.cloud.prober, to=to)

    def written(self, settings: Settings | None = None) -> WrittenAnew:
        """``osvdeploy adopt hello/production --from-cloud``."""
        return from_cloud.write_anew(self.context(), self.where(settings), self.cloud.cloud, self.cloud.prober)

    def serves(self, version: str) -> None:
        assert self.cloud.serving == {self.id(version)}

    def weights(self) -> dict[Slot, int]:
        place = self.head.place
        assert place is not None
        return dict(self.cloud.cloud.router.observe(self.context(), place.route).weights or {})


class Gone(MemoryStore):
    """A store that does not answer."""

    def keys(self, ctx: Context, prefix: str, limit: int | None = None) -> Iterator[str]:
        raise Unavailable("no answer")


def asked(service: Unledgered) -> list[str]:
    """What clients get around each change from now on, as far as it is no good answer."""
    bad: list[str] = []
    listener = service.cloud.world.listeners["listener-1"]

    def hook(call: Call, moment: Moment) -> None:
        if call.mutating and not call.operation.startswith("store."):
            for address in listener.addresses:
                request = ProbeRequest(f"http://{listener.host}:{listener.port}/", {}, 1.0, address)
                answer = service.cloud.prober.probe(service.context(), request)
                if answer.status != 200:
                    bad.append(f"{answer.status} {moment} {call}")

    service.cloud.on_call(hook)
    return bad


def dies_entering(service: Unledgered, stage: Stage, version: str = "1.2.0") -> None:
    """A deploy that dies right after it wrote down that it enters a stage."""

    def hook(call: Call, moment: Moment) -> None:
        head = service.ledger.head(service.context()) if call.operation == "store.put" else None
        run = head.unfinished if head is not None else None
        if moment is Moment.AFTER and run is not None and run.stage is stage and run.candidate == service.id(version):
            service.cloud.on_call(None)
            raise Died

    service.cloud.on_call(hook)
    with pytest.raises(Died):
        service.deploy(version)
