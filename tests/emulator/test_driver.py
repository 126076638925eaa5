"""The driver of queues and shards over ports of the tests' own, in virtual time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from pipeline.decisions.patterns import read_filter
from pipeline.emulator.activity import Activity
from pipeline.emulator.driver import Handling, Look, QueueDriver, ShardDriver
from pipeline.emulator.mappings.actions import Commit, Message, Read, Receive, SendToDestination, Shard, StreamRecord
from pipeline.emulator.mappings.answers import Answer, Cause, FunctionFailed, Returned
from pipeline.emulator.mappings.machine import Page
from pipeline.emulator.mappings.queue import QueueMapping
from pipeline.emulator.mappings.settings import QueueSettings, StreamSettings
from pipeline.emulator.mappings.stream import StreamMapping
from pipeline.emulator.report import Counts, Tally
from pipeline.emulator.virtual import VirtualClock, virtually
from pipeline.errors import ConfigurationError, PipelineError

VISIBILITY = 30.0


def message(name: str, body: str = "{}") -> Message:
    return Message(name, f"receipt-{name}", {"messageId": name, "body": body}, 100)


class Queue:
    """A queue whose calls fail as told. `failures`: how many of the next calls of each kind fail."""

    def __init__(self, *messages: Message, **failures: int) -> None:
        self.visible = list(messages)
        self.in_flight: dict[str, tuple[Message, float]] = {}
        self.failures = failures
        self.deleted: list[str] = []

    async def receive(self, wanted: Receive, look: Look) -> Sequence[Message]:
        self._may_fail("receive")
        now = VirtualClock().now()
        end = now + 20 if wanted.until is None else wanted.until
        while not self.visible and now < end:
            look.found_nothing(look.activity.count)
            await VirtualClock().sleep(1)
            now = VirtualClock().now()
            back = [name for name, (_, at) in self.in_flight.items() if at <= now]
            self.visible += [self.in_flight.pop(name)[0] for name in back]
        found, self.visible = self.visible[: wanted.count], self.visible[wanted.count :]
        self.in_flight |= {one.id: (one, now + VISIBILITY) for one in found}
        return found

    async def delete(self, messages: Sequence[Message]) -> None:
        self._may_fail("delete")
        for one in messages:
            del self.in_flight[one.id]
            self.deleted.append(one.id)

    def _may_fail(self, kind: str) -> None:
        if self.failures.get(kind, 0):
            self.failures[kind] -= 1
            raise ConnectionError("away")


class Shards:
    """A stream of one shard, whose calls fail as told."""

    def __init__(self, *numbers: str, **failures: int) -> None:
        self.numbers = numbers
        self.failures = failures
        self.sent: list[SendToDestination] = []

    async def shards(self) -> Sequence[Shard]:
        self._may_fail("shards")
        return [Shard("shard")]

    async def read(self, wanted: Read, look: Look) -> Page:
        self._may_fail("read")
        at = 0 if wanted.after is None else self.numbers.index(wanted.after) + 1
        found = self.numbers[at : at + wanted.limit]
        if not found:
            look.found_nothing(look.activity.count)
            await VirtualClock().sleep(5)
        now = VirtualClock().now()
        return Page([StreamRecord(n, {"n": n}, 10, now, "key", b"{}", (n,)) for n in found])

    async def send(self, record: SendToDestination) -> None:
        self._may_fail("send")
        self.sent.append(record)

    async def commit(self, wanted: Commit) -> None:
        """A stream's mapping asks for none."""

    def _may_fail(self, kind: str) -> None:
        if self.failures.get(kind, 0):
            self.failures[kind] -= 1
            raise ConnectionError("away")


