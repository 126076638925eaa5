"""The graph of a few pipelines: a value that every picture is written from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from pipeline.errors import PipelineError


class Kind(Enum):
    """What a node is. The value begins its id and names its class in pictures."""

    HANDLER = "handler"
    QUEUE = "sqs"
    FIFO = "fifo"
    STREAM = "kinesis"
    TABLE = "dynamodb"
    BUS = "eventbridge"
    BUCKET = "s3"
    FILE = "file"
    MEMORY = "memory"
    SOURCE = "source"  #: a user's own
    SINK = "sink"  #: a user's own


@dataclass(frozen=True, kw_only=True)
class Node:
    """A handler, or a resource that handlers read or write."""

    id: str  #: ASCII letters, digits and `_`; unique among nodes and clusters
    kind: Kind
    caption: str  #: what the kind is called: "SQS FIFO", or the type of a user's own object
    name: str  #: as declared; any text
    details: tuple[str, ...] = ()  #: a line each; any text
    cluster: str | None = None  #: the id of its pipeline; None for what several pipelines use
    is_dead_letters: bool = False  #: a dead-letter queue

    @property
    def label(self) -> str:
        """What it is, in words."""
        return f"{self.caption}, dead letters" if self.is_dead_letters else self.caption


@dataclass(frozen=True, kw_only=True)
class Edge:
    """The way of records from a node to another; one of the two is a handler."""

    start: str
    end: str
    details: tuple[str, ...] = ()
    is_rejects: bool = False  #: for records that will never succeed


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """One pipeline."""

    id: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Nodes and edges in the order declared; every edge joins two of the nodes."""

    clusters: tuple[Cluster, ...]
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    def __post_init__(self) -> None:
        known = {node.id for node in self.nodes}
        for edge in self.edges:
            if missing := {edge.start, edge.end} - known:
                raise PipelineError(f"an edge joins {min(missing)}, which is no node of the graph")

    @property
    def has_clusters(self) -> bool:
        """True when pipelines have to be told apart."""
        return len(self.clusters) > 1
