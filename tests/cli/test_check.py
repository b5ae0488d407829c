"""`osvdeploy check`: findings for people and programs, and what overrides them."""

from __future__ import annotations

from pathlib import Path

import pytest

from osvdeploy.checks.rules import RULES
from tests.cli.running import Ran, osvdeploy
from tests.osv.elves import Made, Symbol, make_elf
from tests.osv.images import LZLOADER, loader_image

SPEC = """\
name = "app"
version = "1.0.0"
[kernel]
file = "loader.img"
[image]
command = ["/app"]
[image.boot]
power-off-on-abort = true
[[files]]
from = "root/"
to = "/"
[[files]]
from = "app"
to = "/app"
"""
LD = b"/lib64/ld-linux-x86-64.so.2"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OSVDEPLOY_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("dev", "proc", "sys", "tmp", "etc"):
        (folder / "root" / name).mkdir(parents=True)
    (folder / "root" / "etc" / "fstab").write_text("devfs /dev devfs defaults 0 0\n")
    (folder / "loader.img").write_bytes(loader_image(payload=LZLOADER))
    (folder / "osv.toml").write_text(SPEC)
    (folder / "app").write_bytes(make_elf(Made(interpreter=LD, needed=[b"libz.so.1"])))
    return folder


def rules(ran: Ran) -> list[tuple[str, str]]:
    return [(finding["rule"], finding["judgement"]) for finding in ran.document["findings"]]


def test_what_cannot_run_ends_with_2_and_a_table(folder: Path) -> None:
    """Subject, what is wrong and the cure stand in it; the rest of the result is there as ever."""
    ran = osvdeploy("check", folder=folder)
    assert ran.code == 2
    assert ran.stdout.startswith("app 1.0.0: 3 files")
    for told in ("refused", "library-missing", "libz.so.1", "/usr/lib/libz.so.1", "findings: 1 refused"):
        assert told in ran.stdout


def test_programs_read_the_findings_as_json(folder: Path) -> None:
    """Every field of the contract, and the same exit code."""
    ran = osvdeploy("check", "--json", folder=folder)
    assert ran.code == 2
    (finding,) = ran.document["findings"]
    assert finding.keys() == {"rule", "severity", "subject", "what", "why", "cure", "source", "judgement", "reason"}
    assert (finding["rule"], finding["severity"], finding["judgement"]) == ("library-missing", "error", "refused")


def test_a_good_image_has_no_findings(folder: Path) -> None:
    """Then nothing is said of them, and the exit code is 0."""
    (folder / "app").write_bytes(make_elf(Made(interpreter=LD, needed=[b"libc.so.6"])))
    ran = osvdeploy("check", folder=folder)
    assert (ran.code, "findings" in ran.stdout) == (0, False)
    assert rules(osvdeploy("check", "--json", folder=folder)) == []


def test_what_init_starts_and_links_that_osv_does_not_follow_are_looked_at(folder: Path) -> None:
    """A program that is missing to /init is refused like any; a link in `/` is warned of, with its cure."""
    sound(folder)
    (folder / "root" / "init").mkdir()
    (folder / "root" / "init" / "10-metrics").write_text("/metrics &!\n")
    (folder / "root" / "usr").mkdir()
    (folder / "root" / "lib64").symlink_to("usr")
    ran = osvdeploy("check", "--json", folder=folder)
    assert rules(ran) == [("program-missing", "refused"), ("link-not-followed", "warned")]
    missing, link = ran.document["findings"]
    assert (missing["subject"], missing["what"]) == (
        "/metrics",
        "/init/10-metrics starts it, and no file of the image is there",
    )
    assert link["cure"] == "make it a link: /lib64 -> /usr"


def test_a_program_that_is_not_there_is_refused(folder: Path) -> None:
    """The commonest mistake of all is an error like any other, with a rule's name."""
    sound(folder)
    (folder / "osv.toml").write_text(SPEC.replace('["/app"]', '["/nothere"]'))
    ran = osvdeploy("check", "--json", folder=folder)
    assert ran.code == 2 and ("program-missing", "refused") in rules(ran)


def test_force_lets_a_rule_pass_once(folder: Path) -> None:
    """It is told as allowed, not hidden."""
    ran = osvdeploy("check", "--json", "--force", "library-missing", folder=folder)
    assert (ran.code, rules(ran)) == (0, [("library-missing", "allowed")])
    assert ran.document["findings"][0]["reason"] == "forced"


