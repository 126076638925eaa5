"""The facts that the engine emits. A log line, a metric and a span are functions of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from weakref import WeakKeyDictionary

from msgspec import Struct

from pipeline.batch import BatchResult
from pipeline.outcome import Outcome
from pipeline.record import RawRecord, TraceContext

#: Outputs of one record that a fact names. One with more is a record that is split: its first ones tell where they go.
MAX_OUTPUT_IDS = 20


class BatchStarted(Struct, frozen=True, kw_only=True):
    """A batch arrived."""

    pipeline: str
    handler: str
    source: str
    size: int
    oldest: float | None  #: seconds since the oldest record was sent


class RecordPostponed(Struct, frozen=True, kw_only=True):
    """A record of a stream is not settled; it waits in process and is then tried again, if time allows."""

    pipeline: str
    handler: str
    record: RawRecord
    key_hash: str | None
    attempt: int  #: the number of the run that ended
    outcome: Outcome  #: what it came to, and what it ends in if there is no next time
    delay: float  #: seconds that it waits
    handled: float | None = None  #: seconds of this run in the handler; None: it was not called
    span: TraceContext | None = None  #: of the run that ended; None: nobody traces
    age: float | None = None  #: seconds since it was sent; None: the source does not say when


class RecordFinished(Struct, frozen=True, kw_only=True):
    """A record has its outcome."""

    pipeline: str
    handler: str
    record: RawRecord
    key_hash: str | None  #: the idempotency entry's hash; None before the key was read
    attempt: int  #: the number of the run, or of the next one when nothing was run
    outcome: Outcome
    seconds: float  #: from its start to its outcome
    age: float | None = None  #: seconds since it was sent, when it ended; None: the source does not say when
    #: Seconds in the handler, with the resources it waited for and what it streamed to sinks meanwhile; None: nothing was
    #: run, as for a duplicate.
    handled: float | None = None
    span: TraceContext | None = None  #: of its run; None: nobody traces, or nothing was begun
    is_slow: bool = False  #: it went well, but took over half of the time that its batch had
    #: Ids of outputs that sinks accepted, also before it failed, at most `MAX_OUTPUT_IDS`. Known only in batches of which
    #: somebody is told of every record.
    output_ids: Sequence[str] = ()


class SinkWritten(Struct, frozen=True, kw_only=True):
    """A call to a sink returned."""

    pipeline: str
    handler: str
    sink: str
    accepted: int
    failed: int
    seconds: float
    error: BaseException | None  #: the first of the failures


class StoreCalled(Struct, frozen=True, kw_only=True):
    """A call to the idempotency store returned."""

    pipeline: str
    handler: str
    operation: str  #: the store's method: "claim", "settle", "renew", "look", "mark" or "advance"
    requests: int
    failed: int  #: requests that the store could not answer
    seconds: float
    error: BaseException | None  #: the first of the failures


class CompletionLost(Struct, frozen=True, kw_only=True):
    """The sinks accepted, but the idempotency entry could not be completed: a repeat may run again."""

    pipeline: str
    handler: str
    record: RawRecord
    key_hash: str | None
    attempt: int
    outcome: Outcome  #: what the record came to all the same
    error: BaseException | None  #: None: another run had taken the claim over
    age: float | None = None  #: seconds since it was sent; None: the source does not say when
    span: TraceContext | None = None  #: of its run; None: nobody traces


class RejectionLost(Struct, frozen=True, kw_only=True):
    """A record stands in the dead-letter queue, but the store could not be told.

    Its entry still counts its runs: a redrive may be rejected at once, and succeed when it is tried again. A stream
    may put the record aside a second time.
    """

    pipeline: str
    handler: str
    record: RawRecord
    key_hash: str | None
    attempt: int
    outcome: Outcome
    error: BaseException | None  #: None: another run had taken the claim over
    age: float | None = None  #: seconds since it was sent; None: the source does not say when
    span: TraceContext | None = None  #: of its run; None: nobody traces


class HookFailed(Struct, frozen=True, kw_only=True):
    """A mode's `on_duplicate` raised; the record is a duplicate all the same."""

    pipeline: str
    handler: str
    record: RawRecord
    key_hash: str | None
    attempt: int
    error: BaseException
    age: float | None = None  #: seconds since it was sent; None: the source does not say when
    span: TraceContext | None = None  #: of its run; None: nobody traces


class BatchFinished(Struct, frozen=True, kw_only=True):
    """A batch has its result."""

    pipeline: str
    handler: str
    source: str
    result: BatchResult
    oldest: float | None  #: seconds since the oldest record was sent, when the batch started
    seconds: float
    slowest: float  #: the longest that one of its records took, in seconds
    ages: Sequence[float] = ()  #: seconds since each settled record was sent, when it was settled
    handled: Sequence[float] = ()  #: seconds of each run of the handler
    concurrency: int = 0  #: records that were in the handler at once, at most
    batch_size: int | None = None  #: records that the source hands out at once, at most; None: it does not say
    span: TraceContext | None = None  #: of the batch; None: nobody traces


Fact = (
    BatchStarted
    | RecordPostponed
    | RecordFinished
    | SinkWritten
    | StoreCalled
    | CompletionLost
    | RejectionLost
    | HookFailed
    | BatchFinished
)
#: Told of every fact. One with an attribute `failures_only = True` is not told of records that succeeded
#: or were duplicates, which is most of the facts, and most of their price; only of up to ten slow ones a batch.
Observer = Callable[[Fact], None]


#: The kinds of facts at which an observer has failed, as long as it lives.
_complained: WeakKeyDictionary[Observer, set[type[Fact]]] = WeakKeyDictionary()


def tell(observers: Iterable[Observer], fact: Fact) -> None:
    """Tell observers a fact. One that fails is logged, once for each kind: it changes no outcome and stops no batch."""
    for observer in observers:
        try:
            observer(fact)
        except Exception:
            if _is_news(observer, type(fact)):
                name = type(fact).__name__
                logging.getLogger("pipeline").warning("an observer failed at %s", name, exc_info=True)


def _is_news(observer: Observer, kind: type[Fact]) -> bool:
    """True the first time. Of what cannot be remembered (it has no hash, or no weak references) every time is."""
    try:
        kinds = _complained.setdefault(observer, set())
    except Exception:
        return True
    if kind in kinds:
        return False
    kinds.add(kind)
    return True
