"""What each idempotency mode promises, through the whole engine and over every store.

A store is one row of `STORES`, and a sink that writes once is one of `FUSED`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from pipeline import Checkpoint, Claim, Emit, Fused, Mark, Pipeline, Record, Reject, sinks, sources
from pipeline.aws.client import client
from pipeline.engine.environment import ProcessEnvironment
from pipeline.engine.modes import Mode
from pipeline.errors import SinkUnavailable, StoreUnavailable
from pipeline.outcome import HandBack, Unprocessed
from pipeline.output import Output
from pipeline.record import RawRecord
from pipeline.telemetry.events import CompletionLost
from tests.contract.test_store_contract import LOCAL, batched, dynamodb, memory, redis, single  # noqa: F401 - fixtures
from tests.engine.harness import Letters, Sink
from tests.engine.hosts import Host, Raised, WatchedStore, kinds
from tests.engine.test_streams import event

TTL = 1_000
LEASE = 60.0
QUEUE, STREAM = sources.SQS("orders.fifo"), sources.Kinesis("readings")
DOWN = StoreUnavailable("down")

MODES: dict[str, Mode] = {
    "claim": Claim(ttl=TTL, lease=LEASE),
    "mark": Mark(ttl=TTL),
    "checkpoint": Checkpoint(ttl=TTL),
    "fused": Fused(ttl=TTL),
}
#: The call that asks, and the one that tells the end.
ASKS = {"claim": "claim", "mark": "look", "checkpoint": "look"}
TELLS = {"claim": "settle", "mark": "mark", "checkpoint": "advance"}

STORES = ["memory", "dynamodb", "redis", *LOCAL]
FUSED = ["in_memory", "in_moto", pytest.param("in_local", marks=pytest.mark.dynamodb_local)]


class SteppedClock:
    """Time that passes when the test says so. Whoever sleeps long, as what renews claims does, sleeps to its end."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock

    def now(self) -> float:
        return float(self._clock.now())

    def monotonic(self) -> float:
        return float(self._clock.monotonic())

    async def sleep(self, seconds: float) -> None:
        if seconds >= 10:
            await asyncio.Event().wait()
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self._clock.advance(seconds)


@dataclass
class Bench:
    """One mode over one store: a handler, what it ran, and where its outputs went."""

    name: str
    store: WatchedStore | None
    clock: SteppedClock
    target: Any  #: the sink whose outputs are looked at
    read: Any  #: the values in it
    hosts: AsyncExitStack
    audit: Sink = field(default_factory=lambda: Sink("audit"))  #: another sink
    letters: Letters = field(default_factory=Letters)
    runs: list[str] = field(default_factory=list)
    ends: dict[str, str] = field(default_factory=dict)
    facts: list[Any] = field(default_factory=list)
    wait: asyncio.Event | None = None
    waiting: int = 0

    def stage(self, source: Any = QUEUE, name: str = "price") -> Any:
        pipeline = Pipeline("shop", idempotency=MODES[self.name])

        async def handle(record: Record[dict[str, Any]]) -> list[Emit[Any]]:
            order = record.payload["id"]
            self.runs.append(order)
            if self.wait is not None:
                self.waiting += 1
                await self.wait.wait()
            if self.ends.get(order) == "fail":
                raise ValueError("no")
            if self.ends.get(order) == "reject":
                raise Reject("never")
            return [Emit({"id": order}, to=self.target.name), Emit({"id": order}, to="audit")]

        handle.__name__ = name
        return pipeline.handler(source, sinks=[self.target, self.audit], retry=None)(handle).stage

    async def host(self, source: Any = QUEUE, name: str = "price") -> Host:
        """A new environment."""
        made = Host(self.stage(source, name), self.store, clock=self.clock, letters=self.letters, facts=self.facts)
        return await self.hosts.enter_async_context(made)

    async def written(self) -> list[str]:
        """The orders in the sink, in order."""
        return sorted([value["id"] for value in await self.read()])

    def trouble(self, call: dict[str, str], answer: Any, *, is_done: bool = False) -> None:
        """From now on the store answers so, to the call that asks or to the one that tells."""
        assert self.store is not None
        (self.store.after if is_done else self.store.before)[call[self.name]] = answer

    def recover(self) -> None:
        if self.store is not None:
            self.store.recover()

    @property
    def lost(self) -> list[Any]:
        return [fact for fact in self.facts if isinstance(fact, CompletionLost)]


