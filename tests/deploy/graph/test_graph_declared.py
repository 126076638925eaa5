"""What is declared is what the graph says."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline import Pipeline, sinks, sources
from pipeline.deploy.graph.declared import graph_of
from pipeline.deploy.graph.model import Edge, Graph, Kind, Node
from pipeline.deploy.graph.names import Ids, spec_text, type_name, visible
from pipeline.errors import PipelineError
from tests.deploy.graph import declared

ROOT = Path(__file__).parents[3]
GRAPH = graph_of([declared.front, declared.back])


def node(name: str) -> Node:
    (found,) = [one for one in GRAPH.nodes if one.name == name]
    return found


def edges(start: str, end: str) -> list[Edge]:
    return [edge for edge in GRAPH.edges if (edge.start, edge.end) == (node(start).id, node(end).id)]


@pytest.mark.parametrize(
    ("name", "kind", "caption"),
    [
        ("count", Kind.HANDLER, "handler"),
        ("clicks", Kind.STREAM, "Kinesis"),
        ("payments", Kind.QUEUE, "SQS"),
        ("orders", Kind.FIFO, "SQS FIFO"),
        ("letters.fifo", Kind.FIFO, "SQS FIFO"),
        ("ledger", Kind.TABLE, "DynamoDB"),
        ("shop-events", Kind.BUS, "EventBridge"),
        ("archive", Kind.BUCKET, "S3"),
        ("out/clicks.ndjson", Kind.FILE, "File"),
        ("kept", Kind.MEMORY, "Memory"),
        ('console "x" <y>', Kind.SINK, "Console"),
    ],
)
def test_each_kind_is_told_apart(name: str, kind: Kind, caption: str) -> None:
    assert (node(name).kind, node(name).caption) == (kind, caption)


def test_one_resource_is_one_node_that_joins_handlers() -> None:
    assert edges("count", "payments")
    assert edges("payments", "pay")
    assert edges("clicks", "count")
    assert edges("clicks", "watch")
    assert edges("count", "clicks"), "a loop"
    assert [edge.details for edge in edges("invoice", "payments")] == [("as again",)]
    assert edges("count", "kept")
    assert edges("watch", "kept")


def test_two_objects_of_one_name_are_two_nodes() -> None:
    two = Pipeline("two")

    @two.handler(sources.SQS("a"), sinks=[sinks.Memory()])
    def one(value: dict[str, Any]) -> None: ...

    @two.handler(sources.SQS("b"), sinks=[sinks.Memory()])
    def other(value: dict[str, Any]) -> None: ...

    ids = [found.id for found in graph_of([two]).nodes if found.kind is Kind.MEMORY]
    assert ids == ["memory_memory", "memory_memory_2"]


def test_what_several_pipelines_use_belongs_to_none() -> None:
    front, back = (cluster.id for cluster in GRAPH.clusters)
    shared = {one.name for one in GRAPH.nodes if one.cluster is None}

    assert shared == {"payments"}
    assert {node(name).cluster for name in ("count", "clicks", "watch", "rejected")} == {front}
    assert {node(name).cluster for name in ("pay", "orders", "ledger", "payments-dlq")} == {back}


def test_edges_say_how_a_source_is_read() -> None:
    (read,) = edges("clicks", "count")
    assert read.details == ("batch 1,000", "window 2 s", "4 at once a shard")
    (read,) = edges("payments", "pay")
    assert read.details == ("batch 20", "window 3 s", "at most 5 at once", "filtered")
    assert [edge.details for edge in edges("letters.fifo", "file")] == [("batch 10",)]


def test_edges_say_how_a_sink_is_written() -> None:
    details = {(start, end): edges(start, end)[0].details for start, end in WRITTEN}
    assert details == WRITTEN
    assert node("ledger").details == ("partition key id", "sort key at")


WRITTEN = {
    ("count", "clicks"): ("partition key user",),
    ("look", "letters.fifo"): ("group id",),
    ("pay", "shop-events"): ("type payment.made",),
    ("pay", "archive"): ("as all", "below {date}/", "when is_large()"),
    ("pay", "ledger"): (),
}


def test_dead_letters_go_to_the_sources_queue_or_to_the_sink_of_ones_choice() -> None:
    rejects = {(edge.start, edge.end) for edge in GRAPH.edges if edge.is_rejects}
    wanted = {
        "count": "clicks-stream-dlq",
        "watch": "rejected",
        "pay": "payments-dlq",
        "invoice": "dead letters of orders",
        "look": "payments-dlq-dlq",
        "file": "letters-dlq.fifo",
    }
    assert rejects == {(node(start).id, node(end).id) for start, end in wanted.items()}
    assert {name: node(name).is_dead_letters for name in wanted.values()} == {
        name: name != "rejected" for name in wanted.values()
    }
    assert edges("payments-dlq", "look"), "a dead-letter queue may be read like any other"
    assert node("orders").details == node("dead letters of orders").details == ("not ours",)
    assert node("dead letters of orders").kind is Kind.FIFO


def test_handlers_say_their_keys_and_lanes() -> None:
    assert node("count").details == ("key user, place", "lane by.partition_key")
    assert node("watch").details == ("key a lambda", "lane shop_of()")
    assert node("invoice").details == ("key name",)
    assert node("pay").details == ()


def test_an_edge_to_nowhere_is_refused() -> None:
    with pytest.raises(PipelineError, match="joins b, which is no node"):
        Graph(
            clusters=(), nodes=(Node(id="a", kind=Kind.QUEUE, caption="", name=""),), edges=(Edge(start="a", end="b"),)
        )


def test_ids_are_plain_and_each_once() -> None:
    ids = Ids()
    assert [ids.new("sqs", "a-b"), ids.new("sqs", "a.b"), ids.new("sqs", "a b 2"), ids.new("sqs", "a_b")] == [
        *("sqs_a_b", "sqs_a_b_2", "sqs_a_b_2_2", "sqs_a_b_3"),
    ]
    assert [ids.new("sqs", "→"), ids.new("", "→"), ids.new("", "end")] == ["sqs", "_", "end"]


def test_texts_for_people() -> None:
    class Reader:
        def __call__(self, value: object) -> object: ...

    assert visible("a\nb\x1b\u202e\ud800 ü漢") == "a\\nb\\x1b\\u202e\\ud800 ü漢"
    assert spec_text(Reader()) == "Reader()"
    assert type_name(list[dict[str, int] | None]) == "list of dict of str, int or NoneType"


FORMS = ("mermaid", "dot", "svg", "asyncapi")
EACH_FORM = """
import contextlib, io, json, sys
from pipeline.cli import main
texts = {}
for form in sys.argv[1:]:
    sys.argv = ["pipeline", "graph", "tests.deploy.graph.declared", "--format", form]
    with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), "utf-8", newline="")) as out:
        with contextlib.suppress(SystemExit):
            main()
        out.flush()
        texts[form] = out.buffer.getvalue().decode()
json.dump(texts, sys.stdout)
"""


@functools.cache
def made_with(seed: str) -> dict[str, str]:
    """What a process whose hashes, and so the orders of its sets, follow from a seed writes in each form."""
    done = subprocess.run(
        [sys.executable, "-c", EACH_FORM, *FORMS],
        cwd=ROOT,
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": seed},
    )
    texts: dict[str, str] = json.loads(done.stdout)
    return texts


@pytest.mark.parametrize("form", FORMS)
def test_the_same_declarations_give_the_same_bytes(form: str) -> None:
    texts = {made_with(seed)[form] for seed in ("1", "2", "3")}

    assert len(texts) == 1
    assert len(texts.pop()) > 1_000
