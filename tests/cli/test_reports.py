"""report, events, audit: a ledger read back, for people and for programs."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from osvdeploy.cli import output
from osvdeploy.cli.rollouts import rollout_text
from osvdeploy.rollout.model import RequestKind
from tests.cli.running import Ran, osvdeploy
from tests.report.recorded import HOSTILE, Kept, good, waiting

pytestmark = pytest.mark.whole


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    return good(tmp_path_factory.mktemp("ledger"))


def asked(service: Kept, command: str, *words: str, folder: Path | None = None) -> Ran:
    return osvdeploy(command, *words, "hello/production", "--ledger", str(service.folder), folder=folder)


def test_a_report_is_a_file_whose_path_is_printed(recorded: Kept, tmp_path: Path) -> None:
    """Named by service and run, or by -o; "-" is the page itself; a second one takes the first one's place."""
    run = recorded.report().run
    ran = asked(recorded, "report", "last", folder=tmp_path)
    assert (ran.code, ran.stdout) == (0, f"hello-production-{run.id}.html\n")
    whole = (tmp_path / ran.stdout.strip()).read_text()
    assert asked(recorded, "report", "1.1.0", "-o", "there.html", folder=tmp_path).stdout == "there.html\n"
    assert asked(recorded, "report", run.id, "-o", "there.html", folder=tmp_path).code == 0
    assert asked(recorded, "report", "-o", "there.html", folder=tmp_path).code == 0
    assert asked(recorded, "report", "last", "-o", "-").stdout == whole == (tmp_path / "there.html").read_text()
    assert sorted(each.name for each in tmp_path.iterdir()) == [f"hello-production-{run.id}.html", "there.html"]


def test_a_report_that_cannot_be_written_is_refused(recorded: Kept, tmp_path: Path) -> None:
    """With the file's name; and a document and a page do not share stdout."""
    ran = asked(recorded, "report", "last", "-o", str(tmp_path / "no" / "there.html"))
    assert ran.code == 2 and "there.html: cannot be written: No such file" in ran.stderr
    assert asked(recorded, "report", "last", "-o", "-", "--json").document["error"]["kind"] == "UsageError"


def test_a_report_as_a_document_writes_no_file_unasked(recorded: Kept, tmp_path: Path) -> None:
    """All that the page tells: the run, releases, who was at work, events."""
    told = asked(recorded, "report", "last", "--json", folder=tmp_path).document
    assert not list(tmp_path.iterdir()) and told["file"] is None
    assert told["run"]["outcome"] == "succeeded" and [each["weight"] for each in told["run"]["moves"]] == [5, 50, 100]
    assert (told["release"]["version"], told["before"]["version"]) == ("1.1.0", "1.0.0")
    (work,) = told["at_work"]
    assert work["given_back"] and work["by"].startswith("somebody@")
    assert told["events"][0]["event"] == "lease" and told["events"][-1]["event"] == "lease-given-back"
    named = asked(recorded, "report", "last", "--json", "-o", "it.html", folder=tmp_path).document
    assert named["file"] == "it.html" and (tmp_path / "it.html").exists()


def test_events_are_listed_newest_last(recorded: Kept) -> None:
    """When, who, what; the newest N, of one rollout, since a time."""
    ran = asked(recorded, "events")
    heading, *lines = ran.stdout.splitlines()
    assert heading.split() == ["TIME", "(UTC)", "WHO", "WHAT"] and lines == sorted(lines, key=lambda line: line[:19])
    assert any("ann@desk" in line and "asked: pause (lunch <b>& more</b>): traffic stays" in line for line in lines)
    assert asked(recorded, "events", "--limit", "3").stdout.splitlines()[1:] == lines[-3:]
    first = asked(recorded, "events", "--run", "1.0.0", "--json").document["events"]
    whole = asked(recorded, "events", "--json").document["events"]
    assert first == whole[: len(first)] and {each["run"] for each in first} == {None, recorded.report("1.0.0").run.id}
    since = whole[len(first)]["at"]
    later = [each for each in whole if each["at"] >= since]
    assert asked(recorded, "events", "--since", since, "--json").document["events"] == later != whole
    assert "nothing happened in that time" in asked(recorded, "events", "--since", "2031-01-01").stdout


