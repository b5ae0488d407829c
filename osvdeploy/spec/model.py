"""The spec as a model: osv.toml's keys, kebab-case there, snake_case here.

The same classes are the Python API (``Spec(name="hello", ...)``) and give the JSON Schema. Later versions add keys;
what this one does not know it refuses, because a key that does nothing is worse than an error.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from osvdeploy.sizes import GIB, TIB, parse_duration, parse_size
from osvdeploy.spec.boot import boot_options


def _kebab(name: str) -> str:
    return name.rstrip("_").replace("_", "-")


class _Table(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=_kebab, populate_by_name=True, defer_build=True
    )


def _duration(value: object) -> object:
    # Python callers may give seconds; TOML must carry a unit, which load() sees to by refusing bare numbers.
    if isinstance(value, str):
        return parse_duration(value)
    raise ValueError('a duration with its unit, such as "90s"')


def _size(value: object) -> object:
    if isinstance(value, str):
        return parse_size(value)
    raise ValueError('a size with its unit, such as "1GiB"')


Duration = Annotated[
    float, BeforeValidator(_duration), WithJsonSchema({"type": "string", "pattern": r"^[0-9.]+ ?(ms|s|m|h|d)$"})
]
Size = Annotated[
    int, BeforeValidator(_size), WithJsonSchema({"type": "string", "pattern": r"^[0-9.]+ ?(B|KiB|MiB|GiB|TiB)$"})
]


def _name(value: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,39}", value) or value.endswith("-"):
        raise ValueError("1 to 40 lower-case letters, digits and dashes, beginning with a letter")
    return value


def _version(value: str) -> str:
    if not re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z._-]{0,39}", value):
        raise ValueError("1 to 40 letters, digits, dots, dashes and underscores, beginning with a letter or digit")
    return value


def _variable(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        raise ValueError(f"{value!r} is no name of an environment variable")
    if value == "OSVDEPLOY_RELEASE":
        raise ValueError("OSVDEPLOY_RELEASE is set by osvdeploy to the release's id")
    return value


def _guest_path(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("a path in the guest, which begins with /")
    return value


def _disk(value: int) -> int:
    if value % GIB or not GIB <= value <= 64 * TIB:
        raise ValueError("a disk in a cloud is whole GiB, 1GiB to 64TiB")
    return value


def _boot(value: dict[str, Any]) -> dict[str, Any]:
    boot_options(value)
    return value


Variables = dict[Annotated[str, AfterValidator(_variable)], str]


class Kernel(_Table):
    """Where the kernel comes from."""

    file: str = Field(description="A loader.img, relative to this file. Its sha256 is pinned in osv.lock.")


class Image(_Table):
    """What is booted."""

    command: Annotated[list[str], Field(min_length=1)] = Field(
        description="The program and its arguments, as words.", examples=[["/hello", "--port", "8080"]]
    )
    env: Variables = Field(default_factory=dict, description="Environment variables of the program.")
    fs: Literal["rofs"] = Field(default="rofs", description="The root file system.")
    arch: Literal["x86_64"] = Field(default="x86_64", description="The machine's architecture.")
    size: Annotated[Size, AfterValidator(_disk)] | None = Field(
        default=None, description='The disk, whole GiB, such as "1GiB"; left out: the smallest that holds it.'
    )
    boot: Annotated[dict[str, Any], AfterValidator(_boot)] = Field(
        default_factory=dict,
        description="OSv's boot options by their own names: true for a flag, an array for one that repeats.",
    )

    def boot_options(self) -> tuple[tuple[str, str | None], ...]:
        """Names (without dashes) and values, in order."""
        return boot_options(self.boot)


class File(_Table):
    """Files of this host that go into the image."""

    from_: Annotated[str, Field(min_length=1)] = Field(
        description="A file, a directory or a pattern, relative to this file."
    )
    to: Annotated[str, AfterValidator(_guest_path)] = Field(
        description="The path in the guest; ending in / it is a directory to put things into."
    )
    exclude: list[str] = Field(default_factory=list, description="Patterns of what to leave out.")


class PublishAws(_Table):
    """How images are made on AWS."""

    tags: dict[Annotated[str, Field(min_length=1, max_length=128)], Annotated[str, Field(max_length=256)]] = Field(
        default_factory=dict, description="Your own tags on snapshots and images."
    )


class Publish(_Table):
    """How images are made, cloud by cloud."""

    aws: PublishAws | None = None


class Route(_Table):
    """Which requests on the listener are this service's."""

    priority: Annotated[int, Field(ge=3, le=50000)] = Field(
        description="Priority of the service's rule; the two before it become its preview rules."
    )
    host: Annotated[str, Field(min_length=1, max_length=128)] | None = Field(
        default=None, description="The Host header to match; * and ? are wildcards."
    )
    path: Annotated[str, Field(min_length=1, max_length=128)] | None = Field(
        default=None, description="The path to match; * and ? are wildcards. Left out with host: every path."
    )


