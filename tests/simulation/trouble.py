"""What befalls the whole in virtual time: calls that are throttled, lost or half done, processes that die, lost answers.

Everything acts between things that are the product's own: between an execution environment and the services in memory,
between a mapping and its function, between a queue and its mapping. All chance comes from one `random.Random`.

What costs a record an attempt or a receive is budgeted for the whole run, so that a healthy record that is given up is
always a bug; and everything ends after a while, so that all can come to rest.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NoReturn

from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError

from pipeline.emulator.driver import Invocable, Look, QueuePort
from pipeline.emulator.functions.engine import EngineSandbox
from pipeline.emulator.functions.function import Invocation
from pipeline.emulator.mappings.actions import Message, Receive
from pipeline.emulator.mappings.answers import Answer, Throttled, Unheard

#: Odds of each kind, of a call or of an invocation, in each profile.
PROFILES: Mapping[str, Mapping[str, float]] = {
    "none": {},
    "duplicates": {"duplicate": 0.5, "too early": 0.1, "shuffled": 1.0},
    "crashes": {
        "cut off": 0.15,
        "kill before": 0.04,
        "kill after": 0.04,
        "kill in the handler": 0.04,
        "lost answer": 0.05,
    },
    "throttles": {"outage": 0.3, "throttled call": 0.15, "half done": 0.3, "throttled": 0.05, "done, and lost": 0.08},
    "slow": {"slow call": 0.1, "hanging call": 0.03, "slow handler": 0.05, "late answer": 0.05, "skew": 1.0},
    "everything": {
        "outage": 0.1,
        "duplicate": 0.3,
        "too early": 0.03,
        "cut off": 0.1,
        "shuffled": 0.5,
        "kill before": 0.01,
        "kill after": 0.01,
        "kill in the handler": 0.01,
        "lost answer": 0.03,
        "throttled call": 0.06,
        "half done": 0.1,
        "throttled": 0.03,
        "done, and lost": 0.04,
        "slow call": 0.03,
        "hanging call": 0.01,
        "slow handler": 0.02,
        "late answer": 0.02,
        "skew": 0.5,
    },
}
#: Virtual seconds after which nothing goes wrong any more.
FAULTY_SECONDS = 120.0
#: Kinds that may cost the records that they meet an attempt, or a receive.
_COSTLY = frozenset(
    {
        "kill before",
        "kill after",
        "kill in the handler",
        "lost answer",
        "throttled",
        "late answer",
        "too early",
        "cut off",
        "hanging call",
    }
)
#: A wall clock is wrong by so many seconds at most: leases end later by more than that.
MAX_SKEW = 1.0


@dataclass
class Trouble:
    """What goes wrong in one run."""

    chance: random.Random
    profile: str
    budget: int  #: so many costly ones
    now: Callable[[], float]
    note: Callable[[str], None]
    counts: Counter[str] = field(default_factory=Counter)
    places: list[Place] = field(default_factory=list)
    outages: list[tuple[str, float, float]] = field(default_factory=list)  #: what, from when to when
    is_over: bool = False  #: the run has come to its end; what is left is only to be cleared away

    def __post_init__(self) -> None:
        for what in ("-dlq", "ledger", "events"):
            if self.strikes("outage"):
                begin = self.chance.uniform(0, 20)
                self.outages.append((what, begin, begin + self.chance.uniform(10, 90)))

    def strikes(self, kind: str) -> bool:
        """Does this kind of fault happen here and now?"""
        odds = PROFILES[self.profile].get(kind, 0.0)
        if not odds or self.now() > FAULTY_SECONDS or self.chance.random() >= odds:
            return False
        if kind in _COSTLY:
            if self.budget <= 0:
                return False
            self.budget -= 1
        self.counts[kind] += 1
        return True

    def is_out(self, service: str, operation: str, parameters: Mapping[str, Any]) -> bool:
        """Is what this call is for out of reach for everybody?"""
        what = "ledger" if operation == "batch_write_item" else str(parameters.get("QueueUrl", ""))
        return any(name in what and begin <= self.now() < end for name, begin, end in self.outages)

    def first_of(self, *kinds: str) -> str | None:
        """The first of these kinds that happens."""
        return next((kind for kind in kinds if self.strikes(kind)), None)

    def new_place(self) -> Place:
        """An execution environment that is being made."""
        skew = self.chance.uniform(-MAX_SKEW, MAX_SKEW) if self.strikes("skew") else 0.0
        place = Place(self, f"e{len(self.places) + 1}", skew)
        self.places.append(place)
        return place


@dataclass(eq=False)
class Place:
    """An execution environment: where it is killed, and what stands between it and the services."""

    trouble: Trouble
    name: str
    skew: float
    is_dead: bool = False
    troubled_at: float = float("-inf")  #: when its store last did not answer in time
    cut_off_until: float = float("-inf")  #: its store is out of reach until then
    sandbox: EngineSandbox | None = None
    world: Any = None  #: whose handlers run there

    async def die(self) -> NoReturn:
        """As SIGKILL."""
        if not self.is_dead:
            self.is_dead = True
            self.trouble.note(f"{self.name} is killed")
            assert self.sandbox is not None
            self.sandbox.kill()
        return await self.never()

    async def never(self) -> NoReturn:
        """A dead process's place."""
        if self.trouble.is_over:
            raise asyncio.CancelledError
        await asyncio.Event().wait()
        raise AssertionError

    async def around(
        self, service: str, operation: str, parameters: Mapping[str, Any], call: Callable[[], Awaitable[dict[str, Any]]]
    ) -> dict[str, Any]:
        """Stands between its clients and the services."""
        if self.is_dead:
            await self.never()
        CALLER.set(self)
        trouble = self.trouble
        kinds = ["kill before", "throttled call", "slow call", "hanging call", "done, and lost", "kill after"]
        if operation in _PARTIAL:
            kinds.append("half done")
        if service == "dynamodb" and trouble.now() < self.cut_off_until:
            self.troubled_at = trouble.now()
            await asyncio.sleep(0.2)
            raise EndpointConnectionError(endpoint_url=f"https://{service}")
        if trouble.is_out(service, operation, parameters):
            trouble.counts["call in an outage"] += 1
            await asyncio.sleep(0.01)
            raise _throttled(operation)
        kind = trouble.first_of(*kinds)
        where = f"{service}.{operation}"
        if kind is not None:
            trouble.note(f"{self.name} {where}: {kind}")
            if service == "dynamodb":
                self.troubled_at = trouble.now()
        seconds = {"slow call": trouble.chance.uniform(1, 6), "hanging call": 60.0}
        await asyncio.sleep(seconds.get(kind or "", trouble.chance.choice([0.004, 0.01])))
        if self.is_dead:
            await self.never()
        if kind == "kill before":
            await self.die()
        if kind == "throttled call":
            raise _throttled(operation)
        answer = await (_half(operation, parameters, call, trouble.chance) if kind == "half done" else call())
        if kind == "kill after" or self.is_dead:
            await self.die()
        if kind == "done, and lost":
            raise ReadTimeoutError(endpoint_url=f"https://{service}")
        if kind == "slow call" and service == "dynamodb":
            self.troubled_at = trouble.now()
        return answer


