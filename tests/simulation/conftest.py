"""What simulations of an emulator share."""

from __future__ import annotations

import logging
from collections.abc import Generator

import pytest


@pytest.fixture
def silent() -> Generator[None, None, None]:
    """An emulator says what goes wrong, and nearly everything does."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
