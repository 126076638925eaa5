"""`@pytest.mark.faults(seeds=200, profile="everything")`: one test, run once for each seed of faults.

Each run is a whole one: its fixtures of function scope are made anew, and those of a wider scope stay. The first seed
that fails is shrunk to as few faults as it fails with, and its report says what happened. A test that is expected to
fail has done so with its first seed that fails; one with `xfail(strict=True)` fails when it passes with all of them.
"""

from __future__ import annotations

import inspect
import os
import shlex
from collections.abc import Sequence
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from pipeline.emulator.faults.plan import Faults
from pipeline.emulator.faults.profiles import Profile, profile_named
from pipeline.emulator.faults.shrink import RUNS, SECONDS, shrunk
from pipeline.emulator.faults.story import tell, told_faults
from pipeline.errors import ConfigurationError
from pipeline.testing.plugin import PLAN

_SEEDS = 200
_PROFILE = "everything"


def check(item: pytest.Item, marker: pytest.Mark) -> None:
    """Raise `pytest.UsageError` for a marker that cannot be meant."""
    where = item.nodeid
    if not isinstance(item, pytest.Function) or inspect.iscoroutinefunction(item.obj):
        raise pytest.UsageError(f"{where}: faults() is for plain functions: write 'def', the emulator has its own loop")
    if "emulator" not in item.fixturenames:
        raise pytest.UsageError(f"{where}: faults() needs the fixture 'emulator': that is where things go wrong")
    unknown = [*map(repr, marker.args), *(name for name in marker.kwargs if name not in ("seeds", "profile"))]
    if unknown:
        raise pytest.UsageError(f"{where}: faults() takes seeds= and profile=, not {', '.join(unknown)}")
    seeds = marker.kwargs.get("seeds", _SEEDS)
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
        raise pytest.UsageError(f"{where}: faults(seeds={seeds!r}): give a whole number, at least 1")
    try:
        _profile(marker)
    except ConfigurationError as error:
        raise pytest.UsageError(f"{where}: faults(profile=...): {error}") from None


def run(item: pytest.Item, marker: pytest.Mark, nextitem: pytest.Item | None) -> None:
    """Run the test with one seed after the other, and report it as one test."""
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    runs = _Runs(item)
    reports: list[pytest.TestReport] = []
    seeds = _seeds(item.config, marker)
    for seed in seeds:
        reports = runs.run(Faults(seed, _profile(marker)))
        if any(map(_passed_against_all_odds, reports)):
            continue  # it is enough when it fails with one seed
        if any(report.failed for report in reports):
            reports = _explained(runs, reports, item, seed - seeds.start)
        if not all(report.passed for report in reports):
            break
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    # What a wider scope holds is let go when no test needs it any more.
    state: Any = getattr(item.session, "_setupstate")  # noqa: B009 - pytest has no public name for it
    ending = pytest.CallInfo.from_call(lambda: state.teardown_exact(nextitem), when="teardown")
    if ending.excinfo is not None:
        item.ihook.pytest_runtest_logreport(report=item.ihook.pytest_runtest_makereport(item=item, call=ending))
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)


class _Again(pytest.Item):
    """Stands for the next run of the same test, so that what has a wider scope than a function stays."""

    def runtest(self) -> None:
        raise NotImplementedError


class _Runs:
    """Runs a test again and again."""

    def __init__(self, item: pytest.Item) -> None:
        self._item = item
        self._sections: list[Any] = getattr(item, "_report_sections")  # noqa: B009 - nor for this
        parent: Any = item.parent
        self._again: pytest.Item = _Again.from_parent(parent, name=item.name)

    def run(self, faults: Faults) -> list[pytest.TestReport]:
        """Run it once, from setup to teardown."""
        self._item.stash[PLAN] = faults
        self._sections.clear()  # what the run before wrote and logged
        return runtestprotocol(self._item, log=False, nextitem=self._again)


