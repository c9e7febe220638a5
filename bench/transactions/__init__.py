"""
Transactions: how many a second, how long a phase takes, how soon they go on after a crash, what is kept of
them, and M4 beside the figures.

``python -m bench.transactions``, or with the names of some of its parts: a node of its own on SQLite with
full sync, participants in processes of their own, and 64 initiators in this process, all over HTTP and on
the same two cores.
"""
