"""Pipelines of chance: each is refused in words, or becomes a template that obeys all rules."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path
from typing import Any

from hypothesis import Phase, event, given, settings
from hypothesis import strategies as st

from pipeline import Claim, ConfigurationError, Function, Pipeline, sinks, sources, stores
from pipeline.deployment import CANARIES
from tests.deploy.template.rules import generate

ROOT = Path(__file__).parent.parent.parent.parent
ARNS = {
    "sqs": "arn:aws:sqs:eu-west-1:111122223333:", "kinesis": "arn:aws:kinesis:eu-west-1:111122223333:stream/", "s3": "arn:aws:s3:::",
    "dynamodb": "arn:aws:dynamodb:eu-west-1:111122223333:table/", "events": "arn:aws:events:eu-west-1:111122223333:event-bus/",
}  # fmt: skip
#: Few names, so that they meet.
NAMES = st.sampled_from(["a", "b", "c.fifo", "a-b", "orders", "a-dlq", "a-stream-dlq"])


def existing(service: str) -> st.SearchStrategy[str | None]:
    return st.one_of(st.none(), st.none(), st.sampled_from(["x", "y"]).map(lambda name: ARNS[service] + name))


QUEUES = st.builds(
    sources.SQS,
    NAMES,
    existing=existing("sqs"),
    max_receive_count=st.integers(1, 1_000),
    filter=st.sampled_from([None, {"a": ["b"]}]),
)
STREAMS = st.builds(
    sources.Kinesis, NAMES, existing=existing("kinesis"), max_record_age=st.sampled_from([-1, 60, 604_800]), bisect=st.booleans()
) | st.builds(sources.Kinesis, NAMES, shards=st.sampled_from([None, 1, 2]))  # fmt: skip
SINKS = st.one_of(
    st.builds(sinks.SQS, NAMES, existing=existing("sqs")),
    st.builds(sinks.Kinesis, NAMES, existing=existing("kinesis")),
    st.builds(sinks.DynamoDB, NAMES, existing=existing("dynamodb"), sort_key=st.sampled_from([None, "b"])),
    st.builds(sinks.EventBridge, NAMES | st.just("default"), detail_type=st.just("t"), existing=existing("events")),
    st.builds(sinks.S3, NAMES, existing=existing("s3")),
    st.just(sinks.Memory()),
)
STORES = st.sampled_from([None, Claim(), Claim(store=stores.Memory()), Claim(store=stores.DynamoDB("once"))])
FUNCTIONS = st.builds(
    Function, timeout=st.integers(1, 900), memory=st.integers(128, 10_240), canary=st.sampled_from([None, *CANARIES])
)
HANDLER = st.fixed_dictionaries(
    {"source": QUEUES | STREAMS, "sinks": st.lists(SINKS, max_size=3, unique_by=lambda sink: sink.name),
     "rejects": st.none() | SINKS, "deploy": FUNCTIONS}
)  # fmt: skip
APP = st.lists(st.tuples(STORES, st.lists(HANDLER, min_size=1, max_size=2)), min_size=1, max_size=2)


def declared(app: list[Any]) -> list[Pipeline]:
    """The pipelines, with their handlers in a module where Lambda would find them."""
    module = sys.modules["chance"] = types.ModuleType("chance", "Chance.")
    pipelines = []
    for number, (mode, handlers) in enumerate(app):
        pipeline = Pipeline(f"p{number}", idempotency=mode)
        for position, options in enumerate(handlers):

            async def run(order: dict[str, Any]) -> None: ...

            run.__name__ = run.__qualname__ = f"h{number}{position}"
            run.__module__ = "chance"
            setattr(module, run.__name__, pipeline.handler(options.pop("source"), **options)(run))
        pipelines.append(pipeline)
    return pipelines


@given(APP)
@settings(max_examples=12, phases=[Phase.generate])  # a smaller example would take minutes to find
def test_any_pipelines_are_refused_in_words_or_obey_the_rules(app: list[Any]) -> None:
    try:
        found = generate(*declared([(mode, [dict(options) for options in handlers]) for mode, handlers in app]))
    except ConfigurationError as error:
        event("refused")
        assert len(str(error)) > 40  # noqa: PT017 - a sentence
        return
    finally:
        sys.modules.pop("chance", None)
    event("generated")
    assert len(found.functions) == sum(len(handlers) for _, handlers in app)


def test_two_processes_write_the_same_bytes() -> None:
    command = [sys.executable, "-m", "pipeline", "template", "handlers"]
    runs = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, cwd=ROOT, env={"PYTHONHASHSEED": seed, "PATH": "/usr/bin:/bin"}
        )
        for seed in ("1", "2")
    ]
    texts = [run.communicate(timeout=50)[0] for run in runs]

    assert len(texts[0]) > 10_000
    assert texts[0] == texts[1] == (ROOT / "template.yaml").read_bytes()
