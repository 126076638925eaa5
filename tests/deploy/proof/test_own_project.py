"""A project of somebody else's, as docs/deploy.md tells it: its own Makefile and requirements, the toolkit as a wheel."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.proof.artifact import Artifact
from tests.deploy.proof.deployment import Stack, build, deployed, generate
from tests.deploy.proof.ministack import MiniStack
from tests.deploy.proof.polling import poll_queue
from tests.deploy.proof.tools import ROOT, UV, clean_environment
from tests.flow.events import Invocation

pytestmark = pytest.mark.timeout(400)  # it builds and deploys

SHOP = """
from dataclasses import dataclass
from pathlib import Path
from pipeline import Pipeline, Reject, sinks, sources

shop = Pipeline("shop")
PRICE = int((Path(__file__).parent / "price.txt").read_text())

@dataclass
class Order:
    order_id: str
    quantity: int

@shop.handler(sources.SQS("orders"), sinks=[sinks.DynamoDB("ledger", partition_key="order_id")], key="order_id")
async def price(order: Order) -> dict[str, object]:
    if order.quantity < 1:
        raise Reject("quantity must be at least 1")
    return {"order_id": order.order_id, "cents": PRICE * order.quantity}
"""
MAKEFILE = """
build-%Function:
\tpipeline package "$(ARTIFACTS_DIR)"

build-%Layer:
\tpipeline package "$(ARTIFACTS_DIR)" --part dependencies
"""
ORDERS: list[Any] = [
    {"order_id": "a", "quantity": 2},
    {"order_id": "a", "quantity": 2},
    {"order_id": "b", "quantity": 0},
]


def project(directory: Path) -> Path:
    """Its template."""
    subprocess.run(
        [UV, "build", "--wheel", "--quiet", "--out-dir", directory / "wheels"],
        cwd=ROOT, check=True, env=clean_environment(), capture_output=True,
    )  # fmt: skip
    (wheel,) = (directory / "wheels").glob("*.whl")
    (directory / "requirements.txt").write_text(f"fanout-pipeline @ {wheel.as_uri()}\n")
    (directory / "Makefile").write_text(MAKEFILE)
    (directory / "shop").mkdir()
    (directory / "shop/__init__.py").write_text(SHOP)
    (directory / "shop/price.txt").write_text("250")
    return generate("shop", directory)


def test_a_project_of_somebody_elses_is_built_with_a_layer_deployed_and_runs(
    ministack: MiniStack, tmp_path: Path
) -> None:
    template = project(tmp_path)
    stack = deployed(Stack(ministack, "shop", template, build(template, tmp_path / ".aws-sam/build")))
    function = stack.function("shop.price")
    queue = function_names(function)["sqs:orders"]
    mappings = ministack.client("lambda").list_event_source_mappings(
        FunctionName=function["Configuration"]["FunctionName"]
    )
    (mapping,) = mappings["EventSourceMappings"]
    ministack.client("lambda").update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)
    for order in ORDERS:
        ministack.client("sqs").send_message(QueueUrl=queue, MessageBody=json.dumps(order))

    artifact = Artifact(ministack, function, tmp_path / "artifact")
    with (tmp_path / "printed").open("wb") as output:
        runtime = artifact.start(ministack.endpoint_url, output)
        polled = poll_queue(
            ministack, mapping, queue, lambda event: runtime.invoke(event, Invocation(artifact.timeout))
        )
        runtime.close()

    assert (polled.records, polled.failed) == (len(ORDERS), [])
    assert not (artifact.task / "msgspec").exists(), "the dependencies are in the layer"
    (item,) = ministack.client("dynamodb").scan(TableName=function_names(function)["dynamodb:ledger"])["Items"]
    assert (item["order_id"], item["cents"]) == ({"S": "a"}, {"N": "500"})


def function_names(function: dict[str, Any]) -> dict[str, str]:
    names: dict[str, str] = json.loads(function["Configuration"]["Environment"]["Variables"]["PIPELINE_RESOURCES"])
    return names
