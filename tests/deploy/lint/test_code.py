"""What a handler's source says of its answer."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from pipeline.deploy.lint import read, worlds
from pipeline.deploy.lint.code import UNKNOWN_CODE, Code, Finder, examine
from pipeline.deploy.lint.model import Model

REPORTS: dict[str, tuple[bool | None, str]] = {
    "returns it": (True, "def handler(event, context):\n    return {'batchItemFailures': failures}\n"),
    "returns an empty one": (None, "def handler(event, context):\n    return {'batchItemFailures': []}\n"),
    "under a constant": (True, "KEY = 'batchItemFailures'\ndef handler(e, c):\n    return {KEY: work(e)}\n"),
    "fills it later": (
        True,
        """
        def handler(event, context):
            answer: dict = {'batchItemFailures': []}
            answer['batchItemFailures'].append(work(event))
            return answer
        """,
    ),
    "puts it in later": (
        True,
        "def handler(e, c):\n    answer = {}\n    answer['batchItemFailures'] = work(e)\n    return answer\n",
    ),
    "never fills it": (None, "def handler(e, c):\n    answer = {'batchItemFailures': []}\n    return answer\n"),
    "one of two ways": (True, "def handler(e, c):\n    return {'batchItemFailures': work(e)} if e else None\n"),
    "a class of its shape": (True, "def handler(e, c):\n    return Answer(batchItemFailures=work(e)).dict()\n"),
    "circles": (None, "def handler(e, c):\n    return other(e)\ndef other(e):\n    return handler(e, 0)\n"),
    "names in circles": (None, "def handler(e, c):\n    a = b if e else a\n    b = a\n    return a\n"),
    "ways without end": (None, "def handler(e, c):\n    return " + "1 if e else " * 2_000 + "work(e)\n"),
    "another's answer": (
        False,
        "def handler(e, c):\n    if invoke(e)['batchItemFailures']:\n        raise OSError\n    return None\n",
    ),
    "a line for the log": (False, "def handler(e, c):\n    print('no batchItemFailures')\n"),
    "Powertools, not returned": (
        False,
        """
        from aws_lambda_powertools.utilities.batch import BatchProcessor, process_partial_response
        def handler(event, context):
            process_partial_response(event=event, record_handler=work, processor=BatchProcessor(), context=context)
        """,
    ),
    "Powertools, and another answer": (
        False,
        """
        from aws_lambda_powertools.utilities.batch import BatchProcessor
        def handler(event, context):
            with processor(records=event["Records"], handler=work):
                processor.process()
            return {"statusCode": 200}
        """,
    ),
    "Powertools under another name": (
        True,
        """
        from aws_lambda_powertools.utilities.batch import process_partial_response as respond
        async def handler(event, context):
            found = respond(event=event)
            return await found if event else found
        """,
    ),
    "run to its end": (
        True,
        "async def main(e):\n    return {'batchItemFailures': e}\ndef handler(e, c):\n    return asyncio.run(main(e))\n",
    ),
    "returns JSON": (None, "def handler(event, context):\n    return json.loads('{\"batchItemFailures\": []}')\n"),
    "by a helper": (
        True,
        "def answer():\n    return dict(batchItemFailures=[1])\ndef handler(e, c):\n    return answer()\n",
    ),
    "Powertools": (
        True,
        """
        from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
        processor = BatchProcessor(event_type=EventType.SQS)
        @logger.inject_lambda_context
        def handler(event, context):
            return process_partial_response(event=event, record_handler=work, processor=processor, context=context)
        """,
    ),
    "Powertools' decorator": (
        True,
        """
        @batch_processor(record_handler=work, processor=processor)
        def handler(event, context):
            return processor.response()
        """,
    ),
    "nothing": (False, "def handler(event, context):\n    print(event)\n"),
    "a status": (False, "def handler(event, context):\n    return {'statusCode': 200, 'body': work(event)}\n"),
    "either": (False, "def handler(event, context):\n    if event:\n        return None\n    return 'done'\n"),
    "a comment": (False, "def handler(event, context):\n    # batchItemFailures\n    return None\n"),
    "a docstring": (False, "def handler(event, context):\n    '''No batchItemFailures.'''\n"),
    "tracing": (
        False,
        "@tracer.capture_lambda_handler\n@logger.inject_lambda_context(log_event=True)\ndef handler(e, c): ...\n",
    ),
    "a function inside": (False, "def handler(e, c):\n    def one():\n        return work()\n    one()\n"),
    "another handler": (
        False,
        "def handler(e, c): ...\ndef other(e, c):\n    return {'batchItemFailures': []}\n",
    ),
    "something else": (None, "def handler(event, context):\n    return work(event)\n"),
    "unknown keys": (None, "def handler(event, context):\n    return {**work(event)}\n"),
    "a decorator": (None, "@middleware\ndef handler(event, context):\n    pass\n"),
    "a generator": (None, "def handler(event, context):\n    yield 1\n"),
    "an object": (None, "handler = App()\n"),
    "not there": (None, "def other(event, context): ...\n"),
    "no Python": (None, "def handler(:\n"),
    "too deep": (None, "handler = " + "(" * 5_000 + ")" * 5_000 + "\n"),
}


@pytest.mark.parametrize("case", REPORTS)
def test_whether_a_handler_reports(case: str) -> None:
    reports, source = REPORTS[case]

    assert examine(dedent(source), "handler").reports is reports


def test_a_handler_of_this_toolkit_is_known() -> None:
    source = "from pipeline import Pipeline, sources\nshop = Pipeline('shop')\n@shop.handler(sources.SQS('orders'))\ndef price(o): ...\n"

    assert examine(source, "price") == Code(reports=True, is_toolkit=True)
    assert examine(source.replace("from pipeline", "from other"), "price").is_toolkit is False
    whole = source.replace("from pipeline import Pipeline, sources", "import pipeline").replace("= P", "= pipeline.P")
    assert examine(whole, "price").is_toolkit
    assert examine(whole.replace("Pipeline", "Other"), "price").is_toolkit is False


@pytest.mark.parametrize("name", ["aws_kinesis_agg.deaggregator", "deaggregate_records"])
def test_a_handler_that_takes_aggregates_apart_is_known(name: str) -> None:
    module, _, _ = name.partition(".")
    source = f"from {module} import apart\ndef handler(e, c):\n    apart(e)\n"

    assert examine(source, "handler").reads_aggregates
    assert not examine(source.replace("    apart(e)", "    pass"), "handler").reads_aggregates


def code(directory: Path, properties: str) -> Code:
    text = f"Resources:\n  F:\n    Type: AWS::Serverless::Function\n    Properties: {{Runtime: python3.13, {properties}}}\n"
    return Finder(directory).find(Model(worlds.of(read(text.encode()))[0]))["F"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    files = {
        "src/app.py": "from shared.answers import answer\nfrom lonely import x\ndef handler(e, c):\n    return answer(e)\ndef quiet(e, c): ...\n",
        "src/shared/__init__.py": "",
        "src/shared/answers.py": "from . import more\ndef answer(e):\n    return more.answer(e)\n",
        "src/shared/more.py": "from . import answers\ndef answer(e):\n    return {'batchItemFailures': [e]}\n",
        "src/lonely.py": "x = 'batchItemFailures'\n",
        "src/package/__init__.py": "def handler(e, c):\n    return {'batchItemFailures': [e]}\n",
        "src/again.py": "from package import handler as other\n",
        "src/round.py": "from round import handler\n",
        "src/shop.py": "from pipeline import Pipeline\nshop = Pipeline('shop')\n",
        "src/toolkit.py": "from shop import shop\n@shop.handler('orders')\ndef price(o): ...\n",
        "src/binary.py": "\0",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "src/latin.py").write_bytes(b"x = '\xff'")
    return tmp_path


@pytest.mark.parametrize(
    ("properties", "reports"),
    [
        ("CodeUri: src, Handler: app.handler", True),  # through two modules, which import each other
        ("CodeUri: src/, Handler: app.quiet", False),  # what it does not use does not count
        ("CodeUri: ., Handler: src.app.quiet", False),
        ("Handler: src/app.quiet", False),
        ("CodeUri: src, Handler: package.handler", True),
        ("CodeUri: src, Handler: again.other", True),
        ("CodeUri: src, Handler: round.handler", None),
        ("CodeUri: src, Handler: toolkit.price", True),
        ("CodeUri: src, Handler: missing.handler", None),
        ("CodeUri: src, Handler: binary.handler", None),
        ("CodeUri: src, Handler: latin.handler", None),
        ("CodeUri: src, Handler: app", None),
        ("CodeUri: src, Handler: !ImportValue x", None),
        ("CodeUri: s3://bucket/key, Handler: app.handler", None),
        ("CodeUri: !Ref Somewhere, Handler: app.handler", None),
        ("CodeUri: src, Handler: app.quiet, Runtime: nodejs24.x", None),
        ('InlineCode: "def quiet(e, c): ...", Handler: index.quiet', False),
        ('InlineCode: !Sub "def quiet(e, c): print(${AWS::AccountId})", Handler: index.quiet', None),  # no Python yet
        ("InlineCode: !Sub \"def quiet(e, c): print('${AWS::Region}')\", Handler: index.quiet", False),
        ("InlineCode: !ImportValue code, Handler: index.quiet", None),
    ],
)
def test_the_source_is_found_below_code_uri(project: Path, properties: str, reports: bool | None) -> None:
    written = properties.replace(", Runtime: nodejs24.x", "")
    if written != properties:
        text = f"Resources:\n  F:\n    Type: AWS::Serverless::Function\n    Properties: {{{properties}}}\n"
        found = Finder(project).find(Model(worlds.of(read(text.encode()))[0]))["F"]
    else:
        found = code(project, properties)

    assert found.reports is reports


def test_nothing_is_imported(project: Path) -> None:
    (project / "src" / "app.py").write_text("raise SystemExit('imported')\ndef handler(e, c): ...\n")

    assert code(project, "CodeUri: src, Handler: app.handler").reports is False
    assert UNKNOWN_CODE.reports is None
