"""Values in log lines: none loses the line, none raises in the caller. Read as the bytes that stdout gets."""

from __future__ import annotations

import io
import itertools
import json
import logging
import math
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TextIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.telemetry.log import logger_for
from pipeline.telemetry.serialize import LONGEST, line_of

_numbers = itertools.count()


class Silent:
    def __str__(self) -> str:
        raise RuntimeError("nothing to say")


def no_constant(name: str) -> Any:
    raise AssertionError(f"{name} is no JSON")


def lines_in(written: io.BytesIO) -> list[dict[str, Any]]:
    text = written.getvalue()
    assert text.endswith(b"\n")
    return [json.loads(line, parse_constant=no_constant) for line in text[:-1].split(b"\n")]


@pytest.fixture
def written() -> io.BytesIO:
    """What stdout gets."""
    return io.BytesIO()


@pytest.fixture
def logger(written: io.BytesIO) -> Any:
    """A pipeline's logger."""
    return logger_for(f"values-{next(_numbers)}", "DEBUG", stdout(written))


def stdout(written: io.BytesIO, encoding: str = "utf-8") -> TextIO:
    """A stream as `sys.stdout` is one, line-buffered."""
    return io.TextIOWrapper(written, encoding=encoding, line_buffering=True)


def circular_list() -> list[Any]:
    found: list[Any] = [1]
    found.append(found)
    return found


def circular_dict() -> dict[str, Any]:
    found: dict[str, Any] = {"a": 1}
    found["self"] = found
    return found


def deep() -> list[Any]:
    found: list[Any] = []
    for _ in range(20_000):
        found = [found]
    return found


BAD: dict[str, tuple[Callable[[], Any], Any]] = {
    "NaN": (lambda: math.nan, None),
    "infinity": (lambda: -math.inf, None),
    "NaN inside": (lambda: {"a": [math.nan, 1.5]}, {"a": [None, 1.5]}),
    "an object": (lambda: ValueError("why"), "why"),
    "a set": (lambda: {7}, [7]),
    "lone surrogate": (lambda: "a\ud800b", "a\\ud800b"),
    "lone surrogate as a key": (lambda: {"\udfff": 1}, {"\\udfff": 1}),
    "tuple keys": (lambda: {("a", 1): 2}, {"('a', 1)": 2}),
    "its __str__ raises": (Silent, "(Silent that cannot be written: RuntimeError)"),
    "its __str__ raises, inside": (lambda: [1, Silent()], [1, "(Silent that cannot be written: RuntimeError)"]),
    "an integer without digits": (lambda: 10**5000, "(int that cannot be written: ValueError)"),
    "NaN beside": (lambda: [math.nan, Silent()], [None, "(Silent that cannot be written: RuntimeError)"]),
    "a newline": (lambda: "a\nb\u2028\0", "a\nb\u2028\0"),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_value_that_json_has_no_form_for(bad: str, logger: Any, written: io.BytesIO, capsys: Any) -> None:
    make, told = BAD[bad]

    logger.info("step", extra={"value": make(), "order": "a"})

    (line,) = lines_in(written)
    assert (line["message"], line["order"], line.get("value")) == ("step", "a", told)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("make", [circular_list, circular_dict, deep])
def test_a_value_without_end_is_cut(make: Callable[[], Any], logger: Any, written: io.BytesIO, capsys: Any) -> None:
    logger.info("step", extra={"value": make(), "order": "a"})

    (line,) = lines_in(written)
    assert line["order"] == "a"
    assert "cut" in json.dumps(line["value"])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "value", ["x" * 5_000_000, ["y" * 1000] * 5000, {str(n): "z" * 100 for n in range(10_000)}, "\ud83d" * 1_000_000]
)
def test_a_huge_value_is_cut_and_takes_no_other_with_it(value: Any, logger: Any, written: io.BytesIO) -> None:
    logger.info("step", extra={"value": value, "record_id": "r7"})

    (line,) = lines_in(written)
    assert line["record_id"] == "r7"
    assert "cut" in json.dumps(line["value"])
    assert len(written.getvalue()) < 20_000


def itself_six_times() -> list[Any]:
    found: list[Any] = []
    found += [found] * 6
    return found


def shared_by_all() -> list[Any]:
    found: list[Any] = [1]
    for _ in range(40):
        found = [found] * 10
    return found


def shared_by_members() -> dict[str, Any]:
    found: dict[str, Any] = {"a": 1}
    for _ in range(40):
        found = {str(n): found for n in range(10)}
    return found


@pytest.mark.parametrize(
    "make",
    [
        itself_six_times,
        shared_by_all,
        shared_by_members,
        lambda: [[list(range(100)) for _ in range(60)] for _ in range(60)],
        lambda: [[Silent()] * 90 for _ in range(2_000)],
    ],
)
@pytest.mark.timeout(10)
def test_a_value_of_many_items_is_cut_before_it_holds_the_loop_up(make: Any, logger: Any, written: io.BytesIO) -> None:
    logger.info("step", extra={"value": make(), "record_id": "r7"})

    (line,) = lines_in(written)
    assert line["record_id"] == "r7"
    assert "cut" in json.dumps(line["value"])
    assert len(written.getvalue()) < LONGEST


