"""What a handler answered: the ids that it names. What they mean is each mapping's own matter. Pure."""

from __future__ import annotations

import json
from collections.abc import Set as AbstractSet
from typing import Any

_SHAPE = '{"batchItemFailures": [{"itemIdentifier": ...}]}'


class ResponseError(ValueError):
    """The response cannot be meant: the whole batch failed. The text says why, and quotes nothing."""


def named_failures(response: Any, ids: AbstractSet[str]) -> frozenset[str]:
    """The ids of the batch that a return value names, with ReportBatchItemFailures on.

    None is complete success. Raises `ResponseError`, complete failure, as `failure_items` does, and for an item without
    an id of this batch (of streams AWS does not document what an unknown sequence number means; there it is taken alike,
    because that loses nothing).
    """
    return frozenset(_identifier(at, item, ids) for at, item in enumerate(failure_items(response)))


def failure_items(response: Any) -> list[Any]:
    """The members of a return value's `batchItemFailures`.

    Lambda developer guide, "Handling errors for an SQS event source in Lambda", and its pages on streams: an empty or null
    response, one without `batchItemFailures`, and an empty or null list have none. Raises `ResponseError` for what is
    not JSON, and, not documented, because that loses nothing, for JSON that is no object and for a list that is none.
    """
    try:
        # What Lambda sees is the text: a value that has none is an error of the runtime's.
        response = json.loads(json.dumps(response, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        raise ResponseError("the response cannot be written as JSON: return a dict, or None") from None
    if response is None:
        return []
    if not isinstance(response, dict):
        raise ResponseError(f"the response is {_kind(response)}: return {_SHAPE}, or None")
    items = response.get("batchItemFailures")
    if items is None:
        return []
    if not isinstance(items, list):
        raise ResponseError(f"batchItemFailures is {_kind(items)}: return {_SHAPE}")
    return items


def _identifier(at: int, item: Any, ids: AbstractSet[str]) -> str:
    where = f"batchItemFailures[{at}]"
    identifier = item.get("itemIdentifier") if isinstance(item, dict) else None
    if not isinstance(identifier, str) or not identifier:
        raise ResponseError(f"{where} has no itemIdentifier: return {_SHAPE}, with the record's id as a string")
    if identifier not in ids:
        raise ResponseError(f"the itemIdentifier of {where} is no record of this batch: give the record's own id")
    return identifier


def _kind(value: Any) -> str:
    """A JSON value's type, as JSON calls it."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return "a string"
    return "a boolean" if isinstance(value, bool) else "a number"
