"""The spec as a model: osv.toml's keys, kebab-case there, snake_case here.

The same classes are the Python API (``Spec(name="hello", ...)``) and give the JSON Schema; ``reference.toml`` shows
every key. Later versions add keys; what this one does not know it refuses, because a key that does nothing is worse
than an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, WithJsonSchema, model_validator

from osvdeploy.sizes import GIB, TIB
from osvdeploy.spec.boot import boot_options, shown, wrong_options
from osvdeploy.spec.gates import Gate, refuse_wrong_gates
from osvdeploy.spec.hooks import Hook, Notify, refuse_wrong_hooks, refuse_wrong_notify
from osvdeploy.spec.table import (
    UNION,
    Duration,
    Elsewhere,
    Header,
    Inside,
    Size,
    Table,
    Text,
    Whole,
    kebab,
    matches,
    some_time,
)


def _name(value: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,39}", value) or value.endswith("-"):
        raise ValueError(
            f"1 to 40 lower-case letters, digits and dashes, a letter first and no dash last, not {shown(value)}"
        )
    return value


def _is_text(value: object) -> object:
    if isinstance(value, dict):
        raise ValueError('this version takes it as text, version = "1.4.0" or --set version=1.4.0')
    return value


def _variable(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        raise ValueError(f"{shown(value)} is no name of an environment variable")
    if value == "OSVDEPLOY_RELEASE":
        raise ValueError("OSVDEPLOY_RELEASE is set by osvdeploy to the release's id")
    return value


def _tag(value: str) -> str:
    if not 1 <= len(value) <= 128:
        raise ValueError("a tag's key has 1 to 128 characters")
    if value.lower().startswith(("aws:", "osvdeploy")) or value == "Name":
        raise ValueError(f"{shown(value)}: Name, and what begins with aws: or osvdeploy, is not yours to set")
    return value


_GCE_PLAIN = r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?"
_GCE_NAME = "1 to 63 lower-case letters, digits and dashes, a letter first and no dash last"


def _label(value: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", value):
        raise ValueError(
            f"a label's key has 1 to 63 lower-case letters, digits, dashes and underscores, a letter first, "
            f"not {shown(value)}"
        )
    if value.startswith("osvdeploy"):
        raise ValueError(f"{shown(value)}: what begins with osvdeploy is not yours to set")
    return value


def _disk(value: int) -> int:
    if value % GIB or not GIB <= value <= 64 * TIB:
        raise ValueError("a disk in a cloud is whole GiB, from 1GiB to 64TiB")
    return value


def _boot(value: dict[str, Any]) -> dict[str, Any]:
    if wrong := list(wrong_options(value)):
        raise Inside(wrong)
    return value


_BUCKETS = {"s3": r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", "gs": r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]"}
"""Names of buckets, by the scheme of their addresses: lower-case letters, digits, dots and dashes; Google's have
underlines too, and are longer where they have dots."""

_PREFIX = r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*/?"


def _ledger(value: str) -> str:
    scheme, separator, rest = value.partition("://")
    if not separator:
        # A slash short of an address is no directory that anybody means.
        slip = value.partition(":")[0]
        if slip in _BUCKETS and slip != value:
            raise ValueError(f'no address of a bucket; write it as "{slip}://acme-releases/orders"')
        return value
    if scheme not in _BUCKETS:
        raise ValueError(
            f"{scheme}:// is not supported by this version; name a directory, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX"
        )
    if re.fullmatch(_BUCKETS[scheme] + _PREFIX, rest) is None:
        raise ValueError(f'no address of a bucket; write it as "{scheme}://acme-releases/orders"')
    return value


def _reason(value: str) -> str:
    if not value.strip():
        raise ValueError("a reason, for whoever reads this later")
    return value


def _interval(value: float) -> float:
    # CreateTargetGroup: HealthCheckIntervalSeconds 5-300.
    if not 5 <= value <= 300 or value != int(value):
        raise ValueError("whole seconds from 5s to 300s")
    return value


Variables = dict[Annotated[str, AfterValidator(_variable)], str]
Option = Annotated[bool, Field(strict=True)] | Whole | Annotated[str, Field(strict=True)]


class Kernel(Table):
    """Where the kernel comes from: one of file, release, url and tree. What it is is pinned in osv.lock."""

    file: Text | None = Field(default=None, description="A loader.img, relative to this file.")
    release: (
        Annotated[str, matches(r"v[0-9]+\.[0-9]+(\.[0-9]+)?[A-Za-z0-9.+-]{0,40}", 'a release of OSv such as "v0.57.0"')]
        | None
    ) = Field(default=None, description="A release of OSv, by its tag.")
    variant: Literal["loader", "hidden", "with-zfs", "with-zfs-hidden", "microvm"] | None = Field(
        default=None, description="Which of the release's kernels; left out: loader, which has everything but ZFS."
    )
    url: Annotated[str, matches(r"https?://[!-~]+", "an address that begins with https:// or http://")] | None = Field(
        default=None, description="The address of a loader.img, plain or gzip."
    )
    tree: Text | None = Field(
        default=None, description="An OSv source tree to build with. Its commit is pinned in osv.lock."
    )
    options: dict[str, Option] = Field(
        default_factory=dict, description="The tree's own options: mode, conf_..., variables of modules."
    )
    jobs: Annotated[Whole, Field(ge=1, le=512)] | None = Field(
        default=None, description="Compilers at once in the tree; left out: as many as there is room for."
    )

    @model_validator(mode="after")
    def _check(self) -> Kernel:
        given = [name for name in ("file", "release", "url", "tree") if getattr(self, name) is not None]
        if not given:
            raise ValueError("needs one of file, release, url, tree")
        if len(given) > 1:
            raise Inside([(name, f"is one too many: there is {given[0]}") for name in given[1:]])
        if self.variant is not None and self.release is None:
            raise Inside([("variant", "is of a release; name it by `release`")])
        if self.tree is None and (given := [key for key in ("options", "jobs") if key in self.model_fields_set]):
            raise Inside([(key, "needs kernel.tree: a kernel that is built has it") for key in given])
        return self


class Image(Table):
    """What is booted."""

    command: Annotated[list[str], Field(min_length=1)] = Field(
        description="The program and its arguments, as words.", examples=[["/hello", "--port", "8080"]]
    )
    env: Variables = Field(default_factory=dict, description="Environment variables of the program.")
    fs: Literal["rofs", "zfs", "ext", "ramfs", "rofs_with_zfs", "virtiofs"] = Field(
        default="rofs", description="The root file system; all but rofs need kernel.tree."
    )
    modules: list[Text] = Field(
        default_factory=list, description="OSv's own modules and apps, of kernel.tree; what they need comes with them."
    )
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


class File(Table):
    """Files of this host that go into the image."""

    from_: Text = Field(description="A file, a directory or a pattern, relative to this file.")
    to: Annotated[str, matches(r"/[^\0]*", "a path in the guest, which begins with /")] = Field(
        description="The path in the guest; ending in / it is a directory to put things into."
    )
    exclude: list[Text] = Field(default_factory=list, description="Patterns of what to leave out.")


class Packages(Table):
    """What a language's interpreter is to find beside its standard library: one of three."""

    requirements: Text | None = Field(
        default=None,
        description="A requirements file, relative to this file; the interpreter's own pip installs it, from wheels.",
    )
    venv: Text | None = Field(
        default=None, description="A virtual environment, relative to this file; its packages come as they are."
    )
    host: bool = Field(default=False, description="What is installed for this interpreter on the host.")

    @model_validator(mode="after")
    def _check(self) -> Packages:
        if (self.requirements is not None) + (self.venv is not None) + self.host != 1:
            raise ValueError("takes exactly one: requirements, venv, or host = true")
        return self


