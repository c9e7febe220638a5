"""
Shared state for services, on any store: keys with values, locks and their kin, quotas, timestamps.

Everything here stands on the promise of :mod:`unisono.store.base` and knows no engine; HTTP, the command
line and the SDK stand on top. Start at :mod:`.kv`, :mod:`.locks`, :mod:`.quotas`, :mod:`.oracle`; how their
errors are sorted is in :mod:`.errors`.
"""