@pytest.fixture
async def hosts() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


def stored(name: str, request: pytest.FixtureRequest, clock: Any, hosts: AsyncExitStack) -> Bench:
    mode, store = name.split(" ", 1)
    bench = request.getfixturevalue(store)
    target = Sink("target")

    async def read() -> list[Any]:
        return target.values

    return Bench(mode, WatchedStore(bench.store), SteppedClock(clock), target, read, hosts)


async def tabled(table: str, environment: ProcessEnvironment, clock: Any, hosts: AsyncExitStack) -> Bench:
    sink = sinks.DynamoDB(table, name="target")
    await sink.create(environment)

    async def read() -> list[Any]:
        service = await client(environment, "dynamodb")
        found = (await service.scan(TableName=table, ConsistentRead=True))["Items"]
        return [{"id": item["id"]["S"]} for item in found]

    return Bench("fused", None, SteppedClock(clock), sink, read, hosts)


@pytest.fixture
def in_memory(clock: Any, hosts: AsyncExitStack) -> Bench:
    sink = sinks.Memory(name="target")

    async def read() -> list[Any]:
        return sink.values

    return Bench("fused", None, SteppedClock(clock), sink, read, hosts)


@pytest.fixture
async def in_moto(aws: str, environment: ProcessEnvironment, clock: Any, hosts: AsyncExitStack, unique: str) -> Bench:
    return await tabled(unique, environment, clock, hosts)


@pytest.fixture
async def in_local(
    at_dynamodb_local: str, environment: ProcessEnvironment, clock: Any, hosts: AsyncExitStack, unique: str
) -> Bench:
    return await tabled(unique, environment, clock, hosts)


def rows(modes: list[str], *, fused: bool = False) -> list[Any]:
    """Each mode over each store, and `Fused` over each sink."""
    made = [
        pytest.param(f"{mode} {name}", marks=marks)
        for mode in modes
        for name, marks in (_unpacked(store) for store in STORES)
    ]
    over = [pytest.param(f"fused {name}", marks=marks) for name, marks in map(_unpacked, FUSED)]
    return made + (over if fused else [])


def _unpacked(row: Any) -> tuple[str, Any]:
    return (row, ()) if isinstance(row, str) else (row.values[0], row.marks)


@pytest.fixture
def bench(request: pytest.FixtureRequest, row: str, clock: Any, hosts: AsyncExitStack) -> Bench:
    if row.startswith("fused"):
        found: Bench = request.getfixturevalue(row.split()[1])
        return found
    return stored(row, request, clock, hosts)


STORED = ["claim", "mark", "checkpoint"]
each = pytest.mark.parametrize("row", rows(STORED, fused=True))
each_stored = pytest.mark.parametrize("row", rows(STORED))


