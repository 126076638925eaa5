"""The environment variables of a function: what Lambda sets, what it was declared with, and nothing of the developer's."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path

from pipeline.emulator import isolation
from pipeline.emulator.functions.context import VERSION, log_group
from pipeline.emulator.functions.function import FunctionSettings
from pipeline.errors import ConfigurationError

#: What a Python process of this machine needs to run at all.
_KEPT = frozenset(
    {
        *("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR"),
        *("PYTHONHOME", "PYTHONPATH"),
    }
)
_MEASURING = "COVERAGE_"
#: Declared variables that would lead the AWS libraries elsewhere than to the local endpoint.
_LEADING_AWAY = ("AWS_ENDPOINT_URL", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "AWS_PROFILE", "AWS_DEFAULT_PROFILE")


def variables(settings: FunctionSettings, handler: str, root: Path, endpoint_url: str, stream: str) -> dict[str, str]:
    """All environment variables of a function's process, but the address of its runtime API.

    As in Lambda nothing is inherited, so that a variable that is not declared is missing here too; and it is UTC.
    Raises `ConfigurationError` for an endpoint of AWS's.
    """
    isolation.check_endpoint(endpoint_url)
    kept = {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith(_MEASURING)}
    return {
        "TZ": ":UTC",
        **kept,
        **_declared(settings),
        **isolation.variables(endpoint_url),
        **_lambdas(settings, handler, root),
        "AWS_LAMBDA_LOG_STREAM_NAME": stream,
    }


def in_thread(settings: FunctionSettings, handler: str) -> dict[str, str]:
    """What a function in a thread finds beside the process's own variables, while it works."""
    return {**_declared(settings), **_lambdas(settings, handler, Path.cwd())}


def _declared(settings: FunctionSettings) -> dict[str, str]:
    return {name: value for name, value in settings.environment.items() if not name.startswith(_LEADING_AWAY)}


def _lambdas(settings: FunctionSettings, handler: str, root: Path) -> dict[str, str]:
    return {
        "_HANDLER": handler,
        "LAMBDA_TASK_ROOT": str(root),
        "AWS_EXECUTION_ENV": f"AWS_Lambda_python{sys.version_info.major}.{sys.version_info.minor}",
        "AWS_LAMBDA_FUNCTION_NAME": settings.name,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(settings.memory),
        "AWS_LAMBDA_FUNCTION_VERSION": VERSION,
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": log_group(settings.name),
    }


@contextmanager
def shared(functions: Iterable[FunctionSettings]) -> Generator[None, None, None]:
    """Set what functions in threads are declared with in this process; put back what stood there before.

    Raises `ConfigurationError` where two functions want different values: one process has one.
    """
    wanted = _united(functions)
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _united(functions: Iterable[FunctionSettings]) -> Mapping[str, str]:
    united: dict[str, str] = {}
    owners: dict[str, str] = {}
    for function in functions:
        for name, value in function.environment.items():
            if name.startswith(_LEADING_AWAY):
                continue
            if united.setdefault(name, value) != value:
                raise ConfigurationError(
                    f"{owners[name]} and {function.name} are declared with different values of {name}: in one process "
                    "there is one. Run them in processes of their own"
                )
            owners.setdefault(name, function.name)
    return united
