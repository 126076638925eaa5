"""Spans of batches, records and shared calls, by OpenTelemetry's own SDK, and their part in log lines and outputs."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased

from pipeline import Backoff, Batch, Claim, Context, Pipeline, Reject, Retry, sinks, sources
from pipeline.decisions.deadline import Deadline
from pipeline.decisions.tracing import format_traceparent, parse_traceparent
from pipeline.errors import SinkUnavailable
from pipeline.outcome import Failed, Succeeded
from pipeline.record import RawRecord, TraceContext
from pipeline.stores import Memory
from pipeline.telemetry import otel, span, spans
from pipeline.telemetry.current import CURRENT
from pipeline.telemetry.events import Fact, HookFailed, RecordFinished, RecordPostponed
from pipeline.telemetry.log import LogWriter, logger_for
from tests.engine.harness import Sink, process, records
from tests.support.tracing import Traced, attributes, installed, linked, place, traced

SENT = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", 1)
OTHER = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", 1)


@pytest.fixture
def tracing() -> Iterator[Traced]:
    with traced() as found:
        yield found


def sent(raw: RawRecord, *contexts: TraceContext) -> RawRecord:
    return msgspec.structs.replace(raw, traces=contexts)


def numbers(context: TraceContext) -> tuple[int, int]:
    return int(context.trace_id, 16), int(context.span_id, 16)


def shop(sink: Sink | None = None, **options: Any) -> Any:
    """A handler that does what its record says."""
    made = Pipeline("shop", **options)

    @made.handler(sources.SQS("orders"), sinks=[sink] if sink else [])
    async def price(order: Any) -> Any:
        if order == "fail":
            raise ValueError("no such sku")
        if order == "reject":
            raise Reject("never")
        return order

    return price


async def test_a_batch_is_a_consumer_span_with_a_link_for_each_record_that_somebody_sent(tracing: Traced) -> None:
    first, second, third = records('"a"', '"b"', '"c"')
    await process(shop().stage, [sent(first, SENT), sent(second, OTHER, SENT), third])

    batch = tracing.batch()
    assert batch.name == "process orders"
    assert batch.parent is None
    assert linked(batch) == {numbers(SENT), numbers(OTHER)}
    by_message = {link.context.span_id: (link.attributes or {})["messaging.message.id"] for link in batch.links}
    assert by_message == {numbers(SENT)[1]: "r0", numbers(OTHER)[1]: "r1"}
    assert attributes(batch) == {
        "messaging.system": "aws_sqs",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "orders",
        "messaging.batch.message_count": 3,
        "faas.trigger": "pubsub",
        "pipeline.name": "shop",
        "pipeline.handler": "price",
        "pipeline.records.succeeded": 3,
    }


async def test_a_record_is_a_child_of_what_made_it_and_is_linked_with_its_batch(tracing: Traced) -> None:
    first, second = records('"a"', '"b"')
    await process(shop().stage, [sent(first, SENT, OTHER), second])

    batch, made, alone = tracing.batch(), tracing.run("r0"), tracing.run("r1")
    assert made.parent is not None
    assert (made.parent.trace_id, made.parent.span_id) == numbers(SENT)
    assert made.parent.is_remote
    assert linked(made) == {place(batch), numbers(OTHER)}
    assert alone.parent is not None
    assert (alone.parent.trace_id, alone.parent.span_id) == place(batch)
    assert linked(alone) == set()
    assert (
        attributes(alone).items()
        >= {
            "messaging.message.id": "r1",
            "pipeline.outcome": "succeeded",
            "pipeline.attempt": 1,
            "pipeline.outputs": 0,
        }.items()
    )
    assert "messaging.batch.message_count" not in attributes(alone), "the conventions want none on a single message"


async def test_outputs_and_lines_name_the_span_of_their_record(tracing: Traced) -> None:
    sink, facts = Sink(), []
    first, second = records('"a"', '"b"')
    await process(shop(sink).stage, [sent(first, SENT), second], facts=facts)

    for record, output in zip(("r0", "r1"), sink.outputs, strict=True):
        run = tracing.run(record)
        found = parse_traceparent(output.traceparent)
        assert found is not None
        assert numbers(found) == place(run)
        (fact,) = [fact for fact in facts if isinstance(fact, RecordFinished) and fact.record.id == record]
        assert fact.span is not None
        assert numbers(fact.span) == place(run)


async def test_a_shared_call_is_linked_with_its_records_and_a_call_for_one_is_its_child(tracing: Traced) -> None:
    await process(shop(Sink("ledger")).stage, records('"a"', '"b"'))
    (shared,) = tracing.named("write ledger")
    assert shared.parent is not None
    assert shared.parent.span_id == tracing.batch().context.span_id
    assert linked(shared) == {place(tracing.run("r0")), place(tracing.run("r1"))}

    tracing.clear()
    await process(shop(Sink("ledger")).stage, records('"a"'))
    (alone,) = tracing.named("write ledger")
    assert alone.parent is not None
    assert alone.parent.span_id == tracing.run("r0").context.span_id
    assert linked(alone) == set()


async def test_store_calls_have_spans(tracing: Traced) -> None:
    await process(shop().stage, records('"a"', '"b"'))
    assert [span.name for span in tracing.spans if span.name.endswith("idempotency")] == [
        "claim idempotency",
        "settle idempotency",
    ]


class Refuses:
    """A sink of a service, that takes nothing."""

    name = "ledger"
    described = sinks.SQS("ledger").described

    async def write(self, outputs: Any, environment: Any, deadline: Any) -> Any:
        raise OSError("unplugged")


async def test_a_call_that_failed_says_so(tracing: Traced) -> None:
    made = Pipeline("shop", idempotency=None)

    @made.handler(sources.SQS("orders"), sinks=[Refuses()])
    async def price(order: str) -> str:
        return order

    await process(price.stage, records('"a"', '"b"'))
    (call,) = tracing.named("send ledger")
    assert call.kind is trace.SpanKind.CLIENT
    assert call.status.status_code is trace.StatusCode.ERROR
    assert (
        attributes(call).items()
        >= {
            "messaging.system": "aws_sqs",
            "messaging.operation.type": "send",
            "messaging.batch.message_count": 2,
            "error.type": "OSError",
            "pipeline.failed": 2,
        }.items()
    )


async def test_failures_are_errors_of_their_records_and_not_of_the_batch(tracing: Traced) -> None:
    await process(shop().stage, records('"fail"', '"reject"', '"ok"'))

    failed, rejected, fine, batch = (*(tracing.run(f"r{number}") for number in range(3)), tracing.batch())
    assert failed.status.status_code is rejected.status.status_code is trace.StatusCode.ERROR
    assert failed.status.description == "ValueError: no such sku"
    assert (attributes(failed)["error.type"], attributes(rejected)["error.type"]) == ("ValueError", "Reject")
    assert fine.status.status_code is batch.status.status_code is trace.StatusCode.UNSET
    assert not any(span.events for span in tracing.spans), "an event would quote the whole traceback"
    assert attributes(batch).items() >= {"pipeline.records.failed": 1, "pipeline.records.rejected": 1}.items()


async def test_a_batch_has_as_many_links_as_a_span_may_have(tracing: Traced) -> None:
    contexts = [TraceContext(f"{number:032x}", f"{number:016x}", 1) for number in range(1, 201)]
    raw = [sent(one, context) for one, context in zip(records(*['"a"'] * 200), contexts, strict=True)]
    await process(shop(Sink("ledger")).stage, raw)

    assert len(tracing.batch().links) == otel.MAX_LINKS
    assert not any(span.dropped_links for span in tracing.spans)
    assert {run.parent.trace_id for run in tracing.runs() if run.parent} == set(range(1, 201))


@pytest.mark.parametrize("sampler", [ParentBased(ALWAYS_OFF), ParentBased(TraceIdRatioBased(0))])
async def test_a_failed_record_is_traced_when_nobody_samples(sampler: Any) -> None:
    facts: list[Fact] = []
    unsampled = msgspec.structs.replace(SENT, flags=0)
    with traced(sampler) as tracing:
        first, second, third = records('"fail"', '"ok"', '"reject"')
        await process(shop().stage, [sent(first, unsampled), second, third], facts=facts)

    failed, rejected = tracing.run("r0"), tracing.run("r2")
    assert len(tracing.spans) == 2
    assert failed.context.trace_id == numbers(SENT)[0], "it is part of the trace that it came from"
    assert failed.status.status_code is rejected.status.status_code is trace.StatusCode.ERROR
    assert failed.start_time is not None
    assert failed.end_time is not None
    assert failed.start_time < failed.end_time
    named = {fact.record.id: fact.span for fact in facts if isinstance(fact, RecordFinished)}
    assert named["r0"] is not None
    assert numbers(named["r0"]) == place(failed), "its line names the span that is kept"
    assert named["r1"] is not None
    assert not named["r1"].is_sampled


async def test_in_an_outage_the_first_failed_records_are_traced() -> None:
    with traced(ParentBased(ALWAYS_OFF)) as tracing:
        await process(shop().stage, records(*['"fail"'] * 100))
    assert len(tracing.runs()) == spans.MAX_FORCED


async def test_what_is_switched_off_is_off() -> None:
    with traced(ALWAYS_OFF) as tracing:
        result, _ = await process(shop().stage, records('"fail"', '"ok"'))
    assert tracing.spans == ()
    assert isinstance(result.outcomes[1], Succeeded)


async def test_an_unsampled_trace_goes_on_unsampled() -> None:
    sink = Sink()
    (raw,) = records('"a"')
    with traced(ParentBased(ALWAYS_OFF)):
        await process(shop(sink).stage, [sent(raw, msgspec.structs.replace(SENT, flags=0))])
    found = parse_traceparent(sink.outputs[0].traceparent)
    assert found is not None
    assert found.trace_id == SENT.trace_id
    assert not found.is_sampled


async def test_where_nobody_traces_what_came_is_carried_on() -> None:
    sink, facts = Sink(), []
    (raw,) = records('"a"')
    await process(shop(sink).stage, [sent(raw, SENT)], facts=facts)
    assert sink.outputs[0].traceparent == format_traceparent(SENT)
    assert all(getattr(fact, "span", None) is None for fact in facts)


async def test_each_run_of_a_streams_record_has_its_span(tracing: Traced) -> None:
    made = Pipeline("shop")
    runs = iter([Retry(after=0.01), None])

    @made.handler(sources.Kinesis("orders"))
    async def price(order: str) -> None:
        problem = next(runs)
        if problem is not None:
            raise problem

    facts: list[Fact] = []
    (raw,) = records('"a"', attributes={"shard_id": "shardId-000000000007"})
    now = asyncio.get_running_loop().time()
    await process(price.stage, [sent(raw, SENT)], deadline=Deadline(now + 5, now + 6), facts=facts)

    first, second = tracing.runs()
    assert [attributes(run)["pipeline.outcome"] for run in (first, second)] == ["failed", "succeeded"]
    assert [attributes(run)["pipeline.attempt"] for run in (first, second)] == [1, 2]
    assert attributes(first)["messaging.destination.partition.id"] == "shardId-000000000007"
    assert {run.parent.span_id for run in (first, second) if run.parent} == {numbers(SENT)[1]}
    (postponed,) = [fact for fact in facts if isinstance(fact, RecordPostponed)]
    assert postponed.span is not None
    assert numbers(postponed.span) == place(first)


async def test_what_the_deadline_cut_off_has_its_span_and_what_was_not_begun_has_none(tracing: Traced) -> None:
    made = Pipeline("shop", idempotency=None)

    @made.handler(sources.SQS("orders"), concurrency=1)
    async def hang(order: str) -> None:
        await asyncio.Event().wait()

    now = asyncio.get_running_loop().time()
    result, _ = await process(hang.stage, records('"a"', '"b"'), deadline=Deadline(now + 0.05, now + 0.1))
    assert isinstance(result.outcomes[0], Failed)
    (cut,) = tracing.runs()
    assert attributes(cut).items() >= {"messaging.message.id": "r0", "error.type": "RecordTimeout"}.items()


def _looked(context: Context, seen: list[tuple[str, int, str | None]], order: Any) -> None:
    context.logger.info("step", extra={"order": order})
    span: Any = context.span
    seen.append((order, span.get_span_context().span_id, span.attributes["messaging.message.id"]))


STEPS = st.lists(st.integers(0, 4), min_size=1, max_size=5)


@pytest.mark.parametrize("kind", ["async", "async generator", "function", "generator", "tasks"])
@settings(max_examples=50)
@given(schedule=st.lists(STEPS, min_size=2, max_size=8), concurrency=st.integers(1, 8))
def test_records_that_interleave_never_swap_context(kind: str, schedule: list[list[int]], concurrency: int) -> None:
    """`schedule`: for each record, how many turns of the loop it lets go by between its steps."""
    made = Pipeline("swaps", idempotency=None)
    seen: list[tuple[str, int, str | None]] = []
    declare: Any = made.handler(sources.SQS("orders"), sinks=[Sink()], concurrency=concurrency)

    async def waits(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)

    if kind == "async":

        @declare
        async def handler(order: str, context: Context) -> None:
            for turns in schedule[int(order)]:
                _looked(context, seen, order)
                await waits(turns)
                _looked(context, seen, order)

    elif kind == "async generator":

        @declare
        async def handler(order: str, context: Context) -> AsyncIterator[str]:
            for turns in schedule[int(order)]:
                _looked(context, seen, order)
                yield order
                await waits(turns)
                _looked(context, seen, order)

    elif kind == "function":

        @declare
        def handler(order: str, context: Context) -> None:
            for _ in schedule[int(order)]:
                _looked(context, seen, order)

    elif kind == "generator":

        @declare
        def handler(order: str, context: Context) -> Iterator[str]:
            for _ in schedule[int(order)]:
                _looked(context, seen, order)
                yield order

    else:

        @declare
        async def handler(order: str, context: Context) -> None:
            async def own(turns: int) -> None:
                await waits(turns)
                _looked(context, seen, order)

            await asyncio.gather(*map(own, schedule[int(order)]))

    written = io.StringIO()
    raw = [sent(one, SENT) for one in records(*map(str, range(len(schedule))))]
    with traced() as tracing, contextlib.redirect_stdout(written):
        asyncio.run(process(handler.stage, raw))

    runs = {attributes(run)["messaging.message.id"]: run.context.span_id for run in tracing.runs()}
    assert len(seen) >= len(schedule)
    for order, span_id, message in seen:
        assert message == f"r{order}"
        assert span_id == runs[f"r{order}"]
    for line in map(json.loads, written.getvalue().splitlines()):
        assert line["record_id"] == f"r{line['order']}"
        assert line["spanId"] == f"{runs[line['record_id']]:016x}"
        assert line["traceId"] == SENT.trace_id


async def test_a_batch_handler_and_shared_calls_are_in_the_context_of_no_record(
    tracing: Traced, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Pipeline("together", idempotency=None)
    found: list[Any] = []

    class Looks(Sink):
        async def write(self, outputs: Any, environment: Any, deadline: Any) -> Any:
            found.append(trace.get_current_span())
            return await super().write(outputs, environment, deadline)

    @made.handler(sources.SQS("orders"), sinks=[Looks("ledger")])
    async def price(items: Batch[str], context: Context) -> list[str]:
        context.logger.info("together")
        found.append(context.span)
        return [item.payload for item in items]

    await process(price.stage, records('"a"', '"b"', '"c"'))

    (line,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert {"record_id", "key_hash", "attempt"}.isdisjoint(line)
    batch = tracing.batch().context
    assert (line["traceId"], line["spanId"]) == (f"{batch.trace_id:032x}", f"{batch.span_id:016x}")
    assert found[0].get_span_context() == batch
    assert found[1].name == "write ledger"


async def test_what_outlives_a_record_is_not_in_its_context(
    tracing: Traced, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Pipeline("outlives", idempotency=None)
    found: list[Any] = []

    @made.resource
    async def pool() -> AsyncIterator[dict[str, str]]:
        found.append(trace.get_current_span().get_span_context())
        logger_for("outlives", "INFO").info("opened")
        yield {}

    @made.handler(sources.SQS("orders"))
    async def price(order: str, pool: dict[str, str]) -> None:
        return None

    await process(price.stage, records('"a"'))
    assert not found[0].is_valid
    assert {"record_id", "handler", "source", "cold_start", "traceId"}.isdisjoint(json.loads(capsys.readouterr().out))


async def test_lines_of_a_batch_handler_name_no_span_that_is_not_kept(capsys: pytest.CaptureFixture[str]) -> None:
    made = Pipeline("together", idempotency=None)

    @made.handler(sources.SQS("orders"))
    async def price(items: Batch[str], context: Context) -> list[None]:
        context.logger.info("together")
        return [None for _ in items]

    with traced(ALWAYS_OFF):
        await process(price.stage, records('"a"', '"b"'))

    line = json.loads(capsys.readouterr().out)
    assert len(line["traceId"]) == 32
    assert "spanId" not in line


class Trouble(TracerProvider):
    """A tracer that fails at whatever it is asked."""

    def get_tracer(self, *args: Any, **kwargs: Any) -> Any:
        return _Failing()


class _Failing:
    def start_span(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("broken")


class _FailsAtTheEnd(TracerProvider):
    def get_tracer(self, *args: Any, **kwargs: Any) -> Any:
        tracer = super().get_tracer(*args, **kwargs)

        class Fails:
            def start_span(self, *args: Any, **kwargs: Any) -> Any:
                span: Any = tracer.start_span(*args, **kwargs)

                def end(*_: Any) -> None:
                    raise RuntimeError("broken")

                span.end = span.set_attribute = span.set_status = end
                return span

        return Fails()


@pytest.mark.parametrize("provider", [Trouble, _FailsAtTheEnd])
async def test_a_tracer_in_trouble_changes_no_outcome(provider: type[TracerProvider]) -> None:
    sink = Sink()
    with installed(provider(shutdown_on_exit=False)):
        result, letters = await process(shop(sink).stage, records('"a"', '"fail"', '"reject"', '"b"'))
    assert [type(outcome).__name__ for outcome in result.outcomes] == ["Succeeded", "Failed", "Rejected", "Succeeded"]
    assert sink.values == ["a", "b"]
    assert len(letters.letters) == 1


async def test_text_that_cannot_be_sent_is_replaced(tracing: Traced) -> None:
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    made = Pipeline("shop", idempotency=None)

    @made.handler(sources.SQS("orders"))
    async def price(order: str) -> None:
        raise ValueError(f"{order} \ud800 \x00 " + "x" * 10_000)

    (raw,) = records('"a"', attributes={"shard_id": "\ud800"})
    await process(price.stage, [msgspec.structs.replace(raw, id="r\ud800")])
    (run,) = tracing.runs()
    assert run.status.description is not None
    assert len(run.status.description) <= 500
    assert encode_spans(tracing.spans).resource_spans


@pytest.mark.parametrize("context", [TraceContext("0" * 31 + "1", "0" * 15 + "1", 3, "vendor=1,vendor=2,=")])
async def test_a_state_that_is_none_harms_nothing(context: TraceContext, tracing: Traced) -> None:
    (raw,) = records('"a"')
    result, _ = await process(shop().stage, [sent(raw, context)])
    assert isinstance(result.outcomes[0], Succeeded)


async def test_a_duplicate_has_a_span_that_says_so(tracing: Traced) -> None:
    made = Pipeline("shop")

    @made.handler(sources.SQS("orders"), key="id")
    async def price(order: dict[str, str]) -> None:
        return None

    store = Memory()
    await process(price.stage, records('{"id": "a"}'), store=store)
    tracing.clear()
    await process(price.stage, records('{"id": "a"}'), store=store)
    assert attributes(tracing.run("r0"))["pipeline.outcome"] == "duplicate"


async def test_lines_of_records_and_batches_name_their_spans(tracing: Traced) -> None:
    written = io.StringIO()
    logger = logger_for("shop-lines", "DEBUG", written)
    facts: list[Fact] = []
    (raw,) = records('"fail"')
    await process(replace(shop().stage, retry=None), [sent(raw, SENT)], facts=facts)
    writer = LogWriter(logger, "price")
    for fact in facts:
        writer(fact)
    lines = {line["message"]: line for line in map(json.loads, written.getvalue().splitlines())}
    failed, batch = lines["record.failed"], lines["batch.finished"]
    assert (failed["traceId"], failed["spanId"]) == (SENT.trace_id, f"{tracing.run('r0').context.span_id:016x}")
    assert batch["spanId"] == f"{tracing.batch().context.span_id:016x}"


# What goes on after a run, and before the next one


async def on_trouble(record: Any, values: Any) -> None:
    raise ValueError("the hook")


async def test_lines_after_a_runs_end_name_its_span(tracing: Traced) -> None:
    made = Pipeline("shop", idempotency=Claim(on_duplicate=on_trouble))

    @made.handler(sources.SQS("orders"), key="id")
    async def price(order: dict[str, str]) -> None:
        return None

    store, facts = Memory(), list[Fact]()
    await process(price.stage, records('{"id": "a"}'), store=store)
    tracing.clear()
    await process(price.stage, records('{"id": "a"}'), store=store, facts=facts)
    (failed,) = [fact for fact in facts if isinstance(fact, HookFailed)]
    assert failed.span is not None
    assert numbers(failed.span) == place(tracing.run("r0"))


async def test_a_streams_record_that_waited_in_vain_names_its_last_run(tracing: Traced) -> None:
    made = Pipeline("shop", idempotency=None)

    @made.handler(sources.Kinesis("orders"))
    async def price(order: str) -> None:
        raise Retry(after=60)

    facts: list[Fact] = []
    now = asyncio.get_running_loop().time()
    await process(price.stage, records("a"), deadline=Deadline(now + 0.05, now + 0.1), facts=facts)
    (finished,) = [fact for fact in facts if isinstance(fact, RecordFinished)]
    assert finished.span is not None
    assert numbers(finished.span) == place(tracing.run("r0"))


async def test_outputs_of_an_earlier_run_are_sent_by_the_run_that_sends_them(tracing: Traced) -> None:
    down = [True]
    sink = Sink("ledger", fails=lambda output: SinkUnavailable("away") if down[0] else None)
    made = Pipeline("shop", idempotency=Claim(replay=True))

    @made.handler(sources.SQS("orders"), sinks=[sink], key="id")
    async def price(order: dict[str, str]) -> dict[str, str]:
        return order

    store = Memory()
    for order, outcome in (("a", "failed"), ("a", "succeeded"), ("b", "succeeded"), ("b", "duplicate")):
        tracing.clear()
        await process(price.stage, records(f'{{"id": "{order}"}}'), store=store)
        down[0] = False
        run = tracing.run("r0")
        (call,) = tracing.named("write ledger")
        assert attributes(run)["pipeline.outcome"] == outcome
        assert call.parent is not None
        assert call.parent.span_id == run.context.span_id
        if outcome != "failed":
            assert f"{run.context.span_id:016x}" in (sink.outputs[-1].traceparent or "")


async def test_a_generator_may_have_a_span_of_its_own_around_its_yields(
    tracing: Traced, caplog: pytest.LogCaptureFixture
) -> None:
    made = Pipeline("shop", idempotency=None)
    inside: list[str] = []

    @made.handler(sources.SQS("orders"), sinks=[Sink()])
    def price(order: str) -> Iterator[int]:
        with trace.get_tracer("own").start_as_current_span("all of it"):
            for number in range(25):
                current: Any = trace.get_current_span()
                inside.append(current.name)
                yield number

    await process(price.stage, records("a"))
    assert inside == ["all of it"] * 25
    assert not [line for line in caplog.records if line.levelname == "ERROR"]


async def test_a_generator_that_nobody_wants_the_rest_of_is_closed(tracing: Traced) -> None:
    made = Pipeline("shop", idempotency=None)

    @made.handler(sources.SQS("orders"), sinks=[Sink(fails=lambda output: SinkUnavailable("away"))])
    def price(order: str) -> Iterator[str]:
        with trace.get_tracer("own").start_as_current_span("all of it"):
            for _ in range(5_000):
                yield "x" * 1_000

    result, _ = await process(price.stage, records("a"))
    assert isinstance(result.outcomes[0], Failed)
    assert len(tracing.named("all of it")) == 1


def test_what_is_closed_elsewhere_leaves_the_context_there_alone() -> None:
    async def work() -> None:
        with spans.inside(None):
            await asyncio.sleep(0)

    abandoned = work()
    abandoned.send(None)
    token = CURRENT.set("a record")  # type: ignore[arg-type]
    try:
        abandoned.close()
        assert CURRENT.get() == "a record"
    finally:
        CURRENT.reset(token)


async def test_a_batch_inside_a_record_has_a_span_of_its_own(tracing: Traced) -> None:
    made = Pipeline("shop", idempotency=None)
    within = shop()

    @made.handler(sources.SQS("outside"))
    async def outer(order: str) -> None:
        await process(within.stage, records('"a"', '"b"'))

    await process(outer.stage, records("a"))
    batches = [span for span in tracing.spans if "messaging.batch.message_count" in attributes(span)]
    assert [attributes(batch)["messaging.batch.message_count"] for batch in batches] == [2, 1]
    assert not any("messaging.message.id" in attributes(batch) for batch in batches)


class StoppedClock:
    """Time that passes when the test says so. Whoever sleeps does so for ever."""

    def __init__(self) -> None:
        self.time = 1_800_000_000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        await asyncio.Event().wait()


class Counting(SpanProcessor):
    def __init__(self) -> None:
        self.begun: list[int] = []
        self.ended: list[int] = []

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self.begun.append(span.context.span_id)

    def on_end(self, span: Any) -> None:
        self.ended.append(span.context.span_id)


async def test_every_span_that_begins_ends_once_also_of_a_claim_that_lapsed(caplog: pytest.LogCaptureFixture) -> None:
    clock = StoppedClock()
    store = Memory()
    runs: list[str] = []
    is_running = asyncio.Event()
    made = Pipeline("shop", idempotency=Claim(lease=60))

    @made.handler(sources.SQS("orders"))
    async def price(order: str) -> None:
        runs.append(order)
        is_running.set()
        if len(runs) == 1:
            await asyncio.Event().wait()

    first = asyncio.ensure_future(process(price.stage, records("a"), store=store, clock=clock))
    await is_running.wait()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    clock.time += 1_000

    counting, provider = Counting(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(counting)
    with installed(provider):
        result, _ = await process(price.stage, records("a", '"fail"'), store=store, clock=clock)
    assert isinstance(result.outcomes[0], Succeeded)
    assert sorted(counting.begun) == sorted(counting.ended)
    assert not [line for line in caplog.records if "ended span" in line.getMessage()]


async def test_of_one_record_the_first_failed_run_and_the_last_one_are_forced() -> None:
    made = Pipeline("shop", idempotency=None)
    runs: list[int] = []

    @made.handler(sources.Kinesis("orders"), retry=Backoff(attempts=5, base=0.001, cap=0.002))
    async def price(order: str) -> None:
        runs.append(len(runs))
        raise ValueError(len(runs))

    now = asyncio.get_running_loop().time()
    with traced(ParentBased(ALWAYS_OFF)) as tracing:
        await process(price.stage, records("a"), deadline=Deadline(now + 5, now + 6))
    assert len(runs) == 5
    assert [attributes(run)["pipeline.outcome"] for run in tracing.runs()] == ["failed", "exhausted"]


# What others bring


def test_a_span_that_keeps_nothing_takes_whatever_opentelemetrys_takes() -> None:
    for name in [name for name in dir(trace.Span) if not name.startswith("_")]:
        assert callable(getattr(span._NO_SPAN, name)), f"a handler's test would fail at context.span.{name}"
    assert not span._NO_SPAN.get_span_context().is_valid
    assert {name for name in dir(trace.INVALID_SPAN_CONTEXT) if not name.startswith("_")} - {"count", "index"} <= set(
        dir(span._NoContext)
    )


class Odd(Sink):
    """A sink of somebody's own, to whom `described` means something else."""

    described = "the ledger"


