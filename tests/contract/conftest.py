"""The places that every suite of this folder runs on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from osvdeploy.cloud.interfaces import ObjectStore
from osvdeploy.cloud.local.store import DirectoryStore
from osvdeploy.cloud.memory import MemoryStore
from osvdeploy.cloud.memory.disks import MemoryImages, MemorySnapshots
from osvdeploy.context import Context, SystemClock, VirtualClock
from osvdeploy.errors import CredentialsMissing
from tests.contract.aws_place import aws_place, s3_stores
from tests.contract.aws_scene import aws_scene
from tests.contract.disks import Place
from tests.contract.gcp_place import GcpSandbox
from tests.contract.gcp_scene import gcp_scene, pointer_scene
from tests.contract.memory_scene import memory_scene
from tests.contract.scenes import Scene
from tests.live import marks
from tests.live.marks import live
from tests.live.settings import Account

if TYPE_CHECKING:
    from tests.live.run import Label
    from tests.live.session import Session

PLACES = ["memory", pytest.param("aws", marks=pytest.mark.sandbox)]
AWS_SCENE = live("aws-live", marks.AWS_SCENE)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """The live run, for as long as it is used."""
    from tests.live.session import Session  # with the adapters of both clouds

    session = Session(tmp_path_factory.mktemp("live"))
    yield session
    session.close()


@contextmanager
def share(request: pytest.FixtureRequest, account: Account) -> Iterator[tuple[Session, Label]]:
    """A test's share of an account, which is taken away at its end."""
    session: Session = request.getfixturevalue("run")
    try:
        session.account(account)
    except CredentialsMissing as error:
        pytest.skip(f"{account}: {error}")
    with session.test(account) as label:
        yield session, label


def memory_place() -> Place:
    ctx = Context(clock=VirtualClock())
    snapshots = MemorySnapshots()
    images = MemoryImages(snapshots)

    def put_foreign(name: str) -> str:
        return images.put_foreign(ctx, name).id

    return Place(ctx, snapshots, images, snapshots.blocks, put_foreign)


@pytest.fixture(params=[*PLACES, live("aws-live", marks.AWS_DISKS)])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """Snapshots and an image registry, empty; in virtual time, but on accounts."""
    if request.param == "aws-live":
        with share(request, Account.AWS) as (session, label):
            yield session.aws_place(label)
    else:
        yield aws_place() if request.param == "aws" else memory_place()


SCENES: dict[str, Callable[[], Scene]] = {
    "memory": memory_scene,
    "aws": aws_scene,
    "gcp": gcp_scene,
    "memory-pointer": partial(memory_scene, pointer=True),
    "gcp-pointer": pointer_scene,
}


def standing(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """The place that a fixture was asked for, in virtual time, but on accounts."""
    if request.param == "aws-live":
        with share(request, Account.AWS) as (session, label):
            yield session.aws_scene(label)
    elif request.param == "gcp-live":
        with share(request, Account.GCP) as (session, label):
            yield session.gcp_scene(label)
    else:
        yield SCENES[request.param]()


WEIGHTED = [*PLACES, pytest.param("gcp", marks=pytest.mark.sandbox), AWS_SCENE, live("gcp-live", marks.GCP_SCENE)]
# Not on accounts: a run makes what the examples' scripts make, and none of them makes a forwarding rule that leads to a
# target TCP proxy. It would be a balancer more to make, to pay for and to sweep.
POINTERS = ["memory-pointer", pytest.param("gcp-pointer", marks=pytest.mark.sandbox)]


@pytest.fixture(params=WEIGHTED)
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """Groups, router, console and prober of one place, with a listener and networks."""
    yield from standing(request)


@pytest.fixture(params=POINTERS)
def pointer(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """A place whose listener sends all of its traffic to one slot."""
    yield from standing(request)


@pytest.fixture(params=[*WEIGHTED, *POINTERS])
def way(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """Every place, and every way in that it has."""
    yield from standing(request)


STORES = [
    "memory",
    "directory",
    *(pytest.param(kind, marks=pytest.mark.sandbox) for kind in ("s3", "gcs")),
    live("aws-live", marks.AWS_OBJECTS),
    live("gcp-live", marks.GCP_OBJECTS),
]


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ObjectStore]:
    """An object store that is empty. Its time is the machine's: many threads write at once."""
    match request.param:
        case "memory":
            yield MemoryStore()
        case "directory":
            yield DirectoryStore(tmp_path / "not" / "there" / "yet")
        case "gcs":
            yield GcpSandbox(SystemClock()).store("gs://acme/releases")
        case "s3":
            yield s3_stores()("s3://acme/releases")
        case "aws-live":
            with share(request, Account.AWS) as (session, label):
                yield session.aws.store(label)
        case "gcp-live":
            with share(request, Account.GCP) as (session, label):
                yield session.gcp.store(label)
