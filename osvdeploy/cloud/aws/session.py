"""AWS clients: made here, when first used, and every call reported, repeated and translated in one way.

An adapter writes::

    with aws.calling(ctx, f"image {name}"):
        answer = aws.ec2.describe_images(Owners=["self"])

Inside, each attempt becomes an :class:`~osvdeploy.events.CloudCall`, a throttled or unanswered one is repeated on the
Context's clock (so a cancel or the deadline ends it, and nothing sleeps in virtual time), and botocore's errors come
out as :mod:`osvdeploy.errors`. botocore's own repeating is off: it sleeps where nobody can end it, and its quota of
retries, shared by all calls of a client, lets polling starve the one call that moves traffic.

Where the endpoints are is the SDK's business: ``AWS_ENDPOINT_URL`` and its per-service forms, profiles, proxies.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from osvdeploy.cloud.aws.errors import translate
from osvdeploy.cloud.connecting import looking_when_connected
from osvdeploy.context import Context
from osvdeploy.errors import OsvDeployError, Unavailable, UsageError
from osvdeploy.events import CloudCall
from osvdeploy.version import __version__

if TYPE_CHECKING:
    import boto3
    from mypy_boto3_autoscaling import AutoScalingClient
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_ebs import EBSClient
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_elbv2 import ElasticLoadBalancingv2Client
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sts import STSClient

CONNECT_TIMEOUT = 3.0
READ_TIMEOUT = 10.0
"""Seconds. botocore's own 60 s would let one hung endpoint hold a rollback for minutes."""

BLOCK_READ_TIMEOUT = 20.0
"""Seconds for EBS direct: half a MiB has to go up a slow line first."""

OBJECT_READ_TIMEOUT = 30.0
"""Seconds for S3: several parts of 5 MiB share a slow line, and S3 takes its time to join many."""

ATTEMPTS = 3
"""What all SDKs of AWS do in their standard retry mode."""

MOST_CONNECTIONS = 64

ROLE_VARIABLE = "OSVDEPLOY_AWS_ROLE"
"""Environment variable with the ARN of a role that every call is made in; the SDK has one for web identities alone."""

_AGENT = f"osvdeploy/{__version__}"

_READ_VERBS = ("Describe", "Get", "Head", "List", "Search", "Select", "Simulate", "Validate", "Decode")


def mutating(operation: str) -> bool:
    """Whether an operation changes anything, by AWS's naming of operations."""
    return not operation.startswith(_READ_VERBS)


class Publisher(Protocol):
    """As much of a client of SNS as is used: there are no types for one."""

    def publish(self, **parameters: object) -> dict[str, str]: ...


class QuotaTeller(Protocol):
    """Likewise of one of Service Quotas."""

    def get_service_quota(self, **parameters: str) -> dict[str, dict[str, float]]: ...


@dataclass(slots=True)
class _Calling:
    """What is in force while an adapter calls: read by the hooks, which botocore gives nothing of ours."""

    ctx: Context
    what: str
    attempts: int
    operation: str = ""
    late: OsvDeployError | None = None
    """Why a call was not sent once there was a connection."""


_in_force: ContextVar[_Calling | None] = ContextVar("osvdeploy-aws-calling", default=None)


