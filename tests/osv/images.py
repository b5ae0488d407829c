"""What the tests make disks of: a loader.img in OSv's shape, trees, and command lines of every kind."""

from __future__ import annotations

import struct
from pathlib import Path

from hypothesis import strategies as st

from osvdeploy.osv.cmdline import BootCommand
from osvdeploy.osv.filetree import FileTree, TreeBuilder
from tests.osv.kernels import kernel_elf, lzloader, pack

ELF32_I386_EXECUTABLE = b"\x7fELF\x01\x01\x01" + bytes(9) + struct.pack("<HHI", 2, 3, 1)
LZLOADER = lzloader(pack(kernel_elf()))


def loader_image(*, chunks: int = 2, payload: bytes = LZLOADER, jump: int = 0xEA) -> bytes:
    """A loader.img as OSv's Makefile lays it out, with ``payload`` for a kernel."""
    boot_sector = bytearray(512)
    boot_sector[0] = jump
    boot_sector[0x10:0x12] = struct.pack("<H", chunks)
    boot_sector[0x1B8:0x1BC] = b"VSO\0"
    boot_sector[510:512] = b"\x55\xaa"
    return bytes(boot_sector).ljust(65536, b"\0") + payload.ljust(chunks * 32768, b"\x90")


def write_loader(path: Path, **shape: int | bytes) -> Path:
    path.write_bytes(loader_image(**shape))  # type: ignore[arg-type]  # the caller names fields
    return path


names = st.binary(min_size=1, max_size=12).filter(
    lambda name: not set(name) & set(b"/\0") and name not in (b".", b"..")
)
contents = st.one_of(st.just(b""), st.binary(max_size=40), st.integers(1, 1600).map(lambda size: b"\x07" * size))
link_targets = st.binary(min_size=1, max_size=40).filter(lambda target: b"\0" not in target)


@st.composite
def file_trees(draw: st.DrawFn) -> FileTree:
    """Trees with any bytes in names: empty files and directories, links, deep and shallow paths."""
    builder = TreeBuilder()
    directories = [b""]
    taken: set[bytes] = set()
    for _ in range(draw(st.integers(0, 12))):
        path = draw(st.sampled_from(directories)) + b"/" + draw(names)
        if path in taken:
            continue
        taken.add(path)
        kind = draw(st.sampled_from(["file", "directory", "symlink"]))
        if kind == "file":
            builder.add_content(path, draw(contents), origin="a test")
        elif kind == "directory":
            builder.add_directory(path, origin="a test")
            directories.append(path)
        else:
            builder.add_symlink(path, draw(link_targets), origin="a test")
    return builder.tree()


option_names = st.from_regex(r"[a-z][a-z0-9_-]{0,10}", fullmatch=True).filter(lambda name: name != "env")
text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
variable_names = text.filter(lambda name: name != "" and "=" not in name)
literal_words = st.text(st.characters(max_codepoint=127, exclude_characters="\0$"), max_size=12)


@st.composite
def boot_commands(draw: st.DrawFn) -> BootCommand:
    """Command lines that OSv can read, with everything that its grammars need escapes for."""
    options: list[tuple[str, str | None]] = []
    for name in draw(st.lists(option_names, unique=True, max_size=4)):
        flag = draw(st.booleans())
        repeated = draw(st.integers(1, 2))
        options += [(name, None if flag else draw(text.filter(bool))) for _ in range(repeated)]
    environment = draw(st.lists(st.tuples(variable_names, text), max_size=4))
    words = draw(st.lists(literal_words, max_size=5))
    # A variable may end any word.
    words = [word + "$" + draw(st.sampled_from([key for key, _ in environment if key.isascii()] or ["OSV_CPUS"]))
             if draw(st.booleans()) else word for word in words]  # fmt: skip
    return BootCommand(tuple(options), tuple(environment), tuple(words))