class Program(Table):
    """A program of this host with all that it needs to run."""

    path: Text = Field(
        description="An absolute path, a name on PATH, or a path relative to this file, which then needs `to`."
    )
    to: Annotated[str, matches(r"(?:/[^\0/]+)+", "a path in the guest, which begins with /")] | None = Field(
        default=None, description="Its path in the guest; left out, the same as on the host."
    )
    root: Text | None = Field(
        default=None, description="A root file system, relative to this file, to take it from; left out, this host's."
    )
    packages: Packages | None = Field(
        default=None, description="Packages of an interpreter; left out, its standard library alone."
    )


class PublishAws(Table):
    """How images are made on AWS."""

    via: Literal["ebs", "s3"] = Field(
        default="ebs",
        description="How the disk gets there: block by block (ebs), or as an object that EC2 imports (s3), slower.",
    )
    bucket: Annotated[str, matches(_BUCKETS["s3"], 'a bucket such as "acme-images"')] | None = Field(
        default=None, description="For s3: the bucket it passes through, in the region of the image."
    )
    # 50 tags are AWS's limit on a resource; ours need some.
    tags: Annotated[
        dict[Annotated[str, AfterValidator(_tag)], Annotated[str, Field(max_length=256)]], Field(max_length=40)
    ] = Field(default_factory=dict, description="Your own tags on snapshots and images.")

    @model_validator(mode="after")
    def _check(self) -> PublishAws:
        if self.via == "s3" and self.bucket is None:
            raise Inside([("bucket", 'via = "s3" needs a bucket that the disk passes through')])
        if self.via != "s3" and self.bucket is not None:
            raise Inside([("bucket", f'via = "{self.via}" uses no bucket; leave it out, or set via = "s3"')])
        return self


