"""Rollouts of which topics are told, services that speak no HTTP, hooks that are real programs: all in the sandbox."""

from __future__ import annotations

import base64
import json
import marshal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from osvdeploy.cloud.interfaces import CommandHook, PubSubTarget, SnsTarget
from osvdeploy.cloud.local.hooks import LocalHooks
from osvdeploy.context import Context
from osvdeploy.rollout.hooks import Hook, Notify
from osvdeploy.rollout.manager import RolloutManager
from osvdeploy.rollout.model import Outcome
from osvdeploy.sandbox.faults import Fault, FaultKind
from osvdeploy.sandbox.google import pubsub
from osvdeploy.sandbox.services import sns
from tests.aws_world import AwsWorld
from tests.gcp_world import GcpWorld
from tests.world import ABORTING, BAD, World

pytestmark = pytest.mark.sandbox

EVERY = ("begun", "waiting", "shifted", "reverting", "succeeded", "failed", "rolled-back", "aborted")


def kept(world: World, kind: str) -> list[dict[str, Any]]:
    """The documents of a kind that the sandbox has, wherever, in their order."""
    found = [
        (key, marshal.loads(content))
        for (_, named), documents in world.sandbox.store._documents.items()
        if named == kind
        for key, content in documents.items()
    ]
    return [document for _, document in sorted(found, key=lambda each: each[0])]


def test_a_topic_of_sns_is_told_of_a_deploy_and_of_the_way_back(tmp_path: Path) -> None:
    """One call that is throttled, and one whose answer is lost, are made up for: at least once, in order."""
    world = AwsWorld(tmp_path)
    client: Any = world.session.client("sns")
    topic = client.create_topic(Name="rollouts")["TopicArn"]
    world.settings = replace(world.settings, notify=(Notify(SnsTarget(topic), EVERY),))
    world.sandbox.faults.add(Fault("sns:Publish", FaultKind.THROTTLED))
    world.sandbox.faults.add(Fault("sns:Publish", FaultKind.AFTER, skip=2))
    world.deploy(world.build("1.0.0"))
    world.deploy(world.build("2.0.0", BAD))
    process = world.process()
    world.wait(600)
    process.manager.recover(process.ctx)
    told = {each["attributes"]["event"]: json.loads(each["Message"]) for each in kept(world, sns.MESSAGE)}
    assert [each["notice"] for each in told.values()] == ["begun", "shifted", "succeeded", "begun", "rolled-back"]
    assert world.head.notices == ()
    (first, *_) = kept(world, sns.MESSAGE)
    assert first["Subject"] == "hello/production: begun"
    assert first["attributes"] == {
        "event": f"{told[first['attributes']['event']]['run']}/1", "notice": "begun", "service": "hello/production",
    }  # fmt: skip


def test_a_topic_that_may_not_be_told_stops_nothing(tmp_path: Path) -> None:
    world = AwsWorld(tmp_path, notify=(Notify(SnsTarget("arn:aws:sns:eu-west-1:123456789012:gone"), EVERY),))
    assert world.deploy(world.build("1.0.0")).outcome is Outcome.SUCCEEDED
    assert [notice.news.notice for notice in world.head.notices] == ["begun", "shifted", "succeeded"]
    assert "Topic does not exist" in world.head.notices[0].error


def test_a_topic_of_pub_sub_is_told(tmp_path: Path) -> None:
    world = GcpWorld(tmp_path)
    topic = "projects/p-elsewhere/topics/rollouts"
    gcp = world.account.gcp()
    gcp.send(Context(clock=world.clock), "PUT", f"{gcp.pubsub}/v1/{topic}", "topic", body=b"{}")
    world.settings = replace(world.settings, notify=(Notify(PubSubTarget(topic), EVERY),))
    assert world.deploy(world.build("1.0.0")).outcome is Outcome.SUCCEEDED
    messages = kept(world, pubsub.MESSAGE)
    assert [each["attributes"]["notice"] for each in messages] == ["begun", "shifted", "succeeded"]
    news = json.loads(base64.b64decode(messages[-1]["data"]))
    assert (news["service"], news["outcome"]) == ("hello/production", "succeeded")


def test_a_service_that_speaks_no_http_is_rolled_out_behind_a_forwarding_rule(tmp_path: Path) -> None:
    """Google checks connections; a release whose machines take none does not get in."""
    world = GcpWorld(tmp_path, pointer=True)
    health = replace(world.settings.health, kind="tcp", version_header=None)
    world.settings = replace(world.settings, health=health)
    assert world.deploy(world.build("1.0.0")).outcome is Outcome.SUCCEEDED
    checks = [each["resource"] for each in kept(world, "compute.healthCheck")]
    (check,) = [each for each in checks if each["name"].startswith("osvd-")]
    assert (check["type"], check["tcpHealthCheck"]["port"]) == ("TCP", world.settings.port)
    second = world.build("2.0.0")
    assert world.deploy(second).outcome is Outcome.SUCCEEDED
    assert world.deploy(world.build("3.0.0", ABORTING)).outcome is Outcome.ROLLED_BACK
    assert world.head.stable is not None
    assert world.head.stable.release == second.id


def test_a_real_program_is_asked_and_its_no_takes_the_release_away(tmp_path: Path) -> None:
    """It gets the facts, and is no part of the virtual time."""
    program = tmp_path / "smoke"
    program.write_text(
        f"#!{sys.executable}\nimport json, pathlib, sys\nfacts = json.load(sys.stdin)\n"
        f"pathlib.Path({str(tmp_path / 'facts')!r}).write_text(json.dumps(facts))\n"
        "print('no', facts['candidate'], 'please'); sys.exit(facts['candidate'].startswith('hello-2'))\n"
    )
    program.chmod(0o755)
    hook = Hook("smoke", CommandHook((str(program),)), ("verify",), timeout=600.0)
    world = AwsWorld(tmp_path, hooks=(hook,))
    first = world.build("1.0.0")

    def deploy(release: Any) -> Outcome:
        process = world.process()
        world.publish(release, process)
        hooks = Waited(LocalHooks())
        manager = RolloutManager(world.ledger, process.cloud, world.prober, hooks=hooks)
        return manager.deploy(process.ctx, release).outcome

    assert deploy(first) is Outcome.SUCCEEDED
    second = world.build("2.0.0")
    assert deploy(second) is Outcome.ROLLED_BACK
    run = world.head.run
    assert run is not None
    assert run.reason == f"hook smoke: exit status 1: no {second.id} please"
    facts = json.loads((tmp_path / "facts").read_text())
    assert facts["preview"]["header"] == {"name": "x-preview", "value": run.slot.value}
    assert facts["base_url"].startswith("http://")


class Waited:
    """Real hooks in virtual time: each is over before it is looked at."""

    def __init__(self, hooks: LocalHooks) -> None:
        self.hooks = hooks
        self.refuse_unready = hooks.refuse_unready

    def start(self, *arguments: Any) -> Any:
        started = self.hooks.start(*arguments)
        started.wait(30.0)
        return started
