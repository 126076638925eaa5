"""What sinks cost: CPU time per output of the Kinesis and the S3 sink, beside boto3 calls written by hand.

Both sides begin with values and end when the service has accepted all of them, against the stub. Ours makes
outputs of them as the engine does, with their ids, and gives those to the sink's `write`.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

from benchmarks.children import measure, say, silence
from benchmarks.events import body
from benchmarks.report import Report, table
from benchmarks.stub import running
from benchmarks.turns import in_turns, spread

SIZE = 10_000
ROUNDS, REPEATS = 3, 2
#: Outputs of one write to a sink that does not gather, when each record of a handler returns one: it runs 100 at once.
SHARED = 100
KEYS = 100

Write = Callable[[list[Any]], None]
#: Reads a value's ordering key.
Key = Callable[[Any], str]


def order(value: Any) -> str:
    return str(value["order_id"])


def customer(value: Any) -> str:
    return f"customer-{value['customer_id'] % KEYS}"


def ours(make_sink: Callable[[], Any], key: Key = order, *, shared: int | None = None) -> Write:
    """`shared`: outputs of one write, one after the other; default all at once."""
    from pipeline.decisions import wire
    from pipeline.decisions.codec import encode
    from pipeline.decisions.deadline import Deadline
    from pipeline.engine.environment import ProcessEnvironment
    from pipeline.output import Output

    sink, environment, loop = make_sink(), ProcessEnvironment(), asyncio.new_event_loop()

    def output(value: Any) -> Output:
        return Output(
            id=wire.output_id("shop", "price", sink.name, order(value), 0),
            sink=sink.name,
            body=encode(value),
            default_key=key(value),
            sent_at=1_762_161_262.0,
            value=value,
        )

    async def every(values: list[Any]) -> None:
        at_once = shared or len(values)
        for start in range(0, len(values), at_once):
            outputs = [output(value) for value in values[start : start + at_once]]
            errors = await sink.write(outputs, environment, Deadline())
            if failed := [error for error in errors if error]:
                raise failed[0]

    def write(values: list[Any]) -> None:
        loop.run_until_complete(every(values))

    return write


def kinesis_sink() -> Any:
    from pipeline import sinks

    return sinks.Kinesis("priced")


def s3_sink(*, compress: bool = False) -> Any:
    from pipeline import sinks

    return sinks.S3("priced", compress=compress)


def kinesis_by_hand(key: Key) -> Write:
    """500 records a call; what of it failed is put again. Of one key, it may so come behind what followed it."""
    import boto3

    kinesis = boto3.client("kinesis")

    def put(records: list[Any]) -> None:
        for attempt in range(5):
            answer = kinesis.put_records(StreamName="priced", Records=records)
            if not answer["FailedRecordCount"]:
                return
            records = [one for one, result in zip(records, answer["Records"], strict=True) if "ErrorCode" in result]
            time.sleep(0.1 * 2**attempt)
        raise RuntimeError(f"{len(records)} records were not accepted")

    def write(values: list[Any]) -> None:
        records = [{"Data": json.dumps(value).encode(), "PartitionKey": key(value)} for value in values]
        for start in range(0, len(records), 500):
            put(records[start : start + 500])

    return write


def s3_by_hand(level: int | None) -> Write:
    """One object of all lines. `level`: gzip's, or None for no gzip."""
    import boto3

    s3 = boto3.client("s3")

    def write(values: list[Any]) -> None:
        lines = "".join(json.dumps(value) + "\n" for value in values).encode()
        if level is None:
            s3.put_object(Bucket="priced", Key="2025-11-03/orders.ndjson", Body=lines)
        else:
            s3.put_object(Bucket="priced", Key="2025-11-03/orders.ndjson.gz", Body=gzip.compress(lines, level))

    return write


#: Name in the table -> ours, and what is written by hand.
CASES: dict[str, tuple[Callable[[], Write], Callable[[], Write]]] = {
    "Kinesis, a key for each output": (partial(ours, kinesis_sink), partial(kinesis_by_hand, order)),
    f"the same, in writes of {SHARED}": (
        partial(ours, kinesis_sink, shared=SHARED),
        partial(kinesis_by_hand, order),
    ),
    f"Kinesis, {KEYS} keys": (partial(ours, kinesis_sink, customer), partial(kinesis_by_hand, customer)),
    "S3, plain": (partial(ours, s3_sink), partial(s3_by_hand, None)),
    # Ours is zlib's default level, which is 6; without one, `gzip.compress` takes 9.
    "S3, gzip": (partial(ours, partial(s3_sink, compress=True)), partial(s3_by_hand, 6)),
}


def child(name: str, size: int) -> tuple[float, float]:
    """By hand, in microseconds of CPU per output, and ours as a multiple of that."""
    silence()
    values = [json.loads(body(number)) for number in range(size)]
    write, by_hand = (make() for make in CASES[name])
    for one in (write, by_hand):  # clients and connections are not the outputs'
        one(values[:10])
    seconds, multiple = in_turns(partial(by_hand, values), partial(write, values), REPEATS)
    return seconds * 1e6 / size, multiple


def run() -> Report:
    """Every case in fresh processes, in turns; medians."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in CASES}
    with running() as url:
        for _ in range(ROUNDS):
            for name, rounds in found.items():
                rounds.append(measure("benchmarks.sinks", name, str(SIZE), environment={"AWS_ENDPOINT_URL": url}))
    numbers: dict[str, dict[str, float]] = {}
    for name, rounds in found.items():
        by_hand, ratio = median(one for one, _ in rounds), median(one for _, one in rounds)
        numbers[name] = {"ours": by_hand * ratio, "by_hand": by_hand, "ratio": ratio}
    widest = max(spread([ratio for _, ratio in rounds]) for rounds in found.values())
    return Report(
        "sinks",
        f"Microseconds of CPU per output, {SIZE:,} outputs of ~1 KB, from values in memory until a stub on loopback "
        f"(HTTP, in another process) has accepted them all. Ours beside boto3 with its defaults, written by hand; the "
        f"two alternate in one process. Medians of {ROUNDS} fresh processes each, in turns; largest quartile distance "
        f"of a ratio: {widest:.0%}",
        [
            table(
                ["", "ours", "by hand", "ratio"],
                [
                    [name, f"{one['ours']:.1f}", f"{one['by_hand']:.1f}", f"{one['ratio']:.2f}"]
                    for name, one in numbers.items()
                ],
            )
        ],
        numbers,
    )


if __name__ == "__main__":
    say(child(sys.argv[1], int(sys.argv[2])))
