"""withdraw: image families lead past a version."""

from __future__ import annotations

from pathlib import Path

import click

from osvdeploy.cli.options import spec_file_option
from osvdeploy.cli.output import Result, command
from osvdeploy.context import Context


@click.command(short_help="Let image families lead past a version.")
@click.argument("version")
@spec_file_option
@click.option("--obsolete", is_flag=True, help="And let no machine be started from its images.")
@click.option("--delete", is_flag=True, help="And delete its images.")
@click.option("--force", is_flag=True, help="Though machines may have to be started from its images.")
@click.option("--undo", is_flag=True, help="Take a withdrawal back.")
@command
def withdraw(
    ctx: Context,
    version: str,
    spec_file: Path,
    sets: tuple[str, ...],
    obsolete: bool,
    delete: bool,
    force: bool,
    undo: bool,
) -> Result:
    """On Google: let no image family lead to any image of VERSION, so that machines which are started by a family come
    from the version before.

    Its images stay, for whoever names them, unless --obsolete or --delete says otherwise; those two are refused while
    the version serves, is warm, or an instance group or template has it, and --force lets all but the first pass. A
    family that would lead to nothing is a reason to refuse. Prints what each family leads to.

    Example: osvdeploy withdraw 1.4.0
    """
    from osvdeploy import api
    from osvdeploy.errors import UsageError

    if obsolete + delete + undo > 1:
        raise UsageError("--obsolete, --delete and --undo exclude each other")
    loaded = api.load_spec(spec_file, sets=sets)
    if undo:
        found, state = api.restore(ctx, loaded, version), "active"
    else:
        how = api.Withdrawal.DELETED if delete else api.Withdrawal.OBSOLETE if obsolete else api.Withdrawal.DEPRECATED
        found, state = api.withdraw(ctx, loaded, version, how, force=force), str(how)
    families = {family: None if image is None else image.name for family, image in found.families.items()}
    document = {
        "version": version,
        "state": state,
        "images": [{"id": image.id, "name": image.name} for image in found.images],
        "families": families,
    }
    lines = [f"{family} -> {name or 'nothing'}" for family, name in families.items()]
    return Result("\n".join(lines) or f"{version} is {state}", document)
