"""The provider's configuration: what it has, and what it means for this process.

What is given explicitly wins, then the environment, then the chains of the clouds' SDKs. The configuration becomes
environment variables of this process, where the adapters and the SDKs look anyway: the engine starts a process of its
own for each provider that a program has. Nothing of the environment is ever answered, so none of it gets into a state.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from osvdeploy.provider.declare import Nested, declared, prop


@declared
class Endpoints(Nested):
    """Where the clouds are reached, in place of their own addresses: a sandbox, a private endpoint."""

    aws: str | None = prop("Of all services of AWS, such as `http://127.0.0.1:4566`.", default=None)
    compute: str | None = prop("Of Google Compute Engine.", default=None)
    storage: str | None = prop("Of Google Cloud Storage.", default=None)


@declared
class Settings:
    """Builds OSv unikernel images, publishes them to AWS and Google Cloud, and moves live traffic blue-green."""

    region: str | None = prop("The region of AWS; left out, AWS_REGION or the profile's.", default=None, replaces=True)
    profile: str | None = prop(
        "The profile of AWS's own configuration files; left out, the usual chain of credentials.", default=None
    )
    role: str | None = prop("The ARN of a role of AWS that is assumed for every call.", default=None)
    project: str | None = prop(
        "The project on Google Cloud; left out, GOOGLE_CLOUD_PROJECT.", default=None, replaces=True
    )
    endpoints: Endpoints | None = prop("Where the clouds are reached, in place of their own addresses.", default=None)
    ledger: str | None = prop(
        "Where releases and rollouts are written down: a directory, `s3://BUCKET/PREFIX` or `gs://BUCKET/PREFIX`; left "
        "out, OSVDEPLOY_LEDGER.",
        default=None,
    )
    cache_directory: str | None = prop(
        "The folder that built images are kept in; left out, OSVDEPLOY_CACHE, else the user's cache.", default=None
    )


def environment(settings: Settings) -> Mapping[str, str | None]:
    """The environment variables that the settings mean; None for those that would win over them."""
    from osvdeploy.api import LEDGER_VARIABLE
    from osvdeploy.cloud.aws.session import ROLE_VARIABLE

    endpoints = settings.endpoints or Endpoints()
    given: dict[str, str | None] = {}

    def put(value: str | None, *names: str, against: tuple[str, ...] = ()) -> None:
        if value is not None:
            given.update(dict.fromkeys(names, value))
            given.update(dict.fromkeys(against, None))

    put(settings.region, "AWS_REGION", "AWS_DEFAULT_REGION")
    # botocore takes keys of the environment before a profile of the environment.
    put(
        settings.profile,
        "AWS_PROFILE",
        against=("AWS_DEFAULT_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    )
    put(settings.role, ROLE_VARIABLE)
    put(settings.project, "GOOGLE_CLOUD_PROJECT")
    put(endpoints.aws, "AWS_ENDPOINT_URL")
    put(endpoints.compute, "OSVDEPLOY_GCP_COMPUTE_ENDPOINT")
    put(endpoints.storage, "STORAGE_EMULATOR_HOST")
    put(settings.ledger, LEDGER_VARIABLE)
    if settings.cache_directory is not None:
        put(str(Path(settings.cache_directory).expanduser().absolute()), "OSVDEPLOY_CACHE")
    return given


@dataclass(slots=True)
class Applied:
    """The configuration that is in force in this process's environment; a new one first takes the old one back."""

    _before: dict[str, str | None] = field(default_factory=dict)

    def apply(self, settings: Settings) -> None:
        """Let the environment say what the settings do."""
        _set(self._before)
        changes = environment(settings)
        self._before = {name: os.environ.get(name) for name in changes}
        _set(changes)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
