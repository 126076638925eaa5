"""Idempotency entries in a Valkey or Redis server.

Every write is conditional on the entry still being what it was taken for, by a script that the server runs
whole, and answers with the entry as it stands when it is not. The writes of records that run side by side
travel together: one round trip, however many they are.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from msgspec import Struct

from pipeline.aws.names import Resource
from pipeline.decisions.idempotency import (
    Advance,
    Busy,
    ClaimReply,
    ClaimRequest,
    Complete,
    Entry,
    Release,
    Renewal,
    Settlement,
    Step,
    claimed,
    created,
    found_by,
    refusal,
    step_of,
)
from pipeline.errors import ConfigurationError, StoreUnavailable
from pipeline.ports import Environment
from pipeline.stores import hashes
from pipeline.stores.hashes import Write
from pipeline.stores.protocol import advanced, is_done, is_held, taken_over
from pipeline.stores.redis_server import Address, address_of, server
from pipeline.telemetry import conventions

#: How often a claim looks again when the entry changes under its hands, before it calls it busy.
_LOOKS = 4


class Redis:
    """Keep entries in a Valkey or Redis server, 6.2 or later, one hash an entry. It needs the extra `redis`.

    Guarantee: that of `Claim`, as long as the server loses nothing. Price: two round trips a batch, of well under
    a millisecond each, and memory. What a server can lose: its last second in a crash with `appendfsync everysec`,
    the last writes in a failover, because replication is asynchronous, everything without persistence, and entries
    when its memory is full, unless its `maxmemory-policy` is `noeviction`. A record whose entry is lost runs again;
    when a live run's entry is lost, two of them may overlap. `stores.DynamoDB` loses none.

    `url`: `rediss://user:password@host:6379/0`; `valkeys://` is the same. Default: what the environment variable
    `variable` holds when the store is first used, so that no password stands in the code. `prefix`: of the keys.
    `ca`: a PEM file with the certificates to trust, default the system's. `insecure`: another machine may be
    reached without TLS (`redis://`). No clusters, and nothing is shared with Powertools' cache layer.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        variable: str = "REDIS_URL",
        prefix: str = "pipeline:",
        ca: str | None = None,
        insecure: bool = False,
    ) -> None:
        if not _is_text(prefix):
            raise ConfigurationError(f"stores.Redis(prefix={prefix!r}): give text that is not empty, or leave it out")
        if not _is_text(variable):
            raise ConfigurationError(f"stores.Redis(variable={variable!r}): give the name of an environment variable")
        if find_spec("valkey") is None:
            raise ConfigurationError("stores.Redis has no client library: install 'fanout-pipeline[redis]'")
        self._ca, self._insecure = ca, insecure
        self._variable, self._prefix = variable, prefix
        self._given = None if url is None else self._parsed(url, "stores.Redis(url)")

    def __repr__(self) -> str:
        return f"stores.Redis({self._given or f'variable={self._variable!r}'})"

    @property
    def described(self) -> Mapping[str, str]:
        """What the spans of its calls say of it."""
        return {conventions.STORE_SYSTEM: conventions.REDIS}

    @property
    def resource(self) -> Resource:
        """The server and the prefix, without credentials: who has the same shares the entries."""
        return Resource("redis", f"{self._given or self._variable}/{self._prefix}")

    @property
    def note(self) -> str:
        """What a deployment has to bring."""
        url = "" if self._given else f", the variable {self._variable}"
        return (
            f"keeps its idempotency entries in {self!r}, which no template declares: give the function a way to "
            f"the server (VpcConfig){url} and the extra 'redis'"
        )

    def check_local(self) -> None:
        """Raise `ConfigurationError` unless the server is on this machine: a local run reaches no other."""
        address = self._address()
        if not address.is_here:
            raise ConfigurationError(
                f"the idempotency store {address} is refused: a local run only ever talks to this machine. Leave url "
                f"out, and set {self._variable}=redis://127.0.0.1:6379/0 for the local run"
            )

    async def claim(
        self, requests: Sequence[ClaimRequest], environment: Environment
    ) -> Sequence[ClaimReply | StoreUnavailable]:
        """See the `IdempotencyStore` port."""
        claims = [_Claiming(request) for request in requests]
        waiting = claims
        for _ in range(_LOOKS):
            now = environment.clock.now()
            answers = await self._write([one.write(now) for one in waiting], environment)
            for one, answer in zip(waiting, answers, strict=True):
                one.answered(answer, now)
            waiting = [one for one in waiting if one.reply is None]
            if not waiting:
                break
        return [one.reply or Busy(environment.clock.now() + 1.0) for one in claims]

    async def settle(
        self, settlements: Sequence[Settlement], environment: Environment
    ) -> Sequence[bool | StoreUnavailable]:
        """See the `IdempotencyStore` port."""
        now = environment.clock.now()
        answers = await self._write([_settling(one, now) for one in settlements], environment)
        return [
            answer.is_written or is_done(settlement, answer.found) if isinstance(answer, _Answer) else answer
            for settlement, answer in zip(settlements, answers, strict=True)
        ]

    async def renew(self, renewals: Sequence[Renewal], environment: Environment) -> Sequence[bool | StoreUnavailable]:
        """See the `IdempotencyStore` port."""
        now = environment.clock.now()
        answers = await self._write([hashes.renew(renewal, now) for renewal in renewals], environment)
        return [
            answer.is_written or is_held(answer.found, renewal.owner) if isinstance(answer, _Answer) else answer
            for renewal, answer in zip(renewals, answers, strict=True)
        ]

    async def look(self, ids: Sequence[str], environment: Environment) -> Sequence[Entry | StoreUnavailable | None]:
        """See the `IdempotencyStore` port."""
        answers = await self._write([hashes.look(key) for key in ids], environment)
        return [answer.found if isinstance(answer, _Answer) else answer for answer in answers]

    async def mark(self, entries: Sequence[Entry], environment: Environment) -> Sequence[StoreUnavailable | None]:
        """See the `IdempotencyStore` port."""
        now = environment.clock.now()
        last = {entry.id: entry for entry in entries}
        answers = await self._write([hashes.put(entry, now) for entry in last.values()], environment)
        problems = dict(zip(last, answers, strict=True))
        return [None if isinstance(answer := problems[entry.id], _Answer) else answer for entry in entries]

    async def advance(self, advances: Sequence[Advance], environment: Environment) -> Sequence[bool | StoreUnavailable]:
        """See the `IdempotencyStore` port."""
        now = environment.clock.now()
        answers = await self._write([_advancing(one, now) for one in advances], environment)
        return [answer.is_written if isinstance(answer, _Answer) else answer for answer in answers]

    async def create(self, environment: Environment) -> None:
        """Nothing is to be made; a server that does not answer is `StoreUnavailable`."""
        try:
            await (await server(environment, self._address())).ping()
        except ConfigurationError as error:
            raise StoreUnavailable(str(error)) from None

    def _parsed(self, url: object, what: str) -> Address:
        return address_of(url, ca=self._ca, insecure=self._insecure, what=what)

    def _address(self) -> Address:
        if self._given is not None:
            return self._given
        return self._parsed(os.environ.get(self._variable), f"the environment variable {self._variable}")

    async def _write(self, writes: Sequence[Write], environment: Environment) -> list[_Answer | StoreUnavailable]:
        calls = [(self._prefix + write.id, *write.arguments) for write in writes]
        answers = await self._run(calls, environment)
        return [_answer_of(write.id, answer) for write, answer in zip(writes, answers, strict=True)]

    async def _run(self, calls: Sequence[tuple[str, ...]], environment: Environment) -> Sequence[Any]:
        """For each call of the script its answer. A server that cannot be had, or is not named, is everybody's."""
        if not calls:
            return []
        try:
            reached = await server(environment, self._address())
        except StoreUnavailable as error:
            return [error] * len(calls)
        except ConfigurationError as error:
            return [StoreUnavailable(str(error))] * len(calls)
        return await reached.run_script(calls)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


