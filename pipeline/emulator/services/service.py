"""What every service in memory is: operations by the names that clients' methods have, and errors as AWS has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

ACCOUNT = "123456789012"
REGION = "us-east-1"

#: One operation: the parameters as botocore takes them, and epoch seconds; the answer as botocore parses it.
Operation = Callable[[Mapping[str, Any], float], dict[str, Any]]


class ServiceError(Exception):
    """A service refuses a call. `code` as in botocore's `ClientError`; `members`: beside `Error` in its response."""

    def __init__(self, code: str, message: str, *, status: int = 400, members: Mapping[str, Any] | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status
        self.members = dict(members or {})


class Service(Protocol):
    """One service in memory."""

    @property
    def name(self) -> str:
        """As botocore calls it: "sqs"."""
        ...

    @property
    def operations(self) -> Mapping[str, Operation]:
        """By the names of clients' methods: "send_message"."""
        ...

    def next_change(self, now: float) -> float | None:
        """When time alone changes what a call would see (a message becomes visible, say), epoch seconds; None: never."""
        ...
