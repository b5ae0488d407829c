"""Pulumi.yaml: what it says, and the lines that name the provider's folder put into it.

The file is somebody's, with comments and an order of its own. So it is not written anew from what was read: the few
lines are put between the others, and what comes out is read again and has to be what was there with the provider in it,
and nothing else. Where it is not, or where the lines have no place to go, nothing is written.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from osvdeploy.build.files import part_of
from osvdeploy.context import Context
from osvdeploy.errors import OsvDeployError, ToolMissing, UsageError
from osvdeploy.plugin.places import PACKAGE

_NAMES: Final = ("Pulumi.yaml", "Pulumi.yml", "Pulumi.json")


@dataclass(frozen=True, slots=True)
class Project:
    """A project as Pulumi reads it. ``plugin`` is the folder that it names for the provider, if it names one."""

    file: Path
    name: str
    runtime: str
    options: Mapping[str, Any]
    plugin: Path | None
    backend: str | None
    stacks: Path

    @property
    def folder(self) -> Path:
        return self.file.parent


class Wrote(StrEnum):
    """What became of a project's file."""

    ADDED = "added"
    CHANGED = "changed"
    KEPT = "kept"


@dataclass(frozen=True, slots=True)
class Named:
    """A project's file that names the provider's folder: relative to it where that means the same elsewhere."""

    file: Path
    path: str
    wrote: Wrote
    before: str | None


class NotUnderstood(UsageError):
    """A project's file that is not to be changed by a program."""


def project_file(folder: Path) -> Path | None:
    """The file of the project that a folder is in, as Pulumi looks for it: upwards."""
    for each in (folder.absolute(), *folder.absolute().parents):
        for name in _NAMES:
            if (each / name).is_file():
                return each / name
    return None


def read_yaml(file: Path) -> dict[str, Any]:
    """A mapping. Raises UsageError that says where it is wrong."""
    text = _text(file)
    found = _parsed(file, text)
    if not isinstance(found, dict):
        raise UsageError(f"{file}: is not a mapping of keys to values")
    return found


def read_project(file: Path) -> Project:
    """Raises UsageError."""
    found = read_yaml(file)
    runtime: Any = found.get("runtime")
    options: Any = None
    if isinstance(runtime, dict):
        runtime, options = runtime.get("name"), runtime.get("options")
    backend = found.get("backend")
    stacks = found.get("stackConfigDir") or found.get("config")
    plugins = found.get("plugins")
    listed = plugins.get("providers") if isinstance(plugins, dict) else None
    listed = listed if isinstance(listed, list) else []
    places = [each.get("path") for each in listed if isinstance(each, dict) and each.get("name") == PACKAGE]
    place = next(iter(places), None)
    packages = found.get("packages")
    if place is None and isinstance(packages, dict):
        package = packages.get(PACKAGE)
        place = package if isinstance(package, str) and (file.parent / package).is_dir() else None
    return Project(
        file=file,
        name=str(found.get("name") or ""),
        runtime=str(runtime or ""),
        options=options if isinstance(options, dict) else {},
        plugin=file.parent / place if isinstance(place, str) else None,
        backend=str(backend["url"]) if isinstance(backend, dict) and backend.get("url") else None,
        stacks=file.parent / stacks if isinstance(stacks, str) else file.parent,
    )


