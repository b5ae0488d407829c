"""Reading osv.toml: what is wrong is told at once, each thing with its place and with what is allowed."""

from __future__ import annotations

import copy
import os
import re
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.errors import SpecError
from osvdeploy.spec import Spec, load, of_document, parse
from osvdeploy.spec.model import DeployGcp
from tests.spec.specs import DEPLOY, GOOGLE, ROLLED_OUT, SMALL, on_aws, problems, read

NO_ERRORS = settings(max_examples=60, deadline=None)


def test_eight_lines_are_a_spec() -> None:
    """The smallest spec has a kernel, a command and a file; the rest has defaults."""
    spec = read(SMALL)

    assert (spec.name, spec.version, spec.kernel.file) == ("hello", "1.0.0", "loader.img")
    assert spec.image.command == ["/hello", "--port", "8080"]
    assert [(each.from_, each.to) for each in spec.files] == [("build/hello", "/hello")]
    assert (spec.image.fs, spec.image.size, spec.deploy, spec.retention.releases) == ("rofs", None, {}, 10)


def test_every_problem_is_told_at_once_in_the_order_of_the_file() -> None:
    """One run tells all that is wrong, with file, line and key."""
    text = SMALL.replace('"1.0.0"', "1.0").replace('file = "loader.img"', "fil = 1").replace('to = "/hello"', 'to = ""')

    told = problems(text)

    assert told[0] == "osv.toml:2: version: should be a string, not a number: put 1.0 in quotes"
    assert told[1].startswith("osv.toml:5: kernel.fil: unknown key (did you mean 'file'?); allowed: file")
    assert told[2].startswith("osv.toml:12: files[0].to: a path in the guest")
    assert len(told) == 3
    assert problems(SMALL.replace('file = "loader.img"', "")) == [
        "osv.toml:4: kernel: needs one of file, release, url, tree"
    ]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('name = "hello"', 'name = "Hello"', "osv.toml:1: name: 1 to 40 lower-case letters"),
        ('name = "hello"', f'name = "{"x" * 41}"', "osv.toml:1: name: 1 to 40"),
        ('name = "hello"', 'name = "x-"', "osv.toml:1: name: 1 to 40"),
        ('"1.0.0"', '"1/0"', "osv.toml:2: version: 1 to 40 letters, digits, dots"),
        ('"1.0.0"', '{ from = "git" }', "osv.toml:2: version: this version takes it as text"),
        ('file = "loader.img"', 'release = "0.57"', 'osv.toml:5: kernel.release: a release of OSv such as "v0.57.0"'),
        ('file = "loader.img"', 'url = "ftp://x"', "osv.toml:5: kernel.url: an address that begins with https://"),
        ('file = "loader.img"', 'file = "x"\nvariant = "hidden"', "osv.toml:6: kernel.variant: is of a release"),
        ('file = "loader.img"', 'file = "x"\ntree = "../osv"', "osv.toml:6: kernel.tree: is one too many"),
        ("[kernel]", "[kernel]\noptions = { mode = 1 }", "osv.toml:5: kernel.options: needs kernel.tree"),
        ("[kernel]", "[kernel]\njobs = 2", "osv.toml:5: kernel.jobs: needs kernel.tree"),
        ("[kernel]", "[kernel]\noptions = { mode = 1.5 }", "osv.toml:5: kernel.options.mode"),
        ("[[files]]", '[[programs]]\n[[files]]', "osv.toml:10: programs[0].path: is missing"),
        ("[[files]]", '[[programs]]\npath = "a"\nto = "/a/"\n[[files]]', "osv.toml:12: programs[0].to: a path in the"),
        ("[[files]]", '[[programs]]\npath = "a"\npackages = {}\n[[files]]', "osv.toml:12: programs[0].packages: takes"),
        ("[kernel]", "kernel = 5\n[other]", "osv.toml:4: kernel: should be a table, not 5"),
        ("[[files]]", "[files]", "osv.toml:10: files: should be an array, not a table"),
        ('["/hello", "--port", "8080"]', "[]", "osv.toml:8: image.command: is empty"),
        ('["/hello", "--port", "8080"]', '"/hello"', "osv.toml:8: image.command: should be an array, not '/hello'"),
        ('"8080"]', "8080]", "osv.toml:8: image.command[2]: should be a string, not a number: put 8080 in quotes"),
        ("[image]", '[image]\nfs = "zfs"', "osv.toml:8: image.fs: zfs needs kernel.tree"),
        ("[image]", '[image]\nfs = "xfs"', "osv.toml:8: image.fs: 'xfs' is not supported; allowed: \"rofs\", \"zfs\""),
        ("[image]", '[image]\narch = "arm"', "osv.toml:8: image.arch: 'arm' is not supported; allowed: \"x86_64\""),
        ("[image]", "[image]\nsize = 1073741824", 'osv.toml:8: image.size: a size with its unit, such as "1GiB"'),
        ("[image]", '[image]\nsize = "1GB"', "osv.toml:8: image.size: '1GB' has an unknown unit 'GB'; use one of B"),
        ("[image]", '[image]\nsize = "1.5GiB"', "osv.toml:8: image.size: a disk in a cloud is whole GiB"),
        ("[image]", '[image]\nmodules = ["cli"]', "osv.toml:8: image.modules: need kernel.tree"),
        ("[image]", '[image]\nenv = { "A-B" = "" }', "osv.toml:8: image.env.A-B: 'A-B' is no name of an environment"),
        ("[image]", '[image]\nenv = { OSVDEPLOY_RELEASE = "x" }', "osv.toml:8: image.env.OSVDEPLOY_RELEASE: OSVDEPLOY"),
        ("[image]", '[image]\nenv = { "" = "x" }', "osv.toml:8: image.env.\"\": '' is no name of an environment"),
        ('to = "/hello"', 'to = "hello"', "osv.toml:12: files[0].to: a path in the guest, which begins with /, not"),
        ('from = "build/hello"', 'from_ = "x"', "osv.toml:11: files[0].from_: unknown key (did you mean 'from'?)"),
        ("[[files]]", '[publish.aws]\ntags = { Name = "x" }\n[[files]]', "osv.toml:11: publish.aws.tags.Name: 'Name'"),
        ("[[files]]", '[publish.aws]\nregions = []\n[[files]]', "osv.toml:11: publish.aws.regions: is not supported"),
        ("[[files]]", '[publish.aws]\nvia = "s3"\n[[files]]', "osv.toml:10: publish.aws.bucket: via = \"s3\" needs a"),
        ("[[files]]", '[publish.aws]\nvia = "gcs"\n[[files]]', "osv.toml:11: publish.aws.via: 'gcs' is not supported"),
        ("[[files]]", '[publish.aws]\nbucket = "acme"\n[[files]]', "osv.toml:11: publish.aws.bucket: via = \"ebs\" u"),
        ("[[files]]", '[publish.aws]\nbucket = "A"\n[[files]]', "osv.toml:11: publish.aws.bucket: a bucket such as"),
        ("[[files]]", "[retention]\nreleases = 0\n[[files]]", "osv.toml:11: retention.releases: should be greater"),
        ("[[files]]", "[retention]\nreleases = true\n[[files]]", "osv.toml:11: retention.releases: should be a whole"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_line(old: str, new: str, told: str) -> None:
    """Each mistake has one message, at its own line, that says what is allowed."""
    assert old in SMALL

    assert any(line.startswith(told) for line in problems(SMALL.replace(old, new))), problems(SMALL.replace(old, new))


def test_an_environment_may_be_on_google() -> None:
    """Its project and bucket are said once for all of them; its machine type has a default."""
    spec = read(SMALL + GOOGLE)
    europe, gcp = spec.deploy["europe"], spec.publish.gcp

    assert (europe.cloud, europe.machine, europe.env) == ("gcp", "e2-small", {"DATABASE_HOST": "db"})
    assert gcp is not None and (gcp.project, gcp.bucket, gcp.family) == ("acme-prod", "acme-images", "hello")
    sets = ["deploy.europe.machine-type=n2-standard-2", "deploy.europe.zone=us-central1-a", "publish.gcp.bucket=b-1"]
    assert read(SMALL + GOOGLE, sets=sets).deploy["europe"].machine == "n2-standard-2"


def test_an_environment_on_google_is_rolled_out_behind_its_url_map() -> None:
    """With a URL map it has what an environment on AWS has; boots take longer there."""
    europe = read(SMALL + GOOGLE + ROLLED_OUT).deploy["europe"]

    assert isinstance(europe, DeployGcp)
    assert (europe.url_map, europe.capacity, europe.port) == ("web", 2, 8080)
    assert europe.health.boot_timeout == 300.0 and europe.preview.header == "x-preview"


@pytest.mark.parametrize(
    ("was", "is_now", "told"),
    [
        ('project = "acme-prod"', 'project = "Acme"', "osv.toml:15: publish.gcp.project: a project's id such as"),
        ('bucket = "acme-images"', 'bucket = "gs://acme"', "osv.toml:16: publish.gcp.bucket: a bucket such as"),
        ('family = "hello"', 'family = "hello-"', "osv.toml:17: publish.gcp.family: 1 to 63 lower-case letters"),
        ('family = "hello"', f'family = "{"h" * 60}"', "osv.toml:19: deploy.europe: its image family would be hhh"),
        ('family = "hello"', 'labels = { Team = "a" }', "osv.toml:17: publish.gcp.labels.Team: a label's key has 1 to"),
        ('family = "hello"', 'labels = { team = "A" }', "osv.toml:17: publish.gcp.labels.team: up to 63 lower-case"),
        ('family = "hello"', 'labels = { osvdeploy-x = "a" }', "osv.toml:17: publish.gcp.labels.osvdeploy-x: 'osvdep"),
        ('family = "hello"', 'storage-location = "Europe"', "osv.toml:17: publish.gcp.storage-location: a region, or"),
        ('family = "hello"', 'guest-os-features = []', "osv.toml:17: publish.gcp.guest-os-features: is not supported"),
        ('zone = "europe-west1-b"', 'zone = "europe-west1"', "osv.toml:21: deploy.europe.zone: a zone such as"),
        ('zone = "europe-west1-b"\n', "", "osv.toml:19: deploy.europe: needs zone or region"),
        ('zone = "europe-west1-b"', 'zone = "europe-west1-b"\nregion = "europe-west1"', "osv.toml:22: deploy.europe.r"),
        ('zone = "europe-west1-b"', 'machine-typ = "x"', "osv.toml:21: deploy.europe.machine-typ: unknown key (did"),
        ('zone = "europe-west1-b"', 'zone = "europe-west1-b"\nurl-map = "x"', "osv.toml:22: deploy.europe.url-map: "),
        ('zone = "europe-west1-b"', 'zone = "europe-west1-b"\nport = 80', "osv.toml:22: deploy.europe.port: needs"),
        ('zone = "europe-west1-b"', 'url-map = "A"', "osv.toml:21: deploy.europe.url-map: the name of a URL map, or"),
        ('zone = "europe-west1-b"', 'listener = "x"', "osv.toml:21: deploy.europe.listener: is not supported: it is"),
        ('zone = "europe-west1-b"', 'subnetwork = "a/b"', "osv.toml:21: deploy.europe.subnetwork: the name of a subn"),
        ('zone = "europe-west1-b"', 'health = { slow-start = "60s" }', "osv.toml:21: deploy.europe.health.slow-st"),
        ('zone = "europe-west1-b"', 'network-tags = ["A"]', "osv.toml:21: deploy.europe.network-tags[0]: 1 to 63 lo"),
        ('zone = "europe-west1-b"', 'route = { path = "/a*b", priority = 9 }', "osv.toml:21: deploy.europe.route.path"),
        ('zone = "europe-west1-b"', 'route = { host = "a.*.b", priority = 9 }', "osv.toml:21: deploy.europe.route.ho"),
    ],
)  # fmt: skip
def test_what_is_wrong_on_google_is_named_with_its_line(was: str, is_now: str, told: str) -> None:
    """As of an environment on AWS."""
    assert was in GOOGLE
    found = problems(SMALL + GOOGLE.replace(was, is_now))
    assert any(each.startswith(told) for each in found), found


@pytest.mark.parametrize(
    ("route", "health", "led"),
    [
        ("/api/*", "/api/health", True),
        ("/api/*", "/api/", True),
        ("/api/*", "/api/health?deep=1", True),
        ("/api/*", "/api", False),
        ("/api/*", "/healthz", False),
        ("/api/*", "/x/api/health", False),
        ("/api", "/api", True),
        ("/a.i/*", "/api/", False),
    ],
)
@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_probes_take_a_path_that_is_led_to_the_service(cloud: str, route: str, health: str, led: bool) -> None:
    """Another service's answers are not to prove a release. Where none is asked for, any path is well."""
    place, environment = ("production", DEPLOY) if cloud == "aws" else ("europe", GOOGLE + ROLLED_OUT)
    spec = SMALL + environment.replace('path = "/*"', f'path = "{route}"')
    text = f'{spec}\nhealth = {{ path = "{health}" }}\n'
    if led:
        read(text)
    else:
        assert [each for each in problems(text) if f"deploy.{place}.health: {health} is not led here" in each]
    read(f'{spec}\nhealth = {{ path = "{health}", probe-from = "requests" }}\n')


POINTER = ROLLED_OUT.replace('url-map = "web"\nroute = { path = "/*", priority = 100 }\n', 'forwarding-rule = "web"\n')


def test_an_environment_on_google_is_rolled_out_behind_a_forwarding_rule() -> None:
    """In place of a URL map; it needs no route, and the preview's header is nobody's."""
    europe = read(SMALL + GOOGLE + POINTER).deploy["europe"]

    assert isinstance(europe, DeployGcp)
    assert (europe.forwarding_rule, europe.url_map, europe.route, europe.port) == ("web", None, None, 8080)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ('url-map = "web"', "deploy.europe.forwarding-rule: is one too many: there is url-map"),
        ('route = { path = "/*", priority = 9 }', "deploy.europe.route: a forwarding rule knows no host, path or prio"),
        ('preview = { header = "x-me" }', "deploy.europe.preview: a forwarding rule has no preview"),
        (
            'strategy = { kind = "canary", steps = [{ weight = 5 }] }',
            "deploy.europe.strategy: a forwarding rule has no weights, so no steps",
        ),
    ],
)  # fmt: skip
def test_what_a_forwarding_rule_has_not_is_refused(more: str, told: str) -> None:
    """With what it is for: it knows one service, and one slot at a time."""
    found = problems(SMALL + GOOGLE + POINTER + more + "\n")
    assert any(told in each for each in found), found


