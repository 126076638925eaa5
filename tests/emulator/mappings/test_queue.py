"""The rules of a queue's event source mapping, one test each, with its source.

DG is the Lambda developer guide, by the title of its page; API is the SQS or Lambda API reference.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.decisions.patterns import read_filter
from pipeline.emulator.mappings.actions import (
    Action,
    BatchFailed,
    Delete,
    Dropped,
    Filtered,
    Invoke,
    Message,
    Receive,
    Settled,
)
from pipeline.emulator.mappings.answers import Answer, Cause, FunctionFailed, Returned, Throttled, Unheard
from pipeline.emulator.mappings.batching import MAX_EVENT_BYTES
from pipeline.emulator.mappings.queue import QueueMapping, visibility
from pipeline.emulator.mappings.settings import ProvisionedPollers, QueueSettings
from pipeline.errors import ConfigurationError

NOW = 1_700_000_000.0
RAISED = FunctionFailed(Cause.RAISED, "ValueError", "no")
SUCCESS = Returned(None)


def message(name: str, *, group: str | None = None, size: int = 300, body: str = "{}") -> Message:
    return Message(name, f"receipt-{name}", {"messageId": name, "body": body}, size, group)


def messages(count: int, start: int = 0) -> list[Message]:
    return [message(f"m{number}") for number in range(start, start + count)]


def named(*ids: str) -> Returned:
    return Returned({"batchItemFailures": [{"itemIdentifier": name} for name in ids]})


class Run:
    """A mapping that is driven by hand. Each call answers with what the mapping then asks for and says."""

    def __init__(self, *, limit: int | None = None, **settings: Any) -> None:
        self.mapping = QueueMapping(QueueSettings(**settings), limit=limit)
        self.now = NOW
        self.poll: Receive | None = None

    def step(self, after: float = 0) -> list[Action]:
        self.now += after
        actions = self.mapping.actions(self.now)
        for action in actions:
            if isinstance(action, Receive):
                assert self.poll is None
                self.poll = action
        return actions

    def receive(self, *found: Message, after: float = 0) -> list[Action]:
        """The poll that is under way ends with these."""
        self.now += after
        poll, self.poll = self.poll, None
        assert poll is not None
        self.mapping.received(poll.poll, found, self.now)
        return self.step()

    def answer(self, batch: int, answer: Answer, after: float = 0) -> list[Action]:
        self.now += after
        self.mapping.answered(batch, answer, self.now)
        return self.step()

    def begin(self, *found: Message) -> list[Action]:
        """The first poll, and what it brings."""
        self.step()
        return self.receive(*found)

    @property
    def wakes_after(self) -> float | None:
        return None if self.mapping.wakes_at is None else self.mapping.wakes_at - self.now


def of(kind: type, actions: list[Action]) -> list[Any]:
    return [action for action in actions if isinstance(action, kind)]


def batches(actions: list[Action]) -> list[tuple[str, ...]]:
    return [action.ids for action in of(Invoke, actions)]


# -- Polls.


def test_a_poll_asks_for_no_more_than_sqs_hands_out_at_once() -> None:
    """API, ReceiveMessage: MaxNumberOfMessages is 1 to 10."""
    run = Run(batch_size=25, batching_window=5)
    counts = [of(Receive, run.step())[0].count]
    counts += [of(Receive, run.receive(*messages(10, start)))[0].count for start in (0, 10)]
    assert counts == [10, 10, 5]


def test_a_poll_asks_for_no_more_than_the_batch_takes() -> None:
    run = Run(batch_size=3)
    assert run.step() == [Receive(1, 3, None, None)]


def test_an_empty_queue_is_polled_for_as_long_as_a_long_poll_lasts_again_and_again() -> None:
    """DG, "Configuring scaling behavior": "Lambda uses long polling to poll a queue until it becomes active"."""
    run = Run(batching_window=5)
    assert run.step() == [Receive(1, 10, None, None)]
    assert run.wakes_after is None
    assert run.receive(after=20) == [Receive(2, 10, None, None)]
    assert run.mapping.held == 0


def test_a_queue_that_refuses_is_asked_again_a_second_later() -> None:
    run = Run()
    run.step()
    run.mapping.not_received(1, NOW)
    run.poll = None
    assert run.step() == []
    assert run.wakes_after == 1
    assert run.step(after=0.9) == []
    assert of(Receive, run.step(after=0.1))


def test_an_answer_that_nobody_waits_for_is_an_error_of_the_driver() -> None:
    run = Run()
    run.begin(message("a"))
    with pytest.raises(ValueError, match="poll 1 is not under way"):
        run.mapping.received(1, [], NOW)
    with pytest.raises(ValueError, match="batch 2 is not at work"):
        run.mapping.answered(2, SUCCESS, NOW)
    run.answer(1, Throttled())
    with pytest.raises(ValueError, match="batch 1 is not at work"):
        run.mapping.answered(1, SUCCESS, NOW)


# -- Batches.


def test_the_event_holds_the_records_in_the_order_in_which_they_came() -> None:
    """DG, "Using Lambda with Amazon SQS": the example event."""
    run = Run()
    (invoke,) = of(Invoke, run.begin(message("a", body="1"), message("b", body="2")))
    assert invoke == Invoke(
        1, {"Records": [{"messageId": "a", "body": "1"}, {"messageId": "b", "body": "2"}]}, ("a", "b")
    )


def test_without_a_window_a_batch_is_what_one_poll_brought() -> None:
    """DG, "Using Lambda with Amazon SQS": the default window is 0, and Lambda sends what is there."""
    run = Run(batch_size=10)
    assert batches(run.begin(*messages(3))) == [("m0", "m1", "m2")]


def test_a_batch_goes_out_when_it_has_its_size() -> None:
    """DG, "How Lambda processes records from stream and queue-based event sources": "The batch size is met"."""
    run = Run(batch_size=12, batching_window=60)
    assert batches(run.begin(*messages(10))) == []
    assert batches(run.receive(*messages(2, 10), after=1)) == [tuple(f"m{number}" for number in range(12))]


def test_the_window_starts_with_the_first_message_and_a_poll_ends_with_it() -> None:
    """DG, same page: "the batching window reaches its maximum value". It may last up to 20 s longer there; not here."""
    run = Run(batch_size=100, batching_window=5)
    run.step()
    assert of(Receive, run.receive(message("a"), after=17))[0].until == NOW + 22
    assert of(Receive, run.receive(message("b"), after=2))[0].until == NOW + 22
    assert run.wakes_after == 3
    assert run.step(after=2.5) == []
    assert batches(run.receive(after=0.5)) == [("a", "b")]


def test_the_window_ends_while_a_poll_is_still_under_way() -> None:
    run = Run(batch_size=100, batching_window=5)
    run.begin(message("a"))
    assert run.wakes_after == 5
    assert batches(run.step(after=5)) == [("a",)]
    assert batches(run.receive(message("b"), after=1)) == []
    assert run.wakes_after == 5


def test_a_batch_goes_out_early_at_six_megabytes_and_the_next_begins_with_what_did_not_fit() -> None:
    """DG, same page: "The payload size reaches 6 MB". What surrounds the records counts as well."""
    run = Run(batch_size=100, batching_window=60)
    frame = len(json.dumps({"Records": []}))
    big = message("a", size=MAX_EVENT_BYTES - frame - 300)
    actions = run.begin(big, message("b", size=300 - 1), message("c", size=2), message("d"))
    assert batches(actions) == [("a", "b")]
    assert of(Receive, actions)[0].until == NOW + 60
    assert run.mapping.held == 4
    assert batches(run.receive(after=60)) == [("c", "d")]


def test_a_message_that_is_too_large_by_itself_goes_out_alone() -> None:
    """Not documented: a body of 1 MiB can be more than 6 MB in the event, where it is escaped."""
    run = Run(batch_size=10, batching_window=5)
    actions = run.begin(message("a"), message("b", size=MAX_EVENT_BYTES), message("c"))
    assert batches(actions) == [("a",), ("b",)]
    assert batches(run.receive(after=5)) == [("c",)]


# -- Filters.

ORDERS = read_filter({"kind": ["order"]}, member="body", declared="test")


def test_what_the_filter_refuses_is_deleted_at_once_and_is_part_of_no_batch() -> None:
    """DG, "Control which events Lambda sends to your function": a message that does not match is deleted."""
    run = Run(batch_size=2, batching_window=5, filter=ORDERS)
    order, other = message("a", body='{"kind": "order"}'), message("b", body='{"kind": "other"}')
    actions = run.begin(other, order, message("c", body="not JSON"))
    assert actions[0] == Delete((other, message("c", body="not JSON")))
    assert actions[1] == Filtered(("b", "c"))
    assert batches(actions) == []
    assert run.mapping.held == 1


def test_messages_that_are_all_refused_start_no_window() -> None:
    run = Run(batching_window=5, filter=ORDERS)
    (_, filtered, receive) = run.begin(message("a"))
    assert filtered == Filtered(("a",))
    assert receive == Receive(2, 10, None, None)
    assert (run.wakes_after, run.mapping.held) == (None, 0)


# -- Visibility.


@pytest.mark.parametrize(
    ("window", "timeout", "queue", "asked"),
    [
        pytest.param(0, 30, 30, None, id="no window: the queue's own"),
        pytest.param(20, 10, 30, None, id="both fit in"),
        pytest.param(21, 10, 30, 21 + 10 + 30, id="they do not: both and 30 s"),
    ],
)
def test_the_visibility_that_a_poll_asks_for(window: float, timeout: float, queue: float, asked: float | None) -> None:
    """DG, "Using Lambda with Amazon SQS", on batching windows: window + timeout + 30 s when they pass the queue's own."""
    settings = QueueSettings(batching_window=window, function_timeout=timeout, visibility_timeout=queue)
    assert visibility(settings) == asked
    assert of(Receive, QueueMapping(settings).actions(NOW))[0].visibility == asked


