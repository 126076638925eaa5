"""From pipelines to their graph."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import replace

from pipeline.app import Pipeline
from pipeline.deploy.graph import places
from pipeline.deploy.graph.model import Cluster, Edge, Graph, Kind, Node
from pipeline.deploy.graph.names import Ids, spec_text
from pipeline.deploy.graph.places import Place
from pipeline.engine.stage import Stage


def graph_of(pipelines: Iterable[Pipeline]) -> Graph:
    """The graph of what the pipelines declare; one resource is one node, whoever names it.

    Raises `ConfigurationError` where a pipeline cannot be assembled.
    """
    drawn = _Drawn()
    for pipeline in pipelines:
        drawn.add(pipeline)
    return Graph(clusters=tuple(drawn.clusters), nodes=tuple(drawn.nodes.values()), edges=tuple(drawn.edges))


class _Drawn:
    """The graph while it is being made."""

    def __init__(self) -> None:
        self.clusters: list[Cluster] = []
        self.nodes: dict[Hashable, Node] = {}  #: by what they stand for, in the order declared
        self.edges: list[Edge] = []
        self._ids = Ids()

    def add(self, pipeline: Pipeline) -> None:
        cluster = Cluster(id=self._ids.new("pipeline", pipeline.name), name=pipeline.name)
        self.clusters.append(cluster)
        for stage in pipeline.stages():
            self._add_stage(stage, cluster.id)

    def _add_stage(self, stage: Stage, cluster: str) -> None:
        source = self._place(places.of_source(stage.source), cluster)
        handler = Node(
            id=self._ids.new(Kind.HANDLER.value, stage.name),
            kind=Kind.HANDLER,
            caption="handler",
            name=stage.name,
            details=_keys(stage),
            cluster=cluster,
        )
        self.nodes["handler", handler.id] = handler
        self.edges.append(Edge(start=source, end=handler.id, details=places.read_details(stage.source)))
        for sink in stage.sinks:
            end = self._place(places.of_sink(sink), cluster)
            self.edges.append(Edge(start=handler.id, end=end, details=places.write_details(sink)))
        end = self._place(places.of_dead_letters(stage), cluster)
        self.edges.append(Edge(start=handler.id, end=end, details=("rejected",), is_rejects=True))

    def _place(self, place: Place, cluster: str) -> str:
        """The id of a place's node, which is new, or is another declaration's too."""
        node = self.nodes.get(place.key)
        if node is None:
            node = Node(
                id=self._ids.new(place.kind.value, place.name),
                kind=place.kind,
                caption=place.caption,
                name=place.name,
                cluster=cluster,
            )
        self.nodes[place.key] = replace(
            node,
            details=tuple(dict.fromkeys((*node.details, *place.details))),
            cluster=cluster if node.cluster == cluster else None,
            is_dead_letters=node.is_dead_letters or place.is_dead_letters,
        )
        return node.id


def _keys(stage: Stage) -> tuple[str, ...]:
    key = () if stage.declared_key is None else (f"key {spec_text(stage.declared_key)}",)
    lane = () if stage.declared_lane is None else (f"lane {spec_text(stage.declared_lane)}",)
    return key + lane
