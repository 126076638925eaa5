"""What event source mappings have in common in a template."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pipeline.aws.cloudformation.stack import Reader, Stack, metric, part
from pipeline.aws.cloudformation.values import Noted, Ref


def reporting(why: str) -> dict[str, Any]:
    """Partial responses, and the counts of what the mapping does with records."""
    return {
        "FunctionResponseTypes": Noted(["ReportBatchItemFailures"], why),
        "MetricsConfig": Noted(
            {"Metrics": ["EventCount"]},
            "Counts what the mapping filters, gives up or drops, which is seen nowhere else.",
        ),
    }


def filtered(patterns: Sequence[Any], why: str) -> dict[str, Any]:
    """The filters, when there are any."""
    if not patterns:
        return {}
    filters = [{"Pattern": json.dumps(pattern, separators=(",", ":"))} for pattern in patterns]
    return {"FilterCriteria": Noted({"Filters": filters}, why)}


def counted(reader: Reader, name: str) -> dict[str, Any]:
    """A mapping's own metric, as a sum over five minutes."""
    return metric("AWS/Lambda", name, {"EventSourceMappingUUID": Ref(reader.mapping)}, "Sum", 300)


def watch_filter(stack: Stack, source: str, reader: Reader) -> None:
    """Add the alarm of a filter that lets nothing through."""
    threshold = Noted(
        1, "Whether everything is filtered out: then a pattern no longer fits the records, and none is handled."
    )
    stack.alarm(
        f"{reader.function}FiltersEverything",
        f"{source}: the filter lets nothing through any more",
        {
            "Metrics": [
                {"Id": "nothing", "Expression": "IF(FILL(filtered, 0) > 0 AND FILL(invoked, 0) == 0, 1, 0)"},
                part("filtered", counted(reader, "FilteredOutEventCount")),
                part("invoked", counted(reader, "InvokedEventCount")),
            ],
            "EvaluationPeriods": 3,
            "Threshold": threshold,
        },
    )
