"""What people import: build, publish, deploy, roll back - the use cases joined to the adapters.

Every function takes a :class:`~osvdeploy.context.Context` first, blocks until it is done, may be cancelled through the
context, may be called again after any failure, and raises only :class:`~osvdeploy.errors.OsvDeployError`.

    from osvdeploy import api
    from osvdeploy.context import Context

    ctx = Context()
    spec = api.load_spec("osv.toml")
    outcome = api.deploy(ctx, spec, "production")
    print(outcome.rollout.told)

Adapters (boto3 and so on) are imported when a function first needs them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from osvdeploy.context import Context
from osvdeploy.digests import Digest
from osvdeploy.errors import CloudError, DiskInvalid, KernelInvalid, UsageError
from osvdeploy.events import CloudCall, Event, Note, Warned, silent

if TYPE_CHECKING:
    from osvdeploy.build.builder import BuildResult
    from osvdeploy.build.kernels import StoredKernel
    from osvdeploy.build.lock import KernelPin, TreePin
    from osvdeploy.build.plan import ImageInputs
    from osvdeploy.build.program_lock import ProgramPin
    from osvdeploy.build.sources import KernelSource, RemoteKernel
    from osvdeploy.checks import Finding, Judged
    from osvdeploy.checks.places import Place
    from osvdeploy.cloud.interfaces import Cloud, ObjectStore, Prober, ReleaseId, Slot, TargetHealth
    from osvdeploy.cloud.local.run import RunOptions, RunResult
    from osvdeploy.osv.anatomy import Anatomy, Totals
    from osvdeploy.osv.cmdline import BootCommand
    from osvdeploy.osv.compare import Comparison
    from osvdeploy.osv.extract import Extracted
    from osvdeploy.osv.filetree import FileTree
    from osvdeploy.osv.image import RawImage
    from osvdeploy.osv.kernel import Kernel
    from osvdeploy.osv.kernel_facts import KernelFacts
    from osvdeploy.osv.rofs import RofsReader
    from osvdeploy.osv.source import ImageFile
    from osvdeploy.publish.publisher import Published
    from osvdeploy.rollout.ledger import Head, Ledger
    from osvdeploy.rollout.manager import Rollout, RolloutManager
    from osvdeploy.rollout.model import Run
    from osvdeploy.rollout.releases import Release, Settings
    from osvdeploy.rollout.retention import Garbage
    from osvdeploy.spec import LoadedSpec
    from osvdeploy.spec.model import Kernel as DeclaredKernel

LEDGER_VARIABLE = "OSVDEPLOY_LEDGER"
"""Environment variable with the ledger's address, for commands that are given no spec."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service and where its ledger lies: all that ``status``, ``rollback`` or ``destroy`` need to know."""

    app: str
    environment: str
    ledger: str

    @property
    def name(self) -> str:
        return f"{self.app}/{self.environment}"


@dataclass(slots=True)
class Calls:
    """Counts API calls by listening to events."""

    total: int = 0
    mutating: int = 0

    def listening(self, ctx: Context) -> Context:
        """The context with its reporter kept, and counted."""
        heard = ctx.reporter

        def count(event: Event) -> None:
            if isinstance(event, CloudCall):
                self.total += 1
                self.mutating += event.mutating
            heard(event)

        return ctx.reporting_to(count)


# ------------------------------------------------------------------------------------------------- spec to image


def load_spec(
    path: Path | str = "osv.toml", *, sets: Sequence[str] = (), environ: Mapping[str, str] | None = None
) -> LoadedSpec:
    """Read an osv.toml. ``sets`` are ``path=value`` overrides; ``environ`` gives ``${NAME}`` (os.environ if None).

    Raises :class:`~osvdeploy.errors.SpecError` with every problem at once.
    """
    from osvdeploy.spec import load

    return load(Path(path), environ=os.environ if environ is None else environ, sets=sets)


def image_inputs(loaded: LoadedSpec) -> ImageInputs:
    """What building needs of a spec."""
    from osvdeploy.build.plan import FileMapping, ImageInputs, TreeInputs
    from osvdeploy.build.program import Packages, ProgramRequest

    spec = loaded.spec
    tree = None
    if spec.kernel.tree is not None:
        tree = TreeInputs(
            path=spec.kernel.tree,
            options=tuple(spec.kernel.options.items()),
            modules=tuple(spec.image.modules),
            fs=spec.image.fs,
            jobs=spec.kernel.jobs,
        )
    return ImageInputs(
        app=spec.name,
        version=spec.version,
        base=loaded.base,
        kernel=None if tree is not None else _kernel_source(spec.kernel),
        command=tuple(spec.image.command),
        environment=tuple(spec.image.env.items()),
        options=spec.image.boot_options(),
        files=tuple(FileMapping(each.from_, each.to, tuple(each.exclude)) for each in spec.files),
        programs=tuple(
            ProgramRequest(
                each.path,
                each.to,
                each.root,
                Packages(each.packages.requirements, each.packages.venv, each.packages.host) if each.packages else None,
            )
            for each in spec.programs
        ),
        size=spec.image.size,
        tree=tree,
    )


def _kernel_source(kernel: DeclaredKernel) -> KernelSource:
    from osvdeploy.build.sources import FileKernel, ReleaseKernel, UrlKernel, Variant

    if kernel.file is not None:
        return FileKernel(kernel.file)
    if kernel.release is not None:
        return ReleaseKernel(kernel.release, Variant(kernel.variant or Variant.LOADER))
    assert kernel.url is not None, "the model asks for one of them"
    return UrlKernel(kernel.url)


