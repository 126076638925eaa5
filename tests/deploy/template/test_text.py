"""How values are written: both YAMLs read them back, whatever users call things and write into their docstrings."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline import ConfigurationError
from pipeline.aws.cloudformation.values import Att, If, Noted, Ref, Sub, plain
from pipeline.deploy.template import document, merge
from pipeline.deploy.template.assembly import Template, template
from tests.deploy.template.conftest import Declare
from tests.deploy.template.reading import filled, read, read_newer
from tests.deploy.template.rules import Generated, check_layout, generate

#: What YAML 1.1 or 1.2 takes for something else than text, when it stands without quotes.
WORDS = [
    "", "~", "null", "y", "N", "on", "Off", "YES", "no", "true", "1_000", "0o17", "017", "0x_1F", "0b1_0", "12:30:45", "-1:30.5",
    "1.5e+3", "1_0.5e3", "1e3", ".5", "._5", ".5_0", ".inf", "-.INF", ".NaN", "=", "<<", "2001-12-14", "2001-12-14t21:59:43.10-05:00", "+1", "-0x1f",
    "- a", "? a", ":0", "a: b", "a #b", "#a", "&a", "*a", "!a", "|", ">", "%a", "@a", "`a", "{a", "[a", "a'b", 'a"b', "a\\b", "---", "...",
    " a", "a ", "\ta", "a\tb", "a\n", "\na", "a\n\n b\n", "a \nb", "  a\nb", "a\r\nb", "\x85a\u2028b", "a\u2028b", "\ufeffa", "\x07", "\x7f", "ü 漢 🙂", "\ud7ff\ue000",
]  # fmt: skip
#: What a file in UTF-8 can hold.
TEXT = st.one_of(
    st.sampled_from(WORDS),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.text(" \n\t'\"#:-{}[],&*!|>%@`\\ab0", max_size=12),
    st.from_regex(r"[-+]?[0-9][0-9_:.eExXob+-]{0,6}", fullmatch=True),
    st.text(st.sampled_from("word  \n"), min_size=100, max_size=300),
)
LEAF = st.one_of(TEXT, st.integers(), st.booleans(), st.builds(Sub, TEXT), st.just(Ref("A")), st.just(Att("B")))
VALUE = st.recursive(
    LEAF,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4),
        st.dictionaries(TEXT.filter(bool), inner, min_size=1, max_size=4),
        st.builds(
            Noted, inner.filter(lambda one: not isinstance(one, Noted)), st.sampled_from(["One reason.", "Two\nlines."])
        ),
        st.builds(lambda one: If("C", one, Ref("AWS::NoValue")), st.lists(LEAF, min_size=1, max_size=2)),
    ),
    max_leaves=8,
)


def written(value: Any) -> str:
    sections = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "Words",
        "Resources": {"Thing": {"Type": "AWS::A::B", "Properties": {"Value": value}}},
    }
    return document.text_of(Template(sections, {"Thing": "a heading"}, {}, []), "A head.")


def value_of(template: Any) -> Any:
    return template["Resources"]["Thing"]["Properties"]["Value"]


@given(VALUE)
def test_both_yamls_read_what_was_meant(value: Any) -> None:
    text = written(value)

    assert value_of(read(text)) == plain(value)
    assert value_of(read_newer(text)) == plain(value)
    assert text == written(value)


@pytest.mark.parametrize(
    "make",
    [str, Sub, lambda word: [word], lambda word: {word: 1, "b": 2, "c": 3}, lambda word: Noted([[word]], "x")],
    ids=["text", "sub", "in a list", "a name", "in lists"],
)
def test_no_word_is_mistaken(make: Any) -> None:
    meant = {f"w{number}": make(word) for number, word in enumerate(WORDS)}
    text = written(meant)

    assert value_of(read(text)) == plain(meant)
    assert value_of(read_newer(text)) == plain(meant)


@given(VALUE)
@settings(max_examples=40)
@example(["a\u2028# b", "c"])
def test_what_was_written_can_be_taken_apart_and_put_together(value: Any) -> None:
    text = merge.sealed(written(value))

    assert merge.merged(text, text, "template.yaml").text == text
    assert merge.merged(text, text, "template.yaml").is_ours


def test_the_comment_of_a_value_stands_above_it_in_its_column() -> None:
    text = written({"a": [{"b": Noted({"c": 1}, "Why c.\nSecond line."), "d": 1, "e": 1}], "f": Noted(1, "Why f.")})

    check_layout(text)
    assert "# Why c.\n" in text
    assert "# Second line.\n" in text
    assert "# Why f.\n" in text


# What users name


def handler(
    declare: Declare, options: str, body: str = "", *, name: str = "price", doc: str = '"""A shop."""'
) -> Generated:
    source = f'shop = Pipeline("shop")\n\n@shop.handler({options})\nasync def {name}(order: dict) -> dict:\n    {body or "..."}\n'
    return generate(*declare(source, doc=doc))


def test_variables_of_the_users_own_reach_the_function_as_they_are(declare: Declare) -> None:
    given_ = {f"name{position}": word for position, word in enumerate(WORDS)} | {
        "on": "off",
        "no": "1_000",
        "y1": "${Stage}",
        "NULL": "12:30:45",
    }
    found = handler(declare, f'sources.SQS("orders"), deploy=Function(environment={given_!r})')

    variables = found.function("price")["Environment"]["Variables"]
    assert {name: value for name, value in variables.items() if name != "PIPELINE_RESOURCES"} == given_


@pytest.mark.parametrize(
    "doc",
    [
        "Short.", "A: b # c", "'single' and \"double\"", "${Stage} ${!x} ${", "on", "12:30:45", "2001-12-14", "- a", "ü 漢 🙂", "tab\tinside",
        "word " * 400, "ü" * 3000, "\\N{BELL}", "\\x85 a\\u2028 b", "%", "trailing\\\\", "#", "!Sub x", "*", "&a", "|",
    ],
)  # fmt: skip
def test_docstrings_become_descriptions_that_aws_takes(declare: Declare, doc: str) -> None:
    found = handler(
        declare,
        'sources.SQS("orders")',
        f'r"""{doc}\n\n    More."""' if "\\" not in doc else f'"""{doc}\n\n    More."""',
        doc=f"'''{doc}\n\nMore.'''",
    )
    description = found.function("price")["Description"]

    assert description
    assert description == description.strip()
    assert "More." not in description + found.value["Description"]
    assert found.value["Description"]


def test_names_with_marks_reach_comments_alarms_and_the_dashboard(declare: Declare) -> None:
    name = "a ${Nobody} \\\"q\\\" 'ü' # x: y"
    existing = "arn:aws:sqs:eu-west-1:111122223333:theirs"
    found = handler(
        declare, f'sources.SQS("{name}", existing="{existing}"), sinks=[sinks.SQS("b", name="{name}\\nnext line")]'
    )
    (dashboard,) = found.of_type("AWS::CloudWatch::Dashboard").values()
    widgets = json.loads(filled(dashboard["DashboardBody"]["Fn::Sub"]))["widgets"]
    said = "a ${Nobody} \"q\" 'ü' # x: y"

    assert widgets[0]["properties"]["markdown"].startswith(f"## {said} -> {said}")
    assert widgets[1]["properties"]["title"].startswith(said)
    ages = [alarm for alarm in found.of_type("AWS::CloudWatch::Alarm").values() if alarm.get("Namespace") == "AWS/SQS"]
    assert filled(ages[0]["AlarmDescription"]["Fn::Sub"]).startswith(f"Stage: {said}: ")


def test_a_handler_with_many_sinks_does_not_make_long_lines(declare: Declare) -> None:
    many = ", ".join(f'sinks.DynamoDB("a-rather-long-name-of-a-table-{number}")' for number in range(12))
    handler(declare, f'sources.SQS("orders"), sinks=[{many}]')


@pytest.mark.parametrize("name", ["prüfe", "処理", "_", "x" * 60, "a__b", "A1"])
def test_handlers_may_have_any_name_that_python_takes(declare: Declare, name: str) -> None:
    found = handler(declare, 'sources.SQS("orders")', name=name)

    assert found.functions == [name]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ('sources.SQS("or ders")', "or ders"), ('sources.SQS("a/b")', "a/b"), ('sources.SQS("a${b}")', "${b}"),
        ('sources.SQS("a.b")', "a.b"), ('sources.SQS("' + "a" * 81 + '")', "aaa"), ('sources.SQS("ü")', "ü"), ('sources.Kinesis("a:b")', "a:b"),
        ('sources.SQS("a"), sinks=[sinks.EventBridge("a b", detail_type="t")]', "a b"), ('sources.SQS("a"), sinks=[sinks.SQS("b.c")]', "b.c"),
    ],
)  # fmt: skip
def test_names_that_aws_does_not_take_are_refused(declare: Declare, source: str, name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"name in a template|queue.*name") as caught:
        handler(declare, source)

    assert name in str(caught.value)


@pytest.mark.parametrize(
    "handlers",
    [
        [("a-b", "sources.SQS('x')"), ("a_b", "sources.SQS('y')")],
        [("one", "sources.SQS('a-b')"), ("two", "sources.SQS('a_b')")],
        [("one", "sources.SQS('my')"), ("two", "sources.SQS('my-queue')")],
        [("one", "sources.SQS('a'), sinks=[sinks.S3('x')]"), ("two", "sources.SQS('b'), sinks=[sinks.S3('x-bucket')]")],
    ],
)
def test_names_too_alike_are_refused(declare: Declare, handlers: list[tuple[str, str]]) -> None:
    source = "".join(
        f"p{number} = Pipeline({pipeline!r})\n@p{number}.handler({options})\nasync def run(order: dict) -> dict: ...\nrun{number} = run\n"
        for number, (pipeline, options) in enumerate(handlers)
    )
    if handlers[0][0] == "one":
        source = (
            source.replace("def run(", "def run0(", 1)
            .replace("run0 = run\n", "")
            .replace("def run(", "def run1(")
            .replace("run1 = run\n", "")
        )
        pipelines = declare(source)
    else:
        first, second = source.split("p1 =")
        pipelines = [*declare(first, "first"), *declare("p1 =" + second, "second")]

    with pytest.raises(ConfigurationError, match="two resources of the template would both be named '"):
        generate(*pipelines)


# What Lambda could not find


@pytest.mark.parametrize(
    "source",
    [
        "def make():\n    @shop.handler(sources.SQS('orders'))\n    async def price(order: dict) -> dict: ...\n    return price\nkept = make()",
        "@shop.handler(sources.SQS('orders'))\nasync def price(order: dict) -> dict: ...\nrenamed = price\ndel price",
        "@shop.handler(sources.SQS('orders'))\nasync def price(order: dict) -> dict: ...\nprice = price.function",
        "class Shop:\n    @staticmethod\n    @shop.handler(sources.SQS('orders'))\n    async def price(order: dict) -> dict: ...",
    ],
    ids=["closure", "renamed", "plain function", "class"],
)
def test_a_handler_that_lambda_would_not_find_is_refused(declare: Declare, source: str) -> None:
    with pytest.raises(ConfigurationError, match=r"shop\.price: Lambda looks for 'shopfront\.price'"):
        generate(*declare(f"shop = Pipeline('shop')\n{source}"))


def test_pipelines_without_handlers_are_refused(declare: Declare) -> None:
    with pytest.raises(ConfigurationError, match="one, two: there is no handler"):
        generate(*declare("one, two = Pipeline('one'), Pipeline('two')"))


@pytest.mark.parametrize("value", ["x" * 4_000, "ü" * 2_000])
def test_more_variables_than_lambda_takes_are_refused(declare: Declare, value: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"shop\.price: its variables take about 4,\d\d\d bytes, and Lambda takes 4,096"
    ):
        handler(declare, f'sources.SQS("orders"), deploy=Function(environment={{"TEXT": {value!r}}})')


def test_more_sinks_than_variables_take_are_refused(declare: Declare) -> None:
    many = ", ".join(f'sinks.DynamoDB("table-{number}")' for number in range(30))
    with pytest.raises(ConfigurationError, match="fewer sinks"):
        handler(declare, f'sources.SQS("orders"), sinks=[{many}]')


# What is declared of the function


def test_the_function_has_what_was_declared(declare: Declare) -> None:
    function = handler(declare, 'sources.SQS("orders"), deploy=Function(timeout=77, memory=1769)').function("price")

    assert (function["Timeout"], function["MemorySize"], function["Handler"]) == (77, 1769, "shopfront.price")


@pytest.mark.parametrize(("level", "said"), [("DEBUG", "DEBUG"), ("INFO", "INFO"), ("ERROR", "INFO")])
def test_lambda_drops_no_line_of_metrics_whatever_the_codes_own_level(declare: Declare, level: str, said: str) -> None:
    source = f"shop = Pipeline('shop', log_level='{level}')\n@shop.handler(sources.SQS('a'))\nasync def price(order: dict) -> dict: ...\n"

    assert generate(*declare(source)).function("price")["LoggingConfig"]["ApplicationLogLevel"] == said


def test_lambda_drops_no_line_of_a_sample(declare: Declare) -> None:
    options = 'sources.SQS("orders"), deploy=Function(environment={"POWERTOOLS_LOGGER_SAMPLE_RATE": "0.01"})'

    assert handler(declare, options).function("price")["LoggingConfig"]["ApplicationLogLevel"] == "DEBUG"


@pytest.mark.parametrize("source", ['sources.SQS("orders")', 'sources.Kinesis("orders")'])
def test_a_canary_has_an_alias_a_role_and_the_alarms_that_turn_it_back(declare: Declare, source: str) -> None:
    found = handler(declare, f'{source}, deploy=Function(canary="Canary10Percent5Minutes")')
    kinds = {body["Type"]: body for body in found.plain["Resources"].values()}
    mapping = kinds["AWS::Lambda::EventSourceMapping"]["Properties"]
    alarms = kinds["AWS::CodeDeploy::DeploymentGroup"]["Properties"]["AlarmConfiguration"]["Alarms"]

    assert mapping["FunctionName"] == {"Ref": "ShopPriceFunctionAliaslive"}
    assert [one["Name"]["Ref"].removeprefix("ShopPriceFunction") for one in alarms] == ["Errors", "Canary"]
    assert kinds["AWS::CodeDeploy::DeploymentGroup"]["Properties"]["ServiceRoleArn"]
    roles = [body for body in found.plain["Resources"].values() if body["Type"] == "AWS::IAM::Role"]
    assert len(roles) == 2, "SAM makes none"
    (shift,) = [
        statement
        for role in roles
        for statement in role["Properties"]["Policies"][0]["PolicyDocument"]["Statement"]
        if statement["Sid"] == "ShiftTraffic"
    ]
    assert {"Fn::GetAtt": ["ShopPriceFunction", "Arn"]} in shift["Resource"], (
        "an alias is changed by its function's ARN"
    )


@pytest.mark.parametrize("changed", ["timeout=31", "memory=513"])
def test_whatever_changes_of_a_function_with_a_canary_is_published(declare: Declare, changed: str) -> None:
    versions = [
        [
            name
            for name, body in handler(
                declare, f'sources.SQS("orders"), deploy=Function(canary="Canary10Percent5Minutes", {options})'
            )
            .plain["Resources"]
            .items()
            if body["Type"] == "AWS::Lambda::Version"
        ]
        for options in ("", changed)
    ]

    assert versions[0] != versions[1]


def test_functions_share_a_layer_when_asked(declare: Declare) -> None:
    source = "shop = Pipeline('shop')\n" + "".join(
        f"@shop.handler(sources.SQS('{name}'))\nasync def {name}(order: dict) -> dict: ...\n" for name in ("one", "two")
    )
    found = generate(*declare(source), layer=True)
    (layer,) = [name for name, body in found.plain["Resources"].items() if body["Type"] == "AWS::Lambda::LayerVersion"]
    functions = [body for body in found.plain["Resources"].values() if body["Type"] == "AWS::Lambda::Function"]

    assert [one["Properties"]["Layers"] for one in functions] == [[{"Ref": layer}]] * 2
    assert found.value["Resources"]["DependenciesLayer"]["Metadata"]["BuildMethod"] == "makefile"


def test_more_than_cloudformation_takes_is_refused(declare: Declare) -> None:
    source = "shop = Pipeline('shop')\n" + "".join(
        f"@shop.handler(sources.SQS('q{number}'))\nasync def h{number}(order: dict) -> dict: ...\n"
        for number in range(40)
    )

    with pytest.raises(ConfigurationError, match="CloudFormation takes 500: give each pipeline a template of its own"):
        template(declare(source))