def name_provider(ctx: Context, file: Path, scripts: Path) -> Named:
    """Let a project name the folder that the provider's command is in. Raises NotUnderstood, which says what to write
    by hand, and OsvDeployError where the file cannot be written."""
    real = file.resolve()  # a link stays one
    path = _spelled(scripts, file.parent)
    try:
        # Line ends as they are.
        before = real.read_bytes()
        text = before.decode("utf-8")
        if file.suffix == ".json":
            raise NotUnderstood("is JSON, whose form is its writer's own")
        changed, wrote, old = with_provider(text, path, folder=file.parent)
        if wrote is not Wrote.KEPT:
            mode = stat.S_IMODE(real.stat().st_mode)
            with part_of(real, nonce=ctx.nonce()) as part:
                part.write(changed.encode())
                os.fchmod(part.fileno(), mode)
    except UnicodeDecodeError:
        raise UsageError(f"{file}: is not UTF-8") from None
    except NotUnderstood as error:
        raise NotUnderstood(f"{file}: {error.message}; nothing was changed", hint=_by_hand(path)) from None
    except OSError as error:
        raise OsvDeployError(f"{file}: {error.strerror}", hint=_by_hand(path)) from None
    return Named(file, path if wrote is not Wrote.KEPT else old or path, wrote, old if wrote is Wrote.CHANGED else None)


def _spelled(scripts: Path, folder: Path) -> str:
    """Relative within a checkout, as its other copies have it; absolute to what is somewhere else on this machine."""
    scripts, folder = scripts.absolute(), folder.absolute()
    for root in (folder, *folder.parents):
        if scripts.is_relative_to(root) and (root == folder or (root / ".git").exists()):
            return os.path.relpath(scripts, folder)
    return str(scripts)


def _by_hand(path: str) -> str:
    entry = "\n".join(_entry("    ", path))
    return f"write by hand:\nplugins:\n  providers:\n{entry}"


def _entry(indent: str, path: str) -> list[str]:
    return [f"{indent}- name: {PACKAGE}", f"{indent}  path: {_scalar(path)}"]


def _scalar(text: str) -> str:
    """Plain where every reader of YAML takes it for that text, else quoted, which JSON's texts are in YAML too."""
    plain = text.isascii() and all(each.isalnum() or each in "/._-+@" for each in text) and text[0] in "/."
    return text if plain else json.dumps(text, ensure_ascii=False)


# -------------------------------------------------------------------------------------------------------- the lines


def with_provider(text: str, path: str, *, folder: Path) -> tuple[str, Wrote, str | None]:
    """The text of a Pulumi.yaml with the provider's folder named in it, what that took, and the folder it named before.

    Raises NotUnderstood where the lines have no place that is sure to be right.
    """
    yaml = _yaml()
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        old = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise NotUnderstood(f"cannot be read: {_where(error)}") from None
    if not isinstance(root, yaml.MappingNode) or root.flow_style:
        raise NotUnderstood("is not lines of `key: value`")
    try:
        expected, before = _expected(old, path)
    except RecursionError:
        raise NotUnderstood("has an alias that contains itself") from None
    if before is not None and (folder / before).absolute() == (folder / path).absolute():
        return text, Wrote.KEPT, before
    newline = "\r\n" if "\r\n" in text else "\n"
    changed = _placed(text, root, path, newline, replacing=before is not None)
    try:
        got = yaml.safe_load(changed)
    except yaml.YAMLError:
        got = None
    if got != expected:
        raise NotUnderstood("is written in a way that leaves no sure place for the provider's lines")
    return changed, Wrote.ADDED if before is None else Wrote.CHANGED, before


def _expected(old: Any, path: str) -> tuple[Any, str | None]:
    """What the file is to say, and the folder that it names now."""
    expected = _apart(old)
    plugins = expected.get("plugins")
    if plugins is None:
        expected["plugins"] = plugins = {}
    if not isinstance(plugins, dict):
        raise NotUnderstood("plugins is not a mapping")
    providers = plugins.get("providers")
    if providers is None:
        plugins["providers"] = providers = []
    if not isinstance(providers, list):
        raise NotUnderstood("plugins.providers is not a list")
    named = [each for each in providers if isinstance(each, dict) and each.get("name") == PACKAGE]
    if len(named) > 1:
        raise NotUnderstood(f"plugins.providers names {PACKAGE} {len(named)} times")
    if not named:
        providers.append({"name": PACKAGE, "path": path})
        return expected, None
    (entry,) = named
    if not isinstance(entry.get("path"), str) or set(entry) != {"name", "path"}:
        raise NotUnderstood(f"what plugins.providers says of {PACKAGE} is not its name and path alone")
    before: str = entry["path"]
    entry["path"] = path
    return expected, before


