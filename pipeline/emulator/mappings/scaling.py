"""How many batches of a queue a mapping has at work at once. Pure: a matter of time and demand.

Lambda developer guide, "Configuring scaling behavior for SQS event source mappings": it starts with five, adds up to 300 a
minute while messages are still available, and stops at 1,250, or at `MaximumConcurrency`. Provisioned pollers run up to
10 each and grow by up to 1,000 a minute. A FIFO queue has no such ramp: its message groups are the limit, which the
mapping sees to. Of what the guide leaves open, `docs/emulator.md` tells the choices.
"""

from __future__ import annotations

from pipeline.emulator.mappings.settings import QueueSettings

#: Batches at once when messages come to an idle mapping.
START = 5
#: Batches at once at most.
MOST = 1_250
#: Seconds until one more may run: 300 a minute.
_RISES_EVERY = 60 / 300
#: Batches that one provisioned poller has at work at most.
PER_POLLER = 10
#: Seconds until there is one more provisioned poller: 1,000 batches a minute.
_POLLER_EVERY = 60 / (1_000 / PER_POLLER)
#: What failures leave.
LEAST = 2


class Scaling:
    """A number that rises while all of it is in use, falls with failures, and is small again when the queue is empty.

    `limit`: what this machine can run at once, at least 1.
    """

    def __init__(self, settings: QueueSettings, *, limit: int | None = None) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"limit={limit}: at least one batch must be able to run")
        self._fails = not settings.report_batch_item_failures
        most = settings.maximum_concurrency or MOST
        self._start, self._least = START, LEAST
        self._step, self._interval = 1, _RISES_EVERY
        if settings.provisioned is not None:
            most = PER_POLLER * settings.provisioned.maximum
            # These stand ready, whatever fails.
            self._start = self._least = PER_POLLER * settings.provisioned.minimum
            self._step, self._interval = PER_POLLER, _POLLER_EVERY
        elif settings.is_fifo:
            self._start = most
        self._most = most if limit is None else min(most, limit)
        self._start = min(self._start, self._most)
        self._least = min(self._least, self._most)
        self._level = self._start
        self._held_back = 0  #: what failures take from the level
        self._rises_at: float | None = None  #: None: it does not, because not all is in use
        self._left = self._interval  #: of the time until it rises, when it goes on

    def allowed(self, now: float) -> int:
        """Batches that may be at work."""
        self._advance(now)
        return self._level - self._held_back

    def reaches(self, count: int, now: float) -> float | None:
        """When so many may be at work, if nothing happens until then. None: time alone does not do it."""
        if self.allowed(now) >= count:
            return now
        if self._rises_at is None or count > self._most:
            return None
        at, level = self._rises_at, self._risen(self._level)
        # Added up as `_advance` does, so that it is the same number to the last bit.
        while level < count:
            at, level = at + self._interval, self._risen(level)
        return at

    def used(self, at_work: int, now: float) -> None:
        """So many are at work from now on: with all that are allowed, more are wanted."""
        is_rising = at_work >= self.allowed(now) and not self._held_back and self._level < self._most
        if is_rising and self._rises_at is None:
            self._rises_at = now + self._left
        elif not is_rising:
            self._pause(now)

    def idle(self, at_work: int, now: float) -> None:
        """The queue had nothing: it is back to the start, but for what is at work."""
        self._advance(now)
        self._level = max(self._start, min(self._level, at_work))
        self._held_back = min(self._held_back, self._level - self._least)
        self._rises_at, self._left = None, self._interval

    def failed(self, now: float) -> None:
        """The function failed. With ReportBatchItemFailures that changes nothing."""
        if self._fails:
            self.throttled(now)

    def throttled(self, now: float) -> None:
        """The function could not run: one less."""
        self._advance(now)
        self._held_back = min(self._held_back + 1, self._level - self._least)
        self._pause(now)

    def succeeded(self, now: float) -> None:
        """The function ran: one more again, up to where failures began."""
        self._advance(now)
        self._held_back = max(0, self._held_back - 1)

    def _advance(self, now: float) -> None:
        while self._rises_at is not None and now >= self._rises_at:
            self._level = self._risen(self._level)
            self._rises_at = self._rises_at + self._interval if self._level < self._most else None

    def _risen(self, level: int) -> int:
        return min(level + self._step, self._most)

    def _pause(self, now: float) -> None:
        if self._rises_at is not None:
            self._left = self._rises_at - now
            self._rises_at = None
