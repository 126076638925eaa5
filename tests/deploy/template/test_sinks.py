"""What declared sinks, stores and rejects become, and what happens where two declarations mean one resource."""

from __future__ import annotations

import json

import pytest

from pipeline import ConfigurationError
from tests.deploy.template.conftest import Declare
from tests.deploy.template.rules import Generated, generate, pointed

EVERY_SINK = """[
    sinks.SQS("tasks.fifo"), sinks.SQS("alerts", name="told"), sinks.Kinesis("moves"), sinks.DynamoDB("ledger", partition_key="a", sort_key="b"),
    sinks.EventBridge("events", detail_type="priced"), sinks.EventBridge("default", detail_type="priced"), sinks.S3("archive"),
]"""
ACCOUNT = "eu-west-1:111122223333"
THEIRS = {
    f"arn:aws:sqs:{ACCOUNT}:t-queue": {"sqs:SendMessage", "sqs:GetQueueUrl"},
    f"arn:aws:kinesis:{ACCOUNT}:stream/t-stream": {"kinesis:PutRecords"},
    f"arn:aws:dynamodb:{ACCOUNT}:table/t-table": {"dynamodb:BatchWriteItem"},
    f"arn:aws:events:{ACCOUNT}:event-bus/t-bus": {"events:PutEvents"},
    "arn:aws:s3:::t-bucket/*": {"s3:PutObject", "s3:AbortMultipartUpload"},
}
EVERY_EXISTING = f"""[
    sinks.SQS("tasks", existing="arn:aws:sqs:{ACCOUNT}:t-queue"),
    sinks.Kinesis("moves", existing="arn:aws:kinesis:{ACCOUNT}:stream/t-stream"),
    sinks.DynamoDB("ledger", partition_key="a", existing="arn:aws:dynamodb:{ACCOUNT}:table/t-table"),
    sinks.EventBridge("events", detail_type="priced", existing="arn:aws:events:{ACCOUNT}:event-bus/t-bus"),
    sinks.S3("archive", existing="arn:aws:s3:::t-bucket"),
]"""


def handler(declare: Declare, options: str, *, pipeline: str = 'Pipeline("shop")', before: str = "") -> Generated:
    source = f"""
{before}
shop = {pipeline}

@shop.handler({options})
async def price(order: dict) -> dict:
    return order
"""
    return generate(*declare(source))


def test_every_sink_has_its_resource_and_its_grant(declare: Declare) -> None:
    found = handler(declare, f'sources.SQS("orders"), sinks={EVERY_SINK}')
    granted = found.granted("price")

    assert granted["TasksFifoQueue"] == granted["AlertsQueue"] == {"sqs:SendMessage"}
    assert granted["MovesStream"] == {"kinesis:PutRecords"}
    assert granted["LedgerTable"] == {"dynamodb:BatchWriteItem"}
    assert granted["EventsBus"] == {"events:PutEvents"}
    assert granted["arn:${AWS::Partition}:events:${AWS::Region}:${AWS::AccountId}:event-bus/default"] == {
        "events:PutEvents"
    }
    assert granted["ArchiveBucket/*"] == {"s3:PutObject", "s3:AbortMultipartUpload"}
    assert len(granted) == 7 + 4, "and queue, dead letters, table and log"
    assert found.told("price") == {
        "dynamodb:ledger": "LedgerTable",
        "dynamodb:shop-idempotency": "ShopIdempotencyTable",
        "events:default": "default",
        "events:events": "EventsBus",
        "kinesis:moves": "MovesStream",
        "s3:archive": "ArchiveBucket",
        "sqs:alerts": "AlertsQueue",
        "sqs:orders": "OrdersQueue",
        "sqs:orders-dlq": "OrdersDlqQueue",
        "sqs:tasks.fifo": "TasksFifoQueue",
    }
    table = found.of_type("AWS::DynamoDB::Table")["LedgerTable"]
    assert table["KeySchema"] == [{"AttributeName": "a", "KeyType": "HASH"}, {"AttributeName": "b", "KeyType": "RANGE"}]
    assert list(found.of_type("AWS::Events::EventBus")) == ["EventsBus"], "every account has the default one"
    assert found.template.notes[0].endswith("a month"), "nothing to say about these sinks"


