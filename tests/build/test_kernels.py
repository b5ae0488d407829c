"""Sources of kernels, the store, and the memory of facts; what needs a server is marked slow."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.build.cache import BuildCache
from osvdeploy.build.kernels import (
    FACTS_VERSION,
    KernelStore,
    facts_by_digest,
    format_facts,
    inspect,
    kernel_facts,
    parse_facts,
    resolve_kernel,
)
from osvdeploy.build.sources import (
    RELEASES_VARIABLE,
    FileKernel,
    KernelSource,
    ReleaseKernel,
    UrlKernel,
    Variant,
    address_of,
    parse_source,
    source_of,
    source_table,
)
from osvdeploy.build.statcache import StatCache
from osvdeploy.context import Context, VirtualClock
from osvdeploy.digests import Digest
from osvdeploy.errors import BuildError, DownloadFailed, KernelInvalid, PinMismatch, SourceChanged, UsageError
from osvdeploy.events import Recorder, Warned
from osvdeploy.osv.kernel import Kernel, read_kernel
from osvdeploy.osv.kernel_facts import Driver, KernelFacts, KernelFormat
from osvdeploy.osv.kernel_image import read_kernel_facts
from tests.alive import until
from tests.build.projects import Project
from tests.build.releases import Releases, serving
from tests.osv.images import loader_image, write_loader
from tests.osv.kernels import kernel_elf, lzloader, pack

RELEASE = ReleaseKernel("v0.57.0")
ASSET = "/v0.57.0/osv-loader.qemu.x86_64"


def image(version: str = "v0.57.0") -> bytes:
    return loader_image(payload=lzloader(pack(kernel_elf(version=version))))


def digest(content: bytes) -> Digest:
    return Digest(hashlib.sha256(content).hexdigest())


# ------------------------------------------------------------------------------------------------------------ sources


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("v0.57.0", ReleaseKernel("v0.57.0")),
        ("v0.57.0/with-zfs-hidden", ReleaseKernel("v0.57.0", Variant.WITH_ZFS_HIDDEN)),
        ("https://x.example/k.gz", UrlKernel("https://x.example/k.gz")),
        ("build/last/loader.img", FileKernel("build/last/loader.img")),
        ("v0.57.0.img/x", None),
        ("./v0.57.0", FileKernel("./v0.57.0")),
    ],
)
def test_what_a_word_names(text: str, source: KernelSource | None) -> None:
    """A release, an address, else a file; a release's variant that is none is told."""
    if source is None:
        with pytest.raises(UsageError, match="no release has a kernel 'x'"):
            parse_source(text)
    else:
        assert parse_source(text) == source


def test_a_file_that_is_there_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file may be called as a release is."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "v0.57.0").touch()
    assert parse_source("v0.57.0") == FileKernel("v0.57.0")


@pytest.mark.parametrize(
    ("source", "asset"),
    [
        (ReleaseKernel("v0.57.0"), "v0.57.0/osv-loader.qemu.x86_64"),
        (ReleaseKernel("v0.57.0", Variant.MICROVM), "v0.57.0/osv-loader-microvm.qemu.x86_64"),
        (ReleaseKernel("v0.55.0"), "v0.55.0/osv-loader.qemu"),
    ],
)
def test_a_release_is_found_under_the_mirror_or_at_osv(
    source: ReleaseKernel, asset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OSv's own releases, unless the environment names another place."""
    monkeypatch.delenv(RELEASES_VARIABLE, raising=False)
    assert address_of(source) == f"https://github.com/cloudius-systems/osv/releases/download/{asset}"
    monkeypatch.setenv(RELEASES_VARIABLE, "http://mirror.example/osv/")
    assert address_of(source) == f"http://mirror.example/osv/{asset}"
    monkeypatch.setenv(RELEASES_VARIABLE, "/srv/osv")
    with pytest.raises(UsageError, match=RELEASES_VARIABLE):
        address_of(source)


def test_old_releases_have_one_kernel() -> None:
    """A variant that no such release has is refused before anything is asked."""
    with pytest.raises(UsageError, match="one kernel alone"):
        address_of(ReleaseKernel("v0.54.0", Variant.HIDDEN))


@settings(max_examples=50, deadline=None)
@given(
    st.one_of(
        st.builds(FileKernel, st.text(max_size=9)),
        st.builds(ReleaseKernel, st.text(max_size=9), st.sampled_from(Variant)),
        st.builds(UrlKernel, st.text(max_size=9)),
    )
)
def test_a_source_reads_back_from_its_keys(source: KernelSource) -> None:
    """As the spec and the lock write it."""
    assert source_of(source_table(source)) == source


# -------------------------------------------------------------------------------------------------------------- facts

some = st.none() | st.booleans()
names = st.none() | st.frozensets(st.text(st.characters(max_codepoint=127), max_size=8), max_size=4)
every_facts = st.builds(
    KernelFacts,
    st.sampled_from(KernelFormat),
    st.sampled_from(["x86_64", "aarch64"]),
    st.integers(0, 1 << 40),
    version=st.none() | st.text(max_size=9),
    drivers=st.none() | st.frozensets(st.sampled_from(Driver)),
    symbols=st.frozensets(st.binary(max_size=9), max_size=4),
    hidden=some,
    boot_options=names,
    tls_reservation=st.none() | st.integers(0, 9999),
    base=st.none() | st.integers(0, 1 << 60),
    filesystems=names,
    syscalls=names,
    static_executables=some,
    debug=some,
    contiguous_mount_buffers=some,
    supplied=names,
)


@settings(max_examples=50, deadline=None)
@given(every_facts)
def test_facts_read_back_as_written(facts: KernelFacts) -> None:
    """Every one of them, what is not known as not known."""
    assert parse_facts(format_facts(facts)) == facts


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 5000), st.binary(min_size=1, max_size=4))
def test_damaged_facts_are_not_believed(place: int, patch: bytes) -> None:
    """Any changed byte is seen."""
    written = format_facts(read_kernel_facts(image()))
    at = place % len(written)
    damaged = written[:at] + patch + written[at + len(patch) :]
    if damaged != written:
        with pytest.raises(ValueError, match="checksum"):
            parse_facts(damaged)


