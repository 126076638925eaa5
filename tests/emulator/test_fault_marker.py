"""`@pytest.mark.faults`: one test, run once for each seed, and what its report says when one fails."""

from __future__ import annotations

import re

import pytest

from pipeline.testing import Emulator
from pipeline.testing.faults_marker import check

pytest_plugins = ["pytester"]

#: A handler that adds to a table: what comes twice is counted twice.
COUNTING = """
    import boto3
    import pytest

    made = []

    def add(event, context):
        made[:] = made or [boto3.client("dynamodb", region_name="us-east-1")]
        for record in event["Records"]:
            made[0].update_item(
                TableName="counts", Key={"id": {"S": record["body"]}}, UpdateExpression="ADD n :one",
                ExpressionAttributeValues={":one": {"N": "1"}},
            )

    def count(emulator, *bodies):
        orders = emulator.queue("orders", max_receive_count=4)
        counts = emulator.table("counts")
        emulator.map(orders, add)
        orders.send(*bodies)
        emulator.run()
        return {item["id"]: item["n"] for item in counts.items}
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makepyfile(counting=COUNTING)
    pytester.makeini(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\naddopts = --strict-markers"
    )
    return pytester


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return project.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:valkey", *arguments)


def test_the_fixture_without_the_marker_is_an_emulator_without_faults(emulator: Emulator) -> None:
    assert emulator.faults is None
    assert emulator.queue("orders").is_empty


def test_each_seed_is_a_run_of_its_own(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest

        seen = []

        @pytest.mark.faults(seeds=7, profile="crashes")
        def test_it(emulator):
            seen.append((emulator.faults.seed, emulator.faults.profile.name))

        def test_what_was_seen():
            assert seen == [(seed, "crashes") for seed in range(7)]
        """
    )
    run(project).assert_outcomes(passed=2)


def test_fixtures_of_a_function_are_made_anew_and_wider_ones_are_not(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest

        log = []

        @pytest.fixture(scope="module")
        def shared():
            log.append("shared")
            yield
            log.append("end of shared")

        @pytest.fixture
        def own(shared):
            log.append("own")
            yield []
            log.append("end")

        @pytest.mark.faults(seeds=3)
        @pytest.mark.parametrize("number", [1, 2])
        def test_it(emulator, own, number):
            own.append(number)
            assert own == [number]

        def test_the_log(shared):
            assert log == ["shared", *["own", "end"] * 6]

        class TestIn:
            count = 0

            @pytest.mark.faults(seeds=4)
            def test_method(self, emulator):
                TestIn.count += 1

            def test_count(self):
                assert TestIn.count == 4
        """
    )
    run(project).assert_outcomes(passed=5)


FAILING = """
    import pytest
    from counting import count

    @pytest.mark.faults(seeds=30)
    def test_each_once(emulator):
        assert count(emulator, "a", "b", "c") == {"a": 1, "b": 1, "c": 1}
"""


def test_a_failing_seed_is_told_with_its_fewest_faults_and_its_replay(project: pytest.Pytester) -> None:
    project.makepyfile(test_shop=FAILING)
    result = run(project)
    result.assert_outcomes(failed=1)
    text = result.stdout.str()
    assert "assert count(emulator" in text
    seed = int(re.search(r"faults: seed (\d+)", text)[1])  # type: ignore[index]
    assert f"pytest test_shop.py::test_each_once --faults-seed {seed}" in text
    assert re.search(r"Of its \d+ faults 1 fault is enough:|Its only fault:", text)
    assert "  is given #1, #2, #3" in text
    assert len(re.findall(r"^ +[\d.]+ s ! ", text, re.MULTILINE)) == 1
    # What is replayed is the same, and that seed alone.
    again = run(project, "--faults-seed", str(seed))
    again.assert_outcomes(failed=1)
    story = re.compile(r"What happened.*?\n(?=-{5,}|={5,}|_{5,})", re.DOTALL)
    assert story.search(again.stdout.str())[0] == story.search(text)[0]  # type: ignore[index]
    passing = next(number for number in range(30) if number < seed) if seed else None
    assert passing is None or run(project, "--faults-seed", str(passing)).ret == 0


def test_it_is_said_when_a_test_fails_without_any_fault(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest

        @pytest.mark.faults(seeds=5)
        def test_it(emulator):
            assert emulator.queue("orders") is None
        """
    )
    result = run(project)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*It fails also when nothing goes wrong.*"])


def test_a_bug_that_needs_two_faults_is_shrunk_to_two(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest
        from pipeline.emulator.faults.kinds import Kind
        from counting import count

        @pytest.mark.faults(seeds=200)
        def test_it(emulator):
            count(emulator, "a", "b", "c")
            kinds = {fault.kind for fault in emulator.faults.fired}
            assert not {Kind.CRASH, Kind.LOST_RESPONSE} <= kinds
        """
    )
    result = run(project)
    result.assert_outcomes(failed=1)
    result.stdout.re_match_lines([r"Of its \d+ faults 2 faults are enough:|Its 2 faults:"])


def test_it_is_said_when_shrinking_stopped_early(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest
        from pipeline.emulator.faults.kinds import Kind, Point
        from pipeline.emulator.faults.profiles import Profile

        @pytest.mark.faults(seeds=1, profile=Profile(name="skewed", rates={Kind.SKEW: 1.0}))
        def test_it(emulator):
            points = [Point("f", "environment", number) for number in range(100)]
            fired = [emulator.faults.at(point, (Kind.SKEW,), emulator.now) for point in points]
            assert sum(kind is not None for kind in fired) < 70
        """
    )
    result = run(project)
    result.assert_outcomes(failed=1)
    result.stdout.re_match_lines(
        [r"Of its 100 faults \d+ faults are enough:", r"Shrinking stopped early, after 100 runs or 10 s: .*fewer"],
        consecutive=False,
    )


