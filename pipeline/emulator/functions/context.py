"""The context object that Lambda hands to a Python handler, attribute by attribute as `awslambdaric` makes it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from pipeline.emulator.functions.function import Invocation

VERSION = "$LATEST"


class CognitoIdentity:
    """Who called, when a mobile SDK did. An event source mapping is nobody: both are None."""

    __slots__ = ("cognito_identity_id", "cognito_identity_pool_id")

    def __init__(self) -> None:
        self.cognito_identity_id: str | None = None
        self.cognito_identity_pool_id: str | None = None


class LambdaContext:
    """What a handler gets as its second argument.

    As in Lambda the memory limit is a text, `client_context` is None and `identity` is an object without values: all
    three surprise, and code that was written on them works only with the same. `remaining`: seconds until the
    invocation is ended; it is asked from the handler's thread.
    """

    def __init__(self, invocation: Invocation, log_stream: str, remaining: Callable[[], float]) -> None:
        settings = invocation.settings
        self.aws_request_id = invocation.request_id
        self.log_group_name = log_group(settings.name)
        self.log_stream_name = log_stream
        self.function_name = settings.name
        self.memory_limit_in_mb = str(settings.memory)
        self.function_version = VERSION
        self.invoked_function_arn = settings.arn
        self.tenant_id: str | None = None
        self.client_context: None = None
        self.identity = CognitoIdentity()
        self._remaining = remaining

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the invocation is ended, never less than 0."""
        return max(0, int(self._remaining() * 1000))

    def w3c(self) -> dict[str, str]:
        """The W3C trace context that came with the call: an event source mapping sends none."""
        return {}

    def log(self, msg: object) -> None:
        """Write to the function's log, without a newline of its own."""
        sys.stdout.write(str(msg))

    def __repr__(self) -> str:
        names = ("aws_request_id", "log_group_name", "log_stream_name", "function_name", "memory_limit_in_mb",
                 "function_version", "invoked_function_arn", "client_context", "identity", "tenant_id")  # fmt: skip
        return f"LambdaContext([{','.join(f'{name}={getattr(self, name)}' for name in names)}])"


def context_in_thread(invocation: Invocation, log_stream: str) -> LambdaContext:
    """The context for a handler in a thread. Called on the event loop, whose time the invocation's deadline is on.

    A virtual clock can be read on its loop only, and stands still while a thread is at work: what passes for the handler
    is real time, and is taken from what was left when the invocation began.
    """
    end = time.monotonic() + invocation.remaining
    return LambdaContext(invocation, log_stream, lambda: end - time.monotonic())


def log_group(function: str) -> str:
    """The log group that Lambda makes for a function."""
    return f"/aws/lambda/{function}"


def log_stream(day: time.struct_time, environment: int) -> str:
    """A name of the form of Lambda's log streams, one for each execution environment of a function."""
    return f"{time.strftime('%Y/%m/%d', day)}/[{VERSION}]{environment:032x}"
