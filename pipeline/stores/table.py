"""Calls to the table of idempotency entries: single writes, statements together, and reads.

What a call that succeeded as a whole left undone is tried again here, a few times and after full-jitter delays:
botocore does so only with whole calls. An error of a whole call counts for what was in that call.

What ends a run is tried for longer, also when whole calls are throttled: a claim that is given up costs a delivery, an
end that is given up another run. How much longer, the engine's hard deadline says: it cancels.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pipeline.aws.client import client, code_name, code_of, store_error
from pipeline.decisions.idempotency import Entry
from pipeline.errors import StoreUnavailable
from pipeline.ports import Environment
from pipeline.stores import items, statements

A = TypeVar("A")
K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

#: BatchGetItem: 100 keys a call; BatchWriteItem and BatchExecuteStatement: 25 (the service's model).
_READ, _WRITTEN = 100, 25
#: Bytes of a call. BatchWriteItem takes 16 MB, and for statements no limit is documented; this much, which kept outputs
#: of 300 KB do reach, is sent within a call's 10 seconds over a slow line too.
_CALL_BYTES = 1_000_000
#: How often something is tried that was left undone, claims and reads, and what ends a run; and the delays before, in
#: seconds: for an end some five in all, eleven at most.
_TRIES, _END_TRIES = 4, 10
_FIRST_DELAY, _LONGEST_DELAY = 0.1, 2.0
#: A whole call's errors after which an end is sent again: botocore gave it up after seconds.
_PASSING_CALLS = frozenset(
    {
        "InternalServerError",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "ThrottlingException",
        "TransactionConflictException",
    }
)
#: A statement's error by which it is worth trying again (`BatchStatementErrorCodeEnum` in the service's model).
_PASSING = frozenset(
    {
        "InternalServerError",
        "ProvisionedThroughputExceeded",
        "RequestLimitExceeded",
        "ThrottlingError",
        "TransactionConflict",
    }
)


@dataclass(frozen=True)
class Refused:
    """A conditional write that was not done, and the entry that stood in its way."""

    found: Entry | None
    is_read: bool = True  #: False: something stands there, and the answer does not say what


@dataclass(frozen=True)
class _Again:
    """It was left undone for now."""

    why: str


class Table:
    """One table, from one environment. Every answer is a value; trouble is `StoreUnavailable` at its position.

    `address`: its name or ARN. `name`: its name alone, which is all that statements can say.
    """

    def __init__(self, address: str, name: str, environment: Environment) -> None:
        self.name = name
        self._address = address
        self._environment = environment
        self._what = f"idempotency table '{address}'"

    @property
    def now(self) -> float:
        """Epoch seconds."""
        return self._environment.clock.now()

    async def write(self, operation: str, parameters: dict[str, Any], *, is_end: bool = False) -> Refused | None:
        """Do one write; None when it was done. Raises `StoreUnavailable`."""

        async def send(_: object) -> dict[str, Refused | StoreUnavailable | _Again | None]:
            return {operation: await self._write(operation, parameters, is_end)}

        answer = (await self._tried([operation], send, _END_TRIES if is_end else 1))[operation]
        if isinstance(answer, StoreUnavailable):
            raise answer
        return answer

    async def _write(
        self, operation: str, parameters: dict[str, Any], is_end: bool
    ) -> Refused | StoreUnavailable | _Again | None:
        try:
            dynamodb = await client(self._environment, "dynamodb")
            call = getattr(dynamodb, operation)
            await call(TableName=self._address, ReturnValuesOnConditionCheckFailure="ALL_OLD", **parameters)
        except Exception as error:
            if code_of(error) == "ConditionalCheckFailedException":
                return self._refused(getattr(error, "response", {}).get("Item"))
            return self._failed(error, is_end)
        return None

    async def execute(
        self, wanted: Sequence[statements.Statement], *, is_end: bool = False
    ) -> list[Refused | StoreUnavailable | None]:
        """Do writes together, in calls of 25 side by side; for each position None when it was done.

        All of them are about different entries: a call with two about one is refused as a whole.
        """

        async def send(positions: Sequence[int]) -> dict[int, Refused | StoreUnavailable | _Again | None]:
            sizes = [statements.size_of(wanted[position]) for position in positions]
            answers: dict[int, Refused | StoreUnavailable | _Again | None] = {}
            chunks = _chunks(positions, sizes, _WRITTEN)
            for answer in await together(
                self._execute(chunk, [wanted[position] for position in chunk], is_end) for chunk in chunks
            ):
                answers.update(answer)
            return answers

        # Claims wait for one another no longer than they must: their leases have begun.
        answers = await self._tried(
            range(len(wanted)), send, _END_TRIES if is_end else _TRIES, counts_progress=not is_end
        )
        return [answers[position] for position in range(len(wanted))]

    async def _execute(
        self, positions: Sequence[int], wanted: Sequence[statements.Statement], is_end: bool
    ) -> dict[int, Refused | StoreUnavailable | _Again | None]:
        try:
            dynamodb = await client(self._environment, "dynamodb")
            answer = await dynamodb.batch_execute_statement(Statements=wanted)
        except Exception as error:
            return dict.fromkeys(positions, self._failed(error, is_end))
        answers = [self._answer(one.get("Error")) for one in answer["Responses"]]
        return dict(zip(positions, answers, strict=True))

    def _answer(self, error: Mapping[str, Any] | None) -> Refused | StoreUnavailable | _Again | None:
        """What became of one statement. Its error's message is left out: it may quote what was written."""
        if error is None:
            return None
        code, item = code_name(error.get("Code")) or "unknown error", error.get("Item")
        if code in ("ConditionalCheckFailed", "DuplicateItem"):
            # A refused INSERT is not documented to bring the item, nor not to.
            return self._refused(item, is_read=bool(item) or code == "ConditionalCheckFailed")
        return _Again(code) if code in _PASSING else StoreUnavailable(f"{self._what}: {code}")

    def _refused(self, item: items.Item | None, *, is_read: bool = True) -> Refused | StoreUnavailable:
        try:
            return Refused(items.entry_of(item), is_read)
        except StoreUnavailable as odd:
            return odd

    async def read(self, ids: Sequence[str]) -> list[Entry | StoreUnavailable | None]:
        """The entries, read consistently, in calls of 100 side by side."""

        async def send(keys: Sequence[str]) -> dict[str, Entry | StoreUnavailable | _Again | None]:
            found: dict[str, Entry | StoreUnavailable | _Again | None] = {}
            for answer in await together(map(self._read, _chunks(keys, [0] * len(keys), _READ))):
                found.update(answer)
            return found

        found = await self._tried(list(dict.fromkeys(ids)), send, _TRIES)
        return [found[key] for key in ids]

    async def _read(self, ids: Sequence[str]) -> dict[str, Entry | StoreUnavailable | _Again | None]:
        asked = {"Keys": [{items.ID: items.text(key)} for key in ids], "ConsistentRead": True}
        found: dict[str, Entry | StoreUnavailable | _Again | None] = dict.fromkeys(ids)
        try:
            dynamodb = await client(self._environment, "dynamodb")
            answer = await dynamodb.batch_get_item(RequestItems={self._address: asked})
        except Exception as error:
            return dict.fromkeys(ids, self._failed(error, is_end=False))
        for item in _all(answer["Responses"]):  # by the table's name, also when it was asked for by its ARN
            try:
                found[item[items.ID]["S"]] = items.entry_of(item)
            except StoreUnavailable as odd:
                found[item[items.ID]["S"]] = odd
        for left in answer.get("UnprocessedKeys", {}).values():
            found.update((key[items.ID]["S"], _Again("entries were left unread")) for key in left["Keys"])
        return found

    async def replace(self, entries: Sequence[Entry]) -> list[StoreUnavailable | None]:
        """Write entries whole, in calls of 25 side by side; of two with one id the last one stands."""
        last = {entry.id: items.item_of(entry) for entry in entries}

        async def send(keys: Sequence[str]) -> dict[str, StoreUnavailable | _Again | None]:
            sizes = [sum(len(text.encode()) for value in last[key].values() for text in value.values()) for key in keys]
            done: dict[str, StoreUnavailable | _Again | None] = {}
            for answer in await together(
                self._replace({key: last[key] for key in chunk}) for chunk in _chunks(keys, sizes, _WRITTEN)
            ):
                done.update(answer)
            return done

        done = await self._tried(list(last), send, _END_TRIES)
        return [done[entry.id] for entry in entries]

    async def _replace(self, whole: Mapping[str, items.Item]) -> dict[str, StoreUnavailable | _Again | None]:
        requests = [{"PutRequest": {"Item": item}} for item in whole.values()]
        try:
            dynamodb = await client(self._environment, "dynamodb")
            answer = await dynamodb.batch_write_item(RequestItems={self._address: requests})
        except Exception as error:
            return dict.fromkeys(whole, self._failed(error, is_end=True))
        done: dict[str, StoreUnavailable | _Again | None] = dict.fromkeys(whole)
        for left in _all(answer.get("UnprocessedItems", {})):
            done[left["PutRequest"]["Item"][items.ID]["S"]] = _Again("entries were left unwritten")
        return done

    async def _tried(
        self,
        keys: Sequence[K],
        send: Callable[[Sequence[K]], Awaitable[Mapping[K, A | _Again]]],
        tries: int,
        *,
        counts_progress: bool = False,
    ) -> dict[K, A | StoreUnavailable]:
        """The answers to `send`, which is asked again about what it left undone, until `tries` rounds brought nothing.

        One that brought something counts only where `counts_progress`: of large entries, a call reads and writes as many
        as fit. Each of those leaves less to be asked for.
        """
        answers: dict[K, A | StoreUnavailable] = {}
        left = keys
        spent = rounds = 0
        while left:
            if rounds:
                longest = min(_LONGEST_DELAY, _FIRST_DELAY * 2.0 ** max(spent - 1, 0))
                await self._environment.clock.sleep(self._environment.chance() * longest)
            again: dict[K, _Again] = {}
            for key, answer in (await send(left)).items():
                if isinstance(answer, _Again):
                    again[key] = answer
                else:
                    answers[key] = answer
            rounds += 1
            if counts_progress or len(again) == len(left):
                spent += 1
            if spent == tries:
                told = {key: f"{self._what}: {one.why}, {_times(rounds)}" for key, one in again.items()}
                return {**answers, **{key: StoreUnavailable(text) for key, text in told.items()}}
            left = list(again)
        return answers

    def _failed(self, error: Exception, is_end: bool) -> StoreUnavailable | _Again:
        """A whole call's error. What DynamoDB says about a call that it finds invalid may quote what was in it."""
        code = code_of(error)
        if code == "ValidationException":
            return StoreUnavailable(f"{self._what}: ValidationException")
        if is_end and code in _PASSING_CALLS:
            return _Again(code or "")
        return store_error(error, self._what)


async def together(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run the calls to their ends, side by side; then raise the first error, if any: none is left running."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _all(by_table: Mapping[str, list[Any]]) -> list[Any]:
    return [one for some in by_table.values() for one in some]


def _chunks(values: Sequence[T], sizes: Sequence[int], count: int) -> list[list[T]]:
    """The values in order, in parts of at most `count` and of at most a call's bytes, or one that is larger alone."""
    chunks: list[list[T]] = []
    held = 0
    for value, size in zip(values, sizes, strict=True):
        if not chunks or len(chunks[-1]) == count or held + size > _CALL_BYTES:
            chunks.append([])
            held = 0
        chunks[-1].append(value)
        held += size
    return chunks
