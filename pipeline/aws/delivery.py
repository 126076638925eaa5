"""Delivery: entries to a service that takes them in limited batches and may take only some.

`Plan` decides (pure): what goes into which call, in what order, what is tried again and what has
failed for good. `deliver` carries it out.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable, Sequence
from typing import Any

from msgspec import Struct

from pipeline.decisions.deadline import Deadline
from pipeline.errors import SinkError, SinkRefused, SinkUnavailable
from pipeline.ports import Environment

#: Calls of one delivery that run at the same time.
CONCURRENT_CALLS = 8
#: How often one entry is sent before it counts as failed, each time with botocore's own retries.
TRIES = 5
_FIRST_DELAY, _LONGEST_DELAY = 0.1, 2.0


class Limits(Struct, frozen=True, kw_only=True):
    """What a service takes in one call."""

    count: int  #: entries
    size: int  #: bytes of all entries together
    entry_size: int  #: bytes of one entry


class Entry(Struct, frozen=True, kw_only=True):
    """One thing to send. `payload` is what the service's API wants."""

    payload: Any = None
    size: int = 0  #: bytes, by the service's own rule
    key: Hashable | None = None  #: entries of one key are accepted in order; None: no order
    error: SinkError | None = None  #: it cannot even be sent


#: Sends entries in one call: for each position None, or why it was not accepted. Raises a
#: `SinkError` when the call failed as a whole.
Send = Callable[[Sequence[Entry]], Awaitable[Sequence[SinkError | None]]]


class Plan:
    """Which entries may go next, and what became of each.

    At most one entry of a key is on its way, and the next one waits until it was accepted: a
    service may take any subset of a call's entries, so two of one key in the same call could end
    up in the wrong order.
    """

    def __init__(self, entries: Sequence[Entry], limits: Limits, *, tries: int = TRIES) -> None:
        self._entries = entries
        self._limits = limits
        self._tries_left = [tries] * len(entries)
        self._waiting: dict[Hashable, deque[int]] = {}
        self._ready: set[int] = set()
        self._alone: set[int] = set()
        self.results: list[SinkError | None] = [SinkUnavailable("no time was left to send it")] * len(entries)
        self.must_wait = False  #: an entry is to be tried again: wait a while before the next round
        self._admit()

    def _admit(self) -> None:
        for position, entry in enumerate(self._entries):
            if entry.key is None:
                self._ready.add(position)
            elif entry.key in self._waiting:
                self._waiting[entry.key].append(position)
            else:
                self._waiting[entry.key] = deque()
                self._ready.add(position)
        for position in sorted(self._ready):
            self._drop_unsendable(position)

    def round(self) -> list[list[int]]:
        """The calls that may be made now, side by side: positions in order, within the limits."""
        calls: list[list[int]] = []
        size = 0
        for position in sorted(self._ready):
            entry = self._entries[position]
            # Entries that spoilt a call together go alone, so that only the guilty one fails.
            is_alone = position in self._alone
            fits = calls and len(calls[-1]) < self._limits.count and size + entry.size <= self._limits.size
            if fits and not is_alone and calls[-1][0] not in self._alone:
                calls[-1].append(position)
                size += entry.size
            else:
                calls.append([position])
                size = entry.size
        self._ready.clear()
        self.must_wait = False
        return calls

    def note(self, position: int, error: SinkError | None) -> None:
        """What became of an entry of the last round."""
        self._tries_left[position] -= 1
        self.results[position] = error
        if error is None:
            self._go_on(position)
        elif isinstance(error, SinkRefused) or self._tries_left[position] <= 0:
            self._give_up(position)
        else:
            self._ready.add(position)
            self.must_wait = True

    def note_call(self, positions: Sequence[int], error: SinkError) -> None:
        """A call failed as a whole: when it was refused, its entries are tried one by one."""
        for position in positions:
            if isinstance(error, SinkRefused) and len(positions) > 1:
                self.results[position] = error
                self._alone.add(position)
                self._ready.add(position)
            else:
                self.note(position, error)

    def _go_on(self, position: int) -> None:
        following = self._waiting.get(self._entries[position].key)
        if following:
            after = following.popleft()
            self._ready.add(after)
            self._drop_unsendable(after)

    def _drop_unsendable(self, position: int) -> None:
        entry = self._entries[position]
        error = entry.error
        if error is None and entry.size > self._limits.entry_size:
            error = SinkRefused(f"{entry.size:,} bytes: the service takes at most {self._limits.entry_size:,}")
        if error is not None:
            self._ready.discard(position)
            self.results[position] = error
            self._give_up(position)

    def _give_up(self, position: int) -> None:
        for behind in self._waiting.get(self._entries[position].key, ()):
            error = self._entries[behind].error
            self.results[behind] = error or SinkUnavailable(
                f"an earlier output of the same ordering key was not accepted: {self.results[position]}"
            )


async def deliver(
    entries: Sequence[Entry], send: Send, limits: Limits, environment: Environment, deadline: Deadline
) -> list[SinkError | None]:
    """Send the entries; for each position None once it is accepted, or why it was not.

    Only what failed is sent again, after full-jitter delays, a bounded number of times, and not
    beyond the deadline's `soft`.
    """
    plan = Plan(entries, limits)
    gate = asyncio.Semaphore(CONCURRENT_CALLS)
    waits = 0

    async def call(positions: Sequence[int]) -> None:
        async with gate:
            try:
                answers = await send([entries[position] for position in positions])
            except SinkError as error:
                plan.note_call(positions, error)
                return
        for position, answer in zip(positions, answers, strict=True):
            plan.note(position, answer)

    calls = plan.round()
    while calls:
        await _all(call(positions) for positions in calls)
        delay = 0.0
        if plan.must_wait:
            delay = environment.chance() * min(_LONGEST_DELAY, _FIRST_DELAY * 2.0**waits)
            waits += 1
        left = deadline.left(environment.clock.monotonic())
        if left is not None and left <= delay:
            break  # what is still open keeps its last error, and goes back to its source
        if delay:
            await environment.clock.sleep(delay)
        calls = plan.round()
    return plan.results


async def _all(calls: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run the calls to their ends, then raise the first error, if any: none is left running."""
    for result in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