class PublishGcp(Table):
    """How images are made on Google."""

    project: Annotated[
        str, matches(r"(?:[a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]", 'a project\'s id such as "acme-prod"')
    ] = Field(description="The project that images are made in.")
    bucket: Annotated[str, matches(_BUCKETS["gs"], 'a bucket such as "acme-images"')] = Field(
        description="The bucket that disks pass through."
    )
    family: Annotated[str, matches(_GCE_PLAIN, _GCE_NAME)] | None = Field(
        default=None, description="The image family that images join when they are ready; left out, none."
    )
    # 64 labels are Google's limit on a resource; ours need some.
    labels: Annotated[
        dict[
            Annotated[str, AfterValidator(_label)],
            Annotated[str, matches(r"[a-z0-9_-]{0,63}", "up to 63 lower-case letters, digits, dashes, underscores")],
        ],
        Field(max_length=24),
    ] = Field(default_factory=dict, description="Your own labels on images.")
    storage_location: (
        Annotated[str, matches(r"us|eu|asia|[a-z]+-[a-z]+[0-9]+", 'a region, or "us", "eu", "asia"')] | None
    ) = Field(default=None, description="Where images are kept; left out, the nearest multi-region to the bucket.")
    keep_disk: Annotated[bool, Field(strict=True)] = Field(
        default=False,
        description="Keep the disk in the bucket while its image is there: `deploy --release` elsewhere needs it.",
    )
    compute_endpoint: (
        Annotated[
            str,
            matches(
                r"https?://[A-Za-z0-9.-]+(?::[0-9]{1,5})?",
                'an address such as "https://compute.europe-west1.rep.googleapis.com"',
            ),
        ]
        | None
    ) = Field(
        default=None,
        description="Compute Engine's address; OSVDEPLOY_GCP_COMPUTE_ENDPOINT comes before it. Left out, Google's own.",
    )


class Publish(Table):
    """How images are made, cloud by cloud."""

    aws: PublishAws | None = Field(default=None, description="How images are made on AWS.")
    gcp: PublishGcp | None = Field(default=None, description="How images are made on Google.")


class Route(Table):
    """Which requests on the listener are this service's."""

    priority: Annotated[Whole, Field(ge=3, le=50000)] = Field(
        description="Priority of the service's rule; the two before it become its preview rules."
    )
    # ELBv2 RuleCondition: up to 128 characters of these sets.
    host: Annotated[str, matches(r"[A-Za-z0-9.*?-]{1,128}", "a host name; * and ? are wildcards")] | None = Field(
        default=None, description="The Host header to match; * and ? are wildcards."
    )
    path: (
        Annotated[str, matches(r"""[/*?][A-Za-z0-9_.$/~"'@:+&*?-]{0,127}""", "a path from / on; * and ? are wildcards")]
        | None
    ) = Field(default=None, description="The path to match; * and ? are wildcards. Left out with host: every path.")

    @model_validator(mode="after")
    def _check(self) -> Route:
        if self.host is None and self.path is None:
            raise ValueError('needs host or path; path = "/*" takes every request')
        return self


class Preview(Table):
    """How the idle slot is reached."""

    header: Header = Field(
        default="x-preview", description="A request with this header set to blue or green reaches that slot."
    )


class ProbeCommand(Table):
    """What sends probes from elsewhere."""

    command: Annotated[list[Text], Field(min_length=1)] = Field(
        description="A program and its arguments, as words; no shell. It gets a request as JSON on its stdin, and "
        "prints the answer as JSON; `osvdeploy probe` is its other end.",
        examples=[["ssh", "bastion", "osvdeploy", "probe"]],
    )


def _a_place(value: object) -> object:
    if not isinstance(value, dict | ProbeCommand) and value not in ("here", "requests"):
        raise ValueError(f'"here", "requests" or {{ command = ["ssh", ...] }}, not {shown(value)}')
    return value


