"""Disks in formats that QEMU's tools read and we do not: vdi and vhdx."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from osvdeploy.build.cache import BuildCache
from osvdeploy.context import Context
from osvdeploy.errors import BuildError, DiskInvalid, ToolMissing
from osvdeploy.events import Note
from osvdeploy.osv.source import OpenFile, open_file
from osvdeploy.processes import run_tool

if TYPE_CHECKING:
    from osvdeploy.osv.formats import OpenDisk


@contextmanager
def read_by_qemu(ctx: Context, opened: OpenDisk) -> Iterator[OpenFile]:
    """What qemu-img makes of it, in a workspace of the cache. Raises ToolMissing, DiskInvalid, BuildError."""
    if shutil.which("qemu-img") is None:
        raise ToolMissing(
            f"{opened.path}: {opened.format} is read by qemu-img, which is not installed (vdi and vhdx need it)",
            hint="install QEMU's tools: qemu-utils on Debian and Ubuntu, qemu-img on Fedora",
        )
    with BuildCache.of_user().workspace(ctx) as work:
        made = work.path / "disk.raw"
        ctx.report(Note(f"{opened.path}: {opened.format}, read by qemu-img"))
        # An absolute name: of others qemu-img takes what stands before a colon for a protocol.
        words = ["qemu-img", "convert", "-f", opened.format.value, "-O", "raw", "-S", "4k"]
        try:
            ended = run_tool(
                ctx,
                [*words, str(opened.path.absolute()), str(made)],
                cwd=work.path,
                env=os.environ,
                held=(work.lock,),
            )
        except OSError as error:
            raise BuildError(f"qemu-img: cannot be run: {error.strerror}") from None
        if ended.status:
            raise DiskInvalid(f"{opened.path}: qemu-img cannot read it: {ended.last(1)}")
        with open_file(made) as file:
            yield file
