"""One build, and two stacks of it side by side: one as the template's defaults have it, and one with other parameters."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.proof.deployment import Stack, build, deployed, generate
from tests.deploy.proof.ministack import MiniStack
from tests.deploy.proof.tools import ROOT
from tests.deploy.proof.translate import read

TEMPLATE = ROOT / "template.yaml"


@pytest.fixture(scope="session")
def one_process() -> None:
    """A deployment is made once, and not by each worker of a parallel run: .ci/run has a step for it."""
    if os.environ.get("PYTEST_XDIST_WORKER"):
        pytest.skip("made once, in a run of its own: .venv/bin/pytest tests/deploy/proof (a step of `make check`)")


@pytest.fixture(scope="session")
def ministack(one_process: None) -> Iterator[MiniStack]:
    server = MiniStack()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def built(one_process: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built template."""
    return build(TEMPLATE, tmp_path_factory.mktemp("build"))


@pytest.fixture(scope="session")
def stack(ministack: MiniStack, built: Path) -> Stack:
    """Deployed with the template's defaults."""
    return deployed(Stack(ministack, "proof", TEMPLATE, built))


@pytest.fixture(scope="session")
def other_stack(ministack: MiniStack, built: Path) -> Stack:
    """Deployed with another value for each parameter, in the same account and region."""
    parameters = read(TEMPLATE.read_text()).get("Parameters", {})
    others = {name: other_value(one) for name, one in parameters.items()}
    others["AlarmTopicArn"] = ministack.client("sns").create_topic(Name="alarms")["TopicArn"]
    return deployed(Stack(ministack, "proof-other", TEMPLATE, built, others))


@pytest.fixture(scope="session")
def wide_stack(ministack: MiniStack, tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """The template of other declarations. Nothing is built: it is about the template."""
    ministack.client("sqs").create_queue(QueueName="old-returns")
    template = generate("tests.deploy.proof.wide", tmp_path_factory.mktemp("wide"))
    return deployed(Stack(ministack, "wide", template, template))


def other_value(parameter: dict[str, Any]) -> str:
    """One that is not the default, where the template says what is allowed."""
    default = str(parameter["Default"])
    others = [str(value) for value in parameter.get("AllowedValues", []) if str(value) != default]
    if re.fullmatch(parameter.get("AllowedPattern", "(?!)"), f"{default}2"):
        others.append(f"{default}2")
    return others[0] if others else default
