"""The story of one record, from log lines: where it came from, each attempt, what it caused, where it stands.

Pure: lines in, a story out. Lines may come in any order, twice, or not at all; what is missing is missing in the story.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property

from msgspec import Struct

from pipeline.cli.story_lines import Line

#: A trace's id, and an output's.
_HEX = re.compile("[0-9a-f]{32}")
#: Records that one story tells of, each way: a handler may return a million outputs.
MAX_RECORDS = 200
#: Records that are only named: of the same key, of the same trace.
MAX_NAMED = 20
#: Levels of cause and effect; a pipeline ends a record after 16 hops unless it is told otherwise.
MAX_DEPTH = 50

#: Seconds after which a try that was due is late: its batch may run, and lines take a while to be there.
LATE = 60.0

#: A record in one handler: pipeline, handler, record id. Several handlers may read one stream.
Key = tuple[str, str, str]

_SETTLED = ("succeeded", "rejected", "exhausted")


class Standing(Struct, frozen=True, kw_only=True):
    """Where a record stands after the last line of it."""

    #: succeeded, duplicate, dead, waiting, due (its next try should have left a line), handed_back, unknown
    state: str
    since: float | None = None  #: epoch seconds
    until: float | None = None  #: when it is tried again


class Passage(Struct, frozen=True, dict=True):
    """One record in one handler: all that the lines say of it, in order of time."""

    key: Key
    lines: tuple[Line, ...]

    @property
    def pipeline(self) -> str:
        return self.key[0]

    @property
    def handler(self) -> str:
        return self.key[1]

    @property
    def record_id(self) -> str:
        return self.key[2]

    @property
    def place(self) -> str:
        """The handler, with its pipeline."""
        return "/".join(name for name in self.key[:2] if name) or "(no handler)"

    @cached_property
    def source(self) -> str | None:
        return self._first(lambda line: line.source)

    @cached_property
    def trace_id(self) -> str | None:
        return self._first(lambda line: line.trace_id)

    @cached_property
    def key_hash(self) -> str | None:
        return self._first(lambda line: line.key_hash)

    @cached_property
    def caused_by(self) -> str | None:
        return self._first(lambda line: line.caused_by)

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """The ids of what it sent, in order."""
        return tuple(dict.fromkeys(one for line in self.lines for one in line.output_ids))

    @cached_property
    def sent_at(self) -> float | None:
        """When it was sent to its source, epoch seconds. By its first line: a scaled clock's ages run ahead of its times."""
        return next((line.at - line.age for line in self.lines if line.at and line.age is not None), None)

    @cached_property
    def ends(self) -> tuple[Line, ...]:
        """The lines that end a run."""
        return tuple(line for line in self.lines if line.outcome is not None)

    @cached_property
    def began(self) -> float:
        """When its first line was written; of no line with a time: never."""
        return next((line.at for line in self.lines if line.at is not None), math.inf)

    def standing(self, now: float) -> Standing:
        """Where it stands. `now`: epoch seconds."""
        last = self.ends[-1] if self.ends else None
        if last is None:
            return Standing(state="unknown")
        outcome = last.outcome
        if outcome == "duplicate":
            # It came again: a queue delivers twice, and a stream what stands behind an unsettled record.
            settled = next((line for line in reversed(self.ends) if line.outcome in _SETTLED), None)
            if settled is None:
                return Standing(state="duplicate", since=last.at)
            last, outcome = settled, settled.outcome
        if outcome == "succeeded":
            return Standing(state="succeeded", since=last.at)
        if outcome in ("rejected", "exhausted"):
            return Standing(state="dead", since=last.at)
        until = None if last.at is None or last.delay is None else last.at + last.delay
        if (until or last.at or now) + LATE < now:
            return Standing(state="due", since=last.at, until=until)
        return Standing(state="handed_back" if outcome == "unprocessed" else "waiting", since=last.at, until=until)

    def _first(self, value: Callable[[Line], str | None]) -> str | None:
        return next((found for line in self.lines if (found := value(line)) is not None), None)


