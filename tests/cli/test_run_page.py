"""What docs/run.md and --help say of `osvdeploy run` is what it does."""

from __future__ import annotations

import re
from pathlib import Path

import click

from osvdeploy.cli.run import BUSES, run
from osvdeploy.cloud.local.guest import Ending
from osvdeploy.qemu.machine import DiskBus

PAGE = (Path(__file__).parents[2] / "docs" / "run.md").read_text()


def test_every_ending_stands_on_the_page_with_its_code() -> None:
    """And no other does."""
    rows = dict(re.findall(r"^\| ([0-9]+)(?:\+N)? \| `([a-z-]+)`", PAGE, re.M))
    assert rows == {str(each.code): each.label for each in Ending}
    text = run.get_help(click.Context(run, info_name="run"))
    assert all(re.search(rf"\b{each.code}\b", text) for each in Ending)


def test_every_option_stands_on_the_page() -> None:
    """But for those that all commands have."""
    common = {"spec_file", "sets", "as_json", "quiet", "verbose"}
    for option in run.params:
        if isinstance(option, click.Option) and option.name not in common:
            assert f"`{option.opts[-1]}" in PAGE or f" {option.opts[-1]}" in PAGE, option.opts


def test_the_disks_offered_are_those_there_are() -> None:
    """The list stands in the command line too, which imports nothing for its help."""
    assert tuple(BUSES) == tuple(DiskBus)
