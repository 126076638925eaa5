"""What happens to records, played against each function as deployed: with its variables, and its own resources' names."""

from __future__ import annotations

import base64
import io
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from handlers import logs, webhooks
from pipeline import Handler
from pipeline.emulator.clock import SkippingClock
from pipeline.emulator.event import event_record
from pipeline.emulator.services.service import REGION
from pipeline.runtimes.awslambda import LambdaRuntime
from tests.flow.events import Invocation, event, failed, stream_record
from tests.support import permission_pipelines as made
from tests.support.calls import Act, Call, Wire, lose, refuse
from tests.support.deployed import Boto, Function

#: Longer than any lease here.
_LONG = 200.0


class Bench:
    """One function, and Lambda's side of it."""

    def __init__(
        self, handler: Handler[..., Any], function: Function, wire: Wire, boto: Boto, *, is_batched: bool
    ) -> None:
        self.wire = wire
        self._is_batched = is_batched
        self._function = function
        self._sqs = boto("sqs")
        self._clock = SkippingClock()
        self._number = 0
        self._handler = handler
        self._runtime = self._started()

    def records(self, *payloads: Any) -> dict[str, Any]:
        """The event with these payloads: a queue's are sent and received, as their receipts are needed."""
        texts = [one if isinstance(one, str) else json.dumps(one) for one in payloads]
        if self._function.kind == "Kinesis":
            return event(*map(self._stream_record, texts))
        return event(*map(self._message, texts))

    def invoke(self, given: Any, seconds: float = 30.0) -> list[str]:
        """The ids that come back."""
        return failed(self._runtime.invoke(given, Invocation(seconds)))

    def next_claims(self, *acts: Act) -> None:
        """Do these with the store's next claims."""
        self.wire.next("BatchExecuteStatement" if self._is_batched else "PutItem", *acts)

    def next_end(self, act: Act) -> None:
        """Do this with the write that follows the next claim, of a key that is new."""
        if self._is_batched:
            self.wire.next("BatchExecuteStatement", None, act)
        else:
            self.wire.next("UpdateItem", act)

    def let_leases_lapse(self) -> None:
        self._clock.skip(_LONG)

    def start_anew(self) -> None:
        """In an environment that remembers nothing."""
        self.close()
        self._runtime = self._started()

    def close(self) -> None:
        self._runtime.close()

    def _started(self) -> LambdaRuntime:
        return LambdaRuntime(self._handler.stage, clock=self._clock, log_stream=io.StringIO(), emit_metrics=False)

    def _stream_record(self, text: str) -> dict[str, Any]:
        self._number += 1
        return stream_record(self._number, text.encode())

    def _message(self, text: str) -> dict[str, Any]:
        arn = self._function.mapping["Queue"]
        name = arn.rpartition(":")[2]
        url = self._sqs.get_queue_url(QueueName=name)["QueueUrl"]
        self._number += 1
        fifo = {"MessageGroupId": f"g{self._number}", "MessageDeduplicationId": str(self._number)}
        sent = self._sqs.send_message(QueueUrl=url, MessageBody=text, **(fifo if name.endswith(".fifo") else {}))
        while True:  # another case's outputs may stand there
            (found,) = self._sqs.receive_message(QueueUrl=url, MessageSystemAttributeNames=["All"])["Messages"]
            if found["MessageId"] == sent["MessageId"]:
                return event_record(found, arn=arn, region=REGION)


# What may happen to a record. Each asserts that it did happen.


def succeed(bench: Bench, good: Any) -> None:
    """It succeeds, and its repeat is a duplicate where there are claims."""
    given = bench.records(good)
    assert bench.invoke(given) == []
    assert bench.invoke(given) == []


def reject(bench: Bench, bad: Any) -> None:
    assert bench.invoke(bench.records(bad)) == [], "it is among the dead letters"


def fail(bench: Bench, bad: Any) -> None:
    """It fails until its attempts are used up. A stream tries again within the invocation, a queue does not."""
    given = bench.records(bad)
    times = 1
    while bench.invoke(given):
        times += 1
        assert times < 6, "it does not end"
        for record in given["Records"]:
            record.get("attributes", {})["ApproximateReceiveCount"] = str(times)


def fail_by_service(bench: Bench, good: Any, operation: str) -> None:
    """A sink's service refuses its output until its attempts are used up."""
    bench.wire.next(operation, *[refuse] * 5)
    fail(bench, good)


def meet_an_outage(bench: Bench, good: Any, operation: str) -> None:
    """A service cannot be reached until time is up: the claim is given back, and the record comes again."""
    given = bench.records(good)
    bench.wire.next(operation, *[lose] * 40)
    assert bench.invoke(given, seconds=1.0)
    bench.wire.all_is_well()
    assert bench.invoke(given) == []


