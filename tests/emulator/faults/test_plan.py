"""What goes wrong is decided by the seed, the point, and how often it was reached."""

from __future__ import annotations

import itertools
import math
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import ConfigurationError, PipelineError
from pipeline.emulator.faults import plan
from pipeline.emulator.faults.inject import ServerInjector
from pipeline.emulator.faults.kinds import COSTLY, Kind, Point
from pipeline.emulator.faults.plan import Faults, faults_of
from pipeline.emulator.faults.profiles import PROFILES, Profile
from pipeline.emulator.faults.rules import Rule, crash, fail_partly, slow_down, throttle, time_out
from pipeline.emulator.virtual import VirtualClock

HANDLER = Point("price", "after handler", 1)
POINTS = [Point(name, step, number) for name in "ab" for step in ("claim", "handler") for number in range(1, 12)]
ALWAYS = Profile(name="always", rates=dict.fromkeys(Kind, 1.0), seconds=10)
#: No limit: what a fault costs is another test's matter.
HALF = Profile(name="half", rates=dict.fromkeys(Kind, 0.3), spoiled=1_000)


def fired(faults: Faults, points: list[Point], now: float = 0.0) -> dict[str, Kind | None]:
    return {point.name: faults.at(point, Kind, now) for point in points}


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(), order=st.permutations(POINTS))
def test_the_order_in_which_points_are_reached_changes_nothing(seed: int, order: list[Point]) -> None:
    assert fired(Faults(seed, HALF), POINTS) == fired(Faults(seed, HALF), order)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(), data=st.data())
def test_taking_a_fault_away_leaves_the_others_where_they_are(seed: int, data: st.DataObject) -> None:
    faults = Faults(seed, HALF)
    fired(faults, POINTS)
    ids = [one.id for one in faults.fired]
    kept = data.draw(st.sets(st.sampled_from(ids))) if ids else set()
    again = faults.again(kept)
    fired(again, POINTS)
    assert [one.id for one in again.fired] == [name for name in ids if name in kept]


def test_another_seed_is_another_run() -> None:
    runs = [fired(Faults(seed, HALF), POINTS) for seed in range(5)]
    assert all(one != other for one, other in itertools.combinations(runs, 2))


def test_a_seed_means_the_same_in_every_process() -> None:
    faults = Faults(17, "everything")
    fired(faults, POINTS)
    assert [one.id for one in faults.fired][:3] == [
        "duplicate at a[1] claim #1",
        "reordering at a[2] claim #1",
        "poison record at a[3] claim #1",
    ]


def test_a_point_that_is_reached_again_is_decided_again() -> None:
    faults = Faults(3, HALF)
    kinds = [faults.at(HANDLER, Kind, 0.0) for _ in range(50)]
    assert len(set(kinds)) > 3
    assert [one.occurrence for one in faults.fired] == [at for at, kind in enumerate(kinds, 1) if kind is not None]


def test_only_what_can_happen_at_a_point_happens_there() -> None:
    faults = Faults(0, HALF)
    kinds = {faults.at(HANDLER, (Kind.CRASH, Kind.SLOW_HANDLER), 0.0) for _ in range(200)}
    assert kinds == {None, Kind.CRASH, Kind.SLOW_HANDLER}


def test_nothing_goes_wrong_after_the_profiles_time() -> None:
    faults = Faults(0, ALWAYS)
    assert faults.at(HANDLER, Kind, 1_000.0) is not None
    assert faults.at(HANDLER, Kind, 1_010.0) is not None
    assert faults.at(HANDLER, Kind, 1_010.1) is None


def test_only_so_many_invocations_of_a_function_meet_what_costs_a_receive() -> None:
    faults = Faults(0, ALWAYS)
    points = [Point("price", step, number) for number in range(1, 10) for step in ("before claim", "after claim")]
    spoiled = {point.invocation for point in points if faults.at(point, (Kind.CRASH,), 0.0)}
    assert spoiled == {1, 2, 3}
    assert faults.at(Point("other", "after claim", 1), (Kind.CRASH,), 0.0) is Kind.CRASH
    assert faults.at(Point("price", "invocation", 9), (Kind.OVERLAP,), 0.0) is Kind.OVERLAP  # costs nothing


