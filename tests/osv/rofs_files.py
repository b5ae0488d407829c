"""Makes ROFS images with everything at a place of one's choice, which the format allows and a writer may use."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from osvdeploy.osv.filetree import Content, Directory, FileTree, Symlink, TreeBuilder


def tree_of(files: Mapping[bytes, bytes]) -> FileTree:
    builder = TreeBuilder()
    for path, content in files.items():
        builder.add_content(path, content, origin="a test")
    return builder.tree()


def make_rofs(tree: FileTree, places: Mapping[bytes, int] | None = None, *, tables: int | None = None) -> bytes:
    """The image of a tree whose files are Content. ``places``: first block of a file's contents, ``tables``: theirs.
    What has no place follows the superblock one after the other, the tables last."""
    numbers = {path: number for number, path in enumerate(tree.entries, start=1)}
    entries: list[tuple[int, bytes]] = []
    links: list[bytes] = []
    inodes: list[tuple[int, int, int, int]] = []
    contents: dict[int, bytes] = {}
    free = 1
    for path, entry in tree.entries.items():
        number = numbers[path]
        match entry:
            case Directory():
                below = [each for each in tree.entries if each != b"/" and (each[: each.rfind(b"/")] or b"/") == path]
                inodes.append((0x4000, number, len(entries), len(below)))
                entries += [(numbers[each], each[each.rfind(b"/") + 1 :]) for each in below]
            case Symlink(target=target):
                inodes.append((0xA000, number, len(links), 1))
                links.append(target)
            case Content(content=content):
                block = (places or {}).get(path)
                if block is None:
                    block, free = free, free + -(-len(content) // 512)
                contents[block] = content
                inodes.append((0x8000, number, block, len(content)))
    table = b"".join(struct.pack("<QH", inode, len(name)) + name for inode, name in entries)
    table += b"".join(struct.pack("<H", len(target)) + target for target in links)
    table += b"".join(struct.pack("<4Q", *inode) for inode in inodes)
    count = -(-len(table) // 512)
    at = tables if tables is not None else free
    contents[at] = table
    end = max(block + -(-len(content) // 512) for block, content in contents.items())
    image = bytearray(end * 512)
    image[:64] = struct.pack("<8Q", 0xDEADBEAD, 1, 512, at, count, len(entries), len(links), len(inodes))
    for block, content in contents.items():
        image[block * 512 : block * 512 + len(content)] = content
    return bytes(image)
