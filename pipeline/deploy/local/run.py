"""A template's functions behind their event source mappings, on this machine."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pipeline.deploy.local import in_process, making, project
from pipeline.deploy.local.functions import LocalFunction
from pipeline.deploy.local.mappings import LocalMapping
from pipeline.deploy.local.names import Names
from pipeline.deploy.local.once import Once
from pipeline.deploy.local.problems import Problem
from pipeline.deploy.local.project import Project
from pipeline.emulator import plain
from pipeline.emulator import reload as files
from pipeline.emulator.functions.environment import shared
from pipeline.emulator.functions.function import MAX_ENVIRONMENTS, Function, FunctionSettings, Sandbox
from pipeline.emulator.functions.process import Output, ProcessSandbox, to_stdout
from pipeline.emulator.functions.thread import ThreadSandbox
from pipeline.emulator.report import Tally
from pipeline.emulator.server_run import ServerRun
from pipeline.errors import ConfigurationError


@dataclass(frozen=True)
class _Mapped:
    """What a mapping is run with. Another one is run when any of it is changed."""

    mapping: LocalMapping
    source: Names
    source_name: str  #: what it is fed and reported by
    function: FunctionSettings


class TemplateRun(ServerRun):
    """What a SAM or CloudFormation template declares, with plain handlers too. Use it as an async context manager.

    Each function runs in processes of its own, by AWS's runtime client. With `in_process` they run in threads of this
    process, where a debugger reaches them: one invocation of each at a time, none of them ended at its timeout, and the
    directories of their sources first on `sys.path`. `output`: gets what the processes write, line by line. Raises
    `ConfigurationError` for a template with errors, or with nothing to run; what was left out and why is in `problems`,
    also a mapping that Lambda would refuse beside others that run.
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
        self.path = path
        self._read = partial(project.read, path, parameters)
        self._in_process = in_process
        self._output = output
        self.project = self._checked(self._read())
        self.problems: tuple[Problem, ...] = self.project.problems
        self._mapped: dict[str, _Mapped] = {}
        self._tallies: dict[str, Tally] = {}
        self._variables = ExitStack()
        super().__init__(endpoint_url=endpoint_url, skip_idle=skip_idle, time_scale=time_scale)

    @property
    def sources(self) -> dict[str, str]:
        """Each mapping's source, by the names that the report uses."""
        names = self.project.source_names
        return {label: names[mapping.source] for label, mapping in _labelled(self.project).items()}

    @property
    def directories(self) -> frozenset[Path]:
        """Where the functions' sources are."""
        return _directories(self.project)

    async def renew(self, edited: Collection[Path] = ()) -> None:
        """Go on with the template and the functions' code as they are now. `edited`: files that changed.

        Functions run in new environments; what runs ends in the old ones. The queues stay as they are, with what stands
        in them. A mapping that is new, or is declared in another way, begins anew, so that a stream is read from its
        starting position; one that is gone is ended. Raises `ConfigurationError` or `ReloadError`, and then the old code
        and the old mappings go on.
        """
        found = self._checked(self._read(endpoint=self.endpoint_url))
        files.check_syntax(edited)
        made = await self._make(found)
        if self._in_process:
            self._share(found)
            try:
                in_process.reload(found.functions.values())
            except BaseException:
                self._share(self.project)
                raise
        self.project = found
        self.problems = (*found.problems, *made.problems)
        await self._remap(made.names)

    async def _open(self) -> None:
        self.project = self._checked(self._read(endpoint=self.endpoint_url))
        made = await self._make(self.project)
        self.problems = (*self.project.problems, *made.problems)
        if self._in_process:
            self._stack.callback(self._forget_modules)
            self._stack.callback(self._variables.close)
            self._share(self.project)
        await self._remap(made.names)

    async def _make(self, found: Project) -> making.Made:
        made = await making.make(found, self.client)
        # What is refused beside the sources is only told.
        if any(mapping.source in made.failed for mapping in _labelled(found).values()):
            raise ConfigurationError("\n".join(map(str, made.problems)))
        return made

    def _share(self, found: Project) -> None:
        """This process's environment variables and `sys.path`, for functions that run in it."""
        self._variables.close()
        self._variables.enter_context(shared(one.settings for one in found.functions.values()))
        self._variables.enter_context(in_process.importable(_directories(found)))

    def _forget_modules(self) -> None:
        for directory in self.directories:
            files.forget(directory)

    async def _remap(self, names: Mapping[str, Names]) -> None:
        """End the mappings that are gone or changed, renew the functions of the others, and begin those that are new."""
        wanted = {label: self._wanted(mapping, names) for label, mapping in _labelled(self.project).items()}
        gone = [label for label, mapped in self._mapped.items() if wanted.get(label) != mapped]
        await asyncio.gather(*map(self._unmap, gone))
        used = {mapped.mapping.function for mapped in self._mapped.values()}
        for name in self._functions.keys() - used:
            await self._functions.pop(name).close()
        for name, function in self._functions.items():
            function.renew(self._sandbox(self.project.functions[name]))
        for label, mapped in wanted.items():
            if label not in self._mapped:
                await self._map(label, mapped)

    def _wanted(self, mapping: LocalMapping, names: Mapping[str, Names]) -> _Mapped:
        settings = self.project.function_of(mapping).settings
        source_name = self.project.source_names[mapping.source]
        return _Mapped(replace(mapping, line=0), names[mapping.source], source_name, settings)

    async def _unmap(self, label: str) -> None:
        await self._run.unmap(label)
        del self._mapped[label]

    async def _map(self, label: str, mapped: _Mapped) -> None:
        mapping, source = mapped.mapping, mapped.source
        function = self._function(self.project.function_of(mapping))
        environment = self._backend.environment()
        self._stack.push_async_callback(environment.aclose)
        arn = source.stream_arn or source.arn
        opened = await plain.open_source(
            arn, mapped.source_name, function.settings, self._backend, environment, mapping.options
        )
        tally = self._tallies.setdefault(label, Tally())
        await self._run.map(label, opened, function, tally=tally, limit=self._limit)
        self._mapped[label] = mapped

    @property
    def _limit(self) -> int:
        """Invocations of a function at once: a debugger's prompt is for one."""
        return 1 if self._in_process else MAX_ENVIRONMENTS

    def _function(self, declared: LocalFunction) -> Function:
        """One for all mappings of a function: they share its environments and its reserved concurrency."""
        if declared.id not in self._functions:
            made = Function(
                declared.settings,
                self._sandbox(declared),
                self.clock,
                concurrency=self._limit,
                is_ended_late=not self._in_process,
            )
            self._functions[declared.id] = made
            self._stack.push_async_callback(made.close)
        return self._functions[declared.id]

    def _sandbox(self, declared: LocalFunction) -> Callable[[], Sandbox]:
        if self._in_process:
            runtimes = in_process.Runtimes(declared)
            return lambda: ThreadSandbox(runtimes)
        once = Once(self._output)
        return lambda: once.sandbox(partial(self._process, declared))

    def _process(self, declared: LocalFunction, output: Output) -> Sandbox:
        return ProcessSandbox(
            declared.handler, declared.settings, root=declared.directory, endpoint_url=self.endpoint_url, output=output
        )

    def _checked(self, found: Project) -> Project:
        errors = [problem for problem in found.problems if problem.is_error]
        # What keeps one mapping from running is told, and the others run.
        if not all(problem.is_confined for problem in errors) or (errors and not found.is_runnable):
            raise ConfigurationError("\n".join(map(str, errors)))
        if not found.is_runnable:
            notes = "".join(f"\n{problem}" for problem in found.problems)
            raise ConfigurationError(
                f"{found.path}: there is nothing to run: no function has an event source mapping{notes}"
            )
        if self._in_process:
            in_process.check(found.functions.values())
        return found


def _directories(found: Project) -> frozenset[Path]:
    return frozenset(function.directory for function in found.functions.values())


def _labelled(found: Project) -> dict[str, LocalMapping]:
    """The enabled mappings by their functions' ids; with the source's where a function has several."""
    enabled = [mapping for mapping in found.mappings if mapping.is_enabled]
    times = Counter(mapping.function for mapping in enabled)
    names = found.source_names
    return {
        mapping.function if times[mapping.function] == 1 else f"{mapping.function}.{names[mapping.source]}": mapping
        for mapping in enabled
    }
