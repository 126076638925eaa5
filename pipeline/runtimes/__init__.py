"""Runtimes: what drives the engine. Each turns its own events into batches, and results into answers."""
