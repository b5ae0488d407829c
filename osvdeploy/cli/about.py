"""version, schema: about osvdeploy itself."""

from __future__ import annotations

import click

from osvdeploy.cli.output import Result, command
from osvdeploy.context import Context
from osvdeploy.version import __version__


@click.command(short_help="The version of osvdeploy.")
@command
def version(ctx: Context) -> Result:
    """Print the version.

    Example: osvdeploy version
    """
    return Result(__version__, {"version": __version__})


@click.command(short_help="JSON Schema of osv.toml, for editors.")
@command
def schema(ctx: Context) -> Result:
    """Print the JSON Schema of osv.toml; with `#:schema ./osv.schema.json` on top, editors complete and check it.

    Example: osvdeploy schema > osv.schema.json
    """
    import json

    from osvdeploy.spec.schema import json_schema

    found = json_schema()
    return Result(json.dumps(found, indent=2), {"json_schema": found})
