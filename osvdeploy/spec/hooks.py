"""``[[deploy.NAME.hooks]]``: programs and addresses that have a say in a rollout."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from osvdeploy.spec.boot import shown
from osvdeploy.spec.table import Duration, Inside, Table, Text, matches

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


def _timeout(value: float) -> float:
    if not 1 <= value <= LONGEST:
        raise ValueError("from 1s to 1h")
    return value


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
    url: Annotated[Text, AfterValidator(an_address)] | None = Field(
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
    timeout: Annotated[Duration, AfterValidator(_timeout)] = Field(
        default=60.0, description="How long it may take; from 1s to 1h."
    )
    on_failure: Literal["fail", "warn"] = Field(
        default="fail",
        description="What a failure means on the way up: as a gate that failed, or a warning. On the way back it is "
        "always a warning.",
    )

    @model_validator(mode="after")
    def _check(self) -> Hook:
        wrong: list[tuple[str, str]] = []
        if self.command is None and self.url is None:
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
            raise Inside(wrong)
        return self


def refuse_wrong_hooks(hooks: Sequence[Hook]) -> None:
    """Raise :class:`~osvdeploy.spec.table.Inside` where two hooks have one name."""
    names = [hook.name for hook in hooks]
    if twice := [name for name in names if names.count(name) > 1]:
        raise Inside([("hooks", f"two are called {twice[0]!r}; give each a name of its own")])