class Effect(Struct, frozen=True):
    """An output, and who received it. Without a passage: whoever it was left no line, as tables and buses do."""

    output: str
    passage: Passage | None
    effects: tuple[Effect, ...] = ()
    is_cut: bool = False  #: it goes on, or was told already


class Told(Struct, frozen=True):
    """A record that was asked for, and what it caused."""

    passage: Passage
    effects: tuple[Effect, ...]
    origins: tuple[Passage, ...]  #: what caused it, the first cause first
    #: Other records of the same handler and key: what it is a duplicate of, what is a duplicate of it, a redrive.
    same_key: tuple[Passage, ...]


class Story(Struct, frozen=True):
    """All that the lines say of what was asked for."""

    asked: str
    kind: str  #: what it is the id of: record, output, trace
    told: tuple[Told, ...]
    same_trace: tuple[Passage, ...]  #: records of the same traces that are not in it otherwise
    knows_successes: bool  #: lines of records that went well are among the lines: they are written at DEBUG only
    is_cut: bool  #: there is more of it than is told


def tell(lines: Iterable[Line], asked: str, *, has_all: bool = False) -> Story | None:
    """The story of a record's, an output's or a trace's id; None when no line has it.

    `has_all`: lines of records that went well are known to be among them, should there be any.
    """
    index = _Index(lines)
    kind, keys = index.asked(asked)
    if not keys:
        return None
    is_cut = len(keys) > MAX_RECORDS
    telling = _Telling(index)
    told = [telling.tell(index.passages[key]) for key in telling.roots(keys[:MAX_RECORDS])]
    traces = {asked, asked.lower()} if kind == "trace" else {index.passages[key].trace_id for key in telling.told}
    related = {key for trace in traces if trace is not None for key in index.by_trace[trace]} - telling.mentioned
    return Story(
        asked,
        kind,
        tuple(told),
        tuple(_in_time(index.passages[key] for key in related)[:MAX_NAMED]),
        has_all or index.knows_successes,
        is_cut or telling.is_cut or len(related) > MAX_NAMED,
    )


class _Index:
    """The lines by what they say."""

    def __init__(self, lines: Iterable[Line]) -> None:
        found: dict[Key, list[tuple[int, Line]]] = defaultdict(list)
        self.knows_successes = False
        for number, line in enumerate(lines):
            found[line.pipeline, line.handler, line.record_id].append((number, line))
            if line.outcome is not None and line.message in ("record.succeeded", "record.duplicate"):
                self.knows_successes = True
        self.passages = {
            key: Passage(key, tuple(line for _, line in sorted(some, key=_order))) for key, some in found.items()
        }
        self.by_record: dict[str, list[Key]] = defaultdict(list)
        self.by_trace: dict[str, list[Key]] = defaultdict(list)
        self.by_key: dict[tuple[str, str, str], list[Key]] = defaultdict(list)
        self.producers: dict[str, list[Key]] = defaultdict(list)
        self.consumers: dict[str, list[Key]] = defaultdict(list)
        for passage in _in_time(self.passages.values()):
            self._add(passage)

    def asked(self, asked: str) -> tuple[str, list[Key]]:
        """What an id is the id of, and the records that it means."""
        if asked in self.by_record:
            return "record", self.by_record[asked]
        given = asked.lower()
        if not _HEX.fullmatch(given):
            given = asked
        if given in self.consumers or given in self.producers:
            return "output", self.consumers[given] or self.producers[given]
        return "trace", self.by_trace[given]

    def _add(self, passage: Passage) -> None:
        key = passage.key
        self.by_record[passage.record_id].append(key)
        for trace in dict.fromkeys(line.trace_id for line in passage.lines if line.trace_id is not None):
            self.by_trace[trace].append(key)
        if passage.key_hash is not None:
            self.by_key[passage.pipeline, passage.handler, passage.key_hash].append(key)
        for cause in dict.fromkeys(line.caused_by for line in passage.lines if line.caused_by is not None):
            self.consumers[cause].append(key)
        for output in passage.outputs:
            self.producers[output].append(key)


