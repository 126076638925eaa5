"""A template's bytes as a tree with lines. What is no template, or cannot be read in bounded time, is refused.

CloudFormation reads YAML 1.1 and JSON. Intrinsic functions become `Call`s, in whichever form they are
written.
"""

from __future__ import annotations

from pipeline.deploy.lint import json_text, yaml_text
from pipeline.deploy.lint.nodes import Members, Node, Sequence, UnreadableTemplate

#: CloudFormation takes templates of 1 MB (CloudFormation quotas, 2026); one that is still to be packaged
#: may be longer, by its comments.
MAX_BYTES = 4 * 1_048_576


def read(data: bytes) -> Members:
    """The tree of a template. Raises `UnreadableTemplate`."""
    if len(data) > MAX_BYTES:
        raise UnreadableTemplate(f"the file has more than {MAX_BYTES:,} bytes: CloudFormation takes templates of 1 MB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UnreadableTemplate("the file is not UTF-8 text: a template is YAML or JSON", line) from None
    root = _parse(text)
    if not isinstance(root, Members):
        what = "a list" if isinstance(root, Sequence) else "a single value"
        raise UnreadableTemplate(f"there is {what} at the top: a template is a mapping with `Resources`", root.line)
    resources = root.get("Resources")
    if resources is None:
        raise UnreadableTemplate("there is no `Resources`: this is no CloudFormation or SAM template", root.line)
    if not isinstance(resources, Members):
        raise UnreadableTemplate(
            "`Resources` is no mapping: write each resource as its logical id, a colon, and its Type and Properties",
            root.line_of("Resources"),
        )
    return root


def _parse(text: str) -> Node:
    if text.lstrip()[:1] != "{":
        return yaml_text.parse(text)
    try:
        return json_text.parse(text)
    except UnreadableTemplate as error:
        refused = error
    try:
        return yaml_text.parse(text)  # in YAML's flow style, keys need no quotes
    except UnreadableTemplate:
        raise refused from None
