"""What a live run is told by its environment, and what is missing of it. docs/live.md lists the variables."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

BUDGET = "OSVDEPLOY_LIVE_BUDGET"
AWS_REGION = "OSVDEPLOY_LIVE_AWS_REGION"
AWS_MACHINE_TYPE = "OSVDEPLOY_LIVE_AWS_MACHINE_TYPE"
GCP_PROJECT = "OSVDEPLOY_LIVE_GCP_PROJECT"
GCP_ZONE = "OSVDEPLOY_LIVE_GCP_ZONE"
GCP_MACHINE_TYPE = "OSVDEPLOY_LIVE_GCP_MACHINE_TYPE"
KERNEL = "OSV_KERNEL"
SPEED = "OSVDEPLOY_LIVE_SPEED"

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Account(StrEnum):
    """Where live tests run."""

    AWS = "aws"
    GCP = "gcp"


VARIABLES = {
    BUDGET: "what a run may cost at most, in USD",
    AWS_REGION: "the region on AWS that tests may use",
    AWS_MACHINE_TYPE: "the instance type of guests there",
    GCP_PROJECT: "the project on Google that tests may use",
    GCP_ZONE: "the zone of guests there",
    GCP_MACHINE_TYPE: "the machine type of guests there",
    KERNEL: "a loader.img of OSv, the kernel of guests",
    SPEED: "how many times as fast as the cloud the sandbox is that stands in for an account",
}
"""All of them, and what each holds."""

PLACES = {Account.AWS: (AWS_REGION,), Account.GCP: (GCP_PROJECT, GCP_ZONE)}
"""Those that say which account is meant. None has a default: nobody's account is used by accident."""


def missing(account: Account, *, guests: bool = False, environ: Mapping[str, str] = os.environ) -> str | None:
    """Why an account's tests cannot run, those that start ``guests`` or others, naming the variable; None where they
    can."""
    if (reason := _unset(BUDGET, environ) or _no_number(BUDGET, environ) or no_place(account, environ)) is not None:
        return reason
    if guests and not is_sandbox(account, environ):
        return _unset(KERNEL, environ) or cannot_serve(account, Path(environ[KERNEL]), machine_type(account, environ))
    return None


@functools.cache
def cannot_serve(account: Account, kernel: Path, machine: str) -> str | None:
    """Why a kernel has no chance on a machine type, as far as its bytes tell: tests would wait for it, and pay."""
    # Imported here: whoever collects the suites imports this module.
    from osvdeploy.checks import places
    from osvdeploy.checks.finding import Severity
    from osvdeploy.checks.preflight import serves
    from osvdeploy.errors import OsvDeployError
    from osvdeploy.osv.kernel_image import read_kernel_facts

    place = places.named(account, machine)
    try:
        facts = read_kernel_facts(kernel, name=KERNEL)
    except OsvDeployError as error:
        return str(error)
    found = serves(facts, place) if place is not None else []
    refused = [finding for finding in found if finding.severity is Severity.ERROR]
    return f"{KERNEL} does not serve on {machine}: {refused[0].what} ({refused[0].rule})" if refused else None


def no_place(account: Account, environ: Mapping[str, str] = os.environ) -> str | None:
    """Why it cannot be told which account is meant, None where it can."""
    for name in PLACES[account]:
        if (reason := _unset(name, environ)) is not None:
            return reason
    if environ.get(SPEED) and not is_sandbox(account, environ):
        return f"{SPEED} is set, and {account} is no sandbox here: an account goes at its own pace"
    return _no_number(SPEED, environ)


def _unset(name: str, environ: Mapping[str, str]) -> str | None:
    return None if environ.get(name) else f"{name} is not set: {VARIABLES[name]} (docs/live.md)"


def _no_number(name: str, environ: Mapping[str, str]) -> str | None:
    text = environ.get(name) or "1"
    try:
        right = 0 < float(text) < float("inf")
    except ValueError:
        right = False
    return None if right else f"{name} is {text!r}: {VARIABLES[name]}, a number above 0"


def is_sandbox(account: Account, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether an account's endpoints are this machine's, as `osvdeploy sandbox env` sets them."""
    names = {
        Account.AWS: ("AWS_ENDPOINT_URL",),
        Account.GCP: ("OSVDEPLOY_GCP_COMPUTE_ENDPOINT", "STORAGE_EMULATOR_HOST"),
    }
    return all(urlsplit(environ.get(name, "")).hostname in _LOOPBACK for name in names[account])


def machine_type(account: Account, environ: Mapping[str, str] = os.environ) -> str:
    """Of guests."""
    if account is Account.AWS:
        return environ.get(AWS_MACHINE_TYPE) or "t3.nano"
    return environ.get(GCP_MACHINE_TYPE) or "e2-small"


def speed(environ: Mapping[str, str] = os.environ) -> float:
    return float(environ.get(SPEED) or 1)


def budget(environ: Mapping[str, str] = os.environ) -> float:
    """In USD."""
    return float(environ.get(BUDGET) or 0)


def kernel(environ: Mapping[str, str] = os.environ) -> Path | None:
    return Path(environ[KERNEL]) if environ.get(KERNEL) else None
