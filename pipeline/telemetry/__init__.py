"""Telemetry: frozen facts from the engine, and the writers that turn them into output."""
