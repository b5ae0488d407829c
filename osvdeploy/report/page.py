"""The page: a rollout's outcome, its course in time, gates, people, evidence, and all that happened."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from xml.etree.ElementTree import Element

from osvdeploy.api import Report
from osvdeploy.report.course import course, lasting
from osvdeploy.report.markup import Child, element, written
from osvdeploy.report.samples import charts, sign, word
from osvdeploy.rollout.logbook import name_of
from osvdeploy.rollout.model import Outcome, Run, Stage
from osvdeploy.sizes import format_duration
from osvdeploy.version import __version__

_NOTHING_FROM_ELSEWHERE = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Whatever should get into the page after all, no browser runs, loads or sends it."""


def page(report: Report) -> str:
    """The whole file."""
    run = report.run
    title = f"{run.kind} of {run.candidate}: {_outcome(run)}"
    style = element("style")
    style.text = files("osvdeploy.report").joinpath("page.css").read_text(encoding="utf-8")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_NOTHING_FROM_ELSEWHERE),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        style,
    )
    main = element(
        "main",
        _course(report),
        _stages(report),
        _shares(report),
        _gates(report),
        *_hooks(report),
        _people(report),
        _calls(report),
        _evidence(report),
        _releases(report),
        _log(report),
    )
    body = element("body", _header(report), main, _footer(report))
    return written(element("html", head, body, lang="en"))


def _outcome(run: Run) -> str:
    return str(run.verdict) if run.over and run.verdict is not None else f"in stage {run.stage}"


def _header(report: Report) -> Element:
    run = report.run
    state = "good" if run.verdict is Outcome.SUCCEEDED else "bad" if run.verdict is not None else "open"
    lasted = lasting((report.until - run.started).total_seconds())
    return element(
        "header",
        element("p", report.service.name, class_="service"),
        element(
            "h1",
            f"{run.kind.capitalize()} of ",
            element("span", run.candidate, class_="id"),
            " ",
            element("strong", _outcome(run), class_=f"outcome {state}"),
        ),
        element("p", report.told + ".", class_="told"),
        _facts(
            ("by", run.by),
            ("begun", _time(run.started, day=True)),
            ("ended" if run.over else "still at", _time(report.until, day=True)),
            ("lasted", lasted),
            ("instead of", run.stable or "nothing: the first release"),
            ("machines", f"{run.capacity} in slot {run.slot}{', which stood already' if run.warm else ''}"),
            ("steps", _steps(run)),
            ("run", run.id),
        ),
    )


def _steps(run: Run) -> str:
    last = len(run.steps) - 1
    bakes = [run.settings.strategy.bake if place == last else step.bake for place, step in enumerate(run.steps)]
    return ", ".join(
        f"{step.weight} %" + (f" for {format_duration(bake)}" if bake else "")
        for step, bake in zip(run.steps, bakes, strict=True)
    )


def _course(report: Report) -> Element:
    return element("section", element("h2", "Course"), course(report))


def _stages(report: Report) -> Element:
    run = report.run
    rows: list[Sequence[Child]] = []
    for record in run.stages:
        lasted = lasting((record.left - record.entered).total_seconds())
        rows.append((_stage(record.stage), *_when(run, record.entered), lasted, record.why))
    if not run.over:
        lasted = lasting((report.until - run.entered).total_seconds())
        awaits = run.awaits(report.until)
        rows.append((_stage(run.stage), *_when(run, run.entered), lasted, f"goes on{': ' if awaits else ''}{awaits}"))
    return _section("Stages", ("stage", "entered (UTC)", "after", "lasted", "ended by"), rows)


def _shares(report: Report) -> Element:
    run = report.run
    rows: list[Sequence[Child]] = [
        (*_when(run, move.at), f"{move.weight} %", f"{100 - move.weight} %" if run.stable is not None else "none")
        for move in run.moves
    ]
    nothing = "No traffic was moved." if run.shifted is None else "The ledger does not say when traffic was moved."
    heading = ("set at (UTC)", "after", run.candidate, run.stable or "what was there")
    return _section("Shares of the traffic", heading, rows, nothing)


def _gates(report: Report) -> Element:
    run = report.run
    rows: list[Sequence[Child]] = [
        (
            element("span", word(gate), class_=sign(gate)),
            gate.gate,
            gate.stage,
            *_when(run, gate.at),
            gate.seen,
        )
        for gate in run.gates
    ]
    section = _section(
        "Gates", ("", "gate", "stage", "at (UTC)", "after", "seen"), rows, "No gate has decided anything yet."
    )
    if (drawn := charts(run)) is not None:
        section.append(drawn)
    return section


_BY_STEP = (Stage.SHIFT, Stage.BAKE)


def _hooks(report: Report) -> list[Element]:
    """What hooks came to; nothing where there are none."""
    run = report.run
    if not run.settings.hooks:
        return []
    rows: list[Sequence[Child]] = []
    for each in run.hooks:
        word, look = ("passed", "good") if each.passed else ("warned", "open") if each.warned else ("failed", "bad")
        stage = f"{each.stage} at {run.steps[each.step].weight} %" if each.stage in _BY_STEP else each.stage
        came = each.told if each.attempt == 1 else f"{each.told} (attempt {each.attempt})"
        rows.append((element("span", word, class_=look), each.hook, stage, *_when(run, each.at), came))
    section = _section(
        "Hooks", ("", "hook", "stage", "at (UTC)", "after", "what it came to"), rows, "No hook was asked."
    )
    for each in run.hooks:
        if each.output and each.output.strip() != each.told:
            said = f"{each.hook} ({each.stage}) said"
            section.append(element("h3", said))
            section.append(element("pre", each.output, tabindex="0", role="region", aria_label=said))
    return [section]


