"""EventBridge buses in a template."""

from __future__ import annotations

from pipeline.aws.cloudformation.stack import Stack
from pipeline.aws.cloudformation.values import Ref, Sub
from pipeline.aws.names import Resource

_DEFAULT = "default"


def add_bus(stack: Stack, bus: Resource) -> None:
    """Add a bus; `default` is there in every account."""
    if bus.name == _DEFAULT:
        arn = Sub("arn:${AWS::Partition}:events:${AWS::Region}:${AWS::AccountId}:event-bus/default")
        stack.place(bus, _DEFAULT, arn)
        return
    name = stack.keep(bus, "AWS::Events::EventBus", {"Name": Sub("${AWS::StackName}-" + bus.name)}, suffix="Bus")
    stack.outputs[f"{name}Name"] = {"Description": f"The bus {bus.name}, where others subscribe", "Value": Ref(name)}