def test_the_functions_permissions_are_these_and_no_more_after_the_transform(declare: Declare) -> None:
    found = handler(declare, f'sources.SQS("orders"), sinks={EVERY_SINK}')
    roles = [body for body in found.plain["Resources"].values() if body["Type"] == "AWS::IAM::Role"]

    assert len(roles) == 1, "SAM makes none of its own"


def test_somebody_elses_resources_are_used_and_not_declared(declare: Declare) -> None:
    found = handler(
        declare, f'sources.SQS("orders"), sinks={EVERY_EXISTING}', pipeline='Pipeline("shop", idempotency=None)'
    )
    granted = found.granted("price")

    assert {name: granted[name] for name in THEIRS} == THEIRS
    assert set(found.told("price")) == {"sqs:orders", "sqs:orders-dlq"}
    kinds = ("AWS::Kinesis::Stream", "AWS::DynamoDB::Table", "AWS::Events::EventBus", "AWS::S3::Bucket")
    assert [found.of_type(kind) for kind in kinds] == [{}, {}, {}, {}]
    assert set(found.of_type("AWS::SQS::Queue")) == {"OrdersQueue", "OrdersDlqQueue"}


def test_everything_is_somebody_elses(declare: Declare) -> None:
    source = f'sources.SQS("orders", existing="arn:aws:sqs:{ACCOUNT}:t-orders")'
    store = f'stores.DynamoDB("t", existing="arn:aws:dynamodb:{ACCOUNT}:table/t-once")'
    found = handler(
        declare, f"{source}, sinks={EVERY_EXISTING}", pipeline=f'Pipeline("shop", idempotency=Claim(store={store}))'
    )
    function = found.function("price")

    assert found.granted("price")[f"arn:aws:dynamodb:{ACCOUNT}:table/t-once"] == {
        "dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem",
    }  # fmt: skip
    assert function["Environment"]["Variables"] == {}, "ARNs are in the code"
    assert {body["Type"] for body in found.value["Resources"].values()} == {
        "AWS::Serverless::Function", "AWS::Logs::LogGroup", "AWS::IAM::Role", "AWS::CloudWatch::Alarm",
        "AWS::CloudWatch::Dashboard",
    }  # fmt: skip


def test_resources_of_one_name_and_different_kinds_stay_apart(declare: Declare) -> None:
    """IAM refuses a policy in which two statements have one Sid."""
    both = 'sinks=[sinks.DynamoDB("x"), sinks.S3("x", name="a"), sinks.Kinesis("x", name="b"), sinks.EventBridge("x", detail_type="t", name="c"), sinks.SQS("x", name="d")]'
    granted = handler(declare, f'sources.SQS("orders"), {both}').granted("price")

    assert {"XTable", "XBucket/*", "XStream", "XBus", "XQueue"} <= set(granted)


def test_names_that_differ_only_in_marks_stay_apart_where_they_are_somebody_elses(declare: Declare) -> None:
    arn = f"arn:aws:sqs:{ACCOUNT}"
    both = f'sinks=[sinks.SQS("a-b", existing="{arn}:one"), sinks.SQS("a_b", existing="{arn}:two"), sinks.SQS("ä", existing="{arn}:three")]'
    granted = handler(declare, f'sources.SQS("orders"), {both}').granted("price")

    assert {f"{arn}:one", f"{arn}:two", f"{arn}:three"} <= set(granted)


@pytest.mark.parametrize("order", ["writer first", "reader first"])
@pytest.mark.parametrize(
    "pipelines", ["shop, other = [Pipeline('shop')] * 2", "shop, other = Pipeline('shop'), Pipeline('other')"]
)
@pytest.mark.parametrize(
    ("sink", "source", "reads"),
    [
        ('sinks=[sinks.SQS("tasks.fifo")]', 'sources.SQS("tasks.fifo", max_receive_count=7)', "Queue"),
        ('rejects=sinks.SQS("tasks")', 'sources.SQS("tasks", max_receive_count=7)', "Queue"),
        ('sinks=[sinks.Kinesis("moves")]', 'sources.Kinesis("moves", shards=3)', "Stream"),
        ('rejects=sinks.Kinesis("moves")', 'sources.Kinesis("moves", shards=3)', "Stream"),
    ],
)  # fmt: skip
def test_what_one_handler_writes_and_another_reads_is_one_resource_as_the_reader_says(
    declare: Declare, order: str, pipelines: str, sink: str, source: str, reads: str
) -> None:
    writer = f'@shop.handler(sources.SQS("orders"), {sink})\nasync def write(order: dict) -> dict: ...\n'
    reader = f"@other.handler({source})\nasync def read(task: dict) -> None: ...\n"
    handlers = writer + reader if order == "writer first" else reader + writer
    found = generate(*declare(f"{pipelines}\n{handlers}"))
    read = pointed(found.mapping("read")[reads])
    properties = found.value["Resources"][read]["Properties"]

    assert found.granted("write")[read] in ({"sqs:SendMessage"}, {"kinesis:PutRecords"})
    if reads == "Queue":
        assert properties["RedrivePolicy"]["maxReceiveCount"] == 7
        assert properties["VisibilityTimeout"] == 180
        assert len(found.of_type("AWS::SQS::Queue")) == 4
    else:
        assert properties["ShardCount"] == 3