def test_an_audit_is_what_people_did(recorded: Kept) -> None:
    """The same events without a rollout's own course."""
    whole = asked(recorded, "events", "--json").document["events"]
    found = asked(recorded, "audit", "--json").document["events"]
    course = {"gate", "stage", "traffic", "slot", "evidence", "paused", "lease-given-back"}
    assert found == [each for each in whole if each["event"] not in course]
    assert {"lease", "begun", "request", "serves", "ended"} == {each["event"] for each in found}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("events", "--since", "yesterday"), "'yesterday' is no time; write 2030-01-31"),
        (("events", "--since", "3x"), "unknown unit 'x'"),
        (("audit", "--run", "7.7"), "no rollout '7.7'"),
        (("report", "7.7"), "no rollout '7.7'"),
    ],
)
def test_what_is_not_there_is_told(recorded: Kept, words: tuple[str, ...], told: str) -> None:
    """With what could be named instead."""
    ran = asked(recorded, *words)
    assert ran.code == 2 and told in ran.stderr


def test_a_service_that_was_never_deployed_has_no_events(tmp_path: Path) -> None:
    """It is said, and which ledger was asked."""
    for words in (("events",), ("audit",), ("report", "last")):
        ran = osvdeploy(*words, "other/production", "--ledger", str(tmp_path))
        assert ran.code == 2 and "was never deployed" in ran.stderr and str(tmp_path) in ran.stderr


@pytest.mark.parametrize(
    "words",
    [("status",), ("pause",), ("wait",), ("events",), ("recover",), ("rollback",), ("drift",), ("history",)],
    ids=lambda words: words[0],
)
def test_a_ledger_whose_directory_is_not_there_is_said_to_be_away(tmp_path: Path, words: tuple[str, ...]) -> None:
    """It may be unmounted; what goes back without it is named, once."""
    away = tmp_path / "away"
    ran = osvdeploy(*words, "other/production", "--ledger", str(away))
    assert ran.code == 2 and f"its ledger is away: there is no directory {away}" in ran.stderr
    assert "mount it" in ran.stderr and "OSVDEPLOY_LEDGER" in ran.stderr
    assert ran.stderr.count("`osvdeploy rollback other/production --from-cloud`") == 1
    assert not away.exists()


def test_so_it_is_where_all_of_its_services_are_asked_for(tmp_path: Path) -> None:
    """A ledger without services is another thing."""
    away = tmp_path / "away"
    ran = osvdeploy("status", "--all", "--ledger", str(away))
    assert ran.code == 2 and f"{away}: there is no such directory" in ran.stderr and "mount it" in ran.stderr
    away.mkdir()
    assert "has no service" in osvdeploy("status", "--all", "--ledger", str(away)).stderr


def test_a_terminal_is_not_told_what_to_do_by_a_guest(tmp_path: Path) -> None:
    """What a console has of escape sequences is shown, whichever command tells of it; a pipe has it raw."""
    service = Kept(tmp_path)
    service.cloud.behave(service.id("1.1.0"), sick_after=200.0, console=HOSTILE)
    outcome = service.deploy("1.1.0")
    assert "\x1b[31mred" in rollout_text(outcome)
    shown = io.StringIO()
    shown.isatty = lambda: True  # type: ignore[method-assign]
    with contextlib.redirect_stdout(shown):
        output._write(rollout_text(outcome))
    assert "␛[31mred" in shown.getvalue() and "\x1b" not in shown.getvalue() and "\n" in shown.getvalue()


@pytest.mark.slow
def test_who_follows_hears_what_happens(tmp_path: Path) -> None:
    """A document for each event on a line of its own, and with --run its end is the command's."""
    service = waiting(tmp_path)
    words = [sys.executable, "-m", "osvdeploy", "events", "--follow", "--json", "--run", "last", "hello/production"]
    with subprocess.Popen(
        [*words, "--ledger", str(tmp_path)], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    ) as following:
        assert following.stdout is not None
        before = following.stdout.readline()
        service.manager().request(service.context(), RequestKind.ABORT, "changed my mind")
        rest = following.stdout.read().splitlines()
        assert following.wait(60) == 0
    events = [json.loads(line) for line in (before, *rest)]
    assert {(each["schema"], each["command"]) for each in events} == {(1, "events")}
    assert len({each["id"] for each in events}) == len(events)
    (request,) = [each for each in events if each["event"] == "request" and each["told"].startswith("abort")]
    assert "changed my mind" in request["told"]
    assert any(each["event"] == "ended" for each in events)
