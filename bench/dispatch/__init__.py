"""How well requests are handed to instances: one script for each claim, beside the peers in bench.peers."""
