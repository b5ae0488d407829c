"""What docs/hooks.md shows is what is read, and what it says is so."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from osvdeploy.cloud.interfaces import RouteState
from osvdeploy.rollout.model import HookCall, Stage
from osvdeploy.rollout.news import News, NewsKind
from osvdeploy.rollout.turns import facts
from osvdeploy.spec.hooks import Hook, Notify
from tests.rollout.made import NOW, run
from tests.spec.specs import DEPLOY, GOOGLE, ROLLED_OUT, SMALL, on_aws, problems, read

PAGE = (Path(__file__).parents[2] / "docs" / "hooks.md").read_text()


def test_the_examples_are_taken() -> None:
    shown = "\n".join(re.findall(r"```toml\n(.*?)```", PAGE, re.S))
    assert [hook.name for hook in on_aws(read(f"{SMALL}{DEPLOY}\n{shown}")).hooks][:2] == ["smoke-test", "status-page"]


def test_every_key_and_stage_is_told_of() -> None:
    names = {(field.alias or name) for name, field in Hook.model_fields.items()} | {stage.value for stage in Stage}
    names = {name.replace("_", "-") for name in names}
    assert {name for name in names if f"`{name}`" not in PAGE and f"{name} = " not in PAGE} == set()


def test_every_fact_is_told_of() -> None:
    call = HookCall("smoke", Stage.VERIFY, 0, "event", 1, NOW)
    told = facts(run(), call, service="hello/production", ledger="memory", preview_header="x-preview", state=None)
    table = PAGE[PAGE.index("## What it is told") : PAGE.index("```sh")]
    assert {key for key in told if f"`{key}`" not in table} == set()


def test_behind_a_pointer_the_preview_has_an_address_of_its_own() -> None:
    made = run()
    call = HookCall("smoke", Stage.VERIFY, 0, "event", 1, NOW)
    state = RouteState({}, None, "http://10.0.0.1:80", (), weighted=False, previews={made.slot: "http://10.0.0.9:80"})
    told = facts(made, call, service="hello/production", ledger="memory", preview_header="", state=state)
    assert told["preview"] == {"url": "http://10.0.0.9:80", "header": None}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('name = "a"\non = ["verify"]', "needs command or url"),
        ('name = "a"\non = ["verify"]\ncommand = ["x"]\nurl = "https://a"', "is one too many: there is command"),
        ('name = "a"\non = []\ncommand = ["x"]', "hooks[0].on"),
        ('name = "a"\non = ["start"]\ncommand = ["x"]', "hooks[0].on[0]"),
        ('name = "A b"\non = ["verify"]\ncommand = ["x"]', "lower-case letters"),
        ('name = "a"\non = ["verify"]\ncommand = ["x"]\ntimeout = "2h"', "from 1s to 1h, not 2h"),
        ('name = "a"\non = ["verify"]\nurl = "ftp://a"', "begins with https:// or http://"),
        ('name = "a"\non = ["verify"]\nurl = "https://acme.example/?token=x"', "this address is a secret"),
        ('name = "a"\non = ["verify"]\nurl = "https://me:secret@a/"', "holds no user or password"),
        ('name = "a"\non = ["verify"]\ncommand = ["x"]\nheaders = { X-A = "b" }', "are of a url"),
        ('name = "a"\non = ["verify"]\nurl = "https://a"\nheaders = { Authorization = "x" }', "stand in the ledger"),
        ('name = "a"\non = ["verify"]\nurl = "https://a"\nheaders = { X-Api-Key = "x" }', "stand in the ledger"),
        ('name = "a"\non = ["verify"]\nurl = "https://a"\nheaders = { Host = "x" }', "is set by osvdeploy"),
        ('name = "a"\non = ["verify"]\nurl = "https://a"\nheaders = { "X A" = "x" }', "the name of a header"),
        ('name = "a"\non = ["verify"]\nurl = "https://a"\nheaders = { X-A = "a\\r\\nb" }', "printable characters"),
        ('name = "a"\non = ["verify"]\nurl = "https://a"\nheader-variables = { X-A = "a b" }', "environment variable"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_hook_is_refused(text: str, told: str) -> None:
    found = problems(f"{SMALL}{DEPLOY}\n[[deploy.production.hooks]]\n{text}")
    assert any(told in each for each in found), found


def test_all_that_is_wrong_with_a_hook_is_told_at_once() -> None:
    """Its address, its time and its headers: not one after the other."""
    hook = 'name = "a"\non = ["verify"]\nurl = "ftp://a"\ntimeout = "0s"\nheaders = { Host = "x", X-Token = "y" }'
    found = problems(f"{SMALL}{DEPLOY}\n[[deploy.production.hooks]]\n{hook}")
    wanted = ("begins with https:// or http://", "from 1s to 1h, not 0ms", "Host is set by", "X-Token would stand")
    assert [sum(each in told for told in found) for each in wanted] == [1, 1, 1, 1], found
    nothing = 'name = "a"\non = ["verify"]\ntimeout = "2h"'
    found = problems(f"{SMALL}{DEPLOY}\n[[deploy.production.hooks]]\n{nothing}")
    assert any("from 1s to 1h, not 2h" in told for told in found)
    assert any("so is url: it needs one of them" in told for told in found)


def test_two_hooks_of_one_name_are_refused() -> None:
    one = 'name = "a"\non = ["verify"]\ncommand = ["x"]\n'
    (told,) = problems(f"{SMALL}{DEPLOY}\n[[deploy.production.hooks]]\n{one}[[deploy.production.hooks]]\n{one}")
    assert "two are called 'a'" in told


# ---------------------------------------------------------------------------------------------------- notifications

NOTIFICATIONS = (Path(__file__).parents[2] / "docs" / "notifications.md").read_text()


def test_the_examples_of_notifications_are_taken() -> None:
    shown = "\n".join(re.findall(r"```toml\n(.*?)```", NOTIFICATIONS, re.S))
    aws, _, google = shown.partition("[[deploy.europe.notify]]")
    assert len(on_aws(read(f"{SMALL}{DEPLOY}\n{aws}")).notify) == 3
    assert len(read(f"{SMALL}{GOOGLE}{ROLLED_OUT}\n[[deploy.europe.notify]]{google}").deploy["europe"].notify) == 1


def test_every_key_and_sort_of_news_is_told_of() -> None:
    names = {name.replace("_", "-") for name in Notify.model_fields} | {kind.value for kind in NewsKind}
    assert {name for name in names if f"`{name}`" not in NOTIFICATIONS and f"{name} = " not in NOTIFICATIONS} == set()


def test_every_field_of_news_is_told_of() -> None:
    assert {each.name for each in fields(News) if f"`{each.name}`" not in NOTIFICATIONS} == set()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('on = ["begun"]', "needs one of webhook-variable, webhook, sns, pubsub"),
        ('webhook = "https://hooks.slack.com/services/T0/B0/x"', "this address is a secret"),
        ('webhook = "https://acme.example/hook?token=abc"', "this address is a secret"),
        ('webhook = "https://me:pw@acme.example/"', "holds no user or password"),
        ('webhook = "https://acme.example/"\nwebhook-variable = "A"', "is one too many"),
        ('webhook-variable = "$SLACK"', "the name of an environment variable"),
        ('sns = "rollouts"', "the ARN of a topic"),
        ('sns = "arn:aws:sns:eu-west-1:111122223333:a"\nformat = "slack"', "is of a webhook, not of sns"),
        ('pubsub = "projects/acme-prod/topics/rollouts"', 'is of an environment with cloud = "gcp"'),
        ('webhook-variable = "A"\non = ["ended"]', "notify[0].on[0]"),
        ('webhook-variable = "A"\non = []', "notify[0].on"),
        ('webhook-variable = "A"\n[[deploy.production.notify]]\nwebhook-variable = "A"', "is there twice"),
    ],
)
def test_who_cannot_be_told_is_refused(text: str, told: str) -> None:
    found = problems(f"{SMALL}{DEPLOY}\n[[deploy.production.notify]]\n{text}")
    assert any(told in each for each in found), found
