"""What the model says of a template: references, defaults, conditions."""

from __future__ import annotations

from textwrap import dedent

import pytest

from pipeline.deploy.lint import lint, read, worlds
from pipeline.deploy.lint.model import Model


def models(text: str) -> list[Model]:
    return [Model(world) for world in worlds.of(read(dedent(text).encode()))]


def model(text: str) -> Model:
    (only,) = models(text)
    return only


def visibility(written: str, more: str = "") -> list[tuple[int | None, bool]]:
    """A queue's visibility timeout in each world."""
    text = f"{more}\nResources:\n  Q: {{ Type: AWS::SQS::Queue, Properties: {{ VisibilityTimeout: {written} }} }}\n"
    found = [one.queues["Q"].visibility for one in models(text)]
    return [(one.value, one.given) for one in found]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("60", (60, True)),
        ("'60'", (60, True)),
        ("!Ref Seconds", (90, True)),
        ("!Sub '${Seconds}'", (90, True)),
        ("!Sub ['1${x}', {x: '5'}]", (15, True)),
        ("!Join ['', [1, 2]]", (12, True)),
        ("!FindInMap [M, a, b]", (7, True)),
        ("!Select [0, !Ref Several]", (None, True)),
        ("!Ref Stored", (None, True)),
        ("!FindInMap [M, !Ref Stage, b]", (8, True)),
        ("!Ref AWS::NoValue", (30, False)),
        ("!Ref Unknown", (None, True)),
        ("!Ref NoDefault", (None, True)),
        ("!ImportValue x", (None, True)),
        ("!FindInMap [M, a, nothing]", (None, True)),
        ("!Never [heard]", (None, True)),
        ("!If [Missing, 1, 2]", (None, True)),
        ("sixty", (None, True)),
        ("[60]", (None, True)),
        ("true", (None, True)),
    ],
)
def test_a_number_is_worked_out_or_unknown(written: str, meant: tuple[int | None, bool]) -> None:
    more = """
Parameters:
  Seconds: {Type: Number, Default: 90}
  NoDefault: {Type: Number}
  Stage: {Type: String, Default: c}
  Several: {Type: CommaDelimitedList, Default: "1, 2"}
  Stored: {Type: AWS::SSM::Parameter::Value<String>, Default: "45"}
Mappings: {M: {a: {b: 7}, c: {b: 8}}}
"""
    assert visibility(written, more) == [meant]


STAGES = "Parameters: {Stage: {Type: String, Default: test, AllowedValues: [test, live]}}\n"


@pytest.mark.parametrize(
    ("conditions", "written", "meant"),
    [
        ("C: !Equals [!Ref Stage, live]", "!If [C, 1, 2]", {1, 2}),
        ("C: !Equals [live, !Ref Stage]", "!If [C, 1, !Ref AWS::NoValue]", {1, 30}),
        ("C: !Not [!Equals [!Ref Stage, test]]", "!If [C, 1, 2]", {1, 2}),
        ("C: !Equals [!Ref Stage, other]", "!If [C, 1, 2]", {2}),  # not allowed
        ("C: !Equals [a, a]", "!If [C, 1, 2]", {1}),
        ("C: !Equals [a, b]", "!If [C, 1, 2]", {2}),
        ("{L: !Equals [!Ref Stage, live], C: !Not [Condition: L]}", "!If [C, !If [L, 1, 2], !If [L, 3, 4]]", {2, 3}),
        (
            "{L: !Equals [!Ref Stage, live], T: !Equals [!Ref Stage, test]}",
            "!If [L, !If [T, 1, 2], !If [T, 3, 4]]",
            {2, 3},
        ),
        ("C: !Equals [!Ref Stage, live]", "!If [C, !FindInMap [M, !Ref Stage, s], 1]", {99, 1}),
        ("C: !Equals [!Ref Stage, test]", "!If [C, 1, !FindInMap [M, !Ref Stage, s]]", {99, 1}),
        ("C: !Or [!Equals [!Ref Stage, live], !Equals [!Ref AWS::Region, x]]", "!If [C, 1, 2]", {1, 2}),
        ("C: !And [!Equals [!Ref Stage, live], Condition: C]", "!If [C, 1, 2]", {1, 2}),  # a circle, which AWS refuses
    ],
)
def test_every_branch_that_can_be_is_looked_at(conditions: str, written: str, meant: set[int]) -> None:
    text = conditions if conditions.startswith("{") else "{" + conditions + "}"
    found = visibility(written, f"{STAGES}Mappings: {{M: {{live: {{s: 99}}}}}}\nConditions: {text}")

    if "Condition: C]" in conditions:
        assert {value for value, _ in found} <= meant
    else:
        assert {value for value, _ in found} == meant