class Aws:
    """The clients of one region. Safe to share between threads; each thread enters :meth:`calling` itself."""

    def __init__(self, region: str, session: boto3.Session | None = None) -> None:
        """``session`` is a prepared boto3 session (tests deliver its requests in process); without one, the SDK's
        usual chain of settings decides."""
        self.region = region
        self._session = session
        self._clients: dict[tuple[str, float], object] = {}
        """By their services, and by the seconds that an answer may take."""
        # Making boto3 clients is not safe from several threads at once; using them is.
        self._making = threading.Lock()

    @property
    def ec2(self) -> EC2Client:
        return cast("EC2Client", self._client("ec2"))

    @property
    def ebs(self) -> EBSClient:
        return cast("EBSClient", self._client("ebs", read_timeout=BLOCK_READ_TIMEOUT))

    @property
    def autoscaling(self) -> AutoScalingClient:
        return cast("AutoScalingClient", self._client("autoscaling"))

    @property
    def cloudwatch(self) -> CloudWatchClient:
        return cast("CloudWatchClient", self._client("cloudwatch"))

    @property
    def elbv2(self) -> ElasticLoadBalancingv2Client:
        return cast("ElasticLoadBalancingv2Client", self._client("elbv2"))

    @property
    def iam(self) -> IAMClient:
        return cast("IAMClient", self._client("iam"))

    @property
    def quotas(self) -> QuotaTeller:
        return cast("QuotaTeller", self._client("service-quotas"))

    @property
    def s3(self) -> S3Client:
        return cast("S3Client", self._client("s3", read_timeout=OBJECT_READ_TIMEOUT))

    @property
    def s3_brief(self) -> S3Client:
        """For calls without a body, which have no more time than those of other services: what is changed under a lease
        must be over before it is."""
        return cast("S3Client", self._client("s3"))

    @property
    def sns(self) -> Publisher:
        return cast("Publisher", self._client("sns"))

    @property
    def sts(self) -> STSClient:
        return cast("STSClient", self._client("sts"))

    def elsewhere(self, region: str) -> Aws:
        """The same account in another region."""
        return Aws(region, self._session)

    def account(self, ctx: Context) -> str:
        """The account's 12 digits. Raises :class:`~osvdeploy.errors.CredentialsMissing`."""
        with self.calling(ctx):
            return self.sts.get_caller_identity()["Account"]

    @contextmanager
    def calling(self, ctx: Context, what: str = "", attempts: int = ATTEMPTS) -> Iterator[None]:
        """Calls made inside belong to ``ctx``; an error names ``what``; each call is sent ``attempts`` times at most.

        Raises what :func:`osvdeploy.cloud.aws.errors.translate` makes of botocore's errors, and Interrupted or
        DeadlineExceeded where a repetition would have had to wait for too long.
        """
        calling = _Calling(ctx, what, attempts)
        token = _in_force.set(calling)
        try:
            yield
        except OsvDeployError:
            raise
        except Exception as error:
            if not _from_sdk(error):
                raise
            if calling.late is not None:
                raise calling.late from None
            raise translate(error, what, calling.operation) from error
        finally:
            _in_force.reset(token)

    def _client(self, service: str, read_timeout: float = READ_TIMEOUT) -> object:
        with self._making:
            key = service, read_timeout
            if key not in self._clients:
                self._clients[key] = self._make(service, read_timeout)
            return self._clients[key]

    def _make(self, service: str, read_timeout: float) -> object:
        if self._session is None:
            self._session = default_session()
        from botocore.config import Config

        config = Config(
            region_name=self.region,
            connect_timeout=CONNECT_TIMEOUT,
            read_timeout=read_timeout,
            retries={"mode": "standard", "total_max_attempts": 1},
            max_pool_connections=MOST_CONNECTIONS,
            user_agent_extra=_AGENT,
        )
        try:
            client = cast("Any", self._session).client(service, config=config)
        except ValueError as error:  # an endpoint setting that is no URL
            raise translate(error) from error
        hooks = _Hooks(service)
        # This emitter serves this one client, so no service has to be named (botocore would want its hyphenated id).
        client.meta.events.register_first("request-created", hooks.sent)
        client.meta.events.register_first("before-send", hooks.in_time)
        client.meta.events.register_first("response-received", hooks.answered)
        client.meta.events.register_last("needs-retry", hooks.repeat)
        # botocore has no setting for it, and its own dict serves its proxies' pools, too.
        pools = client._endpoint.http_session._pool_classes_by_scheme
        pools.update(looking_when_connected(pools, _look_when_connected))
        if service == "s3":
            client.meta.events.register("before-call", _sum_once)
        return client


def _look_when_connected() -> None:
    """As :meth:`_Hooks.in_time`, where a connection had to be made first."""
    calling = _in_force.get()
    if calling is not None and calling.ctx.remaining() == 0.0:
        try:
            calling.ctx.check()
        except OsvDeployError as error:
            # botocore makes an error of its own of any that comes from a connection.
            calling.late = error
            raise


_SUM = "x-amz-checksum-sha256"


def _sum_once(params: dict[str, Any], context: dict[str, Any], **_: object) -> None:
    """Keep botocore from hashing a body for its signature that comes with its SHA-256, in a header that is signed.

    Over TLS botocore leaves it out by itself for uploads it sums itself; this says that it has.
    """
    if _SUM in params["headers"]:
        context["checksum"] = {"request_algorithm": {"algorithm": "sha256", "in": "header", "name": _SUM}}


