"""The values that everything else is made of."""

from __future__ import annotations

import inspect
import typing
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import errors, outcome
from pipeline.batch import Batch, BatchResult, Failure
from pipeline.deployment import Function
from pipeline.errors import ConfigurationError, PipelineError, Reject, Retry
from pipeline.outcome import Duplicate, Failed, HandBack, Outcome, Rejected, Succeeded, Unprocessed, is_settled, name_of
from pipeline.output import Emit
from pipeline.record import RawRecord, Record

ERROR = ValueError("x")


def raw(name: str) -> RawRecord:
    return RawRecord(id=name, source="orders", body="{}")


def record(name: str) -> Record[str]:
    return Record(
        id=name, source="orders", payload=name, identity=name, attempt=1, receive_count=1, lane=None, attributes={},
        sent_at=None, hops=0, body=name,
    )  # fmt: skip


outcomes = st.sampled_from(
    [Succeeded(), Duplicate(), Rejected(ERROR), Rejected(ERROR, exhausted=True), Failed(ERROR)]
    + [Unprocessed(reason) for reason in HandBack]
)


# --- Outcomes and results -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ended", "settled", "name"),
    [
        (Succeeded(outputs=2), True, "succeeded"),
        (Duplicate(), True, "duplicate"),
        (Rejected(ERROR), True, "rejected"),
        (Rejected(ERROR, exhausted=True), True, "exhausted"),
        (Failed(ERROR, delay=1.0), False, "failed"),
        (Unprocessed(HandBack.DEADLINE), False, "unprocessed"),
    ],
)
def test_outcomes(ended: Outcome, settled: bool, name: str) -> None:
    assert is_settled(ended) is settled
    assert name_of(ended) == name


def test_there_are_five_outcomes() -> None:
    assert set(typing.get_args(Outcome)) == {Succeeded, Duplicate, Rejected, Failed, Unprocessed}
    assert set(outcome.SETTLED) == {Succeeded, Duplicate, Rejected}


@given(st.lists(outcomes, max_size=20))
def test_a_result_has_one_outcome_for_each_record(ended: list[Outcome]) -> None:
    records = [raw(str(position)) for position in range(len(ended))]
    result = BatchResult(records, ended)

    assert len(result) == len(ended)
    assert list(result) == list(zip(records, ended, strict=True))
    kinds = (Succeeded, Duplicate, Rejected, Failed, Unprocessed)
    split = [pair for kind in kinds for pair in result.of(kind)]
    assert sorted(found.id for found, _ in split) == sorted(found.id for found in records)
    unsettled = result.unsettled()
    assert unsettled == [found for found, how in result if isinstance(how, Failed | Unprocessed)]
    assert repr(result).count("(") >= len(ended) + 1


@pytest.mark.parametrize("ended", [[Succeeded()], [Succeeded()] * 3, []])
def test_a_result_that_lacks_an_outcome_cannot_be_built(ended: list[Outcome]) -> None:
    with pytest.raises(ValueError, match=f"2 records but {len(ended)} outcomes"):
        BatchResult([raw("a"), raw("b")], ended)


@pytest.mark.parametrize("wrong", [None, True, "succeeded", Succeeded, ERROR])
def test_what_is_no_outcome_cannot_stand_for_one(wrong: Any) -> None:
    with pytest.raises(ValueError, match="record b has no outcome"):
        BatchResult([raw("a"), raw("b")], [Succeeded(), wrong])


# --- Batches --------------------------------------------------------------------------------------


def test_a_batch_is_a_sequence_of_records() -> None:
    batch = Batch([record("a"), record("b"), record("c")])

    assert len(batch) == 3
    assert batch.payloads == ["a", "b", "c"]
    assert batch[1].payload == "b"
    assert batch[-1] is list(batch)[2]
    assert isinstance(batch[1:], Batch)
    assert batch[1:].payloads == ["b", "c"]
    assert Failure(ERROR).error is ERROR
    with pytest.raises(IndexError):
        batch[3]


# --- Outputs --------------------------------------------------------------------------------------


def test_an_emit_is_addressed() -> None:
    assert Emit(1).to is None
    assert Emit(1, to="ledger").to == ("ledger",)
    assert Emit(1, to=["ledger", "bus"]).to == ("ledger", "bus")
    assert Emit(1, to=[]).to == ()
    assert Emit(1).attributes == {}
    assert Emit(1, attributes={"a": "b"}).attributes == {"a": "b"}
    full = Emit([1], key="k", id="i", delay=3)
    assert (full.value, full.key, full.id, full.delay) == ([1], "k", "i", 3)


def test_attributes_are_copied() -> None:
    given_attributes = {"a": "b"}
    emitted = Emit(1, attributes=given_attributes)
    given_attributes["a"] = "changed"

    assert emitted.attributes == {"a": "b"}


def test_a_delay_into_the_past() -> None:
    with pytest.raises(ValueError, match=r"Emit\(delay=-1\)"):
        Emit(1, delay=-1)


# --- Errors and options ---------------------------------------------------------------------------


def test_every_error_is_in_one_tree() -> None:
    tree = [found for _, found in inspect.getmembers(errors, inspect.isclass) if found.__module__ == errors.__name__]

    assert len(tree) > 10
    assert all(issubclass(found, PipelineError) for found in tree)
    assert all(found.__doc__ for found in tree)


def test_a_retry_may_name_its_delay() -> None:
    assert Retry().after is None
    assert Retry("later", after=0).after == 0
    assert str(Retry("later")) == "later"
    with pytest.raises(ValueError, match=r"Retry\(after=-1\)"):
        Retry(after=-1)


def test_a_reject_has_its_reason() -> None:
    assert Reject("no such thing").reason == "no such thing"
    assert str(Reject("no such thing")) == "no such thing"


@pytest.mark.parametrize("options", [{"timeout": 0}, {"timeout": 901}, {"memory": 127}, {"memory": 10_241}])
def test_a_function_that_lambda_refuses(options: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match="Lambda takes"):
        Function(**options)


@pytest.mark.parametrize("options", [{}, {"timeout": 1, "memory": 128}, {"timeout": 900, "memory": 10_240}])
def test_a_function_that_lambda_takes(options: dict[str, int]) -> None:
    assert msgspec.structs.asdict(Function(**options)).items() >= options.items()


def test_records_cannot_be_changed() -> None:
    for value in (raw("a"), record("a"), Succeeded()):
        with pytest.raises(AttributeError):
            value.id = "other"  # type: ignore[union-attr,misc]
