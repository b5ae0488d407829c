"""Pulumi.yaml with the provider's folder in it: only the lines that are to be added change."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.context import Context
from osvdeploy.plugin.project import (
    NotUnderstood,
    Wrote,
    name_provider,
    project_file,
    read_project,
    with_provider,
)

HERE = Path("/project")
LINES = "plugins:\n  providers:\n    - name: osvdeploy\n      path: .venv/bin\n"


def changed(text: str) -> tuple[str, Wrote]:
    new, wrote, _ = with_provider(text, ".venv/bin", folder=HERE)
    return new, wrote


PLACED = {
    "at the end": ("name: a\nruntime: yaml\n", f"name: a\nruntime: yaml\n{LINES}"),
    "before what follows the last key": ("name: a # b\n\n# the end\n", f"name: a # b\n{LINES}\n# the end\n"),
    "before the document's end": ("---\nname: a\n...\n", f"---\nname: a\n{LINES}...\n"),
    "without a last line end": ("name: a", f"name: a\n{LINES}"),
    "below an empty key": ("plugins:\nname: a\n", f"{LINES}name: a\n"),
    "below an empty list": (
        "plugins:\n  providers: # none\nname: a\n",
        "plugins:\n  providers: # none\n    - name: osvdeploy\n      path: .venv/bin\nname: a\n",
    ),
    "beside other kinds": (
        "plugins:\n    languages:\n    - name: x\n      path: y\n# z\nname: a\n",
        "plugins:\n    languages:\n    - name: x\n      path: y\n    providers:\n      - name: osvdeploy\n"
        "        path: .venv/bin\n# z\nname: a\n",
    ),
    "below other providers": (
        "plugins:\n  providers:\n  # ours\n  - name: x\n    path: y  # here\n\nname: a\n",
        "plugins:\n  providers:\n  # ours\n  - name: x\n    path: y  # here\n  - name: osvdeploy\n"
        "    path: .venv/bin\n\nname: a\n",
    ),
    "below an entry in braces": (
        "plugins:\n  providers:\n    - {name: x, path: y}\n",
        "plugins:\n  providers:\n    - {name: x, path: y}\n    - name: osvdeploy\n      path: .venv/bin\n",
    ),
}


@pytest.mark.parametrize("where", PLACED)
def test_the_lines_are_put_in(where: str) -> None:
    """Where they belong, in the file's own indentation; comments, order and blank lines stay; again: nothing to do."""
    before, after = PLACED[where]
    assert changed(before) == (after, Wrote.ADDED)
    assert changed(after) == (after, Wrote.KEPT)
    windows = before.replace("\n", "\r\n")
    assert changed(windows)[0] == after.replace("\n", "\r\n") or "\n" not in before


def test_another_folder_takes_the_place_of_the_one_that_is_named() -> None:
    """The path alone is changed; one that means the same folder is left."""
    text = f"{LINES}name: a\n"
    moved = text.replace(".venv/bin", '"old/bin" # ours')
    assert with_provider(moved, ".venv/bin", folder=HERE) == (
        text.replace(".venv/bin", ".venv/bin # ours"),
        Wrote.CHANGED,
        "old/bin",
    )
    absolute = text.replace(".venv/bin", "/project/.venv/bin")
    assert changed(absolute) == (absolute, Wrote.KEPT)


@pytest.mark.parametrize("path", ["/a b/bin", "/a: b/bin", "/ä/bin", "/a'\"\\/bin", "~/bin", "/x#y", "/{}/bin"])
def test_any_folder_is_written_so_that_it_is_read(path: str) -> None:
    """Quoted where YAML would take it for something else."""
    new, _, _ = with_provider("name: a\n", path, folder=HERE)
    assert yaml.safe_load(new)["plugins"]["providers"] == [{"name": "osvdeploy", "path": path}]


REFUSED = {
    "is not lines of `key: value`": "{name: a}\n",
    "cannot be read: line 2": "name: a\n b: [\n",
    "plugins is not written as lines": "name: a\nplugins: {providers: []}\n",
    "plugins.providers is not written as lines": "name: a\nplugins:\n  providers: []\n",
    "plugins.providers is not a list": "plugins:\n  providers: x\n",
    "plugins is not a mapping": "plugins: x\n",
    "names osvdeploy 2 times": f"{LINES}    - name: osvdeploy\n      path: x\n",
    "is not its name and path alone": f"{LINES}      version: 0.0.9\n",
    "plugins stands in it 2 times": f"plugins:\n  languages:\n    - name: x\n{LINES}".replace(".venv/bin", "x"),
    "leaves no sure place": "name: a\nplugins: &p\n  providers:\n    - name: x\n      path: y\nother: *p\n",
    "contains itself": "name: &a [*a]\n",
    "but found another document": "name: a\n---\nname: b\n",
}  # fmt: skip


