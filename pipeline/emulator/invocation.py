"""One invocation as a mapping sees it: it ends with a verdict, whatever happens."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from pipeline.emulator.activity import Activity
from pipeline.emulator.execution import ExecutionEnvironment, InvocationTimeout, Pool
from pipeline.emulator.faults import Faults
from pipeline.emulator.report import Tally
from pipeline.ports import Clock

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Handling:
    """What a mapping needs of the handler that it invokes, and of the run."""

    handler: str  #: its name in the report
    pool: Pool
    tally: Tally
    activity: Activity
    clock: Clock
    faults: Faults | None = None


class Judged(Protocol):
    """What is needed of a verdict."""

    @property
    def fault(self) -> str | None: ...


V = TypeVar("V", bound=Judged)


async def invoke(
    handling: Handling,
    environment: ExecutionEnvironment,
    event: Any,
    judge: Callable[[Any], V],
    all_failed: Callable[[str], V],
) -> tuple[V, bool]:
    """What the invocation means for its batch, and whether its environment can be used again."""
    reusable = True
    try:
        verdict = judge(await environment.invoke(event))
    except Exception as error:
        reusable = environment.is_ready and not isinstance(error, InvocationTimeout)
        # The traceback matters only when it is not our own word for a time-out.
        trace = None if isinstance(error, InvocationTimeout) else error
        _log.error("%s: the invocation failed: %s: %s", handling.handler, type(error).__name__, error, exc_info=trace)
        verdict = all_failed(str(error))
    else:
        if verdict.fault:
            _log.error("%s: the whole batch comes back: %s", handling.handler, verdict.fault)
    if verdict.fault is not None:
        handling.tally.invocation_failed()
    return verdict, reusable
