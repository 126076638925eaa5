"""Payloads in log lines: only when asked for, and never what stands at a masked path, whatever shape it has."""

from __future__ import annotations

import copy
import io
import itertools
import json
import re
import subprocess
import sys
from typing import Any

import pytest
from aws_lambda_powertools.utilities.data_masking import DataMasking
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigurationError
from pipeline.outcome import Duplicate, Failed, Outcome, Rejected, Succeeded
from pipeline.record import RawRecord
from pipeline.telemetry.events import RecordFinished
from pipeline.telemetry.log import LogWriter, logger_for
from pipeline.telemetry.payloads import LONGEST, MASK, Payloads

_numbers = itertools.count()
SECRET = "s3cr\u00e9t"


def masked(payload: Any, *paths: str) -> Any:
    return Payloads(paths).masked(copy.deepcopy(payload))


def of_body(body: str | bytes, *paths: str) -> dict[str, Any]:
    return Payloads(paths)(RawRecord(id="r1", source="orders", body=body))


@pytest.mark.parametrize(
    ("path", "payload", "left"),
    [
        ("card.number", {"card": {"number": "4", "kind": "k"}}, {"card": {"number": MASK, "kind": "k"}}),
        ("$.card.number", {"card": {"number": "4"}}, {"card": {"number": MASK}}),
        (
            "items[*].secret",
            {"items": [{"secret": 1, "a": 2}, {"a": 3}]},
            {"items": [{"secret": MASK, "a": 2}, {"a": 3}]},
        ),
        ("items.[*].secret", {"items": [{"secret": 1}]}, {"items": [{"secret": MASK}]}),
        ("items[1]", {"items": [1, 2, 3]}, {"items": [1, MASK, 3]}),
        ("items[1].a", {"items": [{"a": 1}, {"a": 2}]}, {"items": [{"a": 1}, {"a": MASK}]}),
        ("items[7]", {"items": [1]}, {"items": [1]}),
        ("[*].a", [{"a": 1}, {"b": 2}], [{"a": MASK}, {"b": 2}]),
        ("*", {"a": 1, "b": [2]}, {"a": MASK, "b": MASK}),
        ("a.*", {"a": {"b": 1, "c": {}}, "d": 1}, {"a": {"b": MASK, "c": MASK}, "d": 1}),
        ("$..b", {"b": 1, "a": [{"b": {"b": 2}, "c": 3}]}, {"b": MASK, "a": [{"b": MASK, "c": 3}]}),
        ("$..b.c", {"a": [{"b": {"c": 2, "d": 3}}, {"c": 4}]}, {"a": [{"b": {"c": MASK, "d": 3}}, {"c": 4}]}),
        ("a..b", {"b": 1, "a": {"x": [{"b": 2}]}}, {"b": 1, "a": {"x": [{"b": MASK}]}}),
        ("['a.b'].c", {"a.b": {"c": 1}, "a": {"b": {"c": 2}}}, {"a.b": {"c": MASK}, "a": {"b": {"c": 2}}}),
        ('a["b c"]', {"a": {"b c": 1}}, {"a": {"b c": MASK}}),
        ("größe.日本", {"größe": {"日本": 1}}, {"größe": {"日本": MASK}}),
        ("card-no", {"card-no": 1, "card": 2}, {"card-no": MASK, "card": 2}),
        ("card.number", {}, {}),
        ("card.number", {"card": None}, {"card": None}),
        ("card.number", {"card": {"number": None}}, {"card": {"number": MASK}}),
        ("card.number", {"card": {"number": {"a": [1]}}}, {"card": {"number": MASK}}),
    ],
)
def test_what_stands_at_a_path_is_masked_and_nothing_else(path: str, payload: Any, left: Any) -> None:
    assert masked(payload, path) == left