@pytest.mark.parametrize("without", ["port = 8080\n", 'ledger = "releases"\n'])
def test_a_forwarding_rule_needs_port_and_ledger(without: str) -> None:
    """As a URL map does."""
    [told] = problems(SMALL + GOOGLE + POINTER.replace(without, ""))
    assert "deploy.europe.forwarding-rule: needs" in told


def test_an_environment_on_google_needs_a_project_and_a_bucket() -> None:
    """Before anything is built."""
    [told] = problems(SMALL + GOOGLE[GOOGLE.index("[deploy") :])
    assert told.startswith('osv.toml:13: deploy.europe: cloud = "gcp" needs [publish.gcp]')


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('cloud = "aws"', 'cloud = "azure"', "osv.toml:15: deploy.production.cloud: 'azure' is not supported; allo"),
        ('cloud = "aws"', 'cloud = 5', "osv.toml:15: deploy.production.cloud: 5 is not supported; allowed:"),
        ('cloud = "aws"\n', "", "osv.toml:14: deploy.production.cloud: is missing"),
        ('cloud = "aws"', 'cloud = "gcp"', "osv.toml:18: deploy.production.listener: is not supported: it is of"),
        ("port = 8080", "port = 0", "osv.toml:20: deploy.production.port: should be greater than or equal to 1, not 0"),
        ("port = 8080", 'port = "80"', "osv.toml:20: deploy.production.port: should be a whole number, not '80'"),
        ("port = 8080", "port = 80.5", "osv.toml:20: deploy.production.port: should be a whole number, not 80.5"),
        ('region = "eu-west-1"', 'region = "Ireland"', "osv.toml:16: deploy.production.region: a region such as"),
        ('region = "eu-west-1"\n', "", "osv.toml:14: deploy.production.region: is missing"),
        ("[deploy.production]", "[deploy.Production]", "osv.toml:14: deploy.Production: 1 to 40 lower-case letters"),
        ("port = 8080", "instance_type = 'x'", "osv.toml:20: deploy.production.instance_type: unknown key (did you"),
        ("port = 8080", "zone = 'x'", 'osv.toml:20: deploy.production.zone: is not supported: it is of an environment'),
        ('subnets = ["subnet-0a"]', "subnets = []", "osv.toml:17: deploy.production.subnets: is empty"),
        ("priority = 100", "priority = 2", "osv.toml:19: deploy.production.route.priority: should be greater than"),
        ('path = "/*", ', "", "osv.toml:19: deploy.production.route: needs host or path; path = \"/*\" takes every"),
        ('path = "/*"', 'path = "/api/*"', "osv.toml:14: deploy.production.health: / is not led here by route.path (/"),
        ('path = "/*"', 'host = "a b"', "osv.toml:19: deploy.production.route.host: a host name; * and ? are"),
        ('ledger = "releases"', 'ledger = "ftp://x"', "osv.toml:21: deploy.production.ledger: ftp:// is not supported"),
        ('ledger = "releases"', 'ledger = "s3://X"', "osv.toml:21: deploy.production.ledger: no address of a bucket"),
        ('ledger = "releases"', 'ledger = "s3:/acme"', "osv.toml:21: deploy.production.ledger: no address of a bucket"),
        ('ledger = "releases"', 'ledger = "s3://acme/.x"', "osv.toml:21: deploy.production.ledger: no address of a"),
        ('ledger = "releases"', 'ledger = "gs://a-"', "osv.toml:21: deploy.production.ledger: no address of a"),
        ('ledger = "releases"\n', "", "osv.toml:14: deploy.production.ledger: is missing"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_deployment_is_named_with_its_line(old: str, new: str, told: str) -> None:
    """An environment's mistakes are found before anything is built."""
    text = SMALL + DEPLOY
    assert old in text

    assert any(line.startswith(told) for line in problems(text.replace(old, new))), problems(text.replace(old, new))


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ('health = { interval = 5 }', "deploy.production.health.interval: a duration with its unit, such as"),
        ('health = { interval = "5" }', "deploy.production.health.interval: '5' has no unit; write one of ms, s, m"),
        ('health = { interval = "2s" }', "deploy.production.health.interval: whole seconds from 5s to 300s"),
        ('health = { timeout = "5s" }', "deploy.production.health.timeout: whole seconds, from 2s to 120s and"),
        ('health = { timeout = "2500ms" }', "deploy.production.health.timeout: whole seconds"),
        ('health = { slow-start = "20s" }', "deploy.production.health.slow-start: whole seconds, from 30s to 900s"),
        ('health = { slow-start = "16m" }', "deploy.production.health.slow-start: whole seconds, from 30s to 900s"),
        ('health = { boot-timeout = "0s" }', "deploy.production.health.boot-timeout: longer than 0s"),
        ('health = { boot-timeout = "999d" }', "deploy.production.health.boot-timeout: a duration from 0s to a year"),
        ('health = { path = "x" }', "deploy.production.health.path: a path from / on"),
        ('preview = { header = "x preview" }', "deploy.production.preview.header: the name of a header"),
        ('strategy = { kind = "canary" }', "deploy.production.strategy.steps: a canary needs them: steps = [{ weight"),
        ('strategy = { steps = [{ weight = 5 }] }', "deploy.production.strategy.steps: are a canary's; use kind"),
        ('strategy = { kind = "canary", steps = [{ weight = 100 }] }', "deploy.production.strategy.steps[0].weight"),
        (
            'strategy = { kind = "canary", steps = [{ weight = 50 }, { weight = 5 }] }',
            "deploy.production.strategy.steps: each weight is more than the one before, not 50, 5",
        ),
        ('strategy = { kind = "linear" }', "deploy.production.strategy.step: is missing: by how much the share rises"),
        ('strategy = { step = 10 }', 'deploy.production.strategy.step: is for equal steps; use kind = "linear", not'),
        ('strategy = { step-bake = "1m" }', "deploy.production.strategy.step-bake: is for equal steps; use kind"),
        ('strategy = { approve = "yes" }', "deploy.production.strategy.approve: should be"),
        ('strategy = { kind = "rolling" }', "deploy.production.strategy.kind: 'rolling' is not supported; allowed:"),
        ('strategy = { kind = "all-at-once", bake = "1m" }', "deploy.production.strategy.bake: all-at-once does"),
        ('strategy = { on-failure = "stop" }', "deploy.production.strategy.on-failure: 'stop' is not supported"),
        ('strategy = { concurrent = "both" }', "deploy.production.strategy.concurrent: 'both' is not supported"),
    ],
)  # fmt: skip
def test_health_and_strategy_take_only_what_is_done(table: str, told: str) -> None:
    """A setting that this version would not act on is an error, at its own line."""
    lines = problems(SMALL + DEPLOY + table + "\n")

    assert len(lines) == 1
    assert lines[0].startswith(f"osv.toml:22: {told}"), lines


