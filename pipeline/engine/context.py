"""What a handler may know of where it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.decisions.deadline import Deadline
from pipeline.ports import Clock
from pipeline.telemetry.span import Span, current

if TYPE_CHECKING:
    from aws_lambda_powertools import Logger
    from aws_lambda_powertools.metrics import EphemeralMetrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Annotate a handler's parameter with `Context` to get it."""

    pipeline: str  #: the pipeline's name
    handler: str  #: the handler's name
    logger: Logger  #: writes JSON lines; the current record's names are bound to each line
    metrics: EphemeralMetrics  #: Powertools', flushed once after the batch
    deadline: Deadline
    clock: Clock

    @property
    def span(self) -> Span:
        """OpenTelemetry's span of the record that is handled here; one that keeps nothing where nobody traces."""
        return current()

    def remaining(self) -> float | None:
        """Seconds until a running handler is cut off; None where nothing limits the time."""
        return self.deadline.left(self.clock.monotonic())
