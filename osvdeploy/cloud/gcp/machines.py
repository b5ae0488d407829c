"""Machine types on Google: what Compute Engine says of one in a zone.

It tells processors, memory and architecture. Which disk and which network card a type gives its guests, no answer
tells: that follows from the series.

Sources: Compute Engine API reference, machineTypes; Compute Engine guide, "Machine families", "Choose a network
interface", "Choose a disk interface".
"""

from __future__ import annotations

from dataclasses import dataclass

from osvdeploy.cloud.gcp.session import Document, Gcp
from osvdeploy.context import Context
from osvdeploy.errors import NotFound
from osvdeploy.sizes import MIB

ARCHITECTURES = {"X86_64": "x86_64", "ARM64": "aarch64"}


@dataclass(frozen=True, slots=True)
class GceMachineType:
    """What Google tells of one: virtual processors, bytes of memory, and the architecture in Linux's word."""

    cpus: int
    memory: int
    architecture: str


class GceMachineTypes:
    """The machine types of one zone."""

    def __init__(self, gcp: Gcp, zone: str) -> None:
        self._gcp = gcp
        self.zone = zone

    def describe(self, ctx: Context, name: str) -> GceMachineType | None:
        """None where the zone has no type of that name."""
        try:
            found = self._gcp.get(ctx, f"{self._types}/{name}", f"machine type {name}")
        except NotFound:
            return None
        architecture = str(found.get("architecture", "X86_64"))
        return GceMachineType(
            int(found["guestCpus"]),
            int(found["memoryMb"]) * MIB,
            ARCHITECTURES.get(architecture, architecture.lower()),
        )

    def names(self, ctx: Context) -> list[str]:
        """Of all that the zone has, sorted."""
        pages = self._gcp.pages(ctx, self._types, f"machine types of {self.zone}")
        found: list[Document] = [each for page in pages for each in page.get("items", [])]
        return sorted(str(each["name"]) for each in found)

    @property
    def _types(self) -> str:
        return f"{self._gcp.project_path}/zones/{self.zone}/machineTypes"
