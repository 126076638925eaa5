"""The record that is being worked on, for whoever writes a log line meanwhile."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Protocol

from pipeline.record import RawRecord


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


#: Each task and each thread sees its own record, also when records interleave.
CURRENT: ContextVar[Current | None] = ContextVar("pipeline_current_record", default=None)
#: The mark of a line of ours. It is not written, and neither is where in this code the line is made, which helps nobody.
OURS = "_pipeline_own"
#: Whether the batch that it came with is the first of its environment.
COLD: ContextVar[bool | None] = ContextVar("pipeline_cold_start", default=None)