_ProbeFrom = Annotated[
    Annotated[Literal["here", "requests"], Tag(f"{UNION}word")] | Annotated[ProbeCommand, Tag(f"{UNION}command")],
    Discriminator(lambda value: f"{UNION}{'word' if isinstance(value, str) else 'command'}"),
    BeforeValidator(_a_place),
]


class Health(Table):
    """When a release counts as well."""

    kind: Literal["http", "tcp"] = Field(
        default="http",
        description="tcp is for programs that speak no HTTP, behind a forwarding rule on Google: a connection that is "
        "held is well.",
    )

    path: Annotated[str, matches(r"/[!-~]{0,1023}", "a path from / on, without spaces")] = Field(
        default="/", description="What is asked; any 2xx answer is well."
    )
    version_header: Header | None = Field(
        default=None,
        description="The answer header that carries OSVDEPLOY_RELEASE. Left out, a switch is proved more weakly.",
    )
    boot_timeout: Annotated[Duration, AfterValidator(some_time)] = Field(
        default=60.0, description="How long all machines may take to become healthy."
    )
    interval: Annotated[Duration, AfterValidator(_interval)] = Field(
        default=5.0, description="How often the balancer checks; whole seconds from 5s to 300s."
    )
    timeout: Duration = Field(
        default=2.0, description="How long an answer may take; whole seconds, less than interval."
    )
    min_ready: Duration = Field(default=10.0, description="How long they must stay healthy before they count.")

    probe_from: _ProbeFrom = Field(
        default="here",
        description="Where probes leave from: here, a command, or requests: none does, and what the balancer counts is "
        "the proof, which is the weaker one.",
    )

    @model_validator(mode="after")
    def _check(self) -> Health:
        if self.kind == "tcp":
            of_http = [name for name in ("path", "version_header") if name in self.model_fields_set]
            if of_http:
                raise Inside([(kebab(name), 'is of HTTP; leave it out beside kind = "tcp"') for name in of_http])
        # CreateTargetGroup: HealthCheckTimeoutSeconds 2-120, less than the interval.
        if not 2 <= self.timeout <= min(120, self.interval - 1) or self.timeout != int(self.timeout):
            raise Inside([("timeout", "whole seconds, from 2s to 120s and less than interval")])
        return self


def _refuse_path_of_others(health: Health, route: Route) -> None:
    """Probes through the balancer take the path that machines are asked by. One that the rule does not match leads to
    nobody, or to another service, whose answers would prove this one's releases."""
    if route.path is None or health.kind == "tcp" or health.probe_from == "requests":
        return
    parts = ({"*": ".*", "?": "."}.get(each, re.escape(each)) for each in route.path)
    if re.fullmatch("".join(parts), health.path.partition("?")[0]) is None:
        told = f"{health.path} is not led here by route.path ({route.path}): probes would ask another service"
        raise Inside([("health", f'{told}; give health.path one that is, or probe-from = "requests"')])


def _slow_start(value: float) -> float:
    # ModifyTargetGroupAttributes: slow_start.duration_seconds is 0, or 30 to 900.
    if value and (not 30 <= value <= 900 or value != int(value)):
        raise ValueError("whole seconds, from 30s to 900s, or 0s for none")
    return value


class AwsHealth(Health):
    """When a release counts as well, and how a machine that joins others is given its share."""

    slow_start: Annotated[Duration, AfterValidator(_slow_start)] = Field(
        default=0.0,
        description="How long a machine that joins healthy ones takes to its full share: 30s to 900s, or 0s for none.",
    )


Flag = Annotated[bool, Field(strict=True)]


class Step(Table):
    """A share of the traffic on the way up."""

    weight: Annotated[Whole, Field(ge=1, le=99)] = Field(description="What the new release gets, in percent.")
    bake: Duration = Field(default=0.0, description="How long it is watched with this share.")
    approve: Flag = Field(default=False, description="Then a person lets it go on: `osvdeploy approve`.")