def test_an_environment_is_read_whole() -> None:
    """Durations become seconds, and what is left out has the documented default."""
    deploy = on_aws(read(SMALL + DEPLOY + 'health = { boot-timeout = "2m", interval = "10s" }\n'))

    assert (deploy.health.boot_timeout, deploy.health.interval, deploy.health.timeout) == (120.0, 10.0, 2.0)
    assert (deploy.strategy.kind, deploy.strategy.bake, deploy.strategy.keep_warm) == ("blue-green", 0.0, 3600.0)
    assert (deploy.capacity, deploy.preview.header, deploy.route.path) == (2, "x-preview", "/*")


@pytest.mark.parametrize(
    ("strategy", "shares"),
    [
        ('{ kind = "canary", steps = [{ weight = 5, bake = "2m" }, { weight = 50 }] }', [(5, 120.0), (50, 0.0)]),
        ('{ kind = "linear", step = 30, step-bake = "1m" }', [(30, 60.0), (60, 60.0), (90, 60.0)]),
        ('{ kind = "linear", step = 50 }', [(50, 0.0)]),
        ('{ kind = "blue-green" }', []),
    ],
)
def test_a_strategy_has_the_shares_before_all_traffic(strategy: str, shares: list[tuple[int, float]]) -> None:
    """100 % follows by itself."""
    found = on_aws(read(SMALL + DEPLOY + f"strategy = {strategy}\n")).strategy

    assert [(each.weight, each.bake) for each in found.shares] == shares