def miss_the_store(bench: Bench, good: Any) -> None:
    """The store cannot be reached: nothing is run, and the record comes again. A stream waits for it in process."""
    given = bench.records(good)
    bench.next_claims(*[lose] * 40)
    assert bench.invoke(given, seconds=1.0)
    bench.wire.all_is_well()
    assert bench.invoke(given) == []


def die_at_the_end(bench: Bench, good: Any) -> None:
    """A run dies before its claim is completed: the next finds it busy, and a later one takes it over."""
    given = bench.records(good)
    bench.next_end(lose)
    assert bench.invoke(given) == [], "what the sinks have is settled"
    bench.start_anew()
    assert bench.invoke(given, seconds=1.0), "claimed by a run that may still be at it"
    bench.let_leases_lapse()
    assert bench.invoke(given) == []


def renew(bench: Bench, waiting: Any) -> None:
    """A run is longer than a third of its lease."""
    made.renewed.clear()
    bench.next_end(made.renewed.set)
    assert bench.invoke(bench.records(waiting)) == []


def write_in_parts(bench: Bench, *large: Any) -> None:
    """An object needs parts, and its first upload breaks off halfway; the next one does not."""
    bench.wire.next("UploadPart", None, lose)
    assert bench.invoke(bench.records(*large)) == []


def repeat(bench: Bench, good: Any) -> None:
    """It succeeds, and comes again to an environment that knows nothing of it."""
    given = bench.records(good)
    assert bench.invoke(given) == []
    bench.start_anew()
    assert bench.invoke(given) == []


def miss_the_end(bench: Bench, good: Any, operation: str) -> None:
    """It succeeds, and that cannot be written: it runs again."""
    given = bench.records(good)
    bench.wire.next(operation, lose)
    assert bench.invoke(given) == [], "what the sinks have is settled"
    bench.start_anew()
    assert bench.invoke(given) == []


# Which of them are played with which handler.

A, REJECT, FAIL = {"id": "a"}, {"id": "r", "do": "reject"}, {"id": "f", "do": "fail"}


def with_claims(bench: Bench) -> None:
    """What every handler here can meet that has claims."""
    succeed(bench, A)
    reject(bench, REJECT)
    fail(bench, FAIL)
    die_at_the_end(bench, {"id": "d"})


def without_claims(bench: Bench) -> None:
    succeed(bench, A)
    reject(bench, REJECT)


def over_all_sinks(bench: Bench) -> None:
    with_claims(bench)
    miss_the_store(bench, {"id": "m"})
    write_in_parts(bench, {"id": "large", "do": "archive"})


def spread(bench: Bench) -> None:
    over_all_sinks(bench)
    meet_an_outage(bench, {"id": "o"}, "SendMessageBatch")
    for operation in ("BatchWriteItem", "PutEvents", "PutRecords", "PutObject", "SendMessageBatch"):
        fail_by_service(bench, {"id": operation}, operation)


def leave(bench: Bench) -> None:
    """Failed records come back in the queue's own time: nothing is asked of it, whatever happens."""
    succeed(bench, A)
    reject(bench, REJECT)
    die_at_the_end(bench, {"id": "d"})
    miss_the_store(bench, {"id": "m"})
    assert bench.invoke(bench.records(FAIL))


def to_bucket(bench: Bench) -> None:
    with_claims(bench)
    write_in_parts(bench, {**REJECT, "id": "large", "text": "x" * 9_000_000})


def forget(bench: Bench) -> None:
    without_claims(bench)
    assert bench.invoke(bench.records(FAIL))


def mirror(bench: Bench) -> None:
    forget(bench)
    write_in_parts(bench, {"id": "large", "do": "archive"})


def linger(bench: Bench) -> None:
    renew(bench, {"id": "w", "do": "wait"})
    with_claims(bench)


def with_marks(bench: Bench) -> None:
    repeat(bench, A)
    reject(bench, REJECT)
    fail(bench, FAIL)
    meet_an_outage(bench, {"id": "m"}, "BatchGetItem")
    miss_the_end(bench, {"id": "d"}, "BatchWriteItem")


def fused(bench: Bench) -> None:
    """One item or several, when it is there already, and when another key wrote it."""
    for payload in (A, {"id": "b", "item": "a"}, {"id": "several", "do": "several"}):
        repeat(bench, payload)
    reject(bench, REJECT)
    fail(bench, FAIL)
    meet_an_outage(bench, {"id": "o"}, "PutItem")
    meet_an_outage(bench, {"id": "p", "do": "several"}, "TransactWriteItems")
    fail_by_service(bench, {"id": "refused"}, "PutItem")
    fail_by_service(bench, {"id": "refused", "do": "several"}, "TransactWriteItems")


