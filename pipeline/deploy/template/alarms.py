"""Who hears of what: a function's alarms on Lambda's metrics and on the toolkit's, and its graphs."""

from __future__ import annotations

from typing import Any

from pipeline.aws.cloudformation.stack import TRACE, Series, Stack, metric, part
from pipeline.aws.cloudformation.values import Noted, Ref
from pipeline.engine.stage import Stage
from pipeline.telemetry.measures import OUTCOMES, sink_names


def watch_function(stage: Stage, function: str, stack: Stack) -> None:
    """Lambda's own metrics of the function, by its logical id."""
    timeout = stage.deploy.timeout

    def alarm(suffix: str, name: str, statistic: str, periods: int, threshold: Noted, text: str) -> None:
        watched = metric("AWS/Lambda", name, {"FunctionName": Ref(function)}, statistic, 300)
        stack.alarm(
            f"{function}{suffix}",
            f"{stage.full_name}: {text}",
            {**watched, "EvaluationPeriods": periods, "Threshold": threshold},
        )

    one = Noted(1, "A failing record is no error of the function, so a single one means that a process died.")
    alarm("Errors", "Errors", "Sum", 1, one, "an invocation crashed or timed out")
    burst = Noted(1, "A throttled batch costs its messages a receive each: three periods, so not for one burst.")
    alarm("Throttles", "Throttles", "Sum", 3, burst, "invocations are throttled")
    near = Noted(timeout * 900, f"Milliseconds: nine tenths of the timeout of {timeout} s. Work is handed back there.")
    alarm("Duration", "Duration", "Maximum", 3, near, "invocations come near their timeout")
    if not stage.source.is_stream:
        loop = Noted(1, "Lambda drops what it takes for a loop: its messages go to the dead letters unseen.")
        alarm("Recursion", "RecursiveInvocationsDropped", "Sum", 1, loop, "Lambda dropped invocations as a loop")


def watch_records(stage: Stage, function: str, stack: Stack) -> None:
    """The toolkit's metrics: Lambda's own Errors stays at 0 when every record fails."""
    exhausted = Noted(1, "Each has failed in all its attempts, and stands among the dead letters with its cause.")
    stack.alarm(
        f"{function}Exhausted",
        f"{stage.full_name}: a record failed in all its attempts",
        {**_count(stage, function, OUTCOMES["exhausted"], 300), "EvaluationPeriods": 1, "Threshold": exhausted},
        command=TRACE,
    )
    for outcome, percent, text in (
        ("failed", 10, "many records fail, and are tried again"),
        ("rejected", 10, "many records are rejected"),
        ("unprocessed", 50, "most records are handed back: an outage, or too little time"),
    ):
        these = part("these", _count(stage, function, OUTCOMES[outcome], 300))
        records = part("records", _count(stage, function, "BatchSize", 300))
        share = {"Id": "share", "Expression": "100 * FILL(these, 0) / FILL(records, 1)"}
        stack.alarm(
            f"{function}{OUTCOMES[outcome].removeprefix('Records')}",
            f"{stage.full_name}: {text}",
            {
                "Metrics": [share, these, records],
                "EvaluationPeriods": 5,
                "DatapointsToAlarm": Noted(3, "Three of five: where few records come, there are periods without any."),
                "Threshold": Noted(percent, "Percent of the records."),
            },
            command=TRACE,
        )


def watch_canary(stage: Stage, function: str, stack: Stack) -> None:
    """What sends the traffic back to the old version: a new one that fails or rejects what it gets.

    It gets a tenth of the records, for a few minutes, so this alarm is quicker and finer than the others.
    """
    parts = [part(name, _count(stage, function, OUTCOMES[name], 60)) for name in ("failed", "rejected", "exhausted")]
    bad = "FILL(failed, 0) + FILL(rejected, 0) + FILL(exhausted, 0)"
    share = {"Id": "share", "Expression": f"100 * ({bad}) / FILL(records, 1)"}
    stack.alarm(
        f"{function}Canary",
        f"{stage.full_name}: records fail or are rejected; a deployment that is under way is taken back",
        {
            "Metrics": [share, *parts, part("records", _count(stage, function, "BatchSize", 60))],
            "EvaluationPeriods": 3,
            "DatapointsToAlarm": 2,
            "Threshold": Noted(5, "Percent of all records: half of what a canary of a tenth gets."),
        },
        command=TRACE,
    )


def draw(stage: Stage, function: str, stack: Stack) -> None:
    """The function's graphs."""
    own = _dimensions(stage, function)

    def series(name: str, statistic: str = "Sum") -> Series:
        return Series(namespace=stage.pipeline, metric=name, dimensions=own, statistic=statistic)

    stack.graph(function, "records by outcome", [series(name) for name in OUTCOMES.values()])
    lambdas = {"FunctionName": Ref(function)}
    counts = [
        Series(namespace="AWS/Lambda", metric=name, dimensions=lambdas)
        for name in ("Invocations", "Errors", "Throttles")
    ]
    stack.graph(function, "invocations, errors, throttles", counts)
    durations = [
        Series(namespace="AWS/Lambda", metric="Duration", dimensions=lambdas, statistic=statistic)
        for statistic in ("p50", "Maximum")
    ]
    stack.graph(function, "milliseconds of an invocation", durations)
    sinks = list(dict.fromkeys(sink_names(sink.name for sink in stage.sinks).values()))
    stores = [] if stage.store is None else ["Store"]
    ages = [series("OldestRecordAge", "Maximum"), series("RecordAge", "p50"), series("RecordAge", "p99")]
    stack.graph(function, "seconds since sending: the oldest, and when settled", ages)
    times = ["HandlerDuration", *(f"SinkDuration_{sink}" for sink in sinks), *(f"{store}Duration" for store in stores)]
    stack.graph(
        function,
        "milliseconds: handler, sinks, store, slowest record",
        [*(series(name, "p99") for name in times), series("SlowestRecord", "Maximum")],
    )
    troubles = [*(f"SinkFailures_{sink}" for sink in sinks), *(f"{store}Failures" for store in stores)]
    waits = ["DeadlineHandBacks", *(["RecordsPostponed"] if stage.source.is_stream else [])]
    stack.graph(
        function, "failures of sinks and store; out of time, retried", [series(name) for name in (*troubles, *waits)]
    )
    fill = [series("BatchFill", "Average"), series("ConcurrencyUsed", "Maximum")]
    stack.graph(function, "batches: percent filled, most records at once", fill)


def _count(stage: Stage, function: str, name: str, period: int) -> dict[str, Any]:
    return metric(stage.pipeline, name, _dimensions(stage, function), "Sum", period)


def _dimensions(stage: Stage, function: str) -> dict[str, Any]:
    """What the code writes beside each of its metrics."""
    return {"service": stage.pipeline, "handler": stage.name, "function_name": Ref(function)}
