"""``python -m unisono.daemon`` runs a node."""

import sys

from unisono.daemon.program import main

sys.exit(main())
