"""Outputs kept in this process, for tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from pipeline.decisions.deadline import Deadline
from pipeline.errors import SinkError
from pipeline.output import Output
from pipeline.ports import Environment
from pipeline.sinks.options import check_name, check_when


class Memory:
    """Keep each output: `values` is what handlers returned, `outputs` are they with their addresses.

    Threads and event loops may share one. It keeps everything: it is for tests.
    """

    def __init__(self, *, name: str | None = None, when: Callable[[Any], bool] | None = None) -> None:
        check_name(name, "sinks.Memory")
        check_when(when, "sinks.Memory")
        self.name = name or "memory"
        self.when = when
        self.carries = True
        self._outputs: list[Output] = []
        self._lock = threading.Lock()

    async def write(
        self, outputs: Sequence[Output], environment: Environment, deadline: Deadline
    ) -> Sequence[SinkError | None]:
        """Keep the outputs; see the `Sink` port."""
        with self._lock:
            self._outputs.extend(outputs)
        return [None] * len(outputs)

    @property
    def outputs(self) -> list[Output]:
        """What was written, in order."""
        with self._lock:
            return list(self._outputs)

    @property
    def values(self) -> list[Any]:
        """The values of what was written, in order."""
        return [output.value for output in self.outputs]

    def clear(self) -> None:
        """Forget what was written."""
        with self._lock:
            self._outputs.clear()