def test_a_waiver_lets_a_rule_pass_with_its_reason(folder: Path) -> None:
    """The reason of the spec stands in the output."""
    (folder / "osv.toml").write_text(SPEC + '[waive]\nlibrary-missing = "never used"\n')
    ran = osvdeploy("check", "--json", folder=folder)
    assert (ran.code, rules(ran)) == (0, [("library-missing", "allowed")])
    assert ran.document["findings"][0]["reason"] == "never used"
    assert "allowed: never used" in osvdeploy("check", folder=folder).stdout


def test_a_warning_is_refused_under_strict_alone(folder: Path) -> None:
    """And a waiver holds there too."""
    made = Made(interpreter=LD, needed=[b"libc.so.6"], symbols={b"fork": Symbol.UNDEFINED})
    (folder / "app").write_bytes(make_elf(made))
    assert rules(ran := osvdeploy("check", "--json", folder=folder)) == [("starts-processes", "warned")]
    assert ran.code == 0
    assert osvdeploy("check", "--strict", folder=folder).code == 2
    (folder / "osv.toml").write_text(SPEC + '[waive]\nstarts-processes = "it never does"\n')
    assert osvdeploy("check", "--strict", folder=folder).code == 0


@pytest.mark.parametrize("by", ["--force", "[waive]"])
def test_a_rule_that_does_not_exist_is_refused(folder: Path, by: str) -> None:
    """The nearest name is told, and how all of them are listed."""
    words = ["--force", "library-mising"] if by == "--force" else []
    if not words:
        (folder / "osv.toml").write_text(SPEC + '[waive]\nlibrary-mising = "x"\n')
    ran = osvdeploy("check", *words, folder=folder)
    assert ran.code == 2
    assert f"{by}: there is no rule 'library-mising'; did you mean 'library-missing'?" in ran.stderr
    assert "osvdeploy check --rules" in ran.stderr


def test_a_waiver_without_a_reason_is_no_waiver(folder: Path) -> None:
    """A problem of the spec, with its line."""
    (folder / "osv.toml").write_text(SPEC + '[waive]\nlibrary-missing = " "\n')
    ran = osvdeploy("check", folder=folder)
    assert ran.code == 2
    assert "osv.toml:16: waive.library-missing: a reason" in ran.stderr


def test_beside_a_payload_that_is_no_osv_nothing_refuses(folder: Path) -> None:
    """The rules are OSv's; another kernel may do otherwise."""
    (folder / "loader.img").write_bytes(loader_image(payload=b"something else"))
    ran = osvdeploy("check", "--json", folder=folder)
    assert (ran.code, rules(ran)) == (0, [("library-missing", "warned")])


DEPLOY = """
[deploy.production]
cloud = "aws"
region = "eu-west-1"
instance-type = "{}"
subnets = ["subnet-0"]
listener = "arn"
route = {{ path = "/*", priority = 100 }}
port = 8080
ledger = "ledger"
"""


def sound(folder: Path, more: str = "") -> None:
    (folder / "app").write_bytes(make_elf(Made(interpreter=LD, needed=[b"libc.so.6"])))
    (folder / "osv.toml").write_text(SPEC + more)


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        ("t4g.nano", ("architecture", "refused")),
        ("t3.nano", ("disk-driver", "refused")),
        ("q9.nano", ("machine-family", "warned")),
    ],
)
def test_the_places_of_the_spec_are_judged_by_their_names(
    folder: Path, machine: str, expected: tuple[str, str]
) -> None:
    """Without credentials: what is known of a family refuses, a family that nobody knows warns."""
    sound(folder, DEPLOY.format(machine))
    ran = osvdeploy("check", "--json", folder=folder)
    assert expected in rules(ran)
    assert ran.code == (2 if any(judgement == "refused" for _, judgement in rules(ran)) else 0)


def test_a_secret_in_the_image_is_refused_until_it_is_waived(folder: Path) -> None:
    """Told by file, line and kind, never by itself."""
    sound(folder)
    key = "AKIA" + "Q7" * 8
    (folder / "root" / "etc" / "app.conf").write_text(f"name = app\nkey = {key}\n")
    ran = osvdeploy("check", folder=folder)
    assert ran.code == 2
    assert "/etc/app.conf" in ran.stdout and "AWS Access Key" in ran.stdout and "line 2" in ran.stdout
    assert key not in ran.stdout + ran.stderr
    sound(folder, '[waive]\nsecret-in-file = "a key of the test account, which may do nothing"\n')
    assert osvdeploy("check", folder=folder).code == 0


