"""Log lines of records that interleave, and of slow ones."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from pipeline import Backoff, Batch, Claim, Context, Fused, Mark, Pipeline, Record, Reject, sources
from pipeline.decisions.deadline import Deadline
from pipeline.emulator.virtual import EPOCH, VirtualClock, virtually
from pipeline.engine.environment import ProcessEnvironment
from pipeline.engine.fanout import MAX_HELD
from pipeline.engine.modes import Mode
from pipeline.engine.processor import Processor
from pipeline.engine.stage import Stage
from pipeline.errors import SinkUnavailable
from pipeline.ports import Clock, Effect
from pipeline.record import Carried, RawRecord
from pipeline.stores import Memory
from pipeline.telemetry.events import MAX_OUTPUT_IDS, Fact, Observer, RecordFinished
from pipeline.telemetry.log import LogWriter, logger_for
from pipeline.telemetry.metrics import metrics_for
from tests.engine.harness import Letters, Sink, records


async def deliver(
    stage: Stage,
    raw: Sequence[RawRecord],
    *,
    written: io.StringIO,
    deadline: Deadline = Deadline(),
    clock: Clock | None = None,
    observers: Sequence[Observer] = (),
    store: Memory | None = None,
) -> None:
    """Process one batch; its lines go to `written`."""
    environment = ProcessEnvironment(clock=clock)
    logger = logger_for(stage.pipeline, stage.log_level, written)
    processor = Processor(
        replace(stage, store=(store or Memory()) if stage.mode else None),
        environment,
        logger=logger,
        metrics=metrics_for(stage.pipeline, stage.name),
        observers=[*observers, LogWriter(logger, stage.name, payloads=stage.log_payloads)],
    )
    try:
        await processor.process(raw, deadline)
    finally:
        processor.close()
        await environment.aclose()


def read(written: io.StringIO, message: str) -> list[dict[str, Any]]:
    """The lines of one event."""
    lines = [json.loads(line) for line in written.getvalue().split("\n")[:-1]]
    return [line for line in lines if line["message"] == message]


# Interleaving


#: Seconds that an actor waits for the others, one of which may have failed.
_PATIENCE = 5


class Gate:
    """Lets actors go on one at a time, in a given order. An actor that asks after its last turn goes on."""

    def __init__(self, order: list[str]) -> None:
        self._order = order
        self._waiting: dict[str, Callable[[], object]] = {}
        self._lock = threading.Lock()
        self._is_taken = False

    async def pass_task(self, name: str) -> None:
        """A task's way in."""
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._ask(name, lambda: loop.call_soon_threadsafe(turn.set_result, None))
        async with asyncio.timeout(_PATIENCE):
            await turn

    def pass_thread(self, name: str) -> None:
        """A thread's way in."""
        turn = threading.Event()
        self._ask(name, turn.set)
        assert turn.wait(_PATIENCE)

    def leave(self) -> None:
        """The turn is over."""
        with self._lock:
            self._is_taken = False
            self._next()

    def _ask(self, name: str, let_in: Callable[[], object]) -> None:
        with self._lock:
            self._waiting[name] = let_in
            self._next()

    def _next(self) -> None:
        if not self._is_taken and self._order and self._order[0] in self._waiting:
            self._is_taken = True
            self._waiting.pop(self._order.pop(0))()


STEPS = 3
TASKS, THREADS = ["t0", "t1", "t2"], ["s0", "s1", "s2"]
_GATES: list[Gate] = []


def _stages(pipeline: Pipeline) -> tuple[Any, Any]:
    @pipeline.handler(sources.SQS("tasks"), key="name")
    async def by_tasks(order: dict[str, str], context: Context) -> None:
        name = order["name"]
        for step in range(STEPS):
            await _GATES[-1].pass_task(name)
            context.logger.info("step", extra={"name_of": name, "step": step})
            _GATES[-1].leave()

    @pipeline.handler(sources.SQS("threads"), key="name")
    def by_threads(record: Record[dict[str, str]], context: Context) -> None:
        name = record.payload["name"]
        for step in range(STEPS):
            _GATES[-1].pass_thread(name)
            context.logger.info("step", extra={"name_of": name, "step": step})
            _GATES[-1].leave()

    return by_tasks, by_threads


def _raw(name: str, source: str, count: int) -> RawRecord:
    return RawRecord(id=f"id-{name}", source=source, body=json.dumps({"name": name}), receive_count=count)


