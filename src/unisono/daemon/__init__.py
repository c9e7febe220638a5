"""
The node as a program: puts the rooms together, starts them in order, and ends them in reverse.

``python -m unisono.daemon`` is what ``unisono node`` and ``unisono up`` run. Nothing is decided here but
the order, and what an end means:

* SIGTERM, SIGINT and ``POST /v1/node/stop`` end the node alone. Gateway and instances run on, and the
  next node adopts them.
* A node started with ``--ends-when-empty``, as ``unisono up`` does, ends once its last application has
  been removed, and takes the gateway along: nothing is left.
* A long-lived task that ends by itself is a fault, and the node ends with it.

:mod:`.program` reads the arguments, :mod:`.first` starts what others wait for (the store, transactions that
were open), and only then is :mod:`.rooms`, the rest of a node, imported: that takes as long as all before.
"""

from unisono.daemon.program import main

__all__ = ["main"]