@dataclass(frozen=True, slots=True)
class Checked:
    """What is known of an image before it is built. ``files`` and ``content`` (bytes) are those of the file system;
    ``kernel_version`` is None where the kernel does not tell it.

    A kernel that a source tree will build is not there yet: ``kernel`` is None, and ``tree`` says what will build it.
    """

    app: str
    version: str
    kernel: Digest | None
    kernel_payload: str
    kernel_version: str | None
    kernel_pinned: bool
    command_line: str
    files: int
    content: int
    environments: tuple[str, ...]
    judged: Judged
    tree: str | None = None


def check(ctx: Context, loaded: LoadedSpec, *, forced: Collection[str] = (), strict: bool = False) -> Checked:
    """Everything that can be known without building: spec, kernel, its pin, files, command line, and what the rules
    find. Writes nothing but what it had to download, and what it remembers of kernel and files, into the user's cache.

    What is refused is in ``judged``; its ``require()`` raises. ``forced`` are rules to override, beside those that the
    spec waives; ``strict`` refuses warnings too. Raises UsageError for a rule that does not exist.
    """
    from osvdeploy.build.lock import LOCK_NAME, held_pin, read_lock
    from osvdeploy.osv.cmdline import encode
    from osvdeploy.osv.kernel import Payload

    _require_rules(loaded, forced)
    looked = look(ctx, loaded)
    inputs, tree = looked.inputs, looked.tree
    if looked.kernel is None:
        lock = read_lock(inputs.base / LOCK_NAME)
        pinned = lock is not None and lock.tree is not None
    else:
        pinned = held_pin(inputs.base / LOCK_NAME, looked.kernel, source=inputs.prebuilt) is not None
    for environment, problems in loaded.unset.items():
        ctx.report(Warned(f"[deploy.{environment}] cannot be used now: {problems[0]}"))
    sizes = [entry.size for _, entry in tree.files()]
    return Checked(
        app=inputs.app,
        version=inputs.version,
        kernel=looked.kernel.sha256 if looked.kernel is not None else None,
        kernel_payload=(looked.kernel.payload if looked.kernel is not None else Payload.LZLOADER).value,
        kernel_version=looked.facts.version if looked.facts is not None else None,
        kernel_pinned=pinned,
        command_line=encode(looked.boot).decode(),
        files=len(sizes),
        content=sum(sizes),
        environments=tuple(loaded.spec.deploy),
        judged=_judge(loaded, findings(ctx, loaded, looked), forced, strict=strict),
        tree=looked.source_tree,
    )


# ------------------------------------------------------------------------------------------------ what rules find


@dataclass(frozen=True, slots=True)
class Looked:
    """An image before it is built: what the spec asks for, and what is there. Rules read nothing else. ``own`` is what
    ``[[files]]`` bring of ``tree``: what the user wrote, and not what a distribution or an index publishes.

    ``kernel`` and ``facts`` are None where a source tree is yet to build it, and ``source_tree`` says what will.
    """

    inputs: ImageInputs
    boot: BootCommand
    kernel: Kernel | None
    facts: KernelFacts | None
    tree: FileTree
    own: FileTree
    source_tree: str | None = None


def look(ctx: Context, loaded: LoadedSpec) -> Looked:
    """Read the kernel and find the files that a spec names. Packages of a program that were never installed stay out.

    Raises BuildError where host programs, or the source tree, are not those that osv.lock pins.
    """
    from osvdeploy.build import plan
    from osvdeploy.build.cache import BuildCache
    from osvdeploy.build.kernels import kernel_facts
    from osvdeploy.build.statcache import StatCache

    inputs, cache = image_inputs(loaded), BuildCache.of_user()
    stats = StatCache.load(cache.stats_file(inputs.base))
    if inputs.tree is not None:
        from osvdeploy.build.osvtree.builder import plan_tree, summary

        wanted = plan_tree(ctx, inputs, stats, cache=None)
        own = plan.file_tree(inputs) if inputs.programs else wanted.files
        return Looked(inputs, wanted.boot, None, None, wanted.files, own, summary(wanted))
    boot = plan.boot_command(inputs)
    kernel = plan.load_kernel(ctx, inputs, stats, cache)
    cxx = plan.supplies_cxx(ctx, inputs, kernel, cache)
    programs = plan.programs_of(ctx, inputs, stats, cache=None, cxx=cxx)
    if programs is not None:
        boot = programs.boot_with(boot)
    tree = plan.file_tree(inputs, programs)
    plan.held_programs(ctx, inputs, stats, programs)
    own = tree if programs is None else plan.file_tree(inputs)
    return Looked(inputs, boot, kernel, kernel_facts(ctx, kernel, cache), tree, own)


def look_at_built(looked: Looked, image: RawImage) -> Looked:
    """The same once a source tree has built the kernel: what that is, is read off the disk."""
    from dataclasses import replace

    from osvdeploy.osv import anatomy
    from osvdeploy.osv.disk import FileAccess
    from osvdeploy.osv.kernel import KERNEL_OFFSET, Kernel

    source = FileAccess(image.path)
    found = anatomy.look(source).kernel
    if found is None:
        return looked
    size = found.extent.end - found.extent.start + KERNEL_OFFSET
    kernel = Kernel(image.path, size, image.kernel, found.chunks, found.payload)
    return replace(looked, kernel=kernel, facts=anatomy.kernel_facts(source, found))


def findings(ctx: Context, loaded: LoadedSpec, looked: Looked, places: Sequence[Place] | None = None) -> list[Finding]:
    """What every rule finds in an image and its way into ``places``; without them, into those that the spec's
    deployments name, as far as names tell."""
    return [
        *place_findings(loaded, looked, named_places(loaded) if places is None else places),
        *program_findings(ctx, looked.inputs, looked.kernel, looked.facts, looked.tree, looked.boot),
        *lint_findings(ctx, loaded, looked),
    ]


def named_places(loaded: LoadedSpec) -> list[Place]:
    """The places of a spec's deployments, each once, by the names of their machine types."""
    from osvdeploy.checks.places import named

    asked = dict.fromkeys((each.cloud, each.instance_type) for each in loaded.spec.deploy.values())
    return [place for cloud, machine in asked if (place := named(cloud, machine)) is not None]