# ------------------------------------------------------------------------------------------------------------- lines


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name = ", "osv.toml:1: is not TOML: Invalid value"),
        ('name = "x"\n\nname = "y"\n', "osv.toml:3: is not TOML: Cannot overwrite a value (column"),
        ('name = "x\nversion = "1"\n', "osv.toml:1: is not TOML: "),
        ("[kernel]\n[kernel]\n", "osv.toml:2: is not TOML: Cannot declare ('kernel',) twice (column"),
        ("a = [" * 5000, "osv.toml:"),
        ("x = " + "9" * 5000, "osv.toml: is not TOML that can be read: Exceeds the limit"),
        ("[" * 5000, "osv.toml:1: is not TOML: "),
    ],
)
def test_what_is_no_toml_has_its_line(text: str, told: str) -> None:
    """A syntax error says where it is, whatever the text."""
    assert problems(text)[0].startswith(told)


def test_the_line_is_that_of_the_element_meant() -> None:
    """The second of [[files]], an inline table's key, an element of an array over lines: each has its own."""
    text = SMALL + '\n[[files]]\nfrom = "a"\nto = "b"\n\n[publish]\naws = { tags = {\n} }\n'
    text = text.replace('["/hello", "--port", "8080"]', '[\n  "/hello",  # the program\n  5,\n]')

    told = problems(text.replace("{\n} ", '{ "aws:x" = "y" }'))

    assert [line.split(": ")[:2] for line in told] == [
        ["osv.toml:10", "image.command[1]"],
        ["osv.toml:19", "files[1].to"],
        ["osv.toml:22", 'publish.aws.tags."aws:x"'],
    ]


