"""What a local run came to, counted from the engine's own facts."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.outcome import Rejected, is_settled, name_of
from pipeline.telemetry.events import Fact, RecordFinished, SinkWritten

#: Deleted messages whose ids are remembered, in case one was delivered again meanwhile. Bounded,
#: so that memory does not grow with the length of a run.
_REMEMBERED = 50_000


@dataclass(frozen=True, kw_only=True)
class Counts:
    """`records` (distinct) = `succeeded + duplicates + rejected + exhausted`; the rest stands beside it."""

    succeeded: int = 0
    duplicates: int = 0
    rejected: int = 0
    exhausted: int = 0
    deliveries: int = 0  #: messages handed to the handler, repeats included
    dead_lettered: int = 0  #: messages that stand in the dead-letter queue because of this run
    filtered: int = 0  #: messages that the source's filter kept from the handler: no records, and gone
    unsettled: int = 0  #: delivered, and neither settled nor given up yet; 0 once drained
    batches: int = 0  #: invocations
    failed_invocations: int = 0  #: invocations that raised, timed out, or answered nonsense
    outputs: Mapping[str, int] = field(default_factory=dict)  #: accepted by each sink

    @property
    def records(self) -> int:
        """Distinct records that came to an end."""
        return self.succeeded + self.duplicates + self.rejected + self.exhausted

    def as_dict(self) -> dict[str, Any]:
        """As it stands in the summary."""
        return {"records": self.records, **asdict(self)}


@dataclass(frozen=True)
class Report:
    """The counts of each handler, by name, and their totals as attributes."""

    handlers: Mapping[str, Counts]

    def __getitem__(self, name: str) -> Counts:
        """A handler's counts, by its name; `pipeline.handler` where two pipelines share a name."""
        return self.handlers[name]

    @property
    def totals(self) -> Counts:
        """The sum over the handlers."""
        numbers: Counter[str] = Counter()
        outputs: Counter[str] = Counter()
        for counts in self.handlers.values():
            outputs.update(counts.outputs)
            numbers.update({name: value for name, value in vars(counts).items() if name != "outputs"})
        return Counts(outputs=dict(sorted(outputs.items())), **numbers)

    @property
    def records(self) -> int:
        """Distinct records that came to an end, over all handlers."""
        return self.totals.records

    @property
    def succeeded(self) -> int:
        """Records whose outputs every sink accepted."""
        return self.totals.succeeded

    @property
    def duplicates(self) -> int:
        """Records whose work another record had done."""
        return self.totals.duplicates

    @property
    def rejected(self) -> int:
        """Records that can never succeed."""
        return self.totals.rejected

    @property
    def exhausted(self) -> int:
        """Records that used up their attempts."""
        return self.totals.exhausted

    @property
    def deliveries(self) -> int:
        """Messages handed to handlers, repeats included."""
        return self.totals.deliveries

    @property
    def dead_lettered(self) -> int:
        """Messages that stand in dead-letter queues because of this run."""
        return self.totals.dead_lettered

    @property
    def filtered(self) -> int:
        """Messages that the sources' filters kept from their handlers."""
        return self.totals.filtered

    @property
    def outputs(self) -> Mapping[str, int]:
        """Outputs accepted, by sink."""
        return self.totals.outputs

    def to_dict(self) -> dict[str, Any]:
        """The summary, ready for JSON."""
        handlers = {name: counts.as_dict() for name, counts in self.handlers.items()}
        return {**self.totals.as_dict(), "handlers": handlers}

    def to_json(self) -> str:
        """The summary as JSON text."""
        import json

        return json.dumps(self.to_dict(), indent=2)


class Tally:
    """One handler's counts while it runs. Facts come from the environments' threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._words: Counter[str] = Counter()
        self._outputs: Counter[str] = Counter()
        self._deliveries = 0
        self._batches = 0
        self._failed_invocations = 0
        self._filtered = 0
        self._letters = 0
        self._open: set[str] = set()
        self._settled: set[str] = set()
        self._gone: OrderedDict[str, None] = OrderedDict()

    def observe(self, fact: Fact) -> None:
        """Count a fact of the engine's."""
        with self._lock:
            if isinstance(fact, SinkWritten):
                self._outputs[fact.sink] += fact.accepted
            elif isinstance(fact, RecordFinished) and is_settled(fact.outcome):
                self._letters += isinstance(fact.outcome, Rejected)
                self._settle(fact.record.id, name_of(fact.outcome))

    def delivered(self, ids: Iterable[str]) -> None:
        """Count a batch that goes to the handler."""
        with self._lock:
            self._batches += 1
            for name in ids:
                self._deliveries += 1
                if name not in self._settled and name not in self._gone:
                    self._open.add(name)

    def deleted(self, ids: Iterable[str]) -> None:
        """The queue has forgotten these messages; the checkpoint has passed these records."""
        with self._lock:
            for name in ids:
                # A handler that is not the engine's (a test's) settles without a fact.
                if name in self._open:
                    self._settle(name, "succeeded")
                self._settled.discard(name)
                self._gone[name] = None
            self._forget_the_oldest()

    def filtered(self, ids: Iterable[str]) -> None:
        """The mapping has deleted these, or passed over them, because no pattern of the source's filter matches."""
        with self._lock:
            for name in ids:
                self._filtered += name not in self._gone
                self._gone[name] = None
            self._forget_the_oldest()

    def given_up(self, ids: Sequence[str]) -> None:
        """The mapping delivers these no more; those that were never settled are exhausted."""
        with self._lock:
            for name in ids:
                if name in self._open:
                    self._settle(name, "exhausted")
        self.deleted(ids)

    @property
    def letters(self) -> int:
        """How many dead letters the engine says that it wrote, repeats included."""
        with self._lock:
            return self._letters

    def invocation_failed(self) -> None:
        """Count an invocation whose whole batch comes back."""
        with self._lock:
            self._failed_invocations += 1

    def counts(self, *, dead_lettered: int, drained: bool) -> Counts:
        """The counts by now.

        `drained`: the queue is empty. What was delivered, was never settled and is no longer
        there, SQS itself has moved to the dead-letter queue: that is exhausted too.
        """
        with self._lock:
            redriven = len(self._open) if drained else 0
            return Counts(
                succeeded=self._words["succeeded"],
                duplicates=self._words["duplicate"],
                rejected=self._words["rejected"],
                exhausted=self._words["exhausted"] + redriven,
                deliveries=self._deliveries,
                dead_lettered=dead_lettered,
                filtered=self._filtered,
                unsettled=len(self._open) - redriven,
                batches=self._batches,
                failed_invocations=self._failed_invocations,
                outputs=dict(sorted(self._outputs.items())),  # sinks are written side by side: either may be first
            )

    def _forget_the_oldest(self) -> None:
        while len(self._gone) > _REMEMBERED:
            self._gone.popitem(last=False)

    def _settle(self, name: str, word: str) -> None:
        """The first settled outcome of a record is the one that counts."""
        if name in self._settled or name in self._gone:
            return
        self._open.discard(name)
        self._settled.add(name)
        self._words[word] += 1
