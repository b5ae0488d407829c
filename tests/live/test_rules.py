"""What live runs hold themselves to, without an account: names, variables, prices."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.live import marks, settings
from tests.live.costs import PAGE, Makes, estimate, prices, within
from tests.live.run import PREFIX, TAG, Run
from tests.live.settings import Account
from tests.osv.images import LZLOADER, loader_image

REAL = {settings.BUDGET: "3", settings.AWS_REGION: "eu-west-1", settings.GCP_PROJECT: "p", settings.GCP_ZONE: "z"}
DECLARED = [each for each in vars(marks).values() if isinstance(each, Makes)]


def test_a_run_is_known_by_its_labels() -> None:
    """From any label the run and its second; and every name of a run is short enough for what bears it."""
    now = datetime(2026, 11, 26, 22, 45, 1, tzinfo=UTC)
    run = Run.begin(now)
    assert run != Run.begin(now)
    for number in (0, 7, 1234):
        label = run.label(number)
        assert Run.of(label.value) == run
        assert label.plain(label.named("orders-1.0.0")) == "orders-1.0.0"
    assert run.began == now
    assert Run("theirs").began is None
    # A load balancer's name on AWS; a bucket's on Google, of a project whose name is as long as one may be.
    assert len(run.name) <= 32 and len(f"{'p' * 30}-{run.name}-images") <= 63
    assert run.name.startswith(PREFIX) and not TAG.startswith("osvdeploy:")


def test_two_tests_of_one_run_do_not_meet() -> None:
    """Neither in names, nor in what balancers' parts are called."""
    one, two = Run.begin(datetime.now(UTC)).label(1), Run.begin(datetime.now(UTC)).label(11)
    assert one.named("x") != two.named("x")
    assert one.key("0123456789") != two.key("0123456789")
    assert two.plain(one.named("x")) == one.named("x")


@pytest.mark.parametrize("account", Account)
def test_what_a_run_lacks_is_named(account: Account) -> None:
    """One variable at a time, and what is wrong with one that is set."""
    assert settings.missing(account, environ=REAL) is None
    for name in (settings.BUDGET, *settings.PLACES[account]):
        said = settings.missing(account, environ={**REAL, name: ""})
        assert said is not None and said.startswith(f"{name} is not set: ")
    for wrong in ("a lot", "-1", "0", "nan", "inf"):
        said = settings.missing(account, environ={**REAL, settings.BUDGET: wrong})
        assert said is not None and wrong in said


@pytest.mark.parametrize("account", Account)
def test_guests_need_a_kernel_but_in_the_sandbox(account: Account) -> None:
    """And no account can be hurried."""
    here = dict.fromkeys(
        ("AWS_ENDPOINT_URL", "STORAGE_EMULATOR_HOST", "OSVDEPLOY_GCP_COMPUTE_ENDPOINT"), "http://127.0.0.1:1"
    )
    said = settings.missing(account, guests=True, environ=REAL)
    assert said is not None and settings.KERNEL in said
    said = settings.missing(account, guests=True, environ={**REAL, settings.KERNEL: "/no/such/loader.img"})
    assert said is not None and "/no/such/loader.img" in said
    assert settings.missing(account, guests=True, environ={**REAL, **here}) is None
    assert settings.missing(account, environ={**REAL, **here, settings.SPEED: "20"}) is None
    said = settings.missing(account, environ={**REAL, settings.SPEED: "20"})
    assert said is not None and "no sandbox" in said


def test_a_kernel_that_has_no_chance_is_not_waited_for(tmp_path: Path) -> None:
    """Nobody pays for guests that cannot come up: it is skipped, with the rule; what may serve is tried."""
    kernel = tmp_path / "loader.img"
    kernel.write_bytes(loader_image(payload=LZLOADER))
    assert settings.cannot_serve(Account.GCP, kernel, "e2-small") is None
    said = settings.cannot_serve(Account.AWS, kernel, "m7g.large")
    assert said is not None and "m7g.large" in said and "architecture" in said


def test_every_price_has_a_source_and_a_date() -> None:
    """And what fixtures declare is in the table, as is every variable in its own."""
    for price in prices().values():
        assert price.usd > 0 and price.source and price.date.startswith("20")
    used = {key for each in DECLARED for key in (*each.each, *each.shared)}
    assert used == prices().keys()
    page = PAGE.read_text()
    assert all(f"| `{name}` | {holds} |" in page for name, holds in settings.VARIABLES.items())


def test_an_estimate_adds_up() -> None:
    """What each test uses, and what they share by the hour begun, once."""
    table = prices()
    makes = Makes(Account.AWS, 40, {"aws-machine": 2}, {"aws-balancer": 1})
    one, two = estimate([makes]), estimate([makes, makes])
    assert one.usd == pytest.approx(2 * table["aws-machine"].usd + table["aws-balancer"].usd)
    assert two.usd == pytest.approx(4 * table["aws-machine"].usd + 2 * table["aws-balancer"].usd)
    assert two.hours == pytest.approx(80 / 60)
    assert two.tests == 2
    assert estimate([]).usd == 0


def test_a_budget_takes_the_cheapest_suites() -> None:
    """As many as fit; the others are told by name."""
    cheap, dear = Makes(Account.AWS, 1, {"aws-machine": 1}), Makes(Account.AWS, 1, {"aws-machine": 100})
    suites = {"a": [dear], "b": [cheap], "c": [cheap, cheap]}
    assert within(0.02, suites) == (["b", "c"], ["a"])
    assert within(0.001, suites) == ([], ["a", "b", "c"])
    assert within(10, suites) == (["a", "b", "c"], [])