# ----------------------------------------------------------------------------------------------------------- ${NAME}


def test_variables_of_the_environment_are_put_in() -> None:
    """${NAME} is replaced in any string, once; $${ is a literal ${."""
    text = SMALL.replace('"--port", "8080"', '"--at=${HOST}:${PORT}", "$${HOME}", "$PORT", "$"')

    spec = read(text, environ={"HOST": "${PORT}", "PORT": "80"})

    assert spec.image.command == ["/hello", "--at=${PORT}:80", "${HOME}", "$PORT", "$"]


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("${GIT_SHA}", "${GIT_SHA} is not set in the environment; export GIT_SHA, or write $${ for a literal ${"),
        ("${A} ${A}", "${A} is not set in the environment; export A, or write $${ for a literal ${"),
        ("${A B}", "${A B} names no environment variable; write $${ for a literal ${"),
        ("${}", "${} names no environment variable; write $${ for a literal ${"),
        ("x${A", "${ is not closed by }; write $${ for a literal ${"),
    ],
)
def test_a_variable_that_cannot_be_put_in_is_an_error(written: str, told: str) -> None:
    """A missing variable is named, and is the only thing said of its value."""
    assert problems(SMALL.replace("1.0.0", written)) == [f"osv.toml:2: version: {told}"]