class Function:
    """Answers in order, else with success; each invocation takes a second."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.events: list[Any] = []
        self.running = 0

    async def invoke(self, event: Any) -> Answer:
        self.events.append(event)
        self.running += 1
        await VirtualClock().sleep(1)
        self.running -= 1
        return self.answers.pop(0) if self.answers else Returned(None)


def failed() -> FunctionFailed:
    return FunctionFailed(Cause.RAISED, "ValueError", "no")


class Driven:
    """A driver that runs until its source has had nothing for a while."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.activity = Activity()
        self.tally = Tally()

    @property
    def handling(self) -> Handling:
        return Handling(
            label="work", function=self.function, tally=self.tally, activity=self.activity, clock=VirtualClock()
        )

    def queue(self, port: Queue, **settings: Any) -> QueueDriver:
        options: dict[str, Any] = {"report_batch_item_failures": True, **settings}
        return QueueDriver(QueueMapping(QueueSettings(**options)), port, self.handling)

    def stream(self, port: Shards, **settings: Any) -> ShardDriver:
        machine = StreamMapping(StreamSettings(report_batch_item_failures=True, **settings), "kinesis")
        return ShardDriver(machine, port, self.handling)

    def run(self, make: Callable[[], QueueDriver | ShardDriver], until: Callable[[], bool]) -> Counts:
        """Run the driver until something holds and it is quiet; then stop it."""

        async def play() -> None:
            driver = make()
            task = asyncio.create_task(driver.run())
            async with asyncio.timeout(10_000):
                while not (until() and driver.quiet_at == self.activity.count) and not task.done():
                    await self.activity.wait(10)
            await stopped(task)

        virtually(play())
        return self.tally.counts(dead_lettered=0, drained=False)


async def stopped(task: asyncio.Task[None]) -> None:
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return


def test_what_succeeded_is_deleted_and_what_is_named_comes_back_after_its_visibility() -> None:
    driven = Driven(Function(Returned({"batchItemFailures": [{"itemIdentifier": "b"}]})))
    port = Queue(message("a"), message("b"))
    counts = driven.run(lambda: driven.queue(port), lambda: len(port.deleted) == 2)
    assert port.deleted == ["a", "b"]
    assert (counts.succeeded, counts.deliveries, counts.batches) == (2, 3, 2)


def test_a_queue_that_is_away_is_asked_again_and_a_warning_says_so(caplog: pytest.LogCaptureFixture) -> None:
    driven = Driven(Function())
    port = Queue(message("a"), receive=3)
    with caplog.at_level(logging.WARNING):
        driven.run(lambda: driven.queue(port), lambda: port.deleted == ["a"])
    assert caplog.messages == ["work: cannot receive: away"] * 3


def test_a_run_is_not_at_rest_while_its_queue_cannot_be_asked() -> None:
    driven = Driven(Function())
    port = Queue(receive=2)
    seen: list[bool] = []

    async def play() -> None:
        driver = driven.queue(port)
        task = asyncio.create_task(driver.run())
        for _ in range(5):
            await VirtualClock().sleep(0.5)
            seen.append(driver.quiet_at == driven.activity.count)
        await stopped(task)

    virtually(play())
    assert seen[:2] == [False, False]
    assert seen[-1]


@pytest.mark.parametrize("seconds", [0.25, 5], ids=["the others' reads end meanwhile", "the others' reads wait"])
def test_a_run_is_not_at_rest_while_one_of_its_shards_cannot_be_asked(seconds: float) -> None:
    class TwoShards(Shards):
        async def shards(self) -> Sequence[Shard]:
            return [Shard("away"), Shard("there")]

        async def read(self, wanted: Read, look: Look) -> Page:
            if wanted.shard == "away":
                self._may_fail("read")
            for _ in range(int(seconds * 4)):
                look.found_nothing(look.activity.count)
                await VirtualClock().sleep(0.25)
            return Page([])

    driven = Driven(Function())
    port = TwoShards(read=3)
    at_rest: list[tuple[int, bool]] = []

    async def play() -> None:
        driver = driven.stream(port)
        task = asyncio.create_task(driver.run())
        for _ in range(40):
            await VirtualClock().sleep(0.1)
            at_rest.append((port.failures["read"], driver.quiet_at == driven.activity.count))
        await stopped(task)

    virtually(play())
    assert True not in [is_at_rest for left, is_at_rest in at_rest if left]
    assert (0, True) in at_rest