def place_findings(loaded: LoadedSpec, looked: Looked, places: Sequence[Place]) -> list[Finding]:
    """Whether the kernel boots and is reached at these places, with these options, from this disk."""
    from osvdeploy.checks.preflight import Contents, ImageFacts, preflight
    from osvdeploy.osv.kernel import Payload

    if looked.kernel is None:
        # Nothing is known of a kernel that is not there; it is judged when it is, before anything goes to a cloud.
        return []
    facts = None if looked.kernel.payload is Payload.UNKNOWN else looked.facts
    image = ImageFacts(
        options=looked.boot.options,
        fs=loaded.spec.image.fs,
        arch=loaded.spec.image.arch,
        disk=looked.inputs.size,
        kernel_size=looked.kernel.size,
        contents=Contents.of(looked.tree),
    )
    found = dict.fromkeys(finding for place in places or (None,) for finding in preflight(facts, image, place))
    return list(found)


def lint_findings(ctx: Context, loaded: LoadedSpec, looked: Looked) -> list[Finding]:
    """What should not go into production: secrets, open doors, time and traces lost."""
    from osvdeploy.build.cache import BuildCache
    from osvdeploy.build.plan import read_guest_file
    from osvdeploy.build.secrets import SecretCache, scan, secrets_of_variable
    from osvdeploy.checks.lint import LintFacts, lint
    from osvdeploy.osv.kernel import Payload

    spec = loaded.spec
    cache = SecretCache.load(BuildCache.of_user().secrets_file(looked.inputs.base))
    secrets = scan(ctx, looked.own, cache)
    cache.save(ctx)
    variables = {("[image] env", name): value for name, value in spec.image.env.items()}
    for environment, declared in spec.deploy.items():
        variables |= {(f"[deploy.{environment}] env", name): value for name, value in declared.env.items()}
    return lint(
        LintFacts(
            kernel=None if looked.kernel is None or looked.kernel.payload is Payload.UNKNOWN else looked.facts,
            boot=looked.boot,
            tree=looked.tree,
            fs=spec.image.fs,
            fstab=read_guest_file(looked.tree, b"/etc/fstab"),
            secrets=secrets,
            variables=variables,
            variable_secrets={key: secrets_of_variable(value) for key, value in variables.items()},
        )
    )


def _judge(loaded: LoadedSpec, found: Sequence[Finding], forced: Collection[str], *, strict: bool = False) -> Judged:
    from osvdeploy.checks import judge

    return judge(found, waived=loaded.spec.waive, forced=forced, strict=strict)


def _require_rules(loaded: LoadedSpec, forced: Collection[str]) -> None:
    from osvdeploy.checks.rules import require_known

    require_known(forced, where="--force")
    require_known(loaded.spec.waive, where=f"{loaded.path}: [waive]")


def _sound_build(ctx: Context, loaded: LoadedSpec, place: Place, forced: Collection[str]) -> BuildResult:
    """Build if needed, unless it is known to fail at ``place``: that is refused before anything is made, or as soon as
    a source tree has built the kernel to be judged.

    Raises :class:`~osvdeploy.errors.CheckFailed`.
    """
    looked = look(ctx.reporting_to(silent), loaded)
    if looked.kernel is not None:
        _require_sound(ctx, loaded, looked, place, forced)
        return _build(ctx, loaded)
    _judge(loaded, findings(ctx, loaded, looked, [place]), forced).require()
    built = _build(ctx, loaded)
    _require_sound(ctx, loaded, look_at_built(looked, built.image), place, forced)
    return built


def _require_sound(ctx: Context, loaded: LoadedSpec, looked: Looked, place: Place, forced: Collection[str]) -> None:
    """Refuse what is known to fail there; tell what is believed to. Raises CheckFailed."""
    from osvdeploy.checks.preflight import RULES

    judged = _judge(loaded, findings(ctx, loaded, looked, [place]), forced)
    judged.require()
    for finding in judged.warned:
        if finding.rule in RULES:
            ctx.report(Warned(f"{finding}: {finding.why}", hint=finding.cure))
    if others := sum(finding.rule not in RULES for finding in judged.warned):
        ctx.report(Note(f"{others} more warnings about the image: `osvdeploy check` lists them"))
    for finding, reason in judged.allowed:
        ctx.report(Note(f"allowed: {finding} ({reason})"))


def place_of(ctx: Context, cloud: Cloud, machine: str) -> Place:
    """What the cloud says of a machine type; what its name tells, where the cloud does not let us ask.

    Raises :class:`~osvdeploy.errors.UsageError` for one that the cloud does not have, with the nearest names.
    """
    from osvdeploy.checks.places import from_cloud, named
    from osvdeploy.errors import Refused

    try:
        found = cloud.machines.describe(ctx, machine)
    except Refused as error:
        place = named(cloud.kind, machine)
        if place is None:
            raise
        ctx.report(Warned(f"{machine}: judged by its name alone: {error.message}", hint=error.hint))
        return place
    if found is not None:
        return from_cloud(cloud.kind, found)
    from difflib import get_close_matches

    near = get_close_matches(machine, cloud.machines.names(ctx), n=3, cutoff=0.5)
    raise UsageError(
        f"{machine}: {cloud.region} has no machine type of that name",
        hint=f"the nearest are {', '.join(near)}" if near else "name another under [deploy.NAME]",
    )


