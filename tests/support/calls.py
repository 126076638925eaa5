"""What the toolkit asks of AWS: every call as it is made, what it needs to be allowed, and where the code makes it."""

from __future__ import annotations

import ast
import inspect
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import botocore.handlers
import botocore.session
import pytest
from botocore import xform_name
from botocore.exceptions import ClientError, ConnectionClosedError

from pipeline.aws import calls as light
from pipeline.emulator.services.service import REGION
from tests.support.deployed import ACCOUNT, arn
from tests.support.iam import Request, is_action

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "pipeline"
#: What runs on the developer's machine only, with the developer's permissions.
NOT_DEPLOYED = ("emulator", "testing", "cli", "deploy")
#: What the command line asks AWS by, with the permissions of whoever calls it; no function imports it.
FOR_OPERATORS = Path("aws/operators")

#: Operations that need another action than the one of their own name. SQS: AddPermission's documentation (an action
#: "also grants permissions for the corresponding batch versions"). S3: "Multipart upload API and permissions" in its
#: user guide (PutObject for creating, uploading and completing). Every other operation has an action of its name.
ACTIONS = {
    ("sqs", "SendMessageBatch"): "SendMessage",
    ("sqs", "ChangeMessageVisibilityBatch"): "ChangeMessageVisibility",
    ("s3", "CreateMultipartUpload"): "PutObject",
    ("s3", "UploadPart"): "PutObject",
    ("s3", "CompleteMultipartUpload"): "PutObject",
}
#: Those of statements ("IAM security policies with PartiQL" in DynamoDB's developer guide), by their first words.
STATEMENTS = {
    "INSERT INTO": "PartiQLInsert",
    "UPDATE": "PartiQLUpdate",
    "DELETE FROM": "PartiQLDelete",
    "SELECT * FROM": "PartiQLSelect",
}
#: Those of a transaction's actions ("DynamoDB API permissions" in its developer guide): it has none of its own.
TRANSACTED = {"Put": "PutItem", "Update": "UpdateItem", "Delete": "DeleteItem", "ConditionCheck": "ConditionCheckItem"}
#: Where the toolkit's client only hands on what somebody called it for: file, function and method.
HANDED_ON = frozenset({("pipeline/aws/calls.py", "wait", "get_waiter")})


@dataclass(frozen=True)
class Place:
    """A line of the toolkit's code."""

    file: str
    line: int


@dataclass(frozen=True)
class Call:
    """One call of AWS's API by the toolkit."""

    service: str
    operation: str
    parameters: Mapping[str, Any]
    places: frozenset[Place]  #: the toolkit's code that was on its way to this call

    @property
    def requests(self) -> list[Request]:
        """What the call needs to be allowed. Raises `ValueError` for an operation whose action is not known."""
        if self.operation == "BatchExecuteStatement":
            return [_of_statement(one["Statement"]) for one in self.parameters["Statements"]]
        if self.operation == "TransactWriteItems":
            return [
                Request(f"dynamodb:{TRANSACTED[kind]}", _table(one["TableName"]), ACCOUNT)
                for item in self.parameters["TransactItems"]
                for kind, one in item.items()
            ]
        name = ACTIONS.get((self.service, self.operation), self.operation)
        if not is_action(self.service, name):
            raise ValueError(f"{self.service}: {self.operation} is no action's name: say in ACTIONS what it needs")
        return [Request(f"{self.service}:{name}", one, ACCOUNT) for one in self._resources()]

    def _resources(self) -> Iterator[str]:
        given = self.parameters
        match self.service:
            case "sqs" if "QueueUrl" in given:
                account, name = given["QueueUrl"].rsplit("/", 2)[1:]
                yield f"arn:aws:sqs:{REGION}:{account}:{name}"
            case "sqs":
                yield f"arn:aws:sqs:{REGION}:{given.get('QueueOwnerAWSAccountId', ACCOUNT)}:{given['QueueName']}"
            case "dynamodb":
                names = [given["TableName"]] if "TableName" in given else given["RequestItems"]
                yield from map(_table, names)
            case "kinesis":
                yield given.get("StreamARN") or arn("kinesis", f"stream/{given['StreamName']}")
            case "events":
                names = {entry.get("EventBusName", "default") for entry in given["Entries"]}
                yield from (name if name.startswith("arn:") else arn("events", f"event-bus/{name}") for name in names)
            case "s3":
                yield f"arn:aws:s3:::{given['Bucket']}" + (f"/{given['Key']}" if "Key" in given else "")
            case _:
                raise ValueError(f"calls of {self.service}: say here how they name their resource")


