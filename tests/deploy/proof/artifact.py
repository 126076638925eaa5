"""The artifact that a deployed function holds, unpacked from Lambda and run by AWS's own runtime client."""

from __future__ import annotations

import io
import sys
import urllib.request
import zipfile
from pathlib import Path
from typing import IO, Any

import awslambdaric

from tests.deploy.proof.ministack import MiniStack
from tests.deploy.proof.tools import clean_environment
from tests.flow.runtime_api import RuntimeClient

_START_AND_ANSWER_SECONDS = 60
#: Of the client itself; on Lambda they are a part of the runtime.
_CLIENT = ("awslambdaric", "runtime_client*", "simplejson", "snapshot_restore_py*")
#: What Lambda's path looks like. Nothing else is importable: `-I -S` leave only the standard library.
_BEGIN = """
import runpy, sys
sys.path[:0] = sys.argv[1].split(":")
sys.argv[1:] = sys.argv[2:]
runpy.run_module("awslambdaric", run_name="__main__")
"""


class Artifact:
    """What was uploaded for one function, as its execution environment has it: /var/task and /opt."""

    def __init__(self, aws: MiniStack, function: dict[str, Any], directory: Path) -> None:
        self._configuration = function["Configuration"]
        self.task, self._layers, self._client = directory / "task", directory / "opt", directory / "client"
        _unpack(function["Code"]["Location"], self.task)
        for layer in self._configuration.get("Layers", []):
            content = aws.client("lambda").get_layer_version_by_arn(Arn=layer["Arn"])["Content"]
            _unpack(content["Location"], self._layers)
        self._client.mkdir()
        installed = Path(awslambdaric.__file__).parent.parent
        for pattern in _CLIENT:
            for one in installed.glob(pattern):
                (self._client / one.name).symlink_to(one)

    @property
    def timeout(self) -> float:
        """Seconds that an invocation may take."""
        return float(self._configuration["Timeout"])

    def start(self, endpoint_url: str, output: IO[bytes]) -> RuntimeClient:
        """An execution environment with the deployed function's own variables, and this way to AWS."""
        configuration = self._configuration
        python = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
        paths = [self.task, self._layers / "python", self._layers / "python" / python, self._client]
        environment = clean_environment(
            **configuration["Environment"]["Variables"],
            AWS_ENDPOINT_URL=endpoint_url,
            AWS_LAMBDA_FUNCTION_NAME=configuration["FunctionName"],
            AWS_LAMBDA_FUNCTION_MEMORY_SIZE=str(configuration["MemorySize"]),
            AWS_LAMBDA_LOG_FORMAT=configuration["LoggingConfig"]["LogFormat"],
        )
        return RuntimeClient(
            configuration["Handler"],
            timeout=_START_AND_ANSWER_SECONDS,
            command=[sys.executable, "-I", "-S", "-c", _BEGIN, ":".join(str(path) for path in paths)],
            root=self.task,
            environment=environment,
            output=output,
        )


def _unpack(location: str, directory: Path) -> None:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(location, timeout=60) as response:
        zipfile.ZipFile(io.BytesIO(response.read())).extractall(directory)