def test_what_others_publish_is_not_searched_for_secrets(folder: Path) -> None:
    """A program of the host and its packages hold sample keys, which are nobody's; one's own files are searched."""
    sound(folder, '[[programs]]\npath = "/usr/bin/tool"\nroot = "host"\n')
    tool, interpreter = folder / "host/usr/bin/tool", folder / "host/bin/run"
    tool.parent.mkdir(parents=True)
    interpreter.parent.mkdir()
    interpreter.write_bytes(make_elf(Made(interpreter=LD, needed=[b"libc.so.6"])))
    tool.write_text(f"#!/bin/run\n# for example AKIA{'Q7' * 8}\n")
    ran = osvdeploy("check", "--json", folder=folder)
    assert ran.code == 0 and "secret-in-file" not in dict(rules(ran))


def test_build_refuses_a_boot_option_that_this_kernel_does_not_take(folder: Path) -> None:
    """Before anything is built, unless forced."""
    sound(folder)
    spec = (folder / "osv.toml").read_text().replace("[image.boot]\n", "[image.boot]\nmaxnic = 1\n")
    (folder / "osv.toml").write_text(spec)
    ran = osvdeploy("build", folder=folder)
    assert (ran.code, "boot option maxnic" in ran.stderr, "[boot-option]" in ran.stderr) == (2, True, True)
    assert not (folder / "osv.lock").exists()
    assert osvdeploy("build", "--force", "boot-option", folder=folder).code == 0


def test_the_rules_are_listed_without_a_spec(tmp_path: Path) -> None:
    """Each with what it says and the commands that it refuses in; as a document too."""
    ran = osvdeploy("check", "--rules", folder=tmp_path)
    assert ran.code == 0
    assert [line.split()[0] for line in ran.stdout.splitlines()[1:]] == list(RULES)
    (line,) = [line for line in ran.stdout.splitlines() if line.startswith("starts-processes")]
    assert line.endswith("  check, publish, deploy") and "boot-option" in ran.stdout
    listed = osvdeploy("check", "--rules", "--json", folder=tmp_path).document["rules"]
    assert {each["rule"]: each["what"] for each in listed} == dict(RULES)
    assert {"family", "commands"} <= listed[0].keys()


def test_every_command_that_takes_force_knows_the_rules(folder: Path) -> None:
    """And refuses a name that is none before it looks at anything else."""
    for command in ("build", "publish", "deploy"):
        ran = osvdeploy(command, "--force", "library-mising", folder=folder)
        assert ran.code == 2 and "did you mean 'library-missing'?" in ran.stderr


def test_a_new_image_says_what_check_would(folder: Path) -> None:
    """`build` makes it all the same; it says so once, when it has made something, and not when nothing changed."""
    ran = osvdeploy("build", folder=folder)
    assert ran.code == 0 and ran.stdout.endswith("disk.raw\n")
    assert "warning: the image is built, but `publish` and `deploy` would refuse it: " in ran.stderr
    assert "[library-missing]" in ran.stderr and "`osvdeploy check` tells why" in ran.stderr
    assert "check" not in osvdeploy("build", folder=folder).stderr

    (folder / "app").write_bytes(make_elf(Made(interpreter=LD, needed=[b"libc.so.6"])))
    assert "check" not in osvdeploy("build", folder=folder).stderr, "nothing is found in it"
    spec = (folder / "osv.toml").read_text().replace("power-off-on-abort = true\n", "verbose = true\n")
    (folder / "osv.toml").write_text(spec)
    told = osvdeploy("build", folder=folder).stderr
    assert "1 warning about the image: `osvdeploy check` lists what it finds" in told and "warning:" not in told


def test_what_is_waived_or_forced_is_not_told_of(folder: Path) -> None:
    """Who knows of it need not hear it with every image."""
    assert "check" not in osvdeploy("build", "--force", "library-missing", folder=folder).stderr
    (folder / "osv.toml").write_text(SPEC + '[waive]\nlibrary-missing = "never called"\n')
    (folder / "other").write_text("another file, so that the image is another")
    (folder / "osv.toml").write_text(
        SPEC + '[[files]]\nfrom = "other"\nto = "/other"\n[waive]\nlibrary-missing = "never called"\n'
    )
    assert "check" not in osvdeploy("build", folder=folder).stderr
