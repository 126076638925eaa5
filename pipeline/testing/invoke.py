"""`invoke`: a handler over payloads, in memory. No AWS, no moto, no network."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipeline.batch import BatchResult
from pipeline.decisions.codec import encode
from pipeline.decisions.deadline import Deadline, deadline
from pipeline.engine.environment import ProcessEnvironment
from pipeline.engine.processor import Processor
from pipeline.errors import ConfigurationError, PipelineError, SinkError
from pipeline.handler import Handler
from pipeline.output import Output
from pipeline.ports import Clock, DeadLetter, Effect, Environment, FusedSink, IdempotencyStore, Sink
from pipeline.record import RawRecord
from pipeline.stores import Memory
from pipeline.telemetry.events import Observer
from pipeline.telemetry.log import logger_for
from pipeline.telemetry.metrics import metrics_for

if TYPE_CHECKING:
    from pipeline.testing.models import Models


class InvokeResult(BatchResult):
    """What a batch came to, with what it wrote."""

    __slots__ = ("dead_letters", "metrics", "outputs")

    def __init__(
        self,
        result: BatchResult,
        outputs: Mapping[str, list[Any]],
        dead_letters: Sequence[DeadLetter],
        metrics: Mapping[str, list[float]],
    ) -> None:
        super().__init__(result.records, result.outcomes)
        self.outputs = dict(outputs)  #: the values that each sink took, by the sink's name
        self.dead_letters = list(dead_letters)
        self.metrics = dict(metrics)  #: the values that the handler added to `context.metrics`, by name


def invoke(handler: Handler[..., Any], payloads: Sequence[Any], **options: Any) -> InvokeResult:
    """Run a handler over payloads and return one outcome for each, in order.

    A payload is encoded as JSON; `str` and `bytes` are bodies as they are.

    Sinks of AWS write to services in memory, new and empty for each call, in real time: what the service would
    refuse (a message that is too large, a number of 39 digits for a table) fails its record here too. Sinks that are in this process
    anyway (`sinks.Memory()`, `sinks.File(...)`, your own) are used as they are; of others whose resource is elsewhere
    it is only noted what they would get. The idempotency store is `stores.Memory()`, unless `store` is given or the
    declared one is in this process; dead letters are only kept. A source's `filter` does not apply: Lambda filters
    before the function is invoked, so every payload that is given here runs (`Emulator` and `local` filter).

    Options: `groups` (a FIFO message group, or a partition key, for each payload), `attributes` (for all records),
    `receive_count` (default 1), `remaining` (seconds until the deadline; default none), `store`
    (share one between calls to see duplicates), `ids` (record ids), `clock`, `observers`. Raises `ConfigurationError`
    unless there is one id, and one group, for each payload.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass  # and nothing is run here: this error would be the `__context__` of all that the handler raises
    else:
        raise PipelineError("invoke was called inside a running event loop: use 'await ainvoke(...)' there")
    return asyncio.run(ainvoke(handler, payloads, **options))


async def ainvoke(
    handler: Handler[..., Any],
    payloads: Sequence[Any],
    *,
    groups: Sequence[str | None] | None = None,
    attributes: Mapping[str, str] | None = None,
    receive_count: int = 1,
    remaining: float | None = None,
    store: IdempotencyStore | None = None,
    ids: Sequence[str] | None = None,
    clock: Clock | None = None,
    observers: Sequence[Observer] = (),
) -> InvokeResult:
    """`invoke`, from inside a running event loop."""
    declared = handler.stage
    _check_one_each("ids", ids, payloads)
    _check_one_each("groups", groups, payloads)
    recorder = _Recorder()
    environment = ProcessEnvironment(clock=clock)
    opened = _Opened(environment.clock)
    stage = replace(
        declared,
        sinks=tuple([await opened.recording(sink, recorder) for sink in declared.sinks]),
        dead_letters=recorder,
        store=store or _in_process(declared.store) or Memory(),
    )
    records = [
        RawRecord(
            id=ids[position] if ids else f"record-{position}",
            source=stage.source.name,
            body=payload if isinstance(payload, (str, bytes)) else encode(payload),
            lane=groups[position] if groups else None,
            receive_count=receive_count,
            attributes={**(_place(position, groups) if stage.source.is_stream else {}), **(attributes or {})},
            origin={"attributes": {"SequenceNumber": str(position + 1)}},  # of FIFO queues; only those look
        )
        for position, payload in enumerate(payloads)
    ]
    metrics = metrics_for(stage.pipeline, stage.name)
    processor = Processor(
        stage,
        environment,
        logger=logger_for(stage.pipeline, stage.log_level),
        metrics=metrics,
        observers=observers,
    )
    until = Deadline() if remaining is None else deadline(environment.clock.monotonic(), remaining)
    try:
        result = await processor.process(records, until)
    finally:
        processor.close()
        await environment.aclose()
        await opened.aclose()
    outputs = {sink.name: recorder.values(sink.name) for sink in stage.sinks}
    added = {name: list(metric["Value"]) for name, metric in metrics.metric_set.items()}
    return InvokeResult(result, outputs, recorder.letters, added)


