"""Where a kernel comes from: a file beside the spec, a release of OSv, an address.

Releases (github.com/cloudius-systems/osv/releases) are asked for by tag and variant. Their ``*.qemu.x86_64`` is a plain
loader.img; until v0.55 there was one, and its name had no architecture. OSv publishes no checksums, so osv.lock pins.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from osvdeploy.errors import UsageError

RELEASES_VARIABLE = "OSVDEPLOY_KERNEL_RELEASES"
"""Environment variable with the address under which TAG/ASSET is found, for mirrors."""

RELEASES = "https://github.com/cloudius-systems/osv/releases/download"

TAG = r"v[0-9]+\.[0-9]+(\.[0-9]+)?[A-Za-z0-9.+-]{0,40}"


class Variant(StrEnum):
    """Which of a release's kernels."""

    LOADER = "loader"
    """Every driver and every symbol; libstdc++ inside."""
    HIDDEN = "hidden"
    """The C library's symbols alone: smaller, and a C++ program needs libstdc++ in its image."""
    WITH_ZFS = "with-zfs"
    WITH_ZFS_HIDDEN = "with-zfs-hidden"
    MICROVM = "microvm"
    """virtio over MMIO, and no PCI: for Firecracker and QEMU's microvm, and for no cloud."""


@dataclass(frozen=True, slots=True)
class FileKernel:
    """A loader.img, by its path as the spec writes it."""

    path: str

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True, slots=True)
class ReleaseKernel:
    """A kernel of a release of OSv."""

    tag: str
    variant: Variant = Variant.LOADER

    def __str__(self) -> str:
        return self.tag if self.variant is Variant.LOADER else f"{self.tag}/{self.variant.value}"


@dataclass(frozen=True, slots=True)
class UrlKernel:
    """A loader.img at an address, plain or gzip."""

    url: str

    def __str__(self) -> str:
        return self.url


KernelSource: TypeAlias = FileKernel | ReleaseKernel | UrlKernel
RemoteKernel: TypeAlias = ReleaseKernel | UrlKernel


def parse_source(text: str) -> KernelSource:
    """What a command line names: an address, a release ``v0.57.0`` or ``v0.57.0/hidden``, else a file.

    Raises UsageError for a release's variant that no release has.
    """
    if re.match(r"https?://", text):
        return UrlKernel(text)
    tag, slash, variant = text.partition("/")
    if re.fullmatch(TAG, tag) is None or (not slash and os.path.lexists(text)):
        return FileKernel(text)
    try:
        return ReleaseKernel(tag, Variant(variant) if slash else Variant.LOADER)
    except ValueError:
        known = ", ".join(each.value for each in Variant)
        raise UsageError(f"{text}: no release has a kernel {variant!r}", hint=f"there are {known}") from None


def address_of(source: RemoteKernel) -> str:
    """Where it is downloaded from. Raises UsageError where there is no such thing."""
    if isinstance(source, UrlKernel):
        return source.url
    base = os.environ.get(RELEASES_VARIABLE) or RELEASES
    if not base.startswith(("http://", "https://")):
        raise UsageError(f"{RELEASES_VARIABLE}: {base} is no http:// or https:// address")
    return f"{base.rstrip('/')}/{source.tag}/{_asset(source)}"


def _asset(source: ReleaseKernel) -> str:
    numbers = re.match(r"v([0-9]+)\.([0-9]+)", source.tag)
    assert numbers is not None, source.tag
    if (int(numbers[1]), int(numbers[2])) > (0, 55):
        suffix = "" if source.variant is Variant.LOADER else f"-{source.variant.value}"
        return f"osv-loader{suffix}.qemu.x86_64"
    if source.variant is not Variant.LOADER:
        raise UsageError(f"{source}: OSv's releases until v0.55 have one kernel alone", hint="leave `variant` out")
    return "osv-loader.qemu"


def source_table(source: KernelSource) -> dict[str, str]:
    """A source by the keys that [kernel] has for it."""
    match source:
        case FileKernel(path):
            return {"file": path}
        case ReleaseKernel(tag, Variant.LOADER):
            return {"release": tag}
        case ReleaseKernel(tag, variant):
            return {"release": tag, "variant": variant.value}
        case UrlKernel(url):
            return {"url": url}


def source_of(table: Mapping[str, object]) -> KernelSource:
    """Back from its keys. Raises ValueError for what is none, or more than one."""
    match dict(table):
        case {"file": str(path), **rest} if not rest:
            return FileKernel(path)
        case {"release": str(tag), **rest} if rest.keys() <= {"variant"}:
            return ReleaseKernel(tag, Variant(str(rest.get("variant", "loader"))))
        case {"url": str(url), **rest} if not rest:
            return UrlKernel(url)
    raise ValueError("no source of a kernel")
