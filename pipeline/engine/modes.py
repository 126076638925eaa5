"""The idempotency modes: what is once, what is at least once, and what that costs. Values; they do nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from msgspec import Struct

from pipeline.decisions.keys import KeySpec
from pipeline.decisions.retry import is_count, is_number
from pipeline.errors import ConfigurationError
from pipeline.ports import IdempotencyStore
from pipeline.record import Record

#: A hundred years, in seconds: more is a mistake, and stores take no number of any length.
_LONGEST = 100 * 365 * 86_400
_LONGEST_LEASE = 31_536_000
_LONGEST_PREFIX = 1_000

#: Called with a repeat and the values that are kept of its first run (`replay=True`, else none).
OnDuplicate = Callable[[Record[Any], Sequence[Any]], Any]


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_prefix(value: object) -> bool:
    """DynamoDB's keys have 2,048 bytes at most (its service model), and a hash of 33 follows."""
    try:
        return isinstance(value, str) and 0 < len(value.encode()) <= _LONGEST_PREFIX
    except UnicodeEncodeError:
        return False


class Mode(Struct, frozen=True, kw_only=True):
    """What all modes have in common.

    `store`: where entries live, default a DynamoDB table `<pipeline>-idempotency`. `prefix`: of the
    entries' ids, default `pipeline.handler`, so that handlers never share entries. `ttl`: seconds that an
    entry lives, default 14 days, which is the longest that SQS keeps a message; 100 years at most. `on_duplicate`: a
    function, plain or async, that is called with each repeat, beside the records, a plain one in a thread: whatever
    happens in it is logged and changes nothing. A batch waits for it, for 5 seconds at most.
    """

    store: IdempotencyStore | None = None
    prefix: str | None = None
    ttl: int = 1_209_600
    on_duplicate: OnDuplicate | None = None

    def __post_init__(self) -> None:
        name = type(self).__name__
        if isinstance(self.store, type):
            raise ConfigurationError(
                f"{name}(store={self.store.__name__}): that is the class; call it: {self.store.__name__}()"
            )
        if not isinstance(self.store, IdempotencyStore | None):
            raise ConfigurationError(f"{name}(store={self.store!r}): give one of pipeline.stores, or leave it out")
        if self.prefix is not None and not _is_prefix(self.prefix):
            raise ConfigurationError(
                f"{name}(prefix={self.prefix!r}): give text of 1 to {_LONGEST_PREFIX:,} bytes, or leave it out"
            )
        if not is_count(self.ttl) or self.ttl > _LONGEST:
            raise ConfigurationError(
                f"{name}(ttl={self.ttl!r}): give a whole number of seconds, 1 to {_LONGEST:,} (100 years)"
            )
        if self.on_duplicate is not None and not callable(self.on_duplicate):
            raise ConfigurationError(f"{name}(on_duplicate={self.on_duplicate!r}): give a function, or leave it out")


class Keyed(Mode, frozen=True, kw_only=True):
    """What the modes that know records by their keys have in common.

    `missing_key`: what becomes of a record whose key is missing or empty: `"reject"` (the default), or `"pass"`:
    its own id is its key, so that only redeliveries of the same record are repeats. `cache`: keys known to be done that
    are kept in the process, so that a repeat there costs no call: the last 1,000 by default, each for 5 minutes at most;
    0 keeps none.
    """

    missing_key: Literal["reject", "pass"] = "reject"
    cache: int = 1_000

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        if self.missing_key not in ("reject", "pass"):
            raise ConfigurationError(f"{name}(missing_key={self.missing_key!r}): give 'reject' or 'pass'")
        if self.cache != 0 and not is_count(self.cache):
            raise ConfigurationError(f"{name}(cache={self.cache!r}): give a whole number of keys, 0 for none")