class Preview(_Table):
    """How the idle slot is reached."""

    header: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,40}$")] = Field(
        default="x-preview", description="A request with this header set to blue or green reaches that slot."
    )


class Health(_Table):
    """When a release counts as well."""

    path: Annotated[str, Field(pattern=r"^/")] = Field(
        default="/", description="What is asked; any 2xx answer is well."
    )
    version_header: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,40}$")] | None = Field(
        default=None,
        description="The answer header that carries OSVDEPLOY_RELEASE. Left out, a switch is proved more weakly.",
    )
    boot_timeout: Duration = Field(default=60.0, description="How long all machines may take to become healthy.")
    interval: Duration = Field(default=5.0, description="How often the balancer checks; 5s to 300s, whole seconds.")
    timeout: Duration = Field(default=2.0, description="How long an answer may take; less than interval.")
    min_ready: Duration = Field(default=10.0, description="How long they must stay healthy before they count.")

    @model_validator(mode="after")
    def _check(self) -> Health:
        if not 5 <= self.interval <= 300 or self.interval != int(self.interval):
            raise ValueError("interval: whole seconds from 5s to 300s")
        if not 2 <= self.timeout < self.interval or self.timeout != int(self.timeout):
            raise ValueError("timeout: whole seconds, at least 2s and less than interval")
        return self


class Strategy(_Table):
    """How traffic moves to a new release."""

    kind: Literal["blue-green", "all-at-once"] = Field(
        default="blue-green", description="all-at-once is blue-green without baking."
    )
    bake: Duration = Field(default=0.0, description="How long the new release is watched under full traffic.")
    keep_warm: Duration = Field(
        default=3600.0, description="How long the old release's machines stay, to be gone back to in one call."
    )


class Deploy(_Table):
    """One environment: where the image runs and how it gets its traffic."""

    cloud: Literal["aws"] = Field(description="Where.")
    region: Annotated[str, Field(min_length=1)] = Field(description="The region.")
    instance_type: Annotated[str, Field(min_length=1)] = Field(default="t3.nano", description="The machines' type.")
    capacity: Annotated[int, Field(ge=1, le=1000)] = Field(default=2, description="How many machines.")
    subnets: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)] = Field(
        description="Where machines stand; two zones or more outlive one."
    )
    security_groups: list[Annotated[str, Field(min_length=1)]] = Field(
        default_factory=list, description="What may reach them."
    )
    listener: Annotated[str, Field(min_length=1)] = Field(
        description="ARN of the balancer's listener. osvdeploy makes and owns three rules on it."
    )
    route: Route
    preview: Preview = Field(default_factory=Preview)
    port: Annotated[int, Field(ge=1, le=65535)] = Field(description="The port that the program listens on.")
    ledger: Annotated[str, Field(min_length=1)] = Field(
        description="Where the service's history is kept: a directory that everyone who deploys can reach."
    )
    env: Variables = Field(
        default_factory=dict, description="This environment's own variables; the image stays the same."
    )
    health: Health = Field(default_factory=Health)
    strategy: Strategy = Field(default_factory=Strategy)

    @model_validator(mode="after")
    def _check(self) -> Deploy:
        if self.route.host is None and self.route.path is None:
            raise ValueError('route: needs host or path; path = "/*" takes every request')
        return self


class Retention(_Table):
    """What ``osvdeploy gc`` keeps."""

    releases: Annotated[int, Field(ge=1, le=50)] = Field(
        default=10, description="How many releases that have served, beside what serves or is warm."
    )


class Spec(_Table):
    """An osv.toml."""

    name: Annotated[str, AfterValidator(_name)] = Field(description="The app.")
    version: Annotated[str, AfterValidator(_version)] = Field(description="Its version; never reused for other bytes.")
    kernel: Kernel
    image: Image
    files: list[File] = Field(default_factory=list)
    publish: Publish = Field(default_factory=Publish)
    deploy: dict[Annotated[str, AfterValidator(_name)], Deploy] = Field(default_factory=dict)
    retention: Retention = Field(default_factory=Retention)