def test_somebody_elses_queue_and_ours_of_the_same_name_are_two(declare: Declare) -> None:
    source = f'sources.SQS("orders", existing="arn:aws:sqs:{ACCOUNT}:theirs")'
    found = handler(declare, f'{source}, sinks=[sinks.SQS("orders")]')

    assert found.mapping("price")["Queue"] == f"arn:aws:sqs:{ACCOUNT}:theirs"
    assert found.told("price")["sqs:orders"] == "OrdersQueue"
    assert found.granted("price")["OrdersQueue"] == {"sqs:SendMessage"}


@pytest.mark.parametrize("first", ["writer", "reader"])
def test_the_dead_letter_queue_of_one_handler_may_be_the_rejects_of_another(declare: Declare, first: str) -> None:
    writer = '@shop.handler(sources.SQS("returns"), rejects=sinks.SQS("orders-dlq"))\nasync def refund(order: dict) -> dict: ...\n'
    reader = '@shop.handler(sources.SQS("orders"))\nasync def price(order: dict) -> None: ...\n'
    handlers = writer + reader if first == "writer" else reader + writer
    found = generate(*declare(f"shop = Pipeline('shop')\n{handlers}"))

    assert "RedriveAllowPolicy" in found.of_type("AWS::SQS::Queue")["OrdersDlqQueue"]
    assert found.granted("refund")["OrdersDlqQueue"] == found.granted("price")["OrdersDlqQueue"] == {"sqs:SendMessage"}


@pytest.mark.parametrize("first", ["orders", "dead"])
@pytest.mark.parametrize(
    ("source", "dead"), [('sources.SQS("orders")', "orders-dlq"), ('sources.Kinesis("orders")', "orders-stream-dlq")]
)
def test_reading_a_dead_letter_queue_is_refused_and_the_message_says_what_to_do(
    declare: Declare, first: str, source: str, dead: str
) -> None:
    one = f"@shop.handler({source})\nasync def price(order: dict) -> None: ...\n"
    other = f'@shop.handler(sources.SQS("{dead}"))\nasync def repair(order: dict) -> None: ...\n'
    pipelines = declare("shop = Pipeline('shop')\n" + (one + other if first == "orders" else other + one))

    with pytest.raises(
        ConfigurationError, match=rf"shop\.repair: '{dead}' is the dead-letter queue.*rejects=sinks\.SQS"
    ):
        generate(*pipelines)


def test_two_writers_that_want_different_keys_of_one_table_are_refused(declare: Declare) -> None:
    pipelines = declare("""
    shop = Pipeline("shop")

    @shop.handler(sources.SQS("a"), sinks=[sinks.DynamoDB("ledger", partition_key="order")])
    async def first(order: dict) -> dict: ...

    @shop.handler(sources.SQS("b"), sinks=[sinks.DynamoDB("ledger", partition_key="order", sort_key="line")])
    async def second(order: dict) -> dict: ...
    """)

    with pytest.raises(ConfigurationError, match=r"table 'ledger'.*'order'.*'line'"):
        generate(*pipelines)


def test_several_writers_share_one_of_each(declare: Declare) -> None:
    found = generate(
        *declare(f"""
    shop, other = Pipeline("shop"), Pipeline("other")

    @shop.handler(sources.SQS("a"), sinks={EVERY_SINK.replace(chr(10), "")})
    async def first(order: dict) -> dict: ...

    @other.handler(sources.SQS("b"), sinks={EVERY_SINK.replace(chr(10), "")})
    async def second(order: dict) -> dict: ...
    """)
    )
    first, second = found.granted("first"), found.granted("second")

    shared = set(first) & set(second)
    assert {"TasksFifoQueue", "AlertsQueue", "MovesStream", "LedgerTable", "EventsBus", "ArchiveBucket/*"} <= shared
    assert "ShopIdempotencyTable" not in second


