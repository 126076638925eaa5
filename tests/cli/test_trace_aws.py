"""`pipeline trace` over CloudWatch Logs: moto's, and a stand-in that filters and takes its time as Insights does."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from pipeline.aws.operators import logs
from pipeline.cli.commands import cli
from pipeline.emulator import embedded
from pipeline.emulator.isolation import variables
from pipeline.engine.environment import ProcessEnvironment
from tests.cli.insights import Insights
from tests.cli.stand_in import Standing, refused, stack_of, standing
from tests.cli.story_worlds import line
from tests.contract.conftest import ManualClock

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
OUT = "{:032x}".format
A, B = "/aws/lambda/shop-price", "/aws/lambda/shop-bill"
PRICE = [
    line("record.succeeded", 100, "a", age=0.1, output_ids=[OUT(1)], outputs=1),
    line("record.succeeded", 110, "stranger", age=0.1),
    line("record.duplicate", 120, "again", key_hash="k", age=0.1),
    line("record.succeeded", 130, "first", key_hash="k", age=0.1),
]
BILL = [
    line("record.failed", 210, "b", handler="bill", caused_by=OUT(1), error="E", reason="away", delay=1, traceId=TRACE),
    line("record.exhausted", 900, "b", handler="bill", caused_by=OUT(1), error="E", reason="away", traceId=TRACE),
    line("record.failed", 950, "c", handler="mail", traceId=TRACE),
]
GROUPS = {A: PRICE, B: BILL, "/aws/lambda/shop-other": []}
STACK = {
    "ShopPriceFunction": ("AWS::Lambda::Function", "shop-price"),
    "ShopBillLogs": ("AWS::Logs::LogGroup", B),
    "ShopBillFunction": ("AWS::Lambda::Function", "shop-bill"),
    "NeverRan": ("AWS::Lambda::Function", "shop-never"),
    "Queue": ("AWS::SQS::Queue", "http://queue"),
}


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("AWS_", "PIPELINE_"))]:
        monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def insights() -> Insights:
    return Insights(GROUPS)


@pytest.fixture
def aws(insights: Insights) -> Iterator[Standing]:
    with standing({**insights.answers, "ListStackResources": stack_of(STACK)}) as made:
        yield made


def trace(aws: Standing | str, *arguments: str) -> Result:
    endpoint = aws if isinstance(aws, str) else aws.endpoint_url
    return CliRunner().invoke(cli, ["trace", *arguments, "--since", "9999d", "--endpoint-url", endpoint])


def groups(*names: str) -> list[str]:
    return [part for name in names for part in ("--log-group", name)]


def test_a_records_story_is_gathered_from_the_groups_of_a_stack(aws: Standing, insights: Insights) -> None:
    found = trace(aws, "b", "--stack", "shop")
    assert found.exit_code == 0, found.output
    assert "shop/bill: record b" in found.stdout
    assert "a of orders in shop/price" in found.stdout, "the record that caused it, in another group"
    assert "Also in this trace" in found.stdout
    assert "c of orders in shop/mail" in found.stdout
    assert f"pipeline dlq peek --source orders --stack shop --endpoint-url {aws.endpoint_url}" in found.stdout
    assert "stranger" not in found.stdout
    assert insights.queries == [
        'record_id = "b" or caused_by = "b"',
        f'traceId = "{TRACE}"',
        f'strcontains(@message, "{OUT(1)}")',
    ]
    assert aws.calls("StartQuery")[0]["logGroupNames"] == [B, A], "those that are there, each once"
    assert re.search(r"3 queries scanned 0\.0 MB: about 0\.0000 USD at 0\.005 USD a GB", found.stderr)


def test_a_trace_is_asked_by_its_index_and_an_output_by_all_that_names_it(aws: Standing, insights: Insights) -> None:
    assert "shop/bill: record b" in trace(aws, TRACE.upper(), *groups(A, B)).stdout
    assert insights.queries[0] == f'traceId = "{TRACE}"'
    insights.queries.clear()
    found = trace(aws, OUT(1), *groups(A, B))
    assert found.stdout.startswith(f"output {OUT(1)}")
    assert "a of orders in shop/price" in found.stdout
    assert insights.queries[:2] == [f'traceId = "{OUT(1)}"', f'caused_by = "{OUT(1)}"']


def test_an_output_that_nobody_received_is_found_where_it_was_sent(aws: Standing, insights: Insights) -> None:
    found = trace(aws, OUT(1), *groups(A))
    assert "shop/price: record a" in found.stdout
    assert f"{OUT(1)}: no line of whoever received it" in found.stdout
    assert insights.queries[2] == f'strcontains(@message, "{OUT(1)}")'


def test_an_output_of_an_id_that_its_handler_chose_is_found() -> None:
    sent = line("record.succeeded", 100, "a", output_ids=["order-7"], outputs=1)
    taken = line("record.failed", 200, "b", handler="bill", caused_by="order-7", error="E", reason="away")
    with standing(Insights({A: [sent], B: [taken]}).answers) as aws:
        assert "shop/bill: record b" in trace(aws, "order-7", *groups(A, B)).stdout
        assert "shop/price: record a" in trace(aws, "order-7", *groups(A)).stdout, "nobody received it"


def test_a_trace_is_found_as_x_ray_writes_it(aws: Standing, insights: Insights) -> None:
    assert "shop/bill: record b" in trace(aws, f"1-{TRACE[:8]}-{TRACE[8:]}", *groups(A, B)).stdout
    assert insights.queries[0] == f'traceId = "{TRACE}"'


def test_what_a_record_caused_is_asked_by_its_index(aws: Standing, insights: Insights) -> None:
    found = trace(aws, "a", *groups(A, B))
    assert "became record b of orders in shop/bill: dead letter, E: away" in found.stdout
    assert insights.queries == ['record_id = "a" or caused_by = "a"', f'caused_by = "{OUT(1)}"']


def test_without_an_id_one_question_lists_what_went_wrong(aws: Standing, insights: Insights) -> None:
    found = trace(aws, *groups(A, B))
    assert found.exit_code == 0
    assert "exhausted  1 record: E: away" in found.stdout
    next_command = f"pipeline trace b --since 9999d --log-group {A} --log-group {B} --endpoint-url {aws.endpoint_url}"
    assert next_command in found.stdout
    assert len(insights.queries) == 1
    assert "record.succeeded" not in insights.queries[0]
    assert "scanned" in found.stderr
    again = CliRunner().invoke(cli, shlex.split(next_command)[1:])
    assert "shop/bill: record b" in again.stdout, "it asks the same place"


def test_of_more_than_a_query_has_the_latest_are_listed() -> None:
    lines = [line("record.failed", number, f"r{number}", error="E", reason="away") for number in range(20)]
    with standing(Insights({A: lines}, most=5).answers) as aws:
        assert "pipeline trace r19" in trace(aws, *groups(A)).stdout


def test_what_batches_handed_back_is_listed() -> None:
    quiet = line("batch.finished", 1, "x", size=3, succeeded=3)
    lines = [quiet, line("batch.finished", 2, "x", size=10, unprocessed=7, handed_back={"deadline": 7})]
    asked = Insights({A: lines})
    with standing(asked.answers) as aws:
        assert "handed back  7 records: deadline" in trace(aws, *groups(A)).stdout
    assert asked.queries[0].endswith(" or unprocessed > 0"), "batches that handed nothing back are not fetched"


def test_who_did_the_work_of_a_duplicate_is_asked(aws: Standing) -> None:
    assert "was done by record first" in trace(aws, "again", *groups(A)).stdout


def test_nothing_found_is_exit_code_1_and_says_what_it_cost(aws: Standing) -> None:
    found = trace(aws, "nosuch", *groups(A, B), "--json")
    assert found.exit_code == 1
    assert json.loads(found.stdout)["records"] == []
    assert "no line of a record in 2 log groups has the id 'nosuch'" in found.stderr
    assert "scanned" in found.stderr


def test_json_has_the_notes(aws: Standing) -> None:
    found = json.loads(trace(aws, "b", *groups(B), "--json").stdout)
    assert found["records"][0]["record_id"] == "b"
    assert any("leave one at DEBUG only" in note for note in found["notes"])
    assert any("scanned" in note for note in found["notes"])


def test_rows_of_a_query_that_still_runs_are_not_the_answer() -> None:
    slow = Insights(GROUPS, ["Scheduled", "Running", "Running"])
    with standing(slow.answers) as aws:
        found = trace(aws, TRACE, *groups(B))
    assert "record b" in found.stdout
    assert "record c" in found.stdout, "the second row came with the last answer only"
    assert slow.stopped == []


@pytest.mark.parametrize("status", ["Failed", "Cancelled", "Timeout"])
def test_a_query_that_comes_to_no_end_is_said_so(status: str) -> None:
    with standing(Insights(GROUPS, [status]).answers) as aws:
        found = trace(aws, "b", *groups(B))
    assert found.exit_code == 1
    assert f"the query of CloudWatch Logs ended as {status}" in found.stderr


@pytest.mark.parametrize(
    ("operation", "answer", "text"),
    [
        ("StartQuery", refused("AccessDeniedException"), "It needs logs:DescribeLogGroups, logs:StartQuery, logs:GetQueryRes"),
        ("GetQueryResults", refused("AccessDeniedException"), "logs:StopQuery"),
        ("StartQuery", refused("MalformedQueryException", "unexpected"), "CloudWatch Logs: MalformedQueryException: unexp"),
        ("DescribeLogGroups", refused("ServiceUnavailableException"), "ServiceUnavailableException"),
        ("ListStackResources", refused("AccessDenied"), "Error"),
    ],
)  # fmt: skip
def test_errors_are_plain_sentences(insights: Insights, operation: str, answer: Any, text: str) -> None:
    answers = {**insights.answers, "ListStackResources": stack_of(STACK), operation: answer}
    with standing(answers) as aws:
        found = trace(aws, "b", *groups(B), "--stack", "shop")
    assert found.exit_code == 1
    assert text in found.stderr
    assert "Traceback" not in found.output


def test_where_groups_may_not_be_listed_they_are_asked_all_the_same(insights: Insights) -> None:
    with standing({**insights.answers, "DescribeLogGroups": refused("AccessDeniedException")}) as aws:
        assert "record b" in trace(aws, "b", *groups(B)).stdout
        missing = trace(aws, "b", *groups("/nosuch"))
    assert missing.exit_code == 1
    assert "Log group '/nosuch' does not exist" in missing.stderr


def test_a_missing_group_or_stack_is_named(aws: Standing) -> None:
    assert "there is no log group /nosuch: has the function run" in trace(aws, "b", *groups(B, "/nosuch")).stderr
    assert "the stack 'nosuch': ValidationError" in trace(aws, "b", "--stack", "nosuch").stderr


def test_groups_of_another_class_are_left_out_and_named(aws: Standing, insights: Insights) -> None:
    insights.classes[A] = "INFREQUENT_ACCESS"
    assert f"Not asked, because of their class: {A}" in trace(aws, "b", "--stack", "shop").stderr
    assert "there is no log group that can be asked of the class" in trace(aws, "b", *groups(A)).stderr


def test_more_than_fifty_groups_are_asked_in_several_queries() -> None:
    many: dict[str, list[str]] = {f"/aws/lambda/f{number}": [] for number in range(60)} | {B: BILL}
    with standing(Insights(many).answers) as aws:
        assert "record b" in trace(aws, "b", *groups(*many)).stdout
        assert [len(call["logGroupNames"]) for call in aws.calls("StartQuery")][:2] == [50, 11]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "--stack", "shop", "--log", "x"], "give one of them"),
        (["a", "--region", "eu-west-1"], "are for AWS: name a --stack or a --log-group"),
        (["a", "--since", "3h"], "are for AWS"),
        (["a", "--stack", "shop", "--since", "yesterday"], "write a number and a unit"),
        (["a", "--stack", "shop", "--since", "-3h"], "write a number and a unit"),
        (["a", "--stack", "shop", "--endpoint-url", "x"], "is no URL"),
    ],
)
def test_misuse_is_exit_code_2(arguments: list[str], message: str) -> None:
    found = CliRunner().invoke(cli, ["trace", *arguments])
    assert found.exit_code == 2
    assert message in found.stderr


def test_since_bounds_what_is_scanned(aws: Standing) -> None:
    found = CliRunner().invoke(cli, ["trace", "b", *groups(B), "--since", "3h", "--endpoint-url", aws.endpoint_url])
    assert found.exit_code == 0
    call = aws.calls("StartQuery")[0]
    assert 3 * 3_600 <= call["endTime"] - call["startTime"] <= 3 * 3_600 + 120


def test_ctrl_c_stops_the_query_which_would_be_paid_on() -> None:
    endless = Insights(GROUPS, ["Running"] * 1_000)
    looked = threading.Event()
    answers = endless.answers
    results = answers["GetQueryResults"]

    def look(parameters: dict[str, Any]) -> tuple[int, Any]:
        looked.set()
        return results(parameters)

    with standing({**answers, "GetQueryResults": look}) as aws:
        command = [sys.executable, "-m", "pipeline", "trace", "b", *groups(B), "--endpoint-url", aws.endpoint_url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
            try:
                assert looked.wait(30)
                running.send_signal(signal.SIGINT)
                _, err = running.communicate(timeout=20)
            finally:
                running.kill()
    assert running.returncode == 130
    assert "Traceback" not in err
    assert endless.stopped == ["q1"]


def test_motos_logs_which_do_not_filter_tell_the_same_story() -> None:
    server = embedded.lease()
    keys: Any = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
    region = variables(server.endpoint_url)["AWS_REGION"]
    client = boto3.client("logs", endpoint_url=server.endpoint_url, region_name=region, **keys)
    start = datetime.now(UTC) - timedelta(minutes=5)
    for name, lines in ((A, PRICE), (B, BILL)):
        client.create_log_group(logGroupName=name)
        client.create_log_stream(logGroupName=name, logStreamName="s")
        events = [{"timestamp": int(start.timestamp() * 1000) + n, "message": text} for n, text in enumerate(lines)]
        client.put_log_events(logGroupName=name, logStreamName="s", logEvents=events)
    client.close()
    found = trace(server.endpoint_url, "b", *groups(A, B))
    nothing = trace(server.endpoint_url, "nosuch", *groups(A, B))
    embedded.give_back(server)
    assert "has the id 'nosuch' (0 lines)" in nothing.stderr
    assert found.exit_code == 0, found.output
    assert "shop/bill: record b" in found.stdout
    assert "a of orders in shop/price" in found.stdout
    assert "stranger" not in found.stdout


# -- Questions


@given(st.lists(st.text(), max_size=4), st.sampled_from(["record_id", "caused_by"]))
def test_no_value_gets_out_of_its_quotes(values: Sequence[str], name: str) -> None:
    for condition in (logs.is_(name, values), logs.contains(values)):
        if condition is not None:
            value = '"[A-Za-z0-9_./:@=+,#-]{1,256}"'
            test = rf"({name} = {value}|{name} in \[{value}(, {value})*\]|strcontains\((@message|{name}), {value}\))"
            assert re.fullmatch(f"{test}( or {test})*", condition)


@pytest.mark.parametrize(
    ("value", "condition"),
    [
        ("readings/shardId-000000000000:49", 'record_id = "readings/shardId-000000000000:49"'),
        ('x" or 1 = 1 | limit 1 #', 'strcontains(record_id, "limit")'),
        ("a\\", 'strcontains(record_id, "a")'),
        ("läng", 'strcontains(record_id, "ng")'),
        ("€", None),
        ("", None),
        ("a" * 300, f'strcontains(record_id, "{"a" * 256}")'),
    ],
)
def test_a_value_with_characters_of_the_language_is_asked_by_a_part(value: str, condition: str | None) -> None:
    assert logs.is_("record_id", [value]) == condition


def test_an_id_of_such_characters_is_found_exactly(insights: Insights) -> None:
    odd = 'x"ä| limit 1'
    lines = {A: [line("record.failed", 1, odd), line("record.failed", 2, "the limit")]}
    with standing(Insights(lines).answers) as aws:
        found = json.loads(trace(aws, odd, *groups(A), "--json").stdout)
    assert [one["record_id"] for one in found["records"]] == [odd]


# -- Waiting, in time that a test moves


@pytest.fixture
async def environment(aws: Standing, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in variables(aws.endpoint_url).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    made = ProcessEnvironment(clock=ManualClock())
    yield made
    await made.aclose()


async def test_a_query_without_an_end_is_given_up_and_stopped(
    aws: Standing, insights: Insights, environment: ProcessEnvironment
) -> None:
    aws.answers["GetQueryResults"] = lambda _: (200, {"status": "Running", "results": []})
    with pytest.raises(logs.QueryFailed, match="did not end within 300 seconds"):
        await logs.ask([B], logs.query_of('record_id = "b"'), 0, 1, environment)
    assert insights.stopped == ["q1"]
    clock = environment.clock
    assert isinstance(clock, ManualClock)
    assert clock.slept[0] == 0.2
    assert max(clock.slept) == 1.0


async def test_a_query_that_is_being_started_when_we_are_stopped_is_stopped_too(
    aws: Standing, insights: Insights, environment: ProcessEnvironment
) -> None:
    loop = asyncio.get_running_loop()
    arrived, go_on = asyncio.Event(), threading.Event()
    start = aws.answers["StartQuery"]

    def slow(parameters: dict[str, Any]) -> tuple[int, Any]:
        loop.call_soon_threadsafe(arrived.set)
        assert go_on.wait(30)
        return start(parameters)

    aws.answers["StartQuery"] = slow
    asking = asyncio.create_task(logs.ask([B], logs.query_of('record_id = "b"'), 0, 1, environment))
    await arrived.wait()
    asking.cancel()
    loop.call_soon(go_on.set)
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert insights.stopped == ["q1"]


async def test_a_region_that_is_busy_is_asked_again_and_then_said_so(
    aws: Standing, insights: Insights, environment: ProcessEnvironment
) -> None:
    busy = iter([refused("LimitExceededException")] * 2)
    start = aws.answers["StartQuery"]
    aws.answers["StartQuery"] = lambda parameters: next(busy, start)(parameters)
    answer = await logs.ask([B], logs.query_of('record_id = "b"'), 0, 1, environment)
    assert len(answer.rows) == 2
    aws.answers["StartQuery"] = refused("LimitExceededException")
    with pytest.raises(logs.QueryFailed, match=r"takes no query for 60 seconds .LimitExceededException."):
        await logs.ask([B], logs.query_of('record_id = "b"'), 0, 1, environment)


async def test_all_pages_of_an_answer_are_read(aws: Standing, environment: ProcessEnvironment) -> None:
    row = [{"field": "@message", "value": "x"}, {"field": "@timestamp", "value": "2026-11-21 10:00:00.500"}]
    pages = {None: ("1", 2), "1": ("2", 2), "2": (None, 1)}

    def results(parameters: dict[str, Any]) -> tuple[int, Any]:
        following, count = pages[parameters.get("nextToken")]
        found: dict[str, Any] = {"status": "Complete", "results": [row] * count}
        return 200, found if following is None else {**found, "nextToken": following}

    aws.answers["GetQueryResults"] = results
    answer = await logs.ask([B], logs.query_of('record_id = "b"'), 0, 1, environment)
    assert len(answer.rows) == 5
    assert answer.rows[0].at == datetime(2026, 11, 21, 10, 0, 0, 500_000, tzinfo=UTC).timestamp()
    assert not answer.is_cut


async def test_as_many_rows_as_a_query_has_may_be_a_part(aws: Standing, environment: ProcessEnvironment) -> None:
    row = [{"field": "@message", "value": "x"}]
    aws.answers["GetQueryResults"] = lambda _: (200, {"status": "Complete", "results": [row] * logs.MAX_ROWS})
    assert (await logs.ask([B], logs.query_of('record_id = "b"'), 0, 1, environment)).is_cut
