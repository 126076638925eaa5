"""Templates' functions behind their mappings, on the embedded server; mostly in this process, where that is quick."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from pipeline.deploy.local import in_process
from pipeline.deploy.local.run import TemplateRun
from pipeline.emulator.functions.function import InvocationFailed
from pipeline.emulator.reload import ReloadError, forget
from pipeline.errors import ConfigurationError, PipelineError

QUEUE = """
Transform: AWS::Serverless-2016-10-31
Parameters:
  Batch: {Type: Number, Default: 10}
Globals: {Function: {Runtime: python3.12, CodeUri: src, Timeout: 1}}
Resources:
  Price:
    Type: AWS::Serverless::Function
    Properties:
      Handler: pricing.handler
      Environment: {Variables: {RATE: '2'}}
      Events:
        Orders: {Type: SQS, Properties: {Queue: !GetAtt Orders.Arn, BatchSize: !Ref Batch}}
  Orders:
    Type: AWS::SQS::Queue
    Properties: {VisibilityTimeout: 6, RedrivePolicy: {deadLetterTargetArn: !GetAtt Dead.Arn, maxReceiveCount: 3}}
  Dead: {Type: AWS::SQS::Queue}
"""
#: Another function, on a queue of its own.
SECOND = QUEUE.replace(
    "  Orders:\n",
    "  Ship:\n    Type: AWS::Serverless::Function\n    Properties:\n      Handler: shipping.handler\n"
    "      Events:\n        Parcels: {Type: SQS, Properties: {Queue: !GetAtt Parcels.Arn}}\n"
    "  Parcels: {Type: AWS::SQS::Queue}\n  Orders:\n",
    1,
)
#: Appends what it gets to a file, which is what a process can tell a test by.
HANDLER = """
import os, pathlib

def handler(event, context):
    with pathlib.Path(__file__).with_name("told.txt").open("a") as told:
        for record in event["Records"]:
            told.write(f"{WORD} {record['body']} {os.environ['RATE']}\\n")
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "src").mkdir()
    write(tmp_path, "pricing", "WORD = 'first'\n" + HANDLER)
    (tmp_path / "template.yaml").write_text(QUEUE)
    before = list(sys.path)
    yield tmp_path
    assert sys.path == before
    assert not [name for name, module in sys.modules.items() if str(tmp_path) in str(getattr(module, "__file__", ""))]


def write(project: Path, module: str, text: str) -> Path:
    path = project / "src" / f"{module}.py"
    path.write_text(text)
    for compiled in path.parent.glob("__pycache__/*.pyc"):
        compiled.unlink()  # watching does that: two edits within a second look like one
    return path


def told(project: Path) -> list[str]:
    path = project / "src" / "told.txt"
    return sorted(path.read_text().splitlines()) if path.exists() else []


def run(project: Path, **options: Any) -> TemplateRun:
    return TemplateRun(project / "template.yaml", in_process=True, skip_idle=True, **options)


