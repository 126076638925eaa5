"""The record that is being worked on, for whoever writes a log line meanwhile."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Protocol


class Current(Protocol):
    """The names that are bound to each log line of a record."""

    @property
    def handler(self) -> str: ...
    @property
    def record_id(self) -> str: ...
    @property
    def key_hash(self) -> str | None: ...
    @property
    def attempt(self) -> int: ...


#: Each task and each thread sees its own record, also when records interleave.
CURRENT: ContextVar[Current | None] = ContextVar("pipeline_current_record", default=None)
