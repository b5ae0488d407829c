"""Metrics that are no cloud's: Prometheus, a JSON document, a command; each well, badly, or not at all."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from osvdeploy.cloud.interfaces import (
    CloudWatchMetric,
    CommandMetric,
    Grid,
    HealthRule,
    JsonMetric,
    Measured,
    PrometheusMetric,
    ReleaseId,
    Route,
    Sample,
    Slot,
    Statistic,
)
from osvdeploy.cloud.local import command_metric, http_json, prometheus
from osvdeploy.cloud.local.metrics import MetricSources
from osvdeploy.context import Context
from osvdeploy.errors import CloudError, Interrupted, Refused, Unavailable
from tests.alive import lives, until
from tests.cloud.local.test_prober import Start, start

__all__ = ["start"]

BEGAN = datetime(2030, 1, 1, 12, tzinfo=UTC)
GRID = Grid(BEGAN, 30.0, 3)
ROUTE = Route("0123456789", "hello/production", "l", 100, 8080, HealthRule("/", 5.0, 2.0), "x-preview")
GREEN = Measured(ROUTE, Slot.GREEN, ReleaseId("hello-2-1a2b3c4d"), "osvd-g")
CTX = Context()


def read(metric: Any, grid: Grid = GRID) -> tuple[Sample, ...]:
    return MetricSources().read(CTX, metric, GREEN, grid)


def answering(document: object, status: int = 200) -> Any:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()

    def serve(connection: Any, head: bytes) -> None:
        length = f"content-length: {len(body)}\r\n".encode()
        connection.sendall(f"HTTP/1.1 {status} X\r\n".encode() + length + b"\r\n" + body)

    return serve


def matrix(*series: list[tuple[float, str]]) -> dict[str, Any]:
    result = [{"metric": {}, "values": [[at, value] for at, value in each]} for each in series]
    return {"status": "success", "data": {"resultType": "matrix", "result": result}}


def at(interval: int) -> float:
    """When an interval ends."""
    return GRID.start(interval + 1).timestamp()


# ------------------------------------------------------------------------------------------------------- prometheus


def test_prometheus_is_asked_for_each_interval_at_its_end(start: Start) -> None:
    """What it tells of that moment looks back over the interval; where it tells nothing there is no sample."""
    server = start(answering(matrix([(at(0), "0.5"), (at(2), "1e-3")])))
    query = 'sum(rate(errors{release="{{release}}",slot="{{ slot }}",group="{{group}}"}[{{interval}}]))'
    found = read(PrometheusMetric(f"http://127.0.0.1:{server.port}/prom/", query))
    assert found == (Sample(GRID.start(0), 0.5), Sample(GRID.start(2), 0.001))
    target = urlsplit(server.requests[0].split(b" ")[1].decode())
    assert target.path == "/prom/api/v1/query_range"
    assert parse_qs(target.query) == {
        "query": ['sum(rate(errors{release="hello-2-1a2b3c4d",slot="green",group="osvd-g"}[30s]))'],
        "start": [str(int(BEGAN.timestamp()) + 30)],
        "end": [str(int(BEGAN.timestamp()) + 90)],
        "step": ["30"],
    }


def test_what_prometheus_counts_is_of_what_it_counts(start: Start) -> None:
    """No errors are none only where there were requests; NaN and infinity are nothing."""
    answers = iter([matrix([(at(0), "3"), (at(1), "NaN")]), matrix([(at(0), "60"), (at(1), "9"), (at(2), "20")])])
    server = start(lambda connection, head: answering(next(answers))(connection, head))
    found = read(PrometheusMetric(f"http://127.0.0.1:{server.port}", "errors", "requests"))
    assert found == (Sample(GRID.start(0), 3.0, 60.0), Sample(GRID.start(2), 0.0, 20.0))


def test_a_long_bake_is_asked_for_in_parts(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prometheus has a limit on points."""
    monkeypatch.setattr(prometheus, "MOST_POINTS", 2)
    answers = iter([matrix([(at(0), "1"), (at(1), "2")]), matrix([(at(2), "3")])])
    server = start(lambda connection, head: answering(next(answers))(connection, head))
    found = read(PrometheusMetric(f"http://127.0.0.1:{server.port}", "up"))
    assert [sample.value for sample in found] == [1.0, 2.0, 3.0]
    ends = [re.findall(rb"end=(\d+)", head)[0] for head in server.requests]
    assert ends == [str(int(at(number))).encode() for number in (1, 2)]


