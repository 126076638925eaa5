"""The project, built and deployed as its user does it, but to MiniStack."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.deploy.proof import read_back
from tests.deploy.proof.intrinsics import Resolver
from tests.deploy.proof.ministack import MiniStack
from tests.deploy.proof.read_back import Properties
from tests.deploy.proof.shortfalls import deployable
from tests.deploy.proof.tools import ROOT, UV, attempt, clean_environment, run
from tests.deploy.proof.translate import REGION, read, translated

_BUILD_SECONDS = 240
_DEPLOY_SECONDS = 120


def build(template: Path, directory: Path) -> Path:
    """The template that `sam build` writes, with dependencies for this machine and its Python, so that the artifact runs here."""
    ours = {
        # A project's Makefile finds `pipeline` and `uv` where its owner installed them.
        "PATH": os.pathsep.join([str(ROOT / ".venv/bin"), str(UV.parent), os.environ["PATH"]]),
        "PIPELINE_PACKAGE_PYTHON": f"{sys.version_info.major}.{sys.version_info.minor}",
        "PIPELINE_PACKAGE_PLATFORM": platform.machine(),
    }
    run(
        "sam", "build", "--build-in-source", "--template", template, "--build-dir", directory,
        environment=clean_environment(**ours), timeout=_BUILD_SECONDS,
    )  # fmt: skip
    return directory / "template.yaml"


def beside(template: Path) -> Path:
    """A template without what MiniStack refuses, beside the whole one: its paths are relative."""
    path = template.with_name("deployable.json")
    path.write_text(json.dumps(deployable(read(template.read_text()))))
    return path


def generate(target: str, directory: Path) -> Path:
    """`pipeline template`, with a layer, for a target that stands in the directory or in this checkout."""
    (directory / "pyproject.toml").write_text(f'[tool.pipeline]\napp = "{target}"\nlayer = true\n')
    path = directory / "template.yaml"
    subprocess.run(
        [sys.executable, "-m", "pipeline", "template", target, "--output", path],
        cwd=directory, env=clean_environment(PYTHONPATH=str(ROOT)), check=True, capture_output=True,
    )  # fmt: skip
    return path


@dataclass(frozen=True)
class Resource:
    kind: str
    physical: str
    asked: Properties  #: what the template says, with every reference resolved


class Stack:
    """A stack in MiniStack, by the commands of the SAM command line."""

    def __init__(
        self, aws: MiniStack, name: str, source: Path, built: Path, parameters: Mapping[str, str] | None = None
    ) -> None:
        self.aws = aws
        self.name = name
        self._source = source
        self._template = beside(built)
        self._parameters = dict(parameters or {})

    def deploy(self) -> tuple[int, str]:
        """The exit code of `sam deploy`, and what it printed."""
        overrides = [f"{name}={value}" for name, value in self._parameters.items()]
        return attempt(
            "sam", "deploy", "--template-file", self._template, "--stack-name", self.name, "--region", REGION,
            "--resolve-s3", "--capabilities", "CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND", "--no-confirm-changeset",
            "--no-progressbar", *(["--parameter-overrides", *overrides] if overrides else []),
            environment=self._environment, timeout=_DEPLOY_SECONDS,
        )  # fmt: skip

    def delete(self) -> str:
        return run(
            "sam", "delete", "--stack-name", self.name, "--region", REGION, "--no-prompts",
            environment=self._environment, timeout=_DEPLOY_SECONDS,
        )  # fmt: skip

    @cached_property
    def template(self) -> dict[str, Any]:
        """The plain CloudFormation of what was deployed, translated here and not by MiniStack."""
        body = self.aws.client("cloudformation").get_template(StackName=self.name, TemplateStage="Original")
        return translated(read(body["TemplateBody"]), self._parameters)

    @cached_property
    def complete(self) -> dict[str, Any]:
        """The plain CloudFormation of the project's template, before anything was built or left out."""
        return translated(read(self._source.read_text()), self._parameters)

    @cached_property
    def physical(self) -> dict[str, tuple[str, str]]:
        """The type and the physical id of everything in the stack, by logical id."""
        pages = self.aws.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=self.name)
        return {
            one["LogicalResourceId"]: (one["ResourceType"], one["PhysicalResourceId"])
            for page in pages
            for one in page["StackResourceSummaries"]
        }

    @cached_property
    def resources(self) -> dict[str, Resource]:
        return {
            name: Resource(
                kind, physical, self.resolver.resolve(self.template["Resources"][name].get("Properties", {}))
            )
            for name, (kind, physical) in self.physical.items()
        }

    @cached_property
    def resolver(self) -> Resolver:
        """What the template's references come to, by what each service says of its resource."""
        account = self.aws.client("sts").get_caller_identity()["Account"]
        defaults = {name: one.get("Default") for name, one in self.template.get("Parameters", {}).items()}
        pseudo = {
            "AWS::StackName": self.name,
            "AWS::Region": REGION,
            "AWS::AccountId": account,
            "AWS::Partition": "aws",
            "AWS::URLSuffix": "amazonaws.com",
        }
        physical = {name: found for name, (_, found) in self.physical.items()}
        return Resolver(
            references={**pseudo, **defaults, **self._parameters, **physical},
            conditions=self.template.get("Conditions", {}),
            attribute=lambda name, attribute: read_back.attribute(self.aws, *self.physical[name], attribute),
        )

    def of_type(self, kind: str) -> dict[str, Resource]:
        return {name: one for name, one in self.resources.items() if one.kind == kind}

    def function(self, handler: str) -> Properties:
        """The deployed function of a handler, as Lambda describes it."""
        (found,) = [
            one.physical for one in self.of_type("AWS::Lambda::Function").values() if one.asked["Handler"] == handler
        ]
        described: Properties = self.aws.client("lambda").get_function(FunctionName=found)
        return described

    @property
    def _environment(self) -> dict[str, str]:
        return clean_environment(AWS_ENDPOINT_URL=self.aws.endpoint_url)


def deployed(stack: Stack) -> Stack:
    """The stack, after its first deployment."""
    status, text = stack.deploy()
    assert status == 0, text
    return stack
