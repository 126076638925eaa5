"""What every store makes of an entry: the writes of the claim protocol, as functions of values."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from pipeline.decisions.idempotency import (
    COMPLETED,
    IN_PROGRESS,
    NO_DATA,
    RELEASED,
    Advance,
    ClaimReply,
    ClaimRequest,
    Complete,
    Entry,
    Forget,
    Release,
    Renewal,
    Settlement,
    Step,
    claimed,
    created,
    expiration_of,
    found_by,
    refusal,
    step_of,
)


class Taking(Struct, frozen=True, kw_only=True):
    """The write by which a run takes a key, and what it rests on: it must be refused when that has changed."""

    found: Entry | None  #: what stands there; None: nothing, as far as is known
    mine: Entry  #: what stands there afterwards
    is_new: bool  #: a first run's entry, where there is none or one that has expired; else one that is taken over


def taking(request: ClaimRequest, found: Entry | None, now: float) -> Taking | ClaimReply:
    """What a run does about what it found under its key: a write, or the reply that ends it."""
    step = step_of(found_by(request, found, now), request)
    if found is None or step is Step.CREATE:
        return Taking(found=found, mine=created(request, now), is_new=True)
    if step is Step.TAKE_OVER:
        return Taking(found=found, mine=taken_over(found, request, now), is_new=False)
    # To run at once means that the claim is ours, and the answer to its write was lost.
    return claimed(found) if step is Step.RUN else refusal(step, found)


def is_held(entry: Entry | None, owner: str) -> bool:
    """True while `owner` holds the claim: it neither ended it nor lost it to another run."""
    return entry is not None and entry.is_owned_by(owner) and entry.in_progress_expiration != RELEASED


def is_done(settlement: Settlement, entry: Entry | None) -> bool:
    """True when the entry shows that this settlement was written by an earlier try.

    An absent entry counts as forgotten: who else forgot it, forgot the same.
    """
    if entry is None:
        return isinstance(settlement, Forget)
    if entry.owner != settlement.owner:
        return False
    if isinstance(settlement, Complete):
        return entry.status == COMPLETED
    is_released = entry.status == IN_PROGRESS and entry.in_progress_expiration == RELEASED
    return isinstance(settlement, Release) and is_released


def taken_over(entry: Entry, request: ClaimRequest, now: float) -> Entry:
    """A released or lapsed entry as its next owner holds it: attempts and kept outputs stay."""
    return replace(
        entry,
        expiration=expiration_of(now, request.ttl, request.lease_until),
        in_progress_expiration=int(request.lease_until * 1000),
        validation=request.validation or entry.validation,
        owner=request.owner,
        attempts=entry.attempts + 1,
    )


def renewed(entry: Entry, renewal: Renewal, now: float) -> Entry:
    """A held entry after a renewal. One that comes late does not take back what a later one gave."""
    lease = int(renewal.lease_until * 1000)
    if lease < (entry.in_progress_expiration or 0):
        return entry
    expiration = expiration_of(now, renewal.ttl, renewal.lease_until)
    return replace(entry, in_progress_expiration=lease, expiration=expiration)


def advanced(entry: Entry | None, advance: Advance, now: float) -> Entry | None:
    """A checkpoint after it moved; None when it stands there, or further on, already.

    An expired one still counts: positions only grow.
    """
    if entry is not None and entry.position is not None and entry.position >= advance.position:
        return None
    return Entry(
        id=advance.id,
        status=COMPLETED,
        expiration=int(now) + advance.ttl,
        data=NO_DATA,
        position=advance.position,
    )


def settled(entry: Entry, settlement: Complete | Release, now: float) -> Entry:
    """A held entry after its owner completed it or gave it back."""
    expiration = int(now) + settlement.ttl
    if isinstance(settlement, Complete):
        data = settlement.data or NO_DATA
        return replace(entry, status=COMPLETED, data=data, expiration=expiration, outputs=None)
    return replace(
        entry,
        in_progress_expiration=RELEASED,
        expiration=expiration,
        attempts=settlement.attempts,
        outputs=settlement.outputs,
        rejected=settlement.rejected,
    )
