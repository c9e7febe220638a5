"""
Operations over several services that happen wholly or not at all: saga, TCC, XA, and messages.

:mod:`.machine` is the one state machine, pure; :mod:`.coordinator` runs it on a store and over HTTP.
HTTP, the command line and the SDK stand on top. Start at :mod:`.modes`, :mod:`.states` and :mod:`.machine`.

From its begin to its end a transaction meets: :mod:`.submission` and :mod:`.admission`, which may refuse it;
:mod:`.log`, which makes it durable; :mod:`.running` and its :mod:`.attempts`, each over :mod:`.participants`
and :mod:`.calls`, its answer read by :mod:`.answers`; after a crash :mod:`.takeover`; and :mod:`.retention`.
"""