class Raises(Sink):
    @property
    def described(self) -> Any:
        raise RuntimeError("not now")


@pytest.mark.parametrize("sink", [Odd("ledger"), Raises("ledger")])
async def test_an_attribute_that_means_something_else_harms_nothing(sink: Sink, tracing: Traced) -> None:
    result, _ = await process(shop(sink).stage, records('"a"'))
    assert isinstance(result.outcomes[0], Succeeded)
    assert tracing.named("write ledger")


async def test_a_disabled_sdk_is_no_tracing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    facts: list[Fact] = []
    (raw,) = records('"fail"')
    with traced() as tracing:
        await process(shop().stage, [sent(raw, SENT)], facts=facts)
    assert tracing.spans == ()
    assert all(getattr(fact, "span", None) is None for fact in facts)


async def test_a_strangers_attribute_is_no_partition(tracing: Traced) -> None:
    await process(shop().stage, records('"a"', attributes={"shard_id": "x" * 1_000}))
    assert "messaging.destination.partition.id" not in attributes(tracing.run("r0"))


async def test_a_shared_call_has_as_many_links_as_a_span_may_have(tracing: Traced) -> None:
    made = Pipeline("shop", idempotency=None)

    @made.handler(sources.SQS("orders"), sinks=[Sink("ledger")], concurrency=300)
    async def price(order: str) -> str:
        await asyncio.sleep(0)
        return order

    await process(price.stage, records(*["a"] * 300))
    assert max(len(call.links) for call in tracing.named("write ledger")) == otel.MAX_LINKS
    assert not any(call.dropped_links for call in tracing.named("write ledger"))


