"""osvdeploy.api imports what it names when it is asked for it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from osvdeploy import api


def test_what_is_imported_late_is_what_readers_of_types_see() -> None:
    """Each name from the same module, and no other."""
    (block,) = (
        each
        for each in ast.parse(Path(str(api.__file__)).read_text()).body
        if isinstance(each, ast.If) and each.body and isinstance(each.body[0], ast.ImportFrom)
    )
    seen = {
        each.module: tuple(name.name for name in each.names) for each in block.body if isinstance(each, ast.ImportFrom)
    }
    assert seen == api._HOMES
    assert sorted(name for names in seen.values() for name in names) == sorted(api.__all__)


@pytest.mark.parametrize("name", api.__all__)
def test_each_name_is_there(name: str) -> None:
    assert name in dir(api)
    assert getattr(api, name) is not None


def test_a_name_that_is_not_there_is_told() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'deplay'"):
        _ = api.deplay  # type: ignore[attr-defined]  # that is the test
    with pytest.raises(ImportError):
        from osvdeploy.api import deplay  # type: ignore[attr-defined]  # noqa: F401  # likewise


@pytest.mark.parametrize("name", ["rollback", "status"])
def test_going_back_does_not_import_what_builds_and_publishes(name: str) -> None:
    """Nor what plans, and makes files of."""
    code = f"import sys; from osvdeploy.api import {name}; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = [
        each
        for each in loaded
        if each.startswith(
            ("osvdeploy.build", "osvdeploy.publish", "osvdeploy.spec", "osvdeploy.osv", "boto", "google")
        )
    ]
    assert heavy == []


CHANGING = [
    "adopt", "adopt_from_cloud", "ask", "deploy", "deploy_release", "destroy", "drift", "gc", "hand_over", "hold",
    "import_releases", "pin", "publish", "realign", "recover", "restore", "retry", "roll_out", "rollback",
    "rollback_from_cloud", "sweep_retired", "unhold", "withdraw",
]  # fmt: skip


@pytest.mark.parametrize("name", CHANGING)
def test_what_changes_a_service_states_its_promise(name: str) -> None:
    """What holds when it returns, and when it does not come to that."""
    assert "\n    Promise: " in (getattr(api, name).__doc__ or "")


def test_the_page_of_the_library_has_no_promise_of_what_states_none() -> None:
    """But for what is one by its nature: a name of it that changes something is held to the test above."""
    page = (Path(__file__).parents[1] / "docs/library.md").read_text()
    rows = [line for line in page.partition("| promise |")[2].splitlines() if line.startswith("| `")]
    named = {name.partition("(")[0] for row in rows for name in row.split("|")[1].replace("`", "").split(", ")}
    assert {name.strip() for name in named} <= set(CHANGING) and len(rows) > 5
