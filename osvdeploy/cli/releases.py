"""releases: those of a service, to a file and from one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from osvdeploy.cli.options import ServiceChoice, service_options
from osvdeploy.cli.output import SCHEMA, Result, command
from osvdeploy.context import Context

if TYPE_CHECKING:
    from osvdeploy.api import Manifest, ManifestEntry

_KINDS = ("text", "json", "yaml")


@click.group()
def releases() -> None:
    """The releases of a service as one document, and back into a ledger.

    \b
    Example:
        osvdeploy releases export hello/production --format yaml > releases.yaml
        osvdeploy releases import releases.yaml hello/production --ledger s3://acme-releases/new
    """


@releases.command("export", short_help="What was deployed, and how each release stands.")
@service_options
@click.option("--format", "kind", type=click.Choice(_KINDS), default="text", show_default=True, help="Of what is told.")
@click.option("--offline", is_flag=True, help="Read the ledger alone; do not ask the cloud for images.")
@command
def export(ctx: Context, choice: ServiceChoice, kind: str, offline: bool) -> Result:
    """List every release of a service: version, digests, when it was deployed and how that ended, what serves, is warm
    or pinned, and the cloud's id of its image. As JSON or YAML it has all that `osvdeploy releases import` needs: the
    settings of each deploy too.

    Example: osvdeploy releases export hello/production --format json > releases.json
    """
    from osvdeploy import api

    yaml = _yaml() if kind == "yaml" else None
    found = api.export_releases(ctx, choice.service(), look=not offline)
    document = api.manifest_document(found)
    whole = {"schema": SCHEMA, "command": "releases export", **document}
    if yaml is not None:
        return Result(yaml.safe_dump(whole, sort_keys=False, allow_unicode=False, width=1000).rstrip(), document)
    return Result(json.dumps(whole, indent=1) if kind == "json" else _text(found), document)


@releases.command("import", short_help="Put exported releases into a ledger.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@service_options
@click.option(
    "--missing", is_flag=True, help="Put what the ledger lacks; leave what it has with other settings as it is."
)
@click.option("--dry-run", is_flag=True, help="Say what would be put, and do nothing.")
@command
def import_(ctx: Context, choice: ServiceChoice, file: Path, missing: bool, dry_run: bool) -> Result:
    """Put the releases of an exported file, JSON or YAML, into a ledger that lacks them, so that it knows them and
    their settings again: `osvdeploy rollback --to` and `diff` take them then.

    What is there already stays; what is there otherwise is refused before anything is put (exit code 2), or left out
    with --missing: so for a ledger that `osvdeploy adopt --from-cloud` has written anew. What serves, holds, pins and
    the course of past rollouts are never touched, and none come with it. May be repeated.
    Example: osvdeploy releases import releases.json hello/production --ledger s3://acme-releases/new
    """
    from osvdeploy import api

    service = choice.service()
    given = api.read_manifest(_read(file), str(file))
    found = api.import_releases(ctx, service, given, missing_only=missing, dry_run=dry_run)
    done = "would be put" if dry_run else "put"
    text = f"{service.name}: {len(found.put)} {done}, {len(found.there)} there already"
    if found.left:
        text += f", {len(found.left)} left as the ledger has them: {', '.join(found.left)}"
    if found.put:
        text = "\n".join([text, *(f"  {release}" for release in found.put)])
    document = {
        "service": service.name,
        "dry_run": dry_run,
        "put": list(found.put),
        "there": list(found.there),
        "left": list(found.left),
    }
    return Result(text, document)


def _read(file: Path) -> object:
    from osvdeploy.errors import UsageError

    try:
        content = file.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{file}: is not UTF-8") from None
    if file.suffix in (".yaml", ".yml"):
        yaml = _yaml()
        try:
            return yaml.safe_load(content)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise UsageError(f"{file}: is no YAML: {' '.join(str(error).split())}") from None
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise UsageError(f"{file}: is no JSON", hint="of YAML the name ends in .yaml") from None


def _yaml() -> Any:
    from osvdeploy.errors import ToolMissing

    try:
        import yaml
    except ModuleNotFoundError:
        raise ToolMissing(
            "YAML needs PyYAML, which is not here", hint="pip install 'osvdeploy[yaml]', or use --format json"
        ) from None
    return yaml


def _text(found: Manifest) -> str:
    import sys

    from osvdeploy.cli.tables import table, width

    rows = [
        (
            each.release.id,
            _state(each),
            f"{each.run.started:%Y-%m-%d %H:%M}" if each.run is not None else "-",
            "-" if each.run is None else each.run.verdict or f"in {each.run.stage}",
            (each.image or "gone").rpartition("/")[2] if found.asked else "not asked",
        )
        for each in reversed(found.entries)
    ]
    heading = ("RELEASE", "STATE", "DEPLOYED (UTC)", "OUTCOME", "IMAGE")
    return table(heading, rows, within=width() if sys.stdout.isatty() else None)


def _state(entry: ManifestEntry) -> str:
    told = ["serving"] if entry.serving else ["warm"] if entry.warm_until is not None else []
    told += ["pinned"] if entry.pinned else []
    told += ["held"] if entry.held else []
    return ", ".join(told) or "-"
