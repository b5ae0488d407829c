"""inspect: what is in an image, whoever made it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from osvdeploy.cli.output import Result, command
from osvdeploy.context import Context

if TYPE_CHECKING:
    from osvdeploy.api import Inspection
    from osvdeploy.osv.anatomy import Anatomy, Partition
    from osvdeploy.osv.compare import Comparison, FileChange
    from osvdeploy.osv.rofs.reader import RofsNode

_image = click.argument("image", type=click.Path(path_type=Path))
_path = click.argument("path", default="/", metavar="[PATH]")


class _Inspect(click.Group):
    """``inspect IMAGE`` for short, ``inspect ls IMAGE`` and so on for what is in it. An image whose name is one of the
    verbs is given as ./ls."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            return show.make_context(info_name, args, parent, **extra)
        return super().make_context(info_name, args, parent, **extra)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        show.format_help(click.Context(show, info_name=ctx.info_name, parent=ctx.parent), formatter)
        self.format_commands(ctx, formatter)


@click.group(cls=_Inspect, short_help="What is in an image.")
def inspect() -> None:
    """See show, whose help this is."""


@click.command("inspect", short_help="What an image consists of.")
@_image
@click.option("--against", metavar="IMAGE", type=click.Path(path_type=Path), help="Tell what differs from this image.")
@command
def show(ctx: Context, image: Path, against: Path | None) -> Result:
    """Take an image apart, whoever made it: a disk of osvdeploy, of OSv's scripts/build or of capstan, raw or qcow2,
    or a rofs.img. An osv.toml means its built image.

    Tells boot sector, command line, kernel, partitions, file systems and files. With --against: which files were
    added, removed, changed and moved, and which blocks would be sent if the other were the parent snapshot.

    Example: osvdeploy inspect disk.raw --against yesterday.raw
    """
    from osvdeploy import api

    if against is not None:
        return _differences(api.compare(ctx, image, against), image, against)
    found = api.inspect(ctx, image)
    return Result(_told(found), _document(found))


@inspect.command("ls", short_help="List files of an image.")
@_image
@_path
@click.option("-l", "long", is_flag=True, help="With kind and size, and where links lead.")
@click.option("-R", "--recursive", is_flag=True, help="All that is below, by whole path.")
@command
def ls(ctx: Context, image: Path, path: str, long: bool, recursive: bool) -> Result:
    """List a directory of an image, or one file of it. Names may be any bytes: what is not printable is shown as \\xNN,
    \\n, \\r or \\t and a backslash as two, and PATH is read so, here and by cat and extract.

    Example: osvdeploy inspect ls disk.raw /usr/lib -l
    """
    from osvdeploy import api
    from osvdeploy.osv.extract import below, children, find
    from osvdeploy.osv.rofs import RofsDirectory, RofsSymlink

    with api.opened(ctx, image) as (file, anatomy):
        tree = api.listed(file, anatomy)
        at = find(tree, path)
        # As ls has it: a link to a directory is the directory, unless the link itself is asked for.
        if isinstance(tree.nodes[at], RofsSymlink) and (not long or path.endswith("/")):
            leads = tree.resolve(at)
            at = leads if leads is not None and isinstance(tree.nodes.get(leads), RofsDirectory) else at
        if not isinstance(tree.nodes[at], RofsDirectory):
            paths = [at]
        else:
            paths = sorted(each for each in below(tree, at) if each != at) if recursive else children(tree, at)
    nodes = [(each, tree.nodes[each]) for each in paths]
    prefix = 0 if recursive or paths == [at] else len(at.rstrip(b"/")) + 1
    lines = [_line(each, node, prefix) if long else _text(each[prefix:]) for each, node in nodes]
    wanted = click.get_current_context().params["as_json"]
    entries = [_entry(each, node) for each, node in nodes] if wanted else []
    return Result("\n".join(lines), {"image": file.path, "path": _name(at), "entries": entries})


