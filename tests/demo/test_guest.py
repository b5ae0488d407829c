"""The boot guest as a file, and the report it writes. That it boots is shown in tests/boot."""

from __future__ import annotations

import io
import string
import struct
from pathlib import Path
from urllib.parse import quote_from_bytes

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.demo.guest import (
    BOOT_SECTOR_SIZE,
    CHUNK_SIZE,
    KERNEL_OFFSET,
    GuestEntry,
    build_guest,
    loader_image,
    read_report,
)
from osvdeploy.demo.toolchain import CompileFailed, Compiler, CompilerKind
from osvdeploy.errors import OsvDeployError
from osvdeploy.osv.kernel import Payload, read_kernel
from tests.demo.test_toolchain import each_compiler, executable


@pytest.mark.slow
@each_compiler
def test_the_guest_is_a_valid_loader_image(compiler: Compiler, tmp_path: Path) -> None:
    """The guest passes the checks that OSv's own loader.img passes, and is not taken for it."""
    kernel = read_kernel(build_guest(tmp_path / "loader.img", compiler=compiler))
    assert kernel.size == KERNEL_OFFSET + kernel.chunks * CHUNK_SIZE
    assert kernel.payload is Payload.UNKNOWN
    elf = ELFFile(io.BytesIO(kernel.path.read_bytes()[KERNEL_OFFSET:]))
    assert (elf["e_type"], elf["e_machine"], elf.elfclass) == ("ET_EXEC", "EM_386", 32)
    assert 0x100000 < elf["e_entry"] < 0x100000 + kernel.chunks * CHUNK_SIZE


@pytest.mark.slow
@each_compiler
def test_the_boot_sector_keeps_osvs_layout(compiler: Compiler, tmp_path: Path) -> None:
    """What image builders read and write in OSv's boot sector stands at the same place here."""
    head = build_guest(tmp_path / "loader.img", compiler=compiler).read_bytes()[:BOOT_SECTOR_SIZE]
    assert head[0] == 0xEA
    assert struct.unpack_from("<BBHHHQ", head, 0x12) == (0x10, 0, 64, 0, 0x8000, 128)
    assert struct.unpack_from("<BBHHHQ", head, 0x22) == (0x10, 0, 63, 0x7E00, 0, 1)
    assert struct.unpack_from("<I", head, 0x32) == (0x100000,)
    assert head[0x1B8:0x1BE] == b"VSO\0\0\0"
    assert not any(head[0x1BE:0x1FE])
    assert head[0x1FE:] == b"\x55\xaa"


@pytest.mark.slow
@each_compiler
def test_the_guest_is_the_same_bytes_each_time(compiler: Compiler, tmp_path: Path) -> None:
    """Building twice, to different places, gives one guest for one compiler."""
    first = build_guest(tmp_path / "a" / "loader.img", compiler=compiler).read_bytes()
    again = build_guest(tmp_path / "b" / "other.img", compiler=compiler).read_bytes()
    assert first == again
    assert str(tmp_path).encode() not in first


@pytest.mark.slow
def test_a_host_compiler_without_32_bit_code_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the host's compiler cannot make the guest, the next one does."""
    script = 'case " $* " in *" -dumpmachine "*) echo x86_64-linux-gnu;; *) echo "no -m32 here" >&2; exit 1;; esac'
    fake = executable(tmp_path / "bin" / "cc", script)
    monkeypatch.setenv("CC", str(fake))
    assert read_kernel(build_guest(tmp_path / "loader.img")).chunks
    with pytest.raises(CompileFailed) as caught:
        build_guest(tmp_path / "other.img", compiler=Compiler((str(fake),), CompilerKind.HOST))
    assert "no -m32 here" in caught.value.output
    assert not (tmp_path / "other.img").exists()


def test_without_a_compiler_there_is_no_guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No compiler is an error that says what to install, and leaves nothing behind."""
    monkeypatch.setattr("osvdeploy.demo.toolchain.find_compilers", lambda: ())
    with pytest.raises(OsvDeployError, match="no C compiler"):
        build_guest(tmp_path / "loader.img")
    assert list(tmp_path.iterdir()) == []


@given(st.binary(min_size=1, max_size=3 * CHUNK_SIZE))
@settings(max_examples=20, deadline=None)
def test_a_loader_image_holds_its_kernel_in_whole_chunks(kernel: bytes) -> None:
    """Whatever its length, the kernel stands at 64 KiB, and the count covers it and no more."""
    image = loader_image(bytes(510) + b"\x55\xaa", kernel)
    (chunks,) = struct.unpack_from("<H", image, 0x10)
    assert len(image) == KERNEL_OFFSET + chunks * CHUNK_SIZE
    assert image[KERNEL_OFFSET : KERNEL_OFFSET + len(kernel)] == kernel
    assert (chunks - 1) * CHUNK_SIZE < len(kernel)


@given(st.binary(max_size=300), st.lists(st.binary(min_size=1, max_size=255), max_size=5))
@settings(max_examples=50, deadline=None)
def test_any_bytes_survive_the_console(line: bytes, names: list[bytes]) -> None:
    """Command line and names come back as they were, whatever bytes they are."""
    printable = string.printable[:95].replace("%", "").encode()
    console = [f"command_line={quote_from_bytes(line, safe=printable)}"]
    for number, name in enumerate(names, start=2):
        console += [f"entry={quote_from_bytes(name, safe=printable)}", f"entry.inode={number}", "entry.mode=0x8000"]
        console += ["entry.count=7", "entry.crc32=0x000000ff"]
    report = read_report("\n".join([*console, "result=ok", ""]).encode())
    assert report.command_line == line
    assert report.entries == tuple(GuestEntry(name, n, 0x8000, 7, 255) for n, name in enumerate(names, start=2))
    assert report.finished


@given(st.binary(max_size=400))
@settings(max_examples=50, deadline=None)
def test_foreign_console_bytes_are_no_report(noise: bytes) -> None:
    """A console that is not the guest's says nothing, and is no error."""
    report = read_report(noise.replace(b"=", b"-"))
    assert (report.values, report.command_line, report.entries, report.finished) == ({}, None, (), False)