@pytest.mark.parametrize(
    ("sink", "on", "actions"),
    [
        ('sinks.SQS("bad")', "BadQueue", {"sqs:SendMessage"}),
        ('sinks.Kinesis("bad")', "BadStream", {"kinesis:PutRecords"}),
        ('sinks.DynamoDB("bad", partition_key="id", sort_key="by")', "BadTable", {"dynamodb:BatchWriteItem"}),
        ('sinks.EventBridge("bad", detail_type="bad")', "BadBus", {"events:PutEvents"}),
        ('sinks.S3("bad")', "BadBucket/*", {"s3:PutObject", "s3:AbortMultipartUpload"}),
    ],
)
@pytest.mark.parametrize("source", ['sources.SQS("orders")', 'sources.Kinesis("orders")'])
def test_rejected_records_go_to_the_declared_sink(
    declare: Declare, source: str, sink: str, on: str, actions: set[str]
) -> None:
    found = handler(declare, f"{source}, rejects={sink}")
    granted = found.granted("price")

    assert granted[on] == actions
    assert on.removesuffix("/*") in found.told("price").values()
    assert "OrdersDlqQueue" not in granted
    assert ("OrdersDlqQueue" in found.value["Resources"]) is ("SQS(" in source), "the net for crashes"
    assert "OrdersStreamDlqQueue" not in found.value["Resources"]


def test_a_sink_that_is_also_the_place_of_rejected_records_is_granted_once(declare: Declare) -> None:
    found = handler(declare, 'sources.SQS("orders"), sinks=[sinks.S3("all")], rejects=sinks.S3("all")')

    assert found.granted("price")["AllBucket/*"] == {"s3:PutObject", "s3:AbortMultipartUpload"}


@pytest.mark.parametrize("mode", ["None", "Claim(store=stores.Memory())"])
def test_without_a_table_nothing_of_one_is_there(declare: Declare, mode: str) -> None:
    found = handler(declare, 'sources.SQS("orders")', pipeline=f'Pipeline("shop", idempotency={mode})')

    assert found.of_type("AWS::DynamoDB::Table") == {}
    assert set(found.told("price")) == {"sqs:orders", "sqs:orders-dlq"}


def test_two_pipelines_may_share_one_idempotency_table(declare: Declare) -> None:
    found = generate(
        *declare("""
    once = Claim(store=stores.DynamoDB("once"))
    shop, other = Pipeline("shop", idempotency=once), Pipeline("other", idempotency=once)

    @shop.handler(sources.SQS("a"))
    async def first(order: dict) -> dict: ...

    @other.handler(sources.Kinesis("b"))
    async def second(order: dict) -> dict: ...
    """)
    )

    (table,) = found.of_type("AWS::DynamoDB::Table").values()
    assert table["TimeToLiveSpecification"]["Enabled"] is True
    assert found.granted("first")["OnceTable"] - found.granted("second")["OnceTable"] == {"dynamodb:PartiQLDelete"}


@pytest.mark.parametrize(("sink", "said"), [("sinks.Memory()", "memory"), ("sinks.File('out.ndjson')", "out.ndjson")])
def test_sinks_for_this_machine_bring_nothing_and_are_named(declare: Declare, sink: str, said: str) -> None:
    found = handler(declare, f'sources.SQS("orders"), sinks=[{sink}]')

    assert len(found.granted("price")) == 4
    (note, _) = found.template.notes
    assert f"'{said}'" in note
    assert "on this machine" in note


def test_a_sink_of_the_users_own_brings_nothing_and_is_named(declare: Declare) -> None:
    mine = "class Mine:\n    name = 'ledger of ours'\n    async def write(self, outputs, environment, deadline): ...\n"
    found = handler(declare, 'sources.SQS("orders"), sinks=[Mine()], rejects=Mine()', before=mine)

    assert [note for note in found.template.notes if "'ledger of ours' is none of the toolkit's" in note] == [
        "shop.price: the sink 'ledger of ours' is none of the toolkit's, so the role gets no permission for it"
    ]
    assert len(found.granted("price")) == 3


