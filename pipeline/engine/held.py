"""One claim that a batch holds."""

from __future__ import annotations


class Held:
    """A claim, from the moment that it is asked for."""

    __slots__ = ("id", "is_lost", "lease_until", "outputs", "owner", "record", "rejected")

    def __init__(self, id: str, record: str, owner: str, until: float) -> None:  # noqa: A002 - the entry's id
        self.id = id
        self.record = record
        self.owner = owner
        self.lease_until = until
        self.outputs: str | None = None  #: kept outputs: deliver these, do not run
        self.rejected: tuple[str, ...] = ()  #: other records of the key, in the dead-letter queue
        self.is_lost = False  #: another owner took it over
