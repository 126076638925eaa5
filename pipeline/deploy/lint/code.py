"""What can be known of a function's code without running it: from the pipelines' declarations, or from its source.

Python only. The source is read, never imported. What cannot be told stays unknown: a handler may get its answer from
somewhere that is not seen.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.deploy.lint.nodes import Call, Scalar
from pipeline.engine.stage import Stage

if TYPE_CHECKING:
    from pipeline.deploy.lint.model import Function, Model

#: The key of the answer, and what of Powertools makes it (its batch utility, version 3).
_REPORTING = {
    "batchItemFailures", "process_partial_response", "async_process_partial_response", "BatchProcessor",
    "AsyncBatchProcessor", "SqsFifoPartialProcessor", "BasePartialProcessor", "BasePartialBatchProcessor",
    "BaseBatchProcessor", "BasePartialBatchProcessorAsync", "batch_processor", "async_batch_processor",
}  # fmt: skip
#: Decorators that leave the answer as it is (Powertools, X-Ray, the standard library).
_TRANSPARENT = {
    "inject_lambda_context", "capture_lambda_handler", "capture_method", "log_metrics", "event_source", "event_parser",
    "lru_cache", "cache", "capture",
}  # fmt: skip
#: Modules that take aggregated records of Kinesis apart.
_DEAGGREGATING = re.compile(r"aws_kinesis_agg|de_?aggregat", re.IGNORECASE)
#: How boto3 runs PartiQL, and other services' calls of the same names.
_STATEMENTS = {"execute_statement", "batch_execute_statement", "execute_transaction"}
_OTHER_STATEMENTS = {"rds-data", "redshift-data"}
_MODULE = re.compile(r"[A-Za-z0-9_./-]{1,400}")
#: Source files that one function's handler is looked for in, and bytes of each: enough for any handler.
_MOST_FILES = 40
_MOST_BYTES = 1_000_000


@dataclass(frozen=True)
class Code:
    """What a handler does, as far as it can be told.

    `reports`: it names the records that failed (`batchItemFailures`); None where that is not known. `is_toolkit`: it is
    a handler of this toolkit; `stage`: that one, where a target was given. `reads_aggregates`: it takes aggregated
    records apart. `runs_statements`: it calls DynamoDB with PartiQL.
    """

    reports: bool | None = None
    is_toolkit: bool = False
    reads_aggregates: bool = False
    runs_statements: bool = False
    stage: Stage | None = None


UNKNOWN_CODE = Code()


class Finder:
    """Looks at the code of a template's functions. `directory`: the template's, which CodeUri is relative to."""

    def __init__(self, directory: Path, stages: Sequence[Stage] = ()) -> None:
        self._directory = directory
        self._stages = {f"{stage.function.__module__}.{stage.name}": stage for stage in stages}
        self._read: dict[tuple[str, str], Code] = {}

    def find(self, model: Model) -> dict[str, Code]:
        """What is known of each function, by its logical id."""
        return {function.id: self._of(function) for function in model.functions.values()}

    def _of(self, function: Function) -> Code:
        handler = function.handler.value or ""
        stage = self._stages.get(handler.replace("/", "."))
        if stage is not None:
            return Code(reports=True, is_toolkit=True, stage=stage)
        if not (function.runtime.value or "").startswith("python") or not _MODULE.fullmatch(handler):
            return UNKNOWN_CODE
        inline = _inline(function)
        if inline is not None:
            return examine(inline, handler.rpartition(".")[2])
        folder = _folder(function)
        if folder is None:
            return UNKNOWN_CODE
        key = (folder, handler)
        if key not in self._read:
            self._read[key] = _from_files(self._directory / folder, handler)
        return self._read[key]


def examine(source: str, name: str, beside: Callable[[ast.Module, set[str]], Iterator[str]] | None = None) -> Code:
    """What a module's handler does. `beside`: the sources of modules that it may call, by the names that it uses."""
    tree = _parsed(source)
    if tree is None:
        return UNKNOWN_CODE
    if _is_toolkit(tree, name):
        return Code(reports=True, is_toolkit=True)
    words = _reached(tree, name)
    neighbours = list(beside(tree, words)) if beside is not None else []
    for other in filter(None, map(_parsed, neighbours)):
        words |= set(_words(other))
    aggregates = any(_DEAGGREGATING.search(word) for word in words)
    statements = bool(words & _STATEMENTS) and "dynamodb" in words and not words & _OTHER_STATEMENTS
    if words & _REPORTING:
        return Code(reports=True, reads_aggregates=aggregates, runs_statements=statements)
    function = _function(tree, name)
    is_silent = function is not None and not _is_wrapped(function) and all(map(_is_plain, _returned(function)))
    reports = False if is_silent else None
    return Code(reports=reports, reads_aggregates=aggregates, runs_statements=statements)


def _reached(tree: ast.Module, name: str) -> set[str]:
    """The words of what a name of a module is made of, and of what that uses: one module may hold several handlers."""
    bound: dict[str, list[ast.stmt]] = {}
    for statement in tree.body:
        for one in _bound(statement):
            bound.setdefault(one, []).append(statement)
    found, waiting = set[str](), [name]
    done = set[str]()
    while waiting:
        one = waiting.pop()
        if one in done:
            continue
        done.add(one)
        for statement in bound.get(one, ()):
            words = set(_words(statement))
            found |= words
            waiting.extend(words)
    return found


