"""Idempotency entries as hashes of a Valkey or Redis server, and the conditional writes of the claim protocol.

A write is one call of `SCRIPT`, which the server runs with nothing between: it writes only where its condition
holds, and answers with the entry as it stands where it does not. The conditions are those of `stores.items`,
and so are the fields' names; what an entry does not have is left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from msgspec import Struct

from pipeline.decisions.idempotency import (
    COMPLETED,
    NO_DATA,
    RELEASED,
    Complete,
    Entry,
    Release,
    Renewal,
    expiration_of,
)
from pipeline.errors import StoreUnavailable

#: Seconds that the server keeps an entry after its expiration. The toolkit's clock says what is expired; the
#: server's only collects garbage, and two clocks may differ by this much.
GRACE = 3_600
#: The longest time to live that is asked for, 68 years: servers refuse what overflows.
_LONGEST = 2**31

#: KEYS[1]: the entry. ARGV: the condition and its four operands; the seconds to live, or nothing to leave them; then
#: fields and values, where no value means no field. Without fields the entry is deleted. Answers 1, or the entry that
#: refused: its fields and values as one JSON text, which clients read faster than a list.
SCRIPT = """\
local key, condition, seconds = KEYS[1], ARGV[1], ARGV[6]
local first, second, third, fourth = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local found = redis.call('HMGET', key, 'status', 'owner', 'in_progress_expiration', 'expiration', 'position', 'attempts')
local status, owner, lease = found[1] or '', found[2] or '', found[3] or ''
local expiration, position, attempts = tonumber(found[4] or ''), found[5] or '', tonumber(found[6] or '0')