def test_prometheus_without_series_has_no_samples(start: Start) -> None:
    server = start(answering(matrix()))
    assert read(PrometheusMetric(f"http://127.0.0.1:{server.port}", "up")) == ()


def test_a_token_is_read_when_it_is_used(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is in no error."""
    server = start(answering(matrix(), 401))
    metric = PrometheusMetric(f"http://127.0.0.1:{server.port}", "up", None, "PROM_TOKEN")
    with pytest.raises(Refused, match="variable PROM_TOKEN is not set"):
        read(metric)
    monkeypatch.setenv("PROM_TOKEN", "s3cret\n")
    with pytest.raises(Refused, match="answered 401") as raised:
        read(metric)
    assert b"authorization: bearer s3cret\r\n" in server.requests[0].lower()
    assert "s3cret" not in f"{raised.value}{raised.value.hint}"


@pytest.mark.parametrize(
    ("document", "status", "error", "told"),
    [
        (matrix([(1.0, "1")], [(1.0, "2")]), 200, Refused, "the query has 2 series, of which a gate judges one"),
        ({"status": "error", "errorType": "bad_data", "error": "parse error"}, 400, Refused, "answered 400"),
        ({"status": "error", "errorType": "timeout", "error": "slow"}, 200, Refused, "timeout: slow"),
        ({"status": "error"}, 503, Unavailable, "answered 503"),
        ({"status": "success"}, 200, Refused, "answered nothing that a Prometheus would"),
        (matrix([(1.0, "many")]), 200, Refused, "answered nothing that a Prometheus would"),
        ([], 200, Refused, "answered nothing that a Prometheus would"),
        (b"<html>", 200, Refused, "answered no JSON: <html>"),
        (b"[" * 100_000, 200, Refused, "answered no JSON"),
        (b" " * (http_json.SIZE_LIMIT + 2), 200, Refused, "answered more than 1 MiB"),
    ],
)
def test_a_prometheus_that_answers_badly_is_told(
    start: Start, document: object, status: int, error: type[CloudError], told: str
) -> None:
    server = start(answering(document, status))
    with pytest.raises(error, match=told):
        read(PrometheusMetric(f"http://127.0.0.1:{server.port}", "up"))


def test_nobody_there_is_told() -> None:
    with pytest.raises(Unavailable, match=r"Prometheus at http://127\.0\.0\.1:1: "):
        read(PrometheusMetric("http://127.0.0.1:1", "up"))


# --------------------------------------------------------------------------------------------------------- documents

DOCUMENT = {"errors": {"ratio": 0.25, "last": [1, 2]}, "a/b": {"~": 7}, "up": True, "none": None, "text": "1"}


@pytest.mark.parametrize(("pointer", "value"), [("/errors/ratio", 0.25), ("/errors/last/1", 2.0), ("/a~1b/~0", 7.0)])
def test_a_document_tells_what_is_now(start: Start, pointer: str, value: float) -> None:
    """Which is the last interval's."""
    server = start(answering(DOCUMENT))
    found = read(JsonMetric(f"http://127.0.0.1:{server.port}/{{{{release}}}}/stats", pointer))
    assert found == (Sample(GRID.start(2), value),)
    assert server.requests[0].startswith(b"GET /hello-2-1a2b3c4d/stats ")


def test_a_document_may_be_a_number(start: Start) -> None:
    server = start(answering(3))
    assert read(JsonMetric(f"http://127.0.0.1:{server.port}/", ""))[0].value == 3.0


@pytest.mark.parametrize(
    ("pointer", "told"),
    [
        ("/errors/rate", "has nothing at /errors/rate; there is ratio, last"),
        ("/errors/last/9", "has nothing at /errors/last/9"),
        ("/errors/last/-1", "has nothing at"),
        ("/up", "at /up stands no number, but True"),
        ("/none", "stands no number, but None"),
        ("/text", "stands no number, but 1"),
        ("/errors", "stands no number, but a table or list"),
    ],
)
def test_what_is_no_number_is_told(start: Start, pointer: str, told: str) -> None:
    server = start(answering(DOCUMENT))
    with pytest.raises(Refused, match=told):
        read(JsonMetric(f"http://127.0.0.1:{server.port}/", pointer))


# ---------------------------------------------------------------------------------------------------------- commands


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Any]:
    """Makes a program of these lines; its path."""

    def write(*lines: str) -> str:
        path = tmp_path / "program"
        path.write_text("\n".join(("#!/bin/sh", *lines)) + "\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    yield write


def test_a_command_prints_what_is_now(program: Any) -> None:
    """It is handed words, which no shell looks at."""
    path = program("[ \"$1\" = 'hello-2-1a2b3c4d green; true $HOME' ] && printf '  1.5e-3\\n'")
    found = read(CommandMetric((path, "{{release}} {{slot}}; true $HOME")))
    assert found == (Sample(GRID.start(2), 0.0015),)


@pytest.mark.parametrize(
    ("lines", "error", "told"),
    [
        (["echo 1; echo no route >&2; exit 3"], Unavailable, r"cannot tell \(exit status 3\): no route"),
        (["kill -9 $$"], Unavailable, r"cannot tell \(ended by signal 9\)"),
        (["echo many"], Refused, "printed no number, but 'many'"),
        (["echo nan"], Refused, "printed no number, but 'nan'"),
        (["true"], Refused, "printed no number, but ''"),
        (["exec yes"], Refused, "prints more than 64 KiB"),
    ],
)
def test_a_command_that_cannot_tell_says_so(program: Any, lines: list[str], error: type[CloudError], told: str) -> None:
    with pytest.raises(error, match=told):
        read(CommandMetric((program(*lines),)))


def test_a_command_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="cannot be started: No such file"):
        read(CommandMetric((str(tmp_path / "none"),)))


