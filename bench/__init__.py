"""Measurements of what unisono promises: one module per claim, each runs alone as ``python -m bench.NAME``."""
