"""Image families follow what serves: after a deploy, after any way back, and later where that failed at first."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import replace

import pytest

from osvdeploy.cloud.interfaces import ImageRequest, UploadedDisk
from osvdeploy.cloud.tags import release_tags, service_tags
from osvdeploy.errors import Refused, Unavailable
from osvdeploy.events import Note, Warned
from osvdeploy.rollout import lease
from osvdeploy.rollout.ends import Rollout
from osvdeploy.rollout.families import follow
from osvdeploy.rollout.manager import RolloutManager
from osvdeploy.rollout.model import Outcome
from tests.rollout.service import Service

pytestmark = pytest.mark.whole

FAMILY = "hello-production"


class OfFamilies(Service):
    """The service where images are made of archives and a family leads to them."""

    def __init__(self) -> None:
        super().__init__(family=FAMILY)
        self.images = self.cloud.archives
        self.cloud.world.image_exists = lambda image: any(each.id == image for each in self.images._images())

    def manager(self) -> RolloutManager:
        ground = replace(self.cloud.cloud, images=self.images, families=self.images)
        return RolloutManager(self.ledger, ground, self.cloud.prober)

    def publish(self, version: str) -> None:
        ctx, release = self.context(), self.release(version)
        key = f"{release.id}.tar.gz"
        self.cloud.store.put_if_absent(ctx, key, gzip.compress(b"disk"))
        tags = release_tags(
            service_tags(release.app, release.service, release.settings.ledger),
            release=release.id,
            version=version,
            image=release.image,
            configuration=release.configuration,
            digest=release.digest,
        )
        disk = UploadedDisk(f"{self.cloud.store.address}/{key}", release.id, release.digest, 1, tags)
        self.images.register(ctx, ImageRequest(release.id, release.digest, disk, tags))

    @property
    def led(self) -> str | None:
        """The version that the family leads to."""
        found = self.images.current(self.context(), FAMILY)
        return None if found is None else found.name.split("-")[1]

    def withdrawn(self) -> dict[str, str]:
        return {kept.image.name.split("-")[1]: kept.withdrawn for kept in self.images._kept.values() if kept.withdrawn}


@pytest.fixture
def service() -> OfFamilies:
    return OfFamilies()


def test_a_family_leads_to_what_serves(service: OfFamilies) -> None:
    """Not to what was published, and not before it has the traffic."""
    service.publish("1.0.0")
    assert service.led is None
    assert service.deploy("1.0.0").outcome is Outcome.SUCCEEDED
    assert service.led == "1.0.0"
    service.publish("1.1.0")
    assert service.led == "1.0.0"
    assert service.deploy("1.1.0").outcome is Outcome.SUCCEEDED
    assert service.led == "1.1.0" and not service.withdrawn()


def test_a_release_that_failed_is_withdrawn(service: OfFamilies) -> None:
    """Also where somebody had put it into the family; and comes back into it once it serves."""
    service.deploy("1.0.0")
    service.publish("1.1.0")
    found = service.images.find(service.context(), service.id("1.1.0"))
    assert found is not None
    service.images.offer(service.context(), found, FAMILY)
    service.cloud.behave(service.id("1.1.0"), answers=(500,))
    assert service.deploy("1.1.0").outcome is Outcome.ROLLED_BACK
    assert (service.led, service.withdrawn()) == ("1.0.0", {"1.1.0": "deprecated"})
    service.cloud.behave(service.id("1.1.0"), answers=(200,))
    assert service.deploy("1.1.0").outcome is Outcome.SUCCEEDED
    assert service.led == "1.1.0" and not service.withdrawn()


def test_a_rollback_takes_the_family_along(service: OfFamilies) -> None:
    """Past all that came since, of which what it left is withdrawn; and forth again once it is held no more."""
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        service.deploy(version)
    assert service.rollback("1.0.0").outcome is Outcome.SUCCEEDED
    assert (service.led, set(service.withdrawn())) == ("1.0.0", {"1.1.0", "1.2.0"})
    told = [each.text for each in service.recorder.events if isinstance(each, Note) and "image family" in each.text]
    assert len(told) == len(set(told)) == 2, "each is told of once, though it was ahead in the family and given up too"
    service.manager().unhold(service.context())
    assert service.led == "1.0.0"
    assert service.deploy("1.1.0").outcome is Outcome.SUCCEEDED
    assert (service.led, set(service.withdrawn())) == ("1.1.0", {"1.2.0"})


def test_a_deploy_that_is_given_up_is_withdrawn(service: OfFamilies) -> None:
    """By a rollback in the midst of it; one that another deploy ended is not."""
    service.deploy("1.0.0")

    def begin(version: str) -> None:
        service.publish(version)
        service.cloud.faults.fail("groups.create_group", KeyboardInterrupt(), after=True)
        with pytest.raises(KeyboardInterrupt):
            service.deploy(version)
        service.cloud.faults.clear()

    begin("1.1.0")
    assert service.deploy("1.2.0").outcome is Outcome.SUCCEEDED
    assert service.led == "1.2.0" and not service.withdrawn()
    begin("1.3.0")
    assert service.rollback().outcome is Outcome.SUCCEEDED
    assert (service.led, service.withdrawn()) == ("1.2.0", {"1.3.0": "deprecated"})


def again_by_deploy(service: OfFamilies) -> Rollout:
    return service.deploy("1.0.0")


def again_by_gc(service: OfFamilies) -> None:
    ctx, manager = service.context(), service.manager()
    with lease.held(ctx, service.ledger, "gc") as held:
        follow(ctx, manager.cloud, held)


@pytest.mark.parametrize("again", [again_by_deploy, again_by_gc])
@pytest.mark.parametrize("fault", [Refused("not allowed"), Unavailable("no answer")])
def test_a_rollback_does_not_fail_by_its_family(
    service: OfFamilies, fault: Exception, again: Callable[[OfFamilies], object]
) -> None:
    """It warns, and the next command sees to it."""
    service.deploy("1.0.0")
    service.deploy("1.1.0")
    for operation in ("images.withdraw", "images.restore"):
        service.cloud.faults.fail(operation, fault, times=1000)
    assert service.rollback().outcome is Outcome.SUCCEEDED
    assert any("could not follow" in each.text for each in service.recorder.events if isinstance(each, Warned))
    assert (service.led, service.head.family_due) == ("1.1.0", True)
    service.cloud.faults.clear()
    again(service)
    assert (service.led, set(service.withdrawn())) == ("1.0.0", {"1.1.0"})
    assert (service.head.family_due, service.head.given_up) == (False, ())


def test_what_others_put_into_a_family_stays(service: OfFamilies) -> None:
    """It leads where it did."""
    service.deploy("1.0.0")
    service.deploy("1.1.0")
    theirs = service.images.put_foreign(service.context(), "theirs-9")
    service.images.offer(service.context(), theirs, FAMILY)
    service.rollback()
    assert service.led == "9" and set(service.withdrawn()) == {"1.1.0"}