@pytest.mark.parametrize(
    ("path", "payload", "left"),
    [
        ("card.number", {"card": SECRET}, {"card": MASK}),
        ("card.number", {"card": [SECRET, [SECRET]]}, {"card": [MASK, [MASK]]}),
        ("card.number", {"card": [{"number": SECRET, "a": 1}]}, {"card": [{"number": MASK, "a": 1}]}),
        ("card.number", SECRET, MASK),
        ("card.number", [{"card": {"number": SECRET}}], [{"card": {"number": MASK}}]),
        ("card.number", {"card": json.dumps({"number": SECRET})}, {"card": MASK}),
        ("items[*].secret", {"items": {"secret": SECRET}}, {"items": {"secret": MASK}}),
        ("items[*].secret", {"items": [SECRET]}, {"items": [MASK]}),
        ("items[*]", {"items": SECRET}, {"items": MASK}),
        ("items[0]", {"items": {"0": SECRET}}, {"items": MASK}),
        ("$..card.number", {"a": [{"card": SECRET}]}, {"a": [{"card": MASK}]}),
        ("$..pin", json.dumps({"pin": SECRET}), MASK),
        ("$..pin", {"a": [json.dumps({"pin": SECRET}), "b"]}, {"a": [MASK, "b"]}),
        ("$..pin", {"a": " \ufeff" + json.dumps({"pin": SECRET}).replace("pin", "p\\u0069n")}, {"a": MASK}),
        ("$..pin", {"a": json.dumps(json.dumps({"p": SECRET}))}, {"a": MASK}),
        ("$..pin", {"a": f"user=u&pin={SECRET}", "pins": "b"}, {"a": MASK, "pins": "b"}),
        ("a..pin", {"a": {"b": f"pin: {SECRET}"}, "c": "[pin]"}, {"a": {"b": MASK}, "c": "[pin]"}),
    ],
)
def test_what_has_another_shape_than_the_path_says_is_masked_from_there_on(path: str, payload: Any, left: Any) -> None:
    assert masked(payload, path) == left


leaves = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5)
member = st.dictionaries(st.sampled_from(["number", "secret", "a", "é"]), leaves, min_size=1)
orders = st.fixed_dictionaries(
    {"card": member, "items": st.lists(member, min_size=1, max_size=3), "id": leaves}, optional={"note": leaves}
)


def texts_in(payload: Any) -> list[str]:
    """Every text of a payload, without the names of members."""
    if isinstance(payload, dict):
        return texts_in(list(payload.values()))
    if isinstance(payload, list):
        return [text for item in payload for text in texts_in(item)]
    return [payload] if isinstance(payload, str) else []


@given(orders, st.sampled_from(["card", "card.*", "items[*]", "items[0]", "items[*].*", "$..number", "id"]))
@settings(deadline=None)
def test_where_a_payload_has_the_shape_it_is_masked_as_powertools_does(payload: Any, path: str) -> None:
    theirs = DataMasking(raise_on_missing_field=False)
    if path == "$..number" and "number" not in json.dumps(payload):
        return  # theirs warns
    if path == "$..number" and re.search(r'[{\["]', "".join(texts_in(payload))):
        return  # theirs leaves text that may be JSON as it is
    assert masked(payload, path) == theirs.erase(copy.deepcopy(payload), fields=[path])


