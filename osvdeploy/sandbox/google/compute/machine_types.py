"""Compute Engine's machine types, those that are most used: in every zone that looks like one.

Source: "Machine families resource and comparison guide" (processors and memory of each).
"""

from __future__ import annotations

import re
from typing import Any, Final

from osvdeploy.sandbox.errors import ApiError
from osvdeploy.sandbox.google.compute.lists import page_of
from osvdeploy.sandbox.google.compute.operations import Wire, number_of
from osvdeploy.sandbox.google.wire import BASE
from osvdeploy.sandbox.services.scope import Doc, Scope

_ZONE = re.compile(r"[a-z]+-[a-z]+[0-9]+-[a-z]")

_SHARED: Final = {
    "f1-micro": (1, 614),
    "g1-small": (1, 1740),
    "e2-micro": (2, 1024),
    "e2-small": (2, 2048),
    "e2-medium": (2, 4096),
}
"""Virtual processors and MB."""

_STANDARD: Final = {
    "c2": ((4, 8, 16, 30, 60), 4096),
    "c2d": ((2, 4, 8, 16, 32, 56, 112), 4096),
    "c3": ((4, 8, 22, 44, 88, 176), 4096),
    "c4": ((2, 4, 8, 16, 24, 32, 48, 96, 144, 192, 288), 3840),
    "c4a": ((1, 2, 4, 8, 16, 32, 48, 64, 72), 4096),
    "e2": ((2, 4, 8, 16, 32), 4096),
    "n1": ((1, 2, 4, 8, 16, 32, 64, 96), 3840),
    "n2": ((2, 4, 8, 16, 32, 48, 64, 80, 96, 128), 4096),
    "n2d": ((2, 4, 8, 16, 32, 48, 64, 80, 96, 128, 224), 4096),
    "n4": ((2, 4, 8, 16, 32, 48, 64, 80), 4096),
    "t2a": ((1, 2, 4, 8, 16, 32, 48), 4096),
    "t2d": ((1, 2, 4, 8, 16, 32, 48, 60), 4096),
}
"""Sizes of the ``standard`` types of a series, and MB for each processor."""

_ARM: Final = frozenset({"c4a", "t2a"})


def _all() -> dict[str, tuple[int, int]]:
    standard = {
        f"{series}-standard-{size}": (size, size * memory)
        for series, (sizes, memory) in _STANDARD.items()
        for size in sizes
    }
    return {**_SHARED, **standard}


_TYPES: Final = _all()


def processors(name: str) -> int:
    """Virtual processors of a type; 0 for none that is known."""
    return _TYPES.get(name, (0, 0))[0]


def is_arm(name: str) -> bool:
    return name.partition("-")[0] in _ARM


def get(scope: Scope, params: Wire) -> Doc:
    zone, name = _zone(params), params["machineType"]
    if name not in _TYPES:
        told = f"The resource 'projects/{params['project']}/zones/{zone}/machineTypes/{name}' was not found"
        raise ApiError("notFound", told, 404)
    return _shown(params, _resource(zone, name))


def list_all(scope: Scope, params: Wire) -> Doc:
    zone = _zone(params)
    base = f"{params[BASE]}/compute/v1/projects/{params['project']}/zones/{zone}/machineTypes"
    found = [_resource(zone, name) for name in _TYPES]
    return page_of("compute#machineTypeList", base, found, params, lambda each: _shown(params, each))


def _zone(params: Wire) -> str:
    zone: str = params["zone"]
    if not _ZONE.fullmatch(zone):
        raise ApiError("invalid", f"Invalid value for field 'zone': '{zone}'. Unknown zone.")
    return zone


def _resource(zone: str, name: str) -> Doc:
    cpus, memory = _TYPES[name]
    shared: dict[str, Any] = {"isSharedCpu": name in _SHARED}
    return {
        "kind": "compute#machineType",
        "id": number_of(name),
        "name": name,
        "guestCpus": cpus,
        "memoryMb": memory,
        "zone": zone,
        "architecture": "ARM64" if is_arm(name) else "X86_64",
        **shared,
    }


def _shown(params: Wire, resource: Wire) -> Doc:
    path = f"projects/{params['project']}/zones/{resource['zone']}/machineTypes/{resource['name']}"
    return {**resource, "selfLink": f"{params[BASE]}/compute/v1/{path}"}
