from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.build.lock import KernelPin, Lock, format_lock, parse_lock, pin_kernel, read_lock
from osvdeploy.build.sources import FileKernel, ReleaseKernel, UrlKernel, Variant
from osvdeploy.context import Context
from osvdeploy.digests import Digest
from osvdeploy.errors import BuildError, LockInvalid, PinMismatch
from osvdeploy.events import Note, Recorder
from osvdeploy.osv.kernel import read_kernel
from osvdeploy.osv.kernel_facts import KernelFacts, KernelFormat
from tests.osv.images import write_loader

PIN = KernelPin(FileKernel("loader.img"), Digest("ab" * 32), 131072, "lzloader", "v0.57.0", ("nvme", "virtio-blk"))
FIRST = KernelPin(FileKernel("loader.img"), Digest("ab" * 32), 131072, "lzloader")

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
pins = st.builds(
    KernelPin,
    st.one_of(
        st.builds(FileKernel, texts),
        st.builds(ReleaseKernel, texts, st.sampled_from(Variant)),
        st.builds(UrlKernel, texts),
    ),
    st.binary(min_size=32, max_size=32).map(bytes.hex),
    st.integers(0, 2**62),
    st.sampled_from(["lzloader", "unknown"]),
    st.none() | texts,
    st.none() | st.lists(texts, max_size=3).map(tuple),
)


@settings(max_examples=100, deadline=None)
@given(st.builds(Lock, st.none() | pins))
def test_any_lock_reads_back_as_written(lock: Lock) -> None:
    """Whatever a file is called, its pin survives."""
    assert parse_lock(format_lock(lock)) == lock


def test_the_text_is_the_documented_one() -> None:
    """The lock is committed and read by people: its form is fixed."""
    assert format_lock(Lock(PIN)).splitlines()[1:] == [
        "version = 2", "", "[kernel]", 'file = "loader.img"', f'sha256 = "{"ab" * 32}"', "size = 131072",
        'payload = "lzloader"', 'osv = "v0.57.0"', 'drivers = ["nvme", "virtio-blk"]',
    ]  # fmt: skip


def test_the_first_format_is_read() -> None:
    """A lock that an earlier version wrote pins as before; the next one that is written has the newer form."""
    text = format_lock(Lock(FIRST)).replace("version = 2", "version = 1")
    assert parse_lock(text) == Lock(FIRST)


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.text(max_size=60), st.text(max_size=8).map(lambda text: format_lock(Lock(PIN)).replace("a", text))))
def test_any_text_is_a_lock_or_refused(text: str) -> None:
    """Any text is read or refused with a reason; nothing else happens."""
    try:
        parse_lock(text)
    except ValueError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "version is None"),
        ("version = 3", "version is 3"),
        ("version = true", "version is True"),
        ("version = 1\nmodules = 1", "unknown key 'modules'"),
        ("version = 1\nkernel = 1", "not a table"),
        (format_lock(Lock(PIN)) + "extra = 1", "unknown key 'kernel.extra'"),
        (format_lock(Lock(PIN)).replace("131072", '"x"'), "kernel.size is not there, or not a number"),
        (format_lock(Lock(PIN)).replace("131072", "true"), "not a number"),
        (format_lock(Lock(PIN)).replace("ab", "xy"), "64 hex digits"),
        ("<<<<<<< ours", "Invalid"),
        (format_lock(Lock(PIN)).replace("version = 2", "version = 1"), "unknown key 'kernel.drivers'"),
        (format_lock(Lock(PIN)).replace("file = ", "path = "), "unknown key 'kernel.path'"),
        (format_lock(Lock(PIN)).replace('file = "loader.img"\n', ""), "where it came from"),
        (format_lock(Lock(PIN)).replace("sha256", 'release = "v0.57.0"\nsha256'), "where it came from"),
        (
            format_lock(Lock(PIN)).replace('file = "loader.img"', 'release = "v1.0"\nvariant = "x"'),
            "where it came from",
        ),
        ('version = 1\n[kernel]\nurl = "x"\nsha256 = ""\nsize = 1\npayload = ""', "knows no kernel but a file"),
        (format_lock(Lock(PIN)).replace('"v0.57.0"', "5"), "kernel.osv is not a text"),
        (format_lock(Lock(PIN)).replace('"nvme"', "5"), "kernel.drivers is not an array"),
    ],
)
def test_a_lock_that_is_none_is_refused_with_its_name(tmp_path: Path, text: str, says: str) -> None:
    """A torn, merged or newer lock stops the build; it is never written over."""
    path = tmp_path / "osv.lock"
    path.write_text(text)
    with pytest.raises(LockInvalid, match=says) as refused:
        read_lock(path)
    assert str(refused.value).startswith(str(path))
    assert path.read_text() == text