def test_a_source_that_gives_up_early_lets_less_happen() -> None:
    faults = Faults(0, ALWAYS)
    faults.allow("price", 1)
    faults.allow("price", 2)
    faults.allow("price", None)
    assert [faults.at(Point("price", "claim", number), (Kind.CRASH,), 0.0) for number in (1, 2)] == [Kind.CRASH, None]
    faults.allow("never", 0)
    assert faults.at(Point("never", "claim", 1), (Kind.CRASH,), 0.0) is None


def test_what_comes_again_from_a_source_costs_its_function_as_much() -> None:
    faults = Faults(0, ALWAYS)
    faults.share("orders", "price")
    faults.allow("price", 2)
    deletion = Point("orders", "deletion")
    assert faults.at(Point("price", "claim", 1), (Kind.CRASH,), 0.0) is Kind.CRASH
    assert [faults.at(deletion, (Kind.DUPLICATE,), 0.0) for _ in range(2)] == [Kind.DUPLICATE, None]
    assert faults.at(Point("price", "claim", 2), (Kind.CRASH,), 0.0) is None


def test_a_rule_says_where_how_often_and_from_which_time_on() -> None:
    faults = Faults.of(crash(after="handler", function="price", nth=2, times=2), throttle("sqs.send_message"))
    other = Point("other", "after handler", 1)
    before = Point("price", "before handler", 1)
    assert [faults.at(HANDLER, (Kind.CRASH,), 0.0) for _ in range(4)] == [None, Kind.CRASH, Kind.CRASH, None]
    assert [faults.at(point, Kind, 0.0) for point in (other, before)] == [None, None]
    assert faults.at(Point("other", "sqs.send_message", 1), Kind, 0.0) is Kind.THROTTLED_CALL
    assert next(str(one) for one in faults.fired) == "crash: price[1] after handler, the 2. time"


def test_two_faults_at_one_point_both_happen_one_after_the_other() -> None:
    faults = Faults.of(throttle("sqs.send_message"), time_out("sqs.send_message", nth=1, times=2))
    call = Point("price", "sqs.send_message", 1)
    found = [faults.at(call, Kind, 0.0) for _ in range(4)]
    assert found == [Kind.THROTTLED_CALL, Kind.TIME_OUT, Kind.TIME_OUT, None]


@pytest.mark.parametrize(
    "make",
    [
        lambda: crash(after="sink ledger"), lambda: crash(before="acknowledgement"), lambda: crash(after="s3.put_object"),
        lambda: throttle("dynamodb.get_item"), lambda: slow_down("kinesis.put_records"), lambda: time_out("sqs.send_message"),
        lambda: Rule(kind=Kind.CRASH), lambda: Profile(name="p", rates={Kind.CRASH: 1, Kind.SKEW: 0}, seconds=math.inf),
    ],
)  # fmt: skip
def test_what_can_happen_is_taken(make: Any) -> None:
    assert make() is not None


@pytest.mark.parametrize("given", [crash(after="handler"), "crashes", Faults(3), True, 1.5])
def test_on_a_server_a_seed_is_all_that_is_taken(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="on a server give a seed, a whole number"):
        ServerInjector(given, VirtualClock())


def test_a_single_fault_that_never_happened_is_named() -> None:
    faults = Faults.of(
        crash(after="handler"), throttle("sqs.send_message", function="nobody"), crash(after="claim", nth=3)
    )
    for step in ("after handler", "after claim", "after claim"):
        faults.at(Point("price", step, 1), (Kind.CRASH,), 0.0)
    with pytest.raises(PipelineError) as raised:
        faults.check_happened()
    text = str(raised.value)
    assert "throttled call sqs.send_message at nobody: nothing came there" in text
    assert "crash after claim, the 3. time: that was reached 2 times" in text
    assert "handler" not in text
    Faults(3).check_happened()  # seeds promise nothing


