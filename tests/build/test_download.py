"""Downloads from a server that drops, refuses and changes, as real ones do; time is virtual."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from osvdeploy.build.download import download
from osvdeploy.context import CancelToken, Context, SystemClock, VirtualClock
from osvdeploy.errors import DownloadFailed, Interrupted
from osvdeploy.events import Progress, Recorder
from tests.build.releases import Releases, certificate, serving

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


@pytest.mark.parametrize("shorter", [False, True])
def test_a_server_that_looks_at_no_tag_is_not_believed(
    server: Releases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shorter: bool
) -> None:
    """It sends the rest of another file where it was asked for the rest of the same: by its tag, or by its length."""
    server.drops.append(100_000)
    server.believes = True
    changed = CONTENT[::-1][: -1 if shorter else None]

    class Changing(VirtualClock):
        def wait(self, seconds: float, cancelled: object) -> None:
            server.files["/kernel"] = changed
            server.tags = "date" if shorter else "etag"

    download(Context(clock=Changing()), f"{server.url}/kernel", tmp_path / "k", limit=1 << 20)
    assert (tmp_path / "k").read_bytes() == changed


@pytest.mark.parametrize(
    ("now", "goes_on"), [("Tue, 01 Jan 2030 00:02:00 GMT", True), ("Tue, 01 Jan 2030 00:00:01 GMT", False)]
)
def test_a_time_is_a_tag_when_it_is_old(server: Releases, tmp_path: Path, now: str, goes_on: bool) -> None:
    """A file that was written in the second before may be written again in it (RFC 9110, 8.8.2.2)."""
    server.drops.append(100_000)
    server.tags, server.now = "date", now
    assert fetch(server, tmp_path / "k") == CONTENT
    assert server.asked[1][1] == ("bytes=100000-" if goes_on else None)


def test_a_server_that_tells_no_state_starts_again(server: Releases, tmp_path: Path) -> None:
    """Nothing says that the rest would be of the same file."""
    server.drops.append(100_000)
    server.tags = ""
    assert fetch(server, tmp_path / "k") == CONTENT
    assert server.asked[1][1] is None


def test_a_server_that_hangs_is_left_and_asked_again(server: Releases, tmp_path: Path) -> None:
    """After so many seconds without a byte; what came is kept."""
    server.hangs += [100_000]
    download(Context(clock=VirtualClock()), f"{server.url}/kernel", tmp_path / "k", limit=1 << 20, silence=0.3)
    assert (tmp_path / "k").read_bytes() == CONTENT
    assert server.asked[1][1] == "bytes=100000-"


def test_a_server_that_drips_can_be_left(server: Releases, tmp_path: Path) -> None:
    """A byte now and then is no silence; a cancel does not wait for a whole piece."""
    server.drips = 0.05
    token = CancelToken()
    timer = threading.Timer(0.5, token.cancel)
    timer.start()
    begun = time.monotonic()
    with pytest.raises(Interrupted):
        download(Context(cancel=token), f"{server.url}/kernel", tmp_path / "k", limit=1 << 20, silence=2.0)
    assert time.monotonic() - begun < 2.0


def test_a_server_that_only_drips_counts_as_silent(server: Releases, tmp_path: Path) -> None:
    """It would hold a build for weeks."""
    server.drips = 0.02
    with pytest.raises(DownloadFailed, match="too slow") as refused:
        download(Context(clock=Hurried()), f"{server.url}/kernel", tmp_path / "k", limit=1 << 20, silence=0.5)
    assert refused.value.transient and len(server.asked) == 6


class Hurried(SystemClock):
    """Time as it is, but nobody waits between two tries."""

    def wait(self, seconds: float, cancelled: threading.Event) -> None:
        pass


def test_from_https_nothing_leads_to_http(server: Releases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was asked for safely is not taken from anybody in between; the other way round it is."""
    tls, believed = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(believed))
    with serving(tls) as safe:
        safe.files["/kernel"] = CONTENT
        safe.redirects |= {"/unsafe": f"{server.url}/kernel", "/safe": "/kernel"}
        server.redirects["/up"] = f"{safe.url}/kernel"
        assert fetch(safe, tmp_path / "k", path="/safe") == CONTENT
        assert fetch(server, tmp_path / "k", path="/up") == CONTENT
        with pytest.raises(DownloadFailed, match="less safe") as refused:
            fetch(safe, tmp_path / "k", path="/unsafe")
    assert not refused.value.transient
    assert not [path for path, _ in server.asked if path == "/kernel"]


def test_a_server_that_nobody_vouches_for_is_not_believed(tmp_path: Path) -> None:
    """Its certificate is told, and it is not asked again."""
    tls, _ = certificate(tmp_path)
    with serving(tls) as unknown, pytest.raises(DownloadFailed, match="certificate verify failed") as refused:
        unknown.files["/kernel"] = CONTENT
        fetch(unknown, tmp_path / "k")
    assert not refused.value.transient


def test_a_redirect_in_a_circle_ends(server: Releases, tmp_path: Path) -> None:
    """And is told as what it is."""
    server.redirects |= {"/a": "/b", "/b": "/a"}
    with pytest.raises(DownloadFailed, match="302") as refused:
        fetch(server, tmp_path / "k", path="/a")
    assert not refused.value.transient


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


@pytest.mark.parametrize(
    "address",
    ["http://[bad/x", "http://[::1", "http://127.0.0.1:port/x", "http://127.0.0.1/\u00fc", "http://127.0.0.1/a b",
     "http://" + "x" * 70 + "/", "http:///x"],
)  # fmt: skip
def test_what_is_no_address_is_named(tmp_path: Path, address: str) -> None:
    """It is an error about it, not a fault of ours, and it will not be another one later."""
    with pytest.raises(DownloadFailed) as refused:
        download(Context(clock=VirtualClock()), address, tmp_path / "k", limit=1)
    assert not refused.value.transient


def test_a_cancel_ends_it(server: Releases, tmp_path: Path) -> None:
    """Between two pieces."""
    token = CancelToken()
    ctx = Context(cancel=token, reporter=lambda event: token.cancel())
    with pytest.raises(Interrupted):
        download(ctx, f"{server.url}/kernel", tmp_path / "k", limit=1 << 20)