class Strategy(Table):
    """How traffic moves to a new release."""

    kind: Literal["blue-green", "all-at-once", "canary", "linear"] = Field(
        default="blue-green",
        description="all-at-once is blue-green without baking; a canary goes by `steps`, linear is one of equal steps.",
    )
    steps: list[Step] = Field(
        default_factory=list, description="Of a canary: shares that rise. 100 % follows by itself."
    )
    step: Annotated[Whole, Field(ge=1, le=50)] | None = Field(
        default=None, description="Of linear: how much more the new release gets each time, in percent."
    )
    step_bake: Duration = Field(default=0.0, description="Of linear: how long each share is watched.")
    approve: Flag = Field(
        default=False, description="A person lets it go on before it gets any traffic: `osvdeploy approve`."
    )
    bake: Duration = Field(default=0.0, description="How long the new release is watched under full traffic.")
    keep_warm: Duration = Field(
        default=3600.0, description="How long the old release's machines stay, to be gone back to in one call."
    )
    on_failure: Literal["rollback", "pause"] = Field(
        default="rollback",
        description="What a failure under traffic leads to: the old release serves again, or a person is asked.",
    )
    concurrent: Literal["refuse", "queue", "supersede"] = Field(
        default="refuse",
        description="What this deploy does while another one is under way: nothing, wait for its end, or end it.",
    )

    @model_validator(mode="after")
    def _check(self) -> Strategy:
        if wrong := list(self._wrong()):
            raise Inside(wrong)
        return self

    def _wrong(self) -> Iterator[tuple[str, str]]:
        if self.kind == "all-at-once" and self.bake:
            yield "bake", 'all-at-once does not bake; use kind = "blue-green"'
        weights = [step.weight for step in self.steps]
        if self.kind == "canary" and not weights:
            yield "steps", 'a canary needs them: steps = [{ weight = 5, bake = "2m" }]'
        elif self.kind != "canary" and weights:
            yield "steps", 'are a canary\'s; use kind = "canary"'
        if weights != sorted(set(weights)):
            yield "steps", f"each weight is more than the one before, not {', '.join(map(str, weights))}"
        if self.kind == "linear" and self.step is None:
            yield "step", "is missing: by how much the share rises each time, such as 20"
        for key, given in (("step", self.step is not None), ("step-bake", self.step_bake > 0)):
            if self.kind != "linear" and given:
                yield key, f'is for equal steps; use kind = "linear", not "{self.kind}"'

    @property
    def bakes(self) -> set[str]:
        """When a release bakes: with a share of the traffic (``step``), with all of it (``bake``)."""
        steps = {"step"} if any(step.bake > 0 for step in self.shares) else set()
        return steps | ({"bake"} if self.bake > 0 else set())

    @property
    def shares(self) -> list[Step]:
        """What the new release gets before it gets everything, in order."""
        if self.kind != "linear" or self.step is None:
            return self.steps
        each: Any = timedelta(seconds=self.step_bake)
        return [Step(weight=weight, bake=each) for weight in range(self.step, 100, self.step)]


class Deploy(Table):
    """One environment on AWS: where the image runs and how it gets its traffic."""

    cloud: Literal["aws"] = Field(description="Where.")
    region: Annotated[str, matches(r"[a-z]{2,}(-[a-z]+)+-[0-9]+", 'a region such as "eu-west-1"')] = Field(
        description="The region."
    )
    instance_type: Annotated[str, matches(r"[a-z0-9-]+\.[a-z0-9-]+", 'an instance type such as "t3.small"')] = Field(
        default="t3.nano", description="The machines' type."
    )
    capacity: Annotated[Whole, Field(ge=1, le=1000)] = Field(
        default=2, description="How many machines a release begins with."
    )
    subnets: Annotated[list[Text], Field(min_length=1)] = Field(
        description="Where machines stand; two zones or more outlive one."
    )
    security_groups: list[Text] = Field(default_factory=list, description="What may reach them.")
    listener: Text = Field(description="ARN of the balancer's listener. osvdeploy makes and owns three rules on it.")
    route: Route = Field(description="Which requests on the listener are this service's.")
    preview: Preview = Field(default_factory=Preview, description="How the idle slot is reached.")
    port: Annotated[Whole, Field(ge=1, le=65535)] = Field(description="The port that the program listens on.")
    ledger: Annotated[Text, AfterValidator(_ledger)] = Field(
        description="Where the service's history is kept: s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, or a directory that "
        "all who deploy can reach."
    )
    env: Variables = Field(
        default_factory=dict, description="This environment's own variables; the image stays the same."
    )
    health: AwsHealth = Field(default_factory=AwsHealth, description="When a release counts as well.")
    strategy: Strategy = Field(default_factory=Strategy, description="How traffic moves to a new release.")
    gates: list[Gate] = Field(default_factory=list, description="Metrics that a new release is held to while it bakes.")
    hooks: list[Hook] = Field(
        default_factory=list, description="Programs and addresses that are asked at stages of a rollout."
    )
    notify: list[Notify] = Field(default_factory=list, description="Who is told of rollouts.")

    @property
    def machine(self) -> str:
        return self.instance_type

    @model_validator(mode="after")
    def _check_gates(self) -> Deploy:
        if self.health.kind == "tcp":
            told = "an application load balancer asks by HTTP alone; leave kind out"
            raise Inside([("health", told)])
        _refuse_path_of_others(self.health, self.route)
        refuse_wrong_gates(self.gates, self.cloud, self.strategy.bakes)
        refuse_wrong_hooks(self.hooks)
        refuse_wrong_notify(self.notify, self.cloud)
        return self


