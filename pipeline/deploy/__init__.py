"""Deploying a pipeline: its template, its graph, its package, and the checking of templates."""
