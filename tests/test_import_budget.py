"""What a cold start imports: which packages, and how many modules. Counted, not timed, so that it says the same everywhere.

Raise a number only for a measured reason: `python -m benchmarks coldstart` says what it costs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.flow.events import event, message

ROOT = Path(__file__).parent.parent

#: Third-party packages of the import of a function's module, which happens whether a record comes or not.
AT_IMPORT = {"msgspec", "orjson", "typing_extensions"}
#: And those that the first record brings: the log's and the metrics', and of botocore its signer with what that
#: imports. botocore's parts of the standard library come with it.
AT_FIRST_RECORD = AT_IMPORT | {
    *("aws_lambda_powertools", "jmespath"),
    *("botocore", "dateutil", "six", "urllib3"),
    "certifi",  # botocore takes it when it is there; a function's artifact does not have it
}
#: Of our own, what only the local run, the command line and the tests need.
OURS_ELSEWHERE = {
    "pipeline.cli",
    "pipeline.deploy",
    "pipeline.emulator",
    "pipeline.testing",
    "pipeline.aws.cloudformation",
    "pipeline.aws.operators",
}
#: Parts of the standard library that cost milliseconds each and that no function needs in order to be declared.
NOT_AT_IMPORT = {"email", "html", "http", "sqlite3", "tarfile", "tempfile", "unittest", "xml", "zipfile"}

#: Modules: ours with third-party ones, which are the same in every Python, and all of them.
IMPORT_BUDGET, IMPORT_BUDGET_ALL = 123, 245
RECORD_BUDGET, RECORD_BUDGET_ALL = 240, 430

#: A whole function: a queue, a claim for each record, and a sink. The handler module is a file of the test's.
SHOP = """
    from typing import Any

    from pipeline import Pipeline, sinks, sources

    shop = Pipeline("shop")

    @shop.handler(sources.SQS("orders"), sinks=[sinks.SQS("priced")], key="order_id")
    async def price(order: dict[str, Any]) -> dict[str, Any]:
        return order
"""
#: As Lambda's runtime does it: import the module, then call the handler with an event and a context.
CHILD = """
    import json, sys
    present = set(sys.modules)
    class Context:
        def get_remaining_time_in_millis(self):
            return 30_000
    events = json.load(sys.stdin)
    out, sys.stdout = sys.stdout, sys.stderr
    import {module} as module
    imported = set(sys.modules) - present
    for one in events:
        assert module.price(one, Context()) == {{"batchItemFailures": []}}, one
    print(json.dumps([sorted(imported), sorted(set(sys.modules) - present)]), file=out, flush=True)
"""


@dataclass(frozen=True)
class Loaded:
    """The modules that a process has loaded for a function."""

    modules: frozenset[str]

    @property
    def counted(self) -> set[str]:
        """Ours and third-party ones, without the entries that Cython's runtime makes for itself."""
        return {
            name
            for name in self.modules
            if name.partition(".")[0] not in sys.stdlib_module_names and not name.startswith(("_cython_", "cython_"))
        }

    @property
    def packages(self) -> set[str]:
        """The top-level packages of others."""
        return {name.partition(".")[0] for name in self.counted} - {"pipeline", "handlers", "function", "tests"}

    @property
    def standard(self) -> set[str]:
        """The top-level modules of the standard library."""
        return {name.partition(".")[0] for name in self.modules - self.counted}


class Service(BaseHTTPRequestHandler):
    """DynamoDB and SQS, as far as this function asks them."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = {
            "GetQueueUrl": {"QueueUrl": "http://127.0.0.1/1/priced"},
            "SendMessageBatch": {
                "Successful": [{"Id": entry["Id"]} for entry in sent.get("Entries", [])],
                "Failed": [],
            },
            "BatchExecuteStatement": {"Responses": [{} for _ in sent.get("Statements", [])]},
        }.get(self.headers["X-Amz-Target"].rpartition(".")[2], {})
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the library
        pass


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def loaded(module: str, endpoint: str | None = None, *, path: Path = ROOT) -> tuple[Loaded, Loaded]:
    """What a new interpreter has loaded after importing a function's module, and after one record."""
    events = [event(message("m-1", {"order_id": "o-1"}))] if endpoint else []
    # Coverage hooks into child processes, and imports itself there.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "COV", "PYTEST_"))}
    lambdas = {
        "AWS_LAMBDA_FUNCTION_NAME": "price",
        "AWS_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL": endpoint or "",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "PYTHONPATH": os.pathsep.join([str(path), str(ROOT)]),
    }
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CHILD).format(module=module)],
        cwd=path, env={**kept, **lambdas}, input=json.dumps(events), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)
    return Loaded(frozenset(first)), Loaded(frozenset(second))


def over_budget(found: Loaded, packages: set[str], budget: int, budget_of_all: int) -> list[str]:
    """What is wrong with what was loaded, as sentences."""
    wrong = [f"imports {name}, which no function needs" for name in sorted(found.packages - packages)]
    wrong += [f"imports {name}, which no function needs" for name in sorted(found.modules & OURS_ELSEWHERE)]
    if len(found.counted) > budget:
        wrong.append(f"{len(found.counted)} modules of ours and of others; the budget is {budget}")
    if len(found.modules) > budget_of_all:
        wrong.append(f"{len(found.modules)} modules in all; the budget is {budget_of_all}")
    return wrong


@pytest.mark.parametrize("module", ["handlers.webhooks", "handlers.logs"])
def test_importing_a_functions_module_loads_little(module: str) -> None:
    imported, _ = loaded(module)

    assert "pipeline.app" in imported.modules
    assert over_budget(imported, AT_IMPORT, IMPORT_BUDGET, IMPORT_BUDGET_ALL) == []
    assert imported.standard & NOT_AT_IMPORT == set()


def test_the_first_record_loads_a_client_and_the_log_and_nothing_else(endpoint: str, tmp_path: Path) -> None:
    (tmp_path / "function.py").write_text(textwrap.dedent(SHOP))
    _, invoked = loaded("function", endpoint, path=tmp_path)

    assert "botocore.auth" in invoked.modules, "nothing was sent"
    assert over_budget(invoked, AT_FIRST_RECORD, RECORD_BUDGET, RECORD_BUDGET_ALL) == []


@pytest.mark.parametrize(
    "unwanted", ["rich", "moto", "click", "pydantic", "boto3", "pipeline.emulator", "pipeline.cli"]
)
def test_an_import_too_many_is_seen(unwanted: str, tmp_path: Path) -> None:
    (tmp_path / "function.py").write_text(f"import {unwanted}\n{textwrap.dedent(SHOP)}")
    imported, _ = loaded("function", path=tmp_path)
    wrong = over_budget(imported, AT_IMPORT, IMPORT_BUDGET, IMPORT_BUDGET_ALL)

    assert f"imports {unwanted}, which no function needs" in wrong


def test_modules_too_many_are_seen(tmp_path: Path) -> None:
    """Of packages that are allowed, and of the standard library."""
    more = "import botocore.session, xml.dom.minidom, http.server, email.mime.text\n"
    (tmp_path / "function.py").write_text(more + textwrap.dedent(SHOP))
    imported, _ = loaded("function", path=tmp_path)
    wrong = over_budget(imported, AT_FIRST_RECORD, IMPORT_BUDGET, IMPORT_BUDGET_ALL)

    budgets = [f"the budget is {IMPORT_BUDGET}", f"the budget is {IMPORT_BUDGET_ALL}"]
    assert [sentence.partition("; ")[2] for sentence in wrong] == budgets
    assert imported.standard & NOT_AT_IMPORT >= {"xml", "http", "email"}
