"""Running an image here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from osvdeploy.api.building import build
from osvdeploy.api.looking import look, place_findings
from osvdeploy.build.uses import in_use
from osvdeploy.context import Context
from osvdeploy.events import Warned, silent

if TYPE_CHECKING:
    from osvdeploy.cloud.local.run import RunOptions, RunResult
    from osvdeploy.spec import LoadedSpec


@in_use()
def run(
    ctx: Context,
    source: LoadedSpec | Path,
    options: RunOptions | None = None,
    *,
    show: Callable[[bytes], object],
    keyboard: int | None = None,
) -> RunResult:
    """Boot an image in QEMU here and wait for its end. ``source``: a spec, whose image is built if needed, or the path
    of a disk, raw or qcow2. The disk is never changed, and nothing is left of the machine.

    ``show`` gets the console as it comes; what is typed at the descriptor ``keyboard`` goes to the guest. A guest that
    ends badly, or is interrupted, is a result and no error: look at ``guest.verdict``.
    """
    from osvdeploy.cloud.local.run import RunOptions, run_image
    from osvdeploy.qemu.host import find_qemu

    options = options or RunOptions()
    options.refuse_wrong()
    find_qemu()
    if isinstance(source, Path):
        return run_image(ctx, source, options, show=show, keyboard=keyboard)
    _warn_of_machine(ctx, source, options)
    built = build(ctx, source)
    return run_image(ctx, built.image.path, options, digest=built.image.digest, show=show, keyboard=keyboard)


def _warn_of_machine(ctx: Context, loaded: LoadedSpec, options: RunOptions) -> None:
    """Tell what speaks against this kernel in the machine that is to be: a driver that it lacks, an option that it does
    not take. The console seldom says so."""
    from dataclasses import replace

    from osvdeploy.checks.places import qemu
    from osvdeploy.cloud.interfaces import DiskInterface
    from osvdeploy.osv.cmdline import BootCommand
    from osvdeploy.spec.boot import boot_options, worded_options

    looked = look(ctx.reporting_to(silent), loaded)
    wanted = boot_options(worded_options(options.boot))
    kept = [each for each in looked.boot.options if each[0] not in {name for name, _ in wanted}]
    boot = BootCommand((*kept, *wanted), looked.boot.environment, looked.boot.words)
    place = qemu(direct=options.kernel_direct)
    if options.bus.name in DiskInterface.__members__:
        place = replace(place, disks=frozenset({DiskInterface[options.bus.name]}))
    for finding in place_findings(loaded, replace(looked, boot=boot), [place]):
        ctx.report(Warned(f"{finding}: {finding.why}", hint=finding.cure))
