"""Options that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from osvdeploy.api import Service

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

    ``APP`` alone means its only environment in the spec, or ``--env``.
    """

    name: str | None
    ledger: str | None
    spec_file: Path
    environment: str | None
    sets: tuple[str, ...]

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
        if not self.spec_file.exists():
            missing = f"there is no {self.spec_file} here to say which service is meant"
            raise UsageError(
                f"{self.name}: where is its ledger?" if app else missing,
                hint="name it as APP/ENV with --ledger ADDRESS (or OSVDEPLOY_LEDGER), "
                "or go to the folder of its osv.toml",
            )
        found = api.service_of(api.load_spec(self.spec_file, sets=self.sets), environment)
        if app and found.app != app:
            raise UsageError(f"{self.spec_file} declares {found.app}, not {app}", hint="name the ledger with --ledger")
        return api.Service(found.app, found.environment, self.ledger or found.ledger)


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
        "--ledger", metavar="ADDRESS", envvar="OSVDEPLOY_LEDGER", help="Where the ledger lies (or OSVDEPLOY_LEDGER)."
    )
    return argument(ledger(spec_options(callback)))
