"""What a user of the emulator may get wrong, or rely on without a second thought."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.testing import Emulator

DAY = 86_400.0


def fails(event: Any, context: Any) -> Any:
    """Fails its first record."""
    record = event["Records"][0]
    member = record.get("kinesis") or record.get("dynamodb")
    return {
        "batchItemFailures": [{"itemIdentifier": member["sequenceNumber" if "data" in member else "SequenceNumber"]}]
    }


@pytest.mark.parametrize(("kind", "hours"), [("stream", 24), ("stream", 48), ("table", 24)])
def test_a_record_that_always_fails_is_given_up_when_its_stream_forgets_it(kind: str, hours: int) -> None:
    with Emulator() as aws:
        source: Any = aws.stream("orders") if kind == "stream" else aws.table("orders", stream="NEW_IMAGE")
        if hours > 24:
            aws.client("kinesis").increase_stream_retention_period(StreamName="orders", RetentionPeriodHours=hours)
        source.put(b"1") if kind == "stream" else source.put({"id": "1"})
        aws.advance((hours - 0.25) * 3600)
        mapping = aws.map(source, fails, report_batch_item_failures=True)
        report = aws.run(timeout=DAY)
    assert report.exhausted == 1
    assert hours * 3600 - 61 < mapping.invocations[-1].at <= hours * 3600


@pytest.mark.parametrize("kind", ["stream", "table"])
def test_a_stream_that_was_idle_for_hours_is_still_read_from_where_it_was(kind: str) -> None:
    """An iterator expires after five minutes; Lambda asks once a second, and never lets one expire."""
    with Emulator() as aws:
        source: Any = aws.stream("orders") if kind == "stream" else aws.table("orders", stream="NEW_IMAGE")
        mapping = aws.map(source, lambda event, context: None, name="handler", starting_position="LATEST")
        aws.advance(7200)
        source.put(b"1") if kind == "stream" else source.put({"id": "1"})
        aws.run()
    assert [invocation.at for invocation in mapping.invocations] == [7200]
