"""Text becomes a tree with lines; what is no template is refused with a line, in bounded time."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.deploy.lint import read
from pipeline.deploy.lint.nodes import Call, Members, Node, Scalar, Sequence, UnreadableTemplate

#: For a megabyte of the worst text, on a slow machine that has other things to do. A real one takes 2 s.
SECONDS = 40


def plain(node: Node | None) -> Any:
    """A tree without its lines; calls as their long form."""
    if isinstance(node, Scalar):
        return node.value
    if isinstance(node, Members):
        return {name: plain(item.node) for name, item in node.items.items()}
    if isinstance(node, Sequence):
        return [plain(one) for one in node.items]
    return {node.name: plain(node.argument)} if isinstance(node, Call) else None


def resources(text: str) -> Any:
    return plain(read(text.encode()).get("Resources"))


def refused(text: str | bytes) -> tuple[int, str]:
    with pytest.raises(UnreadableTemplate) as caught:
        read(text.encode() if isinstance(text, str) else text)
    return caught.value.line, str(caught.value)


def test_lines_are_those_of_keys_values_and_items() -> None:
    root = read(b"# first\nResources:\n  A:\n    b:\n      - 1\n      -\n        c: 2\n  D: !Sub\n    x\n")
    found = root.get("Resources")

    assert isinstance(found, Members)
    assert (root.line_of("Resources"), found.line_of("A"), found.line_of("D"), found.line_of("missing")) == (2, 3, 8, 3)
    a = found.get("A")
    assert isinstance(a, Members)
    b = a.get("b")
    assert isinstance(b, Sequence)
    assert [one.line for one in b.items] == [5, 7]


def test_lines_of_json_are_those_of_keys_and_values() -> None:
    root = read(b'{\n\t"Resources": {\n\t\t"A": [\n\t\t\t1,\n\t\t\t{"b":\n\t\t\t\t2}\n\t\t]\n\t}\n}')
    found = root.get("Resources")

    assert isinstance(found, Members)
    assert (root.line_of("Resources"), found.line_of("A")) == (2, 3)
    a = found.get("A")
    assert isinstance(a, Sequence)
    assert [one.line for one in a.items] == [4, 5]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("yes", True), ("Off", False), ("TRUE", True), ("y", "y"), ("N", "N"), ("~", None), ("", None), ("null", None),
        ("010", 8), ("0x1F", 31), ("0b11", 3), ("1_000", 1000), ("-5", -5), ("+5", 5), ("089", 89), ("1:30", "1:30"),
        ("2012-10-17", "2012-10-17"), ("1.5", 1.5), ("1e3", "1e3"), ("'30'", "30"), ('"yes"', "yes"), ("=", "="),
        ("!!str 5", "5"), ("0x", "0x"), ("9" * 5000, "9" * 5000),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_1(written: str, meant: object) -> None:
    assert resources(f"Resources:\n  A: {written}\n") == {"A": meant}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("!Ref X", {"Ref": "X"}),
        ("{ Ref: X }", {"Ref": "X"}),
        ("!GetAtt X.Y.Z", {"Fn::GetAtt": ["X", "Y.Z"]}),
        ("!GetAtt [X, Y]", {"Fn::GetAtt": ["X", "Y"]}),
        ("{ 'Fn::GetAtt': X.Y }", {"Fn::GetAtt": ["X", "Y"]}),
        ("!Sub 'a${b}'", {"Fn::Sub": "a${b}"}),
        ("!Condition C", {"Condition": "C"}),
        ("!Never [heard, of]", {"Fn::Never": ["heard", "of"]}),
        ("!Base64 { 'Fn::Sub': x }", {"Fn::Base64": {"Fn::Sub": "x"}}),
        ("{ Ref: X, also: 1 }", {"Ref": "X", "also": 1}),
        ("{}", {}),
        ("[]", []),
    ],
)
def test_functions_are_the_same_in_either_form(written: str, meant: object) -> None:
    root = read(f"Resources:\n  A: {written}\n".encode())
    found = root.get("Resources")

    assert isinstance(found, Members)
    assert plain(found.get("A")) == meant
    assert isinstance(found.get("A"), Call) == (isinstance(meant, dict) and len(meant) == 1)


def test_aliases_and_merges_are_followed() -> None:
    text = "x: &x {a: 1, b: 2}\ny: &y {b: 3, c: 4}\nResources:\n  R: {<<: [*x, *y], b: 5}\n  S: *x\n  T: {'<<': 1}\n"

    assert resources(text) == {"R": {"b": 5, "a": 1, "c": 4}, "S": {"a": 1, "b": 2}, "T": {"<<": 1}}


LAUGHS = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 20)
)
BAD: dict[str, tuple[str | bytes, int, str]] = {
    "empty": ("", 1, "the file is empty"),
    "only a comment": ("# nothing\n", 1, "the file is empty"),
    "binary": (bytes(range(256)), 2, "not UTF-8"),
    "UTF-16": ("Resources: {}".encode("utf-16"), 1, "not UTF-8"),
    "a control character": ("Resources:\n  A: \x00\n", 2, "special characters"),
    "a list": ("- a\n", 1, "there is a list at the top"),
    "a text": ("just words", 1, "a single value at the top"),
    "an intrinsic function": ("Ref: X", 1, "a single value at the top"),
    "no Resources": ("a: 1\n", 1, "there is no `Resources`"),
    "Resources that are a list": ("a: 1\nResources: [a]\n", 2, "`Resources` is no mapping"),
    "several documents": ("Resources: {}\n---\nb: 1\n", 2, "several documents"),
    "a key twice": ("Resources:\n  A: 1\n  B: 2\n  A: 3\n", 4, "the key 'A' stands twice: first in line 2"),
    "a key twice in JSON": ('{"Resources": {"A": 1,\n"A": 2}}', 2, "the key 'A' stands twice: first in line 1"),
    "an alias of what holds it": ("Resources: &a\n  b: *a\n", 2, "it has no end"),
    "an alias of nothing": ("Resources:\n  A: *nobody\n", 2, "names nothing above it"),
    "a merge of a text": ("Resources:\n  A:\n    <<: text\n", 3, "merges mappings only"),
    "a list as a key": ("Resources:\n  ? [a]\n  : 1\n", 2, "a key is a list or a mapping"),
    "a tab": ("Resources:\n\tA: 1\n", 2, "no YAML"),
    "an open bracket": ("Resources:\n  A: [1,\n", 3, "no YAML"),
    "another version": ("%YAML 9.9\n---\nResources: {}\n", 1, "no YAML"),
    "an escape that is none": ('Resources:\n  A: "\\q"\n', 2, "no YAML"),
    "broken JSON": ('{\n"Resources": {,}}', 2, "no JSON: a key in double quotes is missing"),
    "JSON that goes on": ('{"Resources": {}}\n{}', 2, "no JSON: there is more behind its end"),
    "JSON with an open text": ('{"Resources": {\n"A": "b}}', 2, "no JSON: a text does not end"),
    "laughs": (LAUGHS + "Resources: {A: *a19}\n", 6, "with its aliases followed"),
    "deep lists": ("Resources: " + "[" * 100_000, 1, "nested deeper"),
    "deep blocks": ("Resources:\n  " + "- " * 100_000 + "\n", 2, "nested deeper"),
    "deep mappings": ("Resources: " + "{a: " * 200_000, 1, "nested deeper"),
    "deep JSON": ('{"Resources": ' + '{"a":' * 100_000, 1, "nested deeper"),
    "deep tags": ("Resources: " + "[!a " * 100_000, 1, "nested deeper"),
    "too many values": ("Resources:\n  A:\n" + "   -\n" * 250_000, 99_998, "more than 100,000 values"),
    "too long": (b"#" * 5_000_000, 1, "more than 4,194,304 bytes"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_template_is_refused_with_its_line(case: str) -> None:
    text, line, words = BAD[case]
    began = time.monotonic()
    found = refused(text)

    assert found[0] == line
    assert words in found[1]
    assert len(found[1]) < 300
    assert time.monotonic() - began < SECONDS


REAL = """\
  Queue{0}:
    Type: AWS::SQS::Queue
    Properties:
      QueueName: !Sub "${{AWS::StackName}}-orders-{0}"
      # Six times the function's timeout, and the batching window of one second that the mapping has.
      VisibilityTimeout: 181
      RedrivePolicy: {{ deadLetterTargetArn: !GetAtt Letters{0}.Arn, maxReceiveCount: 20 }}
      Tags: [{{ Key: "team", Value: 'shop' }}, {{ Key: stage, Value: !Ref Stage }}]