def test_what_is_left_of_a_parameter_is_its_own() -> None:
    """Stage is not "test", so it is "live"; what Size is not says nothing of that."""
    more = """
Parameters:
  Stage: {Type: String, Default: test, AllowedValues: [test, live]}
  Size: {Type: String, Default: small, AllowedValues: [small, live]}
Mappings: {M: {live: {s: 99}, test: {s: 5}}}
Conditions: {T: !Equals [!Ref Stage, test], S: !Equals [!Ref Size, live]}
"""
    assert {value for value, _ in visibility("!If [S, 1, !FindInMap [M, !Ref Stage, s]]", more)} == {1, 5, 99}


def test_many_conditions_make_few_worlds() -> None:
    names = [f"C{number}" for number in range(40)]
    conditions = "".join(f"  {name}: !Equals [!Ref P{name}, yes-please]\n" for name in names)
    found = worlds.of(read(f"Conditions:\n{conditions}Resources: {{}}\n".encode()))

    assert len(found) <= 24
    assert {name for name in names for world in found if world.conditions[name]} >= set(names[:20])


def test_conditions_of_conditions_do_not_multiply() -> None:
    chain = "".join(f"  C{n}: !And [Condition: C{n - 1}, Condition: C{n - 1}]\n" for n in range(1, 60))
    root = read(f"Conditions:\n  C0: !Equals [!Ref P, x]\n{chain}Resources: {{}}\n".encode())

    assert [world.conditions["C59"] for world in worlds.of(root)] == [False, True]


def test_a_resource_without_its_condition_is_not_there() -> None:
    found = models(
        STAGES + "Conditions: {Live: !Equals [!Ref Stage, live]}\n"
        "Resources:\n  Q: {Type: AWS::SQS::Queue, Condition: Live}\n  R: {Type: AWS::SQS::Queue}\n"
    )

    assert [sorted(one.queues) for one in found] == [["R"], ["Q", "R"]]


QUEUES = """
Resources:
  Q: {Type: AWS::SQS::Queue, Properties: {QueueName: orders}}
  Named: {Type: AWS::SQS::Queue, Properties: {QueueName: !Sub "${AWS::StackName}-moves.fifo"}}
  F: {Type: AWS::Lambda::Function, Properties: {FunctionName: price}}
  V: {Type: AWS::Lambda::Version, Properties: {FunctionName: !Ref F}}
  A: {Type: AWS::Lambda::Alias, Properties: {FunctionName: !GetAtt F.Arn, FunctionVersion: !GetAtt V.Version}}
  M: {Type: AWS::Lambda::EventSourceMapping, Properties: {FunctionName: %s, EventSourceArn: %s}}
"""


