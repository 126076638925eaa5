"""Ledgers: what one batch knows of earlier runs. One for each idempotency mode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pipeline.decisions.deadline import Deadline
from pipeline.decisions.idempotency import Claimed, ClaimReply
from pipeline.engine.asking import Asking
from pipeline.engine.checkpoints import Checkpoints, Lost
from pipeline.engine.claims import Claims
from pipeline.engine.coalesce import Activity
from pipeline.engine.marks import Marks
from pipeline.engine.modes import Checkpoint, Claim, Fused, Mark
from pipeline.engine.run import Run
from pipeline.engine.stage import Stage
from pipeline.errors import StoreUnavailable
from pipeline.outcome import Outcome
from pipeline.ports import Environment
from pipeline.telemetry.events import Observer


class Ledger(Protocol):
    """What the engine asks and tells about a record. Trouble of the store is a value, never raised."""

    def begin(self, runs: Sequence[Run]) -> None:
        """These are the records of the batch, with their lanes and places."""
        ...

    async def admit(self, run: Run) -> ClaimReply | StoreUnavailable:
        """May it run? `Claimed` says yes, and which attempt it is."""
        ...

    async def holds(self, run: Run) -> bool:
        """May it still write to the sinks? False when another run may have begun beside it."""
        ...

    async def complete(self, run: Run, data: str | None) -> bool | StoreUnavailable:
        """Every sink has accepted; `data`: what to keep for repeats. False: another run has taken it over."""
        ...

    async def release(self, run: Run, *, attempts: int, outputs: str | None) -> None:
        """It comes again; `attempts`: runs that count, `outputs`: what some sinks still lack."""
        ...

    async def reject(self, run: Run) -> bool | StoreUnavailable:
        """It stands in the dead-letter queue. True when that is known, or need not be."""
        ...

    def note(self, run: Run, outcome: Outcome) -> None:
        """It has its outcome."""
        ...

    def flush(self) -> None:
        """The time is nearly up: write what can be written."""
        ...

    async def aclose(self) -> None:
        """The batch is over: write what is left to write."""
        ...


class Unwritten:
    """The ledger of `Fused`: the sink itself knows."""

    def begin(self, runs: Sequence[Run]) -> None:
        return

    async def admit(self, run: Run) -> ClaimReply | StoreUnavailable:
        return Claimed(run.attempt)

    async def holds(self, run: Run) -> bool:
        return True

    async def complete(self, run: Run, data: str | None) -> bool | StoreUnavailable:
        return True

    async def release(self, run: Run, *, attempts: int, outputs: str | None) -> None:
        return

    async def reject(self, run: Run) -> bool | StoreUnavailable:
        return True

    def note(self, run: Run, outcome: Outcome) -> None:
        return

    def flush(self) -> None:
        return

    async def aclose(self) -> None:
        return


def ledger(
    stage: Stage,
    environment: Environment,
    activity: Activity,
    deadline: Deadline,
    lost: Lost,
    observers: Sequence[Observer],
) -> Ledger | None:
    """The ledger of a stage's mode for one batch; None without idempotency. `lost`: see `checkpoints.Lost`."""
    mode, store = stage.mode, stage.store
    if mode is None:
        return None
    if isinstance(mode, Fused):
        return Unwritten()
    assert store is not None, "an assembled stage has the store of its mode"
    ask = Asking(stage, environment, observers)
    if isinstance(mode, Mark):
        return Marks(stage, mode, store, environment, activity, ask)
    if isinstance(mode, Checkpoint):
        return Checkpoints(stage, mode, store, environment, activity, lost, ask)
    assert isinstance(mode, Claim), "there are four modes"
    return Claims(stage, mode, store, environment, activity, deadline, ask)