"""


@pytest.mark.parametrize(
    "text",
    [
        "Resources:\n" + "".join(REAL.format(number) for number in range(2_500)),
        "Resources:\n" + "".join(f"  a-short-key{number}: {number}\n" for number in range(7_000)),
        "Resources:\n  A: " + "x" * 1_000_000,
        "Resources:\n  A: |\n" + "    a line of text\n" * 50_000,
        "Resources:\n  A: x\n" + "    a line of text\n" * 10_000,
        json.dumps({"Resources": {f"k{number}": {"Ref": "X"} for number in range(50_000)}}, indent="\t"),
    ],
    ids=["real", "short", "word", "literal", "folded", "JSON"],
)
def test_a_megabyte_is_read_in_seconds(text: str) -> None:
    """Where a fifth of one takes long enough to show that it is no square of the length, a fifth of the seconds."""
    began = time.monotonic()
    assert 130_000 < len(text) < 2_000_000
    read(text.encode())

    assert time.monotonic() - began < SECONDS * min(1, len(text) / 1_000_000)


TEXTS = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufeff\ufffe\uffff\u2028\u2029\x85"), max_size=8
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(TEXTS, VALUES, max_size=4))
def test_json_means_what_json_loads_says(document: dict[str, Any]) -> None:
    assert resources(json.dumps({"Resources": document}, indent="\t")) == document


@given(st.dictionaries(TEXTS, VALUES, max_size=4))
def test_yaml_means_what_pyyaml_says(document: dict[str, Any]) -> None:
    """PyYAML's reader and ours, of what PyYAML writes: it quotes what would mean something else."""
    text = yaml.safe_dump({"Resources": document}, allow_unicode=True)

    assert resources(text) == yaml.safe_load(text)["Resources"]


@given(st.binary(max_size=200) | st.text("{}[]:,-?&*!|>'\"%@` \n#<aRef\t0", max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(UnreadableTemplate):
        read(b"Resources:\n  A:\n    " + data)
