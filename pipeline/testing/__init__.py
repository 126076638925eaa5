"""Test kit: `invoke` and `ainvoke` for a handler, `Emulator` for AWS in memory and virtual time, `local` on a server.

Importing this imports nothing else: pytest loads our plugin in every project that has us installed.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.emulator.local_source import DeadLetterMessage as DeadLetterMessage
    from pipeline.emulator.report import Counts as Counts
    from pipeline.emulator.report import Report as Report
    from pipeline.emulator.run import DrainTimeout as DrainTimeout
    from pipeline.testing.emulator import Emulator as Emulator
    from pipeline.testing.emulator import FunctionMapping as FunctionMapping
    from pipeline.testing.emulator import Invocation as Invocation
    from pipeline.testing.invoke import InvokeResult as InvokeResult
    from pipeline.testing.invoke import ainvoke as ainvoke
    from pipeline.testing.invoke import invoke as invoke
    from pipeline.testing.local import local as local

_HOMES = {
    "Counts": "pipeline.emulator.report",
    "DeadLetterMessage": "pipeline.emulator.local_source",
    "DrainTimeout": "pipeline.emulator.run",
    "Emulator": "pipeline.testing.emulator",
    "FunctionMapping": "pipeline.testing.emulator",
    "Invocation": "pipeline.testing.emulator",
    "InvokeResult": "pipeline.testing.invoke",
    "Report": "pipeline.emulator.report",
    "ainvoke": "pipeline.testing.invoke",
    "invoke": "pipeline.testing.invoke",
    "local": "pipeline.testing.local",
}

__all__ = [
    "Counts",
    "DeadLetterMessage",
    "DrainTimeout",
    "Emulator",
    "FunctionMapping",
    "Invocation",
    "InvokeResult",
    "Report",
    "ainvoke",
    "invoke",
    "local",
]


class _Testing(ModuleType):
    """This module: the public names, found when they are first asked for."""

    def __getattr__(self, name: str) -> Any:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module 'pipeline.testing' has no attribute '{name}'")
        found = getattr(importlib.import_module(home), name)
        setattr(self, name, found)
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        # `invoke` and `local` are modules here too, and importing a module binds it to its name
        # in its package: the name stays the function's.
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted(__all__)


sys.modules[__name__].__class__ = _Testing
