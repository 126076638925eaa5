"""Tumbling windows: what a function aggregates over a stretch of time, and what it is told about it. Pure.

Rules from "Implementing stateful Kinesis Data Streams processing in Lambda" (and the page of the same name for
DynamoDB), and from the comments of `KinesisTimeWindowEvent` in AWS's own Java events library.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from pipeline.emulator.mappings.destination import seconds
from pipeline.emulator.mappings.response import ResponseError

#: What a shard's state takes as JSON at most, in bytes. A window whose state is larger ends early.
MAX_STATE = 1024 * 1024


def start_of(arrived_at: float, length: float) -> float:
    """When the window of a record starts, epoch seconds: windows follow each other from the epoch on."""
    return arrived_at // length * length


@dataclass
class Window:
    """A window that is open on a shard."""

    start: float
    length: float
    state: Any = field(default_factory=dict)  #: what the function returned last
    is_too_large: bool = False  #: the state is more than Lambda keeps: the window ends early

    @property
    def end(self) -> float:
        """When it ends, epoch seconds."""
        return self.start + self.length

    def keep(self, state: Any) -> None:
        """Take the state that an invocation returned."""
        self.state = state
        self.is_too_large = len(json.dumps(state, ensure_ascii=False).encode("utf-8", "surrogatepass")) > MAX_STATE

    def members(self, shard: str, stream: str, *, is_final: bool, is_early: bool) -> dict[str, Any]:
        """What an event has beside its records. `stream`: its ARN."""
        return {
            "window": {"start": seconds(self.start), "end": seconds(self.end)},
            "state": self.state,
            "shardId": shard,
            "eventSourceARN": stream,
            "isFinalInvokeForWindow": is_final,
            "isWindowTerminatedEarly": is_early,
        }


def returned_state(response: Any) -> Any:
    """The state in a response. Raises `ResponseError` without one: the invocation failed.

    AWS's own type for a response has an object there; null, of which it does not say anything, is taken for an empty one.
    """
    if not isinstance(response, dict) or "state" not in response:
        raise ResponseError("the response has no 'state', which a function with a tumbling window must return")
    state = response["state"]
    if state is not None and not isinstance(state, dict):
        raise ResponseError(f"the response's state is {type(state).__name__}: return an object")
    return state or {}