def test_facts_are_read_once_for_each_kernel(tmp_path: Path) -> None:
    """What was read is remembered by the digest; what is damaged, or another reader's, is read again."""
    cache, reads = BuildCache(tmp_path), list[int]()
    facts = read_kernel_facts(image())

    def read() -> KernelFacts:
        reads.append(1)
        return facts

    known = digest(image())
    assert [facts_by_digest(Context(), known, cache, read) for _ in range(3)] == [facts] * 3
    assert len(reads) == 1
    path = tmp_path / "facts" / f"{known}.json"
    path.write_bytes(path.read_bytes()[:-1])
    facts_by_digest(Context(), known, cache, read)
    body = path.read_bytes().partition(b"\n")[2].replace(b'"version":%d}' % FACTS_VERSION, b'"version":0}')
    path.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    facts_by_digest(Context(), known, cache, read)
    assert len(reads) == 3


def test_a_kernel_that_was_replaced_meanwhile_teaches_nothing(tmp_path: Path) -> None:
    """Facts are remembered under the digest of the bytes that they were read from, and of no others."""
    path = tmp_path / "loader.img"
    path.write_bytes(image())
    kernel = read_kernel(path)
    path.write_bytes(image("v0.58.0"))
    with pytest.raises(SourceChanged, match="changed while it was read"):
        kernel_facts(Context(), kernel, BuildCache(tmp_path / "cache"))
    path.write_bytes(image())
    assert kernel_facts(Context(), kernel, BuildCache(tmp_path / "cache")).version == "v0.57.0"


def test_a_cache_that_cannot_be_written_costs_time_alone(tmp_path: Path) -> None:
    """Facts are there all the same."""
    (tmp_path / "facts").touch()
    kernel = resolve_kernel(
        Context(),
        FileKernel("k.img"),
        write_loader(tmp_path / "k.img").parent,
        cache=BuildCache(tmp_path),
        stats=StatCache(),
    )
    assert kernel_facts(Context(), kernel, BuildCache(tmp_path)).version == "v0.57.0-398-g0e34e4dc"


# -------------------------------------------------------------------------------------------------------------- store


@dataclass
class Shop:
    """A cache, and what is told."""

    cache: BuildCache
    recorder: Recorder

    @property
    def ctx(self) -> Context:
        return Context(reporter=self.recorder, clock=VirtualClock())

    @property
    def store(self) -> KernelStore:
        return KernelStore(self.cache)

    def resolve(self, source: KernelSource, *, pinned: Digest | None = None, fresh: bool = False) -> Kernel:
        return resolve_kernel(self.ctx, source, Path(), cache=self.cache, stats=StatCache(), pinned=pinned, fresh=fresh)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(BuildCache(tmp_path / "cache"), Recorder())


def test_an_added_kernel_answers_for_what_it_is(shop: Shop, tmp_path: Path) -> None:
    """By its digest where that is pinned, and as the release that it was added as; without any network."""
    file = tmp_path / "got"
    file.write_bytes(gzip.compress(image()))
    path = shop.store.add(shop.ctx, file, RELEASE)
    assert path.read_bytes() == image()
    assert shop.resolve(RELEASE).path == shop.resolve(UrlKernel("http://x"), pinned=digest(image())).path == path
    (stored,) = shop.store.stored()
    assert (stored.sha256, stored.sources, stored.size) == (digest(image()), (RELEASE,), len(image()))