def _table(name: str) -> str:
    """The ARN of a table, which a call may name by it."""
    return name if name.startswith("arn:") else arn("dynamodb", f"table/{name}")


def _of_statement(text: str) -> Request:
    words, table, _ = text.split('"', 2)
    return Request(f"dynamodb:{STATEMENTS[words.strip()]}", arn("dynamodb", f"table/{table}"), ACCOUNT)


#: What happens to a call instead of being sent, by raising; None: it passes.
Act = Callable[[], None] | None


class Wire:
    """Hears every call that the toolkit makes, before it is sent, and can let calls fail.

    It goes around the toolkit's own calls, and is one of botocore's own event handlers for the others, so nothing of the
    toolkit is replaced. Calls of a test's own clients pass by: none of the toolkit's code is on the way to them.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._acts: dict[str, deque[Act]] = defaultdict(deque)
        self._lock = threading.Lock()

    def connect(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Hear the clients of every session that is made from now on."""

        def hear(params: Mapping[str, Any], model: Any, **_: Any) -> None:
            self._hear(model.service_model.service_name, model.name, params)

        async def go_around(call: light.Call, go_on: light.GoOn) -> dict[str, Any]:
            self._hear(call.service, call.operation, call.parameters)
            return await go_on()

        handlers = [*botocore.handlers.BUILTIN_HANDLERS, ("provide-client-params", hear)]
        monkeypatch.setattr(botocore.handlers, "BUILTIN_HANDLERS", handlers)
        monkeypatch.setattr(light, "AROUND", [*light.AROUND, go_around])

    def lead_to(self, endpoint_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the clients to come call DynamoDB under AWS's own name, and carry what they send to this server."""
        monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", f"https://dynamodb.{REGION}.amazonaws.com")

        async def carry(call: light.Call, go_on: light.GoOn) -> dict[str, Any]:
            if call.service == "dynamodb":
                call.carried_to = endpoint_url
            return await go_on()

        monkeypatch.setattr(light, "AROUND", [*light.AROUND, carry])

    def next(self, operation: str, *acts: Act) -> None:
        """Do these with the next calls of an operation, one each; None: let it pass."""
        self._acts[operation] += acts

    def all_is_well(self) -> None:
        """Do nothing any more with the calls to come."""
        with self._lock:
            self._acts.clear()

    def _hear(self, service: str, operation: str, parameters: Mapping[str, Any]) -> None:
        places = frozenset(_places())
        if not places:
            return
        with self._lock:
            self.calls.append(Call(service, operation, dict(parameters), places))
            waiting = self._acts[operation]
            act = waiting.popleft() if waiting else None
        if act is not None:
            act()


def lose() -> None:
    """The connection breaks: an outage."""
    raise ConnectionClosedError(endpoint_url="http://127.0.0.1")


def refuse() -> None:
    """The service will never take this."""
    answer = {"Error": {"Code": "InvalidArgument", "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": 400}}
    raise ClientError(answer, "Any")


def _places() -> Iterator[Place]:
    frame = inspect.currentframe()
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(f"{PACKAGE}/"):
            yield Place(str(Path(path).relative_to(ROOT)), frame.f_lineno)
        frame = frame.f_back


@dataclass(frozen=True)
class Site:
    """Where the code names an operation of AWS's: in a call, or as a text that chooses the call."""

    file: str
    first: int
    last: int
    function: str
    operation: str  #: as clients spell it: "send_message_batch"

    def is_hit_by(self, call: Call) -> bool:
        """Whether this is the place that made the call."""
        return xform_name(call.operation) == self.operation and any(
            place.file == self.file and self.first <= place.line <= self.last for place in call.places
        )

    @property
    def is_handing_on(self) -> bool:
        """Whether this names no operation that its own caller does not name."""
        return (self.file, self.function, self.operation) in HANDED_ON

    def __str__(self) -> str:
        return f"{self.file}:{self.first}: {self.function} calls {self.operation}"


def sources() -> dict[str, str]:
    """The modules that are deployed, by their path."""
    return {
        str(path.relative_to(ROOT)): path.read_text()
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).parts[0] not in NOT_DEPLOYED and path.relative_to(PACKAGE).parent != FOR_OPERATORS
    }


