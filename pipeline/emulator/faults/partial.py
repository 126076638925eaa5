"""Calls that succeed in part: some entries of a batch fail inside its 200, and are not done."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

Make = Callable[..., Awaitable[dict[str, Any]]]
_BUSY = "InternalFailure"


def _chosen(entries: Sequence[Any], chance: random.Random) -> list[bool]:
    """Which entries fail: at least one."""
    fails = [chance.random() < 0.5 for _ in entries]
    if entries and not any(fails):
        fails[chance.randrange(len(entries))] = True
    return fails


def _split(entries: Sequence[Any], fails: Sequence[bool]) -> tuple[list[Any], list[Any]]:
    kept = [entry for entry, failed in zip(entries, fails, strict=True) if not failed]
    return kept, [entry for entry, failed in zip(entries, fails, strict=True) if failed]


async def _sqs(parameters: Mapping[str, Any], chance: random.Random, make: Make) -> dict[str, Any]:
    """`Failed` of SQS's batch calls (API models of `SendMessageBatch` and its like)."""
    kept, failed = _split(parameters["Entries"], _chosen(parameters["Entries"], chance))
    answer = await make(**{**parameters, "Entries": kept}) if kept else {"Successful": []}
    said = [{"Id": one["Id"], "SenderFault": False, "Code": _BUSY, "Message": "try again"} for one in failed]
    return {**answer, "Failed": [*answer.get("Failed", []), *said]}


async def _listed(
    parameters: Mapping[str, Any],
    chance: random.Random,
    make: Make,
    entries: str,
    answers: str,
    error: Mapping[str, Any],
) -> dict[str, Any]:
    """An answer for each position, those that failed with an error; Kinesis and EventBridge count them too."""
    given = parameters[entries]
    fails = _chosen(given, chance)
    kept, _ = _split(given, fails)
    answer = await make(**{**parameters, entries: kept}) if kept else {}
    done = iter(answer.get(answers, []))
    found = [dict(error) if failed else next(done) for failed in fails]
    count = {name: answer.get(name, 0) + sum(fails) for name in _COUNTS.get(answers, ())}
    return {**answer, answers: found, **count}


async def _records(parameters: Mapping[str, Any], chance: random.Random, make: Make) -> dict[str, Any]:
    error = {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "Rate exceeded for shard"}
    return await _listed(parameters, chance, make, "Records", "Records", error)


async def _events(parameters: Mapping[str, Any], chance: random.Random, make: Make) -> dict[str, Any]:
    error = {"ErrorCode": "ThrottlingException", "ErrorMessage": "Rate exceeded"}
    return await _listed(parameters, chance, make, "Entries", "Entries", error)


async def _statements(parameters: Mapping[str, Any], chance: random.Random, make: Make) -> dict[str, Any]:
    error = {"Error": {"Code": "ThrottlingError", "Message": "try again"}}
    return await _listed(parameters, chance, make, "Statements", "Responses", error)


async def _items(parameters: Mapping[str, Any], chance: random.Random, make: Make) -> dict[str, Any]:
    """`UnprocessedItems` of BatchWriteItem."""
    given = [(table, request) for table, requests in parameters["RequestItems"].items() for request in requests]
    kept, failed = _split(given, _chosen(given, chance))
    answer = await make(**{**parameters, "RequestItems": _by_table(kept)}) if kept else {}
    left = [(table, one) for table, requests in answer.get("UnprocessedItems", {}).items() for one in requests]
    return {**answer, "UnprocessedItems": _by_table([*left, *failed])}


def _by_table(requests: Sequence[tuple[str, Any]]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for table, request in requests:
        found.setdefault(table, []).append(request)
    return found


#: What counts the failures, beside the answers.
_COUNTS = {"Records": ("FailedRecordCount",), "Entries": ("FailedEntryCount",)}

#: The calls that can succeed in part: each makes the call for some of its entries, at least one less than all, and answers
#: for all of them.
PARTIAL: Mapping[str, Callable[[Mapping[str, Any], random.Random, Make], Awaitable[dict[str, Any]]]] = {
    "sqs.send_message_batch": _sqs,
    "sqs.delete_message_batch": _sqs,
    "sqs.change_message_visibility_batch": _sqs,
    "kinesis.put_records": _records,
    "events.put_events": _events,
    "dynamodb.batch_execute_statement": _statements,
    "dynamodb.batch_write_item": _items,
}
