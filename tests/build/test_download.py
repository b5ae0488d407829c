"""Downloads from a server that drops, refuses and changes, as real ones do; time is virtual."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from osvdeploy.build.download import download
from osvdeploy.context import CancelToken, Context, VirtualClock
from osvdeploy.errors import DownloadFailed, Interrupted
from osvdeploy.events import Progress, Recorder
from tests.build.releases import Releases, serving

pytestmark = pytest.mark.slow

CONTENT = bytes(range(256)) * 1000


@pytest.fixture
def server() -> Iterator[Releases]:
    with serving() as releases:
        releases.files["/kernel"] = CONTENT
        yield releases


def fetch(server: Releases, into: Path, *, limit: int = 1 << 20, path: str = "/kernel") -> bytes:
    download(Context(clock=VirtualClock()), server.url + path, into, limit=limit, silence=2.0)
    return into.read_bytes()


def test_a_file_comes_whole_and_tells_how_far_it_is(server: Releases, tmp_path: Path) -> None:
    """Progress ends with all of it."""
    recorder = Recorder()
    download(Context(reporter=recorder), f"{server.url}/kernel", tmp_path / "k", limit=1 << 20)
    assert (tmp_path / "k").read_bytes() == CONTENT
    assert recorder.events[-1] == Progress("download", len(CONTENT), len(CONTENT), "bytes")


def test_what_was_dropped_goes_on_where_it_ended(server: Releases, tmp_path: Path) -> None:
    """The second try asks for the rest alone."""
    server.drops += [100_000, 50_000]
    assert fetch(server, tmp_path / "k") == CONTENT
    assert [wanted for _, wanted in server.asked] == [None, "bytes=100000-", "bytes=150000-"]


def test_a_server_without_ranges_is_asked_again_for_all(server: Releases, tmp_path: Path) -> None:
    """What is there is dropped, and nothing is there twice."""
    server.drops.append(100_000)
    server.ranges = False
    assert fetch(server, tmp_path / "k") == CONTENT


def test_a_file_that_changes_meanwhile_is_never_mixed(
    server: Releases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of another file is refused by its tag, and all of the new one is taken."""
    server.drops.append(100_000)
    changed = CONTENT[::-1]

    class Changing(VirtualClock):
        def wait(self, seconds: float, cancelled: object) -> None:
            server.files["/kernel"] = changed

    download(Context(clock=Changing()), f"{server.url}/kernel", tmp_path / "k", limit=1 << 20)
    assert (tmp_path / "k").read_bytes() == changed


def test_a_server_in_trouble_is_asked_again(server: Releases, tmp_path: Path) -> None:
    """503 and 429 pass; what is not there stays away."""
    server.statuses += [503, 429]
    assert fetch(server, tmp_path / "k") == CONTENT
    with pytest.raises(DownloadFailed, match="the server says 404") as refused:
        fetch(server, tmp_path / "k", path="/nothing")
    assert not refused.value.transient
    assert len(server.asked) == 4


def test_trouble_that_stays_ends(server: Releases, tmp_path: Path) -> None:
    """After six tries it is told, and may be tried later."""
    server.statuses += [500] * 9
    with pytest.raises(DownloadFailed, match="500") as refused:
        fetch(server, tmp_path / "k")
    assert refused.value.transient and len(server.asked) == 6


@pytest.mark.parametrize("lengths", [True, False])
def test_no_more_than_the_limit_is_taken(server: Releases, tmp_path: Path, lengths: bool) -> None:
    """By what the server says, and by what it sends where it says nothing."""
    server.lengths = lengths
    with pytest.raises(DownloadFailed, match=r"no more than 97\.7KiB is taken"):
        fetch(server, tmp_path / "k", limit=100_000)
    assert (tmp_path / "k").stat().st_size <= 100_000


def test_a_redirect_is_followed_but_to_no_file(server: Releases, tmp_path: Path) -> None:
    """To HTTP alone."""
    server.redirects |= {"/latest": "/kernel", "/evil": "file:///etc/passwd"}
    assert fetch(server, tmp_path / "k", path="/latest") == CONTENT
    with pytest.raises(DownloadFailed):
        fetch(server, tmp_path / "k", path="/evil")


def test_other_schemes_and_dead_servers_are_named(tmp_path: Path) -> None:
    """An address that is none, and one where nobody listens."""
    with pytest.raises(DownloadFailed, match="only http"):
        download(Context(), "file:///etc/passwd", tmp_path / "k", limit=1)
    with serving() as gone:
        address = f"{gone.url}/kernel"
    with pytest.raises(DownloadFailed, match="refused") as refused:
        download(Context(clock=VirtualClock()), address, tmp_path / "k", limit=1)
    assert refused.value.transient


@pytest.mark.parametrize("address", ["http://[bad/x", "http://[::1"])
def test_what_is_no_address_is_named(tmp_path: Path, address: str) -> None:
    """Brackets that hold no address are an error about it, not a fault of ours."""
    with pytest.raises(DownloadFailed):
        download(Context(clock=VirtualClock()), address, tmp_path / "k", limit=1)


def test_a_cancel_ends_it(server: Releases, tmp_path: Path) -> None:
    """Between two pieces."""
    token = CancelToken()
    ctx = Context(cancel=token, reporter=lambda event: token.cancel())
    with pytest.raises(Interrupted):
        download(ctx, f"{server.url}/kernel", tmp_path / "k", limit=1 << 20)