local function is_before(one, other) -- by bytes: '<' would follow the server's locale
  for at = 1, math.min(#one, #other) do
    local a, b = one:byte(at), other:byte(at)
    if a ~= b then return a < b end
  end
  return #one < #other
end

local holds = false
if condition == 'free' then -- nothing is there, or it expired before `first`
  holds = redis.call('EXISTS', key) == 0 or (expiration ~= nil and expiration < tonumber(first))
elseif condition == 'found' then -- it still is what was read
  holds = status == first and owner == second and lease == third and attempts == tonumber(fourth)
elseif condition == 'held' then -- `first` holds the claim: it neither ended it nor lost it to another run
  holds = status == 'INPROGRESS' and owner == first and (tonumber(lease) or 0) > 0
  if holds and second ~= '' then holds = tonumber(lease) <= tonumber(second) end -- a renewal: it never shortens a lease
elseif condition == 'behind' then -- a checkpoint before `first`, or none
  holds = position == '' or is_before(position, first)
elseif condition == 'any' then
  holds = true
end
if not holds then return cjson.encode(redis.call('HGETALL', key)) end

if #ARGV == 6 then
  redis.call('DEL', key)
  return 1
end
local given, missing = {}, {}
for at = 7, #ARGV, 2 do
  if ARGV[at + 1] == '' then
    missing[#missing + 1] = ARGV[at]
  else
    given[#given + 1] = ARGV[at]
    given[#given + 1] = ARGV[at + 1]
  end
end
redis.call('HSET', key, unpack(given)) -- first: a server without memory refuses only a script's first write
if #missing > 0 then redis.call('HDEL', key, unpack(missing)) end
if seconds ~= '' then redis.call('EXPIRE', key, seconds) end
return 1
"""
#: By which servers know a script that they have run before.
SCRIPT_SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()


class Write(Struct, frozen=True):
    """One conditional write: the entry's id, and the script's arguments."""

    id: str
    arguments: tuple[str, ...]


def entry_of(key: str, answer: bytes) -> Entry | None:
    """The script's answer as an entry. Raises `StoreUnavailable` for what is none."""
    try:
        texts = json.loads(answer)
        if not texts:
            return None
        fields = dict(zip(texts[::2], texts[1::2], strict=True))
        lease = fields.get("in_progress_expiration")
        return Entry(
            id=key,
            status=fields["status"],
            expiration=int(fields["expiration"]),
            in_progress_expiration=None if lease is None else int(lease),
            data=fields.get("data"),
            validation=fields.get("validation"),
            owner=fields.get("owner"),
            attempts=int(fields.get("attempts", 0)),
            outputs=fields.get("outputs"),
            rejected=tuple(json.loads(fields.get("rejected", "[]"))),
            position=fields.get("position"),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        # Not the error's message: it may quote the value.
        raise StoreUnavailable(f"not an idempotency entry: {type(error).__name__}") from None


def look(key: str) -> Write:
    """No write: its condition never holds."""
    return Write(key, ("never", "", "", "", ""))


def put_new(entry: Entry, now: float) -> Write:
    """A first run's entry, where there is none or one that has expired."""
    return _write(entry.id, ("free", str(int(now))), _seconds(entry.expiration, now), _fields(entry))


def put(entry: Entry, now: float) -> Write:
    """An entry whole, whatever stands in its place."""
    return _write(entry.id, ("any",), _seconds(entry.expiration, now), _fields(entry))


def take_over(found: Entry, mine: Entry, now: float) -> Write:
    """A free entry for its next owner, while it is still what was found.

    Status, owner and lease tell any two states of an entry apart, because every owner is new; attempts do where an owner
    asked twice.
    """
    condition = ("found", found.status, found.owner or "", _text(found.in_progress_expiration), str(found.attempts))
    fields = {
        "owner": mine.owner,
        "in_progress_expiration": mine.in_progress_expiration,
        "expiration": mine.expiration,
        "attempts": mine.attempts,
        **({"validation": mine.validation} if mine.validation else {}),
    }
    return _write(mine.id, condition, _seconds(mine.expiration, now), fields)


def complete(settlement: Complete, now: float) -> Write:
    """A held claim completed."""
    expiration = int(now) + settlement.ttl
    fields: dict[str, str | int | None] = {
        "status": COMPLETED,
        "data": settlement.data or NO_DATA,
        "expiration": expiration,
        "outputs": None,
    }
    return _write(settlement.id, ("held", settlement.owner), _seconds(expiration, now), fields)


def release(settlement: Release, now: float) -> Write:
    """A held claim given back. The owner stays, so that a lost answer can be told."""
    expiration = int(now) + settlement.ttl
    fields: dict[str, str | int | None] = {
        "in_progress_expiration": RELEASED,
        "expiration": expiration,
        "attempts": settlement.attempts,
        "outputs": settlement.outputs,
        "rejected": json.dumps(settlement.rejected) if settlement.rejected else None,
    }
    return _write(settlement.id, ("held", settlement.owner), _seconds(expiration, now), fields)


def forget(key: str, owner: str) -> Write:
    """A held claim removed."""
    return _write(key, ("held", owner), "", {})


def renew(renewal: Renewal, now: float) -> Write:
    """A held claim prolonged; refused, too, when it holds longer already."""
    lease = int(renewal.lease_until * 1000)
    expiration = expiration_of(now, renewal.ttl, renewal.lease_until)
    fields = {"in_progress_expiration": lease, "expiration": expiration}
    return _write(renewal.id, ("held", renewal.owner, str(lease)), _seconds(expiration, now), fields)


def advance(moved: Entry, now: float) -> Write:
    """A checkpoint, unless it stands there, or further on, already."""
    fields = {
        "position": moved.position,
        "status": moved.status,
        "data": moved.data,
        "expiration": moved.expiration,
    }
    return _write(moved.id, ("behind", moved.position or ""), _seconds(moved.expiration, now), fields)


def _fields(entry: Entry) -> dict[str, str | int | None]:
    return {
        "status": entry.status,
        "expiration": entry.expiration,
        "in_progress_expiration": entry.in_progress_expiration,
        "data": entry.data,
        "validation": entry.validation,
        "owner": entry.owner,
        "attempts": entry.attempts or None,
        "outputs": entry.outputs,
        "rejected": json.dumps(entry.rejected) if entry.rejected else None,
        "position": entry.position,
    }


def _write(key: str, condition: tuple[str, ...], seconds: str, fields: Mapping[str, str | int | None]) -> Write:
    padded = (*condition, "", "", "", "")[:5]
    return Write(key, (*padded, seconds, *(text for pair in fields.items() for text in (pair[0], _text(pair[1])))))


def _seconds(expiration: int, now: float) -> str:
    """How long the server keeps an entry. Relative, so that it does not matter what time the server has."""
    return str(min(max(expiration - int(now), 0) + GRACE, _LONGEST))


def _text(value: str | int | None) -> str:
    return "" if value is None else str(value)
