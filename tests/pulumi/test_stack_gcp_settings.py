"""What a configuration of stacks/gcp may say, and what it is told that it may not."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pulumi
import pytest
import yaml

from tests.pulumi.stacks import STACKS, listed, loaded, settings_of

STACK = STACKS / "gcp"
HERE = {"gcp:project": "acme-dev", "gcp:region": "europe-west1"}
INSIDE = {"subnetwork": "machines"}
NETWORK = {**INSIDE, "network": "shared"}
SECURE = {"certificates": ["c"], "host": "service.example.com"}
TAGGED = {**INSIDE, "networkTags": ["web"]}


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The stack's module."""
    with settings_of(STACK, monkeypatch) as module:
        yield module


@pytest.mark.parametrize("stack", ["dev", "production"])
def test_the_files_that_come_with_it(settings: ModuleType, monkeypatch: pytest.MonkeyPatch, stack: str) -> None:
    """Both of the stack's own files are understood; the one has a network made, the other is put into one."""
    document = yaml.safe_load((STACK / f"Pulumi.{stack}.yaml").read_text())["config"]
    said = loaded(settings, monkeypatch, document, stack=stack)
    assert (said.existing is None) is (stack == "dev")
    assert said.capacity == {"dev": 1, "production": 3}[stack]
    assert said.name == f"service-{stack}"


def test_what_is_left_out(settings: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Project and region are enough. A certificate makes it HTTPS."""
    said = loaded(settings, monkeypatch, HERE)
    assert (said.capacity, said.listener_port, said.existing, said.env, said.zone) == (2, 80, None, None, None)
    assert loaded(settings, monkeypatch, {**HERE, **SECURE}).listener_port == 443


def test_what_is_there_already(settings: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that a firewall rule is made for, or one that has its own."""
    opened = loaded(settings, monkeypatch, {**HERE, **NETWORK}).existing
    assert (opened.network, opened.subnetwork, list(opened.tags)) == ("shared", "machines", [])
    tagged = loaded(settings, monkeypatch, {**HERE, **TAGGED}).existing
    assert (tagged.network, tagged.subnetwork, list(tagged.tags)) == (None, "machines", ["web"])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"network": "shared"}, "half a network: subnetwork is missing"),
        ({"networkTags": ["web"]}, "half a network: subnetwork is missing"),
        (INSIDE, "no way to machines: give network"),
        ({**NETWORK, **TAGGED}, "network and networkTags: give one"),
        ({"certificates": ["c"]}, "certificates without host"),
        ({**SECURE, "urlMap": "web"}, "urlMap and certificates: give one"),
        ({**SECURE, "listenerPort": "80"}, "listenerPort 80 and certificates"),
        ({"zone": "us-east1-b"}, "zone us-east1-b is none of gcp:region, which is europe-west1"),
        ({**NETWORK, "cidr": "10.1.0.0/20"}, "cidr: is of a subnetwork that the stack makes"),
        ({**TAGGED, "fromBalancer": ["10.0.0.0/8"]}, "fromBalancer: of a firewall rule that the stack makes"),
        ({"urlMap": "web", "listenerPort": "8000"}, "listenerPort: of a balancer that the stack makes"),
        ({"cidr": "10.1.2.3/20"}, "cidr: 10.1.2.3/20 has host bits set"),
        ({"cidr": "10.1.0.0/30"}, "cidr: 10.1.0.0/30 is too small: a /29 or larger, up to a /8"),
        ({"capcity": "3"}, "no such setting: capcity; there are bake, "),
        ({"networkTags": "web"}, "'service:networkTags' value 'web' is not a valid 'JSON object'"),
    ],
)
def test_what_is_refused(
    settings: ModuleType, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], told: str
) -> None:
    """Half of what belongs together, two that exclude each other, a name that nobody knows, a value of another type."""
    with pytest.raises(pulumi.RunError) as refused:
        loaded(settings, monkeypatch, {**HERE, **given})
    assert told in str(refused.value)


def test_a_name_that_google_does_not_take(settings: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of what is made begin with the project's and the stack's."""
    with pytest.raises(pulumi.RunError, match="'service-Feature_1', which Google does not take"):
        loaded(settings, monkeypatch, HERE, stack="Feature_1")


def test_variables_are_texts(settings: ModuleType) -> None:
    """As on AWS: a program sees what was typed."""
    assert settings.texts({"WORKERS": 4, "DEBUG": True, "NAME": "a"}) == {"WORKERS": "4", "DEBUG": "true", "NAME": "a"}
    with pytest.raises(pulumi.RunError, match=r"env\.LIST: is no text"):
        settings.texts({"LIST": ["a"]})


def test_lists_are_handed_on_as_they_stand(settings: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a release is held to, what is asked and who is told: the resource judges them."""
    required = {"gcp:project": "acme-prod", "gcp:region": "europe-west1"}
    given = {name: [{"a": {"b": 1}}] for name in ("gates", "hooks", "notify")}
    said = loaded(settings, monkeypatch, {**required, **given})
    assert {"gates": said.gates, "hooks": said.hooks, "notify": said.notify} == given
    left_out = loaded(settings, monkeypatch, required)
    assert [left_out.gates, left_out.hooks, left_out.notify] == [[], [], []]


def test_the_readme_lists_every_setting(settings: ModuleType) -> None:
    """And no other."""
    assert listed(STACK) == {*settings.KEYS, *HERE, "osvdeploy:ledger"}


def test_the_app_is_the_same_on_every_cloud() -> None:
    """A stack is copied alone, so each has the app; what is mended in one is mended in all."""
    for name in ("app.c", "Makefile"):
        assert (STACK / "app" / name).read_text() == (STACKS / "aws" / "app" / name).read_text()
