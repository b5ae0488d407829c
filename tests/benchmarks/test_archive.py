"""A disk of a GiB with 64 MiB in it as Google takes it, in one run: the archive against tar with gzip and pigz, and
all the way into an object against tar with gzip and Google's own upload."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import requests
from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import AuthorizedSession
from google.cloud import storage

from osvdeploy.cloud.gcp.objects import GcsStore
from osvdeploy.cloud.gcp.session import Gcp
from osvdeploy.context import Context, SystemClock
from osvdeploy.digests import sha256
from osvdeploy.osv.disk import FileAccess
from osvdeploy.osv.image import Extent
from osvdeploy.publish.archive import Archive, trailer
from osvdeploy.publish.joining import ArchiveKeys, Joiner
from osvdeploy.sandbox.google.inprocess import Delivery, connect
from osvdeploy.sizes import GIB
from tests.benchmarks.test_convert import DATA, programs
from tests.contract.gcp_place import COMPUTE, PROJECT, STORAGE, GcpSandbox

ROUNDS = 5
LATENCY = 0.02
"""Seconds for each answer."""

pytestmark = pytest.mark.skipif(None in (shutil.which("tar"), shutil.which("gzip")), reason="needs tar and gzip")


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    with (tmp_path / "disk.raw").open("wb") as file:
        file.write(bytes(510) + b"\x55\xaa" + programs()[512:])
        file.truncate(GIB)
    return tmp_path / "disk.raw"


def times(ways: dict[str, Callable[[str], None]]) -> dict[str, list[float]]:
    """Several times of each, taken in turns; each is told a name that is new."""
    took: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(ROUNDS):
        for way, run in ways.items():
            began = time.perf_counter()
            run(f"{number}-{list(ways).index(way)}")
            took[way].append(time.perf_counter() - began)
    return took


def tell(took: dict[str, list[float]], ours: str) -> None:
    """The shortest of each, and how many times ours it is: of the shortest, and in the middle of all rounds."""
    print()
    for way, seconds in took.items():
        pairs = [theirs / mine for theirs, mine in zip(seconds, took[ours], strict=True)]
        shortest = min(seconds) / min(took[ours])
        print(f"{way:32} {min(seconds) * 1000:7.0f} ms  {shortest:5.1f} x ours; {median(pairs):5.1f} x by rounds")


def test_an_archive_against_tar_and_gzip(disk: Path) -> None:
    """To a file (goals: 15 times as fast as `tar -S | gzip`, 8 times as fast as with pigz)."""

    def ours(name: str) -> None:
        made = Archive(FileAccess(disk), [Extent(0, DATA)])
        with (disk.parent / "ours.tar.gz").open("wb") as target:
            head, total = made.head()
            target.write(head)
            target.writelines(body := made.body())
            assert body.sum is not None
            target.write(trailer(total + body.sum))

    def theirs(packer: str) -> Callable[[str], None]:
        def run(name: str) -> None:
            words = [
                "tar",
                "--format=oldgnu",
                "-S",
                f"--use-compress-program={packer}",
                "-cf",
                "theirs.tar.gz",
                disk.name,
            ]
            subprocess.run(words, cwd=disk.parent, check=True)

        return run

    packers = [packer for packer in ("gzip", "pigz") if shutil.which(packer)]
    tell(times({"archive": ours, **{f"tar -S | {packer}": theirs(packer) for packer in packers}}), "archive")


def test_a_disk_in_a_bucket_against_googles_own_upload(disk: Path) -> None:
    """The same simulator in process, the same latency (goal: 8 times as fast)."""
    account = GcpSandbox(SystemClock())

    class Slow(Delivery):
        def send(self, *args: Any, **named: Any) -> Any:
            time.sleep(LATENCY)  # the network that is measured over
            return super().send(*args, **named)

    def slow(session: requests.Session) -> requests.Session:
        for scheme in ("https://", "http://"):
            session.mount(scheme, Slow(account.sandbox, account.clock))
        return session

    store = GcsStore(
        "gs://acme",
        Gcp(PROJECT, compute=COMPUTE, storage=STORAGE, session=slow(connect(account.sandbox, account.clock))),
    )
    nobody = AnonymousCredentials()  # type: ignore[no-untyped-call]  # google-auth declares no types
    session = AuthorizedSession(nobody)  # type: ignore[no-untyped-call]  # likewise
    client = storage.Client(PROJECT, nobody, _http=slow(session))

    def ours(name: str) -> None:
        digest = sha256(name.encode())
        joiner = Joiner(store, FileAccess(disk), [Extent(0, DATA)], f"{name}/body", digest)
        joiner.join(Context(), ArchiveKeys(f"{name}/head", f"{name}/trailer", f"{name}/disk.tar.gz"), digest)

    def theirs(name: str) -> None:
        subprocess.run(["tar", "-cSzf", "theirs.tar.gz", disk.name], cwd=disk.parent, check=True)
        client.bucket("acme").blob(name).upload_from_filename(str(disk.parent / "theirs.tar.gz"))

    tell(times({"archive, put and joined": ours, "tar -Sz, upload_from_filename": theirs}), "archive, put and joined")
