"""Idempotency in the engine: attempts, busy keys, crashes, and a store in trouble."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from pipeline import Backoff, Claim, Pipeline, Record, Reject, sources
from pipeline.decisions.idempotency import RELEASED, Busy, Complete
from pipeline.emulator.virtual import EPOCH, VirtualClock, virtually
from pipeline.errors import Crashed, SinkRefused, SinkUnavailable, StoreUnavailable
from pipeline.outcome import Duplicate, Failed, HandBack, Rejected, Succeeded, Unprocessed
from pipeline.output import Output
from pipeline.stores import Memory
from pipeline.telemetry.events import CompletionLost, Fact, RejectionLost
from tests.engine.harness import Letters, Sink, process, records


class Scripted(Memory):
    """A memory store that answers some calls with trouble."""

    def __init__(self, **answers: Any) -> None:
        super().__init__()
        self.answers = answers
        self.calls: list[tuple[str, int]] = []
        self.settlements: list[Any] = []

    async def claim(self, requests: Any, environment: Any) -> Any:
        self.calls.append(("claim", len(requests)))
        return self._answer("claim", requests) or await super().claim(requests, environment)

    async def settle(self, settlements: Any, environment: Any) -> Any:
        self.calls.append(("settle", len(settlements)))
        self.settlements += settlements
        return self._answer("settle", settlements) or await super().settle(settlements, environment)

    async def renew(self, renewals: Any, environment: Any) -> Any:
        self.calls.append(("renew", len(renewals)))
        return self._answer("renew", renewals) or await super().renew(renewals, environment)

    def _answer(self, call: str, items: Sequence[Any]) -> Any:
        answer = self.answers.get(call)
        if isinstance(answer, Exception) and not isinstance(answer, StoreUnavailable):
            raise answer
        return None if answer is None else [answer] * len(items)


def handler_of(pipeline: Pipeline, **options: Any) -> Any:
    @pipeline.handler(sources.SQS("orders"), **options)
    async def price(record: Record[dict[str, Any]]) -> dict[str, Any] | None:
        if record.payload.get("fails"):
            raise ValueError("no")
        return {"order": record.payload, "attempt": record.attempt}

    return price


async def test_a_second_delivery_is_a_duplicate() -> None:
    price, store = handler_of(Pipeline("shop")), Memory()

    first, _ = await process(price.stage, records("{}"), store=store)
    second, _ = await process(price.stage, records("{}"), store=store)

    assert isinstance(first.outcomes[0], Succeeded)
    assert isinstance(second.outcomes[0], Duplicate)


async def test_records_that_run_side_by_side_share_their_store_and_sink_calls() -> None:
    sink, store = Sink(), Scripted()
    price = handler_of(Pipeline("shop"), sinks=[sink])

    result, _ = await process(price.stage, records(*["{}"] * 50), store=store)

    assert len(result.of(Succeeded)) == 50
    assert store.calls == [("claim", 50), ("settle", 50)]
    assert sink.calls == [50]


async def test_five_failed_runs_and_then_the_dead_letters() -> None:
    price, store = handler_of(Pipeline("shop")), Memory()
    ends: list[str] = []
    letters = Letters()

    for receive in range(1, 6):
        result, _ = await process(
            price.stage, records('{"fails": true}', receive_count=receive), store=store, letters=letters
        )
        ends.append(type(result.outcomes[0]).__name__)

    assert ends == ["Failed"] * 4 + ["Rejected"]
    (letter,) = letters.letters
    assert letter.attempts == 5
    assert letter.exhausted
    assert letter.cause == "ValueError: no"


async def test_a_redriven_dead_letter_starts_anew() -> None:
    price, store = handler_of(Pipeline("shop"), retry=Backoff(attempts=1)), Memory()

    first, _ = await process(price.stage, records('{"fails": true}'), store=store)
    again, _ = await process(price.stage, records("{}"), store=store)

    assert isinstance(first.outcomes[0], Rejected)
    assert isinstance(again.outcomes[0], Succeeded)


async def test_without_a_store_the_receive_count_is_the_attempt() -> None:
    price = handler_of(Pipeline("shop", idempotency=None))

    fourth, _ = await process(price.stage, records('{"fails": true}', receive_count=4))
    fifth, _ = await process(price.stage, records('{"fails": true}', receive_count=5))

    assert isinstance(fourth.outcomes[0], Failed)
    assert isinstance(fifth.outcomes[0], Rejected)


async def test_a_dead_letter_that_cannot_be_put_is_a_failure_and_not_dropped() -> None:
    price, store = handler_of(Pipeline("shop"), retry=Backoff(attempts=1)), Memory()
    letters = Letters(SinkUnavailable("the queue is gone"))

    result, _ = await process(price.stage, records('{"fails": true}', "not json"), store=store, letters=letters)

    assert [type(outcome) for outcome in result.outcomes] == [Failed, Failed]
    assert len(result.unsettled()) == 2


async def test_a_busy_key_is_handed_back_until_the_other_lease_ends() -> None:
    price = handler_of(Pipeline("shop"))
    until = 0.0

    class Held(Scripted):
        async def claim(self, requests: Any, environment: Any) -> Any:
            nonlocal until
            until = environment.clock.now() + 33
            return [Busy(until)]

    result, _ = await process(price.stage, records("{}"), store=Held())

    (outcome,) = result.outcomes
    assert isinstance(outcome, Unprocessed)
    assert outcome.reason is HandBack.CLAIMED
    assert outcome.delay == pytest.approx(33, abs=1)


@pytest.mark.parametrize("trouble", [StoreUnavailable("down"), ConnectionError("refused")])
async def test_a_store_that_is_out_of_reach_hands_records_back_and_runs_nothing(trouble: Exception) -> None:
    sink = Sink()
    price = handler_of(Pipeline("shop"), sinks=[sink])

    result, _ = await process(price.stage, records("{}", "{}"), store=Scripted(claim=trouble))

    for outcome in result.outcomes:
        assert isinstance(outcome, Unprocessed)
        assert outcome.reason is HandBack.STORE
        assert isinstance(outcome.error, StoreUnavailable)
    assert sink.outputs == []


@pytest.mark.parametrize("answer", [False, StoreUnavailable("down")])
async def test_a_completion_that_cannot_be_written_still_succeeds_and_a_fact_says_so(answer: Any) -> None:
    sink, facts = Sink(), list[Fact]()
    price = handler_of(Pipeline("shop"), sinks=[sink])

    result, _ = await process(price.stage, records("{}"), store=Scripted(settle=answer), facts=facts)

    assert isinstance(result.outcomes[0], Succeeded)
    (lost,) = [fact for fact in facts if isinstance(fact, CompletionLost)]
    assert lost.error is (None if answer is False else answer)


async def test_completion_comes_after_every_sink_has_accepted() -> None:
    store = Scripted()
    steps: list[str] = []

    def writes(name: str) -> Any:
        def fails(output: Output) -> None:
            assert not [settled for settled in store.settlements if isinstance(settled, Complete)]
            steps.append(name)

        return fails

    price = handler_of(Pipeline("shop"), sinks=[Sink("one", writes("one")), Sink("two", writes("two"))])

    await process(price.stage, records("{}"), store=store)

    assert sorted(steps) == ["one", "two"]
    assert isinstance(store.settlements[0], Complete)


async def test_after_a_sink_failure_only_the_missing_outputs_go_out_and_the_handler_does_not_run_again() -> None:
    down = True
    good, bad = Sink("good"), Sink("bad", lambda output: SinkUnavailable("throttled") if down else None)
    pipeline, store = Pipeline("shop"), Memory()
    runs: list[int] = []

    @pipeline.handler(sources.SQS("orders"), sinks=[good, bad])
    async def price(record: Record[dict[str, Any]]) -> dict[str, int]:
        runs.append(record.attempt)
        return {"run": len(runs)}

    first, _ = await process(price.stage, records("{}"), store=store)
    second, _ = await process(price.stage, records("{}"), store=store)
    down = False
    third, _ = await process(price.stage, records("{}"), store=store)
    fourth, _ = await process(price.stage, records("{}"), store=store)

    assert [type(result.outcomes[0]) for result in (first, second, third, fourth)] == [
        Failed, Failed, Succeeded, Duplicate,
    ]  # fmt: skip
    assert runs == [1]
    assert good.values == [{"run": 1}]
    assert bad.values == [{"run": 1}]


async def test_an_outage_of_a_sink_counts_no_attempt() -> None:
    sink = Sink(fails=lambda output: SinkUnavailable("throttled"))
    price, store = handler_of(Pipeline("shop"), sinks=[sink], retry=Backoff(attempts=2)), Memory()

    ends = [
        type((await process(price.stage, records("{}", receive_count=n), store=store))[0].outcomes[0]).__name__
        for n in range(1, 9)
    ]

    assert ends == ["Failed"] * 8


async def test_an_output_that_a_sink_refuses_for_good_ends_in_the_dead_letters() -> None:
    sink = Sink(fails=lambda output: SinkRefused("too large"))
    price, store, letters = handler_of(Pipeline("shop"), sinks=[sink], retry=Backoff(attempts=2)), Memory(), Letters()

    for _ in range(2):
        result, _ = await process(price.stage, records("{}"), store=store, letters=letters)

    assert isinstance(result.outcomes[0], Rejected)
    assert letters.letters[0].cause == "SinkRefused: too large"


async def test_outputs_stay_kept_while_the_dead_letter_queue_is_out_of_reach() -> None:
    sink = Sink(fails=lambda output: SinkRefused("too large"))
    pipeline, store, letters = Pipeline("shop"), Memory(), Letters(SinkUnavailable("the queue is gone"))
    runs: list[int] = []

    @pipeline.handler(sources.SQS("orders"), sinks=[sink], retry=Backoff(attempts=2))
    async def price(record: Record[dict[str, Any]]) -> dict[str, int]:
        runs.append(record.attempt)
        return {"run": len(runs)}

    for _ in range(4):
        refused, _ = await process(price.stage, records("{}"), store=store, letters=letters)
        assert isinstance(refused.outcomes[0], Failed)
    letters.error = None
    last, _ = await process(price.stage, records("{}"), store=store, letters=letters)

    assert isinstance(last.outcomes[0], Rejected)
    assert runs == [1]


async def test_a_sink_that_refuses_one_entry_fails_only_the_record_that_caused_it() -> None:
    sink = Sink(fails=lambda output: SinkRefused("no") if output.value["order"].get("n") == 1 else None)
    price = handler_of(Pipeline("shop"), sinks=[sink])

    result, _ = await process(price.stage, records('{"n": 0}', '{"n": 1}', '{"n": 2}'))

    assert [type(outcome) for outcome in result.outcomes] == [Succeeded, Failed, Succeeded]


def test_a_record_whose_last_run_died_runs_after_the_others_and_alone() -> None:
    pipeline, store = Pipeline("shop"), Memory()
    running: list[str] = []
    beside: dict[str, list[str]] = {}

    @pipeline.handler(sources.SQS("orders"))
    async def price(record: Record[dict[str, Any]]) -> None:
        running.append(record.id)
        beside[record.id] = list(running)
        await asyncio.sleep(1)
        running.remove(record.id)

    async def scenario() -> Any:
        stage, clock = price.stage, VirtualClock()
        raw = records(*["{}"] * 4)
        dying = asyncio.ensure_future(process(stage, raw[1:2], store=Dying(store), clock=clock))
        await asyncio.wait([dying], timeout=0.5)
        dying.cancel()  # the process dies: nothing is released
        await asyncio.wait([dying])
        running.clear()
        await asyncio.sleep(100)  # the claim lapses
        result, _ = await process(stage, raw, store=store, clock=clock)
        return result

    result = virtually(scenario())

    assert len(result.of(Succeeded)) == 4
    assert list(beside)[-1] == "r1" or beside["r1"] == ["r1"]
    assert beside["r1"] == ["r1"]


class Dying:
    """The store as a process sees it that dies: claims go through, nothing is settled."""

    def __init__(self, store: Memory) -> None:
        self._store = store

    async def claim(self, requests: Any, environment: Any) -> Any:
        return await self._store.claim(requests, environment)

    async def settle(self, settlements: Any, environment: Any) -> Any:
        await asyncio.Event().wait()

    async def renew(self, renewals: Any, environment: Any) -> Any:
        return await self._store.renew(renewals, environment)


def test_a_record_that_kills_its_process_every_time_is_dead_lettered_without_another_run() -> None:
    price, store, letters = handler_of(Pipeline("shop"), retry=Backoff(attempts=3)), Memory(), Letters()

    async def scenario() -> Any:
        clock = VirtualClock()
        for _ in range(3):
            dying = asyncio.ensure_future(process(price.stage, records("{}"), store=Dying(store), clock=clock))
            await asyncio.wait([dying], timeout=1)
            dying.cancel()
            await asyncio.wait([dying])
            await asyncio.sleep(100)
        return (await process(price.stage, records("{}"), store=store, letters=letters, clock=clock))[0]

    result = virtually(scenario())

    assert isinstance(result.outcomes[0], Rejected)
    assert isinstance(result.outcomes[0].error, Crashed)
    assert letters.letters[0].exhausted


def test_a_long_run_renews_its_lease_and_the_key_stays_busy() -> None:
    pipeline, store = Pipeline("shop", idempotency=Claim(lease=30)), Scripted()

    @pipeline.handler(sources.SQS("orders"))
    async def price(order: dict[str, Any]) -> None:
        await asyncio.sleep(200)

    async def scenario() -> tuple[Any, Any]:
        clock = VirtualClock()
        long = asyncio.ensure_future(process(price.stage, records("{}"), store=store, clock=clock))
        await asyncio.sleep(150)
        meanwhile, _ = await process(price.stage, records("{}"), store=store, clock=clock)
        return (await long)[0], meanwhile

    result, meanwhile = virtually(scenario())

    assert isinstance(result.outcomes[0], Succeeded)
    assert isinstance(meanwhile.outcomes[0], Unprocessed)
    assert [call for call, _ in store.calls].count("renew") >= 15
    assert EPOCH > 0


def test_a_run_that_lost_its_claim_writes_to_no_sink() -> None:
    sink, store = Sink(), Scripted(renew=False)
    pipeline = Pipeline("shop", idempotency=Claim(lease=30))

    @pipeline.handler(sources.SQS("orders"), sinks=[sink])
    async def price(order: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(60)
        return order

    result, _ = virtually(process(price.stage, records("{}"), store=store, clock=VirtualClock()))

    assert isinstance(result.outcomes[0], Unprocessed)
    assert sink.outputs == []


def test_a_run_whose_lease_could_not_be_renewed_writes_to_no_sink() -> None:
    sink, store = Sink(), Scripted(renew=StoreUnavailable("away"))
    pipeline = Pipeline("shop", idempotency=Claim(lease=30))

    @pipeline.handler(sources.SQS("orders"), sinks=[sink])
    async def price(order: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(60)
        return order

    result, _ = virtually(process(price.stage, records("{}"), store=store, clock=VirtualClock()))

    assert isinstance(result.outcomes[0], Unprocessed)
    assert sink.outputs == []
    (entry,) = store.entries.values()
    assert entry.in_progress_expiration == RELEASED, "what is given up is not renewed for ever"
    assert entry.outputs is not None, "what the run made is kept for the next one"


def test_a_run_that_lost_its_claim_streams_nothing_more() -> None:
    sink, store = Sink(), Scripted(renew=False)
    pipeline = Pipeline("shop", idempotency=Claim(lease=30))

    @pipeline.handler(sources.SQS("orders"), sinks=[sink])
    async def price(order: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        for number in range(3_500):
            if number == 1_500:
                await asyncio.sleep(60)
            yield {"n": number}

    result, _ = virtually(process(price.stage, records("{}"), store=store, clock=VirtualClock()))

    assert not isinstance(result.outcomes[0], Succeeded)
    assert len(sink.outputs) == 1_000


async def test_a_rejection_that_the_store_was_not_told_is_a_fact() -> None:
    facts: list[Fact] = []
    store = Scripted(settle=StoreUnavailable("throttled"))
    pipeline = Pipeline("shop")

    @pipeline.handler(sources.SQS("orders"))
    async def price(order: dict[str, Any]) -> None:
        raise Reject("no")

    result, _ = await process(price.stage, records("{}"), store=store, facts=facts)

    assert isinstance(result.outcomes[0], Rejected)
    (lost,) = [fact for fact in facts if isinstance(fact, RejectionLost)]
    assert isinstance(lost.error, StoreUnavailable)


def test_a_claim_that_is_granted_after_its_lease_was_over_runs_nothing_and_costs_no_attempt() -> None:
    class Slow(Memory):
        async def claim(self, requests: Any, environment: Any) -> Any:
            replies = await super().claim(requests, environment)
            await asyncio.sleep(40)
            return replies

        async def renew(self, renewals: Any, environment: Any) -> Any:
            return [False] * len(renewals)

    runs: list[Any] = []
    store = Slow()
    pipeline = Pipeline("shop", idempotency=Claim(lease=30))

    @pipeline.handler(sources.SQS("orders"))
    async def price(order: dict[str, Any]) -> None:
        runs.append(order)

    result, _ = virtually(process(price.stage, records("{}"), store=store, clock=VirtualClock()))

    assert isinstance(result.outcomes[0], Unprocessed)
    assert runs == []
    assert [entry.attempts for entry in store.entries.values()] == [0]
