"""``[[deploy.NAME.hooks]]``: programs and addresses that have a say in a rollout."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Field, model_validator

from osvdeploy.sizes import format_duration
from osvdeploy.spec.boot import shown
from osvdeploy.spec.table import Duration, Inside, Table, Text, matches

T = TypeVar("T")

LONGEST = 3600.0
"""Seconds that a hook may take at most."""

HookStage = Literal["prepare", "boot", "verify", "shift", "bake", "revert", "clean-up", "done"]

_SECRET_HEADERS = re.compile(
    r"authorization|proxy-authorization|cookie|.*(?:token|secret|password|api-?key|signature).*", re.IGNORECASE
)

_VARIABLE = matches(r"[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable")

HeaderName = Annotated[str, matches(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}", "the name of a header")]
_SET_BY_US = ("host", "content-length", "content-type", "connection", "transfer-encoding", "user-agent")

HeaderValue = Annotated[str, matches(r"[ -~\t]{0,1000}", "printable characters of ASCII on one line")]


def an_address(value: str) -> str:
    if not re.fullmatch(r"https?://[!-~]+", value) or "@" in value.partition("//")[2].partition("/")[0]:
        raise ValueError(
            f"an address that begins with https:// or http:// and holds no user or password, not {shown(value)}"
        )
    return value


_SECRET_ADDRESSES = re.compile(
    r"https?://(?:"
    r"hooks\.slack\.com/|(?:[a-z0-9.-]+\.)?discord(?:app)?\.com/api/webhooks/|[a-z0-9.-]+\.webhook\.office\.com/"
    r"|chat\.googleapis\.com/|[a-z0-9.-]+\.logic\.azure\.com/|events\.pagerduty\.com/integration/"
    r"|[^?#]*[?#].*(?:token|key|secret|sig|signature|password|code)=)",
    re.IGNORECASE,
)
"""Addresses whose very knowledge lets anybody post."""


def _open_url(value: str) -> str:
    an_address(value)
    if _SECRET_ADDRESSES.match(value):
        raise ValueError(
            "this address is a secret, and would stand in the ledger; send what is secret of it in a header whose "
            'value is in a variable: header-variables = { Authorization = "NAME" }'
        )
    return value


def _timeout(value: float) -> float:
    if not 1 <= value <= LONGEST:
        raise ValueError(f"from 1s to 1h, not {format_duration(value)}")
    return value


def _faults(check: Callable[[T], T], value: T | None) -> list[str]:
    """What a check says of a value; nothing where there is none."""
    if value is not None:
        try:
            check(value)
        except ValueError as error:
            return [str(error)]
    return []


class Hook(Table):
    """A program or an address that is asked at certain stages of a rollout. It is given the rollout's facts as JSON."""

    name: Annotated[str, matches(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?", "lower-case letters, digits and dashes")] = (
        Field(description="What it is called in the record.")
    )
    on: Annotated[list[HookStage], Field(min_length=1)] = Field(
        description="At which stages: prepare, boot, verify, shift, bake, revert, clean-up, done."
    )
    command: Annotated[list[Text], Field(min_length=1)] | None = Field(
        default=None,
        description="A program of this host and its arguments, as words; no shell. The facts are on its stdin; any "
        "other exit status than 0 is a failure.",
        examples=[["./smoke-test", "--quick"]],
    )
    url: Text | None = Field(
        default=None,
        description="In place of command: an address that the facts are posted to; any answer but 2xx is a failure.",
    )
    headers: dict[HeaderName, HeaderValue] = Field(
        default_factory=dict, description="Of url: further headers of the request. None that is secret."
    )
    header_variables: dict[HeaderName, Annotated[str, _VARIABLE]] = Field(
        default_factory=dict,
        description="Of url: headers whose values are in environment variables of whoever deploys, by their names.",
    )
    timeout: Duration = Field(default=60.0, description="How long it may take; from 1s to 1h.")
    on_failure: Literal["fail", "warn"] = Field(
        default="fail",
        description="What a failure means on the way up: as a gate that failed, or a warning. On the way back it is "
        "always a warning.",
    )

    @model_validator(mode="after")
    def _check(self) -> Hook:
        # All of them here, not with their keys: pydantic would not ask for the rest once one of those is wrong.
        wrong = [("url", told) for told in _faults(_open_url, self.url)]
        wrong += [("timeout", told) for told in _faults(_timeout, self.timeout)]
        if self.command is None and self.url is None:
            if wrong:
                raise Inside([*wrong, ("command", "is missing, and so is url: it needs one of them")])
            raise ValueError("needs command or url")
        if self.command is not None and self.url is not None:
            wrong.append(("url", "is one too many: there is command"))
        for key, given in (("headers", self.headers), ("header-variables", self.header_variables)):
            if given and self.url is None:
                wrong.append((key, "are of a url; a command has the environment as it is"))
            if ours := [name for name in given if name.lower() in _SET_BY_US]:
                wrong.append((key, f"{ours[0]} is set by osvdeploy"))
        names = [name.lower() for name in (*self.headers, *self.header_variables)]
        if twice := [name for name in names if names.count(name) > 1]:
            wrong.append(("header-variables", f"{twice[0]} is there twice"))
        if secret := [name for name in self.headers if _SECRET_HEADERS.fullmatch(name)]:
            told = f"{secret[0]} would stand in the ledger"
            wrong.append(
                ("headers", f'{told}; name a variable that holds it: header-variables = {{ {secret[0]} = "NAME" }}')
            )
        if wrong:
            # Of one key one problem is told.
            keys = dict.fromkeys(key for key, _ in wrong)
            raise Inside([(key, "; ".join(told for other, told in wrong if other == key)) for key in keys])
        return self


NoticeKind = Literal[
    "begun", "waiting", "shifted", "reverting", "succeeded", "failed", "rolled-back", "aborted", "rollback-failed",
    "held", "unheld",
]  # fmt: skip


def _open_address(value: str) -> str:
    an_address(value)
    if _SECRET_ADDRESSES.match(value):
        raise ValueError(
            "this address is a secret, and would stand in the ledger; put it into an environment variable and name "
            'that: webhook-variable = "NAME"'
        )
    return value


class Notify(Table):
    """Who is told of rollouts."""

    webhook_variable: Annotated[str, _VARIABLE] | None = Field(
        default=None,
        description="The environment variable of whoever deploys that holds the address of a webhook, which is posted "
        "to. It is read when something is sent, and in no document.",
    )
    webhook: Annotated[Text, AfterValidator(_open_address)] | None = Field(
        default=None, description="The address of a webhook that is no secret: it stands in the ledger."
    )
    format: Literal["json", "slack"] | None = Field(
        default=None,
        description="Of a webhook: json is all that there is to tell; slack a text, as incoming webhooks of Slack take "
        "it. Left out: json.",
    )
    sns: (
        Annotated[str, matches(r"arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}", "the ARN of a topic")]
        | None
    ) = Field(default=None, description="A topic of SNS, of an environment on AWS.")
    pubsub: (
        Annotated[
            str,
            matches(
                r"projects/[a-z0-9.:-]{6,100}/topics/[A-Za-z][A-Za-z0-9._~%+-]{2,254}",
                "projects/PROJECT/topics/TOPIC, a project of 6 characters or more and a topic of 3 or more",
            ),
        ]
        | None
    ) = Field(default=None, description="A topic of Pub/Sub, of an environment on Google.")
    on: Annotated[list[NoticeKind], Field(min_length=1)] = Field(
        default=["begun", "waiting", "succeeded", "failed", "rolled-back", "aborted", "rollback-failed"],
        description="Of what: begun, waiting (for a person), shifted (a share is proved), reverting (traffic goes "
        "back), succeeded, failed, rolled-back, aborted, rollback-failed, held, unheld.",
    )

    @property
    def target(self) -> tuple[str, str]:
        """The key that says where, and its value."""
        for key in _TARGETS:
            if (value := getattr(self, key.replace("-", "_"))) is not None:
                return key, value
        raise AssertionError("the model asks for one of them")

    @model_validator(mode="after")
    def _check(self) -> Notify:
        given = [key for key in _TARGETS if getattr(self, key.replace("-", "_")) is not None]
        if not given:
            raise ValueError(f"needs one of {', '.join(_TARGETS)}")
        if len(given) > 1:
            raise Inside([(key, f"is one too many: there is {given[0]}") for key in given[1:]])
        if self.format is not None and not given[0].startswith("webhook"):
            raise Inside([("format", f"is of a webhook, not of {given[0]}")])
        return self


_TARGETS = ("webhook-variable", "webhook", "sns", "pubsub")
_OF_CLOUD = {"sns": "aws", "pubsub": "gcp"}


def refuse_wrong_notify(notify: Sequence[Notify], cloud: str) -> None:
    """Raise :class:`~osvdeploy.spec.table.Inside` for those that an environment of this cloud cannot have."""
    seen: set[tuple[str, str]] = set()
    for each in notify:
        key, value = each.target
        wanted = _OF_CLOUD.get(key, cloud)
        if wanted != cloud:
            raise Inside([("notify", f'{key} is of an environment with cloud = "{wanted}"')])
        if each.target in seen:
            raise Inside([("notify", f"{key} {value} is there twice; put all of `on` into one")])
        seen.add(each.target)


def refuse_wrong_hooks(hooks: Sequence[Hook]) -> None:
    """Raise :class:`~osvdeploy.spec.table.Inside` where two hooks have one name."""
    names = [hook.name for hook in hooks]
    if twice := [name for name in names if names.count(name) > 1]:
        raise Inside([("hooks", f"two are called {twice[0]!r}; give each a name of its own")])
