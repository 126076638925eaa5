"""Delivery in batches: limits, order, retries, and whose fault a failure is."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.aws.delivery import Entry, Limits, Plan, deliver
from pipeline.decisions.deadline import Deadline
from pipeline.engine.environment import ProcessEnvironment
from pipeline.errors import SinkError, SinkRefused, SinkUnavailable

LIMITS = Limits(count=3, size=100, entry_size=90)
TRIES = 4

ENTRIES = st.lists(
    st.builds(
        lambda key, size, is_bad: Entry(key=key, size=size, error=SinkRefused("bad") if is_bad else None),
        st.sampled_from([None, None, "a", "b", "c"]),
        st.integers(1, 95),
        st.sampled_from([False] * 9 + [True]),
    ),
    max_size=20,
)


class Trial:
    """A plan carried out against a service that fails as it likes, with every rule watched."""

    def __init__(self, entries: Sequence[Entry], draw: Any) -> None:
        self.entries = entries
        self.draw = draw
        self.plan = Plan(entries, LIMITS, tries=TRIES)
        self.accepted: list[int] = []
        self.sent = [0] * len(entries)
        self.refused: set[int] = set()

    def run(self) -> None:
        for _ in range(500):
            calls = self.plan.round()
            if not calls:
                return
            on_the_way = [self.entries[p].key for call in calls for p in call if self.entries[p].key is not None]
            assert len(on_the_way) == len(set(on_the_way)), "two of one key on their way"
            for call in calls:
                self.send(call)
        raise AssertionError("the plan does not end")

    def send(self, call: list[int]) -> None:
        assert call == sorted(call)
        assert len(call) <= LIMITS.count
        assert sum(self.entries[p].size for p in call) <= LIMITS.size
        for position in call:
            assert position not in self.accepted, "an accepted entry was sent again"
            self.sent[position] += 1
        fate = self.draw(st.sampled_from(["answers", "answers", "down", "refused"]))
        if fate == "answers":
            for position in call:
                self.answer(position)
        else:
            if fate == "refused" and len(call) == 1:
                self.refused.update(call)
            self.plan.note_call(call, SinkUnavailable("down") if fate == "down" else SinkRefused("no"))

    def answer(self, position: int) -> None:
        error = self.draw(st.sampled_from([None, None, None, SinkUnavailable("slow"), SinkRefused("no")]))
        if error is None:
            self.accepted.append(position)
        elif isinstance(error, SinkRefused):
            self.refused.add(position)
        self.plan.note(position, error)


@settings(max_examples=150, deadline=None)
@given(ENTRIES, st.data())
def test_whatever_the_service_does_limits_order_and_results_hold(entries: list[Entry], data: st.DataObject) -> None:
    trial = Trial(entries, data.draw)
    trial.run()
    for position, (entry, result) in enumerate(zip(entries, trial.plan.results, strict=True)):
        assert (result is None) == (position in trial.accepted)
        if entry.error is not None or entry.size > LIMITS.entry_size:
            assert trial.sent[position] == 0, "what cannot be taken was sent"
        # One try more than the limit: a call that was refused as a whole does not count.
        assert trial.sent[position] <= TRIES + 1
        if position in trial.refused:
            assert isinstance(result, SinkRefused)
    for key in ("a", "b", "c"):
        positions = [p for p, entry in enumerate(entries) if entry.key == key]
        accepted = [p for p in trial.accepted if p in positions]
        assert accepted == positions[: len(accepted)], "a later entry of a key overtook an earlier one"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 90), max_size=30))
def test_calls_are_filled_in_order_as_far_as_the_limits_allow(sizes: list[int]) -> None:
    calls = Plan([Entry(size=size) for size in sizes], LIMITS).round()
    assert [position for call in calls for position in call] == list(range(len(sizes)))
    for call, following in pairwise(calls):
        is_full = len(call) == LIMITS.count
        assert is_full or sum(sizes[p] for p in call) + sizes[following[0]] > LIMITS.size


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now(self) -> float:
        return self.monotonic()

    def monotonic(self) -> float:
        return sum(self.slept)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


class Service:
    """Accepts what it is told to, and keeps what it was sent."""

    def __init__(self, *answers: Sequence[SinkError | None] | SinkError) -> None:
        self.answers = list(answers)
        self.calls: list[list[Any]] = []

    async def __call__(self, entries: Sequence[Entry]) -> Sequence[SinkError | None]:
        self.calls.append([entry.payload for entry in entries])
        answer = self.answers.pop(0) if self.answers else [None] * len(entries)
        if isinstance(answer, SinkError):
            raise answer
        return answer


DOWN = SinkUnavailable("down")
FOREVER = Deadline()


async def run(entries: list[Entry], service: Service, deadline: Deadline = FOREVER) -> tuple[list[Any], Clock]:
    clock = Clock()
    environment = ProcessEnvironment(clock=clock, chance=lambda: 0.5)
    results = await deliver(entries, service, LIMITS, environment, deadline)
    await environment.aclose()
    return results, clock


async def test_only_what_failed_is_sent_again_after_a_jittered_delay() -> None:
    service = Service([None, DOWN, None])
    results, clock = await run([Entry(payload=n) for n in "abc"], service)
    assert results == [None, None, None]
    assert service.calls == [["a", "b", "c"], ["b"]]
    assert clock.slept == [0.05]


async def test_tries_are_bounded_and_delays_grow() -> None:
    service = Service(*[DOWN] * 9)
    results, clock = await run([Entry(payload="a")], service)
    assert results == [DOWN]
    assert len(service.calls) == 5
    assert clock.slept == [0.05, 0.1, 0.2, 0.4]


async def test_nothing_is_tried_again_past_the_deadline() -> None:
    service = Service(*[DOWN] * 9)
    results, clock = await run([Entry(payload="a")], service, Deadline(soft=0.12, hard=1.0))
    assert results == [DOWN]
    assert clock.slept == [0.05]
    assert len(service.calls) == 2


async def test_an_oversized_entry_is_refused_alone_and_never_sent() -> None:
    service = Service()
    results, _ = await run(
        [Entry(payload="a", size=5), Entry(payload="b", size=91), Entry(payload="c", size=5)], service
    )
    assert [type(result) for result in results] == [type(None), SinkRefused, type(None)]
    assert service.calls == [["a", "c"]]


async def test_a_call_refused_as_a_whole_is_taken_apart_to_find_the_guilty_entry() -> None:
    refused = SinkRefused("one of them is wrong")
    service = Service(refused, [None], refused, [None])
    results, clock = await run([Entry(payload=n) for n in "abc"], service)
    assert results == [None, refused, None]
    assert service.calls == [["a", "b", "c"], ["a"], ["b"], ["c"]]
    assert clock.slept == []


async def test_behind_a_lasting_failure_the_key_stops_and_others_go_on() -> None:
    refused = SinkRefused("no")
    service = Service([refused, None])
    entries = [
        Entry(payload="a1", key="a"),
        Entry(payload="a2", key="a"),
        Entry(payload="b1", key="b"),
        Entry(payload="b2", key="b"),
    ]
    results, _ = await run(entries, service)
    assert results[0] is refused
    assert isinstance(results[1], SinkUnavailable), "it may be taken once the earlier one is out of the way"
    assert results[2:] == [None, None]
    assert service.calls == [["a1", "b1"], ["b2"]]


async def test_without_time_the_rest_of_a_key_is_unavailable_and_not_lost() -> None:
    service = Service()
    entries = [Entry(payload=n, key="a") for n in "ab"]
    results, _ = await run(entries, service, Deadline(soft=0.0, hard=0.1))
    assert results[0] is None
    assert isinstance(results[1], SinkUnavailable)
