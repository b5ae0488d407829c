"""Projects whose programs build an app, or deploy one."""

from __future__ import annotations

from pathlib import Path

from tests.cli.projects import SPEC
from tests.osv.images import LZLOADER, loader_image

PROGRAM = """
import pulumi
import pulumi_osvdeploy as osvdeploy

config = pulumi.Config()
image = osvdeploy.Image(
    "app",
    file="app",
    set={"version": config.get("version") or "1.0.0"},
)
pulumi.export("digest", image.digest)
pulumi.export("version", image.version)
pulumi.export("where", image.disk.path)
"""

DEPLOYMENT_AWS = """
import json
import pulumi
import pulumi_osvdeploy as osvdeploy

config = pulumi.Config()
network = json.loads(config.require("network"))
deployment = osvdeploy.aws.BlueGreenDeployment(
    "hello",
    image=config.require("image"),
    environment="test",
    listener_arn=network["listenerArn"],
    subnet_ids=network["subnetIds"],
    security_group_ids=network["securityGroupIds"],
    instance_type="t3.small",
    capacity=1,
    route=osvdeploy.DeploymentRouteArgs(path="/*", priority=100),
    port=8080,
    health=osvdeploy.DeploymentHealthArgs(
        path="/healthz", version_header="x-release", min_ready="0s", boot_timeout="30s"
    ),
    strategy=config.get_object("strategy") or osvdeploy.DeploymentStrategyArgs(bake=config.get("bake") or "0s"),
    gates=config.get_object("gates"),
    hooks=config.get_object("hooks"),
    notify=config.get_object("notify"),
)
pulumi.export("release", deployment.active_release)
pulumi.export("status", deployment.status)
"""

DEPLOYMENT_GOOGLE = """
import json
import pulumi
import pulumi_osvdeploy as osvdeploy

config = pulumi.Config()
network = json.loads(config.require("network"))
deployment = osvdeploy.gcp.BlueGreenDeployment(
    "hello",
    image=config.require("image"),
    environment="test",
    url_map=network["urlMap"],
    zone="europe-west1-b",
    capacity=1,
    route=osvdeploy.DeploymentRouteArgs(path="/*", priority=100),
    port=8080,
    health=osvdeploy.DeploymentHealthArgs(path="/healthz", min_ready="0s", boot_timeout="30s"),
    strategy=osvdeploy.DeploymentStrategyArgs(bake=config.get("bake") or "0s"),
    gates=config.get_object("gates"),
    hooks=config.get_object("hooks"),
    notify=config.get_object("notify"),
)
pulumi.export("release", deployment.active_release)
pulumi.export("status", deployment.status)
"""

AGAINST_ONE = """#!/bin/sh
case "$1" in hello-1.1.0-*) echo 5 ;; *) echo 0 ;; esac
"""
"""A gate's command that counts against 1.1.0 alone."""

EVERY_SECOND = """#!/bin/sh
cd "$(dirname "$0")" && if [ -e odd ]; then rm odd; echo 5; else touch odd; echo 0; fi
"""
"""One that counts against a release each second time that it is asked."""

SMOKE = """#!/bin/sh
if grep -q '"candidate": *"hello-1.1.0-'; then echo "it smokes"; exit 1; fi
"""
"""A hook's command that fails for 1.1.0 alone."""

NOTE = """#!/bin/sh
cat >> "$(dirname "$0")/noted"
"""
"""One that keeps what it is told."""


def app_folder(tmp_path: Path) -> Path:
    """A program's folder, with an app in it."""
    folder = tmp_path / "program"
    (folder / "app").mkdir(parents=True)
    (folder / "app" / "loader.img").write_bytes(loader_image(payload=LZLOADER))
    (folder / "app" / "osv.toml").write_text(SPEC)
    (folder / "app" / "app").write_bytes(b"a program")
    return folder
