"""Claims by single conditional writes, those of records that run side by side sent side by side.

A write that is refused brings the entry with it, so none costs a second read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from pipeline.decisions.idempotency import (
    Advance,
    Busy,
    ClaimReply,
    ClaimRequest,
    Complete,
    Release,
    Renewal,
    Settlement,
    claimed,
)
from pipeline.errors import StoreUnavailable
from pipeline.stores import items
from pipeline.stores.protocol import Taking, advanced, is_done, is_held, taking
from pipeline.stores.table import Refused, Table

T = TypeVar("T")

#: How often a claim looks again when the entry changes under its hands, before it calls it busy.
LOOKS = 4


async def claim(table: Table, requests: Sequence[ClaimRequest]) -> list[ClaimReply | StoreUnavailable]:
    """See the `IdempotencyStore` port."""
    return await _each([_claim(table, request) for request in requests])


async def settle(table: Table, settlements: Sequence[Settlement]) -> list[bool | StoreUnavailable]:
    """See the `IdempotencyStore` port."""
    return await _each([_settle(table, settlement) for settlement in settlements])


async def renew(table: Table, renewals: Sequence[Renewal]) -> list[bool | StoreUnavailable]:
    """See the `IdempotencyStore` port."""
    return await _each([_renew(table, renewal) for renewal in renewals])


async def advance(table: Table, advances: Sequence[Advance]) -> list[bool | StoreUnavailable]:
    """See the `IdempotencyStore` port."""
    return await _each([_advance(table, one) for one in advances])


async def _claim(table: Table, request: ClaimRequest) -> ClaimReply:
    next_ = taking(request, None, table.now)
    for _ in range(LOOKS):
        if not isinstance(next_, Taking):
            return next_
        refused = await _take(table, next_)
        if refused is None:
            return claimed(next_.mine)
        next_ = taking(request, refused.found, table.now)
    return Busy(table.now + 1.0) if isinstance(next_, Taking) else next_


async def _take(table: Table, wanted: Taking) -> Refused | None:
    if wanted.is_new or wanted.found is None:
        return await table.write("put_item", items.put_new(wanted.mine, table.now))
    return await table.write("update_item", items.update_item(items.take_over(wanted.found, wanted.mine)))


async def _settle(table: Table, settlement: Settlement) -> bool:
    if isinstance(settlement, Complete):
        change = items.complete(settlement, table.now)
        refused = await table.write("update_item", items.update_item(change), is_end=True)
    elif isinstance(settlement, Release):
        change = items.release(settlement, table.now)
        refused = await table.write("update_item", items.update_item(change), is_end=True)
    else:
        refused = await table.write("delete_item", items.forget(settlement), is_end=True)
    return refused is None or is_done(settlement, refused.found)


async def _renew(table: Table, renewal: Renewal) -> bool:
    refused = await table.write("update_item", items.update_item(items.renew(renewal, table.now)))
    return refused is None or is_held(refused.found, renewal.owner)


async def _advance(table: Table, advance: Advance) -> bool:
    moved = advanced(None, advance, table.now)
    assert moved is not None, "where nothing stands a checkpoint moves"
    return await table.write("update_item", items.advance(moved), is_end=True) is None


async def _each(calls: Sequence[Awaitable[T]]) -> list[T | StoreUnavailable]:
    """What each call came to. Store trouble is that position's answer; anything else is raised."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    answers: list[T | StoreUnavailable] = []
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, StoreUnavailable):
            raise result
        answers.append(result)
    return answers
