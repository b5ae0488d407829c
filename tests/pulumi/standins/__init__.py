"""Stand-ins for the providers of the clouds' own resources, `pulumi-resource-aws` say: no registry has those plugins.

A program with `pulumi_aws` in it runs whole against one: the few types that our stacks use are made in the sandbox by
the cloud's own SDK, and answer with the properties that Pulumi's classes have. What is not served is refused.
:mod:`tests.pulumi.standins.cloud` is what all of them share; each cloud has a module that ends in `serve(...)`.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
PACKAGES = ("aws", "gcp")


def command(package: str) -> list[str]:
    """What starts the stand-in of a package, ``aws`` say, where this checkout can be imported."""
    return [sys.executable, "-m", f"{__name__}.{package}"]


def put_into(folder: Path, package: str) -> Path:
    """Write ``pulumi-resource-PACKAGE`` into a folder: for PATH, or for `plugins.providers` of a Pulumi.yaml."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / f"pulumi-resource-{package}"
    path = f'PYTHONPATH={shlex.quote(str(ROOT))}"${{PYTHONPATH:+{os.pathsep}$PYTHONPATH}}"'
    script.write_text(f'#!/bin/sh\n{path} exec {shlex.join(command(package))} "$@"\n')
    script.chmod(0o755)
    return script


def all_in(folder: Path) -> Path:
    """Write all of them into a folder. Pulumi's command wants the plugin of each SDK that a program's Python has."""
    for package in PACKAGES:
        put_into(folder, package)
    return folder
