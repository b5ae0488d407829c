"""The file of a rollout: all of it, and no word that is taken for markup."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest

from osvdeploy.errors import UsageError
from osvdeploy.report import page
from osvdeploy.report.course import Axis
from osvdeploy.rollout.model import CallMade
from osvdeploy.visible import visible
from tests.report.recorded import Kept, bad, good, measured, waiting
from tests.rollout.made import NOW

pytestmark = pytest.mark.whole


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    return bad(tmp_path_factory.mktemp("bad"))


@pytest.fixture(scope="module")
def succeeded(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    return good(tmp_path_factory.mktemp("good"))


class Read(HTMLParser):
    """The page as a parser has it: elements and their text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)


def test_the_page_tells_outcome_course_and_people(succeeded: Kept) -> None:
    """Who, what, each stage, each share, each gate, each request."""
    report = succeeded.report()
    read = Read(page(report))
    assert f"deploy of {report.run.candidate}: succeeded" in read.text
    for word in (report.run.by, report.run.id, report.run.stable or "", "ann@desk", "lunch <b>& more</b>"):
        assert word in read.text
    for record in report.run.stages:
        assert record.why in read.text
    for gate in report.run.gates:
        assert gate.seen in read.text
    assert [f"{move.weight} %" in read.text for move in report.run.moves] == [True, True, True]


def test_nothing_in_it_comes_from_elsewhere(failed: Kept, succeeded: Kept) -> None:
    """No script, no address that a browser would ask; and it forbids both itself."""
    for service in (failed, succeeded):
        read = Read(page(service.report()))
        assert not {"script", "link", "img", "iframe", "object", "a", "form"} & set(read.tags)
        loading = [
            (tag, name) for tag, name, _ in read.attributes if name in ("src", "href", "srcset", "data", "action")
        ]
        assert not loading and not [name for _, name, _ in read.attributes if name.startswith("on")]
        assert ("meta", "http-equiv", "Content-Security-Policy") in read.attributes
        assert "url(" not in page(service.report()) and "@import" not in page(service.report())


def test_a_guests_words_are_words(failed: Kept) -> None:
    """Markup, terminal codes, NUL, what turns text around and halves of characters are shown, not obeyed."""
    text = page(failed.report())
    text.encode()
    read = Read(text)
    assert "</pre><script>document.title='pwned'</script>" in read.text
    assert "␛[31mred␛[0m nul:␀ c1:\\u009b turned:\\u202eevil" in read.text
    assert visible("a\ud800\r\nb\rc\td") == "a\\ud800\nb␍c\td"
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)


def test_evidence_is_there_whole(failed: Kept) -> None:
    """Each source with each word of it."""
    report = failed.report()
    read = Read(page(report))
    assert report.run.evidence
    for evidence in report.run.evidence:
        assert evidence.source in read.text and visible(evidence.text) in read.words


def test_calls_that_changed_the_cloud_are_there_with_their_answers(succeeded: Kept) -> None:
    """Each with its time; a refusal by its code."""
    report = succeeded.report()
    made = (
        CallMade(NOW, "elbv2", "ModifyRule", 41),
        CallMade(NOW, "autoscaling", "DeleteAutoScalingGroup", 70, "AccessDenied<b>"),
    )
    assert "The ledger has none" in Read(page(report)).text
    read = Read(page(replace(report, run=replace(report.run, calls=made))))
    for word in ("elbv2 ModifyRule", "41 ms", "accepted", "autoscaling DeleteAutoScalingGroup", "AccessDenied<b>"):
        assert word in read.words


def test_one_under_way_says_what_it_waits_for(tmp_path: Path) -> None:
    """And its last stage goes on until now."""
    service = waiting(tmp_path)
    service.time.advance(3600)
    report = service.report()
    assert report.until == service.time.now()
    read = Read(page(report))
    assert "in stage shift" in read.text and "goes on: approval before" in read.text


def test_a_run_is_named_by_id_release_or_version(succeeded: Kept) -> None:
    """The last time that it was rolled out; `last` is the last one."""
    last = succeeded.report()
    first = succeeded.report("1.0.0")
    assert first.run.candidate == succeeded.id("1.0.0") and last.run.candidate == succeeded.id("1.1.0")
    for name in (last.run.id, last.run.candidate, "1.1.0"):
        assert succeeded.report(name).run == last.run
    with pytest.raises(UsageError, match=r"no rollout '9\.9\.9'") as refused:
        succeeded.report("9.9.9")
    assert refused.value.hint is not None and last.run.id in refused.value.hint


def test_a_report_has_what_is_its_own_alone(succeeded: Kept) -> None:
    """Neither what was before it nor what came after."""
    first, last = succeeded.report("1.0.0"), succeeded.report()
    assert {entry.run for entry in first.entries} == {None, first.run.id}
    assert not {entry.id for entry in first.entries} & {entry.id for entry in last.entries}
    succeeded.manager().hold(succeeded.context(), None, "later")
    assert [entry.told for entry in succeeded.report().entries] == [entry.told for entry in last.entries]


def test_an_axis_has_few_ticks_whatever_its_length() -> None:
    """From a second to months: at most seven with the beginning, all on it."""
    for seconds in (0.2, 1, 59, 61, 3600, 86400, 40 * 86400, 400 * 86400):
        axis = Axis(NOW, NOW + timedelta(seconds=seconds))
        ticks = axis.ticks()
        assert 1 <= len(ticks) <= 7 and ticks[0] == 0 and ticks[-1] <= axis.seconds
    assert Axis(NOW, NOW + timedelta(seconds=10)).at(NOW + timedelta(seconds=99)) == 100


def test_a_metric_gate_shows_its_samples_and_its_bound(tmp_path: Path) -> None:
    """Of the new release and, where it is compared, of the old one; the same in words."""
    text = page(measured(tmp_path).report())
    shown = Read(text).text
    assert "errors <of orders>" in shown and "held to max 0.01" in shown
    assert 'class="bound"' in text and 'class="dot stable"' in text and 'class="dot candidate"' in text
    assert "(dry run)" in shown and "held to max-ratio 1.5" in shown
    assert "failed" in shown


def test_a_gate_that_came_to_no_end_shows_what_it_had_counted(tmp_path: Path) -> None:
    """Where health has ended the bake before: with its samples, and as neither passed nor failed."""
    report = measured(tmp_path, sick_after=400.0).report()
    text = page(report)
    [record] = [each for each in report.run.gates if each.gate == "errors <of orders>"]
    assert record.answer is None and len(record.samples) >= 2
    assert '<span class="open">undecided</span>' in text and record.seen in Read(text).text
    assert f"{len(record.samples)} samples over" in text and "gate inconclusive or undecided" in text
