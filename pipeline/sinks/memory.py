"""Outputs kept in this process, for tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from pipeline.decisions.deadline import Deadline
from pipeline.errors import SinkError
from pipeline.output import Output
from pipeline.ports import Effect, Environment
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
        self._marks: set[str] = set()
        self._lock = threading.Lock()

    async def write(
        self, outputs: Sequence[Output], environment: Environment, deadline: Deadline
    ) -> Sequence[SinkError | None]:
        """Keep the outputs; see the `Sink` port."""
        with self._lock:
            self._outputs.extend(outputs)
        return [None] * len(outputs)

    async def write_once(
        self, effects: Sequence[Effect], environment: Environment, deadline: Deadline
    ) -> Sequence[bool | SinkError]:
        """Keep each effect's outputs, unless its mark is known; see the `FusedSink` port.

        An effect without outputs leaves no mark, and is always True.
        """
        with self._lock:
            return [self._keep_once(effect) for effect in effects]

    def _keep_once(self, effect: Effect) -> bool:
        if not effect.outputs:
            return True
        if effect.mark in self._marks:
            return False
        self._marks.add(effect.mark)
        self._outputs.extend(effect.outputs)
        return True

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
        """Forget what was written, and its marks."""
        with self._lock:
            self._outputs.clear()
            self._marks.clear()
