"""One record on its way through a batch: what is known of it so far."""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from typing import Any

from pipeline.decisions.codec import Document
from pipeline.decisions.keys import entry_id, key_text
from pipeline.engine.claims import Held
from pipeline.engine.stage import Stage
from pipeline.outcome import Outcome
from pipeline.record import RawRecord, Record


class Phase(Enum):
    """Where a record stands. What a deadline does to it depends on this."""

    WAITING = auto()
    CLAIMING = auto()
    HANDLING = auto()
    WRITING = auto()  #: its outputs are on their way to the sinks
    ENDING = auto()  #: its outcome is decided; the store or the dead-letter queue is being told


#: Phases that the soft deadline cuts off; the others are left to finish until the hard one.
CUT = (Phase.CLAIMING, Phase.HANDLING)


class Run:
    """One record of a batch. Its fields fill as it goes."""

    __slots__ = (
        "_payload",
        "attempt",
        "decided",
        "document",
        "error",
        "handler",
        "held",
        "identity",
        "is_alone",
        "is_cut",
        "is_running_on",
        "key_hash",
        "lane",
        "order_key",
        "phase",
        "position",
        "raw",
        "started",
        "task",
    )  # fmt: skip

    _UNREAD = object()

    def __init__(self, position: int, raw: RawRecord, handler: str) -> None:
        self.handler = handler
        self.position = position
        self.raw = raw
        self.document = Document(raw.body)
        self.identity = raw.id
        self.key_hash: str | None = None
        self.lane = raw.lane
        self.error = raw.error  #: why it can never run
        self.attempt = raw.receive_count
        self.held: Held | None = None
        self.phase = Phase.WAITING
        self.started = 0.0
        self.task: asyncio.Task[Any] | None = None
        self.is_cut = False  #: the deadline has cut it off
        self.is_alone = False  #: the run before died; this one has waited for the others
        self.is_running_on = False  #: the handler could not be stopped, and may still be at it
        self.decided: Outcome | None = None  #: what it comes to, when only the telling is left
        self.order_key = raw.id  #: the default ordering key of its outputs
        self._payload: Any = self._UNREAD

    @property
    def record_id(self) -> str:
        return self.raw.id

    @property
    def hops(self) -> int:
        """How many handlers the record has passed."""
        return self.raw.carried.hops if self.raw.carried else 0

    def payload(self, stage: Stage) -> Any:
        """The parsed body. Raises `PayloadError`."""
        if self._payload is self._UNREAD:
            self._payload = stage.parse(self.document)
        return self._payload

    def read_keys(self, stage: Stage) -> None:
        """Settle identity and lane. Raises `KeyMissing`, `PayloadError`, or what a key function raises."""
        carried_id = self.raw.carried.id if self.raw.carried else self.raw.id
        data = stage.key(self.document, lambda: self.payload(stage)) if stage.key else carried_id
        if stage.claim is not None:
            self.identity = key_text(data)
            self.key_hash = entry_id("", self.identity)[1:]
        if stage.source_lane is not None:
            self.lane = stage.source_lane(self.raw)
        elif stage.lane is not None:
            self.lane = _plain(stage.lane(self.document, lambda: self.payload(stage)))
        self.order_key = self.lane or _plain(data)

    def record(self, stage: Stage) -> Record[Any]:
        """The record as the handler sees it. Raises `PayloadError`."""
        raw = self.raw
        return Record(
            id=raw.id,
            source=raw.source,
            payload=self.payload(stage),
            identity=self.identity,
            attempt=self.attempt,
            receive_count=raw.receive_count,
            lane=self.lane,
            attributes=raw.attributes,
            sent_at=raw.sent_at,
            hops=self.hops,
            body=raw.body,
        )

    def forget_payload(self) -> None:
        """Let go of the parsed body: a large batch must not hold all of them to its end."""
        self._payload = self._UNREAD
        self.document = Document(self.raw.body)


def _plain(data: Any) -> str:
    return data if isinstance(data, str) else key_text(data)