def program_findings(
    ctx: Context,
    inputs: ImageInputs,
    kernel: Kernel | None,
    facts: KernelFacts | None,
    tree: FileTree,
    boot: BootCommand,
) -> list[Finding]:
    """What is to be said of the programs and libraries of a tree on its kernel."""
    from dataclasses import replace

    from osvdeploy.build.cache import BuildCache
    from osvdeploy.build.examine import ElfCache, examine
    from osvdeploy.build.plan import missing_program
    from osvdeploy.checks.finding import Severity
    from osvdeploy.checks.programs import ImageFiles, check_programs, program_missing
    from osvdeploy.osv.kernel import Payload

    cache = ElfCache.load(BuildCache.of_user().elves_file(inputs.base))
    found = examine(ctx, tree, cache)
    cache.save(ctx)
    findings = check_programs(facts, boot.words, ImageFiles(tree, found.elves, found.damaged))
    # Modules of a source tree bring files that are not known before.
    modules = inputs.tree is not None and inputs.tree.modules
    if not modules and (program := missing_program(tree, boot)) is not None:
        findings.insert(0, program_missing(program))
    if kernel is not None and kernel.payload is Payload.UNKNOWN:
        # The rules are about OSv; what else a loader.img may carry is free to do otherwise.
        return [replace(finding, severity=Severity.WARNING) for finding in findings]
    return findings


def build(ctx: Context, loaded: LoadedSpec, *, forced: Collection[str] = ()) -> BuildResult:
    """Build the image's raw disk in the user's cache, or find it there. Same input, same bytes, on every machine.

    Raises :class:`~osvdeploy.errors.CheckFailed` first for what would not start anywhere: a boot option that this
    kernel does not take, a file system that it does not mount. ``forced`` are rules to override.
    """
    _require_rules(loaded, forced)
    if loaded.spec.image.boot and loaded.spec.kernel.tree is None:
        # Without options there is nothing that kernels differ in, and an unchanged build need not know its kernel.
        looked = look(ctx.reporting_to(silent), loaded)
        _judge(loaded, place_findings(loaded, looked, ()), forced).require()
    return _build(ctx, loaded)


def _build(ctx: Context, loaded: LoadedSpec) -> BuildResult:
    from osvdeploy.build import builder
    from osvdeploy.build.cache import BuildCache

    return builder.build(ctx, image_inputs(loaded), BuildCache.of_user())


def upgrade_lock(ctx: Context, loaded: LoadedSpec) -> KernelPin | TreePin:
    """Pin the kernel, or the commit of its source tree, and the programs that the spec names now in osv.lock."""
    from osvdeploy.build import builder
    from osvdeploy.build.cache import BuildCache

    return builder.upgrade_lock(ctx, image_inputs(loaded), BuildCache.of_user())


def pinned(loaded: LoadedSpec) -> KernelPin | TreePin | None:
    """What osv.lock says of the kernel or its source tree; None where nothing is pinned yet."""
    from osvdeploy.build.lock import LOCK_NAME, read_lock

    lock = read_lock(loaded.base / LOCK_NAME)
    if lock is None:
        return None
    return lock.kernel if loaded.spec.kernel.tree is None else lock.tree


# ------------------------------------------------------------------------------------------------ running it here


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


# ------------------------------------------------------------------------------------------------- what is in an image


@dataclass(frozen=True, slots=True)
class Inspection:
    """An image taken apart. ``allocated`` is what its file takes here, in bytes. ``kernel`` is None without one, and
    where it cannot be read, which ``kernel_problem`` then says. ``totals`` is None where its files cannot be listed;
    ``unlisted`` says why."""

    path: Path
    format: str
    detail: str
    allocated: int
    anatomy: Anatomy
    kernel: KernelFacts | None
    kernel_problem: str | None
    totals: Totals | None
    unlisted: str | None


@contextmanager
def opened(ctx: Context, image: Path | str) -> Iterator[tuple[ImageFile, Anatomy]]:
    """An image of any origin, open and taken apart: a raw or qcow2 disk, a rofs.img, or an osv.toml (or its folder), of
    which the built image is meant; it is built where it is not.

    Raises DiskInvalid where it is no image.
    """
    from osvdeploy.osv.anatomy import look
    from osvdeploy.osv.source import open_image

    path = Path(image)
    if (path / "osv.toml").is_file():
        path = path / "osv.toml"
    if path.suffix == ".toml":
        path = build(ctx, load_spec(path)).image.path
    with open_image(path) as file:
        try:
            anatomy = look(file.source)
        except DiskInvalid as error:
            named = error.message if error.message.startswith(f"{path}: ") else f"{path}: {error.message}"
            raise DiskInvalid(named, hint=error.hint) from None
        yield file, anatomy


def inspect(ctx: Context, image: Path | str) -> Inspection:
    """What an image consists of. What is wrong with a part of it is told there. Raises DiskInvalid."""
    from osvdeploy.osv.anatomy import kernel_facts, totals

    with opened(ctx, image) as (file, anatomy):
        facts = counted = problem = unlisted = None
        try:
            facts = kernel_facts(file.source, anatomy.kernel) if anatomy.kernel is not None else None
        except KernelInvalid as error:
            problem = error.message
        try:
            counted = totals(anatomy.tree())
        except DiskInvalid as error:
            unlisted = error.message
        return Inspection(
            path=file.path,
            format=file.format.value,
            detail=file.detail,
            allocated=file.allocated,
            anatomy=anatomy,
            kernel=facts,
            kernel_problem=problem,
            totals=counted,
            unlisted=unlisted,
        )


def compare(ctx: Context, image: Path | str, other: Path | str) -> Comparison:
    """What makes ``image`` another than ``other``: files, and what would be sent were ``other`` its parent snapshot.

    Raises DiskInvalid.
    """
    from osvdeploy.osv.compare import Side
    from osvdeploy.osv.compare import compare as compare_images

    with opened(ctx, image) as (file, anatomy), opened(ctx, other) as (other_file, other_anatomy):
        return compare_images(
            Side(str(image), file.source, anatomy),
            Side(str(other), other_file.source, other_anatomy),
            check=ctx.check,
        )