@inspect.command("cat", short_help="A file of an image, to stdout.")
@_image
@click.argument("path")
@command
def cat(ctx: Context, image: Path, path: str) -> Result:
    """Write the bytes of a file to stdout. Links are followed as OSv follows them. With --json its size and digest
    instead.

    Example: osvdeploy inspect cat disk.raw /etc/fstab
    """
    import hashlib

    from osvdeploy import api
    from osvdeploy.errors import OsvDeployError, UsageError
    from osvdeploy.osv.extract import find
    from osvdeploy.osv.rofs import RofsDirectory

    with api.opened(ctx, image) as (file, anatomy):
        tree = api.listed(file, anatomy)
        at = find(tree, path)
        node = tree.file(at)
        if node is None:
            if isinstance(tree.nodes[at], RofsDirectory):
                raise UsageError(f"{_text(at)}: a directory", hint="list it: osvdeploy inspect ls IMAGE PATH")
            raise UsageError(f"{_text(at)}: a link that leads to no file of the image")
        if click.get_current_context().params["as_json"]:
            digest = hashlib.sha256()
            for piece in tree.stream(node):
                ctx.check()
                digest.update(piece)
            return Result("", {"image": file.path, "path": _name(at), "size": node.size, "sha256": digest.hexdigest()})
        for piece in tree.stream(node):
            ctx.check()
            try:
                sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()
            except BrokenPipeError:
                raise
            except OSError as error:
                raise OsvDeployError(f"{path}: cannot be written to stdout: {error.strerror}") from None
    return Result("")


@inspect.command("extract", short_help="Files of an image, to a folder.")
@_image
@_path
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="FOLDER",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to: made where it is missing.",
)
@command
def extract(ctx: Context, image: Path, path: str, output: Path) -> Result:
    """Write a file, a link or a directory with all it has below FOLDER, under its whole path: /etc/hosts becomes
    FOLDER/etc/hosts. Nothing that is there is overwritten, and no link in FOLDER is followed.

    Example: osvdeploy inspect extract disk.raw /usr/lib -o files
    """
    from osvdeploy import api
    from osvdeploy.sizes import format_size

    done = api.extract(ctx, image, path, output)
    return Result(
        f"{output}: {_counted(done.files, done.directories, done.links)}, {format_size(done.content)}",
        {
            "output": output,
            "files": done.files,
            "directories": done.directories,
            "links": done.links,
            "bytes": done.content,
        },
    )


# ------------------------------------------------------------------------------------------------------- for people


def _told(found: Inspection) -> str:
    from osvdeploy.osv.anatomy import Layout
    from osvdeploy.sizes import format_size

    anatomy = found.anatomy
    detail = f" ({found.detail})" if found.detail else ""
    lines = [
        f"{found.path}: {found.format}{detail}, {format_size(anatomy.size)}, takes {format_size(found.allocated)} here",
        "",
        *(f"  {line}" for line in _layout(anatomy).splitlines()),
    ]
    if anatomy.layout is Layout.DATA:
        lines += ["", "no kernel on it: a machine is given one apart (Firecracker, QEMU's -kernel)"]
    lines += _kernel(found)
    lines += _command_line(anatomy)
    if found.totals is not None:
        count = found.totals
        shared = f", {format_size(count.shared)} of them shared" if count.shared else ""
        lines += [
            "",
            f"files: {_counted(count.files, count.directories, count.links)}, {format_size(count.content)}{shared}",
            *(f"  {format_size(size):>8}  {_text(path)}" for path, size in count.biggest),
        ]
    else:
        lines += ["", f"files: not listed: {found.unlisted}"]
    problems = [*anatomy.problems, *([found.kernel_problem] if found.kernel_problem else [])]
    problems += [
        f"partition {each.slot}: {each.problem}" if each.slot else each.problem
        for each in anatomy.partitions
        if each.problem
    ]
    if problems:
        lines += ["", "wrong with it:", *(f"  {each}" for each in problems)]
    return "\n".join(lines)


def _layout(anatomy: Anatomy) -> str:
    from osvdeploy.cli.tables import table, width
    from osvdeploy.sizes import format_size

    rows: list[tuple[str, str, str]] = []
    if anatomy.kernel is not None:
        kernel = anatomy.kernel
        digest = f", loader.img {kernel.sha256[:12]}" if kernel.sha256 else ""
        rows += [
            ("0", "512B", "boot sector"),
            ("512", "31.5KiB", "command line"),
            (
                str(kernel.extent.start),
                format_size(kernel.extent.end - kernel.extent.start),
                f"kernel: {kernel.payload.value}, {kernel.chunks} chunks{digest}",
            ),
        ]
    elif anatomy.partitions and anatomy.partitions[0].slot:
        rows.append(("0", "512B", "partition table"))
    for each in anatomy.partitions:
        size = format_size(each.extent.end - each.extent.start)
        rows.append((str(each.extent.start), size, _partition(each, anatomy.size)))
    return table(("AT", "SIZE", "WHAT"), rows, fold=width() - 2)