def test_a_late_handler_still_has_its_messages_deleted_by_the_receipts_that_they_came_with() -> None:
    """API, DeleteMessage: what becomes of an old receipt is the queue's matter."""
    run = Run(visibility_timeout=30)
    run.begin(message("a"))
    assert of(Delete, run.answer(1, SUCCESS, after=31)) == [Delete((message("a"),))]


# -- Responses. The rules themselves: test_response.py.


@pytest.mark.parametrize(
    "payload",
    [
        None,
        {},
        {"batchItemFailures": []},
        {"batchItemFailures": None},
        {"batchItemFailure": [{"itemIdentifier": "a"}]},
    ],
)
def test_complete_success_deletes_every_message(payload: Any) -> None:
    """DG, "Handling errors for an SQS event source in Lambda": success conditions. A handler that returns None is among
    them, with the setting on as well.
    """
    run = Run(report_batch_item_failures=True)
    run.begin(message("a"), message("b"))
    actions = run.answer(1, Returned(payload))
    assert actions[:2] == [Delete((message("a"), message("b"))), Settled(("a", "b"))]
    assert not of(BatchFailed, actions)
    assert run.mapping.held == 0


@pytest.mark.parametrize(
    "payload",
    [
        "ok",
        [],
        {"batchItemFailures": [{"itemIdentifier": ""}]},
        {"batchItemFailures": [{"itemIdentifier": None}]},
        {"batchItemFailures": [{"id": "a"}]},
        {"batchItemFailures": [{"itemIdentifier": "a"}, {"itemIdentifier": "stranger"}]},
    ],
)
def test_complete_failure_deletes_nothing(payload: Any) -> None:
    """DG, same page: failure conditions."""
    run = Run(report_batch_item_failures=True)
    run.begin(message("a"), message("b"))
    actions = run.answer(1, Returned(payload))
    assert not of(Delete, actions)
    (failed,) = of(BatchFailed, actions)
    assert (failed.batch, failed.is_whole) == (1, True)
    assert run.mapping.held == 0


