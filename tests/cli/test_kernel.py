"""kernel inspect, add, list; and check, lock and build of a kernel that comes from elsewhere, as a user has them."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from osvdeploy.build.sources import RELEASES_VARIABLE
from osvdeploy.osv.disk import with_partition
from osvdeploy.osv.image import Extent
from tests.build.releases import Releases, serving
from tests.cli.running import osvdeploy
from tests.osv.images import loader_image
from tests.osv.kernels import kernel_elf, lzloader, pack
from tests.osv.qcow2_files import Stored, make
from tests.osv.rofs_files import make_rofs, tree_of
from tests.osv.test_anatomy import disk_of

SPEC = """\
name = "hello"
version = "1.0.0"

[kernel]
release = "v0.57.0"

[image]
command = ["/hello"]

[[files]]
from = "hello"
to = "/hello"
"""


def image(version: str = "v0.57.0") -> bytes:
    return loader_image(payload=lzloader(pack(kernel_elf(version=version))))


DIGEST = hashlib.sha256(image()).hexdigest()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OSVDEPLOY_CACHE", str(tmp_path / "cache"))
    project = tmp_path / "project"
    project.mkdir()
    (project / "osv.toml").write_text(SPEC)
    (project / "hello").write_text("a program")
    (project / "kernel.gz").write_bytes(gzip.compress(image()))
    return project


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Releases]:
    with serving() as releases:
        monkeypatch.setenv(RELEASES_VARIABLE, releases.url)
        releases.files["/v0.57.0/osv-loader.qemu.x86_64"] = image()
        yield releases


def test_a_kernel_is_told_to_people_and_programs(folder: Path) -> None:
    """A table, and one document with the same; what is not known is unknown there, and null here."""
    told = osvdeploy("kernel", "inspect", "kernel.gz", folder=folder)
    assert told.code == 0
    assert "version            v0.57.0\n" in told.stdout
    assert "drivers            pci, virtio-blk, virtio-net, virtio-scsi\n" in told.stdout
    assert "TLS of a program   unknown\n" in told.stdout

    found = osvdeploy("kernel", "inspect", "kernel.gz", "--json", folder=folder).document
    assert (found["command"], found["sha256"], found["version"]) == ("kernel inspect", DIGEST, "v0.57.0")
    assert [each["place"] for each in found["serves"]][:2] == ["AWS Nitro", "AWS Xen"]
    assert all(each.keys() == {"place", "verdict", "rules"} for each in found["serves"])
    assert found["boot_options"] == ["help", "ip", "nopci", "power-off-on-abort", "verbose"]
    assert (found["symbols"], found["tls_reservation"], found["hidden"]) == (3, None, False)


def test_the_names_of_a_kernel_are_listed(folder: Path) -> None:
    """One a line, to be compared and searched; in a document they take the place of their number."""
    assert osvdeploy("kernel", "inspect", "kernel.gz", "--symbols", folder=folder).stdout.split() == [
        "_ZNSt6thread4joinEv",
        "malloc",
        "printf",
    ]
    document = osvdeploy("kernel", "inspect", "kernel.gz", "--symbols", "--json", folder=folder).document
    assert document["symbols"] == ["_ZNSt6thread4joinEv", "malloc", "printf"]


def test_of_a_disk_its_kernel_is_told(folder: Path) -> None:
    """Raw or qcow2, however large it is: as the loader.img that it was made of, with a word on what else there is."""
    disk = disk_of(make_rofs(tree_of({b"/hello": b"program"})))
    with (folder / "disk.raw").open("wb") as file:
        file.write(disk)
        file.truncate(1 << 30)
    (folder / "usr.img").write_bytes(make(disk, [Stored.PLAIN])[0])
    for name in ("disk.raw", "usr.img"):
        ran = osvdeploy("kernel", "inspect", name, "--json", folder=folder)
        assert (ran.code, ran.document["sha256"]) == (0, hashlib.sha256(loader_image()).hexdigest())
        assert ran.document["version"] == "v0.57.0-398-g0e34e4dc" and ran.document["size"] == len(loader_image())
        assert f"{name} is a disk image, and this is the kernel on it; `osvdeploy inspect {name}`" in ran.stderr


def test_of_a_disk_its_kernel_is_added(folder: Path) -> None:
    """What inspect tells of: the loader.img that it was made of, and not the disk; a build takes it by its digest."""
    disk = disk_of(make_rofs(tree_of({b"/hello": b"program"})))
    with (folder / "disk.raw").open("wb") as file:
        file.write(disk)
        file.truncate(1 << 30)
    (folder / "usr.img").write_bytes(make(disk, [Stored.PLAIN])[0])
    digest = hashlib.sha256(loader_image()).hexdigest()
    for name in ("disk.raw", "usr.img"):
        ran = osvdeploy("kernel", "add", name, folder=folder)
        assert (ran.code, ran.stdout) == (0, f"{digest}\n"), ran.stderr
        assert f"{name} is a disk image, and this is the kernel on it" in ran.stderr
    kept = folder.parent / "cache" / "kernels" / digest
    assert kept.read_bytes() == loader_image()


@pytest.mark.parametrize("command", ["inspect", "add"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (with_partition(bytes(510) + b"\x55\xaa", Extent(512, 4096)) + bytes(4096), "a disk image without a kernel"),
        (disk_of(b"")[:90_000], "a disk image, whose kernel cannot be read: its boot sector loads 2 chunks"),
        (b"QFI\xfb\0\0\0\x07" + bytes(600), "qcow2: version 7"),
        (b"vhdxfile" + bytes(600), "a VHDX image\nhint: make it raw first"),
    ],
)
def test_of_a_disk_without_a_kernel_it_is_told(folder: Path, content: bytes, says: str, command: str) -> None:
    """And with which command to look at it."""
    (folder / "disk").write_bytes(content)
    ran = osvdeploy("kernel", command, "disk", folder=folder)
    assert ran.code == 2 and says in ran.stderr and "disk" in ran.stderr


def test_what_is_no_kernel_is_an_error(folder: Path) -> None:
    """With what it is instead."""
    ran = osvdeploy("kernel", "inspect", "osv.toml", folder=folder)
    assert (ran.code, ran.stdout) == (2, "")
    assert "osv.toml: text, not a kernel" in ran.stderr
    assert "loader.img" in ran.stderr and "address" not in ran.stderr


def test_a_kernel_that_was_added_by_hand_builds_offline(folder: Path) -> None:
    """add prints the digest; list shows it; check and build ask nobody."""
    assert osvdeploy("kernel", "list", folder=folder).stdout == "no kernel is in the store\n"
    assert osvdeploy("kernel", "add", "kernel.gz", "--as", "v0.57.0", folder=folder).stdout == f"{DIGEST}\n"

    (listed,) = osvdeploy("kernel", "list", "--json", folder=folder).document["kernels"]
    assert (listed["sha256"], listed["sources"], listed["version"]) == (DIGEST, [{"release": "v0.57.0"}], "v0.57.0")
    assert f"{DIGEST[:12]}  v0.57.0  128KiB  v0.57.0" in osvdeploy("kernel", "list", folder=folder).stdout
    checked = osvdeploy("check", folder=folder)
    assert f"kernel OSv v0.57.0 {DIGEST[:12]}, not pinned yet" in checked.stdout
    assert osvdeploy("build", folder=folder).code == 0
    pinned = osvdeploy("lock", "--json", folder=folder).document["kernel"]
    assert pinned["source"] == {"release": "v0.57.0"} and pinned["osv"] == "v0.57.0"
    assert pinned["drivers"] == ["pci", "virtio-blk", "virtio-net", "virtio-scsi"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("add", "kernel.gz", "--as", "mine"), "--as mine: neither a release nor an address"),
        (("add", "v0.57.0", "--as", "v0.56.0"), "v0.57.0 says itself what it is"),
        (("inspect", "v0.57.0/tiny"), "no release has a kernel 'tiny'"),
        (("add", "kernel.gz", "--as", "v0.56.0"), "says that it is OSv v0.57.0, not v0.56.0"),
    ],
)
def test_what_cannot_be_meant_is_an_error(folder: Path, words: tuple[str, ...], told: str) -> None:
    """Nothing gets into the store by it."""
    ran = osvdeploy("kernel", *words, folder=folder)
    assert ran.code == 2 and told in ran.stderr
    assert not (folder.parent / "cache" / "kernels").exists()


@pytest.mark.slow
def test_a_release_is_looked_into_fetched_and_pinned(folder: Path, server: Releases) -> None:
    """One download for all of it."""
    assert osvdeploy("kernel", "inspect", "v0.57.0", "--json", folder=folder).document["sha256"] == DIGEST
    assert osvdeploy("kernel", "add", "v0.57.0", "--json", folder=folder).document["source"] == {"release": "v0.57.0"}
    assert osvdeploy("build", folder=folder).code == 0
    assert len(server.asked) == 2  # inspect, and add, which was asked to


@pytest.mark.slow
def test_upgrade_moves_to_what_is_there_now(folder: Path, server: Releases) -> None:
    """Until then the pinned one is built with; a stranger's download is refused."""
    url = f"{server.url}/nightly.gz"
    (folder / "osv.toml").write_text(SPEC.replace('release = "v0.57.0"', f'url = "{url}"'))
    server.files["/nightly.gz"] = gzip.compress(image())
    assert osvdeploy("build", folder=folder).code == 0
    server.files["/nightly.gz"] = gzip.compress(image("v0.58.0"))
    assert osvdeploy("build", "--json", folder=folder).document["kernel"] == DIGEST
    assert osvdeploy("kernel", "inspect", url, "--json", folder=folder).document["version"] == "v0.58.0"

    upgraded = osvdeploy("lock", "--upgrade", "--json", folder=folder).document["kernel"]
    assert (upgraded["osv"], upgraded["source"]) == ("v0.58.0", {"url": url})
    assert osvdeploy("build", "--json", folder=folder).document["kernel"] == upgraded["sha256"]


