"""The clouds in one sandbox on a socket, and disks of an app for resources that make images of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import requests

from osvdeploy.provider.values import Value
from osvdeploy.sandbox import control
from osvdeploy.sandbox.core import Sandbox
from osvdeploy.sandbox.http import Shell
from osvdeploy.sandbox.runners.inline import InlineRunner
from tests.pulumi.process import ProviderProcess, running
from tests.pulumi.projects import app_folder

SPEED = 50.0
PROJECT = "compute/v1/projects/acme-prod/global"
WAIVED = """
[waive]
program-not-elf = "a few bytes of text"
disk-driver = "the kernel is none that drives NVMe"
network-driver = "nor ENA"
"""


@dataclass
class Clouds:
    """A sandbox, and a provider process in a program's folder that has an app."""

    shell: Shell
    folder: Path
    environ: Mapping[str, str]
    provider: ProviderProcess

    @property
    def ledger(self) -> Path:
        return self.folder.parent / "ledger"

    def aws(self, service: Any) -> Any:
        """boto3's client."""
        session = boto3.Session(control.ACCESS_KEY, control.SECRET_KEY)
        return session.client(service, region_name=control.REGION, endpoint_url=self.shell.url)

    def amis(self, **by: str) -> dict[str, dict[str, Any]]:
        """The AMIs by their names."""
        filters = [{"Name": name.replace("_", "-"), "Values": [value]} for name, value in by.items()]
        found = self.aws("ec2").describe_images(Owners=["self"], Filters=filters)["Images"]
        return {each["Name"]: each for each in found}

    def snapshots(self) -> set[str]:
        return {each["SnapshotId"] for each in self.aws("ec2").describe_snapshots(OwnerIds=["self"])["Snapshots"]}

    def google(self) -> dict[str, dict[str, Any]]:
        """The images on Google by their names."""
        found = requests.get(f"{self.shell.url}/{PROJECT}/images", timeout=10).json().get("items", [])
        return {each["name"]: each for each in found}

    def disk(self, version: str, name: str = "app") -> dict[str, Value]:
        """The `disk` of an Image of the app."""
        inputs, failures = self.provider.check(
            "osvdeploy:index:Image", {"file": "app", "set": {"name": name, "version": version}}
        )
        assert failures == []
        _, outputs = self.provider.create("osvdeploy:index:Image", inputs)
        disk = outputs["disk"]
        assert isinstance(disk, dict)
        return disk

    def made(self, token: str, given: dict[str, Value], **more: Any) -> tuple[str, dict[str, Value], dict[str, Value]]:
        """What is checked and created: its id, inputs and outputs."""
        inputs, failures = self.provider.check(token, given, **more)
        assert failures == []
        id, outputs = self.provider.create(token, inputs, timeout=0.0, **more)
        return id, inputs, outputs


@contextmanager
def clouds(home: Path) -> Iterator[Clouds]:
    """The clouds, with a bucket in each."""
    shell = Shell(Sandbox(runner=InlineRunner(), speed=SPEED))
    shell.start()
    environ = {
        "OSVDEPLOY_CACHE": str(home / "cache"),
        "OSVDEPLOY_STATE": str(home / "state"),
        "OSVDEPLOY_LEDGER": str(home / "ledger"),
        "AWS_ENDPOINT_URL": shell.url,
        "AWS_ACCESS_KEY_ID": control.ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": control.SECRET_KEY,
        "AWS_REGION": control.REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "GOOGLE_CLOUD_PROJECT": "acme-prod",
        "OSVDEPLOY_GCP_COMPUTE_ENDPOINT": shell.url,
        "STORAGE_EMULATOR_HOST": shell.url,
        "OSVDEPLOY_PROPAGATION": "5s",
        "OSVDEPLOY_DRAIN": "1s",
        "NO_PROXY": "127.0.0.0/8",
        "no_proxy": "127.0.0.0/8",
    }
    folder = app_folder(home)
    spec = folder / "app" / "osv.toml"
    spec.write_text(spec.read_text() + WAIVED)
    try:
        bucket = {"name": "acme-images", "location": "EU"}
        assert requests.post(f"{shell.url}/storage/v1/b?project=acme-prod", json=bucket, timeout=10).ok
        with running(folder, environ) as provider:
            yield Clouds(shell, folder, environ, provider)
    finally:
        shell.stop()
