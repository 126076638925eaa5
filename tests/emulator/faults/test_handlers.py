"""Each kind of fault, seen by what it does to a plain handler."""

from __future__ import annotations

import base64
import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from pipeline import ConfigurationError, PipelineError
from pipeline.emulator.faults.kinds import Kind
from pipeline.emulator.faults.plan import Faults
from pipeline.emulator.faults.profiles import Profile
from pipeline.emulator.faults.rules import (
    crash,
    delay_response,
    duplicate,
    fail_partly,
    lose_response,
    poison,
    repeat,
    shuffle,
    skew,
    slow_down,
    throttle,
    time_out,
)
from pipeline.emulator.faults.sources import POISON
from pipeline.emulator.faults.story import tell
from pipeline.emulator.mappings.answers import FunctionFailed, Returned, Throttled, Unheard
from pipeline.testing import Emulator
from tests.emulator.faults.shops import client, count

UPDATE = "dynamodb.update_item"
POISONED = Profile(name="poisoned", rates={Kind.POISON: 1.0})
PROFILE_SLOW = Profile(name="slow calls", rates={Kind.SLOW_CALL: 1.0}, spoiled=1)


@pytest.fixture(autouse=True)
def no_log() -> Iterator[None]:
    """Each failed invocation is logged, and there are many."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def ends(answers: Any) -> list[type]:
    return [type(invocation.answer) for invocation in answers]


def test_a_crash_after_the_handler_brings_the_batch_back_though_it_was_done() -> None:
    run = count(crash(after="handler"), "a", "b")
    assert run.counts == {"a": 2, "b": 2}
    assert ends(run.invocations) == [FunctionFailed, Returned]
    assert "signal: killed" in str(run.invocations[0].answer)
    assert (run.is_empty, run.dead, run.fired) == (True, [], [Kind.CRASH])


def test_a_crash_before_the_handler_runs_nothing() -> None:
    run = count(crash(before="handler"), "a", "b")
    assert run.counts == {"a": 1, "b": 1}
    assert len(run.batches) == 1


def test_a_crash_after_the_second_call_has_done_two_and_no_except_sees_it() -> None:
    run = count(crash(after=UPDATE, nth=2), "a", "b", "c")
    assert run.counts == {"a": 2, "b": 2, "c": 1}


def test_a_crash_before_the_second_call_has_done_one() -> None:
    run = count(crash(before=UPDATE, nth=2), "a", "b", "c")
    assert run.counts == {"a": 2, "b": 1, "c": 1}


def test_a_handler_that_catches_everything_does_no_more_after_its_crash() -> None:
    later: list[str] = []

    def handler(event: Any, context: Any) -> None:
        for name in ("a", "b"):
            try:
                client("sqs").send_message(QueueUrl=out.url, MessageBody=name)
            except BaseException as error:
                later.append(type(error).__name__)

    with Emulator(faults=crash(after="sqs.send_message")) as aws:
        orders, out = aws.queue("orders"), aws.queue("out")
        mapping = aws.map(orders, handler)
        orders.send("x")
        aws.run()
        assert out.bodies == ["a", "a", "b"]
    assert later == ["Killed", "Killed"]
    assert ends(mapping.invocations) == [FunctionFailed, Returned]


def test_a_crash_makes_a_new_environment() -> None:
    streams: list[str] = []
    with Emulator(faults=crash(after="handler")) as aws:
        orders = aws.queue("orders")
        aws.map(orders, lambda event, context: streams.append(context.log_stream_name), name="f")
        for _ in range(3):
            orders.send("x")
            aws.run()
    assert [name == streams[0] for name in streams] == [True, False, False, False]
    assert len(set(streams)) == 2


def test_a_lost_response_brings_back_what_was_done() -> None:
    run = count(lose_response(), "a")
    assert run.counts == {"a": 2}
    assert ends(run.invocations) == [Unheard, Returned]


def test_a_late_response_comes_when_the_messages_are_visible_again() -> None:
    run = count(delay_response(), "a")
    assert run.counts == {"a": 2}
    assert ends(run.invocations) == [Returned, Returned]
    assert run.seconds >= 30


def test_a_late_response_is_late_also_where_the_mapping_hides_the_messages_for_longer() -> None:
    run = count(delay_response(), "a", batching_window=5, timeout=28)
    assert run.counts == {"a": 2}
    assert run.seconds >= 5 + 28 + 30


def test_a_duplicate_comes_again_after_it_was_deleted_and_only_then() -> None:
    run = count(duplicate(source="orders"), "a", "b", "c")
    assert run.batches[0] == ["a", "b", "c"]
    again = Counter(name for batch in run.batches[1:] for name in batch)
    assert again
    assert set(again.values()) == {1}
    assert run.is_empty


def test_a_duplicate_at_once_is_handled_twice_side_by_side_and_deleted() -> None:
    run = count(duplicate(at_once=True), "a", "b")
    assert run.counts == {"a": 2, "b": 2}
    assert run.seconds < 1
    assert run.is_empty


def test_what_one_of_two_deliveries_at_once_is_done_with_is_deleted() -> None:
    run = count([duplicate(at_once=True), throttle(UPDATE)], "a", "b")
    assert run.counts == {"a": 1, "b": 2}
    assert (run.is_empty, run.seconds < 1) == (True, True)


def test_a_fifo_queue_hands_nothing_out_twice_at_once() -> None:
    profile = Profile(name="at once", rates={Kind.OVERLAP: 1.0})
    run = count(Faults(0, profile), "a", name="orders.fifo")
    assert (run.fired, run.counts) == ([], {"a": 1})
    with pytest.raises(PipelineError, match="overlap: nothing came there; only a standard queue"):
        count(duplicate(at_once=True), "a", name="orders.fifo")


def test_a_single_fault_that_never_happens_fails_the_test_and_no_other_failure_is_hidden() -> None:
    with pytest.raises(PipelineError, match="never happened: crash after handler at nobody"):
        count(crash(after="handler", function="nobody"), "a")
    with pytest.raises(PipelineError, match="clock skew: nothing came there; only a pipeline's"):
        count(skew(), "a")
    with pytest.raises(ValueError, match="the test's own"), Emulator(faults=crash(after="handler")):
        raise ValueError("the test's own")
    count(Faults(0, "skew"), "a")  # seeds promise nothing


def test_a_throttled_invocation_is_tried_again() -> None:
    run = count(throttle(), "a")
    assert ends(run.invocations) == [Throttled, Returned]
    assert run.counts == {"a": 1}


def test_a_throttled_call_is_refused_with_the_services_own_error() -> None:
    run = count(throttle(UPDATE), "a", "b")
    assert run.counts == {"a": 1, "b": 1}
    assert run.batches == [["a", "b"], ["a"]]
    codes: list[str] = []

    def handler(event: Any, context: Any) -> None:
        for service, call, given in (
            ("dynamodb", "scan", {"TableName": "t"}),
            ("sqs", "send_message", {"QueueUrl": orders.url, "MessageBody": "x"}),
            ("kinesis", "list_streams", {}),
        ):
            try:
                getattr(client(service), call)(**given)
            except ClientError as error:
                codes.append(error.response["Error"]["Code"])

    calls = ("dynamodb.scan", "sqs.send_message", "kinesis.list_streams")
    with Emulator(faults=[throttle(call) for call in calls]) as aws:
        orders = aws.queue("orders")
        aws.map(orders, handler)
        orders.send("x")
        aws.run()
    throughput = "ProvisionedThroughputExceededException"
    assert codes == [throughput, "RequestThrottled", throughput]


def test_a_call_that_times_out_was_done_all_the_same() -> None:
    run = count(time_out(UPDATE), "a")
    assert run.counts == {"a": 2}
    assert run.batches == [["a"], ["a"]]


def test_a_slow_call_takes_virtual_time_and_a_slow_one_too_many_the_functions() -> None:
    took = [count(Faults(seed, PROFILE_SLOW), "a", timeout=5) for seed in range(6)]
    assert any(0 < run.seconds < 5 for run in took)
    late = [run for run in took if isinstance(run.invocations[0].answer, FunctionFailed)]
    assert late
    assert all("timed out" in str(run.invocations[0].answer) for run in late)


def test_a_slow_handler_is_late_or_timed_out() -> None:
    runs = [count(slow_down(), "a", seed=seed) for seed in range(6, 12)]
    assert all(0 < run.seconds < 60 for run in runs)
    assert all(run.counts == {"a": 1} for run in runs)
    assert len({run.seconds for run in runs}) > 2
    ended = {tuple(ends(run.invocations)) for run in runs}
    assert ended == {(Returned,), (FunctionFailed, Returned)}


def test_messages_of_a_standard_queue_come_in_any_order() -> None:
    bodies = [str(number) for number in range(10)]
    assert count(shuffle(), *bodies, batch_size=1).batches != [[body] for body in bodies]
    run = count(shuffle(), *bodies, name="orders.fifo")
    assert [body for batch in run.batches for body in batch] == bodies


def test_poison_comes_once_and_ends_among_the_dead_letters() -> None:
    def handler(event: Any, context: Any) -> Any:
        bad = [record["messageId"] for record in event["Records"] if record["body"] == POISON]
        return {"batchItemFailures": [{"itemIdentifier": name} for name in bad]}

    with Emulator(faults=poison()) as aws:
        orders = aws.queue("orders", max_receive_count=2)
        aws.map(orders, handler, report_batch_item_failures=True)
        orders.send("a", "b")
        aws.run()
        assert orders.dead_letters is not None
        assert orders.dead_letters.bodies == [POISON]
        assert orders.is_empty


def test_there_is_no_poison_where_it_could_not_come_to_rest() -> None:
    with Emulator(faults=Faults(0, POISONED)) as aws:
        orders, clicks = aws.queue("orders"), aws.stream("clicks")
        aws.map(orders, lambda event, context: None, name="a")
        aws.map(clicks, lambda event, context: None, name="b")
        orders.send("a")
        clicks.put("a")
        aws.run()
        assert aws.faults is not None
        assert aws.faults.fired == []


def stream(faults: Any, **settings: Any) -> list[list[str]]:
    batches: list[list[str]] = []

    def handler(event: Any, context: Any) -> None:
        batches.append([base64.b64decode(record["kinesis"]["data"]).decode() for record in event["Records"]])

    with Emulator(faults=faults) as aws:
        clicks = aws.stream("clicks")
        aws.map(clicks, handler, **settings)
        clicks.put("a", "b", key="k")
        aws.run()
    return batches


@pytest.mark.parametrize("fault", [repeat(), lose_response(), crash(after="handler")])
def test_a_streams_batch_comes_again_whole_and_in_order(fault: Any) -> None:
    assert stream(fault) == [["a", "b"], ["a", "b"]]


def test_poison_on_a_stream_is_one_more_record() -> None:
    with Emulator(faults=poison()) as aws:
        clicks, lost = aws.stream("clicks"), aws.queue("lost")
        seen: list[str] = []

        def handler(event: Any, context: Any) -> None:
            found = [base64.b64decode(record["kinesis"]["data"]).decode() for record in event["Records"]]
            if POISON in found:
                raise ValueError("poison")
            seen.extend(found)

        aws.map(clicks, handler, maximum_retry_attempts=1, on_failure=lost.arn)
        clicks.put("a", "b", key="k")
        aws.run()
        assert (seen, len(lost.bodies)) == (["a", "b"], 1)


@pytest.mark.parametrize("profile", ["poison", "everything"])
def test_a_tables_stream_gets_no_poison(profile: str) -> None:
    for seed in range(8):
        with Emulator(faults=Faults(seed, profile)) as aws:
            lost, items = aws.queue("lost"), aws.table("items", stream="NEW_IMAGE")
            mapping = aws.map(items, lambda event, context: None, on_failure=lost.arn, maximum_retry_attempts=9)
            items.put({"id": "a"})
            aws.run()
            assert aws.faults is not None
            assert Kind.POISON not in [one.kind for one in aws.faults.fired]
            assert mapping.invocations
            assert lost.bodies == []


def test_no_destination_is_none_where_poison_could_come_to_rest() -> None:
    with Emulator(faults=Faults(0, POISONED)) as aws:
        clicks = aws.stream("clicks")
        aws.map(clicks, lambda event, context: None, on_failure=None)
        clicks.put("a")
        aws.run()
        assert aws.faults is not None
        assert aws.faults.fired == []


# -- Some entries of a call fail inside its 200.


def partly(call: str, make: Any) -> Any:
    """The answers to a call that fails in part once, and is made again as it was."""
    answers: list[Any] = []

    def handler(event: Any, context: Any) -> None:
        answers.extend([make(), make()])

    with Emulator(faults=fail_partly(call)) as aws:
        orders, out = aws.queue("orders"), aws.queue("out")
        aws.stream("clicks")
        table = aws.table("items")
        aws.map(orders, handler)
        orders.send("x")
        aws.run()
        assert aws.faults is not None
        assert [one.kind for one in aws.faults.fired] == [Kind.PARTIAL_FAILURE]
        return answers, out.bodies, table.items


def test_a_batch_of_messages_is_sent_in_part() -> None:
    url = "https://sqs.us-east-1.amazonaws.com/123456789012/out"
    entries = [{"Id": str(number), "MessageBody": f"m{number}"} for number in range(6)]
    (first, second), sent, _ = partly(
        "sqs.send_message_batch", lambda: client("sqs").send_message_batch(QueueUrl=url, Entries=entries)
    )
    failed = [int(one["Id"]) for one in first["Failed"]]
    done = [int(one["Id"]) for one in first["Successful"]]
    assert failed
    assert sorted(failed + done) == list(range(6))
    assert second.get("Failed", []) == []
    assert sent == [f"m{number}" for number in done] + [f"m{number}" for number in range(6)]


def test_records_are_put_in_part_each_answer_at_its_place() -> None:
    records = [{"Data": str(number).encode(), "PartitionKey": str(number)} for number in range(6)]
    (first, second), _, _ = partly(
        "kinesis.put_records", lambda: client("kinesis").put_records(StreamName="clicks", Records=records)
    )
    failed = [at for at, one in enumerate(first["Records"]) if "ErrorCode" in one]
    assert len(first["Records"]) == 6
    assert first["FailedRecordCount"] == len(failed) > 0
    assert all("SequenceNumber" in one for at, one in enumerate(first["Records"]) if at not in failed)
    assert second["FailedRecordCount"] == 0


def test_events_are_put_in_part() -> None:
    entries = [{"Source": "s", "DetailType": "t", "Detail": "{}"} for _ in range(4)]
    (first, second), _, _ = partly("events.put_events", lambda: client("events").put_events(Entries=entries))
    assert [first["FailedEntryCount"], len(first["Entries"])] == [sum("ErrorCode" in e for e in first["Entries"]), 4]
    assert (first["FailedEntryCount"] > 0, second["FailedEntryCount"]) == (True, 0)


def test_items_are_written_in_part() -> None:
    requests = [{"PutRequest": {"Item": {"id": {"S": str(number)}}}} for number in range(6)]
    (first, second), _, items = partly(
        "dynamodb.batch_write_item", lambda: client("dynamodb").batch_write_item(RequestItems={"items": requests})
    )
    assert 0 < len(first["UnprocessedItems"]["items"]) <= 6
    assert second["UnprocessedItems"] == {}
    assert len(items) == 6


def test_statements_are_executed_in_part() -> None:
    statements = [
        {"Statement": "INSERT INTO \"items\" VALUE {'id': ?}", "Parameters": [{"S": str(number)}]}
        for number in range(5)
    ]
    (first, second), _, items = partly(
        "dynamodb.batch_execute_statement",
        lambda: client("dynamodb").batch_execute_statement(Statements=statements),
    )
    failed = [at for at, one in enumerate(first["Responses"]) if "Error" in one]
    assert failed
    assert len(first["Responses"]) == 5
    # The second time those are refused that were done the first time.
    assert [at for at, one in enumerate(second["Responses"]) if "Error" not in one] == failed
    assert len(items) == 5


# -- Runs.

BODIES = [f"m{number}" for number in range(20)]


def test_the_same_seed_is_the_same_story_with_several_environments_at_work() -> None:
    for seed in range(4):
        first, second = (count("everything", *BODIES, seed=seed, batch_size=3) for _ in range(2))
        assert tell(first.faults) == tell(second.faults)
        assert first.counts == second.counts


def test_one_fault_alone_is_where_it_was_among_the_others() -> None:
    whole = count(Faults(2, "throttles"), *BODIES)
    one = whole.faults.fired[0]
    alone = count(whole.faults.again({one.id}), *BODIES)
    assert alone.faults.fired == [one]


def test_a_healthy_message_never_becomes_a_dead_letter() -> None:
    # 17: a message that was done comes again, and would be one receive too far.
    for seed in (17, *range(10)):
        run = count("everything", *BODIES[:6], seed=seed)
        assert [body for body in run.dead if body != POISON] == []
        assert set(BODIES[:6]) <= set(run.counts)
        assert run.is_empty


def twice_mapped(faults: Any) -> tuple[list[str], list[str], Faults]:
    """One function behind a queue and a stream that give up early: what is among their dead letters, and the faults."""

    def handler(event: Any, context: Any) -> None:
        for record in event["Records"]:
            body = record.get("body") or base64.b64decode(record["kinesis"]["data"]).decode()
            if body == POISON:
                raise ValueError(body)

    with Emulator(faults=faults) as aws:
        orders, clicks, lost = aws.queue("orders", max_receive_count=2), aws.stream("clicks"), aws.queue("lost")
        endless = aws.stream("endless")
        aws.map(endless, handler)
        aws.map(orders, handler, batch_size=1)
        aws.map(clicks, handler, maximum_retry_attempts=1, on_failure=lost.arn, batch_size=1)
        orders.send("a", "b")
        endless.put("a", "b")
        numbers = clicks.put("a", "b")
        aws.run()
        assert aws.faults is not None
        assert orders.dead_letters is not None
        given_up = [letter["KinesisBatchInfo"]["startSequenceNumber"] for letter in lost.bodies]
        dead = [body for body in orders.dead_letters.bodies if body != POISON]
        return dead, [number for number in given_up if number in numbers], aws.faults


def test_a_function_with_several_mappings_turns_no_healthy_record_into_a_dead_letter() -> None:
    for seed in range(40):
        dead, given_up, _ = twice_mapped(Faults(seed))
        assert (dead, given_up) == ([], []), seed


def test_two_functions_at_one_queue_turn_no_healthy_message_into_a_dead_letter() -> None:
    for seed in range(40):
        with Emulator(seed=seed, faults=Faults(seed)) as aws:
            orders = aws.queue("orders", max_receive_count=3)
            for name in ("one", "other"):
                aws.map(orders, lambda event, context: None, name=name, batch_size=1)
            orders.send("a", "b", "c")
            aws.run()
            assert orders.dead_letters is not None
            assert [body for body in orders.dead_letters.bodies if body != POISON] == [], seed


def test_an_invocation_goes_by_one_name_in_the_story_whatever_mapping_it_is_of() -> None:
    _, _, faults = twice_mapped(crash(after="handler", function="handler", times=5))
    deliveries = {line.where for line in faults.lines if line.text.startswith("is given")}
    assert {one.point.where for one in faults.fired} == {"handler", "handler:orders", "handler:clicks"}
    assert {line.where for line in faults.lines} == deliveries


def test_faults_are_of_one_run() -> None:
    faults = Faults(1)
    count(faults, "a")
    with pytest.raises(ConfigurationError, match=r"faults\.again\(\)"):
        count(faults, "a")


def test_the_story_names_each_record_and_marks_what_went_wrong() -> None:
    run = count(crash(after=UPDATE), "a", "b")
    assert tell(run.faults).splitlines() == [
        "      0.00 s   handler[1]  is given #1, #2",
        "      0.00 s   handler[1]  dynamodb.update_item counts",
        "      0.00 s ! handler[1]  crash: handler[1] after dynamodb.update_item",
        "      0.00 s   handler[1]  fails: exited",
        "     30.00 s   handler[2]  is given #1, #2",
        "     30.00 s   handler[2]  dynamodb.update_item counts",
        "     30.00 s   handler[2]  dynamodb.update_item counts",
        "     30.00 s   handler[2]  returns, and is done with all",
    ]
