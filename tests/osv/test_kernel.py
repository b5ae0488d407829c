from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from osvdeploy.errors import KernelInvalid
from osvdeploy.osv.kernel import Payload, read_kernel
from tests.osv.images import ELF32_I386_EXECUTABLE, loader_image, write_loader


def test_a_loader_image_is_read_whole(tmp_path: Path) -> None:
    """Size, chunks and digest are those of the file; the names in it show OSv's lzloader."""
    path = write_loader(tmp_path / "loader.img", chunks=3)
    kernel = read_kernel(path)
    assert (kernel.size, kernel.chunks, kernel.payload) == (65536 + 3 * 32768, 3, Payload.LZLOADER)
    assert kernel.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("payload", [b"not an ELF", ELF32_I386_EXECUTABLE])
def test_another_payload_is_unknown_and_may_have_its_own_boot_sector(tmp_path: Path, payload: bytes) -> None:
    """Whatever keeps the contract of the boot sector can be composed; what it is, is not claimed."""
    path = write_loader(tmp_path / "guest.img", payload=payload, jump=0xEB)
    assert read_kernel(path).payload is Payload.UNKNOWN


def _with(image: bytes, offset: int, patch: bytes) -> bytes:
    return image[:offset] + patch + image[offset + len(patch) :]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"\x1f\x8b" + bytes(600), "gzip"),
        (b"QFI\xfb" + bytes(600), "qcow2"),
        (b"\x7fELF" + bytes(600), "ELF kernel alone"),
        (_with(bytes(600), 0x38, b"ARM\x64"), "arm64"),
        (loader_image()[:300], "truncated"),
        (loader_image()[:-1], "truncated"),
        (loader_image() + bytes(32768), "wrong chunk count"),
        (_with(loader_image(), 0x10, b"\0\0"), "is 0"),
        (_with(loader_image(), 510, b"\0\0"), "55 AA"),
        (_with(loader_image(), 0x1CE, b"\x80\x01"), "a whole disk"),
        (loader_image(jump=0xEB), "not OSv's"),
        (b"MZ" + bytes(1000), "no boot sector"),
    ],
)
def test_what_is_no_loader_image_is_told_apart(tmp_path: Path, content: bytes, says: str) -> None:
    """Each wrong file is refused with what it is, and with the file's name."""
    path = tmp_path / "kernel"
    path.write_bytes(content)
    with pytest.raises(KernelInvalid) as refused:
        read_kernel(path)
    assert says in str(refused.value)
    assert str(refused.value).startswith(str(path))


def test_a_missing_kernel_and_a_directory_are_named(tmp_path: Path) -> None:
    """No file, or a directory in its place, is an error about the kernel, not a traceback."""
    with pytest.raises(KernelInvalid, match="No such file"):
        read_kernel(tmp_path / "loader.img")
    with pytest.raises(KernelInvalid, match="directory"):
        read_kernel(tmp_path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=700), st.tuples(st.integers(0, 66000), st.binary(max_size=9))))
def test_any_file_is_a_kernel_or_refused(tmp_path: Path, content: bytes | tuple[int, bytes]) -> None:
    """Any bytes, and any damage to a good image, give a kernel or a KernelInvalid."""
    path = tmp_path / "kernel"
    path.write_bytes(content if isinstance(content, bytes) else _with(loader_image(), *content))
    try:
        assert read_kernel(path).size == path.stat().st_size
    except KernelInvalid:
        pass
