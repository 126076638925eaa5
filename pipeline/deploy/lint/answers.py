"""What a handler's source says of its answer: whether a value that it returns names the records that failed."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

AnyFunction: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef

KEY = "batchItemFailures"
#: What of Powertools' batch utility (version 3) gives the whole answer, and what has a method `response` for it.
_ANSWERING = {"process_partial_response", "async_process_partial_response"}
_PROCESSORS = {
    "BatchProcessor", "AsyncBatchProcessor", "SqsFifoPartialProcessor", "BasePartialProcessor",
    "BasePartialBatchProcessor", "BaseBatchProcessor", "BasePartialBatchProcessorAsync", "batch_processor",
    "async_batch_processor",
}  # fmt: skip
#: Decorators that leave the answer as it is (Powertools, X-Ray, the standard library).
_TRANSPARENT = {
    "inject_lambda_context", "capture_lambda_handler", "capture_method", "log_metrics", "event_source", "event_parser",
    "lru_cache", "cache", "capture", "batch_processor", "async_batch_processor",
}  # fmt: skip
#: What gives the answer of the call in it.
_RUNNING = {"run", "run_until_complete"}


def function_of(tree: ast.Module, name: str) -> AnyFunction | None:
    """The function that a module has under a name in the end."""
    found = [node for node in tree.body if isinstance(node, AnyFunction) and node.name == name]
    return found[-1] if found else None


def reports(tree: ast.Module, name: str, words: set[str], neighbours: Sequence[ast.Module] = ()) -> bool | None:
    """Whether a handler's answer names failed records: surely (True), surely not (False), or not to be told (None).

    `words`: what the handler is made of. `neighbours`: modules whose functions it may call.
    """
    function = function_of(tree, name)
    if function is None:
        return None
    try:
        found = _Answers((tree, *neighbours), has_processor=bool(words & _PROCESSORS)).of(function)
    except RecursionError:  # values in values, as nobody writes them
        return None
    return None if found is False and _is_wrapped(function) else found


@dataclass(frozen=True)
class _Answers:
    """Functions' answers. `modules`: where functions that are called are looked for."""

    modules: Sequence[ast.Module]
    has_processor: bool
    known: dict[int, bool | None] = field(default_factory=dict)  #: by function; None, too, while it is under way
    seen: set[tuple[int, str]] = field(default_factory=set)  #: names of functions: once is enough to find an answer

    def of(self, function: AnyFunction) -> bool | None:
        """Of all that a function returns; what one way through it names, it names."""
        if id(function) not in self.known:
            self.known[id(function)] = None
            self.known[id(function)] = _either([self._names(one, function) for one in _returned(function)])
        return self.known[id(function)]

    def _names(self, value: ast.expr | None, function: AnyFunction) -> bool | None:
        """Whether a value names records that failed; False for one that is seen whole."""
        if value is None or isinstance(value, ast.Constant | ast.JoinedStr):
            return False
        if isinstance(value, ast.Dict):
            return self._dictionary(value)
        if isinstance(value, ast.Await):
            return self._names(value.value, function)
        if isinstance(value, ast.IfExp):
            return _either([self._names(one, function) for one in (value.body, value.orelse)])
        if isinstance(value, ast.Name):
            return True if self._is_filled(value.id, function) else None
        return self._called(value, function) if isinstance(value, ast.Call) else None

    def _dictionary(self, value: ast.Dict) -> bool | None:
        for key, listed in zip(value.keys, value.values, strict=True):
            if key is not None and self._is_key(key):
                return None if _is_empty(listed) else True
        return False if all(isinstance(key, ast.Constant) for key in value.keys) else None

    def _is_key(self, key: ast.expr) -> bool:
        """The key itself, or a constant of the module that holds it."""
        if isinstance(key, ast.Constant):
            return key.value == KEY
        name = key.id if isinstance(key, ast.Name) else key.attr if isinstance(key, ast.Attribute) else ""
        return any(
            isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Constant)
            and node.value.value == KEY
            and any(isinstance(one, ast.Name) and one.id == name for one in node.targets)
            for module in self.modules
            for node in module.body
        )

    def _is_filled(self, name: str, function: AnyFunction) -> bool:
        """Whether a local name gets an answer that names records, or an empty one that is filled later."""
        if (id(function), name) in self.seen:
            return False
        self.seen.add((id(function), name))
        nodes = list(_own(function))
        for node in nodes:
            value, targets = _assigned(node)
            for target in targets if value is not None else ():
                is_item = (
                    isinstance(target, ast.Subscript) and _is_name(target.value, name) and self._is_key(target.slice)
                )
                if is_item and not _is_empty(value):
                    return True
                if not _is_name(target, name):
                    continue
                if self._names(value, function) or (self._holds_key(value) and _is_used(name, nodes)):
                    return True
        return False

    def _holds_key(self, value: ast.expr | None) -> bool:
        return isinstance(value, ast.Dict) and any(key is not None and self._is_key(key) for key in value.keys)

    def _called(self, call: ast.Call, function: AnyFunction) -> bool | None:
        listed = [one.value for one in call.keywords if one.arg == KEY]
        if listed:  # dict(batchItemFailures=...), or a class of that shape
            return None if _is_empty(listed[0]) else True
        name = self._original(_called_name(call))
        if name in _ANSWERING or (name == "response" and self.has_processor):
            return True
        if name in _RUNNING and call.args:
            return self._names(call.args[0], function)
        if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Call):  # Answer(...).model_dump()
            return True if self._names(call.func.value, function) else None
        found = [self.of(one) for module in self.modules if (one := function_of(module, name)) is not None]
        return _either(found) if found else None

    def _original(self, name: str) -> str:
        """The name that an import gives another one."""
        for node in ast.walk(self.modules[0]):
            if isinstance(node, ast.ImportFrom):
                for one in node.names:
                    if one.asname == name:
                        return one.name
        return name