def test_what_could_not_be_deleted_comes_again() -> None:
    driven = Driven(Function())
    port = Queue(message("a"), delete=1)
    counts = driven.run(lambda: driven.queue(port), lambda: port.deleted == ["a"])
    assert (counts.succeeded, counts.deliveries) == (1, 2)


def test_what_the_filter_does_not_accept_is_deleted_without_an_invocation() -> None:
    driven = Driven(Function())
    port = Queue(message("a", '{"kind": "refund"}'), message("b", "text"), delete=1)
    found = read_filter({"kind": ["order"]}, member="body", declared="sources.SQS")
    counts = driven.run(lambda: driven.queue(port, filter=found), lambda: sorted(port.deleted) == ["a", "b"])
    assert driven.function.events == []
    assert counts == Counts(filtered=2)


def test_when_it_is_stopped_what_is_at_work_comes_to_its_end_and_nothing_new_begins() -> None:
    driven = Driven(Function())
    port = Queue(*(message(str(n)) for n in range(30)))

    async def play() -> None:
        task = asyncio.create_task(driven.queue(port).run())
        await VirtualClock().sleep(0.5)
        assert driven.function.running
        began = len(driven.function.events)
        await stopped(task)
        assert driven.function.running == 0
        assert len(driven.function.events) == began

    virtually(play())
    assert len(port.deleted) == 10 * len(driven.function.events)


def test_a_machine_that_breaks_ends_the_run_with_its_error() -> None:
    driven = Driven(Function())

    class Broken(QueueMapping):
        def received(self, poll: int, messages: Sequence[Message], now: float) -> None:
            raise ZeroDivisionError

    async def play() -> None:
        await QueueDriver(Broken(QueueSettings()), Queue(message("a")), driven.handling).run()

    with pytest.raises(ZeroDivisionError):
        virtually(play())


def test_a_streams_failures_are_asked_again_and_each_record_is_settled_once() -> None:
    driven = Driven(Function(failed(), failed()))
    port = Shards("1", "2", "3", shards=1, read=2)
    counts = driven.run(lambda: driven.stream(port), lambda: len(driven.function.events) == 3)
    assert (counts.succeeded, counts.deliveries, counts.failed_invocations) == (3, 9, 2)


def test_what_is_given_up_is_sent_to_the_destination_and_said(caplog: pytest.LogCaptureFixture) -> None:
    driven = Driven(Function(failed(), failed()))
    port = Shards("1", "2", send=1)
    queue = "arn:aws:sqs:us-east-1:123456789012:lost"
    with caplog.at_level(logging.ERROR):
        counts = driven.run(
            lambda: driven.stream(port, maximum_retry_attempts=1, on_failure=queue), lambda: len(port.sent) == 1
        )
    assert port.sent[0].destination == queue
    assert (counts.exhausted, counts.succeeded) == (2, 0)
    assert "work: shard: 2 records are given up: RetryAttemptsExhausted" in caplog.messages


def test_a_port_that_finds_a_declaration_wrong_breaks_the_run() -> None:
    class Wrong(Queue):
        async def receive(self, wanted: Receive, look: Look) -> Sequence[Message]:
            raise ConfigurationError("there is no such thing in memory")

    driven = Driven(Function())
    with pytest.raises(ConfigurationError, match="no such thing"):
        driven.run(lambda: driven.queue(Wrong()), lambda: False)


def test_a_mapping_that_goes_round_without_end_breaks_the_run() -> None:
    class Restless(QueueMapping):
        @property
        def wakes_at(self) -> float | None:
            return VirtualClock().now()

    driven = Driven(Function())
    with pytest.raises(PipelineError, match="the mapping of 'work' goes round and does nothing"):
        driven.run(lambda: QueueDriver(Restless(QueueSettings()), Queue(), driven.handling), lambda: False)
