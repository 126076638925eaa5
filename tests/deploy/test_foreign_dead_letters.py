"""The dead-letter queue of somebody else's queue is not a queue of ours that has the name ours would have."""

from __future__ import annotations

from pipeline import Pipeline, sinks, sources
from pipeline.aws.cloudformation.stack import Reader, Stack
from pipeline.aws.cloudformation.values import Att, Ref
from pipeline.aws.names import Resource

shop = Pipeline("shop")


@shop.handler(sources.SQS("inbox", existing="arn:aws:sqs:eu-west-1:111122223333:inbox"), sinks=[sinks.SQS("inbox-dlq")])
async def copy(item: str) -> str:
    return item


def test_each_grant_is_for_its_own_queue() -> None:
    (stage,) = shop.stages()
    stack = Stack()
    source, letters, sink = (
        sources.SQS("inbox", existing=stage.source.resource.existing),
        stage.dead_letters,
        stage.sinks[0],
    )
    source.declare(stack, Reader(function="F", mapping="FSource", timeout=30))
    sink.declare(stack)
    letters.declare(stack)
    (own,) = sink.grants()
    (theirs,) = [grant for grant in letters.grants() if "sqs:SendMessage" in grant.actions]
    assert stack.arn(own.resource) == Att("InboxDlqQueue")
    assert stack.arn(theirs.resource) == Ref("InboxDlqArn")
    assert stack.reference(Resource("sqs", "inbox-dlq")) == Ref("InboxDlqQueue")
