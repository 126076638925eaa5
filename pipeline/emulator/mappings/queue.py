"""A queue's event source mapping, standard and FIFO: receive, filter, collect, invoke, delete. Pure.

Its rules are those of the Lambda developer guide's pages "Using Lambda with Amazon SQS"; each has a test that names the page.
One poll is under way at a time, and only while there is room for one more batch: who waits behind others would only age.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pipeline.emulator.mappings.actions import (
    Action,
    BatchFailed,
    Delete,
    Dropped,
    Filtered,
    Invoke,
    Message,
    Receive,
    Settled,
)
from pipeline.emulator.mappings.answers import Answer, FunctionFailed, Returned, Throttled
from pipeline.emulator.mappings.batching import MAX_EVENT_BYTES, Collecting
from pipeline.emulator.mappings.response import ResponseError, named_failures
from pipeline.emulator.mappings.scaling import Scaling
from pipeline.emulator.mappings.settings import QueueSettings

#: What SQS hands out in one call at most (API reference, ReceiveMessage).
MAX_RECEIVE: Final = 10
#: Bytes of the event around its records.
_FRAME_BYTES: Final = len('{"Records": []}')
#: Seconds until a queue that refused is asked again.
_REFUSED_PAUSE: Final = 1.0
#: Seconds until a throttled batch is tried again: doubled each time, up to the second.
_FIRST_RETRY, _LONGEST_RETRY = 1.0, 30.0


@dataclass(frozen=True)
class _Held:
    """A message that was received, and until when the queue hides it."""

    message: Message
    visible_at: float


@dataclass
class _Batch:
    number: int
    held: Sequence[_Held]
    tries: int = 0
    #: When a throttled one is tried again; None: it was not throttled, or is being tried.
    again_at: float | None = None

    @property
    def messages(self) -> tuple[Message, ...]:
        return tuple(held.message for held in self.held)

    @property
    def ids(self) -> tuple[str, ...]:
        return _ids(self.messages)

    @property
    def groups(self) -> frozenset[str | None]:
        return frozenset(held.message.group for held in self.held)

    @property
    def visible_at(self) -> float:
        """When the first of its messages is anybody's again."""
        return min(held.visible_at for held in self.held)


def visibility(settings: QueueSettings) -> float | None:
    """Seconds that a received message is hidden, when the mapping asks for more than the queue gives; else None.

    Lambda developer guide, "Using Lambda with Amazon SQS": a window and the function's timeout must both fit in.
    """
    needed = settings.batching_window + settings.function_timeout
    return needed + 30 if settings.batching_window and needed > settings.visibility_timeout else None