def _kernel(found: Inspection) -> list[str]:
    from osvdeploy.cli.tables import folded, width

    facts = found.kernel
    if facts is None:
        return []
    if facts.version is None and facts.drivers is None:
        return ["", "kernel: nothing in it says that it is OSv"]
    built = [facts.arch]
    if facts.debug is not None:
        built.append("debug" if facts.debug else "release")
    if facts.hidden is not None:
        built.append("symbols hidden" if facts.hidden else f"{len(facts.symbols)} symbols")
    told = f"kernel: OSv {_printable(facts.version or 'of an unknown version')}, {', '.join(built)}"
    lines = ["", told]
    if facts.drivers is not None:
        lines.append("  drivers: " + folded(", ".join(sorted(facts.drivers)), len("  drivers: "), width()))
    if facts.filesystems is not None:
        lines.append("  mounts: " + folded(", ".join(sorted(facts.filesystems)), len("  mounts: "), width()))
    return lines


def _partition(partition: Partition, size: int) -> str:
    from osvdeploy.osv.anatomy import FileSystem

    told = {
        FileSystem.ROFS: "ROFS",
        FileSystem.ZFS: "ZFS",
        FileSystem.EXT: "ext",
        FileSystem.NONE: "no length: files are in the kernel (ramfs) or come from outside (virtiofs)",
        FileSystem.EMPTY: "empty",
        FileSystem.UNKNOWN: "no file system that OSv knows",
    }[partition.file_system]
    if partition.problem and partition.file_system is FileSystem.UNKNOWN:
        told = "not read"
    elif partition.detail:
        told = f"{told} ({partition.detail})"
    if partition.slot:
        told = f"partition {partition.slot}, type {partition.kind:#04x}, {partition.device}: {told}"
    if partition.extent.end > size:
        return f"{told}, cut short"
    return f"{told}, damaged" if partition.problem and partition.file_system is FileSystem.ROFS else told


def _command_line(anatomy: Anatomy) -> list[str]:
    line = anatomy.command_line
    if line is None:
        return []
    if line.boot is None:
        raw = _line_text(line.raw[:2000]) + ("..." if len(line.raw) > 2000 else "")
        return ["", f"command line: {raw}", f"  not decoded: {line.problem}"]
    if not line.raw:
        return ["", "command line: empty, so nothing would run"]
    boot = line.boot
    told = ["", f"command line: {_line_text(line.raw)}"]
    if boot.options:
        told.append("  options: " + ", ".join(_printable(n if v is None else f"{n} = {v}") for n, v in boot.options))
    told += [f"  {_printable(f'{key}={value}')}" for key, value in boot.environment]
    words = ", ".join(_printable(repr(word)) for word in boot.words)
    told.append(f"  words: {words or 'none, so nothing would run'}")
    return told


def _differences(found: Comparison, image: Path, other: Path) -> Result:
    lines = [f"{image} against {other}", *differing_lines(found)]
    return Result("\n".join(lines), {"image": image, "against": other, **differing_document(found)})


def differing_lines(found: Comparison) -> list[str]:
    """What makes an image another, for people, two spaces from the left."""
    from osvdeploy.osv.compare import Change
    from osvdeploy.sizes import format_size

    lines = [
        f"  kernel: {'differs' if found.kernel else 'the same'}",
        f"  command line: {'differs' if found.command_line else 'the same'}",
    ]
    if found.files is None:
        lines.append(f"  files: not compared: {found.unlisted}")
    else:
        counts = [(sum(each.change is change for each in found.files), change.value) for change in Change]
        told = ", ".join(f"{count} {change}" for count, change in counts if count)
        lines.append(f"  files: {told or 'the same'}")
        lines += [f"    {_change(each)}" for each in found.files]
    blocks = found.blocks
    lines.append(
        f"  blocks: {len(blocks.changed)} of {blocks.needed} to send, {format_size(blocks.bytes_to_send)}, "
        "if the other were the parent snapshot"
    )
    return lines


def _change(each: FileChange) -> str:
    from osvdeploy.osv.compare import Change
    from osvdeploy.sizes import format_size

    if each.change is Change.MOVED and each.was is not None:
        return f"{each.change.value:<8} {_text(each.was)} -> {_text(each.path)}"
    if each.change is Change.CHANGED and each.before is not None and each.after is not None:
        sizes = format_size(each.after)
        if each.before != each.after:
            sizes = f"{format_size(each.before)} -> {format_size(each.after)}"
        return f"{each.change.value:<8} {_text(each.path)} ({sizes})"
    size = each.after if each.before is None else each.before
    return f"{each.change.value:<8} {_text(each.path)} ({each.kind.value if size is None else format_size(size)})"


def _line(path: bytes, node: RofsNode, prefix: int) -> str:
    from osvdeploy.osv.rofs import RofsFile, RofsSymlink

    size = str(node.size) if isinstance(node, RofsFile) else "-"
    target = f" -> {_text(node.target)}" if isinstance(node, RofsSymlink) else ""
    return f"{_kind(node):<9} {size:>12} {_text(path[prefix:])}{target}"


