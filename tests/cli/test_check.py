"""`osvdeploy check`: findings for people and programs, and what overrides them."""

from __future__ import annotations

from pathlib import Path

import pytest

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
    assert ran.stdout.startswith("app 1.0.0: 1 files")
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
    """The nearest name and all of them are told."""
    words = ["--force", "library-mising"] if by == "--force" else []
    if not words:
        (folder / "osv.toml").write_text(SPEC + '[waive]\nlibrary-mising = "x"\n')
    ran = osvdeploy("check", *words, folder=folder)
    assert ran.code == 2
    assert f"{by}: there is no rule 'library-mising'; did you mean 'library-missing'?" in ran.stderr
    assert "symbols-missing" in ran.stderr


def test_a_waiver_without_a_reason_is_no_waiver(folder: Path) -> None:
    """A problem of the spec, with its line."""
    (folder / "osv.toml").write_text(SPEC + '[waive]\nlibrary-missing = " "\n')
    ran = osvdeploy("check", folder=folder)
    assert ran.code == 2
    assert "osv.toml:11: waive.library-missing: a reason" in ran.stderr


def test_beside_a_payload_that_is_no_osv_nothing_refuses(folder: Path) -> None:
    """The rules are OSv's; another kernel may do otherwise."""
    (folder / "loader.img").write_bytes(loader_image(payload=b"something else"))
    ran = osvdeploy("check", "--json", folder=folder)
    assert (ran.code, rules(ran)) == (0, [("library-missing", "warned")])
