"""An image before it is built: what is there, and what the rules find in it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from osvdeploy.api.declared import image_inputs
from osvdeploy.build.uses import in_use
from osvdeploy.context import Context
from osvdeploy.digests import Digest
from osvdeploy.errors import UsageError
from osvdeploy.events import Note, Warned

if TYPE_CHECKING:
    from osvdeploy.build.plan import ImageInputs
    from osvdeploy.checks import Finding, Judged
    from osvdeploy.checks.places import Place
    from osvdeploy.cloud.gcp.machines import GceMachineTypes
    from osvdeploy.cloud.interfaces import Cloud
    from osvdeploy.osv.cmdline import BootCommand
    from osvdeploy.osv.filetree import FileTree
    from osvdeploy.osv.image import RawImage
    from osvdeploy.osv.kernel import Kernel
    from osvdeploy.osv.kernel_facts import KernelFacts
    from osvdeploy.spec import LoadedSpec


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


@in_use()
def look(ctx: Context, loaded: LoadedSpec) -> Looked:
    """Read the kernel and find the files that a spec names. Packages of a program that were never installed stay out.

    Raises PinMismatch where host programs, or the source tree, are not those that osv.lock pins.
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
        *program_findings(
            ctx, looked.inputs, looked.kernel, looked.facts, looked.tree, looked.boot, arch=loaded.spec.image.arch
        ),
        *link_findings(looked),
        *lint_findings(ctx, loaded, looked),
    ]


def named_places(loaded: LoadedSpec) -> list[Place]:
    """The places of a spec's deployments, each once, by the names of their machine types."""
    from osvdeploy.checks.places import named

    asked = dict.fromkeys((each.cloud, each.machine) for each in loaded.spec.deploy.values())
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


def link_findings(looked: Looked) -> list[Finding]:
    """Links of the image that OSv does not follow, and names that it does not find; nothing where the payload is no
    OSv."""
    from osvdeploy.checks.links import check_dot_names, check_links
    from osvdeploy.osv.kernel import Payload

    if looked.kernel is not None and looked.kernel.payload is Payload.UNKNOWN:
        return []
    return [*check_links(looked.tree), *check_dot_names(looked.tree, looked.boot)]


def lint_findings(ctx: Context, loaded: LoadedSpec, looked: Looked) -> list[Finding]:
    """What should not go into production: secrets, open doors, time and traces lost."""
    from osvdeploy.build.cache import BuildCache
    from osvdeploy.build.plan import read_guest_file
    from osvdeploy.build.secrets import SecretCache, scan, secrets_of_variable
    from osvdeploy.build.surroundings import with_skeleton
    from osvdeploy.checks.lint import LintFacts, lint
    from osvdeploy.osv.kernel import Payload

    spec = loaded.spec
    tree = looked.tree if looked.inputs.tree is None else with_skeleton(looked.tree)
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
            tree=tree,
            fs=spec.image.fs,
            fstab=read_guest_file(tree, b"/etc/fstab"),
            secrets=secrets,
            variables=variables,
            variable_secrets={key: secrets_of_variable(value) for key, value in variables.items()},
            hooks=_hooks_of_elsewhere(ctx, loaded),
            gates=_gates_of_elsewhere(ctx, loaded),
        )
    )


def _hooks_of_elsewhere(ctx: Context, loaded: LoadedSpec) -> list[tuple[str, str, str]]:
    """Hooks whose programs cannot be run here: where they stand, what is wrong, what to do."""
    from osvdeploy.api.declared import program_of
    from osvdeploy.cloud.interfaces import CommandHook
    from osvdeploy.cloud.local.hooks import LocalHooks
    from osvdeploy.errors import UsageError

    found = []
    for environment, declared in loaded.spec.deploy.items():
        for hook in declared.hooks:
            if hook.command is None:
                continue
            try:
                LocalHooks().refuse_unready(ctx, CommandHook(program_of(hook.command, loaded.base)))
            except UsageError as error:
                found.append((f"[deploy.{environment}] hook {hook.name}", str(error), error.hint or ""))
    return found


def _gates_of_elsewhere(ctx: Context, loaded: LoadedSpec) -> list[tuple[str, str, str]]:
    """Gates that cannot be read from here, and would fail for want of data: where they stand, what is wrong, what to
    do."""
    from osvdeploy.api.declared import gate_for
    from osvdeploy.cloud.local.metrics import MetricSources
    from osvdeploy.errors import UsageError

    found = []
    for environment, declared in loaded.spec.deploy.items():
        for gate in (gate_for(each, loaded.base) for each in declared.gates):
            if not gate.fails_unread:
                continue
            try:
                MetricSources().refuse_unready(ctx, gate.metric)
            except UsageError as error:
                found.append((f"[deploy.{environment}] gate {gate.name}", str(error), error.hint or ""))
    return found


