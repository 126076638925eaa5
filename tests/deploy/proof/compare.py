"""Whether what stands in the account is what the template asks for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any


def differences(asked: Any, found: Any, path: str = "") -> Iterator[str]:
    """One line for each value that is missing or different. What was not asked for is a service's default."""
    if isinstance(asked, dict):
        if not isinstance(found, dict):
            yield f"{path}: asked {_short(asked)}, found {_short(found)}"
            return
        for name, value in asked.items():
            yield from differences(value, found.get(name), f"{path}.{name}".lstrip("."))
    elif isinstance(asked, list):
        if not isinstance(found, list) or len(asked) != len(found):
            yield f"{path}: asked {_short(asked)}, found {_short(found)}"
            return
        for position, (one, other) in enumerate(zip(asked, found, strict=True)):
            yield from differences(one, other, f"{path}[{position}]")
    elif not _same(asked, found):
        yield f"{path}: asked {_short(asked)}, found {_short(found)}"


def _same(asked: Any, found: Any) -> bool:
    """CloudFormation and the APIs spell numbers and truth in several ways: 181, "181", 181.0; true, "true"."""
    if found is None:
        return False
    return asked == found or _plain(asked) == _plain(found)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _short(value: Any) -> str:
    return json.dumps(value, default=str)[:300]
