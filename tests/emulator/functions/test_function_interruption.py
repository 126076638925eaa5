"""Threads that are interrupted, also where a debugger or coverage traces this process: in a process of its own for that."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

#: A handler past its deadline, which waits for a lock, or for a slow call, or loops; and the program goes on.
PROGRAM = """
import asyncio, sys, threading
from pipeline.emulator.functions.function import Function, FunctionSettings
from pipeline.emulator.functions.thread import ThreadSandbox, plain
from pipeline.engine.environment import SystemClock

trace = lambda *_: None
if {is_traced}:
    threading.settrace(trace)
    sys.settrace(trace)

lock = threading.Lock()
lock.acquire()

def waiting(event, context):
    lock.acquire()

def looping(event, context):
    while True:
        pass

async def main():
    for handler in (waiting, looping):
        function = Function(FunctionSettings(name="f", timeout=0.05), lambda: ThreadSandbox(plain(handler)), SystemClock())
        print(handler.__name__, await function.invoke({{}}))
        await function.close()

asyncio.run(main())
threads = [one for one in threading.enumerate() if one.name.startswith("sandbox-")]
lock.release()
for one in threads:
    one.join(20)
print("left:", [one for one in threads if one.is_alive()])
"""
#: The same through the emulator: the handler waits for a call that virtual time ends after the deadline.
SLOW_CALL = """
import sys, threading
import boto3
from pipeline.testing import Emulator

trace = lambda *_: None
if {is_traced}:
    threading.settrace(trace)
    sys.settrace(trace)

sqs = boto3.client("sqs", region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test")
went_on = []

def handler(event, context):
    for _ in range(100):
        sqs.list_queues()
    went_on.append(1)

with Emulator(faults="slow") as aws:
    orders = aws.queue("orders", max_receive_count=2)
    mapping = aws.map(orders, handler, timeout=1)
    orders.send("a")
    aws.run()
    print([type(one.answer).__name__ for one in mapping.invocations], went_on)
"""


@pytest.mark.parametrize("is_traced", [False, True])
@pytest.mark.parametrize("program", [PROGRAM, SLOW_CALL], ids=["function", "emulator"])
def test_a_handler_that_is_late_stops_nobody_else(program: str, is_traced: bool) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    ended = subprocess.run(
        [sys.executable, "-c", program.format(is_traced=is_traced)],
        check=False, env=environment, capture_output=True, text=True, timeout=50,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    if program is PROGRAM:
        waiting, looping, left = ended.stdout.splitlines()
        assert "timed out" in waiting
        assert "timed out" in looping
        assert left == "left: []"
    else:
        assert ended.stdout.splitlines() == ["['FunctionFailed', 'Returned'] [1]"]
