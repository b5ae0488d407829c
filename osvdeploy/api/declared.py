"""What a spec declares, as the rest of the product takes it: image inputs, services, their settings."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from osvdeploy.errors import UsageError

if TYPE_CHECKING:
    from osvdeploy.build.plan import ImageInputs
    from osvdeploy.build.sources import KernelSource
    from osvdeploy.rollout.releases import Settings
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

    Raises :class:`~osvdeploy.errors.UsageError` for one on Google.
    """
    from osvdeploy.rollout.releases import Health, Settings, Strategy, StrategyKind, TrafficStep

    loaded.require(environment)
    wanted = loaded.spec.deploy[environment]
    if wanted.cloud == "gcp":
        raise UsageError(
            f"[deploy.{environment}] is on Google, where this version makes images and rolls out nothing",
            hint=f"`osvdeploy publish --env {environment}` makes its image; start machines of it by its id or family",
        )
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
