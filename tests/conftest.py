"""Options of the whole suite."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import re
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.terminal import TerminalReporter

HERE = Path(__file__).resolve().parent
BENCHMARKS = HERE / "benchmarks"

# Collecting tests makes many objects and drops few: looking for garbage among them took a tenth of the suite's time.
gc.set_threshold(20_000)

# A shell without job control lets what it starts in the background ignore Ctrl-C, and so would all that tests start and
# interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


SLOWEST = (
    "faults/test_matrix.py",
    "pulumi/test_deployment_programs.py",
    "faults/test_gcp_crashes.py",
    "faults/test_deploy_crashes.py",
    "faults/test_slow_cloud.py",
    "faults/test_two_controllers.py",
    "faults/test_killed.py",
    "pulumi/test_image_programs.py",
    "pulumi/test_deployments.py",
    "pulumi/test_programs.py",
    "pulumi/test_aws_ami.py",
    "faults/test_rollout_crashes.py",
    "faults/test_publish_crashes.py",
    "faults/test_import_crashes.py",
)
"""Files whose single tests take longest, the longest first. They are begun with."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--benchmarks", action="store_true", help="measure; prints ratios, asserts no time")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Measuring takes a while and says nothing on a busy machine: only when asked for."""
    asked: bool = config.getoption("--benchmarks")
    return True if not asked and BENCHMARKS in (collection_path, *collection_path.parents) else None


def asked_for_live(config: pytest.Config) -> bool:
    """Whether ``-m`` wants live tests."""
    return re.search(r"(?<!not )\blive\b", str(config.option.markexpr)) is not None


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Live tests share a balancer and a budget, so one process runs them."""
    if asked_for_live(config) and not config.getoption("collectonly"):
        config.option.numprocesses = 0


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Of everything, each worker imports a part before it collects the whole: pytest rewrites each test's asserts and
    keeps them, and in a fresh clone workers that go through the same files in the same order all do the same work."""
    worker = getattr(session.config, "workerinput", None)
    if worker is None or [Path(arg).resolve() for arg in session.config.args] != [HERE]:
        return
    files = sorted(HERE.rglob("test_*.py"))
    for file in files[int(worker["workerid"][2:]) :: worker["workercount"]]:
        if BENCHMARKS not in file.parents:
            # What is wrong with a file, or why it is skipped, is told when it is collected.
            with contextlib.suppress(Exception, pytest.skip.Exception):
                importlib.import_module(".".join(("tests", *file.relative_to(HERE).with_suffix("").parts)))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Live tests are left out unless asked for, and then held to what they were told.

    Where slow tests are left out, an answer is wanted soon, and properties take half of the time: fewer examples.

    A run of everything (`make test`) tries all of them.
    """
    if asked_for_live(config):
        from tests.live.selection import hold

        hold(config, items)
    elif ours := [item for item in items if item.get_closest_marker("live") is not None]:
        items[:] = [item for item in items if item.get_closest_marker("live") is None]
        config.hook.pytest_deselected(items=ours)
    items.sort(key=_rank)
    if "not slow" in config.option.markexpr:
        # Imported here, where the tests were: the process that only hands them out to workers has no use for it.
        from tests.properties import try_fewer

        for test in {item.obj for item in items if isinstance(item, pytest.Function)}:
            try_fewer(test)


def _rank(item: pytest.Item) -> int:
    """Where an item's file stands in the order; within a file and among all others the order is kept.

    xdist's worksteal gives each worker one stretch of the items, and who is done takes half of what another has left,
    from its end. So the first worker begins with the slow ones while the other does quick ones, and takes over quick
    ones first and the least slow ones last: both end within a test of each other. In the order of their names a slow
    file may come last, and one worker is left alone with it for minutes.
    """
    file = "/".join(item.path.parts[-2:])
    return SLOWEST.index(file) if file in SLOWEST else len(SLOWEST)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """What Google's adapters ask of the sandbox is held to Google's own types. The unit suite, which has no time to
    import them, leaves these tests out."""
    place = sys.modules.get("tests.contract.gcp_place")
    if place is not None:
        from tests.google_types import Judge

        place.judge = Judge() if item.get_closest_marker("sandbox") is not None else None  # type: ignore[attr-defined]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Tests that fork much do so where a fork costs little."""
    if pyfuncitem.get_closest_marker("forks") is None:
        return None
    from tests.faults import lean

    lean.run(pyfuncitem)
    return True


@pytest.fixture(scope="session", autouse=True)
def no_power_cuts(request: pytest.FixtureRequest) -> Iterator[None]:
    """Nothing waits for a disk in this process: what is written through to one survives a power cut, which no test
    makes, and a kill -9 without it. On a busy disk that wait is as long as all else that a small test does. Processes
    that a test starts do wait, and what is measured does."""
    with pytest.MonkeyPatch.context() as patched:
        if not request.config.getoption("--benchmarks"):
            patched.setattr(os, "fsync", os.fstat)
        yield


MOST = pytest.StashKey[int]()
"""The most memory, in KiB, that this process had when it was last looked for garbage."""


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """A sandbox with its objects is a circle of few things and many bytes: the collector, which counts things, would
    let a dozen of them pile up in a worker."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if most > item.config.stash.get(MOST, 0) + 64 * 1024:
        gc.collect()
        item.config.stash[MOST] = most


def pytest_collection_finish() -> None:
    """What was imported stays: nobody needs to look through it for garbage again."""
    gc.freeze()


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """What tests have to tell beside that they passed (record_property("told", ...)): how much of it they tried."""
    told = [
        (report.nodeid.rpartition("/")[2].partition("::")[0], value)
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == "told" and report.when == "call"
    ]
    if told:
        terminalreporter.section("told")
        for file, value in sorted(told):
            terminalreporter.write_line(f"{file}: {value}")
