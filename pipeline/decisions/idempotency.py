"""The claim protocol: what an entry means, and what its finder does.

An entry is absent, or in one of six states that follow from its fields and the time. Every rule
of the protocol is a row of `CLAIM`; stores only carry out what it says, by a write that is
conditional on the entry still being what was read. A refused write never means "go".
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto

from msgspec import Struct

IN_PROGRESS = "INPROGRESS"
COMPLETED = "COMPLETED"


#: Powertools reads `data` as the stored result; by default no result is kept.
NO_DATA = "null"

#: `in_progress_expiration` of a claim that was given back: it lapsed at the beginning of time, so that
#: Powertools takes it over too.
RELEASED = 0


class Entry(Struct, frozen=True, kw_only=True):
    """One idempotency entry. The first six fields are those of Powertools' table."""

    id: str
    status: str  #: INPROGRESS or COMPLETED; any other value makes Powertools fail
    expiration: int  #: epoch seconds; from the second after it, the entry counts for nothing
    in_progress_expiration: int | None = None  #: epoch milliseconds: when the claim lapses
    data: str | None = None  #: JSON: what the completed run returned, where that is kept
    validation: str | None = None  #: hash of the part of the payload that must not change; None: not watched
    owner: str | None = None  #: the run that holds, or last held, the claim; None: not ours
    attempts: int = 0  #: runs that count, the current one included
    outputs: str | None = None  #: outputs of a finished run that some sinks still lack
    rejected: tuple[str, ...] = ()  #: records of a stream that are in the dead-letter queue, and may come again
    position: str | None = None  #: of a checkpoint: all up to here is settled; see `decisions.checkpoint`

    def is_owned_by(self, owner: str) -> bool:
        """True while `owner` holds the claim."""
        return self.status == IN_PROGRESS and self.owner == owner


class State(Enum):
    """What an entry means to somebody who wants its key."""

    ABSENT = auto()
    EXPIRED = auto()  #: past its expiration: it counts for nothing
    MISMATCH = auto()  #: the key is in use for another payload
    COMPLETED = auto()
    HELD = auto()  #: a live run holds the claim
    RELEASED = auto()  #: the last run gave the claim back
    REJECTED = auto()  #: the asker's own record is in the dead-letter queue, and its stream has delivered it again
    LAPSED = auto()  #: the last run died, or was cut off, holding the claim
    MINE = auto()  #: the asker's own claim: the answer to its write was lost


class Step(Enum):
    """What somebody who wants the key does next."""

    CREATE = auto()  #: write a new entry in its place
    TAKE_OVER = auto()  #: take the claim, keeping attempts and kept outputs
    COME_ALONE = auto()  #: take over only to run alone: what killed the last run may be this record
    SKIP = auto()  #: a duplicate
    REFUSE = auto()  #: not the same work, although it has the same key
    WAIT = auto()  #: come back when the claim lapses
    RUN = auto()  #: the claim is held


CLAIM: Mapping[State, Step] = {
    State.ABSENT: Step.CREATE,
    State.EXPIRED: Step.CREATE,
    State.MISMATCH: Step.REFUSE,
    State.COMPLETED: Step.SKIP,
    State.HELD: Step.WAIT,
    State.RELEASED: Step.TAKE_OVER,
    State.REJECTED: Step.SKIP,
    State.LAPSED: Step.COME_ALONE,
    State.MINE: Step.RUN,
}


class ClaimRequest(Struct, frozen=True, kw_only=True):
    """One run asks for one key."""

    id: str
    owner: str
    lease_until: float  #: epoch seconds
    ttl: int  #: seconds that the entry lives
    record: str = ""  #: the id of the record that the run is for
    validation: str | None = None  #: see `Entry.validation`
    is_alone: bool = False  #: no other record runs beside it: a lapsed claim may be taken over


class Claimed(Struct, frozen=True):
    """The claim is held; run."""

    attempt: int  #: the number of this run, from 1
    outputs: str | None = None  #: kept outputs: do not run, only deliver these
    rejected: tuple[str, ...] = ()  #: other records of the key that are in the dead-letter queue


class Lapsed(Struct, frozen=True):
    """The last run died. Nothing was taken: ask again when no other record is running.

    So a record that kills the process takes no other with it twice, and no other's attempts.
    """

    attempts: int  #: runs that were begun so far


class AlreadyDone(Struct, frozen=True):
    """An earlier run is complete."""

    data: str | None = None  #: what it returned, as JSON, where that is kept


class Mismatch(Struct, frozen=True):
    """The key is in use for another payload: neither a repeat nor a run."""


class Busy(Struct, frozen=True):
    """Another live run holds the claim."""

    until: float  #: epoch seconds


ClaimReply = Claimed | Lapsed | AlreadyDone | Mismatch | Busy


class Settlement(Struct, frozen=True, kw_only=True):
    """How an owner ends its claim: completed, given back, or forgotten."""

    id: str
    owner: str
    ttl: int