class _Telling:
    """One story in the making: no record is told twice, whatever circles the lines make."""

    def __init__(self, index: _Index) -> None:
        self._index = index
        self.told: set[Key] = set()  #: with their effects, or as what caused another
        self.mentioned: set[Key] = set()
        self.is_cut = False

    def roots(self, keys: list[Key]) -> list[Key]:
        """Those that no other one of them caused, however indirectly; of a circle the earliest."""
        wanted = set(keys)
        caused: set[Key] = set()
        found: list[Key] = []
        # First those without a cause among them, then what is left: circles.
        for key in sorted(keys, key=lambda one: self._cause_within(one, wanted) is not None):
            if key not in caused:
                found.append(key)
                caused |= self._reached(key)
        return [key for key in keys if key in found]

    def tell(self, passage: Passage) -> Told:
        """One record with what caused it and what it caused."""
        index = self._index
        self.told.add(passage.key)
        origins = self._origins(passage)
        effects = self._effects(passage, MAX_DEPTH)
        same: list[Passage] = []
        if passage.key_hash is not None:
            keys = index.by_key[passage.pipeline, passage.handler, passage.key_hash]
            same = [index.passages[key] for key in keys if key != passage.key]
        self.is_cut |= len(same) > MAX_NAMED
        self.mentioned |= self.told | {one.key for one in same[:MAX_NAMED]}
        return Told(passage, effects, tuple(origins), tuple(same[:MAX_NAMED]))

    def _origins(self, passage: Passage) -> list[Passage]:
        found: list[Passage] = []
        seen = {passage.key}
        at: Passage | None = passage
        while at is not None and at.caused_by is not None:
            producers = self._index.producers.get(at.caused_by, ())
            key = next((one for one in producers if one not in seen), None)
            if key is None:
                break
            if len(found) == MAX_DEPTH:
                self.is_cut = True
                break
            seen.add(key)
            at = self._index.passages[key]
            found.append(at)
        self.told |= seen
        return found[::-1]

    def _effects(self, passage: Passage, depth: int) -> tuple[Effect, ...]:
        return tuple(self._each_effect(passage, depth))

    def _each_effect(self, passage: Passage, depth: int) -> Iterator[Effect]:
        for output in passage.outputs:
            keys = self._index.consumers.get(output, ())
            if not keys:
                yield Effect(output, None)
            for key in keys:
                if depth == 0 or len(self.told) >= MAX_RECORDS:
                    self.is_cut = True
                    yield Effect(output, None, is_cut=True)
                    return
                told = self._index.passages[key]
                if key in self.told:
                    yield Effect(output, told, is_cut=True)
                    continue
                self.told.add(key)
                yield Effect(output, told, self._effects(told, depth - 1))

    def _cause_within(self, key: Key, wanted: set[Key]) -> Key | None:
        cause = self._index.passages[key].caused_by
        producers = () if cause is None else self._index.producers.get(cause, ())
        return next((one for one in producers if one in wanted and one != key), None)

    def _reached(self, key: Key) -> set[Key]:
        found: set[Key] = set()
        left = [key]
        while left:
            for output in self._index.passages[left.pop()].outputs:
                new = [one for one in self._index.consumers.get(output, ()) if one not in found]
                found.update(new)
                left += new
        return found


def _order(numbered: tuple[int, Line]) -> tuple[float, int, bool, int]:
    """By time; in one millisecond by run, a handler's own lines before the end of it, and then as they came."""
    number, line = numbered
    return (math.inf if line.at is None else line.at, line.attempt or 0, line.outcome is not None, number)


def _in_time(passages: Iterable[Passage]) -> list[Passage]:
    return sorted(passages, key=lambda passage: (passage.began, passage.key))
