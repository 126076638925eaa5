"""Lanes that a source itself defines: `lane=by.message_group`, `by.shard` or `by.partition_key`."""

from __future__ import annotations

from msgspec import Struct


class SourceOrder(Struct, frozen=True):
    """One of a source's own orders, by name."""

    name: str


#: The FIFO message group (the default on FIFO queues).
message_group = SourceOrder("message_group")
#: The shard: strict order of everything in it.
shard = SourceOrder("shard")
#: The partition key (the default on streams).
partition_key = SourceOrder("partition_key")
