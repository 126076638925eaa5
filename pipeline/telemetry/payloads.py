"""Payloads for log lines, masked by path. Imported only where somebody asked for them.

Powertools' `DataMasking().erase` has the same paths and is not used: it leaves a payload that is not shaped as expected
as it is (`{"card": "4111"}` and `{"card": [{"number": "4111"}]}` for the path `card.number`), and such records are the
ones that fail. It also parses each path at every call, which takes milliseconds, and 200 ms of CPU to import.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.decisions.codec import loads
from pipeline.errors import ConfigurationError
from pipeline.record import RawRecord

#: What stands in place of a masked value, as Powertools has it.
MASK = "*****"
#: Bytes of the longest body that is written. A line is cut at 200,000 and an event of CloudWatch Logs ends at 1 MB; 100
#: of these are as much as a batch may write of one event.
LONGEST = 16_384

#: What some writers put before JSON: its own spaces, and a byte order mark.
_BEFORE_JSON = " \t\r\n\ufeff"

_STEP = re.compile(
    r"""
    (?P<deep>\.\.)?                             # at any depth
    (?:
        \.?\[(?P<index>\d+)\]                   # an item
      | \.?\[\*\] | \.?(?P<all>\*)(?=[.\[]|$)   # all items, or all members
      | \.?\[(?P<quote>['"])(?P<quoted>.+?)(?P=quote)\]
      | \.?(?P<name>[^\s.\[\]*'"`$?,|()]+)      # a member
    )
    """,
    re.VERBOSE,
)


class Payloads:
    """Reads the payloads of records, and masks what stands at paths.

    `paths`: as in JSONPath: `card.number`, `items[*].secret`, `items[0].note`, `customer.*`, `$..password` at any depth,
    `['a.b'].c`. Raises `ConfigurationError` for what is no such path: a secret must not get out by a misprint.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        if isinstance(paths, str) or not isinstance(paths, Sequence):
            raise ConfigurationError(f"log_payloads={paths!r}: give a list of paths, such as ['card.number']")
        self._paths = [list(_steps(path)) for path in paths]

    def __call__(self, raw: RawRecord) -> dict[str, Any]:
        """A record's `payload` for its line, or `payload_error`: why it is not there. Never raises.

        What is no JSON is not written, because no path masks anything in it.
        """
        try:
            body = raw.body if isinstance(raw.body, bytes) else raw.body.encode()
            if len(body) > LONGEST:
                return {"payload_error": f"{len(body)} bytes: at most {LONGEST} are written"}
            return {"payload": self.masked(loads(body))}
        except ValueError:
            return {"payload_error": "no JSON"}
        except Exception as error:
            return {"payload_error": type(error).__name__}

    def masked(self, value: Any) -> Any:
        """A decoded payload, masked in place. What a path leads to is masked whatever it is.

        What has another shape than a path says is masked as a whole, from where it differs: `card.number` masks a
        `card` that is text. A member that is missing, and null where an object is expected, hide nothing. `$..password`
        masks each text that has `password` in it or looks like JSON, as a whole.
        """
        for steps in self._paths:
            value = _masked(value, steps, 0)
        return value


class _Deep:
    """A step to each member of a name, at any depth."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class _All:
    """A step to all members, or all items."""


_ALL = _All()
_Step = str | int | _Deep | _All


def _steps(path: object) -> Iterator[_Step]:
    if not isinstance(path, str):
        raise ConfigurationError(f"log_payloads: {path!r} is no path: give text, such as 'card.number'")
    at = len("$") if path.startswith("$") else 0
    if at == len(path):
        raise _no_path(path, at)
    while at < len(path):
        step = _STEP.match(path, at)
        if step is None or (at == 0 and step[0].startswith(".")) or step[0].startswith("..."):
            raise _no_path(path, at)
        if at > 0 and step["name"] is not None and not step[0].startswith("."):
            raise _no_path(path, at)
        name = step["name"] or step["quoted"]
        if step["deep"] and name is None:
            raise _no_path(path, at)
        if name is not None:
            yield _Deep(name) if step["deep"] else name
        elif step["index"] is not None:
            yield int(step["index"])
        else:
            yield _ALL
        at = step.end()


def _no_path(path: str, at: int) -> ConfigurationError:
    return ConfigurationError(
        f"log_payloads: {path!r} is no path, at character {at + 1}: write it like 'card.number', 'items[*].secret', "
        "'items[0].note', '$..password' or \"['a.b'].c\"; there are no filters and no ranges"
    )


def _masked(value: Any, steps: Sequence[_Step], at: int) -> Any:
    """The value with what the steps from `at` on lead to masked; containers are changed in place."""
    if at == len(steps):
        return MASK
    step = steps[at]
    if isinstance(step, _Deep):
        return _mask_deep(value, step.name, steps, at)
    if value is None:
        return None
    if isinstance(step, str) and isinstance(value, dict):
        if step in value:
            value[step] = _masked(value[step], steps, at + 1)
    elif isinstance(step, str) and isinstance(value, list):  # several where one was expected
        value[:] = [_masked(item, steps, at) for item in value]
    elif isinstance(step, _All) and isinstance(value, dict):
        for name, member in value.items():
            value[name] = _masked(member, steps, at + 1)
    elif isinstance(step, _All) and isinstance(value, list):
        value[:] = [_masked(item, steps, at + 1) for item in value]
    elif isinstance(step, int) and isinstance(value, list):
        if step < len(value):
            value[step] = _masked(value[step], steps, at + 1)
    else:
        return MASK
    return value


def _mask_deep(value: Any, name: str, steps: Sequence[_Step], at: int) -> Any:
    """The value with each member of the name masked, at any depth; containers are changed in place."""
    if isinstance(value, str):
        return MASK if _may_hold(value, name) else value
    if isinstance(value, dict):
        for other, member in value.items():
            value[other] = _mask_deep(member, name, steps, at)
        if name in value:
            value[name] = _masked(value[name], steps, at + 1)
    elif isinstance(value, list):
        value[:] = [_mask_deep(item, name, steps, at) for item in value]
    return value


def _may_hold(text: str, name: str) -> bool:
    """True for a text with the name in it, and for what looks like JSON: that may write the name in escapes."""
    return name in text or text.lstrip(_BEFORE_JSON).startswith(("{", "[", '"'))
