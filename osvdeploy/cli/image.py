"""check, build, lock: spec to raw disk."""

from __future__ import annotations

from pathlib import Path

import click

from osvdeploy.cli.options import spec_file_option
from osvdeploy.cli.output import Result, command
from osvdeploy.context import Context


@click.command(short_help="Everything that can be known without building.")
@spec_file_option
@command
def check(ctx: Context, spec_file: Path, sets: tuple[str, ...]) -> Result:
    """Look at the spec, the kernel, the files and the command line, and say everything that is wrong. Writes nothing.

    Example: osvdeploy check -f osv.toml
    """
    from osvdeploy import api
    from osvdeploy.sizes import format_size

    found = api.check(ctx, api.load_spec(spec_file, sets=sets))
    pinned = "pinned in osv.lock" if found.kernel_pinned else "not pinned yet: the first build pins it"
    kernel = f"tree {found.tree}" if found.kernel is None else f"kernel {found.kernel[:12]} ({found.kernel_payload})"
    text = (
        f"{found.app} {found.version}: {found.files} files, {format_size(found.content)}; {kernel}, {pinned}\n"
        f"command line: {found.command_line}"
    )
    return Result(
        text,
        {
            "app": found.app,
            "version": found.version,
            "kernel": {"sha256": found.kernel, "payload": found.kernel_payload, "pinned": found.kernel_pinned},
            "command_line": found.command_line,
            "files": found.files,
            "bytes": found.content,
            "environments": list(found.environments),
            "tree": found.tree,
        },
    )


@click.command(short_help="osv.toml to a raw disk.")
@spec_file_option
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Copy the disk here (sparse).")
@command
def build(ctx: Context, spec_file: Path, sets: tuple[str, ...], output: Path | None) -> Result:
    """Build the image's raw disk, or find that it is built. The same input gives the same bytes on every machine.

    Prints the disk's path. Example: osvdeploy build -o hello.raw
    """
    from osvdeploy import api

    built = api.build(ctx, api.load_spec(spec_file, sets=sets))
    path = built.image.path
    if output is not None:
        from osvdeploy.build.copy import copy_sparse

        copy_sparse(path, output)
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
    """Show what osv.lock pins, and with --upgrade move it to the kernel that the spec names now.

    Example: osvdeploy lock --upgrade
    """
    from osvdeploy import api
    from osvdeploy.build.lock import TreePin

    loaded = api.load_spec(spec_file, sets=sets)
    pin = api.upgrade_lock(ctx, loaded) if upgrade else api.pinned(loaded)
    if pin is None:
        return Result("nothing is pinned yet: the first build pins the kernel", {"kernel": None})
    if isinstance(pin, TreePin):
        return Result(f"tree {pin.path}: commit {pin.commit}", {"tree": {"path": pin.path, "commit": pin.commit}})
    return Result(
        f"kernel {pin.file}: sha256 {pin.sha256}, {pin.size} bytes",
        {"kernel": {"file": pin.file, "sha256": pin.sha256, "size": pin.size, "payload": pin.payload}},
    )
