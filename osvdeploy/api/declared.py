"""What a spec declares, as the rest of the product takes it: image inputs, services, their settings."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from osvdeploy.digests import Digest
from osvdeploy.errors import UsageError

if TYPE_CHECKING:
    from osvdeploy.build.plan import ImageInputs
    from osvdeploy.build.sources import KernelSource
    from osvdeploy.cloud.interfaces import Metric
    from osvdeploy.context import Context
    from osvdeploy.rollout.gates import Gate
    from osvdeploy.rollout.hooks import Hook, Notify
    from osvdeploy.rollout.releases import Health, Release, Settings
    from osvdeploy.spec import LoadedSpec
    from osvdeploy.spec.gates import Gate as DeclaredGate
    from osvdeploy.spec.gates import GateMetric
    from osvdeploy.spec.hooks import Hook as DeclaredHook
    from osvdeploy.spec.hooks import Notify as DeclaredNotify
    from osvdeploy.spec.model import Deploy, DeployGcp
    from osvdeploy.spec.model import Health as DeclaredHealth
    from osvdeploy.spec.model import Kernel as DeclaredKernel


LEDGER_VARIABLE = "OSVDEPLOY_LEDGER"
"""Environment variable with the ledger's address, for commands on a service that no spec at hand declares."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service and where its ledger lies: all that ``status``, ``rollback`` or ``destroy`` need to know."""

    app: str
    environment: str
    ledger: str

    @property
    def name(self) -> str:
        return f"{self.app}/{self.environment}"


def load_spec(
    path: Path | str = "osv.toml", *, sets: Sequence[str] = (), environ: Mapping[str, str] | None = None
) -> LoadedSpec:
    """Read an osv.toml. ``sets`` are ``path=value`` overrides; ``environ`` gives ``${NAME}`` (os.environ if None).

    Raises :class:`~osvdeploy.errors.SpecError` with every problem at once.
    """
    from osvdeploy.spec import load

    return load(Path(path), environ=os.environ if environ is None else environ, sets=sets)


def spec_of(document: Mapping[str, object], base: Path | str, *, sets: Sequence[str] = ()) -> LoadedSpec:
    """A spec that a program gives, with osv.toml's keys; its paths are relative to ``base``. Texts are taken as they
    stand. Raises as :func:`load_spec` does."""
    from osvdeploy.spec import of_document

    return of_document(document, base=Path(base), sets=sets)


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
    """One environment's settings, resolved. A ledger directory is relative to the spec.

    Raises :class:`~osvdeploy.errors.UsageError` for one on Google that has neither URL map nor forwarding rule.
    """
    loaded.require(environment)
    wanted, google = loaded.spec.deploy[environment], loaded.spec.publish.gcp
    if wanted.cloud == "gcp" and not wanted.rolled_out:
        raise UsageError(
            f"[deploy.{environment}] has no url-map and no forwarding-rule, so that nothing is rolled out there",
            hint=f"name one of a balancer; or make its image alone: `osvdeploy publish --env {environment}`",
        )
    project = google.project if google is not None else ""
    family = family_of(loaded, environment) if wanted.cloud == "gcp" else None
    return settings_for(environment, wanted, loaded.base, project=project, family=family)


def settings_for(
    environment: str, wanted: Deploy | DeployGcp, base: Path, *, project: str = "", family: str | None = None
) -> Settings:
    """The settings of an environment that has all that a rollout needs. A ledger directory is relative to ``base``;
    ``project`` and the image ``family`` are asked for on Google alone.

    Raises :class:`~osvdeploy.errors.UsageError` for a ledger whose address no tag of the cloud can carry.
    """
    from osvdeploy.cloud.elb_tags import refuse_untaggable
    from osvdeploy.rollout.releases import Concurrent, OnFailure, Settings, Strategy, StrategyKind, TrafficStep

    place = _on_google(project, wanted, base) if wanted.cloud == "gcp" else _on_aws(wanted, base)
    route, ledger, strategy = wanted.route, wanted.ledger, wanted.strategy
    assert ledger is not None and wanted.port is not None, "the model asks for them"
    if "://" not in ledger:
        ledger = str((base / Path(ledger).expanduser()).resolve())
    if wanted.cloud == "aws":
        refuse_untaggable(ledger, f"deploy.{environment}.ledger")
    return Settings(
        environment=environment,
        cloud=wanted.cloud,
        region=place.region,
        ledger=ledger,
        machine_type=wanted.machine,
        capacity=wanted.capacity,
        networks=place.networks,
        firewalls=place.firewalls,
        listener=place.listener,
        # Without a route the way in is a pointer, which has none of these.
        host=route.host if route is not None else None,
        path=route.path if route is not None else None,
        priority=route.priority if route is not None else 0,
        preview_header=wanted.preview.header if route is not None else "",
        port=wanted.port,
        health=place.health,
        strategy=Strategy(
            kind=StrategyKind(strategy.kind),
            steps=(*(TrafficStep(each.weight, each.bake, each.approve) for each in strategy.shares), TrafficStep(100)),
            bake=strategy.bake,
            keep_warm=strategy.keep_warm,
            approve=strategy.approve,
            on_failure=OnFailure(strategy.on_failure),
            concurrent=Concurrent(strategy.concurrent),
        ),
        family=family,
        gates=tuple(gate_for(each, base) for each in wanted.gates),
        hooks=tuple(hook_for(each, base) for each in wanted.hooks),
        notify=tuple(notify_for(each) for each in wanted.notify),
    )


