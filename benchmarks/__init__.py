"""Measurements beside peers: both sides in one run, as CPU time, as ratios."""