def _counted(files: int, directories: int, links: int) -> str:
    def of(count: int, one: str, many: str) -> str:
        return f"{count} {one if count == 1 else many}"

    parts = [of(files, "file", "files"), of(directories, "directory", "directories")]
    return ", ".join([*parts, of(links, "link", "links")] if links else parts)


def _text(name: bytes) -> str:
    """A name for people, as the commands take it back."""
    from osvdeploy.osv.names import escaped

    return escaped(name, plain=(sys.stdout.encoding or "utf-8").lower().replace("-", "") != "utf8")


def _line_text(line: bytes) -> str:
    """A command line for people. An image is a stranger's: it moves no cursor. A backslash stays one: OSv escapes with
    it."""
    return _printable(line.decode("utf-8", "backslashreplace"))


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


# ------------------------------------------------------------------------------------------------------ for programs


def _document(found: Inspection) -> dict[str, Any]:
    from osvdeploy.osv.compare import block_count

    anatomy, read = found.anatomy, found.anatomy.read
    kernel, line, facts = anatomy.kernel, anatomy.command_line, found.kernel
    return {
        "image": found.path,
        "format": found.format,
        "size": anatomy.size,
        "allocated": found.allocated,
        "layout": anatomy.layout.value,
        "kernel": None
        if kernel is None
        else {
            "start": kernel.extent.start,
            "end": kernel.extent.end,
            "chunks": kernel.chunks,
            "payload": kernel.payload.value,
            "sha256": kernel.sha256,
            "problem": found.kernel_problem,
            "arch": None if facts is None else facts.arch,
            "version": None if facts is None else facts.version,
            "debug": None if facts is None else facts.debug,
            "hidden": None if facts is None else facts.hidden,
            "drivers": None if facts is None or facts.drivers is None else sorted(facts.drivers),
            "filesystems": None if facts is None or facts.filesystems is None else sorted(facts.filesystems),
        },
        "command_line": None
        if line is None
        else {
            "raw": _name(line.raw),
            "options": None if line.boot is None else [list(each) for each in line.boot.options],
            "env": None if line.boot is None else [list(each) for each in line.boot.environment],
            "words": None if line.boot is None else list(line.boot.words),
            "problem": line.problem,
        },
        "partitions": [
            {
                "slot": each.slot or None,
                "type": each.kind if each.slot else None,
                "device": each.device,
                "start": each.extent.start,
                "end": each.extent.end,
                "file_system": each.file_system.value,
                "detail": each.detail,
                "problem": each.problem,
            }
            for each in anatomy.partitions
        ],
        "files": None
        if found.totals is None
        else {
            "files": found.totals.files,
            "directories": found.totals.directories,
            "links": found.totals.links,
            "bytes": found.totals.content,
            "shared": found.totals.shared,
            "biggest": [{"path": _name(path), "size": size} for path, size in found.totals.biggest],
        },
        "unlisted": found.unlisted,
        "read": {"bytes": sum(each.end - each.start for each in read), "blocks": block_count(read)},
        "problems": list(anatomy.problems),
    }


def differing_document(found: Comparison) -> dict[str, Any]:
    return {
        "kernel_differs": found.kernel,
        "command_line_differs": found.command_line,
        "files": None
        if found.files is None
        else [
            {
                "change": each.change.value,
                "path": _name(each.path),
                "kind": each.kind.value,
                "before": each.before,
                "after": each.after,
                "was": None if each.was is None else _name(each.was),
            }
            for each in found.files
        ],
        "unlisted": found.unlisted,
        "blocks": {
            "size": found.blocks.size,
            "needed": found.blocks.needed,
            "changed": list(found.blocks.changed),
            "bytes_to_send": found.blocks.bytes_to_send,
        },
    }


def _entry(path: bytes, node: RofsNode) -> dict[str, Any]:
    from osvdeploy.osv.rofs import RofsFile, RofsSymlink

    return {
        "path": _name(path),
        "kind": _kind(node),
        "size": node.size if isinstance(node, RofsFile) else None,
        "target": _name(node.target) if isinstance(node, RofsSymlink) else None,
    }


def _kind(node: RofsNode) -> str:
    from osvdeploy.osv.compare import kind_of

    return kind_of(node).value


def _name(name: bytes) -> str:
    """Bytes that are no UTF-8 as lone surrogates, which JSON escapes and Python's os.fsencode takes back."""
    return name.decode("utf-8", "surrogateescape")
