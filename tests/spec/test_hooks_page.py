"""What docs/hooks.md shows is what is read, and what it says is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from osvdeploy.cloud.interfaces import RouteState
from osvdeploy.rollout.model import HookCall, Stage
from osvdeploy.rollout.turns import facts
from osvdeploy.spec.hooks import Hook
from tests.rollout.made import NOW, run
from tests.spec.specs import DEPLOY, SMALL, on_aws, problems, read

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
        ('name = "a"\non = ["verify"]\ncommand = ["x"]\ntimeout = "2h"', "from 1s to 1h"),
        ('name = "a"\non = ["verify"]\nurl = "ftp://a"', "begins with https:// or http://"),
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


def test_two_hooks_of_one_name_are_refused() -> None:
    one = 'name = "a"\non = ["verify"]\ncommand = ["x"]\n'
    (told,) = problems(f"{SMALL}{DEPLOY}\n[[deploy.production.hooks]]\n{one}[[deploy.production.hooks]]\n{one}")
    assert "two are called 'a'" in told
