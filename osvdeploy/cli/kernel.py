"""kernel: what a kernel is for, and the store of those that came from elsewhere; inspect, add, list."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from osvdeploy.cli.output import Result, command
from osvdeploy.context import Context

if TYPE_CHECKING:
    from osvdeploy.osv.kernel_facts import KernelFacts


@click.group(short_help="What a kernel is; the kernels kept here.")
def kernel() -> None:
    """Look into a kernel, or keep kernels where builds find them by their digest.

    A kernel is named as FILE (loader.img, an ELF, vmlinuz.bin, or gzip of these), as URL, or as RELEASE of OSv:
    v0.57.0, v0.57.0/hidden. OSVDEPLOY_KERNEL_RELEASES is the address of a mirror of OSv's releases.

    \b
    Example:
        osvdeploy kernel inspect loader.img
        osvdeploy kernel add v0.57.0/hidden
    """


@kernel.command(short_help="What a kernel's bytes tell.")
@click.argument("named", metavar="FILE|URL|RELEASE")
@click.option("--symbols", is_flag=True, help="List the names that programs can bind to, and nothing else.")
@command
def inspect(ctx: Context, named: str, symbols: bool) -> Result:
    """Unpack a kernel and say what it is: version, drivers, exported names, boot options and more; and where it serves,
    with the rules that speak against it.

    What its bytes do not tell is "unknown". Example: osvdeploy kernel inspect build/last/loader.img
    """
    from osvdeploy import api
    from osvdeploy.checks.preflight import where_it_serves
    from osvdeploy.cli.tables import table, width

    found = api.inspect_kernel(ctx, named)
    names = sorted(name.decode("utf-8", "backslashreplace") for name in found.facts.symbols)
    serves = where_it_serves(found.facts)
    document = {
        "source": found.source,
        "sha256": found.sha256,
        **_document(found.facts),
        "serves": [{"place": each.place, "verdict": each.verdict.value, "rules": each.rules} for each in serves],
    }
    if symbols:
        return Result("\n".join(names), document | {"symbols": names})
    places = table(("WHERE", "SERVES"), [(each.place, str(each)) for each in serves], fold=width())
    return Result(f"{_report(found.source, found.sha256, found.facts)}\n\n{places}", document | {"symbols": len(names)})


@kernel.command(short_help="Put a kernel into the store.")
@click.argument("named", metavar="FILE|URL|RELEASE")
@click.option("--as", "named_as", metavar="URL|RELEASE", help="What a FILE is, so that specs that name this find it.")
@command
def add(ctx: Context, named: str, named_as: str | None) -> Result:
    """Keep a loader.img in the store and print its digest. Builds whose osv.lock pins it need no network then.
    Of a disk image, raw or qcow2, it is the loader.img that it was made of.

    Example: osvdeploy kernel add osv-loader.qemu.x86_64 --as v0.57.0
    """
    from osvdeploy import api
    from osvdeploy.build.sources import source_table

    added = api.add_kernel(ctx, named, named_as=named_as)
    source = None if added.source is None else source_table(added.source)
    return Result(
        added.sha256,
        {"sha256": added.sha256, "path": added.path, "source": source, "version": added.facts.version},
    )


@kernel.command("list", short_help="The kernels in the store.")
@command
def list_(ctx: Context) -> Result:
    """Show what is in the store: digest, version, size, and the releases and addresses that it came from.

    Example: osvdeploy kernel list
    """
    from osvdeploy import api
    from osvdeploy.build.sources import source_table
    from osvdeploy.cli.tables import table
    from osvdeploy.sizes import format_size

    found = api.stored_kernels(ctx)
    rows = [
        (
            each.sha256[:12],
            (facts.version if facts is not None else None) or "unknown",
            format_size(each.size),
            ", ".join(str(source) for source in each.sources) or "-",
        )
        for each, facts in found
    ]
    text = table(("digest", "version", "size", "from"), rows) if rows else "no kernel is in the store"
    kernels = [
        {
            "sha256": each.sha256,
            "path": each.path,
            "size": each.size,
            "version": facts.version if facts is not None else None,
            "sources": [source_table(source) for source in each.sources],
        }
        for each, facts in found
    ]
    return Result(text, {"kernels": kernels})


def _document(facts: KernelFacts) -> dict[str, Any]:
    return {
        "format": facts.format.value,
        "arch": facts.arch,
        "size": facts.size,
        "version": facts.version,
        "debug": facts.debug,
        "drivers": _sorted(facts.drivers),
        "hidden": facts.hidden,
        "supplied": _sorted(facts.supplied),
        "boot_options": _sorted(facts.boot_options),
        "filesystems": _sorted(facts.filesystems),
        "syscalls": _sorted(facts.syscalls),
        "static_executables": facts.static_executables,
        "contiguous_mount_buffers": facts.contiguous_mount_buffers,
        "faults_through_thread_pointer": facts.faults_through_thread_pointer,
        "tls_reservation": facts.tls_reservation,
        "base": facts.base,
        "end": facts.end,
    }


def _report(source: str, digest: str, facts: KernelFacts) -> str:
    from osvdeploy.cli.tables import folded, width
    from osvdeploy.sizes import format_size

    hidden = {None: "", True: "; hidden: libstdc++ must be in the image", False: "; libstdc++ too"}[facts.hidden]
    memory = "unknown" if facts.base is None or facts.end is None else f"{facts.base:#x} to {facts.end:#x}"
    rows = [
        ("kernel", source),
        ("sha256", digest),
        ("version", facts.version or "unknown"),
        ("format", f"{facts.format.value}, {facts.arch}, {format_size(facts.size)}"),
        ("build", {None: "unknown", True: "debug", False: "release"}[facts.debug]),
        ("drivers", _listed(facts.drivers)),
        ("root file systems", _listed(facts.filesystems)),
        ("exports", f"{len(facts.symbols)} names{hidden}" if facts.symbols else "unknown"),
        ("libraries", _listed(facts.supplied)),
        ("boot options", _listed(facts.boot_options)),
        ("system calls", "unknown" if facts.syscalls is None else f"{len(facts.syscalls)}"),
        ("static programs", _yes(facts.static_executables)),
        ("ROFS on Xen", _yes(facts.contiguous_mount_buffers)),
        ("TLS of a program", "unknown" if facts.tls_reservation is None else f"{facts.tls_reservation} bytes"),
        ("memory", memory),
    ]
    column = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{column}}  {folded(value, column + 2, width())}" for name, value in rows)


def _sorted(values: Iterable[str] | None) -> list[str] | None:
    return None if values is None else sorted(str(value) for value in values)


def _listed(values: Iterable[str] | None) -> str:
    return "unknown" if values is None else ", ".join(sorted(str(value) for value in values)) or "none"


def _yes(value: bool | None) -> str:
    return {None: "unknown", True: "yes", False: "no"}[value]
