"""The engine: from a batch to its result, over ports. It knows asyncio, and never AWS."""