def usual_region() -> str | None:
    """The region that the environment or AWS's own configuration names, None for none."""
    try:
        import boto3
    except ModuleNotFoundError as error:
        raise UsageError(f"AWS needs {error.name}", hint="pip install 'osvdeploy[aws]'") from None
    return os.environ.get("AWS_REGION") or boto3.Session().region_name


def default_session() -> boto3.Session:
    """What the SDK's usual chain of settings gives. Raises :class:`~osvdeploy.errors.UsageError` without an SDK."""
    try:
        import boto3
    except ModuleNotFoundError as error:
        raise UsageError(f"AWS needs {error.name}", hint="pip install 'osvdeploy[aws]'") from None
    role = os.environ.get(ROLE_VARIABLE)
    return _as_role(role) if role else boto3.Session()


def _as_role(role: str) -> boto3.Session:
    """The same chain's identity in a role that it takes on; the credentials are renewed before they end."""
    import boto3
    import botocore.session
    from botocore.config import Config
    from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials
    from botocore.exceptions import NoCredentialsError

    source = botocore.session.Session()
    identity = source.get_credentials()
    if identity is None:
        raise translate(NoCredentialsError(), f"role {role}")
    region = source.get_config_variable("region") or "us-east-1"  # STS answers alike in each
    config = Config(connect_timeout=CONNECT_TIMEOUT, read_timeout=READ_TIMEOUT, user_agent_extra=_AGENT)
    fetcher = AssumeRoleCredentialFetcher(
        client_creator=functools.partial(source.create_client, region_name=region, config=config),
        source_credentials=identity,
        role_arn=role,
        extra_args={"RoleSessionName": "osvdeploy"},
    )
    assumed = botocore.session.Session()
    # botocore has no other place for credentials that renew themselves.
    cast("Any", assumed)._credentials = DeferredRefreshableCredentials(
        refresh_using=fetcher.fetch_credentials, method="assume-role"
    )
    return boto3.Session(botocore_session=assumed)


class _Hooks:
    """What botocore calls around every attempt of one client."""

    _STARTED = "osvdeploy-started"

    def __init__(self, service: str) -> None:
        self._service = service

    def sent(self, request: Any, operation_name: str, **_: object) -> None:
        if (calling := _in_force.get()) is not None:
            calling.operation = operation_name
            request.context[self._STARTED] = calling.ctx.monotonic()

    def in_time(self, **_: object) -> None:
        """Send nothing when its time is over: the last thing that is done before it goes out by a connection that is
        there. A process that stood still since it looked at its lease finds out here."""
        if (calling := _in_force.get()) is not None and calling.ctx.remaining() == 0.0:
            calling.ctx.check()

    def answered(
        self,
        context: dict[str, Any],
        parsed_response: dict[str, Any] | None,
        exception: Exception | None,
        event_name: str,
        **_: object,
    ) -> None:
        calling = _in_force.get()
        if calling is None or calling.late is not None or isinstance(exception, OsvDeployError):
            return  # it was not sent
        error = (parsed_response or {}).get("Error")
        operation = event_name.rpartition(".")[2]
        now = calling.ctx.monotonic()
        calling.ctx.report(
            CloudCall(
                service=self._service,
                operation=operation,
                mutating=mutating(operation),
                seconds=now - context.get(self._STARTED, now),
                error=type(exception).__name__ if exception is not None else error and str(error.get("Code")),
            )
        )

    def repeat(
        self,
        response: tuple[Any, dict[str, Any]] | None,
        attempts: int,
        operation: Any,
        caught_exception: Exception | None,
        **_: object,
    ) -> float | None:
        """Seconds botocore shall sleep before the next attempt: 0, the waiting is done here. None for no more."""
        calling = _in_force.get()
        if calling is None or attempts >= calling.attempts:
            return None
        from botocore.exceptions import ClientError

        if calling.late is not None or isinstance(caught_exception, OsvDeployError):
            return None
        error = caught_exception
        if error is None and response is not None and (response[0].status_code >= 300):
            error = ClientError(cast("Any", response[1]), operation.name)
        if error is None or not isinstance(translate(error), Unavailable):
            return None
        # Full jitter under 0.5, 1, 2 ... seconds, as AWS advises.
        share = int.from_bytes(calling.ctx.entropy(4), "big") / 2**32
        calling.ctx.sleep(share * min(20.0, 0.5 * 2 ** (attempts - 1)))
        return 0.0


def _from_sdk(error: Exception) -> bool:
    return any(cls.__module__.partition(".")[0] in ("botocore", "boto3") for cls in type(error).__mro__)