#: The environment in which the running task is, and the one that makes the running call.
HERE: ContextVar[Place] = ContextVar("HERE")
CALLER: ContextVar[Place] = ContextVar("CALLER")
#: Operations whose answers may refuse some of their entries.
_PARTIAL = frozenset(
    {"batch_write_item", "change_message_visibility_batch", "delete_message_batch", "put_records", "send_message_batch"}
)


class Placed(EngineSandbox):
    """A sandbox whose handlers know where they are."""

    place: Place

    async def invoke(self, invocation: Invocation) -> Any:
        """See `Sandbox`."""
        HERE.set(self.place)
        return await super().invoke(invocation)


class Troubled:
    """A function whose invocations may be throttled, and whose answers late or lost. `visibility`: seconds, of its queue."""

    def __init__(self, inner: Invocable, trouble: Trouble, visibility: float, heard: Callable[[Answer], None]) -> None:
        self.inner = inner
        self.trouble = trouble
        self.visibility = visibility
        self.heard = heard  #: gets each answer as the mapping gets it

    async def invoke(self, event: Any) -> Answer:
        """See `Invocable`."""
        trouble = self.trouble
        if trouble.strikes("throttled"):
            trouble.note("an invocation is throttled")
            return Throttled()
        kind = trouble.first_of("lost answer", "late answer")
        answer = await self.inner.invoke(event)
        if kind is not None:
            trouble.note(f"a {kind}")
        if kind == "late answer":
            await asyncio.sleep(self.visibility * trouble.chance.uniform(0.5, 1.2))
        if kind == "lost answer":
            return Unheard()
        self.heard(answer)
        return answer


