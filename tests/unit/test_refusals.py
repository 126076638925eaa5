"""What sinks say of an output that they cannot take: it stands in log lines, so nothing of the payload does."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from pipeline import sinks
from pipeline.aws.dynamodb import attribute
from pipeline.decisions.deadline import Deadline
from pipeline.engine.environment import ProcessEnvironment
from pipeline.errors import SinkRefused
from pipeline.output import Output

SECRET = "4111-1111"


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (SECRET * 40, "text of 360 characters"),
        ("", "text of 0 characters"),
        ([SECRET], "a list: give text"),
        (None, "a NoneType: give text"),
    ],
)
async def test_a_detail_type_that_is_none_is_not_quoted(found: Any, says: str) -> None:
    sink = sinks.EventBridge("news", detail_type=lambda value: found, source="shop")

    output = Output(id="a", sink="news", body="{}", default_key="k", value={})
    (error,) = await sink.write([output], ProcessEnvironment(), Deadline())

    assert says in str(error)
    assert SECRET not in str(error)


@pytest.mark.parametrize("number", [Decimal("NaN4111"), Decimal("-Infinity"), Decimal(4111) ** 200, Decimal("1" * 39)])
def test_a_number_that_a_table_cannot_hold_is_not_quoted(number: Decimal) -> None:
    with pytest.raises(SinkRefused, match="return it as text") as caught:
        attribute(number)

    assert "4111" not in str(caught.value)