def test_of_a_partial_response_the_named_come_back_and_the_others_are_deleted() -> None:
    """DG, same page: "only the failed messages visible again"."""
    run = Run(report_batch_item_failures=True)
    run.begin(message("a"), message("b"), message("c"))
    actions = run.answer(1, named("b"))
    assert of(Delete, actions) == [Delete((message("a"), message("c")))]
    assert of(Settled, actions) == [Settled(("a", "c"))]
    assert of(BatchFailed, actions) == [BatchFailed(1, "the response names 1 of 3 messages", is_whole=False)]


@pytest.mark.parametrize("payload", [named("a").payload, named("stranger").payload, "ok"])
def test_without_the_setting_no_response_means_anything(payload: Any) -> None:
    """DG, same page: a response counts when `ReportBatchItemFailures` is among the mapping's response types."""
    run = Run(report_batch_item_failures=False)
    run.begin(message("a"))
    actions = run.answer(1, Returned(payload))
    assert of(Settled, actions) == [Settled(("a",))]
    assert not of(BatchFailed, actions)


def test_a_function_that_failed_has_nothing_deleted() -> None:
    """DG, same page: "all messages in that batch become visible in the queue again"."""
    run = Run(report_batch_item_failures=True)
    run.begin(message("a"), message("b"))
    actions = run.answer(1, RAISED)
    assert not of(Delete, actions)
    assert of(BatchFailed, actions) == [BatchFailed(1, "ValueError: no", is_whole=True)]
    assert run.mapping.held == 0


