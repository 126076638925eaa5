"""Records from a Kinesis data stream."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline.aws import kinesis
from pipeline.aws.names import Resource, resource
from pipeline.batch import BatchResult
from pipeline.decisions.checkpoint import Position, place
from pipeline.decisions.deadline import Deadline
from pipeline.decisions.patterns import Filter, Patterns, read_filter
from pipeline.errors import ConfigurationError
from pipeline.ports import Environment
from pipeline.record import RawRecord
from pipeline.sources import kinesis_event
from pipeline.sources.kinesis_dead_letters import KinesisDeadLetters
from pipeline.telemetry import conventions

if TYPE_CHECKING:
    from pipeline.aws.cloudformation.stack import Event, Grant, Reader, Stack

_STREAM = re.compile(r"stream/[a-zA-Z0-9_.-]+")
_STARTING_POSITIONS = ("TRIM_HORIZON", "LATEST")


@dataclass(frozen=True)
class _Options:
    """The options in one place, so that their checks read as a list."""

    shards: int | None
    batch_size: int
    batching_window: int
    parallelization_factor: int
    retry_attempts: int
    max_record_age: int


@dataclass(frozen=True, init=False)
class Kinesis:
    """Read a stream; several handlers may read the same one.

    Order: records of one partition key run in order, different keys side by side; `lane=by.shard`
    runs a whole shard in order, and so does a pipeline without idempotency, because the stream delivers
    everything behind a failure again. Records that the Kinesis Producer Library aggregated are taken
    apart, each with its own partition key; when one of them is unsettled, their aggregate comes back.

    A failed record waits in process for its retry, as long as the invocation's time allows: a stream
    cannot delay one record. Its attempts are counted in its idempotency entry (without idempotency, in
    this process's memory), and then it goes to the stream's dead-letter queue, `<stream>-stream-dlq`,
    base64 as in the stream. The mapping's own limits are the net for records that kill the process.

    `shards`: of a stream that is made for us; default on demand. `batch_size`: records an invocation
    gets at most (1 to 10,000). `batching_window`: seconds that Lambda waits to fill a batch (0 to 300).
    `starting_position`: of a new mapping, "TRIM_HORIZON" (the oldest record) or "LATEST".
    `parallelization_factor`: batches of one shard that run at the same time, by partition key (1 to 10;
    more than 1 does not go together with aggregates, nor with `by.shard`). `retry_attempts`: how often the
    mapping delivers a batch again (0 to 10,000; default -1, no limit: an outage is no fault of the
    records). `max_record_age`: seconds after which the mapping gives a record up (60 to 604,800, or -1;
    default 20 hours, below a stream's usual retention of 24, so that what cannot be settled reaches the
    mapping's on-failure destination before the stream forgets it). `bisect`: the mapping halves a batch
    whose invocation failed. `existing`: the ARN of a stream that is not ours.

    `filter`: a pattern in EventBridge's syntax, or a list of at most 5, of which any may match; for
    operators and rules see `pipeline.decisions.patterns`. A pattern is always over the JSON payload, as
    `{"kind": ["click"]}`: no `data` stands around it (the mapping gets that), and a partition key cannot be
    asked, because Lambda filters a stream by its data only. Lambda **passes over** a record that matches
    none, and one whose data is not JSON: no outcome, no dead letter, and nothing in the log; it stays in the
    stream for other readers. `pipeline dev` and `local` do the same and count it as `filtered`.

    Do not filter a stream whose producers aggregate. Lambda takes aggregates apart before it filters only
    for enhanced fan-out consumers, which a source here never is: an aggregate's bytes are not JSON, so all
    of its records are passed over, also those that would match.

    Limits: 6 MB an invocation with the data as base64, whatever the batch size says; 10 MiB a record
    where the stream allows it; 4,096 characters a pattern.
    """

    stream: str
    shards: int | None
    batch_size: int
    batching_window: int
    starting_position: str
    parallelization_factor: int
    retry_attempts: int
    max_record_age: int
    bisect: bool
    filter: Filter | None
    existing: str | None

    #: It has a checkpoint for each shard, and nothing for a single record.
    is_stream = True

    def __init__(
        self,
        stream: str,
        *,
        shards: int | None = None,
        batch_size: int = 100,
        batching_window: int = 0,
        starting_position: str = "TRIM_HORIZON",
        parallelization_factor: int = 1,
        retry_attempts: int = -1,
        max_record_age: int = 72_000,
        bisect: bool = True,
        filter: Patterns | None = None,  # noqa: A002 - the public name
        existing: str | None = None,
    ) -> None:
        target = resource("kinesis", stream, existing, declared="sources.Kinesis")
        _check_existing(existing)
        if starting_position not in _STARTING_POSITIONS:
            raise ConfigurationError(
                f"sources.Kinesis(starting_position={starting_position!r}): give one of {', '.join(_STARTING_POSITIONS)}"
            )
        if not isinstance(bisect, bool):
            raise ConfigurationError(f"sources.Kinesis(bisect={bisect!r}): give True or False")
        options = _Options(shards, batch_size, batching_window, parallelization_factor, retry_attempts, max_record_age)
        _check(options, existing)
        found = read_filter(filter, member="data", declared="sources.Kinesis")
        fields = {"stream": target.name, "existing": target.existing, "filter": found, **vars(options)}
        for name, value in {**fields, "starting_position": starting_position, "bisect": bisect}.items():
            object.__setattr__(self, name, value)

    @property
    def name(self) -> str:
        """The logical name."""
        return self.stream

    @property
    def described(self) -> Mapping[str, str]:
        """What the spans of its calls say of it."""
        return conventions.received(conventions.KINESIS, self.name)

    @property
    def resource(self) -> Resource:
        """The stream."""
        return Resource("kinesis", self.stream, self.existing)

    @property
    def dead_letters(self) -> KinesisDeadLetters:
        """The queue that is made for the stream's dead letters."""
        return KinesisDeadLetters(self.resource)

    @property
    def orders(self) -> Mapping[str, Callable[[RawRecord], str | None]]:
        """The orders that the stream itself keeps, by the names in `pipeline.by`."""
        by_key: dict[str, Callable[[RawRecord], str | None]] = {"partition_key": lambda raw: raw.lane}
        if self.parallelization_factor > 1:  # batches of one shard run side by side: there is no other order
            return by_key
        return {**by_key, "shard": _shard}

    @property
    def position_of(self) -> Callable[[RawRecord], Position | None]:
        """Where a record stands: in its shard, or among those of its partition key.

        With a parallelization factor batches of one shard run side by side, each with keys of its own.
        Numbers of one stream say nothing about another's, so a place names the stream that the record came from, which
        need not be the declared one; only without its ARN (`invoke`, events made by hand) that is taken for it.
        """
        place_in = _place_among_key if self.parallelization_factor > 1 else _place_in_shard
        return partial(place_in, self.existing or self.stream)

    @property
    def filter_patterns(self) -> Sequence[Mapping[str, Any]]:
        """The patterns of `filter`, each over a record of Lambda's event, as `FilterCriteria` wants them."""
        return () if self.filter is None else self.filter.patterns

    def decode(self, event: Any) -> list[RawRecord]:
        """The records of a Lambda event; see the `Source` port."""
        return kinesis_event.decode(event, self.stream)

    def unsettled_ids(self, result: BatchResult) -> list[str]:
        """The lowest sequence number of an unsettled record: Lambda delivers everything from it on again."""
        numbers = [record.origin.number for record in result.unsettled()]
        return [str(min(numbers))] if numbers else []

    async def settle(self, result: BatchResult, environment: Environment, deadline: Deadline) -> None:
        """Nothing: the response is the checkpoint, and a stream delays no record."""

    async def create(self, environment: Environment, *, timeout: int) -> None:  # noqa: ASYNC109 - the function's
        """Make the stream and its dead-letter queue where they are missing."""
        if self.existing is None:
            await kinesis.create_stream(self.resource, environment, self.shards)
        await self.dead_letters.create(environment)

    def declare(self, stack: Stack, reader: Reader) -> None:
        """Add the stream to a template, unless it is not ours, a place for what the mapping gives up, and alarms."""
        from pipeline.aws.cloudformation import mappings, streams

        streams.add_source(stack, self)
        streams.add_given_up(stack, self.resource)
        streams.watch_source(stack, self.resource, reader)
        if self.filter_patterns:
            mappings.watch_filter(stack, self.stream, reader)

    def event(self, stack: Stack) -> Event:
        """The event source mapping."""
        from pipeline.aws.cloudformation import streams

        return streams.event(stack, self)

    def grants(self, *, delays: bool) -> list[Grant]:
        """What a function needs for this source: its mapping reads the stream with the function's role."""
        from pipeline.aws.cloudformation import streams

        return streams.grants(self.resource)


def _shard(raw: RawRecord) -> str | None:
    return raw.attributes.get(kinesis_event.SHARD, "")  # those whose shard is not known are in order too


def _place_in_shard(declared: str, raw: RawRecord) -> Position | None:
    number = raw.attributes.get(kinesis_event.NUMBER)
    if number is None:
        return None
    index = int(raw.attributes.get(kinesis_event.SUBSEQUENCE, 0))
    return Position(f"{_stream(raw) or declared}/{_shard(raw)}", place(number, index))


def _place_among_key(declared: str, raw: RawRecord) -> Position | None:
    number, key = raw.attributes.get(kinesis_event.NUMBER), raw.attributes.get(kinesis_event.KEY)
    # Lambda parts a shard by the key of an aggregate: those of one key inside may be at work in two batches.
    if number is None or key is None or kinesis_event.SUBSEQUENCE in raw.attributes:
        return None
    return Position(f"{_stream(raw) or declared}/{_shard(raw)}/{key}", place(number))


def _stream(raw: RawRecord) -> str:
    return raw.origin.stream if isinstance(raw.origin, kinesis_event.Place) else ""


def _check_existing(existing: str | None) -> None:
    if existing is not None and not _STREAM.fullmatch(existing.split(":", 5)[5]):
        raise ConfigurationError(
            f"sources.Kinesis(existing={existing!r}): give the ARN of a stream, such as "
            "'arn:aws:kinesis:eu-west-1:111122223333:stream/orders'"
        )


def _check(options: _Options, existing: str | None) -> None:
    def between(name: str, low: int, high: int, *, also: str = "") -> None:
        value = getattr(options, name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ConfigurationError(
                f"sources.Kinesis({name}={value!r}): give a whole number, {low:,} to {high:,}{also}"
            )

    between("batch_size", 1, 10_000)
    between("batching_window", 0, 300)
    between("parallelization_factor", 1, 10)
    if options.retry_attempts != -1:
        between("retry_attempts", 0, 10_000, also=", or -1 for no limit")
    if options.max_record_age != -1:
        between("max_record_age", 60, 604_800, also=", or -1 for no limit")
    if options.shards is not None:
        between("shards", 1, 10_000)
        if existing is not None:
            raise ConfigurationError(
                "sources.Kinesis(shards=...): the stream of existing=... has its shards; leave it out"
            )
