"""Templates that are wrong, or ask for what is not here: a sentence with its line, and the rest runs."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest

from pipeline.deploy.local import Project, read
from pipeline.deploy.local.run import TemplateRun
from pipeline.emulator.mappings.settings import QueueSettings
from pipeline.errors import ConfigurationError
from tests.deploy.local.conftest import Reading, said

FUNCTION = """
  F:
    Type: AWS::Serverless::Function
    Properties:
      Runtime: python3.12
      CodeUri: src
      Handler: app.lambda_handler
      Timeout: 10
"""
QUEUE = """
  Q: {Type: AWS::SQS::Queue, Properties: {VisibilityTimeout: 60}}
"""


def with_event(properties: str, kind: str = "SQS", more: str = QUEUE) -> str:
    event = f"\n      Events:\n        E:\n          Type: {kind}\n          Properties:\n"
    return (
        f"Resources:{FUNCTION.rstrip()}{event}{textwrap.indent(textwrap.dedent(properties).strip(), ' ' * 12)}\n{more}"
    )


def messages(project: Project) -> list[str]:
    return [one.message for one in project.problems]


# -- The file


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "1: error: the file is empty: a template has `Resources`"),
        ("just text", "1: error: there is a single value at the top: a template is a mapping with `Resources`"),
        ("Resources:\n  - a", "1: error: `Resources` is no mapping"),
        ("a: 1\nb: [", "2: error: the text is no YAML"),
        ('{"Resources": {"A": ]}}', "1: error: the text is no JSON: a value is missing"),
        ("A: 1\nA: 2", "2: error: the key 'A' stands twice"),
    ],
)
def test_what_is_no_template(reading: Reading, text: str, told: str) -> None:
    found = reading(text)
    (one,) = said(found)

    assert one.startswith(told)
    assert not found.is_runnable


@pytest.mark.parametrize(("name", "told"), [("nothing.yaml", "No such file"), (".", "Is a directory")])
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, told: str) -> None:
    (one,) = read(tmp_path / name).problems

    assert (one.line, one.is_error) == (1, True)
    assert told in one.message
    assert str(one).startswith(f"{tmp_path / name}:1: error: ")


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "template.yaml"
    path.write_bytes(b"Resources:\n  A: \xff\n")

    assert [one.line for one in read(path).problems] == [2]


def test_a_file_that_never_ends() -> None:
    assert [one.line for one in read(Path("/dev/zero")).problems] == [1]


# -- Nothing to run


def test_a_template_without_mappings(reading: Reading) -> None:
    found = reading(f"Resources:{FUNCTION}{QUEUE}")

    assert said(found) == ["1: error: nothing to run: template.yaml has no event source mapping"]
    assert list(found.functions) == ["F"]
    assert not found.is_runnable


def test_a_template_whose_mappings_cannot_run(reading: Reading) -> None:
    found = reading(with_event("Queue: !GetAtt Q.Arn").replace("python3.12", "nodejs22.x"))

    assert said(found) == [
        "1: error: nothing to run: no event source mapping of template.yaml can run here",
        "5: note: F runs on nodejs22.x: only functions of Python 3 are run",
        "10: note: F.E is not run, because its function F is not",
    ]


def test_a_disabled_mapping_is_there_and_nothing_runs(reading: Reading) -> None:
    found = reading(with_event("Queue: !GetAtt Q.Arn\nEnabled: false"))

    assert messages(found) == ["F.E is disabled: it reads nothing"]
    assert not found.is_runnable


# -- Functions


@pytest.mark.parametrize(
    ("wrong", "right", "told"),
    [
        ("CodeUri: src", "PackageType: Image", "F is an image"),
        ("CodeUri: src", "ImageUri: x.dkr.ecr.us-east-1.amazonaws.com/f:1", "F is an image"),
        ("CodeUri: src", "InlineCode: 'def handler(): ...'", "F has its code in the template"),
        ("CodeUri: src", "CodeUri: s3://bucket/code.zip", "F has its code in S3, not here"),
        ("CodeUri: src", "CodeUri: {Bucket: b, Key: k}", "F has its code in S3, not here"),
        ("CodeUri: src", "CodeUri: build", "F: CodeUri 'build' is not there"),
        ("CodeUri: src", "CodeUri: template.yaml", "F: CodeUri 'template.yaml' is an archive, or another file"),
        (
            "CodeUri: src",
            "Description: none",
            "F: there is no app.py in '.', where Handler 'app.lambda_handler' wants it",
        ),
        ("app.lambda_handler", "other.lambda_handler", "F: there is no other.py in 'src'"),
        ("app.lambda_handler", "lambda_handler", "F has Handler 'lambda_handler': write the module and the function"),
        ("app.lambda_handler", "../app.lambda_handler", "F has Handler '../app.lambda_handler'"),
        ("Handler: app.lambda_handler", "Description: none", "F has no Handler"),
        ("Runtime: python3.12", "Runtime: java21", "F runs on java21"),
        ("Runtime: python3.12", "Description: none", "F names no Runtime"),
    ],
)
def test_a_function_that_cannot_run_is_left_out(reading: Reading, wrong: str, right: str, told: str) -> None:
    found = reading(with_event("Queue: !GetAtt Q.Arn").replace(wrong, right))

    assert list(found.functions) == []
    assert any(one.startswith(told) for one in messages(found)), messages(found)
    assert "F.E is not run, because its function F is not" in messages(found)


def test_settings_out_of_range_are_told_and_replaced_by_the_default(reading: Reading) -> None:
    text = with_event("Queue: !GetAtt Q.Arn").replace("Timeout: 10", "Timeout: 1000\n      MemorySize: big")
    found = reading(text)

    assert (found.functions["F"].settings.timeout, found.functions["F"].settings.memory) == (3, 128)
    assert messages(found) == [
        "Timeout 1000 is out of range: AWS takes 1 to 900; it is left out here",
        "MemorySize is no whole number: AWS takes 128 to 10,240; it is left out here",
    ]


def test_layers_are_noted(reading: Reading) -> None:
    text = with_event("Queue: !GetAtt Q.Arn").replace("Timeout: 10", "Layers: [!Ref Shared]")

    assert messages(reading(text)) == ["F: layers are not used; install what they hold beside this toolkit"]
    assert reading(text).is_runnable


def test_a_variable_that_is_no_text_is_left_out(reading: Reading) -> None:
    text = with_event("Queue: !GetAtt Q.Arn").replace("Timeout: 10", "Environment: {Variables: {A: [1], B: b}}")
    found = reading(text)

    assert found.functions["F"].environment == {"B": "b"}
    assert messages(found) == ["F: the variable A must be text: it is left out"]


def test_events_that_are_no_mappings_are_noted(reading: Reading) -> None:
    found = reading(with_event("Path: /", "Api"))

    assert "F.E is an event of Api, and no event source mapping: not run" in messages(found)


# -- Mappings


def mapping_of(name: str, source: str, more: str = "") -> str:
    return f"  M: {{Type: AWS::Lambda::EventSourceMapping, Properties: {{FunctionName: {name}, EventSourceArn: {source}{more}}}}}\n"


@pytest.mark.parametrize(
    "name", ["!Ref F", "!GetAtt F.Arn", "F", "!Sub 'arn:aws:lambda:us-east-1:1:function:F:live'", "!Sub '${F}'"]
)
def test_a_mapping_finds_its_function(reading: Reading, name: str) -> None:
    text = f"Resources:{FUNCTION}{QUEUE}{mapping_of(name, '!GetAtt Q.Arn')}".replace("Timeout: 10", "FunctionName: F")

    assert [one.function for one in reading(text).mappings] == ["F"]


@pytest.mark.parametrize("name", ["other", "!Ref Other", "arn:aws:lambda:us-east-1:1:function:other", "!ImportValue x"])
def test_an_unknown_function(reading: Reading, name: str) -> None:
    found = reading(f"Resources:{FUNCTION}{QUEUE}{mapping_of(name, '!GetAtt Q.Arn')}")

    assert found.mappings == ()
    assert any(one.startswith("M names a function that is not in this template: ") for one in messages(found))


@pytest.mark.parametrize(
    ("properties", "told"),
    [
        ("Queue: !Ref Q", "F.E names its queue by a URL: AWS wants its ARN, as !GetAtt Orders.Arn"),
        ("BatchSize: 1", "F.E reads nothing: it is not run"),
        ("Queue: orders", "F.E reads 'orders', which is no ARN of a queue or stream: it is not run"),
        ("Queue: !GetAtt F.Arn", "F.E reads 'arn:aws:lambda:us-east-1:123456789012:function:F'"),
        ("Queue: !GetAtt Q.Arn\nBatchSize: 20", "F.E: BatchSize 20 needs MaximumBatchingWindowInSeconds of at least 1"),
        ("Queue: !GetAtt Q.Arn\nBatchSize: 0", "F.E: BatchSize 0 is out of range: 1 to 10000"),
        ("Queue: !GetAtt Q.Arn\nBatchSize: many", "F.E: BatchSize 'many' is no whole number: give 1 to 10000"),
        (
            "Queue: !GetAtt Q.Arn\nScalingConfig: {MaximumConcurrency: 1}",
            "F.E: MaximumConcurrency 1 is out of range: 2 to 1000",
        ),
        (
            "Queue: !GetAtt Q.Arn\nProvisionedPollerConfig: {MinimumPollers: 1}",
            "F.E: MinimumPollers 1 is out of range: 2 to 200",
        ),
        (
            "Queue: !GetAtt Q.Arn\nScalingConfig: {MaximumConcurrency: 5}\nProvisionedPollerConfig: {MinimumPollers: 2}",
            "F.E: MaximumConcurrency and ProvisionedPollerConfig exclude each other",
        ),
        ("Queue: !GetAtt Q.Arn\nFilterCriteria: {Filters: [{Pattern: 'x'}]}", "F.E: FilterCriteria: a Pattern must be"),
        (
            "Queue: !GetAtt Q.Arn\nFilterCriteria: {Filters: [{Pattern: '{}'}]}",
            "F.E: FilterCriteria: the pattern names",
        ),
        (
            'Queue: !GetAtt Q.Arn\nFilterCriteria: {Filters: [{Pattern: \'{"body": {"x": [{"wildcard": "*"}]}}\'}]}',
            "F.E: FilterCriteria: 'body.x': 'wildcard' is no operator",
        ),
    ],
)
def test_a_mapping_that_lambda_refuses_is_left_out(reading: Reading, properties: str, told: str) -> None:
    found = reading(with_event(properties))

    assert found.mappings == ()
    assert any(one.startswith(told) for one in messages(found)), messages(found)


def test_a_refused_filter_is_told_with_its_own_line(reading: Reading) -> None:
    found = reading(
        with_event("""
            Queue: !GetAtt Q.Arn
            FilterCriteria:
              Filters:
                - Pattern: '{"body": {"x": ["y"]}}'
                - Pattern: '{"body": {"x": [{"wildcard": "*"}]}}'
        """)
    )
    lines = [
        number for number, line in enumerate(Path(found.path).read_text().splitlines(), start=1) if "wildcard" in line
    ]

    assert [one.line for one in found.problems if "no operator" in one.message] == lines
    assert all(one.is_confined for one in found.problems if "no operator" in one.message)


@pytest.mark.parametrize("name", ["my-app", "sub/01-app", "sub.my_app"])
def test_a_handlers_module_may_be_called_what_no_import_statement_takes(
    tmp_path: Path, reading: Reading, name: str
) -> None:
    (tmp_path / "src" / "sub").mkdir()
    (tmp_path / "src" / f"{name.replace('.', '/')}.py").write_text("def handler(event, context): ...\n")
    found = reading(with_event("Queue: !GetAtt Q.Arn").replace("app.lambda_handler", f"{name}.handler"))

    assert messages(found) == []
    assert found.functions["F"].handler == f"{name}.handler"


def test_a_visibility_timeout_below_the_functions_timeout_is_refused(reading: Reading) -> None:
    found = reading(with_event("Queue: !GetAtt Q.Arn").replace("VisibilityTimeout: 60", "VisibilityTimeout: 5"))

    assert any(
        "visibility timeout (5 s) is shorter than the function's timeout (10 s)" in one for one in messages(found)
    )


def test_a_stream_without_a_starting_position_is_left_out(reading: Reading) -> None:
    found = reading(with_event("Stream: !GetAtt S.Arn", "Kinesis", "  S: {Type: AWS::Kinesis::Stream}\n"))

    assert found.mappings == ()
    assert (
        "F.E: it has no StartingPosition: write TRIM_HORIZON, LATEST or AT_TIMESTAMP; the mapping is left out"
        in messages(found)
    )


CIDR = """FilterCriteria: {Filters: [{Pattern: '{"body": {"ip": [{"cidr": "10.0.0.0/8"}]}}'}]}"""


@pytest.mark.parametrize(
    ("refused", "told"),
    [
        ("Type: Kinesis, Properties: {Stream: !GetAtt S.Arn}", "it has no StartingPosition"),
        (f"Type: SQS, Properties: {{Queue: !GetAtt Other.Arn, {CIDR}}}", "'cidr' is no operator of Lambda's"),
    ],
)
def test_a_mapping_that_lambda_refuses_does_not_keep_the_others_from_running(
    tmp_path: Path, reading: Reading, refused: str, told: str
) -> None:
    more = (
        QUEUE
        + "  Other: {Type: AWS::SQS::Queue, Properties: {VisibilityTimeout: 60}}\n  S: {Type: AWS::Kinesis::Stream}\n"
    )
    both = with_event("Queue: !GetAtt Q.Arn", more=more).replace(
        "      Events:\n", f"      Events:\n        Refused: {{{refused}}}\n"
    )
    reading(both)
    run = TemplateRun(tmp_path / "template.yaml")
    (problem,) = run.problems

    assert [one.id for one in run.project.mappings] == ["FE"]
    assert problem.is_error
    assert f"F.Refused: {'' if 'no Start' in told else 'FilterCriteria: '}" in problem.message
    assert told in problem.message

    # Alone there is nothing to run; and what is wrong with more than a mapping stops everything.
    reading(
        both.replace("        E:\n          Type: SQS\n          Properties:\n            Queue: !GetAtt Q.Arn\n", "")
    )
    with pytest.raises(ConfigurationError, match="nothing to run"):
        TemplateRun(tmp_path / "template.yaml")
    reading(both.replace("Timeout: 10", "Timeout: 1000"))
    with pytest.raises(ConfigurationError, match="Timeout 1000 is out of range"):
        TemplateRun(tmp_path / "template.yaml")


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ("Events: {E: {Type: SQS, Properties: {Queue: '{{resolve:ssm:/x}}'}}}", "Bad.E reads '{{resolve:ssm:/x}}', which is no ARN"),
        ("Events: {E: {Type: SQS, Properties: {Queue: !Ref Q}}}", "Bad.E names its queue by a URL"),
        ("Events: {E: {Type: SQS, Properties: {BatchSize: 1}}}", "Bad.E reads nothing"),
        ("CodeUri: build", "Bad: CodeUri 'build' is not there"),
        ("Handler: other.handler", "Bad: there is no other.py in 'src'"),
        ("Handler: none", "Bad has Handler 'none'"),
    ],
)  # fmt: skip
def test_a_function_or_a_source_that_cannot_be_used_does_not_keep_the_others_from_running(
    tmp_path: Path, reading: Reading, bad: str, told: str
) -> None:
    properties = {"Runtime": "python3.12", "CodeUri": "src", "Handler": "app.lambda_handler"}
    properties |= dict([bad.split(": ", 1)])
    written = "".join(f"      {name}: {value}\n" for name, value in properties.items())
    more = f"{QUEUE}  Bad:\n    Type: AWS::Serverless::Function\n    Properties:\n{written}"
    reading(with_event("Queue: !GetAtt Q.Arn", more=more))
    run = TemplateRun(tmp_path / "template.yaml")

    assert [one.id for one in run.project.mappings] == ["FE"]
    assert [one for one in run.problems if one.is_error and one.message.startswith(told)], run.problems


def test_a_mapping_of_another_stacks_function_does_not_keep_the_others_from_running(
    tmp_path: Path, reading: Reading
) -> None:
    more = QUEUE + mapping_of("arn:aws:lambda:us-east-1:1:function:other", "!GetAtt Q.Arn")
    reading(with_event("Queue: !GetAtt Q.Arn", more=more))
    run = TemplateRun(tmp_path / "template.yaml")

    assert [one.id for one in run.project.mappings] == ["FE"]
    assert [one.message.partition(":")[0] for one in run.problems] == [
        "M names a function that is not in this template"
    ]


@pytest.mark.parametrize(
    ("kind", "properties", "told"),
    [
        ("Kinesis", "Stream: !GetAtt Q.Arn", "F.E is an event of Kinesis, and Q is a queue: write Type: SQS"),
        ("DynamoDB", "Stream: !GetAtt S.Arn", "F.E is an event of DynamoDB, and S is a stream: write Type: Kinesis"),
        ("SQS", "Queue: !GetAtt S.Arn", "F.E is an event of SQS, and S is a stream: write Type: Kinesis"),
    ],
)
def test_an_event_of_another_kind_than_its_source_is_refused(
    tmp_path: Path, reading: Reading, kind: str, properties: str, told: str
) -> None:
    more = QUEUE + "  S: {Type: AWS::Kinesis::Stream}\n" + mapping_of("!Ref F", "!GetAtt Q.Arn")
    found = reading(with_event(f"{properties}\nStartingPosition: LATEST", kind, more))

    assert told in messages(found)
    assert [one.id for one in found.mappings] == ["M"]
    TemplateRun(tmp_path / "template.yaml")


def test_a_table_without_a_stream(reading: Reading) -> None:
    table = """
  T:
    Type: AWS::DynamoDB::Table
    Properties:
      KeySchema: [{AttributeName: id, KeyType: HASH}]
      AttributeDefinitions: [{AttributeName: id, AttributeType: S}]
