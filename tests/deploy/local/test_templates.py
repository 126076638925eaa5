"""Templates as users write them: SAM and plain CloudFormation, YAML and JSON, and our own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from handlers import logs, webhooks
from pipeline.decisions.patterns import RecordFilter
from pipeline.deploy.local import Project, read
from pipeline.deploy.local.resources import Subscription, Target
from pipeline.emulator.mappings.settings import ProvisionedPollers, QueueSettings, StreamSettings
from tests.deploy.local.conftest import HERE, TEMPLATES, said

ROOT = Path(__file__).parents[3]
SQS = "arn:aws:sqs:us-east-1:123456789012:"


def project(name: str, **parameters: str) -> Project:
    return read(TEMPLATES / name, parameters)


@pytest.fixture(scope="module")
def own() -> Project:
    """Our own template, as `make` would be called for a server on some port."""
    return read(ROOT / "template.yaml", endpoint="http://localhost:1")


def without_filter(settings: QueueSettings | StreamSettings) -> tuple[object, RecordFilter | None]:
    found = settings.filter
    assert found is None or isinstance(found, RecordFilter)
    return {**vars(settings), "filter": None}, found


def test_a_queue_with_partial_responses() -> None:
    found = project("queue.yaml")
    (mapping,) = found.mappings
    settings, patterns = without_filter(mapping.settings)

    assert found.problems == ()
    assert (mapping.id, mapping.function, mapping.source) == ("CheckoutOrders", "Checkout", "Orders")
    assert settings == vars(
        QueueSettings(
            batch_size=25,
            batching_window=3,
            report_batch_item_failures=True,
            maximum_concurrency=5,
            function_timeout=10,
            visibility_timeout=60,
        )
    )
    assert patterns is not None
    assert patterns.accepts('{"kind": "order", "total": 3}')
    assert not patterns.accepts('{"kind": "order", "total": 0}')


def test_a_function_has_its_own_settings_and_the_globals() -> None:
    function = project("queue.yaml").functions["Checkout"]

    assert (function.settings.name, function.settings.timeout, function.settings.memory) == ("dev-checkout", 10, 512)
    assert function.handler == "app.lambda_handler"
    assert function.directory == (TEMPLATES / "src").resolve()
    assert function.settings.reserved_concurrency is None
    assert function.environment == {
        "STAGE": "dev",
        "LOG_LEVEL": "DEBUG",
        "QUEUE_URL": "https://sqs.us-east-1.amazonaws.com/123456789012/local-orders",
        "QUEUE_NAME": "local-orders",
        "LEDGER": "Ledger",
        "LEDGER_ARN": "arn:aws:dynamodb:us-east-1:123456789012:table/Ledger",
        "PLACES": "us-east-1,b",
    }


def test_parameters_decide() -> None:
    found = project("queue.yaml", Stage="prod", ConcurrencyLimit="20")
    settings = found.mappings[0].settings

    assert isinstance(settings, QueueSettings)
    assert (settings.batch_size, settings.maximum_concurrency) == (500, 20)
    assert found.functions["Checkout"].settings.name == "prod-checkout"
    assert found.functions["Checkout"].settings.reserved_concurrency == 50


def test_the_endpoint_is_the_callers() -> None:
    found = read(TEMPLATES / "queue.yaml", endpoint="http://127.0.0.1:5000/")

    assert found.functions["Checkout"].environment["QUEUE_URL"] == "http://127.0.0.1:5000/123456789012/local-orders"
    assert found.names["Orders"].url == "http://127.0.0.1:5000/123456789012/local-orders"


def test_a_queue_has_all_its_attributes() -> None:
    queues = project("queue.yaml").queues

    assert queues["Orders"].attributes == {
        "DelaySeconds": "5",
        "MessageRetentionPeriod": "86400",
        "ReceiveMessageWaitTimeSeconds": "20",
        "VisibilityTimeout": "60",
    }
    assert queues["Orders"].redrive is not None
    assert (queues["Orders"].redrive.target, queues["Orders"].redrive.max_receives) == (f"{SQS}Failed", 4)
    assert queues["Failed"].redrive_allow == '{"redrivePermission": "allowAll"}'


def test_a_simple_table_has_the_key_that_sam_gives_it() -> None:
    table = project("queue.yaml").tables["Ledger"]

    assert table.keys == [{"AttributeName": "id", "KeyType": "HASH"}]
    assert table.attributes == [{"AttributeName": "id", "AttributeType": "S"}]


def test_a_stream_with_everything_that_a_mapping_can_have() -> None:
    found = project("stream.json")
    clicks, sums = found.mappings
    settings, patterns = without_filter(clicks.settings)

    assert settings == vars(
        StreamSettings(
            batch_size=250,
            batching_window=2,
            report_batch_item_failures=True,
            starting_position="AT_TIMESTAMP",
            starting_timestamp=1_760_000_000,
            parallelization_factor=4,
            bisect=True,
            maximum_retry_attempts=6,
            maximum_record_age=3600,
            retention=172_800,
            on_failure="arn:aws:s3:::lost",
            function_name="Count",
            source_arn="arn:aws:kinesis:us-east-1:123456789012:stream/Clicks",
        )
    )
    assert patterns is not None
    assert patterns.accepts(b'{"page": "/shop/1"}')
    assert (sums.settings.batch_size, sums.is_enabled) == (100, False)
    assert isinstance(sums.settings, StreamSettings)
    assert sums.settings.tumbling_window == 30


def test_an_alias_and_a_consumer_lead_to_the_function_and_the_stream() -> None:
    found = project("stream.json")

    assert [(one.function, one.source) for one in found.mappings] == [("Count", "Clicks"), ("Count", "Clicks")]
    assert found.function_of(found.mappings[1]).id == "Count"
    assert found.source_of(found.mappings[1]) is found.streams["Clicks"]
    assert said(found) == [
        "38: note: CountSums reads through a consumer: here it reads the stream itself",
        "45: note: CountSums is disabled: it reads nothing",
    ]


def test_a_stream_and_a_function_of_plain_cloudformation() -> None:
    found = project("stream.json")

    assert (found.streams["Clicks"].shards, found.streams["Clicks"].retention_hours) == (2, 48)
    assert found.functions["Count"].environment == {
        "STREAM": "Clicks",
        "ROLE": "arn:aws:iam::123456789012:role/CountRole",
    }


def test_a_tables_stream() -> None:
    found = project("table.yaml")
    (mapping,) = found.mappings
    settings = mapping.settings
    insert = {"eventName": "INSERT", "dynamodb": {"NewImage": {"open": {"BOOL": True}}}}

    assert found.problems == ()
    assert isinstance(settings, StreamSettings)
    assert (settings.batch_size, settings.maximum_retry_attempts, settings.retention) == (10, 3, 86_400)
    assert settings.on_failure == "arn:aws:sns:us-east-1:123456789012:Alarms"
    assert settings.source_arn.startswith("arn:aws:dynamodb:us-east-1:123456789012:table/accounts/stream/")
    assert settings.filter is not None
    assert settings.filter.accepts(insert["dynamodb"], insert)
    assert not settings.filter.accepts(insert["dynamodb"], {**insert, "eventName": "REMOVE"})


def test_a_table_has_keys_indexes_a_stream_and_an_expiry() -> None:
    table = project("table.yaml").tables["Accounts"]

    assert [one["AttributeName"] for one in table.keys] == ["owner", "number"]
    assert table.global_indexes == [
        {
            "IndexName": "by-bank",
            "KeySchema": [{"AttributeName": "bank", "KeyType": "HASH"}],
            "Projection": {"ProjectionType": "ALL"},
        }
    ]
    assert (table.stream_view, table.ttl_attribute) == ("NEW_AND_OLD_IMAGES", "expires")


def test_a_fifo_queue() -> None:
    found = project("fifo.yaml")
    (mapping,) = found.mappings

    assert found.problems == ()
    assert mapping.settings == QueueSettings(
        is_fifo=True,
        batch_size=5,
        report_batch_item_failures=True,
        provisioned=ProvisionedPollers(3, 20),
        function_timeout=20,
        visibility_timeout=120,
    )
    assert found.queues["Payments"].names.name == "Payments.fifo"
    assert found.queues["Payments"].attributes == {
        "FifoQueue": "true",
        "ContentBasedDeduplication": "true",
        "DeduplicationScope": "messageGroup",
        "FifoThroughputLimit": "perMessageGroupId",
        "VisibilityTimeout": "120",
    }
    assert found.queues["Payments"].redrive is not None
    assert found.queues["Payments"].redrive.target == f"{SQS}Unpaid.fifo"


def test_a_topic_and_its_queues() -> None:
    found = project("topic.yaml")
    topic = "arn:aws:sns:us-east-1:123456789012:news"

    assert [one.source for one in found.mappings] == ["All", "Sports", "ReadOwnQueue", "Kept"]
    assert found.mappings[3].settings.batch_size == 4
    assert found.subscriptions == (
        Subscription(topic, f"{SQS}All", 9),
        Subscription(topic, f"{SQS}Sports", 11, True, '{"section": ["sports"]}', "MessageBody"),
        Subscription(topic, f"{SQS}ReadOwnQueue", 33, False, '{"urgent": ["true"]}'),
        Subscription(topic, f"{SQS}Kept", 39),
    )
    assert said(found) == [
        "10: note: News: a subscription of email is not run; only queues get it",
        "42: note: Read.Pushed is an event of SNS, and no event source mapping: not run",
    ]


def test_a_bus_and_its_rules() -> None:
    found = project("bus.json")
    rule = found.rules["OnOrder"]

    assert (rule.bus, rule.is_enabled) == ("shop", True)
    assert json.loads(rule.pattern) == {"source": ["shop.web"], "detail": {"total": [{"numeric": [">", 100]}]}}
    assert rule.targets == (
        Target("queue", f"{SQS}Orders", input_path="$.detail"),
        Target("ordered", f"{SQS}lines.fifo", group="all"),
    )
    assert said(found) == [
        "13: note: OnOrder has a target that is no queue: it is not run",
        "19: note: Hourly has no EventPattern: schedules are not run",
    ]


def test_a_bucket_tells_a_queue() -> None:
    bucket = project("bus.json").buckets["Uploads"]
    (told,) = bucket.notifications

    assert (bucket.names.name, bucket.to_event_bridge) == ("uploads", True)
    assert (told.queue, told.events, told.rules) == (
        f"{SQS}Orders", ("s3:ObjectCreated:*",), [{"Name": "suffix", "Value": ".csv"}],
    )  # fmt: skip


def test_the_plain_project() -> None:
    found = read(HERE / "plain" / "template.yaml")
    (mapping,) = found.mappings

    assert found.problems == ()
    assert found.is_runnable
    assert mapping.options == {
        "batch_size": 10,
        "batching_window": 0,
        "filter": None,
        "report_batch_item_failures": True,
        "maximum_concurrency": None,
        "provisioned": None,
    }


def test_our_own_template_runs_whole(own: Project) -> None:
    stages = [stage for app in (logs.logs, webhooks.webhooks) for stage in app.stages()]

    assert own.problems == ()
    assert {one.handler for one in own.functions.values()} == {
        f"{stage.function.__module__}.{stage.name}" for stage in stages
    }
    assert {one.directory for one in own.functions.values()} == {ROOT}
    assert len(own.mappings) == len(own.functions) == 3


def test_our_own_mappings_are_those_that_were_declared(own: Project) -> None:
    """The local run of the pipelines and that of their template must not differ."""
    by_handler = {own.function_of(one).handler.rpartition(".")[2]: one for one in own.mappings}
    archive, record, timeline = (by_handler[name].settings for name in ("archive", "record", "timeline"))

    assert isinstance(archive, StreamSettings)
    assert (archive.batch_size, archive.batching_window, archive.bisect, archive.maximum_record_age) == (
        500,
        5,
        True,
        72_000,
    )
    assert archive.on_failure == "arn:aws:s3:::loglinesgivenupbucket"
    assert isinstance(record, QueueSettings)
    assert (record.batch_size, record.batching_window, record.maximum_concurrency) == (50, 1, 10)
    assert isinstance(timeline, QueueSettings)
    assert (timeline.is_fifo, timeline.batch_size) == (True, 10)
    assert all(one.settings.report_batch_item_failures for one in own.mappings)


def test_our_own_resources_are_all_there(own: Project) -> None:
    declared = json.loads(own.functions["WebhooksRecordFunction"].environment["PIPELINE_RESOURCES"])

    assert declared["sqs:github-webhooks"] == "http://localhost:1/123456789012/local-github-webhooks"
    assert [len(own.queues), len(own.tables), len(own.buckets)] == [6, 4, 2]
    assert [len(own.streams), len(own.buses), len(own.topics)] == [1, 1, 0]


@pytest.mark.parametrize("path", sorted(TEMPLATES.glob("*.*")), ids=lambda path: path.name)
def test_reading_twice_gives_the_same(path: Path) -> None:
    assert read(path) == read(path)
