"""The least of qcow2: what scripts/build leaves, written and read without QEMU. As a program, the two uses of qemu-img
that a build makes:

    python qcow2.py --version | info --output=json FILE | convert -f qcow2 -O raw -S 4k FILE RAW
"""

from __future__ import annotations

import json
import os
import struct
import sys
from pathlib import Path

CLUSTER_BITS = 16
CLUSTER = 1 << CLUSTER_BITS
_HEADER = struct.Struct(">4sIQIIQIIQQIIQ")
_COPIED = 1 << 63
_PER_TABLE = CLUSTER // 8


def write_qcow2(path: Path, content: bytes, size: int) -> None:
    """``content`` from the start of a disk of ``size`` bytes; clusters of zeros are not there."""
    tables = -(-size // (CLUSTER * _PER_TABLE))
    chunks = {at // CLUSTER: content[at : at + CLUSTER] for at in range(0, len(content), CLUSTER)}
    kept = {index: chunk for index, chunk in chunks.items() if any(chunk)}
    used = sorted({index // _PER_TABLE for index in kept})
    first_l2 = 4  # header, refcount table, refcount block, L1
    first_data = first_l2 + len(used)
    l1, l2, data = [0] * tables, {table: [0] * _PER_TABLE for table in used}, []
    for number, table in enumerate(used):
        l1[table] = (first_l2 + number) * CLUSTER | _COPIED
    for number, (index, chunk) in enumerate(kept.items()):
        l2[index // _PER_TABLE][index % _PER_TABLE] = (first_data + number) * CLUSTER | _COPIED
        data.append(chunk.ljust(CLUSTER, b"\0"))
    clusters = first_data + len(data)
    assert clusters <= CLUSTER // 2 and tables * 8 <= CLUSTER, "more than one block of reference counts"
    header = _HEADER.pack(b"QFI\xfb", 2, 0, 0, CLUSTER_BITS, size, 0, tables, 3 * CLUSTER, CLUSTER, 1, 0, 0)
    blocks = [header, struct.pack(">Q", 2 * CLUSTER), struct.pack(">H", 1) * clusters, struct.pack(f">{tables}Q", *l1)]
    blocks += [struct.pack(f">{_PER_TABLE}Q", *l2[table]) for table in used]
    path.write_bytes(b"".join([*(block.ljust(CLUSTER, b"\0") for block in blocks), *data]))


def read_size(path: Path) -> int | None:
    """Bytes of the disk; None for what is no qcow2."""
    head = path.read_bytes()[: _HEADER.size]
    if head[:4] != b"QFI\xfb":
        return None
    return int(_HEADER.unpack(head)[5])


def to_raw(path: Path, raw: Path) -> None:
    content = path.read_bytes()
    size, tables, l1_at = (_HEADER.unpack(content[: _HEADER.size])[index] for index in (5, 7, 8))
    with raw.open("wb") as file:
        file.truncate(size)
        for table, l2_at in enumerate(struct.unpack_from(f">{tables}Q", content, l1_at)):
            if not l2_at:
                continue
            for slot, at in enumerate(struct.unpack_from(f">{_PER_TABLE}Q", content, l2_at & ~_COPIED)):
                if at:
                    start = (table * _PER_TABLE + slot) * CLUSTER
                    os.pwrite(file.fileno(), content[at & ~_COPIED :][: min(CLUSTER, size - start)], start)


def main() -> None:
    match sys.argv[1:]:
        case ["--version"]:
            print("qemu-img version 0.0 of a test")
        case ["info", "--output=json", file]:
            size = read_size(Path(file))
            print(json.dumps({"virtual-size": size or Path(file).stat().st_size, "format": "qcow2" if size else "raw"}))
        case ["convert", "-f", "qcow2", "-O", "raw", "-S", "4k", file, raw]:
            to_raw(Path(file), Path(raw))
        case _:
            sys.exit(f"a qemu-img of a test knows no {sys.argv[1:]}")


if __name__ == "__main__":
    main()