class QueueMapping:
    """A `QueueMachine`. `limit`: batches that this machine can have at work at once; None: as many as Lambda."""

    def __init__(self, settings: QueueSettings, *, limit: int | None = None) -> None:
        self._settings = settings
        self._scaling = Scaling(settings, limit=limit)
        self._visibility = visibility(settings)
        self._collecting: Collecting[_Held] = Collecting(
            settings.batch_size, settings.batching_window, MAX_EVENT_BYTES - _FRAME_BYTES
        )
        self._waiting: deque[_Batch] = deque()  #: due, and without a place
        self._at_work: dict[int, _Batch] = {}  #: a throttled one keeps its place
        self._facts: list[Action] = []
        self._poll: int | None = None  #: the one that is under way
        self._polls_from = 0.0  #: a queue that refused is left alone until then
        self._now = 0.0
        self._polls = self._batches = 0  #: so many were numbered

    # -- What a driver asks.

    def actions(self, now: float) -> list[Action]:
        """What is to be done now, and what happened, in order."""
        self._now = now
        self._cut(now)
        self._drop(now)
        done, self._facts = self._facts, []
        commands = [*self._start(now), *self._retry(now), *self._receive(now)]
        self._scaling.used(len(self._at_work), now)
        return [*done, *commands]

    @property
    def wakes_at(self) -> float | None:
        """When time alone brings the next action; None: it does not."""
        if self._facts:
            return self._now
        return min(self._wakes(), default=None)

    @property
    def held(self) -> int:
        """Messages that were received and are neither deleted nor back at their queue."""
        return len(self._collecting) + sum(len(batch.held) for batch in [*self._waiting, *self._at_work.values()])

    # -- What a driver tells.

    def received(self, poll: int, messages: Sequence[Message], now: float) -> None:
        """A `Receive` came to its end."""
        self._end(poll, now)
        if not messages:
            self._scaling.idle(len(self._at_work), now)
        accepts = self._settings.filter.accepts if self._settings.filter else None
        # Lambda developer guide, "Control which events Lambda sends to your function": what does not match is deleted,
        # before it could be part of a batch.
        refused = [message for message in messages if accepts and not accepts(message.body, message.member)]
        if refused:
            self._facts += [Delete(tuple(refused)), Filtered(_ids(refused))]
        hidden = self._settings.visibility_timeout if self._visibility is None else self._visibility
        for message in messages:
            if accepts is None or accepts(message.body, message.member):
                self._collecting.add(_Held(message, now + hidden), message.size, now)

    def not_received(self, poll: int, now: float) -> None:
        """A `Receive` failed."""
        self._end(poll, now)
        self._polls_from = now + _REFUSED_PAUSE

    def answered(self, batch: int, answer: Answer, now: float) -> None:
        """An `Invoke` came to its end. Raises ValueError for a batch that is not at work."""
        found = self._at_work.get(batch)
        if found is None or found.again_at is not None:
            raise ValueError(f"batch {batch} is not at work")
        self._now = now
        if isinstance(answer, Throttled):
            found.again_at = now + min(_FIRST_RETRY * 2**found.tries, _LONGEST_RETRY)
            found.tries += 1
            self._scaling.throttled(now)
            return
        del self._at_work[batch]
        settled = self._settled(found, answer, now)
        if settled:
            self._facts += [Delete(settled), Settled(_ids(settled))]
        deleted = {message.receipt for message in settled}
        self._let_go(found, {m.group for m in found.messages if m.receipt not in deleted}, now)

    # -- What an answer means.

    def _settled(self, batch: _Batch, answer: Answer, now: float) -> tuple[Message, ...]:
        """The messages that the mapping deletes. The others come back."""
        if isinstance(answer, FunctionFailed):
            self._failed(batch, str(answer), now)
        if not isinstance(answer, Returned):
            return ()
        # "Implementing partial batch responses": without ReportBatchItemFailures the response is nobody's matter.
        try:
            named = self._named(answer.payload, batch.ids)
        except ResponseError as error:
            self._failed(batch, str(error), now)
            return ()
        self._scaling.succeeded(now)
        if named:
            back = sum(message.id in named for message in batch.messages)
            text = f"the response names {back} of {len(batch.held)} messages"
            self._facts.append(BatchFailed(batch.number, text, is_whole=False))
        return tuple(message for message in batch.messages if message.id not in named)

    def _named(self, payload: Any, ids: Iterable[str]) -> frozenset[str]:
        return named_failures(payload, frozenset(ids)) if self._settings.report_batch_item_failures else frozenset()

    def _failed(self, batch: _Batch, reason: str, now: float) -> None:
        self._facts.append(BatchFailed(batch.number, reason, is_whole=True))
        self._scaling.failed(now)

    def _let_go(self, failed: _Batch, groups: set[str | None], now: float) -> None:
        """FIFO: what was received behind a message that comes back must come after it.

        "The function attempts all retries on the affected messages before Lambda receives additional messages from the
        same group" (developer guide, "Configuring scaling behavior for SQS event source mappings"). Once the failed
        ones are visible, the queue itself keeps the order.
        """
        if not self._settings.is_fifo or not groups or now >= failed.visible_at:
            return
        for batch in self._waiting:
            behind = _Batch(batch.number, [held for held in batch.held if held.message.group in groups])
            if behind.held:
                batch.held = [held for held in batch.held if held.message.group not in groups]
                self._facts.append(Dropped(batch.number, behind.ids))
        self._waiting = deque(batch for batch in self._waiting if batch.held)

    # -- What is due.

    def _end(self, poll: int, now: float) -> None:
        if poll != self._poll:
            raise ValueError(f"poll {poll} is not under way")
        self._poll = None
        self._now = now

    def _cut(self, now: float) -> None:
        while self._collecting.is_due(now):
            self._batches += 1
            self._waiting.append(_Batch(self._batches, self._collecting.items))
            self._collecting = self._collecting.following(now)

    def _drop(self, now: float) -> None:
        """Let go of what is visible again before the function began: another receive brings it."""
        throttled = [batch for batch in self._at_work.values() if batch.again_at is not None]
        late = [batch for batch in [*throttled, *self._waiting] if now >= batch.visible_at]
        for batch in late:
            self._at_work.pop(batch.number, None)
            self._facts.append(Dropped(batch.number, batch.ids))
        self._waiting = deque(batch for batch in self._waiting if now < batch.visible_at)

    def _start(self, now: float) -> list[Action]:
        started: list[Action] = []
        while self._waiting and self._has_room(now) and self._is_in_order(self._waiting[0]):
            batch = self._waiting.popleft()
            self._at_work[batch.number] = batch
            started.append(_invoke(batch))
        return started

    def _retry(self, now: float) -> list[Action]:
        due = [batch for batch in self._at_work.values() if batch.again_at is not None and now >= batch.again_at]
        for batch in due:
            batch.again_at = None
        return [_invoke(batch) for batch in due]

    def _receive(self, now: float) -> list[Action]:
        if self._poll is not None or self._waiting or now < self._polls_from or not self._has_room(now):
            return []
        self._polls += 1
        self._poll = self._polls
        count = min(MAX_RECEIVE, self._collecting.wanted())
        return [Receive(self._poll, count, self._collecting.ends_at, self._visibility)]

    def _has_room(self, now: float) -> bool:
        return len(self._at_work) < self._scaling.allowed(now)

    def _is_in_order(self, batch: _Batch) -> bool:
        """FIFO: a message group is in one batch at work at a time, so they are never more than the active groups."""
        return not self._settings.is_fifo or not any(batch.groups & other.groups for other in self._at_work.values())

    def _wakes(self) -> list[float]:
        """When something would come of `actions`, each kind by itself."""
        collecting = self._collecting
        times = [min(b.again_at, b.visible_at) for b in self._at_work.values() if b.again_at is not None]
        times += [batch.visible_at for batch in self._waiting]
        due_at: float | None = None
        if collecting.ends_at is not None:
            due_at = self._now if collecting.is_due(self._now) else collecting.ends_at
            times.append(max(due_at, min(held.visible_at for held in collecting.items)))
        room_at = self._scaling.reaches(len(self._at_work) + 1, self._now)
        if room_at is None:
            return times
        if self._waiting:
            return [*times, room_at] if self._is_in_order(self._waiting[0]) else times
        if due_at is not None:
            times.append(max(due_at, room_at))
        if self._poll is None:
            times.append(max(self._polls_from, room_at))
        return times


def _invoke(batch: _Batch) -> Invoke:
    return Invoke(batch.number, {"Records": [dict(message.member) for message in batch.messages]}, batch.ids)


def _ids(messages: Iterable[Message]) -> tuple[str, ...]:
    return tuple(message.id for message in messages)
