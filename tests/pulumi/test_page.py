"""What docs/pulumi.md says is what there is."""

from __future__ import annotations

import re
from pathlib import Path

from osvdeploy.provider.declare import properties
from osvdeploy.provider.registry import RESOURCES
from osvdeploy.provider.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "pulumi.md").read_text()


def rows(heading: str) -> list[str]:
    """The names in the first column of a section's tables."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [name for row in re.findall(r"^\| (`.*?) \|", section, re.M) for name in re.findall(r"`([^`]+)`", row)]


def test_every_setting_stands_on_the_page() -> None:
    """In the order of the declaration, and no other."""
    assert rows("Configuration") == list(properties(Settings))


def test_every_property_stands_on_the_page() -> None:
    """Each resource has a section with all of its inputs and outputs, and no other."""
    for token, resource in RESOURCES.items():
        _, module, name = token.split(":")
        heading = name if module == "index" else f"{module}.{name}"
        declared = {*properties(resource.INPUTS), *properties(resource.OUTPUTS)}
        assert set(rows(heading)) == declared, heading