def services(files: Mapping[str, str]) -> set[str]:
    """The services for which the code opens a client: `client(environment, "sqs")`."""
    found: set[str] = set()
    for text in files.values():
        for node in ast.walk(_tree(text)):
            if isinstance(node, ast.Call) and _name(node.func) == "client" and len(node.args) == 2:
                found |= {ast.literal_eval(node.args[1])}
    return found


def sites(files: Mapping[str, str]) -> list[Site]:
    """Where a deployed function calls AWS: every place but those that only ever make resources, for local runs.

    Those are functions named `create` or `create_...`, and what nothing but them calls.
    """
    operations = operations_of(services(files))
    trees = {file: _tree(text) for file, text in files.items()}
    found = [site for file, tree in trees.items() for site in _sites(file, tree, operations)]
    makers = _makers(trees.values())
    return [site for site in found if site.function not in makers and not site.is_handing_on]


@cache
def _operations_of(service: str) -> frozenset[str]:
    model: Any = botocore.session.get_session().get_service_model(service)
    return frozenset(map(xform_name, model.operation_names))


def operations_of(names: Iterable[str]) -> frozenset[str]:
    """All methods of the services' clients that call AWS."""
    return frozenset({"get_waiter", "get_paginator"}).union(*map(_operations_of, names))


def _sites(file: str, tree: ast.Module, operations: frozenset[str]) -> Iterator[Site]:
    # `s3.put_object(...)` in a module that imports our own `s3` is none of a client's.
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    for function, node in _named_nodes(tree):
        if not isinstance(node, ast.Call):
            continue
        # A text may choose the call: `write("put_item", ...)`.
        named = {one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)}
        if isinstance(node.func, ast.Attribute) and _name(node.func.value) not in imported:
            named.add(node.func.attr)
        for operation in sorted(named & operations):
            yield Site(file, node.lineno, node.end_lineno or node.lineno, function, operation)


@cache
def _tree(text: str) -> ast.Module:
    return ast.parse(text)


@cache
def _named_nodes(tree: ast.Module) -> list[tuple[str, ast.AST]]:
    return list(_with_functions(tree))


def _with_functions(tree: ast.AST, function: str = "<module>") -> Iterator[tuple[str, ast.AST]]:
    """Every node with the name of the outermost function around it."""
    for child in ast.iter_child_nodes(tree):
        own = function
        if function == "<module>" and isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            own = child.name
        yield own, child
        yield from _with_functions(child, own)


def _makers(trees: Iterable[ast.Module]) -> set[str]:
    """The names of functions that only make resources."""
    callers: dict[str, set[str]] = defaultdict(set)
    names: set[str] = set()
    for tree in trees:
        for function, node in _named_nodes(tree):
            names.add(function)
            if isinstance(node, ast.Call):
                callers[_name(node.func)].add(function)
    makers = {name for name in names if name == "create" or name.startswith("create_")}
    while more := {name for name in names - makers if callers[name] and callers[name] <= makers}:
        makers |= more
    return makers


def _name(node: ast.AST) -> str:
    """The last name of `a`, `a.b` or `a.b.c`."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
