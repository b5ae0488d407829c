"""Bad input of every kind, as a user gives it: a clear error, what to do, the right exit code, nothing half-made.

Where AWS is needed it is the sandbox in a process of its own, and each test looks at what the account holds before and
after.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from osvdeploy.demo.guest import build_guest
from osvdeploy.demo.hello import build_hello
from osvdeploy.sandbox import control
from osvdeploy.sandbox.control import Running
from tests.alive import until
from tests.cli.running import Ran, osvdeploy
from tests.osv.images import loader_image

NETWORK = Path(__file__).parents[2] / "examples" / "aws-network" / "network.py"

SPEC = """\
name = "hello"
version = "1.0.0"

[kernel]
file = "loader.img"

[image]
command = ["/hello", "--port", "8080"]

[[files]]
from = "hello"
to = "/hello"
"""

DEPLOYMENT = """
[deploy.test]
cloud = "aws"
region = "eu-west-1"
instance-type = "t3.small"
capacity = 1
subnets = ["${SUBNET_A}", "${SUBNET_B}"]
security-groups = ["${SECURITY_GROUP}"]
listener = "${LISTENER}"
route = { path = "/*", priority = 100 }
port = 8080
ledger = "../ledger"
health = { path = "/healthz", version-header = "x-release", boot-timeout = "120s", interval = "5s", min-ready = "1s" }
strategy = { kind = "blue-green", bake = "0s", keep-warm = "1h" }
"""


def refused(ran: Ran, code: int, *told: str, hint: str | None = None) -> None:
    """The command ended with ``code`` and said each of ``told`` in its error and ``hint`` in its hint."""
    assert ran.code == code, ran.stderr
    assert ran.stdout == ""
    assert "Traceback" not in ran.stderr and "bug in osvdeploy" not in ran.stderr
    lines = ran.stderr.splitlines()
    complaint = "\n".join(line for line in lines if line.startswith(("error: ", "       ")))
    for words in told:
        assert words in complaint, ran.stderr
    if hint is not None:
        assert any(line.startswith("hint: ") and hint in line for line in lines), ran.stderr


@dataclass
class User:
    """Somebody with a project, a state, a cache and a home of his own, and no account."""

    folder: Path
    version: str = "1.0.0"

    @property
    def project(self) -> Path:
        return self.folder / "project"

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger"

    def run(self, *words: str) -> Ran:
        return osvdeploy(*words, folder=self.project)

    def run_apart(self, *words: str) -> Ran:
        """The same in a process of its own."""
        command = [sys.executable, "-m", "osvdeploy", *words]
        ran = subprocess.run(command, cwd=self.project, capture_output=True, text=True, timeout=60)
        return Ran(ran.returncode, ran.stdout, ran.stderr)

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.project / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def edit(self, old: str, new: str) -> None:
        spec = self.project / "osv.toml"
        text = spec.read_text()
        assert old in text
        spec.write_text(text.replace(old, new))

    def files(self) -> set[str]:
        """Everything that is there: folders of the user's that appeared by themselves show."""
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*")}

    def built(self) -> list[Path]:
        return [path for path in (self.folder / "cache").rglob("*") if path.name in ("disk.raw", "image.json")]

    def workspaces(self) -> list[Path]:
        return list((self.folder / "cache" / "work").glob("*"))


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> User:
    for name in list(os.environ):
        if name.startswith(("AWS_", "OSVDEPLOY_")):
            monkeypatch.delenv(name)
    found = User(tmp_path)
    for name in ("project", "home"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OSVDEPLOY_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("OSVDEPLOY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OSVDEPLOY_SANDBOX", str(tmp_path / "sandbox"))
    # Whatever machine this is: one in a cloud would find credentials there.
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    found.write("osv.toml", SPEC)
    found.write("loader.img", loader_image())
    found.write("hello", b"\x7fELF: not a program, but a file")
    return found


# -------------------------------------------------------------------------------------------------- spec to image


@pytest.mark.parametrize("verb", ["check", "build"])
@pytest.mark.parametrize(
    ("kernel", "told", "hint"),
    [
        (loader_image()[:-1], "truncated: its boot sector loads 2 chunks", "fetch the kernel again"),
        (loader_image()[:100], "truncated: 100 bytes do not hold a boot sector", "fetch the kernel again"),
        (loader_image() + bytes(32768), "wrong chunk count", "OSv's own Makefile"),
        (loader_image(chunks=0), "its chunk count (u16 at 0x10) is 0", "again"),
        (loader_image()[65536:], "an ELF kernel alone", "loader.img of the same build"),
        (b"QFI\xfb\0\0\0\3" + bytes(1000), "a qcow2 disk image, not a loader.img", "build/last/loader.img"),
        (b"", "empty", "fetch the kernel again"),
    ],
    ids=["truncated", "torn", "wrong count", "no count", "ELF only", "qcow2", "empty"],
)
def test_what_is_no_loader_image_is_named_for_what_it_is(
    user: User, verb: str, kernel: bytes, told: str, hint: str
) -> None:
    """The file and what is wrong with it, what to use instead; nothing is built and nothing pinned."""
    path = user.write("loader.img", kernel)
    refused(user.run(verb), 2, f"{path}: {told}", hint=hint)
    assert not user.built() and not user.workspaces()
    assert not (user.project / "osv.lock").exists()


def test_a_kernel_that_is_not_there_is_named(user: User) -> None:
    """The path as it was looked for, and where the spec names it."""
    (user.project / "loader.img").unlink()
    refused(user.run("build"), 2, f"{user.project}/loader.img", "No such file", hint="`file` under [kernel]")


def test_another_kernel_than_pinned_stops_the_build(user: User) -> None:
    """osv.lock says which side moved, and how to move it on purpose."""
    assert user.run("build").code == 0
    user.write("loader.img", loader_image(chunks=3))
    before = user.files()
    refused(user.run("build"), 2, "loader.img", "osv.lock", hint="osvdeploy lock --upgrade")
    assert user.files() == before


def test_unknown_keys_are_all_told_with_their_lines(user: User) -> None:
    """Every one at once, with what was probably meant."""
    user.edit('command = ["/hello"', 'comand = "x"\nfilesystem = "zfs"\ncommand = ["/hello"')
    ran = user.run("build")
    refused(ran, 2, "osv.toml:8: image.comand: unknown key", "did you mean 'command'?", "osv.toml:9: image.filesystem")
    problems = osvdeploy("build", "--json", folder=user.project).document["error"]["problems"]
    assert [(each["line"], each["path"]) for each in problems] == [(8, "image.comand"), (9, "image.filesystem")]
    assert not user.built()


@pytest.mark.parametrize(
    ("source", "told"), [("hello", "no such file or directory"), ("pages/**/*.html", "matches nothing")]
)
def test_sources_that_are_not_there_are_named(user: User, source: str, told: str) -> None:
    """As the spec names them, and the folder they were looked for in."""
    user.edit('from = "hello"', f'from = "{source}"')
    (user.project / "hello").unlink()
    for verb in ("check", "build"):
        refused(user.run(verb), 2, f"from = '{source}': {told}", hint=str(user.project))
    assert not user.built() and not (user.project / "osv.lock").exists()


def test_a_spec_that_is_not_there_is_named(user: User) -> None:
    """Every command that needs one says so, and none makes anything."""
    (user.project / "osv.toml").unlink()
    before = user.files()
    for verb in ("check", "build", "publish", "deploy"):
        refused(user.run(verb), 2, "osv.toml")
    for verb in ("status", "history", "rollback", "destroy", "gc"):
        refused(user.run(verb), 2, "osv.toml", hint="APP/ENV with --ledger")
    assert user.files() == before


def test_an_image_has_to_be_deployed_somewhere(user: User) -> None:
    """Without a [deploy.NAME], and with one that is not there."""
    for verb in ("publish", "deploy", "status"):
        refused(user.run(verb), 2, "has no [deploy.NAME]", hint="docs/spec.md")
        refused(user.run(verb, "--env", "production"), 2, "has no [deploy.production]")


@pytest.mark.slow
def test_a_disk_that_is_full_while_building_is_told_with_what_is_needed(user: User) -> None:
    """How much it takes and how much is free; the half-made image is gone, and the next build is whole."""
    cache = user.folder / "cache"
    cache.mkdir()
    user.write("hello", os.urandom(3 << 20))
    script = f"""
mount -t tmpfs -o size=2m none {cache} || exit 77
{sys.executable} -m osvdeploy build; echo "ended with $?" >&2
find {cache} -name disk.raw -o -path '*/work/*' >&2
mount -o remount,size=64m {cache}
exec {sys.executable} -m osvdeploy build -q 2>/dev/null
"""
    if shutil.which("unshare") is None:
        pytest.skip("a small file system cannot be mounted here: no unshare")
    ran = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
        cwd=user.project,
        capture_output=True,
        text=True,
        timeout=60,
    )
    if ran.returncode == 77 or "unshare" in ran.stderr:
        pytest.skip(f"a small file system cannot be mounted here: {ran.stderr.strip()}")
    beside = ("  image", "pinned", "warning: the image is built, but", "hint: `osvdeploy check` tells")
    error, hint, ended, *left = [line for line in ran.stderr.splitlines() if not line.startswith(beside)]
    assert error.startswith(f"error: {cache}: no room for the image: it takes 3.1MiB")
    assert "OSVDEPLOY_CACHE" in hint
    assert (ended, left) == ("ended with 1", [])
    assert ran.returncode == 0 and ran.stdout.strip().endswith("disk.raw")


