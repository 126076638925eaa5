"""`Emulator`: AWS in memory and in virtual time, for plain Lambda handlers and for pipelines."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import UUID

from botocore.exceptions import ClientError
from botocore.session import get_session

from pipeline.app import Pipeline
from pipeline.emulator import plain, resources
from pipeline.emulator.backend import MemoryBackend
from pipeline.emulator.boto import boto3_in_memory
from pipeline.emulator.driver import Invocable
from pipeline.emulator.faults.inject import Bears, MemoryInjector, bears_of
from pipeline.emulator.faults.plan import Faults, faults_of
from pipeline.emulator.faults.rules import Rule
from pipeline.emulator.functions.engine import EngineSandbox
from pipeline.emulator.functions.environment import in_thread
from pipeline.emulator.functions.function import (
    MAX_ENVIRONMENTS,
    Function,
    FunctionSettings,
    Sandbox,
    function_settings,
)
from pipeline.emulator.functions.thread import ThreadSandbox
from pipeline.emulator.functions.thread import plain as plain_handler
from pipeline.emulator.local import labels
from pipeline.emulator.local_source import DeadLetterMessage, LocalSource
from pipeline.emulator.mappings.answers import Answer, Returned
from pipeline.emulator.report import Report, Tally
from pipeline.emulator.run import Run
from pipeline.emulator.services.memory import in_memory
from pipeline.emulator.services.service import REGION
from pipeline.emulator.services.topic import RETENTION
from pipeline.emulator.turns import Turns, TurnSandbox
from pipeline.emulator.virtual import VirtualClock, VirtualLoop
from pipeline.engine.stage import Stage
from pipeline.errors import ConfigurationError, PipelineError
from pipeline.handler import Handler
from pipeline.testing.resources import Bucket, Queue, Stream, Table, Topic

T = TypeVar("T")
MakeSandbox = Callable[[], Sandbox]
R = TypeVar("R", Queue, Stream, Table, Bucket)

#: Virtual seconds that a run takes at most, unless told otherwise: a queue keeps a message for 14 days at most.
_LONGEST = 15 * 86_400.0
#: The emulator that is open in this process: it stands in the place of AWS for all of it.
_opened: list[Emulator] = []


@dataclass(frozen=True)
class Invocation:
    """One invocation of a plain handler, as its mapping saw it."""

    at: float  #: virtual seconds since the emulator began
    event: Mapping[str, Any]
    answer: Answer

    @property
    def returned(self) -> Any:
        """What the handler returned; None when it did not."""
        return self.answer.payload if isinstance(self.answer, Returned) else None


@dataclass
class FunctionMapping:
    """A function behind a source."""

    name: str
    invocations: list[Invocation] = field(default_factory=list)


class Emulator:
    """Queues, streams, tables and buckets in memory, event source mappings true to AWS's, and functions behind them.

    Use it in `with`. Time is virtual: an hour of retries passes in milliseconds, and not at all between two calls of
    yours. While the block lasts, boto3's and aiobotocore's clients of this process call the services in memory, so that
    a plain handler finds the table that it writes to; none of their calls leaves the process. What a handler sends by
    other means, such as to a signed URL, is its own; it is signed with nobody's keys.

    `seed`: of all chance. The same seed gives the same run: plain handlers take turns, and one works at a time, except
    that others go on while it waits for a call. Threads of a handler's own are not told apart.
    `faults`: what goes wrong: a profile's name ("duplicates", "crashes", "throttles", "slow", "skew", "poison",
    "everything") by the seed, `Faults(seed, profile)`, or single ones such as `crash(after="handler")`. `run` brings
    the run to rest also then: nothing goes wrong after an hour of virtual time. The end of the block raises
    `PipelineError` for a single one that never happened, unless the block raised itself.
    """

    def __init__(self, *, seed: int = 0, faults: Faults | Rule | Iterable[Rule] | str | None = None) -> None:
        #: What goes wrong, and what has; None: nothing does.
        self.faults = faults_of(faults, seed)
        self._injector: MemoryInjector | None = None
        self._chance = random.Random(seed)
        self._runner = asyncio.Runner(loop_factory=VirtualLoop)
        self._stack = AsyncExitStack()
        self._around = ExitStack()
        self._backend: MemoryBackend | None = None
        self._run: Run | None = None
        self._is_closed = False
        self._functions: list[Function] = []
        self._turns = Turns()
        self._environments = itertools.count(1)  #: of functions in threads
        self._request_chance = random.Random(f"{seed}:request ids")
        self._plain: dict[str, _PlainFunction] = {}

    def __enter__(self) -> Self:
        if _is_in_loop():
            raise PipelineError("Emulator was opened inside a running event loop: write the test as a plain function")
        if self._is_closed or self._backend is not None:
            raise PipelineError("an Emulator is used once: make another one")
        if _opened:
            raise PipelineError("another Emulator is open in this process: one at a time")
        loop = self._runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        self._loop = loop
        self._backend = MemoryBackend(in_memory(self._chance, VirtualClock(loop).now), loop)
        with ExitStack() as around:
            around.enter_context(boto3_in_memory(self._backend, loop))
            if self.faults is not None:
                self._injector = MemoryInjector(self.faults, self._backend, loop, self._turns)
                self._stack.push_async_callback(self._injector.close)
            self._run = self._runner.run(self._open())
            self._around = around.pop_all()
        _opened.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self not in _opened:
            return  # it is closed already
        has_broken_unseen = kind is None and self._running.has_broken_unseen
        try:
            if kind is not None:  # a failed test does not wait for handlers
                self._do(self._end_invocations())
            self._do(self._stack.aclose())
        finally:
            self._is_closed = True
            _opened.remove(self)
            self._runner.close()
            self._around.close()
        if has_broken_unseen:
            self._running.check()
        if kind is None and self.faults is not None:
            self.faults.check_happened()

    # -- What there is.

    def queue(self, name: str, **attributes: Any) -> Queue:
        """A queue; FIFO when its name ends in `.fifo`. See `testing.Queue.create` for its attributes.

        Here as below: what is there already is found by its name alone, and with attributes it is made.
        """
        return self._found(Queue, name) if not attributes else Queue.create(self._memory, name, **attributes)

    def stream(self, name: str, **attributes: Any) -> Stream:
        """A Kinesis stream. `shards`: default 1. `throttles=True`: they take and give no more than AWS's do."""
        return self._found(Stream, name) if not attributes else Stream.create(self._memory, name, **attributes)

    def table(self, name: str, **attributes: Any) -> Table:
        """A DynamoDB table with keys of text.

        `partition_key`: default "id". `sort_key`: default none. `stream`: the view type of its stream, such as
        "NEW_AND_OLD_IMAGES"; default none.
        """
        return self._found(Table, name) if not attributes else Table.create(self._memory, name, **attributes)

    def bucket(self, name: str) -> Bucket:
        """An S3 bucket."""
        return self._found(Bucket, name)

    def topic(self, name: str, *, partitions: int = 1, retention: float = RETENTION) -> Topic:
        """A topic of a Kafka cluster. `retention`: seconds; default 7 days."""
        return Topic.create(self._memory, name, partitions=partitions, retention=retention)

    def client(self, service: str) -> Any:
        """A client as boto3's, whose calls go to memory as theirs do: `client("sqs").send_message(...)`.

        Raises `ConfigurationError` for a service that is not in memory.
        """
        self._check_open()
        self._memory.client(service)
        return get_session().create_client(service, region_name=REGION)

    # -- What runs.

    def map(
        self,
        source: Queue | Stream | Table | Topic,
        handler: Callable[[Any, Any], Any] | str,
        *,
        name: str | None = None,
        timeout: float = 3,
        memory: int = 128,
        reserved_concurrency: int | None = None,
        environment: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> FunctionMapping:
        """An event source mapping from a source to a plain Lambda handler, a function or its name ("app.handler").

        `name`: the function's; default: the handler's own. Several mappings of one handler are one function, with one
        reserved concurrency; the report then has each as "handler:queue", but for the first. `environment`: its
        variables; with Lambda's own (AWS_LAMBDA_FUNCTION_NAME and so on) they are the process's while it works. What is
        read when a module is imported is read before.

        `settings`: of the mapping, by the names of `QueueSettings`, `StreamSettings` and `KafkaSettings`, such as
        `batch_size=10, report_batch_item_failures=True`. `filter`: one pattern or several over the whole record, as in
        FilterCriteria: `{"body": {"kind": ["order"]}}`, `{"data": ...}`, `{"dynamodb": ...}`.

        Raises `ConfigurationError` for what AWS would refuse.
        """
        if isinstance(handler, Handler):
            raise ConfigurationError(f"'{handler.stage.name}' is a handler of a pipeline: add the pipeline instead")
        _check_source(source)
        called = name or _name_of(handler)
        function = FunctionSettings(
            name=called,
            timeout=timeout,
            memory=memory,
            environment=dict(environment or {}),
            reserved_concurrency=reserved_concurrency,
        )
        return self._do(self._map_plain(source, handler, function, settings))

    def add(self, *pipelines: Pipeline) -> None:
        """Everything that pipelines declare: their resources, made in memory, and a mapping for each handler."""
        self._do(self._add([stage for pipeline in pipelines for stage in pipeline.stages()]))

    def send(self, source: str, payloads: Sequence[Any], *, key: str | Callable[[Any], str] | None = None) -> None:
        """Send payloads to a source of a pipeline, by its logical name; see `local`'s `send`."""
        self._do(self._running.send(source, payloads, key=key))

    def dead_letters(self, source: str) -> list[DeadLetterMessage]:
        """What stands in the dead-letter queue of a pipeline's source, by its logical name; it stays there."""
        return self._do(self._running.dead_letters(source))

    def run(self, *, timeout: float = _LONGEST) -> Report:
        """Let time pass until every source is empty and nothing runs. Raises `DrainTimeout` after virtual seconds."""
        return self._do(self._running.drain(timeout))

    def advance(self, seconds: float) -> None:
        """Let so many virtual seconds pass, whatever is left then. Raises `PipelineError` when a mapping broke."""
        self._do(self._pass(seconds))

    @property
    def now(self) -> float:
        """Epoch seconds of virtual time."""
        return self._memory.clock.now()

    # -- How.

    @property
    def _memory(self) -> MemoryBackend:
        if self._backend is None:
            raise _not_started()
        return self._backend

    @property
    def _running(self) -> Run:
        if self._run is None:
            raise _not_started()
        return self._run

    def _found(self, kind: type[R], name: str) -> R:
        """What is there by this name, else a new one."""
        try:
            return kind.find(self._memory, name)
        except ClientError:
            return kind.create(self._memory, name)

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            self._check_open()
            if self._loop.is_running():
                raise PipelineError(
                    "the emulator is running, and this was called by a handler: call it when run() is over; "
                    "a handler's own clients call the services"
                )
        except PipelineError:
            work.close()
            raise
        return self._runner.run(work)

    def _check_open(self) -> None:
        if self._is_closed:
            raise PipelineError("this emulator is closed: use it in its 'with', and make another one for another run")
        if self._backend is None:
            raise _not_started()

    async def _pass(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._running.check()

    async def _end_invocations(self) -> None:
        await asyncio.gather(*(function.close() for function in self._functions))

    async def _open(self) -> Run:
        return Run(self._memory, self._stack)

    async def _map_plain(
        self,
        source: Queue | Stream | Table | Topic,
        handler: Callable[[Any, Any], Any] | str,
        settings: FunctionSettings,
        options: Mapping[str, Any],
    ) -> FunctionMapping:
        environment = self._memory.environment()
        self._stack.push_async_callback(environment.aclose)
        found = self._plain.get(settings.name)
        if found is not None:
            found.check(handler, settings, source)
        opened = await plain.open_source(source.arn, source.name, settings, self._memory, environment, options)
        if found is None:
            variables = in_thread(settings, handler if isinstance(handler, str) else settings.name)
            make, turn = self._plain_sandbox(handler, settings), partial(self._turns.turn, variables)
            found = self._plain[settings.name] = _PlainFunction(handler, self._function(settings, make, turn))
        found.sources.append(source.arn)
        label = self._label(settings.name, otherwise=f"{settings.name}:{source.name}")
        mapping = FunctionMapping(label)
        bears = Bears(options.get("maximum_retry_attempts"), takes_poison=options.get("on_failure") is not None)
        await self._map(label, opened, found.function, bears, kept=mapping.invocations)
        return mapping

    def _plain_sandbox(self, handler: Callable[[Any, Any], Any] | str, settings: FunctionSettings) -> MakeSandbox:
        def make() -> Sandbox:
            return ThreadSandbox(plain_handler(handler), next(self._environments))

        if self._injector is not None:
            return self._injector.plain(settings.name, make)
        return lambda: TurnSandbox(make(), self._turns)

    def _function(
        self,
        settings: FunctionSettings,
        make: MakeSandbox,
        turn: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
    ) -> Function:
        function = Function(settings, make, self._memory.clock, request_id=self._request_id, turn=turn)
        self._functions.append(function)
        self._stack.push_async_callback(function.close)
        return function

    def _request_id(self) -> str:
        return str(UUID(int=self._request_chance.getrandbits(128), version=4))

    def _label(self, wanted: str, *, otherwise: str) -> str:
        """What the report calls a mapping."""
        return otherwise if self._running.is_mapped(wanted) else wanted

    async def _add(self, stages: Sequence[Stage]) -> None:
        environment = self._memory.environment()
        self._stack.push_async_callback(environment.aclose)
        resources.check(stages)
        await resources.make(stages, environment)
        sources = await resources.open_sources(stages, environment, self._memory)
        for stage, label, source in zip(stages, labels(stages), sources, strict=True):
            await self._add_stage(stage, self._label(label, otherwise=stage.full_name), source)

    async def _add_stage(self, stage: Stage, label: str, source: LocalSource) -> None:
        tally = Tally()
        observers = [tally.observe]
        environment = partial(self._memory.environment, chance=self._chance)
        make: MakeSandbox = lambda: EngineSandbox(stage, environment, observers)  # noqa: E731
        if self._injector is not None:
            make = self._injector.engine(label, stage, observers)
        tells_letters = stage.dead_letters == stage.source.dead_letters
        function = self._function(function_settings(stage), make)
        await self._map(label, source, function, bears_of(stage), tally=tally, tells_letters=tells_letters)

    async def _map(
        self,
        label: str,
        source: LocalSource,
        function: Function,
        bears: Bears,
        *,
        kept: list[Invocation] | None = None,
        tally: Tally | None = None,
        tells_letters: bool = False,
    ) -> None:
        invocable: Invocable = function
        if self._injector is not None:
            called = None if kept is None else function.settings.name  # a handler of a pipeline goes by its label
            invocable = self._injector.invocable(label, function, source, bears, function=called)
        if kept is not None:
            invocable = _Recorded(invocable, kept, self._loop)
        mapped = await self._running.map(
            label, source, invocable, tally=tally, limit=MAX_ENVIRONMENTS, tells_letters=tells_letters
        )
        if self._injector is not None:
            self._injector.source(mapped, bears)


@dataclass
class _PlainFunction:
    """A plain handler's function, and the sources that are mapped to it."""

    handler: Callable[[Any, Any], Any] | str
    function: Function
    sources: list[str] = field(default_factory=list)

    def check(
        self,
        handler: Callable[[Any, Any], Any] | str,
        settings: FunctionSettings,
        source: Queue | Stream | Table | Topic,
    ) -> None:
        """Raise `ConfigurationError` unless it can be mapped to one more source."""
        if handler != self.handler:
            raise ConfigurationError(f"another function is called '{settings.name}' already: give this one name=")
        if settings != self.function.settings:
            raise ConfigurationError(
                f"'{settings.name}' is one function, and was mapped with {self.function.settings}: give the same, or name="
            )
        if source.arn in self.sources:
            raise ConfigurationError(
                f"'{settings.name}' is mapped to '{source.name}' already: Lambda refuses a second time"
            )


class _Recorded:
    """A function whose invocations are kept."""

    def __init__(self, function: Invocable, kept: list[Invocation], loop: VirtualLoop) -> None:
        self._function = function
        self._kept = kept
        self._loop = loop

    async def invoke(self, event: Any) -> Answer:
        at = self._loop.time()
        answer = await self._function.invoke(event)
        self._kept.append(Invocation(at, json.loads(json.dumps(event)), answer))
        return answer


def _not_started() -> PipelineError:
    return PipelineError("the emulator has not started: use it in 'with'")


def _check_source(source: object) -> None:
    """Raise `ConfigurationError` for what Lambda cannot read."""
    if isinstance(source, Table) and "/stream/" not in source.arn:
        raise ConfigurationError(
            f"the table '{source.name}' has no stream: make it with aws.table(name, stream=\"NEW_AND_OLD_IMAGES\")"
        )
    if isinstance(source, Bucket):
        raise ConfigurationError(
            f"the bucket '{source.name}' is no source of a mapping: let it notify a queue, and map that"
        )
    if not isinstance(source, Queue | Stream | Table | Topic):
        raise ConfigurationError(
            f"{source!r} is no source: give aws.queue(...), aws.stream(...), aws.table(...) or aws.topic(...)"
        )


def _name_of(handler: Callable[[Any, Any], Any] | str) -> str:
    name: str = handler if isinstance(handler, str) else getattr(handler, "__name__", "handler")
    return name.rpartition(".")[2]


def _is_in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
