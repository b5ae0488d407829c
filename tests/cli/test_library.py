"""What docs/library.md promises a program: blocking, cancellable, to be called again, from any thread."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from osvdeploy import api
from osvdeploy.context import Context
from osvdeploy.errors import DeadlineExceeded, Interrupted, LeaseHeld
from osvdeploy.events import Event, StageEntered
from osvdeploy.rollout.model import Outcome, Until
from osvdeploy.rollout.releases import Settings
from osvdeploy.sandbox.runners.process import loopback_addresses_work
from tests.cli.google import Google, make_balancer
from tests.cli.test_bad_input import Account, User, account, customer, guest, user  # noqa: F401 (fixtures, found by their names)
from tests.cli.test_deploy_google import FORCED, google, hello  # noqa: F401 (likewise)

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "library.md"


@dataclass(frozen=True)
class Place:
    """A release's image in a cloud, and what a service there is rolled out with."""

    app: str
    settings: Settings
    image: str
    account: str = ""
    shared: bool = False
    """Whether the account is another test's after this one."""

    def roll_out(self, ctx: Context, wanted: Settings, until: Until | None = None) -> api.RolledOut:
        return api.roll_out(ctx, wanted, self.image, account=self.account, until=until)

    def service(self, wanted: Settings) -> api.Service:
        return api.Service(self.app, wanted.environment, wanted.ledger)

    def elsewhere(self, environment: str, number: int) -> Settings:
        """Another service by the same listener."""
        priority, host = self.settings.priority + 10 * number, f"{environment}.example"
        return replace(self.settings, environment=environment, priority=priority, host=host)

    def leave(self, *services: Settings) -> None:
        """Take services away where somebody else would find them."""
        for each in services if self.shared else ():
            api.destroy(Context(), self.service(each))


@pytest.fixture
def on_aws(account: Account, guest: User) -> Place:  # noqa: F811 (fixtures)
    release = guest.run("deploy", "--json").document["release"]
    found = account.client("ec2").describe_images(Owners=["self"])["Images"]
    image = next(each["ImageId"] for each in found if each["Name"] == release)
    return Place("hello", api.settings_of(api.load_spec(guest.project / "osv.toml"), "test"), image, shared=True)


@pytest.fixture
def on_google(google: Google) -> Place:  # noqa: F811 (a fixture)
    if not loopback_addresses_work():
        pytest.skip("needs all of 127.0.0.0/8")
    google.make_bucket()
    make_balancer(google.shell.url)
    spec = api.load_spec(google.folder / "osv.toml")
    # Its image is all that is needed of it.
    begun = api.deploy(Context(), spec, "europe", forced=FORCED[1:], until=Until.BEGUN)
    name = begun.release.id.replace(".", "-")
    settings = api.settings_of(spec, "europe")
    return Place("app", settings, f"projects/acme-prod/global/images/{name}", "acme-prod")


@pytest.fixture(params=["aws", "google"])
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(f"on_{request.param}")
    return found


def at_stage(stage: str, then: Callable[[], object]) -> Callable[[Event], None]:
    def report(event: Event) -> None:
        if isinstance(event, StageEntered) and event.stage == stage:
            then()

    return report


def test_two_services_are_rolled_out_by_two_threads(place: Place) -> None:
    """With one context: neither knows of the other."""
    both = [place.elsewhere("one", 1), place.elsewhere("two", 2)]
    ctx = Context()
    try:
        with ThreadPoolExecutor(2) as pool:
            rolled = list(pool.map(lambda wanted: place.roll_out(ctx, wanted), both))
        assert [each.rollout.outcome for each in rolled] == [Outcome.SUCCEEDED] * 2
        assert len({each.rollout.head.service for each in rolled}) == 2
    finally:
        place.leave(*both)


def test_two_threads_meet_at_one_services_lease(place: Place) -> None:
    """The second is told who is at work, and nothing is done twice."""
    wanted = place.elsewhere("shared", 1)
    second: list[Future[api.RolledOut]] = []
    with ThreadPoolExecutor(1) as pool:

        def meet() -> None:
            second.append(pool.submit(place.roll_out, Context(), wanted))
            second[0].exception(60)

        first = place.roll_out(Context(reporter=at_stage("boot", meet)), wanted)
    assert first.rollout.outcome is Outcome.SUCCEEDED
    assert isinstance(second[0].exception(), LeaseHeld)
    place.leave(wanted)


@pytest.mark.parametrize("how", ["cancelled", "out of time"])
def test_a_rollout_that_ends_early_is_gone_on_with(place: Place, how: str) -> None:
    """The lease is given back, the run stands in the ledger, and another call brings it to its end."""
    wanted = place.elsewhere("early", 1)
    ctx = Context()
    if how == "cancelled":
        first = Context(reporter=at_stage("boot", lambda: threading.Thread(target=first.cancel.cancel).start()))
        error: type[Exception] = Interrupted
    else:
        first, error = ctx.within(1.5), DeadlineExceeded
    with pytest.raises(error):
        place.roll_out(first, wanted)
    service = place.service(wanted)
    head = api.status(ctx, service, look=False).head
    assert head.lease is None and head.unfinished is not None
    assert api.recover(ctx, service).outcome is Outcome.SUCCEEDED
    assert api.recover(ctx, service).run is None, "nothing is left to do"
    place.leave(wanted)


def test_until_begun_leaves_the_run_in_the_ledger(on_aws: Place) -> None:
    """Nobody works on it, no traffic has moved, and it waits for whoever comes."""
    wanted = on_aws.elsewhere("begun", 1)
    ctx = Context()
    rolled = on_aws.roll_out(ctx, wanted, Until.BEGUN)
    assert rolled.rollout.outcome is Outcome.BEGUN and rolled.rollout.head.serving is None
    with pytest.raises(DeadlineExceeded):
        api.wait(ctx.within(0.5), on_aws.service(wanted))
    assert api.recover(ctx, on_aws.service(wanted)).outcome is Outcome.SUCCEEDED
    assert api.wait(ctx.within(5), on_aws.service(wanted), api.Milestone.TRAFFIC).run.over
    on_aws.leave(wanted)


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