def facts() -> KernelFacts:
    return KernelFacts(KernelFormat.LOADER_IMAGE, "x86_64", 131072, "v0.57.0")


def test_the_first_build_pins_and_says_so(tmp_path: Path) -> None:
    """A pin is a change of the user's tree, so it is announced; the same kernel again changes nothing."""
    kernel = read_kernel(write_loader(tmp_path / "loader.img"))
    recorder = Recorder()
    path = tmp_path / "osv.lock"
    pin = pin_kernel(Context(reporter=recorder), path, kernel, source=FileKernel("loader.img"), facts=facts)
    assert recorder.events == [Note(f"pinned loader.img to {kernel.sha256[:12]} in osv.lock")]
    before = path.stat()
    assert (
        pin_kernel(Context(reporter=recorder), path, kernel, source=FileKernel("../elsewhere/loader.img"), facts=facts)
        == pin
    )
    assert len(recorder.events) == 1
    assert path.stat() == before


def test_another_kernel_needs_an_upgrade(tmp_path: Path) -> None:
    """A changed kernel is refused with both digests; an upgrade says from what to what."""
    path = tmp_path / "osv.lock"
    first = read_kernel(write_loader(tmp_path / "a.img"))
    second = read_kernel(write_loader(tmp_path / "b.img", chunks=4))
    recorder = Recorder()
    pin_kernel(Context(), path, first, source=FileKernel("a.img"), facts=facts)
    with pytest.raises(PinMismatch) as refused:
        pin_kernel(Context(), path, second, source=FileKernel("b.img"), facts=facts)
    assert first.sha256 in str(refused.value) and second.sha256 in str(refused.value)
    pin_kernel(Context(reporter=recorder), path, second, source=FileKernel("b.img"), facts=facts, upgrade=True)
    lock = read_lock(path)
    assert lock is not None and lock.kernel is not None and lock.kernel.sha256 == second.sha256
    assert recorder.events == [Note(f"pinned b.img to {second.sha256[:12]} in osv.lock, before {first.sha256[:12]}")]


def test_a_pin_follows_a_kernel_to_where_it_is_downloaded(tmp_path: Path) -> None:
    """The same bytes by the name of a release are pinned by that, as the pin is what saves the next download."""
    kernel = read_kernel(write_loader(tmp_path / "loader.img"))
    path = tmp_path / "osv.lock"
    pin_kernel(Context(), path, kernel, source=FileKernel("loader.img"), facts=facts)
    pin_kernel(Context(), path, kernel, source=ReleaseKernel("v0.57.0"), facts=facts)
    lock = read_lock(path)
    assert lock is not None and lock.kernel is not None and lock.kernel.source == ReleaseKernel("v0.57.0")


def test_a_lock_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A missing folder is an error about the lock, and leaves nothing."""
    kernel = read_kernel(write_loader(tmp_path / "loader.img"))
    with pytest.raises(BuildError, match=r"gone/osv\.lock: cannot be written: No such file"):
        pin_kernel(Context(), tmp_path / "gone" / "osv.lock", kernel, source=FileKernel("loader.img"), facts=facts)


def test_a_name_that_is_no_text_is_written_readably(tmp_path: Path) -> None:
    """TOML holds text only; the name is for people, so it is shown with escapes."""
    kernel = read_kernel(write_loader(tmp_path / "loader.img"))
    pin = pin_kernel(Context(), tmp_path / "osv.lock", kernel, source=FileKernel("a\udcff.img"), facts=facts)
    assert pin.source == FileKernel(r"a\xff.img")
    assert read_lock(tmp_path / "osv.lock") == Lock(pin)
