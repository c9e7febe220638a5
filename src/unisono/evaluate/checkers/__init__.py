"""
Checkers: do these histories keep what was promised? Pure functions; each gives a :class:`.verdict.Verdict`.

:mod:`.linearizability` searches an order that explains registers; :mod:`.sessions` looks at what each client
saw, :mod:`.orders` at tokens and timestamps, :mod:`.holdings` at locks and quotas, :mod:`.watches` at events.
"""