"""
    found = reading(with_event("Stream: !GetAtt T.StreamArn\nStartingPosition: LATEST", "DynamoDB", table))

    assert "F.E: the table T has no stream: add a StreamSpecification" in messages(found)


@pytest.mark.parametrize(
    ("kind", "told"),
    [("MSK", "a cluster of Amazon MSK"), ("SelfManagedKafka", "a Kafka cluster"), ("MQ", "a broker of Amazon MQ")],
)
def test_what_is_not_run(reading: Reading, kind: str, told: str) -> None:
    found = reading(with_event("Stream: !Ref Cluster\nTopics: [t]\nStartingPosition: LATEST", kind))

    assert f"F.E reads {told}: it is not run" in messages(found)
    assert not any("stands in" in one for one in messages(found))


def test_a_filter_on_other_members_is_noted(reading: Reading) -> None:
    found = reading(
        with_event("""
            Queue: !GetAtt Q.Arn
            FilterCriteria: {Filters: [{Pattern: '{"messageAttributes": {"a": {"stringValue": ["b"]}}}'}]}
        """)
    )
    settings = found.mappings[0].settings

    assert messages(found) == [
        "F.E: a filter on 'messageAttributes' is not in Lambda's guide; here it sees the record's"
    ]
    assert settings.filter is not None
    assert settings.filter.accepts("text", {"messageAttributes": {"a": {"stringValue": "b"}}})


# -- What is not in the template


def test_a_queue_of_another_stack_is_stood_in_for(reading: Reading) -> None:
    found = reading(with_event("Queue: arn:aws:sqs:eu-west-1:111122223333:orders", more=""))
    (mapping,) = found.mappings
    (queue,) = found.queues.values()

    assert messages(found) == [
        "arn:aws:sqs:eu-west-1:111122223333:orders is not in this template: a local one of that name stands in for it"
    ]
    assert queue.id == queue.names.arn
    assert (queue.names.name, queue.names.arn) == ("orders", "arn:aws:sqs:us-east-1:123456789012:orders")
    assert found.source_of(mapping) is queue
    # As Lambda's guide recommends: six times the function's timeout.
    assert mapping.settings == QueueSettings(function_timeout=10, visibility_timeout=60)


@pytest.mark.parametrize("timeouts", [(3, 60), (60, 3), (60,)])
def test_a_stand_in_hides_messages_for_the_slowest_of_its_readers(reading: Reading, timeouts: tuple[int, ...]) -> None:
    arn = "arn:aws:sqs:us-east-1:1:theirs"
    function = "{{Type: AWS::Serverless::Function, Properties: {{Runtime: python3.12, CodeUri: src, \
Handler: app.lambda_handler, Timeout: {}, Events: {{E: {{Type: SQS, Properties: {{Queue: '{}'}}}}}}}}}}"
    told = "{Type: AWS::SNS::Subscription, Properties: {Protocol: sqs, TopicArn: 'arn:aws:sns:us-east-1:1:news', Endpoint: '%s'}}"
    functions = "".join(f"  F{number}: {function.format(n, arn)}\n" for number, n in enumerate(timeouts))
    found = reading(f"Resources:\n  Told: {told % arn}\n{functions}")

    (queue,) = found.queues.values()
    assert queue.visibility == 360
    assert [one.settings.visibility_timeout for one in found.mappings] == [360] * len(timeouts)  # type: ignore[union-attr]
    assert len([one for one in messages(found) if one.startswith(arn)]) == 1


def test_a_parameter_without_a_value_is_stood_in_for_wherever_it_is_used(reading: Reading) -> None:
    text = "Parameters: {OrdersArn: {Type: String}}\n" + with_event("Queue: !Ref OrdersArn", more="").replace(
        "Timeout: 10", "Environment: {Variables: {ARN: !Ref OrdersArn}}"
    )
    found = reading(text)

    assert messages(found) == [
        "F.E reads what the parameter OrdersArn names, which has no value: a local one called OrdersArn here",
    ]
    assert found.functions["F"].environment == {"ARN": "arn:aws:sqs:us-east-1:123456789012:OrdersArn"}
    assert found.is_runnable
    given = reading(text, OrdersArn="arn:aws:sqs:us-east-1:1:mine.fifo")
    assert [one.names.name for one in given.queues.values()] == ["mine.fifo"]
    assert given.mappings[0].settings.is_fifo  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "local"),
    [("orders-arn", "orders-arn"), ("!Sub '${AWS::StackName}:orders'", "local-orders"), ("a.fifo", "a-fifo.fifo")],
)
def test_an_imported_queue_is_stood_in_for_wherever_it_is_used(reading: Reading, name: str, local: str) -> None:
    imported = f"{{'Fn::ImportValue': {name}}}"
    found = reading(
        with_event(f"Queue: {imported}", more="").replace(
            "Timeout: 10", f"Environment: {{Variables: {{ARN: {imported}}}}}"
        )
    )

    (note,) = messages(found)
    assert note.startswith("F.E reads what is imported from another stack as '")
    assert note.endswith(f"': a local one called {local} here")
    assert found.functions["F"].environment == {"ARN": f"arn:aws:sqs:us-east-1:123456789012:{local}"}
    assert found.is_runnable


def test_imported_destinations_and_dead_letters_are_stood_in_for(reading: Reading) -> None:
    text = with_event(
        "Stream: !GetAtt S.Arn\nStartingPosition: LATEST\n"
        "DestinationConfig: {OnFailure: {Destination: !ImportValue failed}}",
        "Kinesis",
        "  S: {Type: AWS::Kinesis::Stream}\n"
        "  Q: {Type: AWS::SQS::Queue, Properties: {RedrivePolicy: {maxReceiveCount: 3, deadLetterTargetArn: !ImportValue dead}}}\n",
    )
    found = reading(text)

    assert found.mappings[0].settings.on_failure == "arn:aws:sqs:us-east-1:123456789012:failed"  # type: ignore[union-attr]
    assert found.queues["Q"].redrive is not None
    assert found.queues["Q"].redrive.target == "arn:aws:sqs:us-east-1:123456789012:dead"
    assert not [one for one in messages(found) if "no ARN" in one]


@pytest.mark.parametrize(
    ("more", "kind"),
    [("", "queues"), (", StartingPosition: LATEST", "streams")],
)
def test_a_mappings_source_that_only_a_parameter_names_is_guessed(reading: Reading, more: str, kind: str) -> None:
    found = reading(
        f"Parameters: {{Source: {{Type: String}}}}\nResources:{FUNCTION}{mapping_of('!Ref F', '!Ref Source', more)}"
    )

    assert [one.names.name for one in getattr(found, kind).values()] == ["Source"]
    assert found.is_runnable


def test_a_tables_stream_of_another_stack(reading: Reading) -> None:
    arn = "arn:aws:dynamodb:us-east-1:1:table/Accounts/stream/2026-01-01T00:00:00.000"
    found = reading(with_event(f"Stream: {arn}\nStartingPosition: LATEST", "DynamoDB", ""))

    assert [one.names.name for one in found.tables.values()] == ["Accounts"]
    assert "the keys of the table Accounts are not known here: it has one, 'id', of type S" in messages(found)
    assert found.is_runnable


def test_destinations_dead_letters_and_topics_of_another_stack(reading: Reading) -> None:
    text = """
        Resources:
          Q:
            Type: AWS::SQS::Queue
            Properties:
              RedrivePolicy: {deadLetterTargetArn: 'arn:aws:sqs:us-east-1:1:dead', maxReceiveCount: 3}
          Sub:
            Type: AWS::SNS::Subscription
            Properties: {Protocol: sqs, TopicArn: 'arn:aws:sns:us-east-1:1:news', Endpoint: !GetAtt Q.Arn}
          R:
            Type: AWS::Events::Rule
            Properties:
              EventBusName: arn:aws:events:us-east-1:1:event-bus/shop
              EventPattern: '{"source": ["a"]}'
              Targets: [{Id: a, Arn: 'arn:aws:sqs:us-east-1:1:events'}]
    """
    found = reading(text)

    assert {one.names.name: one.id == one.names.arn for one in found.queues.values()} == {
        "Q": False,
        "dead": True,
        "events": True,
    }
    assert found.queues["Q"].redrive is not None
    assert found.queues["Q"].redrive.target == "arn:aws:sqs:us-east-1:123456789012:dead"
    assert [one.names.name for one in found.topics.values()] == ["news"]
    assert [one.names.name for one in found.buses.values()] == ["shop"]
    assert found.rules["R"].bus == "shop"
    assert found.rules["R"].targets[0].queue == "arn:aws:sqs:us-east-1:123456789012:events"


# -- Resources


@pytest.mark.parametrize(
    ("resource", "told"),
    [
        ("{Type: AWS::SQS::Queue, Properties: {VisibilityTimeout: 50000}}", "VisibilityTimeout 50000 is out of range"),
        ("{Type: AWS::SQS::Queue, Properties: {QueueName: a, FifoQueue: true}}", "its QueueName must end with .fifo"),
        ("{Type: AWS::SQS::Queue, Properties: {QueueName: a.fifo}}", "`FifoQueue: true` is missing"),
        ("{Type: AWS::SQS::Queue, Properties: {FifoQueue: maybe}}", "FifoQueue must be true or false"),
        ("{Type: AWS::SQS::Queue, Properties: {RedrivePolicy: nothing}}", "RedrivePolicy needs deadLetterTargetArn"),
        (
            "{Type: AWS::SQS::Queue, Properties: {RedrivePolicy: {deadLetterTargetArn: 'arn:aws:sqs:us-east-1:1:d.fifo', maxReceiveCount: 3}}}",
            "X: the dead-letter queue of a FIFO queue is FIFO, of others not",
        ),
        ("{Type: AWS::SQS::Queue, Properties: {RedriveAllowPolicy: '{'}}", "RedriveAllowPolicy is text that is not JSON"),
        ("{Type: AWS::Kinesis::Stream, Properties: {ShardCount: many}}", "ShardCount is no whole number"),
        ("{Type: AWS::DynamoDB::Table}", "the table X needs a KeySchema"),
        (
            "{Type: AWS::DynamoDB::Table, Properties: {KeySchema: [{AttributeName: id, KeyType: HASH}]}}",
            "AttributeDefinitions lacks the key 'id'",
        ),
        ("{Type: AWS::SNS::Topic, Properties: {Subscription: [{Protocol: lambda, Endpoint: x}]}}", "X: a subscription of lambda"),
        ("{Type: AWS::SNS::Subscription, Properties: {Protocol: sqs}}", "X names no topic"),
        ("{Type: AWS::Events::Rule, Properties: {EventPattern: '{'}}", "EventPattern is text that is not JSON"),
        ("{Type: AWS::Pipes::Pipe}", "X: pipes are not run"),
        ("{Type: AWS::CloudFormation::Stack}", "X: nested stacks are not read"),
        ("{'Fn::Transform': {Name: M}}", "a macro or a loop makes resources of this template"),
    ],
)  # fmt: skip
def test_a_resource_that_is_wrong(reading: Reading, resource: str, told: str) -> None:
    text = (
        f"Resources:\n  X: {resource}\n" if "Fn::" not in resource else f"Resources:\n  'Fn::ForEach::X': {resource}\n"
    )

    assert any(told in one for one in messages(reading(text))), messages(reading(text))


def test_what_is_no_resource_is_told(reading: Reading) -> None:
    found = reading(
        "Resources:\n  A: text\n  B: {Properties: {}}\n  C: {Type: AWS::SQS::Queue, Properties: [1]}\n"
        "  'Fn::ForEach::X': [N, [a], {}]\n"
    )

    assert [one for one in said(found) if "note: a macro" not in one] == [
        "1: error: nothing to run: template.yaml has no event source mapping",
        "2: note: A is no mapping with a Type: it is left out",
        "3: note: B has no Type: it is left out",
        "4: note: the Properties of C are no mapping: it has none here",
    ]


def test_events_that_are_no_mapping_are_told(reading: Reading) -> None:
    found = reading(f"Resources:{FUNCTION}      Events: [E]\n")

    assert "the Events of F are no mapping: it has none here" in messages(found)


def test_two_queues_of_one_name(reading: Reading) -> None:
    found = reading(
        "Resources:\n  A: {Type: AWS::SQS::Queue, Properties: {QueueName: q}}\n"
        "  B: {Type: AWS::SQS::Queue, Properties: {QueueName: q}}\n"
    )

    assert "B and A are both called q: they are one here" in messages(found)


def test_json_is_told_by_its_lines_too(tmp_path: Path) -> None:
    path = tmp_path / "template.json"
    path.write_text(
        json.dumps({"Resources": {"Q": {"Type": "AWS::SQS::Queue", "Properties": {"DelaySeconds": 1000}}}}, indent=1)
    )

    assert [one.line for one in read(path).problems] == [2, 6]
