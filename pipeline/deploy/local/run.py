"""A template's functions behind their event source mappings, on this machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.deploy.local import making, project
from pipeline.deploy.local.functions import LocalFunction
from pipeline.deploy.local.mappings import LocalMapping
from pipeline.deploy.local.names import Names
from pipeline.deploy.local.problems import Problem
from pipeline.deploy.local.project import Project
from pipeline.emulator import plain
from pipeline.emulator.functions.environment import shared
from pipeline.emulator.functions.function import MAX_ENVIRONMENTS, Function, Sandbox
from pipeline.emulator.functions.process import Output, ProcessSandbox, to_stdout
from pipeline.emulator.functions.thread import ThreadSandbox
from pipeline.emulator.functions.thread import plain as plain_handler
from pipeline.emulator.server_run import ServerRun
from pipeline.errors import ConfigurationError


class TemplateRun(ServerRun):
    """What a SAM or CloudFormation template declares, with plain handlers too. Use it as an async context manager.

    Each function runs in processes of its own, by AWS's runtime client; with `in_process` in threads of this process,
    where a debugger reaches it. `output`: gets what the processes write, line by line. Raises `ConfigurationError` for a
    template with errors, or with nothing to run; what was left out and why is in `problems`.
    """

    def __init__(
        self,
        path: Path,
        parameters: Mapping[str, str] | None = None,
        *,
        in_process: bool = False,
        output: Output = to_stdout,
        endpoint_url: str | None = None,
        skip_idle: bool = False,
        time_scale: float = 1.0,
    ) -> None:
        self._read = partial(project.read, path, parameters)
        self.project = _checked(self._read())
        self.problems: tuple[Problem, ...] = self.project.problems
        self._in_process = in_process
        self._output = output
        self._functions: dict[str, Function] = {}
        super().__init__(endpoint_url=endpoint_url, skip_idle=skip_idle, time_scale=time_scale)

    @property
    def sources(self) -> dict[str, str]:
        """Each mapping's source, by the names that the report uses."""
        return {label: mapping.source for label, mapping in _labelled(self.project).items()}

    @property
    def directories(self) -> set[Path]:
        """Where the functions' sources are."""
        return {function.directory for function in self.project.functions.values()}

    def renew(self) -> None:
        """From now on functions run in new environments, with the code as it is now."""
        for name, function in self._functions.items():
            function.renew(self._sandbox(self.project.functions[name]))

    async def _open(self) -> None:
        self.project = _checked(self._read(endpoint=self.endpoint_url))
        made = await making.make(self.project, self._client)
        self.problems = (*self.project.problems, *made.problems)
        if self._in_process:
            self._stack.enter_context(shared(one.settings for one in self.project.functions.values()))
        for label, mapping in _labelled(self.project).items():
            await self._map(label, mapping, made.names[mapping.source])

    async def _client(self, service: str) -> Any:
        return self.client(service)

    async def _map(self, label: str, mapping: LocalMapping, source: Names) -> None:
        function = self._function(self.project.function_of(mapping))
        environment = self._backend.environment()
        self._stack.push_async_callback(environment.aclose)
        arn = source.stream_arn or source.arn
        opened = await plain.open_source(
            arn, mapping.source, function.settings, self._backend, environment, mapping.options
        )
        await self._run.map(label, opened, function, limit=MAX_ENVIRONMENTS)

    def _function(self, declared: LocalFunction) -> Function:
        """One for all mappings of a function: they share its environments and its reserved concurrency."""
        if declared.id not in self._functions:
            made = Function(declared.settings, self._sandbox(declared), self.clock)
            self._functions[declared.id] = made
            self._stack.push_async_callback(made.close)
        return self._functions[declared.id]

    def _sandbox(self, declared: LocalFunction) -> Callable[[], Sandbox]:
        if self._in_process:
            return lambda: ThreadSandbox(plain_handler(declared.handler))
        return lambda: ProcessSandbox(
            declared.handler,
            declared.settings,
            root=declared.directory,
            endpoint_url=self.endpoint_url,
            output=self._output,
        )


def _checked(found: Project) -> Project:
    errors = [str(problem) for problem in found.problems if problem.is_error]
    if errors:
        raise ConfigurationError("\n".join(errors))
    if not found.is_runnable:
        notes = "".join(f"\n{problem}" for problem in found.problems)
        raise ConfigurationError(
            f"{found.path}: there is nothing to run: no function has an event source mapping{notes}"
        )
    return found


def _labelled(found: Project) -> dict[str, LocalMapping]:
    """The enabled mappings by their functions' ids; with the source's where a function has several."""
    enabled = [mapping for mapping in found.mappings if mapping.is_enabled]
    times = Counter(mapping.function for mapping in enabled)
    return {
        mapping.function if times[mapping.function] == 1 else f"{mapping.function}.{mapping.source}": mapping
        for mapping in enabled
    }
