"""
unisono: a file of services becomes running instances that answer in real time and agree.

Importing this package is cheap on purpose: it brings in nothing else, so that the gateway and an
instance start fast. Rooms are imported by name.
"""

__version__ = "0.1.0"
