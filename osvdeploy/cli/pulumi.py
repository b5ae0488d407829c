"""pulumi: the provider where Pulumi's command finds it, and what is missing for a program that uses it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from osvdeploy.cli.output import Result, command
from osvdeploy.context import Context
from osvdeploy.events import Warned

if TYPE_CHECKING:
    from osvdeploy.plugin.installing import Installed
    from osvdeploy.plugin.project import Named


@click.group(short_help="The Pulumi provider on this machine.")
def pulumi() -> None:
    """Put the provider where Pulumi's command finds it, or say what is missing. docs/pulumi.md tells how it is used.

    \b
    Example:
        osvdeploy pulumi install
        osvdeploy pulumi doctor
    """


@pulumi.command(short_help="Put the provider where Pulumi finds it.")
@click.option(
    "--project",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DIR",
    help="Name the provider's folder in this project's Pulumi.yaml too.",
)
@command
def install(ctx: Context, project: Path | None) -> Result:
    """Put the provider of this very environment into Pulumi's plugin cache ($PULUMI_HOME, or ~/.pulumi). With
    --project, write the folder that it is in into a project's Pulumi.yaml as well, which Pulumi prefers: the other
    lines stay.

    Again, it finds nothing to do. Pulumi itself need not be here. Example: osvdeploy pulumi install --project .
    """
    from osvdeploy.errors import UsageError
    from osvdeploy.plugin.installing import install as put
    from osvdeploy.plugin.installing import needs_provider, scripts_folder
    from osvdeploy.plugin.project import name_provider, project_file

    # Not resolved: what a virtual environment's python leads to is another Python.
    interpreter = Path(sys.executable).absolute()
    needs_provider()
    file = None
    if project is not None:
        file = project_file(project)
        if file is None:
            raise UsageError(
                f"there is no Pulumi.yaml in {project.absolute()}, or above",
                hint="`pulumi new` begins a project; without --project the provider goes into Pulumi's cache alone",
            )
    # What may be refused comes first, so that nothing was done then.
    named = name_provider(ctx, file, scripts_folder(interpreter)) if file is not None else None
    installed = put(ctx, os.environ, interpreter)
    if installed.newer is not None:
        ctx.report(
            Warned(
                f"Pulumi's cache has {installed.newer} too, and takes it where a program asks for no version",
                f"pulumi plugin rm resource osvdeploy {installed.newer}",
            )
        )
    if named is not None and Path(named.path).is_absolute():
        ctx.report(
            Warned(
                f"{named.file} names a folder of this machine: {named.path}",
                "with osvdeploy in a virtual environment of the project, the path is one that all copies of it have",
            )
        )
    told = [_of_cache(installed), *([_of_project(named)] if named is not None else [])]
    document: dict[str, Any] = {
        "path": installed.path,
        "version": installed.version,
        "interpreter": installed.interpreter,
        "did": installed.did,
        "before": installed.before,
        "others": installed.others,
        "project": None
        if named is None
        else {"file": named.file, "path": named.path, "did": named.wrote, "before": named.before},
    }
    return Result("\n".join(told), document)


def _of_cache(installed: Installed) -> str:
    from osvdeploy.plugin.installing import Did

    match installed.did:
        case Did.KEPT:
            return f"{installed.path}: there already, runs {installed.interpreter}"
        case Did.INSTALLED:
            return f"{installed.path}: installed, runs {installed.interpreter}"
        case Did.REPLACED:
            before = f", in place of {installed.before}" if installed.before is not None else ", which was not whole"
            return f"{installed.path}: replaced, runs {installed.interpreter}{before}"


def _of_project(named: Named) -> str:
    from osvdeploy.plugin.project import Wrote

    match named.wrote:
        case Wrote.KEPT:
            return f"{named.file}: names {named.path} already"
        case Wrote.ADDED:
            return f"{named.file}: names {named.path} now"
        case Wrote.CHANGED:
            return f"{named.file}: names {named.path} now, in place of {named.before}"


@pulumi.command(short_help="What is missing for a Pulumi program.")
@click.option(
    "--project",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DIR",
    default=Path(),
    help="The folder of the project; the one here.",
)
@click.option("--stack", metavar="NAME", help="The stack whose configuration is looked at; the one that is selected.")
@command
def doctor(ctx: Context, project: Path, stack: str | None) -> Result:
    """Look at all that a program with osvdeploy in it needs: Pulumi, the language's host, the SDK, the provider and how
    Pulumi comes to it, whether it starts, the stack's configuration, the login. Says what cures what is missing, and
    ends with 1 then. Nothing is changed, and nobody is asked over a network.

    Example: osvdeploy pulumi doctor
    """
    from osvdeploy.plugin.doctor import Verdict, examine

    found = examine(ctx, project, stack, os.environ)
    missing = [each for each in found if each.verdict is Verdict.MISSING]
    document = {
        "ok": not missing,
        "needs": [{"need": each.need, "verdict": each.verdict, "seen": each.seen, "cure": each.cure} for each in found],
    }
    return Result(_shown(found), document, exit_code=1 if missing else 0)


def _shown(found: list[Any]) -> str:
    from osvdeploy.cli.tables import folded, width

    first = max(len(each.verdict) for each in found)
    second = max(len(each.need) for each in found)
    indent = first + second + 4
    lines = []
    for each in found:
        lines.append(f"{each.verdict:{first}}  {each.need:{second}}  {folded(each.seen, indent, width())}")
        if each.cure is not None:
            lines.append(f"{'':{indent}}{folded('-> ' + each.cure, indent, width())}")
    return "\n".join(lines)