def test_a_cache_that_cannot_be_written_is_named(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the variable that names another."""
    (user.folder / "taken").write_text("a file, no folder")
    monkeypatch.setenv("OSVDEPLOY_CACHE", str(user.folder / "taken" / "cache"))
    refused(user.run("build"), 1, f"{user.folder}/taken/cache", "Not a directory", hint="OSVDEPLOY_CACHE")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_that_belongs_to_another_is_named(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing appears in it."""
    (user.folder / "theirs").mkdir(mode=0o555)
    monkeypatch.setenv("OSVDEPLOY_CACHE", str(user.folder / "theirs" / "cache"))
    refused(user.run("build"), 1, f"{user.folder}/theirs", "Permission denied", hint="OSVDEPLOY_CACHE")


# ------------------------------------------------------------------------------------------------- without an account


@pytest.fixture
def customer(user: User, monkeypatch: pytest.MonkeyPatch) -> User:
    """A user whose project is to be deployed, in an account he has no way into yet."""
    user.write("osv.toml", SPEC + DEPLOYMENT)
    arn = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:listener/app/x/0123456789abcdef/0123456789abcdef"
    for name, value in {
        "SUBNET_A": "subnet-a",
        "SUBNET_B": "subnet-b",
        "SECURITY_GROUP": "sg-a",
        "LISTENER": arn,
    }.items():
        monkeypatch.setenv(name, value)
    return user


@pytest.mark.parametrize("verb", ["publish", "deploy"])
def test_no_credentials_is_told_with_the_ways_to_give_some(customer: User, verb: str) -> None:
    """No variable, no file, no machine role: what the SDK takes, and the sandbox's line."""
    refused(customer.run(verb), 2, "no usable AWS credentials", hint='eval "$(osvdeploy sandbox env)"')
    assert not customer.ledger.exists() and not (customer.folder / "home" / ".aws").exists()


def test_a_profile_that_is_not_there_is_named(customer: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS_PROFILE names it."""
    monkeypatch.setenv("AWS_PROFILE", "acme")
    refused(customer.run("deploy"), 2, "acme", hint="AWS_PROFILE")


@pytest.mark.parametrize(
    "verb", ["status", "history", "rollback", "destroy", "gc", "hold", "unhold", "wait", "abort", "recover", "retry"]
)
def test_a_service_that_was_never_deployed_is_told_with_the_ledger_that_was_read(customer: User, verb: str) -> None:
    """By the spec and by name; no ledger appears where none was."""
    words = ["--yes"] if verb == "destroy" else []
    told = ("hello/test: was never deployed", str(customer.ledger))
    refused(customer.run(verb, *words), 2, *told, hint="--ledger")
    refused(customer.run(verb, "hello/test", "--ledger", str(customer.ledger), *words), 2, *told, hint="--ledger")
    assert not customer.ledger.exists()


def test_a_specs_ledger_comes_before_the_variable(
    customer: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a deploy. What is named comes first; of what no spec here declares, or can tell, the variable is all."""
    other, named = tmp_path / "variable", tmp_path / "named"
    monkeypatch.setenv("OSVDEPLOY_LEDGER", str(other))
    for words in (["--env", "test"], ["hello/test"], ["--all"]):
        refused(customer.run("status", *words), 2, str(customer.ledger))
        refused(customer.run("status", *words, "--ledger", str(named)), 2, str(named))
    for words in (["orders/test"], ["hello/production"], ["hello/test", "--file", "elsewhere.toml"]):
        refused(customer.run("status", *words), 2, str(other))
    customer.write("osv.toml", b"name = 1")
    for words in (["hello/test"], ["--all"]):
        refused(customer.run("status", *words), 2, str(other))


@pytest.mark.parametrize("variable", ["SUBNET_A", "LISTENER"])
def test_a_variable_that_is_not_set_is_named_where_it_is_needed(
    customer: User, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """Deploying needs it, building does not."""
    monkeypatch.delenv(variable)
    refused(customer.run("deploy"), 2, "osv.toml:", f"${{{variable}}} is not set")
    assert customer.run("build").code == 0


def test_a_name_that_is_another_apps_is_refused(customer: User) -> None:
    """The spec here declares hello, whoever is asked for."""
    refused(customer.run("status", "orders"), 2, "declares hello, not orders", hint="--ledger")
    swapped = customer.run("releases", "import", "hello/test", "kept.json", "--ledger", str(customer.ledger))
    refused(swapped, 2, "hello")
    assert "with --ledger" not in swapped.stderr
    refused(customer.run("status", "hello/other", "--env", "test"), 2, "name different environments")


# ---------------------------------------------------------------------------------------------------- in an account


@dataclass(frozen=True)
class Account:
    """AWS on loopback with a network in it, and programs to deploy there."""

    running: Running
    variables: dict[str, str]
    programs: dict[str, bytes]
    kernel: bytes

    def inventory(self) -> dict[str, list[str]]:
        held: dict[str, list[str]] = self.running.ask("GET", "status")["inventory"]
        return held

    def client(self, service: str) -> Any:
        session = boto3.Session(control.ACCESS_KEY, control.SECRET_KEY)
        return session.client(service, region_name=control.REGION, endpoint_url=self.running.url)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    folder = tmp_path_factory.mktemp("account")
    command = [sys.executable, "-m", "osvdeploy", "sandbox"]
    sandbox = {**os.environ, "OSVDEPLOY_SANDBOX": str(folder / "sandbox")}
    subprocess.run([*command, "start", "--speed", "50"], env=sandbox, capture_output=True, check=True)
    try:
        running = control.required(folder / "sandbox")
        environ = {**os.environ, **control.environment(running).variables}
        # A port of its own: other sandboxes of this machine number their balancers' addresses alike.
        words = ["create", "--prefix", "X", "--port", str(_free_port())]
        made = subprocess.run(
            [sys.executable, NETWORK, *words], env=environ, capture_output=True, text=True, check=True
        )
        network = dict(line.removeprefix("export X_").split("=", 1) for line in made.stdout.splitlines())
        programs = {
            version: build_hello(version, folder / version).read_bytes() for version in ("1.0.0", "1.1.0", "1.2.0")
        }
        kernel = build_guest(folder / "loader.img").read_bytes()
        yield Account(running, network, programs, kernel)
    finally:
        subprocess.run([*command, "stop"], env=sandbox, capture_output=True, check=True)


_versions = itertools.count()


@pytest.fixture
def guest(account: Account, customer: User, monkeypatch: pytest.MonkeyPatch) -> Iterator[User]:
    """A user with an app of his own in that account; his service and images are taken away at the end."""
    for name, value in {**control.environment(account.running).variables, **account.variables}.items():
        monkeypatch.setenv(name, value)
    customer.write("loader.img", account.kernel)
    customer.write("hello", account.programs["1.0.0"])
    # A version of its own: a token of an upload that was deleted again leads to that upload for a while.
    customer.version = f"1.0.{next(_versions)}"
    customer.edit('version = "1.0.0"', f'version = "{customer.version}"')
    before = account.inventory()
    yield customer
    account.running.ask("DELETE", "faults")
    if customer.ledger.exists() and customer.run("status").code == 0:
        customer.run("destroy", "--yes")
        customer.run("gc", "--keep", "1")
    _clear(account)
    assert account.inventory() == before


def _clear(account: Account) -> None:
    """Images and disks that no ledger knows of."""
    ec2 = account.client("ec2")
    for image in ec2.describe_images(Owners=["self"])["Images"]:
        ec2.deregister_image(ImageId=image["ImageId"])
    for snapshot in ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]:
        ec2.delete_snapshot(SnapshotId=snapshot["SnapshotId"])


@pytest.mark.slow
def test_the_same_version_with_other_bytes_is_refused(account: Account, guest: User) -> None:
    """A released name keeps its bytes: both digests are told, and nothing is uploaded."""
    assert guest.run("publish").code == 0
    before = account.inventory()
    guest.write("hello", account.programs["1.1.0"])
    for verb in ("publish", "deploy"):
        refused(
            guest.run(verb), 2, f"hello-{guest.version}: registered with ", "this build is ", hint="raise `version`"
        )
        assert account.inventory() == before
    assert not guest.ledger.exists() or guest.run("status").code == 2


@pytest.mark.slow
def test_what_osv_lock_refuses_is_not_published(account: Account, guest: User) -> None:
    """With the exit code that check and build have for it, and before anything is uploaded."""
    assert guest.run("build").code == 0
    before, lock = account.inventory(), (guest.project / "osv.lock").read_text()
    pinned = lock.partition('sha256 = "')[2][:64]
    for content, told in [(lock.replace(pinned, "0" * 64), "osv.lock pins"), ("<<<<<<< HEAD", "not a lock file")]:
        guest.write("osv.lock", content)
        for verb in ("publish", "deploy"):
            refused(guest.run(verb), 2, told)
    assert account.inventory() == before


@pytest.mark.slow
def test_a_held_release_is_refused_and_nothing_is_made(account: Account, guest: User) -> None:
    """Exit code 2: the hold is the caller's, or a colleague's, to take away."""
    assert guest.run("deploy").code == 0
    assert guest.run("hold", "--why", "freeze").code == 0
    guest.write("hello", account.programs["1.2.0"])
    guest.edit(f'version = "{guest.version}"', 'version = "9.0.0"')
    before = account.inventory()
    refused(guest.run("deploy"), 2, "freeze", hint="osvdeploy unhold")
    assert account.inventory() == before
    assert guest.run("destroy", "--yes").code == 0


@pytest.mark.slow
@pytest.mark.parametrize("priority", [100, 99, 98], ids=["route", "preview", "other preview"])
def test_a_rule_of_someone_else_is_left_alone(account: Account, guest: User, priority: int) -> None:
    """Where our rule or a preview of it should stand: the rule is named, nothing is uploaded, and it stays."""
    elb = account.client("elbv2")
    answer = {"StatusCode": "200", "ContentType": "text/plain", "MessageBody": "theirs"}
    rule = elb.create_rule(
        ListenerArn=account.variables["LISTENER"],
        Priority=priority,
        Conditions=[{"Field": "path-pattern", "PathPatternConfig": {"Values": ["/theirs"]}}],
        Actions=[{"Type": "fixed-response", "FixedResponseConfig": answer}],
    )["Rules"][0]["RuleArn"]
    try:
        before = account.inventory()
        refused(guest.run("deploy"), 2, str(priority), "rule", hint="priority")
        assert account.inventory() == before
        assert elb.describe_rules(RuleArns=[rule])["Rules"][0]["Priority"] == str(priority)
        assert guest.run("status").code == 2, "no service was made"
    finally:
        elb.delete_rule(RuleArn=rule)


@pytest.mark.slow
def test_a_listener_that_is_not_there_is_named(account: Account, guest: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is uploaded; so is one of another region, and what is no listener at all."""
    before = account.inventory()
    real = account.variables["LISTENER"]
    monkeypatch.setenv("LISTENER", real[:-16] + "0" * 16)
    refused(guest.run("deploy"), 1, f"listener {real[:-16]}0000000000000000", "not found", hint="describe-listeners")

    monkeypatch.setenv("LISTENER", real.replace("eu-west-1", "us-east-1"))
    refused(guest.run("deploy"), 2, "is in us-east-1, the deployment in eu-west-1", hint="make both the same")

    monkeypatch.setenv("LISTENER", "the balancer")
    refused(guest.run("deploy"), 2, "'the balancer' is no listener's ARN", hint="arn:aws:elasticloadbalancing")
    assert account.inventory() == before
    assert guest.run("status").code == 2, "no service was made"


@pytest.mark.slow
def test_a_payload_that_is_no_osv_is_warned_of_once(account: Account, guest: User) -> None:
    """What it drives cannot be told, so nothing is refused for it."""
    ran = guest.run("publish")
    assert ran.code == 0, ran.stderr
    assert ran.stderr.count("warning:") == ran.stderr.count("[unknown-kernel]") == 1


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["publish", "deploy"])
def test_a_machine_type_that_cannot_be_is_refused_before_anything_is_made(
    account: Account, guest: User, verb: str
) -> None:
    """One that AWS does not have, with the nearest names; one of another architecture, with the cure."""
    before = account.inventory()
    guest.edit('"t3.small"', '"t3.smal"')
    refused(guest.run(verb), 2, "t3.smal: eu-west-1 has no machine type", hint="t3.small")
    guest.edit('"t3.smal"', '"t4g.small"')
    refused(guest.run(verb), 2, "t4g.small: has aarch64 processors", "[architecture]", hint="t3.small")
    refused(guest.run(verb, "--force", "architectur"), 2, "no rule 'architectur'", "'architecture'")
    assert account.inventory() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"${SUBNET_B}"', '"subnet-0123456789abcdef0"', "subnet-0123456789abcdef0"),
        ('"${SECURITY_GROUP}"', '"sg-0123456789abcdef0"', "sg-0123456789abcdef0"),
    ],
    ids=["subnet", "security group"],
)
def test_what_the_account_does_not_have_is_named(account: Account, guest: User, old: str, new: str, told: str) -> None:
    """AWS's refusal names it; the rollout ends with nothing running and nothing on the listener but what was there."""
    guest.edit(old, new)
    guest.edit('boot-timeout = "120s"', 'boot-timeout = "5s"')
    ran = guest.run("deploy")
    assert ran.code == 1, ran.stderr
    assert "Traceback" not in ran.stderr
    assert "failed" in ran.stdout and told in ran.stdout
    left = account.inventory()
    assert not left.get("instance") and not left.get("autoscaling.group")
    assert guest.run("status", "--json").document["serving"] is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("operation", "verb"), [("ebs:StartSnapshot", "publish"), ("ec2:RegisterImage", "publish"), ("elbv2:*", "deploy")]
)
def test_credentials_that_may_not_do_it_are_told_with_the_action(
    account: Account, guest: User, operation: str, verb: str
) -> None:
    """AWS's own words and the action that an administrator has to allow; what was made on the way is gone."""
    before = account.inventory()
    account.running.ask("POST", "faults", {"operation": operation, "kind": "denied", "skip": 0, "times": None})
    ran = guest.run(verb)
    action = operation.partition(":")[2].strip("*")
    refused(ran, 1, f"AWS refused {action}", hint=f"allow the action {action}")
    assert account.inventory() == before


@pytest.mark.slow
def test_credentials_that_are_not_known_are_told(
    account: Account, guest: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a pair is none."""
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    refused(guest.run("deploy"), 2, "no usable AWS credentials", "AWS_SECRET_ACCESS_KEY", hint="AWS_PROFILE")


@pytest.mark.slow
def test_a_ledger_that_cannot_be_written_is_told_before_anything_is_made(account: Account, guest: User) -> None:
    """The folder, why, and what to do; no image and no machine."""
    (guest.folder / "taken").write_text("a file, no folder")
    guest.edit('"../ledger"', '"../taken/ledger"')
    before = account.inventory()
    refused(guest.run("deploy"), 1, f"{guest.folder}/taken", "not a directory", hint="ledger")
    assert account.inventory() == before


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_ledger_that_belongs_to_another_is_told_before_anything_is_made(account: Account, guest: User) -> None:
    """It can be read, so only a try to write shows it."""
    (guest.folder / "theirs").mkdir(mode=0o555)
    guest.edit('"../ledger"', '"../theirs/ledger"')
    before = account.inventory()
    refused(guest.run("deploy"), 1, f"{guest.folder}/theirs", "permission denied", hint="right to read and write")
    assert account.inventory() == before


@pytest.mark.slow
def test_a_sandbox_that_is_stopped_is_told_soon(guest: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing answers at its address: the address, and how to start it again; the same for every command."""
    url = f"http://127.0.0.1:{_free_port()}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    for verb in ("publish", "deploy"):
        refused(guest.run(verb), 1, "no answer from AWS", url, hint="osvdeploy sandbox start")
    assert not guest.ledger.exists()


@pytest.mark.slow
def test_a_state_folder_that_cannot_be_written_costs_no_upload(guest: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal is a hint: without it the upload is made all the same, and that is told."""
    (guest.folder / "taken").write_text("a file, no folder")
    monkeypatch.setenv("OSVDEPLOY_STATE", str(guest.folder / "taken" / "state"))
    ran = guest.run("publish")
    assert ran.code == 0 and ran.stdout.startswith("ami-")
    assert f"warning: {guest.folder}/taken/state" in ran.stderr and "OSVDEPLOY_STATE" in ran.stderr


@pytest.mark.slow
def test_a_second_deploy_at_the_same_time_is_refused(account: Account, guest: User) -> None:
    """Exit code 4, who is at work and with what, for every command that changes something; reading goes on.

    The first one, ended by Ctrl-C, leaves what `destroy` takes away.
    """
    guest.write("hello", account.programs["1.2.0"])
    first = subprocess.Popen(
        [sys.executable, "-m", "osvdeploy", "deploy"],
        cwd=guest.project,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # As a shell starts it; what a test runner made of SIGINT is not passed on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        text=True,
    )
    try:
        until(lambda: guest.run("status").code == 0 or first.poll() is not None)
        at_work = f"process {first.pid}"
        for words in (["deploy"], ["rollback"], ["destroy", "--yes"], ["gc"], ["hold"], ["unhold"]):
            refused(guest.run(*words), 4, "hello/test", at_work, "is at work", hint="wait for it")
        refused(guest.run("deploy", "--set", "version=2.0.0"), 4, at_work)
        held = guest.run("status", "--json").document
        assert held["held_by"].startswith(at_work) and held["run"]["outcome"] is None
        candidate = [slot["release"] for slot in held["slots"] if slot["slot"] == held["run"]["slot"]]
        assert candidate == [held["run"]["candidate"]] and "candidate" in guest.run("status").stdout
        assert "2.0.0" not in guest.run("history").stdout
        names = [image["Name"] for image in account.client("ec2").describe_images(Owners=["self"])["Images"]]
        assert not any("2.0.0" in name for name in names), "refused before anything was uploaded"
    finally:
        first.send_signal(signal.SIGINT)
        _, told = first.communicate(timeout=60)
    assert first.returncode == 130 and "Traceback" not in told
    assert guest.run("destroy", "--yes").code == 0


@pytest.mark.slow
def test_what_cannot_be_brought_back_is_told(account: Account, guest: User) -> None:
    """A version nobody deployed, or none before this one: nothing moves, and what there is is named."""
    assert guest.run("deploy").code == 0
    before = account.inventory()
    refused(
        guest.run("rollback", "--to", "0.9.0"),
        2,
        "no release '0.9.0' was ever deployed",
        hint=f"newest: {guest.version}",
    )
    refused(guest.run("rollback"), 2, "hello/test")
    refused(guest.run("hold", "--release", "0.9.0"), 2, "no release '0.9.0'")
    refused(guest.run("destroy"), 2, "this would take away hello/test", guest.version, hint="--yes")
    would = guest.run("destroy", "--dry-run")
    assert would.code == 0 and "would go" in would.stdout and before["autoscaling.group"][0] in would.stdout
    assert account.inventory() == before
    assert guest.run("destroy", "--yes").code == 0
    would = guest.run("gc", "--dry-run")
    assert would.code == 0 and all(image in would.stdout for image in before["image"])
    refused(guest.run("destroy", "--yes"), 2, "hello/test", "nothing is deployed", hint="osvdeploy history")
    refused(guest.run("rollback", "--to", "0.9.0"), 2, "no release '0.9.0'")
    assert guest.run("status").stdout.strip() == "hello/test: destroyed"


# ------------------------------------------------------------------------------------------------------- the sandbox


@pytest.mark.slow
def test_a_port_in_use_is_named_and_no_sandbox_is_left(user: User) -> None:
    """In the background and in the foreground; no process stays behind, no account appears."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for words in ([], ["--foreground"]):
            ran = user.run_apart("sandbox", "start", "--port", port, *words)
            refused(ran, 2, f"port {port} of 127.0.0.1 is in use", hint="--port")
    assert user.run("sandbox", "status").stdout.strip() == "no sandbox is running"
    assert not (user.folder / "sandbox" / "account.db").exists()


def test_what_needs_a_sandbox_says_how_to_start_one(user: User) -> None:
    """No lines for a shell to evaluate, and nothing is made."""
    before = user.files()
    refused(user.run("sandbox", "env"), 2, "no sandbox is running", hint="osvdeploy sandbox start")
    refused(user.run("sandbox", "fault", "x", "before"), 2, "no sandbox is running", hint="osvdeploy sandbox start")
    assert user.files() == before


def test_a_sandbox_folder_that_cannot_be_written_is_named(user: User) -> None:
    """With the ways to name another."""
    (user.folder / "taken").write_text("a file, no folder")
    ran = user.run("sandbox", "start", "--dir", str(user.folder / "taken" / "sandbox"))
    refused(ran, 2, f"{user.folder}/taken/sandbox", "Not a directory", hint="OSVDEPLOY_SANDBOX")
