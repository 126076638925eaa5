"""Pipelines over all integrations, for the test of the roles that a template gives them.

What a payload says is done: `{"id": "a", "do": "reject"}`.
"""

from __future__ import annotations

import threading
from typing import Any

from pipeline import Backoff, Checkpoint, Claim, Emit, Fused, Mark, Pipeline, Reject, sinks, sources, stores
from tests.support.deployed import arn

Order = dict[str, Any]

#: Set when a claim was renewed; what waits goes on then.
renewed = threading.Event()

QUICK = Backoff(attempts=2, base=0.2)

every = Pipeline("every")
plain = Pipeline("plain", idempotency=None)
patient = Pipeline("patient", idempotency=Claim(lease=1))
their_claims = stores.DynamoDB("claims", existing=arn("dynamodb", "table/their-claims"))
theirs = Pipeline("theirs", idempotency=Claim(store=their_claims))
theirs_patient = Pipeline("theirs-patient", idempotency=Claim(store=their_claims, lease=1))

marked = Pipeline("marked", idempotency=Mark())
fused = Pipeline("fused", idempotency=Fused())
placed = Pipeline("placed", idempotency=Checkpoint())
theirs_marked = Pipeline("theirs-marked", idempotency=Mark(store=their_claims))
theirs_fused = Pipeline("theirs-fused", idempotency=Fused())
theirs_placed = Pipeline("theirs-placed", idempotency=Checkpoint(store=their_claims))

#: Each makes one template: CloudFormation takes no more resources than these have together.
CLAIMED = (every, plain, patient, theirs, theirs_patient)
OF_MODES = (marked, fused, placed, theirs_marked, theirs_fused, theirs_placed)
ALL = (*CLAIMED, *OF_MODES)


def act(order: Order) -> Emit[Order]:
    match order.get("do"):
        case "reject":
            raise Reject("as the payload says")
        case "fail":
            raise ValueError("as the payload says")
        case "wait":
            assert renewed.wait(20), "the claim was not renewed"
        case "archive":  # what only a bucket takes
            return Emit({"id": order["id"], "text": "x" * 9_000_000}, to="archive")
        case _:
            pass
    return Emit({"id": order.get("item", order["id"])})


def act_once(order: Order) -> list[Emit[Order]]:
    """What is written with a mark: one item, or several."""
    outputs = [act(order)]
    if order.get("do") == "several":
        outputs += [Emit({"id": f"{order['id']}-{number}"}) for number in range(2)]
    return outputs


@every.handler(
    sources.SQS("orders"),
    sinks=[
        sinks.SQS("priced"),
        sinks.SQS("shipped.fifo"),
        sinks.DynamoDB("ledger", partition_key="id"),
        sinks.EventBridge("told", detail_type="order"),
        sinks.Kinesis("kept"),
        sinks.S3("archive"),
    ],
    key="id",
    retry=QUICK,
)
def spread(order: Order) -> Emit[Order]:
    return act(order)


@every.handler(sources.SQS("parcels.fifo"), sinks=[sinks.SQS("sent.fifo")], key="id", retry=QUICK)
def ship(order: Order) -> Emit[Order]:
    return act(order)


@every.handler(sources.SQS("steady"), sinks=[sinks.EventBridge("default", detail_type="order")], key="id", retry=None)
def leave(order: Order) -> Emit[Order]:
    return act(order)


@every.handler(sources.Kinesis("clicks"), sinks=[sinks.SQS("seen")], key="id", retry=QUICK)
def read(order: Order) -> Emit[Order]:
    return act(order)


@every.handler(sources.SQS("one"), rejects=sinks.SQS("odd"), key="id", retry=QUICK)
def to_queue(order: Order) -> None:
    act(order)


@every.handler(sources.SQS("two"), rejects=sinks.DynamoDB("odd-ones"), key="id", retry=QUICK)
def to_table(order: Order) -> None:
    act(order)


@every.handler(sources.SQS("three"), rejects=sinks.EventBridge("odd-bus", detail_type="odd"), key="id", retry=QUICK)
def to_bus(order: Order) -> None:
    act(order)


@every.handler(sources.SQS("four"), rejects=sinks.Kinesis("odd-stream"), key="id", retry=QUICK)
def to_stream(order: Order) -> None:
    act(order)


@every.handler(sources.Kinesis("five"), rejects=sinks.S3("archive"), key="id", retry=QUICK)
def to_bucket(order: Order) -> None:
    act(order)


