"""What happened in a run, short and readable: deliveries, runs, effects and faults in the order of time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipeline.emulator.faults.lines import Line, around_faults
from pipeline.emulator.mappings.answers import Answer, FunctionFailed, Returned, Throttled

if TYPE_CHECKING:
    from pipeline.emulator.faults.plan import Faults

#: Lines of a story: it is short, or nobody reads it.
_LINES = 80


def tell(faults: Faults) -> str:
    """The story of a run: a line for each thing that happened; faults are marked. Of a long one, what is around them."""
    short = _Names()
    told, following = [], 0
    for line in around_faults(faults.lines, _LINES):
        if line.number > following:
            told.append(f"... {line.number - following:,} lines left out")
        told.append(f"{line.at:>10.2f} s {'!' if line.is_fault else ' '} {line.where}  {short.written(line)}")
        following = line.number + 1
    return "\n".join(told) or "nothing happened"


def told_faults(faults: Faults) -> list[str]:
    """The faults that fired, a line each."""
    return [f"{fired.at:>10.2f} s  {fired}" for fired in faults.fired]


def given(event: Any) -> list[str]:
    """The ids of the records of a delivery, as everything else in the story calls them."""
    return list(_ids(event).values())


def outcome_of(answer: Answer, event: Any) -> tuple[str, list[str]]:
    """How an invocation ended, and the records that it failed."""
    if isinstance(answer, Returned):
        ids = _ids(event)
        failed = [ids.get(named, named) for named in _failed(answer.payload)]
        return ("returns, and fails", failed) if failed else ("returns, and is done with all", [])
    if isinstance(answer, FunctionFailed):
        return f"fails: {answer.cause}", []
    return ("is throttled" if isinstance(answer, Throttled) else "is not heard of"), []


def _failed(payload: Any) -> list[str]:
    items = payload.get("batchItemFailures") if isinstance(payload, Mapping) else None
    found = items if isinstance(items, list) else []
    return [_as_named(item.get("itemIdentifier")) for item in found if isinstance(item, Mapping)]


def _as_named(identifier: Any) -> str:
    """What a handler names a record by; of Kafka that is an object."""
    if isinstance(identifier, Mapping):
        return f"{identifier.get('partition')}:{identifier.get('offset')}"
    return str(identifier)


def _ids(event: Any) -> dict[str, str]:
    """The records of a delivery: by what a handler names them, their ids."""
    if not isinstance(event, Mapping):
        return {}
    partitions = event.get("records")
    if isinstance(partitions, Mapping):  # Kafka
        places = [f"{name}:{record.get('offset')}" for name, records in partitions.items() for record in records]
        return {place: place for place in places}
    return dict(_id(record) for record in event.get("Records") or () if isinstance(record, Mapping))


def _id(record: Mapping[str, Any]) -> tuple[str, str]:
    if "kinesis" in record:  # as the records of a pipeline are called: a number is one shard's
        stream = str(record.get("eventSourceARN")).partition(":stream/")[2].partition("/")[0]
        return str(record["kinesis"].get("sequenceNumber")), f"{stream}/{record.get('eventID')}"
    if "dynamodb" in record:
        return str(record["dynamodb"].get("SequenceNumber")), str(record.get("eventID"))
    return str(record.get("messageId")), str(record.get("messageId"))


class _Names:
    """Gives the records short names, in the order in which they appear: #1, #2; what an aggregate #3 holds is #3.0, #3.1."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def written(self, line: Line) -> str:
        """What a line says."""
        return " ".join(part for part in (line.text, self._listed(line), line.rest) if part)

    def _listed(self, line: Line) -> str:
        more = f" and {line.more:,} more" if line.more else ""
        return ", ".join(map(self._name, line.records)) + more

    def _name(self, identifier: str) -> str:
        aggregate, _, index = identifier.rpartition(":")
        if aggregate in self._names:
            return f"{self._names[aggregate]}.{index}"
        return self._names.setdefault(identifier, f"#{len(self._names) + 1}")
