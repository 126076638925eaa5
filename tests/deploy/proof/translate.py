"""What CloudFormation gets to see: the template after SAM's transform. `python -m tests.deploy.proof.translate FILE`.

The transform is AWS's own (aws-sam-translator), and most wrong values show only behind it: a linter knows the values
of `AWS::Lambda::EventSourceMapping`, and of a function's event only the names.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import boto3
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse

#: What the linters are told too; nothing of the templates depends on it.
REGION = "us-east-1"
#: In the place of what `sam deploy` uploads.
_CODE = "s3://artifacts-of-the-proof/code"
_PATHS = {"AWS::Serverless::Function": "CodeUri", "AWS::Serverless::LayerVersion": "ContentUri"}


def read(text: str) -> dict[str, Any]:
    """A template's text as values, its short forms (`!Ref`) as the long ones."""
    template: dict[str, Any] = yaml_parse(text)
    return template


def translated(template: dict[str, Any], parameters: dict[str, str] | None = None) -> dict[str, Any]:
    """The plain CloudFormation of a SAM template. Local paths of code become addresses in S3."""
    template = json.loads(json.dumps(template))
    template.get("Globals", {}).get("Function", {}).pop("CodeUri", None)
    for resource in template["Resources"].values():
        path = _PATHS.get(resource["Type"])
        if path and not str(resource["Properties"].get(path, "")).startswith("s3://"):
            resource["Properties"][path] = _CODE
    # No managed policies: the functions have roles of their own, and nothing is looked up in an account.
    translator = Translator({}, Parser(), boto_session=boto3.Session(region_name=REGION))
    plain: dict[str, Any] = translator.translate(template, dict(parameters or {}))
    return plain


if __name__ == "__main__":
    print(json.dumps(translated(read(Path(sys.argv[1]).read_text())), indent=1))
