"""Small bootable disks for guests: a stand-in kernel, a real command line, a real ROFS."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from osvdeploy.osv.cmdline import BootCommand, encode
from osvdeploy.osv.disk import COMMAND_LINE_OFFSET, with_partition
from osvdeploy.osv.filetree import TreeBuilder
from osvdeploy.osv.image import Extent
from osvdeploy.osv.rofs import lay_out, write_rofs
from osvdeploy.sandbox.runners import Guest

PARTITION = 1 << 20


@dataclass(frozen=True, slots=True)
class Volume:
    """A disk's bytes, readable anywhere."""

    content: bytes

    @property
    def size(self) -> int:
        return len(self.content)

    def pread(self, offset: int, length: int) -> bytes:
        return self.content[offset : offset + length]

    def guest(self, name: str = "i-1", address: str = "127.0.9.1") -> Guest:
        return Guest(name, address, self.pread, self.size)


def volume(
    files: Mapping[str, bytes | str],
    words: tuple[str, ...] = ("/app",),
    *,
    options: tuple[tuple[str, str | None], ...] = (),
    environment: tuple[tuple[str, str], ...] = (),
    line: bytes | None = None,
) -> Volume:
    """A disk with these files (a str is a link's target). ``line`` stands in for a command line that cannot be
    written otherwise."""
    builder = TreeBuilder()
    for path, content in files.items():
        if isinstance(content, str):
            builder.add_symlink(path.encode(), content.encode(), origin="test")
        else:
            builder.add_content(path.encode(), content, origin="test")
    rofs = bytearray()
    write_rofs(lay_out(builder.tree()), rofs.extend)
    if line is None:
        line = encode(BootCommand(options, environment, words))
    head = bytearray(65536 + 32768)
    head[0x10:0x12] = (1).to_bytes(2, "little")
    head[510:512] = b"\x55\xaa"
    head[COMMAND_LINE_OFFSET : COMMAND_LINE_OFFSET + len(line)] = line
    head[65536:65541] = b"\x7fTEST"
    whole = with_partition(bytes(head), Extent(PARTITION, PARTITION + len(rofs)))
    return Volume(whole.ljust(PARTITION, b"\0") + bytes(rofs))


def declared(**behaviour: object) -> bytes:
    """A program file for the inline runner."""
    return b"#!inline\n" + json.dumps(behaviour).encode()
