"""Where a handler runs when it is deployed: values only."""

from __future__ import annotations

from msgspec import Struct

from pipeline.errors import ConfigurationError


class Function(Struct, frozen=True, kw_only=True):
    """An AWS Lambda function.

    `timeout`: seconds, 1 to 900. `memory`: MB, 128 to 10,240; 1,769 MB is one full vCPU.
    Limits: Lambda quotas, 2026.
    """

    timeout: int = 30
    memory: int = 512

    def __post_init__(self) -> None:
        if not 1 <= self.timeout <= 900:
            raise ConfigurationError(f"Function(timeout={self.timeout}): Lambda takes 1 to 900 seconds")
        if not 128 <= self.memory <= 10_240:
            raise ConfigurationError(f"Function(memory={self.memory}): Lambda takes 128 to 10,240 MB")
