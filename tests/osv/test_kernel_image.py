from __future__ import annotations

import gzip
import os
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.errors import KernelInvalid
from osvdeploy.osv import kernel_image
from osvdeploy.osv.kernel_facts import Driver, KernelFacts, KernelFormat
from osvdeploy.osv.kernel_image import read_file, read_kernel_facts, unpack
from tests.osv.images import loader_image
from tests.osv.kernels import TLS, arm_image, kernel_elf, lzloader, pack, vmlinuz

ELF = kernel_elf()
STATIC = b"\x48\xc7\xc2\0\0\0\0\x41\xff\xe7"
CONTIGUOUS = b"\xbe\0\x10\0\0\xbf\0\x02\0\0"


def image(elf: bytes, *, stored: bool = False, symbol: bytes = b"_binary_loader_stripped_elf_lz_start") -> bytes:
    payload = lzloader(pack(elf, stored=stored), symbol=symbol)
    return loader_image(chunks=-(-len(payload) // 32768), payload=payload)


@pytest.mark.timeout(10)
def test_a_pipe_is_no_kernel(tmp_path: Path) -> None:
    """It is refused, and nobody waits for who might write into it."""
    os.mkfifo(tmp_path / "kernel")
    with pytest.raises(KernelInvalid, match="no regular file") as refused:
        read_file(tmp_path / "kernel")
    assert refused.value.hint is not None


def test_what_a_kernel_says_of_itself_is_read() -> None:
    """Version, drivers, names, options, calls: each from where a kernel has it."""
    facts = read_kernel_facts(image(ELF))
    assert facts == KernelFacts(
        format=KernelFormat.LOADER_IMAGE,
        arch="x86_64",
        size=len(image(ELF)),
        version="v0.57.0-398-g0e34e4dc",
        drivers=frozenset({Driver.VIRTIO_BLK, Driver.VIRTIO_NET, Driver.VIRTIO_SCSI, Driver.PCI}),
        symbols=frozenset({b"malloc", b"printf", b"_ZNSt6thread4joinEv"}),
        hidden=False,
        boot_options=frozenset({"help", "verbose", "ip", "nopci", "power-off-on-abort"}),
        tls_reservation=None,
        base=0x40200000,
        end=facts.end,
        filesystems=frozenset({"rofs", "ramfs"}),
        syscalls=frozenset({"read", "exit", "mmap", "newfstatat"}),
        static_executables=True,
        debug=False,
        contiguous_mount_buffers=True,
        supplied=frozenset({"libc.so.6", "libm.so.6"}),
        faults_through_thread_pointer=False,
    )


@pytest.mark.parametrize(
    ("packed", "kind"),
    [
        (ELF, KernelFormat.ELF),
        (vmlinuz(ELF), KernelFormat.VMLINUZ),
        (image(ELF, stored=True), KernelFormat.LOADER_IMAGE),
        (gzip.compress(ELF, 1, mtime=0), KernelFormat.ELF),
        (gzip.compress(image(ELF), 1, mtime=0), KernelFormat.LOADER_IMAGE),
        (arm_image(kernel_elf(machine=183)), KernelFormat.ARM_IMAGE),
    ],
)
def test_a_kernel_says_the_same_however_it_is_packed(packed: bytes, kind: KernelFormat) -> None:
    """loader.img, ELF, vmlinuz, arm64 Image, and gzip of them are one kernel."""
    facts = read_kernel_facts(packed)
    assert (facts.format, facts.version) == (kind, "v0.57.0-398-g0e34e4dc")
    assert facts.arch == ("aarch64" if kind is KernelFormat.ARM_IMAGE else "x86_64")
    assert facts.drivers == read_kernel_facts(ELF).drivers


def test_a_stripped_lzloader_is_found_by_its_table() -> None:
    """Without the symbol, a kernel of more than 1 MiB is found by the sizes of its pieces."""
    elf = ELF.ljust(3 * (1 << 20) // 2, b"\0")
    assert read_kernel_facts(image(elf, symbol=b"gone")).version == "v0.57.0-398-g0e34e4dc"


def test_a_payload_that_is_no_osv_is_unknown(tmp_path: Path) -> None:
    """Nothing is claimed of what only keeps the boot sector's contract, from a file as from bytes."""
    content = loader_image(payload=b"another guest", jump=0xEB)
    path = tmp_path / "guest.img"
    path.write_bytes(content)
    nothing = KernelFacts(KernelFormat.LOADER_IMAGE, "x86_64", len(content))
    assert read_kernel_facts(content) == read_kernel_facts(path) == nothing


def test_the_options_of_older_kernels_are_read() -> None:
    """v0.57.0 has a string for each line of its usage, aligned to 8 bytes, and the heading elsewhere."""
    usage = b"OSv options:\n\0lo0\0\0  --help  show help\n\0\0\0  --ip=arg  set\n\0                    more\n\0"
    facts = read_kernel_facts(kernel_elf(options=(), constants=usage + b"  --nopci no\n\0x\0  --x"))
    assert facts.boot_options == frozenset({"help", "ip", "nopci"})


def test_what_is_not_there_stays_unknown() -> None:
    """A kernel that does not tell is not taken for one that has not."""
    facts = read_kernel_facts(image(kernel_elf(version="", options=(), syscalls=(), symbols=(), mode="none")))
    assert (facts.version, facts.boot_options, facts.syscalls, facts.static_executables) == (None, None, None, None)
    assert facts.symbols == frozenset()


def test_a_kernel_that_hides_its_symbols_exports_no_libstdcxx() -> None:
    """Hidden is what exports names of C alone."""
    assert read_kernel_facts(kernel_elf(symbols=(b"malloc", b"osv_get_all_threads"), gnu_hash=True)).hidden is True
    found = read_kernel_facts(kernel_elf(gnu_hash=True))
    assert found.hidden is False
    assert found.symbols == read_kernel_facts(ELF).symbols


def test_the_calls_of_a_release_without_tracepoints_are_known() -> None:
    """v0.57.0 has no names of them in its bytes; another kernel that has none does not tell."""
    calls = read_kernel_facts(kernel_elf(version="v0.57.0", syscalls=())).syscalls
    assert calls is not None and {"futex", "newfstatat", "exit_group"} <= calls and "brk" not in calls
    assert read_kernel_facts(kernel_elf(version="v0.57.0-1-gabc", syscalls=())).syscalls is None


@pytest.mark.parametrize(
    ("version", "code", "static", "contiguous"),
    [
        ("v0.57.0", b"", False, False),
        ("v0.56.0-900-gabcdef", b"", False, False),
        ("v0.57.0-70-ge154fc59", b"", True, False),
        ("v0.57.0-172-g9d44487a", b"", True, True),
        ("v0.58.0", b"", True, True),
        ("2026-nightly", b"", None, None),
        ("2026-nightly", STATIC, True, None),
        ("v0.57.0", CONTIGUOUS, False, True),
    ],
)
def test_two_facts_follow_from_code_or_from_history(
    version: str, code: bytes, static: bool | None, contiguous: bool | None
) -> None:
    """What the instructions show is so; where they do not, OSv's own history decides, and nothing else does."""
    facts = read_kernel_facts(kernel_elf(version=version, code=code))
    assert (facts.static_executables, facts.contiguous_mount_buffers) == (static, contiguous)


def test_a_handler_that_reads_through_the_thread_pointer_is_seen() -> None:
    """mov %gs:16, %r12 and cmp %fs:0, %r12, which stand in each of them; other processors have other code."""
    code = bytes.fromhex("654c8b242510000000644c3b242500000000")
    assert read_kernel_facts(kernel_elf(code=code)).faults_through_thread_pointer is True
    assert read_kernel_facts(kernel_elf(code=code[:9])).faults_through_thread_pointer is False
    assert read_kernel_facts(kernel_elf(code=code, machine=183)).faults_through_thread_pointer is None


def test_the_tls_reservation_is_what_is_subtracted() -> None:
    """mov $end; sub $start, as the compiler leaves it in the linker's check of a program's TLS."""
    end = TLS + 0x880
    code = b"\x41\xbc" + end.to_bytes(4, "little") + b"\x49\x81\xec" + (end - 536).to_bytes(4, "little")
    assert read_kernel_facts(kernel_elf(code=code)).tls_reservation == 536
    other = code + b"\x90" * 64 + code[:9] + (end - 64).to_bytes(4, "little")
    assert read_kernel_facts(kernel_elf(code=other)).tls_reservation is None


def test_a_debug_kernel_is_told_by_its_folder() -> None:
    """The library that it is linked with lies in the folder of the mode."""
    assert read_kernel_facts(kernel_elf(mode="debug")).debug is True


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"# a page of text\n", "text"),
        (b"<!DOCTYPE html><p>Not found", "a web page"),
        (b"QFI\xfb" + bytes(600), "qcow2"),
        (b"KDMV" + bytes(600), "VMDK"),
        (bytes(257) + b"ustar" + bytes(600), "tar"),
        (bytes(510) + b"\x55\xaa" + bytes(5), "is 0"),
        (vmlinuz(b"no ELF"), "a Linux kernel"),
        (arm_image(b"no ELF"), "an arm64 Image, but not OSv's"),
        (kernel_elf(version="", options=()), "nothing in it says that it is OSv"),
        (ELF[:900], "truncated"),
        (b"\x7fELF\x01" + bytes(100), "not a 64-bit"),
        (gzip.compress(ELF, mtime=0)[:-9], "does not end"),
        (b"\x1f\x8b" + bytes(100), "damaged gzip"),
        (gzip.compress(gzip.compress(ELF, mtime=0), mtime=0), "gzip within gzip"),
        (loader_image(payload=lzloader(b"\xff" * 100)), "cannot be unpacked"),
        (loader_image(payload=lzloader(pack(b"no ELF at all"))), "not a 64-bit"),
    ],
)
def test_what_is_no_kernel_is_told_apart(content: bytes, says: str) -> None:
    """Each is refused with what it is or what is wrong with it, under the name that was given."""
    with pytest.raises(KernelInvalid, match=says) as refused:
        read_kernel_facts(content, name="x.img")
    assert str(refused.value).startswith("x.img: ")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A missing file and a directory are errors about the kernel."""
    with pytest.raises(KernelInvalid, match="No such file"):
        read_kernel_facts(tmp_path / "x")
    with pytest.raises(KernelInvalid, match="a directory"):
        read_kernel_facts(tmp_path)


def test_a_gzip_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more is unpacked than a kernel may have."""
    monkeypatch.setattr(kernel_image, "MAX_SIZE", 1 << 20)
    with pytest.raises(KernelInvalid, match="unpack to more than 1MiB, as no kernel does"):
        read_kernel_facts(gzip.compress(bytes(3 << 20)))
    with pytest.raises(KernelInvalid, match="has more than 1MiB, more than any kernel"):
        read_kernel_facts(bytes(3 << 20))


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([ELF, image(ELF), vmlinuz(ELF), kernel_elf(gnu_hash=True)]),
    st.lists(st.tuples(st.integers(0, 1 << 18), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4),
)
def test_any_damage_gives_facts_or_a_named_error(content: bytes, patches: list[tuple[int, bytes]]) -> None:
    """A kernel with any bytes changed is read, or refused as a kernel; never anything else."""
    damaged = bytearray(content)
    for place, patch in patches:
        at = place % len(damaged)
        damaged[at : at + len(patch)] = patch
    try:
        assert read_kernel_facts(bytes(damaged)).size
    except KernelInvalid:
        pass


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=600), st.sampled_from([b"", b"\x7fELF\x02\x01", b"\x1f\x8b\x08", ELF[:232]]))
def test_any_bytes_give_facts_or_a_named_error(content: bytes, head: bytes) -> None:
    """Whatever follows whatever beginning."""
    try:
        assert read_kernel_facts(head + content).size
    except KernelInvalid:
        pass


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=2000), st.integers(0, 300), st.booleans())
def test_what_is_packed_is_unpacked(content: bytes, zeros: int, stored: bool) -> None:
    """Pieces packed and stored give back the kernel, and what follows the table does not matter."""
    kernel = content + bytes(zeros)
    assert unpack(pack(kernel, stored=stored) + b"what follows") == kernel