@given(st.permutations([name for name in TASKS + THREADS for _ in range(STEPS)]))
@settings(deadline=None, max_examples=60, phases=[Phase.explicit, Phase.generate])  # a failure is slow to shrink
def test_whatever_the_schedule_no_line_has_another_records_names(order: list[str]) -> None:
    _GATES.append(Gate(list(order)))
    pipeline = Pipeline("interleaved")
    by_tasks, by_threads = _stages(pipeline)
    tasks = [_raw(name, "tasks", 1 + count) for count, name in enumerate(TASKS)]
    threads = [_raw(name, "threads", 4 + count) for count, name in enumerate(THREADS)]
    written = io.StringIO()

    async def both() -> None:
        await asyncio.gather(
            deliver(by_tasks.stage, tasks, written=written), deliver(by_threads.stage, threads, written=written)
        )

    asyncio.run(both())

    lines = read(written, "step")
    assert [line["name_of"] for line in lines] == order, "the schedule was kept"
    expected = {
        raw.id.removeprefix("id-"): (handler, raw.id, raw.source, raw.receive_count)
        for handler, some in (("by_tasks", tasks), ("by_threads", threads))
        for raw in some
    }
    for line in lines:
        assert (line["handler"], line["record_id"], line["source"], line["receive_count"]) == expected[line["name_of"]]
        assert line["attempt"] == 1
    hashes = {(line["name_of"], line["key_hash"]) for line in lines}
    assert len(hashes) == len({key_hash for _, key_hash in hashes}) == len(expected)


# Batch handlers


#: What is bound to a line of one record.
OF_RECORD = {"record_id", "key_hash", "attempt", "receive_count"}