def with_checkpoints(bench: Bench) -> None:
    repeat(bench, A)
    reject(bench, REJECT)
    fail(bench, FAIL)
    meet_an_outage(bench, {"id": "m"}, "BatchGetItem")
    miss_the_end(bench, {"id": "d"}, "UpdateItem")


def webhook(bench: Bench) -> None:
    def delivery(name: str, kind: str = "push") -> dict[str, Any]:
        return {"event": kind, "example": name, "payload": {"repository": {"full_name": "a/b"}}}

    succeed(bench, delivery("a"))
    reject(bench, delivery("r", "no such event"))
    reject(bench, "not JSON")
    fail_by_service(bench, delivery("f"), "PutEvents")
    meet_an_outage(bench, delivery("o"), "BatchWriteItem")
    die_at_the_end(bench, delivery("d"))


def timeline(bench: Bench) -> None:
    def moment(name: str) -> dict[str, Any]:
        return {"delivery": name, "event": "push", "action": None, "repository": "a/b", "sender": None}

    succeed(bench, moment("a"))
    reject(bench, "not JSON")
    fail_by_service(bench, moment("f"), "BatchWriteItem")
    die_at_the_end(bench, moment("d"))


def archive(bench: Bench) -> None:
    apache = "[Tue Feb 03 10:20:30 2009] [error] [client 192.0.2.1] no such page"
    succeed(bench, apache)
    reject(bench, "no log's line")
    meet_an_outage(bench, apache, "PutObject")
    die_at_the_end(bench, apache)
    aborted = 0
    for number in range(5):  # what is gathered within two seconds is one object, so on a busy machine it may be small
        write_in_parts(bench, *_dense_lines(number))
        aborted = sum(call.operation == "AbortMultipartUpload" for call in bench.wire.calls)
        if aborted:
            break
    assert aborted


def _dense_lines(seed: int) -> list[str]:
    """Lines of HDFS's log of which gzip makes more than one part: 13 MB that it takes a quarter off."""
    chance = random.Random(seed)
    texts = (base64.b64encode(chance.randbytes(48_000)).decode() for _ in range(200))
    return [f"090203 102030 17 INFO dfs.DataNode: blk_{number} {text}" for number, text in enumerate(texts)]


@dataclass(frozen=True)
class Case:
    handler: Handler[..., Any]
    play: Callable[[Bench], None]

    @property
    def name(self) -> str:
        return self.handler.stage.full_name


OURS = (
    Case(webhooks.record, webhook),
    Case(webhooks.timeline, timeline),
    Case(logs.archive, archive),
)
MADE = (
    Case(made.spread, spread),
    Case(made.ship, with_claims),
    Case(made.leave, leave),
    Case(made.read, with_claims),
    Case(made.to_queue, with_claims),
    Case(made.to_table, with_claims),
    Case(made.to_bus, with_claims),
    Case(made.to_stream, with_claims),
    Case(made.to_bucket, to_bucket),
    Case(made.forget, forget),
    Case(made.follow, without_claims),
    Case(made.mirror, mirror),
    Case(made.linger, linger),
    Case(made.lend, over_all_sinks),
    Case(made.pass_by, leave),
    Case(made.turn_away, with_claims),
    Case(made.listen, with_claims),
    Case(made.stay, linger),
)
OF_MODES = (
    Case(made.note, with_marks),
    Case(made.track, with_marks),
    Case(made.book, fused),
    Case(made.tally, fused),
    Case(made.file, fused),
    Case(made.trace, with_checkpoints),
    Case(made.issue, with_checkpoints),
    Case(made.borrow, with_marks),
    Case(made.enter, fused),
    Case(made.step, with_checkpoints),
)


def played(case: Case, function: Function, boto: Boto, tables: str | None) -> list[Call]:
    """Every call that the toolkit made while the case was played.

    `tables`: the URL of a server that knows statements. DynamoDB is called under AWS's own name then, as it is where
    functions are deployed, and the calls end there.
    """
    wire = Wire()
    with pytest.MonkeyPatch.context() as patch:
        wire.connect(patch)
        if tables is not None:
            wire.lead_to(tables, patch)
        for name, value in function.variables.items():
            patch.setenv(name, value)
        bench = Bench(case.handler, function, wire, boto, is_batched=tables is not None)
        try:
            case.play(bench)
        finally:
            bench.close()
    return wire.calls
