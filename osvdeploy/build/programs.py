"""All of a spec's ``[[programs]]`` together: their entries, the environment they need, and their pins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from osvdeploy.build.closure import Part, Placed
from osvdeploy.build.host import Closure, close_program, content_digest, merge
from osvdeploy.build.program import ProgramRequest
from osvdeploy.build.program_lock import CONTENTS_LIMIT, PackagesPin, ProgramPin
from osvdeploy.build.runtimes import Workshop
from osvdeploy.build.statcache import StatCache
from osvdeploy.context import Context
from osvdeploy.digests import Digest, digest_of
from osvdeploy.errors import CommandLineInvalid, ProgramInvalid
from osvdeploy.osv.cmdline import BootCommand
from osvdeploy.osv.filetree import Content, Directory, HostFile, Symlink, TreeBuilder, show


@dataclass(frozen=True, slots=True)
class Programs:
    """What the host's programs add to an image."""

    closures: tuple[Closure, ...]
    entries: Mapping[bytes, Placed]

    def put_into(self, builder: TreeBuilder) -> None:
        """Add everything to the files of the spec. Raises FileTreeInvalid that names both where two meet."""
        for path, placed in self.entries.items():
            match placed.entry:
                case HostFile() as file:
                    # As it was when its needs were read and its pin was taken.
                    builder.add_known(path, file)
                case Content(content=content):
                    builder.add_content(path, content, origin=placed.origin)
                case Symlink(target=target):
                    builder.add_symlink(path, target, origin=placed.origin)
                case Directory():
                    builder.add_directory(path, origin=placed.origin)

    def boot_with(self, boot: BootCommand) -> BootCommand:
        """The command line with what the programs need to be told, where the spec does not tell them.

        Raises CommandLineInvalid where it would start a script, ProgramInvalid where two programs need one variable to
        be two things.
        """
        for closure in self.closures:
            if boot.words[0] == show(closure.guest) and len(closure.command) > 1:
                words = [*closure.command, *boot.words[1:]]
                raise CommandLineInvalid(
                    f"command: {boot.words[0]} is a script, and OSv runs ELF programs alone",
                    hint="write command = [" + ", ".join(f'"{word}"' for word in words) + "]",
                )
        # What the started program needs goes before what the others do.
        ordered = sorted(self.closures, key=lambda closure: closure.command[0] != boot.words[0])
        needed: dict[str, tuple[str, Closure]] = {}
        given = {name for name, _ in boot.environment}
        for closure in ordered:
            for name, value in closure.environment:
                held, by = needed.setdefault(name, (value, closure))
                if held != value and name not in given and by.command[0] != boot.words[0]:
                    raise ProgramInvalid(
                        f"{name}: {by.request.path} needs {held!r}, and {closure.request.path} needs {value!r}",
                        hint="set it under [image] env, or give both programs one prefix with `to`",
                    )
        added = tuple((name, value) for name, (value, _) in needed.items() if name not in given)
        return replace(boot, environment=(*boot.environment, *added))

    def pins(self, ctx: Context, stats: StatCache, held: Sequence[ProgramPin]) -> tuple[ProgramPin, ...]:
        """The pins of the programs as they are now. What could not be looked at is taken as ``held``."""
        known = {pin.path: pin for pin in held}
        return tuple(_pin(ctx, closure, stats, known.get(show(closure.guest))) for closure in self.closures)


def bring_programs(
    ctx: Context, requests: Sequence[ProgramRequest], workshop: Workshop, *, cxx: bool = False
) -> Programs:
    """Find every program and all that it needs. Raises ProgramInvalid, BuildError."""
    closures = tuple(close_program(ctx, request, workshop, cxx=cxx) for request in requests)
    seen: dict[bytes, Closure] = {}
    for closure in closures:
        other = seen.setdefault(closure.guest, closure)
        if other is not closure:
            raise ProgramInvalid(
                f"{show(closure.guest)}: two programs for one place: {other.request.path} and {closure.request.path}",
                hint="give one of the two another `to`",
            )
    return Programs(closures, merge(ctx, closures, workshop.stats))


def _pin(ctx: Context, closure: Closure, stats: StatCache, held: ProgramPin | None) -> ProgramPin:
    program = dict(_content(ctx, closure.entries, Part.PROGRAM, stats))
    packages = dict(_content(ctx, closure.entries, Part.PACKAGES, stats))
    counted = {path: digest for path, (digest, _) in program.items()}
    return ProgramPin(
        path=show(closure.guest),
        source=closure.request.path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"),
        sha256=digest_of(counted),
        files=len(program),
        size=sum(size for _, size in program.values()),
        contents=counted if len(counted) <= CONTENTS_LIMIT else {},
        packages=_packages_pin(closure, packages, held),
    )


def _packages_pin(
    closure: Closure, packages: Mapping[str, tuple[Digest, int]], held: ProgramPin | None
) -> PackagesPin | None:
    asked = closure.requirements
    if not closure.complete and held is not None and held.packages is not None and held.packages.requirements == asked:
        return held.packages
    if not packages and asked is None:
        return None
    return PackagesPin(
        digest_of({path: digest for path, (digest, _) in packages.items()}),
        len(packages),
        sum(size for _, size in packages.values()),
        asked,
    )


def _content(
    ctx: Context, entries: Mapping[bytes, Placed], part: Part, stats: StatCache
) -> Iterator[tuple[str, tuple[Digest, int]]]:
    for path, placed in entries.items():
        if placed.part is not part:
            continue
        match placed.entry:
            case HostFile() | Content() as file:
                yield show(path), (content_digest(ctx, file, stats), file.size)
            case Symlink(target=target):
                yield show(path), (digest_of({"link": show(target)}), 0)
            case _:
                pass