@pytest.mark.parametrize("value", ["x" * 5_000, list(range(500)), [[n] * 90 for n in range(2_000)]])
def test_a_line_of_many_values_keeps_the_small_ones(value: Any, logger: Any, written: io.BytesIO) -> None:
    logger.info("step", extra={**{f"big{n}": value for n in range(1_000)}, "record_id": "r7"})

    (line,) = lines_in(written)
    assert (line["message"], line["record_id"]) == ("step", "r7")
    assert len(written.getvalue()) <= LONGEST + 1
    assert "(cut)" in line or all("cut" in json.dumps(line[f"big{n}"]) for n in range(1_000))


def test_a_value_that_stands_in_a_line_twice_is_no_circle(logger: Any, written: io.BytesIO) -> None:
    shared = [1, 2]

    logger.info("step", extra={"value": [shared, {"a": shared}, math.nan, Silent()]})

    assert lines_in(written)[0]["value"][:3] == [[1, 2], {"a": [1, 2]}, None]


def test_of_a_huge_error_its_beginning_and_its_end_remain(logger: Any, written: io.BytesIO) -> None:
    try:
        raise ValueError("x" * LONGEST + "THE END")
    except ValueError:
        logger.exception("step")

    (line,) = lines_in(written)
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("THE END")


@pytest.mark.parametrize("text", ["123", "null", "true", '"quoted"', "[1]", "{", "{no", "", "1e999", "NaN"])
def test_a_message_that_looks_like_json_is_the_message(text: str, logger: Any, written: io.BytesIO) -> None:
    logger.info(text)

    assert lines_in(written)[0]["message"] == text


def test_a_message_that_is_an_object_is_one(logger: Any, written: io.BytesIO) -> None:
    logger.info('{"a": 1}')
    logger.info({"a": Silent()})

    first, second = lines_in(written)
    assert first["message"] == {"a": 1}
    assert second["message"] == {"a": "(Silent that cannot be written: RuntimeError)"}


@pytest.mark.parametrize("name", ["message", "name", "args", "msg", "asctime", "exc_info", "levelname"])
def test_an_extra_of_a_name_that_logging_has_gets_another(name: str, logger: Any, written: io.BytesIO) -> None:
    logger.info("step", extra={name: "mine", "order": "a"})

    (line,) = lines_in(written)
    assert (line["message"], line["level"], line["order"], line[f"{name}_"]) == ("step", "INFO", "a", "mine")


@pytest.mark.parametrize(
    ("message", "arguments", "told"),
    [("%d apples", ("no",), "%d apples"), ("a %s", (Silent(),), "a %s"), ("a", (1,), "a"), (Silent(), (1,), "(Silent")],
)
def test_a_message_that_cannot_be_made_is_written_without_its_arguments(
    message: Any, arguments: Any, told: str, written: io.BytesIO, capsys: Any
) -> None:
    name = f"values-{next(_numbers)}"
    logger = logger_for(name, "DEBUG", stdout(written))
    logging.getLogger(logger.name).propagate = False  # pytest's own handler raises at such a message

    try:
        raise KeyError("k")
    except KeyError:
        logger.exception(message, *arguments, extra={"order": "a"})

    (line,) = lines_in(written)
    assert line["message"].startswith(told)
    assert (line["level"], line["order"], line["service"]) == ("ERROR", "a", name)
    assert line["unformatted"] in ("TypeError", "RuntimeError")
    assert "KeyError: 'k'" in line["exception"]
    assert capsys.readouterr().err == ""


def test_a_stream_of_ascii_gets_ascii(logger: Any) -> None:
    stream = io.BytesIO()

    logger_for(logger.name, "INFO", stdout(stream, "ascii")).info("Grüße \U0001f600")

    assert lines_in(stream)[0]["message"] == "Grüße \U0001f600"
    assert stream.getvalue().isascii()


def test_a_stream_that_takes_nothing_raises_nothing_in_the_caller(logger: Any, capsys: Any) -> None:
    closed = io.StringIO()
    closed.close()

    logger_for(logger.name, "INFO", closed).info("step")

    assert "Logging error" in capsys.readouterr().err


def test_the_traceback_stands_once_and_times_are_utc(logger: Any, written: io.BytesIO) -> None:
    try:
        raise ValueError("only-once")
    except ValueError:
        logger.exception("step")

    (line,) = lines_in(written)
    assert written.getvalue().count(b"ValueError: only-once") == 1
    assert "stack_trace" not in line
    assert datetime.fromisoformat(line["timestamp"]).utcoffset() == timedelta(0)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()))
    | st.binary()
    | st.datetimes()
    | st.builds(Silent)
    | st.builds(object),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text(st.characters(exclude_categories=())) | st.integers() | st.none(), inner)
        | st.dictionaries(st.tuples(st.integers()), inner)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=())), anything))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_values_are_one_line_of_json(values: dict[str, Any]) -> None:
    text = line_of(values)

    assert b"\n" not in text.encode("utf-8")
    assert len(json.loads(text, parse_constant=no_constant)) <= len(values)
