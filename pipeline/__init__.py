"""Write one decorated function; run it as a pipeline stage on real queues and streams."""

from pipeline import by, sinks, sources, stores
from pipeline.app import Pipeline
from pipeline.batch import Batch, BatchResult, Failure
from pipeline.decisions.retry import Backoff
from pipeline.deployment import Function
from pipeline.engine.context import Context
from pipeline.engine.stage import Claim, Middleware
from pipeline.errors import ConfigurationError, PipelineError, Reject, Retry
from pipeline.handler import Handler
from pipeline.output import Emit
from pipeline.record import Record

__version__ = "0.1.0"

__all__ = [
    "Backoff",
    "Batch",
    "BatchResult",
    "Claim",
    "ConfigurationError",
    "Context",
    "Emit",
    "Failure",
    "Function",
    "Handler",
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
