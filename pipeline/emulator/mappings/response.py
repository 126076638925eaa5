"""What a handler answered: the ids that it names. What they mean is each mapping's own matter. Pure."""

from __future__ import annotations

import json
from collections.abc import Set as AbstractSet
from typing import Any


class ResponseError(ValueError):
    """The response cannot be meant: the whole batch failed. The text says why."""


def named_failures(response: Any, ids: AbstractSet[str]) -> frozenset[str]:
    """The ids of the batch that a return value names, with ReportBatchItemFailures on.

    An empty response, or one without `batchItemFailures`, names none: complete success. Raises
    `ResponseError` for what is not JSON or not an object, and for an item without an id of this
    batch. (AWS says the last of queues only. For streams it does not say what an unknown sequence
    number means; there it is taken alike, because that loses nothing.)
    """
    return frozenset(_identifier(item, ids) for item in failure_items(response))


def failure_items(response: Any) -> list[Any]:
    """The members of a return value's `batchItemFailures`; none of an empty response, or of one without.

    Raises `ResponseError` for what is not JSON or not an object.
    """
    try:
        # What Lambda sees is the text: a value that has none is an error of the runtime's.
        response = json.loads(json.dumps(response, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ResponseError(f"the response cannot be written as JSON: {error}") from None
    if response is None:
        return []
    if not isinstance(response, dict):
        raise ResponseError(f"the response is not an object: {response!r:.80}")
    items = response.get("batchItemFailures")
    if items is None:
        return []
    if not isinstance(items, list):
        raise ResponseError(f"batchItemFailures is not a list: {items!r:.80}")
    return items


def _identifier(item: Any, ids: AbstractSet[str]) -> str:
    identifier = item.get("itemIdentifier") if isinstance(item, dict) else None
    if not isinstance(identifier, str) or not identifier:
        raise ResponseError(f"an item has no itemIdentifier: {item!r:.80}")
    if identifier not in ids:
        raise ResponseError(f"itemIdentifier {identifier!r:.80} is not in the batch")
    return identifier
