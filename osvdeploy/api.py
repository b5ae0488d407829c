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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from osvdeploy.context import Context
from osvdeploy.digests import Digest
from osvdeploy.errors import CloudError, UsageError
from osvdeploy.events import CloudCall, Event, Note, Warned

if TYPE_CHECKING:
    from osvdeploy.build.builder import BuildResult
    from osvdeploy.build.lock import KernelPin, TreePin
    from osvdeploy.build.plan import ImageInputs
    from osvdeploy.cloud.interfaces import Cloud, ObjectStore, Prober, ReleaseId, Slot, TargetHealth
    from osvdeploy.publish.publisher import Published
    from osvdeploy.rollout.ledger import Head, Ledger
    from osvdeploy.rollout.manager import Rollout, RolloutManager
    from osvdeploy.rollout.model import Run
    from osvdeploy.rollout.releases import Release, Settings
    from osvdeploy.rollout.retention import Garbage
    from osvdeploy.spec import LoadedSpec

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
        kernel=spec.kernel.file or "",
        command=tuple(spec.image.command),
        environment=tuple(spec.image.env.items()),
        options=spec.image.boot_options(),
        files=tuple(FileMapping(each.from_, each.to, tuple(each.exclude)) for each in spec.files),
        size=spec.image.size,
        tree=tree,
    )


@dataclass(frozen=True, slots=True)
class Checked:
    """What is known of an image before it is built. ``files`` and ``content`` (bytes) are those of the file system.

    A kernel that a source tree will build is not there yet: ``kernel`` is None, and ``tree`` says what will build it.
    """

    app: str
    version: str
    kernel: Digest | None
    kernel_payload: str
    kernel_pinned: bool
    command_line: str
    files: int
    content: int
    environments: tuple[str, ...]
    tree: str | None = None


def check(ctx: Context, loaded: LoadedSpec) -> Checked:
    """Everything that can be known without building: spec, kernel, its pin, files, command line. Writes nothing."""
    from osvdeploy.build import plan
    from osvdeploy.build.cache import BuildCache
    from osvdeploy.build.lock import LOCK_NAME, held_pin
    from osvdeploy.build.statcache import StatCache
    from osvdeploy.osv.cmdline import encode

    inputs = image_inputs(loaded)
    if inputs.tree is not None:
        return _check_tree(ctx, loaded, inputs)
    boot = plan.boot_command(inputs)
    kernel = plan.load_kernel(ctx, inputs, StatCache.load(BuildCache.of_user().stats_file(inputs.base)))
    tree = plan.file_tree(inputs)
    pinned = held_pin(inputs.base / LOCK_NAME, kernel, file=inputs.kernel)
    if (program := plan.missing_program(tree, boot)) is not None:
        ctx.report(Warned(f"{program}: the command line names it, but no file of the image is there"))
    for environment, problems in loaded.unset.items():
        ctx.report(Warned(f"[deploy.{environment}] cannot be used now: {problems[0]}"))
    sizes = [entry.size for _, entry in tree.files()]
    return Checked(
        app=inputs.app,
        version=inputs.version,
        kernel=kernel.sha256,
        kernel_payload=kernel.payload.value,
        kernel_pinned=pinned is not None,
        command_line=encode(boot).decode(),
        files=len(sizes),
        content=sum(sizes),
        environments=tuple(loaded.spec.deploy),
    )


def _check_tree(ctx: Context, loaded: LoadedSpec, inputs: ImageInputs) -> Checked:
    """The same for an image that a source tree builds: the tree, its options, modules, tools and pin."""
    from osvdeploy.build.cache import BuildCache
    from osvdeploy.build.lock import LOCK_NAME, read_lock
    from osvdeploy.build.osvtree.builder import plan_tree, summary
    from osvdeploy.build.statcache import StatCache
    from osvdeploy.osv.cmdline import encode

    wanted = plan_tree(ctx, inputs, StatCache.load(BuildCache.of_user().stats_file(inputs.base)))
    for environment, problems in loaded.unset.items():
        ctx.report(Warned(f"[deploy.{environment}] cannot be used now: {problems[0]}"))
    lock = read_lock(inputs.base / LOCK_NAME)
    sizes = [entry.size for _, entry in wanted.files.files()]
    return Checked(
        app=inputs.app,
        version=inputs.version,
        kernel=None,
        kernel_payload="lzloader",
        kernel_pinned=lock is not None and lock.tree is not None,
        command_line=encode(wanted.boot).decode(),
        files=len(sizes),
        content=sum(sizes),
        environments=tuple(loaded.spec.deploy),
        tree=summary(wanted),
    )


def build(ctx: Context, loaded: LoadedSpec) -> BuildResult:
    """Build the image's raw disk in the user's cache, or find it there. Same input, same bytes, on every machine."""
    from osvdeploy.build import builder
    from osvdeploy.build.cache import BuildCache

    return builder.build(ctx, image_inputs(loaded), BuildCache.of_user())


def upgrade_lock(ctx: Context, loaded: LoadedSpec) -> KernelPin | TreePin:
    """Pin the kernel that the spec names now in osv.lock, or the commit of its source tree."""
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


# ---------------------------------------------------------------------------------------------- image to traffic


@dataclass(frozen=True, slots=True)
class PublishedImage:
    """A build and the image that was made of it."""

    build: BuildResult
    published: Published
    cloud: str
    region: str
    account: str


def publish(ctx: Context, loaded: LoadedSpec, environment: str | None = None) -> PublishedImage:
    """Build if needed, and make the image ``app-version`` in the cloud and region of an environment."""
    _refuse_unpublishable(loaded)
    name = environment_of(loaded, environment)
    settings = settings_of(loaded, name)
    cloud = connect(ctx, settings.cloud, settings.region)
    built = build(ctx, loaded)
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


def deploy(ctx: Context, loaded: LoadedSpec, environment: str | None = None) -> Deployed:
    """Build and publish if needed, then roll out. Returns when the rollout has ended, well or not: look at
    ``rollout.outcome``.

    What would be refused later is looked for first: a ledger that cannot be written, a lease that is held, a rule that
    is not ours, a held release.
    """
    from osvdeploy.cloud import tags
    from osvdeploy.cloud.local.store import refuse_unwritable
    from osvdeploy.osv.cmdline import RELEASE_VARIABLE, with_environment
    from osvdeploy.publish.blocks import first_block
    from osvdeploy.publish.journal import Journal
    from osvdeploy.publish.publisher import publish_release
    from osvdeploy.rollout.manager import RolloutManager
    from osvdeploy.rollout.releases import Release, configuration_digest, release_digest, release_id

    _refuse_unpublishable(loaded)
    name = environment_of(loaded, environment)
    settings = settings_of(loaded, name)
    spec = loaded.spec
    service = Service(spec.name, name, settings.ledger)
    built = build(ctx, loaded)
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
    cloud = connect(ctx, settings.cloud, settings.region)
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
