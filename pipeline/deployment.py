"""Where a handler runs when it is deployed: values only."""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Struct

from pipeline.errors import ConfigurationError

#: CodeDeploy's ways of shifting traffic between versions of a function.
CANARIES = (
    "Canary10Percent5Minutes",
    "Canary10Percent10Minutes",
    "Canary10Percent15Minutes",
    "Canary10Percent30Minutes",
    "Linear10PercentEvery1Minute",
    "Linear10PercentEvery2Minutes",
    "Linear10PercentEvery3Minutes",
    "Linear10PercentEvery10Minutes",
)

_VARIABLE = re.compile(r"[A-Za-z][A-Za-z0-9_]+")
#: What Lambda sets itself and lets nobody set ("Defined runtime environment variables", Lambda's guide, 2026).
_RESERVED = frozenset(
    {
        "AWS_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_DEFAULT_REGION",
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_INITIALIZATION_TYPE",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_LAMBDA_RUNTIME_API",
        "AWS_REGION",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "LAMBDA_RUNTIME_DIR",
        "LAMBDA_TASK_ROOT",
    }
)


class Function(Struct, frozen=True, kw_only=True):
    """An AWS Lambda function.

    `timeout`: seconds, 1 to 900. `memory`: MB, 128 to 10,240; 1,769 MB is one full vCPU.
    `environment`: variables for your own code; not for secrets, which everybody sees who may look at
    the function. `canary`: how CodeDeploy shifts the traffic to a new version, such as
    "Canary10Percent5Minutes"; it goes back by itself when the function's alarms ring. Default: all at once.
    Limits: Lambda quotas, 2026; all variables together take 4 KB.
    """

    timeout: int = 30
    memory: int = 512
    environment: Mapping[str, str] = {}
    canary: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.timeout <= 900:
            raise ConfigurationError(f"Function(timeout={self.timeout}): Lambda takes 1 to 900 seconds")
        if not 128 <= self.memory <= 10_240:
            raise ConfigurationError(f"Function(memory={self.memory}): Lambda takes 128 to 10,240 MB")
        if not isinstance(self.environment, Mapping):
            raise ConfigurationError(f"Function(environment={self.environment!r}): give a dict of texts")
        for name, value in self.environment.items():
            if not _VARIABLE.fullmatch(str(name)) or not isinstance(value, str):
                raise ConfigurationError(
                    f"Function(environment={{{name!r}: ...}}): give texts, by names of letters, digits and '_'"
                )
            if name in _RESERVED or name.startswith("PIPELINE_"):
                raise ConfigurationError(
                    f"Function(environment={{{name!r}: ...}}): Lambda or the toolkit sets that one: take another name"
                )
        if self.canary is not None and self.canary not in CANARIES:
            raise ConfigurationError(f"Function(canary={self.canary!r}): give one of {', '.join(CANARIES)}")
