"""Fan-out: every output reaches its sinks, with ids that a repeat repeats."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest

from pipeline import Emit, Pipeline, Reject, sinks, sources
from pipeline.decisions import wire
from pipeline.engine.fanout import MAX_HELD
from pipeline.errors import ConfigurationError, EncodeError, SinkError, SinkUnavailable
from pipeline.outcome import Failed, Rejected, Succeeded
from pipeline.output import Output
from pipeline.record import Carried, TraceContext
from pipeline.stores import Memory
from pipeline.telemetry.events import Fact, SinkWritten
from tests.engine.harness import Letters, Sink, process, records

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SPAN = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", 1)
OTHER = TraceContext("5759e988bd862e3fe1be46a994272793", "53995c3f42cd8ad8")


@dataclass
class Priced:
    cents: int


class Pair(NamedTuple):
    n: int
    name: str


def declare(function: Any, *given: Any, **options: Any) -> Any:
    return Pipeline("shop").handler(sources.SQS("orders"), sinks=list(given), **options)(function)


@pytest.mark.parametrize(
    ("result", "values"),
    [
        (None, []),
        ({"a": 1}, [{"a": 1}]),
        ([1, 2], [1, 2]),
        ((1, None), [1]),
        (Emit(None), [None]),
        (Pair(1, "x"), [Pair(1, "x")]),
        ((n for n in range(3)), [0, 1, 2]),
        ([], []),
        ("text", ["text"]),
        (Emit([1, 2]), [[1, 2]]),
        ([Emit(1), 2], [1, 2]),
        (Priced(3), [Priced(3)]),
        (0, [0]),
    ],
)
async def test_what_a_handler_returns_is_none_one_or_many_outputs(result: Any, values: list[Any]) -> None:
    sink = Sink()

    async def price(order: dict[str, Any]) -> Any:
        return result

    done, _ = await process(declare(price, sink).stage, records("{}"))

    assert sink.values == values
    assert done.outcomes == (Succeeded(len(values)),)


async def test_a_text_goes_out_as_it_is_and_everything_else_as_json() -> None:
    sink = Sink()

    async def price(order: dict[str, Any]) -> list[Any]:
        return ["plain", Priced(1), {"n": 1 << 70}]

    await process(declare(price, sink).stage, records("{}"))

    assert [(output.body, output.is_text) for output in sink.outputs] == [
        ("plain", True), ('{"cents":1}', False), ('{"n":1180591620717411303424}', False),
    ]  # fmt: skip


async def test_outputs_go_to_every_sink_or_to_those_that_emit_names_and_when_lets_through() -> None:
    one, two, some = Sink("one"), Sink("two"), Sink("some")
    some.when = lambda value: value["n"] > 1  # type: ignore[attr-defined]

    async def price(order: dict[str, Any]) -> list[Any]:
        return [{"n": 1}, Emit({"n": 2}, to="two"), Emit({"n": 3}, to=("one", "some"))]

    done, _ = await process(declare(price, one, two, some).stage, records("{}"))

    assert one.values == [{"n": 1}, {"n": 3}]
    assert two.values == [{"n": 1}, {"n": 2}]
    assert some.values == [{"n": 3}]
    assert done.outcomes == (Succeeded(5),)


async def test_ids_hops_and_trace_travel_and_a_repeat_has_the_same_ids() -> None:
    sink = Sink()

    async def price(order: dict[str, Any]) -> list[Any]:
        return [{"n": 1}, Emit({"n": 2}, id="mine", key="k", attributes={"a": "b"}, delay=3)]

    handler = declare(price, sink)
    carried = Carried(id="earlier", hops=2, traceparent=TRACE)
    for _ in range(2):
        await process(handler.stage, records("{}", carried=carried, traces=(SPAN, OTHER)))

    first, second, *again = sink.outputs
    assert [(output.id, output.hops) for output in again] == [(first.id, 3), ("mine", 3)]
    assert first.id == wire.output_id("shop", "price", "sink", '"earlier"', 0)
    assert first.traceparent == TRACE
    assert (second.id, second.key, second.attributes, second.delay) == ("mine", "k", {"a": "b"}, 3)
    assert first.default_key == "earlier"


async def test_the_context_goes_on_wherever_it_came_from_and_none_is_made_up() -> None:
    sink = Sink()

    async def price(order: dict[str, Any]) -> int:
        return 1

    handler = declare(price, sink)
    await process(handler.stage, records("{}", traces=(OTHER,)))
    await process(handler.stage, records("{}", carried=Carried(id="earlier", traceparent="malformed")))

    assert [output.traceparent for output in sink.outputs] == [
        "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-00",
        None,
    ]


async def test_without_idempotency_the_identity_is_the_sources_own_id() -> None:
    sink = Sink()

    async def price(order: dict[str, Any]) -> int:
        return 1

    handler = Pipeline("shop", idempotency=None).handler(sources.SQS("orders"), sinks=[sink], key="id")(price)
    await process(handler.stage, records('{"id": "k"}'))

    assert sink.outputs[0].id == wire.output_id("shop", "price", "sink", "r0", 0)
    assert sink.outputs[0].default_key == "k"


async def test_the_default_ordering_key_is_the_lane_and_then_the_key() -> None:
    sink = Sink()

    async def price(order: dict[str, Any]) -> int:
        return 1

    lane = declare(price, sink, lane="customer", key="id")
    await process(lane.stage, records('{"id": "k", "customer": 7}'))
    await process(declare(price, sink, key=("id", "n")).stage, records('{"id": "k", "n": 1}'))
    await process(declare(price, sink).stage, records("{}", group="g"))

    assert [output.default_key for output in sink.outputs] == ["7", '["k", 1]', "g"]


async def test_ten_thousand_outputs_go_out_in_bounded_calls() -> None:
    sink = Sink()

    async def price(order: dict[str, Any]) -> list[int]:
        return list(range(10_000))

    done, _ = await process(declare(price, sink).stage, records("{}"))

    assert done.outcomes == (Succeeded(10_000),)
    assert sink.values == list(range(10_000))


@pytest.mark.parametrize("kind", ["generator", "async generator"])
async def test_a_generator_streams_what_it_yields_beyond_the_limit(kind: str) -> None:
    sink = Sink()
    most = 0

    def numbers() -> Iterator[int]:
        nonlocal most
        for number in range(3_500):
            most = max(most, number - len(sink.outputs))
            yield number

    def plain(order: dict[str, Any]) -> Iterator[int]:
        yield from numbers()

    async def asynchronous(order: dict[str, Any]) -> AsyncIterator[int]:
        for number in numbers():
            yield number

    handler = declare(plain if kind == "generator" else asynchronous, sink)
    done, _ = await process(handler.stage, records("{}"))

    assert done.outcomes == (Succeeded(3_500),)
    assert sink.values == list(range(3_500))
    assert most <= MAX_HELD + 100


async def test_large_outputs_stream_by_their_bytes() -> None:
    sink = Sink()

    async def price(order: dict[str, Any]) -> AsyncIterator[str]:
        for _ in range(5):
            yield "x" * 600_000

    await process(declare(price, sink).stage, records("{}"))

    assert sink.calls == [2, 2, 1]


async def test_a_write_that_fails_while_streaming_ends_the_run_and_keeps_nothing() -> None:
    sink = Sink(fails=lambda output: SinkUnavailable("throttled") if output.value >= 1_000 else None)
    closed: list[bool] = []

    async def price(order: dict[str, Any]) -> AsyncIterator[int]:
        try:
            for number in range(5_000):
                yield number
        finally:
            closed.append(True)

    store = Memory()
    done, _ = await process(declare(price, sink).stage, records("{}"), store=store)

    assert isinstance(done.outcomes[0], Failed)
    assert closed == [True]
    (entry,) = store.entries.values()
    assert entry.outputs is None, "what was streamed cannot be told from what was not: the handler runs again"


async def test_outputs_too_large_to_keep_are_dropped_and_the_handler_runs_again() -> None:
    down = True
    sink = Sink(fails=lambda output: SinkUnavailable("down") if down else None)
    runs: list[int] = []

    async def price(order: dict[str, Any]) -> str:
        runs.append(1)
        return "x" * 400_000

    handler, store = declare(price, sink), Memory()
    await process(handler.stage, records("{}"), store=store)
    down = False
    await process(handler.stage, records("{}"), store=store)

    assert len(runs) == 2
    assert len(sink.outputs) == 1


async def test_kept_outputs_for_a_sink_that_is_gone_fail_and_name_it() -> None:
    async def price(order: dict[str, Any]) -> int:
        return 1

    store = Memory()
    old = declare(price, Sink("old", lambda output: SinkUnavailable("down")))
    await process(old.stage, records("{}"), store=store)

    done, _ = await process(declare(price, Sink("new")).stage, records("{}"), store=store)

    assert isinstance(done.outcomes[0], Failed)
    assert isinstance(done.outcomes[0].error, ConfigurationError)
    assert "the sink 'old', which shop.price no longer has" in str(done.outcomes[0].error)


async def test_a_value_that_json_cannot_hold_writes_nothing_of_its_record() -> None:
    sink = Sink()

    async def price(order: dict[str, Any]) -> list[Any]:
        return [{"fine": 1}, {"not": object()}]

    done, _ = await process(declare(price, sink).stage, records("{}"))

    assert isinstance(done.outcomes[0], Failed)
    assert isinstance(done.outcomes[0].error, EncodeError)
    assert sink.outputs == []


async def test_a_text_with_a_lone_surrogate_is_no_output() -> None:
    async def price(order: dict[str, Any]) -> str:
        return "\ud800"

    done, _ = await process(declare(price, Sink()).stage, records("{}"))

    assert isinstance(done.outcomes[0], Failed)
    assert isinstance(done.outcomes[0].error, EncodeError)


@pytest.mark.parametrize("behaviour", ["raises", "answers too few"])
async def test_a_sink_that_breaks_its_word_fails_the_records_it_was_given(behaviour: str) -> None:
    class Broken(Sink):
        async def write(self, outputs: Any, environment: Any, deadline: Any) -> Any:
            if behaviour == "raises":
                raise LookupError("broken")
            return []

    async def price(order: dict[str, Any]) -> int:
        return 1

    facts: list[Fact] = []
    done, _ = await process(declare(price, Broken()).stage, records("{}", "{}"), facts=facts)

    assert len(done.of(Failed)) == 2
    (written,) = [fact for fact in facts if isinstance(fact, SinkWritten)]
    assert (written.accepted, written.failed) == (0, 2)
    assert isinstance(written.error, LookupError if behaviour == "raises" else SinkError)


async def test_rejects_go_to_the_sink_that_was_named_with_the_cause_and_the_body_unchanged() -> None:
    async def price(order: dict[str, Any]) -> None:
        raise Reject("never")

    class Recording(Sink):
        created = False

        async def create(self, environment: Any) -> None:
            self.created = True

    sink = Recording("graveyard")
    handler = declare(price, rejects=sink)
    letters = handler.stage.dead_letters
    await letters.create(None)
    done, _ = await process(
        handler.stage, records('{"a": 1}', b"\xff", attributes={"tenant": "x"}), letters=_Through(letters)
    )

    assert len(done.of(Rejected)) == 2
    assert sink.created
    assert [output.body for output in sink.outputs] == ['{"a": 1}', "/w=="]
    assert sink.outputs[0].attributes["tenant"] == "x"
    assert '"cause":"Reject: never"' in sink.outputs[0].attributes["pipeline_cause"]


class _Through(Letters):
    """Hands letters on to the handler's own place for them."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self._inner = inner

    async def put(self, letters: Any, environment: Any, deadline: Any) -> Any:
        return await self._inner.put(letters, environment, deadline)


async def test_sinks_in_this_process_take_what_the_handler_returned() -> None:
    memory = sinks.Memory()

    async def price(order: dict[str, Any]) -> Priced:
        return Priced(1)

    await process(declare(price, memory).stage, records("{}"))

    assert memory.values == [Priced(1)]
    assert isinstance(memory.outputs[0], Output)