def test_building_needs_no_variable_of_a_deployment(tmp_path: Path) -> None:
    """What is not set is told when its environment is used, and only then."""
    path = tmp_path / "osv.toml"
    path.write_text(SMALL + DEPLOY.replace('["subnet-0a"]', '["${SUBNET}"]').replace('"releases"', '"${LEDGER}"'))

    loaded = load(path, environ={"LEDGER": "x"})

    assert (loaded.spec.name, list(loaded.unset)) == ("hello", ["production"])
    loaded.require("staging")
    with pytest.raises(SpecError, match=r"osv.toml:17: deploy.production.subnets\[0\]: \$\{SUBNET\} is not set in the"):
        loaded.require("production")
    assert not load(path, environ={"LEDGER": "x", "SUBNET": "y"}).unset


def test_what_is_not_set_is_not_told_as_a_bad_value() -> None:
    """A region that is to come from the environment is missing, and not misspelt."""
    text = SMALL + DEPLOY.replace('region = "eu-west-1"', 'region = "${REGION}"')

    assert [line[:67] for line in problems(text)] == [
        "osv.toml:16: deploy.production.region: ${REGION} is not set in the "
    ]


# ------------------------------------------------------------------------------------------------------------- --set


def test_set_overrides_values_with_the_type_of_what_they_replace() -> None:
    """--set gives numbers where the spec has numbers, text where it has text, whatever the text looks like."""
    spec = read(
        SMALL + DEPLOY,
        sets=[
            "version=2", "deploy.production.capacity=5", "deploy.production.health.interval=30s", "image.env.N=1=2",
            "image.boot.verbose=true", "image.boot.delay=1.5", "image.boot.cwd=/data", "files.0.to=/bin/hello",
            "image.command.2=9090", "image.size=2GiB", "publish.aws.tags.team=a", "deploy.production.route.host=x.org",
        ],
    )  # fmt: skip
    deploy = on_aws(spec)

    assert spec.version == "2"
    assert (deploy.capacity, deploy.health.interval, deploy.route.host) == (5, 30.0, "x.org")
    assert (spec.image.env, spec.image.command[2], spec.image.size) == ({"N": "1=2"}, "9090", 2 << 30)
    assert spec.image.boot_options() == (("verbose", None), ("delay", "1.5"), ("cwd", "/data"))
    assert spec.files[0].to == "/bin/hello"
    assert spec.publish.aws is not None
    assert spec.publish.aws.tags == {"team": "a"}


