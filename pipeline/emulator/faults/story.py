"""What happened in a run, short and readable: deliveries, runs, effects and faults in the order of time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pipeline.emulator.mappings.answers import Answer, FunctionFailed, Returned, Throttled

if TYPE_CHECKING:
    from pipeline.emulator.faults.plan import Faults

#: Records of a batch that a line names, and lines of a story.
_NAMED, _LINES = 6, 80


def tell(faults: Faults) -> str:
    """The story of a run: a line for each thing that happened; faults are marked."""
    short = _Names()
    lines = [
        f"{line.at:>10.2f} s {'!' if line.is_fault else ' '} {line.where}  {short(line.text)}" for line in faults.lines
    ]
    if len(lines) > _LINES:
        lines = [*lines[:_LINES], f"... and {len(lines) - _LINES} lines more"]
    return "\n".join(lines) or "nothing happened"


def told_faults(faults: Faults) -> list[str]:
    """The faults that fired, a line each."""
    return [f"{fired.at:>10.2f} s  {fired}" for fired in faults.fired]


def invoked(event: Any) -> str:
    """A delivery, as a line."""
    return f"is given {_batch(event)}"


def outcome_of(answer: Answer) -> str:
    """How an invocation ended, as a line."""
    if isinstance(answer, Returned):
        failed = _failed(answer.payload)
        return "returns, and is done with all" if not failed else f"returns, and fails {_list(failed)}"
    if isinstance(answer, FunctionFailed):
        return f"fails: {answer.cause}"
    return "is throttled" if isinstance(answer, Throttled) else "is not heard of"


def _failed(payload: Any) -> list[str]:
    items = payload.get("batchItemFailures") if isinstance(payload, Mapping) else None
    return [_quoted(str(item.get("itemIdentifier"))) for item in items or () if isinstance(item, Mapping)]


def _batch(event: Any) -> str:
    records = event.get("Records") if isinstance(event, Mapping) else None
    return _list([_quoted(_id(record)) for record in records or () if isinstance(record, Mapping)])


def _id(record: Mapping[str, Any]) -> str:
    """As the mapping names it, and how often it came where the source counts that."""
    found = record.get("messageId") or record.get("kinesis", {}).get("sequenceNumber")
    return str(found or record.get("dynamodb", {}).get("SequenceNumber") or record.get("eventID"))


def _quoted(identifier: str) -> str:
    return f"<{identifier}>"


def _list(names: Iterable[str]) -> str:
    found = list(names)
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return (", ".join(found[:_NAMED]) + more) or "nothing"


class _Names:
    """Gives the records short names, in the order in which they appear: #1, #2, ..."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        pieces = text.split("<")
        told = [pieces[0]]
        for piece in pieces[1:]:
            identifier, _, rest = piece.partition(">")
            told.append(self._names.setdefault(identifier, f"#{len(self._names) + 1}") + rest)
        return "".join(told)