def program_findings(
    ctx: Context,
    inputs: ImageInputs,
    kernel: Kernel | None,
    facts: KernelFacts | None,
    tree: FileTree,
    boot: BootCommand,
    *,
    arch: str,
) -> list[Finding]:
    """What is to be said of the programs and libraries of a tree on its kernel; one that is yet to be built is for
    ``arch``."""
    from dataclasses import replace

    from osvdeploy.build.cache import BuildCache
    from osvdeploy.build.examine import ElfCache, examine
    from osvdeploy.build.plan import starts_in
    from osvdeploy.checks.finding import Severity
    from osvdeploy.checks.loader import ImageFiles
    from osvdeploy.checks.programs import check_programs, check_starts
    from osvdeploy.osv.kernel import Payload

    cache = ElfCache.load(BuildCache.of_user().elves_file(inputs.base))
    found = examine(ctx, tree, cache)
    cache.save(ctx)
    starts = starts_in(tree, boot)
    # Modules of a source tree bring files that are not known before.
    modules = inputs.tree is not None and inputs.tree.modules
    findings = [
        *check_starts(starts, [] if modules else starts.missing(tree, boot)),
        *check_programs(facts, starts.starts, ImageFiles(tree, found.elves, found.damaged), arch=arch),
    ]
    if kernel is not None and kernel.payload is Payload.UNKNOWN:
        # The rules are about OSv; what else a loader.img may carry is free to do otherwise.
        return [replace(finding, severity=Severity.WARNING) for finding in findings]
    return findings


def judge(loaded: LoadedSpec, found: Sequence[Finding], forced: Collection[str], *, strict: bool = False) -> Judged:
    from osvdeploy.checks import judge

    return judge(found, waived=loaded.spec.waive, forced=forced, strict=strict)


def require_rules(loaded: LoadedSpec, forced: Collection[str]) -> None:
    if not forced and not loaded.spec.waive:
        return  # a build without any need not know the rules
    from osvdeploy.checks.rules import require_known

    require_known(forced, where="--force")
    require_known(loaded.spec.waive, where=f"{loaded.path}: [waive]")


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


@in_use()
def check(ctx: Context, loaded: LoadedSpec, *, forced: Collection[str] = (), strict: bool = False) -> Checked:
    """Everything that can be known without building: spec, kernel, its pin, files, command line, and what the rules
    find. Writes nothing but what it had to download, and what it remembers of kernel and files, into the user's cache.

    What is refused is in ``judged``; its ``require()`` raises. ``forced`` are rules to override, beside those that the
    spec waives; ``strict`` refuses warnings too. Raises UsageError for a rule that does not exist.
    """
    from osvdeploy.build.lock import LOCK_NAME, held_pin, read_lock
    from osvdeploy.osv.cmdline import encode
    from osvdeploy.osv.kernel import Payload

    require_rules(loaded, forced)
    looked = look(ctx, loaded)
    inputs, tree = looked.inputs, looked.tree
    if looked.kernel is None:
        lock = read_lock(inputs.base / LOCK_NAME)
        pinned = lock is not None and lock.tree is not None
    else:
        pinned = held_pin(inputs.base / LOCK_NAME, looked.kernel, source=inputs.prebuilt) is not None
    for environment, problems in loaded.unset.items():
        ctx.report(Warned(f"[deploy.{environment}] cannot be used now: {problems[0]}"))
    for environment, declared in loaded.spec.deploy.items():
        if declared.cloud == "gcp" and declared.forwarding_rule is not None:
            from osvdeploy.rollout.releases import about_pointer

            listener = f"forwarding rule {declared.forwarding_rule}"
            told = about_pointer(listener, named=declared.health.version_header is not None)
            ctx.report(Note(f"[deploy.{environment}]: {told}"))
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
        judged=judge(loaded, findings(ctx, loaded, looked), forced, strict=strict),
        tree=looked.source_tree,
    )


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
    raise _no_machine(machine, cloud.region, cloud.machines.names(ctx))


def place_on_google(ctx: Context, machines: GceMachineTypes, machine: str) -> Place:
    """What a series is known to offer, with the processors and memory that Google tells; without them, where it does
    not let us ask.

    Raises :class:`~osvdeploy.errors.UsageError` as :func:`place_of` does.
    """
    from dataclasses import replace

    from osvdeploy.checks.places import Certainty, gce
    from osvdeploy.errors import Refused

    place = gce(machine)
    try:
        told = machines.describe(ctx, machine)
    except Refused as error:
        ctx.report(Warned(f"{machine}: judged by its name alone: {error.message}", hint=error.hint))
        return place
    if told is None:
        raise _no_machine(machine, machines.place, machines.names(ctx))
    place = replace(place, cpus=told.cpus, memory=told.memory, architectures=frozenset({told.architecture}))
    if told.architecture != "x86_64":
        # That settles it, whatever its series is believed to offer beside.
        return replace(place, certainty=Certainty.KNOWN, source="Google's own answer")
    return place


def _no_machine(machine: str, where: str, names: Sequence[str]) -> UsageError:
    from difflib import get_close_matches

    near = get_close_matches(machine, names, n=3, cutoff=0.5)
    return UsageError(
        f"{machine}: {where} has no machine type of that name",
        hint=f"the nearest are {', '.join(near)}" if near else "name another under [deploy.NAME]",
    )
