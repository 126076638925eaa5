"""Batches: what a batch handler gets and returns, and what a processed batch came to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar, overload

from msgspec import Struct

from pipeline.outcome import Outcome, is_settled
from pipeline.record import RawRecord, Record

P = TypeVar("P")
O = TypeVar("O", bound=Outcome)  # noqa: E741 - the conventional letter for an outcome here


class Batch(Sequence[Record[P]], Generic[P]):
    """Records that may run together: at most one of each lane.

    Annotate a handler's parameter with `Batch[Order]` to make it a batch handler. It returns one
    result for each position: an output, `None`, or `Failure(error)`.
    """

    __slots__ = ("_records",)

    def __init__(self, records: Sequence[Record[P]]) -> None:
        self._records = tuple(records)

    @overload
    def __getitem__(self, index: int) -> Record[P]: ...
    @overload
    def __getitem__(self, index: slice) -> Batch[P]: ...
    def __getitem__(self, index: int | slice) -> Record[P] | Batch[P]:
        if isinstance(index, slice):
            return Batch(self._records[index])
        return self._records[index]

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record[P]]:
        return iter(self._records)

    @property
    def payloads(self) -> list[P]:
        """The parsed bodies, in the same positions."""
        return [record.payload for record in self._records]


class Failure(Struct, frozen=True):
    """A batch handler's word that one position failed; the others stand."""

    error: BaseException


class BatchResult:
    """What a batch came to: one outcome for each record, in the batch's order.

    It cannot be built with an outcome missing: a record without one would be acknowledged by
    omission.
    """

    __slots__ = ("outcomes", "records")

    def __init__(self, records: Sequence[RawRecord], outcomes: Sequence[Outcome]) -> None:
        if len(records) != len(outcomes):
            raise ValueError(f"{len(records)} records but {len(outcomes)} outcomes: one each is needed")
        for record, outcome in zip(records, outcomes, strict=True):
            if not isinstance(outcome, Outcome):
                raise ValueError(f"record {record.id} has no outcome: {outcome!r}")
        self.records = tuple(records)
        self.outcomes = tuple(outcomes)

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[tuple[RawRecord, Outcome]]:
        return zip(self.records, self.outcomes, strict=True)

    def __repr__(self) -> str:
        return f"BatchResult({', '.join(map(repr, self.outcomes))})"

    def of(self, kind: type[O]) -> list[tuple[RawRecord, O]]:
        """The records that ended in `kind`, with their outcomes, in order."""
        return [(record, outcome) for record, outcome in self if isinstance(outcome, kind)]

    def unsettled(self) -> list[RawRecord]:
        """The records that the source must deliver again, in order."""
        return [record for record, outcome in self if not is_settled(outcome)]