def notify_for(declared: DeclaredNotify) -> Notify:
    """Who is told, as a rollout has it."""
    from osvdeploy.cloud.interfaces import NoticeTarget, PubSubTarget, SnsTarget, WebhookTarget
    from osvdeploy.rollout.hooks import Notify

    key, value = declared.target
    format = declared.format or "json"
    target: NoticeTarget
    match key:
        case "sns":
            target = SnsTarget(value)
        case "pubsub":
            target = PubSubTarget(value)
        case "webhook":
            target = WebhookTarget(value, None, format)
        case _:
            target = WebhookTarget(None, value, format)
    return Notify(target, tuple(dict.fromkeys(declared.on)))


def hook_for(declared: DeclaredHook, base: Path) -> Hook:
    """A hook as a rollout has it. The path of its command is relative to ``base``."""
    from osvdeploy.cloud.interfaces import CommandHook, HttpHook
    from osvdeploy.rollout.hooks import Hook, HookFailure

    action: CommandHook | HttpHook
    if declared.command is not None:
        action = CommandHook(program_of(declared.command, base))
    else:
        assert declared.url is not None, "the model asks for one of them"
        action = HttpHook(declared.url, dict(declared.headers), dict(declared.header_variables))
    on = tuple(dict.fromkeys(declared.on))
    return Hook(declared.name, action, on, declared.timeout, HookFailure(declared.on_failure))


def gate_for(declared: DeclaredGate, base: Path) -> Gate:
    """A gate as a rollout has it. The path of its command is relative to ``base``."""
    from osvdeploy.rollout.gates import Bound, Compared, Gate, GateStage, NoData

    wanted = declared.metric
    bounds = (
        (wanted.max, True, Compared.VALUE),
        (wanted.min, False, Compared.VALUE),
        (wanted.max_ratio, True, Compared.RATIO),
        (wanted.min_ratio, False, Compared.RATIO),
        (wanted.max_difference, True, Compared.DIFFERENCE),
        (wanted.min_difference, False, Compared.DIFFERENCE),
    )
    return Gate(
        name=declared.called,
        metric=_metric(wanted, base),
        bounds=tuple(Bound(limit, upper, compared) for limit, upper, compared in bounds if limit is not None),
        on=tuple(GateStage(stage) for stage in declared.stages),
        interval=wanted.interval,
        delay=wanted.lag,
        window=wanted.window,
        min_samples=wanted.min_samples,
        no_data=NoData(wanted.no_data),
        confidence=wanted.confidence,
        dry_run=declared.dry_run,
    )


def _metric(declared: GateMetric, base: Path) -> Metric:
    from osvdeploy.cloud import interfaces as ports

    statistic = ports.Statistic(declared.statistic or ("sum" if declared.per is not None else "average"))
    if declared.cloudwatch is not None:
        return ports.CloudWatchMetric(
            declared.cloudwatch, declared.per, statistic, declared.namespace, dict(declared.dimensions)
        )
    if declared.cloud_monitoring is not None:
        labels, per_labels = dict(declared.labels), dict(declared.per_labels)
        return ports.MonitoringMetric(declared.cloud_monitoring, declared.per, statistic, labels, per_labels)
    if declared.prometheus is not None:
        assert declared.query is not None, "the model asks for it"
        return ports.PrometheusMetric(declared.prometheus, declared.query, declared.per, declared.token_variable)
    if declared.json_ is not None:
        assert declared.pointer is not None, "the model asks for it"
        return ports.JsonMetric(declared.json_, declared.pointer, declared.token_variable)
    assert declared.command is not None, "the model asks for one of them"
    return ports.CommandMetric(program_of(declared.command, base))


def program_of(words: Sequence[str], base: Path) -> tuple[str, ...]:
    """A program and its arguments. A plain name is looked for on PATH, as a shell does it; any other is beside the
    spec."""
    program, *arguments = words
    return (str(base / Path(program).expanduser()) if "/" in program else program, *arguments)