def _people(report: Report) -> Element:
    run = report.run
    asked: list[Sequence[Child]] = [
        (
            *_when(run, heard.request.at),
            heard.request.by,
            heard.request.kind,
            heard.request.why,
            heard.told if heard.done else f"not done: {heard.told}",
        )
        for heard in run.heard
    ]
    approvals: list[Sequence[Child]] = [
        (
            *_when(run, each.at),
            each.by,
            "the first traffic" if each.stage is Stage.SHIFT else f"going on from {run.steps[each.step].weight} %",
        )
        for each in run.approvals
    ]
    work: list[Sequence[Child]] = [
        (
            *_when(run, spell.begun),
            lasting((spell.ended - spell.begun).total_seconds()),
            name_of(spell.holder),
            str(spell.holder.pid),
            "gave the lease back" if spell.given_back else "last heard of then",
        )
        for spell in report.spells
    ]
    return element(
        "section",
        element("h2", "People"),
        _table(
            "What was asked of it",
            ("asked at (UTC)", "after", "by", "what", "why", "what came of it"),
            asked,
            "Nobody asked anything of it.",
        ),
        _table("Approvals", ("at (UTC)", "after", "by", "of"), approvals, "") if approvals else None,
        _table("Who was at work", ("from (UTC)", "after", "for", "who", "process", "end"), work, "Nobody."),
    )


def _calls(report: Report) -> Element:
    run = report.run
    rows: list[Sequence[Child]] = [
        (
            *_when(run, each.at),
            element("code", f"{each.service} {each.operation}"),
            f"{each.milliseconds} ms",
            each.error or "accepted",
        )
        for each in run.calls
    ]
    heading = ("answered at (UTC)", "after", "call", "took", "answer")
    nothing = "The ledger has none: nothing was changed, or an osvdeploy that did not keep them was at work."
    return _section("Calls that change the cloud", heading, rows, nothing)


def _evidence(report: Report) -> Element:
    kept: list[Child] = []
    for each in report.run.evidence:
        # Focusable, so that a keyboard can scroll it.
        kept += [
            element("h3", each.source),
            element("pre", each.text, tabindex="0", role="region", aria_label=each.source),
        ]
    nothing = element("p", "None was kept: it is what a failing release leaves behind.", class_="nothing")
    return element("section", element("h2", "Evidence"), *(kept or [nothing]))


def _releases(report: Report) -> Element:
    known = [(which, each) for which, each in (("rolled out", report.release), ("before", report.before)) if each]
    rows: list[Sequence[Child]] = [
        ("release", *(each.id for _, each in known)),
        ("version", *(each.version for _, each in known)),
        ("created", *(_time(each.created, day=True) for _, each in known)),
        ("by", *(each.by for _, each in known)),
        ("image", *(element("code", each.image) for _, each in known)),
        ("configuration", *(element("code", each.configuration) for _, each in known)),
    ]
    heading = ("", *(which for which, _ in known))
    return _section("Releases", heading, rows if known else [], "The ledger has no document of them.")


def _log(report: Report) -> Element:
    rows: list[Sequence[Child]] = [
        (*_when(report.run, each.at), each.who, each.kind, each.told) for each in report.entries
    ]
    return _section("All that happened", ("at (UTC)", "after", "who", "what", ""), rows)


def _footer(report: Report) -> Element:
    return element(
        "footer",
        element(
            "p",
            f"Made by osvdeploy {__version__} of the ledger {report.service.ledger}, "
            f"document {report.head.n}. Times are UTC.",
        ),
    )


# ------------------------------------------------------------------------------------------------------------- pieces


def _section(title: str, heading: Sequence[str], rows: Sequence[Sequence[Child]], nothing: str = "Nothing.") -> Element:
    return element("section", element("h2", title), _table(title, heading, rows, nothing, caption=False))


def _table(
    title: str, heading: Sequence[str], rows: Sequence[Sequence[Child]], nothing: str, *, caption: bool = True
) -> Element:
    """A table, each cell with its heading's name beside it, by which it stands on a narrow screen."""
    shown = element("h3", title) if caption else None
    if not rows:
        return element("div", shown, element("p", nothing, class_="nothing"))
    cells = [element("th", name, scope="col") for name in heading]
    lines = [
        element("tr", *(element("td", cell, data_label=name) for name, cell in zip(heading, row, strict=True)))
        for row in rows
    ]
    table = element(
        "table", element("thead", element("tr", *cells)), element("tbody", *lines), aria_label=title, role="table"
    )
    return element("div", shown, table)


def _facts(*facts: tuple[str, Child]) -> Element:
    pairs: Iterable[Element] = (element("div", element("dt", name), element("dd", value)) for name, value in facts)
    return element("dl", *pairs)


def _stage(stage: Stage) -> Element:
    return element("span", element("i", class_=f"swatch {stage}", aria_hidden="true"), str(stage))


def _when(run: Run, at: datetime) -> tuple[Child, Child]:
    """A time of day, and how long after the beginning."""
    after = (at - run.started).total_seconds()
    other_day = at.astimezone(UTC).date() != run.started.astimezone(UTC).date()
    return _time(at, day=other_day), f"+{format_duration(int(after))}" if after >= 1 else ""


def _time(at: datetime, *, day: bool = False) -> Element:
    shown = at.astimezone(UTC)
    return element("time", f"{shown:%Y-%m-%d %H:%M:%S}" if day else f"{shown:%H:%M:%S}", datetime=shown.isoformat())