class Watching(Keyed, frozen=True, kw_only=True):
    """What the modes that keep an entry for each key have in common.

    `validate`: the part of the payload that must be the same in every record of a key (a dotted path, a tuple of
    paths, or a function of the payload): another one is rejected, as a mistake of its sender. `replay`: keep a run's outputs in
    its entry (to 300 KB; what was streamed, or needed a second try for a sink, is not kept), and send them to the
    sinks again, with the same ids, when a repeat comes: for when a sink's own data was lost.
    """

    validate: KeySpec | None = None
    replay: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.replay, bool):
            raise ConfigurationError(f"{type(self).__name__}(replay={self.replay!r}): give True or False")


class Claim(Watching, frozen=True, kw_only=True):
    """An owned lease before the run, a completion after the sinks: the default.

    Guarantee: runs of one key never overlap and never follow a completion. A run that crashed is
    repeated, so the handler's own side effects are at least once; after a sink failure the outputs
    kept in the entry (to 300 KB) go only to the sinks that still lack them, without running again.
    Attempts are counted in the entry, so hand-backs cost none.
    Price: two writes a record, one for a repeat (and a read); in shared calls, 25 to a call. A run of more than a third
    of its lease costs another write for each third.

    `lease`: seconds that a claim holds when its run dies, default 60, at most a year; long runs renew it.
    """

    lease: float = 60.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_number(self.lease) or not 1 <= self.lease <= _LONGEST_LEASE:
            raise ConfigurationError(
                f"Claim(lease={self.lease!r}): give a number of seconds, 1 to {_LONGEST_LEASE:,} (a year)"
            )


class Mark(Watching, frozen=True, kw_only=True):
    """A look before the run, one write after the sinks.

    Guarantee: what is complete is not run again. Two deliveries at the same moment may both run, as
    may a run that outlives its invocation and the one after it. After a sink failure the handler runs again, and all its
    outputs are written again (with the same ids). Of two records of one key in two shards at the same moment, one that
    is rejected may undo the mark of the other. Attempts are the source's receive count on queues, and counted in the
    process on streams.
    Price: one write and one read a record; a repeat costs the read.
    """


class Fused(Keyed, frozen=True, kw_only=True):
    """The mark of the key is written together with the record's items in one sink.

    Guarantee: the effect on that sink's table is exactly once, as long as the items' primary keys follow from the
    record, and no 100 other keys wrote the item meanwhile: a repeat is refused by the item itself. The other sinks go first, at least once. The handler runs for a
    repeat too, and runs may overlap; after a failure it runs again. A record that writes nothing to that sink leaves no mark.
    Attempts are the source's receive count on queues, and counted in the process on streams; so is what a stream delivers
    again although it stands in the dead-letter queue.
    Price: no call but the sink's own. One item of a record costs one conditional write, and a second one when
    another key wrote that item before; several items of one record are one transaction (at most 100 items and 4 MB, 2
    write units a kilobyte).

    `sink`: the name of the sink, when the handler has several that can (`sinks.DynamoDB`, `sinks.Memory`). No entry is
    stored, so `store` and `ttl` have no effect; a mark lives as long as its item.
    """

    sink: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sink is not None and not _is_text(self.sink):
            raise ConfigurationError(f"Fused(sink={self.sink!r}): give the sink's name, or leave it out")


class Checkpoint(Mode, frozen=True, kw_only=True):
    """For sources with an order: the place up to which a lane is settled.

    Guarantee: what stands at or before the place is not run again. The place is written when a batch ends (and when its time
    is nearly up), so a crash repeats what its batch had done; two deliveries at the same moment may both run. Correct on
    streams with any parallelization factor, and after a reshard. The lane of a stream is the shard by default (the partition
    key, when batches of one shard run side by side), so that one place says all; with `lane=` records of one shard run side by
    side, and each lane costs a write. To read a stream again on purpose, give another `prefix`; also when what a `lane=`
    function returns is changed. The mapping's parallelization factor has to be the declared one at every moment: lower it
    in the mapping before the code is deployed, else batches side by side pass over each other's failures.
    Attempts are the source's receive count on queues, and counted in the process on streams.
    Price: one read and one write for each lane of a batch, however many records it has.

    It knows places, not keys: the same order sent twice is two records. For those use `Claim` or `Mark`, with `key=`.
    """