class Complete(Settlement, frozen=True, kw_only=True):
    """The work is done; every sink has accepted."""

    data: str | None = None  #: JSON to keep for repeats; None: nothing


class Release(Settlement, frozen=True, kw_only=True):
    """The run is over and the key is free; the next run goes on from here."""

    attempts: int  #: runs that count so far
    outputs: str | None = None  #: kept for the sinks that still lack them
    #: Records in the dead-letter queue that their stream may deliver again. Those are skipped: a redrive is
    #: another record, and starts anew.
    rejected: tuple[str, ...] = ()


class Forget(Settlement, frozen=True, kw_only=True):
    """The record is in the dead-letter queue: a redrive starts anew."""


class Advance(Struct, frozen=True, kw_only=True):
    """A lane of a checkpoint is settled up to `position`."""

    id: str
    position: str
    ttl: int


class Renewal(Struct, frozen=True, kw_only=True):
    """A long run keeps its claim."""

    id: str
    owner: str
    lease_until: float  #: epoch seconds
    ttl: int  #: seconds that the entry lives from now


#: Rejected records that an entry remembers, the last ones: their ids are a hundred bytes each.
MAX_REJECTED = 100

#: Kept outputs larger than this are dropped, and the handler runs again: DynamoDB items hold 400 KB.
MAX_KEPT = 300_000


def state_of(
    entry: Entry | None, owner: str, now: float, record: str | None = None, validation: str | None = None
) -> State:
    """What an entry means to `owner`, who runs `record`, at `now` (epoch seconds).

    Comparisons are strict, as Powertools': in its last second an entry is still alive. An entry from before
    payloads were watched matches every payload.
    """
    if entry is None:
        return State.ABSENT
    if entry.expiration < int(now):
        return State.EXPIRED
    if validation is not None and entry.validation not in (None, "", validation) and not _is_unused(entry):
        return State.MISMATCH
    if entry.status == COMPLETED:
        return State.COMPLETED
    if record in entry.rejected:  # whoever works on another record of the key meanwhile
        return State.REJECTED
    if entry.in_progress_expiration == RELEASED:
        return State.RELEASED
    if entry.owner == owner:
        return State.MINE
    # Powertools writes no in-progress expiration without a Lambda context: held until it expires.
    if entry.in_progress_expiration is None or entry.in_progress_expiration >= int(now * 1000):
        return State.HELD
    return State.LAPSED


def expiration_of(now: float, ttl: int, lease_until: float) -> int:
    """When a held entry expires, epoch seconds: never before its lease, or a second run could begin beside the first."""
    return max(int(now) + ttl, int(lease_until) + 1)


def created(request: ClaimRequest, now: float) -> Entry:
    """The entry of a first run."""
    return Entry(
        id=request.id,
        status=IN_PROGRESS,
        expiration=expiration_of(now, request.ttl, request.lease_until),
        in_progress_expiration=int(request.lease_until * 1000),
        validation=request.validation,
        owner=request.owner,
        attempts=1,
    )


def held_until(entry: Entry) -> float:
    """When a held claim lapses, epoch seconds."""
    if entry.in_progress_expiration is None:
        return float(entry.expiration + 1)
    return entry.in_progress_expiration / 1000


def _is_unused(entry: Entry) -> bool:
    """Nothing was done for its key: its records were rejected, or never ran to an end."""
    is_free = entry.status != COMPLETED and entry.in_progress_expiration == RELEASED
    return is_free and not entry.attempts and entry.outputs is None


def found_by(request: ClaimRequest, entry: Entry | None, now: float) -> State:
    """What an entry means to somebody with this request."""
    return state_of(entry, request.owner, now, request.record, request.validation)


def step_of(found: State, request: ClaimRequest) -> Step:
    """What somebody with this request does about what was found."""
    step = CLAIM[found]
    return Step.TAKE_OVER if step is Step.COME_ALONE and request.is_alone else step


def refusal(step: Step, entry: Entry) -> ClaimReply:
    """The reply to somebody who cannot have the claim."""
    if step is Step.SKIP:
        return AlreadyDone(None if entry.data == NO_DATA else entry.data)
    if step is Step.REFUSE:
        return Mismatch()
    return Lapsed(entry.attempts) if step is Step.COME_ALONE else Busy(held_until(entry))


def claimed(entry: Entry) -> Claimed:
    """The reply to an owner whose claim was written; `entry` is as it stands now."""
    return Claimed(entry.attempts, entry.outputs, entry.rejected)


def lease_until(now: float, lease: float, remaining: float | None) -> float:
    """When a new or renewed claim lapses.

    Never long after the invocation is killed, so that a record whose run died is not held back
    for nothing; a second more than its time, so that a slow clock does not let two runs overlap.
    """
    return now + (lease if remaining is None else min(lease, max(remaining, 0.0) + 1.0))


def kept(outputs: str) -> str | None:
    """Outputs as they are kept in an entry; None when they are too large for it."""
    return outputs if len(outputs.encode()) <= MAX_KEPT else None
