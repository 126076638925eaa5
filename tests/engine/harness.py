"""Running a stage over raw records, with ports that keep what they get and fail when told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from pipeline.batch import BatchResult
from pipeline.decisions.deadline import Deadline
from pipeline.engine.environment import ProcessEnvironment
from pipeline.engine.processor import Processor
from pipeline.engine.stage import Stage
from pipeline.errors import SinkError
from pipeline.output import Output
from pipeline.ports import Clock, DeadLetter, Environment
from pipeline.record import RawRecord
from pipeline.stores import Memory
from pipeline.telemetry.events import Fact
from pipeline.telemetry.log import logger_for
from pipeline.telemetry.metrics import metrics_for


class Letters:
    """Dead letters in memory. `error`: what every `put` answers."""

    def __init__(self, error: SinkError | None = None) -> None:
        self.letters: list[DeadLetter] = []
        self.error = error
        self.calls = 0

    async def put(
        self, letters: Sequence[DeadLetter], environment: Environment, deadline: Deadline
    ) -> Sequence[SinkError | None]:
        self.calls += 1
        if self.error is None:
            self.letters += letters
        return [self.error] * len(letters)


class Sink:
    """A sink in memory. `fails(output)` says why an output is not taken."""

    def __init__(
        self, name: str = "sink", fails: Callable[[Output], BaseException | None] = lambda output: None
    ) -> None:
        self.name = name
        self.fails = fails
        self.outputs: list[Output] = []
        self.calls: list[int] = []

    async def write(self, outputs: Sequence[Output], environment: Environment, deadline: Deadline) -> Any:
        self.calls.append(len(outputs))
        errors = [self.fails(output) for output in outputs]
        self.outputs += [output for output, error in zip(outputs, errors, strict=True) if error is None]
        return errors

    @property
    def values(self) -> list[Any]:
        return [output.value for output in self.outputs]


def records(*bodies: str, group: str | None = None, **fields: Any) -> list[RawRecord]:
    """Raw records `r0`, `r1`, ... with these bodies."""
    return [
        RawRecord(id=f"r{position}", source="orders", body=body, lane=group, **fields)
        for position, body in enumerate(bodies)
    ]


async def process(
    stage: Stage,
    raw: Sequence[RawRecord],
    *,
    store: Any = None,
    letters: Letters | None = None,
    deadline: Deadline = Deadline(),
    clock: Clock | None = None,
    chance: Callable[[], float] = lambda: 0.5,
    facts: list[Fact] | None = None,
) -> tuple[BatchResult, Letters]:
    """Process one batch in an environment of its own."""
    letters = letters or Letters()
    store = store if store is not None else Memory() if stage.mode else None
    environment = ProcessEnvironment(clock=clock, chance=chance)
    processor = Processor(
        replace(stage, dead_letters=letters, store=store),
        environment,
        logger=logger_for(stage.pipeline, stage.log_level),
        metrics=metrics_for(stage.pipeline, stage.name),
        observers=[facts.append] if facts is not None else [],
    )
    try:
        return await processor.process(raw, deadline), letters
    finally:
        processor.close()
        await environment.aclose()
