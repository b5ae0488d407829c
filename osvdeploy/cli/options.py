"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from osvdeploy.api import Service

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

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


def spec_file_option(function: Decorated) -> Decorated:
    """``-f`` and ``--set``: which spec, with what overridden."""
    return _file(_sets(function))


def spec_options(function: Decorated) -> Decorated:
    """``-f``, ``--env`` and ``--set``: and which of its deployments."""
    return _file(_environment(_sets(function)))


def service_options(function: Decorated) -> Decorated:
    """A service, by name and ledger or by the spec that declares it."""
    argument = click.argument("service", required=False, metavar="[APP/ENV]")
    ledger = click.option(
        "--ledger", metavar="ADDRESS", envvar="OSVDEPLOY_LEDGER", help="Where the ledger lies (or OSVDEPLOY_LEDGER)."
    )
    return argument(ledger(spec_options(function)))


def chosen_service(
    service: str | None, ledger: str | None, spec_file: Path, environment: str | None, sets: tuple[str, ...]
) -> Service:
    """The service that is meant: APP/ENV with a ledger needs no spec; the rest is read from the spec.

    ``APP`` alone means its only environment in the spec, or ``--env``.
    """
    from osvdeploy import api
    from osvdeploy.errors import UsageError

    app, slash, named = (service or "").partition("/")
    if slash and environment is not None and named != environment:
        raise UsageError(f"{service} and --env {environment} name different environments")
    environment = named or environment
    if app and environment and ledger:
        return api.Service(app, environment, ledger)
    if not spec_file.exists():
        raise UsageError(
            f"there is no {spec_file} here to say which service is meant"
            if not app
            else f"{service}: where is its ledger?",
            hint="name it as APP/ENV with --ledger ADDRESS (or OSVDEPLOY_LEDGER), or go to the folder of its osv.toml",
        )
    found = api.service_of(api.load_spec(spec_file, sets=sets), environment)
    if app and found.app != app:
        raise UsageError(f"{spec_file} declares {found.app}, not {app}", hint="name the ledger with --ledger")
    return api.Service(found.app, found.environment, ledger or found.ledger)
