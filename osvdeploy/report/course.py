"""The chart: stages, shares of the traffic, gates and requests on one axis of time.

Geometry is SVG without text, drawn to whatever width there is; what is read is HTML, which a narrow screen does not
shrink.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from xml.etree.ElementTree import Element

from osvdeploy.api import Report
from osvdeploy.report.markup import Child, element
from osvdeploy.rollout.gates import Verdict
from osvdeploy.rollout.model import GateRecord, Run, Stage
from osvdeploy.sizes import format_duration

_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400)
"""Seconds between two ticks."""
_TICKS = 6
"""At most: so many fit on a telephone."""
_HEIGHT = 100


@dataclass(frozen=True, slots=True)
class Axis:
    """Time from left to right."""

    begin: datetime
    end: datetime

    @property
    def seconds(self) -> float:
        return max((self.end - self.begin).total_seconds(), 1.0)

    def at(self, moment: datetime) -> float:
        """Where a moment is, in percent."""
        return min(100.0, max(0.0, (moment - self.begin).total_seconds() / self.seconds * 100))

    def ticks(self) -> list[float]:
        """Seconds after the beginning that are written below."""
        step = next((each for each in _STEPS if self.seconds / each <= _TICKS), 0) or _days(self.seconds)
        return [float(second) for second in range(0, int(self.seconds) + 1, step)]


def _days(seconds: float) -> int:
    return 86400 * (int(seconds // 86400 // _TICKS) + 1)


def lasting(seconds: float) -> str:
    """A length of time, for people; what a single look has settled took none."""
    return format_duration(seconds) if seconds >= 0.001 else "at once"


def course(report: Report) -> Element:
    """The figure."""
    axis = Axis(report.run.started, report.until)
    return element(
        "figure",
        element("figcaption", _described(report)),
        element(
            "div",
            _row("stages", _strip(report, axis), "strip"),
            _row(f"share of {report.run.candidate}", _weights(report, axis), "weights"),
            _row("gates", _gates(report.run, axis), "marks"),
            _row("asked by people", _requests(report.run, axis), "marks") if report.run.heard else None,
            _row("", _ticks(axis), "ticks"),
            class_="chart",
        ),
        _legend(report.run),
        class_="course",
    )


def _described(report: Report) -> str:
    run = report.run
    shares = ", ".join(f"{move.weight} %" for move in run.moves) or "none"
    return (
        f"{lasting((report.until - run.started).total_seconds())} from left to right; shares of the traffic, one "
        f"after the other: {shares}. The tables below say the same in words."
    )


def _row(name: str, drawn: Element, kind: str) -> Element:
    return element("div", element("div", name, class_="label"), drawn, class_=f"row {kind}", aria_hidden="true")


def _strip(report: Report, axis: Axis) -> Element:
    run = report.run
    parts = [(each.stage, each.entered, each.left) for each in run.stages]
    if not run.over:
        parts.append((run.stage, run.entered, report.until))
    drawn = [
        element(
            "div",
            element("span", str(stage)),
            class_=f"stage {stage}",
            style=f"left:{axis.at(entered):.3f}%;width:{axis.at(left) - axis.at(entered):.3f}%",
            title=f"{stage}: {lasting((left - entered).total_seconds())}",
        )
        for stage, entered, left in parts
    ]
    return element("div", *drawn, class_="plot")


def _weights(report: Report, axis: Axis) -> Element:
    """A step for each change; below the line is the candidate's."""
    x, y = 0.0, float(_HEIGHT)
    line = [f"M{x:g},{y:g}"]
    labels: list[Child] = []
    for move in report.run.moves:
        x = axis.at(move.at)
        line.append(f"H{x:.3f}")
        y = float(_HEIGHT - move.weight)
        line.append(f"V{y:g}")
        left = f"left:min({x:.3f}%, calc(100% - 3.2em));bottom:{move.weight}%"
        labels.append(element("span", f"{move.weight} %", class_="value", style=left))
    line.append("H100")
    path = " ".join(line)
    grid = [element("path", d=f"M0,{level} H100", class_="grid") for level in (0, 50, 100)]
    svg = element(
        "svg",
        *grid,
        element("path", d=f"{path} V{_HEIGHT} H0 Z", class_="area"),
        element("path", d=path, class_="line"),
        viewBox=f"0 0 100 {_HEIGHT}",
        preserveAspectRatio="none",
    )
    levels = [element("span", f"{level} %", class_="level", style=f"bottom:{level}%") for level in (0, 50, 100)]
    return element("div", svg, *levels, *labels, class_="plot")


def _gates(run: Run, axis: Axis) -> Element:
    marks = [_mark(_sign(gate), axis.at(gate.at), f"{gate.gate}: {gate.seen}") for gate in run.gates]
    return element("div", *marks, class_="plot")


def _sign(gate: GateRecord) -> str:
    undecided = gate.verdict in (Verdict.INCONCLUSIVE, Verdict.UNDECIDED)
    return "passed" if gate.passed else "open" if undecided else "failed"


def _requests(run: Run, axis: Axis) -> Element:
    marks = [_mark("asked", axis.at(each.at), f"{each.request.by}: {each.request.kind}") for each in run.heard]
    return element("div", *marks, class_="plot")


_SIGNS = {"passed": "✓", "failed": "✗", "open": "?", "asked": "●"}
_KINDS = {"passed": "gate passed", "failed": "gate failed", "open": "gate inconclusive or undecided"}


def _mark(kind: str, left: float, title: str) -> Element:
    return element("span", _SIGNS[kind], class_=f"mark {kind}", style=f"left:{left:.3f}%", title=title)


def _ticks(axis: Axis) -> Element:
    drawn = []
    for second in axis.ticks():
        left = second / axis.seconds * 100
        # The last one would hang over the edge.
        edge = "first" if second == 0 else "last" if left > 94 else ""
        told = format_duration(second) if second else "0"
        drawn.append(element("span", told, class_=f"tick {edge}".strip(), style=f"left:{left:.3f}%"))
    return element("div", *drawn, class_="plot")


def _legend(run: Run) -> Element:
    stages = list(dict.fromkeys([*(each.stage for each in run.stages), *([] if run.over else [run.stage])]))
    items = [_item(element("i", class_=f"swatch {stage}"), str(stage)) for stage in stages if stage is not Stage.DONE]
    there = {_sign(gate) for gate in run.gates}
    items += [_item(element("b", _SIGNS[kind], class_=kind), told) for kind, told in _KINDS.items() if kind in there]
    if run.heard:
        items.append(_item(element("b", _SIGNS["asked"], class_="asked"), "somebody asked"))
    return element("ul", *items, class_="legend", aria_hidden="true")


def _item(sign: Element, name: str) -> Element:
    return element("li", sign, " ", name)