def extract(ctx: Context, image: Path | str, path: bytes, into: Path | str) -> Extracted:
    """Write ``path`` of an image and all below it under ``into``, and nothing outside of it.

    Raises UsageError where ``path`` is not there or something is in the way; DiskInvalid.
    """
    from osvdeploy.osv.extract import extract as extract_files
    from osvdeploy.osv.extract import find

    with opened(ctx, image) as (file, anatomy):
        tree = listed(file, anatomy)
        return extract_files(tree, find(tree, path), Path(into), check=ctx.check)


def listed(file: ImageFile, anatomy: Anatomy) -> RofsReader:
    """The files of an open image. Raises DiskInvalid that names it and says why there are none."""
    try:
        return anatomy.tree()
    except DiskInvalid as error:
        raise DiskInvalid(f"{file.path}: {error.message}", hint=error.hint) from None


# ------------------------------------------------------------------------------------------------------- kernels


@dataclass(frozen=True, slots=True)
class InspectedKernel:
    """A kernel's file and what its bytes tell. ``source`` is how it was named; the digest is that of the file itself,
    unpacked where it is gzip."""

    source: str
    sha256: Digest
    facts: KernelFacts


def inspect_kernel(ctx: Context, named: str) -> InspectedKernel:
    """What a file, an address or a release (``v0.57.0``, ``v0.57.0/hidden``) is for a kernel. A release comes from the
    store, or into it; what is at an address is looked at and not kept."""
    from osvdeploy.build import kernels
    from osvdeploy.build.cache import BuildCache
    from osvdeploy.build.sources import parse_source

    cache = BuildCache.of_user()
    source = parse_source(named)
    digest, facts = kernels.inspect(ctx, source, cache)
    return InspectedKernel(str(source), digest, facts)


@dataclass(frozen=True, slots=True)
class AddedKernel:
    """A kernel that is in the store now, by its digest; ``source``: what specs may name it by, None for a pin alone."""

    sha256: Digest
    path: Path
    source: RemoteKernel | None
    facts: KernelFacts


def add_kernel(ctx: Context, named: str, *, named_as: str | None = None) -> AddedKernel:
    """Put a loader.img into the store: a file, an address or a release. ``named_as`` is the release or address that a
    file is: builds without a network then find it."""
    from osvdeploy.build import kernels
    from osvdeploy.build.cache import BuildCache
    from osvdeploy.build.sources import FileKernel, parse_source
    from osvdeploy.build.statcache import StatCache

    cache = BuildCache.of_user()
    source = parse_source(named)
    alias = None if named_as is None else parse_source(named_as)
    if isinstance(alias, FileKernel):
        raise UsageError(
            f"--as {named_as}: neither a release nor an address", hint="write --as v0.57.0, or --as https://…"
        )
    store = kernels.KernelStore(cache)
    if isinstance(source, FileKernel):
        path, known = store.add(ctx, Path(source.path), alias), alias
    elif alias is not None:
        raise UsageError(f"{named} says itself what it is", hint="--as is for a file")
    else:
        path, known = store.fetch(ctx, source), source
    kernel = store.find(ctx, Digest(path.name), StatCache())
    assert kernel is not None, "it was put there just now"
    return AddedKernel(kernel.sha256, path, known, kernels.kernel_facts(ctx, kernel, cache))


def stored_kernels(ctx: Context) -> tuple[tuple[StoredKernel, KernelFacts | None], ...]:
    """What is in the store; no facts of what is damaged."""
    from osvdeploy.build import kernels
    from osvdeploy.build.cache import BuildCache
    from osvdeploy.build.statcache import StatCache
    from osvdeploy.errors import KernelInvalid

    cache = BuildCache.of_user()
    store = kernels.KernelStore(cache)
    found: list[tuple[StoredKernel, KernelFacts | None]] = []
    for each in store.stored():
        kernel = store.find(ctx, each.sha256, StatCache())
        if kernel is None:
            continue
        try:
            found.append((each, kernels.kernel_facts(ctx, kernel, cache)))
        except KernelInvalid:
            found.append((each, None))
    return tuple(found)


def pinned_programs(loaded: LoadedSpec) -> tuple[ProgramPin, ...]:
    """What osv.lock says of the host's programs."""
    from osvdeploy.build.lock import LOCK_NAME, read_lock

    lock = read_lock(loaded.base / LOCK_NAME)
    return lock.programs if lock is not None else ()


# ---------------------------------------------------------------------------------------------- image to traffic


@dataclass(frozen=True, slots=True)
class PublishedImage:
    """A build and the image that was made of it."""

    build: BuildResult
    published: Published
    cloud: str
    region: str
    account: str


def publish(
    ctx: Context, loaded: LoadedSpec, environment: str | None = None, *, forced: Collection[str] = ()
) -> PublishedImage:
    """Build if needed, and make the image ``app-version`` in the cloud and region of an environment.

    First the cloud is asked what the environment's machine type is, and the rules what would fail there; ``forced`` are
    rules to override. Raises :class:`~osvdeploy.errors.CheckFailed`.
    """
    _require_rules(loaded, forced)
    _refuse_unpublishable(loaded)
    name = environment_of(loaded, environment)
    settings = settings_of(loaded, name)
    cloud = connect(ctx, settings.cloud, settings.region)
    built = _sound_build(ctx, loaded, place_of(ctx, cloud, settings.machine_type), forced)
    return PublishedImage(built, _publish(ctx, loaded, built, cloud), cloud.kind, cloud.region, cloud.account)


def _refuse_unpublishable(loaded: LoadedSpec) -> None:
    if loaded.spec.image.fs == "virtiofs":
        raise UsageError(
            f"{loaded.path}: image.fs = virtiofs: its files are on the machine's host, and no cloud gives that",
            hint='publish another file system: fs = "rofs"',
        )


