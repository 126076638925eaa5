"""Names of spans' attributes are those of the semantic conventions, by the constants that are published with them."""

from __future__ import annotations

from importlib import import_module

import pytest
from opentelemetry.semconv.schemas import Schemas

from pipeline.telemetry import conventions

HOMES = [
    "opentelemetry.semconv._incubating.attributes.messaging_attributes",
    "opentelemetry.semconv._incubating.attributes.aws_attributes",
    "opentelemetry.semconv._incubating.attributes.faas_attributes",
    "opentelemetry.semconv._incubating.attributes.cloud_attributes",
    "opentelemetry.semconv._incubating.attributes.db_attributes",
    "opentelemetry.semconv.attributes.db_attributes",
    "opentelemetry.semconv.attributes.error_attributes",
]


def published() -> dict[str, str]:
    """The names that the conventions have, and where."""
    return {
        value: home
        for home in HOMES
        for name, value in vars(import_module(home)).items()
        if name.isupper() and isinstance(value, str)
    }


def values_of(name: str) -> set[str]:
    module = import_module("opentelemetry.semconv._incubating.attributes.messaging_attributes")
    return {member.value for member in getattr(module, name)}


#: Ours that are values, not names of attributes.
VALUES = {"SQS", "KINESIS", "EVENTBRIDGE", "DYNAMODB", "REDIS", "PROCESS", "SEND", "SCHEMA"}
NAMES = {name: value for name, value in vars(conventions).items() if name.isupper() and name not in VALUES}


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_name_is_published_or_plainly_ours(name: str) -> None:
    value = NAMES[name]
    assert value in published() or value.startswith("pipeline."), f"the conventions have no '{value}'"


def test_none_of_the_names_is_deprecated() -> None:
    for value in NAMES.values():
        home = published().get(value)
        if home is not None:
            module = import_module(home)
            (constant,) = [name for name, one in vars(module).items() if one == value and name.isupper()]
            text = (module.__loader__.get_source(home) or "").partition(f"\n{constant}: Final")[2]  # type: ignore[union-attr]
            assert "Deprecated" not in text.partition("\n\n")[0], f"'{value}' is deprecated"


def test_values_are_those_of_the_conventions_where_they_have_some() -> None:
    assert conventions.SQS in values_of("MessagingSystemValues")
    assert {conventions.PROCESS, conventions.SEND} <= values_of("MessagingOperationTypeValues")
    database = import_module("opentelemetry.semconv._incubating.attributes.db_attributes").DbSystemNameValues
    assert {conventions.DYNAMODB, conventions.REDIS} <= {member.value for member in database}
    ours = {conventions.KINESIS, conventions.EVENTBRIDGE}
    assert not ours & values_of("MessagingSystemValues"), "the conventions have one by now: use theirs"


def test_the_schema_is_the_one_that_the_names_were_compared_with() -> None:
    assert (
        max((member.value for member in Schemas), key=lambda url: [*map(int, url.rpartition("/")[2].split("."))])
        == conventions.SCHEMA
    )
