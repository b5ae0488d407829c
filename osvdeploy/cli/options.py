"""Options that several commands share."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from osvdeploy.api import Service, Whereabouts
    from osvdeploy.context import Context
    from osvdeploy.rollout.releases import Settings
    from osvdeploy.spec import LoadedSpec

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
Value = TypeVar("Value")

_file = click.option(
    "-f",
    "--file",
    "spec_file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("osv.toml"),
    show_default=True,
    help="The spec.",
)
_environment = click.option(
    "--env", "environment", metavar="NAME", help="Which [deploy.NAME]; with one only, it is the default."
)
_sets = click.option("--set", "sets", multiple=True, metavar="PATH=VALUE", help="Override a value of the spec.")


force_option = click.option(
    "--force",
    "forced",
    multiple=True,
    metavar="RULE",
    help="Let what this rule finds pass, this once; repeatable. `check --rules` lists them.",
)
take_over_option = click.option(
    "--take-over",
    is_flag=True,
    help="Outrank a later lease's marks in the cloud: the ledger was lost or put back, and no other is in use.",
)
dead_option = click.option(
    "--force",
    "dead",
    is_flag=True,
    help="Whoever holds the lease on another machine is dead: do not wait a minute for a sign of it.",
)
release_option = click.option(
    "--release",
    "wanted",
    metavar="ID",
    help="A release that another environment of the spec has deployed, by its id or version: nothing is built.",
)
origin_option = click.option(
    "--from", "origin", metavar="NAME", help="With --release: which [deploy.NAME] has deployed it."
)
displace_option = click.option(
    "--displace",
    is_flag=True,
    help="A first deploy takes its requests from machines that somebody else made, without adopting them.",
)
probe_from_option = click.option(
    "--probe-from",
    type=click.Choice(["here", "requests"]),
    help="For this once, in place of what is declared: ask from here; or nobody, and go by what the balancer counts.",
)
price_option = click.option(
    "--price",
    "given",
    multiple=True,
    metavar="KIND=AMOUNT",
    help="What a machine type costs an hour; snapshot-gib-month, image-gib-month; currency=USD. Over the spec's.",
)
strict_option = click.option("--strict", is_flag=True, help="Refuse warnings too.")


def parsed(parse: Callable[[str], Value], text: str) -> Value:
    """The value of an option. Raises what click shows for one that cannot be read."""
    try:
        return parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def size_value(context: click.Context, option: click.Parameter, text: str | None) -> int | None:
    """Bytes of an option such as ``256MiB``."""
    from osvdeploy.sizes import parse_size

    return None if text is None else parsed(parse_size, text)


def duration_value(context: click.Context, option: click.Parameter, text: str | None) -> float | None:
    """Seconds of an option such as ``60s``."""
    from osvdeploy.sizes import parse_duration

    return None if text is None else parsed(parse_duration, text)


def spec_file_option(function: Decorated) -> Decorated:
    """``-f`` and ``--set``: which spec, with what overridden."""
    return _file(_sets(function))


def spec_options(function: Decorated) -> Decorated:
    """``-f``, ``--env`` and ``--set``: and which of its deployments."""
    return _file(_environment(_sets(function)))


@dataclass(frozen=True, slots=True)
class ServiceChoice:
    """Which service is meant: APP/ENV with a ledger needs no spec; the rest is read from the spec.

    ``APP`` alone means its only environment in the spec, or ``--env``. The ledger is the one that is named
    (``ledger``), else the one that the spec has for the service, as for a deploy, else OSVDEPLOY_LEDGER.
    """

    name: str | None
    ledger: str | None
    spec_file: Path
    environment: str | None
    sets: tuple[str, ...]

    @property
    def app(self) -> str | None:
        """The app alone that is named, None where none is, or a service is."""
        return (self.name or "").partition("/")[0] or None

    def ledger_of_all(self) -> str:
        """The ledger that all its services are asked of: the one that is named, or the only one that the spec has.

        Raises UsageError that says how to name it.
        """
        from osvdeploy.errors import UsageError

        if "/" in (self.name or ""):
            raise UsageError(f"{self.name} is one service", hint="leave --all out, or name an app alone")
        if self.ledger:
            return self.ledger
        variable = _ledger_variable()
        if variable is not None:
            ledgers = self._declared_ledgers()
            return ledgers.pop() if len(ledgers) == 1 else variable
        if not self.spec_file.exists():
            raise UsageError(
                "where is the ledger?", hint="name it with --ledger ADDRESS (or OSVDEPLOY_LEDGER), or go to an osv.toml"
            )
        ledgers = self._ledgers()
        if len(ledgers) != 1:
            raise UsageError(
                f"{self.spec_file} has {len(ledgers) or 'no'} ledgers", hint="choose one with --env, or with --ledger"
            )
        return ledgers.pop()

    def _ledgers(self) -> set[str]:
        from osvdeploy import api

        loaded = api.load_spec(self.spec_file, sets=self.sets)
        asked = list(loaded.spec.deploy)
        if self.environment is not None:
            asked = [api.environment_of(loaded, self.environment)]
        return {api.service_of(loaded, each).ledger for each in asked if loaded.spec.deploy[each].ledger is not None}

    def _declared_ledgers(self) -> set[str]:
        """Those of the spec, none where there is no spec or it cannot be read: it is not all that is known."""
        from osvdeploy.errors import OsvDeployError

        try:
            return self._ledgers() if self.spec_file.exists() else set()
        except OsvDeployError:
            return set()

    def _declared_ledger(self, app: str, environment: str) -> str | None:
        """The ledger that the spec has for a service; None where it has none, or cannot be read."""
        from osvdeploy import api
        from osvdeploy.errors import OsvDeployError

        if not self.spec_file.exists():
            return None
        try:
            loaded = api.load_spec(self.spec_file, sets=self.sets)
            declared = loaded.spec.name == app and environment in loaded.spec.deploy
            return api.service_of(loaded, environment).ledger if declared else None
        except OsvDeployError:
            return None

    def spec(self) -> LoadedSpec:
        """The spec that declares the service. Raises UsageError without one."""
        from osvdeploy import api
        from osvdeploy.errors import UsageError

        if not self.spec_file.exists():
            raise UsageError(
                f"there is no {self.spec_file} here to say what the service is to be",
                hint="go to the folder of its osv.toml, or name it with --file",
            )
        return api.load_spec(self.spec_file, sets=self.sets)

    def service(self) -> Service:
        """Raises UsageError that says how to name it."""
        from osvdeploy import api
        from osvdeploy.errors import UsageError

        app, slash, named = (self.name or "").partition("/")
        if slash and self.environment is not None and named != self.environment:
            raise UsageError(f"{self.name} and --env {self.environment} name different environments")
        environment = named or self.environment
        if app and environment and self.ledger:
            return api.Service(app, environment, self.ledger)
        if app and environment and (variable := _ledger_variable()) is not None:
            return api.Service(app, environment, self._declared_ledger(app, environment) or variable)
        if not self.spec_file.exists():
            missing = f"there is no {self.spec_file} here to say which service is meant"
            raise UsageError(
                f"{self.name}: where is its ledger?" if app else missing,
                hint="name it as APP/ENV with --ledger ADDRESS (or OSVDEPLOY_LEDGER), "
                "or go to the folder of its osv.toml",
            )
        found = api.service_of(api.load_spec(self.spec_file, sets=self.sets), environment)
        if app and found.app != app:
            with_ledger = "" if self.ledger else ", and its ledger with --ledger"
            raise UsageError(
                f"{self.spec_file} declares {found.app}, not {app}",
                hint=f"name a service of another spec as APP/ENV{with_ledger}",
            )
        return api.Service(found.app, found.environment, self.ledger or found.ledger)


def _ledger_variable() -> str | None:
    from osvdeploy import api

    return os.environ.get(api.LEDGER_VARIABLE) or None


def service_options(function: Callable[..., None]) -> Callable[..., None]:
    """A service, by name and ledger or by the spec that declares it: the callback gets a ``choice``."""

    @functools.wraps(function)
    def callback(
        service: str | None,
        ledger: str | None,
        spec_file: Path,
        environment: str | None,
        sets: tuple[str, ...],
        **arguments: Any,
    ) -> None:
        function(choice=ServiceChoice(service, ledger, spec_file, environment, sets), **arguments)

    argument = click.argument("service", required=False, metavar="[APP/ENV]")
    ledger = click.option(
        "--ledger", metavar="ADDRESS", help="Where the ledger lies; else as the spec says, or OSVDEPLOY_LEDGER."
    )
    return argument(ledger(spec_options(callback)))


@dataclass(frozen=True, slots=True)
class PlaceChoice:
    """Where to look for a service of which there is no ledger: what was said, else what the spec declares."""

    cloud: str | None
    region: str | None
    project: str | None
    listener: str | None
    version_header: str | None

    def whereabouts(self, ctx: Context, choice: ServiceChoice) -> Whereabouts:
        """Raises UsageError that says what is missing."""
        from osvdeploy import api
        from osvdeploy.errors import UsageError

        app, _, environment = (choice.name or "").partition("/")
        environment = environment or choice.environment or ""
        settings, account, endpoint = self._declared(ctx, choice, app, environment)
        if settings is not None:
            app, environment = app or self._app(choice), settings.environment
        if not app or not environment:
            raise UsageError("which service is meant?", hint="name it as APP/ENV, as in the tag osvdeploy:service")
        cloud = self.cloud or ("gcp" if self.project else None) or (settings.cloud if settings is not None else "aws")
        same = settings is not None and settings.cloud == cloud
        return api.Whereabouts(
            app,
            environment,
            cloud,
            self.region or (settings.region if settings is not None and same else None),
            self.project or account,
            choice.ledger or (settings.ledger if settings is not None else _ledger_variable()),
            endpoint,
            self.listener,
            self.version_header,
            settings if same and self.region in (None, settings.region if settings is not None else None) else None,
        )

    def _app(self, choice: ServiceChoice) -> str:
        from osvdeploy import api

        return api.load_spec(choice.spec_file, sets=choice.sets).spec.name

    def _declared(
        self, ctx: Context, choice: ServiceChoice, app: str, environment: str
    ) -> tuple[Settings | None, str, str | None]:
        """What a spec says of the service, the project and the address of Google's API; nothing where there is none, or
        where it cannot be read: somebody on call is not to be held up by it."""
        from osvdeploy import api
        from osvdeploy.errors import OsvDeployError
        from osvdeploy.events import Warned

        if not choice.spec_file.exists():
            return None, "", None
        try:
            loaded = api.load_spec(choice.spec_file, sets=choice.sets)
            if app and loaded.spec.name != app:
                return None, "", None
            settings = api.settings_of(loaded, api.environment_of(loaded, environment or None))
        except OsvDeployError as error:
            if not (app and environment):
                raise
            ctx.report(Warned(f"{choice.spec_file} is left out: {error}", hint="what it says is read from the cloud"))
            return None, "", None
        google = loaded.spec.publish.gcp
        return settings, google.project if google is not None else "", google.compute_endpoint if google else None


def place_options(function: Callable[..., None]) -> Callable[..., None]:
    """``--cloud``, ``--region`` and what else says where to look: the callback gets a ``place``."""

    @functools.wraps(function)
    def callback(
        cloud: str | None,
        region: str | None,
        project: str | None,
        listener: str | None,
        version_header: str | None,
        **arguments: Any,
    ) -> None:
        function(place=PlaceChoice(cloud, region, project, listener, version_header), **arguments)

    options = (
        click.option("--cloud", type=click.Choice(["aws", "gcp"]), help="With --from-cloud: where it is."),
        click.option("--region", metavar="NAME", help="With --from-cloud: its region, on Google its zone or region."),
        click.option("--project", metavar="ID", help="With --from-cloud: its project on Google."),
        click.option("--listener", metavar="NAME", help="With --from-cloud: which of several ways in is meant."),
        click.option(
            "--version-header",
            metavar="NAME",
            help="With --from-cloud: the header in which answers name it.",
        ),
    )
    decorated = callback
    for option in reversed(options):
        decorated = option(decorated)
    return decorated


def refuse_place_alone(place: PlaceChoice, from_cloud: bool) -> None:
    """Raise UsageError for options that say where to look, where nothing is looked for."""
    from osvdeploy.errors import UsageError

    said = (
        ("--cloud", place.cloud),
        ("--region", place.region),
        ("--project", place.project),
        ("--listener", place.listener),
        ("--version-header", place.version_header),
    )
    given = [name for name, value in said if value is not None]
    if given and not from_cloud:
        raise UsageError(
            f"{', '.join(given)}: the ledger says where the service is", hint="they are for --from-cloud alone"
        )


def refuse_origin_alone(origin: str | None, wanted: str | None) -> None:
    """Raise UsageError for --from without --release."""
    from osvdeploy.errors import UsageError

    if origin is not None and wanted is None:
        raise UsageError("--from says where a release comes from, and none is named", hint="add --release VERSION")


def refuse_lease_options(take_over: bool, dead: bool) -> None:
    """Raise UsageError for options about leases where there is no ledger that has any."""
    from osvdeploy.errors import UsageError

    if take_over or dead:
        given = "--take-over" if take_over else "--force"
        raise UsageError(f"{given}: without the ledger there is no lease to be taken", hint="leave it out")
