"""What event source mappings have in common in a template."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pipeline.aws.cloudformation.stack import Reader, Series, Stack, metric, part
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


def counted(reader: Reader, name: str, period: int = 300) -> dict[str, Any]:
    """A mapping's own metric, as a sum over a period in seconds."""
    return metric("AWS/Lambda", name, {"EventSourceMappingUUID": Ref(reader.mapping)}, "Sum", period)


def watch_filter(stack: Stack, source: str, reader: Reader) -> None:
    """Add the alarm of a filter that lets nothing through for a day, and the graph of what it keeps out."""
    threshold = Noted(
        1,
        "Whether everything of an hour was filtered out. A day of such hours means that a pattern no longer fits the\n"
        "records; a shorter time may only mean that nothing happened.",
    )
    stack.alarm(
        f"{reader.function}FiltersEverything",
        f"{source}: the filter has let nothing through for a day",
        {
            "Metrics": [
                {"Id": "nothing", "Expression": "IF(FILL(filtered, 0) > 0 AND FILL(invoked, 0) == 0, 1, 0)"},
                part("filtered", counted(reader, "FilteredOutEventCount", 3_600)),
                part("invoked", counted(reader, "InvokedEventCount", 3_600)),
            ],
            "EvaluationPeriods": 24,
            "Threshold": threshold,
        },
    )
    dimensions = {"EventSourceMappingUUID": Ref(reader.mapping)}
    counts = [
        Series(namespace="AWS/Lambda", metric=name, dimensions=dimensions)
        for name in ("FilteredOutEventCount", "InvokedEventCount")
    ]
    stack.graph(reader.function, f"{source}: filtered out, and let through", counts)