def test_an_answer_that_was_not_heard_deletes_nothing_and_is_no_failure_of_the_function() -> None:
    """Not documented: the messages come back when they are visible again, whether it ran or not."""
    run = Run()
    run.begin(message("a"))
    assert [type(action) for action in run.answer(1, Unheard())] == []
    assert run.mapping.held == 0


# -- Throttling.


def test_a_throttled_batch_is_tried_again_until_it_is_visible_and_then_let_go() -> None:
    """DG, same page: retried "until the message's timestamp exceeds your queue's visibility timeout, at which point Lambda
    drops the message". The pauses are not documented.
    """
    run = Run(visibility_timeout=30)
    (invoke,) = of(Invoke, run.begin(message("a")))
    pauses = []
    for _ in range(4):
        run.answer(1, Throttled())
        pauses.append(run.wakes_after)
        assert of(Invoke, run.step(after=run.wakes_after or 0)) == [invoke]
    assert pauses == [1, 2, 4, 8]
    run.answer(1, Throttled())
    assert run.wakes_after == 15
    assert run.mapping.held == 1
    assert of(Dropped, run.step(after=15)) == [Dropped(1, ("a",))]
    assert run.mapping.held == 0


def test_a_throttled_batch_that_runs_after_all_is_like_any_other() -> None:
    run = Run()
    run.begin(message("a"))
    run.answer(1, Throttled())
    run.step(after=1)
    assert of(Settled, run.answer(1, SUCCESS)) == [Settled(("a",))]


def test_a_batch_is_let_go_when_its_first_message_is_visible_however_late_the_others_came() -> None:
    run = Run(batch_size=100, batching_window=10, visibility_timeout=30)
    run.begin(message("a"))
    run.receive(message("b"), after=9)
    run.receive(after=1)
    run.answer(1, Throttled(), after=19)
    assert run.wakes_after == 1
    assert of(Dropped, run.step(after=1)) == [Dropped(1, ("a", "b"))]


def test_a_throttled_batch_keeps_its_place() -> None:
    run = Run(limit=1)
    run.begin(message("a"))
    assert run.answer(1, Throttled()) == []


# -- How many at once. The numbers themselves: test_scaling.py.


def fill(run: Run, count: int) -> int:
    """Batches of one message, as many as are taken; how many went out."""
    run.step()
    started = 0
    for number in range(count):
        if run.poll is None:
            break
        started += len(batches(run.receive(message(f"m{number}"))))
    return started


@pytest.mark.parametrize(
    ("settings", "limit", "at_once"),
    [
        pytest.param({}, None, 5, id="five"),
        pytest.param({"maximum_concurrency": 3}, None, 3, id="MaximumConcurrency"),
        pytest.param({}, 2, 2, id="this machine"),
        pytest.param({"provisioned": ProvisionedPollers(minimum=2)}, None, 20, id="provisioned"),
    ],
)
def test_nothing_is_received_for_which_there_is_no_place(
    settings: dict[str, Any], limit: int | None, at_once: int
) -> None:
    """DG, "Configuring scaling behavior for SQS event source mappings"."""
    run = Run(limit=limit, **settings)
    assert fill(run, 50) == at_once
    assert run.poll is None
    assert of(Receive, run.answer(1, SUCCESS))


def test_with_time_there_is_a_place_more() -> None:
    """DG, same page: 300 more a minute."""
    run = Run()
    fill(run, 50)
    assert run.wakes_after == pytest.approx(0.2)
    assert of(Receive, run.step(after=run.wakes_after or 0))


def test_failures_leave_fewer_places_unless_they_are_reported_by_item() -> None:
    """DG, "Handling errors for an SQS event source in Lambda"."""
    for reports, places in ((False, 2), (True, 5)):
        run = Run(report_batch_item_failures=reports)
        run.step()
        for number in range(1, 9):
            run.receive(message(f"failing-{number}"))
            run.answer(number, RAISED)
        assert fill(run, 50) == places


def test_a_function_that_runs_again_has_its_places_back() -> None:
    """DG, same page; that each success gives one back is not documented."""
    run = Run()
    run.step()
    for number, answer in enumerate([RAISED] * 3 + [SUCCESS] * 2, 1):
        run.receive(message(f"m{number}"))
        run.answer(number, answer)
    assert fill(run, 50) == 4


def test_throttles_leave_fewer_places() -> None:
    """DG, same page: throttled retries back off "by reducing the amount of concurrency"."""
    run = Run()
    run.begin(message("a"))
    run.answer(1, Throttled())
    assert fill(run, 50) == 3  # one place is gone, and the throttled batch has one


