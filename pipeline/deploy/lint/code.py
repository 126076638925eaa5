"""What can be known of a function's code without running it: from the pipelines' declarations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.engine.stage import Stage

if TYPE_CHECKING:
    from pipeline.deploy.lint.model import Function, Model


@dataclass(frozen=True)
class Code:
    """What a handler does, as far as it can be told.

    `reports`: it names the records that failed (`batchItemFailures`); None where that is not known. `is_toolkit`: it is
    a handler of this toolkit; `stage`: that one, where a target was given. `reads_aggregates`: it takes aggregated
    records apart.
    """

    reports: bool | None = None
    is_toolkit: bool = False
    reads_aggregates: bool = False
    stage: Stage | None = None


UNKNOWN_CODE = Code()


class Finder:
    """Looks at the code of a template's functions. `directory`: the template's, which CodeUri is relative to."""

    def __init__(self, directory: Path, stages: Sequence[Stage] = ()) -> None:
        self._directory = directory
        self._stages = {f"{stage.function.__module__}.{stage.name}": stage for stage in stages}

    def find(self, model: Model) -> dict[str, Code]:
        """What is known of each function, by its logical id."""
        return {function.id: self._of(function) for function in model.functions.values()}

    def _of(self, function: Function) -> Code:
        stage = self._stages.get((function.handler.value or "").replace("/", "."))
        if stage is not None:
            return Code(reports=True, is_toolkit=True, stage=stage)
        return UNKNOWN_CODE
