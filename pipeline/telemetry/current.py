"""The record and the batch that are being worked on, for whoever writes a log line meanwhile."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from pipeline.record import RawRecord, TraceContext


class Current(Protocol):
    """What is bound to each log line of a record."""

    @property
    def handler(self) -> str: ...
    @property
    def raw(self) -> RawRecord: ...
    @property
    def key_hash(self) -> str | None: ...
    @property
    def attempt(self) -> int: ...
    @property
    def trace_id(self) -> str | None: ...
    @property
    def span_id(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class CurrentBatch:
    """What is true of a batch as a whole: bound to each log line in it that is of no single record."""

    handler: str
    source: str
    is_cold: bool  #: it is the first of its environment
    span: TraceContext | None = None  #: None: nobody traces

    @property
    def trace_id(self) -> str | None:
        """The trace of its lines."""
        return None if self.span is None else self.span.trace_id

    @property
    def span_id(self) -> str | None:
        """The span of its lines; None: no span is kept."""
        return self.span.span_id if self.span is not None and self.span.is_sampled else None


#: Each task and each thread sees its own record, also when records interleave.
CURRENT: ContextVar[Current | None] = ContextVar("pipeline_current_record", default=None)
#: The mark of a line of ours. It is not written, and neither is where in this code the line is made, which helps nobody.
OURS = "_pipeline_own"
#: The batch that it came with. Set once a batch; what outlives a batch is in none.
BATCH: ContextVar[CurrentBatch | None] = ContextVar("pipeline_current_batch", default=None)
