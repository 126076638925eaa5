"""What a local run needs of a handler's source, whatever its kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pipeline.decisions.codec import loads
from pipeline.emulator.driver import Handling, QueueDriver, ShardDriver
from pipeline.emulator.payloads import Key
from pipeline.errors import SinkError


@dataclass(frozen=True)
class DeadLetterMessage:
    """A message in a dead-letter queue."""

    id: str
    body: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    group: str | None = None  #: FIFO: the message group
    data: bytes | None = None  #: of a stream's record: its data, which the body holds as base64

    @property
    def payload(self) -> Any:
        """The body as JSON; of a stream's record, its data."""
        return loads(self.body if self.data is None else self.data)


class Depth(Protocol):
    """What waits in a source, for one handler. As text: what a person is told of it."""

    @property
    def is_empty(self) -> bool:
        """Nothing is left to do."""
        ...

    @property
    def waiting(self) -> str:
        """The number, for a table."""
        ...


class LocalSource(Protocol):
    """One handler's source in a local run: made, ready to be filled, read and measured."""

    @property
    def name(self) -> str:
        """The logical name."""
        ...

    @property
    def arn(self) -> str: ...

    @property
    def is_stream(self) -> bool:
        """Several handlers may read it."""
        ...

    @property
    def chunk(self) -> int:
        """How many payloads are best offered at once."""
        ...

    @property
    def delaying_queues(self) -> Sequence[str]:
        """The queues in which time makes messages visible."""
        ...

    def driver(self, handling: Handling, limit: int) -> QueueDriver | ShardDriver:
        """What runs its one mapping. `limit`: invocations at once on this machine."""
        ...

    async def offer(
        self, payloads: Sequence[Any], key: Key | None, attributes: Mapping[str, str] | None
    ) -> list[SinkError | None]:
        """Send payloads, in order; for each position None, or why it was not taken."""
        ...

    async def is_full(self) -> bool:
        """It holds so much that more should wait."""
        ...

    async def depth(self) -> Depth:
        """What waits for the handler."""
        ...

    async def lag(self) -> float | None:
        """Seconds that the oldest of it is behind; None: there is nothing, or the server cannot tell."""
        ...

    async def dead_letters(self) -> list[DeadLetterMessage]:
        """What stands in its dead-letter queue; it stays there."""
        ...

    async def dead_count(self) -> int:
        """How many messages stand there."""
        ...
