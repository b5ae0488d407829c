"""What an environment of a spec declares, as a rollout takes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from osvdeploy import api
from osvdeploy.api.declared import settings_of
from osvdeploy.errors import UsageError
from osvdeploy.rollout.releases import Settings
from osvdeploy.spec import parse
from tests.spec.specs import DEPLOY, GOOGLE, ROLLED_OUT, SMALL


def settings(tmp_path: Path, more: str = "", text: str = SMALL + GOOGLE + ROLLED_OUT) -> Settings:
    return settings_of(parse(text + more, path=tmp_path / "osv.toml", environ={}), "europe")


def test_an_environment_on_google_is_resolved(tmp_path: Path) -> None:
    """Its URL map is one of the project's, its region the zone, its ledger beside the spec; the balancer names the
    release."""
    found = settings(tmp_path)
    assert found.listener == "projects/acme-prod/global/urlMaps/web"
    assert (found.cloud, found.region, found.machine_type) == ("gcp", "europe-west1-b", "e2-small")
    assert (found.networks, found.firewalls) == ((), ())
    assert found.ledger == str(tmp_path / "releases")
    assert (found.health.version_header, found.health.boot_timeout) == ("x-osvdeploy-release", 300.0)


@pytest.mark.parametrize(
    ("more", "networks"),
    [
        ('subnetwork = "backends"', "projects/acme-prod/regions/europe-west1/subnetworks/backends"),
        ('subnetwork = "projects/host/regions/r1/subnetworks/a"', "projects/host/regions/r1/subnetworks/a"),
    ],
)
def test_a_subnetwork_is_of_the_zone_s_region_or_named_whole(tmp_path: Path, more: str, networks: str) -> None:
    """The latter for one that another project shares."""
    assert settings(tmp_path, f"{more}\n").networks == (networks,)


def test_a_url_map_may_be_a_region_s(tmp_path: Path) -> None:
    """Named with its region; machines may be spread over one, too."""
    text = (SMALL + GOOGLE + ROLLED_OUT).replace('"web"', '"regions/europe-west1/urlMaps/web"')
    found = settings(tmp_path, text=text.replace('zone = "europe-west1-b"', 'region = "europe-west1"'))
    assert found.listener == "projects/acme-prod/regions/europe-west1/urlMaps/web"
    assert found.region == "europe-west1"


def test_the_program_s_own_word_counts_where_it_is_declared(tmp_path: Path) -> None:
    """A header that the spec names is asked for in place of the balancer's."""
    assert settings(tmp_path, 'health = { version-header = "x-mine" }\n').health.version_header == "x-mine"


def test_without_a_url_map_nothing_is_rolled_out(tmp_path: Path) -> None:
    """Which is told to whoever asks for the service, with what can be done."""
    loaded = parse(SMALL + GOOGLE, path=tmp_path / "osv.toml", environ={})
    with pytest.raises(UsageError, match=r"\[deploy.europe\] has no url-map") as raised:
        api.service_of(loaded, "europe")
    assert "osvdeploy publish --env europe" in (raised.value.hint or "")


@pytest.mark.parametrize(
    ("name", "listener"),
    [
        ("web", "regions/europe-west1/forwardingRules/web"),
        ("regions/us-east1/forwardingRules/web", "regions/us-east1/forwardingRules/web"),
        ("global/forwardingRules/web", "global/forwardingRules/web"),
    ],
)
def test_a_forwarding_rule_is_of_the_machines_region_or_named_whole(tmp_path: Path, name: str, listener: str) -> None:
    """It has no host, path, priority or preview header; and nothing but the program can name the release."""
    url_map = 'url-map = "web"\nroute = { path = "/*", priority = 100 }\n'
    text = (SMALL + GOOGLE + ROLLED_OUT).replace(url_map, f'forwarding-rule = "{name}"\n')
    found = settings(tmp_path, text=text)
    assert found.listener == f"projects/acme-prod/{listener}"
    assert (found.host, found.path, found.priority, found.preview_header) == (None, None, 0, "")
    assert found.health.version_header is None
    assert settings(tmp_path, 'health = { version-header = "x-mine" }\n', text).health.version_header == "x-mine"


def test_a_ledger_that_no_tag_can_name_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    """On AWS, where a tag has its limits; a directory counts as it is called from everywhere."""
    long = "x" * 240
    text = (SMALL + DEPLOY).replace('ledger = "releases"', f'ledger = "{long}"')
    with pytest.raises(UsageError, match=rf"deploy.production.ledger: /.*/{long} is \d+ characters long"):
        settings_of(parse(text, path=tmp_path / "osv.toml", environ={}), "production")
    odd = parse(SMALL + DEPLOY, path=tmp_path / "it's (here)" / "osv.toml", environ={})
    assert settings_of(odd, "production").ledger.endswith("/it's (here)/releases")