def of_mode(mode: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", rows([mode]))


def orders(*ids: str, group: str | None = None) -> list[RawRecord]:
    """Messages of a FIFO queue, each in a group of its own, or all in one."""
    return QUEUE.decode({
        "Records": [
            {
                "messageId": f"m-{order}",
                "receiptHandle": order,
                "body": f'{{"id": "{order}"}}',
                "attributes": {"MessageGroupId": group or order, "SequenceNumber": str(10**19 + position)},
                "eventSource": "aws:sqs",
                "eventSourceARN": "arn:aws:sqs:eu-west-1:111122223333:orders.fifo",
            }
            for position, order in enumerate(ids)
        ]
    })  # fmt: skip


def readings(*ids: str) -> list[RawRecord]:
    return STREAM.decode(event(*({"id": name} for name in ids)))


@each
async def test_a_record_succeeds_once_and_its_repeat_writes_nothing(bench: Bench) -> None:
    host = await bench.host()

    assert kinds(await host.deliver(*orders("a", "b"))) == ["Succeeded"] * 2
    assert kinds(await host.deliver(*orders("a", "b"))) == ["Duplicate"] * 2
    assert kinds(await host.deliver(*orders("a", "b"))) == ["Duplicate"] * 2

    assert await bench.written() == ["a", "b"]
    assert len(bench.audit.outputs) == 2
    assert bench.runs == ["a", "b"]


@each
async def test_a_repeat_in_another_environment_writes_nothing(bench: Bench) -> None:
    assert kinds(await (await bench.host()).deliver(*orders("a", "b"))) == ["Succeeded"] * 2
    assert kinds(await (await bench.host()).deliver(*orders("a", "b"))) == ["Duplicate"] * 2

    assert await bench.written() == ["a", "b"]
    if bench.name == "fused":  # the handler runs, and the other sinks go first
        assert bench.runs == ["a", "b"] * 2
        assert len({output.id for output in bench.audit.outputs}) == 2
    else:
        assert bench.runs == ["a", "b"]
        assert len(bench.audit.outputs) == 2


@each
async def test_a_failed_handler_comes_again_and_succeeds(bench: Bench) -> None:
    bench.ends["a"] = "fail"
    first = await bench.host()

    assert kinds(await first.deliver(*orders("a", "b"))) == ["Failed", "Succeeded"]
    assert kinds(await first.deliver(*orders("a"))) == ["Failed"]
    bench.ends.clear()
    assert kinds(await (await bench.host()).deliver(*orders("a", "b"))) == ["Succeeded", "Duplicate"]
    assert await bench.written() == ["a", "b"]


@each
async def test_after_a_failed_sink_the_record_comes_again(bench: Bench) -> None:
    down = [True]
    bench.audit.fails = lambda output: SinkUnavailable("down") if down else None

    assert kinds(await (await bench.host()).deliver(*orders("a"))) == ["Failed"]
    if bench.name == "fused":
        assert await bench.written() == [], "the fused sink comes last"
    down.clear()
    assert kinds(await (await bench.host()).deliver(*orders("a"))) == ["Succeeded"]
    assert kinds(await (await bench.host()).deliver(*orders("a"))) == ["Duplicate"]

    assert len({output.id for output in bench.audit.outputs}) == 1
    if bench.name == "claim":  # kept outputs go only to the sink that lacks them
        assert bench.runs == ["a"]
        assert await bench.written() == ["a"]
    elif bench.name == "fused":
        assert await bench.written() == ["a"]
    else:  # it runs again, and all is written again with the same ids
        assert bench.runs == ["a", "a"]
        assert len({output.id for output in bench.target.outputs}) == 1


@each
async def test_what_was_rejected_on_a_queue_runs_when_it_is_redriven(bench: Bench) -> None:
    bench.ends["a"] = "reject"
    assert kinds(await (await bench.host()).deliver(*orders("a"))) == ["Rejected"]
    bench.ends.clear()

    # A redrive is a new message: it has another place, and the same id where the producer gave one.
    redriven = orders("other", "a", group="a")[1:]
    assert kinds(await (await bench.host()).deliver(*redriven)) == ["Succeeded"]
    assert await bench.written() == ["a"]


@each
async def test_what_was_rejected_on_a_stream_and_comes_again(bench: Bench) -> None:
    bench.ends.update(a="reject")
    source = STREAM

    assert kinds(await (await bench.host(source)).deliver(*readings("a", "b"))) == ["Rejected", "Succeeded"]
    again = kinds(await (await bench.host(source)).deliver(*readings("a", "b")))

    if bench.name == "fused":  # it keeps nothing of what it did not write
        assert again == ["Rejected", "Duplicate"]
        assert len(bench.letters.letters) == 2
    else:
        assert again == ["Duplicate"] * 2
        assert len(bench.letters.letters) == 1
    assert await bench.written() == ["b"]


@each_stored
@pytest.mark.parametrize("trouble", [DOWN, Raised(ConnectionError("refused"))], ids=["answered", "raised"])
async def test_while_the_store_cannot_be_asked_nothing_runs(bench: Bench, trouble: Any) -> None:
    bench.trouble(ASKS, trouble)
    result = await (await bench.host()).deliver(*orders("a", "b"))

    for outcome in result.outcomes:
        assert isinstance(outcome, Unprocessed)
        assert outcome.reason is HandBack.STORE
        assert isinstance(outcome.error, StoreUnavailable)
    assert bench.runs == []
    bench.recover()
    assert kinds(await (await bench.host()).deliver(*orders("a", "b"))) == ["Succeeded"] * 2


@each_stored
@pytest.mark.parametrize("trouble", [DOWN, Raised(ConnectionError("refused"))], ids=["answered", "raised"])
async def test_an_end_that_cannot_be_written_is_told_and_the_record_may_run_again(bench: Bench, trouble: Any) -> None:
    bench.trouble(TELLS, trouble)
    assert kinds(await (await bench.host()).deliver(*orders("a"))) == ["Succeeded"]
    assert [fact.record.id for fact in bench.lost] == ["m-a"]
    bench.recover()

    if bench.name == "claim":  # until the claim lapses it counts as running
        busy = await (await bench.host()).deliver(*orders("a"))
        assert kinds(busy) == ["Unprocessed"]
        bench.clock.advance(LEASE + 1)
    assert kinds(await (await bench.host()).deliver(*orders("a"))) == ["Succeeded"]
    assert bench.runs == ["a", "a"]
    assert len({output.id for output in bench.target.outputs}) == 1, "a repeat's outputs have the same ids"


@each_stored
async def test_an_end_whose_answer_was_lost_counts(bench: Bench) -> None:
    bench.trouble(TELLS, Raised(TimeoutError()), is_done=True)
    assert kinds(await (await bench.host()).deliver(*orders("a"))) == ["Succeeded"]
    assert len(bench.lost) == 1
    bench.recover()

    assert kinds(await (await bench.host()).deliver(*orders("a"))) == ["Duplicate"]
    assert bench.runs == ["a"]


@each
async def test_an_environment_that_is_dropped_in_a_run_repeats_it(bench: Bench) -> None:
    bench.wait = asyncio.Event()
    host = await bench.host()
    dying = asyncio.ensure_future(host.deliver(*orders("a")))
    await _until(lambda: bench.waiting == 1, dying)
    if bench.store is not None:
        bench.trouble(TELLS, DOWN)  # a process that dies tells nothing
    dying.cancel()
    await asyncio.wait([dying])
    bench.recover()
    bench.wait = None

    if bench.name == "claim":
        assert kinds(await (await bench.host()).deliver(*orders("a"))) == ["Unprocessed"]
        bench.clock.advance(LEASE + 1)
    assert kinds(await (await bench.host()).deliver(*orders("a"))) == ["Succeeded"]
    assert await bench.written() == ["a"]
    assert bench.runs == ["a", "a"]


@each
async def test_two_environments_with_the_same_record_at_the_same_moment(bench: Bench) -> None:
    bench.wait = asyncio.Event()
    one, other = await bench.host(), await bench.host()
    first = asyncio.ensure_future(one.deliver(*orders("a")))
    await _until(lambda: bench.waiting == 1, first)
    second = asyncio.ensure_future(other.deliver(*orders("a")))
    if bench.name == "claim":
        assert kinds(await second) == ["Unprocessed"]
        bench.wait.set()
        assert kinds(await first) == ["Succeeded"]
        assert bench.runs == ["a"]
        assert await bench.written() == ["a"]
        return
    await _until(lambda: bench.waiting == 2, second)
    bench.wait.set()
    ends = sorted([*kinds(await first), *kinds(await second)])
    if bench.name == "fused":
        assert ends == ["Duplicate", "Succeeded"]
        assert await bench.written() == ["a"], "the effect is once"
    else:
        assert ends == ["Succeeded"] * 2
        assert len({output.id for output in bench.target.outputs}) == 1
    assert kinds(await (await bench.host()).deliver(*orders("a"))) == ["Duplicate"]


async def _until(is_so: Any, work: asyncio.Future[Any]) -> None:
    """Let the loop turn until something is so; the work's own error comes first."""
    async with asyncio.timeout(20):
        while not is_so():
            if work.done():
                work.result()
                raise AssertionError("it ended without getting there")
            await asyncio.sleep(0)


@pytest.mark.parametrize("row", rows(["claim", "mark"]))
async def test_after_the_ttl_a_record_runs_again(bench: Bench) -> None:
    host = await bench.host()
    assert kinds(await host.deliver(*orders("a"))) == ["Succeeded"]
    bench.clock.advance(TTL - 1)
    assert kinds(await (await bench.host()).deliver(*orders("a"))) == ["Duplicate"]
    bench.clock.advance(3)

    assert kinds(await host.deliver(*orders("a"))) == ["Succeeded"], "also where it was known in the process"
    assert kinds(await (await bench.host()).deliver(*orders("a"))) == ["Duplicate"]


@of_mode("checkpoint")
async def test_a_place_counts_as_long_as_it_stands(bench: Bench) -> None:
    assert kinds(await (await bench.host()).deliver(*orders("a"))) == ["Succeeded"]
    bench.clock.advance(TTL + 2)

    assert kinds(await (await bench.host()).deliver(*orders("a"))) == ["Duplicate"]


@each
async def test_two_handlers_do_not_share_what_they_know(bench: Bench) -> None:
    price, ship = await bench.host(name="price"), await bench.host(name="ship")

    assert kinds(await price.deliver(*orders("a"))) == ["Succeeded"]
    assert kinds(await ship.deliver(*orders("a"))) == ["Succeeded"]
    assert kinds(await (await bench.host(name="ship")).deliver(*orders("a"))) == ["Duplicate"]
    assert bench.runs[:2] == ["a", "a"]


@each_stored
async def test_a_hundred_records_share_two_calls(bench: Bench) -> None:
    names = [f"o{number}" for number in range(100)]
    group = "one" if bench.name == "checkpoint" else None  # a lane is one place
    assert bench.store is not None

    result = await (await bench.host()).deliver(*orders(*names, group=group))
    assert kinds(result) == ["Succeeded"] * 100
    many = 1 if bench.name == "checkpoint" else 100
    assert bench.store.calls == [(ASKS[bench.name], many), (TELLS[bench.name], many)]

    bench.store.calls.clear()
    assert kinds(await (await bench.host()).deliver(*orders(*names, group=group))) == ["Duplicate"] * 100
    assert bench.store.calls == [(ASKS[bench.name], many)]


@pytest.mark.parametrize("row", ["fused in_memory"])
async def test_fused_makes_no_call_but_the_sinks_own(bench: Bench) -> None:
    assert bench.stage().store is None
    bench.store = WatchedStore(None)

    result = await (await bench.host()).deliver(*orders(*(f"o{number}" for number in range(100))))
    assert kinds(result) == ["Succeeded"] * 100
    assert bench.store.calls == []


@of_mode("claim")
async def test_only_outputs_that_are_owed_go_out_in_another_environment(bench: Bench) -> None:
    """Kept outputs survive the store's own form of them."""
    down = [True]

    def fails(output: Output) -> BaseException | None:
        return SinkUnavailable("down") if down and output.value["id"] == "ü😀" else None

    bench.audit.fails = fails
    records = [*orders("a"), *orders("ü😀")]
    assert kinds(await (await bench.host()).deliver(*records)) == ["Succeeded", "Failed"]
    down.clear()
    assert kinds(await (await bench.host()).deliver(*records)) == ["Duplicate", "Succeeded"]
    assert bench.runs == ["a", "ü😀"]
    assert [value["id"] for value in bench.audit.values] == ["a", "ü😀"]
