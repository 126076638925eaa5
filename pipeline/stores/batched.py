"""Claims by statements that travel together, 25 in a call.

All claims are INSERTs first. What stands in the way of some is read in one call, because the answer does not bring it,
and what may be taken is taken by UPDATEs of exactly what was read; a refused UPDATE brings the entry as it is by then.
So a batch of new records takes one call for 25 of them, and one with repeats in it a read more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from pipeline.decisions.idempotency import (
    Busy,
    ClaimReply,
    ClaimRequest,
    Complete,
    Entry,
    Release,
    Renewal,
    Settlement,
    claimed,
)
from pipeline.errors import StoreUnavailable
from pipeline.stores import items, statements
from pipeline.stores.protocol import Taking, is_done, is_held, taking
from pipeline.stores.single import LOOKS
from pipeline.stores.statements import Statement
from pipeline.stores.table import Refused, Table

A = TypeVar("A")
Asked = TypeVar("Asked", ClaimRequest, Settlement, Renewal)


async def claim(table: Table, requests: Sequence[ClaimRequest]) -> list[ClaimReply | StoreUnavailable]:
    """See the `IdempotencyStore` port."""
    return await _in_rounds(requests, lambda some: _claim(table, some))


async def settle(table: Table, settlements: Sequence[Settlement]) -> list[bool | StoreUnavailable]:
    """See the `IdempotencyStore` port."""
    return await _in_rounds(settlements, lambda some: _settle(table, some))


async def renew(table: Table, renewals: Sequence[Renewal]) -> list[bool | StoreUnavailable]:
    """See the `IdempotencyStore` port."""
    return await _in_rounds(renewals, lambda some: _renew(table, some))


async def _claim(table: Table, requests: Sequence[ClaimRequest]) -> list[ClaimReply | StoreUnavailable]:
    replies: dict[int, ClaimReply | StoreUnavailable] = {}
    wanted: dict[int, Taking] = {}

    def decide(position: int, found: Entry | StoreUnavailable | None) -> None:
        next_ = found if isinstance(found, StoreUnavailable) else taking(requests[position], found, table.now)
        if isinstance(next_, Taking):
            wanted[position] = next_
        else:
            replies[position] = next_

    for position in range(len(requests)):
        decide(position, None)
    for _ in range(LOOKS):
        tried, wanted = wanted, {}
        answers = await table.execute([_take(table, one) for one in tried.values()])
        refused: dict[int, Refused] = {}
        for (position, one), answer in zip(tried.items(), answers, strict=True):
            if answer is None:
                replies[position] = claimed(one.mine)
            elif isinstance(answer, Refused):
                refused[position] = answer
            else:
                replies[position] = answer
        for position, found in (await _found(table, requests, refused)).items():
            decide(position, found)
        if not wanted:
            break
    busy = Busy(table.now + 1.0)
    return [replies.get(position, busy) for position in range(len(requests))]


async def _found(
    table: Table, requests: Sequence[ClaimRequest], refused: Mapping[int, Refused]
) -> dict[int, Entry | StoreUnavailable | None]:
    """The entries that stood in the way; what the answers do not say is read."""
    unread = [position for position, answer in refused.items() if not answer.is_read]
    read = await table.read([requests[position].id for position in unread])
    known = {position: answer.found for position, answer in refused.items() if answer.is_read}
    return {**known, **dict(zip(unread, read, strict=True))}


def _take(table: Table, wanted: Taking) -> Statement:
    if wanted.found is None:
        return statements.insert(table.name, wanted.mine)
    if wanted.is_new:
        return statements.update(table.name, items.replace(wanted.mine, table.now))
    return statements.update(table.name, items.take_over(wanted.found, wanted.mine))


async def _settle(table: Table, settlements: Sequence[Settlement]) -> list[bool | StoreUnavailable]:
    answers = await table.execute([_end(table, settlement) for settlement in settlements], is_end=True)
    done: list[bool | StoreUnavailable] = []
    for settlement, answer in zip(settlements, answers, strict=True):
        if isinstance(answer, Refused):
            done.append(is_done(settlement, answer.found))
        else:
            done.append(True if answer is None else answer)
    return done


def _end(table: Table, settlement: Settlement) -> Statement:
    if isinstance(settlement, Complete):
        return statements.update(table.name, items.complete(settlement, table.now))
    if isinstance(settlement, Release):
        return statements.update(table.name, items.release(settlement, table.now))
    return statements.forget(table.name, settlement)


async def _renew(table: Table, renewals: Sequence[Renewal]) -> list[bool | StoreUnavailable]:
    now = table.now
    answers = await table.execute([statements.update(table.name, items.renew(renewal, now)) for renewal in renewals])
    return [
        answer if isinstance(answer, StoreUnavailable) else answer is None or is_held(answer.found, renewal.owner)
        for renewal, answer in zip(renewals, answers, strict=True)
    ]


async def _in_rounds(asked: Sequence[Asked], do: Callable[[Sequence[Asked]], Awaitable[Sequence[A]]]) -> list[A]:
    """Each position's answer. Those of one id follow one another: a call may hold each entry once."""
    rounds: list[list[int]] = []
    seen: dict[str, int] = {}
    for position, one in enumerate(asked):
        number = seen[one.id] = seen.get(one.id, -1) + 1
        if number == len(rounds):
            rounds.append([])
        rounds[number].append(position)
    answers: dict[int, A] = {}
    for positions in rounds:
        found = await do([asked[position] for position in positions])
        answers.update(zip(positions, found, strict=True))
    return [answers[position] for position in range(len(asked))]
