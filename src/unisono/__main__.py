"""``python -m unisono`` is the command ``unisono``."""

from unisono.cli.entry import main

main()
