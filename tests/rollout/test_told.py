"""Who is told of rollouts: at least once, in order, by whoever holds the lease; and nothing waits for it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from osvdeploy.cloud.interfaces import HookAnswer, Message, SnsTarget, WebhookTarget
from osvdeploy.cloud.memory import Call, Moment
from osvdeploy.events import Warned
from osvdeploy.rollout.hooks import Notify
from osvdeploy.rollout.logbook import EntryKind, entries
from osvdeploy.rollout.model import Outcome, RequestKind, Run
from osvdeploy.rollout.news import MOST_OWED, NewsKind, Notice, message_of, of_hold, of_run, owed
from osvdeploy.rollout.releases import OnFailure, Strategy, StrategyKind, TrafficStep
from tests.rollout.made import NOW, SETTINGS, after, release, run
from tests.rollout.service import Service

pytestmark = pytest.mark.slow

EVERY = tuple(kind.value for kind in NewsKind)
HOOK = WebhookTarget(None, "SLACK")
TOPIC = SnsTarget("arn:aws:sns:eu-west-1:111122223333:rollouts")
CANARY = Strategy(StrategyKind.CANARY, (TrafficStep(10, 30.0), TrafficStep(100)), bake=60.0, keep_warm=3600.0)
REFUSED = HookAnswer(False, "answered 500")


def deployed(*notify: Notify, **changes: Any) -> Service:
    """A service that these are told of, whose first release serves."""
    made = Service(notify=notify or (Notify(HOOK, EVERY),), **changes)
    assert made.deploy("1.0.0").outcome is Outcome.SUCCEEDED
    made.cloud.notifier.sent.clear()
    made.recorder.events.clear()
    return made


def last(service: Service) -> Run:
    found = service.head.run
    assert found is not None
    return found


def events(service: Service) -> list[str]:
    return [message.event for _, message, _ in service.cloud.notifier.sent]


def fails(service: Service, answer: HookAnswer = REFUSED, takes: float = 0.0, target: str | None = None) -> None:
    def behaves(to: str, message: Message) -> tuple[float, HookAnswer]:
        return (takes, answer) if target in (None, to) else (0.0, HookAnswer(True, "answered 200"))

    service.cloud.notifier.behaves = behaves


# ----------------------------------------------------------------------------------------------------------- which


def test_a_deploy_is_told_from_its_beginning_to_its_end() -> None:
    here = deployed(strategy=CANARY)
    here.deploy("2.0.0")
    assert here.cloud.notifier.told() == ["begun", "shifted", "shifted", "succeeded"]
    assert events(here) == [f"{last(here).id}/{number}" for number in (1, 2, 3, 4)]
    assert here.head.notices == ()


def test_each_share_is_told_by_its_weight() -> None:
    here = deployed(Notify(HOOK, ("shifted",)), strategy=CANARY)
    here.deploy("2.0.0")
    told = [sending.facts["told"] for _, _, sending in here.cloud.notifier.sent]
    assert [each.partition(" has ")[2] for each in told] == ["10 % of the traffic", "100 % of the traffic"]


def test_a_release_that_failed_is_told_when_traffic_is_back() -> None:
    here = deployed()
    here.cloud.behave(here.id("2.0.0"), never_healthy=True)
    here.deploy("2.0.0")
    assert here.cloud.notifier.told() == ["begun", "rolled-back"]
    assert here.cloud.notifier.sent[-1][2].facts["told"].endswith(f"; {here.id('1.0.0')} serves")


def test_who_is_to_say_something_is_told_once() -> None:
    here = deployed(strategy=replace(CANARY, steps=(TrafficStep(10, 30.0, approve=True), TrafficStep(100))))
    assert here.deploy("2.0.0").outcome is Outcome.WAITING
    assert here.cloud.notifier.told() == ["begun", "shifted", "waiting"]
    here.manager().recover(here.context())
    assert here.cloud.notifier.told() == ["begun", "shifted", "waiting"]
    here.manager().request(here.context(), RequestKind.APPROVE)
    assert here.cloud.notifier.told() == ["begun", "shifted", "waiting", "shifted", "succeeded"]


def test_a_pause_is_told_with_its_reason() -> None:
    here = deployed(strategy=replace(SETTINGS.strategy, bake=60.0, on_failure=OnFailure.PAUSE))

    def sicken(call: Call, moment: Moment) -> None:
        if call.operation == "router.modify_rule" and moment is Moment.AFTER:
            here.cloud.behave(here.id("2.0.0"), answers=(500,), health=500)

    here.cloud.on_call(sicken)
    assert here.deploy("2.0.0").outcome is Outcome.WAITING
    assert here.cloud.notifier.told()[-1] == "waiting"
    assert "500" in here.cloud.notifier.sent[-1][2].facts["told"]


def test_where_a_rollout_ends_with_its_service_nobody_is_told_that_something_serves() -> None:
    """What served before goes too."""
    service = deployed(Notify(HOOK, (NewsKind.ABORTED.value,)))
    service.settings = replace(service.settings, strategy=replace(SETTINGS.strategy, approve=True))
    assert service.deploy("1.1.0").outcome is Outcome.WAITING
    service.destroy()
    told = [json.loads(message.body)["told"] for _, message, _ in service.cloud.notifier.sent]
    assert told == [f"the deploy of {service.id('1.1.0')} aborted: destroyed"]


def test_a_rollback_tells_that_it_holds_what_it_left() -> None:
    here = deployed()
    here.deploy("2.0.0")
    here.cloud.notifier.sent.clear()
    here.rollback()
    assert here.cloud.notifier.told() == ["begun", "shifted", "held", "succeeded"]


def test_holds_are_told_too() -> None:
    here = deployed()
    here.manager().hold(here.context(), None, "freeze")
    here.manager().unhold(here.context())
    assert here.cloud.notifier.told() == ["held", "unheld"]


def test_each_is_told_what_it_asked_for() -> None:
    here = deployed(Notify(HOOK, ("begun",)), Notify(TOPIC, ("succeeded",)))
    here.deploy("2.0.0")
    assert (here.cloud.notifier.told(str(HOOK)), here.cloud.notifier.told(str(TOPIC))) == (["begun"], ["succeeded"])


def test_where_nobody_is_told_documents_are_as_before() -> None:
    """Not one more is written."""
    counts = []
    for notify in ((), (Notify(HOOK, EVERY),)):
        here = Service(notify=notify)
        here.deploy("1.0.0")
        counts.append(here.head.n)
    assert counts[0] == counts[1]


# ------------------------------------------------------------------------------------------------- at least once


def test_what_was_not_delivered_is_tried_again_while_the_rollout_goes_on_and_in_order() -> None:
    here = deployed(strategy=CANARY)
    until = here.clock.monotonic() + 40

    def behaves(to: str, message: Message) -> tuple[float, HookAnswer]:
        return 0.0, REFUSED if here.clock.monotonic() < until else HookAnswer(True, "answered 200")

    here.cloud.notifier.behaves = behaves
    here.deploy("2.0.0")
    assert here.cloud.notifier.told() == ["begun", "shifted", "shifted", "succeeded"]
    assert 3 <= events(here).count(f"{last(here).id}/1") <= 8


def test_what_is_owed_at_the_end_is_told_by_the_next_command() -> None:
    here = deployed()
    fails(here)
    assert here.deploy("2.0.0").outcome is Outcome.SUCCEEDED
    assert [notice.news.notice for notice in here.head.notices] == ["begun", "shifted", "succeeded"]
    told = f"is yet to be told of begun, shifted, succeeded (the deploy of {here.id('2.0.0')})"
    assert any(told in str(each) for each in here.recorder.events)
    here.cloud.notifier.behaves = None
    here.clock.advance(600)
    here.manager().recover(here.context())
    assert here.cloud.notifier.told() == ["begun", "shifted", "succeeded"]
    assert here.head.notices == ()


def test_what_is_owed_of_several_rollouts_is_told_by_rollout() -> None:
    here = deployed()
    fails(here)
    here.deploy("2.0.0")
    here.deploy("3.0.0")
    here.manager().hold(here.context(), None, "not now")
    last_told = [str(each) for each in here.recorder.events if "is yet to be told" in str(each)][-1]
    of_each = [f"begun, shifted, succeeded (the deploy of {here.id(version)})" for version in ("2.0.0", "3.0.0")]
    assert f"{'; '.join(of_each)}; held (hello/production)" in last_told


def test_one_that_is_dead_does_not_keep_others_from_being_told() -> None:
    here = deployed(Notify(HOOK, EVERY), Notify(TOPIC, EVERY))
    fails(here, target=str(HOOK))
    here.deploy("2.0.0")
    assert here.cloud.notifier.told(str(TOPIC)) == ["begun", "shifted", "succeeded"]
    assert {str(notice.target) for notice in here.head.notices} == {str(HOOK)}


@pytest.mark.parametrize("share", [number / 12 for number in range(12)])
def test_a_process_that_dies_leaves_nothing_untold(share: float) -> None:
    """Whichever of its calls is its last; what is told twice is told as the same event."""
    clean = deployed(strategy=CANARY)
    clean.publish("2.0.0")
    before = len(clean.cloud.calls)
    clean.deploy("2.0.0")
    here, left = deployed(strategy=CANARY), [round(share * (len(clean.cloud.calls) - before)) + 12]

    def die(call: Call, moment: Moment) -> None:
        left[0] -= moment is Moment.BEFORE
        if left[0] <= 0:
            raise KeyboardInterrupt

    here.publish("2.0.0")
    here.cloud.on_call(die)
    with pytest.raises(KeyboardInterrupt):
        here.deploy("2.0.0")
    here.cloud.on_call(None)
    here.deploy("2.0.0")
    told = {message.event: message.notice for _, message, _ in here.cloud.notifier.sent}
    assert list(told.values()) == ["begun", "shifted", "shifted", "succeeded"]
    assert here.head.notices == ()


def test_an_answer_that_is_lost_makes_the_same_event_come_again() -> None:
    here = deployed(Notify(HOOK, ("succeeded",)))
    fails(here, HookAnswer(True, "answered 200"), takes=1e9)
    here.deploy("2.0.0")
    here.cloud.notifier.behaves = None
    here.clock.advance(600)
    here.manager().recover(here.context())
    first, second = events(here)
    assert first == second


def test_what_nobody_hears_for_a_day_is_given_up() -> None:
    here = deployed(Notify(HOOK, ("succeeded",)))
    fails(here)
    here.deploy("2.0.0")
    here.clock.advance(86400 + 60)
    here.manager().hold(here.context(), None, "freeze")
    here.clock.advance(60)
    here.manager().unhold(here.context())
    assert here.head.notices == ()
    told = [entry.told for entry in entries(list(here.ledger.heads(here.context()))[::-1])]
    assert f"{HOOK} was never told: succeeded: answered 500" in told


def test_no_document_owes_without_bound() -> None:
    notice = Notice(HOOK, of_hold("hello/production", 1, None, "freeze", "somebody", NOW))
    fresh = [replace(notice, news=replace(notice.news, event=str(number))) for number in range(MOST_OWED + 5)]
    assert owed((), {}, fresh, NOW)[0].news.event == "5"
    assert len(owed((), {}, fresh, NOW)) == MOST_OWED


def test_the_ledger_tells_who_was_told() -> None:
    here = deployed(Notify(HOOK, ("begun",)))
    here.deploy("2.0.0")
    heads = list(here.ledger.heads(here.context()))[::-1]
    told = [entry.told for entry in entries(heads) if entry.kind is EntryKind.NOTICE]
    assert told[-1] == f"{HOOK} was told: begun"


# ------------------------------------------------------------------------------------------- nothing waits for it


def moved(service: Service, act: Any) -> float:
    """Seconds until traffic is sent back, by what ``act`` does."""
    began, seconds = service.clock.monotonic(), list[float]()

    def watch(call: Call, moment: Moment) -> None:
        if call.operation == "router.modify_rule" and moment is Moment.AFTER:
            seconds.append(service.clock.monotonic() - began)

    service.cloud.on_call(watch)
    act()
    service.cloud.on_call(None)
    return seconds[-1]


@pytest.mark.parametrize(("answer", "takes"), [(REFUSED, 0.0), (REFUSED, 9.0), (HookAnswer(True, "never"), 1e9)])
def test_a_rollback_is_held_up_by_nobody_who_cannot_be_told(answer: HookAnswer, takes: float) -> None:
    """Traffic is back as soon as with nobody to tell; and the command ends some seconds later at most."""
    plain, told = Service(), Service(notify=(Notify(HOOK, EVERY), Notify(TOPIC, EVERY)))
    took, ended = [], []
    for here in (plain, told):
        fails(here, answer, takes)
        here.deploy("1.0.0")
        here.deploy("2.0.0")
        began = here.clock.monotonic()
        took.append(moved(here, here.rollback))
        ended.append(here.clock.monotonic() - began)
        assert {str(each) for each in here.cloud.serving} == {here.id("1.0.0")}
    assert took[1] == pytest.approx(took[0], abs=0.01)
    assert ended[1] - ended[0] < 15


def test_on_the_way_back_nobody_is_told_before_traffic_has_moved() -> None:
    here = deployed()
    here.deploy("2.0.0")
    here.cloud.notifier.sent.clear()
    at = moved(here, here.rollback)
    began = here.cloud.notifier.sent[0][2].at
    assert began >= at


def test_what_cannot_be_told_is_a_warning_and_no_failure() -> None:
    here = deployed()
    fails(here)
    assert here.deploy("2.0.0").outcome is Outcome.SUCCEEDED
    assert any(
        isinstance(each, Warned) and "cannot be told: answered 500" in each.text for each in here.recorder.events
    )


# ------------------------------------------------------------------------------------------------------ as what


def test_a_message_has_all_there_is_to_tell() -> None:
    made = run(settings=replace(SETTINGS, notify=(Notify(HOOK, EVERY),)))
    numbered, (news,) = of_run(None, made, "hello/production", NOW)
    assert (numbered.news, news.event) == (1, "run-1/1")
    message = message_of(Notice(HOOK, news))
    assert message.subject == "hello/production: begun"
    assert b'"schema": 1' in message.body
    assert b'"candidate": "%s"' % release("2.0.0").id.encode() in message.body


def test_slack_is_told_in_its_own_markup() -> None:
    news = of_hold("hello/production", 7, None, "see <https://acme.example/?a=1&b=2>", "somebody", NOW)
    message = message_of(Notice(WebhookTarget(None, "SLACK", "slack"), news))
    assert message.text == (
        "*hello/production* held: every release is held: see &lt;https://acme.example/?a=1&amp;b=2&gt;"
    )
    assert message.body == b'{"text": "%s"}' % message.text.encode()


def test_the_next_try_comes_later_each_time() -> None:
    notice = Notice(HOOK, of_hold("hello/production", 7, None, "freeze", "somebody", NOW))
    waits = []
    for number in range(12):
        notice = notice.failed("no", after(number))
        waits.append(next(s for s in range(1000) if notice.due(after(number) + timedelta(seconds=s))))
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (2, 300)


def test_a_try_by_a_clock_ahead_does_not_put_off_the_next() -> None:
    """Else nobody would be told anything until that time has come."""
    notice = Notice(HOOK, of_hold("hello/production", 7, None, "freeze", "somebody", NOW))
    assert notice.failed("no", NOW + timedelta(days=1)).due(NOW)
