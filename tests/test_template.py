"""template.yaml is written by hand for now: it must say what the handlers declare."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from handlers.webhooks import webhooks
from pipeline.engine.stage import Stage

STAGES = webhooks.stages()


class Loader(yaml.SafeLoader):
    """Reads CloudFormation's short forms: `!Ref X` becomes {"Ref": "X"}."""


def short_form(loader: Loader, tag: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        return {tag: loader.construct_scalar(node)}
    if isinstance(node, yaml.SequenceNode):
        return {tag: loader.construct_sequence(node, deep=True)}
    assert isinstance(node, yaml.MappingNode)
    return {tag: loader.construct_mapping(node, deep=True)}


Loader.add_multi_constructor("!", short_form)  # type: ignore[no-untyped-call]

TEMPLATE: dict[str, Any] = yaml.load(
    (Path(__file__).parent.parent / "template.yaml").read_text(),
    Loader=Loader,  # noqa: S506 - a safe loader with tags of its own
)
FUNCTIONS = {
    name: body["Properties"]
    for name, body in TEMPLATE["Resources"].items()
    if body["Type"] == "AWS::Serverless::Function"
}


def function_of(stage: Stage) -> dict[str, Any]:
    (found,) = [one for one in FUNCTIONS.values() if one["Handler"] == f"handlers.webhooks.{stage.name}"]
    return TEMPLATE["Globals"]["Function"] | found


def mapping_of(stage: Stage) -> dict[str, Any]:
    (event,) = function_of(stage)["Events"].values()
    assert event["Type"] == "SQS"
    properties: dict[str, Any] = event["Properties"]
    return properties


def queue_of(stage: Stage) -> dict[str, Any]:
    reference = mapping_of(stage)["Queue"]["GetAtt"].removesuffix(".Arn")
    properties: dict[str, Any] = TEMPLATE["Resources"][reference]["Properties"]
    return properties


def test_every_handler_has_its_function_and_no_function_is_without_one() -> None:
    assert {one["Handler"] for one in FUNCTIONS.values()} == {f"handlers.webhooks.{stage.name}" for stage in STAGES}


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_the_function_has_the_declared_size(stage: Stage) -> None:
    function = function_of(stage)

    assert (function["Timeout"], function["MemorySize"]) == (stage.deploy.timeout, stage.deploy.memory)
    assert "Role" in function


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_the_mapping_is_the_declared_source(stage: Stage) -> None:
    source: Any = stage.source
    mapping = mapping_of(stage)

    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert mapping["BatchSize"] == source.batch_size
    assert mapping.get("MaximumBatchingWindowInSeconds", 0) == source.batching_window
    if source.max_concurrency is not None:
        assert mapping["ScalingConfig"]["MaximumConcurrency"] == source.max_concurrency


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_the_queue_leaves_room_for_six_runs_and_its_net_is_the_declared_one(stage: Stage) -> None:
    source: Any = stage.source
    queue = queue_of(stage)

    assert queue["VisibilityTimeout"] == 6 * stage.deploy.timeout + source.batching_window
    assert queue["RedrivePolicy"]["maxReceiveCount"] == source.max_receive_count
    assert queue["SqsManagedSseEnabled"] is True
    assert bool(queue.get("FifoQueue")) == source.is_fifo


def test_every_declared_resource_is_told_to_the_code() -> None:
    text = TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]["PIPELINE_RESOURCES"]["Sub"]
    told = json.loads(re.sub(r"\$\{(\w+)\}", r"\1", text))
    declared: set[str] = set()
    for stage in STAGES:
        for thing in (stage.source, stage.store, *stage.sinks):
            resource = getattr(thing, "resource", None)
            if resource is not None:
                declared.add(f"{resource.service}:{resource.name}")

    assert declared <= set(told)
    assert set(told.values()) <= set(TEMPLATE["Resources"])


def test_no_policy_has_a_wildcard_but_the_refusal_of_plain_text() -> None:
    for name, body in TEMPLATE["Resources"].items():
        for statement in statements(body):
            if statement["Effect"] == "Allow":
                for part in ("Action", "Resource"):
                    assert "*" not in json.dumps(statement.get(part, "")).replace(":*:*", ""), (name, statement)


def statements(body: Any) -> list[dict[str, Any]]:
    if isinstance(body, dict):
        own = [body] if "Effect" in body else []
        return own + [found for value in body.values() for found in statements(value)]
    return [found for value in body for found in statements(value)] if isinstance(body, list) else []