def _explained(
    runs: _Runs, reports: list[pytest.TestReport], item: pytest.Item, passed: int
) -> list[pytest.TestReport]:
    """The reports of the failing run with the fewest faults, with its story."""
    faults = item.stash[PLAN]
    ids = [fired.id for fired in faults.fired]
    failure = _failure(reports)
    if item.config.getoption("usepdb", default=False):  # the debugger has seen this one: that is enough
        return _with_story(reports, item, faults, ids, passed)
    fewest = shrunk(ids, lambda only: _failure(runs.run(faults.again(only))) == failure)
    again = faults.again(fewest.ids)
    shrunk_reports = runs.run(again)
    if _failure(shrunk_reports) != failure:
        return _with_story(reports, item, faults, ids, passed)
    return _with_story(shrunk_reports, item, again, ids, passed, stopped_early=not fewest.is_smallest)


def _passed_against_all_odds(report: pytest.TestReport) -> bool:
    """A test with `xfail(strict=True)` has passed: only the text says so, and not that it failed."""
    return isinstance(report.longrepr, str) and report.longrepr.startswith("[XPASS(strict)]")


def _failure(reports: Sequence[pytest.TestReport]) -> tuple[Any, ...] | None:
    """Where a run failed: what is the same when the same goes wrong. None: it did not."""
    for report in reports:
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            place = (crash.path, crash.lineno) if crash is not None else ()
            return (report.when, *place)
    return None


def _with_story(
    reports: list[pytest.TestReport],
    item: pytest.Item,
    faults: Faults,
    ids: Sequence[str],
    passed: int,
    *,
    stopped_early: bool = False,
) -> list[pytest.TestReport]:
    failed = next(report for report in reports if report.failed)
    text = _told(item, faults, ids, passed, stopped_early=stopped_early)
    title = f"faults: seed {faults.seed}"
    add: Any = getattr(failed.longrepr, "addsection", None)
    if add is not None:
        add(title, text)
    else:
        failed.sections.append((title, text))
    return reports


def _told(item: pytest.Item, faults: Faults, ids: Sequence[str], passed: int, *, stopped_early: bool) -> str:
    # A node's id begins at the root of the project, and one may be anywhere in it.
    path = os.path.relpath(item.path, item.config.invocation_params.dir)
    command = f"pytest {shlex.quote(path + item.nodeid[item.nodeid.index('::') :])} --faults-seed {faults.seed}"
    before = f", and {passed} before it passed" if passed else ""
    lines = [
        f'Seed {faults.seed} of the profile "{faults.profile.name}" fails{before}. To replay it:',
        f"  {command}",
        "",
    ]
    fired = told_faults(faults)
    if stopped_early:
        fired.append(f"Shrinking stopped early, after {RUNS} runs or {SECONDS:.0f} s: it may fail with fewer.")
    if not faults.fired:
        lines.append("It fails also when nothing goes wrong. What happened:")
    elif len(faults.fired) == len(ids):
        lines += [
            f"Its {len(faults.fired)} faults:" if len(faults.fired) > 1 else "Its only fault:",
            *fired,
            "",
            "What happened:",
        ]
    else:
        are = "faults are" if len(faults.fired) > 1 else "fault is"
        lines += [f"Of its {len(ids)} faults {len(faults.fired)} {are} enough:", *fired, "", "What happened then:"]
    return "\n".join([*lines, tell(faults)])


def _seeds(config: pytest.Config, marker: pytest.Mark) -> range:
    seed = config.getoption("faults_seed")
    if seed is not None:
        return range(seed, seed + 1)
    seeds = config.getoption("faults_seeds")
    return range(marker.kwargs.get("seeds", _SEEDS) if seeds is None else seeds)


def _profile(marker: pytest.Mark) -> Profile:
    found = marker.kwargs.get("profile", _PROFILE)
    return found if isinstance(found, Profile) else profile_named(str(found))
