"""How an invocation ended, as an event source mapping learns it. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Cause(StrEnum):
    """Why a function's invocation failed."""

    RAISED = "raised"  #: the handler raised
    TIMED_OUT = "timed out"  #: it did not end within the function's timeout
    EXITED = "exited"  #: its process ended: a crash, `os._exit`, out of memory
    INIT = "init"  #: the handler could not be imported, or its module raised
    UNANSWERABLE = "unanswerable"  #: it returned what cannot be written as JSON, or more than 6 MB


@dataclass(frozen=True)
class Returned:
    """It returned. `payload`: the value as its JSON text gives it, so that nothing is shared with the handler."""

    payload: Any


@dataclass(frozen=True)
class FunctionFailed:
    """It failed: the whole batch did."""

    cause: Cause
    type: str  #: the error's type, as Lambda's error object has it
    message: str

    def __str__(self) -> str:
        return f"{self.type}: {self.message}"


@dataclass(frozen=True)
class Throttled:
    """It never began: the function's concurrency is used up (429), or the service failed before it (5xx)."""

    reason: str = "ReservedFunctionConcurrentInvocationLimitExceeded"


@dataclass(frozen=True)
class Unheard:
    """Nobody knows: it may have run, and the mapping did not hear of it. The source's own rules bring it again."""


Answer = Returned | FunctionFailed | Throttled | Unheard
