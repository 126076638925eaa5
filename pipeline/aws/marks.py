"""Items that carry marks: each record's items are written together with its mark, and once.

The marks are a list of texts in the reserved member, `_pipeline.marks`, the newest last. Whatever takes the
member off takes them off too, and what reads it for an id and hops passes over them.

A write is conditional on the marks being what they were taken for, at first: none. When it is refused, the old
item comes back. Either it has our mark, and the effect had been written before; or other keys wrote it, and we
write again with their marks and ours. So every write follows on a state in which ours was missing, and of two
writes that saw the same state one is refused: no mark is lost, and no effect is written twice.

Why a lost answer counts as a repeat: when a try was carried out and its answer was lost, the next one finds our
own mark. That is False, although this very call wrote it, because an overlapping run of the same key leaves the same mark
and the item does not say whose it is. Whoever asked may settle the record either way, so it would only be
told apart for the logs, at the price of a token in every item. (Of a transaction the client's own retries are told
apart: see `_transact`.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Hashable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from pipeline.aws.client import CONNECTIONS, client, code_name, code_of, sink_error
from pipeline.aws.dynamodb import MAX_ITEM, Attribute, item_size
from pipeline.decisions import wire
from pipeline.decisions.deadline import Deadline
from pipeline.errors import SinkError, SinkRefused, SinkUnavailable
from pipeline.ports import Environment

#: The list's name in the reserved member. Deployed tables hold it: it never changes.
MARKS = "marks"
#: Marks that an item keeps: of as many other keys, a late repeat is still recognised.
MAX_MARKS = 100
#: TransactWriteItems: 100 actions and 4 MB, by which the service means 4 MiB.
MAX_ITEMS, MAX_TRANSACTION = 100, 4_194_304

#: How often one effect is tried when calls fail, each time with the client's own retries.
TRIES = 5
#: How often it is tried in all. Of those that write one item at the same moment one wins each time.
LOOKS = 10
_FIRST_DELAY, _LONGEST_DELAY = 0.1, 2.0

#: Why a transaction was cancelled, where another try would be cancelled as well.
_HOPELESS = frozenset({"ItemCollectionSizeLimitExceeded", "ValidationError"})
_REFUSED_BY_CONDITION = "ConditionalCheckFailed"
_NAMES = {"#member": wire.MEMBER, "#marks": MARKS}

Item = Mapping[str, Attribute]


class Write(Struct, frozen=True, kw_only=True):
    """One effect: items of one table that are written together with a mark, all or none."""

    mark: str
    items: tuple[Item, ...] = ()
    keys: tuple[Hashable, ...] = ()  #: the items' primary keys, as far as they are known
    error: SinkError | None = None  #: it cannot even be sent


def write_of(mark: str, items: Sequence[Item], keys: Sequence[Hashable]) -> Write:
    """The write of items with these primary keys; it has an error when DynamoDB cannot write them together."""
    return Write(mark=mark, items=tuple(items), keys=tuple(keys), error=_problem(items, keys))


async def write_once(
    table: str, writes: Sequence[Write], environment: Environment, deadline: Deadline
) -> list[bool | SinkError]:
    """For each write True when it was done now, False when it had been done before, or why it was not.

    Writes go side by side, and those with an item in common one after the other, in the order given.
    """
    gate = asyncio.Semaphore(CONNECTIONS)
    last: dict[Hashable, asyncio.Task[bool | SinkError]] = {}
    tasks: list[asyncio.Task[bool | SinkError]] = []
    for write in writes:
        ahead = {last[key] for key in write.keys if key in last}
        writing = _Writing(table, write, environment, deadline)
        tasks.append(asyncio.create_task(_in_turn(writing, ahead, gate)))
        last.update(dict.fromkeys(write.keys, tasks[-1]))
    answers: list[bool | SinkError] = []
    for answer in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(answer, BaseException) and not isinstance(answer, SinkError):
            raise answer
        answers.append(answer)
    return answers


async def _in_turn(
    writing: _Writing, ahead: set[asyncio.Task[bool | SinkError]], gate: asyncio.Semaphore
) -> bool | SinkError:
    if writing.write.error is None and not ahead:
        async with gate:
            return await writing.run()
    for error in [answer for answer in await asyncio.gather(*ahead) if isinstance(answer, SinkError)]:
        return writing.write.error or SinkUnavailable(f"an earlier write of the same item was not accepted: {error}")
    if writing.write.error is not None:
        return writing.write.error
    if not writing.has_time(0.0):
        return SinkUnavailable("no time was left to write it")
    async with gate:
        return await writing.run()


class _Writing:
    """One write on its way: what is known of the marks on its items, and the next try."""

    def __init__(self, table: str, write: Write, environment: Environment, deadline: Deadline) -> None:
        self.write = write
        self._table = table
        self._environment = environment
        self._deadline = deadline
        self._seen: list[Attribute | None] = [None] * len(write.items)

    async def run(self) -> bool | SinkError:
        """Try until it is known how it ended, or until time or patience are used up."""
        call = self._put if len(self.write.items) == 1 else self._transact
        failures = 0
        answer: bool | SinkError = True  # nothing to write is written
        for number in range(LOOKS if self.write.items else 0):
            answer = await _answer(call())
            if not isinstance(answer, SinkUnavailable):
                return answer
            failures += not isinstance(answer, _Changed)
            # That another key wrote the item before is the usual case, and nothing to wait for.
            delay = 0.0 if isinstance(answer, _Changed) and number == 0 else self._delay(number)
            if failures == TRIES or number == LOOKS - 1 or not self.has_time(delay):
                break
            if delay:
                await self._environment.clock.sleep(delay)
        return answer

    def has_time(self, delay: float) -> bool:
        """True when the deadline lets it try again after a delay, in seconds."""
        left = self._deadline.left(self._environment.clock.monotonic())
        return left is None or left > delay

    def _delay(self, number: int) -> float:
        return self._environment.chance() * min(_LONGEST_DELAY, _FIRST_DELAY * 2.0**number)

    async def _put(self) -> bool | SinkError:
        (put,) = self._puts()
        try:
            service = await client(self._environment, "dynamodb")
            await service.put_item(**put)
        except Exception as error:
            if code_of(error) != "ConditionalCheckFailedException":
                raise sink_error(error, "DynamoDB PutItem") from None
            self._see(0, _response(error).get("Item"))
            return self._found()
        return True

    async def _transact(self) -> bool | SinkError:
        """All items in one transaction.

        The client gives each call a random `ClientRequestToken`, as botocore does, so that its own retries of a lost answer
        are answered as the first try would have been. One made of our mark would be worse: for 10 minutes a repeat would look like a
        first write, and be an error as soon as other marks stand beside ours.
        """
        puts = self._puts()
        try:
            service = await client(self._environment, "dynamodb")
            await service.transact_write_items(TransactItems=[{"Put": put} for put in puts])
        except Exception as error:
            if code_of(error) != "TransactionCanceledException":
                raise sink_error(error, "DynamoDB TransactWriteItems") from None
            return self._cancelled(_response(error).get("CancellationReasons") or [])
        return True

    def _cancelled(self, reasons: Sequence[Mapping[str, Any]]) -> bool | SinkError:
        """What a cancelled transaction means; its reasons are in the order of the items."""
        others: dict[str, str] = {}
        for position, reason in enumerate(reasons):
            code = code_name(reason.get("Code")) or "None"
            if code == _REFUSED_BY_CONDITION:
                self._see(position, reason.get("Item"))
            elif code != "None":
                others[code] = f"DynamoDB TransactWriteItems: {code}: {reason.get('Message') or 'no message'}"
        found = self._found()
        if found is False or (reasons and not others):
            return found
        for code in sorted(_HOPELESS & others.keys()):
            return SinkRefused(others[code])
        return SinkUnavailable(next(iter(others.values()), "DynamoDB TransactWriteItems: cancelled without a reason"))

    def _see(self, position: int, item: Item | None) -> None:
        self._seen[position] = (item or {}).get(wire.MEMBER, {}).get("M", {}).get(MARKS)

    def _found(self) -> bool | SinkError:
        """After a refusal: False when ours is among the marks. One item that has it shows that all were written."""
        return False if any(self.write.mark in _texts(seen) for seen in self._seen) else _Changed()

    def _puts(self) -> list[dict[str, Any]]:
        """The items with our mark behind those that were seen, each on condition that they still stand there.

        Raises `SinkRefused` when the marks make an item, or all of them together, too large.
        """
        items = [
            marked(item, [*_texts(seen), self.write.mark])
            for item, seen in zip(self.write.items, self._seen, strict=True)
        ]
        sizes = [item_size(item) for item in items]
        if max(sizes) > MAX_ITEM:
            raise SinkRefused(f"{max(sizes):,} bytes with its marks: DynamoDB takes {MAX_ITEM:,} an item")
        if len(items) > 1 and sum(sizes) > MAX_TRANSACTION:
            raise SinkRefused(_too_much(f"{sum(sizes):,} bytes", f"{MAX_TRANSACTION:,}"))
        return [self._on_condition(item, seen) for item, seen in zip(items, self._seen, strict=True)]

    def _on_condition(self, item: Item, seen: Attribute | None) -> dict[str, Any]:
        # "None" is true of an item that is missing as well as of one without marks.
        condition = "attribute_not_exists(#member.#marks)" if seen is None else "#member.#marks = :seen"
        values = {} if seen is None else {"ExpressionAttributeValues": {":seen": seen}}
        return {
            "TableName": self._table,
            "Item": item,
            "ConditionExpression": condition,
            "ExpressionAttributeNames": _NAMES,
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            **values,
        }


class _Changed(SinkUnavailable):
    """The marks are not what they were taken for; what they are now is known."""

    def __init__(self) -> None:
        super().__init__("others write the same item at the same moment: it changed under every try")


def marked(item: Item, marks: Sequence[str]) -> dict[str, Attribute]:
    """An item with the newest of these marks in its reserved member."""
    texts = [{"S": mark} for mark in marks[-MAX_MARKS:]]
    return {**item, wire.MEMBER: {"M": {**item.get(wire.MEMBER, {"M": {}})["M"], MARKS: {"L": texts}}}}


def _texts(marks: Attribute | None) -> list[str]:
    """The marks in what stands in their place; a stranger's value holds none."""
    return [mark["S"] for mark in (marks or {}).get("L", []) if "S" in mark]


def _problem(items: Sequence[Item], keys: Sequence[Hashable]) -> SinkRefused | None:
    """Why items can never be written together."""
    if any("M" not in item.get(wire.MEMBER, {"M": {}}) for item in items):
        return SinkRefused(
            f"the member '{wire.MEMBER}' is reserved: Fused keeps its marks there; give yours another name"
        )
    if len(items) > MAX_ITEMS:
        return SinkRefused(_too_much(f"{len(items):,} items", str(MAX_ITEMS)))
    if len(set(keys)) < len(keys):
        return SinkRefused(
            "one record's outputs hold an item twice, which no transaction takes: return each item once, "
            "or use Claim instead of Fused"
        )
    return None


def _too_much(found: str, limit: str) -> str:
    return f"{found} of one record: a transaction takes {limit}; return fewer, or use Claim instead of Fused"


def _response(error: Exception) -> Mapping[str, Any]:
    response: Mapping[str, Any] = getattr(error, "response", {})
    return response


async def _answer(call: Awaitable[bool | SinkError]) -> bool | SinkError:
    try:
        return await call
    except SinkError as error:
        return error
