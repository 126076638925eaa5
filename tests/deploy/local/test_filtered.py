"""A filter of a template at work in the mapping's own machine."""

from __future__ import annotations

from pipeline.emulator.mappings.actions import Filtered, Message, Receive
from pipeline.emulator.mappings.queue import QueueMapping
from pipeline.emulator.mappings.settings import QueueSettings
from tests.deploy.local.conftest import Reading

TEMPLATE = """
Resources:
  F:
    Type: AWS::Serverless::Function
    Properties:
      Runtime: python3.12
      CodeUri: src
      Handler: app.lambda_handler
      Events:
        E:
          Type: SQS
          Properties:
            Queue: !GetAtt Q.Arn
            FilterCriteria:
              Filters:
                - Pattern: '{"body": {"kind": ["order"]}, "messageAttributes": {"tenant": {"stringValue": ["blue"]}}}'
  Q: {Type: AWS::SQS::Queue}
"""


def message(number: int, body: str, tenant: str) -> Message:
    member = {"messageId": f"m-{number}", "body": body, "messageAttributes": {"tenant": {"stringValue": tenant}}}
    return Message(f"m-{number}", f"r-{number}", member, 100)


def test_a_queues_machine_holds_the_whole_message_against_the_filter(reading: Reading) -> None:
    settings = reading(TEMPLATE).mappings[0].settings
    assert isinstance(settings, QueueSettings)
    machine = QueueMapping(settings)
    (receive,) = (one for one in machine.actions(0.0) if isinstance(one, Receive))
    messages = [
        message(1, '{"kind": "order"}', "blue"),
        message(2, '{"kind": "order"}', "red"),
        message(3, '{"kind": "other"}', "blue"),
        message(4, "no JSON", "blue"),
    ]
    machine.received(receive.poll, messages, 0.0)

    assert [one.ids for one in machine.actions(0.0) if isinstance(one, Filtered)] == [("m-2", "m-3", "m-4")]