def _publish(ctx: Context, loaded: LoadedSpec, built: BuildResult, cloud: Cloud) -> Published:
    from osvdeploy.publish.journal import Journal
    from osvdeploy.publish.publisher import publish_image

    spec = loaded.spec
    return publish_image(
        ctx,
        built.image,
        app=spec.name,
        version=spec.version,
        tags=dict(spec.publish.aws.tags) if spec.publish.aws else {},
        cloud=cloud,
        journal=Journal.of_user(),
    )


@dataclass(frozen=True, slots=True)
class Deployed:
    """A deploy from spec to traffic: the image published, the release made of it, and how it was rolled out."""

    release: Release
    published: Published
    rollout: Rollout


def deploy(
    ctx: Context, loaded: LoadedSpec, environment: str | None = None, *, forced: Collection[str] = ()
) -> Deployed:
    """Build and publish if needed, then roll out. Returns when the rollout has ended, well or not: look at
    ``rollout.outcome``.

    What would be refused later is looked for first: a machine type that the cloud does not have, an image that would
    not boot on it, a ledger that cannot be written, a lease that is held, a rule that is not ours, a held release.
    ``forced`` are rules of the checks to override. Raises :class:`~osvdeploy.errors.CheckFailed`.
    """
    from osvdeploy.cloud import tags
    from osvdeploy.cloud.local.store import refuse_unwritable
    from osvdeploy.osv.cmdline import RELEASE_VARIABLE, with_environment
    from osvdeploy.publish.blocks import first_block
    from osvdeploy.publish.journal import Journal
    from osvdeploy.publish.publisher import publish_release
    from osvdeploy.rollout.manager import RolloutManager
    from osvdeploy.rollout.releases import Release, configuration_digest, release_digest, release_id

    _require_rules(loaded, forced)
    _refuse_unpublishable(loaded)
    name = environment_of(loaded, environment)
    settings = settings_of(loaded, name)
    spec = loaded.spec
    service = Service(spec.name, name, settings.ledger)
    cloud = connect(ctx, settings.cloud, settings.region)
    built = _sound_build(ctx, loaded, place_of(ctx, cloud, settings.machine_type), forced)
    variables = tuple(spec.deploy[name].env.items())
    configuration = configuration_digest(variables, ())
    digest = release_digest(built.image.digest, configuration)
    release = Release(
        id=release_id(spec.name, spec.version, digest),
        app=spec.name,
        version=spec.version,
        image=built.image.digest,
        configuration=configuration,
        digest=digest,
        created=ctx.now(),
        by=f"{ctx.process.user}@{ctx.process.host}",
        settings=settings,
    )
    manager = RolloutManager(open_ledger(service), cloud, prober())
    refuse_unwritable(Path(settings.ledger) / spec.name / name)
    manager.preflight(ctx, release)
    published = _publish(ctx, loaded, built, cloud)
    boot = with_environment(built.image.boot, {**dict(variables), RELEASE_VARIABLE: release.id})
    labels = tags.release_tags(
        tags.service_tags(release.app, release.service, settings.ledger),
        release=release.id,
        version=release.version,
        image=release.image,
        configuration=release.configuration,
        digest=release.digest,
    )
    user_tags = dict(spec.publish.aws.tags) if spec.publish.aws else {}
    publish_release(
        ctx,
        published.image,
        block0=first_block(built.image, cloud.snapshots.block_size),
        boot=boot,
        release=release.id,
        digest=release.digest,
        tags={**user_tags, **labels},
        cloud=cloud,
        journal=Journal.of_user(),
    )
    return Deployed(release, published, manager.deploy(ctx, release))


def environment_of(loaded: LoadedSpec, environment: str | None) -> str:
    """The [deploy.NAME] to use: the one named, or the only one. Raises UsageError that lists them."""
    known = list(loaded.spec.deploy)
    if environment is None:
        if len(known) == 1:
            return known[0]
        if not known:
            raise UsageError(f"{loaded.path}: has no [deploy.NAME]", hint="add one; docs/spec.md shows how")
        raise UsageError(f"{loaded.path}: has several deployments: {', '.join(known)}", hint="choose one with --env")
    if environment not in known:
        raise UsageError(f"{loaded.path}: has no [deploy.{environment}]", hint=f"it has: {', '.join(known) or 'none'}")
    return environment


def service_of(loaded: LoadedSpec, environment: str | None) -> Service:
    """The service that an environment of a spec declares."""
    name = environment_of(loaded, environment)
    return Service(loaded.spec.name, name, settings_of(loaded, name).ledger)


def settings_of(loaded: LoadedSpec, environment: str) -> Settings:
    """One environment's settings, resolved. A ledger directory is relative to the spec."""
    from osvdeploy.rollout.releases import Health, Settings, Strategy, StrategyKind, TrafficStep

    loaded.require(environment)
    wanted = loaded.spec.deploy[environment]
    ledger = (
        wanted.ledger if "://" in wanted.ledger else str((loaded.base / Path(wanted.ledger).expanduser()).resolve())
    )
    health, strategy = wanted.health, wanted.strategy
    return Settings(
        environment=environment,
        cloud=wanted.cloud,
        region=wanted.region,
        ledger=ledger,
        machine_type=wanted.instance_type,
        capacity=wanted.capacity,
        networks=tuple(wanted.subnets),
        firewalls=tuple(wanted.security_groups),
        listener=wanted.listener,
        host=wanted.route.host,
        path=wanted.route.path,
        priority=wanted.route.priority,
        preview_header=wanted.preview.header,
        port=wanted.port,
        health=Health(
            path=health.path,
            version_header=health.version_header,
            boot_timeout=health.boot_timeout,
            interval=health.interval,
            timeout=health.timeout,
            min_ready=health.min_ready,
        ),
        strategy=Strategy(
            kind=StrategyKind(strategy.kind),
            steps=(TrafficStep(100),),
            bake=strategy.bake,
            keep_warm=strategy.keep_warm,
        ),
    )


