"""diff: what makes one release another."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from osvdeploy.cli.options import ServiceChoice, service_options
from osvdeploy.cli.output import Result, command
from osvdeploy.context import Context

if TYPE_CHECKING:
    from osvdeploy.api import ReleaseDiff


@click.command(short_help="What makes a release another.")
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@service_options
@command
def diff(ctx: Context, choice: ServiceChoice, before: str, after: str) -> Result:
    """Tell what makes release B another than A, by ids or versions: image, configuration, and each setting of their
    latest deploys. Where this machine has built both images, also which files differ.

    Reads the ledger and the build cache alone. Of variables the ledger has a digest and no values.
    Example: osvdeploy diff 1.4.0 1.5.0 hello/production
    """
    from osvdeploy import api
    from osvdeploy.cli.inspect import differing_document
    from osvdeploy.cli.rollouts import release_document

    service = choice.service()
    found = api.diff(ctx, service, before, after)
    document = {
        "service": service.name,
        "from": release_document(found.before),
        "to": release_document(found.after),
        "image_differs": not found.same_image,
        "configuration_differs": not found.same_configuration,
        "settings": [{"key": each.key, "before": each.before, "after": each.after} for each in found.settings],
        "compared": None if found.images is None else differing_document(found.images),
        "not_compared": found.not_compared or None,
    }
    return Result(_text(found), document)


def _text(found: ReleaseDiff) -> str:
    from osvdeploy.cli.inspect import differing_lines

    old, new = found.before, found.after
    lines = [f"{old.id} -> {new.id}", f"image: {moved(old.image[:12], new.image[:12])}"]
    if found.images is not None:
        lines += differing_lines(found.images)
    elif found.not_compared:
        lines.append(f"  files: not compared: {found.not_compared}")
    lines.append(f"configuration: {moved(old.configuration[:12], new.configuration[:12])}")
    lines.append("settings:" if found.settings else "settings: the same")
    lines += [f"  {each.key}: {setting_shown(each.before)} -> {setting_shown(each.after)}" for each in found.settings]
    return "\n".join(lines)


def moved(before: str, after: str) -> str:
    """What became of something, in words."""
    return f"the same ({before})" if before == after else f"{before} -> {after}"


def setting_shown(value: Any) -> str:
    """A setting's value, in a line."""
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