def test_what_is_no_kernel_does_not_get_in(shop: Shop, tmp_path: Path) -> None:
    """Neither another file, nor another version than the release's, nor no OSv; nothing is left."""
    for content, says in [
        (kernel_elf(), "an ELF kernel alone"),
        (b"<html>", "a web page"),
        (image("v0.56.0"), r"says that it is OSv v0\.56\.0, not v0\.57\.0"),
        (loader_image(payload=b"guest"), "not a kernel of OSv"),
        (loader_image(payload=lzloader(b"damaged")), "cannot be unpacked"),
    ]:
        (tmp_path / "got").write_bytes(content)
        with pytest.raises(KernelInvalid, match=f"got: .*{says}"):
            shop.store.add(shop.ctx, tmp_path / "got", RELEASE)
    assert shop.store.stored() == () and shop.store.known(RELEASE) is None
    assert not list((shop.cache.root / "work").iterdir())


def test_a_damaged_kernel_is_removed(shop: Shop, tmp_path: Path) -> None:
    """A stored kernel whose bytes are not those of its name is never built with."""
    path = shop.store.add(shop.ctx, write_loader(tmp_path / "k"), None)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert shop.store.find(shop.ctx, Digest(path.name), StatCache()) is None
    assert not path.exists()
    assert any(isinstance(event, Warned) and "damaged" in event.text for event in shop.recorder.events)


def test_foreign_files_in_the_store_are_passed_over(shop: Shop) -> None:
    """What is not a kernel's file, or not a source's, is no kernel."""
    (shop.store.root / "sources").mkdir(parents=True)
    (shop.store.root / "README").write_text("x")
    (shop.store.root / "sources" / "x.json").write_text('{"source": {"release": 5}}')
    (shop.store.root / "sources" / "y.json").write_text("[")
    assert shop.store.stored() == ()


def test_a_store_that_cannot_be_written_is_named(shop: Shop, tmp_path: Path) -> None:
    """A full or foreign cache is an error about the store, with the way out."""
    shop.cache.root.mkdir()
    (shop.cache.root / "kernels").touch()
    with pytest.raises(BuildError, match="cannot be written to the store") as refused:
        shop.store.add(shop.ctx, write_loader(tmp_path / "k"), None)
    assert refused.value.hint and "OSVDEPLOY_CACHE" in refused.value.hint


def test_any_kernel_can_be_looked_into(shop: Shop, tmp_path: Path) -> None:
    """An ELF that no disk can be made of has facts too, packed or not under one digest."""
    (tmp_path / "k.gz").write_bytes(gzip.compress(kernel_elf()))
    (tmp_path / "k").write_bytes(kernel_elf())
    first, second = (inspect(shop.ctx, FileKernel(str(tmp_path / name)), shop.cache) for name in ("k.gz", "k"))
    assert first == second == (digest(kernel_elf()), read_kernel_facts(kernel_elf()))


# ----------------------------------------------------------------------------------------------------------- download


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Releases]:
    with serving() as releases:
        monkeypatch.setenv(RELEASES_VARIABLE, releases.url)
        releases.files[ASSET] = image()
        yield releases


@pytest.mark.slow
def test_a_release_is_fetched_once(shop: Shop, server: Releases) -> None:
    """The second build finds it in the store; nothing of the way is left."""
    first = shop.resolve(RELEASE)
    assert first.sha256 == digest(image())
    assert shop.resolve(RELEASE) == first
    assert len(server.asked) == 1
    assert not list((shop.cache.root / "work").iterdir())


def adding(cache: BuildCache) -> subprocess.Popen[str]:
    """osvdeploy kernel add, as a process of its own."""
    environment = {**os.environ, "OSVDEPLOY_CACHE": str(cache.root), "PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-m", "osvdeploy", "kernel", "add", str(RELEASE)]
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_download_that_was_killed_starts_again(shop: Shop, server: Releases) -> None:
    """What was there of it is swept, and no half of a kernel is ever in the store."""
    server.hangs += [100]
    with adding(shop.cache) as killed:
        until(lambda: [*shop.cache.root.glob("work/*/kernel")])
        killed.kill()
    assert not list(shop.store.root.glob("*")) and list((shop.cache.root / "work").iterdir())
    assert shop.resolve(RELEASE).sha256 == digest(image())
    assert not list((shop.cache.root / "work").iterdir())