def test_an_empty_poll_takes_the_places_back_to_five() -> None:
    """DG, "Configuring scaling behavior for SQS event source mappings"."""
    run = Run()
    assert fill(run, 50) == 5
    run.step(after=60.01)
    assert run.poll is not None
    for batch in range(1, 6):
        run.answer(batch, SUCCESS)
    run.receive(after=20)
    assert fill(run, 50) == 5


def test_a_batch_that_is_due_without_a_place_waits_for_one() -> None:
    run = Run(limit=1, batch_size=10)
    assert batches(run.begin(message("a", size=MAX_EVENT_BYTES), message("b"))) == [("a",)]
    assert run.poll is None
    assert run.mapping.held == 2
    assert batches(run.answer(1, SUCCESS)) == [("b",)]


def test_a_batch_that_is_visible_again_before_it_has_a_place_is_let_go() -> None:
    """Not documented: it would run twice at once, or be deleted while another receive of it is at work."""
    run = Run(limit=1, visibility_timeout=30)
    run.begin(message("a", size=MAX_EVENT_BYTES), message("b"))
    assert run.wakes_after == 30
    assert run.step(after=30) == [Dropped(2, ("b",))]
    assert run.mapping.held == 1


# -- FIFO.


def test_a_fifo_batch_has_at_most_ten_messages_and_no_window() -> None:
    """DG, "Lambda parameters for Amazon SQS event source mappings"."""
    with pytest.raises(ConfigurationError, match="BatchSize 11"):
        QueueSettings(is_fifo=True, batch_size=11, batching_window=0)
    with pytest.raises(ConfigurationError, match="MaximumBatchingWindowInSeconds"):
        QueueSettings(is_fifo=True, batching_window=1)


def test_a_fifo_batch_mixes_groups_and_keeps_the_order() -> None:
    """DG, "Configuring scaling behavior": "each batch may contain messages from more than one message group, but the order
    of the messages is maintained".
    """
    run = Run(is_fifo=True)
    found = [message("a1", group="a"), message("b1", group="b"), message("a2", group="a")]
    assert batches(run.begin(*found)) == [("a1", "b1", "a2")]


def test_fifo_batches_at_work_are_never_more_than_the_groups_or_the_maximum_concurrency() -> None:
    """DG, same page: its example has six groups and a maximum of 10, and six invocations at once."""
    for groups, most, at_once in ((6, 10, 6), (6, 4, 4)):
        run = Run(is_fifo=True, batch_size=1, maximum_concurrency=most)
        run.step()
        started = 0
        for number in range(20):
            if run.poll is None:
                break
            group = f"g{number % groups}"
            started += len(batches(run.receive(message(f"{group}-{number}", group=group))))
        assert started == at_once


def large(name: str, group: str) -> Message:
    return message(name, group=group, size=2 * 1024 * 1024)


def split(**settings: Any) -> Run:
    """A FIFO batch that 6 MB cut in two: a1, b1 are at work; a2, a3, c1 wait."""
    run = Run(is_fifo=True, report_batch_item_failures=True, **settings)
    found = [large("a1", "a"), large("b1", "b"), large("a2", "a"), large("a3", "a"), large("c1", "c")]
    assert batches(run.begin(*found)) == [("a1", "b1")]
    return run


def test_a_group_is_in_one_batch_at_a_time() -> None:
    """DG, same page: "messages in the same group are delivered to Lambda in order"."""
    run = split()
    assert run.poll is None
    assert batches(run.answer(1, SUCCESS)) == [("a2", "a3"), ("c1",)]


@pytest.mark.parametrize("answer", [RAISED, named("a1"), Returned("damaged"), Unheard()])
def test_what_was_received_behind_a_failed_message_of_its_group_is_let_go(answer: Answer) -> None:
    """DG, same page: "the function attempts all retries on the affected messages before Lambda receives additional messages
    from the same group".
    """
    run = split()
    actions = run.answer(1, answer)
    assert of(Dropped, actions) == [Dropped(2, ("a2", "a3"))]
    assert batches(actions) == [("c1",)]
    assert run.mapping.held == 1


def test_a_failure_holds_up_no_other_group() -> None:
    run = split()
    actions = run.answer(1, named("b1"))
    assert of(Dropped, actions) == []
    assert batches(actions) == [("a2", "a3"), ("c1",)]


def test_a_message_that_was_received_again_is_not_let_go_for_its_own_late_run() -> None:
    """Once the first receive is visible again the queue keeps the order by itself."""
    run = Run(is_fifo=True, visibility_timeout=30)
    run.begin(message("a1", group="a"))
    assert batches(run.receive(message("a1", group="a"), after=31)) == []
    assert batches(run.answer(1, RAISED)) == [("a1",)]