# ------------------------------------------------------------------------------------------------- what is running


@dataclass(frozen=True, slots=True)
class SlotStatus:
    """One slot now: what the ledger says stands there, and what the cloud shows (None where nobody looked)."""

    slot: Slot
    release: ReleaseId | None
    serving: bool
    warm_until: str | None
    weight: int | None
    capacity: int | None
    targets: tuple[TargetHealth, ...] | None


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One service now. ``cloud_error`` says why the cloud's side is missing, where it is."""

    service: str
    ledger: str
    head: Head
    slots: tuple[SlotStatus, ...]
    base_url: str | None
    cloud_error: str | None


def status(ctx: Context, service: Service, *, look: bool = True) -> ServiceStatus:
    """The ledger's newest head and, with ``look``, what the cloud shows now. Never needs the spec.

    Raises :class:`~osvdeploy.errors.UsageError` for a service that was never deployed.
    """
    from osvdeploy.cloud import tags
    from osvdeploy.cloud.interfaces import Slot

    head = _head(ctx, service)
    place = head.place
    weights: Mapping[Slot, int] = {}
    targets: dict[Slot, tuple[TargetHealth, ...]] = {}
    capacity: dict[str, int] = {}
    trouble: str | None = None
    if look and place is not None and not head.destroyed:
        try:
            cloud = connect(ctx, place.cloud, place.region)
            state = cloud.router.observe(ctx, place.route)
            weights = state.weights or {}
            targets = {slot: cloud.router.health(ctx, place.route, slot) for slot in state.backends}
            owned = cloud.groups.owned(ctx, {tags.SERVICE: head.service})
            capacity = {group.name: group.capacity for group in owned if not group.deleting}
        except CloudError as error:
            trouble = str(error)
    return ServiceStatus(
        service=head.service,
        ledger=service.ledger,
        head=head,
        slots=tuple(_slot_status(head, slot, weights, targets, capacity) for slot in Slot),
        base_url=place.base_url if place is not None and not head.destroyed else None,
        cloud_error=trouble,
    )


def _slot_status(
    head: Head,
    slot: Slot,
    weights: Mapping[Slot, int],
    targets: Mapping[Slot, tuple[TargetHealth, ...]],
    capacity: Mapping[str, int],
) -> SlotStatus:
    record, run = head.slots.get(slot), head.unfinished
    release, group = (record.release, record.group) if record else (None, None)
    if run is not None and run.slot is slot and group not in capacity:
        # The rollout has emptied the slot for its candidate; the ledger names what stood there until the end.
        record, release, group = None, run.candidate, run.group
    return SlotStatus(
        slot=slot,
        release=release,
        serving=head.serving is slot,
        warm_until=record.warm_until.isoformat() if record and record.warm_until else None,
        weight=weights.get(slot),
        capacity=capacity.get(group) if group else None,
        targets=targets.get(slot),
    )


@dataclass(frozen=True, slots=True)
class History:
    """The releases of a service, newest first, and its runs, newest first, as they ended or stand."""

    service: str
    releases: tuple[Release, ...]
    runs: tuple[Run, ...]
    serving: ReleaseId | None


def history(ctx: Context, service: Service, *, limit: int = 20) -> History:
    """What was deployed, when, and how each rollout ended. Reads the ledger alone, back to the ``limit``-th run."""
    head = _head(ctx, service)
    ledger = open_ledger(service)
    runs: dict[str, Run] = {}
    for past in ledger.heads(ctx):
        # Newest first, so the first document of a run is its last word.
        if past.run is not None and past.run.id not in runs:
            if len(runs) == limit:
                break
            runs[past.run.id] = past.run
    serving = head.stable.release if head.stable is not None else None
    return History(service.name, tuple(reversed(ledger.releases(ctx))), tuple(runs.values()), serving)


# ------------------------------------------------------------------------------------------------------ rolling back


def rollback(ctx: Context, service: Service, *, to: str | None = None) -> Rollout:
    """Bring the release before the present one back, or ``to``: a release id or a version.

    Raises :class:`~osvdeploy.errors.UsageError` for a release nobody knows, before anything moves.
    """
    head = _head(ctx, service)
    ledger = open_ledger(service)
    target = find_release(ctx, ledger, to) if to is not None else None
    return _manager(ctx, service, head).rollback(ctx, target)


def find_release(ctx: Context, ledger: Ledger, name: str) -> Release:
    """The release with that id or version. Raises UsageError when there is none, or a version has several."""
    known = ledger.releases(ctx)
    by_id = [release for release in known if release.id == name]
    by_version = [release for release in known if release.version == name]
    found = by_id or by_version
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(
            f"{ledger.service}: version {name} was deployed with several configurations: "
            + ", ".join(release.id for release in found),
            hint="name one of these ids",
        )
    nearest = ", ".join(release.version for release in reversed(known[-5:])) or "none yet"
    raise UsageError(
        f"{ledger.service}: no release {name!r} was ever deployed",
        hint=f"`osvdeploy history` lists them; newest: {nearest}",
    )


def hold(ctx: Context, service: Service, release: str | None, why: str) -> Head:
    """Refuse a release (an id or version), or every one where None, until :func:`unhold`."""
    head = _head(ctx, service)
    held = find_release(ctx, open_ledger(service), release).id if release is not None else None
    return _manager(ctx, service, head).hold(ctx, held, why)


def unhold(ctx: Context, service: Service) -> Head:
    """Take every hold of the service away."""
    return _manager(ctx, service, _head(ctx, service)).unhold(ctx)