@pytest.mark.parametrize(
    ("source", "queue", "kind", "fifo"),
    [
        ("!GetAtt Q.Arn", "Q", "sqs", False),
        ("{'Fn::GetAtt': [Q, Arn]}", "Q", "sqs", False),
        ("!Sub '${Q.Arn}'", "Q", "sqs", False),
        ("arn:aws:sqs:eu-west-1:111122223333:orders", "Q", "sqs", False),
        ("!Sub 'arn:${AWS::Partition}:sqs:${AWS::Region}:${AWS::AccountId}:orders'", "Q", "sqs", False),
        ("!Join [':', [arn:aws:sqs, !Ref AWS::Region, !Ref AWS::AccountId, orders]]", "Q", "sqs", False),
        ("!Sub 'arn:aws:sqs:${AWS::Region}:${AWS::AccountId}:${AWS::StackName}-moves.fifo'", "Named", "sqs", True),
        ("arn:aws:sqs:eu-west-1:111122223333:foreign.fifo", None, "sqs", True),
        ("arn:aws:sqs:eu-west-1:111122223333:foreign", None, "sqs", False),
        ("!ImportValue arn", None, "", False),
        ("!Ref Somewhere", None, "", False),
        ("arn:aws:kinesis:eu-west-1:111122223333:stream/orders", None, "kinesis", False),
        ("arn:aws:dynamodb:eu-west-1:111122223333:table/orders/stream/2026", None, "dynamodb", False),
    ],
)
def test_a_source_is_found_by_whatever_names_it(source: str, queue: str | None, kind: str, fifo: bool) -> None:
    found = model(QUEUES % ("!Ref F", source))
    (mapping,) = found.mappings
    read_queue = found.queue_of(mapping)

    assert (read_queue.id if read_queue else None, mapping.kind) == (queue, kind)
    assert bool(found.is_fifo(mapping)) == fifo


@pytest.mark.parametrize(
    ("target", "function"),
    [
        ("!Ref F", "F"),
        ("!GetAtt F.Arn", "F"),
        ("!Ref A", "F"),
        ("!Ref V", "F"),
        ("!Sub '${F.Arn}:live'", "F"),
        ("!Sub '${F}:live'", "F"),
        ("price", "F"),
        ("price:live", "F"),
        ("!Sub 'arn:aws:lambda:${AWS::Region}:${AWS::AccountId}:function:price:live'", "F"),
        ("other", None),
        ("!ImportValue name", None),
        ("!Ref Nobody", None),
    ],
)
def test_a_function_is_found_by_whatever_names_it(target: str, function: str | None) -> None:
    found = model(QUEUES % (target, "!GetAtt Q.Arn"))
    (mapping,) = found.mappings

    assert mapping.function == function


def test_sam_and_plain_cloudformation_look_the_same() -> None:
    sam = model("""
        Globals: {Function: {Timeout: 20, Environment: {Variables: {A: a, B: b}}}}
        Resources:
          Q: {Type: AWS::SQS::Queue}
          F:
            Type: AWS::Serverless::Function
            Properties:
              Environment: {Variables: {B: c}}
              Events:
                M: {Type: SQS, Properties: {Queue: !GetAtt Q.Arn, ScalingConfig: {MaximumConcurrency: 3}}}
    """)
    plain = model("""
        Resources:
          Q: {Type: AWS::SQS::Queue}
          F: {Type: AWS::Lambda::Function, Properties: {Timeout: 20, Environment: {Variables: {A: a, B: c}}}}
          FM:
            Type: AWS::Lambda::EventSourceMapping
            Properties: {FunctionName: !Ref F, EventSourceArn: !GetAtt Q.Arn, ScalingConfig: {MaximumConcurrency: 3}}
    """)
    for one in (sam, plain):
        (mapping,) = one.mappings
        function = one.function_of(mapping)
        assert function is not None
        assert (mapping.id, mapping.kind, mapping.max_concurrency.value) == ("FM", "sqs", 3)
        assert (mapping.batch_size.value, mapping.batch_size.given, mapping.window.value) == (10, False, 0)
        assert (function.timeout.value, function.memory.value) == (20, 128)
        assert {name: function.variables.text(name).value for name in function.variables.names()} == {
            "A": "a",
            "B": "c",
        }


def test_a_parameter_may_be_a_list() -> None:
    text = """
        Parameters: {Types: {Type: CommaDelimitedList, Default: "Something, ReportBatchItemFailures"}}
        Resources:
          M:
            Type: AWS::Lambda::EventSourceMapping
            Properties: {FunctionName: f, EventSourceArn: !ImportValue x, FunctionResponseTypes: !Ref Types}
    """
    (mapping,) = model(text).mappings

    assert mapping.partial.value is True


