"""ROFS, OSv's read-only file system: its format, a layout that keeps still, a writer and a strict reader."""

from osvdeploy.osv.rofs.format import BLOCK_SIZE, Superblock, rofs_digest
from osvdeploy.osv.rofs.layout import Outline, Placed, RofsLayout, lay_out, outline_of
from osvdeploy.osv.rofs.reader import RofsDirectory, RofsFile, RofsReader, RofsSymlink, read_rofs
from osvdeploy.osv.rofs.reading import digests_of
from osvdeploy.osv.rofs.writer import Draft, Rofs, write_at, write_on_disk, write_rofs

__all__ = [
    "BLOCK_SIZE",
    "Draft",
    "Outline",
    "Placed",
    "Rofs",
    "RofsDirectory",
    "RofsFile",
    "RofsLayout",
    "RofsReader",
    "RofsSymlink",
    "Superblock",
    "digests_of",
    "lay_out",
    "outline_of",
    "read_rofs",
    "rofs_digest",
    "write_at",
    "write_on_disk",
    "write_rofs",
]
