"""The pytest plugin. pytest loads it in every run, so it imports nothing until a fixture or a marker is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from pipeline.emulator.faults.plan import Faults
    from pipeline.testing.emulator import Emulator

#: What goes wrong in a test's next run.
PLAN: pytest.StashKey[Faults] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of `@pytest.mark.faults`."""
    group = parser.getgroup("pipeline", "faults in the emulator")
    group.addoption("--faults-seed", type=int, metavar="N", help="run tests that are marked with faults with this seed")
    group.addoption("--faults-seeds", type=int, metavar="N", help="run them with so many seeds, whatever they ask for")


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known. Raises `pytest.UsageError` for an option that cannot be meant."""
    seeds = config.getoption("faults_seeds")
    if seeds is not None and seeds < 1:
        raise pytest.UsageError(f"--faults-seeds {seeds}: give at least 1")
    config.addinivalue_line(
        "markers",
        'faults(seeds=200, profile="everything"): run the test once for each seed, each time with an `emulator` in which '
        "other things go wrong",
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a marker that cannot be meant before anything runs, of the tests that are selected."""
    for item in items:
        marker = item.get_closest_marker("faults")
        if marker is not None:
            from pipeline.testing.faults_marker import check

            check(item, marker)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Run a test with the marker once for each seed."""
    marker = item.get_closest_marker("faults")
    if marker is None:
        return None
    from pipeline.testing.faults_marker import run

    run(item, marker, nextitem)
    return True


@pytest.fixture
def emulator(request: pytest.FixtureRequest) -> Generator[Emulator, None, None]:
    """AWS in memory and virtual time, opened; with `@pytest.mark.faults` things go wrong there."""
    from pipeline.testing.emulator import Emulator

    faults = request.node.stash.get(PLAN, None)
    with Emulator(seed=0 if faults is None else faults.seed, faults=faults) as aws:
        yield aws


@pytest.fixture
def pipeline_local() -> Callable[..., Any]:
    """`async with pipeline_local(shop) as env:` runs a pipeline on an embedded AWS server."""
    from pipeline.testing.local import local

    return local


@pytest.fixture
def pipeline_invoke() -> Callable[..., Any]:
    """`pipeline_invoke(price, [{...}])` runs a handler over payloads in memory."""
    from pipeline.testing.invoke import invoke

    return invoke


@pytest.fixture
def pipeline_ainvoke() -> Callable[..., Any]:
    """`await pipeline_ainvoke(price, [{...}])`, for async tests."""
    from pipeline.testing.invoke import ainvoke

    return ainvoke