def test_skips_errors_and_expected_failures_are_reported_as_they_are(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest

        @pytest.mark.faults(seeds=3)
        def test_skipped(emulator):
            pytest.skip("not today")

        @pytest.mark.faults(seeds=3)
        @pytest.mark.xfail(strict=True)
        def test_expected(emulator):
            assert False

        @pytest.fixture
        def broken():
            raise ValueError("broken")

        @pytest.mark.faults(seeds=3)
        def test_error(emulator, broken):
            pass

        @pytest.fixture(scope="module")
        def ending():
            yield
            raise ValueError("at the end")

        @pytest.mark.faults(seeds=3)
        def test_end(emulator, ending):
            pass
        """
    )
    run(project).assert_outcomes(skipped=1, xfailed=1, errors=2, passed=1)


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        (pytest.mark.faults(seeds=0), r"faults\(seeds=0\): give a whole number, at least 1"),
        (pytest.mark.faults(seeds=True), r"faults\(seeds=True\)"),
        (pytest.mark.faults(profile="storm"), "there is no fault profile 'storm': there is duplicates, crashes"),
        (pytest.mark.faults(20), r"faults\(\) takes seeds= and profile=, not 20"),
        (pytest.mark.faults(count=20), "not count"),
    ],
)
def test_a_marker_that_cannot_be_meant_is_refused(
    request: pytest.FixtureRequest, emulator: Emulator, mark: pytest.MarkDecorator, message: str
) -> None:
    with pytest.raises(pytest.UsageError, match=message):
        check(request.node, mark.mark)


def test_a_marker_without_the_emulator_is_refused(request: pytest.FixtureRequest) -> None:
    with pytest.raises(pytest.UsageError, match="needs the fixture 'emulator'"):
        check(request.node, pytest.mark.faults.mark)


def test_a_marker_on_an_async_function_is_refused_before_anything_runs(project: pytest.Pytester) -> None:
    project.makepyfile("import pytest\n\n@pytest.mark.faults\nasync def test_it(emulator):\n    pass\n")
    result = run(project)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "write 'def'" in result.stderr.str()


def test_more_seeds_for_a_night(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest

        seeds = []

        @pytest.mark.faults(seeds=2)
        def test_it(emulator):
            seeds.append(emulator.faults.seed)

        def test_count():
            assert seeds == [0, 1, 2, 3, 4]
        """
    )
    run(project, "--faults-seeds", "5").assert_outcomes(passed=2)


@pytest.mark.parametrize("count", ["0", "-1"])
def test_fewer_than_one_seed_is_refused_before_anything_runs(project: pytest.Pytester, count: str) -> None:
    project.makepyfile("import pytest\n\n@pytest.mark.faults\ndef test_it(emulator):\n    pass\n")
    result = run(project, "--faults-seeds", count)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"--faults-seeds {count}: give at least 1" in result.stderr.str()


def test_a_wrong_marker_stops_only_runs_that_select_its_test(project: pytest.Pytester) -> None:
    project.makepyfile(
        "import pytest\n\n@pytest.mark.faults(seeds=0)\ndef test_wrong(emulator):\n    pass\n\ndef test_right():\n    pass\n"
    )
    run(project, "-k", "right").assert_outcomes(passed=1, deselected=1)
    assert run(project).ret == pytest.ExitCode.USAGE_ERROR


def test_the_replay_is_for_the_directory_that_one_is_in(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.mkdir("sub")
    project.makepyfile(**{"sub/test_shop": FAILING})
    monkeypatch.syspath_prepend(project.path)
    monkeypatch.chdir(project.path / "sub")
    result = run(project, "test_shop.py")
    assert re.search(r"^ +pytest test_shop.py::test_each_once --faults-seed", result.stdout.str(), re.MULTILINE)


@pytest.mark.parametrize(("fails", "outcome"), [("seed == 2", "xfailed"), ("False", "failed")])
def test_a_test_that_is_expected_to_fail_may_pass_with_some_seeds(
    project: pytest.Pytester, fails: str, outcome: str
) -> None:
    project.makepyfile(
        f"""
        import pytest

        seeds = []

        @pytest.mark.faults(seeds=4)
        @pytest.mark.xfail(strict=True)
        def test_it(emulator):
            seed = emulator.faults.seed
            seeds.append(seed)
            assert not ({fails})

        def test_seeds():
            assert seeds == list(range({3 if outcome == "xfailed" else 4}))
        """
    )
    result = run(project)
    result.assert_outcomes(passed=1, **{outcome: 1})
    assert "It fails also when nothing goes wrong" not in result.stdout.str()


def test_it_works_with_several_workers_and_stops_at_the_first_failure(project: pytest.Pytester) -> None:
    project.makepyfile(test_shop=FAILING)
    result = project.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:valkey", "-n", "1", "-x")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*faults: seed *", "*--faults-seed *"])
