"""Projects whose programs build an app."""

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


def app_folder(tmp_path: Path) -> Path:
    """A program's folder, with an app in it."""
    folder = tmp_path / "program"
    (folder / "app").mkdir(parents=True)
    (folder / "app" / "loader.img").write_bytes(loader_image(payload=LZLOADER))
    (folder / "app" / "osv.toml").write_text(SPEC)
    (folder / "app" / "app").write_bytes(b"a program")
    return folder