class _Answer(Struct, frozen=True, kw_only=True):
    """What came of a write that reached the server."""

    is_written: bool
    found: Entry | None = None  #: the entry that stood in its way


class _Claiming:
    """One run asking for one key: a conditional write, and decisions about what refused it."""

    def __init__(self, request: ClaimRequest) -> None:
        self._request = request
        self._found: Entry | None = None  #: what is taken over; None: nothing stands there
        self._mine: Entry | None = None  #: what was written last
        self.reply: ClaimReply | StoreUnavailable | None = None

    def write(self, now: float) -> Write:
        """The next write."""
        if self._found is None:
            self._mine = created(self._request, now)
            return hashes.put_new(self._mine, now)
        self._mine = taken_over(self._found, self._request, now)
        return hashes.take_over(self._found, self._mine, now)

    def answered(self, answer: _Answer | StoreUnavailable, now: float) -> None:
        """What came of it: the reply, or what to write next."""
        if isinstance(answer, StoreUnavailable):
            self.reply = answer
        elif answer.is_written:
            assert self._mine is not None, "a write is answered after it was made"
            self.reply = claimed(self._mine)
        else:
            self._decide(answer.found, now)

    def _decide(self, entry: Entry | None, now: float) -> None:
        step = step_of(found_by(self._request, entry, now), self._request)
        if entry is None or step is Step.CREATE:
            self._found = None
        elif step is Step.TAKE_OVER:
            self._found = entry
        else:
            # RUN: the answer to our own write was lost.
            self.reply = claimed(entry) if step is Step.RUN else refusal(step, entry)


def _settling(settlement: Settlement, now: float) -> Write:
    if isinstance(settlement, Complete):
        return hashes.complete(settlement, now)
    if isinstance(settlement, Release):
        return hashes.release(settlement, now)
    return hashes.forget(settlement.id, settlement.owner)


def _advancing(advance: Advance, now: float) -> Write:
    moved = advanced(None, advance, now)
    assert moved is not None, "where nothing stands a checkpoint moves"
    return hashes.advance(moved, now)


def _answer_of(key: str, answer: Any) -> _Answer | StoreUnavailable:
    if isinstance(answer, StoreUnavailable):
        return answer
    if answer == 1:
        return _Answer(is_written=True)
    try:
        return _Answer(is_written=False, found=hashes.entry_of(key, answer))
    except StoreUnavailable as error:
        return error
