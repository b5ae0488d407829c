"""Running an image here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from osvdeploy.api.building import build
from osvdeploy.api.looking import Looked, look, place_findings, require_rules
from osvdeploy.context import Context
from osvdeploy.events import Note, Warned, silent

if TYPE_CHECKING:
    from osvdeploy.checks import Finding
    from osvdeploy.checks.places import Place
    from osvdeploy.cloud.local.run import RunOptions, RunResult
    from osvdeploy.osv.source import ImageFile
    from osvdeploy.spec import LoadedSpec


def run(
    ctx: Context,
    source: LoadedSpec | Path,
    options: RunOptions | None = None,
    *,
    forced: Collection[str] = (),
    show: Callable[[bytes], object],
    keyboard: int | None = None,
) -> RunResult:
    """Boot an image in QEMU here and wait for its end. ``source``: a spec, whose image is built if needed, or the path
    of a disk, raw or qcow2. The disk is never changed, and nothing is left of the machine.

    ``show`` gets the console as it comes; what is typed at the descriptor ``keyboard`` goes to the guest. A guest that
    ends badly, or is interrupted, is a result and no error: look at ``guest.verdict``.

    Raises :class:`~osvdeploy.errors.CheckFailed` first for what is known not to boot in this machine: a disk or a bus
    that the kernel has no driver for, a boot option that it does not take. ``forced`` are rules to override.
    """
    from osvdeploy.checks.rules import require_known
    from osvdeploy.cloud.local.run import RunOptions, run_image
    from osvdeploy.qemu.host import find_qemu

    options = options or RunOptions()
    options.refuse_wrong()
    find_qemu()
    place = _machine(options)

    def look_at_disk(file: ImageFile, line: bytes) -> None:
        from osvdeploy.checks.here import disk_findings, faults
        from osvdeploy.osv.anatomy import look as take_apart

        anatomy = take_apart(file.source)
        for fault in faults(anatomy):
            ctx.report(Warned(f"{file.path}: {fault}", hint=f"`osvdeploy inspect {file.path}` tells more"))
        waived = {} if isinstance(source, Path) else source.spec.waive
        _require(ctx, disk_findings(file.source, anatomy, line, place), waived, forced)

    if isinstance(source, Path):
        require_known(forced, where="--force")
        return run_image(ctx, source, options, before=look_at_disk, show=show, keyboard=keyboard)
    require_rules(source, forced)
    looked = look(ctx.reporting_to(silent), source)
    if looked.kernel is not None:
        _require(ctx, _spec_findings(source, looked, options, place), source.spec.waive, forced)
    image = build(ctx, source, forced=forced).image
    if looked.kernel is not None:
        return run_image(ctx, image.path, options, digest=image.digest, show=show, keyboard=keyboard)
    # A source tree's kernel is judged when it is there.
    return run_image(ctx, image.path, options, before=look_at_disk, digest=image.digest, show=show, keyboard=keyboard)


def _machine(options: RunOptions) -> Place:
    from osvdeploy.checks.places import qemu
    from osvdeploy.cloud.interfaces import DiskInterface

    disk = DiskInterface[options.bus.name]
    return qemu(disk=disk, cpus=options.cpus, memory=options.memory)


def _spec_findings(loaded: LoadedSpec, looked: Looked, options: RunOptions, place: Place) -> list[Finding]:
    from dataclasses import replace

    from osvdeploy.checks.here import at_hand
    from osvdeploy.osv.cmdline import BootCommand
    from osvdeploy.spec.boot import boot_options, worded_options

    table = worded_options(options.boot)
    kept = [each for each in looked.boot.options if each[0] not in table]
    boot = BootCommand((*kept, *boot_options(table)), looked.boot.environment, looked.boot.words)
    return at_hand(place_findings(loaded, replace(looked, boot=boot), [place]))


def _require(ctx: Context, found: Iterable[Finding], waived: Mapping[str, str], forced: Collection[str]) -> None:
    """Refuse what is known to fail in the machine that is to be, tell what is believed to. The console seldom does."""
    from osvdeploy.checks import judge

    judged = judge(found, waived=waived, forced=forced)
    judged.require(here=True)
    for finding in judged.warned:
        ctx.report(Warned(f"{finding}: {finding.why}", hint=finding.cure))
    for finding, reason in judged.allowed:
        ctx.report(Note(f"allowed: {finding} ({reason})"))