def test_what_cannot_be_read_is_not_taken_for_left_out() -> None:
    found = model("""
        Resources:
          Q: {Type: AWS::SQS::Queue, Properties: {"Fn::Transform": {Name: AWS::Include}}}
          R: {Type: AWS::SQS::Queue, Properties: {RedrivePolicy: !Ref Policy}}
          F: {Type: AWS::Lambda::Function, Properties: !Never heard}
          M: {Type: AWS::Lambda::EventSourceMapping, Properties: {FunctionName: !Ref F, EventSourceArn: !GetAtt Q.Arn,
              "Fn::Transform": {Name: AWS::Include}}}
    """)
    (mapping,) = found.mappings

    assert found.queues["Q"].visibility.value is None
    assert found.queues["Q"].redrive is not None
    assert found.queues["R"].redrive is not None
    assert found.functions["F"].timeout.value is None
    assert (mapping.partial.value, mapping.enabled.value, mapping.filtered.value) == (None, None, None)
    assert not mapping.on_failure.is_left_out


def test_findings_of_one_branch_say_so() -> None:
    root = read(
        b"Parameters: {Stage: {Type: String, Default: test}}\n"
        b"Conditions: {Live: !Equals [!Ref Stage, live]}\n"
        b"Resources:\n"
        b"  Q: {Type: AWS::SQS::Queue, Properties: {SqsManagedSseEnabled: !If [Live, true, false]}}\n"
    )
    (found,) = [one for one in lint(root) if one.rule.id == "queue-not-encrypted"]

    assert found.detail == "When Live is false: `SqsManagedSseEnabled` is false"


SUBSCRIBED = """
Resources:
  Topic: {{Type: AWS::SNS::Topic}}
  Q: {{Type: AWS::SQS::Queue}}
  F:
    Type: AWS::Serverless::Function
    Metadata: {{Pipeline: {{Ignore: [{{Rule: no-dead-letter-queue, Reason: a test}}]}}}}
    Properties:
      Timeout: 60
      Events: {{A: {{Type: SNS, Properties: {{Topic: !Ref Topic, SqsSubscription: {subscription}}}}}}}
"""


@pytest.mark.parametrize(
    ("subscription", "read"),
    [
        ("true", [("FAEventSourceMapping", "FAQueue", 10)]),
        ("{QueueArn: !GetAtt Q.Arn, QueueUrl: !Ref Q, BatchSize: 5}", [("FAEventSourceMapping", "Q", 5)]),
        ("false", []),
        ("!ImportValue x", []),
    ],
)
def test_a_queue_between_a_topic_and_a_function(subscription: str, read: list[tuple[str, str, int]]) -> None:
    found = model(SUBSCRIBED.format(subscription=subscription))
    queues = [(one, found.queue_of(one)) for one in found.mappings]

    assert [(one.id, queue.id if queue else "", one.batch_size.value) for one, queue in queues] == read


def test_a_queue_that_sam_makes_is_judged_at_its_function() -> None:
    findings = {one.rule.id: one.resource for one in lint(read(SUBSCRIBED.format(subscription="true").encode()))}

    assert findings["visibility-below-timeout"] == "F"
    assert "no-dead-letter-queue" not in findings
    assert "ignore-unused" not in findings


@pytest.mark.parametrize(("mode", "is_lacking"), [("", True), ("Queue", False), ("Stream", True), ("!Ref X", False)])
def test_topics_of_kafka_read_as_queues_have_no_position(mode: str, is_lacking: bool) -> None:
    text = (
        "Resources:\n  F: {Type: AWS::Lambda::Function}\n  M:\n    Type: AWS::Lambda::EventSourceMapping\n"
        "    Properties: {FunctionName: !Ref F, SelfManagedEventSource: {}"
        + (f", SelfManagedKafkaEventSourceConfig: {{ConsumptionMode: {mode}}}" if mode else "")
        + "}\n"
    )
    assert ("no-starting-position" in {one.rule.id for one in lint(read(text.encode()))}) is is_lacking
