"""Will an image run in QEMU here: the rules for places, asked of a disk as it is, whoever made it.

A machine here is for trying. What would not boot in it is refused all the same, since OSv seldom says why; what would
only be without a network is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from osvdeploy.checks.finding import Finding, Severity
from osvdeploy.checks.places import Place
from osvdeploy.checks.preflight import Contents, ImageFacts, preflight
from osvdeploy.errors import KernelInvalid
from osvdeploy.osv.anatomy import Anatomy, FileSystem, kernel_facts
from osvdeploy.osv.cmdline import options_of
from osvdeploy.osv.disk import RandomAccess
from osvdeploy.osv.kernel import Payload
from osvdeploy.osv.kernel_facts import KernelFacts
from osvdeploy.osv.rofs import RofsReader

_FILE_SYSTEMS = {FileSystem.ROFS: "rofs", FileSystem.ZFS: "zfs", FileSystem.EXT: "ext"}


def disk_findings(source: RandomAccess, anatomy: Anatomy, line: bytes, place: Place) -> list[Finding]:
    """What the rules find of a disk that was taken apart and will boot with this command line at ``place``."""
    options = options_of(line)
    fs = "ramfs" if anatomy.root is None else _FILE_SYSTEMS.get(anatomy.root.file_system)
    tree = None if anatomy.root is None else anatomy.root.tree
    image = ImageFacts(
        options=options,
        # Without one on the disk the files are in the kernel, or come from outside.
        fs=fs or next((value for name, value in options if name == "rootfs" and value), "ramfs"),
        kernel_size=0 if anatomy.kernel is None else anatomy.kernel.extent.end,
        contents=None if tree is None else _contents(tree),
    )
    return at_hand(preflight(_facts(source, anatomy), image, place))


_CURES: Final[Mapping[str, str]] = {
    "disk-driver": "{cure}; or hang the disk on another with --disk",
    "memory": "give the machine more with --memory, or put fewer files into the image",
    "nopci": "boot without it: --boot nopci=false",
    "rofs-cache": "give the machine more with --memory, or boot with --boot disable_rofs_cache",
}
"""What to do about a machine that is made by options."""


def at_hand(findings: Iterable[Finding]) -> list[Finding]:
    """The same of the machine that ``osvdeploy run`` makes: other cures, and a guest without a network still runs."""
    return [_at_hand(finding) for finding in findings]


def _at_hand(finding: Finding) -> Finding:
    cure = _CURES.get(finding.rule, "{cure}").replace("{cure}", finding.cure)
    severity = Severity.WARNING if finding.rule == "network-driver" else finding.severity
    return replace(finding, cure=cure, severity=severity)


def faults(anatomy: Anatomy) -> list[str]:
    """What is wrong with a disk as far as it matters to OSv: with the whole of it, and with its root."""
    root = anatomy.root
    return [*anatomy.problems, *([root.problem] if root is not None and root.problem else [])]


def _facts(source: RandomAccess, anatomy: Anatomy) -> KernelFacts | None:
    kernel = anatomy.kernel
    if kernel is None or kernel.payload is Payload.UNKNOWN:
        return None
    try:
        return kernel_facts(source, kernel)
    except KernelInvalid:
        return None


def _contents(tree: RofsReader) -> Contents:
    size = sum(-(-size // 512) * 512 for _, size in tree.contents())
    return Contents(tree.superblock.tables_blocks * 512, size, size)
