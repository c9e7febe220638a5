"""
Shared state over HTTP: one file for each thing that services share, all of them thin.

What they mean is :mod:`unisono.state`'s; whose state a caller sees is :mod:`.rooms`'.
"""