def _bound(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement of a module gives a meaning to, in whichever block of it they stand."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
        return
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.alias):
            yield _alias(node)


def _alias(node: ast.alias) -> str:
    return node.asname or node.name.partition(".")[0]


def _parsed(source: str) -> ast.Module | None:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _words(tree: ast.AST) -> Iterator[str]:
    """Every name and text, except docstrings and other texts that stand alone: those do nothing."""
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.alias):
            yield from (node.name, node.name.rpartition(".")[2])
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.arg
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
            # In a text too: `json.loads('{"batchItemFailures": []}')`.
            yield "batchItemFailures" if "batchItemFailures" in node.value else node.value[:200]


def _function(tree: ast.Module, name: str) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    found = [
        node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name
    ]
    return found[-1] if found else None


def _is_toolkit(tree: ast.Module, name: str) -> bool:
    """`from pipeline import Pipeline`, and the function under `@<something>.handler(...)`."""
    imports = any(
        isinstance(node, ast.ImportFrom)
        and node.module == "pipeline"
        and any(one.name == "Pipeline" for one in node.names)
        for node in ast.walk(tree)
    )
    function = _function(tree, name)
    decorators = function.decorator_list if function is not None else []
    return imports and any(
        isinstance(one, ast.Call) and isinstance(one.func, ast.Attribute) and one.func.attr == "handler"
        for one in decorators
    )


def _is_wrapped(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a decorator may turn the answer into another one."""
    for one in function.decorator_list:
        called = one.func if isinstance(one, ast.Call) else one
        name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
        if name not in _TRANSPARENT:
            return True
    return False


def _returned(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[ast.expr | None]:
    """What the function itself returns; not what functions in it do. A generator's answer is not known."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            continue
        if isinstance(node, ast.Return):
            yield node.value
        elif isinstance(node, ast.Yield | ast.YieldFrom):
            yield node
        waiting.extend(ast.iter_child_nodes(node))


def _is_plain(value: ast.expr | None) -> bool:
    """An answer that is seen whole: nothing, a constant, or a dictionary whose keys are written out."""
    if isinstance(value, ast.Dict):
        return all(isinstance(key, ast.Constant) for key in value.keys)
    return value is None or isinstance(value, ast.Constant | ast.JoinedStr)


def _inline(function: Function) -> str | None:
    """The source that stands in the template itself."""
    properties = function.resource.properties
    for found in (properties.get("InlineCode"), properties.section("Code").get("ZipFile")):
        node = found.argument if isinstance(found, Call) and found.name == "Fn::Sub" else found
        if isinstance(node, Scalar) and isinstance(node.value, str):
            return node.value
    return None


def _folder(function: Function) -> str | None:
    """CodeUri, or what `aws cloudformation package` takes in its place, if it is a local path."""
    name = "CodeUri" if function.is_sam else "Code"
    found = function.resource.properties.text(name)
    if not found.given:
        return "." if function.is_sam else None
    text = found.value
    return None if text is None or "://" in text or "\0" in text or len(text) > 1_000 else text


def _from_files(folder: Path, handler: str) -> Code:
    module, _, name = handler.rpartition(".")
    path = folder / f"{module.replace('.', '/')}.py"
    if not path.is_file():
        path = folder / module.replace(".", "/") / "__init__.py"
    source = _text(path)
    if source is None:
        return UNKNOWN_CODE
    return examine(source, name, lambda tree, words: _neighbours(folder, path, tree, words))


def _neighbours(folder: Path, path: Path, tree: ast.Module, used: set[str]) -> Iterator[str]:
    """The sources of what a handler uses from its own function's folder, and of all that those import."""
    seen = {path}
    waiting = [(path, tree)]
    while waiting and len(seen) < _MOST_FILES:
        here, module = waiting.pop()
        for found in _imported(folder, here, module, used if here == path else None):
            if found not in seen and (content := _text(found)) is not None:
                seen.add(found)
                yield content
                if (inner := _parsed(content)) is not None:
                    waiting.append((found, inner))


def _imported(folder: Path, here: Path, tree: ast.Module, used: set[str] | None) -> Iterator[Path]:
    """The files that a module imports; only for the names that are used, where those are given."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        aliases = [one for one in node.names if used is None or one.name == "*" or _alias(one) in used]
        if not aliases:
            continue
        roots = [folder, here.parent]
        names = [one.name for one in aliases]
        if isinstance(node, ast.ImportFrom):
            if node.level:
                roots = [here.parents[min(node.level, len(here.parents)) - 1]]
            base = node.module or ""
            names = [base, *(f"{base}.{name}".lstrip(".") for name in names if name != "*")]
        for root in roots:
            for name in filter(None, names):
                stem = root / name.replace(".", "/")
                yield from (one for one in (stem.with_suffix(".py"), stem / "__init__.py") if one.is_file())


def _text(path: Path) -> str | None:
    try:
        if path.stat().st_size > _MOST_BYTES:
            return None
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
