"""Machine types on Google: what Compute Engine says of one in a zone or region.

It tells processors, memory and architecture. Which disk and which network card a type gives its guests, no answer
tells: that follows from the series.

Sources: Compute Engine API reference, machineTypes; Compute Engine guide, "Machine families", "Choose a network
interface", "Choose a disk interface".
"""

from __future__ import annotations

from dataclasses import dataclass

from osvdeploy.cloud.gcp.scope import area_of, last
from osvdeploy.cloud.gcp.session import Gcp
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
    """The machine types of a zone, or of a region: those that any zone of it has."""

    def __init__(self, gcp: Gcp, place: str) -> None:
        self._gcp = gcp
        self.place = place
        self._zones: tuple[str, ...] = ()

    def describe(self, ctx: Context, name: str) -> GceMachineType | None:
        """None where there is no type of that name."""
        for zone in self._in(ctx):
            try:
                found = self._gcp.get(ctx, f"{self._types(zone)}/{name}", f"machine type {name}")
            except NotFound:
                continue
            architecture = str(found.get("architecture", "X86_64"))
            return GceMachineType(
                int(found["guestCpus"]),
                int(found["memoryMb"]) * MIB,
                ARCHITECTURES.get(architecture, architecture.lower()),
            )
        return None

    def names(self, ctx: Context) -> list[str]:
        """Of all that there are, sorted."""
        found: set[str] = set()
        for zone in self._in(ctx):
            pages = self._gcp.pages(ctx, self._types(zone), f"machine types of {zone}")
            found |= {str(each["name"]) for page in pages for each in page.get("items", [])}
        return sorted(found)

    def _in(self, ctx: Context) -> tuple[str, ...]:
        """The zone, or the region's."""
        if not self._zones:
            area = area_of(self.place)
            if area.startswith("zones/"):
                self._zones = (self.place,)
            else:
                found = self._gcp.get(ctx, f"{self._gcp.project_path}/{area}", f"region {self.place}")
                self._zones = tuple(last(each) for each in found.get("zones", []))
        return self._zones

    def _types(self, zone: str) -> str:
        return f"{self._gcp.project_path}/zones/{zone}/machineTypes"
