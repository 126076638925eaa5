"""This repository's template, held against its handlers by reading both anew."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import pytest

import handlers
from pipeline import Pipeline, sources
from pipeline.aws.names import Resource
from pipeline.engine.stage import Stage
from tests.deploy.template.reading import read, read_newer
from tests.deploy.template.rules import LARGEST, Generated, check_layout, generate, pointed

TEXT = (Path(__file__).parent.parent.parent.parent / "template.yaml").read_text(encoding="utf-8")
MODULES = [import_module(f"handlers.{module.name}") for module in iter_modules(handlers.__path__)]
PIPELINES = [value for module in MODULES for value in vars(module).values() if isinstance(value, Pipeline)]
STAGES = [stage for pipeline in PIPELINES for stage in pipeline.stages()]
KINDS = {
    "sqs": "AWS::SQS::Queue", "kinesis": "AWS::Kinesis::Stream", "dynamodb": "AWS::DynamoDB::Table", "s3": "AWS::S3::Bucket",
    "events": "AWS::Events::EventBus",
}  # fmt: skip
#: By service, what a sink calls, and on what of the resource.
WRITES = {
    "sqs": ("", {"sqs:SendMessage"}), "dynamodb": ("", {"dynamodb:BatchWriteItem"}), "events": ("", {"events:PutEvents"}),
    "s3": ("/*", {"s3:PutObject", "s3:AbortMultipartUpload"}), "kinesis": ("", {"kinesis:PutRecords"}),
}  # fmt: skip
every_handler = pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.full_name)


@cache
def found() -> Generated:
    return generate(*PIPELINES)


def resources_of(stage: Stage) -> list[Resource]:
    things: tuple[Any, ...] = (stage.store, *stage.sinks)
    return [thing.resource for thing in things]


def test_both_yamls_read_the_same_which_is_what_is_generated() -> None:
    value = read(TEXT)

    assert read_newer(TEXT) == value
    assert value.pop("Metadata")["Pipeline"]["Generated"]
    assert value == found().value
    check_layout(TEXT)


def test_it_is_uploaded_because_it_is_larger_than_what_is_taken_directly() -> None:
    assert 51_200 < len(TEXT.encode()) < LARGEST // 10


def test_every_handler_has_its_function_and_no_function_is_without_one() -> None:
    functions = found().of_type("AWS::Serverless::Function")

    assert sorted(one["Handler"] for one in functions.values()) == sorted(
        f"{stage.function.__module__}.{stage.name}" for stage in STAGES
    )
    assert all(name.endswith("Function") for name in functions), "the Makefile's target is build-%Function"
    assert all(found().value["Resources"][name]["Metadata"]["BuildMethod"] == "makefile" for name in functions)


@every_handler
def test_function_and_mapping_are_as_declared(stage: Stage) -> None:
    function, mapping, source = found().function(stage.name), found().mapping(stage.name), stage.source

    assert (function["Timeout"], function["MemorySize"]) == (stage.deploy.timeout, stage.deploy.memory)
    assert isinstance(source, (sources.SQS, sources.Kinesis))
    assert (mapping["BatchSize"], mapping.get("MaximumBatchingWindowInSeconds", 0)) == (
        source.batch_size,
        source.batching_window,
    )
    if isinstance(source, sources.SQS):
        queue = found().value["Resources"][pointed(mapping["Queue"])]["Properties"]
        assert queue["VisibilityTimeout"] == 6 * stage.deploy.timeout + source.batching_window
        assert queue["RedrivePolicy"]["maxReceiveCount"] == source.max_receive_count
        assert bool(queue.get("FifoQueue")) == source.is_fifo
        assert mapping.get("ScalingConfig", {}).get("MaximumConcurrency") == source.max_concurrency
    else:
        stream = found().value["Resources"][pointed(mapping["Stream"])]["Properties"]
        assert stream["RetentionPeriodHours"] * 3_600 > source.max_record_age > 0
        assert (mapping["MaximumRetryAttempts"], mapping["MaximumRecordAgeInSeconds"]) == (
            source.retry_attempts,
            source.max_record_age,
        )


@every_handler
def test_the_code_is_told_what_it_writes_to_and_the_role_allows_just_that(stage: Stage) -> None:
    told, granted = found().told(stage.name), found().granted(stage.name)
    wanted = {f"{one.service}:{one.name}" for one in resources_of(stage)}

    assert wanted <= set(told)
    assert len(set(told.values())) == len(told), "two of them are one"
    for name, place in told.items():
        assert found().value["Resources"][place]["Type"] == KINDS[name.partition(":")[0]]
    for sink in stage.sinks:
        resource: Resource = getattr(sink, "resource")  # noqa: B009 - the port does not promise it
        below, actions = WRITES[resource.service]
        assert granted[told[f"{resource.service}:{resource.name}"] + below] == actions
    allowed = {place.removesuffix("/*") for place in granted}
    assert set(told.values()) <= allowed
    others = allowed - set(told.values())
    assert {found().value["Resources"][name]["Type"] for name in others} <= {
        "AWS::Logs::LogGroup", "AWS::Kinesis::Stream", "AWS::S3::Bucket",
    }  # fmt: skip
