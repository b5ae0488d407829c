"""ROFS, OSv's read-only file system: its format, a streaming writer and a strict reader."""

from osvdeploy.osv.rofs.format import BLOCK_SIZE, Superblock
from osvdeploy.osv.rofs.reader import RofsDirectory, RofsFile, RofsReader, RofsSymlink, read_rofs
from osvdeploy.osv.rofs.writer import Rofs, RofsLayout, lay_out, write_rofs

__all__ = [
    "BLOCK_SIZE",
    "Rofs",
    "RofsDirectory",
    "RofsFile",
    "RofsLayout",
    "RofsReader",
    "RofsSymlink",
    "Superblock",
    "lay_out",
    "read_rofs",
    "write_rofs",
]
