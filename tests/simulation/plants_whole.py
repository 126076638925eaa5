"""Bugs planted in the whole: in the engine, in integrations, in the mappings' machines, in their driver and the services.

Each breaks one rule, in this process and as long as its patch lasts, and the simulation must find it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from pipeline.aws import sqs as sqs_calls
from pipeline.decisions.patterns import Filter
from pipeline.emulator.driver import QueueDriver
from pipeline.emulator.mappings.answers import Unheard
from pipeline.emulator.mappings.queue import QueueMapping
from pipeline.emulator.mappings.shard import Batch, Lane
from pipeline.emulator.mappings.stream import StreamMapping
from pipeline.emulator.services.queue_state import Queue
from pipeline.engine.attempt import Attempt
from pipeline.engine.checkpoints import Checkpoints
from pipeline.engine.claims import Claims
from pipeline.engine.endings import Endings
from pipeline.outcome import Succeeded
from pipeline.sinks import DynamoDB
from pipeline.sources import SQS, Kinesis
from pipeline.stores import items
from tests.simulation.whole import Whole

Plant = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Planted:
    """A bug, a part of what must be said of it, and what finds it."""

    plant: Plant
    finding: str
    setting: tuple[str, str, str]  #: source, mode and profile
    near: int  #: a seed at, or shortly before, the first one that finds it

    def found_at(self, first: int, count: int) -> tuple[int, Whole] | None:
        """The first seed that finds it, and its run."""
        for seed in range(first, first + count):
            whole = Whole(seed, self.setting).play()
            if whole.violation is not None:
                return seed, whole
        return None


PLANTED: dict[str, Planted] = {}


def bug(finding: str, source: str, mode: str, profile: str, near: int = 0) -> Callable[[Plant], Plant]:
    """A planted bug."""

    def register(plant: Plant) -> Plant:
        PLANTED[plant.__name__] = Planted(plant, finding, (source, mode, profile), near)
        return plant

    return register


# -- In the engine and the integrations.


@bug("and nowhere", "sqs", "claim", "throttles")
def acknowledged_before_the_sinks(patch: pytest.MonkeyPatch) -> None:
    async def deliver(self: Any, run: Any, outputs: Any, **given: Any) -> Any:
        write = asyncio.ensure_future(self._fanout.write(outputs))
        write.add_done_callback(lambda write: write.cancelled() or write.exception())
        writing.add(write)
        await self._ledger.complete(run, None)
        return Succeeded(len(outputs))

    writing: set[Any] = set()
    patch.setattr(Attempt, "_deliver", deliver)


@bug("completes a claim that belongs to", "sqs", "claim", "crashes")
def completion_without_fencing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(items, "held", lambda owner: ())


@bug("and nowhere", "sqs", "mark", "slow", near=13)
def a_cancelled_write_swallowed(patch: pytest.MonkeyPatch) -> None:
    write = DynamoDB.write

    async def swallowing(self: Any, outputs: Any, environment: Any, deadline: Any) -> Any:
        left = None if deadline.soft is None else max(deadline.soft - environment.clock.monotonic(), 0.0)
        try:
            async with asyncio.timeout(left):
                return await write(self, outputs, environment, deadline)
        except TimeoutError:
            return [None] * len(outputs)

    patch.setattr(DynamoDB, "write", swallowing)


@bug("and nowhere", "kinesis", "claim", "throttles")
def the_highest_sequence_number_reported(patch: pytest.MonkeyPatch) -> None:
    def highest(self: Any, result: Any) -> list[str]:
        return [str(max(record.origin.number for record in result.unsettled()))] if result.unsettled() else []

    patch.setattr(Kinesis, "unsettled_ids", highest)


@bug("and nowhere", "fifo", "claim", "none", near=8)
def one_groups_failure_acknowledges_another(patch: pytest.MonkeyPatch) -> None:
    def of_one_group(self: Any, result: Any) -> list[str]:
        unsettled = result.unsettled()
        return [record.id for record in unsettled if record.lane == unsettled[0].lane]

    patch.setattr(SQS, "unsettled_ids", of_one_group)


@bug("an id that is not in the batch", "sqs", "none", "none")
def an_unknown_id_in_the_response(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SQS, "unsettled_ids", lambda self, result: [f"{record.id} " for record in result.unsettled()])


@bug("and nowhere", "sqs", "mark", "throttles")
def a_refused_entry_of_a_batch_taken_for_sent(patch: pytest.MonkeyPatch) -> None:
    send = sqs_calls.send

    async def careless(entries: Any, url: Any, environment: Any) -> Any:
        return [None for _ in await send(entries, url, environment)]

    patch.setattr(sqs_calls, "send", careless)


@bug("of its lane is settled", "kinesis", "fused", "throttles", near=2)
def a_refused_record_of_put_records_taken_for_put(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("pipeline.aws.kinesis._result", lambda answer: None)


@bug("and nowhere", "kinesis", "mark", "throttles")
def unprocessed_items_ignored(patch: pytest.MonkeyPatch) -> None:
    send = DynamoDB._send

    async def careless(self: Any, entries: Any, environment: Any) -> Any:
        return [None for _ in await send(self, entries, environment)]

    patch.setattr(DynamoDB, "_send", careless)


@bug("and nowhere", "sqs", "claim", "throttles", near=10)
def a_dead_letter_that_was_not_put_is_acknowledged(patch: pytest.MonkeyPatch) -> None:
    put = Endings._put_letters

    async def careless(self: Any, letters: Any) -> Any:
        await put(self, letters)
        return [None] * len(letters)

    patch.setattr(Endings, "_put_letters", careless)


@bug("and dead-lettered after", "fifo", "claim", "throttles", near=15)
def attempts_counted_for_hand_backs(patch: pytest.MonkeyPatch) -> None:
    release = Endings.release

    async def counting(self: Any, run: Any, *, attempts: int, outputs: str | None = None) -> None:
        await release(self, run, attempts=max(run.attempt, attempts) + 3, outputs=outputs)

    patch.setattr(Endings, "release", counting)


@bug("beside another run", "sqs", "claim", "duplicates")
def a_busy_claim_taken_for_granted(patch: pytest.MonkeyPatch) -> None:
    from pipeline.decisions.idempotency import Busy, Claimed

    admit = Claims.admit

    async def granted(self: Any, run: Any) -> Any:
        reply = await admit(self, run)
        return Claimed(1) if isinstance(reply, Busy) else reply

    patch.setattr(Claims, "admit", granted)


@bug("is written twice to the table", "sqs", "fused", "throttles")
def a_mark_by_chance(patch: pytest.MonkeyPatch) -> None:
    from pipeline.decisions import wire

    made = iter(range(10**9))
    patch.setattr(wire, "mark", lambda entry_id: f"{next(made)}")


@bug("and nowhere", "kinesis", "checkpoint", "crashes")
def a_place_that_passes_a_failure(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Checkpoints, "note", lambda self, run, outcome: self._settled.add(run.place))


# -- In the machines.


@bug("and nowhere", "sqs", "none", "none", near=17)
def a_filter_that_deletes_what_it_should_let_through(patch: pytest.MonkeyPatch) -> None:
    accepts = Filter.accepts

    def short_sighted(self: Any, body: Any, record: Any = None) -> bool:
        return accepts(self, body, record) and '"g0"' not in str(body)

    patch.setattr(Filter, "accepts", short_sighted)


@bug("of its lane is settled", "kinesis", "claim", "none", near=3)
def a_checkpoint_that_moves_past_a_failed_record(patch: pytest.MonkeyPatch) -> None:
    settled_by = StreamMapping._settled_by

    def past(self: Any, response: Any, records: Any) -> int:
        found = settled_by(self, response, records)
        return found if found in (0, len(records)) else found + 1

    patch.setattr(StreamMapping, "_settled_by", past)


@bug("of its lane is settled", "kinesis", "mark", "crashes")
def a_bisect_that_loses_the_second_half(patch: pytest.MonkeyPatch) -> None:
    halves = Batch.halves
    patch.setattr(Batch, "halves", lambda self: (halves(self)[0], Batch([])))


@bug("and nowhere", "sqs", "claim", "crashes")
def an_answer_that_nobody_heard_taken_for_success(patch: pytest.MonkeyPatch) -> None:
    settled = QueueMapping._settled

    def hopeful(self: Any, batch: Any, answer: Any, now: float) -> Any:
        return batch.messages if not settled(self, batch, answer, now) else settled(self, batch, answer, now)

    patch.setattr(QueueMapping, "_settled", hopeful)


@bug("of its lane is settled", "kinesis", "none", "crashes", near=16)
def a_lost_response_that_moves_the_checkpoint(patch: pytest.MonkeyPatch) -> None:
    answered = StreamMapping.answered

    def hopeful(self: Any, batch: int, answer: Any, now: float) -> None:
        if not isinstance(answer, Unheard):
            answered(self, batch, answer, now)
            return
        work = self._running.pop(batch)
        work.lane.is_at_work = False
        self._settle(work.reader, work.batch.records)
        work.lane.batches.popleft()

    patch.setattr(StreamMapping, "answered", hopeful)


@bug("of its lane is settled", "kinesis", "claim", "none", near=5)
def a_lane_that_takes_its_newest_batch_first(patch: pytest.MonkeyPatch) -> None:
    form = Lane.form

    def newest_first(self: Any, now: float, *, is_last: bool) -> bool:
        self._full.reverse()
        return form(self, now, is_last=is_last)

    patch.setattr(Lane, "form", newest_first)


# -- In the driver and the services.


@bug("and dead-lettered after", "sqs", "claim", "duplicates", near=1)
def a_late_delete_with_an_old_receipt_taken_for_done(patch: pytest.MonkeyPatch) -> None:
    receive, delete = QueueDriver._receive, QueueDriver._delete
    done: set[str] = set()

    async def remembering(self: Any, wanted: Any) -> None:
        await delete(self, wanted)
        done.update(message.id for message in wanted.messages)

    class Without:
        def __init__(self, port: Any) -> None:
            self.port = port
            self.delete = port.delete

        async def receive(self, wanted: Any, look: Any) -> Any:
            return [message for message in await self.port.receive(wanted, look) if message.id not in done]

    async def receiving(self: Any, wanted: Any, look: Any) -> None:
        if not isinstance(self._port, Without):
            self._port = Without(self._port)
        await receive(self, wanted, look)

    patch.setattr(QueueDriver, "_delete", remembering)
    patch.setattr(QueueDriver, "_receive", receiving)


@bug("is given up by its queue after", "sqs", "mark", "none", near=20)
def a_redrive_one_receive_too_early(patch: pytest.MonkeyPatch) -> None:
    receive = Queue.receive

    def early(self: Any, *given: Any, **named: Any) -> Any:
        policy = Queue.redrive.fget(self)  # type: ignore[attr-defined]
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Queue, "redrive", policy and (policy[0], policy[1] - 1))
            return receive(self, *given, **named)

    patch.setattr(Queue, "receive", early)


@bug("and the queue says", "fifo", "none", "none")
def a_receive_count_that_begins_at_nought(patch: pytest.MonkeyPatch) -> None:
    from pipeline.emulator.services import queue

    received = queue._received

    def counted(*given: Any) -> Any:
        found = received(*given)
        found["Attributes"]["ApproximateReceiveCount"] = str(int(found["Attributes"]["ApproximateReceiveCount"]) - 1)
        return found

    patch.setattr(queue, "_received", counted)
