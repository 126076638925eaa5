from pipeline.emulator.event import event_record, size_of

MESSAGE = {
    "MessageId": "m-1",
    "ReceiptHandle": "handle",
    "Body": "zwölf",
    "MD5OfBody": "0123",
    "Attributes": {"ApproximateReceiveCount": "1", "SentTimestamp": "1700000000000", "MessageGroupId": "g"},
    "MessageAttributes": {
        "text": {"DataType": "String", "StringValue": "x"},
        "raw": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
    },
    "MD5OfMessageAttributes": "4567",
}
ARN = "arn:aws:sqs:us-east-1:123456789012:orders"


def test_a_message_becomes_the_record_that_lambda_sends_member_for_member() -> None:
    assert event_record(MESSAGE, arn=ARN, region="us-east-1") == {
        "messageId": "m-1",
        "receiptHandle": "handle",
        "body": "zwölf",
        "attributes": {"ApproximateReceiveCount": "1", "SentTimestamp": "1700000000000", "MessageGroupId": "g"},
        "messageAttributes": {
            "text": {"stringValue": "x", "stringListValues": [], "binaryListValues": [], "dataType": "String"},
            "raw": {"binaryValue": "AP8=", "stringListValues": [], "binaryListValues": [], "dataType": "Binary"},
        },
        "md5OfBody": "0123",
        "eventSource": "aws:sqs",
        "eventSourceARN": ARN,
        "awsRegion": "us-east-1",
    }


def test_a_records_metadata_counts_towards_the_size_of_the_event() -> None:
    record = event_record(MESSAGE, arn=ARN, region="us-east-1")
    assert size_of(record) > len(ARN) + len("zwölf".encode())
