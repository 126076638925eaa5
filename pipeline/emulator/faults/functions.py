"""Faults of invocations: what stands between a mapping and its function."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from pipeline.emulator.driver import Invocable
from pipeline.emulator.faults.kinds import Kind, Point
from pipeline.emulator.faults.place import INVOCATION
from pipeline.emulator.faults.plan import Faults, Now
from pipeline.emulator.faults.story import given, outcome_of
from pipeline.emulator.mappings.answers import Answer, Returned, Throttled, Unheard
from pipeline.emulator.mappings.response import ResponseError, named_failures
from pipeline.runtimes.response import partial_response

#: Of a queue, a FIFO queue and a stream: what can befall an invocation there.
STANDARD = frozenset({Kind.OVERLAP, Kind.LOST_RESPONSE, Kind.LATE_RESPONSE, Kind.THROTTLED_INVOCATION})
FIFO = STANDARD - {Kind.OVERLAP}
STREAM = frozenset({Kind.REPEAT, Kind.LOST_RESPONSE, Kind.THROTTLED_INVOCATION})


@dataclass
class Hidden:
    """How long a mapping's messages are hidden. `seconds`: the queue's own, until a poll asks for others."""

    seconds: float


class FaultyFunction:
    """A function that is not always reached, and not always heard of; see `Invocable`.

    `label`: as the mapping calls it. `function`: its own name. `hidden`: a late answer comes when that is over.
    """

    def __init__(
        self,
        inner: Invocable,
        label: str,
        function: str,
        faults: Faults,
        now: Now,
        *,
        kinds: Collection[Kind],
        hidden: Hidden,
    ) -> None:
        self._inner = inner
        self._label = label
        self._function = function
        self._faults = faults
        self._now = now
        self._kinds = kinds
        self._hidden = hidden
        self._invocations = 0

    async def invoke(self, event: Any) -> Answer:
        """See `Invocable`."""
        number = self._next(event)
        kind = self._faults.at(Point(self._label, "invocation", number, self._function), self._kinds, self._now())
        if kind is Kind.THROTTLED_INVOCATION:
            return Throttled()
        if kind is Kind.OVERLAP:
            both = self._invoke(event, number), self._invoke(event, self._next(event))
            first, second = await asyncio.gather(*both)
            return together(first, second, [record["messageId"] for record in event["Records"]])
        answer = await self._invoke(event, number)
        if kind is Kind.REPEAT:
            return await self._invoke(event, self._next(event))
        if kind is Kind.LOST_RESPONSE:
            return Unheard()
        if kind is Kind.LATE_RESPONSE:
            await asyncio.sleep(self._hidden.seconds + 1.0)
        return answer

    def _next(self, event: Any) -> int:
        """The number of one more invocation."""
        self._invocations += 1
        self._faults.note(f"{self._label}[{self._invocations}]", "is given", self._now(), given(event))
        return self._invocations

    async def _invoke(self, event: Any, number: int) -> Answer:
        token = INVOCATION.set((self._label, number))
        try:
            answer = await self._inner.invoke(event)
        finally:
            INVOCATION.reset(token)
        text, failed = outcome_of(answer, event)
        self._faults.note(f"{self._label}[{number}]", text, self._now(), failed)
        return answer


def together(first: Answer, second: Answer, ids: Collection[str]) -> Answer:
    """What two deliveries of the same messages come to: what either was done with is deleted."""
    done = [answer for answer in (first, second) if isinstance(answer, Returned)]
    if not done:
        return first if isinstance(second, Throttled) else second
    failed: frozenset[str] | None = None
    for answer in done:
        try:
            named = named_failures(answer.payload, frozenset(ids))
        except ResponseError:
            continue  # of this delivery nothing is deleted
        failed = named if failed is None else failed & named
    if failed is None or len(done) == 1:
        return done[0]
    return Returned(partial_response(sorted(failed)))