class _Recorder:
    """Keeps what was written."""

    def __init__(self) -> None:
        self.outputs: list[Output] = []
        self.letters: list[DeadLetter] = []
        self._marks: set[str] = set()

    def is_new(self, mark: str) -> bool:
        """True when this is the first effect with the mark."""
        known = mark in self._marks
        self._marks.add(mark)
        return not known

    def values(self, sink: str) -> list[Any]:
        return [output.value for output in self.outputs if output.sink == sink]

    async def put(
        self, letters: Sequence[DeadLetter], environment: Environment, deadline: Deadline
    ) -> Sequence[SinkError | None]:
        self.letters += letters
        return [None] * len(letters)


class _Opened:
    """The sinks of one call. The services in memory are made when the first sink needs one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._models: Models | None = None

    async def recording(self, sink: Sink, recorder: _Recorder) -> _Recording:
        if not _is_remote(sink):
            return _Recording(sink, recorder, sink)
        # Deferred: they cost more than everything else that is imported here.
        from pipeline.testing.models import Models, has_model

        if not has_model(sink):
            return _Recording(sink, recorder)
        if self._models is None:
            self._models = Models(self._clock)
        return _Recording(sink, recorder, await self._models.bound(sink), self._models.environment)

    async def aclose(self) -> None:
        if self._models is not None:
            await self._models.aclose()


class _Recording:
    """A sink that keeps what it takes. `written`: where it is written as well, in an environment of its own if it has one."""

    def __init__(
        self, sink: Sink, recorder: _Recorder, written: Sink | None = None, environment: Environment | None = None
    ) -> None:
        self.name = sink.name
        self.when = getattr(sink, "when", None)
        self.described = getattr(sink, "described", None)
        self._sink = written
        self._recorder = recorder
        self._environment = environment

    async def write(
        self, outputs: Sequence[Output], environment: Environment, deadline: Deadline
    ) -> Sequence[SinkError | None]:
        errors: Sequence[SinkError | None] = [None] * len(outputs)
        if self._sink is not None:
            errors = await self._sink.write(outputs, self._environment or environment, deadline)
        self._recorder.outputs += [output for output, error in zip(outputs, errors, strict=True) if error is None]
        return errors

    async def write_once(
        self, effects: Sequence[Effect], environment: Environment, deadline: Deadline
    ) -> Sequence[bool | SinkError]:
        if isinstance(self._sink, FusedSink):
            answers = await self._sink.write_once(effects, self._environment or environment, deadline)
        else:
            answers = [self._recorder.is_new(effect.mark) for effect in effects]
        for effect, answer in zip(effects, answers, strict=True):
            self._recorder.outputs += effect.outputs if answer is True else ()
        return answers


def _check_one_each(option: str, given: Sequence[Any] | None, payloads: Sequence[Any]) -> None:
    if given is not None and len(given) != len(payloads):
        raise ConfigurationError(f"{option}= has {len(given)} for {len(payloads)} payloads: give one for each")


def _place(position: int, groups: Sequence[str | None] | None) -> dict[str, str]:
    """Where a payload would stand in a stream: one shard, and a partition key of its own unless one is given."""
    key = (groups[position] if groups else None) or f"key-{position}"
    return {"partition_key": key, "shard_id": "shardId-000000000000", "sequence_number": str(position + 1)}


def _in_process(store: IdempotencyStore | None) -> IdempotencyStore | None:
    return None if store is None or _is_remote(store) else store


def _is_remote(thing: object) -> bool:
    """True for what lives in a service: it names its resource there."""
    return hasattr(thing, "resource")
