"""`local`: a pipeline on an embedded AWS server, for a test."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.emulator.local import Declared, Local, RuntimeFactory


@asynccontextmanager
async def local(
    pipeline: Declared | Sequence[Declared],
    *,
    faults: int | None = None,
    endpoint_url: str | None = None,
    runtime: RuntimeFactory | None = None,
) -> AsyncGenerator[Local, None]:
    """Run a pipeline, or several, on this machine while the block lasts.

    It makes everything that the pipeline declares, and runs event source mappings that behave as
    AWS's do. Without `endpoint_url` an embedded moto server is started (needs the extra `local`),
    and idle waiting (back-offs, visibility timeouts, batching windows) is skipped while draining.
    With one, resources are made there when missing, nothing is reset, and waiting is real; streams
    are read from their `starting_position` each time, because checkpoints end with the run.
    `faults`: a seed; responses get lost, records come twice, and environments are killed between two
    steps. `runtime`: what runs a handler's invocations, instead of the one that is deployed.
    """
    from pipeline.emulator.local import Local

    async with Local(pipeline, faults=faults, endpoint_url=endpoint_url, skip_idle=True, runtime=runtime) as running:
        yield running