@pytest.mark.slow
def test_two_downloads_at_once_both_succeed(shop: Shop, server: Releases) -> None:
    """Each into a place of its own; there is one kernel afterwards."""
    server.hangs += [100, 100]
    with adding(shop.cache) as one, adding(shop.cache) as two:
        until(lambda: len(server.asked) == 2)
        server.go.set()
        assert [each.communicate(timeout=60)[0] for each in (one, two)] == [f"{digest(image())}\n"] * 2
    assert [each.sha256 for each in shop.store.stored()] == [digest(image())]
    assert not list((shop.cache.root / "work").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("much", [300, 70_000, -1])
def test_a_kernel_that_came_in_part_is_refused(shop: Shop, server: Releases, much: int) -> None:
    """Where the server tells no length, the kernel itself says how long it is."""
    server.lengths = False
    server.drops.append(much % len(image()))
    with pytest.raises(KernelInvalid):
        shop.resolve(RELEASE)
    assert not list(shop.store.root.glob("*"))
    assert shop.resolve(RELEASE).sha256 == digest(image())


@pytest.mark.slow
def test_a_pinned_kernel_needs_no_network(shop: Shop, server: Releases) -> None:
    """Of an address, the pinned bytes are taken from the store, whatever is there now; fresh asks again."""
    url = UrlKernel(f"{server.url}/nightly.gz")
    server.files["/nightly.gz"] = gzip.compress(image())
    pinned = shop.resolve(url).sha256
    server.files["/nightly.gz"] = gzip.compress(image("v0.58.0"))
    assert shop.resolve(url, pinned=pinned).sha256 == pinned == digest(image())
    assert shop.resolve(url, fresh=True).sha256 == digest(image("v0.58.0"))
    assert shop.resolve(url).sha256 == digest(image("v0.58.0"))
    assert {each.sha256: each.sources for each in shop.store.stored()} == {
        digest(image()): (),
        digest(image("v0.58.0")): (url,),
    }


@pytest.mark.slow
def test_without_a_network_the_way_by_hand_is_told(shop: Shop, server: Releases, tmp_path: Path) -> None:
    """What to fetch, and how to put it where it is looked for; which then works."""
    server.statuses += [503] * 6
    with pytest.raises(DownloadFailed, match="503") as refused:
        shop.resolve(RELEASE)
    hint = f"fetch {server.url}{ASSET} where there is a network, then `osvdeploy kernel add FILE --as v0.57.0`"
    assert refused.value.hint == hint
    (tmp_path / "by-hand").write_bytes(image())
    shop.store.add(shop.ctx, tmp_path / "by-hand", RELEASE)
    assert shop.resolve(RELEASE).sha256 == digest(image())


@pytest.mark.slow
def test_what_was_at_an_address_is_taken_with_a_warning(shop: Shop, server: Releases) -> None:
    """Not for a pinned build, which must not get other bytes; and not where the server says that it is gone."""
    url = UrlKernel(f"{server.url}/nightly")
    server.files["/nightly"] = image()
    shop.resolve(url)
    server.statuses += [503] * 6
    assert shop.resolve(url).sha256 == digest(image())
    assert any(
        isinstance(event, Warned) and "the copy in the store is taken" in event.text for event in shop.recorder.events
    )
    server.statuses += [503] * 6
    with pytest.raises(DownloadFailed):
        shop.resolve(url, pinned=digest(b"another"))
    del server.files["/nightly"]
    with pytest.raises(DownloadFailed, match="404"):
        shop.resolve(url)


@pytest.mark.slow
def test_a_page_in_place_of_a_kernel_is_named(shop: Shop, server: Releases) -> None:
    """A mirror that answers with a page for what it has not; the address is in the message."""
    server.files[ASSET] = b"<html>not here</html>"
    with pytest.raises(KernelInvalid, match=f"{server.url}{ASSET}: a web page"):
        shop.resolve(RELEASE)


@pytest.mark.slow
def test_a_build_pins_a_release_and_refuses_another(project: Project, server: Releases) -> None:
    """The lock says which release, its version and drivers; a changed download is refused with both digests."""
    built = project.build(kernel=RELEASE)
    lock = (project.root / "osv.lock").read_text()
    assert f'release = "v0.57.0"\nsha256 = "{built.image.kernel}"' in lock
    assert 'osv = "v0.57.0"\ndrivers = ["pci", "virtio-blk", "virtio-net", "virtio-scsi"]' in lock

    other = replace(project, cache=BuildCache(project.root.parent / "another"))
    changed = image() + bytes(32768)
    server.files[ASSET] = changed[:0x10] + b"\3" + changed[0x11:]
    with pytest.raises(PinMismatch) as refused:
        other.build(kernel=RELEASE)
    assert digest(image()) in str(refused.value) and digest(server.files[ASSET]) in str(refused.value)
    assert project.build(kernel=RELEASE).reused
    with pytest.raises(PinMismatch, match=r"loader\.img: the kernel is"):
        project.build(kernel=FileKernel("loader.img"))
