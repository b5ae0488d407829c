"""What every implementation of JoiningStore promises, beside what it does as an ObjectStore."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from osvdeploy.cloud.interfaces import JoiningStore
from osvdeploy.cloud.memory import MemoryStore
from osvdeploy.context import Context, SystemClock
from osvdeploy.digests import sha256
from osvdeploy.errors import NotFound, ObjectTaken
from osvdeploy.sizes import MIB
from tests.contract.conftest import share
from tests.contract.gcp_place import GcpSandbox
from tests.live import marks
from tests.live.marks import live
from tests.live.settings import Account
from tests.sources import Made

CTX = Context()
DIGEST = sha256(b"joined")


@pytest.fixture(params=["memory", "gcs", live("gcp-live", marks.GCP_OBJECTS)])
def store(request: pytest.FixtureRequest) -> Iterator[JoiningStore]:
    """With parts, one of which went up in parts of its own."""
    if request.param == "gcp-live":
        with share(request, Account.GCP) as (session, label):
            yield filled(session.gcp.store(label))
    else:
        yield filled(MemoryStore() if request.param == "memory" else GcpSandbox(SystemClock()).store("gs://acme/x"))


def filled(made: JoiningStore) -> JoiningStore:
    assert made.put_if_absent(CTX, "head", b"head ")
    made.put_file(CTX, "body", Made("body", 9 * MIB))
    assert made.put_if_absent(CTX, "tail", b" tail")
    return made


def test_parts_become_one_object(store: JoiningStore) -> None:
    """In their order, with its own digest; they stay."""
    joined = store.join(CTX, "all", ["head", "body", "tail"], DIGEST)
    assert (joined.key, joined.size, joined.digest) == ("all", 9 * MIB + 10, DIGEST)
    assert store.get(CTX, "all") == b"head " + Made("body", 9 * MIB).content + b" tail"
    assert store.find(CTX, "all") == joined
    assert list(store.keys(CTX, "")) == ["all", "body", "head", "tail"]


def test_joined_twice_is_once(store: JoiningStore) -> None:
    """With the same digest, parts or no parts; another digest is refused, and nothing is overwritten."""
    first = store.join(CTX, "all", ["head", "tail"], DIGEST)
    store.delete(CTX, "head")
    assert store.join(CTX, "all", ["head", "tail"], DIGEST) == first
    with pytest.raises(ObjectTaken):
        store.join(CTX, "all", ["tail"], sha256(b"other"))
    assert store.get(CTX, "all") == b"head  tail"


def test_without_a_part_nothing_is_made(store: JoiningStore) -> None:
    """The one that is missing is named."""
    with pytest.raises(NotFound, match="none"):
        store.join(CTX, "all", ["head", "none"], DIGEST)
    assert store.find(CTX, "all") is None
