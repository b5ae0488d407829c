"""A metric gate's samples in time, with the bound that they were held to, and stable's beside them.

Geometry without text in SVG, words in HTML, as the course has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from xml.etree.ElementTree import Element

from osvdeploy.cloud.interfaces import Sample
from osvdeploy.report.course import Axis, lasting
from osvdeploy.report.markup import element
from osvdeploy.rollout.gates import Bound, Compared, Verdict
from osvdeploy.rollout.model import GateRecord, Run

_HEIGHT = 60
_ROOM = 1.15
"""What the scale has above the highest number."""


def charts(run: Run) -> Element | None:
    """A figure for each record of a metric gate that has samples; None where none has."""
    drawn = [_chart(run, record) for record in run.gates if record.samples or record.stable]
    return element("div", *drawn, class_="samples") if drawn else None


def word(record: GateRecord) -> str:
    """How a gate decided, in a word or two."""
    if record.verdict in (Verdict.INCONCLUSIVE, Verdict.UNDECIDED):
        told = str(record.verdict)
    else:
        told = "passed" if record.passed else "failed"
    return f"{told} (dry run)" if record.dry_run else told


def sign(record: GateRecord) -> str:
    """Which of the page's colours says so."""
    if record.verdict in (Verdict.INCONCLUSIVE, Verdict.UNDECIDED) or record.dry_run:
        return "open"
    return "passed" if record.passed else "failed"


def _number(sample: Sample) -> float:
    """A rate, where it was counted of something."""
    return sample.value / sample.of if sample.of else sample.value


def _chart(run: Run, record: GateRecord) -> Element:
    bounds = [bound for gate in run.settings.gates if gate.name == record.gate for bound in gate.bounds]
    fixed = [bound for bound in bounds if bound.compared is Compared.VALUE]
    both = [*record.samples, *record.stable]
    times = sorted(sample.at for sample in both)
    axis = Axis(times[0], times[-1])
    numbers = [_number(sample) for sample in both]
    top = max(*numbers, *(bound.limit for bound in fixed), 0.0) * _ROOM or 1.0
    bottom = min(*numbers, 0.0)

    def height(number: float) -> float:
        return _HEIGHT * (1 - (number - bottom) / (top - bottom))

    lines: list[Element | None] = [
        element("path", d=f"M0,{height(bound.limit):.3f} H100", class_="bound")
        for bound in fixed
        if bottom <= bound.limit <= top
    ]
    lines += [_line(axis, record.stable, height, "stable"), _line(axis, record.samples, height, "line")]
    svg = element("svg", *lines, viewBox=f"0 0 100 {_HEIGHT}", preserveAspectRatio="none")
    dots = [
        element("i", class_=f"dot {kind}", style=f"left:{axis.at(each.at):.3f}%;top:{height(_number(each)):.3f}px")
        for kind, samples in (("stable", record.stable), ("candidate", record.samples))
        for each in samples
    ]
    told = f"{len(record.samples)} samples over {lasting((times[-1] - times[0]).total_seconds())}"
    return element(
        "figure",
        element(
            "figcaption",
            element("strong", record.gate),
            " ",
            element("span", word(record), class_=sign(record)),
            f": {record.seen}",
        ),
        element("div", svg, *dots, class_="plot", aria_hidden="true"),
        element("p", "; ".join([told, *_described(record, bounds)]), class_="scale"),
    )


def _line(axis: Axis, samples: Sequence[Sample], height: Callable[[float], float], kind: str) -> Element | None:
    points = [f"{axis.at(sample.at):.3f},{height(_number(sample)):.3f}" for sample in samples]
    return element("path", d="M" + " L".join(points), class_=kind) if points else None


def _described(record: GateRecord, bounds: Sequence[Bound]) -> list[str]:
    """The figures in words: what a reader who sees no picture has of it."""
    both = (("new", record.samples), ("old", record.stable))
    told = [f"{name} {_range(samples)}" for name, samples in both if samples]
    if bounds:
        told.append(f"held to {', '.join(str(bound) for bound in bounds)}")
    return told


def _range(samples: Sequence[Sample]) -> str:
    numbers = [_number(sample) for sample in samples]
    low, high = min(numbers), max(numbers)
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
