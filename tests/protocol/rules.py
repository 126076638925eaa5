"""The rules that the model follows: the product's own functions, each of which a test may replace by a faulty one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.decisions import idempotency
from pipeline.decisions.idempotency import (
    Claimed,
    ClaimReply,
    ClaimRequest,
    Complete,
    Entry,
    Release,
    Renewal,
    Settlement,
    State,
    Step,
)
from pipeline.stores import protocol


def is_unchanged(entry: Entry | None, found: Entry) -> bool:
    """The condition of a takeover, as `stores.items.take_over` writes it: nothing has changed since it was read."""
    return entry is not None and (entry.status, entry.owner, entry.in_progress_expiration, entry.attempts) == (
        found.status,
        found.owner,
        found.in_progress_expiration,
        found.attempts or entry.attempts,  # another writer's entry counts none
    )


def is_replaceable(entry: Entry | None, found: Entry) -> bool:
    """The condition of a batched write over an expired entry: as a takeover's, and it expires when it did."""
    return is_unchanged(entry, found) and entry is not None and entry.expiration == found.expiration


@dataclass(frozen=True)
class Rules:
    """What decides: the product's functions by default."""

    found_by: Callable[[ClaimRequest, Entry | None, float], State] = idempotency.found_by
    step_of: Callable[[State, ClaimRequest], Step] = idempotency.step_of
    created: Callable[[ClaimRequest, float], Entry] = idempotency.created
    taken_over: Callable[[Entry, ClaimRequest, float], Entry] = protocol.taken_over
    claimed: Callable[[Entry], Claimed] = idempotency.claimed
    refusal: Callable[[Step, Entry], ClaimReply] = idempotency.refusal
    lease_until: Callable[[float, float, float | None], float] = idempotency.lease_until
    settled: Callable[[Entry, Complete | Release, float], Entry] = protocol.settled
    renewed: Callable[[Entry, Renewal, float], Entry] = protocol.renewed
    is_held: Callable[[Entry | None, str], bool] = protocol.is_held
    is_done: Callable[[Settlement, Entry | None], bool] = protocol.is_done
    # What stands in the stores and in the engine, and not in a pure function.
    may_create: Callable[[State], bool] = lambda found: found in (State.ABSENT, State.EXPIRED)
    is_unchanged: Callable[[Entry | None, Entry], bool] = is_unchanged
    is_replaceable: Callable[[Entry | None, Entry], bool] = is_replaceable
    #: May an owner renew? By default as it may end: while it holds the claim.
    may_renew: Callable[[Entry | None, str], bool] = protocol.is_held
    has_token_per_run: bool = True  #: False: a record's runs share one owner
    refused_means_go: bool = False
    completes_before_sinks: bool = False
    reads_are_consistent: bool = True


PRODUCT = Rules()
