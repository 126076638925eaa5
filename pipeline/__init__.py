"""Write one decorated function; run it as a pipeline stage on real queues and streams."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline import by, sinks, sources, stores
    from pipeline.app import Pipeline
    from pipeline.batch import Batch, BatchResult, Failure
    from pipeline.decisions.retry import Backoff
    from pipeline.deployment import Function
    from pipeline.engine.context import Context
    from pipeline.engine.modes import Checkpoint, Claim, Fused, Mark
    from pipeline.engine.stage import Middleware
    from pipeline.errors import ConfigurationError, PipelineError, Reject, Retry
    from pipeline.handler import Handler
    from pipeline.output import Emit
    from pipeline.record import Record

__version__ = "0.1.0"

__all__ = [
    "Backoff",
    "Batch",
    "BatchResult",
    "Checkpoint",
    "Claim",
    "ConfigurationError",
    "Context",
    "Emit",
    "Failure",
    "Function",
    "Fused",
    "Handler",
    "Mark",
    "Middleware",
    "Pipeline",
    "PipelineError",
    "Record",
    "Reject",
    "Retry",
    "by",
    "sinks",
    "sources",
    "stores",
]

#: Where each name is at home. Names are imported at their first use, because the pytest plugin is
#: a module of this package: it must cost nothing to test runs that do not use it.
_HOME = {
    "Backoff": "decisions.retry",
    "Batch": "batch",
    "BatchResult": "batch",
    "Checkpoint": "engine.modes",
    "Claim": "engine.modes",
    "ConfigurationError": "errors",
    "Context": "engine.context",
    "Emit": "output",
    "Failure": "batch",
    "Function": "deployment",
    "Fused": "engine.modes",
    "Handler": "handler",
    "Mark": "engine.modes",
    "Middleware": "engine.stage",
    "Pipeline": "app",
    "PipelineError": "errors",
    "Record": "record",
    "Reject": "errors",
    "Retry": "errors",
}


if "AWS_LAMBDA_RUNTIME_API" in os.environ:
    # Before anything large is imported.
    from pipeline.runtimes.collection import hold_back

    hold_back()


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(f"pipeline.{_HOME[name]}"), name)
    elif name in __all__:
        value = import_module(f"pipeline.{name}")
    else:
        raise AttributeError(f"module 'pipeline' has no attribute '{name}'")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