anything = st.recursive(
    leaves | st.floats(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=15,
)
secrets = st.recursive(
    st.just(SECRET) | st.text(max_size=3).map(lambda text: text + SECRET),
    lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)
no_objects = st.recursive(st.just(SECRET), lambda inner: st.lists(inner, max_size=3), max_leaves=6)


@given(anything, secrets, no_objects, st.booleans())
@settings(deadline=None)
def test_no_masked_value_is_in_any_line(other: Any, secret: Any, shapeless: Any, is_ascii: bool) -> None:
    payload = {
        "other": other,
        "card": {"number": secret, "note": other},
        "items": [{"secret": secret, "other": other}, other, shapeless],
        "deep": [other, {"inner": {"password": secret}}],
        "odd name.": secret,
        "unlike": shapeless,
    }
    paths = ["card.number", "items[*].secret", "$..password", "['odd name.']", "unlike.number"]
    for outcome in (Failed(ValueError("no")), Rejected(ValueError("no")), Succeeded(1)):
        (line,) = lines_of(json.dumps(payload, ensure_ascii=is_ascii), outcome, paths=paths, level="DEBUG")
        assert "payload" in line
        assert SECRET not in json.dumps(line, ensure_ascii=False)
        assert "s3cr" not in json.dumps(line)


@given(st.binary() | st.text(st.characters(exclude_categories=())) | anything.map(json.dumps))
@settings(deadline=None)
def test_any_body_gives_a_payload_or_the_reason_why_not(body: str | bytes) -> None:
    found = of_body(body, "a.b", "$..c", "[0]")

    assert list(found) in (["payload"], ["payload_error"])
    if "payload_error" in found:
        assert found["payload_error"] == "no JSON"


def test_a_payload_that_is_too_large_or_too_deep_is_left_out_as_a_whole() -> None:
    longest = json.dumps("é" * (LONGEST // 2 - 1), ensure_ascii=False)

    assert of_body(longest)["payload"] == json.loads(longest)
    assert of_body(longest + " ") == {"payload_error": f"{LONGEST + 1} bytes: at most {LONGEST} are written"}
    assert of_body(longest.encode() + b" ") == of_body(longest + " ")
    assert of_body("[" * 5_000 + "]" * 5_000, "$..a") == {"payload_error": "RecursionError"}


@pytest.mark.parametrize(
    ("path", "at"),
    [
        *(("", 1), ("$", 2), ("a.", 2), (".a", 1), ("..a", 1), ("a...b", 2), ("a b", 2), ("a[", 2), ("a[x]", 2)),
        *(("a[-1]", 2), ("a[1:2]", 2), ("a[?(@.x>1)]", 2), ("a|b", 2), ("a,b", 2), ("`this`", 1), ("$a", 2)),
        *(("a[0]b", 5), ("a..*", 2), ("a..[0]", 2), ("['a", 1), ("*a", 1), ("a.*b", 2)),
    ],
)
def test_what_is_no_path_is_refused_and_says_where(path: str, at: int) -> None:
    with pytest.raises(ConfigurationError, match=rf"is no path, at character {at}: write it like 'card.number'"):
        Payloads(["ok", path])


def lines_of(
    body: str, *outcomes: Outcome, paths: list[str] | None, level: str = "INFO", **fields: Any
) -> list[dict[str, Any]]:
    written = io.StringIO()
    payloads = None if paths is None else Payloads(paths)
    write = LogWriter(logger_for(f"payloads-{next(_numbers)}", level, written), "price", payloads=payloads)
    for outcome in outcomes:
        raw = RawRecord(id="r1", source="orders", body=body)
        names: dict[str, Any] = {"pipeline": "shop", "handler": "price", "key_hash": None, "attempt": 1}
        write(RecordFinished(**names, record=raw, outcome=outcome, seconds=1.0, **fields))
    return [json.loads(line) for line in written.getvalue().split("\n")[:-1]]


ENDS: list[Outcome] = [
    Failed(ValueError("no")),
    Rejected(ValueError("no")),
    Rejected(ValueError("no"), exhausted=True),
    Succeeded(1),
    Duplicate(),
]


def test_nobody_gets_payloads_without_asking() -> None:
    for line in lines_of('{"a": "x"}', *ENDS, paths=None, level="DEBUG"):
        assert {"payload", "payload_error"}.isdisjoint(line)


def test_lines_of_what_went_wrong_or_was_slow_have_the_payload_and_at_debug_all() -> None:
    body = '{"a": "x", "b": [1]}'

    some = lines_of(body, *ENDS, paths=["a"])
    slow = lines_of(body, ENDS[3], paths=["a"], is_slow=True)
    every = lines_of(body, *ENDS, paths=["a"], level="DEBUG")

    assert [line["message"] for line in some] == ["record.failed", "record.rejected", "record.exhausted"]
    assert [line["message"] for line in slow] == ["record.slow"]
    assert len(every) == len(ENDS)
    assert {json.dumps(line["payload"]) for line in some + slow + every} == {'{"a": "*****", "b": [1]}'}


def test_without_paths_nothing_is_masked() -> None:
    (line,) = lines_of('{"a": 1, "n": 123456789012345678901234567890}', ENDS[0], paths=[])

    assert line["payload"]["a"] == 1


def test_what_masks_is_imported_only_when_it_is_asked_for() -> None:
    script = """
import sys
from pipeline import Pipeline
def masks():
    return {"pipeline.telemetry.payloads", "jsonpath_ng"} & set(sys.modules)
Pipeline("shop")
assert masks() == set()
Pipeline("shop", log_payloads=["card.number"])
assert masks() == {"pipeline.telemetry.payloads"}
"""
    subprocess.run([sys.executable, "-c", script], check=True)
