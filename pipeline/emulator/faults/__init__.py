"""Faults on demand: what AWS does to a program now and then, by a seed or named one by one."""
