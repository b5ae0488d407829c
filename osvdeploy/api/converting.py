"""A disk image from one format to another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from osvdeploy.api.building import build, spec_of
from osvdeploy.api.declared import load_spec
from osvdeploy.build.uses import in_use
from osvdeploy.context import Context
from osvdeploy.errors import UsageError
from osvdeploy.events import Warned
from osvdeploy.publish.converting import Converted, Tools, convert_disk, require_deflater, target_format

if TYPE_CHECKING:
    from osvdeploy.publish.convert import Target
    from osvdeploy.spec import LoadedSpec


@in_use()
def convert(
    ctx: Context,
    source: Path | str | LoadedSpec,
    target: Path | BinaryIO,
    *,
    wanted: str | None = None,
    expected: str | None = None,
    force: bool = False,
) -> Converted:
    """Write the disk of an image of any format in another one. ``source``: a file or block device, or what means the
    image of a spec, which is built if needed. ``target``: a file, which appears whole or not at all, or an open stream
    for a format that is one. ``expected`` is the source's format where one is asserted, ``wanted`` the target's;
    ``force`` lets an existing target be replaced.

    What was written is read back and compared, but for a stream.

    Raises UsageError, DiskInvalid (the source), ToolMissing, before anything is written; SourceChanged; BuildError
    where the target cannot be written; Interrupted. Nothing half-made is left behind.
    """
    from osvdeploy.build.copy import refuse_existing
    from osvdeploy.build.files import part_of
    from osvdeploy.build.foreign import read_by_qemu

    path = target if isinstance(target, Path) else None
    kind = target_format(path, wanted)
    if path is not None:
        refuse_existing(path, force)
    elif not kind.is_stream:
        raise UsageError(f"{kind} cannot be written to a stream: its beginning is written last", hint="name a file")
    require_deflater(kind)
    tools = Tools(
        part=lambda place: part_of(place, nonce=ctx.nonce()), foreign=lambda opened: read_by_qemu(ctx, opened)
    )
    loaded = _spec_behind(source)
    if loaded is None:
        assert isinstance(source, Path | str)
        named = Path(source)
    else:
        _refuse_shared(loaded, kind)
        image = build(ctx, loaded).image
        if image.share is not None:
            _warn_of_share(ctx, loaded, image.share)
        named = image.path
    if path is not None and path.exists() and path.samefile(named):
        raise UsageError(f"{path}: source and target are one file", hint="name another target")
    return convert_disk(ctx, named, target, kind, tools, expected)


def _spec_behind(source: Path | str | LoadedSpec) -> LoadedSpec | None:
    if isinstance(source, Path | str):
        spec = spec_of(source)
        return None if spec is None else load_spec(spec)
    return source


def _refuse_shared(loaded: LoadedSpec, kind: Target) -> None:
    """Virtio-fs is given by QEMU and its like, which take raw disks and qcow2. Who takes the others has none."""
    if loaded.spec.image.fs == "virtiofs" and kind.value not in ("raw", "qcow2"):
        raise UsageError(
            f"{loaded.path}: image.fs = virtiofs: its files are beside the disk, and who takes {kind} has no virtio-fs",
            hint='choose another file system: fs = "rofs"',
        )


def _warn_of_share(ctx: Context, loaded: LoadedSpec, share: Path) -> None:
    ctx.report(
        Warned(
            f"{loaded.path}: image.fs = virtiofs: the disk has the kernel alone; its files are in {share}",
            hint="give that directory to the machine by virtiofsd, or build with another file system",
        )
    )
