"""Large objects, by processes that are killed: what the next one sends, and that nothing half-made is an object."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from osvdeploy.api import open_store
from osvdeploy.cloud.aws.objects import S3Store
from osvdeploy.cloud.interfaces import ObjectStore
from osvdeploy.cloud.local.store import DirectoryStore
from osvdeploy.cloud.memory import MemoryStore
from osvdeploy.context import Context
from osvdeploy.sandbox.control import ACCESS_KEY, SECRET_KEY
from osvdeploy.sandbox.core import Sandbox
from osvdeploy.sandbox.http import Shell
from osvdeploy.sandbox.runners.inline import InlineRunner
from osvdeploy.sizes import MIB
from tests.contract.aws_place import REGION, AwsSandbox
from tests.contract.gcp_place import GcpSandbox
from tests.faults.venues import Killed, dying
from tests.sources import Made

pytestmark = pytest.mark.slow

SIZE = 11 * MIB
CTX = Context()


# ------------------------------------------------------------------------------------------------ at every single call


class Memory:
    """The memory fake; each part is a call."""

    source = Made("a", 200_000)

    def __init__(self) -> None:
        self.store = MemoryStore()

    def connect(self, kill: int | None, after: bool) -> ObjectStore:
        self.store.calls.clear()
        if kill is not None:
            self.store.calls.fail("*", Killed(), at=kill, after=after)
            self.store.calls.fail("*", Killed(), at=kill + 1, times=1_000_000)
        return self.store

    @property
    def calls(self) -> int:
        return len(self.store.calls.calls)


class InSandbox:
    """A store in the sandbox: each request is a call."""

    source = Made("a", SIZE)

    def __init__(self, sandbox: Sandbox, store: Callable[[], ObjectStore]) -> None:
        self.sandbox, self.store = sandbox, store
        self.calls = 0

    def connect(self, kill: int | None, after: bool) -> ObjectStore:
        self.sandbox.hook = dying(self, kill, after)
        return self.store()


def s3() -> InSandbox:
    account = AwsSandbox()
    account.client("s3").create_bucket(Bucket="acme", CreateBucketConfiguration={"LocationConstraint": REGION})
    return InSandbox(account.sandbox, lambda: S3Store("s3://acme", account.aws()))


def gcs() -> InSandbox:
    account = GcpSandbox()
    return InSandbox(account.sandbox, account.store)


@pytest.mark.parametrize("kind", [Memory, s3, gcs])
@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_call(kind: Callable[[], Memory | InSandbox], after: bool) -> None:
    """Whichever call is a process's last, there is a whole object or none, and the next process makes it whole; at most
    an upload without a single part of the object is left over."""
    counting = kind()
    counting.connect(None, False).put_file(CTX, "a", counting.source)
    before = counting.calls
    for number in range(1, before + 1):
        place = kind()
        with pytest.raises(Killed):
            place.connect(number, after).put_file(CTX, "a", place.source)
        store = place.connect(None, False)
        there = store.find(CTX, "a")
        assert there is None or there.size == place.source.length

        store.put_file(CTX, "a", place.source)

        assert store.get(CTX, "a") == place.source.content
        for left in store.unfinished(CTX, ""):
            store.abort(CTX, left)
        assert store.get(CTX, "a") == place.source.content


# ----------------------------------------------------------------------------------------------------- a real kill -9


WRITER = """
import sys
from osvdeploy.api import open_store
from osvdeploy.context import Context
from tests.sources import Made

def wait(at):
    # Where the test says, until it kills us.
    if at >= int(sys.argv[2]):
        print("here", flush=True)
        sys.stdin.read()

open_store(sys.argv[1]).put_file(Context(), "disks/a", Made("a", int(sys.argv[3]), piece=1 << 20, before=wait))
"""


def killed_at(
    address: str, offset: int, size: int, environment: dict[str, str], until: Callable[[], bool] = lambda: True
) -> None:
    """Let a process put a file until it has read ``offset`` bytes and ``until`` holds, and kill it."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, address, str(offset), str(size)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **environment},
    )
    assert writer.stdin is not None and writer.stdout is not None
    assert writer.stdout.readline() == b"here\n"
    while not until():
        assert writer.poll() is None
        time.sleep(0.01)  # polled: the sandbox counts
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdin.close()
    writer.stdout.close()


def test_a_directory_goes_on_after_a_kill(tmp_path: Path) -> None:
    """The file that was begun is finished: what was in it stays where it stood."""
    size = 40 * MIB
    killed_at(str(tmp_path), 20 * MIB, size, {})
    store = DirectoryStore(tmp_path)
    assert store.find(CTX, "disks/a") is None
    [left] = store.unfinished(CTX, "")
    partial = tmp_path / "disks" / ".files" / "a" / left.id
    written, file = partial.stat().st_size, partial.stat().st_ino
    assert 0 < written < size

    store.put_file(CTX, "disks/a", Made("a", size))

    assert store.get(CTX, "disks/a") == Made("a", size).content
    assert (tmp_path / "disks" / "a").stat().st_ino == file


@pytest.fixture
def shell() -> Iterator[Shell]:
    shell = Shell(Sandbox(runner=InlineRunner(), speed=1000.0))
    shell.start()
    yield shell
    shell.stop()


def done(shell: Shell, operation: str, after: int = 0) -> int:
    """How often it was done since that call."""
    return [(call.operation, call.error) for call in shell.sandbox.calls(after)].count((operation, ""))


def went_on(
    shell: Shell, address: str, offset: int, size: int, environment: dict[str, str], *, operation: str, least: int
) -> tuple[int, int]:
    """Kill a process that has read ``offset`` bytes and has done ``operation`` ``least`` times, and let the next one
    finish: a whole object, and nothing left. How often the first did it, and how often the second."""
    killed_at(address, offset, size, environment, until=lambda: done(shell, operation) >= least)
    # What was in flight when it was killed may have arrived all the same.
    arrived, before = done(shell, operation), len(shell.sandbox.calls())

    store = open_store(address)
    store.put_file(CTX, "disks/a", Made("a", size))

    assert store.get(CTX, "disks/a") == Made("a", size).content
    assert store.unfinished(CTX, "") == []
    return arrived, done(shell, operation, before)


def test_s3_goes_on_after_a_kill(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over real sockets: the next run, in another process, sends the parts that are missing and no other."""
    environment = {
        "AWS_ENDPOINT_URL": shell.url,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        # Another region than the bucket's: its own is found, also where S3 is at an address of the user's.
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    import boto3

    client = boto3.Session(region_name="eu-west-1").client("s3")
    client.create_bucket(Bucket="acme", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    size = 43 * MIB
    client.close()
    # The label is a part, too: of nine parts and it.
    arrived, sent = went_on(shell, "s3://acme/releases", 33 * MIB, size, environment, operation="UploadPart", least=4)
    assert sent <= 10 - arrived


def test_google_goes_on_after_a_kill(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Likewise, with parts that are objects: the next run sends the missing ones, and none is left."""
    environment = {"STORAGE_EMULATOR_HOST": shell.url, "NO_PROXY": "127.0.0.1"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    import requests

    requests.post(f"{shell.url}/storage/v1/b?project=p", json={"name": "acme"}, timeout=10).raise_for_status()
    size = 35 * MIB
    arrived, sent = went_on(
        shell, "gs://acme/releases", 27 * MIB, size, environment, operation="objects.insert", least=1
    )
    assert sent <= 9 - arrived