async def test_a_breakpoint_stands_in_this_process_beyond_the_timeout(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(project, "helper", "def price(order, context):\n    breakpoint()\n    return order\n")
    write(project, "pricing", "from helper import price\ndef handler(event, context):\n    price(event, context)\n")
    monkeypatch.setattr("pipeline.deploy.local.functions.TIMEOUT", 0.05)  # a template's is a second at least
    (project / "template.yaml").write_text(QUEUE.replace(", Timeout: 1}", "}"))
    stood: list[FrameType] = []

    def stand() -> None:
        frame = sys._getframe(1)
        while frame.f_locals["context"].get_remaining_time_in_millis() > 0:
            pass  # whoever debugs takes longer than the function may
        stood.append(frame)

    monkeypatch.setattr(sys, "breakpointhook", stand)
    async with run(project) as env:
        await env.send("Orders", ["a"])
        report = await env.drain()
    assert [frame.f_code.co_filename for frame in stood] == [str(project / "src" / "helper.py")]
    assert (report.succeeded, report.handlers["Price"].failed_invocations) == (1, 0)


async def test_modules_of_one_name_in_two_directories_are_refused_in_one_process(project: Path) -> None:
    (project / "other").mkdir()
    (project / "other" / "pricing.py").write_text("")
    (project / "other" / "shipping.py").write_text("def handler(event, context): ...\n")
    (project / "template.yaml").write_text(
        SECOND.replace("shipping.handler\n", "shipping.handler\n      CodeUri: other\n")
    )
    with pytest.raises(ConfigurationError, match="Price and Ship have modules called 'pricing' in two directories"):
        run(project)
    TemplateRun(project / "template.yaml")  # each has a process of its own


async def test_a_module_with_a_hyphen_runs(project: Path) -> None:
    (project / "template.yaml").write_text(QUEUE.replace("pricing.handler", "my-pricing.handler"))
    write(project, "my-pricing", "WORD = 'hyphen'\n" + HANDLER)
    async with run(project) as env:
        await env.send("Orders", ["a"])
        await env.drain()
        path = write(project, "my-pricing", "WORD = 'second'\n" + HANDLER)
        await env.renew([path])
        await env.send("Orders", ["b"])
        await env.drain()
    assert told(project) == ["hyphen a 2", "second b 2"]

    (project / "other").mkdir()
    (project / "other" / "my-pricing.py").write_text("def handler(event, context): ...\n")
    (project / "template.yaml").write_text(
        SECOND.replace("shipping.handler\n", "my-pricing.handler\n      CodeUri: other\n").replace(
            "pricing.handler", "my-pricing.handler", 1
        )
    )
    with pytest.raises(ConfigurationError, match="have modules called 'my-pricing' in two directories"):
        run(project)


async def test_a_module_that_this_process_has_already_is_not_taken_for_the_functions(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (project / "template.yaml").write_text(QUEUE.replace("pricing.handler", "pathlib.handler"))
    write(project, "pathlib", "def handler(event, context): ...\n")
    async with run(project) as env:
        await env.send("Orders", ["a"])
        report = await env.drain()
    assert report.dead_lettered == 1
    assert "Handler 'handler' missing on module 'pathlib'" in caplog.text


async def test_edits_are_taken_over_and_queues_keep_their_messages(project: Path) -> None:
    async with run(project) as env:
        await env.send("Orders", ["a"])
        await env.drain()
        path = write(project, "pricing", "WORD = 'second'\n" + HANDLER)
        await env.renew([path])
        await env.send("Orders", ["b"])
        await env.drain()
        assert told(project) == ["first a 2", "second b 2"]

        path = write(project, "pricing", "import nosuchthing\n" + HANDLER)
        with pytest.raises(ReloadError, match="No module named 'nosuchthing'"):
            await env.renew([path])
        await env.send("Orders", ["c"])
        await env.drain()
        assert told(project)[-1] == "second c 2"

        write(project, "pricing", "WORD = 'third'\n" + HANDLER)
        (project / "template.yaml").write_text(QUEUE.replace("RATE: '2'", "RATE: '3'"))
        await env.renew()
        await env.send("Orders", ["d"])
        report = await env.drain()
        assert told(project)[-1] == "third d 3"
        assert report.handlers["Price"].succeeded == 4, "the counts go on"
    assert "RATE" not in os.environ


#: The first is refused by the server, the second by botocore before it is sent.
REFUSED: list[dict[str, Any]] = [
    {"AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in ("id", "unused")]},
    {"LocalSecondaryIndexes": [{"IndexName": "i"}]},
]
TABLE_PROPERTIES = {
    "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
    "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
    "StreamSpecification": {"StreamViewType": "NEW_IMAGE"},
}


@pytest.mark.parametrize("refused", REFUSED)
@pytest.mark.parametrize("is_source", [False, True])
async def test_only_what_a_function_reads_ends_the_run_when_the_server_refuses_it(
    project: Path, refused: dict[str, Any], is_source: bool
) -> None:
    """All on one line: it is not the line that tells a source from the rest."""
    events: dict[str, Any] = {"Orders": {"Type": "SQS", "Properties": {"Queue": {"Fn::GetAtt": ["Orders", "Arn"]}}}}
    if is_source:
        stream = {"Stream": {"Fn::GetAtt": ["Items", "StreamArn"]}, "StartingPosition": "LATEST"}
        events["Items"] = {"Type": "DynamoDB", "Properties": stream}
    price = {"Runtime": "python3.12", "CodeUri": "src", "Handler": "pricing.handler", "Events": events}
    resources = {
        "Price": {"Type": "AWS::Serverless::Function", "Properties": price},
        "Orders": {"Type": "AWS::SQS::Queue"},
        "Items": {"Type": "AWS::DynamoDB::Table", "Properties": {**TABLE_PROPERTIES, **refused}},
    }
    (project / "template.yaml").write_text(json.dumps({"Resources": resources}))
    if is_source:
        with pytest.raises(ConfigurationError, match="the table Items could not be made"):
            await run(project).__aenter__()
        return
    async with run(project) as env:
        assert [one.message.partition(":")[0] for one in env.problems] == ["the table Items could not be made"]


async def test_a_stand_in_is_fed_and_reported_by_its_name(project: Path) -> None:
    price = QUEUE.replace("!GetAtt Orders.Arn", "'arn:aws:sqs:us-east-1:1:theirs'")
    more = "        More: {Type: SQS, Properties: {Queue: 'arn:aws:sqs:us-east-1:1:Dead'}}\n  Orders:\n"
    (project / "template.yaml").write_text(
        price.replace("  Orders:\n", more).replace(
            "  Dead: {Type: AWS::SQS::Queue}", "  Dead: {Type: AWS::SQS::Queue, Properties: {QueueName: other}}"
        )
    )
    env = run(project)
    # The template has a Dead of its own, which is not called Dead.
    assert env.sources == {
        "Price.theirs": "theirs",
        "Price.arn:aws:sqs:us-east-1:123456789012:Dead": "arn:aws:sqs:us-east-1:123456789012:Dead",
    }
    async with env:
        await env.send("theirs", ["a"])
        report = await env.drain()
    assert report.handlers["Price.theirs"].succeeded == 1
    assert told(project) == ["first a 2"]


async def test_a_function_comes_and_goes_with_the_template(project: Path) -> None:
    async with run(project) as env:
        write(project, "shipping", "WORD = 'ship'\n" + HANDLER)
        (project / "template.yaml").write_text(SECOND)
        await env.renew()
        await env.send("Parcels", ["p"])
        await env.drain()
        (project / "template.yaml").write_text(QUEUE.replace("Orders", "Baskets"))
        await env.renew()
        await env.send("Baskets", ["b"])
        report = await env.drain()
        assert list(report.handlers) == ["Price"]
        (project / "template.yaml").write_text("Resources: {")
        with pytest.raises(ConfigurationError, match=r"template\.yaml:1: error"):
            await env.renew()
        (project / "template.yaml").write_text(SECOND)
        await env.renew()
        with pytest.raises(ConfigurationError, match="there is no source 'Baskets'"):
            await env.send("Baskets", ["c"])
    assert told(project) == ["first b 2", "ship p 2"]


async def test_what_runs_ends_on_the_old_code(project: Path) -> None:
    waiting = "while not pathlib.Path(__file__).with_name('go').exists(): pass\n"
    indented = "".join(f"    {line}\n" for line in waiting.splitlines())
    text = HANDLER.replace("context):\n", f"context):\n    {BEGUN}\n{indented}")
    write(project, "pricing", "WORD = 'first'\n" + text)
    async with run(project) as env:
        await env.send("Orders", ["a"])
        while not (project / "src" / "begun").exists():
            await env.activity.wait(0.02)
        path = write(project, "pricing", "WORD = 'second'\n" + HANDLER)
        await env.renew([path])
        (project / "src" / "go").touch()
        await env.send("Orders", ["b"])
        await env.drain()
    assert told(project) == ["first a 2", "second b 2"]


BEGUN = "pathlib.Path(__file__).with_name('begun').touch()"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def handler(:\n", "Syntax error in module 'pricing'"),
        ("RATE = 1 / 0\n", "division by zero"),
        ("", "Handler 'handler' missing on module 'pricing'"),
    ],
)
def test_why_a_handler_does_not_start_is_told(
    project: Path, caplog: pytest.LogCaptureFixture, text: str, said: str
) -> None:
    write(project, "pricing", text)
    function = run(project).project.functions["Price"]
    runtimes = in_process.Runtimes(function)
    with in_process.importable([function.directory]):
        for _ in range(2):
            with pytest.raises(InvocationFailed, match=said):
                runtimes()
    forget(function.directory)
    (told,) = caplog.messages
    assert told.startswith("Price does not start")


async def test_a_handler_that_does_not_import_says_so_once(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Three receives, three tries: the page is written for the first only."""
    said = "Unable to import module 'pricing': No module named 'nosuchthing'"
    write(project, "pricing", "import nosuchthing\n")
    with caplog.at_level(logging.ERROR):
        async with run(project) as env:
            await env.send("Orders", ["a"])
            report = await env.drain()
    assert report.handlers["Price"].failed_invocations == 3
    assert report.dead_lettered == report.exhausted == 1
    messages = [record.getMessage() for record in caplog.records]
    assert [message for message in messages if said in message]
    assert sum(message.startswith("Price does not start") for message in messages) == 1
    assert [message for message in messages if "comes back" in message][1:] == [
        "Price: the whole batch comes back again"
    ] * 2
    assert "importlib" not in caplog.text


async def test_a_process_says_once_that_its_handler_does_not_import(project: Path) -> None:
    write(project, "pricing", "print('importing')\nimport nosuchthing\n")
    lines: list[str] = []
    async with TemplateRun(project / "template.yaml", skip_idle=True, output=lines.append) as env:
        await env.send("Orders", ["a"])
        report = await env.drain()
    assert report.handlers["Price"].failed_invocations == 3
    assert "".join(lines).count("No module named 'nosuchthing'") == 1


TABLE = """
Transform: AWS::Serverless-2016-10-31
Globals: {Function: {Runtime: python3.12, CodeUri: src}}
Resources:
  Price:
    Type: AWS::Serverless::Function
    Properties:
      Handler: pricing.handler
      Events:
        Changes: {Type: DynamoDB, Properties: {Stream: !GetAtt Items.StreamArn, StartingPosition: TRIM_HORIZON}}
        Clicks: {Type: Kinesis, Properties: {Stream: !GetAtt Clicks.Arn, StartingPosition: TRIM_HORIZON}}
        News: {Type: SNS, Properties: {Topic: !Ref News, SqsSubscription: true}}
  Items:
    Type: AWS::DynamoDB::Table
    Properties:
      TableName: items
      BillingMode: PAY_PER_REQUEST
      AttributeDefinitions: [{AttributeName: id, AttributeType: S}]
      KeySchema: [{AttributeName: id, KeyType: HASH}]
      StreamSpecification: {StreamViewType: NEW_IMAGE}
  Clicks: {Type: AWS::Kinesis::Stream, Properties: {ShardCount: 1}}
  News: {Type: AWS::SNS::Topic}
"""


async def test_a_table_a_stream_and_a_topic_reach_their_function(project: Path) -> None:
    (project / "template.yaml").write_text(TABLE)
    write(
        project, "pricing",
        "import pathlib\ndef handler(event, context):\n"
        "    with pathlib.Path(__file__).with_name('told.txt').open('a') as told:\n"
        "        for record in event['Records']: told.write(record['eventSource'] + '\\n')\n",
    )  # fmt: skip
    async with run(project) as env:
        await env.client("dynamodb").put_item(TableName="items", Item={"id": {"S": "a"}})
        topics = await env.client("sns").list_topics()
        await env.client("sns").publish(TopicArn=topics["Topics"][0]["TopicArn"], Message="news")
        await env.send("Clicks", [{"id": 1}, {"id": 2}])
        with pytest.raises(ConfigurationError, match="write to the table"):
            await env.send("Items", [{"id": 1}])
        report = await env.drain()
    assert told(project) == ["aws:dynamodb", "aws:kinesis", "aws:kinesis", "aws:sqs"]
    assert report.succeeded == 4


def kill_server(env: TemplateRun) -> None:
    server = env._backend._server
    assert server is not None
    os.kill(server.pid, signal.SIGKILL)
    server._process.wait()


async def test_a_server_that_dies_ends_the_run_with_a_sentence(project: Path) -> None:
    """The handler would block for ever."""
    write(project, "pricing", f"import pathlib\ndef handler(event, context):\n    {BEGUN}\n    while True: pass\n")
    with pytest.raises(PipelineError, match="the local AWS server has ended unexpectedly"):
        async with run(project) as env:
            await env.send("Orders", ["a"])
            while not (project / "src" / "begun").exists():
                await env.activity.wait(0.02)
            kill_server(env)
            with pytest.raises(PipelineError, match="the local AWS server has ended unexpectedly"):
                await env.offer("Orders", ["b"])
            await env.drain()
