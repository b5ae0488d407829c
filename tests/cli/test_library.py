"""What docs/library.md promises a program: blocking, cancellable, to be called again, from any thread."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from osvdeploy import api
from osvdeploy.context import Context
from osvdeploy.errors import DeadlineExceeded, Interrupted, LeaseHeld
from osvdeploy.events import Event, StageEntered
from osvdeploy.rollout.model import Outcome, Until
from osvdeploy.rollout.releases import Settings
from tests.cli.test_bad_input import Account, User, account, customer, guest, user  # noqa: F401 (fixtures, found by their names)

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "library.md"


def service_of(settings: Settings) -> api.Service:
    return api.Service("hello", settings.environment, settings.ledger)


@pytest.fixture
def settings(guest: User) -> Settings:  # noqa: F811 (a fixture)
    return api.settings_of(api.load_spec(guest.project / "osv.toml"), "test")


@pytest.fixture
def image(account: Account, guest: User) -> str:  # noqa: F811 (fixtures)
    """The cloud's id of a release's image."""
    release = guest.run("deploy", "--json").document["release"]
    found = account.client("ec2").describe_images(Owners=["self"])["Images"]
    return str(next(each["ImageId"] for each in found if each["Name"] == release))


def elsewhere(settings: Settings, environment: str, number: int) -> Settings:
    """Another service by the same listener."""
    path = f"/{environment}*"
    return replace(settings, environment=environment, priority=settings.priority + 10 * number, path=path, host=None)


def at_stage(stage: str, then: Callable[[], object]) -> Callable[[Event], None]:
    def report(event: Event) -> None:
        if isinstance(event, StageEntered) and event.stage == stage:
            then()

    return report


def test_two_services_are_rolled_out_by_two_threads(settings: Settings, image: str) -> None:
    """With one context: neither knows of the other."""
    both = [elsewhere(settings, "one", 1), elsewhere(settings, "two", 2)]
    ctx = Context()
    try:
        with ThreadPoolExecutor(2) as pool:
            rolled = list(pool.map(lambda wanted: api.roll_out(ctx, wanted, image), both))
        assert [each.rollout.outcome for each in rolled] == [Outcome.SUCCEEDED] * 2
        assert len({each.rollout.head.service for each in rolled}) == 2
    finally:
        for each in both:
            api.destroy(ctx, service_of(each))


def test_two_threads_meet_at_one_services_lease(settings: Settings, image: str) -> None:
    """The second is told who is at work, and nothing is done twice."""
    wanted = elsewhere(settings, "shared", 1)
    second: list[Future[api.RolledOut]] = []
    with ThreadPoolExecutor(1) as pool:

        def meet() -> None:
            second.append(pool.submit(api.roll_out, Context(), wanted, image))
            second[0].exception(60)

        first = api.roll_out(Context(reporter=at_stage("boot", meet)), wanted, image)
    assert first.rollout.outcome is Outcome.SUCCEEDED
    assert isinstance(second[0].exception(), LeaseHeld)
    api.destroy(Context(), service_of(wanted))


@pytest.mark.parametrize("how", ["cancelled", "out of time"])
def test_a_rollout_that_ends_early_is_gone_on_with(settings: Settings, image: str, how: str) -> None:
    """The lease is given back, the run stands in the ledger, and another call brings it to its end."""
    wanted = elsewhere(settings, "early", 1)
    ctx = Context()
    if how == "cancelled":
        first = Context(reporter=at_stage("boot", lambda: threading.Thread(target=first.cancel.cancel).start()))
        error: type[Exception] = Interrupted
    else:
        first, error = ctx.within(1.5), DeadlineExceeded
    with pytest.raises(error):
        api.roll_out(first, wanted, image)
    service = service_of(wanted)
    head = api.status(ctx, service, look=False).head
    assert head.lease is None and head.unfinished is not None
    assert api.recover(ctx, service).outcome is Outcome.SUCCEEDED
    assert api.recover(ctx, service).run is None, "nothing is left to do"
    api.destroy(ctx, service)


def test_until_begun_leaves_the_run_in_the_ledger(settings: Settings, image: str) -> None:
    """Nobody works on it, no traffic has moved, and it waits for whoever comes."""
    wanted = elsewhere(settings, "begun", 1)
    ctx = Context()
    rolled = api.roll_out(ctx, wanted, image, until=Until.BEGUN)
    assert rolled.rollout.outcome is Outcome.BEGUN and rolled.rollout.head.serving is None
    with pytest.raises(DeadlineExceeded):
        api.wait(ctx.within(0.5), service_of(wanted))
    assert api.recover(ctx, service_of(wanted)).outcome is Outcome.SUCCEEDED
    assert api.wait(ctx.within(5), service_of(wanted), api.Milestone.TRAFFIC).run.over
    api.destroy(ctx, service_of(wanted))


def test_the_page_shows_programs_that_run(guest: User, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811 (a fixture)
    """Its first example, as it stands but for the environment's name: two deploys, and back."""
    monkeypatch.chdir(guest.project)
    program = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[0].replace('"production"', '"test"')
    deploying, going_back = program.split("api.rollback")
    space: dict[str, object] = {}
    exec(deploying, space)
    guest.edit(f'version = "{guest.version}"', f'version = "{guest.version}a"')
    exec(f"{deploying}\nback = api.rollback{going_back}", space)
    back = space["back"]
    assert getattr(back, "outcome", None) is Outcome.SUCCEEDED


def test_the_page_names_what_there_is() -> None:
    """Each function that it names is one of the library's."""
    named = set(re.findall(r"\bapi\.(\w+)", PAGE.read_text()))
    assert named <= set(api.__all__), named - set(api.__all__)
    table = set(re.findall(r"`(\w+)`", PAGE.read_text().partition("| promise |")[2]))
    assert table - {"deploy", "BEGUN"} <= set(api.__all__) | {"drift"}, table
