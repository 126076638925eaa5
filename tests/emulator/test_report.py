import json
from typing import Any

from pipeline.emulator.report import Report, Tally
from pipeline.outcome import Duplicate, Failed, Outcome, Rejected, Succeeded
from pipeline.record import RawRecord
from pipeline.telemetry.events import RecordFinished, SinkWritten


def finished(name: str, outcome: Outcome) -> RecordFinished:
    record = RawRecord(id=name, source="orders", body="{}")
    return RecordFinished(
        pipeline="shop", handler="price", record=record, key_hash=None, attempt=1, outcome=outcome, seconds=0.0
    )


def counts(tally: Tally, *, drained: bool = True) -> Any:
    return tally.counts(dead_lettered=0, drained=drained)


def test_a_records_first_settled_outcome_is_the_one_that_counts() -> None:
    tally = Tally()
    for outcome in (Failed(ValueError()), Succeeded(), Duplicate(), Rejected(ValueError())):
        tally.delivered(["a"])
        tally.observe(finished("a", outcome))
    found = counts(tally)
    assert (found.records, found.succeeded, found.deliveries) == (1, 1, 4)


def test_a_late_repeat_of_a_deleted_message_counts_as_a_delivery_only() -> None:
    tally = Tally()
    tally.delivered(["a", "a"])
    tally.observe(finished("a", Succeeded()))
    tally.deleted(["a"])
    tally.observe(finished("a", Duplicate()))
    found = counts(tally)
    assert (found.records, found.deliveries, found.unsettled) == (1, 2, 0)


def test_what_sqs_itself_moved_to_the_dead_letter_queue_is_exhausted() -> None:
    tally = Tally()
    tally.delivered(["a", "b"])
    tally.observe(finished("a", Succeeded()))
    assert counts(tally, drained=False).unsettled == 1
    assert counts(tally, drained=True).exhausted == 1
    assert counts(tally, drained=True).records == 2


def test_exhausted_and_rejected_are_told_apart() -> None:
    tally = Tally()
    tally.delivered(["a", "b"])
    tally.observe(finished("a", Rejected(ValueError())))
    tally.observe(finished("b", Rejected(ValueError(), exhausted=True)))
    found = counts(tally)
    assert (found.rejected, found.exhausted, found.records) == (1, 1, 2)


def test_a_report_sums_its_handlers_and_writes_itself_as_json() -> None:
    first, second = Tally(), Tally()
    for name, tally in (("a", first), ("b", second)):
        tally.delivered([name])
        tally.observe(finished(name, Succeeded()))
        tally.observe(
            SinkWritten(pipeline="p", handler="h", sink="ledger", accepted=2, failed=0, seconds=0.0, error=None)
        )
    report = Report({"first": counts(first), "second": counts(second)})
    assert (report.records, report.succeeded, report.outputs) == (2, 2, {"ledger": 4})
    assert report["first"] is report.handlers["first"]
    document = json.loads(report.to_json())
    assert document["records"] == 2
    assert document["handlers"]["second"]["outputs"] == {"ledger": 2}