class GceHealth(Health):
    """When a release counts as well, on Google: an answer of 200, no other. Machines and their checks take longer to
    come than on AWS."""

    boot_timeout: Annotated[Duration, AfterValidator(some_time)] = Field(
        default=300.0, description="How long all machines may take to become healthy."
    )


class GceRoute(Route):
    """Which requests that come to the URL map are this service's."""

    host: (
        Annotated[
            str,
            matches(
                r"(?:\*[.-])?[A-Za-z0-9](?:[A-Za-z0-9.-]{0,120}[A-Za-z0-9])?", "a host name; *. or *- may stand first"
            ),
        ]
        | None
    ) = Field(default=None, description="The host to match; *. or *- may stand first. Left out: what no host claims.")
    path: Annotated[str, matches(r"/[^*?\s]{0,1000}\*?", "a path from / on; * may stand last")] | None = Field(
        default=None, description="The path to match; * may stand last. Left out with host: every path."
    )


class DeployGcp(Table):
    """One environment on Google: what its machines are, and how they get their traffic. Without a URL map or a
    forwarding rule it is one to make images for, and is not rolled out."""

    cloud: Literal["gcp"] = Field(description="Where.")
    zone: Annotated[str, matches(r"[a-z]+-[a-z]+[0-9]+-[a-z]", 'a zone such as "europe-west1-b"')] | None = Field(
        default=None, description="The zone that machines stand in."
    )
    region: Annotated[str, matches(r"[a-z]+-[a-z]+[0-9]+", 'a region such as "europe-west1"')] | None = Field(
        default=None, description="In place of a zone: a region, over whose zones machines are spread."
    )
    machine_type: Annotated[str, matches(r"[a-z0-9]+(-[a-z0-9]+)+", 'a machine type such as "e2-small"')] = Field(
        default="e2-small", description="The machines' type, which the image is held to."
    )
    env: Variables = Field(
        default_factory=dict,
        description="This environment's own variables: with some, it gets an image of its own on top of the app's.",
    )
    url_map: (
        Annotated[
            str,
            matches(
                rf"(?:(?:global|regions/[a-z]+-[a-z]+[0-9]+)/urlMaps/)?{_GCE_PLAIN}",
                'the name of a URL map, or "regions/REGION/urlMaps/NAME"',
            ),
        ]
        | None
    ) = Field(
        default=None,
        description="The URL map of the balancer. osvdeploy makes and owns three rules in it. Left out, and "
        "forwarding-rule too: images are made for this environment, and nothing is rolled out.",
    )
    forwarding_rule: (
        Annotated[
            str,
            matches(
                rf"(?:(?:global|regions/[a-z]+-[a-z]+[0-9]+)/forwardingRules/)?{_GCE_PLAIN}",
                'the name of a forwarding rule, or "regions/REGION/forwardingRules/NAME"',
            ),
        ]
        | None
    ) = Field(
        default=None,
        description="In place of a URL map: a forwarding rule that leads to a target TCP proxy. It has no weights and "
        "no preview: all of its traffic moves at once. A plain name is one of the machines' region.",
    )
    capacity: Annotated[Whole, Field(ge=1, le=1000)] = Field(
        default=2, description="How many machines a release begins with."
    )
    subnetwork: (
        Annotated[
            str,
            matches(
                rf"(?:projects/[a-z0-9.:-]+/regions/[a-z0-9-]+/subnetworks/)?{_GCE_PLAIN}",
                'the name of a subnetwork, or "projects/PROJECT/regions/REGION/subnetworks/NAME"',
            ),
        ]
        | None
    ) = Field(default=None, description="Where machines stand; left out: the network default.")
    network_tags: list[Annotated[str, matches(_GCE_PLAIN, _GCE_NAME)]] = Field(
        default_factory=list, description="The machines' network tags, by which firewalls know them."
    )
    route: GceRoute | None = Field(default=None, description="Which requests are this service's.")
    preview: Preview = Field(default_factory=Preview, description="How the idle slot is reached.")
    port: Annotated[Whole, Field(ge=1, le=65535)] | None = Field(
        default=None, description="The port that the program listens on."
    )
    ledger: Annotated[Text, AfterValidator(_ledger)] | None = Field(
        default=None,
        description="Where the service's history is kept: gs://BUCKET/PREFIX, s3://BUCKET/PREFIX, or a directory that "
        "all who deploy can reach.",
    )
    health: GceHealth = Field(default_factory=GceHealth, description="When a release counts as well.")
    strategy: Strategy = Field(default_factory=Strategy, description="How traffic moves to a new release.")
    gates: list[Gate] = Field(default_factory=list, description="Metrics that a new release is held to while it bakes.")
    hooks: list[Hook] = Field(
        default_factory=list, description="Programs and addresses that are asked at stages of a rollout."
    )
    notify: list[Notify] = Field(default_factory=list, description="Who is told of rollouts.")

    @property
    def machine(self) -> str:
        return self.machine_type

    @property
    def place(self) -> str:
        """The zone or region."""
        return self.zone or self.region or ""

    @property
    def rolled_out(self) -> bool:
        """Whether it names a way in, and is not there for images alone."""
        return self.url_map is not None or self.forwarding_rule is not None

    @model_validator(mode="after")
    def _check(self) -> DeployGcp:
        if self.zone is None and self.region is None:
            raise ValueError("needs zone or region")
        if self.zone is not None and self.region is not None:
            raise Inside([("region", "is one too many: there is zone")])
        if not self.rolled_out:
            idle = [key for key in _ROLLED_OUT if key in self.model_fields_set]
            if idle:
                told = "needs url-map or forwarding-rule: without, nothing is rolled out"
                raise Inside([(kebab(key), told) for key in idle])
            return self
        if self.url_map is not None and self.forwarding_rule is not None:
            raise Inside([("forwarding-rule", "is one too many: there is url-map")])
        way, needed = "url-map", ["route", "port", "ledger"]
        if self.forwarding_rule is not None:
            way, needed = "forwarding-rule", ["port", "ledger"]
            without = [(key, _NO_POINTER[key]) for key in _NO_POINTER if key in self.model_fields_set]
            if self.strategy.shares:
                without.append(("strategy", "a forwarding rule has no weights, so no steps; name a url-map"))
            if without:
                raise Inside(without)
            if self.health.probe_from == "requests":
                told = 'requests are not counted behind a forwarding rule; take probe-from = "here", or a command'
                raise Inside([("health", told)])
        elif self.health.kind == "tcp":
            told = 'a URL map takes HTTP alone; name a forwarding-rule for kind = "tcp"'
            raise Inside([("health", told)])
        missing = [key for key in needed if getattr(self, key) is None]
        if missing:
            raise Inside([(way, f"needs {' and '.join(missing)} beside it")])
        if self.route is not None:
            _refuse_path_of_others(self.health, self.route)
        refuse_wrong_gates(self.gates, self.cloud, self.strategy.bakes)
        refuse_wrong_hooks(self.hooks)
        refuse_wrong_notify(self.notify, self.cloud)
        return self


