"""
Pure mathematics of services under load: the models M1 to M5, one file each. Imports nothing of ours.

M6, merging timestamps by the maximum, is the rule of the clocks in :mod:`unisono.timestamps`.
"""
