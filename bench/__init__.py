"""Measurements of what unisono promises: a module per claim, each runs alone: ``python -m bench.NAME``."""
