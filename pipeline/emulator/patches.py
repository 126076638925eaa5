"""What we change in moto, in the embedded server's process only: see `patches_sqs`, `patches_events`, `patches_kinesis`,
`patches_dynamodb`.

Time can be moved forward for SQS, and moto's own event source mappings are off.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from typing import Any

from moto import backends

from pipeline.emulator import patches_dynamodb, patches_events, patches_kinesis, patches_sqs

#: moto handles each request in a thread of its own and locks nothing. AWS's calls do not mix, so operations run under
#: this lock.
_lock = threading.RLock()


class ServerClock:
    """The time that SQS sees: the machine's, plus what idle waiting was skipped."""

    def __init__(self) -> None:
        self.offset = 0.0

    def seconds(self) -> float:
        """Epoch seconds."""
        return time.time() + self.offset


def apply(clock: ServerClock) -> None:
    """Change moto in this process. Raises `RuntimeError` when this moto has other names."""
    patches_sqs.apply(clock.seconds, _replace)
    patches_events.apply(_replace)
    patches_kinesis.apply(_replace, _locked)
    patches_dynamodb.apply(_replace, _locked)
    # It lists its own directory for each request.
    modules = tuple(backends.list_of_moto_modules())
    _replace(backends, "list_of_moto_modules", lambda: modules)


def _replace(owner: Any, name: str, change: Any) -> None:
    if not hasattr(owner, name):
        raise RuntimeError(f"this moto has no {owner.__name__}.{name}: the local run needs moto 5.2")
    setattr(owner, name, change)


def _locked(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        with _lock:
            return method(*args, **kwargs)

    return call