def _apart(value: Any) -> Any:
    """A copy in which nothing is one with anything else: what aliases share is changed at one place, and told by it."""
    if isinstance(value, dict):
        return {key: _apart(each) for key, each in value.items()}
    return [_apart(each) for each in value] if isinstance(value, list) else value


def _placed(text: str, root: Any, path: str, newline: str, *, replacing: bool) -> str:
    yaml = _yaml()
    plugins = _value(root, "plugins")
    if plugins is None:
        return _after(text, root, ["plugins:", "  providers:", *_entry("    ", path)], newline)
    key, value = plugins
    if _is_null(value):
        return _after(text, key, ["  providers:", *_entry("    ", path)], newline)
    if not isinstance(value, yaml.MappingNode) or value.flow_style:
        raise NotUnderstood("plugins is not written as lines")
    providers = _value(value, "providers")
    if providers is None:
        indent = " " * value.start_mark.column
        return _after(text, value, [f"{indent}providers:", *_entry(f"{indent}  ", path)], newline)
    key, value = providers
    if _is_null(value):
        return _after(text, key, _entry(" " * (key.start_mark.column + 2), path), newline)
    if not isinstance(value, yaml.SequenceNode) or value.flow_style:
        raise NotUnderstood("plugins.providers is not written as lines")
    if not replacing:
        return _after(text, value, _entry(" " * value.start_mark.column, path), newline)
    for each in value.value:
        name, place = (_value(each, part) if isinstance(each, yaml.MappingNode) else None for part in ("name", "path"))
        if name is not None and place is not None and name[1].value == PACKAGE:
            start, end = place[1].start_mark, place[1].end_mark
            if start.line != end.line:
                break
            return text[: start.index] + _scalar(path) + text[end.index :]
    raise NotUnderstood(f"the path of {PACKAGE} is not written on one line")


def _value(mapping: Any, name: str) -> tuple[Any, Any] | None:
    found = [(key, value) for key, value in mapping.value if key.value == name]
    if len(found) > 1:
        raise NotUnderstood(f"{name} stands in it {len(found)} times")
    return found[0] if found else None


def _is_null(node: Any) -> bool:
    return node.tag == "tag:yaml.org,2002:null" and not node.value


def _after(text: str, node: Any, lines: list[str], newline: str) -> str:
    """The lines below the last line of a node: its own end is behind the comments and blank lines that follow it."""
    last = max(each.end_mark.index for each in _leaves(node))
    at = text.find("\n", last)
    added = newline.join(lines) + newline
    if at < 0:
        return text + ("" if not text or text.endswith("\n") else newline) + added
    return text[: at + 1] + added + text[at + 1 :]


def _leaves(node: Any) -> Iterator[Any]:
    yaml = _yaml()
    if isinstance(node, yaml.ScalarNode) or node.flow_style:
        yield node
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _leaves(key)
            yield from _leaves(value)
    else:
        for each in node.value:
            yield from _leaves(each)


# ----------------------------------------------------------------------------------------------------------- reading


def _yaml() -> Any:
    try:
        import yaml
    except ModuleNotFoundError:
        raise ToolMissing(
            "reading Pulumi.yaml needs PyYAML, which is not here", hint="pip install 'osvdeploy[pulumi]'"
        ) from None
    return yaml


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{file}: is not UTF-8") from None
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from None


def _parsed(file: Path, text: str) -> Any:
    yaml = _yaml()
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{file}: cannot be read: {_where(error)}") from None


def _where(error: Any) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or "it is no YAML"
    return f"line {mark.line + 1}: {problem}" if mark is not None else str(problem)
