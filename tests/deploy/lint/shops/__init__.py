"""Pipelines that the templates beside are held against."""
