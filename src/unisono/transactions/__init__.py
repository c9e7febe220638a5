"""
Operations over several services that happen wholly or not at all: saga, TCC, XA, and messages.

:mod:`.machine` is the one state machine, pure; :mod:`.coordinator` runs it on a store and over HTTP.
HTTP, the command line and the SDK stand on top. Start at :mod:`.modes` and :mod:`.machine`.
"""
