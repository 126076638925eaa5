"""Calling the user's function: with what it asks for, on the loop or in a thread."""

from __future__ import annotations

import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from enum import Enum, auto
from types import GeneratorType
from typing import Any

from pipeline.batch import Batch, Failure
from pipeline.engine.context import Context
from pipeline.engine.threads import Threads
from pipeline.errors import PipelineError, ResourceUnavailable
from pipeline.ports import Environment
from pipeline.record import Record


class Kind(Enum):
    """What kind of function a handler is."""

    ASYNC = auto()
    SYNC = auto()
    ASYNC_GENERATOR = auto()
    GENERATOR = auto()

    @property
    def in_thread(self) -> bool:
        """True when it would block the loop, and runs in a thread."""
        return self in (Kind.SYNC, Kind.GENERATOR)


@dataclass(frozen=True, kw_only=True)
class Signature:
    """Which parameter gets what. Each name is None when the function does not ask for it."""

    kind: Kind
    payload: str | None = None
    record: str | None = None
    context: str | None = None
    batch: str | None = None
    resources: Mapping[str, Callable[[], AsyncIterator[Any]]]  #: parameter -> the resource's generator

    def arguments(self, record: Record[Any] | None, context: Context, resources: Mapping[str, Any]) -> dict[str, Any]:
        """The keyword arguments of one call."""
        arguments = dict(resources)
        if record is not None:
            if self.payload is not None:
                arguments[self.payload] = record.payload
            if self.record is not None:
                arguments[self.record] = record
        if self.context is not None:
            arguments[self.context] = context
        return arguments


class Calling:
    """Calls one function. Resources are made at the first call, once in an environment."""

    def __init__(
        self, function: Callable[..., Any], signature: Signature, environment: Environment, threads: Threads
    ) -> None:
        self._function = function
        self._signature = signature
        self._environment = environment
        self._threads = threads
        wants_more = signature.resources or signature.record or signature.context
        self._payload_only = signature.payload if signature.kind is Kind.ASYNC and not wants_more else None

    def one(self, record: Record[Any], context: Context) -> Awaitable[Any]:
        """Call it for one record: await it for what it returns, or an iterator of what it yields."""
        if self._payload_only is not None:  # the most usual; its own coroutine, with none around it
            awaitable: Awaitable[Any] = self._function(**{self._payload_only: record.payload})
            return awaitable
        return self._one(record, context)

    async def _one(self, record: Record[Any], context: Context) -> Any:
        resources = await self._resources() if self._signature.resources else {}
        return await self._call(self._signature.arguments(record, context, resources))

    async def many(self, records: Sequence[Record[Any]], context: Context) -> Sequence[Any]:
        """Call a batch handler: one result for each position; raises what the whole call raises."""
        arguments = self._signature.arguments(None, context, await self._resources())
        assert self._signature.batch is not None
        arguments[self._signature.batch] = Batch(records)
        results = await self._call(arguments)
        if not isinstance(results, (list, tuple)) or len(results) != len(records):
            given = f"{len(results)} results" if isinstance(results, (list, tuple)) else type(results).__name__
            raise PipelineError(
                f"a batch handler returns a list with one result for each position; "
                f"for {len(records)} records it returned {given}"
            )
        return results

    async def _call(self, arguments: dict[str, Any]) -> Any:
        kind = self._signature.kind
        if kind is Kind.ASYNC:
            return await self._function(**arguments)
        if kind is Kind.SYNC:
            result = await self._threads.run(lambda: self._function(**arguments))
            return _pull(result, self._threads) if isinstance(result, GeneratorType) else result
        if kind is Kind.ASYNC_GENERATOR:
            return self._function(**arguments)
        return _pull(self._function(**arguments), self._threads)

    async def _resources(self) -> dict[str, Any]:
        return {name: await self._resource(make) for name, make in self._signature.resources.items()}

    async def _resource(self, make: Callable[[], AsyncIterator[Any]]) -> Any:
        try:
            return await self._environment.once(("resource", make), _as_context(make))
        except Exception as error:
            name = getattr(make, "__name__", repr(make))
            raise ResourceUnavailable(f"the resource {name} did not open: {type(error).__name__}: {error}") from error


def failure_of(result: Any) -> BaseException | None:
    """The error of a batch handler's `Failure`, or None for any other result."""
    return result.error if isinstance(result, Failure) else None


#: Values drawn from a plain generator at a time: one hand-over to the thread for each.
_PULLED = 10
_END = object()


async def _pull(generator: Generator[Any, None, None], threads: Threads) -> AsyncIterator[Any]:
    """A plain generator's values, drawn in a thread, some at a time, and all in the same context variables."""
    around = contextvars.copy_context()
    is_at_rest = False  #: it stands at a `yield`

    def draw() -> list[Any]:
        drawn: list[Any] = []
        for value in generator:
            drawn.append(value)
            if len(drawn) == _PULLED:
                return drawn
        drawn.append(_END)
        return drawn

    try:
        while True:
            is_at_rest = False
            drawn = await threads.run(draw, around)
            is_at_rest = drawn[-1] is not _END
            for value in drawn:
                if value is _END:
                    return
                yield value
    finally:
        if is_at_rest:  # nobody wants the rest: what it has open ends here, and not whenever it is collected
            await threads.run(generator.close, around)


def _as_context(make: Callable[[], AsyncIterator[Any]]) -> Callable[[], Any]:
    """A resource's generator as a context manager, whatever protocol its author typed."""

    @asynccontextmanager
    async def resource() -> AsyncIterator[Any]:
        generator: Any = make()
        async with aclosing(generator):
            try:
                value = await anext(generator)
            except StopAsyncIteration:
                raise PipelineError(f"the resource {getattr(make, '__name__', make)} yielded nothing") from None
            try:
                yield value
            finally:
                # What stands after its `yield` runs now, also when another resource failed to close.
                if await anext(generator, _END) is not _END:
                    raise PipelineError(
                        f"the resource {getattr(make, '__name__', make)} yielded twice; it must yield once"
                    )

    return resource