@pytest.mark.parametrize(("written", "meant"), [("true", True), ("false", False)])
def test_set_gives_yes_and_no_as_toml_writes_them(written: str, meant: bool) -> None:
    """And nothing else for them."""
    key = "deploy.production.strategy.approve"
    assert on_aws(read(SMALL + DEPLOY, sets=[f"{key}={written}"])).strategy.approve is meant
    assert problems(SMALL + DEPLOY, sets=[f"{key}=yes"])[0].startswith(f"--set: {key}")


def test_set_gives_what_the_environment_lacks() -> None:
    """A value that is overridden needs no variable."""
    assert read(SMALL.replace("1.0.0", "${V}"), sets=["version=1.2.3"]).version == "1.2.3"
    assert read(SMALL + DEPLOY.replace('"releases"', '"${L}"'), sets=["deploy.production.ledger=x"]).deploy


@pytest.mark.parametrize(
    ("assignment", "told"),
    [
        ("version", "'version' is not path=value, as in version=1.4.0"),
        ("=1", "'=1' is not path=value, as in version=1.4.0"),
        ("a..b=1", "'a..b=1' is not path=value, as in version=1.4.0"),
        ("verison=1", "verison: unknown key (did you mean 'version'?); allowed: name, version, kernel"),
        ("deploy.production.capacty=1", "deploy.production.capacty: unknown key (did you mean 'capacity'?); allowed:"),
        ("deploy.staging.capacity=1", "deploy.staging: is not in the spec; there is: production"),
        ("deploy.production.capacity=x", "deploy.production.capacity: should be a whole number, not 'x'"),
        ("deploy.production.capacity=0", "deploy.production.capacity: should be greater than or equal to 1, not 0"),
        ("deploy.production.health.interval=5", "deploy.production.health.interval: '5' has no unit"),
        ("deploy.production=5", "deploy.production: is not a single value"),
        ("image.command=/x", "image.command: is not a single value"),
        ("image.command.7=/x", "image.command[7]: there are 3 of them, counted from 0"),
        ("image.command.x=/x", "image.command.x: there are 3 of them, counted from 0"),
        ("version.major=1", "version.major: has nothing below it"),
        ("version.major.x=1", "version.major: has nothing below it"),
        ("kernel.tree=x", "kernel.tree: is one too many: there is file"),
        ("image.boot.verbos=true", "image.boot.verbos: no boot option of OSv (did you mean 'verbose'?)"),
        ("image.boot.verbose=yes", "image.boot.verbose: takes true or false, not 'yes'"),
    ],
)
def test_set_refuses_what_it_cannot_mean(assignment: str, told: str) -> None:
    """A path that is not of the spec, and a value that does not fit, are told as faults of --set, not of the file."""
    lines = problems(SMALL + DEPLOY, sets=[assignment])

    assert len(lines) == 1
    assert lines[0].startswith(f"--set: {told}"), lines


# ------------------------------------------------------------------------------------------------------------- files


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    """The folder of the spec goes with it, whatever the working directory is."""
    (tmp_path / "osv.toml").write_text(SMALL)

    loaded = load(tmp_path / "osv.toml", environ={})

    assert (loaded.base, loaded.spec.name) == (tmp_path.resolve(), "hello")


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """Missing, a directory, not UTF-8: each says which file, and what to do about a missing osv.toml."""
    (tmp_path / "latin.toml").write_bytes(b'# one\nname = "\xe9"\n')

    with pytest.raises(SpecError, match=r"osv.toml: cannot be read: No such file") as missing:
        load(tmp_path / "osv.toml", environ={})
    assert missing.value.hint == "name the spec with -f, or go to its folder"
    with pytest.raises(SpecError, match="cannot be read: Is a directory"):
        load(tmp_path, environ={})
    with pytest.raises(SpecError, match=r"latin.toml:2: is not UTF-8"):
        load(tmp_path / "latin.toml", environ={})
    with pytest.raises(SpecError, match="cannot be read: embedded null byte"):
        load(Path("a\0b"), environ={})


def test_a_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    """What an editor on Windows puts in front of a text does not matter."""
    (tmp_path / "osv.toml").write_bytes(b"\xef\xbb\xbf" + SMALL.replace("\n", "\r\n").encode())

    assert load(tmp_path / "osv.toml", environ={}).spec == read(SMALL)


