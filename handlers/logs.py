"""Log lines from a stream: read each, archive it by the hour, and tell of those that somebody must look at.

Producers put each line on the stream with `log_formats.partition_key(line)` as its partition key, so that
what is said of one block, client or child stays in order.
"""

from dataclasses import asdict, dataclass
from typing import Any

from handlers.log_formats import Entry, UnknownFormat, is_alert, parse, partition_key
from pipeline import Emit, Function, Pipeline, Record, sinks, sources

logs = Pipeline("logs")


@dataclass(frozen=True)
class Archived:
    id: str  #: the line's place in the stream: a reader of the archive tells a repeat by it
    key: str
    arrived_at: float | None  #: epoch seconds
    entry: Entry


@logs.handler(
    sources.Kinesis("log-lines", batch_size=500, batching_window=5),
    sinks=[
        sinks.S3("log-archive", prefix="{date}/{hour}/", compress=True),
        sinks.SQS("log-alerts"),
    ],
    lane=partition_key,
    reject_on=UnknownFormat,
    deploy=Function(timeout=60),
)
async def archive(line: Record[str]) -> list[Emit[Any]]:
    entry = parse(line.payload)
    key = line.attributes.get("partition_key", "")
    outputs = [Emit[Any](Archived(line.id, key, line.sent_at, entry), to="log-archive")]
    return outputs + ([Emit[Any]({"id": line.id, **asdict(entry)}, to="log-alerts")] if is_alert(entry) else [])
