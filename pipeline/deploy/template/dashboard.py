"""The dashboard of a stack: a row for each function, from its source to its failures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pipeline.aws.cloudformation.stack import Graph, Series, Stack
from pipeline.aws.cloudformation.values import Sub, inside

_WIDTH, _HEIGHT = 8, 6
#: A dashboard is 24 units wide.
_COLUMNS = 24 // _WIDTH


def add(stack: Stack, titles: Mapping[str, str]) -> None:
    """Add the dashboard; `titles`: what stands above each function's row."""
    widgets: list[dict[str, Any]] = []
    y = 0
    for function, title in titles.items():
        widgets.append(
            {
                "type": "text",
                "x": 0,
                "y": y,
                "width": 24,
                "height": 1,
                "properties": {"markdown": f"## {inside(title)}"},
            }
        )
        graphs = [graph for graph in stack.graphs if graph.row == function]
        for position, graph in enumerate(graphs):
            row, column = divmod(position, _COLUMNS)
            place = {"x": column * _WIDTH, "y": y + 1 + row * _HEIGHT, "width": _WIDTH, "height": _HEIGHT}
            widgets.append({"type": "metric", **place, "properties": _properties(graph)})
        y += 1 + -(-len(graphs) // _COLUMNS) * _HEIGHT
    lines = ",\n".join(json.dumps(widget, ensure_ascii=False) for widget in widgets)
    body = Sub(f'{{"widgets": [\n{lines}\n]}}\n')
    stack.begin("what one looks at first")
    stack.add(
        "Dashboard", "AWS::CloudWatch::Dashboard", {"DashboardName": Sub("${AWS::StackName}"), "DashboardBody": body}
    )
    address = "https://console.aws.amazon.com/cloudwatch/home?region=${AWS::Region}#dashboards:name=${Dashboard}"
    stack.outputs["DashboardUrl"] = {"Description": "The dashboard", "Value": Sub(address)}


def _properties(graph: Graph) -> dict[str, Any]:
    return {
        "title": inside(graph.title),
        "region": "${AWS::Region}",
        "view": "timeSeries",
        "period": 300,
        "metrics": [_metric(series) for series in graph.series],
    }


def _metric(series: Series) -> list[Any]:
    dimensions = [text for name, value in series.dimensions.items() for text in (name, inside(value))]
    return [series.namespace, series.metric, *dimensions, {"stat": series.statistic}]
