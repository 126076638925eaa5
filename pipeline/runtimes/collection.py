"""Garbage collection in a Lambda environment: seldom while it starts, and without what was imported afterwards.

Importing makes objects that stay. The collector goes over them again and again, and finds nothing: a tenth of a cold
start's CPU time. So from the first import of the package until the first answer its thresholds are high; then what
is there is frozen, which takes microseconds, and they are what they were. Elsewhere a process is not ours alone, and
nothing is changed.
"""

from __future__ import annotations

import gc
import os

#: High enough that a function's imports cause a collection or two, and a module that makes a million objects is collected.
_STARTING = (100_000, 50, 50)
_usual: list[tuple[int, int, int]] = []


def hold_back() -> None:
    """Collect seldom, in Lambda, until `resume`."""
    if "AWS_LAMBDA_RUNTIME_API" in os.environ and gc.isenabled() and not _usual:
        _usual.append(gc.get_threshold())
        gc.set_threshold(*_STARTING)


def resume() -> None:
    """Collect as usual, but never again what there is now. Does nothing unless it was held back."""
    if not _usual:
        return
    gc.freeze()
    usual = _usual.pop()
    if gc.get_threshold() == _STARTING:  # else somebody has set what they want
        gc.set_threshold(*usual)
