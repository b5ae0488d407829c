"""What the balancer does with a request."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.sandbox.dataplane import (
    Action,
    Answer,
    Condition,
    Decision,
    Field,
    FixedResponse,
    Forward,
    HttpRequest,
    Listener,
    Redirect,
    Rule,
    SendTo,
    Target,
    TargetState,
    decide,
    matches,
)

BLUE = "arn:blue"
GREEN = "arn:green"
OK = FixedResponse(200, body="ok")


def target(name: str, state: TargetState = TargetState.HEALTHY, *, checkable: bool = True) -> Target:
    return Target(name, "127.0.8.1", 8080, state, checkable)


def listener(*rules: tuple[int, tuple[Condition, ...], Action]) -> Listener:
    return Listener(8000, tuple(Rule(*rule) for rule in rules))


def sent(decision: Decision) -> str:
    assert isinstance(decision, SendTo), decision
    return decision.target.id


def status(decision: Decision) -> int:
    assert isinstance(decision, Answer), decision
    return decision.status


@pytest.mark.parametrize(
    ("condition", "request_", "holds"),
    [
        (Condition(Field.PATH, ("/img/*",)), HttpRequest("GET", "/img/a.png"), True),
        (Condition(Field.PATH, ("/img/*",)), HttpRequest("GET", "/img/"), True),
        (Condition(Field.PATH, ("/img/*",)), HttpRequest("GET", "/IMG/a.png"), False),
        (Condition(Field.PATH, ("/a?c",)), HttpRequest("GET", "/abc?x=1"), True),
        (Condition(Field.PATH, ("/a?c",)), HttpRequest("GET", "/ac"), False),
        (Condition(Field.PATH, ("/a.c",)), HttpRequest("GET", "/abc"), False),
        (Condition(Field.PATH, ("/x", "/y")), HttpRequest("GET", "/y"), True),
        (Condition(Field.PATH, ("/x",)), HttpRequest("GET", "http://h/x?q"), True),
        (Condition(Field.HOST, ("*.Example.com",)), HttpRequest("GET", "/", (("Host", "API.example.com:80"),)), True),
        (Condition(Field.HOST, ("*.example.com",)), HttpRequest("GET", "/", (("Host", "example.com"),)), False),
        (Condition(Field.HOST, ("*",)), HttpRequest("GET", "/"), True),
        (Condition(Field.HEADER, ("green",), "X-Preview"), HttpRequest("GET", "/", (("x-preview", "GREEN"),)), True),
        (Condition(Field.HEADER, ("gr*",), "X-Preview"), HttpRequest("GET", "/", (("x-preview", "green"),)), True),
        (
            Condition(Field.HEADER, ("b",), "A"),
            HttpRequest("GET", "/", (("a", "a"), ("a", "b"))),
            True,
        ),
        (Condition(Field.HEADER, ("green",), "X-Preview"), HttpRequest("GET", "/"), False),
        (Condition(Field.METHOD, ("GET",)), HttpRequest("GET", "/"), True),
        (Condition(Field.METHOD, ("GET",)), HttpRequest("get", "/"), False),
        (Condition(Field.QUERY, pairs=(("Version", "1"),)), HttpRequest("GET", "/?version=1&b=2"), True),
        (Condition(Field.QUERY, pairs=(("version", "1"),)), HttpRequest("GET", "/?other=1"), False),
        (Condition(Field.QUERY, pairs=((None, "*beta*"),)), HttpRequest("GET", "/?v=a-BETA-3"), True),
        (Condition(Field.SOURCE, ("127.0.0.0/8",)), HttpRequest("GET", "/"), True),
        (Condition(Field.SOURCE, ("10.0.0.0/8",)), HttpRequest("GET", "/"), False),
        (Condition(Field.SOURCE, ("::/0",)), HttpRequest("GET", "/"), False),
    ],
)
def test_conditions(condition: Condition, request_: HttpRequest, holds: bool) -> None:
    """Paths and methods keep their case, hosts, headers and queries do not; any value is enough; ``?`` is one."""
    assert condition.holds(request_) is holds


@given(st.text(), st.text(alphabet="ab*?", max_size=8))
@settings(max_examples=60, deadline=None)
def test_wildcards_never_reach_the_regex_engine(text: str, tail: str) -> None:
    """What is no wildcard stands for itself, whatever it means elsewhere; a lone star matches everything."""
    literal = text.replace("*", "").replace("?", "")
    assert matches(literal, literal)
    assert matches("*", text)
    assert matches(literal + "*", literal + tail)


def test_all_conditions_must_hold_and_the_lowest_priority_wins() -> None:
    """Rules are tried by priority, not by the order they were made in."""
    path, method = Condition(Field.PATH, ("/a",)), Condition(Field.METHOD, ("POST",))
    rules = listener(
        (50, (), FixedResponse(404)), (20, (path,), FixedResponse(202)), (10, (path, method), FixedResponse(201))
    )
    assert [
        status(decide(rules, HttpRequest(*line), {}, 0.0)) for line in [("POST", "/a"), ("GET", "/a"), ("GET", "/")]
    ] == [
        201,
        202,
        404,
    ]


@given(
    st.lists(st.integers(0, 999), min_size=1, max_size=5),
    st.integers(1, 4),
    st.floats(0, 1, exclude_max=True),
)
@settings(max_examples=150, deadline=None)
def test_a_group_without_weight_gets_nothing(weights: list[int], size: int, draw: float) -> None:
    """Every draw lands on a group with a weight; only where no group has one does the balancer answer 503."""
    groups = tuple((f"group{index}", weight) for index, weight in enumerate(weights))
    targets = {name: [target(f"{name}/{number}") for number in range(size)] for name, _ in groups}
    decision = decide(listener((1, (), Forward(groups))), HttpRequest("GET", "/"), targets, draw)
    if sum(weights):
        assert isinstance(decision, SendTo)
        assert dict(groups)[decision.group] > 0
        assert decision.target in targets[decision.group]
    else:
        assert status(decision) == 503


def test_weights_and_targets_share_the_draw_evenly() -> None:
    """Over evenly spread draws a group gets its weight's share, and each of its targets an equal part of that."""
    rules = listener((1, (), Forward(((BLUE, 1), (GREEN, 3)))))
    targets = {BLUE: [target("b1"), target("b2")], GREEN: [target("g1"), target("g2"), target("g3")]}
    got = [sent(decide(rules, HttpRequest("GET", "/"), targets, number / 800)) for number in range(800)]
    assert {name: got.count(name) for name in set(got)} == {"b1": 100, "b2": 100, "g1": 200, "g2": 200, "g3": 200}