@pytest.mark.slow
def test_an_upgrade_needs_the_source_itself(folder: Path, server: Releases) -> None:
    """Where it is gone, the lock stays as it is and the error says so."""
    assert osvdeploy("build", folder=folder).code == 0
    before = (folder / "osv.lock").read_text()
    server.files.clear()
    ran = osvdeploy("lock", "--upgrade", folder=folder)
    assert ran.code == 1 and "the server says 404" in ran.stderr and "kernel add FILE --as v0.57.0" in ran.stderr
    assert (folder / "osv.lock").read_text() == before


@pytest.mark.slow
def test_a_build_with_a_pinned_kernel_loads_no_reader(folder: Path) -> None:
    """Neither HTTP nor the reader of kernels is imported where nothing is to be fetched or read."""
    assert osvdeploy("kernel", "add", "kernel.gz", "--as", "v0.57.0", folder=folder).code == 0
    assert osvdeploy("build", folder=folder).code == 0
    code = (
        "import sys; sys.argv = ['osvdeploy', 'build', '-q']\n"
        "from osvdeploy.cli import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "print([name for name in ('http.client', 'ssl', 'osvdeploy.osv.kernel_image') if name in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=os.environ, capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout.splitlines()[-1] == "[]"


@pytest.mark.osv
def test_a_real_kernel_is_told_whole(folder: Path) -> None:
    """Nothing of OSv's own build is unknown."""
    if (path := os.environ.get("OSV_KERNEL")) is None:
        pytest.skip("needs OSV_KERNEL, a loader.img")
    ran = osvdeploy("kernel", "inspect", path)
    assert ran.code == 0 and "unknown" not in ran.stdout