_NO_POINTER = {
    "route": "a forwarding rule knows no host, path or priority, and all that comes to it is this service's; leave it "
    "out, or name a url-map",
    "preview": "a forwarding rule has no preview, and the idle slot an address of its own; leave it out, or name a "
    "url-map",
}
"""What means nothing beside a forwarding rule."""

_ROLLED_OUT = (
    "capacity", "subnetwork", "network_tags", "route", "preview", "port", "ledger", "health", "strategy",
    "gates", "hooks", "notify",
)  # fmt: skip


def _told_apart(value: object) -> object:
    # Where it tells environments apart, pydantic writes a number out, however many digits it has, and warns on stderr
    # where Python refuses that.
    if isinstance(value, dict) and "cloud" in value and not isinstance(value["cloud"], str):
        raise Inside([("cloud", f'{shown(value["cloud"])} is not supported; allowed: "aws", "gcp"')])
    return value


Environment = Annotated[Deploy | DeployGcp, Field(discriminator="cloud"), BeforeValidator(_told_apart)]


class Environments(Table):
    """Environments alone, without an app: what is brought into service is in the cloud already."""

    deploy: dict[Annotated[str, AfterValidator(_name)], Environment] = Field(description="Each by its name.")


class Retention(Table):
    """What ``osvdeploy gc`` keeps."""

    releases: Annotated[Whole, Field(ge=1, le=50)] = Field(
        default=10, description="How many releases that have served, beside what serves or is warm."
    )
    age: Annotated[Duration, AfterValidator(some_time)] | None = Field(
        default=None,
        description="Releases that served within this time are kept too, however many they are.",
    )