def _either(found: Sequence[bool | None]) -> bool | None:
    if any(found):
        return True
    return None if None in found else False


def _is_wrapped(function: AnyFunction) -> bool:
    """Whether a decorator may turn the answer into another one."""
    for one in function.decorator_list:
        called = one.func if isinstance(one, ast.Call) else one
        name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
        if name not in _TRANSPARENT:
            return True
    return False


def _own(function: AnyFunction) -> Iterator[ast.AST]:
    """What stands in a function itself; not in functions in it."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, AnyFunction | ast.Lambda | ast.ClassDef):
            continue
        yield node
        waiting.extend(ast.iter_child_nodes(node))


def _returned(function: AnyFunction) -> Iterator[ast.expr | None]:
    """What a function returns. A generator's answer is not known."""
    for node in _own(function):
        if isinstance(node, ast.Return):
            yield node.value
        elif isinstance(node, ast.Yield | ast.YieldFrom):
            yield node


def _assigned(node: ast.AST) -> tuple[ast.expr | None, list[ast.expr]]:
    if isinstance(node, ast.Assign):
        return node.value, node.targets
    if isinstance(node, ast.AnnAssign | ast.NamedExpr):
        return node.value, [node.target]
    return None, []


def _is_used(name: str, nodes: Sequence[ast.AST]) -> bool:
    """Whether a name is read anywhere but where it is returned."""
    returned = {id(node.value) for node in nodes if isinstance(node, ast.Return)}
    return any(
        isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load) and id(node) not in returned
        for node in nodes
    )


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _is_empty(value: ast.expr | None) -> bool:
    """A list that is written out and has nothing in it, or no list at all."""
    return isinstance(value, ast.Constant) or (isinstance(value, ast.List | ast.Tuple) and not value.elts)


def _called_name(call: ast.Call) -> str:
    function = call.func
    return (
        function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
    )