def test_fail_open() -> None:
    """With no healthy target a group sends to all of them; never to draining or unused ones, nor to unregistered."""
    forward = listener((1, (), Forward(((BLUE, 1),))))
    sick, healthy = target("sick", TargetState.UNHEALTHY), target("well")
    ask = HttpRequest("GET", "/")
    draws = [number / 10 for number in range(10)]
    assert {sent(decide(forward, ask, {BLUE: [sick, healthy]}, draw)) for draw in draws} == {"well"}
    new = target("new", TargetState.INITIAL)
    assert {sent(decide(forward, ask, {BLUE: [sick, new]}, draw)) for draw in draws} == {"sick", "new"}
    idle = [
        target("gone", TargetState.DRAINING),
        target("off", TargetState.UNUSED),
        target("later", TargetState.INITIAL, checkable=False),
    ]
    assert status(decide(forward, ask, {BLUE: idle}, 0.5)) == 503


def test_no_fail_over_between_weighted_groups() -> None:
    """A weighted group without targets answers 503 for its share, although its neighbour could serve."""
    rules = listener((1, (), Forward(((BLUE, 1), (GREEN, 1)))))
    targets = {GREEN: [target("g")]}
    assert status(decide(rules, HttpRequest("GET", "/"), targets, 0.2)) == 503
    assert sent(decide(rules, HttpRequest("GET", "/"), targets, 0.7)) == "g"


def test_fixed_answers_and_redirects_come_from_the_balancer() -> None:
    """A fixed response is answered as declared, a redirect keeps the parts it does not name."""
    request = HttpRequest("GET", "/a/b?c=1", (("Host", "old.example:8000"),))
    assert decide(listener((1, (), OK)), request, {}, 0.0) == Answer(200, "text/plain", "ok")
    moved = decide(listener((1, (), Redirect(301, host="new.example"))), request, {}, 0.0)
    assert isinstance(moved, Answer)
    assert (moved.status, moved.location) == (301, "http://new.example:8000/a/b?c=1")
