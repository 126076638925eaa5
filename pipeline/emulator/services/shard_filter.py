"""Which shards of a stream a list has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.emulator.services.shards import Shard
from pipeline.emulator.services.stream_parameters import bad_argument, moment_of, violation

Parameters = Mapping[str, Any]


def filtered(shards: Sequence[Shard], chosen: Parameters | None, *, horizon: float) -> list[Shard]:
    """The shards that a `ShardFilter` asks for, by the API model's text on it.

    `horizon`: since when records are kept, epoch seconds; not before the stream was made.
    """
    match (chosen or {}).get("Type", "FROM_TRIM_HORIZON"):
        case "FROM_TRIM_HORIZON":
            return list(shards)
        case "AT_LATEST":
            return [shard for shard in shards if shard.is_open]
        case "AT_TRIM_HORIZON":
            found = [shard for shard in shards if _was_open(shard, horizon)]
            # Of shards that followed each other within an instant, the first ones.
            names = {shard.id for shard in found}
            return [shard for shard in found if names.isdisjoint(shard.parents)]
        case "AT_TIMESTAMP":
            moment = moment_of((chosen or {}).get("Timestamp"), "ShardFilter.Timestamp")
            return [shard for shard in shards if _was_open(shard, moment)]
        case "FROM_TIMESTAMP":
            moment = max(horizon, moment_of((chosen or {}).get("Timestamp"), "ShardFilter.Timestamp"))
            return [shard for shard in shards if shard.closed_at is None or shard.closed_at >= moment]
        case "AFTER_SHARD_ID":
            after = (chosen or {}).get("ShardId")
            if after is None:
                raise bad_argument("ShardFilter of type AFTER_SHARD_ID needs ShardId")
            return behind(shards, after)
        case _:
            raise violation("shardFilter.type", "Member must satisfy enum value set")


def _was_open(shard: Shard, moment: float) -> bool:
    return shard.opened_at <= moment and (shard.closed_at is None or shard.closed_at >= moment)


def behind(shards: Iterable[Shard], after: str | None) -> list[Shard]:
    """Those with a greater id; all without one."""
    return [shard for shard in shards if after is None or shard.id > after]