def release_tags(loaded: LoadedSpec, environment: str, image: Digest, ledger: str) -> dict[str, str]:
    """The tags of the release that an environment's own variables make of an image; ``ledger`` is "" where nothing is
    rolled out."""
    from osvdeploy.cloud.tags import service_tags

    spec = loaded.spec
    service = service_tags(spec.name, f"{spec.name}/{environment}", ledger)
    return labels_of(spec.name, spec.version, image, spec.deploy[environment].env, service=service)


def labels_of(
    app: str, version: str, image: Digest, variables: Mapping[str, str], *, service: dict[str, str] | None = None
) -> dict[str, str]:
    """The tags of the release that variables make of an image: a ``service``'s, by its tags, or no one's alone."""
    from osvdeploy.cloud import tags
    from osvdeploy.rollout.releases import configuration_digest, release_digest, release_id

    configuration = configuration_digest(tuple(variables.items()), ())
    digest = release_digest(image, configuration)
    return tags.release_tags(
        tags.app_tags(app) if service is None else service,
        release=release_id(app, version, digest),
        version=version,
        image=image,
        configuration=configuration,
        digest=digest,
    )


def release_named(
    ctx: Context, loaded: LoadedSpec, settings: Settings, image: Digest
) -> tuple[Release, dict[str, str]]:
    """The release that an environment's own variables make of an image, and its tags."""
    from osvdeploy.cloud import tags
    from osvdeploy.cloud.interfaces import ReleaseId
    from osvdeploy.rollout.releases import Release

    labels = release_tags(loaded, settings.environment, image, settings.ledger)
    release = Release(
        id=ReleaseId(labels[tags.RELEASE]),
        app=loaded.spec.name,
        version=loaded.spec.version,
        image=image,
        configuration=Digest(labels[tags.CONFIGURATION]),
        digest=Digest(labels[tags.DIGEST]),
        created=ctx.now(),
        by=f"{ctx.process.user}@{ctx.process.host}",
        settings=settings,
    )
    return release, labels


def family_of(loaded: LoadedSpec, environment: str) -> str | None:
    """The image family of an environment on Google, None where the spec names none."""
    settings = loaded.spec.publish.gcp
    return f"{settings.family}-{environment}" if settings is not None and settings.family is not None else None


@dataclass(frozen=True, slots=True)
class _Place:
    """What of the settings each cloud has in its own words."""

    region: str
    networks: tuple[str, ...]
    firewalls: tuple[str, ...]
    listener: str
    health: Health


def _on_aws(wanted: Deploy, base: Path) -> _Place:
    return _Place(
        wanted.region,
        tuple(wanted.subnets),
        tuple(wanted.security_groups),
        wanted.listener,
        replace(_health(wanted.health, wanted.health.version_header, base), slow_start=wanted.health.slow_start),
    )


def _on_google(project_id: str, wanted: DeployGcp, base: Path) -> _Place:
    from osvdeploy.cloud.gcp.urlmap import RELEASE_HEADER

    project, region = f"projects/{project_id}", wanted.region or wanted.place.rpartition("-")[0]
    # A balancer that knows no HTTP adds nothing to an answer.
    added: str | None = None
    if wanted.url_map is not None:
        listener, added = _whole(wanted.url_map, "global/urlMaps"), RELEASE_HEADER
    else:
        assert wanted.forwarding_rule is not None, "the caller has looked"
        listener = _whole(wanted.forwarding_rule, f"regions/{region}/forwardingRules")
    networks: tuple[str, ...] = ()
    if wanted.subnetwork is not None:
        own = f"{project}/regions/{region}/subnetworks/{wanted.subnetwork}"
        networks = (wanted.subnetwork if "/" in wanted.subnetwork else own,)
    return _Place(
        wanted.place,
        networks,
        tuple(wanted.network_tags),
        f"{project}/{listener}",
        # Where the program names no release, the balancer does.
        _health(wanted.health, wanted.health.version_header or added, base),
    )


def _whole(name: str, collection: str) -> str:
    """The path within its project of what is named plainly, or by that path already."""
    return name if "/" in name else f"{collection}/{name}"


def _health(declared: DeclaredHealth, version_header: str | None, base: Path) -> Health:
    from osvdeploy.rollout.releases import Health, ProbePlace

    place, command = ProbePlace.COMMAND, tuple[str, ...]()
    if isinstance(declared.probe_from, str):
        place = ProbePlace(declared.probe_from)
    else:
        command = program_of(declared.probe_from.command, base)
    return Health(
        path=declared.path,
        version_header=version_header,
        boot_timeout=declared.boot_timeout,
        interval=declared.interval,
        timeout=declared.timeout,
        min_ready=declared.min_ready,
        kind=declared.kind,
        probe_from=place,
        probe_command=command,
    )