# -------------------------------------------------------------------------------------------------------- properties

_WORDS = st.sampled_from(
    [*re.findall(r"[\w.-]+|\S", SMALL + DEPLOY), "\n", " = ", "[image.boot]", "verbose", "true", "nan", "1e9", '"${X}"',
     "'", '"""', "{", "}", "2020-01-01", "[[deploy.a.gates]]", "-0", "0x" + "f" * 5000, "a" + ".a" * 400]
)  # fmt: skip


def _survives(text: str, sets: list[str]) -> None:
    try:
        spec = parse(text, path=Path("osv.toml"), environ={"HOME": "/"}, sets=sets).spec
    except SpecError as error:
        assert error.problems
        for problem in error.problems:
            assert "\n" not in str(problem)
            assert problem.line is None or 1 <= problem.line <= text.count("\n") + 1
    else:
        assert isinstance(spec, Spec)


@NO_ERRORS
@given(st.text(max_size=200))
def test_no_text_makes_it_raise_anything_else(text: str) -> None:
    """Any text is a spec or a SpecError, each problem on one line and at a line that exists."""
    _survives(text, [])


@NO_ERRORS
@given(st.lists(_WORDS, max_size=40).map(" ".join), st.lists(st.text(max_size=30), max_size=2))
def test_no_text_of_spec_words_makes_it_raise_anything_else(text: str, sets: list[str]) -> None:
    """Nor does what looks more like a spec, nor any --set."""
    _survives(text, sets)


@NO_ERRORS
@given(st.data())
def test_no_edit_of_a_spec_makes_it_raise_anything_else(data: st.DataObject) -> None:
    """Nor does a good spec of which a part was replaced by another value."""
    values = st.sampled_from(
        ["5", "-1", "1.5", "nan", "true", '""', '"x"', "[]", "[[]]", "{}", "{ a = 1 }", "1979-05-27", "07:32:00",
         '"\\u0000"', '"\\n"', "9" * 60, "0x" + "f" * 4000, "[{}]", '"${HOME}"', '["", 1]', '{ "a\\nb" = "c" }']
    )  # fmt: skip
    lines = (SMALL + DEPLOY).splitlines()
    for _ in range(data.draw(st.integers(1, 4))):
        number = data.draw(st.integers(0, len(lines) - 1))
        key, equals, _value = lines[number].partition("=")
        if equals:
            lines[number] = f"{key}= {data.draw(values)}"
        elif data.draw(st.booleans()):
            del lines[number]
    _survives("\n".join(lines), [])


@pytest.mark.parametrize("value", ["5", "[1]", "{ a = 1 }", "0x" + "f" * 4000, "[0x" + "f" * 4000 + "]"])
def test_a_cloud_that_is_no_text_is_told_and_nothing_else(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a number that Python refuses to write: nothing of that comes out beside the error."""
    beside: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", beside.append)
    told = problems((SMALL + DEPLOY).replace('cloud = "aws"', f"cloud = {value}"))
    assert len(told) == 1 and 'is not supported; allowed: "aws", "gcp"' in told[0]
    assert not beside


@pytest.mark.parametrize("text", ["image.boot" + ".a" * 3000 + " = '${X}'", "a" + ".a" * 3000 + " = 1"])
def test_depth_does_not_matter(text: str) -> None:
    """Tables nested thousands deep are refused like any others."""
    _survives(text, ["image.boot" + ".a" * 3000 + "=1"])


def test_values_of_the_environment_may_be_any_bytes() -> None:
    """A variable whose bytes are no UTF-8 is an error of the value, not a traceback."""
    value = os.fsdecode(b"\xff")

    assert problems(SMALL.replace("1.0.0", "${V}"), environ={"V": value})[0].startswith("osv.toml:2: version:")


def test_a_program_gives_a_spec_as_a_document(tmp_path: Path) -> None:
    """Its texts are taken as they stand, its paths are relative to a folder, and what is given stays as it was."""
    document = tomllib.loads(SMALL.replace('"/hello", "--port"', '"/hello", "${PORT}"'))
    before = copy.deepcopy(document)

    loaded = of_document(document, base=tmp_path, sets=["version=1.1.0"])

    assert (loaded.base, loaded.spec.version, loaded.spec.image.command[1]) == (tmp_path, "1.1.0", "${PORT}")
    assert document == before


def test_what_is_wrong_with_a_document_has_no_line() -> None:
    """It names the key, and what it was called."""
    with pytest.raises(SpecError) as caught:
        of_document({"name": "hello", "kernel": {"fil": "x"}}, base=Path())
    assert "spec: version: is missing" in str(caught.value)
    assert "spec: kernel.fil: unknown key" in str(caught.value)
