"""What a CloudFormation stack consists of: its resources by logical id."""

from __future__ import annotations

from msgspec import Struct

from pipeline.aws.client import client
from pipeline.aws.cloudformation.stack import logical_id
from pipeline.ports import Environment

ACTIONS = ("cloudformation:ListStackResources",)


class StackResource(Struct, frozen=True):
    """A resource of a stack that is there."""

    logical_id: str
    kind: str  #: AWS::SQS::Queue
    physical_id: str  #: a queue's URL, a function's name, a log group's name


async def resources(stack: str, environment: Environment) -> list[StackResource]:
    """The resources of a stack, by its name or ARN. Raises what the client raises."""
    cloudformation = await client(environment, "cloudformation")
    found: list[StackResource] = []
    token: dict[str, str] = {}
    while True:
        answer = await cloudformation.list_stack_resources(StackName=stack, **token)
        found += [
            StackResource(one["LogicalResourceId"], one["ResourceType"], one["PhysicalResourceId"])
            for one in answer.get("StackResourceSummaries", ())
            if one.get("PhysicalResourceId") and not one["ResourceStatus"].startswith("DELETE")
        ]
        if not answer.get("NextToken"):
            return found
        token = {"NextToken": answer["NextToken"]}


def queue(found: list[StackResource], name: str, stack: str) -> str | None:
    """The URL of the queue that a logical name stands for; None: the stack has no such queue.

    By its logical id, as `pipeline template` gives it, else by its own name, with the stack's or without.
    """
    queues = {one.logical_id: one.physical_id for one in found if one.kind == "AWS::SQS::Queue"}
    exact = queues.get(logical_id(name, "Queue"))
    names = (name, f"{stack}-{name}")
    return exact or next((url for url in queues.values() if url.rpartition("/")[2] in names), None)
