"""What can be known of a function's code without running it: from the pipelines' declarations, or from its source.

Python only. The source is read, never imported. What cannot be told stays unknown: a handler may get its answer from
somewhere that is not seen.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.deploy.lint import answers
from pipeline.deploy.lint.nodes import Call, Scalar
from pipeline.engine.stage import Stage

if TYPE_CHECKING:
    from pipeline.deploy.lint.model import Function, Model

#: Modules that take aggregated records of Kinesis apart.
_DEAGGREGATING = re.compile(r"aws_kinesis_agg|de_?aggregat", re.IGNORECASE)
#: How boto3 runs PartiQL, and other services' calls of the same names.
_STATEMENTS = {"execute_statement", "batch_execute_statement", "execute_transaction"}
_OTHER_STATEMENTS = {"rds-data", "redshift-data"}
_MODULE = re.compile(r"[A-Za-z0-9_./-]{1,400}")
#: Source files that one function's handler is looked for in, and bytes of each: enough for any handler.
_MOST_FILES = 40
_MOST_BYTES = 1_000_000
#: Modules that import a handler from one another.
_MOST_IMPORTS = 5


@dataclass(frozen=True)
class Code:
    """What a handler does, as far as it can be told.

    `reports`: a value that it returns names the records that failed (`batchItemFailures`), or surely none does; None
    where that is not known. `is_toolkit`: it is a handler of this toolkit; `stage`: that one, where a target was given. `reads_aggregates`: it takes aggregated
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
        path = handler.replace("/", ".")
        stage = self._stages.get(path) or self._loaded(path)
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

    def _loaded(self, path: str) -> Stage | None:
        """The handler that a module of the target has under another name, or from another module."""
        module, _, name = path.rpartition(".")
        function = getattr(getattr(sys.modules.get(module), name, None), "function", None)
        stages = self._stages.values() if function is not None else ()
        return next((one for one in stages if one.function is function), None)


def examine(source: str, name: str, beside: Callable[[ast.Module, set[str]], Iterator[str]] | None = None) -> Code:
    """What a module's handler does. `beside`: the sources of modules that it may call, by the names that it uses."""
    tree = _parsed(source)
    if tree is None:
        return UNKNOWN_CODE
    words = _reached(tree, name)
    neighbours = list(filter(None, map(_parsed, beside(tree, words)))) if beside is not None else []
    if _is_toolkit(tree, name, neighbours):
        return Code(reports=True, is_toolkit=True)
    for other in neighbours:
        words |= _all_words(other)
    return Code(
        reports=answers.reports(tree, name, words, neighbours),
        reads_aggregates=any(_DEAGGREGATING.search(word) for word in words),
        runs_statements=bool(words & _STATEMENTS) and "dynamodb" in words and not words & _OTHER_STATEMENTS,
    )


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


@lru_cache(maxsize=2 * _MOST_FILES)
def _parsed(source: str) -> ast.Module | None:
    """None for what is no Python. The functions of a template mostly import the same modules, so trees are kept; nothing
    changes them."""
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


@lru_cache(maxsize=2 * _MOST_FILES)
def _all_words(module: ast.Module) -> frozenset[str]:
    return frozenset(_words(module))


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
            yield node.value[:200]


def _is_toolkit(tree: ast.Module, name: str, neighbours: Sequence[ast.Module]) -> bool:
    """A function under `@<something>.handler(...)`, where that or what it is given is of this toolkit."""
    function = answers.function_of(tree, name)
    if function is None or not any(_imports_toolkit(one) for one in (tree, *neighbours)):
        return False
    return any(
        isinstance(one, ast.Call) and isinstance(one.func, ast.Attribute) and one.func.attr == "handler"
        for one in function.decorator_list
    )


def _imports_toolkit(tree: ast.Module) -> bool:
    """`import pipeline`, or `from pipeline import Pipeline`: anybody may have a package of the name."""
    for node in _imports(tree):
        if isinstance(node, ast.ImportFrom):
            if node.module == "pipeline" and node.level == 0 and any(one.name == "Pipeline" for one in node.names):
                return True
        elif any(one.name == "pipeline" for one in node.names):
            return "Pipeline" in _all_words(tree)
    return False


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
    path, name = _where_defined(folder, path, name)
    source = _text(path)
    if source is None:
        return UNKNOWN_CODE
    return examine(source, name, lambda tree, words: _neighbours(folder, path, tree, words))


def _where_defined(folder: Path, path: Path, name: str) -> tuple[Path, str]:
    """Where a handler that a module only imports has its source, as far as that is below the folder."""
    for _ in range(_MOST_IMPORTS):
        tree = _parsed(_text(path) or "")
        if tree is None or answers.function_of(tree, name) is not None:
            break
        for node in tree.body:
            aliases = [one for one in node.names if _alias(one) == name] if isinstance(node, ast.ImportFrom) else []
            if isinstance(node, ast.ImportFrom) and aliases:
                alone = ast.Module([ast.ImportFrom(node.module, aliases, node.level)], [])
                found = next(_imported(folder, path, alone, None), None)
                if found is not None:
                    path, name = found, aliases[0].name
                    break
        else:
            break
    return path, name


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
    for node in _imports(tree):
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


@lru_cache(maxsize=2 * _MOST_FILES)
def _imports(tree: ast.Module) -> list[ast.Import | ast.ImportFrom]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


def _text(path: Path) -> str | None:
    try:
        if path.stat().st_size > _MOST_BYTES:
            return None
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