def _amount(value: object) -> Decimal:
    """Money as it was written: what stands in a text is exact, and so is the shortest form of a number."""
    text = value if isinstance(value, str) else str(value)
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", text.strip()[:40]):
        raise ValueError(f'an amount such as "0.0228", not {shown(value)}')
    return Decimal(text.strip())


Amount = Annotated[
    Decimal,
    BeforeValidator(_amount),
    # A pattern is for texts alone.
    WithJsonSchema({"type": ["string", "number"], "pattern": r"^[0-9]{1,9}(\.[0-9]{1,9})?$"}),
]


class Prices(Table):
    """What things cost, for ``osvdeploy plan`` and ``osvdeploy gc --dry-run``. None come with osvdeploy."""

    currency: Annotated[str, matches("[A-Z]{3}", 'a currency such as "USD"')] = Field(
        description="Of all these amounts."
    )
    machines: dict[Text, Amount] = Field(default_factory=dict, description="One machine for an hour, by its type.")
    snapshot_gib_month: Amount | None = Field(default=None, description="A GiB of snapshots for a month (730 hours).")
    image_gib_month: Amount | None = Field(
        default=None, description="A GiB of images for a month, where they are no snapshots: on Google."
    )


class Spec(Table):
    """An osv.toml."""

    name: Annotated[str, AfterValidator(_name)] = Field(description="The app.")
    version: Annotated[
        str,
        BeforeValidator(_is_text),
        matches(
            r"[0-9A-Za-z][0-9A-Za-z._-]{0,39}",
            "1 to 40 letters, digits, dots, dashes and underscores, the first a letter or digit",
        ),
    ] = Field(description="Its version; never reused for other bytes.")
    kernel: Kernel = Field(description="Where the kernel comes from.")
    image: Image = Field(description="What is booted.")
    files: list[File] = Field(default_factory=list, description="Files of this host that go into the image.")
    programs: list[Program] = Field(
        default_factory=list, description="Programs of this host, each with all that it needs to run."
    )
    publish: Publish = Field(default_factory=Publish, description="How images are made, cloud by cloud.")
    deploy: dict[Annotated[str, AfterValidator(_name)], Environment] = Field(
        default_factory=dict, description="The environments, each by its name."
    )
    retention: Retention = Field(default_factory=Retention, description="What `osvdeploy gc` keeps.")
    prices: Prices | None = Field(
        default=None, description="What machines and images cost; left out: no money is told."
    )
    waive: dict[Text, Annotated[str, AfterValidator(_reason)]] = Field(
        default_factory=dict,
        description="Rules of `osvdeploy check` that do not refuse this image, each with the reason.",
    )

    @model_validator(mode="after")
    def _check(self) -> Spec:
        wrong = []
        if self.image.fs != "rofs" and "rootfs" in self.image.boot:
            wrong.append(("image", "boot", "rootfs follows from fs; leave it out"))
        if self.kernel.tree is None:
            if self.image.fs != "rofs":
                wrong.append(("image", "fs", f"{self.image.fs} needs kernel.tree: only OSv's own build makes it"))
            if self.image.modules:
                wrong.append(("image", "modules", "need kernel.tree: they are built in a source tree"))
        wrong += self._wrong_on_google()
        if wrong:
            raise Elsewhere(wrong)
        return self

    def _wrong_on_google(self) -> Iterator[tuple[str, str, str]]:
        gcp = self.publish.gcp
        for name, environment in self.deploy.items():
            if isinstance(environment, DeployGcp):
                if gcp is None:
                    yield "deploy", name, 'cloud = "gcp" needs [publish.gcp], with a project and a bucket'
                elif gcp.family is not None and len(f"{gcp.family}-{name}") > 63:
                    yield "deploy", name, f"its image family would be {gcp.family}-{name}, longer than 63 characters"