@pytest.mark.parametrize("count", [0xFFFFFFFF, 1 << 20, 200])
def test_a_hostile_count_of_symbols_costs_nothing(count: int) -> None:
    """A table that claims to go on for millions of names, or beyond the file, is not believed, and quickly so."""
    hashes = (0).to_bytes(4, "little") + (4).to_bytes(4, "little")
    at = ELF.rindex(hashes, 0, len(ELF) - 512 - 80)
    damaged = ELF[: at + 4] + count.to_bytes(4, "little") + ELF[at + 8 :]
    started = time.process_time()
    assert read_kernel_facts(damaged).symbols == frozenset()
    assert time.process_time() - started < 1


@pytest.mark.osv
def test_the_real_kernel_tells_all() -> None:
    """A loader.img of OSv's build has every fact, and its drivers and options are those that OSv documents."""
    if (path := os.environ.get("OSV_KERNEL")) is None:
        pytest.skip("needs OSV_KERNEL, a loader.img")
    content = Path(path).read_bytes()
    started = time.process_time()
    facts = read_kernel_facts(content)
    assert time.process_time() - started < 3
    assert facts.version and facts.version.startswith("v0.")
    assert facts.base == 0x40200000
    assert {"rofs", "ramfs", "zfs"} <= (facts.filesystems or set())
    assert {"verbose", "ip", "rootfs", "env", "power-off-on-abort"} <= (facts.boot_options or set())
    assert "assign-net" not in (facts.boot_options or set())
    assert {b"malloc", b"pthread_create", b"open"} <= facts.symbols and len(facts.symbols) > 1400
    assert facts.hidden == (b"_ZNSt6thread4joinEv" not in facts.symbols)
    assert facts.tls_reservation is not None and facts.tls_reservation >= 64
    assert facts.static_executables is not None and facts.contiguous_mount_buffers is not None
    assert (facts.supplied or set()) >= {"libc.so.6", "libm.so.6", "libpthread.so.0"}


@pytest.mark.osv
def test_the_real_kernel_supplies_what_its_tree_exports() -> None:
    """Every name in the tree's lists of exported symbols is among those that the kernel of this tree exports."""
    path, tree = os.environ.get("OSV_KERNEL"), os.environ.get("OSV_TREE")
    if path is None or tree is None:
        pytest.skip("needs OSV_KERNEL, a loader.img, and OSV_TREE, the tree it was built in")
    listed = {
        line.strip().encode()
        for file in [
            *Path(tree, "exported_symbols").glob("*.symbols"),
            *Path(tree, "exported_symbols/x64").glob("*.symbols"),
        ]
        for line in file.read_text().splitlines()
        if line.strip()
    }
    facts = read_kernel_facts(Path(path))
    describe = ["git", "-C", tree, "describe", "--tags", "--match", "v[0-9]*"]
    if subprocess.run(describe, capture_output=True, text=True, check=False).stdout.strip() != facts.version:
        pytest.skip(f"OSV_TREE is not of {facts.version}")
    assert len(listed) > 1000
    missing = listed - facts.symbols
    # What is switched off in this build is not there.
    assert len(missing) < len(listed) / 50, sorted(missing)[:20]
