"""What docs/spec.md shows is what is read."""

from __future__ import annotations

import re
from pathlib import Path

from osvdeploy.spec.boot import OPTIONS
from tests.spec.specs import on_aws, read

PAGE = (Path(__file__).parents[2] / "docs" / "spec.md").read_text()


def test_the_examples_are_a_spec() -> None:
    """The blocks of the page, one after the other, are one osv.toml."""
    spec = read("\n".join(re.findall(r"```toml\n(.*?)```", PAGE, re.S)), environ={"HELLO_LISTENER": "arn:aws:x"})

    assert list(spec.deploy) == ["production", "europe", "google", "tcp"]
    assert spec.image.boot_options() == (("power-off-on-abort", None), ("mount-fs", "ramfs,none,/scratch"))


def test_the_overrides_shown_are_taken() -> None:
    """Each --set of the page works on the page's spec."""
    sets = re.findall(r"--set\s+(\S+?=[^\s`]+)", PAGE.replace("--set path=value", ""))
    spec = read("\n".join(re.findall(r"```toml\n(.*?)```", PAGE, re.S)), environ={"HELLO_LISTENER": "x"}, sets=sets)

    assert len(sets) == 3
    assert (spec.version, on_aws(spec).capacity, spec.files[0].from_) == ("1.4.0", 6, "out/hello")


def test_options_named_exist() -> None:
    """The page names no boot option that OSv has not."""
    assert {"nameserver", "ip", "strace", "trace", "power-off-on-abort", "mount-fs"} <= set(OPTIONS)
