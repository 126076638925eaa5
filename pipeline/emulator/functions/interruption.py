"""An exception that is raised in another thread, at its next step in Python.

CPython 3.11 has a trap there: while such an exception is pending for any thread, a thread that is traced or profiled (by a
debugger, by coverage) does not get past the beginning of the next function that it calls. It gives the interpreter to others
meanwhile, so that it goes on as soon as the exception is raised; but for a thread that waits for a lock or sleeps, that may
be never. So there only a thread that is at work is interrupted.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import time

#: A thread is at work when it uses a processor in each of so many looks of so many real seconds: one that is on its way
#: to a lock does so in the first.
_LOOKS = 4
_LOOK_SECONDS = 0.015


def interrupt(thread: threading.Thread, error: type[BaseException]) -> bool:
    """Raise an exception in a thread that has not ended. False: it waits for something, and cannot be interrupted here.

    What blocks outside of Python is not ended; it raises when it returns.
    """
    assert thread.ident is not None
    if _is_trap() and not _is_at_work(thread.ident):
        return False
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(error))
    return True


def _is_trap() -> bool:
    is_traced = sys.gettrace() or threading.gettrace() or sys.getprofile() or threading.getprofile()
    return sys.version_info < (3, 12) and is_traced is not None


def _is_at_work(ident: int) -> bool:
    if not hasattr(time, "pthread_getcpuclockid"):  # not on macOS
        return False
    clock = time.pthread_getcpuclockid(ident)
    for _ in range(_LOOKS):
        before = time.clock_gettime(clock)
        time.sleep(_LOOK_SECONDS)
        if time.clock_gettime(clock) == before:
            return False
    return True