def test_a_place_for_rejected_records_of_the_users_own_is_named_too(declare: Declare) -> None:
    mine = "class Mine:\n    name = 'pile'\n    async def write(self, outputs, environment, deadline): ...\n"
    found = handler(declare, 'sources.SQS("orders"), rejects=Mine()', before=mine)

    assert "'pile'" in found.template.notes[0]


def test_what_holds_data_is_encrypted_private_over_tls_and_outlives_the_stack(declare: Declare) -> None:
    found = handler(declare, f'sources.Kinesis("orders"), sinks={EVERY_SINK}')
    resources = found.value["Resources"]
    refused: dict[str, set[str]] = {}
    for body in resources.values():
        if body["Type"] in ("AWS::SQS::QueuePolicy", "AWS::S3::BucketPolicy"):
            properties = body["Properties"]
            (policed,) = properties.get("Queues") or [properties["Bucket"]]
            (statement,) = properties["PolicyDocument"]["Statement"]
            assert (statement["Effect"], statement["Principal"]) == ("Deny", "*")
            assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
            on = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
            refused[policed["Ref"]] = {pointed(one) for one in on}

    queues, buckets = found.of_type("AWS::SQS::Queue"), found.of_type("AWS::S3::Bucket")
    assert refused == {name: {name} for name in queues} | {name: {name, f"{name}/*"} for name in buckets}
    assert all(queue["SqsManagedSseEnabled"] is True for queue in queues.values())
    blocked = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")
    for bucket in buckets.values():
        (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        assert rule["ServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
        assert bucket["PublicAccessBlockConfiguration"] == dict.fromkeys(blocked, True)
        rules = bucket["LifecycleConfiguration"]["Rules"]
        assert [rule["Status"] for rule in rules if "AbortIncompleteMultipartUpload" in rule] == ["Enabled"]
        assert not any("ExpirationInDays" in rule for rule in rules), "an archive that forgets"
    kinds = ("SQS::Queue", "Kinesis::Stream", "DynamoDB::Table", "S3::Bucket", "Events::EventBus")
    for kind in kinds:
        for name in found.of_type(f"AWS::{kind}"):
            assert resources[name]["DeletionPolicy"] == "RetainExceptOnCreate"
            assert resources[name]["UpdateReplacePolicy"] == "Retain"


def test_the_dashboard_has_a_row_for_each_function(declare: Declare) -> None:
    found = generate(
        *declare("""
    shop = Pipeline("shop")

    @shop.handler(sources.SQS("a"))
    async def first(order: dict) -> dict: ...

    @shop.handler(sources.Kinesis("b"))
    async def second(order: dict) -> dict: ...
    """)
    )
    (dashboard,) = found.of_type("AWS::CloudWatch::Dashboard").values()
    text = dashboard["DashboardBody"]["Fn::Sub"]

    assert [widget["properties"]["markdown"] for widget in json.loads(text)["widgets"] if widget["type"] == "text"] == [
        "## a -> no sink",
        "## b -> no sink",
    ]


def test_every_queue_of_dead_letters_rings(declare: Declare) -> None:
    found = handler(declare, 'sources.SQS("orders"), rejects=sinks.SQS("bad")')
    assert "BadQueueNotEmpty" in found.of_type("AWS::CloudWatch::Alarm")

    theirs = handler(declare, 'sources.SQS("mail", existing="arn:aws:sqs:eu-west-1:111122223333:mail")')
    alarm = theirs.of_type("AWS::CloudWatch::Alarm")["MailDlqQueueNotEmpty"]
    (dimension,) = alarm["Dimensions"]
    assert dimension["Value"] == {"Fn::Select": [5, {"Fn::Split": [":", {"Ref": "MailDlqArn"}]}]}


def test_a_stream_that_nobody_reads_rings(declare: Declare) -> None:
    found = handler(declare, 'sources.Kinesis("clicks")')
    alarm = found.of_type("AWS::CloudWatch::Alarm")["ShopPriceFunctionNotReading"]

    assert {part["MetricStat"]["Metric"]["MetricName"] for part in alarm["Metrics"] if "MetricStat" in part} == {
        "IncomingRecords",
        "PolledEventCount",
    }


def test_a_message_may_be_as_old_as_all_its_retries(declare: Declare) -> None:
    found = handler(declare, 'sources.SQS("orders"), retry=Backoff(attempts=8, base=10)')
    alarm = found.of_type("AWS::CloudWatch::Alarm")["OrdersQueueAge"]

    assert alarm["Threshold"] == sum(min(900, 10 * 2**n) for n in range(7)) + 180
