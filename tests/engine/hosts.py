"""An environment that lives over several batches, and a store that counts its calls and can be in trouble."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Self

from pipeline.batch import BatchResult
from pipeline.decisions.deadline import Deadline
from pipeline.engine.environment import ProcessEnvironment
from pipeline.engine.processor import Processor
from pipeline.engine.stage import Stage
from pipeline.ports import Clock
from pipeline.record import RawRecord
from pipeline.telemetry.events import Fact
from pipeline.telemetry.log import logger_for
from pipeline.telemetry.metrics import metrics_for
from tests.engine.harness import Letters

FOREVER = Deadline()


class WatchedStore:
    """A store in front of another one.

    `calls`: each call's name and how many it was for. `before` and `after`: by a call's name, what it answers to each
    position without asking the store, or although the store has done it; an exception is raised.
    """

    def __init__(self, store: Any) -> None:
        self.store = store
        self.calls: list[tuple[str, int]] = []
        self.asked: list[tuple[str, Sequence[Any]]] = []
        self.before: dict[str, Any] = {}
        self.after: dict[str, Any] = {}

    async def claim(self, requests: Any, environment: Any) -> Any:
        return await self.call("claim", requests, environment)

    async def settle(self, settlements: Any, environment: Any) -> Any:
        return await self.call("settle", settlements, environment)

    async def renew(self, renewals: Any, environment: Any) -> Any:
        return await self.call("renew", renewals, environment)

    async def look(self, ids: Any, environment: Any) -> Any:
        return await self.call("look", ids, environment)

    async def mark(self, entries: Any, environment: Any) -> Any:
        return await self.call("mark", entries, environment)

    async def advance(self, advances: Any, environment: Any) -> Any:
        return await self.call("advance", advances, environment)

    def recover(self) -> None:
        """No more trouble."""
        self.before.clear()
        self.after.clear()

    async def call(self, name: str, items: Sequence[Any], environment: Any) -> Any:
        self.calls.append((name, len(items)))
        self.asked.append((name, list(items)))
        if name in self.before:
            return _answer(self.before[name], items)
        answers = await getattr(self.store, name)(items, environment)
        return _answer(self.after[name], items) if name in self.after else answers


class Raised:
    """Trouble that is raised, rather than answered for each position."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _answer(trouble: Any, items: Sequence[Any]) -> Any:
    if isinstance(trouble, Raised):
        raise trouble.error
    return [trouble] * len(items)


class Host:
    """A process that runs a stage, batch after batch."""

    def __init__(
        self,
        stage: Stage,
        store: Any,
        *,
        clock: Clock | None = None,
        letters: Any = None,
        facts: list[Fact] | None = None,
        chance: Callable[[], float] = lambda: 0.5,
    ) -> None:
        self.letters = letters if letters is not None else Letters()
        self.facts = facts if facts is not None else []
        self.environment = ProcessEnvironment(clock=clock, chance=chance)
        self.processor = Processor(
            replace(stage, dead_letters=self.letters, store=store),
            self.environment,
            logger=logger_for(stage.pipeline, stage.log_level),
            metrics=metrics_for(stage.pipeline, stage.name),
            observers=[self.facts.append],
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.processor.close()
        await self.environment.aclose()

    async def deliver(self, *records: RawRecord, deadline: Deadline = FOREVER) -> BatchResult:
        """Process one batch."""
        return await self.processor.process(records, deadline)


def kinds(result: BatchResult) -> list[str]:
    """The names of a batch's outcomes."""
    return [type(outcome).__name__ for outcome in result.outcomes]