def restocker(kind: str) -> Any:
    """A batch handler that writes a line for each of its calls."""
    pipeline = Pipeline("stock", idempotency=None)

    def told(items: Batch[str], context: Context) -> list[None]:
        context.logger.warning("stale", extra={"records": [item.id for item in items]})
        return [None for _ in items]

    if kind == "thread":

        @pipeline.handler(sources.SQS("orders"))
        def restock(items: Batch[str], context: Context) -> list[None]:
            return told(items, context)

        return restock

    @pipeline.handler(sources.SQS("orders"))
    async def restock_async(items: Batch[str], context: Context) -> list[None]:
        await context.clock.sleep(1)
        return told(items, context)

    return restock_async


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("kind", ["task", "thread"])
def test_a_line_of_a_batch_handler_names_what_is_true_of_the_whole_call(
    kind: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_VERSION", "7")
    stage, written = restocker(kind).stage, io.StringIO()

    virtually(deliver(stage, records(*['""'] * count), written=written, clock=VirtualClock()))

    (line,) = read(written, "stale")
    assert line["records"] == [f"r{position}" for position in range(count)]
    assert (line["handler"], line["source"], line["cold_start"]) == (stage.name, "orders", True)
    assert line["function_version"] == "7"
    assert OF_RECORD.isdisjoint(line)


@pytest.mark.parametrize("kind", ["task", "thread"])
def test_a_record_that_a_batch_handler_is_called_for_again_alone_is_named(kind: str) -> None:
    stage, written = restocker(kind).stage, io.StringIO()
    first, *others = records('""', '""', '""')
    again = msgspec.structs.replace(first, receive_count=2)

    virtually(deliver(stage, [again, *others], written=written, clock=VirtualClock()))

    lines = {tuple(line["records"]): line for line in read(written, "stale")}
    assert lines.keys() == {("r0",), ("r1", "r2")}
    assert (lines["r0",]["record_id"], lines["r0",]["attempt"]) == ("r0", 2)
    assert OF_RECORD.isdisjoint(lines["r1", "r2"])
    assert {(line["handler"], line["source"], line["cold_start"]) for line in lines.values()} == {
        (stage.name, "orders", True)
    }


def test_batches_that_interleave_and_one_within_another_name_their_own() -> None:
    written, clock = io.StringIO(), VirtualClock()
    pipeline, within = Pipeline("nested", idempotency=None), restocker("task")

    def asker(source: str) -> Any:
        async def ask(items: Batch[str], context: Context) -> list[None]:
            context.logger.info("before", extra={"asked": source})
            raw = [RawRecord(id="inner", source="orders", body='""')]
            await deliver(within.stage, raw, written=written, clock=clock)
            context.logger.info("after", extra={"asked": source})
            return [None for _ in items]

        ask.__name__ = f"by_{source}"
        return pipeline.handler(sources.SQS(source))(ask)

    async def both() -> None:
        await asyncio.gather(
            *(
                deliver(
                    asker(source).stage, [RawRecord(id=source, source=source, body='""')], written=written, clock=clock
                )
                for source in ("left", "right")
            )
        )

    virtually(both())

    assert len(read(written, "stale")) == 2
    assert {(line["handler"], line["source"]) for line in read(written, "stale")} == {("restock_async", "orders")}
    lines = read(written, "before") + read(written, "after")
    assert len(lines) == 4
    for line in lines:
        assert (line["handler"], line["source"]) == (f"by_{line['asked']}", line["asked"])


# Slow records


def sleeper() -> Any:
    @Pipeline("slow", idempotency=None).handler(sources.SQS("orders"), concurrency=20)
    async def price(order: dict[str, Any], context: Context) -> None:
        await context.clock.sleep(order["seconds"])

    return price


def slow_lines(*seconds: float, soft: float | None) -> list[dict[str, Any]]:
    """The lines of slow records of a batch whose time is up `soft` seconds after its start."""
    written, clock = io.StringIO(), VirtualClock()
    facts: list[Fact] = []

    async def run() -> None:
        start = clock.monotonic()
        until = Deadline() if soft is None else Deadline(soft=start + soft, hard=start + soft + 1)
        raw = records(*(json.dumps({"seconds": one}) for one in seconds), sent_at=EPOCH - 30)
        await deliver(
            sleeper().stage, raw, written=written, deadline=until, clock=clock, observers=[FailuresOnly(facts)]
        )

    virtually(run())
    told = [fact.record.id for fact in facts if isinstance(fact, RecordFinished)]
    lines = read(written, "record.slow")
    assert told == [line["record_id"] for line in lines], "whoever wants failures only is told of no others"
    return lines


class FailuresOnly:
    failures_only = True

    def __init__(self, facts: list[Fact]) -> None:
        self._facts = facts

    def __call__(self, fact: Fact) -> None:
        self._facts.append(fact)


def test_a_record_that_took_over_half_of_its_batchs_time_leaves_a_line() -> None:
    lines = slow_lines(1, 5, 5.5, 0, soft=10)

    (line,) = lines
    assert (line["record_id"], line["level"], line["outcome"]) == ("r2", "WARNING", "succeeded")
    assert (line["seconds"], line["handled"], line["age"]) == (5.5, 5.5, 35.5)


def test_nothing_is_slow_where_nothing_limits_the_time() -> None:
    assert slow_lines(1, 10_000, soft=None) == []


def test_when_all_records_are_slow_the_first_ten_say_it() -> None:
    assert len(slow_lines(*[6.0] * 15, soft=10)) == 10


# What a record caused, and what caused it


def splitter(*made: Sink, mode: Mode | None = None) -> Any:
    """A handler that hands on as many orders as it is told to, and then fails if it is told that."""

    @Pipeline("named", idempotency=mode, log_level="DEBUG").handler(
        sources.SQS("orders"), sinks=made, retry=Backoff(attempts=5), key="name"
    )
    async def price(order: dict[str, Any]) -> Any:
        for number in range(order["makes"]):
            yield {"number": number}
        if order.get("fails"):
            raise ValueError("no")

    return price


def story(stage: Stage, order: dict[str, Any], *, level: str = "DEBUG", times: int = 1, **fields: Any) -> list[Any]:
    """The lines of one record's deliveries, beside those of batches and sinks."""
    written, store = io.StringIO(), Memory()
    raw = records(json.dumps({"name": "a", **order}), **fields)

    async def run() -> None:
        for _ in range(times):
            await deliver(replace(stage, log_level=level), raw, written=written, clock=VirtualClock(), store=store)

    virtually(run())
    lines = [json.loads(line) for line in written.getvalue().split("\n")[:-1]]
    return [line for line in lines if "record_id" in line]


def ids(sink: Sink) -> list[str]:
    return [output.id for output in sink.outputs]


@pytest.mark.parametrize("mode", [None, Claim(), Mark()])
def test_a_record_names_the_outputs_that_it_made_and_what_made_it(mode: Mode | None) -> None:
    first, second = Sink("first"), Sink("second")

    (line,) = story(splitter(first, second, mode=mode).stage, {"makes": 3}, carried=Carried("sent-as", 1))

    assert line["message"] == "record.succeeded"
    assert line["caused_by"] == "sent-as"
    assert sorted(line["output_ids"]) == sorted(ids(first) + ids(second))
    assert line["outputs"] == len(line["output_ids"]) == 6


@pytest.mark.parametrize("makes", [MAX_OUTPUT_IDS, MAX_OUTPUT_IDS + 1, 2 * MAX_HELD + 1])
def test_of_many_outputs_the_first_are_named(makes: int) -> None:
    sink = Sink()

    (line,) = story(splitter(sink).stage, {"makes": makes})

    assert line["outputs"] == len(sink.outputs) == makes
    assert line["output_ids"] == ids(sink)[:MAX_OUTPUT_IDS]


def test_a_record_that_fails_names_what_sinks_accepted_before() -> None:
    sink = Sink()

    (line,) = story(splitter(sink).stage, {"makes": MAX_HELD + 1, "fails": True})

    assert line["message"] == "record.failed"
    assert line["output_ids"] == ids(sink)[:MAX_OUTPUT_IDS]


def test_each_run_names_what_sinks_accepted_in_it() -> None:
    refused = iter([SinkUnavailable("away"), None])
    first, second = Sink("first"), Sink("second", fails=lambda output: next(refused))

    failed, succeeded = story(splitter(first, second, mode=Claim()).stage, {"makes": 1}, times=2)

    assert (failed["message"], failed["output_ids"]) == ("record.failed", ids(first))
    assert (succeeded["message"], succeeded["output_ids"]) == ("record.succeeded", ids(second))


def test_a_repeat_names_what_it_sent_again() -> None:
    sink = Sink()

    first, repeat = story(splitter(sink, mode=Claim(replay=True)).stage, {"makes": 2}, times=2)

    assert (repeat["message"], repeat["output_ids"]) == ("record.duplicate", first["output_ids"])
    assert len(sink.outputs) == 4


def test_sinks_that_gather_are_named_when_they_have_accepted() -> None:
    sink = Sink()
    sink.gathers = True  # type: ignore[attr-defined]

    (line,) = story(splitter(sink).stage, {"makes": 2})

    assert line["output_ids"] == ids(sink)
    assert len(line["output_ids"]) == 2


class Table(Sink):
    """A sink that writes once, unless it is away."""

    is_away = False

    async def write_once(self, effects: Sequence[Effect], environment: Any, deadline: Deadline) -> Any:
        if self.is_away:
            return [SinkUnavailable("away")] * len(effects)
        self.outputs += [output for effect in effects for output in effect.outputs]
        return [True] * len(effects)


def test_what_is_written_with_a_mark_is_named_when_it_is() -> None:
    table, audit = Table("table"), Sink("audit")
    stage = splitter(table, audit, mode=Fused()).stage

    table.is_away = True
    (failed,) = story(stage, {"makes": 1})
    table.is_away = False
    (succeeded,) = story(stage, {"makes": 1})

    assert (failed["message"], failed["output_ids"]) == ("record.failed", ids(audit)[:1])
    assert (succeeded["message"], succeeded["output_ids"]) == ("record.succeeded", ids(audit)[1:] + ids(table))


def test_while_only_failures_get_lines_nobody_collects_the_names_of_outputs() -> None:
    sink = Sink()

    (line,) = story(splitter(sink).stage, {"makes": MAX_HELD + 1, "fails": True}, level="INFO")

    assert line["message"] == "record.failed"
    assert "output_ids" not in line


# Payloads


SECRET = "s3cr\u00e9t"


class Card(msgspec.Struct):
    number: str
    kind: str = "visa"


class Paid(msgspec.Struct):
    name: str
    card: Card
    items: list[dict[str, str]] = []


def payer(pipeline: Pipeline) -> Any:
    @pipeline.handler(sources.SQS("orders"), key=("name", "card.number"), retry=Backoff(attempts=2))
    async def pay(order: Paid) -> None:
        if order.card.kind != "visa":
            raise Reject("not this kind")
        if order.items:
            raise ValueError("no")

    return pay


secret = st.sampled_from([SECRET, f"{SECRET}\n", f"\U0001f4b3{SECRET}", f'"{SECRET}"'])
spoilt = (
    secret | st.lists(secret) | st.dictionaries(st.sampled_from(["number", "a"]), secret) | st.just({"number": [1]})
)
paid = st.fixed_dictionaries(
    {
        "name": secret,
        "card": st.fixed_dictionaries({"number": secret}, optional={"kind": st.just("other") | secret}) | spoilt,
    },
    optional={"items": st.lists(st.dictionaries(st.just("secret"), secret)) | spoilt},
)


@given(
    st.lists(paid | spoilt, min_size=1, max_size=5), st.sampled_from(["INFO", "DEBUG"]), st.booleans(), st.booleans()
)
@settings(deadline=None, max_examples=40)
def test_no_payload_no_key_and_no_masked_value_is_in_any_line(
    payloads: list[Any], level: str, is_asked: bool, is_ascii: bool
) -> None:
    paths = ["name", "card.number", "card.kind", "card.a", "items[*].secret", "number", "a"]
    pipeline = Pipeline("paid", log_level=level, log_payloads=paths if is_asked else None)
    raw = records(*(json.dumps(payload, ensure_ascii=is_ascii) for payload in payloads), "[", SECRET)
    written = io.StringIO()

    stage = replace(payer(pipeline).stage, dead_letters=Letters())
    store = Memory()

    async def run() -> None:
        for _ in range(3):  # until attempts are used up
            await deliver(stage, raw, written=written, clock=VirtualClock(), store=store)

    virtually(run())
    text = written.getvalue()
    assert "s3cr" not in text
    lines = [json.loads(line) for line in text.split("\n")[:-1]]
    ends = [line for line in lines if line["message"].startswith("record.")]
    assert len(ends) >= 3 * 2
    assert all(({"payload", "payload_error"} & set(line) != set()) is is_asked for line in ends)
