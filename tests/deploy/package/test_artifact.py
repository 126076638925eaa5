"""What `pipeline package` makes of a user's project, and that it runs where nothing else is installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline import sinks, stores
from pipeline.engine.environment import ProcessEnvironment
from tests.deploy.package.conftest import Built
from tests.deploy.package.projects import MACHINE, OWN, PYTHON, digest, done, make, names, package, shop, uv
from tests.flow.events import event, message

#: A Lambda environment as far as it matters here: the artifact's directories on the path, and nothing else.
RUN = """
import importlib, json, sys, time
module, attribute, directories, event = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), json.loads(sys.argv[4])
sys.path[:0] = directories

class Context:
    until = time.monotonic() + 30
    def get_remaining_time_in_millis(self):
        return int((self.until - time.monotonic()) * 1000)

handler = getattr(importlib.import_module(module), attribute)
response = handler(event, Context())
places = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
elsewhere = sorted(
    name for name, place in places.items()
    if place and name.partition(".")[0] not in sys.stdlib_module_names and not place.startswith(tuple(directories))
)
print(json.dumps({"response": response, "elsewhere": elsewhere}))
"""


def run(directories: list[Path], module: str, attribute: str, given: Any, **environment: str) -> dict[str, Any]:
    """The last line that the function's process printed."""
    paths = json.dumps([str(directory) for directory in directories])
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", RUN, module, attribute, paths, json.dumps(given)],
        cwd=directories[0],
        env={**{name: value for name, value in os.environ.items() if name.startswith("AWS_")}, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_packages_that_the_target_imports_are_there_with_their_data(artifact: Built) -> None:
    found = names(artifact.directory)

    assert {*OWN} <= found
    assert {"pipeline/handler.py", "aiobotocore/session.py", "orjson/__init__.py"} <= found


def test_nothing_is_there_that_the_function_cannot_use(artifact: Built) -> None:
    found = names(artifact.directory)
    tops = {name.partition("/")[0] for name in found}

    assert [name for name in found if name.startswith("shop/")] == [
        name for name in found if name in OWN and "shop" in name
    ]
    assert not {"unused.py", "other", "tests", "helper.py", "bin", ".lock", ".venv", "pyproject.toml"} & tops
    assert not {"pipeline/cli", "pipeline/deploy", "pipeline/emulator", "pipeline/testing"} & {
        "/".join(name.split("/")[:2]) for name in found
    }
    assert [name for name in found if name.endswith((".pyi", ".pyx", ".c"))] == []
    assert [name for name in found if "/tests/" in name] == []
    assert {Path(name).name for name in found if ".dist-info/" in name and "licen" not in name.lower()} <= {
        *("METADATA", "RECORD", "entry_points.txt", "top_level.txt", "NOTICE", "NOTICE.txt"),
    }


def test_models_are_kept_of_the_services_that_are_named(artifact: Built) -> None:
    kept = {path.name for path in (artifact.directory / "botocore/data").iterdir() if path.is_dir()}

    assert {"dynamodb", "events", "kinesis", "s3", "sqs", "sts"} <= kept, "the toolkit's own"
    assert "translate" in kept, "[tool.pipeline] services"
    assert "polly" in kept, "a word in the project's settings"
    assert not {"ec2", "sagemaker", "cloudformation"} & kept
    assert len(kept) < 60


def test_calls_of_records_find_their_endpoints_by_what_is_kept(artifact: Built) -> None:
    command = (
        f"import sys; sys.path[:0] = [{str(artifact.directory)!r}]\n"
        "from pipeline.aws import calls, settings\n"
        "print(*(calls.Endpoints(name, settings.from_environment(), signing_name=name).usual.url for name in calls.SERVICES))"
    )
    variables = {"AWS_REGION": "cn-north-1", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    found = subprocess.run(
        [sys.executable, "-I", "-S", "-c", command], capture_output=True, text=True, check=False, env=variables
    )

    names = ("dynamodb", "events", "kinesis", "sqs")
    assert found.stdout.split() == [f"https://{name}.cn-north-1.amazonaws.com.cn/" for name in names], found.stderr


def test_a_service_whose_model_is_not_there_is_named_at_once(artifact: Built) -> None:
    command = (
        f"import sys; sys.path[:0] = [{str(artifact.directory)!r}]; from botocore.session import get_session\n"
        "get_session().create_client('ec2', region_name='eu-west-1')"
    )
    found = subprocess.run([sys.executable, "-I", "-S", "-c", command], capture_output=True, text=True, check=False)

    assert "UnknownServiceError: Unknown service: 'ec2'. Valid service names are: " in found.stderr


def test_it_says_what_is_in_it(artifact: Built) -> None:
    lines = artifact.said.splitlines()

    assert [line.partition(":")[0] for line in lines] == [
        *("dependencies", "code", "note", "AWS service models", "bytecode", "size")
    ]
    assert f"for {MACHINE}, Python {PYTHON}, from requirements.txt" in lines[0]
    assert lines[1] == "code: clock, shop, templates"
    assert "helper, which requirements.txt does not install" in lines[2]


async def _made(unique: str, environment: ProcessEnvironment) -> None:
    """What the handler of the project uses."""
    for resource in (
        stores.DynamoDB(f"{unique}-idempotency"),
        sinks.DynamoDB(f"{unique}-ledger", partition_key="order_id"),
        sinks.SQS(f"{unique}-invoices"),
        sinks.Kinesis(f"{unique}-lines", partition_key="order_id"),
        sinks.S3(f"{unique}-archive"),
    ):
        await resource.create(environment)


@pytest.mark.skipif(sys.platform != "linux", reason="the artifact is for Linux")
@pytest.mark.parametrize("form", ["whole", "layer and code"])
async def test_it_runs_where_nothing_else_is_installed(
    form: str,
    artifact: Built,
    parts: dict[str, Path],
    aws: str,
    environment: ProcessEnvironment,
    unique: str,
    tmp_path: Path,
) -> None:
    """Every integration's client is made and used: a service model that is missing would fail the record."""
    await _made(unique, environment)
    whole = form == "whole"
    helper = tmp_path / "helper.py"  # the note said that nobody installs it
    helper.write_text('NAME = "helper"\n')
    directories = [artifact.directory] if whole else [parts["code"], parts["dependencies"] / "python"]
    order = message("m", {"order_id": "1", "sku": "tea"})

    found = run([*directories, tmp_path], "shop.orders", "price", event(order), SHOP=unique)

    assert found == {"response": {"batchItemFailures": []}, "elsewhere": []}


def test_bytecode_is_taken_as_it_is(artifact: Built, tmp_path: Path) -> None:
    """The sources' times and contents are not looked at, so nothing is compiled at a cold start."""
    copy = shutil.copytree(artifact.directory, tmp_path / "copy")
    for source in (copy / "clock.py", copy / "msgspec" / "__init__.py"):
        source.write_text("raise SystemExit('compiled anew')\n")
    command = f"import sys; sys.path[:0] = [{str(copy)!r}]; import clock, msgspec; print(clock.NOON)"
    found = subprocess.run([sys.executable, "-I", "-S", "-c", command], capture_output=True, text=True, check=False)

    assert found.stdout == "12\n", found.stderr


def test_bytecode_names_the_places_where_lambda_mounts_it(artifact: Built, parts: dict[str, Path]) -> None:
    places = {
        artifact.directory: "/var/task/",
        parts["code"]: "/var/task/",
        parts["dependencies"]: "/opt/",
    }
    for directory, mounted in places.items():
        for path in directory.rglob("*.pyc"):
            module = path.parent.parent.relative_to(directory) / f"{path.name.partition('.')[0]}.py"
            assert f"{mounted}{module}".encode() in path.read_bytes()
            assert str(directory).encode() not in path.read_bytes()


def test_the_same_input_gives_the_same_bytes(artifact: Built, wheel: Path, tmp_path: Path) -> None:
    """Elsewhere, later, with other permissions and another order on disk."""
    before = os.umask(0o077)
    try:
        project = shop(tmp_path / "elsewhere", **{"requirements.txt": f"{wheel}\n"})
        done(package(project, tmp_path / "artifact"))
    finally:
        os.umask(before)

    assert digest(tmp_path / "artifact") == digest(artifact.directory)
    assert {oct(path.stat().st_mode & 0o777) for path in (tmp_path / "artifact").rglob("*")} == {"0o755", "0o644"}


def test_a_changed_source_changes_only_itself(parts: dict[str, Path], wheel: Path, tmp_path: Path) -> None:
    project = shop(tmp_path / "project", **{"requirements.txt": f"{wheel}\n", "clock.py": "NOON = 13\n"})
    done(package(project, tmp_path / "code", "--part", "code"))
    old = {path.relative_to(parts["code"]): path for path in parts["code"].rglob("*") if path.is_file()}
    changed = {name.name for name, path in old.items() if path.read_bytes() != (tmp_path / "code" / name).read_bytes()}

    assert changed == {"clock.py", f"clock.{sys.implementation.cache_tag}.pyc"}


def test_the_parts_make_the_whole(artifact: Built, parts: dict[str, Path]) -> None:
    code, layer = names(parts["code"]), names(parts["dependencies"])

    assert code == {*OWN}
    assert all(name.startswith("python/") for name in layer)
    assert code | {name.removeprefix("python/") for name in layer} == names(artifact.directory)


def test_dependencies_come_from_the_lock_file_for_another_platform(wheel: Path, tmp_path: Path) -> None:
    """The toolkit's own wheel stands in it by its path, as a private one would."""
    shutil.copy(wheel, tmp_path)
    files = {
        "pyproject.toml": '[project]\nname = "shop"\nversion = "1"\nrequires-python = ">=3.11"\n'
        'dependencies = ["fanout-pipeline"]\n[dependency-groups]\ndev = ["iniconfig"]\n'
        f'[tool.uv.sources]\nfanout-pipeline = {{ path = "../{wheel.name}" }}\n',
        "requirements.txt": "this-is-not-read\n",
    }
    project = shop(tmp_path / "project", **files)
    uv("lock", "--quiet", cwd=project)
    other = "aarch64" if MACHINE == "x86_64" else "x86_64"
    said = done(
        package(project, tmp_path / "artifact", "shop.orders", "--platform", other, "--python", "3.13", "--part", "all")
    )

    found = names(tmp_path / "artifact")
    assert "from uv.lock" in said.splitlines()[0]
    assert any(name.endswith(f".cpython-313-{other}-linux-gnu.so") for name in found)
    assert not any(f"-{MACHINE}-" in name for name in found)
    assert {"shop/orders.py", "pipeline/handler.py"} <= found
    assert "templates/letter.txt" not in found
    assert "iniconfig/__init__.py" not in found, "of a group for development"


@pytest.mark.skipif(sys.platform != "linux", reason="the artifact is for Linux")
async def test_this_repositorys_makefile_builds_functions_that_run(
    aws: str, environment: ProcessEnvironment, tmp_path: Path
) -> None:
    target = tmp_path / "artifact"
    target.mkdir()  # SAM makes it before
    make("build-WebhooksTimelineFunction", target)
    await stores.DynamoDB("webhooks-idempotency").create(environment)
    await sinks.DynamoDB("repository-timeline", partition_key="repository", sort_key="delivery").create(environment)
    moment = {"delivery": "push/1", "event": "push", "action": None, "repository": "a/b", "sender": None}
    fifo = {"MessageGroupId": "a/b", "SequenceNumber": "1"}

    found = run([target], "handlers.webhooks", "timeline", event(message("m", moment, attributes=fifo)))

    assert found == {"response": {"batchItemFailures": []}, "elsewhere": []}
    assert {path.name for path in target.iterdir()} >= {"handlers", "pipeline"}