# --------------------------------------------------------------------------------------------------------- cleaning


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a service has in the cloud: names of groups, templates, rules and backends."""

    groups: tuple[str, ...]
    templates: tuple[str, ...]
    rules: tuple[str, ...]
    backends: tuple[str, ...]
    serving: ReleaseId | None


def holdings(ctx: Context, service: Service) -> Holdings:
    """What :func:`destroy` would take away."""
    from osvdeploy.cloud import tags

    head = _head(ctx, service)
    if head.place is None or head.destroyed:
        raise UsageError(f"{service.name}: nothing is deployed", hint="`osvdeploy history` tells what was")
    cloud = connect(ctx, head.place.cloud, head.place.region)
    state = cloud.router.observe(ctx, head.place.route)
    return Holdings(
        groups=tuple(group.name for group in cloud.groups.owned(ctx, {tags.SERVICE: head.service})),
        templates=tuple(cloud.groups.templates(ctx, {tags.SERVICE: head.service})),
        rules=tuple(state.rules.values()),
        backends=tuple(state.backends.values()),
        serving=head.stable.release if head.stable else None,
    )


def destroy(ctx: Context, service: Service) -> Head:
    """Take everything of a service away: machines, templates, rules, backends. Images stay for ``gc``."""
    head = _head(ctx, service)
    return _manager(ctx, service, head).destroy(ctx)


def gc(ctx: Context, service: Service, *, keep: int = 10, dry_run: bool = False) -> Garbage:
    """Find, and unless ``dry_run`` remove, what no release of the service needs. Returns what was found.

    Looks once more under the lease, so that nothing a deploy has just begun to need is taken.
    """
    from osvdeploy.rollout import lease

    head = _head(ctx, service)
    if head.place is None:
        raise UsageError(f"{service.name}: was never deployed")
    cloud = connect(ctx, head.place.cloud, head.place.region)
    ledger = open_ledger(service)
    if dry_run:
        return _find_garbage(ctx, ledger, cloud, head, keep)
    with lease.held(ctx, ledger, "gc") as held:
        garbage = _find_garbage(ctx, ledger, cloud, held.head, keep)
        gone = {name for name, _ in garbage.groups}
        slots = {slot: record for slot, record in held.head.slots.items() if record.group not in gone}
        if slots != held.head.slots:
            # First: a group that no slot names is found again, a slot whose group is gone is not.
            held.save(ctx, "gc", slots=slots)
        for group, why in garbage.groups:
            ctx.report(Note(f"removing group {group}: {why}"))
            cloud.groups.delete(ctx, group)
        for template, why in garbage.templates:
            ctx.report(Note(f"removing template {template}: {why}"))
            cloud.groups.delete_template(ctx, template)
        for image, why in garbage.images:
            ctx.report(Note(f"removing image {image.name} ({image.id}): {why}"))
            cloud.images.deregister(ctx, image.id)
            held.renew(ctx)
        for disk, why in garbage.disks:
            ctx.report(Note(f"removing disk {disk.name} ({disk.id}): {why}"))
            cloud.snapshots.delete(ctx, disk.id)
            held.renew(ctx)
    return garbage


def _find_garbage(ctx: Context, ledger: Ledger, cloud: Cloud, head: Head, keep: int) -> Garbage:
    from osvdeploy.cloud import tags
    from osvdeploy.rollout.releases import group_name
    from osvdeploy.rollout.retention import find_garbage

    releases = ledger.releases(ctx)
    weights: Mapping[Slot, int] = {}
    if head.place is not None and not head.destroyed:
        weights = cloud.router.observe(ctx, head.place.route).weights or {}
    return find_garbage(
        head,
        releases,
        keep,
        ctx.now(),
        groups=cloud.groups.owned(ctx, {tags.SERVICE: head.service}),
        templates=cloud.groups.templates(ctx, {tags.SERVICE: head.service}),
        template_of=[(group_name(ledger.service, release), release.id) for release in releases],
        images=cloud.images.owned(ctx, {tags.APP: ledger.app}),
        disks=cloud.snapshots.owned(ctx, {tags.APP: ledger.app}),
        carrying=[slot for slot, weight in weights.items() if weight > 0],
    )


# ----------------------------------------------------------------------------------------------------------- wiring


def connect(ctx: Context, cloud: str, region: str) -> Cloud:
    """The adapters of a place. Raises :class:`~osvdeploy.errors.CredentialsMissing` where none are found."""
    if cloud == "aws":
        try:
            from osvdeploy.cloud import aws
        except ModuleNotFoundError as error:
            raise UsageError(f"AWS needs {error.name}", hint="pip install 'osvdeploy[aws]'") from None
        return aws.connect(ctx, region)
    raise UsageError(f"cloud {cloud!r} is not supported by this version", hint='use cloud = "aws"')


def open_store(address: str) -> ObjectStore:
    """The object store at an address: a directory. Raises UsageError for a scheme this version does not know."""
    scheme, separator, _ = address.partition("://")
    if separator:
        raise UsageError(f"ledger {address!r}: {scheme}:// is not supported by this version", hint="use a directory")
    from osvdeploy.cloud.local.store import DirectoryStore

    return DirectoryStore(Path(address).expanduser())


def open_ledger(service: Service) -> Ledger:
    from osvdeploy.rollout.ledger import Ledger

    return Ledger(open_store(service.ledger), service.app, service.environment)


def prober() -> Prober:
    from osvdeploy.cloud.local.prober import HttpProber

    return HttpProber()


def _head(ctx: Context, service: Service) -> Head:
    head = open_ledger(service).head(ctx)
    if head is None:
        raise UsageError(
            f"{service.name}: was never deployed, as far as the ledger {service.ledger} knows",
            hint="name the right ledger with --ledger, or deploy the service first",
        )
    return head


def _manager(ctx: Context, service: Service, head: Head) -> RolloutManager:
    from osvdeploy.rollout.manager import RolloutManager

    if head.place is None:
        raise UsageError(f"{service.name}: was never deployed")
    return RolloutManager(open_ledger(service), connect(ctx, head.place.cloud, head.place.region), prober())
