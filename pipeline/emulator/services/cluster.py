"""A Kafka cluster in memory: its topics, by their names."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.emulator.services.service import ACCOUNT, REGION, ServiceError
from pipeline.emulator.services.topic import RETENTION, Headers, Topic, TopicRecord
from pipeline.ports import Clock

_PLACE = f"arn:aws:kafka:{REGION}:{ACCOUNT}"
_NAME = "emulator/00000000-0000-4000-8000-000000000000-1"
#: As Amazon MSK names a cluster.
CLUSTER_ARN = f"{_PLACE}:cluster/{_NAME}"


def topic_arn(name: str) -> str:
    """As Amazon MSK names a topic, in policies."""
    return f"{_PLACE}:topic/{_NAME}/{name}"


class Cluster:
    """`happened` is called after each record that is written."""

    def __init__(self, clock: Clock, happened: Callable[[], None]) -> None:
        self._clock = clock
        self._happened = happened
        self._topics: dict[str, Topic] = {}

    def create(self, name: str, *, partitions: int = 1, retention: float = RETENTION) -> Topic:
        """Make a topic. Raises `ServiceError`: TOPIC_ALREADY_EXISTS."""
        if name in self._topics:
            raise ServiceError("TOPIC_ALREADY_EXISTS", f"topic {name}")
        self._topics[name] = Topic(name, partitions=partitions, retention=retention)
        return self._topics[name]

    def topic(self, name: str) -> Topic:
        """The topic of this name. Raises `ServiceError`: UNKNOWN_TOPIC_OR_PARTITION."""
        if name not in self._topics:
            raise ServiceError("UNKNOWN_TOPIC_OR_PARTITION", f"there is no topic {name}")
        return self._topics[name]

    def append(
        self,
        name: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Headers = (),
        partition: int | None = None,
        timestamp: float | None = None,
    ) -> TopicRecord:
        """Write a record now; see `Topic.append`."""
        now, topic = self._clock.now(), self.topic(name)
        record = topic.append(value, now, key=key, headers=headers, partition=partition, timestamp=timestamp)
        self._happened()
        return record
