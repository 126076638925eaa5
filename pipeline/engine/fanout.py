"""Fan-out: from what a handler returned to outputs that every sink has accepted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from types import GeneratorType
from typing import Any, Protocol

from pipeline.decisions import tracing, wire
from pipeline.decisions.codec import encode
from pipeline.decisions.deadline import Deadline
from pipeline.engine.coalesce import Activity, Coalescer
from pipeline.engine.stage import Stage
from pipeline.errors import ConfigurationError, SinkError, SinkRefused, SinkUnavailable
from pipeline.output import Emit, Output
from pipeline.ports import Effect, Environment, FusedSink, Sink
from pipeline.record import Carried, TraceContext
from pipeline.telemetry import conventions as names
from pipeline.telemetry import spans
from pipeline.telemetry.conventions import described_by
from pipeline.telemetry.events import MAX_OUTPUT_IDS, Observer, SinkWritten, tell

#: Outputs are held until the function ends, up to this many and this many bytes; beyond, they stream.
MAX_HELD = 1_000
MAX_HELD_BYTES = 1_048_576

#: Outputs that one shared call to a sink gathers at most.
_SHARED = 1_000
#: Characters that one shared call to a sink that gathers does, and seconds that it waits for more at most: a
#: record is not settled before, so that a crash repeats what is gathered.
_GATHERED = 16_777_216
_GATHERED_SECONDS = 2.0


class Standing(Protocol):
    """Where a record stands in its lane, while the lane goes on without it."""

    def is_behind(self) -> bool:
        """An earlier record of its lane has failed."""
        ...

    def has_failed(self) -> None:
        """It has failed itself: hold back what stands behind it."""
        ...


#: One output for a sink that gathers, and where its record stands.
_Request = tuple[Output, Standing]

Failures = list[tuple[Output, BaseException]]
#: A handler's outputs that are still to be written, how many were written meanwhile, and what failed of those.
Collected = tuple[list[Output], int, Failures]


class Origin:
    """What the outputs of one record have in common; it numbers them."""

    __slots__ = ("_next", "default_key", "hops", "identity", "sent_at", "streamed", "traceparent", "tracestate")

    def __init__(
        self,
        identity: str,
        default_key: str,
        carried: Carried | None,
        sent_at: float | None = None,
        trace: TraceContext | None = None,
    ) -> None:
        self.identity = identity
        self.default_key = default_key
        self.hops = (carried.hops if carried else 0) + 1
        self.traceparent = None if trace is None else tracing.format_traceparent(trace)
        self.tracestate = None if trace is None else trace.state
        self.sent_at = sent_at
        self.streamed: Sequence[Output] = ()  #: the first of those that sinks accepted before the function ended
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
        self._calls: dict[str, Coalescer[Output, BaseException | None]] = {
            sink.name: Coalescer(self._sender(sink), activity, limit=_SHARED)
            for sink in stage.sinks
            if not _gathers(sink)
        }
        self._gathering = {sink.name: self._gatherer(sink) for sink in stage.sinks if _gathers(sink)}
        self._once: Coalescer[Effect, bool | BaseException] = Coalescer(self._write_effects, activity, limit=_SHARED)
        self._held = 0  #: characters that are gathered, or on their way

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
                tracestate=origin.tracestate,
                sent_at=origin.sent_at,
                value=emit.value,
            )
            for sink in sinks
        ]

    async def collect(
        self, result: Any, origin: Origin, standing: Standing, may_write: Callable[[], Awaitable[bool]]
    ) -> Collected:
        """A handler's result as outputs; beyond the limits they are written meanwhile, while `may_write` says yes.

        Stops at the first failed write: what was streamed before it stays written.
        """
        if hasattr(result, "__aiter__"):
            return await self._drain(result, origin, standing, may_write)
        if isinstance(result, GeneratorType):
            return await self._drain(_each(result), origin, standing, may_write)
        if isinstance(result, (list, tuple)) and not hasattr(result, "_fields"):  # a named tuple is one output
            return [output for value in result for output in self.address(value, origin)], 0, []
        return self.address(result, origin), 0, []

    def parted(self, outputs: list[Output]) -> tuple[list[Output], list[Output]]:
        """Outputs to be written at once, and those of sinks that gather many."""
        if not self._gathering:
            return outputs, []
        at_once = [output for output in outputs if output.sink not in self._gathering]
        return at_once, [output for output in outputs if output.sink in self._gathering]

    def fused_apart(self, outputs: list[Output]) -> tuple[list[Output], list[Output]]:
        """Outputs without those that are written with a mark, and these."""
        fused = self._stage.fused
        if fused is None:
            return outputs, []
        others = [output for output in outputs if output.sink != fused]
        return others, [output for output in outputs if output.sink == fused]

    @property
    def gathers(self) -> bool:
        """True when one of the sinks does."""
        return bool(self._gathering)

    @property
    def is_full(self) -> bool:
        """So much is gathered, or on its way, that no more records should run beside it."""
        return self._held >= 2 * _GATHERED

    async def write_gathered(self, outputs: Sequence[Output], standing: Standing, *, hurry: bool = False) -> Failures:
        """Write outputs to sinks that gather, when there are many; returns those that were not accepted.

        It ends no sooner than what was asked of any of these sinks before it, so that the records of a lane
        end in order. `hurry`: what is gathered goes out now.
        """
        asked: list[tuple[list[Output], asyncio.Future[Sequence[BaseException | None]]]] = []
        for name, call in self._gathering.items():
            some = [output for output in outputs if output.sink == name]
            asked.append((some, call.ask([(output, standing) for output in some])))
            if hurry:
                call.flush()
        size = sum(len(output.body) for output in outputs)
        self._held += size
        # Whoever waits for a claim or another sink may still bring something; whoever waits here may not.
        self._company.leave()
        try:
            await self._activity.wait([answer for _, answer in asked])
        finally:
            self._held -= size
            self._company.join()
        return [
            (output, error)
            for some, answer in asked
            for output, error in zip(some, answer.result(), strict=True)
            if error is not None
        ]

    def give_up(self) -> None:
        """Answer what waits for sinks that gather: they take too long, and the outputs are to be kept yet."""
        for call in self._gathering.values():
            call.give_up(SinkUnavailable("the sink did not answer before the time was up"))

    async def write(self, outputs: Sequence[Output]) -> Failures:
        """Write outputs to their sinks, side by side; returns those that were not accepted."""
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
        if asked:
            await self._activity.wait([answer for _, answer in asked])
        for some, answer in asked:
            failures += [(output, error) for output, error in zip(some, answer.result(), strict=True) if error]
        return failures

    async def write_once(self, entry_id: str, outputs: Sequence[Output]) -> bool | BaseException:
        """Write a record's outputs to the fused sink, together with its mark; see `FusedSink.write_once`."""
        effect = Effect(mark=wire.mark(entry_id), outputs=tuple(outputs))
        return (await self._once.submit([effect]))[0]

    async def aclose(self) -> None:
        await self._once.aclose()
        for call in self._calls.values():
            await call.aclose()
        for gatherer in self._gathering.values():
            await gatherer.aclose()

    async def write_all(self, outputs: list[Output], standing: Standing, *, must_wait: bool = False) -> Failures:
        """Write outputs at once, also to sinks that gather: to these only when all others have accepted.

        `must_wait`: what was gathered before them is waited for, also when none of them is for such a sink.
        """
        at_once, gathered = self.parted(outputs)
        if failures := await self.write(at_once):
            return failures + [(output, SinkUnavailable("other outputs were not written")) for output in gathered]
        if gathered or must_wait:
            await asyncio.sleep(0)  # a record that has just handed its lane on asks first
            return await self.write_gathered(gathered, standing, hurry=True)
        return []

    async def _drain(
        self, values: AsyncIterator[Any], origin: Origin, standing: Standing, may_write: Callable[[], Awaitable[bool]]
    ) -> Collected:
        held = Held()
        streamed = 0
        try:
            async for value in values:
                held.add(self.address(value, origin))
                if held.is_full:
                    outputs = self._take_others(held)
                    if not await may_write():
                        return [], streamed, [(output, SinkUnavailable("the claim is lost")) for output in outputs]
                    if failures := await self.write_all(outputs, standing):
                        return [], streamed, failures
                    streamed += len(outputs)
                    origin.streamed = origin.streamed or outputs[:MAX_OUTPUT_IDS]
        finally:
            close = getattr(values, "aclose", None)
            if close is not None:
                await close()
        return held.outputs, streamed, []

    def _take_others(self, held: Held) -> list[Output]:
        """What may be written before the function ends: not what is fused, which is one write."""
        outputs, fused = self.fused_apart(held.take())
        held.add(fused)
        if fused and held.is_full:
            raise SinkRefused(
                f"a record returned {len(fused):,} outputs for the sink '{self._stage.fused}', which writes them in one "
                "transaction: return fewer, or use Claim() instead of Fused()"
            )
        return outputs

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

    def _gatherer(self, sink: Sink) -> Coalescer[_Request, BaseException | None]:
        """Calls to a sink that gathers. In turn, because lanes have gone on: what comes next may stand behind this."""
        write = self._sender(sink)

        async def send(requests: list[_Request]) -> Sequence[BaseException | None]:
            admitted = [request for request in requests if not request[1].is_behind()]
            answers = iter(await write([output for output, _ in admitted]) if admitted else ())
            errors: list[BaseException | None] = []
            waiting = iter(admitted)
            following = next(waiting, None)
            for request in requests:
                if request is following:
                    errors.append(next(answers))
                    following = next(waiting, None)
                else:
                    errors.append(SinkUnavailable("an earlier record of the same lane was not written"))
                if errors[-1] is not None:
                    request[1].has_failed()  # before the next call may go out
            return errors

        return Coalescer(
            send, self._company, limit=_GATHERED, linger=_GATHERED_SECONDS, weight=_characters, in_turn=True
        )

    async def _write_effects(self, effects: list[Effect]) -> Sequence[bool | BaseException]:
        sink = self._sinks[self._stage.fused or ""]
        assert isinstance(sink, FusedSink), "an assembled stage has one"
        clock = self._environment.clock
        started = clock.monotonic()
        made_by = [(output.traceparent, output.tracestate) for effect in effects for output in effect.outputs]
        with spans.call(*_described(sink, len(made_by)), clock.now, made_by) as span:
            answers: Sequence[bool | BaseException]
            try:
                answers = await sink.write_once(effects, self._environment, self._deadline)
            except Exception as error:
                answers = [error] * len(effects)
            errors = [
                answer if isinstance(answer, BaseException) else None
                for effect, answer in zip(effects, answers, strict=True)
                for _ in effect.outputs
            ]
            self._observe(sink, errors, clock.monotonic() - started, span)
        return answers

    def _sender(self, sink: Sink) -> Any:
        async def send(outputs: list[Output]) -> Sequence[BaseException | None]:
            clock = self._environment.clock
            started = clock.monotonic()
            made_by = ((output.traceparent, output.tracestate) for output in outputs)
            with spans.call(*_described(sink, len(outputs)), clock.now, made_by) as span:
                errors: Sequence[BaseException | None]
                try:
                    errors = await sink.write(outputs, self._environment, self._deadline)
                    if len(errors) != len(outputs):
                        raise SinkError(f"the sink '{sink.name}' answered {len(errors)} of {len(outputs)} outputs")
                except Exception as error:
                    errors = [error] * len(outputs)
                self._observe(sink, errors, clock.monotonic() - started, span)
            return errors

        return send

    def _observe(
        self, sink: Sink, errors: Sequence[BaseException | None], seconds: float, span: spans.CallSpan
    ) -> None:
        failed = [error for error in errors if error is not None]
        if failed:
            span.failed(failed[0], len(failed), is_whole=len(failed) == len(errors))
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


def _described(sink: Sink, outputs: int) -> tuple[str, spans.Attributes]:
    """The name and the attributes of the span of a call."""
    described: spans.Attributes = described_by(sink)
    operation = described.get(names.OPERATION_NAME, "write")
    if names.OPERATION_NAME in described:
        described = {**described, names.MESSAGE_COUNT: outputs}
    return f"{operation} {sink.name}", described


def _gathers(sink: Sink) -> bool:
    return getattr(sink, "gathers", False)


def _characters(requests: Sequence[_Request]) -> int:
    return sum(len(output.body) for output, _ in requests)


def _takes(sink: Sink, value: Any) -> bool:
    when = getattr(sink, "when", None)
    return when is None or bool(when(value))


def _checked_text(value: str) -> str:
    encode(value)  # raises for lone surrogates, which no service takes
    return value