def test_a_command_that_does_not_end_is_ended_with_all_that_it_started(
    program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_metric, "TIME_LIMIT", 0.3)
    path = program(f"sleep 60 & echo $! > {tmp_path}/child", "wait")
    with pytest.raises(Unavailable, match="did not end within"):
        read(CommandMetric((path,)))
    child = int((tmp_path / "child").read_text())
    until(lambda: not lives(child))


def test_a_cancel_ends_a_command(program: Any) -> None:
    ctx = Context()
    ctx.cancel.cancel()
    path = program("sleep 60")
    with pytest.raises(Interrupted):
        MetricSources().read(ctx, CommandMetric((path,)), GREEN, GRID)


# --------------------------------------------------------------------------------------------------------------- all


def test_of_no_interval_nobody_is_asked() -> None:
    """Nor is a program run."""
    assert read(CommandMetric(("/nowhere",)), Grid(BEGAN, 30.0, 0)) == ()


def test_a_place_without_metrics_says_so() -> None:
    with pytest.raises(Refused, match="cloudwatch: this place has no metrics"):
        read(CloudWatchMetric("RequestCount", None, Statistic.SUM))


def test_placeholders_that_nobody_knows_stay() -> None:
    """Braces are PromQL's too."""
    assert GREEN.filled('x{a="{{b}}"} {{interval}}', 90.0) == 'x{a="{{b}}"} 90s'
