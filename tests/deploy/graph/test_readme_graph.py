"""The README's picture is what the command makes of handlers/."""

from __future__ import annotations

import re
from pathlib import Path

from handlers.logs import logs
from handlers.webhooks import webhooks
from pipeline.deploy.graph import mermaid
from pipeline.deploy.graph.declared import graph_of

README = Path(__file__).parents[3] / "README.md"


def test_the_readmes_picture_is_what_the_handlers_declare() -> None:
    (shown,) = re.findall(r"^```mermaid\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert shown == mermaid.write(graph_of([logs, webhooks])), "pipeline graph handlers"
