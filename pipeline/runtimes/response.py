"""The one writer of `batchItemFailures`.

Lambda reads an empty, null or misspelt response as full success and an unknown id as full
failure, so nothing else in the toolkit writes one, and handlers cannot.
"""

from __future__ import annotations

from collections.abc import Sequence

PartialResponse = dict[str, list[dict[str, str]]]


def partial_response(unsettled_ids: Sequence[str]) -> PartialResponse:
    """The response that has the source deliver these records again, and no others.

    Source: AWS, "Implementing partial batch responses".
    """
    for identifier in unsettled_ids:
        if not identifier:
            raise ValueError("an empty itemIdentifier would fail the whole batch")
    return {"batchItemFailures": [{"itemIdentifier": identifier} for identifier in unsettled_ids]}
