"""Decisions: pure functions over values. No clock, no I/O, no event loop, no AWS."""
