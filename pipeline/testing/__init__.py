"""Test kit: `invoke` and `ainvoke` for a handler, `Emulator` for AWS in memory and virtual time, `local` on a server.

Importing this imports nothing else: pytest loads our plugin in every project that has us installed.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.emulator.faults.plan import Faults as Faults
    from pipeline.emulator.faults.profiles import Profile as Profile
    from pipeline.emulator.faults.rules import crash as crash
    from pipeline.emulator.faults.rules import delay_response as delay_response
    from pipeline.emulator.faults.rules import duplicate as duplicate
    from pipeline.emulator.faults.rules import fail_partly as fail_partly
    from pipeline.emulator.faults.rules import lose_response as lose_response
    from pipeline.emulator.faults.rules import poison as poison
    from pipeline.emulator.faults.rules import repeat as repeat
    from pipeline.emulator.faults.rules import shuffle as shuffle
    from pipeline.emulator.faults.rules import skew as skew
    from pipeline.emulator.faults.rules import slow_down as slow_down
    from pipeline.emulator.faults.rules import throttle as throttle
    from pipeline.emulator.faults.rules import time_out as time_out
    from pipeline.emulator.local_source import DeadLetterMessage as DeadLetterMessage
    from pipeline.emulator.report import Counts as Counts
    from pipeline.emulator.report import Report as Report
    from pipeline.emulator.run import DrainTimeout as DrainTimeout
    from pipeline.testing.context import context as context
    from pipeline.testing.emulator import Emulator as Emulator
    from pipeline.testing.emulator import FunctionMapping as FunctionMapping
    from pipeline.testing.emulator import Invocation as Invocation
    from pipeline.testing.invoke import InvokeResult as InvokeResult
    from pipeline.testing.invoke import ainvoke as ainvoke
    from pipeline.testing.invoke import invoke as invoke
    from pipeline.testing.local import local as local

_HOMES = {
    "Faults": "pipeline.emulator.faults.plan",
    "Profile": "pipeline.emulator.faults.profiles",
    "crash": "pipeline.emulator.faults.rules",
    "delay_response": "pipeline.emulator.faults.rules",
    "duplicate": "pipeline.emulator.faults.rules",
    "fail_partly": "pipeline.emulator.faults.rules",
    "lose_response": "pipeline.emulator.faults.rules",
    "poison": "pipeline.emulator.faults.rules",
    "repeat": "pipeline.emulator.faults.rules",
    "shuffle": "pipeline.emulator.faults.rules",
    "skew": "pipeline.emulator.faults.rules",
    "slow_down": "pipeline.emulator.faults.rules",
    "throttle": "pipeline.emulator.faults.rules",
    "time_out": "pipeline.emulator.faults.rules",
    "Counts": "pipeline.emulator.report",
    "DeadLetterMessage": "pipeline.emulator.local_source",
    "DrainTimeout": "pipeline.emulator.run",
    "Emulator": "pipeline.testing.emulator",
    "FunctionMapping": "pipeline.testing.emulator",
    "Invocation": "pipeline.testing.emulator",
    "InvokeResult": "pipeline.testing.invoke",
    "Report": "pipeline.emulator.report",
    "ainvoke": "pipeline.testing.invoke",
    "context": "pipeline.testing.context",
    "invoke": "pipeline.testing.invoke",
    "local": "pipeline.testing.local",
}

__all__ = [
    "Counts",
    "DeadLetterMessage",
    "DrainTimeout",
    "Emulator",
    "Faults",
    "FunctionMapping",
    "Invocation",
    "InvokeResult",
    "Profile",
    "Report",
    "ainvoke",
    "context",
    "crash",
    "delay_response",
    "duplicate",
    "fail_partly",
    "invoke",
    "local",
    "lose_response",
    "poison",
    "repeat",
    "shuffle",
    "skew",
    "slow_down",
    "throttle",
    "time_out",
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
        # `context`, `invoke` and `local` are modules here too, and importing a module binds it to its name
        # in its package: the name stays the function's.
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted(__all__)


sys.modules[__name__].__class__ = _Testing