@plain.handler(sources.SQS("unclaimed"), sinks=[sinks.SQS("unclaimed-out")], retry=QUICK)
def forget(order: Order) -> Emit[Order]:
    return act(order)


@plain.handler(sources.Kinesis("passing"), sinks=[sinks.Kinesis("passed")], retry=QUICK)
def follow(order: Order) -> Emit[Order]:
    return act(order)


@plain.handler(
    sources.SQS("alike"),
    sinks=[
        sinks.DynamoDB("alike", partition_key="id", name="table"),
        sinks.S3("alike", name="archive"),
        sinks.Kinesis("alike", name="stream"),
        sinks.EventBridge("alike", detail_type="order", name="bus"),
    ],
    retry=QUICK,
)
def mirror(order: Order) -> Emit[Order]:
    """Whose resources all have one name."""
    return act(order)


@patient.handler(sources.SQS("slow"), key="id", retry=QUICK)
def linger(order: Order) -> None:
    act(order)


@theirs.handler(
    sources.SQS("inbox", existing=arn("sqs", "their-inbox")),
    sinks=[
        sinks.SQS("outbox", existing=arn("sqs", "their-outbox")),
        sinks.DynamoDB("book", existing=arn("dynamodb", "table/their-book")),
        sinks.EventBridge("bus", detail_type="order", existing=arn("events", "event-bus/their-bus")),
        sinks.Kinesis("stream", existing=arn("kinesis", "stream/their-stream")),
        sinks.S3("archive", existing=arn("s3", "their-archive")),
    ],
    key="id",
    retry=QUICK,
)
def lend(order: Order) -> Emit[Order]:
    return act(order)


@theirs.handler(sources.SQS("post", existing=arn("sqs", "their-post")), key="id", retry=None)
def pass_by(order: Order) -> None:
    act(order)


@theirs.handler(
    sources.SQS("mail", existing=arn("sqs", "their-mail")),
    rejects=sinks.SQS("refused", existing=arn("sqs", "their-refused")),
    key="id",
    retry=QUICK,
)
def turn_away(order: Order) -> None:
    act(order)


@theirs.handler(sources.Kinesis("flow", existing=arn("kinesis", "stream/their-flow")), key="id", retry=QUICK)
def listen(order: Order) -> None:
    act(order)


@theirs_patient.handler(sources.SQS("slower"), key="id", retry=QUICK)
def stay(order: Order) -> None:
    act(order)


# The other modes


@marked.handler(sources.SQS("noted"), sinks=[sinks.SQS("notes")], key="id", retry=QUICK)
def note(order: Order) -> Emit[Order]:
    return act(order)


@marked.handler(sources.Kinesis("tracks"), key="id", retry=QUICK)
def track(order: Order) -> None:
    act(order)


@fused.handler(
    sources.SQS("bookings"),
    sinks=[sinks.SQS("booked"), sinks.DynamoDB("journal", partition_key="id")],
    key="id",
    retry=QUICK,
)
def book(order: Order) -> list[Emit[Order]]:
    return act_once(order)


@fused.handler(sources.Kinesis("tallies"), sinks=[sinks.DynamoDB("tally", partition_key="id")], key="id", retry=QUICK)
def tally(order: Order) -> list[Emit[Order]]:
    return act_once(order)


@fused.handler(
    sources.SQS("papers"),
    sinks=[sinks.DynamoDB("files", partition_key="id")],
    rejects=sinks.DynamoDB("odd-files", partition_key="id"),
    key="id",
    retry=QUICK,
)
def file(order: Order) -> list[Emit[Order]]:
    """Of whose tables one is written with marks, and the other without."""
    return act_once(order)


@placed.handler(sources.Kinesis("traces"), sinks=[sinks.SQS("traced")], retry=QUICK)
def trace(order: Order) -> Emit[Order]:
    return act(order)


@placed.handler(sources.SQS("tickets.fifo"), sinks=[sinks.SQS("issued.fifo")], retry=QUICK)
def issue(order: Order) -> Emit[Order]:
    return act(order)


@theirs_marked.handler(sources.Kinesis("borrowings"), key="id", retry=QUICK)
def borrow(order: Order) -> None:
    act(order)


@theirs_fused.handler(
    sources.SQS("arrivals"),
    sinks=[sinks.DynamoDB("book", existing=arn("dynamodb", "table/their-book"))],
    key="id",
    retry=QUICK,
)
def enter(order: Order) -> list[Emit[Order]]:
    return act_once(order)


@theirs_placed.handler(sources.SQS("steps.fifo"), retry=QUICK)
def step(order: Order) -> None:
    act(order)