@pytest.mark.parametrize("profile", PROFILES)
def test_each_profile_lets_happen_what_it_says(profile: str) -> None:
    faults = Faults(1, profile)
    kinds = {faults.at(Point(f"f{n}", "x", n), (kind,), 0.0) for n in range(300) for kind in Kind} - {None}
    assert kinds == set(PROFILES[profile].rates)
    assert profile != "everything" or kinds == set(Kind)


def test_what_is_costly_is_what_a_record_can_come_back_for() -> None:
    assert {Kind.OVERLAP, Kind.REPEAT, Kind.REORDERING, Kind.SKEW, Kind.POISON} == set(Kind) - COSTLY


def test_what_can_be_given_as_faults() -> None:
    plan, rule = Faults(3), crash(after="handler")
    assert faults_of(None, 1) is None
    assert faults_of(plan, 1) is plan
    found = [faults_of(given, 7) for given in ("crashes", 9, rule, [rule, rule])]
    assert [one and (one.seed, one.profile.name) for one in found] == [
        (7, "crashes"), (9, "everything"), (7, "none"), (7, "none"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Faults(1, "storm"), "no fault profile 'storm': there is duplicates, crashes, throttles"),
        (lambda: faults_of([], 0), "give a profile's name"),
        (lambda: faults_of(["crash"], 0), "give a profile's name"),
        (lambda: faults_of(True, 0), "give a profile's name"),
        (lambda: crash(), "before or after which step"),
        (lambda: crash(before="handler", after="claim"), "before or after which step"),
        (lambda: crash(after="handler", times=0), "times=0: give a whole number, at least 1"),
        (lambda: throttle(nth=True), "nth=True"),
        (lambda: throttle(nth=1.5), r"nth=1\.5: give a whole number"),  # type: ignore[arg-type]
        (lambda: crash(after="handlr"), "crash after 'handlr': .*'handler', 'claim'.*'sink NAME'"),
        (lambda: crash(before="dynamodb.put_itm"), "crash before 'dynamodb.put_itm'"),
        (lambda: crash(before="dynamodb.get_item"), "crash before 'dynamodb.get_item': .*change something"),
        (lambda: crash(before="sink "), "crash before 'sink '"),
        (lambda: throttle("dynamodb.nonsense"), "throttled call 'dynamodb.nonsense': there is no such call here"),
        (lambda: slow_down("lambda.invoke"), "slow call 'lambda.invoke': there is no such call here"),
        (lambda: time_out("dynamodb.query"), "time-out after the write 'dynamodb.query': .*changes something"),
        (lambda: fail_partly("sqs.send_message"), "partial failure 'sqs.send_message': .*sqs.send_message_batch"),
        (lambda: Rule(kind=Kind.SLOW_HANDLER, step="claim"), "slow handler 'claim': .*'handler'"),
        (lambda: Rule(kind="crahs"), "there is no kind of fault 'crahs'"),  # type: ignore[arg-type]
        (lambda: Profile(name="p", rates={"crahs": 0.5}), "there is no kind of fault 'crahs': .*'crash'"),  # type: ignore[dict-item]
        (lambda: Profile(name="p", rates={Kind.CRASH: 1.5}), r"p: rates: 'crash': 1\.5: give a number from 0 to 1"),
        (lambda: Profile(name="p", rates={Kind.CRASH: float("nan")}), "give a number from 0 to 1"),
        (lambda: Profile(name="p", rates={Kind.CRASH: True}), "give a number from 0 to 1"),
        (lambda: Profile(name="p", spoiled=-1), "p: spoiled=-1: give a whole number, at least 0"),
        (lambda: Profile(name="p", seconds=-1.0), r"p: seconds=-1\.0: give seconds, at least 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make()


def test_of_a_run_without_end_no_more_is_kept_than_of_a_long_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "_MOST", 100)
    faults = Faults(1, Profile(name="often", rates={Kind.CRASH: 1.0}, seconds=math.inf, spoiled=sys.maxsize))
    standing = Point("orders", "receive", None)
    for number in range(1_000):
        faults.at(Point("handler", "after handler", number), (Kind.CRASH,), number)
        faults.at(standing, (), number)
    assert len(faults.fired) <= 100
    assert len(faults._reached) <= 101
    assert faults._reached[standing.name] == 1_000, "what stands is counted on"
    assert not faults._spoiled
