"""ROFS, OSv's read-only file system: its format, a layout that keeps still, a writer and a strict reader."""

from osvdeploy.osv.rofs.fingerprint import Fingerprint, fingerprint, fingerprints
from osvdeploy.osv.rofs.format import BLOCK_SIZE, Superblock, rofs_digest
from osvdeploy.osv.rofs.reader import RofsDirectory, RofsFile, RofsReader, RofsSymlink, read_rofs
from osvdeploy.osv.rofs.writer import Placed, Rofs, RofsLayout, lay_out, write_at, write_on_disk, write_rofs

__all__ = [
    "BLOCK_SIZE",
    "Fingerprint",
    "Placed",
    "Rofs",
    "RofsDirectory",
    "RofsFile",
    "RofsLayout",
    "RofsReader",
    "RofsSymlink",
    "Superblock",
    "fingerprint",
    "fingerprints",
    "lay_out",
    "read_rofs",
    "rofs_digest",
    "write_at",
    "write_on_disk",
    "write_rofs",
]
