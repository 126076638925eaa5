"""What every sink's declaration has in common."""

from __future__ import annotations

from pipeline.errors import ConfigurationError, SinkRefused
from pipeline.outcome import text_of


def assign(target: object, **fields: object) -> None:
    """Set the fields of a frozen dataclass from its own `__init__`."""
    for name, value in fields.items():
        object.__setattr__(target, name, value)


def check_name(name: object, declared: str) -> None:
    """A sink's `name=` is None or a text."""
    if name is not None and (not isinstance(name, str) or not name):
        raise ConfigurationError(f"{declared}(name={name!r}): give a name for `Emit(to=)`, or leave it out")


def check_when(when: object, declared: str) -> None:
    """A sink's `when=` is None or a function."""
    if when is not None and not callable(when):
        raise ConfigurationError(f"{declared}(when={when!r}): give a function of the value that says True to take it")


def refusal(error: Exception) -> SinkRefused:
    """Why one output cannot be written: it fails alone, not the others of its call."""
    if isinstance(error, SinkRefused):
        return error
    return SinkRefused(f"the output cannot be written: {type(error).__name__}: {text_of(error)}")