class Repeating:
    """A standard queue that sometimes hands out again what it had handed out, whatever became of it."""

    def __init__(self, inner: QueuePort, trouble: Trouble) -> None:
        self.inner = inner
        self.trouble = trouble
        self.last: list[Message] = []

    async def receive(self, wanted: Receive, look: Look) -> Sequence[Message]:
        """See `QueuePort`."""
        found = list(await self.inner.receive(wanted, look))
        if found and len(found) < wanted.count and self.last and self.trouble.strikes("duplicate"):
            again = self.trouble.chance.choice(self.last)
            if again.id not in {message.id for message in found}:
                self.trouble.note(f"{again.id} is handed out once more")
                found.append(again)
        self.last = [*self.last, *found][-20:]
        return found

    async def delete(self, messages: Sequence[Message]) -> None:
        """See `QueuePort`."""
        await self.inner.delete(messages)


def _throttled(operation: str) -> ClientError:
    error = {"Error": {"Code": "ThrottlingException", "Message": "Rate exceeded"}}
    return ClientError({**error, "ResponseMetadata": {"HTTPStatusCode": 400}}, operation)  # type: ignore[typeddict-item]


async def _half(
    operation: str, parameters: Any, call: Callable[[], Awaitable[dict[str, Any]]], chance: random.Random
) -> dict[str, Any]:
    """The call, done for some of its entries; the others are refused inside its answer."""
    if operation.endswith("_batch") and "Entries" in parameters:
        kept, left = _parted(parameters["Entries"], chance)
        refused = [{"Id": entry["Id"], "SenderFault": False, "Code": "InternalError"} for entry in left]
        if not kept:
            return {"Successful": [], "Failed": refused}
        parameters["Entries"] = kept
        answer = await call()
        return {**answer, "Failed": [*answer.get("Failed", []), *refused]}
    if operation == "put_records":
        return await _half_put(parameters, call, chance)
    if operation == "batch_write_item":
        return await _half_written(parameters, call, chance)
    return await call()


async def _half_put(parameters: Any, call: Callable[[], Awaitable[Any]], chance: random.Random) -> dict[str, Any]:
    records = parameters["Records"]
    kept = [chance.random() < 0.5 for _ in records]
    parameters["Records"] = [record for record, is_kept in zip(records, kept, strict=True) if is_kept]
    answer = await call() if any(kept) else {"Records": []}
    done = iter(answer["Records"])
    refused = {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "Rate exceeded"}
    members = [next(done) if is_kept else dict(refused) for is_kept in kept]
    return {**answer, "Records": members, "FailedRecordCount": sum("ErrorCode" in member for member in members)}


async def _half_written(parameters: Any, call: Callable[[], Awaitable[Any]], chance: random.Random) -> dict[str, Any]:
    ((table, requests),) = parameters["RequestItems"].items()
    kept, left = _parted(requests, chance)
    if not kept:
        return {"UnprocessedItems": {table: left}}
    parameters["RequestItems"] = {table: kept}
    answer = await call()
    return {**answer, "UnprocessedItems": {table: left} if left else {}}


def _parted(entries: Sequence[Any], chance: random.Random) -> tuple[list[Any], list[Any]]:
    chosen = [chance.random() < 0.5 for _ in entries]
    return (
        [entry for entry, is_kept in zip(entries, chosen, strict=True) if is_kept],
        [entry for entry, is_kept in zip(entries, chosen, strict=True) if not is_kept],
    )
