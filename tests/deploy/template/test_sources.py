"""What a declared source becomes: its resource, its mapping, its grants."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline import ConfigurationError
from tests.deploy.template.conftest import Declare
from tests.deploy.template.rules import Generated, generate, pointed

CLAIMS = {"dynamodb:PartiQLInsert", "dynamodb:BatchGetItem", "dynamodb:PartiQLUpdate"}
SQS_READS = {"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"}
KINESIS_READS = {
    f"kinesis:{name}"
    for name in ("DescribeStream", "DescribeStreamSummary", "GetRecords", "GetShardIterator", "ListShards")
}
QUEUE = "arn:aws:sqs:eu-west-1:111122223333:theirs"
STREAM = "arn:aws:kinesis:eu-west-1:111122223333:stream/theirs"


def handler(declare: Declare, options: str, *, pipeline: str = 'Pipeline("shop")') -> Generated:
    source = f"""
    shop = {pipeline}

    @shop.handler({options})
    async def price(order: dict) -> dict:
        return order
    """
    return generate(*declare(source))


def types(found: Generated) -> list[str]:
    return sorted({body["Type"].removeprefix("AWS::") for body in found.value["Resources"].values()})


def test_a_queue_its_dead_letters_and_its_mapping(declare: Declare) -> None:
    found = handler(
        declare, 'sources.SQS("orders", batch_size=200, batching_window=7, max_concurrency=9, max_receive_count=33)'
    )
    queue = found.of_type("AWS::SQS::Queue")["OrdersQueue"]
    dead = found.of_type("AWS::SQS::Queue")["OrdersDlqQueue"]
    mapping = found.mapping("price")

    assert queue["VisibilityTimeout"] == 6 * 30 + 7
    assert queue["RedrivePolicy"] == {
        "deadLetterTargetArn": {"Fn::GetAtt": ["OrdersDlqQueue", "Arn"]},
        "maxReceiveCount": 33,
    }
    assert dead["MessageRetentionPeriod"] == 1_209_600 > queue["MessageRetentionPeriod"]
    (allowed,) = dead["RedriveAllowPolicy"]["sourceQueueArns"]
    assert allowed["Fn::Sub"].endswith(":" + queue["QueueName"]["Fn::Sub"])
    assert mapping == {
        "Queue": {"Fn::GetAtt": ["OrdersQueue", "Arn"]},
        "BatchSize": 200,
        "MaximumBatchingWindowInSeconds": 7,
        "ScalingConfig": {"MaximumConcurrency": 9},
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "MetricsConfig": {"Metrics": ["EventCount"]},
    }
    assert found.granted("price") == {
        "OrdersQueue": SQS_READS | {"sqs:ChangeMessageVisibility"},
        "OrdersDlqQueue": {"sqs:SendMessage"},
        "ShopIdempotencyTable": CLAIMS | {"dynamodb:PartiQLDelete"},
        "ShopPriceFunctionLog": {"logs:CreateLogStream", "logs:PutLogEvents"},
    }
    assert found.told("price") == {
        "sqs:orders": "OrdersQueue",
        "sqs:orders-dlq": "OrdersDlqQueue",
        "dynamodb:shop-idempotency": "ShopIdempotencyTable",
    }


def test_a_queue_without_options_leaves_them_to_lambda(declare: Declare) -> None:
    mapping = handler(declare, 'sources.SQS("orders")').mapping("price")

    assert set(mapping) == {"Queue", "BatchSize", "FunctionResponseTypes", "MetricsConfig"}


def test_a_fifo_queue_has_a_fifo_dead_letter_queue(declare: Declare) -> None:
    found = handler(declare, 'sources.SQS("orders.fifo"), deploy=Function(timeout=900)')
    queues = found.of_type("AWS::SQS::Queue")

    assert {name: queue["FifoQueue"] for name, queue in queues.items()} == {
        "OrdersFifoQueue": True,
        "OrdersDlqFifoQueue": True,
    }
    assert queues["OrdersDlqFifoQueue"]["QueueName"] == {"Fn::Sub": "${AWS::StackName}-orders-dlq.fifo"}
    assert queues["OrdersFifoQueue"]["VisibilityTimeout"] == 5_400


def test_without_retry_no_message_is_delayed_so_nobody_may(declare: Declare) -> None:
    found = handler(declare, 'sources.SQS("orders"), retry=None')

    assert found.granted("price")["OrdersQueue"] == SQS_READS


@pytest.mark.parametrize(("kind", "name"), [("SQS", "body"), ("Kinesis", "data")])
def test_a_filter_stands_in_the_mapping_and_is_watched(declare: Declare, kind: str, name: str) -> None:
    patterns = '[{"kind": ["order", "réf ${x}"]}, {"total": [{"numeric": [">", 10]}]}]'
    found = handler(declare, f'sources.{kind}("orders", filter={patterns})')
    filters = found.mapping("price")["FilterCriteria"]["Filters"]
    (alarm,) = [
        one for key, one in found.of_type("AWS::CloudWatch::Alarm").items() if key.endswith("FiltersEverything")
    ]

    assert [json.loads(one["Pattern"]) for one in filters] == [{name: one} for one in json.loads(patterns)]
    watched = [one["MetricStat"]["Metric"] for one in alarm["Metrics"] if "MetricStat" in one]
    assert {one["MetricName"] for one in watched} == {"FilteredOutEventCount", "InvokedEventCount"}
    mapping = {"Name": "EventSourceMappingUUID", "Value": {"Ref": "ShopPriceFunctionSource"}}
    assert all(one["Dimensions"] == [mapping] for one in watched)
    assert found.plain["Resources"]["ShopPriceFunctionSource"]["Type"] == "AWS::Lambda::EventSourceMapping"


def test_a_stream_its_dead_letters_its_given_up_batches_and_its_mapping(declare: Declare) -> None:
    options = (
        'sources.Kinesis("clicks", shards=4, batch_size=300, batching_window=3, starting_position="LATEST", '
        "parallelization_factor=5, retry_attempts=7, max_record_age=100_000, bisect=False)"
    )
    found = handler(declare, options)
    stream = found.of_type("AWS::Kinesis::Stream")["ClicksStream"]

    assert (stream["ShardCount"], stream["StreamModeDetails"]) == (4, {"StreamMode": "PROVISIONED"})
    assert stream["RetentionPeriodHours"] == 32, "100,000 s are 27.8 hours, and four more"
    assert stream["StreamEncryption"] == {"EncryptionType": "KMS", "KeyId": "alias/aws/kinesis"}
    assert found.mapping("price") == {
        "Stream": {"Fn::GetAtt": ["ClicksStream", "Arn"]},
        "BatchSize": 300,
        "MaximumBatchingWindowInSeconds": 3,
        "StartingPosition": "LATEST",
        "ParallelizationFactor": 5,
        "BisectBatchOnFunctionError": False,
        "MaximumRetryAttempts": 7,
        "MaximumRecordAgeInSeconds": 100_000,
        "DestinationConfig": {
            "OnFailure": {"Type": "S3", "Destination": {"Fn::GetAtt": ["ClicksGivenUpBucket", "Arn"]}}
        },
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "MetricsConfig": {"Metrics": ["EventCount"]},
    }
    assert found.granted("price") == {
        "ClicksStream": KINESIS_READS,
        "ClicksGivenUpBucket": {"s3:ListBucket"},
        "ClicksGivenUpBucket/*": {"s3:PutObject"},
        "ClicksStreamDlqQueue": {"sqs:SendMessage"},
        "ShopIdempotencyTable": CLAIMS,
        "ShopPriceFunctionLog": {"logs:CreateLogStream", "logs:PutLogEvents"},
    }
    assert found.told("price") == {
        "sqs:clicks-stream-dlq": "ClicksStreamDlqQueue",
        "dynamodb:shop-idempotency": "ShopIdempotencyTable",
    }


@pytest.mark.parametrize(
    ("source", "suffix", "command"),
    [
        ('SQS("orders")', "QueueAge", "pipeline trace --stack ${AWS::StackName} --region ${AWS::Region} --since 3h"),
        ('Kinesis("c")', "IteratorAge", "pipeline trace --stack ${AWS::StackName} --region ${AWS::Region} --since 3h"),
        ('Kinesis("c")', "GaveUp", "aws s3 ls --recursive s3://${CGivenUpBucket} --region ${AWS::Region}"),
    ],
)
def test_the_alarms_of_a_source_say_what_to_call_next(declare: Declare, source: str, suffix: str, command: str) -> None:
    alarms = handler(declare, f"sources.{source}").of_type("AWS::CloudWatch::Alarm")
    (said,) = [one["AlarmDescription"]["Fn::Sub"] for name, one in alarms.items() if name.endswith(suffix)]
    assert said.endswith(f". Next: {command}")


@pytest.mark.parametrize(("age", "hours"), [(60, 24), (72_000, 24), (72_001, 25), (604_800, 172), (-1, 24)])
def test_a_stream_keeps_records_longer_than_the_mapping_tries_them(declare: Declare, age: int, hours: int) -> None:
    found = handler(declare, f'sources.Kinesis("clicks", max_record_age={age})')
    stream = found.of_type("AWS::Kinesis::Stream")["ClicksStream"]

    assert stream["RetentionPeriodHours"] == hours
    assert "ShardCount" not in stream
    assert stream["StreamModeDetails"] == {"StreamMode": "ON_DEMAND"}


def test_two_handlers_on_one_stream_share_it_and_its_longest_retention(declare: Declare) -> None:
    found = generate(
        *declare("""
    shop, other = Pipeline("shop"), Pipeline("other")

    @shop.handler(sources.Kinesis("clicks"))
    async def first(click: dict) -> None: ...

    @shop.handler(sources.Kinesis("clicks", max_record_age=604_800))
    async def second(click: dict) -> None: ...

    @other.handler(sources.Kinesis("clicks", shards=3))
    async def third(click: dict) -> None: ...
    """)
    )
    (stream,) = found.of_type("AWS::Kinesis::Stream").values()

    assert sorted(found.of_type("AWS::S3::Bucket")) == ["ClicksGivenUpBucket"]
    assert sorted(found.of_type("AWS::SQS::Queue")) == ["ClicksStreamDlqQueue"]
    assert {pointed(found.mapping(name)["Stream"]) for name in found.functions} == {"ClicksStream"}
    assert stream["RetentionPeriodHours"] == 172, "what the longest of them needs"
    assert stream["ShardCount"] == 3
    assert stream["StreamModeDetails"] == {"StreamMode": "PROVISIONED"}


def test_two_handlers_that_want_different_shards_of_one_stream_are_refused(declare: Declare) -> None:
    pipelines = declare("""
    shop = Pipeline("shop")

    @shop.handler(sources.Kinesis("clicks", shards=2))
    async def first(click: dict) -> None: ...

    @shop.handler(sources.Kinesis("clicks", shards=3))
    async def second(click: dict) -> None: ...
    """)

    with pytest.raises(ConfigurationError, match=r"clicks.*shards=2.*shards=3"):
        generate(*pipelines)


def test_somebody_elses_queue_is_read_and_its_dead_letters_are_asked_for(declare: Declare) -> None:
    found = handler(declare, f'sources.SQS("orders", existing="{QUEUE}")')

    assert found.of_type("AWS::SQS::Queue") == {}
    assert found.mapping("price")["Queue"] == QUEUE
    parameter = found.value["Parameters"]["OrdersDlqArn"]
    assert (parameter["Type"], "Default" in parameter) == ("String", False)
    assert found.granted("price") == {
        QUEUE: SQS_READS | {"sqs:ChangeMessageVisibility", "sqs:GetQueueUrl", "sqs:GetQueueAttributes"},
        "OrdersDlqArn": {"sqs:SendMessage", "sqs:GetQueueUrl"},
        "ShopIdempotencyTable": CLAIMS | {"dynamodb:PartiQLDelete"},
        "ShopPriceFunctionLog": {"logs:CreateLogStream", "logs:PutLogEvents"},
    }
    assert set(found.told("price")) == {"dynamodb:shop-idempotency"}
    assert dimension(found, "ApproximateAgeOfOldestMessage") == [{"Name": "QueueName", "Value": "theirs"}]


def test_somebody_elses_fifo_queue(declare: Declare) -> None:
    found = handler(declare, f'sources.SQS("orders", existing="{QUEUE}.fifo"), rejects=sinks.SQS("bad")')

    assert list(found.of_type("AWS::SQS::Queue")) == ["BadQueue"]
    assert "OrdersDlqArn" not in found.value["Parameters"], "nothing is put there"


def test_somebody_elses_stream_is_read_and_its_dead_letters_are_ours(declare: Declare) -> None:
    found = handler(declare, f'sources.Kinesis("clicks", existing="{STREAM}")')

    assert found.of_type("AWS::Kinesis::Stream") == {}
    assert found.mapping("price")["Stream"] == STREAM
    assert found.granted("price")[STREAM] == KINESIS_READS
    assert list(found.of_type("AWS::SQS::Queue")) == ["ClicksStreamDlqQueue"]
    assert list(found.of_type("AWS::S3::Bucket")) == ["ClicksGivenUpBucket"]


def test_a_source_of_the_users_own_cannot_be_deployed(declare: Declare) -> None:
    pipelines = declare("""
    class Mine:
        name, is_stream, dead_letters, resource = "mine", False, None, None
        def decode(self, event): ...
        def unsettled_ids(self, result): ...
        async def settle(self, result, environment, deadline): ...

    shop = Pipeline("shop")

    @shop.handler(Mine())
    async def price(order: dict) -> None: ...
    """)

    with pytest.raises(ConfigurationError, match=r"shop\.price: Mine is a source of your own.*cannot be deployed"):
        generate(*pipelines)


def test_two_pipelines_that_read_one_queue_are_refused(declare: Declare) -> None:
    pipelines = declare("""
    shop, other = Pipeline("shop"), Pipeline("other")

    @shop.handler(sources.SQS("orders"))
    async def price(order: dict) -> None: ...

    @other.handler(sources.SQS("orders"))
    async def count(order: dict) -> None: ...
    """)

    with pytest.raises(ConfigurationError, match=r"other\.count.*'orders'.*shop\.price.*one reader"):
        generate(*pipelines)


def dimension(found: Generated, metric: str) -> Any:
    (one,) = [
        alarm["Dimensions"]
        for alarm in found.of_type("AWS::CloudWatch::Alarm").values()
        if alarm.get("MetricName") == metric
    ]
    return one
