"""A stage whose every step can be the last of its environment: the claim, the handler, each sink, and so on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from pipeline.batch import BatchResult
from pipeline.decisions.deadline import Deadline
from pipeline.emulator.faults.kinds import Kind
from pipeline.emulator.faults.place import Place
from pipeline.emulator.turns import Turns
from pipeline.engine.context import Context
from pipeline.engine.stage import Call, Middleware, Stage
from pipeline.ports import (
    DeadLetter,
    DeadLetters,
    Effect,
    Environment,
    FusedSink,
    IdempotencyStore,
    Sink,
    Source,
)
from pipeline.record import Record


def breakable(stage: Stage, place: Place, turns: Turns | None = None, *, slow: bool = True) -> Stage:
    """The same stage in an environment that can die. `slow`: its handler can be slow. `turns`: of handlers in threads."""
    turns = turns if stage.signature.kind.in_thread else None
    return replace(
        stage,
        store=None if stage.store is None else _Store(stage.store, place),
        sinks=tuple(
            _FusedSink(sink, place) if isinstance(sink, FusedSink) else _Sink(sink, place) for sink in stage.sinks
        ),
        dead_letters=_DeadLetters(stage.dead_letters, place),
        source=_Source(stage.source, place),
        middleware=(_handler(place, turns, stage.deploy.timeout if slow else None), *stage.middleware),
    )


def _handler(place: Place, turns: Turns | None, timeout: float | None) -> Middleware:
    def around(call: Call) -> Call:
        async def breaking(record: Record[Any], context: Context) -> Any:
            await place.passes("before handler")
            place.note("runs", [record.id])
            if timeout is not None:
                point, kind = place.decide("handler", (Kind.SLOW_HANDLER,))
                if kind is not None:
                    await asyncio.sleep(place.faults.chance(point, "seconds").uniform(0.05, 0.8) * timeout)
            result = await (call(record, context) if turns is None else _in_turn(turns, call, record, context))
            await place.passes("after handler")
            return result

        return breaking

    return around


async def _in_turn(turns: Turns, call: Call, record: Record[Any], context: Context) -> Any:
    who = object()
    try:
        await turns.take(who)
        return await call(record, context)
    finally:
        turns.give_up(who)


class _Wrapped:
    """Something of a stage; what is not wrapped is its own."""

    def __init__(self, inner: Any, place: Place) -> None:
        self._inner = inner
        self._place = place

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def _step(self, name: str, call: Callable[[], Any]) -> Any:
        await self._place.passes(f"before {name}")
        answer = await call()
        await self._place.passes(f"after {name}")
        return answer

    async def _alive(self, call: Callable[[], Any]) -> Any:
        """What is no step of its own: only a dead environment does not get through."""
        if self._place.is_dead:
            await self._place.ends()
        return await call()


class _Store(_Wrapped):
    """See `IdempotencyStore`."""

    _inner: IdempotencyStore

    async def claim(self, requests: Any, environment: Environment) -> Any:
        return await self._step("claim", lambda: self._inner.claim(requests, environment))

    async def settle(self, settlements: Any, environment: Environment) -> Any:
        return await self._step("completion", lambda: self._inner.settle(settlements, environment))

    async def renew(self, renewals: Any, environment: Environment) -> Any:
        return await self._alive(lambda: self._inner.renew(renewals, environment))

    async def look(self, ids: Sequence[str], environment: Environment) -> Any:
        return await self._step("claim", lambda: self._inner.look(ids, environment))

    async def mark(self, entries: Any, environment: Environment) -> Any:
        return await self._step("completion", lambda: self._inner.mark(entries, environment))

    async def advance(self, advances: Any, environment: Environment) -> Any:
        return await self._step("completion", lambda: self._inner.advance(advances, environment))


class _Sink(_Wrapped):
    """See `Sink`."""

    _inner: Sink

    @property
    def name(self) -> str:
        return self._inner.name

    async def write(self, outputs: Any, environment: Environment, deadline: Deadline) -> Any:
        return await self._step(f"sink {self.name}", lambda: self._inner.write(outputs, environment, deadline))


class _FusedSink(_Sink):
    """See `FusedSink`."""

    async def write_once(self, effects: Sequence[Effect], environment: Environment, deadline: Deadline) -> Any:
        inner: Any = self._inner
        return await self._step(f"sink {self.name}", lambda: inner.write_once(effects, environment, deadline))


class _DeadLetters(_Wrapped):
    """See `DeadLetters`."""

    _inner: DeadLetters

    async def put(self, letters: Sequence[DeadLetter], environment: Environment, deadline: Deadline) -> Any:
        answer = await self._step("dead letter", lambda: self._inner.put(letters, environment, deadline))
        for letter in letters:
            self._place.note("puts", [letter.record.id], "into the dead letters")
        return answer


class _Source(_Wrapped):
    """See `Source`."""

    _inner: Source

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def is_stream(self) -> bool:
        return self._inner.is_stream

    @property
    def dead_letters(self) -> DeadLetters:
        return self._inner.dead_letters

    def decode(self, event: Any) -> Any:
        return self._inner.decode(event)

    def unsettled_ids(self, result: BatchResult) -> Any:
        return self._inner.unsettled_ids(result)

    async def settle(self, result: BatchResult, environment: Environment, deadline: Deadline) -> Any:
        return await self._step("acknowledgement", lambda: self._inner.settle(result, environment, deadline))