async def test_times_are_those_of_the_clock(tracing: Traced) -> None:
    clock = StoppedClock()
    await process(shop(Sink("ledger")).stage, records('"a"'), clock=clock)
    for one in tracing.spans:
        assert one.start_time == one.end_time == int(clock.now() * 1e9)


async def test_a_call_keeps_the_state_of_its_records_trace(tracing: Traced) -> None:
    (raw,) = records('"a"')
    await process(shop(Sink("ledger")).stage, [sent(raw, msgspec.structs.replace(SENT, state="ot=th:8,vendor=x"))])
    (call,) = tracing.named("write ledger")
    assert call.context.trace_state.to_header() == "ot=th:8,vendor=x"
    assert call.parent is not None
    assert not call.parent.is_remote


class _RaisesContext(TracerProvider):
    def get_tracer(self, *args: Any, **kwargs: Any) -> Any:
        tracer = super().get_tracer(*args, **kwargs)

        class Tracer:
            def start_span(self, *args: Any, **kwargs: Any) -> Any:
                span: Any = tracer.start_span(*args, **kwargs)

                def broken() -> Any:
                    raise RuntimeError("broken context")

                span.get_span_context = broken
                return span

        return Tracer()


async def test_a_span_without_a_context_changes_no_outcome() -> None:
    sink = Sink()
    with installed(_RaisesContext(shutdown_on_exit=False)):
        result, _ = await process(shop(sink).stage, records('"a"', '"fail"'))
    assert [type(outcome).__name__ for outcome in result.outcomes] == ["Succeeded", "Failed"]
    assert sink.values == ["a"]
