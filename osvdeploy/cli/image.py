"""check, build, lock: spec to raw disk."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from osvdeploy.cli.options import force_option, spec_file_option, strict_option
from osvdeploy.cli.output import Result, command
from osvdeploy.context import Context
from osvdeploy.errors import CheckFailed


@click.command(short_help="Everything that can be known without building.")
@spec_file_option
@force_option
@strict_option
@click.option("--rules", is_flag=True, help="List the rules, and which commands refuse by them; look at nothing.")
@command
def check(
    ctx: Context, spec_file: Path, sets: tuple[str, ...], forced: tuple[str, ...], strict: bool, rules: bool
) -> Result:
    """Look at the spec, the kernel, the files, each program and library as OSv's loader will, and the command line, and
    say everything that is wrong. Ends with 2 where a finding refuses the image. Builds nothing.

    Example: osvdeploy check --strict --force starts-processes
    """
    if rules:
        return _rules()
    from osvdeploy import api
    from osvdeploy.cli.findings import findings_document, findings_text
    from osvdeploy.sizes import format_size

    found = api.check(ctx, api.load_spec(spec_file, sets=sets), forced=forced, strict=strict)
    pinned = "pinned in osv.lock" if found.kernel_pinned else "not pinned yet: the first build pins it"
    make = f"OSv {found.kernel_version}" if found.kernel_version else f"of unknown make ({found.kernel_payload})"
    kernel = f"tree {found.tree}" if found.kernel is None else f"kernel {make} {found.kernel[:12]}"
    text = (
        f"{found.app} {found.version}: {found.files} files, {format_size(found.content)}; {kernel}, {pinned}\n"
        f"command line: {found.command_line}"
    )
    if findings := findings_text(found.judged):
        text += f"\n\n{findings}"
    return Result(
        text,
        {
            "app": found.app,
            "version": found.version,
            "kernel": {
                "sha256": found.kernel,
                "payload": found.kernel_payload,
                "version": found.kernel_version,
                "pinned": found.kernel_pinned,
            },
            "command_line": found.command_line,
            "files": found.files,
            "bytes": found.content,
            "environments": list(found.environments),
            "tree": found.tree,
            "findings": findings_document(found.judged),
        },
        exit_code=CheckFailed.exit_code if found.judged.refused else 0,
    )


def _rules() -> Result:
    from osvdeploy.checks.rules import FAMILIES
    from osvdeploy.cli.tables import table, width, wrapped_table

    listed = [(family, name, what) for family in FAMILIES for name, what in family.rules.items()]
    heading = ("RULE", "WHAT", "REFUSES IN")
    rows = [(name, what, ", ".join(family.commands)) for family, name, what in listed]
    return Result(
        # A line for each in a pipe, for grep.
        wrapped_table(heading, rows, width=width()) if sys.stdout.isatty() else table(heading, rows),
        {
            "rules": [
                {"rule": name, "family": family.name, "what": what, "commands": family.commands}
                for family, name, what in listed
            ]
        },
    )


@click.command(short_help="osv.toml to a raw disk.")
@spec_file_option
@force_option
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Copy the disk here (sparse).")
@command
def build(ctx: Context, spec_file: Path, sets: tuple[str, ...], forced: tuple[str, ...], output: Path | None) -> Result:
    """Build the image's raw disk, or find that it is built. The same input gives the same bytes on every machine.

    Prints the disk's path. Example: osvdeploy build -o hello.raw
    """
    from osvdeploy import api
    from osvdeploy.build.copy import copy_sparse, refuse_target
    from osvdeploy.build.uses import in_use

    loaded = api.load_spec(spec_file, sets=sets)
    if output is not None:
        refuse_target(output)
    with in_use():
        built = api.build(ctx, loaded, forced=forced)
        path = built.image.path
        if output is not None:
            copy_sparse(ctx, path, output)
            path = output
    image = built.image
    return Result(
        str(path),
        {
            "path": path,
            "digest": image.digest,
            "kernel": image.kernel,
            "rofs": image.rofs,
            "fs": image.fs,
            "share": image.share,
            "size": image.size,
            "read": [[extent.start, extent.end] for extent in image.read],
            "reused": built.reused,
            "plan": built.plan,
        },
    )


@click.command(short_help="What came from elsewhere, pinned in osv.lock.")
@spec_file_option
@click.option("--upgrade", is_flag=True, help="Pin what the spec names now, whatever was pinned before.")
@command
def lock(ctx: Context, spec_file: Path, sets: tuple[str, ...], upgrade: bool) -> Result:
    """Show what osv.lock pins, and with --upgrade move it to the kernel and the programs that the spec names now.

    Example: osvdeploy lock --upgrade
    """
    from osvdeploy import api
    from osvdeploy.build.lock import TreePin
    from osvdeploy.build.sources import source_table

    loaded = api.load_spec(spec_file, sets=sets)
    pin = api.upgrade_lock(ctx, loaded) if upgrade else api.pinned(loaded)
    programs = api.pinned_programs(loaded)
    document = {
        "programs": [
            {
                "path": each.path,
                "from": each.source,
                "sha256": each.sha256,
                "files": each.files,
                "size": each.size,
                "packages": None
                if each.packages is None
                else {
                    "sha256": each.packages.sha256,
                    "files": each.packages.files,
                    "size": each.packages.size,
                    "requirements": each.packages.requirements,
                },
            }
            for each in programs
        ]
    }
    if pin is None:
        return Result("nothing is pinned yet: the first build pins the kernel", {"kernel": None, **document})
    lines = []
    for each in programs:
        lines.append(f"program {each.path}: sha256 {each.sha256}, {each.files} files, {each.size} bytes")
        if each.packages is not None:
            packages = each.packages
            lines.append(f"  packages: sha256 {packages.sha256}, {packages.files} files, {packages.size} bytes")
    if isinstance(pin, TreePin):
        return Result(
            "\n".join([f"tree {pin.path}: commit {pin.commit}", *lines]),
            {"tree": {"path": pin.path, "commit": pin.commit}, **document},
        )
    told = f", OSv {pin.osv}" if pin.osv is not None else ""
    lines.insert(0, f"kernel {pin.source}: sha256 {pin.sha256}, {pin.size} bytes{told}")
    return Result(
        "\n".join(lines),
        {
            "kernel": {
                "file": str(pin.source),
                "source": source_table(pin.source),
                "sha256": pin.sha256,
                "size": pin.size,
                "payload": pin.payload,
                "osv": pin.osv,
                "drivers": pin.drivers,
            },
            **document,
        },
    )