@pytest.mark.parametrize("why", REFUSED)
def test_what_is_not_understood_is_left(why: str, tmp_path: Path) -> None:
    """And the error says why, and what to write by hand."""
    file = tmp_path / "Pulumi.yaml"
    file.write_text(REFUSED[why])
    with pytest.raises(NotUnderstood) as raised:
        name_provider(Context(), file, tmp_path / ".venv" / "bin")
    assert why in raised.value.message and "nothing was changed" in raised.value.message
    assert raised.value.hint is not None and LINES.strip() in raised.value.hint
    assert file.read_text() == REFUSED[why]
    assert list(tmp_path.iterdir()) == [file]


_words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=8)
_entries = st.fixed_dictionaries({"name": _words.filter(lambda name: name != "osvdeploy"), "path": _words})
_plugins = st.fixed_dictionaries(
    {"languages": st.lists(_entries, min_size=1)}, optional={"providers": st.lists(_entries, min_size=1)}
)
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | _words | st.text("ab \n", max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_words, inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(
    st.dictionaries(_words.filter(lambda key: key != "plugins"), _values, max_size=3),
    _plugins | st.none(),
    st.booleans(),
    st.integers(1, 4),
)
def test_any_project_keeps_all_that_it_says(rest: Any, plugins: Any, last: bool, indent: int) -> None:
    """Every line that was there is there, in its order, and the file says the same but for the provider."""
    given = {} if plugins is None else {"plugins": plugins}
    said = {**rest, **given} if last else {**given, **rest}
    if not said:
        return  # PyYAML writes {}
    text = yaml.safe_dump(said, sort_keys=False, indent=indent + 1, allow_unicode=True, default_flow_style=False)
    new, wrote = changed(text)
    lines = iter(new.splitlines())
    assert all(line in lines for line in text.splitlines())
    got = yaml.safe_load(new)
    assert wrote is Wrote.ADDED
    assert got["plugins"]["providers"].pop() == {"name": "osvdeploy", "path": ".venv/bin"}
    assert {key: value for key, value in got.items() if key != "plugins"} == rest


def test_a_file_keeps_its_mode_and_its_link(tmp_path: Path) -> None:
    """What is written is the file that a link leads to; of a folder on this machine the path is whole."""
    real = tmp_path / "real.yaml"
    real.write_text("name: a\n")
    real.chmod(0o640)
    (tmp_path / "p").mkdir()
    file = tmp_path / "p" / "Pulumi.yaml"
    file.symlink_to("../real.yaml")
    named = name_provider(Context(), file, tmp_path / "venv" / "bin")
    assert (named.path, named.wrote) == (str(tmp_path / "venv" / "bin"), Wrote.ADDED)
    assert file.is_symlink() and stat.S_IMODE(real.stat().st_mode) == 0o640
    assert read_project(file).plugin == tmp_path / "venv" / "bin"


def test_a_folder_of_the_same_checkout_is_named_from_the_project(tmp_path: Path) -> None:
    """The file is committed, and means the same in every copy."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "infra").mkdir()
    file = tmp_path / "infra" / "Pulumi.yaml"
    file.write_text("name: a\n")
    assert name_provider(Context(), file, tmp_path / ".venv" / "bin").path == "../.venv/bin"


def test_a_project_is_found_from_below_and_read(tmp_path: Path) -> None:
    """As Pulumi finds and reads it."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert project_file(tmp_path / "a") is None
    file = tmp_path / "Pulumi.yml"
    file.write_text(
        "name: orders\nruntime: {name: python, options: {virtualenv: venv}}\nbackend: {url: 'file://~'}\n"
        "stackConfigDir: stacks\npackages: {osvdeploy: a}\n"
    )
    assert project_file(tmp_path / "a" / "b") == file
    project = read_project(file)
    assert (project.name, project.runtime, project.options) == ("orders", "python", {"virtualenv": "venv"})
    assert (project.backend, project.stacks) == ("file://~", tmp_path / "stacks")
    assert project.plugin == tmp_path / "a"
