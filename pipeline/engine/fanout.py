"""Fan-out: from what a handler returned to outputs that every sink has accepted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from types import GeneratorType
from typing import Any

from pipeline.decisions import wire
from pipeline.decisions.codec import encode
from pipeline.decisions.deadline import Deadline
from pipeline.engine.coalesce import Activity, Coalescer
from pipeline.engine.stage import Stage
from pipeline.errors import ConfigurationError, SinkError
from pipeline.output import Emit, Output
from pipeline.ports import Environment, Sink
from pipeline.record import Carried
from pipeline.telemetry.events import Observer, SinkWritten, tell

#: Outputs are held until the function ends, up to this many and this many bytes; beyond, they stream.
MAX_HELD = 1_000
MAX_HELD_BYTES = 1_048_576

#: Outputs that one shared call to a sink gathers at most.
_SHARED = 1_000
#: Bytes that one shared call to a sink that gathers does, and seconds that it waits for more at most: a
#: record is not settled before, so that a crash repeats what is gathered.
_GATHERED_BYTES = 16_777_216
_GATHERED_SECONDS = 2.0

Failures = list[tuple[Output, BaseException]]
#: A handler's outputs that are still to be written, how many were written meanwhile, and what failed of those.
Collected = tuple[list[Output], int, Failures]


class Origin:
    """What the outputs of one record have in common; it numbers them."""

    __slots__ = ("_next", "default_key", "hops", "identity", "sent_at", "traceparent")

    def __init__(self, identity: str, default_key: str, carried: Carried | None, sent_at: float | None = None) -> None:
        self.identity = identity
        self.default_key = default_key
        self.hops = (carried.hops if carried else 0) + 1
        self.traceparent = carried.traceparent if carried else None
        self.sent_at = sent_at
        self._next = 0

    def index(self) -> int:
        """The next output's place in the function's results."""
        self._next += 1
        return self._next - 1


class Held:
    """Outputs that wait for the function to end."""

    __slots__ = ("bytes", "outputs")

    def __init__(self) -> None:
        self.outputs: list[Output] = []
        self.bytes = 0

    def add(self, outputs: Iterable[Output]) -> None:
        for output in outputs:
            self.outputs.append(output)
            self.bytes += len(output.body)

    @property
    def is_full(self) -> bool:
        return len(self.outputs) >= MAX_HELD or self.bytes >= MAX_HELD_BYTES

    def take(self) -> list[Output]:
        taken, self.outputs, self.bytes = self.outputs, [], 0
        return taken


class FanOut:
    """Addresses outputs to the sinks of one stage, and writes them in shared calls."""

    def __init__(
        self,
        stage: Stage,
        environment: Environment,
        activity: Activity,
        company: Activity,
        deadline: Deadline,
        observers: Sequence[Observer],
    ) -> None:
        self._stage = stage
        self._environment = environment
        self._activity = activity
        self._company = company  #: those that may still bring something for a sink that gathers
        self._deadline = deadline
        self._observers = observers
        self._sinks = {sink.name: sink for sink in stage.sinks}
        self._calls = {sink.name: self._shared(sink) for sink in stage.sinks}
        self._gathering = frozenset(sink.name for sink in stage.sinks if _gathers(sink))

    def address(self, value: Any, origin: Origin) -> list[Output]:
        """One result as outputs, one for each sink that takes it.

        Raises `EncodeError` for what JSON cannot hold, `ConfigurationError` for an unknown sink.
        """
        index = origin.index()
        if value is None:  # nothing, as everywhere; `Emit(None)` is a JSON null
            return []
        emit: Emit[Any] = value if isinstance(value, Emit) else Emit(value)
        sinks = self._sinks_of(emit)
        if not sinks:
            return []
        is_text = isinstance(emit.value, str)
        body = _checked_text(emit.value) if is_text else encode(emit.value)
        return [
            Output(
                id=emit.id or wire.output_id(self._stage.pipeline, self._stage.name, sink.name, origin.identity, index),
                sink=sink.name,
                body=body,
                is_text=is_text,
                key=emit.key,
                default_key=origin.default_key,
                attributes=emit.attributes,
                delay=emit.delay,
                hops=origin.hops,
                traceparent=origin.traceparent,
                sent_at=origin.sent_at,
                value=emit.value,
            )
            for sink in sinks
        ]

    async def collect(self, result: Any, origin: Origin) -> Collected:
        """A handler's result as outputs; beyond the limits they are written meanwhile.

        Stops at the first failed write: what was streamed before it stays written.
        """
        if hasattr(result, "__aiter__"):
            return await self._drain(result, origin)
        if isinstance(result, GeneratorType):
            return await self._drain(_each(result), origin)
        if isinstance(result, (list, tuple)) and not hasattr(result, "_fields"):  # a named tuple is one output
            return [output for value in result for output in self.address(value, origin)], 0, []
        return self.address(result, origin), 0, []

    def parted(self, outputs: list[Output]) -> tuple[list[Output], list[Output]]:
        """Outputs to be written at once, and those of sinks that gather many."""
        if not self._gathering:
            return outputs, []
        at_once = [output for output in outputs if output.sink not in self._gathering]
        return at_once, [output for output in outputs if output.sink in self._gathering]

    async def write(self, outputs: Sequence[Output], *, hurry: bool = False) -> Failures:
        """Write outputs to their sinks, side by side; returns those that were not accepted.

        `hurry`: nothing is gathered any longer.
        """
        by_sink: dict[str, list[Output]] = {}
        for output in outputs:
            by_sink.setdefault(output.sink, []).append(output)
        asked: list[tuple[list[Output], asyncio.Future[Sequence[BaseException | None]]]] = []
        failures: Failures = []
        for name, some in by_sink.items():
            call = self._calls.get(name)
            if call is None:  # kept outputs of an earlier deployment
                failures += [(output, self._gone(name)) for output in some]
            else:
                asked.append((some, call.ask(some)))
                if hurry:
                    call.flush()
        if asked:
            await self._wait([answer for _, answer in asked], gathers=not self._gathering.isdisjoint(by_sink))
        for some, answer in asked:
            failures += [(output, error) for output, error in zip(some, answer.result(), strict=True) if error]
        return failures

    async def _wait(self, answers: Sequence[asyncio.Future[Any]], *, gathers: bool) -> None:
        if not gathers:
            await self._activity.wait(answers)
            return
        # Whoever waits for a claim or another sink may still bring something; whoever waits here may not.
        self._company.leave()
        try:
            await self._activity.wait(answers)
        finally:
            self._company.join()

    async def aclose(self) -> None:
        for call in self._calls.values():
            await call.aclose()

    async def _drain(self, values: AsyncIterator[Any], origin: Origin) -> Collected:
        held = Held()
        streamed = 0
        try:
            async for value in values:
                held.add(self.address(value, origin))
                if held.is_full:
                    outputs = held.take()
                    if failures := await self.write(outputs, hurry=True):
                        return [], streamed, failures
                    streamed += len(outputs)
        finally:
            close = getattr(values, "aclose", None)
            if close is not None:
                await close()
        return held.outputs, streamed, []

    def _gone(self, name: str) -> ConfigurationError:
        return ConfigurationError(f"outputs are owed to the sink '{name}', which {self._stage.full_name} no longer has")

    def _sinks_of(self, emit: Emit[Any]) -> list[Sink]:
        if emit.to is None:
            chosen = list(self._stage.sinks)
        else:
            unknown = [name for name in emit.to if name not in self._sinks]
            if unknown:
                raise ConfigurationError(unknown_sink(unknown[0], self._sinks))
            chosen = [self._sinks[name] for name in emit.to]
        return [sink for sink in chosen if _takes(sink, emit.value)]

    def _shared(self, sink: Sink) -> Coalescer[Output, BaseException | None]:
        send = self._sender(sink)
        if not _gathers(sink):
            return Coalescer(send, self._activity, limit=_SHARED)
        # In turn, because lanes have gone on: what is gathered next may stand behind this.
        return Coalescer(
            send, self._company, limit=_GATHERED_BYTES, linger=_GATHERED_SECONDS, weight=_bytes, in_turn=True
        )

    def _sender(self, sink: Sink) -> Any:
        async def send(outputs: list[Output]) -> Sequence[BaseException | None]:
            clock = self._environment.clock
            started = clock.monotonic()
            errors: Sequence[BaseException | None]
            try:
                errors = await sink.write(outputs, self._environment, self._deadline)
                if len(errors) != len(outputs):
                    raise SinkError(f"the sink '{sink.name}' answered {len(errors)} of {len(outputs)} outputs")
            except Exception as error:
                errors = [error] * len(outputs)
            self._observe(sink, errors, clock.monotonic() - started)
            return errors

        return send

    def _observe(self, sink: Sink, errors: Sequence[BaseException | None], seconds: float) -> None:
        failed = [error for error in errors if error is not None]
        fact = SinkWritten(
            pipeline=self._stage.pipeline,
            handler=self._stage.name,
            sink=sink.name,
            accepted=len(errors) - len(failed),
            failed=len(failed),
            seconds=seconds,
            error=failed[0] if failed else None,
        )
        tell(self._observers, fact)


async def _each(values: Iterable[Any]) -> AsyncIterator[Any]:
    """A generator that was returned rather than yielded from."""
    for value in values:
        yield value


def unknown_sink(name: str, known: Iterable[str]) -> str:
    """The message for `Emit(to=)` a sink that the handler does not have."""
    names = ", ".join(f"'{sink}'" for sink in known) or "none"
    return f"Emit(to='{name}'): the handler has no such sink; its sinks are {names}"


def _gathers(sink: Sink) -> bool:
    return getattr(sink, "gathers", False)


def _bytes(outputs: Sequence[Output]) -> int:
    return sum(len(output.body) for output in outputs)


def _takes(sink: Sink, value: Any) -> bool:
    when = getattr(sink, "when", None)
    return when is None or bool(when(value))


def _checked_text(value: str) -> str:
    encode(value)  # raises for lone surrogates, which no service takes
    return value
